"""Facts about reading datasets and drawing batches, on generated files in the official formats.

With BACON_REAL_DATA naming a folder of real images (MNIST/raw, cifar10.pt, cifar100.pt,
tiny-imagenet-200/, any of them, whole or fewer images per class), these are loaded too; nothing is
written there.
"""

import contextlib
import gzip
import os
import pickle
import threading
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from heard import hearing
from layouts import Bomb, fake, md5, to_bytes, written
from PIL import Image
from torchvision import datasets

from bacon import files
from bacon.data import loading, pt_layout, readers, real_data
from bacon.errors import UserError
from bacon.recipes import DATASETS

OFFICIAL = [name for name in DATASETS if name != "Digits"]


@pytest.fixture(autouse=True)
def no_internet(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no internet\nhere")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def refused(name, root, *words):
    """`load` raises one line with all the words in it, and leaves every file as it was."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as error:
        loading.load(name, root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def assert_holds(dataset, splits):
    found = [
        (dataset.images_train, dataset.labels_train),
        (dataset.images_test, dataset.labels_test),
    ]
    for (images, labels), (true_images, true_labels) in zip(found, splits, strict=True):
        assert (
            images.dtype == torch.uint8 and images.is_contiguous() and labels.dtype == torch.int64
        )
        np.testing.assert_array_equal(images.numpy(), true_images)
        np.testing.assert_array_equal(labels.numpy(), true_labels)


def zip_tiny(root):
    archive = root / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for path in (root / "tiny-imagenet-200").rglob(
            "*"
        ):  # in whatever order, directories included
            z.write(path, path.relative_to(root).as_posix())
    return archive


# Sources


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


def test_tiny_imagenet_zip_equals_its_folder(tmp_path, monkeypatch):
    folder, other = tmp_path / "folder", tmp_path / "zip"
    other.mkdir()
    splits = written("TinyImageNet", folder, monkeypatch, train=1)
    zip_tiny(folder).rename(other / "tiny-imagenet-200.zip")
    unzipped, zipped = (loading.load("TinyImageNet", root) for root in (folder, other))
    assert_holds(zipped, splits)
    assert zipped.fingerprint == unzipped.fingerprint
    assert zipped.classes == unzipped.classes == sorted(unzipped.classes)
    assert {path.name for path in other.iterdir()} == {"tiny-imagenet-200.zip", "tinyimagenet.pt"}


def test_tiny_imagenet_is_downloaded_under_another_name_first(tmp_path, monkeypatch):
    written("TinyImageNet", tmp_path / "server", monkeypatch, train=1)
    archive = zip_tiny(tmp_path / "server")

    def download_url(url, root, filename, md5):
        assert (
            url.endswith("/tiny-imagenet-200.zip")
            and filename != "tiny-imagenet-200.zip"
            and len(md5) == 32
        )
        (Path(root) / filename).write_bytes(archive.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    root = tmp_path / "data"
    root.mkdir()
    assert loading.load("TinyImageNet", root).num_classes == 200
    assert {path.name for path in root.iterdir()} == {"tiny-imagenet-200.zip", "tinyimagenet.pt"}


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


def test_tasks_that_start_at_once_read_one_after_the_other(tmp_path, monkeypatch):
    splits = written("MNIST", tmp_path, monkeypatch)
    loaded = []
    waiting = threading.Thread(target=lambda: loaded.append(loading.load("MNIST", tmp_path)))
    with hearing() as said:
        with contextlib.ExitStack() as other:
            files.lock(other, tmp_path / "lock_mnist", "held")
            waiting.start()
            while not said:
                time.sleep(0.01)
            # Another task unpacks, then writes the cache. Nobody reads the official files again.
            torch.save(pt_layout.layout(range(10), *splits), tmp_path / "mnist.pt")
            monkeypatch.setitem(readers.READERS, "MNIST", None)
        waiting.join(20)
    (line,) = said
    assert f"process {os.getpid()}" in line and "lock_mnist" in line
    (dataset,) = loaded
    assert dataset.source == str(tmp_path / "mnist.pt")
    assert not (tmp_path / "lock_mnist").exists()


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), RuntimeError("failed writing file")]
)
def test_where_the_cache_cannot_be_written_one_line_says_so(error, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    splits = written("MNIST", tmp_path, monkeypatch)
    monkeypatch.setattr(loading, "save_torch", fail)
    dataset, (line,) = heard("MNIST", tmp_path)
    assert_holds(dataset, splits)
    assert str(tmp_path / "mnist.pt") in line and str(error) in line


@pytest.mark.parametrize("name", OFFICIAL)
def test_failed_download_names_dataset_folder_and_files(name, tmp_path):
    wanted = {
        "MNIST": ["MNIST/raw/train-images-idx3-ubyte.gz", "MNIST/raw/t10k-labels-idx1-ubyte.gz"],
        "FashionMNIST": ["FashionMNIST/raw/train-images-idx3-ubyte.gz"],
        "SVHN": ["train_32x32.mat", "test_32x32.mat"],
        "CIFAR10": ["cifar-10-python.tar.gz"],
        "CIFAR100": ["cifar-100-python.tar.gz"],
        "TinyImageNet": ["tiny-imagenet-200/", "tiny-imagenet-200.zip"],
    }[name]
    refused(name, tmp_path, name, tmp_path, f"{name.lower()}.pt", *wanted, "no internet")
    assert not list(tmp_path.iterdir())  # that was there and stays
    refused(
        name,
        tmp_path / "new/data",
        f"{name}: not under {tmp_path / 'new/data'}/ and could not be fetched; put ",
    )
    assert not (tmp_path / "new").exists()


def test_tiny_imagenet_names_its_classes_by_the_words_that_are_there(tmp_path, monkeypatch):
    written("TinyImageNet", tmp_path, monkeypatch)
    wnids = loading.load("TinyImageNet", tmp_path).classes
    (tmp_path / "tinyimagenet.pt").unlink()
    words = f"{wnids[0]}\tgoldfish, Carassius auratus\nn99999999\tother\n{wnids[2]}\ttench\n"
    (tmp_path / "tiny-imagenet-200/words.txt").write_text(words)
    assert loading.load("TinyImageNet", tmp_path).classes == [
        "goldfish",
        wnids[1],
        "tench",
        *wnids[3:],
    ]


def test_unknown_dataset_lists_the_known_ones(tmp_path):
    refused("ImageNet", tmp_path, "ImageNet", *DATASETS)


def test_fingerprint_changes_with_any_pixel_label_or_order(tmp_path):
    seen = set()
    (images, labels), (test_images, test_labels) = fake("MNIST")

    def fingerprint():
        entries = pt_layout.layout(range(10), (images, labels), (test_images, test_labels))
        torch.save(entries, tmp_path / "mnist.pt")
        return loading.load("MNIST", tmp_path).fingerprint

    seen.add(fingerprint())
    images[7, 0, 27, 27] ^= 1
    seen.add(fingerprint())
    test_images[0, 0, 0, 0] ^= 1
    seen.add(fingerprint())
    labels[:2] = labels[:2][::-1] if labels[0] != labels[1] else labels[:2] - 1
    seen.add(fingerprint())
    test_labels[-1] = (test_labels[-1] + 1) % 10
    seen.add(fingerprint())
    images, labels = images[::-1].copy(), labels[::-1].copy()
    seen.add(fingerprint())
    assert len(seen) == 6 and all(len(s) == 64 for s in seen)


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


# Sets that are not whole


def heard(name, root):
    """The dataset, and the lines that are said about it."""
    with hearing() as said:
        dataset = loading.load(name, root)
    return dataset, said


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(("train", "test"), [(2, 1), (3, 5)])
def test_a_cache_that_is_not_whole_says_so_at_every_start(name, train, test, tmp_path):
    path, spec = tmp_path / f"{name.lower()}.pt", DATASETS[name]
    entries = pt_layout.layout(range(spec.num_classes), *fake(name, train=train, test=test))
    path.write_bytes(to_bytes(entries))
    found = train * spec.num_classes, test * spec.num_classes
    for _ in range(2):
        dataset, (line,) = heard(name, tmp_path)
        assert (dataset.train, dataset.test) == found
        sizes = f"holds {found[0]:,} training and {found[1]:,} test images"
        whole = f"the whole set {spec.train:,} and {spec.test:,}"
        assert line.startswith(f"{name}: {path} {sizes}, {whole}; without that file")
    assert path.read_bytes() == to_bytes(entries)


def test_more_images_than_the_whole_set_has_are_said_too(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "MNIST", DATASETS["MNIST"]._replace(train=20, test=10))
    path = tmp_path / "mnist.pt"
    path.write_bytes(to_bytes(pt_layout.layout(range(10), *fake("MNIST", train=2, test=2))))
    _, (line,) = heard("MNIST", tmp_path)  # each test image twice
    assert "holds 20 training and 20 test images, the whole set 20 and 10" in line


def test_a_whole_set_says_nothing(tmp_path, monkeypatch):
    splits = written("MNIST", tmp_path, monkeypatch)
    (tmp_path / "mnist.pt").write_bytes(to_bytes(pt_layout.layout(range(10), *splits)))
    assert heard("MNIST", tmp_path)[1] == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_incomplete_folder_is_read_again_once_it_is_repaired(split, tmp_path, monkeypatch):
    splits = written("TinyImageNet", tmp_path, monkeypatch)
    folder, cache = tmp_path / "tiny-imagenet-200", tmp_path / "tinyimagenet.pt"
    lost = sorted(folder.glob(f"{split}/**/*.JPEG"))[0]
    lost.rename(tmp_path / "lost")
    sizes = (399, 200) if split == "train" else (400, 199)
    for _ in range(2):
        dataset, said = heard("TinyImageNet", tmp_path)
        assert (dataset.train, dataset.test) == sizes and not cache.exists()
        found = f"holds {sizes[0]} training and {sizes[1]} test images, the whole set 400 and 200"
        again = "it is not kept as tinyimagenet.pt, so the next start reads it again"
        assert said[1:] == [f"TinyImageNet: {folder} {found}; {again}"]
    (tmp_path / "lost").rename(lost)
    dataset, said = heard("TinyImageNet", tmp_path)
    assert_holds(dataset, splits)
    assert cache.exists() and said[1:] == [
        f"TinyImageNet: wrote {cache}, which the next start reads instead of {folder}"
    ]


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN"])
def test_other_official_files_that_are_not_whole_are_not_kept_either(name, tmp_path, monkeypatch):
    splits, spec = written(name, tmp_path, monkeypatch), DATASETS[name]
    monkeypatch.setitem(DATASETS, name, spec._replace(train=spec.train + 1))
    dataset, said = heard(name, tmp_path)
    assert_holds(dataset, splits)
    (line,) = said
    assert "holds 20 training and 10 test images, the whole set 21 and 10; it is not kept" in line
    assert not (tmp_path / f"{name.lower()}.pt").exists()


# A data path that cannot be read


def locked(monkeypatch, folder):
    """Nobody may enter `folder`, even where tests run as root."""
    stat, below = os.stat, f"{folder}{os.sep}"

    def guarded(path, *args, **kwargs):
        if not isinstance(path, int) and os.fspath(path).startswith(below):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", guarded)
    monkeypatch.setattr(os.path, "exists", lambda path: not os.fspath(path).startswith(below))


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("depth", ["data", "data/deep/er"])
def test_a_data_folder_that_may_not_be_read_is_named(name, depth, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    locked(monkeypatch, tmp_path / "data")
    with pytest.raises(UserError) as error:
        loading.load(name, tmp_path / depth)
    assert str(error.value) == f"{tmp_path / 'data'}: cannot be read (Permission denied)"


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


def test_an_image_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    locked(monkeypatch, tmp_path)
    with pytest.raises(UserError) as error:
        loading.load("ImageFolder", tmp_path)
    assert str(error.value) == f"{tmp_path}: cannot be read (Permission denied)"


PLACES = ["", "mnist.pt", "MNIST", "MNIST/raw", "MNIST/raw/train-images-idx3-ubyte"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
@pytest.mark.parametrize("place", PLACES)
def test_whatever_may_not_be_read_is_named(place, tmp_path, monkeypatch):
    splits = written("MNIST", tmp_path / "data", monkeypatch)
    if place == "mnist.pt":
        (tmp_path / "data/mnist.pt").write_bytes(to_bytes(pt_layout.layout(range(10), *splits)))
    path = tmp_path / "data" / place
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with pytest.raises(UserError) as error:
            loading.load("MNIST", tmp_path / "data")
    finally:
        path.chmod(mode)
    assert str(path) in str(error.value) and "Permission denied" in str(error.value)
    assert "fetched" not in str(error.value)


def test_digits_need_no_data_folder_that_may_be_read(tmp_path, monkeypatch, few_digits):
    monkeypatch.setitem(readers.READERS, "Digits", few_digits)
    locked(monkeypatch, tmp_path)
    assert loading.load("Digits", tmp_path).num_classes == 10


@pytest.mark.parametrize("name", ["MNIST", "TinyImageNet"])
def test_a_data_path_that_is_no_folder_is_one_line(name, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    refused(name, tmp_path / "file", f"--data_path {tmp_path / 'file'}: not a folder")
    gone = f"{tmp_path / 'link'}: a link to {tmp_path / 'gone'}, which is not there"
    refused(name, tmp_path / "link", gone)
    refused(name, tmp_path / "link/below", gone)
    assert not (tmp_path / "gone").exists()


LINKS = [
    ("MNIST", "mnist.pt"),
    ("MNIST", "MNIST"),
    ("CIFAR10", "cifar-10-batches-py"),
    ("SVHN", "train_32x32.mat"),
]


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_a_link_to_nothing_is_named_and_nothing_is_fetched_in_its_place(name, link, tmp_path):
    (tmp_path / link).symlink_to("/scratch/gone")
    refused(name, tmp_path, f"{tmp_path / link}: a link to /scratch/gone, which is not there")
    assert (tmp_path / link).is_symlink()


# Damaged and foreign files


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


def test_a_folder_in_place_of_the_pt_is_refused(tmp_path):
    (tmp_path / "mnist.pt").mkdir()
    refused("MNIST", tmp_path, tmp_path / "mnist.pt", "Is a directory")


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


@pytest.mark.parametrize(
    ("name", "path"),
    [("CIFAR10", "cifar-10-python.tar.gz"), ("MNIST", "MNIST/raw/t10k-images-idx3-ubyte.gz")],
)
def test_damaged_archive_is_named_and_not_downloaded_over(name, path, tmp_path):
    path = tmp_path / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"the start of a download")
    refused(name, tmp_path, path)


def test_incomplete_mnist_is_named_and_not_downloaded_over(tmp_path, monkeypatch):
    written("MNIST", tmp_path, monkeypatch)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    path.unlink()
    refused("MNIST", tmp_path, path, "missing")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TINY_DAMAGE = {
    "image": (lambda folder: truncate(next(folder.glob("train/*/images/0_7.JPEG"))), "0_7.JPEG"),
    "size": (
        lambda folder: Image.new("RGB", (1, 1)).save(next(folder.glob("train/*/images/0_7.JPEG"))),
        "0_7.JPEG",
    ),
    "annotations": (
        lambda folder: (folder / "val/val_annotations.txt").unlink(),
        "val_annotations.txt",
    ),
    "annotation": (lambda folder: truncate(folder / "val/val_annotations.txt"), ".JPEG"),
    "class": (lambda folder: next(folder.glob("train/*/images/0_7.JPEG")).unlink(), ""),
    "archive": (
        lambda folder: (
            truncate(zip_tiny(folder.parent)),
            folder.rename(folder.parent / "elsewhere"),
        ),
        ".zip",
    ),
}


@pytest.mark.parametrize("kind", TINY_DAMAGE)
def test_damaged_tiny_imagenet_is_one_line(kind, tmp_path, monkeypatch):
    damage, word = TINY_DAMAGE[kind]
    written("TinyImageNet", tmp_path, monkeypatch, train=1)
    damage(tmp_path / "tiny-imagenet-200")
    refused("TinyImageNet", tmp_path, tmp_path / "tiny-imagenet-200", word)


# Digits


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


# Batches


def real_of(name, device="cpu", **kwargs):
    (images, labels), _ = fake(name, **kwargs)
    spec = DATASETS[name]
    tensors = torch.from_numpy(images), torch.from_numpy(labels)
    return real_data.RealData(*tensors, spec.mean, spec.std, spec.num_classes, device)


@pytest.mark.parametrize("name", OFFICIAL)
def test_batches_are_normalised_as_the_formula_says(name):
    real, (mean, std) = real_of(name), (DATASETS[name].mean, DATASETS[name].std)
    rows = np.array([3, 0, 3, 5])
    exact = (real.images.numpy()[rows] / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(
        std, (-1, 1, 1)
    )
    batch = real.take(rows)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), exact, atol=1e-6, rtol=0)
    assert torch.equal(real.take(slice(1, 4)), real.take(np.arange(1, 4)))
    assert torch.equal(real.labels_of(rows), real.labels[torch.from_numpy(rows)])
    assert torch.equal(real.labels_of(slice(1, 4)), real.labels[1:4])
    assert real.images.dtype == torch.uint8  # and unchanged by the arithmetic in place


def test_draws_are_distinct_images_of_the_class():
    real = real_of("MNIST", train=7)
    rng = np.random.default_rng(0)
    assert real.counts == [7] * 10 and len(real) == 70
    for c in range(10):
        rows = real.indices(c, 5, rng)
        assert len(set(rows)) == 5 and (real.labels_of(rows) == c).all()
        assert sorted(real.indices(c, 99, rng)) == np.flatnonzero(real.labels.numpy() == c).tolist()
    assert len(set(real.any_indices(60, rng))) == 60
    assert sorted(real.any_indices(99, rng)) == list(range(70))
    first, again = (real.indices(4, 3, np.random.default_rng(5)) for _ in range(2))
    assert (first == again).all()


def test_every_image_of_a_class_is_drawn_equally_often():
    real, rng = real_of("MNIST", train=5), np.random.default_rng(0)
    drawn = np.bincount(
        np.concatenate([real.indices(2, 2, rng) for _ in range(5000)]), minlength=50
    )
    assert np.count_nonzero(drawn) == 5
    assert abs(drawn[drawn > 0] - 2000).max() < 200  # 5.8 standard deviations


def test_draws_depend_on_the_generator_alone():
    a, b = real_of("MNIST", seed=0), real_of("CIFAR10", seed=0)
    b = real_data.RealData(b.images, a.labels, (0.5,) * 3, (0.5,) * 3, 10, "cpu")
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    for c in range(10):
        assert (a.indices(c, 2, first) == b.indices(c, 2, second)).all()
        assert (a.any_indices(9, first) == b.any_indices(9, second)).all()
    assert np.random.get_state()[1].tolist() == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_class_without_images_gives_an_empty_batch():
    images, labels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2, 2])
    real = real_data.RealData(images, labels, (0.5,), (0.5,), 4, "cpu")
    assert real.counts == [1, 0, 2, 0]
    assert real.take(real.indices(1, 5, np.random.default_rng(0))).shape == (0, 1, 4, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_on_cuda_equal_those_on_the_host_and_never_wait():
    host, device = real_of("CIFAR10"), real_of("CIFAR10", device="cuda")
    rows = np.array([3, 0, 9])
    device.take(rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch, labels = device.take(rows), device.labels_of(rows)
        device.take(device.indices(1, 2, np.random.default_rng(0)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(batch.cpu(), host.take(rows))
    assert torch.equal(labels.cpu(), host.labels_of(rows))


# Real images


@pytest.fixture
def real_images(tmp_path):
    """tmp_path with links to the real files, so that caches are written here and not there."""
    source = os.environ.get("BACON_REAL_DATA")
    if not source or not os.path.isdir(source):
        pytest.skip("BACON_REAL_DATA names no folder")
    for path in Path(source).resolve().iterdir():
        if path.name not in ("mnist.pt", "tinyimagenet.pt"):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file", "whole"),
    [
        ("MNIST", "MNIST", (60000, 10000)),
        ("CIFAR10", "cifar10.pt", (50000, 10000)),
        ("CIFAR100", "cifar100.pt", None),
        ("TinyImageNet", "tiny-imagenet-200", None),
    ],
)
def test_real_images_have_the_mean_and_std_of_the_table(name, file, whole, real_images):
    if not (real_images / file).exists():
        pytest.skip(f"no {file} there")
    dataset = loading.load(name, real_images)
    if whole:
        assert (len(dataset.images_train), len(dataset.images_test)) == whole
    assert len(set(dataset.classes)) == dataset.num_classes
    images = dataset.images_train[:: max(1, len(dataset.images_train) // 5000)].double() / 255
    # The field's std of CIFAR-10 is the mean of its images' std, 0.05 below the std of all pixels;
    # TinyImageNet is normalised by the numbers of ImageNet at full size.
    std = images.std((2, 3)).mean(0) if name == "CIFAR10" else images.std((0, 2, 3))
    np.testing.assert_allclose(
        images.mean((0, 2, 3)), dataset.mean, atol=0.03 if name == "TinyImageNet" else 0.01
    )
    np.testing.assert_allclose(std, dataset.std, atol=0.06 if name == "TinyImageNet" else 0.01)


def test_validation_images_are_the_same_for_every_seed_and_never_among_those_trained_on(digits):
    held = digits.validation(7)
    assert (
        torch.bincount(held.labels_test).tolist() == [7] * 10
        and held.train + held.test == digits.train
    )
    split = (
        {tuple(x.flatten().tolist()) for x in held.images_train},
        {tuple(x.flatten().tolist()) for x in held.images_test},
    )
    assert not split[0] & split[1]
    assert split[0] | split[1] == {tuple(x.flatten().tolist()) for x in digits.images_train}
    assert torch.equal(held.images_test, digits.validation(7).images_test)
    with pytest.raises(
        UserError, match=r"--validate 200: class . \(.\) of Digits has 1\d\d images"
    ):
        digits.validation(200)


def test_a_dataset_without_a_file_or_a_reader_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "Scans", DATASETS["MNIST"])
    with pytest.raises(UserError, match=r"no scans\.pt is there, and no reader"):
        loading.load("Scans", tmp_path)
    assert not list(tmp_path.iterdir())
