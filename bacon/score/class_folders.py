"""Which class each folder of pictures means: by numbers in their names, or by the classes' names.

People write `7`, `007`, `class7`, `img_class_07`, `7_horse`, `horse`, `Horse`, `T-shirt_top`. A
number counts where the text before it or after it is the same in all names; a name whatever its
case, spaces, hyphens and underscores.
"""

import dataclasses
import re
import unicodedata

from bacon.errors import UserError
from bacon.recipes import IMAGE_FOLDER

# Names in use beside the datasets' own, as `key` makes them: PyTorch's tutorial has plane and car.
ALIASES = {
    "plane": "airplane",
    "aeroplane": "airplane",
    "car": "automobile",
    "auto": "automobile",
    "tshirt": "tshirttop",
    "trousers": "trouser",
    "sandals": "sandal",
    "sneakers": "sneaker",
    "boot": "ankleboot",
    "ankleboots": "ankleboot",
}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WNID = re.compile(r"n\d{8}(?!\d)")  # ImageNet's number of a class


@dataclasses.dataclass(frozen=True)
class Order:
    """labels: the class of each folder, in the folders' order. how: found by what, in words."""

    labels: list
    how: str


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Folder names as numbers, and what else they say: texts, "" where that is the same in all."""

    numbers: list
    texts: list


def key(name):
    """A name without what people write in different ways: case, spaces, hyphens and other marks."""
    name = unicodedata.normalize("NFC", str(name)).casefold()
    return re.sub(r"[\W_]", "", name)


def order_of(folder, names, facts):
    """The `Order` of class folders.

    folder: where they are, for messages. names: of all of them. facts: a `sets.Facts`. UserError if
    there are not as many as classes, where some are named as classes and others are not, and where
    numbers contradict names.
    """
    classes = facts.num_classes
    if len(names) != classes:
        text = f"{len(names)} class folders, but {facts.dataset} has {classes} classes"
        raise UserError(f"{folder}: {text}")
    wnids = all(WNID.match(name) for name in names)
    numbered = None if wnids else _numbered(names)
    own = facts.dataset == IMAGE_FOLDER  # whose classes may have numbers that are names, no labels
    if not own and numbered and not any(numbered.texts) and _from(0, numbered):
        return Order(numbered.numbers, "by their numbers")
    known = _Names(facts)
    found = [known.label(name) for name in names]
    if None not in found:
        _refuse_twice(folder, names, found)
        return Order(found, "named as its classes are")
    if numbered:
        return _by_number(folder, names, numbered, known, facts)
    if any(label is not None for label in found):
        _refuse_part(folder, names, found, facts)
    if wnids:
        return Order(_ranks(names), "in the order of their wnids")
    return Order(_ranks(names), "in sorted order, none is named as a class")


class _Names:
    """The names of a dataset's classes, to look folders up."""

    def __init__(self, facts):
        self.names = [str(name) for name in facts.names()]
        self._label_of = {}
        self._twice = set()
        for label, name in enumerate(self.names):
            self._add(key(name), label)
        for label, name in enumerate(self.names):
            match = re.fullmatch(r"(\d)(\D*)", key(name))  # 7, and MNIST's '7 - seven'
            if match:
                self._add_new(match[1], label)
                self._add_new(WORDS[int(match[1])], label)
        for alias, name in ALIASES.items():
            if name in self._label_of:
                self._add_new(alias, self._label_of[name])
        self.exact = {name: label for label, name in enumerate(self.names)}

    def _add(self, name, label):
        if name in self._label_of:
            self._twice.add(name)
        self._label_of[name] = label

    def _add_new(self, name, label):
        self._label_of.setdefault(name, label)

    def label(self, folder):
        """The class that a folder is named as, or None: none, or several."""
        if folder in self.exact:
            return self.exact[folder]
        name = key(folder)
        return self._label_of.get(name) if name not in self._twice else None

    def are_digits(self):
        """Whether the classes are the digits 0 to 9, each by its label."""
        return [self._label_of.get(word) for word in WORDS] == list(range(len(self.names)))


def _numbered(names):
    """The folder names as `Numbered`, by the first place where all have a number, or None."""
    parts = [re.split(r"(\d+)", name) for name in names]  # text, number, text, number, ..., text
    fewest = min(len(of_name) for of_name in parts)
    for place in range(1, fewest, 2):
        before = ["".join(of_name[:place]) for of_name in parts]
        after = ["".join(of_name[place + 1 :]) for of_name in parts]
        if len(set(before)) == 1:
            found = _distinct([of_name[place] for of_name in parts], after)
            if found:
                return found
    for place in range(2, fewest + 1, 2):  # counted from the end
        before = ["".join(of_name[:-place]) for of_name in parts]
        after = ["".join(of_name[len(of_name) - place + 1 :]) for of_name in parts]
        if len(set(after)) == 1:
            found = _distinct([of_name[-place] for of_name in parts], before)
            if found:
                return found
    return None


def _distinct(numbers, texts):
    """The `Numbered` of digits and of the text beside them; None if they do not count classes."""
    if len(set(texts)) == 1:
        texts = [""] * len(texts)
    found = Numbered([int(number) for number in numbers], texts)
    bare = not any(texts)  # nothing but numbers: whichever they are, they are no names
    if bare or _from(0, found) or _from(1, found):
        return found
    return None


def _from(first, numbered):
    """Whether the numbers are all those from `first` on, each once."""
    return sorted(numbered.numbers) == list(range(first, first + len(numbered.numbers)))


def _by_number(folder, names, numbered, known, facts):
    classes = facts.num_classes
    numbers = numbered.numbers
    found = [known.label(text) if text else None for text in numbered.texts]
    if _from(0, numbered):
        labels = numbers
        how = "by their numbers"
    elif not _from(1, numbered):
        text = f"numbered {min(numbers)}..{max(numbers)}, with some missing or twice"
        raise UserError(f"{folder}: the class folders are {text}; number them 0..{classes - 1}")
    elif known.are_digits() and facts.dataset != "SVHN":
        text = f"numbered 1..{classes}, but {facts.dataset} has the digits 0..{classes - 1}"
        raise UserError(f"{folder}: the class folders are {text}; number them as these")
    elif known.are_digits():
        labels = [number % classes for number in numbers]
        how = f"by their numbers, {classes} is the digit 0 as in the official files"
    else:
        labels = [number - 1 for number in numbers]
        how = f"by their numbers 1..{classes}, less one"
    for name, label, named in zip(names, labels, found, strict=True):
        if named not in (None, label):
            text = f"by its number it is class {label} ({known.names[label]})"
            text += f", by its name class {named} ({known.names[named]}); rename the class folders"
            raise UserError(f"{folder}/{name}: {text}")
    if facts.dataset == IMAGE_FOLDER and not any(numbered.texts):
        own = _numbered(known.names)  # the classes' own numbers are names: they must say the same
        if own and own.numbers != list(range(classes)):
            text = "are numbered, and so are the classes, but in another order"
            example = known.names[0]
            raise UserError(f"{folder}: the class folders {text}; name them as these, as {example}")
    return Order(labels, how)


def _ranks(names):
    ranked = sorted(names)
    return [ranked.index(name) for name in names]


def _refuse_twice(folder, names, found):
    first = {}
    for name, label in zip(names, found, strict=True):
        if label in first:
            text = f"{first[label]} and {name} are folders of the same class; put them together"
            raise UserError(f"{folder}: {text}")
        first[label] = name


def _refuse_part(folder, names, found, facts):
    matched = [name for name, label in zip(names, found, strict=True) if label is not None]
    strange = [name for name, label in zip(names, found, strict=True) if label is None]
    classes = [str(name) for name in facts.names()]
    missing = [name for label, name in enumerate(classes) if label not in found]
    text = f"{len(matched)} class folders are named as {facts.dataset}'s classes ({_some(matched)})"
    text += f", {len(strange)} are not ({_some(strange)}); there is no folder for {_some(missing)}"
    raise UserError(f"{folder}: {text}; rename them, or number all 0..{facts.num_classes - 1}")


def _some(names):
    shown = ", ".join(names[:10])
    return shown + (f" and {len(names) - 10} others" if len(names) > 10 else "")
