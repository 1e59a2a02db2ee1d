"""Facts about the files of a run: none is lost, overwritten or taken for another's."""

import contextlib
import dataclasses
import io
import json
import os
import pickle
import re
import shutil

import pytest
import torch
import torture
from heard import hearing
from scripts import INTERRUPTED, SMALL, assert_one_line, events, run, run_name
from stops import NAME, Killed, ask, held, kill

from bacon import canvases, errors, flags, tables
from bacon.data import loading
from bacon.distill import distiller
from bacon.errors import DivergedError
from bacon.files import save_torch
from bacon.run import folder as folders
from bacon.run import record, words


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


def test_a_save_path_that_is_a_file_or_cannot_be_written_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("mine")
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "file") == 2
    assert "--save_path" in capsys.readouterr().err and (tmp_path / "file").read_text() == "mine"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders.tempfile, "TemporaryFile", refuse)
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


def test_a_flag_that_an_older_run_did_not_have_was_at_its_default():
    theirs = {"lr_img": 0.2, "seed": 0}
    assert folders.flags_apart(theirs, {"lr_img": 0.2, "spread_weight": 0.0, "cooldown": 0.0}) == []
    apart = folders.flags_apart(theirs, {"lr_img": 0.2, "spread_weight": 1.5, "cooldown": 0.0})
    assert apart == ["--spread_weight 0.0 there, 1.5 here"]


@pytest.mark.parametrize(
    ("name", "value", "overruling"),
    [("epoch_eval_train", 200, {"judge_steps": 402}), ("clip_weight", 0.0, {})],
)
def test_a_flag_that_another_overrules_tells_no_runs_apart(name, value, overruling, make_args):
    """A log of an earlier version holds what was typed."""
    ours = vars(make_args(**overruling))
    theirs = ours | {name: value}
    assert theirs != ours and folders.flags_apart(theirs, ours) == []
    for changed, there in ({"judge_steps": 0}, 402), ({"clip_prior": "residual"}, "released"):
        ((flag, here),) = changed.items()
        apart = folders.flags_apart(theirs | {flag: there}, ours | changed)
        assert f"--{flag} {there} there, {here} here" in apart


OTHER_LOGS = ["", "hello\n", "[1]\n", "{}\n", '{"args": 3}\n', b"\xff\n"]


@pytest.mark.parametrize("content", OTHER_LOGS, ids=repr)
def test_a_log_of_another_kind_gives_a_run_no_name(content, make_args, tmp_path):
    args = make_args(save_path=tmp_path)
    earlier = "BACON_Digits_ConvNetW32_2ipc"
    log = tmp_path / f"log_{earlier}.jsonl"
    log.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert folders.Files(args).name == flags.run_name(args) != earlier
    log.write_text(json.dumps({"args": vars(args)}))  # as an earlier version named this run
    assert folders.Files(args).name == earlier


def test_a_run_that_still_goes_on_under_its_earlier_name_is_not_overwritten(make_args, tmp_path):
    args = make_args(save_path=tmp_path)
    earlier = "BACON_Digits_ConvNetW32_2ipc"
    for name in (earlier, flags.run_name(args)):  # both names are in use
        (tmp_path / f"log_{name}.jsonl").write_text(json.dumps({"args": vars(args)}))
    going_on = pytest.raises(errors.UserError, match="already going on")
    with held(tmp_path / f"lock_{earlier}"), contextlib.ExitStack() as stack, going_on:
        folders.Files(args).claim(stack, {}, resume=False, overwrite=True)


def test_a_run_that_another_process_finished_meanwhile_is_not_replaced(make_args, tmp_path):
    files = folders.Files(make_args(save_path=tmp_path))
    files.admit(False, False, 0)
    files.result.touch()
    with contextlib.ExitStack() as stack, pytest.raises(errors.UserError) as error:
        files.claim(stack, {}, resume=False, overwrite=False)
    assert f"holds {files.result.name} of an earlier run" in str(error.value)
    assert files.result.exists()


@pytest.fixture
def files_of(make_args, tmp_path):
    """The `Files` of a small run in tmp_path; keyword arguments are flags."""

    def make(**given):
        args = make_args(save_path=tmp_path, **given)
        return folders.Files(args, args.exp_index)

    return make


@pytest.mark.parametrize("others", range(5))
def test_nothing_to_resume_names_up_to_three_unfinished_runs_beside_it(others, files_of, tmp_path):
    files = files_of()
    names = sorted(files_of(lr_img=1 + k).checkpoint.name for k in range(others))
    own_parts = [f"ckpt_{files.name}_exp0.pt"]
    copies = [
        name.replace(".pt", end) for name in names for end in ("_previous.pt", "_damaged0.pt")
    ]
    of_others = [files_of(ipc=3).checkpoint.name, files_of(model="ConvNet").checkpoint.name]
    for name in [*names, *own_parts, *copies, *of_others]:
        (tmp_path / name).touch()
    with contextlib.ExitStack() as stack, hearing() as said:
        assert files.claim(stack, {}, resume=True, overwrite=False) == folders.Left()
    (line,) = said
    told = re.search(r"\(unfinished here, with other flags: (.*?)( and (\d+) more)?\)$", line)
    if others:
        shown = told[1].split(", ")
        assert shown == names[:3] and int(told[3] or 0) == max(0, others - 3)
        assert bool(told[2]) == (others > 3)
    else:
        assert line == "nothing to resume yet: starting from the beginning"


@pytest.mark.parametrize(("free", "fits"), [(1000, False), (1300, True), (1299, False)])
def test_checkpoints_that_are_there_need_no_more_room(free, fits, files_of, monkeypatch):
    """The new ones take their place."""
    files = files_of()
    files.result.write_bytes(b"x" * 900)  # this one stays
    for path, size in zip(files.checkpoints, (700, 1000), strict=True):
        path.write_bytes(b"x" * size)
    usage = shutil.disk_usage(files.folder)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage._replace(free=free))
    with contextlib.nullcontext() if fits else pytest.raises(errors.UserError, match="needs 0 MB"):
        files.admit(True, False, 1000)


def test_a_log_without_an_event_is_no_run(files_of):
    files = files_of()
    files.log.touch()
    assert files.earlier() == []
    files.admit(False, False, 0)
    files.log.write_text("{}")
    assert files.earlier() == [files.log]
    with pytest.raises(errors.UserError, match="of an earlier run"):
        files.admit(False, False, 0)


def saved_result(files, experiments, pixel=0.0, accuracy=0.5, **more):
    """Write a result. pixel: of its canvases. more: entries of its meta."""
    about = {"args": vars(files.args), "data_sha256": "a", "factor": 2, "zca": None, **more}
    save_torch(
        {
            "data": [[torch.full((1, 1, 2, 2), pixel), torch.zeros(1)]] * len(experiments),
            "accs_all_exps": {"ConvNet": [accuracy] * len(experiments)},
            "meta": {**about, "experiments": experiments},
        },
        files.result,
    )


def ended_parts(whole, about, of_part):
    """Write the results and logs of a job array that has ended. of_part: of each experiment, what
    `saved_result` takes by keyword."""
    for exp, more in enumerate(of_part):
        part = whole.part(exp)
        saved_result(part, [exp], **more)
        logged = [{"event": "start", **about}, {"event": "end", "time": "", "seconds_total": 3}]
        part.log.write_text("".join(json.dumps(event) + "\n" for event in logged))


@pytest.mark.parametrize(("experiments", "finished"), [([0, 1], True), ([0], False), ([], False)])
def test_a_run_has_finished_when_its_result_has_every_experiment(experiments, finished, files_of):
    files = files_of(num_exp=2)
    saved_result(files, experiments)
    about = {"args": vars(files.args), "data_sha256": "a"}
    with contextlib.ExitStack() as stack:
        if finished:
            assert files.claim(stack, about, True, False) == folders.Left(finished=True)
        else:
            with pytest.raises(errors.UserError, match=r"^--resume: no valid checkpoint"):
                files.claim(stack, about, True, False)
    part = files_of(num_exp=2, exp_index=1)
    saved_result(part, [1])
    with contextlib.ExitStack() as stack:
        assert part.claim(stack, about | {"args": vars(part.args)}, True, False).finished


def test_every_damaged_checkpoint_gets_a_name_of_its_own(files_of):
    files = files_of()
    kept = []
    for content in (b"first", b"second", b"third"):
        files.checkpoint.write_bytes(content)
        with contextlib.ExitStack() as stack, pytest.raises(errors.UserError):
            files.claim(stack, {}, True, False)
        kept.append(content)
        damaged = sorted(files.folder.glob("*_damaged*"))
        assert [path.read_bytes() for path in damaged] == kept
        assert damaged[-1].stem == f"ckpt_{files.stem}_damaged{len(kept) - 1}"


def test_a_job_array_of_one_experiment_is_joined_too(files_of):
    whole = files_of(num_exp=1)
    about = {"args": vars(whole.args), "data_sha256": "a"}
    part = whole.part(0)
    saved_result(part, [0])
    logged = [{"event": "start", **about, "time": "begun"}, {"event": "end", "seconds_total": 3}]
    part.log.write_text("".join(json.dumps(event | {"time": ""}) + "\n" for event in logged))
    folders.merge(part, whole.args, about)
    meta = torch.load(whole.result, weights_only=True)["meta"]
    assert meta["experiments"] == [0] and meta["args"]["exp_index"] is None
    assert events(whole.log)[-1]["seconds_total"] == 3


def test_a_joined_log_has_the_seconds_and_the_spread_of_all_experiments(files_of):
    whole = files_of(num_exp=3)
    about = {"args": vars(whole.args), "data_sha256": "a"}
    for exp, total in enumerate(("seconds_total", "seconds", "seconds_total")):  # one is of old
        part = whole.part(exp)
        saved_result(part, [exp])
        evaluation = {"event": "evaluation", "exp": exp}
        end = {"event": "end", "time": str(exp), total: 10.0**exp}
        logged = [{"event": "start", **about, "time": "begun"}, evaluation, end]
        part.log.write_text("".join(json.dumps(event) + "\n" for event in logged))
    checkpoint = whole.part(2).checkpoint
    checkpoint.touch()  # it ended, and has yet to be told so
    with hearing() as said:
        folders.merge(whole.part(1), whole.args, about)
    assert f"{whole.result.name} follows when experiments 2 have ended too" in said[0]
    assert not whole.result.exists() and not whole.log.exists()
    checkpoint.unlink()
    with hearing() as said:
        folders.merge(whole.part(1), whole.args, about)
    assert said == [f"all 3 experiments have ended: {whole.result}, {whole.log}"]
    start, *between, end = events(whole.log)
    assert start["time"] == "begun" and [event["exp"] for event in between] == [0, 1, 2]
    assert (end["event"], end["time"], end["seconds_total"]) == ("end", "2", 111)
    assert end["summary_percent"]["ConvNet"] == tables.summary([[0.5]] * 3)
    joined = torch.load(whole.result, weights_only=True)
    assert joined["accs_all_exps"] == {"ConvNet": [0.5] * 3} and len(joined["data"]) == 3
    assert joined["meta"]["experiments"] == [0, 1, 2]
    assert not list(whole.folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "differing", [{"pixel": 1.0}, {"accuracy": 0.25}, None], ids=["sets", "accuracies", "nothing"]
)
def test_a_whole_run_that_has_other_sets_than_the_job_array_is_not_replaced(differing, files_of):
    whole = files_of(num_exp=2)
    about = {"args": vars(whole.args), "data_sha256": "a"}
    ended_parts(whole, about, [{}, {}])
    saved_result(whole, [0, 1], **(differing or {}))
    whole.log.write_text("the log of the whole run")
    before = contents(whole.folder)
    with hearing() as said:
        folders.merge(whole.part(1), whole.args, about)
    (line,) = said
    if differing is None:  # the parts were joined before
        assert line == f"all 2 experiments have ended: {whole.result}, {whole.log}"
        assert events(whole.log)[-1]["seconds_total"] == 6
        return
    assert line.startswith(f"{whole.result}: ")
    assert f"{whole.stem}_exp* are not joined; --overwrite replaces it" in line
    assert contents(whole.folder) == before
    whole.args.overwrite = True
    folders.merge(whole.part(1), whole.args, about)
    joined = torch.load(whole.result, weights_only=True)
    assert joined["accs_all_exps"] == {"ConvNet": [0.5, 0.5]} and not joined["data"][0][0].any()


def test_parts_that_were_computed_differently_are_joined_and_it_is_said_how(files_of):
    whole = files_of(num_exp=3)
    about = {"args": vars(whole.args), "data_sha256": "a"}

    def how(threads, version):
        on = {"device": "cpu", "threads": threads}
        return {"computed": {"distilling": on, "judging": on}, "versions": {"torch": version}}

    ended_parts(whole, about, [how(1, "2.4"), how(2, "2.4"), how(1, "2.5")])
    with hearing() as said:
        folders.merge(whole.part(1), whole.args, about)
    apart = "distilling threads 1, 2; judging threads 1, 2; torch 2.4, 2.5"
    joined = f"all 3 experiments have ended: {whole.result}, {whole.log}"
    unlike = f"{whole.stem}_exp*: joined, though computed differently ({apart})"
    assert said == [unlike, joined]


def test_a_job_array_leaves_a_whole_run_alone_that_ended_with_other_sets(script, tmp_path, capsys):
    folder = tmp_path / "run/result"
    assert script() == 0
    path = folder / f"res_{NAME}.pt"
    saved = torch.load(path, weights_only=True)
    saved["data"][1][0][0] += 1  # as with another number of threads, but for its size
    torch.save(saved, path)
    before = {name: content for name, content in contents(folder).items() if "vis" not in name}
    assert script("--exp_index=0") == script("--exp_index=1") == 0
    assert f"res_{NAME}.pt: " in capsys.readouterr().out
    left = contents(folder)
    assert {name: left[name] for name in before} == before
    assert script("--exp_index=1", "--resume") == 0
    assert "--overwrite replaces it" in capsys.readouterr().out
    assert (folder / path.name).read_bytes() == before[path.name]
