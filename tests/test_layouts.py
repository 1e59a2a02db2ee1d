"""Facts about saved sets of other programs: each layout is read as the same tensors; every mistake
is one line."""

import argparse
import dataclasses
import logging

import numpy as np
import pytest
import torch
from heard import hearing
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.utils import save_image

import augment
from bacon import compute, judge
from bacon.canvases import load_distilled
from bacon.data import loading
from bacon.data.spaces import denormalise, normalise, to_planes
from bacon.errors import UserError
from bacon.recipes import Spec
from bacon.score import command, export, finding, judging, layouts, protocols, sets
from bacon.score.baselines import baseline


@pytest.fixture(scope="module")
def facts(digits):
    return sets.Facts.of("Digits", digits, lambda: digits.classes)


@pytest.fixture(scope="module")
def canvases(digits):
    """Two canvases of each class, four real images each, normalised, and their labels."""
    made = baseline("random4", digits.real("train"), 2, seed=0)
    return made.canvases, made.labels


def read(path, facts, **kwargs):
    """All sets at a path."""
    return [
        saved
        for file in finding.files(path)
        for saved in layouts.read(layouts.recognise(file), facts, layouts.Way(**kwargs))
    ]


def to_pixels(images, facts):
    return denormalise(images, facts.mean, facts.std)


def save_ours(path, images, labels, facts, factor, dataset="Digits", **meta):
    args = {
        "dataset": dataset,
        "model": "ConvNetW32",
        "seed": 0,
        "num_eval": 1,
        "epoch_eval_train": 1,
    }
    args |= {"batch_train": 256, "lr_net": 0.01, "dsa_strategy": "color_crop", "im_size": None}
    meta = {
        "args": args,
        "mean": list(facts.mean),
        "std": list(facts.std),
        "factor": factor,
        "zca": None,
    } | meta
    torch.save(
        {"data": [[images, labels]], "accs_all_exps": {"ConvNetW32": [0.5]}, "meta": meta}, path
    )


def save_dc(folder, images, labels, facts):
    accuracies = {
        "ConvNet": [np.float64(0.5), np.float32(0.25)]
    }  # numpy numbers, as the released programs save them
    torch.save(
        {"data": [[images, labels]] * 2, "accs_all_exps": accuracies}, folder / "res_DC_x.pt"
    )


def save_mtt(folder, images, labels, facts):
    torch.save(images.clone().requires_grad_(), folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    torch.save(torch.tensor(0.03125), folder / "lr_best.pt")


def save_datm(folder, images, labels, facts):
    save_mtt(folder, images, torch.nn.functional.one_hot(labels, 10) * 3.0, facts)


def save_ncfm(folder, images, labels, facts):
    torch.save([to_pixels(images, facts).clamp(0, 1), labels], folder / "data_20000.pt")


def save_pictures(folder, images, labels, facts):
    for i, (image, label) in enumerate(zip(to_pixels(images, facts), labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        save_image(image, folder / str(label) / f"{i:03d}.png")


# layout: how it is written, the tolerance in normalised units, what the tool calls it
LAYOUTS = {
    "DC": (save_dc, 0, "DC"),
    "MTT": (save_mtt, 0, "MTT"),
    "DATM": (save_datm, 0, "MTT, soft labels (DATM)"),
    "NCFM": (save_ncfm, 1e-6 / 0.3, "NCFM"),
    "PNG": (save_pictures, 0.501 / 255 / 0.3757, "image folder"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_is_read_as_the_same_tensors_and_scores_the_same(
    kind, canvases, facts, digits, tmp_path
):
    write, tolerance, name = LAYOUTS[kind]
    (tmp_path / "theirs").mkdir()
    write(tmp_path / "theirs", *canvases, facts)
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (ours,) = read(tmp_path / "ours.pt", facts)
    theirs = read(tmp_path / "theirs", facts, factor=2)[0]
    assert theirs.layout == name and theirs.assumed and ours.layout == "these scripts'"
    (a, a_labels), (b, b_labels) = ours.decoded(), theirs.decoded()
    assert torch.equal(a, load_distilled(tmp_path / "ours.pt")[0])
    assert (a - b).abs().max() <= tolerance and (tolerance or torch.equal(a, b))
    assert torch.equal(a_labels, b_labels if kind != "DATM" else b_labels.argmax(1))
    assert (theirs.lr == 0.03125) == (kind in ("MTT", "DATM"))
    if kind == "DATM":
        return
    protocol = judge.Protocol(3, 256, 0.01, augment.parse_strategy("flip_crop"))
    judges = protocols.Judges(["ConvNetW32"], 1, 0, protocol)
    bench = judging.Bench(digits.real("test"), 10, compute.Arithmetic("cpu"))
    x = judging.score(ours, judges, bench)["ConvNetW32"].accuracies
    y = judging.score(theirs, judges, bench)["ConvNetW32"].accuracies
    assert x == (y if not tolerance else pytest.approx(y, abs=0.01))


def test_factors_that_a_layout_implies(canvases, facts, tmp_path):
    implied = {"DC": 1, "MTT": 1, "NCFM": 2, "PNG": 1}
    for kind, factor in implied.items():
        (tmp_path / kind).mkdir()
        LAYOUTS[kind][0](tmp_path / kind, *canvases, facts)
        assert {saved.factor for saved in read(tmp_path / kind, facts)} == {factor}


def test_class_folders_may_have_numbers_or_names(canvases, facts, tmp_path):
    images, labels = canvases
    for c in range(10):
        for folder in (tmp_path / "numbers" / f"{9 - c:02d}", tmp_path / "words" / "abcdefghij"[c]):
            folder.mkdir(parents=True)
            save_image(to_pixels(images[labels == c], facts)[0], folder / "x.png")
    (numbers,), (words,) = (read(tmp_path / name, facts) for name in ("numbers", "words"))
    assert numbers.labels.tolist() == words.labels.tolist() == list(range(10))
    assert torch.equal(numbers.canvases, words.canvases.flip(0))


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


def test_probabilities_and_logits_are_told_apart(canvases, facts, tmp_path):
    images, labels = canvases
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    logits[torch.arange(20), labels] += 9
    one_hot = torch.nn.functional.one_hot(labels, 10).float()
    for name, soft in {
        "logits": logits,
        "probabilities": logits.softmax(1),
        "one hot": one_hot,
    }.items():
        torch.save({"data": [[images, soft]]}, tmp_path / "x.pt")
        (saved,) = read(tmp_path / "x.pt", facts)
        assert ("probabilities" in saved.assumed) == (
            name != "logits"
        ) and "soft labels" in saved.assumed
        torch.testing.assert_close(
            saved.labels.softmax(1), one_hot if name == "one hot" else logits.softmax(1)
        )


def test_a_set_of_ones_own_images_keeps_its_statistics_and_classes(canvases, facts, tmp_path):
    own = dataclasses.replace(facts, dataset="ImageFolder")
    save_ours(
        tmp_path / "x.pt", *canvases, facts, 2, dataset="ImageFolder", classes=list(facts.names())
    )
    now = dataclasses.replace(own, mean=(0.5,), std=(0.25,))  # since then pictures were added
    (saved,) = read(tmp_path / "x.pt", now)
    torch.testing.assert_close(to_pixels(saved.canvases, now), to_pixels(canvases[0], facts))
    assert "normalised anew" in saved.assumed and torch.equal(
        read(tmp_path, own)[0].canvases, canvases[0]
    )
    with pytest.raises(UserError, match="its classes are"):
        read(tmp_path / "x.pt", dataclasses.replace(own, names=lambda: list("abcdefghij")))
    save_ours(tmp_path / "x.pt", *canvases, facts, 2, dataset="ImageFolder", zca={"eps": 0.1})
    with pytest.raises(UserError, match="whitened on other"):
        read(tmp_path / "x.pt", now)


def test_classes_whose_names_look_alike_are_the_same(canvases, facts, tmp_path):
    names = [f"caf\u00e9 {c}" for c in range(10)]
    stored = [f"cafe\u0301 {c}" for c in range(10)]
    save_ours(tmp_path / "x.pt", *canvases, facts, 2, dataset="ImageFolder", classes=stored)
    own = dataclasses.replace(facts, dataset="ImageFolder", names=lambda: names)
    (saved,) = read(tmp_path / "x.pt", own)
    assert torch.equal(saved.canvases, canvases[0])


def test_four_images_on_a_canvas_need_an_even_size(facts, tmp_path):
    odd = dataclasses.replace(facts, shape=(1, 7, 7))
    torch.save([torch.rand(10, 1, 7, 7), torch.arange(10)], tmp_path / "x.pt")
    with pytest.raises(UserError, match="factor 2 needs an even"):
        read(tmp_path / "x.pt", odd)
    assert len(read(tmp_path / "x.pt", odd, factor=1)) == 1


def test_an_exported_png_folder_is_an_image_folder_with_the_same_labels(
    canvases, facts, tmp_path, caplog
):
    caplog.set_level(logging.INFO, logger="bacon")
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (ours,) = read(tmp_path / "ours.pt", facts)
    export.export(ours, "png", tmp_path / "out")
    (line,) = caplog.messages
    assert "80 images" in line and "clipped" in line
    images, labels = ours.decoded()
    folder = ImageFolder(tmp_path / "out")
    assert len(folder) == 80 and folder.classes[3].startswith("003")
    of_class = {c: iter(images[labels == c]) for c in range(10)}
    for picture, label in folder:
        found = torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32) / 255)
        exact = to_pixels(next(of_class[label]), facts)[0].clamp(0, 1)
        assert (found - exact).abs().max() <= 0.501 / 255
    assert len(read(tmp_path / "out", facts)[0].canvases) == 80


def test_an_exported_dc_file_trains_the_same_network(canvases, facts, tmp_path):
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (ours,) = read(tmp_path / "ours.pt", facts)
    export.export(ours, "dc", tmp_path / "dc.pt")
    (theirs,) = read(tmp_path / "dc.pt", facts)
    for a, b in zip(ours.decoded(), theirs.decoded(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="exists already"):
        export.export(ours, "dc", tmp_path / "dc.pt")


def test_a_whitened_set_is_exported_as_plain_pixels(canvases, facts, digits_folder):
    for space in ("normalised", "pixels"):
        test = finding.RealImages(
            "Digits", argparse.Namespace(data_path=digits_folder, im_size=None)
        )
        whitening = test.whitening(space)
        plain = canvases[0] if space == "normalised" else to_pixels(canvases[0], facts)
        saved = sets.SavedSet(
            "x", 0, "MTT", whitening.apply(plain), canvases[1], whitened_from=space, facts=facts
        )
        exact = to_pixels(canvases[0], facts)
        torch.testing.assert_close(
            saved.pixels(saved.canvases, whitening), exact, rtol=0, atol=1e-4
        )
        assert (
            test.test(space, "cpu").whitening is not None
            and test.test(None, "cpu").whitening is None
        )


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def nan(images, labels):
    images = images.clone()
    images[3, 0, 2, 2] = float("nan")
    return {"data": [[images, labels]]}


def ours_with(images, labels, args):
    meta = {"args": args, "factor": 1, "zca": None}
    return {"data": [[images, labels]], "accs_all_exps": {}, "meta": meta}


# what is saved as x.pt, and the words the line must have
MISTAKES = {
    "code": (lambda x, y: {"data": [[x, y]], "accs_all_exps": Bomb()}, ["x.pt", "plain tensors"]),
    "empty": (
        lambda x, y: {"data": [], "accs_all_exps": {"ConvNet": [0.5]}},
        ["x.pt", "holds no set"],
    ),
    "shape": (
        lambda x, y: {"data": [[torch.zeros(20, 3, 32, 32), y]]},
        ["x.pt", "3x32x32", "Digits", "1x8x8"],
    ),
    "too many classes": (lambda x, y: {"data": [[x, y * 5]]}, ["x.pt", "0..45", "10 classes"]),
    "too few classes": (
        lambda x, y: {"data": [[x, y // 2]]},
        ["x.pt", "5 classes", "Digits has 10"],
    ),
    "NaN": (nan, ["x.pt", "1 of 20", "NaN"]),
    "labels of other length": (
        lambda x, y: [x.clamp(0, 1), y[:5]],
        ["x.pt", "labels", "20 images"],
    ),
    "no labels": (lambda x, y: x, ["x.pt", "without labels"]),
    "labels no tensor": (lambda x, y: {"data": [[x, None]]}, ["x.pt", "NoneType"]),
    "no images": (lambda x, y: {"data": [[x[:0], y[:0]]]}, ["x.pt", "no images"]),
    "no set": (lambda x, y: {"data": []}, ["x.pt", "no set"]),
    "whole numbers for pixels": (
        lambda x, y: {"data": [[x.to(torch.uint8), y]]},
        ["x.pt", "uint8", "normalised"],
    ),
    "sparse": (lambda x, y: {"data": [[x.to_sparse(), y]]}, ["x.pt", "damaged"]),
    "labels of bool": (lambda x, y: {"data": [[x, y > 0]]}, ["x.pt", "damaged"]),
    "ours without flags": (
        lambda x, y: ours_with(x, y, args=[]),
        ["x.pt", "damaged", "batch_train"],
    ),
    "ours without some": (
        lambda x, y: ours_with(x, y, args={"dataset": "Digits"}),
        ["x.pt", "damaged", "lr_net"],
    ),
    "a checkpoint": (
        lambda x, y: {"format": "BACON checkpoint 1", "meta": {}},
        ["x.pt", "checkpoint", "--resume"],
    ),
    "no pair": (lambda x, y: {"data": [x]}, ["x.pt", "damaged"]),
    "not in [0,1]": (lambda x, y: [x, y], ["x.pt", "[0,1]"]),
    "nothing": (lambda x, y: None, ["x.pt", "NoneType", "none of the known layouts"]),
    "something else": (
        lambda x, y: {"state_dict": x},
        ["x.pt", "state_dict", "none of the known layouts"],
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_file_is_one_line(kind, canvases, tmp_path, capsys, monkeypatch):
    make, words = MISTAKES[kind]
    torch.save(make(*canvases), tmp_path / "x.pt")
    monkeypatch.setattr(loading, "load", None)  # no mistake in a file waits for the real images
    assert command.main(None, [str(tmp_path / "x.pt"), "--dataset=Digits"]) == 2
    text = capsys.readouterr()
    assert text.err.count("\n") == 1 and "Traceback" not in text.err and text.out == ""
    assert all(word in text.err for word in words), text.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory, canvases, facts):
    """Paths of sets to make mistakes with, by name."""
    root = tmp_path_factory.mktemp("sets")
    folders = ("dc", "empty", "three", "pictures", "others", "below", "nan_rate", "deep", "drawn")
    names = {name: root / name for name in (*folders, "nowhere")} | {"ours": root / "ours.pt"}
    for name in folders:
        names[name].mkdir()
    for name, dataset in {"a.pt": "Digits", "b.pt": "MNIST"}.items():
        save_ours(names["others"] / name, *canvases, facts, 2, dataset=dataset)
    for k in range(5):
        (names["below"] / f"run{k}").mkdir()
        save_ours(names["below"] / f"run{k}/x.pt", *canvases, facts, 2)
    for name in ("below/run0/vis_x.png", "drawn/run/vis_x.png", "drawn/run/acc_x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        save_image(torch.zeros(3, 8, 8), root / name)
    save_mtt(names["nan_rate"], *canvases, facts)
    torch.save(torch.tensor(float("nan")), names["nan_rate"] / "lr_best.pt")
    for label in range(10):
        (names["deep"] / str(label)).mkdir()
        Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(names["deep"] / f"{label}/x.png")
    save_ours(names["ours"], *canvases, facts, 2)
    save_dc(names["dc"], *canvases, facts)
    save_pictures(names["pictures"], *canvases, facts)
    save_pictures(names["three"], *(tensor[:6] for tensor in canvases), facts)
    return names


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{ours} --dataset CIFAR10", ["ours.pt", "Digits", "CIFAR10"]),
        ("{dc}", ["res_DC_x.pt: does not say", "--dataset"]),
        ("{empty} --dataset Digits", ["empty", "a folder without sets"]),
        ("{nowhere} --dataset Digits", ["nowhere", "no such file"]),
        ("{three} --dataset Digits", ["three", "3 class folders", "10 classes"]),
        ("{ours} --exp 3", ["--exp 3", "experiments 0"]),
        ("{ours} --factor 1", ["--factor 1", "ours.pt", "factor is 2"]),
        ("{ours} --zca", ["--zca", "ours.pt", "not whitened"]),
        ("{others} --dataset Digits", ["b.pt", "distilled from MNIST", "Digits"]),
        (
            "{below} --dataset Digits",
            [
                "below",
                "a folder without sets",
                "5 in folders below",
                "as run0/x.pt",
                "run2",
                "and 2 others",
                "--recursive",
            ],
        ),
        ("{below} --recursive --dataset CIFAR10", ["below/run0/x.pt", "Digits", "CIFAR10"]),
        ("{drawn} --dataset Digits", ["drawn", "a folder without sets", "class folders"]),
        ("{nan_rate} --dataset Digits", ["lr_best.pt", "nan", "no learning rate"]),
        ("{deep} --dataset Digits", ["x.png", "more than 8 bits", "I;16"]),
        ("{ours} --table {empty}", ["--table", "stand alone"]),
        ("{ours} --export png {nowhere} --baseline random", ["--baseline", "no effect"]),
        ("{ours} --decode", ["--decode", "no effect"]),
        ("--recursive --baseline random", ["--recursive", "no effect"]),
        ("{ours} --details --grid {nowhere}", ["--details", "no effect"]),
        ("{ours} --ipc 3", ["--ipc", "no effect"]),
        ("{ours} --full_epochs 3", ["--full_epochs", "no effect"]),
        (
            "{ours} --baseline full --full_epochs 3 --judge_steps 5",
            ["--full_epochs", "no effect", "--judge_steps"],
        ),
        ("{ours} --im_size 16", ["--im_size", "ImageFolder"]),
        ("{ours} --tsne {nowhere} --model Nonsense", ["--model", "Nonsense"]),
        ("{ours} --export zip {empty}/x", ["--export zip", "png"]),
        ("{ours} --export dc {ours}", ["--export dc", "exists"]),
        ("{ours} --baseline best", ["--baseline best", "random4"]),
        ("{ours} --eval_mode M", ["LeNet", "8x8"]),
        ("{ours} --model Nonsense", ["--model", "Nonsense"]),
        ("{ours} --dsa_strategy color_blur", ["--dsa_strategy", "blur"]),
        ("{pictures} --dataset Digits --zca", ["--zca", "pictures"]),
        ("{ours} --device cuda", ["--device cuda"]),
        ("", ["nothing to do"]),
        ("--baseline random", ["--dataset"]),
        ("--plot {nowhere} {empty}/x.png", ["--plot", "nowhere"]),
        ("--table {empty}", ["--table", "no finished run"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_on_the_command_line_is_one_line(line, words, mistaken, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(loading, "load", None)  # a mistake never starts a download
    before = sorted(mistaken["empty"].parent.rglob("*"))
    assert command.main(None, line.format(**mistaken).split()) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert len(errors) == 1 and all(word in errors[0] for word in words), errors
    assert sorted(mistaken["empty"].parent.rglob("*")) == before


@pytest.fixture
def half_chroma(tmp_path):
    """(facts, our set of two classes with half-size chroma, each quadrant flat in a colour of its
    own, its colours)."""
    spec = Spec(3, (8, 8), 2, (0.5,) * 3, (0.2,) * 3, 9, 9)
    facts = sets.Facts.of("CIFAR10", spec, lambda: ["cat", "dog"])
    colours = torch.rand(
        4, 4, 3, generator=torch.Generator().manual_seed(0)
    )  # of canvas and quadrant
    quadrants = colours.permute(1, 0, 2).flatten(0, 1)[:, :, None, None].expand(-1, -1, 8, 8)
    pixels = augment.tile(quadrants)
    planes, labels = to_planes(normalise(pixels, facts.mean, facts.std)), torch.tensor([0, 0, 1, 1])
    save_ours(
        tmp_path / "ours.pt",
        planes,
        labels,
        facts,
        2,
        "CIFAR10",
        chroma="half",
        classes=["cat", "dog"],
    )
    return facts, tmp_path / "ours.pt", colours


@pytest.mark.parametrize("kind", export.EXPORTS)
def test_half_chroma_is_exported_in_colour_every_image_with_its_label(kind, half_chroma, tmp_path):
    facts, path, colours = half_chroma
    (ours,) = read(path, facts)
    assert (len(ours.canvases), ours.canvases_per_image) == (4, 2) and ours.canvases.shape[1:] == (
        3,
        8,
        8,
    )
    out = tmp_path / ("out" if kind == "png" else "out.pt")
    export.export(ours, kind, out)
    (theirs,) = read(out, facts)
    images, labels = theirs.decoded()
    pixels = to_pixels(images, facts)
    assert len(pixels) == 16
    for image, label in zip(pixels, labels, strict=True):
        distance = (colours - image.mean((1, 2))).abs().amax(2)
        assert distance.min() < 2 / 255 and (distance.argmin() // 4 < 2) == (label == 0)


def hot(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).float()


FLOATS = "torch.float32"
# what is saved, how it is to be read, and how the line ends that refuses it
UNSOUND = {
    "flat images": (
        lambda x, y: {"data": [[x.flatten(1), y]]}, {},
        f"images are {FLOATS} (20, 64), not a tensor (n,C,H,W)",
    ),
    "labels of other classes": (
        lambda x, y: {"data": [[x, hot(y, 11)]]}, {},
        f"soft labels are {FLOATS} (20, 11), but Digits has 10 classes",
    ),
    "labels that are not finite": (
        lambda x, y: {"data": [[x, hot(y, 10).log().neg()]]}, {},
        f"soft labels are {FLOATS} (20, 10), but Digits has 10 classes",
    ),
    "labels between classes": (
        lambda x, y: {"data": [[x, y + 0.5]]}, {},
        f"labels are {FLOATS} (20,), not whole numbers",
    ),
    "labels below 0": (
        lambda x, y: {"data": [[x, y - 1]]}, {},
        "labels are -1..8, but Digits has 10 classes",
    ),
    "labels from 1 on": (
        lambda x, y: {"data": [[x, y + 1]]}, {},
        "labels are 1..10, but Digits has 10 classes",
    ),
    "colours as unit": (
        lambda x, y: {"data": [[x.expand(-1, 3, -1, -1).clamp(0, 1), y]]}, {"pixels": "unit"},
        "images are 3x8x8, but Digits's are 1x8x8",
    ),
    "colours as bytes": (
        lambda x, y: {"data": [[x.expand(-1, 3, -1, -1).byte(), y]]}, {"pixels": "bytes"},
        "images are 3x8x8, but Digits's are 1x8x8",
    ),
    "a size of NCFM": (
        lambda x, y: [x.clamp(0, 1)[:, :, 1:], y], {},
        "images are 1x7x8, but Digits's are 1x8x8",
    ),
    "arrays of no known shape": (
        lambda x, y: {"images": x[:, :, 1:].flatten(1), "labels": y}, {},
        f"images are {FLOATS} (20, 56), not a tensor (n,C,H,W)",
    ),
    "pixels of NCFM as whitened": (
        lambda x, y: [x.clamp(0, 1), y], {"zca": True},
        "x.pt holds pixels in [0,1], which are not whitened",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNSOUND)
def test_a_set_that_does_not_fit_is_one_line_with_what_it_holds(kind, canvases, facts, tmp_path):
    make, way, words = UNSOUND[kind]
    torch.save(make(*canvases), tmp_path / "x.pt")
    with pytest.raises(UserError) as error:
        read(tmp_path / "x.pt", facts, **way)
    assert str(error.value).endswith(words)


def test_whole_numbers_are_labels_however_they_are_stored(canvases, facts, tmp_path):
    images, labels = canvases
    for stored in (labels, labels.int(), labels.float(), labels[:, None], labels[:, None].double()):
        torch.save({"images": images, "labels": stored}, tmp_path / "x.pt")
        (saved,) = read(tmp_path / "x.pt", facts)
        assert saved.labels.dtype == torch.int64 and torch.equal(saved.labels, labels)


def test_a_set_of_ours_is_read_with_the_pixels_that_are_given(canvases, facts, tmp_path):
    images, labels = canvases
    save_ours(tmp_path / "x.pt", to_pixels(images, facts), labels, facts, 2)
    (saved,) = read(tmp_path / "x.pt", facts, pixels="unit")
    torch.testing.assert_close(saved.canvases, images)
    assert saved.assumed == "pixels in [0,1], normalised here"
    assert saved.factor == 2 and saved.whitened_from is None
    assert read(tmp_path / "x.pt", facts, pixels="zca")[0].whitened_from == "pixels"


@pytest.mark.parametrize("recorded", [["a"], 0.5, {"ConvNet": 0.5}, {"ConvNet": ["a"]}, {1: []}])
def test_a_set_is_read_whatever_it_records(recorded, canvases, facts, tmp_path):
    torch.save({"data": [list(canvases)], "accs_all_exps": recorded}, tmp_path / "x.pt")
    (saved,) = read(tmp_path / "x.pt", facts)
    assert saved.recorded == {} and torch.equal(saved.canvases, canvases[0])


def test_an_export_of_soft_labels_has_the_likeliest_class_and_says_so(canvases, facts, tmp_path):
    images, labels = canvases
    torch.save({"data": [[images, hot(labels, 10) * 5]]}, tmp_path / "x.pt")
    (saved,) = read(tmp_path / "x.pt", facts)
    with hearing() as said:
        export.export(saved, "dc", tmp_path / "out.pt")
    assert said[-1].endswith("; the likeliest class of soft labels")
    (exported,) = read(tmp_path / "out.pt", facts)
    assert torch.equal(exported.labels, labels)


def test_an_export_that_cannot_be_written_is_one_line(canvases, facts, tmp_path):
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (saved,) = read(tmp_path / "ours.pt", facts)
    (tmp_path / "file").touch()
    out = tmp_path / "file/x.pt"
    with pytest.raises(UserError) as error:
        export.export(saved, "dc", out)
    assert str(error.value).startswith(f"--export dc {out}: cannot write there (")
