"""What a person is told in one line, and with which exit code; everything else is a bug and keeps its traceback."""

import contextlib
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
    "smaller batches or --ipc need less, and several processes share it. A run's last checkpoint stays: --resume goes "
    "on with the same flags elsewhere"
)
# exception: (exit code, what is said before it, what after it). The first that fits counts.
ENDINGS = {
    UserError: (2, "error: ", ""),
    OSError: (2, "error: ", ""),  # a full disk, a folder that vanished
    MemoryError: (2, "error: out of memory (", f"); {LESS_MEMORY}"),  # see `is_lack_of_memory`
    DivergedError: (3, "diverged: ", ""),
    ParallelError: (4, "", "; the same command with --resume goes on from the last checkpoint"),
    Stopped: (75, "", ""),  # EX_TEMPFAIL: start again with --resume
    KeyboardInterrupt: (130, "interrupted", ""),
}
OF_ALL_PROCESSES = (
    DivergedError,
    Stopped,
)  # the same on every process of a parallel run: the first one says it


def exit_code(program, work, outlives_output=False):
    """What work() returns, or the exit code of an error of ENDINGS, which is told on standard error
    in one line. outlives_output: see streams.usable."""
    with streams.usable(outlives_output):
        try:
            return work()
        except (*ENDINGS, RuntimeError) as error:
            kind = MemoryError if is_lack_of_memory(error) else type(error)
            if not issubclass(kind, tuple(ENDINGS)):
                raise
            endings = (ending for base, ending in ENDINGS.items() if issubclass(kind, base))
            code, before, after = next(endings)
            if isinstance(error, OSError):
                text = f"{error.filename or 'writing'}: {error.strerror}"
            elif kind is MemoryError:
                text = one_line(error)[:150] or "Python"
            else:
                text = str(error)
            if not isinstance(error, OF_ALL_PROCESSES) or leads():
                print(f"{program}: {before}{one_line(text)}{after}", file=sys.stderr)
            return code


def in_group():
    """Whether torchrun started this process: RANK and WORLD_SIZE alone are others' too."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leads():
    """Whether this is the process that speaks for all of a run: the only one, or the first."""
    rank, size = (os.environ.get(name, "").strip() for name in ("RANK", "WORLD_SIZE"))
    return not in_group() or rank in ("", "0") or size in ("", "1")


def one_line(text):
    """A message as one line: what users typed, which it quotes, may hold any character."""
    return " ".join(str(text).splitlines())


def short(error):
    """An exception in one line of bounded length, for the brackets of a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def is_lack_of_memory(error):
    """Whether an exception means that the machine or the device has no memory left."""
    # PyTorch has a class for it on CUDA only; the messages are those of CUDA and MPS, of CPUs, of cuBLAS and cuDNN.
    words = ("out of memory", "allocate memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(w in str(error) for w in words)
    )


@contextlib.contextmanager
def flag(name):
    """Turns a ValueError about a flag's value into a UserError that names the flag, as '--model'."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


@contextlib.contextmanager
def damaged(message):
    """Turns what other content than expected provokes into a DamagedError: `message`, and the exception in brackets."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_lack_of_memory(error):
            raise
        raise DamagedError(f"{message} ({short(error)})") from error
