"""Facts about the table of datasets: the script of each, the mean and std of its images.

With BACON_REAL_DATA naming a folder of real images (MNIST/raw, cifar10.pt, cifar100.pt,
tiny-imagenet-200/, any of them, whole or fewer images per class), these are loaded; nothing is
written there.
"""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

from bacon import flags
from bacon.data import datasets, loading


def test_every_dataset_is_distilled_by_the_script_that_others_send_there():
    for name, spec in datasets.DATASETS.items():
        module = importlib.import_module(spec.script.removesuffix(".py"))
        assert name in module.DATASETS and datasets.of_script(spec.script) == module.DATASETS


PUBLISHED = {  # side, mean and std per channel as DC, DM and IDM have them; images of both splits
    "MNIST": (28, [0.1307], [0.3081], 60000, 10000),
    "FashionMNIST": (28, [0.2861], [0.3530], 60000, 10000),
    "SVHN": (32, [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970], 73257, 26032),
    "CIFAR10": (32, [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010], 50000, 10000),
    "CIFAR100": (32, [0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762], 50000, 10000),
    "TinyImageNet": (64, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 100000, 10000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dataset_is_as_its_users_know_it(name):
    spec = datasets.DATASETS[name]
    side, *others = PUBLISHED[name]
    assert [list(spec.mean), list(spec.std), spec.train, spec.test] == others
    assert spec.im_size == (side, side) and spec.channels == len(spec.mean)


def test_a_row_of_the_table_of_datasets_is_a_dataset_of_its_script(monkeypatch):
    row = datasets.DATASETS["MNIST"]._replace(mean=(0.19,), std=(0.35,))
    monkeypatch.setitem(datasets.DATASETS, "KMNIST", row)
    names = datasets.of_script("/somewhere/BACON_mnist.py")
    assert names == ("MNIST", "FashionMNIST", "Digits", "KMNIST")
    parsed = flags.parse_args(names, "", ["--dataset", "kmnist", "--ipc", "10"])
    none = "(none is published for BACON on KMNIST at ipc 10)"
    assert parsed.recipe == f"BACON's for MNIST at ipc 10 {none}"
    ours = flags.parse_args(names, "", ["--dataset=KMNIST", "--ipc=10", "--recipe=ours"])
    assert ours.recipe == "ours for MNIST at ipc 10" and ours.args.chroma == "full"
    assert flags.run_name(ours.args) == "ours_KMNIST_ConvNet_10ipc"
    assert "KMNIST" in flags.build_parser(names, "").format_help()


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


# Training and test images of a class, where all classes have as many.
OF_A_CLASS = {
    "FashionMNIST": (6000, 1000),
    "CIFAR10": (5000, 1000),
    "CIFAR100": (500, 100),
    "TinyImageNet": (500, 50),
}
OF_ALL = {"MNIST": 60000 + 10000, "SVHN": 73257 + 26032, "Digits": 1797}


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_a_whole_dataset_has_as_many_images_as_are_published(name):
    spec = datasets.DATASETS[name]
    if name in OF_A_CLASS:
        assert (spec.train, spec.test) == tuple(n * spec.num_classes for n in OF_A_CLASS[name])
    else:
        assert spec.train + spec.test == OF_ALL[name]


def test_the_row_of_digits_is_that_of_its_images(digits):
    spec = datasets.DATASETS["Digits"]
    images = digits.images_train.double() / 255
    assert (spec.train, spec.test) == (len(images), len(digits.images_test))
    assert (spec.channels, *spec.im_size) == images.shape[1:]
    assert round(images.mean().item(), 4) == spec.mean[0]
    assert round(images.std(correction=0).item(), 4) == spec.std[0]


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("MNIST", (0.1307,), (0.3081,)),
        ("FashionMNIST", (0.2861,), (0.3530,)),
        ("SVHN", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        ("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("CIFAR100", (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        ("TinyImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_images_are_normalised_by_the_numbers_of_dc_and_its_followers(name, mean, std):
    # Sets of these programs are only read right with the same ones.
    spec = datasets.DATASETS[name]
    assert (spec.mean, spec.std) == (mean, std)
