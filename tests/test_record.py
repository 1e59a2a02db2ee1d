"""Facts about what a run at work leaves behind, and the signals that stop it."""

import contextlib
import json
import os
import signal
import types

import pytest
import torch
from scripts import events
from stops import NAME, Killed, ask, log_events

from bacon import errors, parallel
from bacon.run import experiment, folder, record
from bacon.run import run as runner


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
    logged = log_events(tmp_path / "run")
    assert [e["it"] for e in logged if e["event"] == "resume"] == [3] and logged[-1][
        "event"
    ] == "end"
    assert "interrupted" not in {e["event"] for e in logged}


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


@pytest.mark.parametrize(("processes", "stops"), [(1, True), (2, False)])
def test_several_processes_stop_where_they_meet_alone(processes, stops):
    signals = record.StopSignals()
    signals.asked = "SIGTERM"
    one = record.Record(None, 10, signals, dict, parallel.World(0, processes))
    assert (one.between_points is not None) == stops
    if stops:
        with pytest.raises(errors.Stopped, match="SIGTERM"):
            one.between_points()


def test_a_second_sigint_stops_at_once(script, at_event, capfd):
    found, before = [], signal.getsignal(signal.SIGINT)

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        found.append(signal.getsignal(signal.SIGINT))

    at_event(1, interrupt, experiment, "judge")
    assert script("--Iteration=0") == 75
    assert found == [signal.SIG_DFL]  # what the next one would meet: the system ends the process
    assert (
        "SIGINT: stopping after this iteration, evaluation epoch or training batch; "
        "once more stops at once" in capfd.readouterr().err
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


class OneOfTwo:
    """A World of two processes, seen from one of them, whose other one wishes something too."""

    def __init__(self, leads, other=record.Wish.NOTHING):
        self.leads = leads
        self.other = other

    def gather_objects(self, wish):
        return [wish, self.other]


@pytest.fixture
def on_its_way(tmp_path, make_args, monkeypatch):
    """Make a Record with ten minutes between checkpoints, and a clock that the test sets."""
    clock = types.SimpleNamespace(now=5000.0)
    monkeypatch.setattr(record.time, "monotonic", lambda: clock.now)

    def make(world, signals=None):
        files = folder.Files(make_args(save_path=tmp_path))
        signals = signals or record.StopSignals()
        gathered = []

        def state():
            gathered.append(clock.now)
            clock.now += 100  # to gather and to write takes its time
            return {"meta": {}}

        return record.Record(files, 10, signals, state, world), gathered, clock

    return make


@pytest.mark.parametrize("leads", [True, False])
def test_a_checkpoint_is_due_so_many_minutes_after_the_last_was_written(leads, on_its_way):
    """By the clock of the process that leads."""
    kept, gathered, clock = on_its_way(OneOfTwo(leads))
    with contextlib.closing(kept):
        kept.begin(False)
        for now in (5699, 5700, 6399, 6400):
            clock.now = now
            kept.point()
    assert gathered == ([5000, 5700, 6400] if leads else [5000])
    assert kept.files.checkpoint.exists() == kept.files.log.exists() == leads


@pytest.mark.parametrize(
    ("asked", "other", "outcome"),
    [
        (None, record.Wish.NOTHING, "goes on"),
        (None, record.Wish.CHECKPOINT, "saves"),
        (None, record.Wish.STOP, "stops by a signal to another process"),
        ("SIGTERM", record.Wish.NOTHING, "stops by SIGTERM"),
        ("SIGTERM", record.Wish.CHECKPOINT, "stops by SIGTERM"),
    ],
)
def test_all_processes_do_the_greatest_wish_of_any(asked, other, outcome, on_its_way):
    signals = record.StopSignals()
    signals.asked = asked
    kept, gathered, _ = on_its_way(OneOfTwo(False, other), signals)
    found = "goes on"
    try:
        kept.point()
    except errors.Stopped as stop:
        found = f"stops by {stop}"
    if gathered:
        found = "saves"
    assert found == outcome


def test_a_place_between_two_points_only_stops(on_its_way):
    signals = record.StopSignals()
    kept, gathered, clock = on_its_way(OneOfTwo(True, record.Wish.STOP), signals)
    clock.now += 1e6
    kept.stop_if_asked()
    signals.asked = "SIGUSR1"
    with pytest.raises(errors.Stopped, match=r"^SIGUSR1$"):
        kept.stop_if_asked()
    assert not gathered


def test_a_log_that_was_deleted_stops_a_run_at_its_next_checkpoint(on_its_way):
    kept, *_ = on_its_way(OneOfTwo(True))
    with contextlib.closing(kept):
        kept.begin(False)
        kept.save()
        kept.files.log.unlink()
        with pytest.raises(errors.UserError, match=r"log_.* was deleted while the run went on"):
            kept.save()
    assert not kept.files.log.exists()


def test_a_checkpoint_knows_how_long_the_log_is_and_the_one_before_is_kept(on_its_way):
    kept, *_ = on_its_way(OneOfTwo(True))
    lengths = []
    with contextlib.closing(kept):
        kept.begin(False, recipe="paper")
        for name in ("one", "two"):
            kept.event(name)
            kept.save()
            lengths.append(kept.files.log.stat().st_size)
    saved = [torch.load(path)["log_bytes"] for path in kept.files.checkpoints]
    assert saved == [lengths[1], lengths[0]]
    with contextlib.closing(kept):
        kept.go_on(lengths[0])  # what came after is done again
        kept.event("again")
    written = events(kept.files.log)
    assert [event["event"] for event in written] == ["start", "one", "again"]
    assert written[0]["recipe"] == "paper"


def test_the_first_signal_is_the_one_that_stopped_a_run(capfd):
    before = signal.getsignal(signal.SIGUSR1)
    with record.StopSignals() as signals:
        for name in ("SIGUSR1", "SIGTERM"):
            os.kill(os.getpid(), getattr(signal, name))
    assert signals.asked == "SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) == before
    said = [line.partition(":")[0] for line in capfd.readouterr().err.splitlines()]
    assert said == ["SIGUSR1", "SIGTERM"]
