"""What a person is told in one line, and with which exit code.

Everything else is a bug and keeps its traceback.
"""

import contextlib
import dataclasses
import os
import sys

from bacon import streams


class UserError(Exception):
    """A mistake in a flag, a file or a folder."""


class DamagedError(UserError):
    """A file that can be read but does not hold what it should."""


class DivergedError(Exception):
    """A loss term became NaN or infinite; files already written stay."""


class ParallelError(Exception):
    """Another process of the run is gone, or no longer agrees."""


class Stopped(Exception):
    """A signal asked the run to stop: it writes a checkpoint first."""


LESS_MEMORY = (
    "smaller batches or --ipc need less, and several processes share it. A run's last checkpoint "
    "stays: --resume goes on with the same flags elsewhere"
)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a program ends: its exit code, and what is said before and after the error's own text."""

    code: int
    before: str = ""
    after: str = ""


# exception: Ending. The first that fits counts.
ENDINGS = {
    UserError: Ending(2, "error: "),
    OSError: Ending(2, "error: "),  # a full disk, a folder that vanished
    # see `is_lack_of_memory`
    MemoryError: Ending(2, "error: out of memory (", f"); {LESS_MEMORY}"),
    DivergedError: Ending(3, "diverged: "),
    ParallelError: Ending(
        4, after="; the same command with --resume goes on from the last checkpoint"
    ),
    Stopped: Ending(75),  # EX_TEMPFAIL: start again with --resume
    KeyboardInterrupt: Ending(130, "interrupted"),
}
# The same on every process of a parallel run: the first one says it.
OF_ALL_PROCESSES = (DivergedError, Stopped)


def run_program(program, work, outlives_output=False):
    """Do the work of a program; returns its exit code.

    That is what work() returns, or the code of an error of ENDINGS, which is told on standard error
    in one line. program: its name. outlives_output: see streams.usable.
    """
    with streams.usable(outlives_output):
        try:
            return work()
        except (*ENDINGS, RuntimeError) as error:
            kind = MemoryError if is_lack_of_memory(error) else type(error)
            if not issubclass(kind, tuple(ENDINGS)):
                raise
            ending = next(ending for base, ending in ENDINGS.items() if issubclass(kind, base))
            if not isinstance(error, OF_ALL_PROCESSES) or leads():
                text = one_line(_text_of(error, kind))
                print(f"{program}: {ending.before}{text}{ending.after}", file=sys.stderr)
            return ending.code


def _text_of(error, kind):
    """An exception's own words. kind: what it stands for, a class of ENDINGS."""
    if isinstance(error, OSError):
        return f"{error.filename or 'writing'}: {error.strerror}"
    if kind is MemoryError:
        return one_line(error)[:150] or "Python"
    return str(error)


def in_group():
    """Whether torchrun started this process: RANK and WORLD_SIZE alone are others' too."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leads():
    """Whether this is the process that speaks for all of a run: the only one, or the first."""
    rank = os.environ.get("RANK", "").strip()
    size = os.environ.get("WORLD_SIZE", "").strip()
    return not in_group() or rank in ("", "0") or size in ("", "1")


def one_line(text):
    """A message as one line: what users typed, which it quotes, may hold any character."""
    return " ".join(str(text).splitlines())


def short(error):
    """An exception in one line of bounded length, for the brackets of a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def is_lack_of_memory(error):
    """Whether an exception means that the machine or the device has no memory left."""
    if isinstance(error, MemoryError):
        return True
    # PyTorch has a class for it on CUDA only. The messages are those of CUDA and MPS, of CPUs, of
    # cuBLAS and of cuDNN; the last is of a convolution for whose workspace there is no room.
    words = (
        "out of memory",
        "allocate memory",
        "STATUS_ALLOC_FAILED",
        "ALLOCATION_FAILED",
        "unable to find an engine",
    )
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextlib.contextmanager
def flag(name):
    """Turns a ValueError about a flag's value into a UserError that names the flag, '--model'."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


@contextlib.contextmanager
def damaged(message):
    """Turns what other content than expected provokes into a DamagedError.

    It says `message`, and the exception in brackets.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_lack_of_memory(error):
            raise
        raise DamagedError(f"{message} ({short(error)})") from error
