"""A run on disk: its file names, locks, log, checkpoints and signals, so that no work is lost and none is overwritten.

A run has at every moment at least one complete checkpoint, from before its first event to its end. `Files` finds what
an earlier process left behind, `Record` is what a process at work leaves behind. Nothing here knows the algorithm.
"""

import collections
import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

from bacon import tables
from bacon.canvases import read_result
from bacon.errors import DamagedError, ParallelError, Stopped, UserError, in_group
from bacon.files import load_torch, lock, save_torch
from bacon.flags import DEAD_FLAGS, OF_THE_PROCESS, run_name
from bacon.progress import duration

FORMAT = "BACON checkpoint 2"
GOING_ON = "this run is already going on; wait for it, or choose another --save_path"
ENTRIES = {"log_bytes", "meta", "arithmetic", "seconds", "ended", "experiment"}
# What earlier processes left of a run: its newest checkpoint or None, whether it has ended, and lines for the user.
Left = collections.namedtuple("Left", "saved finished notes")
NOTHING, CHECKPOINT, STOP = range(
    3
)  # what a process asks for at a `Record.point`: all of them do the greatest


class Files:
    """The files of a run, or of the part of it that is one experiment of a job array, and what may
    be done to them.

    They are named by `flags.run_name`. Where an earlier version left this very run under the name
    that it gave, the run keeps that name, so that --resume goes on with it; --overwrite replaces
    it by the run's own name.
    """

    def __init__(self, args, exp_index=None, name=None):
        """name: of the whole run, where it is known."""
        self.args = args
        self.folder = Path(os.path.expanduser(args.save_path))
        self.exp_index = exp_index
        self.experiments = args.num_exp if exp_index is None else 1
        self.replaced = None  # the `Files` under the earlier name, where both names are in use
        own = run_name(args)
        earlier = f"{args.method}_{args.dataset}_{args.model}_{args.ipc}ipc"
        self.name = name or own
        if name is None and earlier != own and self._is_of_this_run(earlier):
            if args.overwrite or self._left_of(own):
                self.replaced = Files(args, exp_index, earlier)
            else:
                self.name = earlier
        self.stem = self.name if exp_index is None else f"{self.name}_exp{exp_index}"
        self.result = self.folder / f"res_{self.stem}.pt"
        self.log = self.folder / f"log_{self.stem}.jsonl"
        self.checkpoint = self.folder / f"ckpt_{self.stem}.pt"
        self.checkpoints = (self.checkpoint, self.folder / f"ckpt_{self.stem}_previous.pt")

    def part(self, exp_index):
        """The files of one experiment of the same run, or with None those of the whole run."""
        return Files(self.args, exp_index, self.name)

    def _left_of(self, name, kinds=("res", "log", "ckpt")):
        """Files that a whole run of this name, and the experiments of a job array, left here."""
        belongs = re.compile(re.escape(name) + r"(_exp\d+)?(_previous)?")
        found = []
        for kind in kinds:
            for path in sorted(self.folder.glob(f"{kind}_{name}*")):
                if belongs.fullmatch(path.stem[len(f"{kind}_") :]):
                    found.append(path)
        return found

    def _is_of_this_run(self, name):
        """Whether logs of this name say that they are of a run with these flags."""
        return any(self._has_these_flags(log) for log in self._left_of(name, ["log"]))

    def _has_these_flags(self, log):
        try:
            with log.open(encoding="utf-8") as lines:
                start = json.loads(lines.readline())
            return not flags_apart(start["args"], vars(self.args), ["exp_index"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # another kind of file
            return False

    def grid(self, exp, it):
        return self.folder / f"vis_{self.name}_exp{exp}_iter{it}.png"

    def earlier(self):
        """The files that a run of this name left here; a log without any event is none."""
        paths = (self.result, self.log, *self.checkpoints)
        return [
            path for path in paths if path.exists() and (path != self.log or path.stat().st_size)
        ]

    def pictures(self):
        """The pictures of a run of this name. A whole run and the parts of a job array draw the
        canvases of experiment k under one name: where both have files here, they are left to the
        other one."""
        found = []
        whole_is_here = self.exp_index is not None and bool(self.part(None).earlier())
        for path in sorted(self.folder.glob(f"vis_{self.name}_exp*.png")):
            match = re.fullmatch(r"_exp(\d+)_iter\d+\.png", path.name[len(f"vis_{self.name}") :])
            if match is None:
                continue
            exp = int(match[1])
            if self.exp_index is None:
                ours = not self.part(exp).earlier()
            else:
                ours = exp == self.exp_index and not whole_is_here
            if ours:
                found.append(path)
        plot = self.folder / f"acc_{self.stem}.png"
        if plot.exists():
            found.append(plot)
        return found

    def clear(self):
        """Remove what the run before left, once the new run's log and checkpoint have taken the
        place of its own."""
        for path in (self.result, self.checkpoints[1], *self.pictures()):
            path.unlink(missing_ok=True)
        if self.replaced:
            for path in (*self.replaced.earlier(), *self.replaced.pictures()):
                path.unlink(missing_ok=True)

    def is_unfinished(self):
        return any(path.exists() for path in self.checkpoints)

    def refusal(self, text):
        return UserError(f"--save_path {self.folder}: {text}")

    def admit(self, resume, overwrite, checkpoint_bytes):
        """Refuse, without writing anything, a folder that cannot take the run or that holds an earlier one."""
        ancestry = (self.folder, *self.folder.absolute().parents)
        existing = next(path for path in ancestry if os.path.lexists(path))
        if not existing.exists():
            dangling = f"{existing} is a link to {os.readlink(existing)}, where no folder is"
            raise self.refusal(f"{dangling}; make that folder, or name another")
        if not existing.is_dir():
            raise self.refusal(f"{existing} is a file; name a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise self.refusal(f"cannot write in {existing}; choose another folder")
        earlier = self.earlier()
        if earlier and not (resume or overwrite):
            state = "an unfinished" if self.is_unfinished() else "an earlier"
            words = "go on with --resume, replace it with --overwrite, or choose another folder"
            raise self.refusal(f"holds {earlier[0].name} of {state} run; {words}")
        # While a third checkpoint is being written, the newest and the one before it are still there.
        there = sum(path.stat().st_size for path in earlier if path in self.checkpoints)
        needed, free = 3 * checkpoint_bytes - there, shutil.disk_usage(existing).free
        if needed > free:
            raise self.refusal(
                f"needs {needed / 1e6:,.0f} MB for checkpoints of {checkpoint_bytes / 1e6:,.0f} MB, "
                f"{free / 1e6:,.0f} MB are free; make room or choose another folder"
            )

    def claim(self, stack, meta, resume, overwrite):
        """Make the folder, lock the run until `stack` closes, and see what is there: a `Left`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self.refusal(f"cannot write there ({error.strerror})") from None
        notes = self._lock(stack)
        for of in (self.result, self.checkpoint, self.log):
            for path in self.folder.glob(f"{of.name}.*.tmp"):  # half written by a killed process
                path.unlink()
        if overwrite:
            if self.replaced:
                notes += self.replaced._lock(stack)
            return Left(None, False, notes)  # what is there goes in `Record.begin`
        earlier = self.earlier()
        if not earlier:
            begins = f"nothing to resume yet: starting from the beginning{self._beside()}"
            return Left(None, False, [*notes, begins] if resume else notes)
        if not resume:  # another process finished it since `admit`
            raise self.refusal(f"holds {earlier[0].name} of an earlier run")
        saved = self._newest(notes)
        if saved:
            refuse_another_run(self.checkpoint, saved["meta"], meta)
            size = self.log.stat().st_size if self.log.exists() else 0
            if size < saved["log_bytes"]:
                there = f"{self.log} has {size} bytes, {saved['log_bytes']} when the checkpoint was written"
                raise UserError(
                    f"--resume: {there}; put it back, or --overwrite to start from the beginning"
                )
            return Left(saved, False, notes)
        if self.result.exists():
            theirs = read_result(self.result)["meta"]
            refuse_another_run(self.result, theirs, meta)
            if len(theirs.get("experiments", [])) == self.experiments:
                return Left(None, True, notes)
        print(*notes, sep="\n", end="\n" * bool(notes), flush=True)
        where = f"{self.stem} in {self.folder}"
        raise UserError(f"--resume: no valid checkpoint of {where}; --overwrite starts it anew")

    def _beside(self):
        """In words, the unfinished runs of the same dataset, network and ipc here: one of them may
        have been meant."""
        like = f"ckpt_*_{self.args.dataset}_{self.args.model}_{self.args.ipc}ipc*.pt"
        others = []
        for path in sorted(self.folder.glob(like)):
            copy = "_previous" in path.name or "_damaged" in path.name
            of_this_run = path.name.startswith(f"ckpt_{self.name}_exp")
            if not copy and not of_this_run:
                others.append(path.name)
        if not others:
            return ""
        names = ", ".join(others[:3])
        if len(others) > 3:
            names += f" and {len(others) - 3} more"
        return f" (unfinished here, with other flags: {names})"

    def _lock(self, stack):
        """Lock the run until `stack` closes: lines for the user. Parts of a job array run side by side, a whole run
        alone."""
        whole = self.folder / f"lock_{self.name}"
        with contextlib.ExitStack() as moment:
            if self.stem != self.name:
                lock(
                    moment, whole, GOING_ON, patience=10
                )  # other parts look too, whether a whole run is going on
                lock(stack, self.folder / f"lock_{self.stem}", GOING_ON)
                return []
            lock(stack, whole, GOING_ON)
            for part in self.folder.glob(f"lock_{self.name}_exp*"):
                lock(moment, part, GOING_ON)
            return []

    def _newest(self, notes):
        """The newest valid checkpoint or None. Newer ones that are damaged are kept aside; `notes` gets a line each."""
        for path in filter(Path.exists, self.checkpoints):
            try:
                saved = load_torch(path, advice="")
                found = saved.get("format") if isinstance(saved, dict) else None
                if found == FORMAT and saved.keys() >= ENTRIES:
                    return saved
                if found != FORMAT and str(found).startswith(FORMAT[:-1]):
                    versions = f"another version of these scripts ({found}, here {FORMAT})"
                    raise UserError(
                        f"--resume: {path} is of {versions}; go on with that version, or --overwrite"
                    )
                raise DamagedError(f"{path}: not a checkpoint of these scripts")
            except DamagedError as error:
                names = (path.with_name(f"{path.stem}_damaged{n}.pt") for n in itertools.count())
                aside = next(name for name in names if not name.exists())
                path.rename(aside)
                notes.append(f"{error}; kept as {aside.name}")
        return None

    def finish(self):
        """Remove the checkpoints of a run whose result is complete."""
        for path in reversed(self.checkpoints):
            path.unlink(missing_ok=True)


def flags_apart(theirs, ours, ignored=()):
    """In words, the flags that matter in which two runs differ, with both values.

    theirs, ours: {flag: value}."""
    ignored = {*ignored, *OF_THE_PROCESS, *(name for name, *_ in DEAD_FLAGS)}
    return [
        f"--{name} {theirs.get(name)} there, {value} here"
        for name, value in ours.items()
        if name not in ignored and theirs.get(name) != value
    ]


def differences(theirs, ours, ignored=()):
    """In words, how two runs differ by their metas: the flags that matter, with both values, and the data."""
    words = flags_apart(theirs.get("args", {}), ours["args"], ignored)
    if theirs.get("data_sha256") != ours["data_sha256"]:
        words.append(
            f"data {str(theirs.get('data_sha256'))[:12]} there, {ours['data_sha256'][:12]} here"
        )
    return ", ".join(words)


def refuse_another_run(path, theirs, ours):
    """UserError if what `path` holds belongs to a run with other settings or data."""
    if words := differences(theirs, ours):
        raise UserError(
            f"--resume: {path} is of another run ({words}); give its flags, or choose another --save_path"
        )


def merge(files, args, meta):
    """Join the results and logs of a job array's experiments once all have ended; returns a line
    for the user. The joined files are those of the whole run, under its name. Whoever ends last
    does it; it may be done twice. files: of any part."""
    whole, parts = files.part(None), [files.part(exp) for exp in range(args.num_exp)]
    missing = [
        str(exp)
        for exp, part in enumerate(parts)
        if part.is_unfinished() or not part.result.exists()
    ]
    if missing:
        words = f"{', '.join(missing)} have ended too (if they have: again with --resume)"
        return f"{whole.result.name} follows when experiments {words}"
    if whole.is_unfinished():
        return f"{whole.checkpoint}: of an unfinished run with all experiments, so {whole.stem}_exp* are not joined"
    saved = [read_result(part.result) for part in parts]
    if any(differences(result["meta"], meta, ["exp_index"]) for result in saved):
        return f"{whole.stem}_exp*: not joined, some are of another run"
    first = saved[0]["meta"]
    merged_meta = first | {
        "experiments": list(range(args.num_exp)),
        "args": first["args"] | {"exp_index": None},
    }
    if (
        whole.result.exists()
        and not args.overwrite
        and differences(read_result(whole.result)["meta"], merged_meta)
    ):
        return f"{whole.result}: is of another run, so {whole.stem}_exp* are not joined; --overwrite replaces it"
    scores = {
        name: [result["accs_all_exps"][name] for result in saved]
        for name in saved[0]["accs_all_exps"]
    }
    accuracies = {name: list(itertools.chain(*every)) for name, every in scores.items()}
    sets = [distilled for result in saved for distilled in result["data"]]
    try:
        logs = [[json.loads(line) for line in part.log.read_bytes().splitlines()] for part in parts]
        if any(log[-1]["event"] != "end" for log in logs):
            raise ValueError
    except (ValueError, IndexError, KeyError, TypeError):
        return f"log_{whole.stem}_exp*: not joined, one is damaged"
    between = [event for log in logs for event in log if event["event"] not in ("start", "end")]
    seconds = sum(log[-1]["seconds"] for log in logs)
    accuracy = {name: tables.summary(every) for name, every in scores.items()}
    end = logs[-1][-1] | {"seconds": seconds, "accuracy": accuracy}
    events = [logs[0][0] | {"args": merged_meta["args"]}, *between, end]
    temporary = whole.log.with_name(f"{whole.log.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    temporary.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    os.replace(temporary, whole.log)
    save_torch({"data": sets, "accs_all_exps": accuracies, "meta": merged_meta}, whole.result)
    return f"all {args.num_exp} experiments have ended: {whole.result}, {whole.log}"


def time_left():
    """Lines for the user on when this job ends, where Slurm tells: a judge that does not fit in never ends."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if not end.isdigit():
        return []
    longer = "a judge that takes longer starts anew in every job: --dry_run times it, --epoch_eval_train shortens it"
    return [f"Slurm ends this job in {duration(max(0, int(end) - time.time()))}; {longer}"]


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
        if (
            kind is not ParallelError
        ):  # torchrun sends SIGTERM to whoever is left, which has yet to say what happened
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _note(self, number, frame):
        name = signal.Signals(number).name
        self.asked = self.asked or name
        again = ""
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            again = "; once more stops at once"
        said = f"{name}: stopping after this iteration or evaluation epoch{again}\n"
        with contextlib.suppress(OSError):  # of SIGHUP the terminal is gone
            os.write(2, said.encode())  # print is not allowed to interrupt a print


class RunLog:
    """The run's record: one JSON object per line, with the time and the kind of event."""

    def __init__(self, path, keep=0):
        """Open for writing after the first `keep` bytes of what is there; the rest is cut off."""
        self.path = Path(path)
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by the run
        self.file.truncate(keep)

    def size(self):
        return os.fstat(self.file.fileno()).st_size

    def write(self, event, **fields):
        """Append one event; it is on its way to the disk when this returns. A line is written whole or not at all."""
        now, before = time.strftime("%Y-%m-%dT%H:%M:%S"), self.size()
        line = (json.dumps({"event": event, "time": now, **fields}) + "\n").encode()
        try:
            if self.file.write(line) < len(line):
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
    """What a run at work leaves behind: the log, and checkpoints of what `state` returns. Of several processes the
    leading one writes; all have to call `point` and `save` at the same places."""

    def __init__(self, files, minutes, signals, state, world):
        """state: function() -> what to save, plain containers and tensors. `begin` or `go_on` is
        next."""
        self.files, self.seconds, self.signals, self.state, self.world = (
            files,
            60 * minutes,
            signals,
            state,
            world,
        )
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
        begun = files.log.with_name(f"{files.log.name}.{socket.gethostname()}.{os.getpid()}.tmp")
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
        """A place where the state is whole: write a checkpoint if one is due. Raises Stopped if a signal asked for it.
        Looks at the clock alone, so that the loop never waits for the device where no checkpoint is due."""
        due = (
            CHECKPOINT
            if self.world.leads and time.monotonic() - self.saved >= self.seconds
            else NOTHING
        )
        due = max(self.world.gather_objects(STOP if self.signals.asked else due))
        if due == STOP:
            raise Stopped(self.signals.asked or "a signal to another process")
        if due == CHECKPOINT:
            self.save()

    def stop_if_asked(self):
        """Raises Stopped if a signal asked for it: for places between two `point`s, with the state of the first."""
        if self.signals.asked:
            raise Stopped(self.signals.asked)

    def save(self):
        """Write a checkpoint; the one before is kept."""
        state = self.state()
        if self.log:
            if not self.log.path.exists():
                raise UserError(
                    f"{self.log.path}: was deleted while the run went on; start it again, with --overwrite"
                )
            self.log.sync()
            save_torch(
                {"format": FORMAT, "log_bytes": self.log.size(), **state}, *self.files.checkpoints
            )
        self.saved = time.monotonic()  # from the end, however long it took

    def close(self):
        if self.log:
            self.log.file.close()
