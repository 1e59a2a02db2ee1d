"""Facts about experts on disk: who shares them, what becomes of them when a run is stopped."""

import contextlib
import re
import threading

import pytest
import torch
from scripts import assert_one_line
from stops import Killed, ask, held, kill, log_events

from bacon import compute, files
from bacon.distill import experts, pool
from bacon.run import expert_files

EXPERTS = ["--experts=2", "--expert_steps=20"]


def expert_names(folder):
    return sorted(path.name for path in folder.glob("expert_*.pt"))


def test_the_log_has_the_experts_once(script, tmp_path, capsys):
    assert script(*EXPERTS) == 0
    told = re.findall(
        r"^expert (\d) of 2: 20 steps, (\d+) % of its last training images, (.+) s$",
        capsys.readouterr().out,
        re.M,
    )
    found = [event for event in log_events(tmp_path / "run") if event["event"] == "experts"]
    (one,) = found
    accuracies = one["accuracy_percent"]
    assert len(accuracies) == 2 * experts.MOMENTS and accuracies[0] == accuracies[10] == 0
    assert max(accuracies) <= 100 and one["seconds"] > 0
    assert [(number, percent) for number, percent, _ in told] == [
        ("1", f"{accuracies[9]:.0f}"),
        ("2", f"{accuracies[19]:.0f}"),
    ]
    assert sum(float(seconds) for *_, seconds in told) <= one["seconds"] + 0.1
    assert all(event["pool"] == 0 for event in log_events(tmp_path / "run") if "pool" in event)


def test_images_that_are_not_distilled_need_no_experts(script, tmp_path):
    assert script(*EXPERTS, "--Iteration=0") == 0
    assert expert_names(tmp_path / "run/result") == []


@pytest.mark.parametrize("call", [1, 5, 13, 20])
def test_a_run_stopped_while_experts_are_trained_goes_on_with_them(
    call, script, at_event, assert_same, monkeypatch
):
    trained, inner = [], pool.Trainer.train

    def train(self, member, steps, *others):
        trained.append(steps)
        inner(self, member, steps, *others)

    monkeypatch.setattr(pool.Trainer, "train", train)
    at_event(call, ask("SIGTERM"), pool.Trainer, "train")
    assert script(*EXPERTS) == 75
    assert len(trained) == call
    assert script(*EXPERTS, "--resume") == 0
    assert len(trained) == 2 * experts.MOMENTS  # no moment twice
    assert_same(*EXPERTS)


@pytest.mark.parametrize(("batch", "moments"), [(1, 2), (2, 2), (37, 6), (149, 17), (199, 19)])
def test_a_signal_stops_the_training_of_an_expert_after_its_batch(
    batch, moments, script, at_event, assert_same, training_steps, tmp_path
):
    """Of 100 batches experts are kept after 0, 1, 5, 11, 20, 31, 44, 60, 79 and 100."""
    long = ["--experts=2", "--expert_steps=100"]
    at_event(batch, ask("SIGTERM"), compute.Arithmetic, "training_step")
    assert script(*long) == 75
    assert len(training_steps) == batch
    kept = 0
    for path in (tmp_path / "run/result").glob("expert_*.pt"):
        kept += len(torch.load(path, weights_only=True)["state"]["kept"])
    assert kept == moments
    last = log_events(tmp_path / "run")[-1]
    assert (last["event"], last["signal"], last["ended"]) == ("interrupted", "SIGTERM", 0)
    assert script(*long, "--resume") == 0
    assert_same(*long)


def test_a_run_killed_while_an_expert_is_written_goes_on_from_the_moment_before(
    script, at_event, assert_same
):
    at_event(7, kill, expert_files, "save_torch")
    with pytest.raises(Killed):
        script(*EXPERTS)
    assert script(*EXPERTS, "--resume") == 0
    assert_same(*EXPERTS)


def test_runs_of_one_folder_of_experts_train_them_once(script, tmp_path, monkeypatch, capsys):
    shared = [*EXPERTS, f"--expert_path={tmp_path / 'shared'}"]
    assert script(*shared, folder="first") == 0
    names = expert_names(tmp_path / "shared")
    assert len(names) == 2 and expert_names(tmp_path / "first/result") == []
    monkeypatch.setattr(pool.Trainer, "train", lambda *args: pytest.fail("trained"))
    assert script(*shared, "--exp_index=0", folder="second") == 0
    assert script(*shared, "--exp_index=1", "--lr_img=0.3", folder="second") == 0
    assert expert_names(tmp_path / "shared") == names
    assert f"expert 2 of 2: from {tmp_path / 'shared' / names[1]}" in capsys.readouterr().out
    results = [next((tmp_path / run / "result").glob(name)) for run, name in (
        ("first", "res_*.pt"), ("second", "res_*_exp0.pt"),
    )]  # fmt: skip
    whole, task = (torch.load(path, weights_only=True)["data"] for path in results)
    assert torch.equal(whole[0][0], task[0][0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({**torch.load(path, weights_only=True), "about": {}}, path),
    ],
    ids=["cut", "empty", "other", "other settings"],
)
def test_an_expert_that_cannot_be_used_is_trained_again(damage, script, tmp_path, capsys):
    shared = [*EXPERTS, f"--expert_path={tmp_path / 'shared'}"]
    assert script(*shared, folder="first") == 0
    path = sorted((tmp_path / "shared").glob("expert_*.pt"))[1]
    before = path.read_bytes()
    damage(path)
    capsys.readouterr()
    assert script(*shared, folder="second") == 0
    said = capsys.readouterr().out
    assert str(path) in said and "trained again" in said
    assert "expert 1 of 2: from" in said and "expert 2 of 2: 20 steps" in said
    assert path.read_bytes() == before


def test_a_folder_of_experts_that_cannot_be_one_is_refused_before_anything_is_written(
    script, tmp_path, capsys
):
    file = tmp_path / "README.md"
    file.write_text("mine")
    for path in (file, file / "below"):
        assert script(*EXPERTS, f"--expert_path={path}") == 2
        assert_one_line(capsys, f"--expert_path {path}: {file} is a file; name a folder")
    assert not (tmp_path / "run/result").exists()
    assert script(*EXPERTS, f"--expert_path={file}", "--Iteration=0") == 0  # it has no experts


def test_other_settings_have_experts_of_their_own(make_args):
    def stem(meta=None, **given):
        args = make_args(experts=2, **given)
        about = {
            "versions": {"torch": "2", "git": "a"}, "data_sha256": "d", "train_images": 5,
            "computed": {"distilling": {"device": "cpu"}}, "arithmetic": {"processes": 1},
            **(meta or {}),
        }  # fmt: skip
        setting = type("Setting", (), {"args": args, "world": None, "train": None})
        setting.distilling = None
        return expert_files.ExpertFiles(setting, about).stem

    assert stem() == stem(lr_img=3.0, ipc=5, spread_weight=1.0, save_path="x", expert_ce=1.0)
    assert stem() == stem({"versions": {"torch": "2", "git": "b"}})
    others = [
        {"model": "ConvNet"}, {"seed": 1}, {"validate": 2}, {"zca": True}, {"lr_net": 0.1},
        {"dsa_strategy": "flip"}, {"net_decay": False}, {"trained_bs": 17}, {"expert_steps": 7},
        {"dataset": "MNIST"},
        {"meta": {"data_sha256": "e"}}, {"meta": {"train_images": 4}},
        {"meta": {"computed": {"distilling": {"device": "cuda"}}}},
        {"meta": {"arithmetic": {"processes": 2}}}, {"meta": {"versions": {"torch": "3"}}},
    ]  # fmt: skip
    assert len({stem(), *(stem(**other) for other in others)}) == 1 + len(others)


def test_a_run_waits_for_experts_that_another_trains_and_may_be_stopped_then(
    script, tmp_path, capsys
):
    assert script(*EXPERTS, folder="first") == 0
    name = expert_names(tmp_path / "first/result")[0].removesuffix("_0.pt")
    folder = tmp_path / "run/result"
    folder.mkdir(parents=True)
    with held(folder / f"lock_{name}"):
        timer = threading.Timer(0.5, ask("SIGTERM"))
        timer.start()
        assert script(*EXPERTS) == 75
        timer.join()
    assert "waiting for process" in capsys.readouterr().out
    assert script(*EXPERTS, "--resume") == 0


def test_a_lock_calls_what_is_to_be_done_while_waiting(tmp_path):
    calls = []

    def look():
        calls.append(1)
        if len(calls) == 3:
            raise KeyError

    with held(tmp_path / "lock"), pytest.raises(KeyError):
        files.lock(contextlib.ExitStack(), tmp_path / "lock", "", 60, look)
    assert len(calls) == 3
