"""Small images in the users' layouts, and small command lines, shared by the tests."""

import os

import pytest
import torch

import data
import utils

torch.set_num_threads(2)


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no CUDA device")
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
