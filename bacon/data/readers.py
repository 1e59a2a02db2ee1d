"""Readers of the official files of every dataset: one function and one row of READERS each.

A reader gives the entries of the .pt layout, see pt_layout.layout. `loading.load` calls it where
that .pt is not there yet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bacon.data.fetching import fetching
from bacon.data.pt_layout import layout
from bacon.data.tiny_imagenet import read_tiny_imagenet
from bacon.errors import UserError, short
from bacon.files import there, unreadable
from bacon.messages import log
from bacon.recipes import DATASETS


@dataclass(frozen=True)
class Stored:
    """A file below the data path. md5: None where nobody publishes it."""

    path: str
    md5: str | None


@dataclass(frozen=True)
class Storage:
    """How torchvision stores a dataset.

    files: [Stored] that it reads. archives: [Stored] that it unpacks them from, if any.
    train, test: the arguments that select these splits.
    unpack: function(a split as torchvision gives it) -> images (N,C,H,W), labels (N,).
    """

    files: list[Stored]
    archives: list[Stored]
    train: dict
    test: dict
    unpack: Callable


def _mnist(kind):
    """The `Storage` of a class of torchvision such as MNIST."""
    archives = [Stored(f"{kind.__name__}/raw/{archive}", md5) for archive, md5 in kind.resources]
    files = [Stored(archive.path.removesuffix(".gz"), None) for archive in archives]
    return Storage(files, archives, {"train": True}, {"train": False}, _unpack_mnist)


def _unpack_mnist(part):
    return part.data[:, None], part.targets


def _cifar(kind):
    """The `Storage` of a class of torchvision such as CIFAR10."""
    names = (kind.meta["filename"], kind.meta["md5"])
    batches = (*kind.train_list, *kind.test_list, names)
    files = [Stored(f"{kind.base_folder}/{batch}", md5) for batch, md5 in batches]
    archives = [Stored(kind.filename, kind.tgz_md5)]
    return Storage(files, archives, {"train": True}, {"train": False}, _unpack_cifar)


def _unpack_cifar(part):
    return part.data.transpose(0, 3, 1, 2), part.targets


def _svhn(kind):
    """The `Storage` of torchvision's SVHN, whose files are not packed."""
    files = [Stored(*kind.split_list[split][1:]) for split in ("train", "test")]
    return Storage(files, [], {"split": "train"}, {"split": "test"}, _unpack_svhn)


def _unpack_svhn(part):
    return part.data, part.labels


def _read_torchvision(storage_of, name, root):
    """The entries of a dataset that torchvision knows, and the folder of its files.

    storage_of: function(its class in torchvision) -> `Storage`. Files that are not there are
    fetched. UserError for a file that is not the official one, and if nothing can be fetched.
    """
    from torchvision import datasets

    kind = getattr(datasets, name)
    storage = storage_of(kind)
    missing = [file.path for file in storage.files if not there(root / file.path)]
    _check_files(name, root, storage, missing)
    if missing:
        wanted = [file.path for file in storage.archives or storage.files]
        log.info(f"{name}: fetching {', '.join(wanted)} into {root}")
        with fetching(name, root, wanted):
            for split in (storage.train, storage.test):
                kind(root, download=True, **split)
    first = root / storage.files[0].path
    try:
        train = kind(root, **storage.train)
        test = kind(root, **storage.test)
    except PermissionError as error:
        raise unreadable(error.filename or root, error) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file provokes in torchvision, pickle or scipy
        damage = f"damaged or not {name} ({short(error)})"
        raise UserError(f"{first} or a file beside it: {damage}") from error
    classes = getattr(train, "classes", range(DATASETS[name].num_classes))
    return layout(classes, storage.unpack(train), storage.unpack(test)), first.parent


def _check_files(name, root, storage, missing):
    """UserError for a file that is there but damaged, or that nobody can tell from a damaged one.

    torchvision would download over it, and does not tell which one it is. missing: paths of files
    that are not there; only then are archives read.
    """
    from torchvision.datasets.utils import check_integrity

    for file in storage.files + (storage.archives if missing else []):
        if there(root / file.path) and not check_integrity(root / file.path, file.md5):
            advice = "replace it, or move it away to have it fetched"
            damage = f"not the official file of {name} (its md5 differs)"
            raise UserError(f"{root / file.path}: {damage}; {advice}")
        if missing and file.path not in missing and file.md5 is None:
            advice = "add it, or move the rest away to have all fetched"
            lacks = f"missing, though {file.path} is there"
            raise UserError(f"{root / missing[0]}: {lacks}; {advice}")


def _read_digits(name, root):
    """The entries of scikit-learn's handwritten digits; every third of a class is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        advice = "these images come with scikit-learn; pip install scikit-learn"
        raise UserError(f"Digits: {advice}") from error
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # the values are 0..16
    test = np.zeros(len(images), bool)
    for c in range(10):
        test[np.flatnonzero(digits.target == c)[2::3]] = True
    train_split = (images[~test], digits.target[~test])
    test_split = (images[test], digits.target[test])
    return layout(range(10), train_split, test_split), "scikit-learn"


# dataset: function(its name, the data path) -> (entries of the .pt layout, where they came from)
READERS = {
    "MNIST": partial(_read_torchvision, _mnist),
    "FashionMNIST": partial(_read_torchvision, _mnist),
    "CIFAR10": partial(_read_torchvision, _cifar),
    "CIFAR100": partial(_read_torchvision, _cifar),
    "SVHN": partial(_read_torchvision, _svhn),
    "TinyImageNet": read_tiny_imagenet,
    "Digits": _read_digits,
}
