"""Small images in the users' layouts, and small command lines, shared by the tests."""

import collections
import dataclasses
import functools
import os
import sys

import pytest
import torch

import cost
import data
import networks
import utils

torch.set_num_threads(2)


def pytest_configure(config):
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what the other tests say of a run is said of a CPU's


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no CUDA device, or not asked for by -m gpu")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def digits():
    return data.load("Digits", os.devnull)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    """A --data_path with Digits as a .pt file: processes that find it start without importing scikit-learn."""
    folder, digits = tmp_path_factory.mktemp("data"), data.load("Digits", os.devnull)
    tensors = digits.images_train, digits.labels_train, digits.images_test, digits.labels_test
    torch.save(dict(zip(data.KEYS, (digits.classes, *tensors), strict=True)), folder / "digits.pt")
    return folder


@pytest.fixture(scope="session")
def few_digits():
    """A reader of Digits with few images."""
    digits = data.load("Digits", os.devnull)
    images, labels = digits.images_train[:300], digits.labels_train[:300]
    entries = (digits.classes, images, labels, digits.images_test[:50], digits.labels_test[:50])
    return lambda *args: (dict(zip(data.KEYS, entries, strict=True)), "scikit-learn")


@pytest.fixture
def quick(monkeypatch, few_digits):
    """Runs on Digits take a fraction of a second: few images, narrow networks, no work counted."""
    spec = dataclasses.replace(data.DATASETS["Digits"], read=few_digits)
    monkeypatch.setitem(data.DATASETS, "Digits", spec)
    monkeypatch.setitem(networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=4))
    monkeypatch.setattr(cost, "flop_per_image", lambda *args: collections.defaultdict(float))
    monkeypatch.setattr(sys, "argv", ["BACON_mnist.py"])


@pytest.fixture
def make_args():
    """Settings of a small Digits run; keyword arguments are flags."""

    def make(**flags):
        small = {
            "dataset": "Digits", "model": "ConvNetW32", "ipc": 2, "Iteration": 3, "batch_real": 20, "trained_bs": 16,
            "model_train_steps": 2, "num_exp": 1, "num_eval": 1, "epoch_eval_train": 2, "eval_interval": 100,
        }  # fmt: skip
        line = []
        for name, value in {**small, **flags}.items():
            line += (
                [f"--{name}" if value is True else f"--no_{name}"] if isinstance(value, bool) else [f"--{name}={value}"]
            )
        return utils.parse_args(("Digits", "MNIST"), "", line).args

    return make
