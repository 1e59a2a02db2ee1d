"""A small run that is stopped in the tests' own process, and the names of its files."""

import contextlib
import os
import signal

from scripts import INTERRUPTED, events, run_name

from bacon import files

NAME = run_name("BACON_mnist.py", *INTERRUPTED)


class Killed(BaseException):
    """What stops a run in these tests as a SIGKILL would: nothing in the scripts catches it."""


def kill():
    """End the run at once."""
    raise Killed


def ask(name):
    """A function that sends this process the signal of that name."""
    return lambda: os.kill(os.getpid(), getattr(signal, name))


def log_events(folder):
    """The lines of the log of the run in folder/result."""
    (log,) = folder.glob("result/log_*.jsonl")
    return events(log)


def held(path):
    """A lock that another process might hold."""
    stack = contextlib.ExitStack()
    files.lock(stack, path, "held")
    return stack
