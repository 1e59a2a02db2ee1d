"""Facts about whole runs: every command of the list, the files they write, what they say to
mistakes."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layouts import written
from PIL import Image
from scripts import SMALL, assert_one_line, events, run, run_name

import networks
import utils
from bacon import canvases, compute, flags, judge, messages, parallel, recipes
from bacon.data import loading
from bacon.distill import clusters, distiller
from bacon.errors import DivergedError, UserError
from bacon.run import folder, preflight, words
from bacon.run import run as runner
from bacon.score import layouts

ROOT = Path(__file__).parents[1]
COMMANDS = [
    line.split()[2:]
    for line in (ROOT / "Command.txt").read_text().splitlines()
    if line.startswith("python3 ")
]


def few_classes(patch):
    """Five classes in each dataset but those whose ten torchvision names."""
    for name, spec in recipes.DATASETS.items():
        if name not in ("MNIST", "FashionMNIST"):
            patch.setitem(recipes.DATASETS, name, spec._replace(num_classes=5))


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A data path with every dataset in its official layout: 100 images of each of the few
    classes."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        few_classes(patch)
        for name in recipes.DATASETS:
            if name != "Digits":
                written(name, root, patch, train=100, test=2)
                loading.load(name, root)
    return root


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda c: "-".join(c[c.index("--dataset") - 1 : c.index("--ipc") + 2])
)
def test_every_command_of_the_list_runs(command, images, tmp_path, monkeypatch, capsys):
    few_classes(monkeypatch)
    monkeypatch.setattr(clusters, "STEPS", 1)
    monkeypatch.setitem(networks.NETWORKS, "ConvNet", functools.partial(networks.ConvNet, width=4))
    script, *flags = command
    fast = [
        "--Iteration",
        1,
        "--num_exp",
        1,
        "--num_eval",
        1,
        "--epoch_eval_train",
        1,
        "--eval_interval",
        1,
    ]
    fast += [
        "--batch_real",
        2,
        "--trained_bs",
        2,
        "--model_train_steps",
        1,
        "--batch_train",
        500,
        "--no_compile",
    ]
    assert run(script, *flags, *fast, "--data_path", images, "--save_path", tmp_path) == 0
    (result,) = tmp_path.glob("res_*.pt")
    saved = torch.load(result, weights_only=True)
    meta, (canvases, labels) = saved["meta"], saved["data"][0]
    args = meta["args"]
    kind = "ours" if args["recipe"] == "ours" else args["method"]
    assert result.name.startswith(f"res_{kind}_{args['dataset']}_ConvNet_{args['ipc']}ipc_1it_")
    assert result.name == f"res_{run_name(script, *flags, *fast)}.pt"
    spec = recipes.DATASETS[args["dataset"]]
    half = args["chroma"] == "half"
    shape = (6, *(side // 2 for side in spec.im_size)) if half else (spec.channels, *spec.im_size)
    count = args["ipc"] * (2 if half else 1)
    assert canvases.shape == (spec.num_classes * count, *shape) and canvases.dtype == torch.float32
    assert (
        labels.tolist() == sorted(list(range(spec.num_classes)) * count)
        and canvases.isfinite().all()
    )
    log = events(tmp_path / result.name.replace("res_", "log_").replace(".pt", ".jsonl"))
    began = ["start", "clusters"] if args["init"] == "cluster" else ["start"]
    assert [e["event"] for e in log] == [*began, "losses", "evaluation", "end"]
    assert (
        tmp_path / result.name.replace("res_", "vis_").replace(".pt", "_exp0_iter1.png")
    ).stat().st_size > 1000
    assert str(result) in capsys.readouterr().out


# What a run writes


def test_the_saved_set_is_what_was_scored(finished, digits):
    folder = finished("--num_exp=2", "--num_eval=2", "--eval_mode=C")
    (path,) = folder.glob("res_*.pt")
    saved = torch.load(path, weights_only=True)
    test = digits.real("test")
    assert (
        list(saved["accs_all_exps"]) == ["ConvNetW32", "ConvNet"]
        and len(saved["accs_all_exps"]["ConvNet"]) == 4
    )
    for exp in (0, 1):
        images, labels, meta = canvases.load_distilled(path, exp)
        args = meta["args"]
        protocol = judge.Protocol(
            args["epoch_eval_train"],
            args["batch_train"],
            args["lr_net"],
            tuple(args["dsa_strategy"].split("_")),
        )
        for number in (0, 1):
            rng = utils.stream(args["seed"], exp, "judge", "ConvNetW32", number)
            score = judge.judge(
                "ConvNetW32", images, labels, test, 10, protocol, rng, compute.Arithmetic("cpu")
            )
            assert score == saved["accs_all_exps"]["ConvNetW32"][2 * exp + number]


def test_meta_says_what_made_the_set(finished, digits):
    folder = finished("--seed=5", "--zca")
    (path,) = folder.glob("res_*.pt")
    _, _, meta = canvases.load_distilled(path)
    args = meta["args"]
    assert (args["method"], args["dataset"], args["ipc"], args["seed"], meta["factor"]) == (
        "BACON",
        "Digits",
        2,
        5,
        2,
    )
    assert args["batch_real"] == 20 and meta["departures"]["batch_real"] == [20, 5000]
    assert (
        meta["zca"] == {"eps": 0.1, "fitted_on": digits.fingerprint}
        and meta["data_sha256"] == digits.fingerprint
    )
    assert meta["mean"] == list(digits.mean) and set(meta["versions"]) >= {"torch", "git"}


def test_one_experiment_alone_equals_it_within_the_whole_run(finished):
    whole = finished("--num_exp=2", folder="whole")
    part = finished("--num_exp=2", "--exp_index=1", folder="part")
    name = run_name("BACON_mnist.py", *SMALL, "--num_exp=2")
    whole = torch.load(whole / f"res_{name}.pt", weights_only=True)
    part = torch.load(part / f"res_{name}_exp1.pt", weights_only=True)
    assert torch.equal(whole["data"][1][0], part["data"][0][0]) and part["meta"]["experiments"] == [
        1
    ]
    assert whole["accs_all_exps"]["ConvNetW32"][1:] == part["accs_all_exps"]["ConvNetW32"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--optim=adam", "--lr_img=0.05"],
        ["--init=noise", "--no_aug"],
        ["--method=DM", "--model=ConvNetBN"],
        ["--zca"],
    ],
    ids=lambda flags: flags[0],
)
def test_less_common_flags_distil_too(flags, finished):
    start = finished(*flags, "--Iteration=0", folder="start")
    end = finished(*flags, folder="end")
    (start,), (end,) = (list(folder.glob("res_*.pt")) for folder in (start, end))
    start, end = (torch.load(path, weights_only=True)["data"][0][0] for path in (start, end))
    assert end.isfinite().all() and 1e-3 < (end - start).abs().max() < 10


def test_no_validation_image_is_in_a_batch_a_canvas_or_a_cluster(finished, monkeypatch, capsys):
    seen, inner = [], runner.real_data

    def spy(*args):
        seen.extend(inner(*args))
        return seen[-2:]

    monkeypatch.setattr(runner, "real_data", spy)  # all that a run sees of the real images
    monkeypatch.setattr(clusters, "STEPS", 2)
    folder = finished("--validate=9", "--init=cluster")
    train, held = ({tuple(x.flatten().tolist()) for x in real.images} for real in seen)
    assert len(held) == 90 and not train & held and len(seen[0]) == 1201 - 90
    text = capsys.readouterr().out
    assert "1,111 training and 90 validation images" in text and "validation accuracy" in text
    assert "of the validation images" in " ".join(text.split()) and "test accuracy" not in text
    (path,) = folder.glob("res_*.pt")
    (saved,) = layouts.read(
        layouts.recognise(path), layouts.Facts.of("Digits", recipes.DATASETS["Digits"], None)
    )
    finished("--validate=9", "--dry_run")
    assert "1,111 training and 90 validation images" in capsys.readouterr().out
    assert saved.recorded == {}  # what the file records is no accuracy on test images


def test_our_recipe_is_the_papers_but_for_its_own_settings_and_one_of_bacon():
    for script, listed in (("CIFAR10", 10), ("SVHN", 10), ("MNIST", 1)):
        ours = flags.parse_args(
            (script,), "", ["--recipe=ours", f"--ipc={listed}", "--ce_weight=3"]
        )
        theirs = flags.parse_args((script,), "", [f"--ipc={listed}"])
        chosen = recipes.OURS["MNIST" if script == "MNIST" else "CIFAR10"][listed] | {
            "recipe": "ours",
            "ce_weight": 3,
        }
        assert vars(ours.args) == vars(theirs.args) | chosen and list(ours.departures) == [
            "ce_weight"
        ]
        assert "ours" in ours.recipe and "ours" not in theirs.recipe


# Mistakes: one line, code 2, nothing written


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
def test_a_mistake_is_one_line_with_code_2_and_writes_nothing(
    flags, words, tmp_path, capsys, monkeypatch
):
    def refuse(*args, **kwargs):
        raise OSError("no internet")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
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


def test_a_save_path_that_is_a_file_or_cannot_be_written_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("mine")
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "file") == 2
    assert "--save_path" in capsys.readouterr().err and (tmp_path / "file").read_text() == "mine"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder.tempfile, "TemporaryFile", refuse)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "folder") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_an_earlier_run_is_replaced_only_on_request(finished, monkeypatch, capsys):
    folder = finished()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run("BACON_mnist.py", *SMALL, "--save_path", folder) == 2
    text = capsys.readouterr().err
    assert "--overwrite" in text and text.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    def diverge(*args):
        raise DivergedError("iteration 0")

    # A run that fails leaves nothing of the earlier one that could pass for its own result.
    monkeypatch.setattr(distiller.Distiller, "iterate", diverge)
    assert run("BACON_mnist.py", *SMALL, "--overwrite", "--save_path", folder) == 3
    assert not list(folder.glob("res_*"))


def test_wrong_data_files_are_one_line(tmp_path, capsys):
    for content in ({"classes": []}, [1, 2], torch.zeros(3)):
        torch.save(content, tmp_path / "mnist.pt")
        flags = ["--dataset=MNIST", "--data_path", tmp_path, "--save_path", tmp_path / "result"]
        assert run("BACON_mnist.py", *SMALL, *flags) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and "mnist.pt" in text and not (tmp_path / "result").exists()


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    save = runner.save_torch

    def refuse(obj, path, *rest):
        if path.name.startswith("res_"):
            raise OSError(28, "No space left on device", str(path))
        save(obj, path, *rest)

    monkeypatch.setattr(runner, "save_torch", refuse)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "No space left" in text and "res_BACON" in text


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


def test_slurms_time_limit_is_said_where_it_is_known(monkeypatch, capsys):
    def time_left():
        with messages.speak("stdout"):
            words.tell_time_left()
        return capsys.readouterr().out

    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert time_left() == ""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    for end, left in (("8200", "2.0 h"), ("900", "0.0 s")):
        monkeypatch.setenv("SLURM_JOB_END_TIME", end)
        line = time_left()
        assert (
            line.startswith(f"Slurm ends this job in {left}; a judge")
            and "--epoch_eval_train" in line
        )


# As a process


def test_a_script_is_a_program_with_plain_lines_where_output_is_no_terminal(
    tmp_path, digits_folder
):
    flags = [*SMALL, f"--data_path={digits_folder}", "--Iteration=11"]
    command = [sys.executable, "-u", ROOT / "BACON_mnist.py", *flags, "--save_path", tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
    for word in (
        "BACON distils Digits",
        "1x8x8",
        "MNIST at ipc 1",
        "--batch_real 20 (not 5000)",
        "cpu, ",
        "seed 0",
        "10/11  loss",
        "s/it",
    ):
        assert word in done.stdout
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    assert (
        "2 canvases per class of Digits, distilled by BACON, train a fresh ConvNetW32 to"
        in lines[-2]
    )
    assert lines[-1].endswith("over 1 judges)")
    command[-3] = "--ipc=-1"
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


# What nobody typed


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
    words += ["--save_path", tmp_path / "x"]
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


def test_our_recipe_keeps_chroma_where_it_can(quick, own_images, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(clusters, "STEPS", 1)
    words = [*SMALL, *own_images("RGB", (16, 12)), "--recipe=ours", "--batch_real=5"]
    words += ["--save_path", tmp_path / "x"]
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


class OneOfTwo:
    """A World of two processes, seen from one of them, that notes when all have met."""

    def __init__(self, leads, happened):
        self.leads = leads
        self.happened = happened

    def from_leader(self, function):
        if self.leads:
            function()
        self.happened.append("met")


@pytest.mark.parametrize("leads", [True, False])
def test_one_process_fetches_the_data_before_the_others_read_it(leads, make_args, monkeypatch):
    happened = []

    def load(dataset, data_path, *others):
        happened.append(("loaded", dataset, data_path))
        return "the dataset"

    monkeypatch.setattr(loading, "load", load)
    args = make_args(data_path="somewhere")
    assert runner.load_once(args, OneOfTwo(leads, happened)) == "the dataset"
    loaded = ("loaded", "Digits", "somewhere")
    assert happened == ([loaded, "met"] if leads else ["met", loaded])
