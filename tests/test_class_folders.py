"""Facts about class folders of pictures: which class each one means, by numbers or by names."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from bacon.errors import UserError
from bacon.recipes import DATASETS, IMAGE_FOLDER, Spec
from bacon.score import class_folders, export, layouts, sets

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FASHION = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MNIST = [f"{c} - {word}" for c, word in enumerate(WORDS)]  # as torchvision names them
DIGITS = [str(c) for c in range(10)]
AS_TEXT = sorted(str(c) for c in range(12))


def facts(dataset, names):
    spec = Spec(1, (8, 8), len(names), (0.5,), (0.5,), 1, 1)
    return sets.Facts.of(dataset, spec, lambda: names)


def order(folders, dataset="CIFAR10", names=CIFAR10):
    return class_folders.order_of("x", folders, facts(dataset, names))


# what the folders are called, in the order of their labels; dataset and its classes
MEANT = {
    "class7": ([f"class{c}" for c in range(12)], "CIFAR100", list("abcdefghijkl")),
    "007": ([f"{c:03d}" for c in range(12)], "CIFAR100", list("abcdefghijkl")),
    "img_class_07": ([f"img_class_{c:02d}" for c in range(12)], "CIFAR100", list("abcdefghijkl")),
    "cifar10_class7": ([f"cifar10_class{c}" for c in range(10)], "CIFAR10", CIFAR10),
    "7_images": ([f"{c}_images" for c in range(12)], "CIFAR100", list("abcdefghijkl")),
    "7_horse": ([f"{c}_{name}" for c, name in enumerate(CIFAR10)], "CIFAR10", CIFAR10),
    "horse-7": ([f"{name}-{c}" for c, name in enumerate(CIFAR10)], "CIFAR10", CIFAR10),
    "pferd-7": ([f"{name}-{c}" for c, name in enumerate("zyxwvutsrq")], "CIFAR10", CIFAR10),
    "7_pferd": ([f"{c}_{name}" for c, name in enumerate("zyxwvutsrq")], "CIFAR10", CIFAR10),
    "names": (CIFAR10, "CIFAR10", CIFAR10),
    "capitals": ([name.title() for name in CIFAR10], "CIFAR10", CIFAR10),
    "plane, car": (["plane", "car", *CIFAR10[2:]], "CIFAR10", CIFAR10),
    "spaces": (
        ["aquarium fish", "Maple-Tree", "boy"], "CIFAR100", ["aquarium_fish", "maple_tree", "boy"],
    ),
    "marks": (
        ["potter_s_wheel", "go kart", "CD_player"], "TinyImageNet",
        ["potter's wheel", "go-kart", "CD player"],
    ),
    "T-shirt_top": ([re.sub(r"\W", "_", name) for name in FASHION], "FashionMNIST", FASHION),
    "tshirt": (["Tshirt", "Trousers", *FASHION[2:9], "boot"], "FashionMNIST", FASHION),
    "seven": (WORDS, "MNIST", MNIST),
    "seven of digits": (WORDS, "SVHN", DIGITS),
    "7 and eight": ([*DIGITS[:8], *WORDS[8:]], "MNIST", MNIST),
    "MNIST's 7 - seven": (MNIST, "MNIST", MNIST),
    "of this export": (
        [f"{c:03d}_{name.replace(' ', '_')}" for c, name in enumerate(MNIST)], "MNIST", MNIST,
    ),
    "from one": ([f"class{c + 1}" for c in range(10)], "CIFAR10", CIFAR10),
    "from one, named": ([f"{c + 1}_{name}" for c, name in enumerate(CIFAR10)], "CIFAR10", CIFAR10),
    "SVHN's ten": (["10", *DIGITS[1:]], "SVHN", DIGITS),
    "wnids": (["n01443537", "n01629819", "n01641577"], "TinyImageNet", ["fish", "newt", "frog"]),
    "wnids, named": (["n01443537_goldfish", "n01629819_x"], "TinyImageNet", ["goldfish", "newt"]),
    "own, numbers as text": (AS_TEXT, IMAGE_FOLDER, AS_TEXT),
    "own, numbered alike": (DIGITS, IMAGE_FOLDER, [f"c{c}" for c in range(10)]),
    "own, by numbers": (DIGITS[:3], IMAGE_FOLDER, ["cat", "dog", "emu"]),
    "numbers within words that differ": (
        [f"{letter}x{9 - c}{'pq'[c % 2]}" for c, letter in enumerate("abcdefghij")],
        "CIFAR10", CIFAR10,
    ),
    "own, exported": (["000_digit_3", "001_digit_7"], IMAGE_FOLDER, ["digit 3", "digit 7"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", MEANT)
def test_folders_mean_the_class_that_they_say(kind):
    folders, dataset, names = MEANT[kind]
    shuffled = np.random.default_rng(0).permutation(len(folders)).tolist()
    assert order([folders[c] for c in shuffled], dataset, names).labels == shuffled


@pytest.mark.parametrize(("count", "end"), [(10, "j"), (11, "j and 1 others"), (26, "16 others")])
def test_ten_names_are_shown_of_many(count, end):
    assert class_folders._some(list("abcdefghijklmnopqrstuvwxyz")[:count]).endswith(end)


def test_what_was_taken_for_granted_is_said():
    assert "1..10, less one" in order([str(c + 1) for c in range(10)]).how
    assert "10 is the digit 0" in order([str(c + 1) for c in range(10)], "SVHN", DIGITS).how
    in_order = class_folders.Order(list(range(10)), "in sorted order, none is named as a class")
    assert order(sorted("zyxwvutsrq")) == in_order


# folders that are refused, and words of the line
REFUSED = {
    "some": (
        ["plain", *CIFAR10[1:9], "lorry"], "CIFAR10", CIFAR10,
        ["plain, lorry", "airplane, truck", "bird"],
    ),
    "numbers and names": (
        [*DIGITS[:9], "truck"], "CIFAR10", CIFAR10, ["(truck)", "0, 1, 2", "airplane"],
    ),
    "number against name": (
        [f"{c}_{name}" for c, name in enumerate(CIFAR10[::-1])], "CIFAR10", CIFAR10,
        ["x/0_truck", "number it is class 0 (airplane)", "class 9 (truck)"],
    ),
    "from one against name": (
        [f"{c + 1}_{name}" for c, name in enumerate(CIFAR10[::-1])], "CIFAR10", CIFAR10,
        ["x/1_truck", "class 9 (truck)"],
    ),
    "digits from one": ([str(c + 1) for c in range(10)], "MNIST", MNIST, ["1..10", "digits 0..9"]),
    "a gap": ([str(c) for c in (*range(9), 10)], "CIFAR10", CIFAR10, ["0..10", "number them 0..9"]),
    "twice": (["7", "07", *DIGITS[:7], "8"], "CIFAR10", CIFAR10, ["twice"]),
    "one name twice": (
        ["Horse", "horse", *CIFAR10[:7], "ship"], "CIFAR10", CIFAR10, ["Horse and horse", "same"],
    ),
    "own numbers in another order": (
        [f"{c:02d}" for c in range(12)], IMAGE_FOLDER, sorted(f"c{c}" for c in range(12)),
        ["name them as", "c0"],
    ),
    "too few": (CIFAR10[:3], "CIFAR10", CIFAR10, ["3 class folders", "10 classes"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_folders_that_contradict_themselves_or_the_classes_are_one_line(kind):
    folders, dataset, names, words = REFUSED[kind]
    with pytest.raises(UserError) as error:
        order(folders, dataset, names)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_numbers_of_a_known_dataset_need_no_names():
    unread = sets.Facts.of("CIFAR10", DATASETS["CIFAR10"], None)  # which would load the real images
    found = class_folders.order_of("x", [f"class{c}" for c in range(10)], unread)
    assert found.labels == list(range(10))


@pytest.mark.parametrize(("count", "first"), [(12, "000_"), (1000, "000_"), (1002, "0000_")])
def test_exported_folders_are_in_label_order_for_every_number_of_classes(count, first, tmp_path):
    own = facts(IMAGE_FOLDER, [f"c{c}" for c in range(count)])
    levels = torch.arange(count) % 256 / 255
    canvases = (levels[:, None, None, None].expand(-1, 1, 8, 8) - 0.5) / 0.5
    saved = sets.SavedSet("x", 0, "DC", canvases, torch.arange(count), facts=own)
    export.export(saved, "png", tmp_path / "out")
    folder = ImageFolder(tmp_path / "out")
    assert folder.classes[0].startswith(first)
    for chosen in {9, 10, 101, 999, count - 1} & set(range(count)):
        path, label = folder.samples[chosen]
        with Image.open(path) as picture:
            assert (label, picture.getpixel((0, 0))[0]) == (chosen, chosen % 256)
    if count == 12:
        (again,) = layouts.read(layouts.recognise(tmp_path / "out"), own)
        assert again.labels.tolist() == list(range(count))


def test_classes_whose_names_differ_in_case_alone_are_told_apart_by_their_exact_names():
    names = ["crane", "Crane", "maillot", "maillot, tank suit"]
    found = order(["Crane", "maillot", "maillot, tank suit", "crane"], "x", names)
    assert found.labels == [1, 2, 3, 0]
    with pytest.raises(UserError, match=r"1 are not \(CRANE\)"):
        order(["CRANE", "crane", "maillot", "maillot, tank suit"], "x", names)
