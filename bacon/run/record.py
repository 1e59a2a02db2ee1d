"""What a run at work leaves behind: its log, its checkpoints, and how a signal stops it.

A run has at every moment at least one complete checkpoint, from before its first event to its end.
Nothing here knows the algorithm.
"""

import contextlib
import enum
import errno
import json
import os
import signal
import time
from pathlib import Path

from bacon.errors import ParallelError, Stopped, UserError, in_group
from bacon.files import save_torch
from bacon.run.folder import FORMAT, temporary_name


class Wish(enum.IntEnum):
    """What a process asks for at a `Record.point`: all processes do the greatest wish."""

    NOTHING = 0
    CHECKPOINT = 1
    STOP = 2


class StopSignals:
    """While open, SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask the run to stop at its next safe place; a
    second SIGINT kills it. SIGHUP stays ignored where nohup had it ignored."""

    asked = None  # the name of the first signal that came

    def __enter__(self):
        self.before = {}
        for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has but two of them
            if number is None:
                continue
            # What nohup ignores comes to a process of torchrun from torchrun, which then ends it.
            ignored = name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN
            if ignored and not in_group():
                continue
            self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind, *_):
        # torchrun sends SIGTERM to whoever is left, which has yet to say what happened.
        if kind is not ParallelError:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _note(self, number, frame):
        name = signal.Signals(number).name
        self.asked = self.asked or name
        again = ""
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            again = "; once more stops at once"
        said = f"{name}: stopping after this iteration, evaluation epoch or training batch{again}\n"
        with contextlib.suppress(OSError):  # of SIGHUP the terminal is gone
            os.write(2, said.encode())  # print is not allowed to interrupt a print


class RunLog:
    """The run's log: one JSON object per line, with the time and the kind of event. docs/resume.md
    lists the events and their keys."""

    def __init__(self, path, keep=0):
        """Open for writing after the first `keep` bytes of what is there; the rest is cut off."""
        self.path = Path(path)
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by the run
        self.file.truncate(keep)

    def size(self):
        return os.fstat(self.file.fileno()).st_size

    def write(self, event, **fields):
        """Append one event; it is on its way to the disk when this returns. A line is written whole
        or not at all."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        before = self.size()
        line = (json.dumps({"event": event, "time": now, **fields}) + "\n").encode()
        try:
            written = self.file.write(line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.file.truncate(before)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def sync(self):
        """Wait until every event is on the disk."""
        os.fsync(self.file.fileno())

    def move(self, path):
        """Take another name, in place of the file that had it."""
        os.replace(self.path, path)
        self.path = Path(path)


class Record:
    """The log of a run at work, and checkpoints of what `state` returns. Of several processes the
    leading one writes; all have to call `point` and `save` at the same places."""

    def __init__(self, files, minutes, signals, state, world):
        """files: folder.Files. minutes: between checkpoints. signals: StopSignals that are open.
        state: function() -> what to save, plain containers and tensors. world: a parallel.World.

        `begin` or `go_on` is next.
        """
        self.files = files
        self.seconds = 60 * minutes
        self.signals = signals
        self.state = state
        self.world = world
        self.log = None
        self.saved = time.monotonic()

    def begin(self, replaces, **about):
        """Write the first event of a run and its first checkpoint, so that no log is ever without
        one. replaces: whether an earlier run's files give way. They do so here, once this run's
        first record is on the disk: until its checkpoint has its name they are all there, and from
        then on --resume goes on with this run."""
        state = self.state()
        if not self.world.leads:
            return
        files = self.files
        begun = temporary_name(files.log)
        self.log = RunLog(begun)
        try:
            self.event("start", **about)
            self.log.sync()
            # The log follows the checkpoint: until then --resume starts it anew, from byte 0.
            first = {"format": FORMAT, "log_bytes": 0, "replaces": replaces, **state}
            save_torch(first, files.checkpoint)
            self.log.move(files.log)
        except BaseException:
            begun.unlink(missing_ok=True)
            raise
        if replaces:
            files.clear()
        self.saved = time.monotonic()

    def go_on(self, log_bytes):
        """Append to the log that is there, of which a checkpoint knows so many bytes."""
        if self.world.leads:
            self.log = RunLog(self.files.log, log_bytes)

    def event(self, name, **fields):
        if self.log:
            self.log.write(name, **fields)

    def point(self):
        """A place where the state is whole: write a checkpoint if one is due. Raises Stopped if a
        signal asked for it, to whichever process. Looks at the clock alone, so that the loop never
        waits for the device where no checkpoint is due."""
        wish = Wish.NOTHING
        if self.world.leads and time.monotonic() - self.saved >= self.seconds:
            wish = Wish.CHECKPOINT
        if self.signals.asked:
            wish = Wish.STOP
        wish = max(self.world.gather_objects(wish))
        if wish == Wish.STOP:
            raise Stopped(self.signals.asked or "a signal to another process")
        if wish == Wish.CHECKPOINT:
            self.save()

    def stop_if_asked(self):
        """Raises Stopped if a signal asked this process for it: for places between two `point`s,
        with the state of the first."""
        if self.signals.asked:
            raise Stopped(self.signals.asked)

    @property
    def between_points(self):
        """`stop_if_asked`, for work between two `point`s that is done anew or goes on from its own
        files. None of several processes: they have to stop at the same place."""
        return self.stop_if_asked if self.world.size == 1 else None

    def save(self):
        """Write a checkpoint; the one before is kept."""
        state = self.state()
        if self.log:
            if not self.log.path.exists():
                gone = "was deleted while the run went on; start it again, with --overwrite"
                raise UserError(f"{self.log.path}: {gone}")
            self.log.sync()
            content = {"format": FORMAT, "log_bytes": self.log.size(), **state}
            save_torch(content, *self.files.checkpoints)
        self.saved = time.monotonic()  # from the end, however long it took

    def close(self):
        if self.log:
            self.log.file.close()
