"""Facts about loading a dataset by its name: what is kept as .pt, and what is refused."""

import contextlib
import os
import threading
import time

import pytest
import torch
from heard import hearing
from layouts import fake, to_bytes, written
from loads import assert_holds, heard, locked, refused

from bacon import files
from bacon.data import loading, pt_layout, readers
from bacon.errors import UserError
from bacon.recipes import DATASETS

OFFICIAL = [name for name in DATASETS if name != "Digits"]


# Sources


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


def test_unknown_dataset_lists_the_known_ones(tmp_path):
    refused("ImageNet", tmp_path, "ImageNet", *DATASETS)


# Sets that are not whole


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


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("depth", ["data", "data/deep/er"])
def test_a_data_folder_that_may_not_be_read_is_named(name, depth, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    locked(monkeypatch, tmp_path / "data")
    with pytest.raises(UserError) as error:
        loading.load(name, tmp_path / depth)
    assert str(error.value) == f"{tmp_path / 'data'}: cannot be read (Permission denied)"


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


# Damaged and foreign files


def test_a_folder_in_place_of_the_pt_is_refused(tmp_path):
    (tmp_path / "mnist.pt").mkdir()
    refused("MNIST", tmp_path, tmp_path / "mnist.pt", "Is a directory")


def test_a_dataset_without_a_file_or_a_reader_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "Scans", DATASETS["MNIST"])
    with pytest.raises(UserError, match=r"no scans\.pt is there, and no reader"):
        loading.load("Scans", tmp_path)
    assert not list(tmp_path.iterdir())


def test_official_files_in_a_folder_that_cannot_be_written_are_read(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    splits = written("MNIST", tmp_path, monkeypatch)
    monkeypatch.setattr(loading, "lock", refuse)
    monkeypatch.setattr(loading, "save_torch", refuse)
    dataset, (line,) = heard("MNIST", tmp_path)
    assert_holds(dataset, splits)
    assert line.endswith(
        "(PermissionError: [Errno 13] Permission denied), so the next start "
        f"reads {tmp_path / 'MNIST/raw'} again"
    )


def test_images_at_hand_are_read_from_a_pt_that_is_there_and_never_written(
    tmp_path, monkeypatch, few_digits
):
    monkeypatch.setitem(readers.READERS, "Digits", few_digits)
    dataset, (line,) = heard("Digits", tmp_path)
    whole = "the whole set 1,201 and 596"
    assert line == f"Digits: scikit-learn holds 300 training and 50 test images, {whole}"
    assert not list(tmp_path.iterdir())
    train = (dataset.images_train[:200], dataset.labels_train[:200])
    test = (dataset.images_test, dataset.labels_test)
    entries = pt_layout.layout(dataset.classes, train, test)
    torch.save(entries, tmp_path / "digits.pt")
    assert heard("Digits", tmp_path)[0].train == 200
