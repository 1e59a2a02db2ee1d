"""Writers of the official file formats, for tests: random images in the layouts that users have."""

import hashlib
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from bacon.recipes import DATASETS


def md5(path):
    return hashlib.md5(Path(path).read_bytes()).hexdigest()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def to_bytes(obj):
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def fake(name, train=2, test=1, seed=0):
    spec, rng = DATASETS[name], np.random.default_rng(seed)
    splits = []
    for per_class in (train, test):
        labels = rng.permutation(np.repeat(np.arange(spec.num_classes), per_class))
        images = rng.integers(0, 256, (len(labels), spec.channels, *spec.im_size), dtype=np.uint8)
        splits.append((images, labels))
    return splits


def write_idx(name, root, splits, monkeypatch):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split, (images, labels) in zip(("train", "t10k"), splits, strict=True):
        images = images[:, 0]
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


def write_pickles(name, root, splits, monkeypatch):
    kind = getattr(datasets, name)
    folder, label_key = (
        root / kind.base_folder,
        {"CIFAR10": "labels", "CIFAR100": "fine_labels"}[name],
    )
    folder.mkdir()
    for attribute, (images, labels) in zip(("train_list", "test_list"), splits, strict=True):
        batches = [batch for batch, _ in getattr(kind, attribute)]
        for batch, rows in zip(
            batches, np.array_split(np.arange(len(labels)), len(batches)), strict=True
        ):
            content = {
                "data": images[rows].reshape(len(rows), -1),
                label_key: labels[rows].tolist(),
            }
            (folder / batch).write_bytes(pickle.dumps(content, protocol=2))
        # torchvision knows the md5 of the official files: let it know those of ours
        monkeypatch.setattr(kind, attribute, [[batch, md5(folder / batch)] for batch in batches])
    names = [f"class {c}" for c in range(DATASETS[name].num_classes)]
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: names}, protocol=2))
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(meta)})


def write_mat(name, root, splits, monkeypatch):
    savemat = pytest.importorskip("scipy.io").savemat
    table = {}
    for split, (images, labels) in zip(("train", "test"), splits, strict=True):
        path = root / f"{split}_32x32.mat"
        ones_to_ten = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": ones_to_ten})
        table[split] = [f"http://nowhere/{path.name}", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)


def write_tiny(name, root, splits, monkeypatch):
    """The official folder; puts into `splits` what a reader must see.

    That is the decoded JPEGs by label, then by file name.
    """
    rng = np.random.default_rng(1)
    numbers = rng.choice(10**8, DATASETS[name].num_classes, replace=False)
    wnids = [f"n{number:08d}" for number in numbers]  # as wnids.txt: not sorted
    folder, annotations, rows = root / "tiny-imagenet-200", [], [[], []]
    (folder / "val/images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(wnids))
    for split, (images, labels) in enumerate(splits):
        for i, (image, c) in enumerate(zip(images, labels, strict=True)):
            label = sorted(wnids).index(wnids[c])
            path = (
                folder
                / ("val/images" if split else f"train/{wnids[c]}/images")
                / f"{split}_{i}.JPEG"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.transpose(1, 2, 0))
            (picture.convert("L") if i == 3 else picture).save(path)
            decoded = (
                np.asarray(Image.open(path))
                if i != 3
                else np.stack([np.asarray(Image.open(path))] * 3, axis=2)
            )
            rows[split].append((label, path.name, decoded.transpose(2, 0, 1)))
            if split:
                annotations.append(f"{path.name}\t{wnids[c]}\t0\t0\t63\t63\n")
    (folder / "val/val_annotations.txt").write_text("".join(annotations))
    for split in (0, 1):
        rows[split].sort(key=lambda row: row[:2])
        splits[split] = (
            np.stack([row[2] for row in rows[split]]),
            np.array([row[0] for row in rows[split]]),
        )


WRITERS = {
    "MNIST": write_idx,
    "FashionMNIST": write_idx,
    "SVHN": write_mat,
    "CIFAR10": write_pickles,
    "CIFAR100": write_pickles,
    "TinyImageNet": write_tiny,
}


def written(name, root, monkeypatch, **kwargs):
    """Official files of a dataset of few images, which is whole for this test; returns its two
    splits."""
    splits = fake(name, **kwargs)
    train, test = (len(labels) for _, labels in splits)
    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(train=train, test=test))
    WRITERS[name](name, root, splits, monkeypatch)
    return splits


def zip_tiny(root):
    """The official zip of the folder of `write_tiny` under `root`."""
    archive = root / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as z:
        # In whatever order, directories included.
        for path in (root / "tiny-imagenet-200").rglob("*"):
            z.write(path, path.relative_to(root).as_posix())
    return archive
