"""Facts about names of classes: those of known datasets, and what is shown of a name."""

import os

import pytest
from torchvision import datasets

from bacon import recipes
from bacon.data import known_classes


def test_every_known_dataset_has_a_name_for_each_class(digits):
    assert known_classes.CLASSES.keys() == recipes.DATASETS.keys()
    for name, spec in recipes.DATASETS.items():
        assert len(set(known_classes.CLASSES[name])) == spec.num_classes
    assert list(known_classes.CLASSES["Digits"]) == digits.classes


def test_the_names_are_those_that_the_readers_give():
    assert list(known_classes.CLASSES["MNIST"]) == datasets.MNIST.classes
    assert list(known_classes.CLASSES["FashionMNIST"]) == datasets.FashionMNIST.classes
    assert known_classes.CLASSES["CIFAR10"][:2] == ("airplane", "automobile")
    assert list(known_classes.CLASSES["CIFAR100"]) == sorted(known_classes.CLASSES["CIFAR100"])
    assert (
        known_classes.CLASSES["TinyImageNet"][0] == "goldfish"
    )  # n01443537, the first of the sorted wnids


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("$x$ \u732b", "$x$ \u732b"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("a\nb\t", r"a\nb\t"),
        (7, "7"),
    ],
)
def test_a_name_is_shown_as_one_line_that_can_be_encoded(name, shown):
    assert known_classes.plain(name) == shown
    known_classes.plain(name).encode()


def test_every_character_is_shown_in_one_line_and_only_what_breaks_it_changes():
    for byte in range(0x80, 0x100):  # of a file name that is no UTF-8
        name = b"a" + bytes([byte])
        assert known_classes.plain(name.decode("utf-8", "surrogateescape")) == f"a\\x{byte:02x}"
    for code in (*range(0x3000), 0xD7FF, *range(0xD800, 0xDC80), 0xDD00, 0xE000, 0xFB01, 0x1F600):
        shown = known_classes.plain(chr(code))
        assert shown.encode() and shown.splitlines() == [shown]
        assert shown == chr(code) or not chr(code).isprintable()
