"""A run on disk: its file names, locks, checkpoints and signals, so that no work is lost and none is overwritten.

A run has at every moment at least one complete checkpoint, from before its first event to its end. `Files` finds what
an earlier process left behind, `Record` is what a process at work leaves behind. Nothing here knows the algorithm.
"""

import contextlib
import copy
import errno
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import tables
import utils
from utils import UserError

try:
    import fcntl
except ImportError:  # Windows: no locks
    fcntl = None

FORMAT = "BACON checkpoint 1"
ENTRIES = {"log_bytes", "meta", "arithmetic", "seconds", "ended", "experiment"}
STOPPED = 75  # exit code after a signal, EX_TEMPFAIL: start again with --resume


# ---------------------------------------------------------------------------------------------------------------------
# What is on the disk
# ---------------------------------------------------------------------------------------------------------------------


class Files:
    """The files of a run, or of the part of it that is one experiment of a job array, and what may be done to them."""

    def __init__(self, args, exp_index=None):
        self.folder = Path(os.path.expanduser(args.save_path))
        self.name = f"{args.method}_{args.dataset}_{args.model}_{args.ipc}ipc"
        self.stem = self.name if exp_index is None else f"{self.name}_exp{exp_index}"
        self.result, self.log = self.folder / f"res_{self.stem}.pt", self.folder / f"log_{self.stem}.jsonl"
        self.checkpoint = self.folder / f"ckpt_{self.stem}.pt"
        self.previous = self.folder / f"ckpt_{self.stem}_previous.pt"

    def grid(self, exp, it):
        return self.folder / f"vis_{self.name}_exp{exp}_iter{it}.png"

    def earlier(self):
        """The files that a run of this name left here; a log without any event is none."""
        paths = (self.result, self.log, self.checkpoint, self.previous)
        return [path for path in paths if path.exists() and (path != self.log or path.stat().st_size)]

    def has_ended(self):
        return self.result.exists() and not (self.checkpoint.exists() or self.previous.exists())

    def temporaries(self):
        """What a process that was killed in the middle of writing left; call it while holding the lock."""
        names = [f"{path.name}." for path in (self.result, self.checkpoint)]
        return [p for p in self.folder.glob("*.tmp") if p.name.startswith(tuple(names))]

    def check(self, resume, overwrite, checkpoint_bytes):
        """Refuse, without writing anything, a folder that cannot take the run or that holds an earlier one."""
        existing = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise UserError(f"--save_path {self.folder}: {existing} is a file; name a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"--save_path {self.folder}: cannot write in {existing}; choose another folder")
        earlier = self.earlier()
        if earlier and not (resume or overwrite):
            unfinished = earlier[-1] in (self.checkpoint, self.previous)
            state = "an unfinished" if unfinished else "an earlier"
            raise UserError(
                f"--save_path {self.folder}: holds {earlier[0].name} of {state} run; go on with --resume, replace it "
                "with --overwrite, or choose another folder"
            )
        # While a third checkpoint is being written, the newest and the one before it are still there.
        there = sum(path.stat().st_size for path in earlier if path in (self.checkpoint, self.previous))
        needed, free = 3 * checkpoint_bytes - there, shutil.disk_usage(existing).free
        if needed > free:
            raise UserError(
                f"--save_path {self.folder}: needs {needed / 1e6:,.0f} MB for checkpoints of "
                f"{checkpoint_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; make room or choose another folder"
            )

    def claim(self, stack, meta, resume, overwrite):
        """Make the folder, lock the run until `stack` closes, and see what is there: (saved, lines for the user).

        saved: the content of the newest valid checkpoint; None for a run that begins; "finished" for one that ended.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(f"--save_path {self.folder}: cannot write there ({error.strerror})") from None
        # The parts of a job array share the run's name, a whole run has it for itself.
        part = self.stem != self.name
        notes = _lock(stack, self.folder / f"lock_{self.name}", shared=part)
        if part:
            notes += _lock(stack, self.folder / f"lock_{self.stem}")
        for path in self.temporaries():
            path.unlink()
        earlier = self.earlier()
        if overwrite:
            for path in earlier:
                path.unlink()
            return None, notes
        if not earlier:
            return None, [*notes, "nothing to resume yet: starting from the beginning"] if resume else notes
        if not resume:  # another process finished it since `check`
            raise UserError(f"--save_path {self.folder}: holds {earlier[0].name} of an earlier run")
        saved, more = self._newest()
        notes += more
        if saved is None and self.result.exists():
            theirs = read_result(self.result)["meta"]
            refuse_another_run(self.result, theirs, meta)
            if len(theirs.get("experiments", [])) == (1 if part else meta["args"]["num_exp"]):
                return "finished", notes
        if saved is None:
            for note in notes:
                print(note, flush=True)
            raise UserError(
                f"--resume: no valid checkpoint of {self.stem} in {self.folder}; --overwrite starts it anew"
            )
        refuse_another_run(self.checkpoint, saved["meta"], meta)
        size = self.log.stat().st_size if self.log.exists() else 0
        if size < saved["log_bytes"]:
            raise UserError(
                f"--resume: {self.log} has {size} bytes, {saved['log_bytes']} when the checkpoint was written; put it "
                "back, or --overwrite to start from the beginning"
            )
        return saved, notes

    def _newest(self):
        """The newest valid checkpoint or None, and lines about newer ones that are damaged: they are kept aside."""
        notes = []
        for path in (path for path in (self.checkpoint, self.previous) if path.exists()):
            try:
                saved = utils.load_torch(path)
                if not isinstance(saved, dict) or saved.get("format") != FORMAT or not saved.keys() >= ENTRIES:
                    raise utils.DamagedError(f"{path}: not a checkpoint of these scripts")
                return saved, notes
            except utils.DamagedError as error:
                numbers = (path.with_name(f"{path.stem}_damaged{n}.pt") for n in range(10**6))
                aside = next(p for p in numbers if not p.exists())
                path.rename(aside)
                notes.append(f"{error}; kept as {aside.name}")
        return None, notes

    def finish(self):
        """Remove the checkpoints of a run whose result is complete."""
        for path in (self.previous, self.checkpoint):
            path.unlink(missing_ok=True)


def _lock(stack, path, shared=False):
    """Hold a lock file until `stack` closes; returns lines for the user. The system frees a dead process's lock.

    UserError if another process holds it.
    """
    if fcntl is None:
        return []
    until = time.monotonic() + (2 if shared else 0)  # whoever shared it locks it alone for a moment as it ends
    while True:
        file = stack.enter_context(open(path, "a+", encoding="utf-8"))  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                if time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                file.seek(0)
                raise UserError(
                    f"{path}: this run is already going on ({file.read().strip()}); wait for it, or choose another "
                    "--save_path"
                ) from None
            return [f"{path}: this file system has no locks ({error.strerror}); do not start the same run twice"]
        # Whoever held it may have removed the file since we opened it: then there may be a new one, to be locked.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
    file.seek(0)
    before = file.read().strip()
    if not shared or not before:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    stack.callback(_unlock, file, path)
    stale = before and not shared  # of a shared lock the other holders may well be alive
    return [f"{path.name}: {before} ended without finishing; taking over"] if stale else []


def _unlock(file, path):
    with contextlib.suppress(OSError):  # others share it, or the folder is gone
        fcntl.flock(file, fcntl.LOCK_NB | fcntl.LOCK_EX)
        path.unlink()


def read_result(path):
    """A result file as it was saved: {'data', 'accs_all_exps', 'meta'}. UserError if it is damaged or anything else."""
    saved = utils.load_torch(path)
    if not isinstance(saved, dict) or not saved.keys() >= {"data", "accs_all_exps", "meta"}:
        raise UserError(f"{path}: not a result of these scripts; move it away")
    return saved


def differences(theirs, ours, ignored=()):
    """In words, how two runs differ by their metas: the flags that matter, with both values, and the data."""
    ignored = {*ignored, *utils.OF_THE_PROCESS, *(name for name, *_ in utils.DEAD_FLAGS)}
    values = theirs.get("args", {})
    words = [
        f"--{name} {values.get(name)} there, {value} here"
        for name, value in ours["args"].items()
        if name not in ignored and values.get(name) != value
    ]
    if theirs.get("data_sha256") != ours["data_sha256"]:
        words.append(f"data {str(theirs.get('data_sha256'))[:12]} there, {ours['data_sha256'][:12]} here")
    return ", ".join(words)


def refuse_another_run(path, theirs, ours):
    """UserError if what `path` holds belongs to a run with other settings or data."""
    if words := differences(theirs, ours):
        raise UserError(f"--resume: {path} is of another run ({words}); give its flags, or choose another --save_path")


def merge(args, meta):
    """Join the results and logs of a job array's experiments once all have ended; returns a line for the user.

    The joined files are those of the whole run, under its name. Whoever ends last does it; it may be done twice.
    """
    whole, parts = Files(args), [Files(args, exp) for exp in range(args.num_exp)]
    missing = [exp for exp, part in enumerate(parts) if not part.has_ended()]
    if missing:
        return f"{whole.result.name} follows when experiments {', '.join(map(str, missing))} have ended too"
    if whole.checkpoint.exists() or whole.previous.exists():
        return f"{whole.checkpoint}: of an unfinished run with all experiments, so {whole.stem}_exp* are not joined"
    saved = [read_result(part.result) for part in parts]
    if any(differences(result["meta"], meta, ["exp_index"]) for result in saved):
        return f"{whole.stem}_exp*: not joined, some are of another run"
    merged_meta = copy.deepcopy(saved[0]["meta"]) | {"experiments": list(range(args.num_exp))}
    merged_meta["args"]["exp_index"] = None
    if whole.result.exists() and not args.overwrite and differences(read_result(whole.result)["meta"], merged_meta):
        return f"{whole.result}: is of another run, so {whole.stem}_exp* are not joined; --overwrite replaces it"
    scores = {name: [result["accs_all_exps"][name] for result in saved] for name in saved[0]["accs_all_exps"]}
    accuracies = {name: [a for experiment in every for a in experiment] for name, every in scores.items()}
    sets = [distilled for result in saved for distilled in result["data"]]

    try:
        logs = [[json.loads(line) for line in part.log.read_bytes().splitlines()] for part in parts]
        if any(log[-1]["event"] != "end" for log in logs):
            raise ValueError
    except (ValueError, IndexError, KeyError, TypeError):
        return f"log_{whole.stem}_exp*: not joined, one is damaged"
    events = [logs[0][0] | {"args": merged_meta["args"]}]
    events += [event for log in logs for event in log if event["event"] not in ("start", "end")]
    seconds = sum(log[-1]["seconds"] for log in logs)
    accuracy = {name: tables.summary(every) for name, every in scores.items()}
    events.append(logs[-1][-1] | {"seconds": seconds, "accuracy": accuracy})
    temporary = whole.log.with_name(f"{whole.log.name}.{os.getpid()}.tmp")
    temporary.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    os.replace(temporary, whole.log)
    utils.save_torch({"data": sets, "accs_all_exps": accuracies, "meta": merged_meta}, whole.result)
    return f"all {args.num_exp} experiments have ended: {whole.result}, {whole.log}"


# ---------------------------------------------------------------------------------------------------------------------
# A process at work
# ---------------------------------------------------------------------------------------------------------------------


class StopSignals:
    """While open, SIGTERM, SIGINT and SIGUSR1 ask the run to stop at its next safe place; a second SIGINT kills it."""

    NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")

    def __init__(self):
        self.asked = None  # the name of the first signal that came

    def __enter__(self):
        numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        name = signal.Signals(number).name
        self.asked = self.asked or name
        again = ""
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            again = "; once more stops at once"
        text = f"{name}: stopping after this iteration or evaluation epoch{again}\n"
        os.write(2, text.encode())  # print is not allowed to interrupt a print


class Record:
    """What a run at work leaves behind: the log, and checkpoints of what `state` returns.

    Of several processes the leading one writes; all have to call `point` and `save` at the same places.
    """

    def __init__(self, files, minutes, signals, state, world, log_bytes=0):
        """state: function() -> what to save, plain containers and tensors. log_bytes: of the log to go on with."""
        self.files, self.seconds, self.signals, self.state, self.world = files, 60 * minutes, signals, state, world
        self.log = utils.RunLog(files.log, log_bytes) if world.leads else utils.NoLog()
        self.saved, self.lost = time.monotonic(), False

    def point(self):
        """A place where the state is whole: write a checkpoint if one is due. Raises Stopped if a signal asked for it.

        Looks at the clock alone, so that the loop never waits for the device where no checkpoint is due.
        """
        due = self.world.leads and time.monotonic() - self.saved >= self.seconds
        verdict = self.world.most(3 if self.lost else 2 if self.signals.asked else int(due))
        if verdict == 3:
            self._restore()
        if verdict == 2:
            raise utils.Stopped(self.signals.asked or "a signal to another process")
        if verdict == 1:
            self.save()
            self.check()

    def check(self):
        """Raises UserError if the folder was deleted; log and checkpoint are then written again, in a new one."""
        if self.world.most(int(self.lost)):
            self._restore()

    @contextlib.contextmanager
    def writing(self):
        """Around what the leading process writes: that the folder is gone is left to `check`, for all processes."""
        try:
            yield
        except FileNotFoundError:
            if self.files.log.exists():
                raise
            self.lost = True

    def _restore(self):
        self.lost = False
        self.log.restore()
        self.save()
        self.world.most(0)  # torchrun ends the leading process soon after another has ended
        if not self.world.leads:
            raise SystemExit(2)  # the leading process says why
        if self.lost:
            raise UserError(f"{self.files.folder}: is deleted again and again; of this run nothing could be kept")
        raise UserError(
            f"{self.files.folder}: was deleted during the run; its log and a checkpoint are written again, the same "
            "command with --resume goes on"
        )

    def stop_if_asked(self):
        """Raises Stopped if a signal asked for it: for places between two `point`s, with the state of the first."""
        if self.signals.asked:
            raise utils.Stopped(self.signals.asked)

    def save(self):
        """Write a checkpoint; the one before is kept. If the folder is gone, `check` says so."""
        state = self.state()
        self.saved = time.monotonic()
        if not self.world.leads:
            return
        with self.writing():
            if not self.files.log.exists():
                raise FileNotFoundError(errno.ENOENT, "was deleted while the run went on", str(self.files.log))
            self.log.sync()
            state = {"format": FORMAT, "log_bytes": len(self.log), **state}
            utils.save_torch(state, self.files.checkpoint, self.files.previous)
            self.saved = time.monotonic()  # from the end, however long it took

    def close(self):
        self.log.close()
