"""What a person is told while a program works: plain lines, by the standard library's `logging`.

Any module says `messages.log.info("a line")`. The program decides once, by `speak`, where lines go.
A library user who calls these modules from a program of their own hears nothing, unless they
configure the logger "bacon"."""

import contextlib
import logging
import sys

log = logging.getLogger("bacon")
log.addHandler(logging.NullHandler())


class _Lines(logging.Handler):
    """Prints every message as a line on a standard stream, whichever object that is at the
    moment."""

    def __init__(self, stream_name):
        super().__init__()
        self.stream_name = stream_name

    def emit(self, record):
        # Not caught as logging does: a full disk or a closed terminal is the program's business.
        print(self.format(record), file=getattr(sys, self.stream_name), flush=True)


@contextlib.contextmanager
def speak(stream_name, silent=False):
    """Within a `with` block, lines go to sys.stdout or sys.stderr, named "stdout" or "stderr".
    silent: to nobody, for the processes of a parallel run that do not lead."""
    handler = logging.NullHandler() if silent else _Lines(stream_name)
    level = log.level
    propagates = log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates
