"""Facts about what a run at work leaves behind, and the signals that stop it."""

import contextlib
import json
import os
import signal

import pytest
from stops import NAME, Killed, ask, log_events

from bacon import errors
from bacon.run import experiment, record
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
    events = log_events(tmp_path / "run")
    assert [e["it"] for e in events if e["event"] == "resume"] == [3] and events[-1][
        "event"
    ] == "end"
    assert "interrupted" not in {e["event"] for e in events}


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
