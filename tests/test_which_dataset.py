"""Facts about the dataset of a set that does not say it: it is asked for or said, doubts too."""

import json

import numpy as np
import pytest
import torch

from bacon import recipes
from bacon.data import pt_layout, spaces
from bacon.score import command, which_dataset

NAMES = {
    "res_DC_CIFAR10_ConvNet_10ipc.pt": ["CIFAR10"],
    "cifar-100_ipc1.pt": ["CIFAR100"],
    "CIFAR10_0.pt": ["CIFAR10"],
    "dm_svhn_10.pt": ["SVHN"],
    "res_DM_FashionMNIST_ConvNet.pt": ["FashionMNIST"],
    "fashion_mnist.pt": ["FashionMNIST"],
    "res_DC_MNIST_LeNet_1ipc.pt": ["MNIST"],
    "kmnist.pt": [],
    "tiny-imagenet-200.pt": ["TinyImageNet"],
    "cifar10_to_svhn.pt": ["CIFAR10", "SVHN"],
    "distilled/CIFAR10_ZCA/IPC10/images.pt": ["CIFAR10"],
    "cifar10/svhn/images.pt": ["SVHN"],
    "cifar10/a/b/c.pt": [],
    "images_best.pt": [],
}


@pytest.mark.parametrize("path", NAMES)
def test_names_of_files_and_folders_name_datasets(path):
    assert which_dataset.named_by(path) == NAMES[path]
    for dataset in recipes.DATASETS:
        doubt = which_dataset.contradiction(path, dataset)
        assert bool(doubt) == bool(NAMES[path] and dataset not in NAMES[path])


@pytest.fixture
def folder(tmp_path):
    """Real images of CIFAR10 and SVHN, made up."""
    rng = torch.Generator().manual_seed(0)
    for name in ("CIFAR10", "SVHN"):
        images = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8, generator=rng)
        labels = torch.arange(20) % 10
        entries = (list("abcdefghij"), images, labels, images, labels)
        torch.save(dict(zip(pt_layout.KEYS, entries, strict=True)), tmp_path / f"{name.lower()}.pt")
    return tmp_path


def images(n=10):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def save_ours(path, dataset):
    args = {"dataset": dataset, "model": "MLP", "seed": 0, "num_eval": 1, "epoch_eval_train": 1}
    args |= {"batch_train": 256, "lr_net": 0.01, "dsa_strategy": "flip", "im_size": None}
    spec = recipes.DATASETS[dataset]
    meta = {"args": args, "mean": list(spec.mean), "std": list(spec.std), "factor": 1, "zca": None}
    saved = {"data": [[images(), torch.arange(10)]], "accs_all_exps": {}, "meta": meta}
    torch.save(saved, path)


def save_foreign(path, pixels=None, **entries):
    pixels = images() if pixels is None else pixels
    torch.save({"data": [[pixels, torch.arange(10)]], **entries}, path)


@pytest.fixture
def said(folder, capsys):
    """What a command line says of sets, by one short judge: exit code, standard error, the rows."""

    def line(*words):
        flags = ["--model=MLP", "--num_eval=1", "--epoch_eval_train=1", "--format=json"]
        code = command.main(None, [*map(str, words), *flags, f"--data_path={folder}"])
        text = capsys.readouterr()
        return code, text.err, [json.loads(row) for row in text.out.splitlines()]

    return line


def test_the_dataset_of_a_run_beside_it_is_assumed_in_words(folder, said):
    save_ours(folder / "ours.pt", "SVHN")
    save_foreign(folder / "x.pt")
    code, err, rows = said(folder / "ours.pt", folder / "x.pt")
    assert code == 0 and [row["dataset"] for row in rows] == ["SVHN", "SVHN"]
    assert "of SVHN as ours.pt beside it" in err
    assert "of SVHN as ours.pt beside it" in rows[1]["assumed"] and "SVHN" not in rows[0]["assumed"]
    _, err, (row,) = said(folder / "x.pt", "--dataset=CIFAR10")
    assert "of CIFAR10 as --dataset says" in row["assumed"]


@pytest.mark.parametrize("name", ["res_DC_CIFAR10_ConvNet.pt", "cifar-10_mtt.pt"])
def test_a_name_that_contradicts_is_said_and_is_an_error_without_a_dataset(name, folder, said):
    save_ours(folder / "ours.pt", "SVHN")
    save_foreign(folder / name)
    code, err, _ = said(folder / name, folder / "ours.pt")
    assert code == 2 and err.count("\n") == 1 and "--dataset" in err
    assert f"{name}: its name says CIFAR10, but it is read as SVHN, as ours.pt beside it" in err
    code, err, _ = said(folder / name)
    assert code == 2 and "give --dataset (its name says CIFAR10)" in err
    code, err, _ = said(folder / name, "--dataset=SVHN")
    assert code == 0 and f"{name}: its name says CIFAR10, but it is read as SVHN\n" in err
    code, err, _ = said(folder / name, "--dataset=CIFAR10")
    assert code == 0 and "its name says" not in err


def test_recorded_accuracies_far_above_chance_contradict_a_set_at_chance(folder, said):
    recorded = {"MLP": [np.float64(0.9)], "ConvNet": [0.95]}
    save_foreign(folder / "x.pt", pixels=torch.zeros(10, 3, 32, 32), accs_all_exps=recorded)
    code, err, (row,) = said(folder / "x.pt", "--dataset=CIFAR10")
    assert code == 0 and row["recorded"] == 90
    assert f"MLP gets {row['mean']:.1f} %, but 90.0 % are recorded; is it a set of CIFAR10" in err
    save_foreign(folder / "x.pt", accs_all_exps={"MLP": [0.12]})
    assert "recorded;" not in said(folder / "x.pt", "--dataset=CIFAR10")[1]


def test_published_accuracies_are_no_contradiction():
    for accuracy, recorded in ((19.2, 24.5), (26.5, 25.8), (16.6, 17.4), (91.6, 91.8)):
        assert not which_dataset.far_below(accuracy, recorded, 10)
    for accuracy, recorded in ((9.2, 45.4), (12.0, 28.4), (1.2, 13.9)):
        assert which_dataset.far_below(accuracy, recorded, 10 if recorded > 14 else 100)
    for nothing in (float("nan"), 4540.0, 0.0):
        assert not which_dataset.far_below(9.2, nothing, 10)


def test_another_size_says_whose_it_is(folder, said):
    save_foreign(folder / "x.pt")
    code, err, _ = said(folder / "x.pt", "--dataset=MNIST")
    assert code == 2 and "3x32x32 (the size of SVHN, CIFAR10, CIFAR100), but MNIST's are" in err


PIXELS = {
    "unit": (images().sigmoid(), "--pixels unit"),
    "bytes": (255 * images().sigmoid(), "--pixels bytes"),
    "whole numbers": ((255 * images().sigmoid()).round(), "--pixels bytes"),
    "normalised": (images(), ""),
    "dark and normalised": (0.1 * images() - 0.4, ""),
}


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("layout", ["DC", "MTT"])
def test_plain_pixels_in_a_layout_of_normalised_ones_get_a_hint(kind, layout, folder, said):
    pixels, hint = PIXELS[kind]
    if layout == "DC":
        save_foreign(folder / "x.pt", pixels=pixels)
    else:
        torch.save(pixels, folder / "images_x.pt")
        torch.save(torch.arange(10), folder / "labels_x.pt")
    path = folder / ("x.pt" if layout == "DC" else "images_x.pt")
    code, err, _ = said(path, "--dataset=CIFAR10")
    assert code == 0 and ("taken as normalised" in err) == bool(hint) and hint in err
    if hint:
        code, err, _ = said(path, "--dataset=CIFAR10", *hint.split())
        assert code == 0 and "taken as" not in err
    assert ("taken as whitened" in spaces.misread(pixels, "zca")) == bool(hint)


def test_bytes_are_told_how_they_are_read(folder, said):
    save_foreign(folder / "x.pt", pixels=(255 * images().sigmoid()).byte())
    code, err, _ = said(folder / "x.pt", "--dataset=CIFAR10")
    assert code == 2 and "uint8" in err and "--pixels bytes" in err
    assert said(folder / "x.pt", "--dataset=CIFAR10", "--pixels=bytes")[0] == 0


@pytest.mark.parametrize(
    ("accuracy", "recorded", "far"),
    [
        (19.9, 50, True),  # chance is 10, so a quarter of 40 above it is 20
        (20.1, 50, False),
        (10, 20.1, True),
        (10, 20, False),  # twice chance says nothing
        (10, 100, True),
        (10, 100.1, False),  # no accuracy
    ],
)
def test_an_accuracy_is_amiss_below_a_quarter_of_what_is_recorded_above_chance(
    accuracy, recorded, far
):
    assert which_dataset.far_below(accuracy, recorded, 10) == far
