"""Facts about the readers of official files: exact images, and what is wrong with a file."""

import gzip
import sys

import pytest
import torch
from layouts import md5, written
from loads import assert_holds, locked, refused
from torchvision import datasets

from bacon.data import loading, pt_layout
from bacon.errors import UserError
from bacon.recipes import DATASETS

OFFICIAL = [name for name in DATASETS if name != "Digits"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_are_read_as_they_are_and_then_cached(name, tmp_path, monkeypatch):
    splits = written(name, tmp_path, monkeypatch)
    first = loading.load(name, tmp_path)
    assert_holds(first, splits)
    spec = DATASETS[name]
    assert (first.channels, first.im_size, first.num_classes) == (
        spec.channels,
        spec.im_size,
        spec.num_classes,
    )
    assert (first.mean, first.std) == (spec.mean, spec.std) and len(
        set(first.classes)
    ) == spec.num_classes
    assert str(tmp_path) in first.source

    cache = tmp_path / f"{name.lower()}.pt"
    monkeypatch.setattr(loading, "save_torch", None)  # the second load writes nothing
    second = loading.load(name, tmp_path)
    assert second.source == str(cache)
    assert_holds(second, splits)
    assert (second.classes, second.fingerprint) == (first.classes, first.fingerprint)
    assert set(torch.load(cache, weights_only=True)) == set(pt_layout.KEYS)


def test_official_archives_that_are_there_need_no_internet(tmp_path, monkeypatch):
    splits = written("MNIST", tmp_path, monkeypatch)
    resources = []
    for path in sorted((tmp_path / "MNIST/raw").iterdir()):
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        resources.append((packed.name, md5(packed)))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    assert_holds(loading.load("MNIST", tmp_path), splits)


def test_an_official_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    written("CIFAR10", tmp_path, monkeypatch)
    folder = tmp_path / "cifar-10-batches-py"
    locked(monkeypatch, folder)
    with pytest.raises(UserError) as error:
        loading.load("CIFAR10", tmp_path)
    assert str(error.value) == f"{folder}: cannot be read (Permission denied)"


def test_an_official_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    written("MNIST", tmp_path, monkeypatch)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("torchvision.datasets.mnist.read_label_file", refuse)
    with pytest.raises(UserError) as error:
        loading.load("MNIST", tmp_path)
    assert str(error.value) == f"{path}: cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("MNIST", "MNIST/raw/train-images-idx3-ubyte"),
        ("CIFAR10", "cifar-10-batches-py/data_batch_3"),
        ("CIFAR100", "cifar-100-python/meta"),
        ("SVHN", "test_32x32.mat"),
    ],
)
def test_damaged_official_file_is_named_and_not_downloaded_over(name, path, tmp_path, monkeypatch):
    written(name, tmp_path, monkeypatch)
    path = tmp_path / path
    path.write_bytes(path.read_bytes()[:-7])
    refused(name, tmp_path, path)


def test_incomplete_mnist_is_named_and_not_downloaded_over(tmp_path, monkeypatch):
    written("MNIST", tmp_path, monkeypatch)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    path.unlink()
    refused("MNIST", tmp_path, path, "missing")


def test_digits_need_no_file_and_never_change(tmp_path):
    pytest.importorskip("sklearn")
    digits = loading.load("Digits", tmp_path)
    assert not list(tmp_path.iterdir())
    assert (digits.channels, digits.im_size, digits.num_classes) == (1, (8, 8), 10)
    assert (len(digits.images_train), len(digits.images_test)) == (1201, 596)
    assert digits.fingerprint == "92f1a952aad140fc9d1fc12d7ac0e20656e20772a51d3adc5ba008cdd65524fa"
    train, test = (torch.bincount(labels) for labels in (digits.labels_train, digits.labels_test))
    assert ((train - 2 * test).abs() <= 2).all()  # two thirds of every class
    pixels = digits.images_train.double() / 255
    assert pixels.max() == 1 and pixels.min() == 0
    assert digits.mean == (pytest.approx(pixels.mean().item(), abs=5e-5),)
    assert digits.std == (pytest.approx(pixels.std(correction=0).item(), abs=5e-5),)


def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    written("SVHN", tmp_path, monkeypatch)

    def lack(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("scipy.io.loadmat", lack)
    with pytest.raises(MemoryError):
        loading.load("SVHN", tmp_path)


def test_digits_without_scikit_learn_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"^Digits: .*pip install scikit-learn$"):
        loading.load("Digits", tmp_path)


def test_a_file_that_a_disk_does_not_give_is_named(tmp_path, monkeypatch):
    """Whatever reads it: here the check of its md5."""
    written("SVHN", tmp_path, monkeypatch)

    def broken(path, md5):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", broken)
    path = tmp_path / "train_32x32.mat"
    with pytest.raises(UserError) as error:
        loading.load("SVHN", tmp_path)
    assert str(error.value) == f"{path}: cannot be read (Input/output error)"
