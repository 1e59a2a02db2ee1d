"""Facts about finding the sets that a command line names, and the real images of each."""

import sys
import types

import pytest
import torch
from heard import hearing
from saved_sets import read, save_mtt, save_ours
from scripts import JUDGED_TWICE, run, scorer
from torchvision.utils import save_image

from bacon import figures, recipes
from bacon.data import known_classes, loading, pt_layout, spaces
from bacon.errors import UserError
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
        ("--baseline=random", "of Digits and MNIST"),
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
    expert = "expert_Digits_ConvNetW32_30steps_seed0_0a1b2c3d_0.pt"
    torch.save({"about": {}, "state": {}}, tmp_path / expert)
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


def test_a_trained_network_is_named_as_what_it_is(tmp_path, capsys):
    path = tmp_path / "expert.pt"
    torch.save({"about": {}, "state": {}}, path)
    assert command.main(None, [str(path)]) == 2
    said = "a trained network of --recipe ours, see --experts; it holds no set"
    assert f"{path}: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("needs_real", [True, False])
@pytest.mark.parametrize("whitened_from", [None, "normalised"])
@pytest.mark.parametrize("theirs", ["there", "here", None])
def test_a_set_of_other_images_is_said_where_these_are_needed(theirs, whitened_from, needs_real):
    saved = types.SimpleNamespace(
        meta={"data_sha256": theirs and theirs * 16},
        whitened_from=whitened_from,
        path="x.pt",
        held_out=0,
    )
    here = types.SimpleNamespace(fingerprint="here" * 16)
    real = types.SimpleNamespace(dataset=here, validate=0)
    with hearing() as said:
        finding._say_of_other_data(finding.SetsOfFile([saved], real), needs_real)
    differs = theirs == "there" and (needs_real or whitened_from)
    line = "x.pt: distilled from data with hash therethe, judged on herehere"
    assert said == ([line] if differs else [])


FROM_THEM = "judged on {} training images per class that it may be distilled from; take a set of a "
FROM_THEM += "run with --validate {}"
WITHOUT_THEM = "distilled without {} training images per class (--validate), judged on the test "
WITHOUT_THEM += "images"


@pytest.mark.parametrize("needs_real", [True, False])
@pytest.mark.parametrize(
    ("held_out", "validate", "line"),
    [
        (0, 0, None),
        (9, 9, None),
        (9, 4, None),  # which are among the nine
        (0, 9, FROM_THEM.format(9, 9)),
        (4, 9, FROM_THEM.format(9, 9)),
        (9, 0, WITHOUT_THEM.format(9)),
    ],
)
def test_a_set_that_is_judged_on_another_split_is_said(held_out, validate, line, needs_real):
    saved = types.SimpleNamespace(meta={}, whitened_from=None, path="x.pt", held_out=held_out)
    real = types.SimpleNamespace(validate=validate)
    with hearing() as said:
        finding._say_of_other_data(finding.SetsOfFile([saved], real), needs_real)
    assert said == ([f"x.pt: {line}"] if line and needs_real else [])


# what a folder holds, and which of it are sets
HELD = {
    "tensors": (["a.PT", "b.pth", "c.npz", "d.txt"], ["a.PT", "b.pth", "c.npz"]),
    "none": ([".h.pt", "ckpt_x.pt", "a.pt"], ["a.pt"]),
    "arrays": (["c.npz", "e.npy", "e_labels.npy", "f.npy"], ["c.npz", "e.npy"]),
    "below": (["a.pt", "below/b.pt"], ["a.pt"]),
}


@pytest.mark.parametrize("kind", HELD)
def test_the_sets_of_a_folder_by_their_names(kind, tmp_path):
    held, chosen = HELD[kind]
    (tmp_path / "folder.pt").mkdir()
    for name in held:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert finding.files(tmp_path) == [tmp_path / name for name in chosen]
    below = [tmp_path / name for name in held if "/" in name]
    assert set(finding.files(tmp_path, recursive=True)) - set(finding.files(tmp_path)) == set(below)


@pytest.mark.parametrize(("others", "lines"), [(-1, 0), (0, 0), (1, 1)])
def test_files_that_are_no_sets_are_counted_beyond_the_first(
    others, lines, canvases, facts, tmp_path
):
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    for k in range(finding.REFUSALS + others):
        (tmp_path / f"x{k:02d}.pt").touch()
    with hearing() as said:
        assert len(finding.found_at(tmp_path)) == 1
    counted = [line for line in said if "others" in line]
    assert counted == [f"skipped: 1 others at {tmp_path}"] * lines
    assert len(said) == finding.REFUSALS + others


def test_one_file_that_is_no_set_is_refused_alone(tmp_path):
    (tmp_path / "x.pt").touch()
    for path in (tmp_path, tmp_path / "x.pt"):
        with pytest.raises(UserError) as error:
            finding.found_at(path)
        assert str(error.value) == f"{tmp_path / 'x.pt'}: is empty (0 bytes); copy it again"


def test_how_each_file_was_read_is_said_and_each_doubt_once(
    canvases, facts, tmp_path, digits, digits_folder
):
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2, data_sha256="ab" * 32)
    unit = canvases[0].clamp(0, 1)
    torch.save({"data": [[unit, canvases[1]]] * 2}, tmp_path / "theirs.pt")
    line = [tmp_path / "ours.pt", tmp_path / "theirs.pt", f"--data_path={digits_folder}"]
    expected = [
        "ours.pt: these scripts' layout, 1 experiment; assumed: nothing, the file says it all",
        "theirs.pt: DC layout, 2 experiments; assumed: normalised, factor 1 (--factor 2 for IDM's, "
        "BACON's), of Digits as ours.pt beside it (--dataset if it is not)",
        "theirs.pt: its pixels are 0.00..1.00, taken as normalised; if they are in [0,1], "
        "--pixels unit",
    ]
    for needs_real in (False, True):
        with hearing() as said:
            ours, theirs = finding.read(scorer(*line), needs_real)
        here = ours.real.dataset.fingerprint[:8]
        other = f"ours.pt: distilled from data with hash abababab, judged on {here}"
        lines = expected + [other] * needs_real
        assert said == [f"{tmp_path}/{line}" for line in lines]
        assert (len(ours.sets), len(theirs.sets)) == (1, 2) and ours.real is theirs.real
        assert all(one.assumed in expected[1] for one in theirs.sets)


def test_pictures_of_ones_own_have_the_size_that_is_given_or_else_that_of_the_run(
    canvases, facts, tmp_path
):
    save_ours(tmp_path / "x.pt", *canvases, facts, 2, dataset="ImageFolder", classes=["a"])
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    saved["meta"]["args"]["im_size"] = 16
    torch.save(saved, tmp_path / "x.pt")
    (of_run,) = finding.find(scorer(tmp_path / "x.pt"))
    (given,) = finding.find(scorer(tmp_path / "x.pt", "--im_size=8"))
    assert (of_run.real.im_size, given.real.im_size) == (16, 8)
    assert of_run.because == "" and of_run.doubt() == ""


def test_sets_of_pictures_of_several_sizes_have_real_images_of_their_own_size(
    canvases, facts, tmp_path
):
    save_ours(tmp_path / "a.pt", *canvases, facts, 2)
    for name, size in {"b": 16, "c": 24, "d": 16}.items():
        path = tmp_path / f"{name}.pt"
        save_ours(path, *canvases, facts, 2, dataset="ImageFolder", classes=["a"])
        saved = torch.load(path, weights_only=True)
        saved["meta"]["args"]["im_size"] = size
        torch.save(saved, path)
    found = [one.real for one in finding.find(scorer(tmp_path))]
    assert [real.im_size for real in found] == [None, 16, 24, 16]
    assert found[1] is found[3]


def test_a_whitening_is_fitted_without_what_the_run_of_the_set_held_out(digits_folder):
    real = finding.RealImages("Digits", scorer(f"--data_path={digits_folder}"))
    kept = real.dataset.validation(20)
    expected = spaces.Whitening.fit(kept.real("train"))
    with hearing() as said:
        found = real.whitening("normalised", held_out=20)
    assert torch.equal(found._forward, expected._forward)
    assert said == [f"fitting the ZCA whitening on {kept.train:,} training images"]
    of_test = real.test("normalised", "cpu", held_out=20)
    assert torch.equal(of_test.whitening._forward, expected._forward)
    assert real.test("normalised", "cpu").whitening._forward.ne(expected._forward).any()
    held = finding.RealImages("Digits", scorer(f"--data_path={digits_folder}", "--validate=20"))
    assert torch.equal(held.whitening("normalised", held_out=20)._forward, expected._forward)
    whole = real.whitening("normalised")
    assert torch.equal(held.whitening("normalised")._forward, whole._forward)


def test_real_images_are_made_once_for_each_space(digits_folder):
    real = finding.RealImages("Digits", scorer(f"--data_path={digits_folder}"))
    with hearing() as said:
        whitened = real.test("pixels", "cpu")
        assert real.test("pixels", "cpu") is whitened
        plain = real.test(None, "cpu")
        assert real.test(None, "cpu") is plain is not whitened
    assert said == [f"fitting the ZCA whitening on {real.dataset.train:,} training images"]


def test_a_set_of_ones_own_images_is_read_without_them_unless_it_is_whitened(
    canvases, facts, tmp_path, monkeypatch
):
    def load(*args):
        raise UserError("these are not here")

    monkeypatch.setattr(loading, "load", load)
    own = {"dataset": "ImageFolder", "classes": list("abcdefghij")}
    save_ours(tmp_path / "x.pt", *canvases, facts, 2, **own)
    save_ours(tmp_path / "zca.pt", *canvases, facts, 2, zca={"eps": 0.1}, **own)
    (one,) = finding.read(scorer(tmp_path / "x.pt"), needs_real=False)
    assert torch.equal(one.sets[0].canvases, canvases[0])
    for name, needs_real in {"x.pt": True, "zca.pt": False}.items():
        with pytest.raises(UserError, match="these are not here"):
            finding.read(scorer(tmp_path / name), needs_real)
