"""Facts about runs that are interrupted, resumed or hit by faults: they end as if undisturbed."""

import os
import resource
import shutil
import signal

import pytest
import torch
import torture
from scripts import assert_one_line
from stops import NAME, Killed, ask, kill, log_events

from bacon import compute, files
from bacon.data import loading
from bacon.distill import clusters, distiller
from bacon.run import experiment, record
from bacon.run import folder as folders
from bacon.run import run as runner

# A resumed run is the same run


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--method=DM", "--model=ConvNetBN", "--judge_steps=3"],
        ["--zca", "--no_net_decay", "--optim=adam", "--lr_img=0.05"],
        ["--init=cluster", "--validate=2", "--eval_mode=C", "--outer_loop=2", "--train_net_num=2"],
        ["--experts=2", "--expert_steps=20", "--expert_ce=1", "--train_net_num=2"],
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


@pytest.mark.parametrize("batch", [1, 2])
def test_a_signal_stops_the_training_for_clusters_after_its_batch(
    batch, script, at_event, assert_same, training_steps, monkeypatch, tmp_path
):
    at_event(batch, ask("SIGTERM"), compute.Arithmetic, "training_step")
    chosen = []
    choose = clusters.representatives
    monkeypatch.setattr(
        clusters, "representatives", lambda *args: chosen.append(1) or choose(*args)
    )
    assert script("--init=cluster") == 75
    assert (len(training_steps), len(chosen)) == (batch, 0)
    assert log_events(tmp_path / "run")[-1]["ended"] == 0
    ended = []
    inner_run = experiment.Experiment.run

    def run_and_ask(self, record):
        found = inner_run(self, record)
        if not ended:
            at_event(1, ask("SIGTERM"), compute.Arithmetic, "training_step")
        ended.append(self.exp)
        return found

    monkeypatch.setattr(experiment.Experiment, "run", run_and_ask)
    assert script("--init=cluster", "--resume") == 75  # within that of the second experiment
    assert (len(chosen), ended) == (1, [0])
    assert log_events(tmp_path / "run")[-1]["ended"] == 1
    assert script("--init=cluster", "--resume") == 0
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
    [(n, distiller.Distiller, "iterate") for n in (1, 6, 7)]
    + [(n, experiment, "judge") for n in (1, 4, 6)]
    + [(n, torch, "save") for n in (1, 20)]
    + [(n, os, "replace") for n in (1, 2, 20)]
    + [(n, experiment.Experiment, "save_picture") for n in (1,)]
    + [(n, runner.Run, "save_result") for n in (1, 2)]
    + [(n, record.RunLog, "write") for n in (1, 2)]
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


def test_a_signal_in_an_evaluation_ends_it_after_the_epoch(script, at_event, training_steps):
    at_event(6, ask("SIGTERM"), compute.Arithmetic, "training_step")
    assert script("--Iteration=0", "--epoch_eval_train=100000", "--batch_train=10") == 75
    assert len(training_steps) == 8  # 40 decoded images are 4 batches of 10


def test_ctrl_c_before_the_run_begins_is_one_line_and_writes_nothing(
    script, monkeypatch, capsys, tmp_path
):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", interrupt)
    assert script() == 130
    assert_one_line(capsys, "interrupted")
    assert list((tmp_path / "run").iterdir()) == []


# Another run, another machine


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


def test_resuming_where_nothing_is_starts_from_the_beginning(script, assert_same, capsys):
    assert script("--resume") == 0
    assert "nothing to resume yet" in capsys.readouterr().out
    assert_same()


# Faults


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
