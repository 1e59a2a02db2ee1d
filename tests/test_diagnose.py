"""Facts about --diagnose: of a set that was damaged in one way, it names that way."""

import dataclasses
import json
import types

import numpy as np
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
    as_text = json.dumps([str(label) for label in ORDER])
    for text in ("[0, 1]", "[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]", as_text, "5", "{"):
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


# Readings by hand


def a_reading(confusions, brightness=0.0, contrast=1.0, way=None, **fields):
    """A reading of a set that has nothing but what its words and its choice take."""
    saved = types.SimpleNamespace(
        **{"whitened_from": None, "factor": 1, "soft": "", "labels": None, "meta": {}} | fields
    )
    return diagnose.Reading(way or layouts.Way(), saved, brightness, contrast, np.array(confusions))


def by_accuracy(accuracy, shift=0):
    """Confusion matrices of ten classes, 1000 images each in each half. shift: of their labels."""
    each = round(1000 * accuracy)
    matrix = np.full((10, 10), (1000 - each) // 9)
    matrix[np.arange(10), (np.arange(10) + shift) % 10] = each
    return [matrix, matrix]


def test_the_figures_of_a_reading():
    one = a_reading([[[8, 2], [3, 7]], [[9, 1], [1, 9]]], brightness=-1.5, contrast=0.25)
    assert one.confusion.tolist() == [[17, 3], [4, 16]] and one.accuracy == 33 / 40
    assert one.permuted == 18 / 20 and one.misfit == 2 + 1.5
    assert one.error == pytest.approx((0.5 * 0.5 / 20) ** 0.5)  # of 20 coins
    assert not one.reordered and one.best == one.accuracy
    # On the first half the labels are swapped, on the second four of five are.
    swapped = a_reading([[[1, 9], [9, 1]], [[2, 8], [8, 2]]])
    assert (swapped.accuracy, swapped.permuted) == (6 / 40, 16 / 20)
    assert swapped.reordered and swapped.best == swapped.permuted
    assert (swapped.order(["a", "b"]).classes.tolist(), swapped.order(["a", "b"]).words) == (
        [1, 0],
        "backwards",
    )


def test_an_order_that_is_none_of_the_known_ones_is_its_own():
    """Label l means the class l + 3."""
    found = a_reading(by_accuracy(0.7, shift=-3)).order(list("abcdefghij"))
    assert found.words == "in an order of their own"
    assert found.classes.tolist() == [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


@pytest.mark.parametrize(
    ("accuracy", "shift", "above"),
    [(0.145, 0, False), (0.16, 0, True), (0.165, 1, False), (0.18, 1, True)],
)
def test_a_reading_is_above_chance_by_more_where_the_order_is_chosen(accuracy, shift, above):
    one = a_reading(by_accuracy(accuracy, shift))
    assert one.reordered == bool(shift)
    assert diagnose._is_above_chance(one) == above


UNIT = layouts.Way(pixels="unit")
# readings as (accuracy, contrast, way, fields), the number of that which is meant
CHOICES = {
    "at chance": ([(0.1, 1, layouts.Way(), {}), (0.12, 1, UNIT, {})], None),
    "nearer to real images": ([(0.9, 4, layouts.Way(), {}), (0.65, 1, UNIT, {})], 1),
    "darker is as far as brighter": ([(0.9, 0.25, layouts.Way(), {}), (0.9, 2, UNIT, {})], 1),
    "far worse": ([(0.9, 4, layouts.Way(), {}), (0.6, 1, UNIT, {})], 0),
    "best of one space": (
        [(0.6, 1, layouts.Way(factor=1), {}), (0.9, 2, layouts.Way(factor=2), {"factor": 2})], 1,
    ),
    "as given": ([(0.7, 1, layouts.Way(factor=2), {}), (0.696, 1, layouts.Way(), {})], 1),
    "as a file of ours says": (
        [(0.7, 3, layouts.Way(), {"meta": {"args": {}}}), (0.75, 1, UNIT, {})], 0,
    ),
    "far worse than a file of ours says": (
        [(0.3, 3, layouts.Way(), {"meta": {"args": {}}}), (0.75, 1, UNIT, {})], 1,
    ),
    "far worse as given": ([(0.7, 1, layouts.Way(factor=2), {}), (0.69, 1, layouts.Way(), {})], 0),
    "probabilities": (
        [
            (0.9, 1, layouts.Way(soft="hard"), {"soft": "hard"}),
            (0.8, 1, layouts.Way(soft="probabilities"), {"soft": "probabilities"}),
        ],
        1,
    ),
    "logits": (
        [
            (0.9, 1, layouts.Way(soft="hard"), {"soft": "hard"}),
            (0.8, 1, layouts.Way(soft="logits"), {"soft": "logits", "labels": torch.eye(10) * 9}),
        ],
        1,
    ),
    "flat logits": (
        [
            (0.9, 1, layouts.Way(soft="hard"), {"soft": "hard"}),
            (0.8, 1, layouts.Way(soft="logits"), {"soft": "logits", "labels": torch.eye(10)}),
        ],
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHOICES)
def test_the_reading_that_is_meant(kind):
    described, number = CHOICES[kind]
    readings = [
        a_reading(by_accuracy(accuracy), 0, contrast, way, **fields)
        for accuracy, contrast, way, fields in described
    ]
    found = diagnose._meant(readings, layouts.Way())
    assert found is (None if number is None else readings[number])
    if kind == "probabilities":
        assert diagnose._meant(readings, layouts.Way(soft="hard")) is readings[0]


@pytest.mark.parametrize(
    ("way", "fields", "words"),
    [
        (layouts.Way(), {}, "normalised, one image a canvas"),
        (UNIT, {"factor": 2}, "in [0,1], four images a canvas"),
        (layouts.Way(pixels="bytes"), {}, "in [0,255], one image a canvas"),
        (layouts.Way(pixels="zca"), {"whitened_from": "pixels"}, "whitened (ZCA), one image a"),
        (layouts.Way(), {"whitened_from": "normalised"}, "whitened by these scripts, one image"),
        (layouts.Way(), {"soft": "logits"}, "normalised, one image a canvas, soft labels are logi"),
        (layouts.Way(), {"soft": "hard"}, "normalised, one image a canvas, the likeliest class of"),
    ],
    ids=str,
)
def test_a_reading_in_words(way, fields, words):
    found = a_reading(by_accuracy(0.5), way=way, **fields).words()
    assert found.startswith(words) and ("label" in found) == ("soft" in fields)


def test_a_diagnosis_shows_every_reading_and_the_flags_of_the_one_that_is_meant():
    given = layouts.Way(factor=1)
    as_given = a_reading(by_accuracy(0.37), 0.5, 2, given)
    meant_way = layouts.Way(factor=2, pixels="unit", soft="logits")
    meant = a_reading(by_accuracy(0.73, 1), -0.25, 0.5, meant_way, factor=2, soft="logits")
    order = diagnose.Order(np.arange(10), "backwards")
    found = diagnose.Diagnosis(given, [as_given, meant], 10, meant, order)
    words = "in [0,1], four images a canvas, soft labels are logits"
    assert found.advice("x.json") == (
        "--factor 2 --pixels unit --labels logits --relabel x.json: "
        f"{words}; classes are numbered backwards"
    )
    assert dataclasses.replace(found, meant=as_given, order=None).advice() == (
        "as given: normalised, one image a canvas"
    )
    nothing = dataclasses.replace(found, meant=None, num_classes=8).advice()
    assert nothing == "no reading is better than chance, 12.5 %"
    names = ("reading", "accuracy %", "classes permuted", "brightness", "contrast", "")
    first = ("normalised, one image a canvas (as given)", "37.0", "-", "+0.50", "x 2.00", "")
    second = (words, "3.0", "73.0", "-0.25", "x 0.50", "<- meant")
    assert found.table() == [dict(zip(names, row, strict=True)) for row in (first, second)]


def test_what_images_look_like_is_that_of_their_channels():
    """Channels that differ in brightness alone have no contrast."""
    flat = torch.tensor([0.0, 0.3, 0.9]).view(1, 3, 1, 1).expand(4, 3, 2, 2)
    mean, std = diagnose._look(flat)
    assert mean == pytest.approx(0.4) and 0 < std < 1e-6
    mean, std = diagnose._look(flat + noise(4, 1, 2, 2))
    assert std == pytest.approx(noise(4, 1, 2, 2).std().item(), rel=1e-5)
