"""Small images in the users' layouts, and small command lines, shared by the tests."""

import collections
import functools
import os
import sys

import pytest
import torch
from scripts import SMALL, run

import networks
from bacon import compute, flags
from bacon.data import loading, pt_layout
from bacon.distill import distiller
from bacon.run import cost

torch.set_num_threads(1)  # on images this small a second thread only waits


def pytest_configure(config):
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    if config.getoption("markexpr") != "gpu":
        # What the other tests say of a run is said of a CPU's.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no CUDA device, or not asked for by -m gpu")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)


@pytest.fixture(scope="session")
def digits():
    return loading.load("Digits", os.devnull)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory, digits):
    """A --data_path with Digits as a .pt file.

    Processes that find it start without importing scikit-learn.
    """
    folder = tmp_path_factory.mktemp("data")
    tensors = digits.images_train, digits.labels_train, digits.images_test, digits.labels_test
    torch.save(
        dict(zip(pt_layout.KEYS, (digits.classes, *tensors), strict=True)), folder / "digits.pt"
    )
    return folder


@pytest.fixture(scope="session")
def few_digits(digits):
    """A reader of Digits with few images."""
    images, labels = digits.images_train[:300], digits.labels_train[:300]
    entries = (digits.classes, images, labels, digits.images_test[:50], digits.labels_test[:50])
    return lambda *args: (dict(zip(pt_layout.KEYS, entries, strict=True)), "scikit-learn")


@pytest.fixture
def quick(monkeypatch, few_digits):
    """Runs on Digits take a fraction of a second.

    By few images and narrow networks; no FLOP are counted, and there is no fsync.
    """
    monkeypatch.setitem(loading.READERS, "Digits", few_digits)
    monkeypatch.setitem(
        networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=4)
    )
    monkeypatch.setattr(cost, "flop_per_image", lambda *args: collections.defaultdict(float))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(sys, "argv", ["BACON_mnist.py"])


@pytest.fixture
def make_args():
    """Settings of a small Digits run; keyword arguments are flags."""

    def make(**given):
        switches = [
            f"--{'' if value else 'no_'}{name}"
            for name, value in given.items()
            if isinstance(value, bool)
        ]
        values = [
            f"--{name}={value}" for name, value in given.items() if not isinstance(value, bool)
        ]
        return flags.parse_args(("Digits", "MNIST"), "", [*SMALL, *switches, *values]).args

    return make


@pytest.fixture
def make_distiller(digits, make_args):
    """Make the Distiller of a small Digits run; keyword arguments are flags."""

    def make(exp=0, **given):
        args = make_args(**given)
        return distiller.begin(args, exp, digits.real("train"), compute.Arithmetic("cpu"))

    return make


@pytest.fixture
def finished(tmp_path):
    """Run a small command line to its end: its folder."""

    def make(*given, folder="run"):
        assert run("BACON_mnist.py", *SMALL, *given, "--save_path", tmp_path / folder) == 0
        return tmp_path / folder

    return make
