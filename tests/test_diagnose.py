"""Facts about --diagnose: of a set that was damaged in one way, it names that way."""

import json

import pytest
import torch
import torch.nn.functional as F

from bacon.data import spaces
from bacon.score import command, diagnose, layouts, sets
from bacon.score.baselines import baseline

ORDER = [4, 2, 3, 7, 9, 0, 1, 8, 5, 6]  # the class that each label of a damaged set means


@pytest.fixture(scope="module")
def made(digits):
    """Four canvases of each class, four real images each, normalised; their labels; the same images
    one to a canvas."""
    one = baseline("random4", digits.real("train"), 4, seed=0)
    return one.canvases, one.labels, one.decoded()


def pixels(x):
    return spaces.denormalise(x, (0.3048,), (0.3757,))


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def soft(labels):
    return (6.0 * F.one_hot(labels, 10) + noise(len(labels), 10)).softmax(1)


def whitened(x, digits):
    return spaces.Whitening.fit(digits.real("train", "cpu", normalised=False)).apply(pixels(x))


# what is saved in DC's layout, of canvases, labels and the decoded images and labels; the advice
# that it gets
COPIES = {
    "intact": (lambda x, y, d, _: d, "as given: normalised, one image a canvas"),
    "without factor": (lambda x, y, d, _: (x, y), "--factor 2: normalised, four images a canvas"),
    "[0,1]": (lambda x, y, d, _: (pixels(x), y), "--factor 2 --pixels unit: in [0,1], four"),
    "[0,255]": (lambda x, y, d, _: (pixels(d[0]) * 255, d[1]), "--pixels bytes: in [0,255], one"),
    "bytes": (
        lambda x, y, d, _: ((pixels(d[0]) * 255).byte(), d[1]),
        "--pixels bytes: in [0,255], one",
    ),
    "ZCA": (
        lambda x, y, d, digits: (whitened(d[0], digits), d[1]),
        "--pixels zca: whitened (ZCA), one",
    ),
    "permuted": (
        lambda x, y, d, _: (x, torch.tensor(ORDER).argsort()[y]),
        "--factor 2 --relabel FILE: normalised",
    ),
    "backwards": (
        lambda x, y, d, _: (d[0], 9 - d[1]),
        "--relabel FILE: normalised, one image a canvas; classes",
    ),
    "probabilities": (
        lambda x, y, d, _: (d[0], soft(d[1])),
        "as given: normalised, one image a canvas, soft",
    ),
    "percent": (
        lambda x, y, d, _: (d[0], (100 * soft(d[1])).round()),
        "--labels probabilities: normalised, one image",
    ),
    "less 0.1": (
        lambda x, y, d, _: (d[0], F.one_hot(d[1], 10) - 0.1),
        "--labels hard: normalised, one",
    ),
    "centred": (
        lambda x, y, d, _: (x, F.one_hot(y, 10) - 0.3 * soft(y) - 0.07),
        "--factor 2 --labels hard: norm",
    ),
    "rounded": (
        lambda x, y, d, _: (d[0], soft(d[1]).bfloat16()),
        "as given: normalised, one image",
    ),
    "logits": (
        lambda x, y, d, _: (d[0], soft(d[1]).log()),
        "as given: normalised, one image a canvas",
    ),
    "noise": (lambda x, y, d, _: (noise(*x.shape), y), "no reading is better than chance"),
}


def diagnosed(path, capsys, folder, *flags):
    assert (
        command.main(
            None, [str(path), "--dataset=Digits", "--diagnose", f"--data_path={folder}", *flags]
        )
        == 0
    )
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", COPIES)
def test_a_damaged_copy_is_told(kind, made, digits, digits_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diagnose, "SEEN", 2500)
    make, advice = COPIES[kind]
    torch.save({"data": [list(make(*made, digits))]}, tmp_path / "x.pt")
    out = diagnosed(tmp_path / "x.pt", capsys, digits_folder)
    assert out.splitlines()[-1].startswith(advice), out
    assert (
        max(map(len, out.splitlines())) <= 120
        and "no scores" in out
        and (kind == "noise") != ("<- meant" in out)
    )
    assert ("numbered backwards" in out) == (kind == "backwards")


def test_an_order_is_written_on_request_and_taken_by_scoring_and_exports(
    made, digits_folder, tmp_path, capsys
):
    torch.save({"data": [[made[0], torch.tensor(ORDER).argsort()[made[1]]]]}, tmp_path / "x.pt")
    order, name = str(tmp_path / "order.json"), str(tmp_path / "x.pt")
    first = diagnosed(name, capsys, digits_folder, "--factor=2", "--relabel", order)
    assert (
        json.loads((tmp_path / "order.json").read_text()) == ORDER and f"--relabel {order}" in first
    )
    assert (
        diagnosed(name, capsys, digits_folder, "--factor=2", "--relabel", order) == first
    )  # bitwise the same
    line = [name, "--dataset=Digits", "--relabel", order, f"--data_path={digits_folder}"]
    assert command.main(None, [*line, "--export", "dc", str(tmp_path / "y.pt")]) == 0
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True)["data"][0][1], made[1])
    for text in ("[0, 1]", "[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]", "{"):
        (tmp_path / "order.json").write_text(text)
        capsys.readouterr()
        assert command.main(None, line) == 2 and "--relabel" in capsys.readouterr().err


def test_an_experiment_that_the_file_lacks_is_one_line(made, digits_folder, tmp_path, capsys):
    torch.save({"data": [list(made[:2])]}, tmp_path / "x.pt")
    line = [
        tmp_path / "x.pt",
        "--dataset=Digits",
        "--diagnose",
        "--exp=5",
        f"--data_path={digits_folder}",
    ]
    assert command.main(None, list(map(str, line))) == 2
    assert "--exp 5" in capsys.readouterr().err


def test_orders_that_others_number_classes_in():
    orders = diagnose.orders([f"n{number:08d}" for number in (30, 20, 10)] + ["n00000040"])
    assert orders["by wnid"].tolist() == orders["by name"].tolist() == [2, 1, 0, 3]
    as_text = diagnose.orders([str(c) for c in range(12)])["by number, sorted as text"].tolist()
    assert as_text == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_flags_override_what_a_layout_implies(made, digits, tmp_path):
    facts = sets.Facts.of("Digits", digits, lambda: digits.classes)
    torch.save({"data": [[(pixels(made[0]) * 255), soft(made[1])]]}, tmp_path / "x.pt")
    way = layouts.Way(pixels="bytes", soft="logits", order=ORDER)
    (read,) = layouts.read(layouts.recognise(tmp_path / "x.pt"), facts, way)
    torch.testing.assert_close(read.canvases, made[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read.labels[:, ORDER], soft(made[1]))
    assert "in [0,255]" in read.assumed and "logits" in read.assumed


def test_each_meaning_that_labels_may_have_is_tried_once(made, digits, tmp_path):
    images, labels = made[2]
    facts = sets.Facts.of("Digits", digits, lambda: digits.classes)
    far_from_one = F.one_hot(labels, 10) * 9 + noise(len(labels), 10).abs()
    rounded = soft(labels).bfloat16()  # of which the rows sum up to about 1
    every = ["probabilities", "logits", "hard"]
    for stored, kinds in ((soft(labels), every), (rounded, every), (far_from_one, every[1:])):
        torch.save({"data": [[images, stored]]}, tmp_path / "x.pt")
        found = layouts.recognise(tmp_path / "x.pt")
        candidates = diagnose._candidates(found, facts, layouts.Way(), None)
        of_one = [one for one in candidates if one.saved.factor == 1]
        as_stored = [one.saved.soft for one in of_one if one.way.pixels in (None, "normalised")]
        assert as_stored == kinds  # each once, however many ways read it


def test_of_large_images_no_whitening_is_fitted_and_that_is_said(
    made, digits_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(diagnose, "LARGEST", 63)
    monkeypatch.setattr(diagnose, "SEEN", 1)
    monkeypatch.setattr(diagnose, "EPOCHS", 1)
    monkeypatch.setattr(diagnose.Whitening, "fit", None)
    torch.save({"data": [list(made[2])]}, tmp_path / "x.pt")
    assert main(tmp_path / "x.pt", digits_folder) == 0
    text = capsys.readouterr()
    why = "not tried as whitened, that takes too long with 64 pixels"
    assert f"{tmp_path / 'x.pt'}: {why}" in text.err and "whitened" not in text.out


def main(path, folder):
    flags = ["--dataset=Digits", "--diagnose", f"--data_path={folder}"]
    return command.main(None, [str(path), *flags])


def test_a_diagnosis_says_whose_images_it_took_for_those_of_the_set(
    made, digits_folder, tmp_path, capsys, monkeypatch
):
    """Without --dataset it is that of a set of ours beside it."""

    def found(*args):
        return diagnose.Diagnosis(layouts.Way(), [], 10)

    monkeypatch.setattr(diagnose, "diagnose", found)
    args = {"dataset": "Digits", "epoch_eval_train": 1, "batch_train": 1, "lr_net": 0.1}
    meta = {"args": args | {"dsa_strategy": ""}, "factor": 1, "zca": None}
    ours = {"data": [list(made[:2])], "accs_all_exps": {}, "meta": meta}
    torch.save(ours, tmp_path / "ours.pt")
    torch.save({"data": [list(made[:2])]}, tmp_path / "x_mnist.pt")
    torch.save({"data": [list(made[:2])]}, tmp_path / "y.pt")
    line = [str(tmp_path / "ours.pt"), str(tmp_path / "y.pt"), "--diagnose", "--format=json"]
    assert command.main(None, line) == 0
    said = capsys.readouterr().err.splitlines()
    assumed = "assumed: of Digits as ours.pt beside it (--dataset if it is not)"
    assert said == [f"{tmp_path / 'y.pt'}: {assumed}"]
    line = [str(tmp_path / "x_mnist.pt"), "--diagnose", "--dataset=Digits", "--format=json"]
    assert command.main(None, line) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{tmp_path / 'x_mnist.pt'}: its name says MNIST, but it is read as Digits"]
