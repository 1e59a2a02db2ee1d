"""Facts about what a person sees of a run at work."""

import contextlib
import functools
import os
import struct
import sys
import threading

import pytest
from scripts import SMALL, run

from bacon import progress


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
        patch.setattr(progress, "tqdm", functools.partial(progress.tqdm, mininterval=0))  # the run is over too soon
        code = run("BACON_mnist.py", *SMALL, "--Iteration=11", "--save_path", tmp_path)
    reader.join(20)
    os.close(ours)
    shown = text.decode()
    assert code == 0
    assert "11/11" in shown and "exp 0" in shown and "loss" in shown and "% of the test" in shown
    assert "\r" in shown.replace("\r\n", "")  # the bar is drawn over itself


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0.2 s"), (12.4, "12 s"), (204, "3.4 min"), (3600, "1.0 h"), (2.016e6, "560 h")],
)
def test_a_time_is_told_in_the_unit_that_fits_it(seconds, text):
    assert progress.duration(seconds) == text


def test_long_work_shows_a_line_every_ten_seconds_where_there_is_no_terminal(monkeypatch):
    clock = iter(range(0, 1000, 4))  # a look at the clock takes four seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said = []
    assert list(progress.track(list("abcdefgh"), "pictures", said.append)) == list("abcdefgh")
    assert said == ["pictures: 2 of 8", "pictures: 4 of 8", "pictures: 7 of 8"]
