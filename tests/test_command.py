"""Facts about the command line of evaluate.py: mistakes are one line, real images are read late."""

import numpy as np
import pytest
import torch
from PIL import Image
from saved_sets import save_dc, save_mtt, save_ours, save_pictures
from torchvision.utils import save_image

from bacon.data import loading
from bacon.score import command


def test_what_needs_no_real_images_loads_none(digit_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", None)
    dc, out = tmp_path / "dc.pt", str(tmp_path / "out")
    for flags in (
        ["--grid", out],
        ["--decode", "--grid", out],
        ["--export", "png", f"{out}_"],
        ["--export", "dc", dc],
    ):
        assert command.main(None, [str(digit_runs / "no_tv"), *map(str, flags)]) == 0
    assert command.main(None, [str(dc), "--dataset=Digits", "--export", "dc", f"{out}.pt"]) == 0
    saved = [torch.load(path, weights_only=True)["data"][0] for path in (dc, f"{out}.pt")]
    assert torch.equal(saved[0][1], saved[1][1]) and torch.allclose(
        saved[0][0], saved[1][0], atol=1e-6
    )
    assert sorted(path.name for path in (tmp_path / "out_").iterdir()) == [
        f"{c:03d}_{c}" for c in range(10)
    ]
    for flags in (
        ["--grid", f"{out}.png"],
        ["--export", "png", f"{out}_dc"],
    ):  # the classes' names are known
        assert command.main(None, [str(dc), "--dataset=Digits", *flags]) == 0
    assert sorted(path.name for path in (tmp_path / "out_dc").iterdir()) == [
        f"{c:03d}_{c}" for c in range(10)
    ]


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
