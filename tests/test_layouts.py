"""Facts about saved sets of other programs: each layout is read as the same tensors; every
mistake in a file is one line."""

import dataclasses

import pytest
import torch
from saved_sets import LAYOUTS, read, save_ours, to_pixels
from torchvision.utils import save_image

import augment
from bacon import compute, judge
from bacon.canvases import load_distilled
from bacon.data import loading
from bacon.errors import UserError
from bacon.score import command, judging, protocols


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
