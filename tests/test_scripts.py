"""The scripts as a user runs them: every command of the list, the files they write, what they say to mistakes."""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import written
from PIL import Image

import cost
import data
import distill
import evaluate
import networks
import runs
import utils

ROOT = Path(__file__).parents[1]
COMMANDS = [line.split()[2:] for line in (ROOT / "Command.txt").read_text().splitlines() if line.startswith("python3 ")]
SMALL = [
    "--dataset=Digits", "--model=ConvNetW32", "--ipc=2", "--Iteration=3", "--batch_real=20", "--trained_bs=16",
    "--model_train_steps=2", "--num_exp=1", "--num_eval=1", "--epoch_eval_train=2", "--eval_interval=100",
]  # fmt: skip


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A data path with every dataset in its official layout: 50 images of each of 10 classes."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in data.DATASETS.items():
            if spec.cached:
                patch.setitem(data.DATASETS, name, dataclasses.replace(spec, num_classes=10))
                written(name, root, patch, train=50, test=2)
                data.load(name, root, lambda line: None)
    return root


@pytest.fixture
def ten_classes(monkeypatch):
    for name, spec in data.DATASETS.items():
        monkeypatch.setitem(data.DATASETS, name, dataclasses.replace(spec, num_classes=10))


def run(script, *argv):
    """The exit code of a script's main function, in this process."""
    module = importlib.import_module(script.removesuffix(".py"))
    try:
        return distill.run(module.DATASETS, module.__doc__, list(map(str, argv)))
    except SystemExit as stop:
        return stop.code


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda c: "-".join(c[c.index("--dataset") - 1 : c.index("--ipc") + 2])
)
def test_every_command_of_the_list_runs(command, images, ten_classes, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(networks.NETWORKS, "ConvNet", functools.partial(networks.ConvNet, width=4))
    script, *flags = command
    fast = ["--Iteration", 1, "--num_exp", 1, "--num_eval", 1, "--epoch_eval_train", 1, "--eval_interval", 1]
    fast += ["--batch_real", 2, "--trained_bs", 2, "--model_train_steps", 1, "--batch_train", 500, "--no_compile"]
    assert run(script, *flags, *fast, "--data_path", images, "--save_path", tmp_path) == 0
    (result,) = tmp_path.glob("res_*.pt")
    saved = torch.load(result, weights_only=True)
    meta, (canvases, labels) = saved["meta"], saved["data"][0]
    args = meta["args"]
    assert result.name == f"res_{args['method']}_{args['dataset']}_ConvNet_{args['ipc']}ipc.pt"
    spec = data.DATASETS[args["dataset"]]
    assert canvases.shape == (10 * args["ipc"], spec.channels, *spec.im_size) and canvases.dtype == torch.float32
    assert labels.tolist() == sorted(list(range(10)) * args["ipc"]) and canvases.isfinite().all()
    log = events(tmp_path / result.name.replace("res_", "log_").replace(".pt", ".jsonl"))
    assert [e["event"] for e in log] == ["start", "losses", "evaluation", "end"]
    assert (tmp_path / result.name.replace("res_", "vis_").replace(".pt", "_exp0_iter1.png")).stat().st_size > 1000
    assert str(result) in capsys.readouterr().out


# --- what a run writes


@pytest.fixture
def finished(tmp_path):
    def make(*flags, folder="run"):
        assert run("BACON_mnist.py", *SMALL, *flags, "--save_path", tmp_path / folder) == 0
        return tmp_path / folder

    return make


def test_the_saved_set_is_what_was_scored(finished, digits):
    folder = finished("--num_exp=2", "--num_eval=2", "--eval_mode=C")
    path = folder / "res_BACON_Digits_ConvNetW32_2ipc.pt"
    saved = torch.load(path, weights_only=True)
    test = digits.real("test")
    assert list(saved["accs_all_exps"]) == ["ConvNetW32", "ConvNet"] and len(saved["accs_all_exps"]["ConvNet"]) == 4
    for exp in (0, 1):
        images, labels, meta = data.load_distilled(path, exp)
        args = meta["args"]
        protocol = evaluate.Protocol(
            args["epoch_eval_train"], args["batch_train"], args["lr_net"], tuple(args["dsa_strategy"].split("_"))
        )
        for number in (0, 1):
            rng = utils.stream(args["seed"], exp, "judge", "ConvNetW32", number)
            score = evaluate.judge("ConvNetW32", images, labels, test, 10, protocol, rng, evaluate.Arithmetic("cpu"))
            assert score == saved["accs_all_exps"]["ConvNetW32"][2 * exp + number]


def test_meta_says_what_made_the_set(finished, digits):
    folder = finished("--seed=5", "--zca")
    _, _, meta = data.load_distilled(folder / "res_BACON_Digits_ConvNetW32_2ipc.pt")
    args = meta["args"]
    assert (args["method"], args["dataset"], args["ipc"], args["seed"], meta["factor"]) == ("BACON", "Digits", 2, 5, 2)
    assert args["batch_real"] == 20 and meta["departures"]["batch_real"] == [20, 5000]
    assert meta["zca"] == {"eps": 0.1, "fitted_on": digits.fingerprint} and meta["data_sha256"] == digits.fingerprint
    assert meta["mean"] == list(digits.mean) and set(meta["versions"]) >= {"torch", "git"}


def test_evaluating_more_often_or_otherwise_changes_no_canvas(finished):
    names = [finished(folder="a"), finished("--eval_interval=1", "--num_eval=2", "--eval_mode=W", folder="b")]
    a, b = (torch.load(f / "res_BACON_Digits_ConvNetW32_2ipc.pt", weights_only=True) for f in names)
    assert torch.equal(a["data"][0][0], b["data"][0][0])


def test_one_experiment_alone_equals_it_within_the_whole_run(finished):
    whole = finished("--num_exp=2", folder="whole")
    part = finished("--num_exp=2", "--exp_index=1", folder="part")
    whole = torch.load(whole / "res_BACON_Digits_ConvNetW32_2ipc.pt", weights_only=True)
    part = torch.load(part / "res_BACON_Digits_ConvNetW32_2ipc_exp1.pt", weights_only=True)
    assert torch.equal(whole["data"][1][0], part["data"][0][0]) and part["meta"]["experiments"] == [1]
    assert whole["accs_all_exps"]["ConvNetW32"][1:] == part["accs_all_exps"]["ConvNetW32"]


def test_the_log_has_losses_every_ten_iterations_and_every_evaluation(finished):
    folder = finished("--Iteration=25", "--eval_interval=12", "--num_eval=2")
    log = events(folder / "log_BACON_Digits_ConvNetW32_2ipc.jsonl")
    assert log[0]["event"] == "start" and log[0]["args"]["Iteration"] == 25
    assert [e["it"] for e in log if e["event"] == "losses"] == [10, 12, 22, 24, 25]
    assert {"lh", "tv", "clip", "ce", "accuracy", "pool", "seconds"} <= log[1].keys()
    evaluations = [e for e in log if e["event"] == "evaluation"]
    assert [e["it"] for e in evaluations] == [12, 24, 25] and all(len(e["accuracy"]) == 2 for e in evaluations)
    assert log[-1]["event"] == "end" and log[-1]["accuracy"]["ConvNetW32"]["networks"] == 2
    assert len(list(folder.glob("vis_*.png"))) == 3


def test_iteration_0_evaluates_the_initialisation(finished):
    folder = finished("--Iteration=0")
    log = events(folder / "log_BACON_Digits_ConvNetW32_2ipc.jsonl")
    assert [(e["event"], e.get("it")) for e in log] == [("start", None), ("evaluation", 0), ("end", None)]


def test_the_table_joins_seeds_and_leaves_out_unfinished_runs(finished, tmp_path, capsys):
    for seed in (0, 1):
        finished("--Iteration=0", f"--seed={seed}", folder=f"random{seed}")
    folder = finished("--Iteration=1", "--no_aug", folder="run")
    (tmp_path / "stopped").mkdir()
    log = (folder / "log_BACON_Digits_ConvNetW32_2ipc.jsonl").read_text().splitlines()
    (tmp_path / "stopped" / "log_x.jsonl").write_text("\n".join(log[:-1]))
    capsys.readouterr()
    assert evaluate.main(["--table", str(tmp_path), "--format=json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = {row["set"]: row for row in rows if "networks" in row}
    one, two = rows["BACON"], rows["random (real)"]
    accuracies = [json.loads(log[-2])["accuracy"][0]]
    assert float(one["mean %"]) == pytest.approx(100 * accuracies[0], abs=0.01)
    assert (one["images/canvas"], one["network"], one["networks"], one["experiments"]) == ("one", "ConvNetW32", 1, 1)
    assert (two["images/canvas"], two["networks"], two["experiments"]) == ("four", 2, 2) and len(rows) == 2
    assert evaluate.main(["--table", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "stopped" / "log_x.jsonl").write_text("{")
    assert evaluate.main(["--table", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "nowhere" in errors[0] and "log_x.jsonl" in errors[1]


def test_a_dry_run_prints_the_cost_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "result"
    assert run("BACON_mnist.py", *SMALL, "--dry_run", "--save_path", folder) == 0
    text = capsys.readouterr().out
    for word in ("real embeddings", "synthetic updates", "pool training", "evaluation: train ConvNetW32", "total"):
        assert word in text
    assert "checkpoint about" in text and "peak memory about" in text and not folder.exists()


def test_counted_work_is_that_of_the_shapes(make_args, digits):
    args = make_args(ipc=2, Iteration=3, batch_real=20, model_train_steps=2, trained_bs=16, epoch_eval_train=2)
    images = cost.images_per_kind(args, digits)
    assert images == {
        "real": 3 * 20 * 10,
        "synthetic": 3 * 80,
        "train": 3 * 2 * 2 * 16,
        ("train", "ConvNetW32"): 3 * 80,
        ("test", "ConvNetW32"): len(digits.labels_test),
    }
    flop = cost.flop_per_image(args, data.DATASETS["Digits"])
    convolutions = 2 * 9 * (64 * 1 * 32 + 16 * 32 * 32 + 4 * 32 * 32)
    linear = 2 * 32 * 10
    assert flop["real"] == convolutions + linear
    # Backwards costs the same again per layer for its weights, and again for its input but for the first layer's.
    assert flop["train"] == 3 * (convolutions + linear) - 2 * 9 * 64 * 32
    assert flop["synthetic"] == 2 * (convolutions + linear)


@pytest.mark.parametrize(("iterations", "interval"), [(0, 5), (4, 5), (5, 5), (6, 5), (25, 12), (24, 12)])
def test_evaluations_are_due_at_every_interval_and_at_the_last_iteration(iterations, interval, make_args):
    args = make_args(Iteration=iterations, eval_interval=interval)
    due = [it for it in range(iterations + 1) if cost.evaluation_due(args, it)]
    assert due == sorted({*range(interval, iterations + 1, interval), iterations})
    assert cost.number_of_evaluations(args) == len(due)


# --- mistakes: one line, code 2, nothing written


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
        (["--nonsense"], ["--nonsense"]),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else None,
)
def test_a_mistake_is_one_line_with_code_2_and_writes_nothing(flags, words, tmp_path, capsys, monkeypatch):
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
    assert not (tmp_path / "result").exists() and not any(path.is_file() for path in tmp_path.rglob("*"))


def test_odd_images_are_refused_with_aug_only(monkeypatch, capsys, tmp_path):
    spec = dataclasses.replace(data.DATASETS["Digits"], im_size=(9, 8))
    monkeypatch.setitem(data.DATASETS, "Digits", spec)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path) == 2
    assert "--aug" in capsys.readouterr().err


def test_a_save_path_that_is_a_file_or_cannot_be_written_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("mine")
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "file") == 2
    assert "--save_path" in capsys.readouterr().err and (tmp_path / "file").read_text() == "mine"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs.tempfile, "TemporaryFile", refuse)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "folder") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_an_earlier_run_is_replaced_only_on_request(finished, capsys):
    folder = finished()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run("BACON_mnist.py", *SMALL, "--seed=1", "--save_path", folder) == 2
    text = capsys.readouterr().err
    assert "--overwrite" in text and text.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    # A run that fails leaves nothing of the earlier one that could pass for its own result.
    assert run("BACON_mnist.py", *SMALL, "--overwrite", "--lr_img=1e30", "--save_path", folder) == 3
    assert not list(folder.glob("res_*"))


def test_wrong_data_files_are_one_line(tmp_path, capsys):
    for content in ({"classes": []}, [1, 2], torch.zeros(3)):
        torch.save(content, tmp_path / "mnist.pt")
        flags = ["--dataset=MNIST", "--data_path", tmp_path, "--save_path", tmp_path / "result"]
        assert run("BACON_mnist.py", *SMALL, *flags) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and "mnist.pt" in text and not (tmp_path / "result").exists()


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    save = utils.save_torch

    def refuse(obj, path, *rest):
        if path.name.startswith("res_"):
            raise OSError(28, "No space left on device", str(path))
        save(obj, path, *rest)

    monkeypatch.setattr(utils, "save_torch", refuse)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "No space left" in text and "res_BACON" in text


def test_a_class_of_one_image_is_refused_and_a_small_class_is_mentioned(digits, make_args):
    keep = torch.ones(len(digits.labels_train), dtype=torch.bool)
    keep[(digits.labels_train == 3).nonzero()[1:, 0]] = False
    images, labels = digits.images_train[keep], digits.labels_train[keep]
    short = dataclasses.replace(digits, images_train=images, labels_train=labels)
    with pytest.raises(utils.UserError, match=r"class 3 .* 1 training images; a standard deviation needs 2"):
        distill.check_data(make_args(ipc=1), short)
    (note,) = distill.check_data(make_args(batch_real=200), digits)
    assert "class 8" in note and "116" in note and "--batch_real 200" in note
    assert distill.check_data(make_args(batch_real=116), digits) == []


@pytest.mark.parametrize("mode", ["N", "A", "P"])
def test_evaluation_modes_judge_with_each_of_their_networks(mode, finished):
    folder = finished(f"--eval_mode={mode}", "--Iteration=0")
    saved = torch.load(folder / "res_BACON_Digits_ConvNetW32_2ipc.pt", weights_only=True)
    assert list(saved["accs_all_exps"]) == list(evaluate.EVAL_NETWORKS[mode])


@pytest.mark.parametrize(
    "flags",
    [["--optim=adam", "--lr_img=0.05"], ["--init=noise", "--no_aug"], ["--method=DM", "--model=ConvNetBN"], ["--zca"]],
    ids=lambda flags: flags[0],
)
def test_less_common_flags_distil_too(flags, finished):
    start = finished(*flags, "--Iteration=0", folder="start")
    end = finished(*flags, folder="end")
    (start,), (end,) = (list(folder.glob("res_*.pt")) for folder in (start, end))
    start, end = (torch.load(path, weights_only=True)["data"][0][0] for path in (start, end))
    assert end.isfinite().all() and 1e-3 < (end - start).abs().max() < 10


@pytest.mark.parametrize("zca", [False, True])
def test_the_picture_shows_the_images_of_each_class_in_pixel_colours(zca, digits, make_args, tmp_path):
    def distiller(whitening=None):
        real = digits.real("train", whitening=whitening)
        return distill.Distiller(make_args(aug=False), 0, real, evaluate.Arithmetic("cpu"))

    plain = distiller()
    shown = distiller(data.Whitening.fit(plain.real)) if zca else plain
    assert torch.equal(shown.canvases, plain.canvases) is not zca
    distill.save_picture(shown, tmp_path / "x.png")
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("L")) / 255
    for c in range(10):
        for k in range(2):
            pixels = data.denormalise(plain.canvases[c, k], digits.mean, digits.std)[0].numpy()
            at = [
                y
                for y in range(2, len(picture) - 63, 66)
                for x in range(picture.shape[1] - 63)
                if np.abs(picture[y : y + 64 : 8, x : x + 64 : 8] - pixels).max() <= 1 / 255
            ]
            assert len(at) == 8 and len(set(at)) == 1  # the samples fit at every offset within the zoom of 8


def test_a_diverging_run_stops_with_code_3_and_keeps_its_log(tmp_path, capsys):
    assert run("BACON_mnist.py", *SMALL, "--lr_img=1e30", "--Iteration=20", "--save_path", tmp_path) == 3
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "iteration" in text and "class" in text
    log = events(tmp_path / "log_BACON_Digits_ConvNetW32_2ipc.jsonl")
    assert [e["event"] for e in log] == ["start", "diverged"] and not list(tmp_path.glob("res_*"))


# --- as processes


def test_a_script_is_a_program_with_plain_lines_where_output_is_no_terminal(tmp_path, digits_folder):
    flags = [*SMALL, f"--data_path={digits_folder}", "--Iteration=11"]
    command = [sys.executable, "-u", ROOT / "BACON_mnist.py", *flags, "--save_path", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False)
    assert done.returncode == 0 and done.stderr == ""
    for word in (
        "BACON distils Digits",
        "1x8x8",
        "MNIST at ipc 1",
        "--batch_real 20 (not 5000)",
        "cpu, ",
        "seed 0",
        "iteration 10/11  loss",
        "s/it",
    ):
        assert word in done.stdout
    command[-3] = "--ipc=-1"
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


def test_a_terminal_sees_a_progress_bar(tmp_path):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, ROOT / "BACON_mnist.py", *SMALL, "--Iteration=11", "--save_path", tmp_path]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # Linux reports the end of a pseudo terminal as an error
        while chunk := os.read(ours, 4096):
            text += chunk
    os.close(ours)
    assert process.wait(200) == 0
    text = text.decode()
    assert "11/11" in text and "exp 0" in text and "loss" in text and "accuracy %" in text
