"""Standard output and error as a process may find them: closed, of ASCII alone, a terminal that
hangs up, a reader that leaves. Nothing that is said may end a run or go into a file of the run.
"""

import contextlib
import errno
import io
import os
import sys


@contextlib.contextmanager
def usable(outlived=False):
    """Standard output and error that can be written to, for the time of a `with` block. outlived:
    whether the work goes on when nobody can read its output any more; an error on standard error is
    forgiven in any case."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            # A job's output file shows a line when it is printed. What the encoding lacks becomes
            # an escape.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stderr = Outlived(sys.stderr)
    if outlived:
        sys.stdout = Outlived(sys.stdout, "standard output")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_closed():
    """Open what the caller closed (`>&-`) to nowhere: else the next file that is opened takes its
    number, and what is written to standard error by number goes into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = _nowhere(1)
    if sys.stderr is None:
        sys.stderr = _nowhere(2)


def _nowhere(number):
    return open(number, "w", encoding="utf-8", closefd=False)


class Outlived:
    """A stream of text that its writer outlives: once its terminal has hung up or its reader has
    left, what is written goes nowhere. name: said on standard error when that happens, unless None.
    """

    def __init__(self, stream, name=None):
        self._stream = stream
        self._name = name

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        with self._forgiving():
            self._stream.write(text)
        return len(text)

    def flush(self):
        with self._forgiving():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiving(self):
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            self._let_go()
            if self._name:
                print(f"{self._name}: {error.strerror}; going on without it", file=sys.stderr)

    def _let_go(self):
        """What is still buffered goes nowhere too, or the interpreter's last flush would fail."""
        with contextlib.suppress(OSError):
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
