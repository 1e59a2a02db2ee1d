"""What a person is told while a test works."""

import contextlib
import logging

from bacon import messages


class _Listener(logging.Handler):
    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def hearing():
    """Within a `with` block, the messages so far, a list. Each of them is one line."""
    lines = []
    listener = _Listener(lines)
    level = messages.log.level
    messages.log.addHandler(listener)
    messages.log.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        messages.log.removeHandler(listener)
        messages.log.setLevel(level)
    assert not any("\n" in line for line in lines)
