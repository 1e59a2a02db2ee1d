"""Facts about runs that are interrupted, resumed, started twice or hit by faults: nothing is lost
or overwritten."""

import contextlib
import dataclasses
import functools
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch
import torture
from scripts import INTERRUPTED, assert_one_line, events, run, run_name

import networks
from bacon import canvases, compute, errors, figures, files, recipes, tables
from bacon.data import loading
from bacon.distill import clusters, distiller
from bacon.run import cost, experiment, record, words
from bacon.run import folder as folders
from bacon.run import run as runner

NAME = run_name("BACON_mnist.py", *INTERRUPTED)


class Killed(BaseException):
    """What stops a run in these tests as a SIGKILL would: nothing in the scripts catches it."""


@pytest.fixture
def script(tmp_path, monkeypatch, quick):
    """Run a small command line in tmp_path/<folder>, the same words in every folder: its exit
    code."""

    def start(*flags, folder="run"):
        folder = tmp_path / folder
        folder.mkdir(exist_ok=True, parents=True)
        monkeypatch.chdir(folder)
        return run("BACON_mnist.py", *INTERRUPTED, *flags)

    # What a plot shows has to be the same, too; drawing it takes longer than such a run.
    monkeypatch.setattr(
        figures, "curve", lambda *content: Path(content[-1]).write_text(repr(content[:-1]))
    )
    return start


@pytest.fixture(scope="module")
def undisturbed_runs():
    return {}


@pytest.fixture
def assert_same(script, tmp_path, undisturbed_runs, capsys):
    """Hold what a run left against what an undisturbed one with the same flags leaves, which is
    made once."""

    def check(*flags):
        if flags not in undisturbed_runs:
            assert script(*flags, folder="undisturbed") == 0
            undisturbed_runs[flags] = torture.outcome(tmp_path / "undisturbed")
        assert torture.differences(tmp_path / "run", undisturbed_runs[flags]) == []

    return check


@pytest.fixture(autouse=True)
def short_clusters(monkeypatch):
    monkeypatch.setattr(clusters, "STEPS", 3)


@pytest.fixture
def colour(monkeypatch, quick, few_digits):
    """Digits have three channels, of other brightness each."""
    entries, source = few_digits()
    for split in ("train", "val"):
        grey = entries[f"images_{split}"]
        entries[f"images_{split}"] = torch.cat((grey, grey // 2, 255 - grey), 1)
    spec = recipes.DATASETS["Digits"]._replace(
        channels=3, mean=(0.3, 0.2, 0.7), std=(0.4, 0.2, 0.4)
    )
    monkeypatch.setitem(recipes.DATASETS, "Digits", spec)
    monkeypatch.setitem(loading.READERS, "Digits", lambda *args: (entries, source))


@pytest.fixture
def at_event(monkeypatch):
    """Do something after the n-th call, from now on, of a function: at_event(n, action, owner,
    name)."""

    def plan(n, action, owner=distiller.Distiller, name="iterate"):
        inner, calls = getattr(owner, name), []

        def spy(*args, **kwargs):
            value = inner(*args, **kwargs)
            calls.append(name)
            if len(calls) == n:
                monkeypatch.setattr(owner, name, inner)
                action()
            return value

        monkeypatch.setattr(owner, name, spy)

    return plan


def kill():
    raise Killed


def ask(name):
    return lambda: os.kill(os.getpid(), getattr(signal, name))


def log_events(folder):
    (log,) = folder.glob("result/log_*.jsonl")
    return events(log)


# A resumed run is the same run


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--optim=adam", "--lr_img=0.05"],
        ["--method=DM", "--model=ConvNetBN"],
        ["--zca", "--no_net_decay"],
        ["--eval_mode=C", "--outer_loop=2", "--train_net_num=2"],
        ["--init=cluster", "--judge_steps=3", "--validate=2"],
    ],
    ids=lambda flags: flags[0] if flags else "BACON",
)
def test_a_run_stopped_by_signals_resumes_to_bitwise_the_same_files(
    flags, script, at_event, assert_same, capsys
):
    resume_after_signals(flags, script, at_event, assert_same, capsys)


def test_a_run_with_half_chroma_resumes_to_bitwise_the_same_files(
    colour, script, at_event, assert_same, capsys
):
    resume_after_signals(["--chroma=half"], script, at_event, assert_same, capsys)


def test_a_resumed_run_neither_chooses_its_initial_images_again_nor_says_so(
    script, at_event, assert_same, monkeypatch
):
    at_event(1, ask("SIGTERM"), clusters, "representatives")
    assert script("--init=cluster") == 75
    chosen, inner = [], clusters.representatives
    monkeypatch.setattr(clusters, "representatives", lambda *args: chosen.append(1) or inner(*args))
    assert script("--init=cluster", "--resume") == 0
    assert len(chosen) == 1  # of the other experiment
    monkeypatch.setattr(clusters, "representatives", inner)
    assert_same("--init=cluster")


def resume_after_signals(flags, script, at_event, assert_same, capsys):
    at_event(3, ask("SIGTERM"))
    assert script(*flags) == 75
    at_event(5, ask("SIGUSR1"))
    assert script(*flags, "--resume") == 75
    at_event(1, ask("SIGINT"), experiment, "judge")
    assert script(*flags, "--resume") == 75
    capsys.readouterr()
    assert script(*flags, "--resume") == 0
    assert "bitwise" not in capsys.readouterr().out
    assert_same(*flags)


@pytest.mark.parametrize(
    ("n", "owner", "name"),
    [(n, distiller.Distiller, "iterate") for n in (1, 4, 6, 7, 11)]
    + [(n, experiment, "judge") for n in (1, 2, 4, 6)]
    + [(n, torch, "save") for n in (1, 2, 7, 20)]
    + [(n, os, "replace") for n in (1, 2, 3, 20)]
    + [(n, experiment.Experiment, "save_picture") for n in (1, 2)]
    + [(n, runner.Run, "save_result") for n in (1, 2)]
    + [(n, record.RunLog, "write") for n in (1, 2, 4)]
    + [(1, folders.Files, "claim"), (1, folders.Files, "finish")],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_a_run_killed_anywhere_resumes_to_bitwise_the_same_files(
    n, owner, name, script, at_event, assert_same
):
    at_event(n, kill, owner, name)
    with pytest.raises(Killed):
        script("--checkpoint_minutes=0")
    assert script("--checkpoint_minutes=0", "--resume") == 0
    assert_same("--checkpoint_minutes=0")


def test_judges_that_have_finished_are_not_trained_again(
    script, at_event, monkeypatch, assert_same
):
    at_event(3, kill, experiment, "judge")
    with pytest.raises(Killed):
        script("--checkpoint_minutes=0", "--num_eval=4")
    judged, inner = [], experiment.judge
    monkeypatch.setattr(experiment, "judge", lambda *a, **k: judged.append(a[0]) or inner(*a, **k))
    assert script("--checkpoint_minutes=0", "--num_eval=4", "--resume") == 0
    assert len(judged) == 2 * 2 * 4 - 2  # the third had finished, but not reached a checkpoint
    assert_same("--checkpoint_minutes=0", "--num_eval=4")


def test_a_signal_in_an_evaluation_ends_it_after_the_epoch(script, at_event, monkeypatch):
    steps, inner = [], compute.Arithmetic.training_step
    monkeypatch.setattr(
        compute.Arithmetic, "training_step", lambda *args: steps.append(1) or inner(*args)
    )
    at_event(6, ask("SIGTERM"), compute.Arithmetic, "training_step")
    assert script("--Iteration=0", "--epoch_eval_train=100000", "--batch_train=10") == 75
    assert len(steps) == 8  # 40 decoded images are 4 batches of 10


@pytest.fixture
def hangups_arrive():
    """SIGHUP is not ignored, as it is where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups_arrive")
@pytest.mark.parametrize("again", [1, 2])
def test_a_hangup_stops_a_run_at_a_checkpoint(again, script, at_event, tmp_path, assert_same):
    def hang_up():
        for _ in range(again):  # a shell and its terminal may both send it
            os.kill(os.getpid(), signal.SIGHUP)

    at_event(3, hang_up)
    assert script() == 75
    assert log_events(tmp_path / "run")[-1]["signal"] == "SIGHUP"
    assert script("--resume") == 0
    assert_same()


@pytest.mark.parametrize(("group", "code"), [(None, 0), ("of torchrun", 75)])
def test_a_hangup_that_nohup_has_ignored_stays_so_unless_torchrun_sent_it(
    group, code, script, at_event, monkeypatch
):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        if group:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", group)
        at_event(3, ask("SIGHUP"))
        assert script() == code
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("below", ["", "seed0/run"])
def test_a_link_to_no_folder_is_named_with_what_it_points_to(below, script, tmp_path, capsys):
    link = tmp_path / "link"
    for target in (tmp_path / "not there", link):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert script("--save_path", link / below) == 2
        assert_one_line(
            capsys, f"{link} is a link to {target}, where no folder is; make that folder"
        )
    link.unlink()
    link.symlink_to(tmp_path / "there")
    (tmp_path / "there").mkdir()
    assert script("--save_path", link / below) == 0


def test_a_run_says_where_it_was_stopped_and_how_to_go_on(script, at_event, tmp_path, capfd):
    at_event(3, ask("SIGTERM"))
    assert script() == 75
    text = capfd.readouterr().err
    assert (
        "SIGTERM: stopping after this iteration" in text
        and "--resume" in text
        and f"ckpt_{NAME}.pt" in text
    )
    assert {"event": "interrupted", "signal": "SIGTERM", "exp": 0, "it": 3}.items() <= log_events(
        tmp_path / "run"
    )[-1].items()
    assert script("--resume") == 0
    events = log_events(tmp_path / "run")
    assert [e["it"] for e in events if e["event"] == "resume"] == [3] and events[-1][
        "event"
    ] == "end"
    assert "interrupted" not in {e["event"] for e in events}


def test_ctrl_c_before_the_run_begins_is_one_line_and_writes_nothing(
    script, monkeypatch, capsys, tmp_path
):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", interrupt)
    assert script() == 130
    assert_one_line(capsys, "interrupted")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_second_sigint_stops_at_once(script, at_event, capfd):
    found, before = [], signal.getsignal(signal.SIGINT)

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        found.append(signal.getsignal(signal.SIGINT))

    at_event(1, interrupt, experiment, "judge")
    assert script("--Iteration=0") == 75
    assert found == [signal.SIG_DFL]  # what the next one would meet: the system ends the process
    assert (
        "SIGINT: stopping after this iteration or evaluation epoch; once more stops at once"
        in capfd.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) == before


def test_the_loop_gathers_no_state_where_no_checkpoint_is_due(script, monkeypatch):
    gathered, inner = [], runner.Run.state_dict

    def spy(self):
        gathered.append(self.position())
        return inner(self)

    monkeypatch.setattr(runner.Run, "state_dict", spy)
    assert script() == 0
    assert gathered == [{"ended": 0}, {"ended": 1}, {"ended": 2}]
    gathered.clear()
    assert script("--checkpoint_minutes=0", "--overwrite") == 0
    assert len(gathered) == 3 + 2 * (7 + 2 * 2)  # at every iteration and before every judge


def test_a_checkpoint_is_as_large_as_announced(script, at_event, make_args, tmp_path, monkeypatch):
    monkeypatch.setitem(
        networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=32)
    )
    at_event(6, ask("SIGTERM"))
    assert script("--num_exp=1") == 75
    args = make_args(ipc=1, Iteration=6, net_generate_interval=2, net_num=5)
    name = run_name("BACON_mnist.py", *INTERRUPTED, "--num_exp=1")
    size = (tmp_path / f"run/result/ckpt_{name}.pt").stat().st_size
    announced = cost.checkpoint_bytes(args, recipes.DATASETS["Digits"])
    assert announced < size < 1.2 * announced


# Checkpoints that are not valid


@pytest.fixture
def stopped(script, at_event, tmp_path):
    """The folder of a run that was stopped and has two checkpoints."""
    at_event(9, ask("SIGTERM"))
    assert script("--checkpoint_minutes=0") == 75
    return tmp_path / "run/result"


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one byte": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "no archive": lambda content: b"hello",
    "foreign": lambda content: saved_bytes({"model": torch.zeros(3)}),
    "incomplete": lambda content: saved_bytes({"format": folders.FORMAT, "log_bytes": 0}),
    "malicious": lambda content: pickle.dumps(Malicious()),
    "malicious archive": lambda content: saved_bytes(
        {"format": folders.FORMAT, "meta": Malicious()}
    ),
}


def saved_bytes(obj):
    f = io.BytesIO()
    torch.save(obj, f)
    return f.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_it_taken(
    damage, stopped, script, capsys, assert_same, tmp_path
):
    path = stopped / f"ckpt_{NAME}.pt"
    content = DAMAGES[damage](path.read_bytes())
    path.write_bytes(content)
    capsys.readouterr()
    assert script("--resume", "--checkpoint_minutes=0") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "kept as" in line)
    assert path.name in line
    aside = stopped / f"ckpt_{NAME}_damaged0.pt"
    assert aside.read_bytes() == content
    aside.unlink()
    assert_same("--checkpoint_minutes=0")
    assert not (tmp_path / "run/executed").exists()


def test_a_checkpoint_of_another_version_is_refused_in_one_line_and_stays(stopped, script, capsys):
    path = stopped / f"ckpt_{NAME}.pt"
    torch.save(torch.load(path, weights_only=True) | {"format": "BACON checkpoint 1"}, path)
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    capsys.readouterr()
    assert script("--resume") == 2
    assert_one_line(
        capsys, path.name, "another version", "BACON checkpoint 1", folders.FORMAT, "--overwrite"
    )
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_without_any_valid_checkpoint_nothing_is_started_and_nothing_overwritten(
    stopped, script, capsys
):
    contents = []
    for path in (stopped / f"ckpt_{NAME}.pt", stopped / f"ckpt_{NAME}_previous.pt"):
        contents.append(path.read_bytes()[:1000])
        path.write_bytes(contents[-1])
    others = {p: p.read_bytes() for p in stopped.iterdir() if not p.name.startswith("ckpt")}
    for _ in range(2):
        capsys.readouterr()
        assert script("--resume") == 2
        assert_one_line(capsys, "no valid checkpoint", "--overwrite")
    assert sorted(p.read_bytes() for p in stopped.glob("ckpt_*_damaged0.pt")) == sorted(contents)
    assert {p: p.read_bytes() for p in stopped.iterdir() if not p.name.startswith("ckpt")} == others
    assert script("--overwrite") == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        OSError(5, "I/O error"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_damaged(
    error, stopped, script, capsys, monkeypatch
):
    before = sorted(stopped.iterdir())

    def fail(*args, **kwargs):
        raise error

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        assert script("--resume") == 2
    assert_one_line(capsys, "I/O error" if isinstance(error, OSError) else "out of memory")
    assert sorted(stopped.iterdir()) == before
    with monkeypatch.context() as patch:
        patch.setattr(distiller.Distiller, "__init__", fail)
        if not isinstance(error, OSError):
            assert script("--resume") == 2
            assert_one_line(capsys, "out of memory")
    assert script("--resume") == 0


def test_what_a_killed_write_left_is_removed(stopped, script, tmp_path):
    for name in (f"ckpt_{NAME}.pt.abc.tmp", f"res_{NAME}.pt.abc.tmp"):
        (stopped / name).write_bytes(b"half")
    (stopped / "mine.tmp").write_bytes(b"mine")
    assert script("--resume") == 0
    assert [p.name for p in stopped.glob("*.tmp")] == ["mine.tmp"]


def test_a_log_shorter_than_its_checkpoint_is_refused(stopped, script, capsys):
    log = stopped / f"log_{NAME}.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[:100])
    capsys.readouterr()
    assert script("--resume") == 2
    assert_one_line(capsys, log.name, "100 bytes")
    log.write_bytes(content)
    assert script("--resume") == 0


# Another run, another machine


def test_other_settings_or_data_are_refused_by_name_and_value(stopped, script, capsys, monkeypatch):
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    capsys.readouterr()
    assert script("--resume", "--device=cpu", "--no_compile") == 2
    assert_one_line(capsys, "--device auto there, cpu here", "--compile None there, False here")
    digits = loading.load("Digits", "data")
    subset = dataclasses.replace(digits, fingerprint="f" * 64)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", lambda *args: subset)
        assert script("--resume") == 2
    assert_one_line(capsys, digits.fingerprint[:12], "f" * 12)
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before
    assert (
        script("--resume", "--mismatch_lambda=0", "--checkpoint_minutes=3", "--data_path=elsewhere")
        == 0
    )


@pytest.fixture
def two_threads(stopped):
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_another_thread_count_is_mentioned(two_threads, script, capsys):
    capsys.readouterr()
    assert script("--resume") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "bitwise" in line)
    assert re.search("distilling cpu, 1 threads, (.*), now cpu, 2 threads, \\1", line)


def changed(path, **entries):
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, **entries}, path)


def test_a_resumed_run_computes_as_its_checkpoint_says_or_not_at_all(
    stopped, script, capsys, monkeypatch
):
    path = stopped / f"ckpt_{NAME}.pt"
    content = path.read_bytes()
    changed(path, arithmetic=[["cpu", "fp32", False], ["cpu", "bf16", False]])
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(runner.Run, "go", lambda *args: None)
        assert script("--resume") == 0
        assert "judges cpu, 1 threads, bf16" in capsys.readouterr().out
        changed(path, arithmetic=[["mps", "fp32", False], ["cpu", "bf16", False]])
        assert script("--resume") == 2
        assert_one_line(capsys, "computed on mps")
        changed(path, arithmetic=[["cpu", "fp32", True], ["cpu", "fp32", True]])
        patch.setattr(compute, "compile_error", lambda device: "no C++ compiler (g++) found")
        assert script("--resume") == 2
        assert_one_line(capsys, "--compile", "no C++ compiler")
    changed(path, arithmetic=[["cpu", "fp32", False]] * 2, experiment={"exp": 1, "it": 3})
    assert script("--resume") == 2
    assert_one_line(capsys, "another version")
    path.write_bytes(content)
    assert script("--resume") == 0


# What is there is not overwritten


def test_an_unfinished_run_is_not_overwritten_and_a_finished_one_is_not_repeated(
    stopped, script, capsys
):
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    capsys.readouterr()
    assert script() == 2
    assert_one_line(capsys, "unfinished run", "--resume", "--overwrite", "another folder")
    assert script("--resume", "--overwrite") == 2
    assert_one_line(capsys, "--overwrite", "--resume")
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before
    assert script("--resume") == 0
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    assert not any("ckpt" in path.name or "lock" in path.name for path in before)
    capsys.readouterr()
    assert script("--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert script("--resume", "--device=cpu") == 2
    assert_one_line(capsys, "--device auto there, cpu here")
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("n", "owner", "name", "begun"),
    [
        (1, words, "describe", False),
        (1, folders.Files, "claim", False),
        (1, record.RunLog, "write", False),
        (1, torch, "save", False),
        (1, os, "replace", True),
        (2, os, "replace", True),
        (1, folders.Files, "clear", True),
        (2, os, "fsync", False),
        (1, distiller.Distiller, "iterate", True),
    ],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_overwrite_replaces_once_it_has_begun(
    n, owner, name, begun, script, at_event, assert_same, tmp_path
):
    folder = tmp_path / "run/result"
    assert script("--device=cpu") == 0
    (folder / f"vis_{NAME}_exp0_iter99.png").write_bytes(b"of the old run")
    before = contents(folder)
    at_event(n, kill, owner, name)
    with pytest.raises(Killed):
        script("--overwrite")
    if not begun:
        left = contents(folder)
        assert {name: left.get(name) for name in before} == before
        assert script("--device=cpu", "--resume") == 0  # the earlier run is there, and ended
        assert contents(folder) == before
        assert script("--overwrite") == 0
    else:
        assert script("--device=cpu", "--resume") == 2  # another run now
        assert script("--resume") == 0
    assert_same()


@pytest.mark.parametrize("error", [OSError(28, "No space"), errors.UserError("no"), MemoryError()])
@pytest.mark.parametrize("name", ["save_torch", "RunLog"])
def test_a_run_that_cannot_begin_overwrites_nothing(error, name, stopped, script, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    before = contents(stopped)
    with monkeypatch.context() as patch:
        patch.setattr(record, name, fail)
        assert script("--overwrite", "--checkpoint_minutes=0") == 2
    assert contents(stopped) == before
    assert script("--resume", "--checkpoint_minutes=0") == 0


def test_a_terminal_that_cannot_show_the_first_line_costs_no_run(script, monkeypatch, tmp_path):
    assert script() == 0
    before = contents(tmp_path / "run/result")

    def fail(*content):
        "\u2014".encode("ascii")

    with monkeypatch.context() as patch, pytest.raises(UnicodeEncodeError):
        patch.setattr(words, "describe", fail)
        script("--overwrite")
    assert contents(tmp_path / "run/result") == before


def test_overwrite_removes_what_belongs_to_the_earlier_run_alone(script, at_event, tmp_path):
    folder = tmp_path / "run/result"
    assert script("--exp_index=1") == 0  # a task of a job array is another run
    task = contents(folder)
    old = {f"res_{NAME}.pt", f"acc_{NAME}.png", f"vis_{NAME}_exp0_iter5.png"}
    old.add(f"vis_{NAME}_exp11_iter123.png")
    others = {
        f"res_{NAME}_tv0.pt",
        f"log_{NAME}_tv0.jsonl",
        f"acc_{NAME}_tv0.png",
        f"vis_{NAME}_tv0_exp0_iter5.png",
        f"vis_{NAME}_exp0_iter5_mine.png",
        f"vis_{NAME}_exp0_iter5.png.bak",
        f"acc_{NAME}.pdf",
        f"ckpt_{NAME}_tv0.pt",
        f"ckpt_{NAME}_damaged0.pt",
        "acc_runs.png",
        "notes.txt",
        f"vis_{NAME}_exp1_iter99.png",
    }
    for name in old | others:
        (folder / name).write_bytes(name.encode())
    at_event(1, kill)
    with pytest.raises(Killed):
        script("--overwrite")
    left = contents(folder)
    assert not old & left.keys()
    assert {name: left[name] for name in others} == {name: name.encode() for name in others}
    assert {name: left[name] for name in task} == task
    assert left.keys() - others - task.keys() == {f"ckpt_{NAME}.pt", f"log_{NAME}.jsonl"}
    assert script("--resume") == 0


def test_a_task_of_a_job_array_overwrites_its_own_experiment_alone(script, at_event, tmp_path):
    folder = tmp_path / "run/result"
    assert script("--exp_index=0") == 0
    others = contents(folder)
    assert script("--exp_index=1", "--num_exp=2") == 0
    (folder / f"res_{NAME}.pt").unlink()  # the joined files, with which the pictures would stay
    (folder / f"log_{NAME}.jsonl").unlink()
    at_event(1, kill)
    with pytest.raises(Killed):
        script("--exp_index=1", "--overwrite")
    left = contents(folder)
    assert {name: left[name] for name in others} == others
    assert left.keys() - others.keys() == {f"ckpt_{NAME}_exp1.pt", f"log_{NAME}_exp1.jsonl"}
    assert script("--exp_index=1", "--resume") == 0
    assert (folder / f"res_{NAME}.pt").exists()


def test_a_run_without_overwrite_leaves_pictures_whose_result_is_gone(script, tmp_path):
    folder = tmp_path / "run/result"
    folder.mkdir(parents=True)
    (folder / f"vis_{NAME}_exp0_iter99.png").write_bytes(b"kept")
    assert script() == 0
    assert (folder / f"vis_{NAME}_exp0_iter99.png").read_bytes() == b"kept"


def test_resuming_where_nothing_is_starts_from_the_beginning(script, assert_same, capsys):
    assert script("--resume") == 0
    assert "nothing to resume yet" in capsys.readouterr().out
    assert_same()


# Locks and job arrays


def held(path):
    """A lock that another process might hold."""
    stack = contextlib.ExitStack()
    files.lock(stack, path, "held")
    return stack


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits for a lock."""
    inner = folders.lock
    monkeypatch.setattr(
        folders, "lock", lambda stack, path, refusal, patience=0: inner(stack, path, refusal)
    )


def test_a_second_run_of_one_name_is_refused_and_a_dead_ones_lock_taken_over(
    script, impatient, tmp_path, capsys
):
    folder = tmp_path / "run/result"
    folder.mkdir(parents=True)
    with held(folder / f"lock_{NAME}"):
        assert script() == 2
        assert_one_line(capsys, "already going on", f"process {os.getpid()} on ")
        assert script("--exp_index=1") == 2  # the whole run has every experiment
    assert list(folder.iterdir()) == []
    (folder / f"lock_{NAME}").write_text("process 99999999 on elsewhere\n")
    assert script() == 0
    assert "process 99999999 on elsewhere ended without finishing" in capsys.readouterr().out
    assert not list(folder.glob("lock*"))


def test_tasks_of_a_job_array_share_the_name_and_each_has_its_experiment(script, tmp_path, capsys):
    folder = tmp_path / "run/result"
    folder.mkdir(parents=True)
    with held(folder / f"lock_{NAME}_exp0"):
        assert script("--exp_index=0") == 2
        assert_one_line(capsys, f"lock_{NAME}_exp0", "already going on")
        assert script() == 2
        assert_one_line(capsys, "already going on")
        assert script("--exp_index=1") == 0
        assert [path.name for path in folder.glob("lock*")] == [f"lock_{NAME}_exp0"]
    assert not list(folder.glob("lock*"))


def test_a_task_that_looks_does_not_turn_away_one_that_starts(tmp_path):
    looking = held(tmp_path / "lock")  # as a task holds the lock of the whole run for a moment
    timer = threading.Timer(0.3, looking.close)
    timer.start()
    with contextlib.ExitStack() as stack:
        files.lock(stack, tmp_path / "lock", "held", patience=10)
        assert (tmp_path / "lock").exists()
    timer.join()
    assert not (tmp_path / "lock").exists()


def test_a_job_array_leaves_an_unfinished_whole_run_alone(script, at_event, tmp_path, capsys):
    folder = tmp_path / "run/result"
    at_event(3, ask("SIGTERM"))
    assert script("--device=cpu") == 75
    before = (folder / f"log_{NAME}.jsonl").read_bytes()
    assert script("--exp_index=0") == script("--exp_index=1") == 0
    assert "of an unfinished run" in capsys.readouterr().out
    assert (folder / f"log_{NAME}.jsonl").read_bytes() == before and not (
        folder / f"res_{NAME}.pt"
    ).exists()
    assert script("--device=cpu", "--resume") == 0
    (folder / f"res_{NAME}.pt").unlink()
    (folder / f"log_{NAME}_exp0.jsonl").write_text('{"event": "start"}\n')
    assert script("--exp_index=1", "--resume") == 0
    assert "not joined, one is damaged" in capsys.readouterr().out


def test_the_last_task_of_a_job_array_joins_experiments_with_half_chroma(colour, script, tmp_path):
    assert script("--chroma=half", folder="undisturbed") == 0
    assert script("--chroma=half", "--exp_index=1") == script("--chroma=half", "--exp_index=0") == 0
    name = run_name("BACON_mnist.py", *INTERRUPTED, "--chroma=half")
    folders = tmp_path / "run/result", tmp_path / "undisturbed/result"
    ours, theirs = (folder / f"res_{name}.pt" for folder in folders)
    for exp in (0, 1):
        (a, labels, meta), (b, *_) = (canvases.load_distilled(path, exp) for path in (ours, theirs))
        assert torch.equal(a, b) and meta["chroma"] == "half"
        assert (
            a.shape == (80, 3, 8, 8)
            and labels.tolist() == [c for c in range(10) for _ in (0, 1)] * 4
        )


def test_the_last_task_of_a_job_array_joins_the_experiments_to_the_whole_run(
    script, at_event, tmp_path, capsys
):
    assert script(folder="undisturbed") == 0
    assert script("--exp_index=1") == 0
    assert "follows when experiments 0 have ended" in capsys.readouterr().out
    at_event(5, ask("SIGTERM"))
    assert script("--exp_index=0") == 75
    assert script("--exp_index=1", "--resume") == 0
    folder, whole = tmp_path / "run/result", tmp_path / "undisturbed/result"
    assert not (folder / f"res_{NAME}.pt").exists()
    assert script("--exp_index=0", "--resume") == 0
    assert "all 2 experiments have ended" in capsys.readouterr().out
    ours, theirs = (torch.load(f / f"res_{NAME}.pt", weights_only=True) for f in (folder, whole))
    assert [
        torch.equal(a[i], b[i])
        for a, b in zip(ours["data"], theirs["data"], strict=True)
        for i in (0, 1)
    ] == [True] * 4
    assert (ours["accs_all_exps"], ours["meta"]) == (theirs["accs_all_exps"], theirs["meta"])
    assert torture.events(folder / f"log_{NAME}.jsonl") == torture.events(
        whole / f"log_{NAME}.jsonl"
    )
    assert tables.of_runs(folder) == tables.of_runs(whole)  # parts and whole count once
    for path in (folder / f"res_{NAME}.pt", folder / f"log_{NAME}.jsonl"):
        path.unlink()
    assert tables.of_runs(folder) == tables.of_runs(whole)


def test_experiments_of_different_runs_are_not_joined_and_another_whole_run_is_kept(
    script, tmp_path, capsys
):
    folder = tmp_path / "run/result"
    assert script("--exp_index=0", "--device=cpu") == 0
    assert script("--exp_index=1") == 0
    assert "not joined, some are of another run" in capsys.readouterr().out
    assert not (folder / f"res_{NAME}.pt").exists()
    assert script("--no_compile") == 0
    before = (folder / f"res_{NAME}.pt").read_bytes()
    (folder / f"res_{NAME}_exp0.pt").unlink()
    (folder / f"log_{NAME}_exp0.jsonl").unlink()
    capsys.readouterr()
    assert script("--exp_index=0") == 0
    assert "not joined; --overwrite replaces it" in capsys.readouterr().out
    assert (folder / f"res_{NAME}.pt").read_bytes() == before


# Faults


@pytest.fixture
def small_disk():
    """Files cannot grow beyond 66 kB, which a pool outgrows but a log and a fresh checkpoint do
    not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (66_000, before[1]))
    yield before
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_the_last_checkpoint_goes_on(
    script, small_disk, assert_same, tmp_path, capsys
):
    assert script("--checkpoint_minutes=0") == 2
    assert_one_line(capsys, f"ckpt_{NAME}.pt", "File too large")
    assert not list((tmp_path / "run/result").glob("*.tmp"))
    saved = files.load_torch(tmp_path / f"run/result/ckpt_{NAME}.pt")
    resource.setrlimit(resource.RLIMIT_FSIZE, small_disk)
    assert saved["experiment"]["it"] >= 2
    assert script("--checkpoint_minutes=0", "--resume") == 0
    assert_same("--checkpoint_minutes=0")


def test_a_log_line_that_does_not_fit_on_the_disk_is_not_there_in_part(tmp_path, small_disk):
    log = record.RunLog(tmp_path / "log.jsonl")
    for number in range(4):
        with contextlib.suppress(OSError):
            log.write("x", number=number, text="y" * 20_000)
    with pytest.raises(OSError, match=r"log\.jsonl"):
        log.write("x", text="y" * 20_000)
    log.file.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1, 2]


def test_too_little_free_space_is_refused_before_the_run(script, monkeypatch, capsys, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage._replace(free=1_400_000))
    assert script("--net_num=100", "--Iteration=1000", "--model=ConvNet") == 2
    assert_one_line(capsys, "--save_path", "needs 716 MB", "1 MB are free")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_read_only_folder_is_refused_before_the_run(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(folders.os, "access", lambda path, mode: not mode & os.W_OK)
    assert script() == 2
    assert_one_line(capsys, "--save_path result", "cannot write in")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_turns_read_only_ends_the_run_in_one_line(
    script, at_event, monkeypatch, capsys, assert_same
):
    def refuse(*args, **kwargs):
        raise PermissionError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        at_event(3, lambda: patch.setattr(files.tempfile, "mkstemp", refuse))
        assert script("--checkpoint_minutes=0") == 2
    assert_one_line(capsys, f"ckpt_{NAME}.pt", "Read-only file system")
    assert script("--resume") == 0
    assert_same("--checkpoint_minutes=0")


@pytest.mark.parametrize(
    "flags", [["--checkpoint_minutes=0"], []], ids=["at a checkpoint", "at a picture"]
)
def test_a_folder_deleted_under_the_run_ends_it_in_one_line(
    flags, script, at_event, tmp_path, capsys
):
    at_event(2, lambda: shutil.rmtree(tmp_path / "run/result"))
    assert script(*flags) == 2
    assert_one_line(capsys, "result/")
    assert list((tmp_path / "run").iterdir()) == []
    assert script(*flags) == 0


def test_canvases_that_the_last_update_blows_up_are_not_saved(script, capsys, tmp_path):
    assert script("--Iteration=1", "--lr_img=1e30", "--lh_weight=1e12") == 3
    assert_one_line(capsys, "iteration 1", "canvases hold NaN or infinite values")
    assert not list((tmp_path / "run/result").glob("res_*"))


def test_a_diverged_run_keeps_its_checkpoint_and_diverges_again(script, capsys, tmp_path):
    assert script("--lr_img=1e30") == 3
    assert script("--lr_img=1e30", "--resume") == 3
    assert capsys.readouterr().err.count("\n") == 2
    assert [e["event"] for e in log_events(tmp_path / "run")][-1] == "diverged"


def test_a_lack_of_memory_ends_the_run_in_one_line(script, at_event, assert_same, capsys):
    at_event(3, lambda: torch.empty(2**50))
    assert script("--checkpoint_minutes=0") == 2
    assert_one_line(capsys, "out of memory", "--resume")
    assert script("--checkpoint_minutes=0", "--resume") == 0
    assert_same("--checkpoint_minutes=0")
    at_event(1, lambda: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):  # a mistake of ours is not hidden
        script("--overwrite")


def test_processes_do_not_change_the_device_of_a_run(script, at_event, capsys, monkeypatch):
    at_event(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert script() == 75
    capsys.readouterr()
    assert (
        script("--resume", "--device=cpu") == 2
    )  # processes connected for CPUs, a checkpoint that may be a GPU's
    assert_one_line(capsys, "--device auto there, cpu here")


@pytest.mark.slow
@pytest.mark.torture  # python -m pytest -m torture runs it
def test_real_processes_killed_at_random_moments_resume_to_the_same_files(capsys):
    assert torture.main(["--kills=4", "--terms=2"]) == 0
    print(capsys.readouterr().out)


def test_a_lost_contact_is_said_before_the_sigterm_of_torchrun_ends_the_process(capsys):
    def killed(*_):
        raise Killed

    def work():
        try:
            with record.StopSignals():
                raise errors.ParallelError("process 0 of 2 lost contact with the others")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
        signal.signal(signal.SIGTERM, killed)
        assert errors.run_program("a script", work) == 4
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (
        "lost contact with the others; the same command with --resume goes on"
        in capsys.readouterr().err
    )
