"""Facts about whole runs: every kind of command of the list, and the files they write."""

import functools
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from layouts import written
from scripts import SMALL, assert_one_line, events, run, run_name

import networks
import utils
from bacon import canvases, compute, flags, judge, messages, plots, recipes
from bacon.data import loading, spaces
from bacon.distill import clusters
from bacon.errors import Stopped, UserError
from bacon.parallel import World
from bacon.run import record
from bacon.run import run as runner
from bacon.run.experiment import Setting
from bacon.run.folder import Files
from bacon.score import layouts

ROOT = Path(__file__).parents[1]
COMMANDS = [
    line.split()[2:]
    for line in (ROOT / "Command.txt").read_text().splitlines()
    if line.startswith("python3 ")
]


def kinds(commands):
    """The first of the commands that differ in numbers alone, of which the images per class are
    one."""
    found = {}
    for command in commands:
        words = tuple(word for word in command if not re.fullmatch(r"[-\d.e]+", word))
        found.setdefault(words, command)
    return list(found.values())


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
    "command",
    kinds(COMMANDS),
    ids=lambda c: "-".join(c[c.index("--dataset") - 1 : c.index("--ipc") + 2]),
)
def test_every_kind_of_command_of_the_list_runs(command, images, tmp_path, monkeypatch, capsys):
    few_classes(monkeypatch)
    monkeypatch.setattr(clusters, "STEPS", 1)
    monkeypatch.setitem(networks.NETWORKS, "ConvNet", functools.partial(networks.ConvNet, width=4))
    script, *flags = command
    fast = ["--Iteration=1", "--num_exp=1", "--num_eval=1", "--epoch_eval_train=1"]
    fast += ["--eval_interval=1", "--batch_real=2", "--trained_bs=2", "--model_train_steps=1"]
    fast += ["--expert_steps=9", "--batch_train=500", "--no_compile"]
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
    began = ["start"]
    began += ["experts"] if args["experts"] else []
    began += ["clusters"] if args["init"] == "cluster" else []
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


def test_both_splits_are_whitened_as_fitted_on_training_images(make_args, digits):
    whitening = spaces.Whitening.fit(digits.real("train"))
    found = runner.real_data(make_args(zca=True), digits, "cpu")
    for images, split in zip(found, ("train", "test"), strict=True):
        expected = whitening.apply(digits.real(split).take(slice(None)))
        torch.testing.assert_close(images.take(slice(None)), expected)


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
    assert saved.held_out == 9  # what the file records is no accuracy on test images


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


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("no"), 2), (SystemExit(2), 2), (None, 0), (Stopped("TERM"), 75)]
)
def test_a_program_ends_its_connections_with_its_exit_code(error, code, make_args, monkeypatch):
    def work(settings, world):
        if error:
            raise error
        return 0

    ended = []
    monkeypatch.setattr(runner, "run_settings", work)
    monkeypatch.setattr(runner.parallel, "end_if_connected", ended.append)
    settings = types.SimpleNamespace(args=make_args())
    assert runner.main(settings) == code
    assert ended == [code]


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


@pytest.fixture
def runs_of(make_args):
    """Make a Run that has not begun; keyword arguments are flags."""

    def make(**given):
        cpu = compute.Arithmetic("cpu")
        return runner.Run(Setting(make_args(**given), None, None, cpu, cpu, World()), {})

    return make


def test_a_resumed_run_counts_the_seconds_before_it_was_stopped(runs_of, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    stopped = runs_of()
    now[0] += 40
    state = stopped.state_dict()
    assert state["seconds"] == 40
    now[0] = 5000.0  # the clock of another process
    resumed = runs_of()
    resumed.load_state_dict(state)
    now[0] += 2
    assert resumed.state_dict()["seconds"] == 42


@pytest.mark.parametrize(("interval", "evaluations"), [(4, 1), (3, 1), (2, 2), (1, 3)])
def test_a_plot_is_drawn_of_several_evaluations(interval, evaluations, runs_of, monkeypatch):
    run_of_three = runs_of(eval_interval=interval)
    files = Files(run_of_three.args)
    monkeypatch.setattr(plots, "plot_runs", lambda logs: ("plot of", *logs))
    drawn = [("plot of", files.log)] if evaluations > 1 else []
    assert run_of_three.plot(files) == drawn


@pytest.mark.parametrize("error", [UserError("no matplotlib"), OSError("full"), KeyError("ours")])
def test_a_plot_that_cannot_be_drawn_costs_no_result(error, runs_of, monkeypatch):
    def fail(log):
        raise error

    monkeypatch.setattr(plots, "plot_runs", fail)
    of_several = runs_of(eval_interval=1)
    if isinstance(error, KeyError):  # a mistake of ours
        with pytest.raises(KeyError):
            of_several.plot(Files(of_several.args))
    else:
        assert of_several.plot(Files(of_several.args)) == [f"no plot of the accuracy: {error}"]


def test_what_does_not_change_a_result_is_not_recorded(digits):
    words = ["--dataset=Digits", "--resume", "--checkpoint_minutes=3", "--seed=5"]
    settings = flags.parse_args(("Digits",), "", words)
    about = runner.about(settings, digits)
    left_out = vars(settings.args).keys() - about["args"].keys()
    assert left_out == {"resume", "overwrite", "dry_run", "checkpoint_minutes"}
    assert about["args"]["seed"] == 5 and about["zca"] is None
    assert (about["train_images"], about["test_images"]) == (1201, 596)


def test_a_run_goes_on_in_the_arithmetic_of_its_checkpoint(monkeypatch):
    monkeypatch.setattr(compute, "compile_error", lambda device: None)
    saved = [["cpu", "fp32", True], ["cpu", "bf16", False]]
    both = runner.restored(saved)
    found = [[a.device.type, a.precision, a.compiled] for a in (both.distilling, both.judging)]
    assert found == saved
    monkeypatch.setattr(compute, "compile_error", lambda device: "no compiler")
    compiled = "the checkpoint was computed with --compile, which does not work here: no compiler"
    with pytest.raises(UserError, match=f"^--resume: {compiled}$"):
        runner.restored(saved)
    runner.restored(saved[1:] * 2)
    with pytest.raises(UserError, match=r"^--resume: the checkpoint was computed on mps; "):
        runner.restored([["mps", "fp32", False], saved[1]])


@pytest.mark.parametrize(("validate", "train", "test"), [(0, 1201, 596), (9, 1111, 90)])
def test_a_dry_run_knows_the_sizes_of_the_splits(validate, train, test, make_args):
    spec = runner.spec_of(make_args(validate=validate))
    assert (spec.train, spec.test) == (train, test)


@pytest.mark.parametrize("validate", [119, 120, 100000])
def test_more_validation_images_than_there_are_is_one_line_of_a_dry_run_too(
    validate, make_args, tmp_path, capsys
):
    assert runner.spec_of(make_args(validate=118)).train == 21
    for words in (["--dry_run"], []):
        line = [*SMALL, f"--validate={validate}", *words, f"--save_path={tmp_path / 'x'}"]
        assert run("BACON_mnist.py", *line) == 2
        assert_one_line(
            capsys,
            f"--validate {validate}: Digits has 1,201 training images of 10 classes",
            "give fewer",
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_that_does_not_lead_is_not_heard(leads, capsys):
    with runner.one_voice(World(0 if leads else 1, 2)):
        messages.log.info("a message")
        print("progress")
    assert capsys.readouterr().out == ("a message\nprogress\n" if leads else "")
    print("heard again")
    assert capsys.readouterr().out == "heard again\n"


def test_a_checkpoint_is_written_after_each_experiment(script, monkeypatch):
    ended = []
    inner = record.Record.save

    def save(self):
        ended.append(len(self.state()["ended"]))
        inner(self)

    monkeypatch.setattr(record.Record, "save", save)
    assert script("--num_exp=2") == 0
    assert ended == [1, 2]
