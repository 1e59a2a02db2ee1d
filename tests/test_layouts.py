"""Facts about saved sets of other programs: each layout is read as the same tensors; every
mistake in a file is one line."""

import dataclasses
import types

import pytest
import torch
from saved_sets import LAYOUTS, read, save_ours, to_pixels
from torchvision.utils import save_image

import augment
from bacon import compute, judge
from bacon.canvases import load_distilled
from bacon.data import loading
from bacon.errors import UserError
from bacon.score import command, judging, layouts, protocols


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
    images[3, 0, 2:4, 2:4] = float("nan")
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
    "no labels": (lambda x, y: x, ["x.pt", "without labels", "x_labels.pt"]),
    "labels no tensor": (
        lambda x, y: {"data": [[x, None]]},
        ["x.pt: labels are NoneType, but there are 20 images"],
    ),
    "labels of three dimensions": (
        lambda x, y: {"data": [[x, y.expand(3, 20).T[:, :, None]]]},
        ["x.pt: labels are torch.int64 (20, 3, 1), but there are 20 images"],
    ),
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


# an entry of a set of ours by its path, a value it must not have, and one that it may have
WRONG_ENTRIES = [
    (("accs_all_exps",), [0.5], {}),
    (("accs_all_exps", "ConvNetW32"), [None], [float("nan"), 50.0]),
    (("accs_all_exps", "ConvNetW32"), "0.5", []),
    (("accs_all_exps", "ConvNetW32"), ["a", "b"], [1]),
    (("meta", "factor"), 3, 2),
    (("meta", "factor"), "2", 1),
    (("meta", "factor"), 0, 2),
    (("meta", "factor"), [2], 2),
    (("meta", "chroma"), "third", "full"),
    (("meta", "experiments"), ["0"], [3]),
    (("meta", "experiments"), None, [0]),
    (("meta", "mean"), ["0.5"], [0.5]),
    (("meta", "std"), [0.0], (0.25,)),
    (("meta", "classes"), 10, list("abcdefghij")),
    (("meta", "data_sha256"), 5, "ab" * 32),
    (("meta", "computed"), [], {}),
    (("meta", "computed"), {"judging": []}, {"judging": {"device": "cuda:0", "more": 1}}),
    (("meta", "computed"), {"judging": {"precision": 16}}, {"judging": {"precision": "bf16"}}),
    (("meta", "computed"), {"judging": {"device": 0}}, {"distilling": {"device": "cpu"}}),
    (("meta", "computed"), {"judging": {"device": "abacus"}}, {"judging": {"threads": None}}),
    (("meta", "arithmetic"), "cpu", {}),
    (("meta", "arithmetic"), {"judging": 1}, {"judging": "cpu, 2 threads, bf16, compiled"}),
    (("meta", "arithmetic"), {"judging": "cpu, no threads"}, {"judging": "mps, fp32"}),
    (("meta", "args", "batch_train"), 0, 1),
    (("meta", "args", "batch_train"), True, 256),
    (("meta", "args", "lr_net"), 0, 1),
    (("meta", "args", "lr_net"), float("nan"), 0.01),
    (("meta", "args", "epoch_eval_train"), 1.5, 1000),
    (("meta", "args", "dsa_strategy"), None, ""),
    (("meta", "args", "judge_steps"), "5", 5),
    (("meta", "args", "validate"), "x", 7),
    (("meta", "args", "validate"), -1, 0),
    (("meta", "args", "num_eval"), 0, 2),
    (("meta", "args", "seed"), "0", 1),
    (("meta", "args", "model"), 3, "ConvNet"),
    (("meta", "args", "im_size"), "16", 16),
    (("meta", "args"), None, None),
]


def save_with(path, canvases, facts, entry, value):
    """A set of ours in which the entry at the path `entry` has another value."""
    save_ours(path, *canvases, facts, 2)
    content = torch.load(path, weights_only=True)
    holder = content
    for name in entry[:-1]:
        holder = holder[name]
    holder[entry[-1]] = value
    torch.save(content, path)


@pytest.mark.parametrize(("entry", "wrong", "right"), WRONG_ENTRIES)
def test_a_wrong_entry_in_a_set_of_ours_is_one_line_before_anything_is_judged(
    entry, wrong, right, canvases, facts, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "x.pt"
    save_with(path, canvases, facts, entry, wrong)
    monkeypatch.setattr(loading, "load", None)
    assert command.main(None, [str(path)]) == 2
    text = capsys.readouterr()
    assert text.err.count("\n") == 1 and text.out == ""
    assert f"{path}: damaged set (its " in text.err
    named = entry[-1] if wrong is not None or entry[-1] != "args" else "batch_train"
    assert named in text.err
    if right is not None:
        save_with(path, canvases, facts, entry, right)
        assert len(read(path, facts)) == 1


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
        "x.pt: labels are 1..10, but Digits has 10 classes",
    ),
    "labels of the second experiment": (
        lambda x, y: {"data": [[x, y], [x, y + 1]]}, {},
        "x.pt, experiment 1: labels are 1..10, but Digits has 10 classes",
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
    "pixels of NCFM above 1": (
        lambda x, y: [x - x.min(), y], {},
        "but this layout has pixels in [0,1]; see --pixels and --factor",
    ),
    "pixels of NCFM below 0": (
        lambda x, y: [x - x.max(), y], {},
        "but this layout has pixels in [0,1]; see --pixels and --factor",
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


def write_x(content):
    """A writer of one file x.pt, as those of LAYOUTS."""

    def write(folder, images, labels, facts):
        torch.save(content(images, labels), folder / "x.pt")

    return write


MTT_SAYS = "labels of labels_best.pt, learnt rate 0.0312"
TO_WHITEN = " (MTT and DATM publish sets in ZCA space: --zca)"
# how a set is written, the flags, and all that is said of how it was read
SAID = {
    "DC": (
        LAYOUTS["DC"][0], {},
        "normalised, factor 1 (--factor 2 for IDM's, BACON's); "
        "2 recorded accuracies are those of the 2 experiments in order",
    ),
    "DC's one set": (
        write_x(lambda x, y: {"data": [[x, y]], "accs_all_exps": {"ConvNet": [0.5]}}), {},
        "normalised, factor 1 (--factor 2 for IDM's, BACON's)",
    ),
    "DC with flags": (
        write_x(lambda x, y: {"data": [[x, y]]}), {"factor": 2, "pixels": "bytes"},
        "pixels in [0,255], normalised here, factor 2",
    ),
    "MTT": (LAYOUTS["MTT"][0], {}, f"normalised, factor 1, {MTT_SAYS}{TO_WHITEN}"),
    "MTT with flags": (
        LAYOUTS["MTT"][0], {"factor": 2, "zca": True},
        f"pixels whitened by ZCA, factor 2, {MTT_SAYS}",
    ),
    "named entries": (
        write_x(lambda x, y: {"images": x, "labels": y}), {}, "normalised, factor 1",
    ),
    "NCFM": (LAYOUTS["NCFM"][0], {}, "pixels in [0,1], normalised here, factor 2"),
    "NCFM with flags": (
        LAYOUTS["NCFM"][0], {"factor": 1, "pixels": "normalised"}, "normalised, factor 1",
    ),
    "pictures": (
        LAYOUTS["PNG"][0], {},
        "pixels of 8 bits, normalised here, factor 1, class folders by their numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
def test_all_that_a_file_leaves_open_is_said_and_no_more(kind, canvases, facts, tmp_path):
    write, way, words = SAID[kind]
    write(tmp_path, *canvases, facts)
    saved = read(tmp_path, facts, **way)[0]
    assert (saved.assumed, saved.exp) == (words, 0)
    assert saved.whitened_from == ("pixels" if "zca" in way else None)


def test_pixels_are_doubted_where_the_layout_has_no_plain_ones(canvases, facts, tmp_path):
    images, labels = canvases
    unit = to_pixels(images, facts).clamp(0, 1)
    forms = {
        "DC": {"data": [[unit, labels]]},
        "named": {"images": unit, "labels": labels},
        "NCFM": [unit, labels],
    }
    doubted = {}
    for name, content in forms.items():
        torch.save(content, tmp_path / "x.pt")
        (saved,) = read(tmp_path / "x.pt", facts)
        doubted[name] = len(saved.notes)
    assert doubted == {"DC": 1, "named": 1, "NCFM": 0}


@pytest.mark.parametrize("validate", [None, 0, 7])
def test_a_set_tells_how_many_training_images_its_run_held_out(validate, canvases, facts, tmp_path):
    save_ours(tmp_path / "x.pt", *canvases, facts, 2)
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    saved["meta"]["args"].pop("validate", None)  # an early one does not say
    if validate is not None:
        saved["meta"]["args"]["validate"] = validate
    torch.save(saved, tmp_path / "x.pt")
    (found,) = read(tmp_path / "x.pt", facts)
    assert found.held_out == (validate or 0) and found.recorded == {"ConvNetW32": [0.5]}


@pytest.mark.parametrize("chroma", ["full", "half"])
def test_a_set_of_ones_own_images_says_what_it_fits(chroma, tmp_path):
    size = (6, 4, 4) if chroma == "half" else (3, 8, 8)
    save_ours(
        tmp_path / "x.pt", torch.zeros(2, *size), torch.arange(2),
        types.SimpleNamespace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), 1,
        dataset="ImageFolder", classes=["a", "b"], chroma=chroma,
    )  # fmt: skip
    own = layouts.own_facts(layouts.recognise(tmp_path / "x.pt"))
    assert (own.dataset, own.shape, own.num_classes) == ("ImageFolder", (3, 8, 8), 2)
    assert (own.mean, own.std, own.names()) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ["a", "b"])
