"""What a run shows a person while it works."""

import contextlib
import os
import sys
import time

from tqdm import tqdm

from bacon.messages import log


class Progress(contextlib.AbstractContextManager):
    """Iterations shown to a person: a bar with an ETA on a terminal, elsewhere lines and times."""

    def __init__(self, total, title, done=0):
        """total: iterations, none for no bar. done: how many of them a resumed run starts with."""
        self.bar = None
        if total and sys.stdout.isatty() and has_room_for_bar(sys.stderr):
            self.bar = tqdm(
                total=total,
                initial=done,
                desc=title,
                unit="it",
                dynamic_ncols=True,
                miniters=1,  # or one of a minute would be shown when the next few have ended
            )

    def say(self, text):
        """Print a line of its own, above the bar if there is one."""
        if self.bar:
            self.bar.write(text)
        else:
            print(time.strftime("[%H:%M:%S] ") + text, flush=True)

    def count(self):
        """Count an iteration; on a GPU one that is on its way."""
        if self.bar:
            self.bar.update()

    def report(self, text, short):
        """Show the newest figures, on a bar the short ones."""
        if self.bar:
            self.bar.set_postfix_str(short)
        else:
            self.say(text)

    def now(self, text):
        """Show on a terminal what is being done between two figures."""
        if self.bar:
            self.bar.set_postfix_str(text)

    def __exit__(self, *exception):
        if self.bar:
            self.bar.close()


def has_room_for_bar(stream):
    """Whether a stream is a terminal with room for a bar: some say that they have no columns."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):  # no terminal, no file
        return False


def track(items, title, every=10):
    """Yield `items`, a list, and show how far it is: on a terminal by a bar, elsewhere by messages.

    every: seconds from one message to the next.
    """
    if has_room_for_bar(sys.stderr):
        yield from tqdm(items, desc=title, dynamic_ncols=True)
        return
    due = time.monotonic() + every
    for done, item in enumerate(items):
        if time.monotonic() >= due:
            log.info(f"{title}: {done:,} of {len(items):,}")
            due += every
        yield item


def duration(seconds):
    """A time in the unit that fits it, such as '12 s', '3.4 min' or '560 h'."""
    if seconds >= 3600:
        unit = "h"
        value = seconds / 3600
    elif seconds >= 60:
        unit = "min"
        value = seconds / 60
    else:
        unit = "s"
        value = seconds
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
