"""Facts about downloads that fail: what is to be put where, and that nothing is left behind."""

import contextlib

import pytest
from loads import refused

from bacon.data import fetching
from bacon.recipes import DATASETS

OFFICIAL = [name for name in DATASETS if name != "Digits"]


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


@pytest.mark.parametrize(
    ("name", "path"),
    [("CIFAR10", "cifar-10-python.tar.gz"), ("MNIST", "MNIST/raw/t10k-images-idx3-ubyte.gz")],
)
def test_damaged_archive_is_named_and_not_downloaded_over(name, path, tmp_path):
    path = tmp_path / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"the start of a download")
    refused(name, tmp_path, path)


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


def test_folders_that_are_left_empty_go_again_and_all_others_stay(tmp_path):
    (tmp_path / "before/empty").mkdir(parents=True)
    names = ["before", "before/empty", "new", "new/deep", "new/deep/er", "full", "full/empty", "no"]
    for fails in (False, True):
        folders = {tmp_path / name for name in names}
        with contextlib.suppress(KeyboardInterrupt), fetching.tidied(folders):
            (tmp_path / "new/deep/er").mkdir(parents=True)
            (tmp_path / "full/empty").mkdir(parents=True, exist_ok=True)
            (tmp_path / "full/file").touch()
            if fails:
                raise KeyboardInterrupt
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
        kept = ["full/empty"] if fails else []  # was there before the second time
        assert left == sorted(["before", "before/empty", "full", "full/file", *kept])
        (tmp_path / "full/empty").mkdir(exist_ok=True)
