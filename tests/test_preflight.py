"""Facts about what is refused before anything is written, and what gives way to the data."""

import dataclasses

import pytest
import torch
from heard import hearing
from PIL import Image
from scripts import SMALL, assert_one_line, run

from bacon import canvases, flags, messages, parallel, recipes
from bacon.distill import clusters
from bacon.errors import UserError
from bacon.run import preflight

MISSING = "cuda" if torch.backends.mps.is_available() else "mps"  # a device that no machine has


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset=CIFAR10"], ["--dataset", "CIFAR10"]),
        (["--ipc=0"], ["--ipc", "0"]),
        (["--ipc=500"], ["--ipc 500", "116"]),
        (["--Iteration=-1"], ["--Iteration", "-1"]),
        (["--model=ResNet18"], ["--model", "ResNet18"]),
        (["--model=ResNet18BN_AP"], ["--model", "ConvNet family"]),
        (["--model=ConvNetBN"], ["--model ConvNetBN", "--method DM"]),
        (["--model=ConvNetD4"], ["--model", "ConvNetD4", "8x8"]),
        (["--model=ConfNet"], ["--model", "ConfNet"]),
        (["--eval_mode=M"], ["--eval_mode M", "LeNet"]),
        (["--dsa_strategy=color_blur"], ["--dsa_strategy", "blur"]),
        (["--embed_last=0"], ["--embed_last 0"]),
        (["--embed_last=-12"], ["--embed_last -12"]),
        (["--exp_index=1"], ["--exp_index 1", "--num_exp"]),
        (["--dataset=MNIST", "--data_path={empty}"], ["MNIST", "{empty}"]),
        (
            ["--dataset=MNIST", "--data_path={empty}", f"--device={MISSING}"],
            [f"--device {MISSING}"],
        ),
        (["--lh_weight=0", "--tv_weight=0", "--no_syn_ce"], ["--lh_weight"]),
        (["--spread_weight=1", "--ipc=1", "--no_aug"], ["--spread_weight 1", "--no_aug"]),
        (["--cooldown=1.5"], ["--cooldown", "at most 1"]),
        (["--nonsense"], ["--nonsense"]),
        (["--chroma=half"], ["--chroma half", "Digits has no colours"]),
        (["--recipe=ours", "--method=IDM"], ["--recipe ours", "IDM"]),
        (["--validate=150"], ["--validate 150", "class"]),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else None,
)
def test_a_mistake_is_one_line_with_code_2_and_writes_nothing(flags, words, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    flags = [flag.format(empty=empty) for flag in flags]
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "result", *flags) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text
    assert all(word.format(empty=empty) in text for word in words), text
    assert not (tmp_path / "result").exists() and not any(
        path.is_file() for path in tmp_path.rglob("*")
    )


def test_odd_images_are_refused_with_aug_only(monkeypatch, capsys, tmp_path):
    spec = recipes.DATASETS["Digits"]._replace(im_size=(9, 8))
    monkeypatch.setitem(recipes.DATASETS, "Digits", spec)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path) == 2
    assert "--aug" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "side", "word"),
    [(["--zca"], 32, "--zca"), ([], 30, "divisible by 4"), (["--no_aug"], 31, "by 2")],
)
def test_half_chroma_is_refused_where_there_is_none(
    flags, side, word, monkeypatch, capsys, tmp_path
):
    spec = recipes.DATASETS["SVHN"]._replace(im_size=(side, 32))
    monkeypatch.setitem(recipes.DATASETS, "SVHN", spec)
    assert (
        run("BACON_svhn.py", "--ipc=1", "--chroma=half", *flags, "--save_path", tmp_path / "result")
        == 2
    )
    assert_one_line(capsys, "--chroma half", word)


def test_a_class_of_one_image_is_refused_and_a_small_class_is_mentioned(digits, make_args, capsys):
    keep = torch.ones(len(digits.labels_train), dtype=torch.bool)
    keep[(digits.labels_train == 3).nonzero()[1:, 0]] = False
    images, labels = digits.images_train[keep], digits.labels_train[keep]
    short = dataclasses.replace(digits, images_train=images, labels_train=labels)
    with pytest.raises(
        UserError, match=r"class 3 .* 1 training images; a standard deviation needs 2"
    ):
        preflight.check_data(make_args(ipc=1), short)

    def said(given=("ipc",), **flags):
        with messages.speak("stdout"):
            preflight.check_data(make_args(**flags), digits, given)
        return capsys.readouterr().out

    note = said(batch_real=200)
    assert "class 8" in note and "116" in note and "--batch_real 200" in note
    assert "fewer than the recipe's --batch_real 200:" in note and note.count("\n") == 1
    assert "fewer than --batch_real 200:" in said({"batch_real"}, batch_real=200)
    assert said(batch_real=116) == ""
    assert said(batch_real=200, Iteration=0) == ""  # none is drawn


def test_what_several_processes_cannot_do_is_refused(make_args):
    spec = recipes.DATASETS["Digits"]
    with pytest.raises(UserError, match="11 processes for 10 classes"):
        preflight.check_settings(make_args(), spec, parallel.World(0, 11))
    with pytest.raises(UserError, match="ConvNetBN"):
        preflight.check_settings(
            make_args(model="ConvNetBN", method="DM"), spec, parallel.World(0, 2)
        )
    preflight.check_settings(make_args(model="ConvNetBN", method="DM"), spec, parallel.World())


@pytest.fixture
def own_images(tmp_path):
    """Make a --data_path of two classes of pictures: own_images(mode, (width, height))."""

    def make(mode, size):
        generator = torch.Generator().manual_seed(0)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        for split, count in (("train", 10), ("val", 2)):
            for name in ("a", "b"):
                folder = tmp_path / "images" / split / name
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
                    Image.fromarray(pixels.numpy(), mode).save(folder / f"{number}.png")
        return ["--dataset=ImageFolder", f"--data_path={tmp_path / 'images'}", "--ipc=1"]

    return make


@pytest.mark.parametrize(
    ("mode", "size", "flags", "why"),
    [
        ("L", (16, 16), [], "ImageFolder has no colours"),
        ("RGB", (18, 16), [], "it needs a height and width divisible by 4, "),
        ("RGB", (17, 16), ["--no_aug"], "it needs a height and width divisible by 2, "),
        ("RGB", (16, 16), ["--zca"], "whitened images have no luma and chroma"),
    ],
)
def test_our_recipe_leaves_chroma_out_where_there_is_none_and_says_so(
    mode, size, flags, why, quick, own_images, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(clusters, "STEPS", 1)
    words = [*SMALL, *own_images(mode, size), "--recipe=ours", *flags, "--batch_real=5"]
    words += ["--expert_steps=9", "--save_path", tmp_path / "x"]
    assert run("BACON_mnist.py", *words, "--dry_run") == 0
    assert f"--chroma half of our recipe is left out: {why}" in capsys.readouterr().out
    assert run("BACON_mnist.py", *words) == 0
    text = capsys.readouterr().out
    assert f"--chroma half of our recipe is left out: {why}" in text
    assert "--chroma full (not half)" in " ".join(text.split())
    (path,) = (tmp_path / "x").glob("res_ours_ImageFolder_*_fullchroma*.pt")
    images, _, meta = canvases.load_distilled(path)
    assert meta["chroma"] == "full" and images.shape[2:] == size[::-1]
    assert run("BACON_mnist.py", *words, "--chroma=half") == 2  # typed, it is refused
    instead = "leave out one of it and --zca" if "--zca" in flags else "leave it out"
    assert_one_line(capsys, "--chroma half: ", instead)


def test_our_recipe_leaves_spread_out_of_one_image_a_class_and_says_so(
    quick, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(clusters, "STEPS", 1)
    words = [*SMALL, "--ipc=1", "--recipe=ours", "--no_aug", "--batch_real=5", "--expert_steps=9"]
    words += ["--save_path", tmp_path / "x"]
    assert run("BACON_mnist.py", *words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--spread_weight of our recipe is left out: it needs 2 images per class" in text
    assert "--spread_weight 0.0 (not 1.5)" in text
    assert run("BACON_mnist.py", *words, "--spread_weight=1.5") == 2  # typed, it is refused
    assert_one_line(capsys, "--spread_weight 1.5: needs 2 images per class, found 1")
    assert run("BACON_mnist.py", *words, "--aug", "--overwrite") == 0
    assert "left out: it needs 2" not in capsys.readouterr().out


def test_our_recipe_keeps_chroma_where_it_can(quick, own_images, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(clusters, "STEPS", 1)
    words = [*SMALL, *own_images("RGB", (16, 12)), "--recipe=ours", "--batch_real=5"]
    words += ["--expert_steps=9", "--save_path", tmp_path / "x"]
    assert run("BACON_mnist.py", *words) == 0
    assert "left out" not in capsys.readouterr().out
    (path,) = (tmp_path / "x").glob("res_ours_*.pt")
    assert canvases.load_distilled(path)[2]["chroma"] == "half"


@pytest.mark.parametrize("size", [(15, 16), (16, 15)])
def test_odd_pictures_get_the_flag_that_takes_them(size, quick, own_images, tmp_path, capsys):
    words = [*SMALL, *own_images("RGB", size), "--batch_real=5", "--save_path", tmp_path / "x"]
    assert run("BACON_mnist.py", *words) == 2
    advice = f"{size[::-1]}; give --no_aug, or another --im_size"
    assert_one_line(capsys, "--aug: needs an even height and width", advice)
    assert run("BACON_mnist.py", *words, "--no_aug") == 0


def test_a_default_that_the_data_cannot_serve_is_called_so(quick, own_images, tmp_path, capsys):
    words = [word for word in [*SMALL, *own_images("L", (16, 16))] if not word.startswith("--ipc")]
    assert run("BACON_mnist.py", *words, "--save_path", tmp_path / "x") == 2
    assert_one_line(capsys, "--ipc 50 (the default): class 0 (a) of ImageFolder", "use --ipc 10")
    assert run("BACON_mnist.py", *words, "--ipc=11", "--save_path", tmp_path / "x") == 2
    assert_one_line(capsys, "--ipc 11: class 0 (a)")


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ({"ipc": 116}, None),
        ({"ipc": 117}, 116),
        ({"ipc": 117, "init": "noise"}, None),  # noise needs no image
        ({"ipc": 58, "chroma": "half"}, None),  # of which there are twice as many
        ({"ipc": 59, "chroma": "half"}, 58),
    ],
)
def test_each_canvas_needs_an_image_of_its_own_to_begin_with(flags, most, digits, make_args):
    """The smallest class of Digits has 116 training images."""
    args = make_args(**flags)
    if most is None:
        preflight.check_data(args, digits)
    else:
        advice = f"--ipc {flags['ipc']}: class 8 .* has 116 .*; use --ipc {most} or less"
        with pytest.raises(UserError, match=advice):
            preflight.check_data(args, digits)
        args.ipc = most
        preflight.check_data(args, digits)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"lh_weight": 0, "tv_weight": 0, "clip_weight": 0}, "--lh_weight, --tv_weight"),
        ({"lh_weight": 0, "tv_weight": 0.1}, None),
        ({"lh_weight": 0, "tv_weight": 0, "syn_ce": True}, None),
        (
            {"lh_weight": 0, "tv_weight": 0, "syn_ce": True, "ce_weight": 0},
            "--lh_weight, --tv_weight, --ce_weight",
        ),
        ({"lh_weight": 0, "tv_weight": 0, "experts": 1, "expert_ce": 1}, None),
        ({"lh_weight": 0, "tv_weight": 0, "experts": 1}, "--lh_weight, --tv_weight"),
        ({"lh_weight": 0, "tv_weight": 0, "spread_weight": 1}, None),
    ],
)
def test_a_loss_of_nothing_is_refused_by_the_names_of_its_weights(flags, named, make_args):
    args = make_args(**{"syn_ce": False, **flags})
    spec = recipes.DATASETS["Digits"]
    if named is None:
        preflight.check_settings(args, spec, parallel.World())
    else:
        with pytest.raises(UserError, match=f"^{named}.*: every term of the loss is switched off"):
            preflight.check_settings(args, spec, parallel.World())


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        ({"embed_last": 1}, False),
        ({"embed_last": -11}, False),  # of the 12 modules of three blocks, one is left
        ({"embed_last": -12}, True),
        ({"spread_weight": 1, "ipc": 1, "aug": False}, True),
        ({"spread_weight": 1, "ipc": 2, "aug": False}, False),
        ({"spread_weight": 1, "ipc": 1}, False),  # four images
        ({"spread_weight": 0, "ipc": 1, "aug": False}, False),
        ({"exp_index": 1, "num_exp": 2}, False),
        ({"exp_index": 2, "num_exp": 2}, True),
        ({"resume": True}, False),
        ({"overwrite": True}, False),
        ({"resume": True, "overwrite": True}, True),
    ],
    ids=str,
)
def test_what_is_at_the_edge_of_what_works_is_taken(flags, refused, make_args):
    spec = recipes.DATASETS["Digits"]
    args = make_args(**{name: value for name, value in flags.items() if value is not True})
    vars(args).update(flags)
    if refused:
        with pytest.raises(UserError, match=f"--({'|'.join(flags)})"):
            preflight.check_settings(args, spec, parallel.World(0, 1))
    else:
        preflight.check_settings(args, spec, parallel.World(0, 10))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", []),
        ("--experts 2 --train_net_num 20", []),
        (
            "--experts 2 --train_net_num 21",
            ["the experts have 20 networks, fewer than --train_net_num 21"],
        ),
        # At iterations 0 and 4 two networks each enter the pool of three.
        ("--net_push_num 2 --net_generate_interval 4 --train_net_num 7 --fetch_net_num 7", []),
        (
            "--net_push_num 2 --net_generate_interval 4 --train_net_num 8 --fetch_net_num 9",
            [
                "the pool has 7 networks at most, fewer than --train_net_num 8",
                "the pool has 7 networks at most, fewer than --fetch_net_num 9",
            ],
        ),
        (
            "--net_num 1",
            ["the pool has 1 network at most, fewer than the recipe's --fetch_net_num 2"],
        ),
        ("--Iteration 0 --net_num 1", []),  # none is used
        ("--method DM", []),
    ],
)
def test_fewer_networks_than_an_iteration_asks_for_are_told(line, said):
    words = ["--Iteration=6", "--device=cpu", "--dataset=Digits", "--model=ConvNetW32"]
    parsed = flags.parse_args(("Digits",), "", [*words, *line.split()])
    with hearing() as heard:
        preflight.check_flags(parsed, recipes.DATASETS["Digits"], parallel.World())
    assert heard == [f"{words}: an iteration takes all of them" for words in said]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trained_bs": 1201}, False),
        ({"trained_bs": 1202}, True),
        ({"trained_bs": 1202, "Iteration": 0}, False),  # no network is trained
        ({"trained_bs": 1202, "model_train_steps": 0}, False),
        ({"trained_bs": 1202, "experts": 1, "model_train_steps": 0}, True),
        ({"trained_bs": 1202, "Iteration": 0, "init": "cluster"}, True),
    ],
    ids=str,
)
def test_fewer_images_than_a_training_batch_asks_for_are_told(given, said, make_args, digits):
    args = make_args(**given)
    for typed, whose in (given, ""), ({}, "the recipe's "):
        with hearing() as heard:
            preflight.check_data(args, digits, {"ipc", *typed})
        short = f"Digits has 1,201 training images, fewer than {whose}--trained_bs 1202"
        assert heard == ([f"{short}: a batch takes all of them"] if said else [])
