"""Facts about finding the sets that a command line names, and the real images of each."""

import sys
import types

import pytest
import torch
from heard import hearing
from saved_sets import read, save_mtt, save_ours
from scripts import JUDGED_TWICE, run
from torchvision.utils import save_image

from bacon import figures, recipes
from bacon.data import known_classes, loading, pt_layout
from bacon.score import command, finding


def test_a_set_named_twice_is_judged_once(digit_runs, score):
    (path,) = (digit_runs / "no_tv").glob("res_*.pt")
    (row,) = score(digit_runs / "no_tv", path, "--num_eval=1")
    assert row["networks"] == 1


def test_images_that_are_linked_to_have_the_labels_beside_the_link(tmp_path, score):
    for name, roll in {"a": 0, "b": 1}.items():
        (tmp_path / name).mkdir()
        torch.save(torch.arange(10).roll(roll), tmp_path / name / "labels_best.pt")
    torch.save(torch.zeros(10, 1, 8, 8), tmp_path / "a/images_best.pt")
    (tmp_path / "b/images_best.pt").symlink_to("../a/images_best.pt")
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    assert len(score(tmp_path / "a", tmp_path / "b", *line)) == 2


def test_a_folder_of_runs_says_what_it_holds_and_is_scored_on_request(digit_runs, score, capsys):
    assert command.main(None, [str(digit_runs)]) == 2
    error = capsys.readouterr().err
    assert (
        "3 in folders below it" in error and "no_tv/res_BACON" in error and "--recursive" in error
    )
    rows = score(digit_runs, "--recursive", "--num_eval=1")
    assert [row["name"].split("/")[0] for row in rows] == ["BACON", "no_tv", "random"]
    assert all(row["logged, the same networks"] for row in rows)


def test_sets_of_several_datasets_are_each_judged_on_their_own_data(
    tmp_path, score, monkeypatch, capsys
):
    for name, file in {"Digits": "digits.pt", "MNIST": "mnist.pt"}.items():
        spec = recipes.DATASETS[name]
        images, labels = (
            torch.randint(256, (20, 1, *spec.im_size), dtype=torch.uint8),
            torch.arange(20) % 10,
        )
        entries = (list("abcdefghij"), images, labels, images, labels)
        torch.save(dict(zip(pt_layout.KEYS, entries, strict=True)), tmp_path / file)
        line = [
            "--dataset",
            name,
            *JUDGED_TWICE[1:],
            "--ipc=1",
            "--batch_real=2",
            "--Iteration=0",
            "--no_aug",
        ]
        monkeypatch.setattr(sys, "argv", ["BACON_mnist.py"])
        assert (
            run(
                "BACON_mnist.py",
                *line,
                "--init=noise",
                "--data_path",
                tmp_path,
                "--save_path",
                tmp_path / "x",
            )
            == 0
        )
    capsys.readouterr()
    rows = score(tmp_path / "x", "--data_path", tmp_path)
    assert [row["dataset"] for row in rows] == ["Digits", "MNIST"]
    assert all(row["logged, the same networks"] for row in rows)
    capsys.readouterr()
    for flag, words in (
        ("--baseline=random", "of Digits, MNIST"),
        ("--dataset=MNIST", "from Digits, not from MNIST"),
    ):
        assert command.main(None, [str(tmp_path / "x"), flag, f"--data_path={tmp_path}"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "TinyImageNet", "FashionMNIST", "SVHN"])
def test_a_foreign_set_of_a_known_dataset_needs_no_images_for_its_names(
    name, tmp_path, monkeypatch
):
    spec = recipes.DATASETS[name]
    images = torch.zeros(spec.num_classes, spec.channels, *spec.im_size)
    torch.save({"data": [[images, torch.arange(spec.num_classes)]]}, tmp_path / "x.pt")
    monkeypatch.setattr(loading, "load", None)
    line = [str(tmp_path / "x.pt"), f"--dataset={name}", f"--data_path={tmp_path / 'data'}"]
    drawn = []
    monkeypatch.setattr(
        figures, "grid", lambda images, labels, classes, path: drawn.append(classes)
    )
    assert command.main(None, [*line, "--grid", str(tmp_path / "x.png")]) == 0
    assert drawn == [list(known_classes.CLASSES[name])]


def test_names_in_the_data_that_are_at_hand_are_those_shown(tmp_path, monkeypatch):
    images, labels = torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10)
    own = [f"number {c}" for c in range(10)]
    torch.save(
        dict(zip(pt_layout.KEYS, (own, images, labels, images, labels), strict=True)),
        tmp_path / "mnist.pt",
    )
    torch.save({"data": [[images.float(), labels]]}, tmp_path / "x.pt")
    line = [str(tmp_path / "x.pt"), "--dataset=MNIST", f"--data_path={tmp_path}"]
    drawn = []
    monkeypatch.setattr(
        figures, "grid", lambda images, labels, classes, path: drawn.append(classes)
    )
    assert command.main(None, [*line, "--grid", str(tmp_path / "x.png")]) == 0 and drawn == [own]


def test_what_lies_beside_a_set_in_its_folder_is_no_set(canvases, facts, tmp_path):
    for name in ("res_x.pt", "res_x_exp0.pt", "res_x_exp1.pt", "res_x_exp2.pt", "res_y_exp0.pt"):
        numbers = [0, 1] if name == "res_x.pt" else [int(name[-4])]
        save_ours(tmp_path / name, *canvases, facts, 2, experiments=numbers)
    torch.save({"format": "BACON checkpoint 1"}, tmp_path / "ckpt_z.pt")
    save_mtt(tmp_path, *canvases, facts)
    torch.save(canvases[0], tmp_path / "images_zca_best.pt")
    (tmp_path / "other_run").mkdir()
    save_image(torch.zeros(3, 8, 8), tmp_path / "other_run/vis.png")
    found = [saved.path for saved in read(tmp_path, facts)]
    names = [
        "images_best.pt",
        "res_x.pt",
        "res_x_exp2.pt",
        "res_y_exp0.pt",
    ]  # 2 is not in the whole
    assert [path.rsplit("/", 1)[1] for path in found] == names


@pytest.mark.parametrize("needs_real", [True, False])
@pytest.mark.parametrize("whitened_from", [None, "normalised"])
@pytest.mark.parametrize("theirs", ["there", "here", None])
def test_a_set_of_other_images_is_said_where_these_are_needed(theirs, whitened_from, needs_real):
    saved = types.SimpleNamespace(
        meta={"data_sha256": theirs and theirs * 16}, whitened_from=whitened_from, path="x.pt"
    )
    real = types.SimpleNamespace(dataset=types.SimpleNamespace(fingerprint="here" * 16))
    with hearing() as said:
        finding._say_of_other_data(finding.SetsOfFile([saved], real), needs_real)
    differs = theirs == "there" and (needs_real or whitened_from)
    line = "x.pt: distilled from data with hash therethe, judged on herehere"
    assert said == ([line] if differs else [])
