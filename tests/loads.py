"""What loading a dataset gives, says and refuses, for the tests of its modules."""

import os

import numpy as np
import pytest
import torch
from heard import hearing
from scripts import contents

from bacon.data import loading
from bacon.errors import UserError


def refused(name, root, *words):
    """`load` raises one line with all the words in it, and leaves every file as it was."""
    before = contents(root)
    with pytest.raises(UserError) as error:
        loading.load(name, root)
    assert contents(root) == before
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def assert_holds(dataset, splits):
    """The dataset has exactly the images and labels of `splits`, in their order."""
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


def heard(name, root):
    """The dataset, and the lines that are said about it."""
    with hearing() as said:
        dataset = loading.load(name, root)
    return dataset, said


def unlisted(monkeypatch, folder):
    """Nobody may list `folder`, even where tests run as root."""
    scandir = os.scandir

    def guarded(path):
        if os.fspath(path) == str(folder):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


def locked(monkeypatch, folder):
    """Nobody may enter `folder`, even where tests run as root."""
    stat, below = os.stat, f"{folder}{os.sep}"

    def guarded(path, *args, **kwargs):
        if not isinstance(path, int) and os.fspath(path).startswith(below):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", guarded)
    monkeypatch.setattr(os.path, "exists", lambda path: not os.fspath(path).startswith(below))
