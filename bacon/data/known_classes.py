"""Names of classes: those of the known datasets, and how any name can be shown. No torch.

The names are those that torchvision's readers and TinyImageNet's words.txt give, in the order of
the labels, so that nobody needs a dataset's images for them.
"""

import unicodedata

_NUMBERS = tuple(map(str, range(10)))
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _listed(text):
    return tuple(" ".join(text.split()).split(", "))


CLASSES = {  # dataset: names
    "MNIST": tuple(f"{digit} - {word}" for digit, word in enumerate(_WORDS)),
    "FashionMNIST": _listed("""
    T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot
    """),
    "SVHN": _NUMBERS,
    "CIFAR10": _listed("""
    airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck
    """),
    "CIFAR100": _listed("""
    apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy,
    bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
    cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest,
    fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn_mower, leopard, lion, lizard,
    lobster, man, maple_tree, motorcycle, mountain, mouse, mushroom, oak_tree, orange, orchid,
    otter, palm_tree, pear, pickup_truck, pine_tree, plain, plate, poppy, porcupine, possum,
    rabbit, raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail,
    snake, spider, squirrel, streetcar, sunflower, sweet_pepper, table, tank, telephone,
    television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale, willow_tree, wolf,
    woman, worm
    """),
    "TinyImageNet": _listed("""
    goldfish, European fire salamander, bullfrog, tailed frog, American alligator, boa
    constrictor, trilobite, scorpion, black widow, tarantula, centipede, goose, koala, jellyfish,
    brain coral, snail, slug, sea slug, American lobster, spiny lobster, black stork, king
    penguin, albatross, dugong, Chihuahua, Yorkshire terrier, golden retriever, Labrador
    retriever, German shepherd, standard poodle, tabby, Persian cat, Egyptian cat, cougar, lion,
    brown bear, ladybug, fly, bee, grasshopper, walking stick, cockroach, mantis, dragonfly,
    monarch, sulphur butterfly, sea cucumber, guinea pig, hog, ox, bison, bighorn, gazelle,
    Arabian camel, orangutan, chimpanzee, baboon, African elephant, lesser panda, abacus, academic
    gown, altar, apron, backpack, bannister, barbershop, barn, barrel, basketball, bathtub, beach
    wagon, beacon, beaker, beer bottle, bikini, binoculars, birdhouse, bow tie, brass, broom,
    bucket, bullet train, butcher shop, candle, cannon, cardigan, cash machine, CD player, chain,
    chest, Christmas stocking, cliff dwelling, computer keyboard, confectionery, convertible,
    crane, dam, desk, dining table, drumstick, dumbbell, flagpole, fountain, freight car, frying
    pan, fur coat, gasmask, go-kart, gondola, hourglass, iPod, jinrikisha, kimono, lampshade, lawn
    mower, lifeboat, limousine, magnetic compass, maypole, military uniform, miniskirt, moving
    van, nail, neck brace, obelisk, oboe, organ, parking meter, pay-phone, picket fence, pill
    bottle, plunger, pole, police van, poncho, pop bottle, potter's wheel, projectile, punching
    bag, reel, refrigerator, remote control, rocking chair, rugby ball, sandal, school bus,
    scoreboard, sewing machine, snorkel, sock, sombrero, space heater, spider web, sports car,
    steel arch bridge, stopwatch, sunglasses, suspension bridge, swimming trunks, syringe, teapot,
    teddy, thatch, torch, tractor, triumphal arch, trolleybus, turnstile, umbrella, vestment,
    viaduct, volleyball, water jug, water tower, wok, wooden spoon, comic book, plate, guacamole,
    ice cream, ice lolly, pretzel, mashed potato, cauliflower, bell pepper, mushroom, orange,
    lemon, banana, pomegranate, meat loaf, pizza, potpie, espresso, alp, cliff, coral reef,
    lakeside, seashore, acorn
    """),
    "Digits": _NUMBERS,
}


def plain(name):
    """A name as one line of text that every output can encode.

    Bytes of a file name that are no UTF-8, which Python keeps as surrogates, and control
    characters become escapes such as \\xe9 and \\n; nothing else changes.
    """
    return "".join(map(_plain, str(name)))


def _plain(character):
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character
