"""Facts about the command line of evaluate.py: mistakes are one line, real images are read late."""

import numpy as np
import pytest
import torch
from heard import hearing
from PIL import Image
from saved_sets import save_dc, save_mtt, save_ours, save_pictures
from scripts import scorer
from torchvision.utils import save_image

from bacon import tables
from bacon.data import loading
from bacon.errors import UserError
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


# a command line, and the flag that has no effect on it
EFFECTS = [
    ("x --recursive", None),
    ("--table x --recursive", "--recursive"),
    ("x --baseline random", None),
    ("x --baseline random --tsne y", "--baseline"),
    ("--table x --grid y", "--grid"),
    ("x --grid y", None),
    ("x --decode --grid y", None),
    ("x --decode --tsne y", "--decode"),
    ("x --validate 9", None),
    ("--baseline random --validate 9", None),
    ("x --validate 9 --diagnose", None),
    ("x --validate 9 --grid y", "--validate"),
    ("x --validate 9 --tsne y", "--validate"),
    ("--table x --validate 9", "--validate"),
    ("--plot x --validate 9", "--validate"),
    ("x --diagnose", None),
    ("x --diagnose --biased 1", "--biased"),
    ("x --diagnose --baseline random", "--baseline"),
    ("x --diagnose --export png y", "--export"),
    ("--table x --diagnose", "--diagnose"),
    ("x --baseline random --ipc 3", None),
    ("x --ipc 3", "--ipc"),
    ("x --baseline random,full --full_epochs 3", None),
    ("x --baseline random --full_epochs 3", "--full_epochs"),
    ("x --baseline full --full_epochs 3 --judge_steps 2", "--full_epochs"),
    ("x --baseline full --judge_steps 2", None),
    ("x --biased 1", None),
    ("--table x --biased 1", None),
    ("x --biased 1 --tsne y", "--biased"),
    ("x --details", None),
    ("--table x --details", None),
    ("--plot x --details", "--details"),
    ("x --details --export png y", "--details"),
    ("x --diagnose --details", "--details"),
    ("--baseline random --diagnose", "--baseline"),
    ("--table x --protocol idc", "--protocol"),
    ("--table x --num_eval 3", "--num_eval"),
    ("--table x --seed 5", "--seed"),
    ("--table x --format json", None),
    ("--plot x --format json", "--format"),
    ("--plot x --biased 5", "--biased"),
    ("--plot x --device cpu", "--device"),
    ("--plot x --data_path y", "--data_path"),
    ("--plot x --save_path y", "--save_path"),
    ("x --grid y --judge_steps 9", "--judge_steps"),
    ("x --grid y --model ConvNet", "--model"),
    ("x --grid y --factor 2 --pixels unit --labels hard --exp 1 --zca", None),
    ("x --grid y --no_compile", "--no_compile"),
    ("x --tsne y --model ConvNet --seed 3 --device cpu --no_compile --precision fp32", None),
    ("x --grid y --tsne z --decode --seed 3", None),
    ("x --diagnose --protocol idc", "--protocol"),
    ("x --diagnose --precision fp32", "--precision"),
    ("x --diagnose --seed 3 --device cpu --format json --relabel y", None),
    ("--baseline random --factor 2", "--factor"),
    ("--baseline random --dataset Digits --data_path y --save_path z", None),
    ("x --save_path z", None),
    ("x --protocol idc --eval_mode C --seed 3 --lr_net 1 --batch_train 4", None),
    ("x --judge_steps 9 --epoch_eval_train 9", "--epoch_eval_train"),
]


@pytest.mark.parametrize(("line", "idle"), EFFECTS)
def test_a_flag_is_refused_where_it_has_no_effect_and_only_there(line, idle):
    args = scorer(*line.split())
    command._check_task(args)
    command._check_names(args)
    if idle is None:
        command._check_effects(args)
        return
    with pytest.raises(UserError) as error:
        command._check_effects(args)
    assert str(error.value).startswith(f"{idle}: has no effect here")


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("x --table y", False),
        ("x --plot y", False),
        ("--baseline random --plot y", False),
        ("--table x --plot y", False),
        ("--dataset Digits", False),
        ("--plot x y", True),
        ("--plot x y z", True),
        ("x y z --baseline random,full", True),
        ("x --baseline random,best", False),
        ("x --export png y", True),
    ],
)
def test_a_command_line_has_one_thing_to_do_with_names_that_there_are(line, fits):
    args = scorer(*line.split())
    if fits:
        command._check_task(args)
        command._check_names(args)
        return
    with pytest.raises(UserError):
        command._check_task(args)
        command._check_names(args)


LEAST = {
    "im_size": 4, "exp": 0, "num_eval": 1, "biased": 1, "ipc": 1, "full_epochs": 1, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", LEAST)
def test_a_number_is_as_small_as_makes_sense_or_refused(name, capsys):
    least = LEAST[name]
    assert getattr(scorer(f"--{name}={least}"), name) == least
    with pytest.raises(SystemExit):
        scorer(f"--{name}={least - 1}")
    assert f"--{name}" in capsys.readouterr().err


def test_what_is_not_asked_for_is_off_or_left_to_the_set_and_the_protocol():
    said_in_help = {
        "data_path": "data", "save_path": "result", "protocol": "paper", "eval_mode": ["S"],
        "device": "auto", "precision": "auto", "format": "text", "baseline": [], "paths": [],
            "validate": 0,
    }  # fmt: skip
    switches = ("recursive", "diagnose", "zca", "decode", "details")
    for name, value in vars(scorer()).items():
        assert value == said_in_help.get(name, False if name in switches else None), name


def test_compiling_is_asked_for_refused_or_left_open():
    asked = [scorer(*flags).compile for flags in (["--compile"], ["--no_compile"], [])]
    assert asked == [True, False, None]


def test_tables_are_printed_with_their_titles_and_a_line_between_them(capsys):
    first, second = [{"a": "1"}], [{"b": "2"}]
    as_text = [tables.render(first), tables.render(second)]
    as_markdown = [tables.render(first, True), tables.render(second, True)]
    command._print("text", [], {"": first})
    assert capsys.readouterr().out == f"{as_text[0]}\n"
    command._print("text", [], {"": first, "behind": second})
    assert capsys.readouterr().out == f"{as_text[0]}\n\nbehind\n{as_text[1]}\n\n"
    command._print("markdown", [], {"behind": first})
    assert capsys.readouterr().out == f"### behind\n\n{as_markdown[0]}\n\n"
    command._print("json", [{"a": 1}, {"b": [2]}], {"": first})
    assert capsys.readouterr().out == '{"a": 1}\n{"b": [2]}\n'


@pytest.mark.parametrize(("count", "names"), [(3, "a.pt, b.pt, c.pt;"), (4, "c.pt, ...;")])
def test_an_order_is_that_of_one_set(count, names, canvases, facts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ["a.pt", "b.pt", "c.pt", "d.pt"][:count]
    for name in files:
        save_ours(tmp_path / name, *canvases, facts, 2)
    args = scorer(*files, "--diagnose", "--relabel", "order.json", "--device=cpu")
    with pytest.raises(UserError) as error:
        command._diagnose(args)
    assert f"not of {count}: " in str(error.value) and names in str(error.value)


def test_a_set_in_the_order_of_its_dataset_has_no_order_to_write(tmp_path):
    with hearing() as said:
        command._write_order(None, "x.pt", tmp_path / "order.json")
    assert said[0].endswith("not written, x.pt was found in no other order of classes")
    assert not (tmp_path / "order.json").exists()


@pytest.mark.parametrize(
    "name",
    ("factor", "pixels", "labels", "format", "protocol", "device", "precision", "dataset"),
)
def test_another_word_than_those_known_is_refused_by_the_program_and_the_flag(name, capsys):
    with pytest.raises(SystemExit):
        scorer(f"--{name}=7")
    error = capsys.readouterr().err
    assert error.startswith("evaluate.py: error: ") and f"--{name}" in error


PATHS = ("table", "plot", "export", "grid", "tsne", "data_path", "relabel", "save_path")


@pytest.mark.parametrize("name", [*PATHS, ""])
def test_a_path_of_nothing_is_refused(name, capsys):
    words = {"": [""], "export": ["--export", "png", ""]}.get(name, [f"--{name}", ""])
    with pytest.raises(SystemExit):
        command.build_parser(None).parse_args(words)
    assert name in capsys.readouterr().err
