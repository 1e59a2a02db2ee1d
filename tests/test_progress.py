"""Facts about what a person sees of a run at work."""

import contextlib
import functools
import os
import select
import struct
import sys
import threading
from unittest import mock

import pytest
from heard import hearing
from scripts import SMALL, run

from bacon import compute, parallel, progress
from bacon.data import loading
from bacon.run import experiment


def test_a_terminal_sees_a_progress_bar(tmp_path, quick, monkeypatch):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    text = bytearray()

    def read():
        with contextlib.suppress(OSError):  # Linux reports the end of a pseudo terminal as an error
            while chunk := os.read(ours, 4096):
                text.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(
            progress, "tqdm", functools.partial(progress.tqdm, mininterval=0)
        )  # the run is over too soon
        code = run("BACON_mnist.py", *SMALL, "--Iteration=11", "--save_path", tmp_path)
    reader.join(20)
    os.close(ours)
    shown = text.decode()
    assert code == 0
    assert "11/11" in shown and "exp 0" in shown and "loss" in shown and "% of the test" in shown
    assert "\r" in shown.replace("\r\n", "")  # the bar is drawn over itself


class Terminal:
    """A pseudo terminal of so many columns, as standard output and error."""

    def __init__(self, columns, monkeypatch):
        fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
        self.ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.stream = open(theirs, "w", encoding="utf-8")  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", self.stream)
        monkeypatch.setattr(sys, "stderr", self.stream)

    def shown(self):
        self.stream.flush()
        written = os.read(self.ours, 2**16)
        while select.select([self.ours], [], [], 0.1)[0]:  # it may come in pieces
            written += os.read(self.ours, 2**16)
        return written.decode()

    def close(self):
        self.stream.close()
        os.close(self.ours)


@pytest.mark.parametrize("columns", [0, 60])
def test_a_terminal_without_columns_gets_lines(columns, monkeypatch):
    with monkeypatch.context() as patch:
        terminal = Terminal(columns, patch)
        with progress.Progress(5, "exp 0") as bar:
            bar.count()
            bar.report("a line of figures", "short")
        shown = terminal.shown()
        with hearing() as said:
            assert list(progress.track([1, 2], "pictures", every=0)) == [1, 2]
    terminal.close()
    assert ("a line of figures" in shown) == (columns == 0) == bool(said)
    assert ("1/5" in shown) == (columns == 60)


def test_the_bar_counts_each_iteration_without_reading_the_losses(quick, make_args, monkeypatch):
    counted = []

    class Bar(progress.Progress):
        def __init__(self, total, title, done=0):
            super().__init__(total, title, done)
            counted.append((total, title, done))

        def count(self):
            counted.append(distilled.unread)

        def report(self, text, short):
            counted.append("report")

    monkeypatch.setattr(experiment, "Progress", Bar)
    args = make_args(Iteration=12, eval_interval=100)
    dataset = loading.load("Digits", os.devnull)
    arithmetic = compute.Arithmetic("cpu")
    setting = experiment.Setting(
        args,
        dataset.real("train"),
        dataset.real("test"),
        arithmetic,
        arithmetic,
        parallel.World(),
    )
    distilled = experiment.Experiment.begin(setting, 0)
    monkeypatch.setattr(distilled, "evaluate", lambda *args: None)
    monkeypatch.setattr(distilled, "save_picture", lambda *args: None)
    distilled.run(mock.Mock())
    assert counted == [(12, "exp 0", 0), *range(1, 11), "report", 1, 2, "report"]
    counted.clear()
    distilled.it = 11  # as a checkpoint says where to go on
    distilled.run(mock.Mock())
    assert counted == [(12, "exp 0", 11), 1, "report"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (0.2, "0.2 s"), (9.94, "9.9 s"), (9.96, "10 s"), (12.4, "12 s"),
        (60, "1.0 min"), (204, "3.4 min"), (3599, "60 min"), (3600, "1.0 h"), (2.016e6, "560 h"),
    ],
)  # fmt: skip
def test_a_time_is_told_in_the_unit_that_fits_it(seconds, text):
    assert progress.duration(seconds) == text


def test_long_work_shows_a_line_every_ten_seconds_where_there_is_no_terminal(monkeypatch):
    clock = iter(range(0, 1000, 4))  # a look at the clock takes four seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with hearing() as said:
        assert list(progress.track(list("abcdefgh"), "pictures")) == list("abcdefgh")
    assert said == ["pictures: 2 of 8", "pictures: 4 of 8", "pictures: 7 of 8"]


def test_a_bar_goes_on_where_a_run_does_and_shows_what_is_new_beside_it(monkeypatch):
    with monkeypatch.context() as patch:
        terminal = Terminal(80, patch)
        patch.setattr(progress, "tqdm", functools.partial(progress.tqdm, mininterval=0))
        shown = {}
        with progress.Progress(5, "exp 0", done=2) as bar:
            shown["begun"] = terminal.shown()
            bar.count()
            shown["counted"] = terminal.shown()
            bar.report("a line of figures", "short")
            shown["reported"] = terminal.shown()
            bar.now("judging")
            shown["now"] = terminal.shown()
            bar.say("a line of its own")
            shown["said"] = terminal.shown()
        with hearing() as said:
            assert list(progress.track([1, 2, 3], "pictures", every=0)) == [1, 2, 3]
        shown["tracked"] = terminal.shown()
    terminal.close()
    assert "exp 0" in shown["begun"] and "2/5" in shown["begun"] and "3/5" in shown["counted"]
    assert "short" in shown["reported"] and "judging" in shown["now"]
    assert "a line of figures" not in "".join(shown.values())
    assert "a line of its own\r\n" in shown["said"] and "3/5" in shown["said"]
    assert "pictures" in shown["tracked"] and "3/3" in shown["tracked"] and not said


def test_without_a_terminal_every_figure_has_a_line_with_its_time(capsys, monkeypatch):
    monkeypatch.setattr(progress.time, "strftime", lambda form: form.replace("%H", "11"))
    with progress.Progress(5, "exp 0") as lines:
        lines.count()
        lines.now("judging")
        lines.report("a line of figures", "short")
        lines.say("a line of its own")
    written = capsys.readouterr()
    assert written.out == "[11:%M:%S] a line of figures\n[11:%M:%S] a line of its own\n"
    assert written.err == ""
