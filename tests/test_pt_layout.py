"""Facts about datasets as .pt files: what they must hold, and what does not matter."""

import pickle

import pytest
import torch
from layouts import Bomb, fake, to_bytes, written
from loads import assert_holds, refused
from scripts import SMALL, run

from bacon.data import loading, pt_layout
from bacon.data.datasets import Spec
from bacon.errors import UserError


def test_storage_details_of_a_pt_do_not_matter(tmp_path):
    (images, labels), test = fake("CIFAR10")
    plain = pt_layout.layout([str(c) for c in range(10)], (images, labels), test)
    other = dict(
        plain,
        classes=tuple(range(10)),
        labels_train=plain["labels_train"].to(torch.uint8),
        more="ignored",
    )
    other["images_train"] = plain["images_train"].contiguous(memory_format=torch.channels_last)
    other["labels_val"] = plain["labels_val"].to(torch.int16)
    loaded = []
    for entries, legacy in ((plain, False), (other, False), (plain, True)):
        torch.save(entries, tmp_path / "cifar10.pt", _use_new_zipfile_serialization=not legacy)
        loaded.append(loading.load("CIFAR10", tmp_path))
        assert_holds(loaded[-1], [(images, labels), test])
    assert len({d.fingerprint for d in loaded}) == 1 and loaded[0].classes == loaded[1].classes


def flipped(content):
    """One bit of a pixel flipped on the disk, long after the file was written."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


BROKEN = {
    "missing key": lambda d, b: to_bytes({k: v for k, v in d.items() if k != "labels_val"}),
    "no dictionary": lambda d, b: to_bytes(list(d.values())),
    "wrong shape": lambda d, b: to_bytes(d | {"images_train": d["images_train"][..., :27]}),
    "no channel axis": lambda d, b: to_bytes(d | {"images_val": d["images_val"][:, 0]}),
    "other channels": lambda d, b: to_bytes(d | {"images_val": d["images_val"].repeat(1, 3, 1, 1)}),
    "float images": lambda d, b: to_bytes(d | {"images_train": d["images_train"] / 255}),
    "images no tensor": lambda d, b: to_bytes(d | {"images_train": d["images_train"].tolist()}),
    "float labels": lambda d, b: to_bytes(d | {"labels_train": d["labels_train"].float()}),
    "fewer labels": lambda d, b: to_bytes(d | {"labels_val": d["labels_val"][1:]}),
    "label too high": lambda d, b: to_bytes(d | {"labels_val": d["labels_val"] + 1}),
    "label negative": lambda d, b: to_bytes(d | {"labels_train": d["labels_train"] - 1}),
    "missing class": lambda d, b: to_bytes(d | {"labels_train": d["labels_train"].clamp(max=8)}),
    "empty test": lambda d, b: to_bytes(
        d | {"images_val": d["images_val"][:0], "labels_val": d["labels_val"][:0]}
    ),
    "too few names": lambda d, b: to_bytes(d | {"classes": d["classes"][1:]}),
    "names no list": lambda d, b: to_bytes(d | {"classes": 10}),
    "truncated": lambda d, b: to_bytes(d)[:-100],
    "half": lambda d, b: to_bytes(d)[:9000],
    "flipped bit": lambda d, b: flipped(to_bytes(d)),
    "empty": lambda d, b: b"",
    "text": lambda d, b: b"<html>404 not found</html>",
    "malicious": lambda d, b: to_bytes(d | {"classes": Bomb(b)}),
    "malicious pickle": lambda d, b: pickle.dumps(Bomb(b), protocol=2),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_pt_is_one_line_and_stays_as_it_is(kind, tmp_path, monkeypatch):
    written("MNIST", tmp_path, monkeypatch)  # there, but not to be used instead
    bomb = tmp_path / "executed"
    content = BROKEN[kind](pt_layout.layout(range(10), *fake("MNIST")), bomb)
    path = tmp_path / "mnist.pt"
    path.write_bytes(content)
    refused("MNIST", tmp_path, path)
    assert not bomb.exists()


def test_wrong_data_files_are_one_line(tmp_path, capsys):
    for content in ({"classes": []}, [1, 2], torch.zeros(3)):
        torch.save(content, tmp_path / "mnist.pt")
        flags = ["--dataset=MNIST", "--data_path", tmp_path, "--save_path", tmp_path / "result"]
        assert run("BACON_mnist.py", *SMALL, *flags) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and "mnist.pt" in text and not (tmp_path / "result").exists()


SMALL_SPEC = Spec(3, (4, 6), 2, (0.5,) * 3, (0.5,) * 3, 4, 2)
PIXELS = "torch.uint8 (N > 0, 3, 4, 6)"
# key: (another value, how it is called, what is needed)
UNFIT = {
    "classes": [
        (["a"], "list of 1", "a list of 2 names"),
        (("a", "b", "c"), "tuple of 3", "a list of 2 names"),
        ("ab", "str", "a list of 2 names"),
    ],
    "images_train": [
        (torch.zeros(4, 3, 4, 6), "torch.float32 (4, 3, 4, 6)", PIXELS),
        (torch.zeros(0, 3, 4, 6).byte(), "torch.uint8 (0, 3, 4, 6)", PIXELS),
        ([1, 2], "list of 2", PIXELS),
    ],
    "images_val": [
        (torch.zeros(2, 3, 6, 4).byte(), "torch.uint8 (2, 3, 6, 4)", PIXELS),
    ],
    "labels_train": [
        (torch.zeros(4), "torch.float32 (4,)", "4 whole numbers"),
        (torch.zeros(4, 1).long(), "torch.int64 (4, 1)", "4 whole numbers"),
        (7, "int", "4 whole numbers"),
    ],
    "labels_val": [(torch.zeros(3).long(), "torch.int64 (3,)", "2 whole numbers")],
}
BEYOND = [
    ("labels_train", [0, 1, 2, 0], "labels_train holds 0..2, but Own needs 0..1"),
    ("labels_val", [-1, 1], "labels_val holds -1..1, but Own needs 0..1"),
    ("labels_train", [1, 1, 1, 1], "labels_train has no image of class 0 (a)"),
]


def small_entries():
    train = torch.zeros(4, 3, 4, 6, dtype=torch.uint8), [0, 1, 1, 0]
    return pt_layout.layout("ab", train, (torch.zeros(2, 3, 4, 6, dtype=torch.uint8), [1, 1]))


def said_of(key, value):
    with pytest.raises(UserError) as error:
        pt_layout.dataset_of("Own", small_entries() | {key: value}, "x.pt", SMALL_SPEC)
    return str(error.value)


@pytest.mark.parametrize("key", UNFIT)
def test_an_entry_that_does_not_fit_is_told_beside_what_is_needed(key):
    for value, found, wanted in UNFIT[key]:
        assert said_of(key, value) == f"x.pt: {key} is {found}, but Own needs {wanted}"


@pytest.mark.parametrize(("key", "labels", "said"), BEYOND)
def test_labels_of_other_classes_are_told(key, labels, said):
    assert said_of(key, torch.tensor(labels)) == f"x.pt: {said}"


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_are_whole_numbers_of_any_size(kind):
    entries = small_entries()
    entries["labels_train"] = entries["labels_train"].to(kind)
    dataset = pt_layout.dataset_of("Own", entries, "x.pt", SMALL_SPEC)
    assert dataset.labels_train.dtype == torch.int64
    assert dataset.labels_train.tolist() == [0, 1, 1, 0] and dataset.classes == ["a", "b"]
    assert (dataset.mean, dataset.std) == (SMALL_SPEC.mean, SMALL_SPEC.std)
