"""Facts about datasets as .pt files: what they must hold, and what does not matter."""

import pickle

import pytest
import torch
from layouts import Bomb, fake, to_bytes, written
from loads import assert_holds, refused
from scripts import SMALL, run

from bacon.data import loading, pt_layout


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
