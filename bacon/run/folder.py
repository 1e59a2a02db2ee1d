"""The files of a run: their names and locks, what an earlier process left, and joining a job array.

No work is lost and none is overwritten: `Files.admit` and `Files.claim` refuse a folder that holds
another run, and find the newest checkpoint that can be read.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import torch

from bacon import messages, tables
from bacon.canvases import read_result
from bacon.errors import DamagedError, UserError, damaged
from bacon.files import load_torch, lock, save_torch
from bacon.flags import DEAD_FLAGS, DEFAULTS, OF_THE_PROCESS, overruled, run_name

FORMAT = "BACON checkpoint 2"
GOING_ON = "this run is already going on; wait for it, or choose another --save_path"
ENTRIES = {"log_bytes", "meta", "arithmetic", "seconds", "ended", "experiment"}


@dataclasses.dataclass(frozen=True)
class Left:
    """What earlier processes left of a run: nothing, its newest checkpoint, or all of it."""

    saved: dict | None = None  # the content of the checkpoint
    finished: bool = False


def existing_folder(flag, folder):
    """The folder that a flag names, or the nearest one above it that exists.

    UserError unless it is a folder that can be written in.
    """
    ancestry = (folder, *folder.absolute().parents)
    existing = next(path for path in ancestry if os.path.lexists(path))
    if not existing.exists():
        dangling = f"{existing} is a link to {os.readlink(existing)}, where no folder is"
        raise UserError(f"{flag} {folder}: {dangling}; make that folder, or name another")
    if not existing.is_dir():
        raise UserError(f"{flag} {folder}: {existing} is a file; name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        advice = "choose another folder"
        raise UserError(f"{flag} {folder}: cannot write in {existing}; {advice}")
    return existing


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
        """Refuse, without writing anything, a folder that cannot take the run or that holds an
        earlier one."""
        existing = existing_folder("--save_path", self.folder)
        earlier = self.earlier()
        if earlier and not (resume or overwrite):
            state = "an unfinished" if self.is_unfinished() else "an earlier"
            words = "go on with --resume, replace it with --overwrite, or choose another folder"
            raise self.refusal(f"holds {earlier[0].name} of {state} run; {words}")
        # While a third checkpoint is being written, the newest and the one before it are there.
        there = sum(path.stat().st_size for path in earlier if path in self.checkpoints)
        needed = 3 * checkpoint_bytes - there
        free = shutil.disk_usage(existing).free
        if needed > free:
            of = f"for checkpoints of {checkpoint_bytes / 1e6:,.0f} MB"
            there = f"{free / 1e6:,.0f} MB are free"
            advice = "make room or choose another folder"
            raise self.refusal(f"needs {needed / 1e6:,.0f} MB {of}, {there}; {advice}")

    def claim(self, stack, meta, resume, overwrite):
        """Make the folder, lock the run until `stack` closes, and see what is there: a `Left`.

        meta: what the run is, as run.about says it. UserError if what is there belongs to another
        run, or may not be touched.
        """
        self._make_folder()
        self._lock(stack)
        self._remove_half_written()
        if overwrite:
            if self.replaced:
                self.replaced._lock(stack)
            return Left()  # what is there goes in `Record.begin`
        earlier = self.earlier()
        if not earlier:
            if resume:
                messages.log.info(
                    f"nothing to resume yet: starting from the beginning{self._beside()}"
                )
            return Left()
        if not resume:  # another process finished it since `admit`
            raise self.refusal(f"holds {earlier[0].name} of an earlier run")
        return self._find_left(meta)

    def _make_folder(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self.refusal(f"cannot write there ({error.strerror})") from None

    def _remove_half_written(self):
        """Remove what a killed process had begun to write."""
        for of in (self.result, self.checkpoint, self.log):
            for path in self.folder.glob(f"{of.name}.*.tmp"):
                path.unlink()

    def _find_left(self, meta):
        """What there is to go on from. UserError if it is of another run, or nothing of use."""
        saved = self._newest()
        if saved is not None:
            refuse_another_run(self.checkpoint, saved["meta"], meta)
            self._check_log(saved["log_bytes"])
            return Left(saved=saved)
        if self.result.exists():
            theirs = read_result(self.result)["meta"]
            refuse_another_run(self.result, theirs, meta)
            if len(theirs.get("experiments", [])) == self.experiments:
                return Left(finished=True)
        where = f"{self.stem} in {self.folder}"
        raise UserError(f"--resume: no valid checkpoint of {where}; --overwrite starts it anew")

    def _check_log(self, log_bytes):
        """Refuse a log that is shorter than when the checkpoint was written."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size < log_bytes:
            found = f"{self.log} has {size} bytes, {log_bytes} when the checkpoint was written"
            advice = "put it back, or --overwrite to start from the beginning"
            raise UserError(f"--resume: {found}; {advice}")

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
        """Lock the run until `stack` closes. Parts of a job array run side by side, a whole run
        alone."""
        whole = self.folder / f"lock_{self.name}"
        with contextlib.ExitStack() as moment:
            if self.stem == self.name:
                lock(stack, whole, GOING_ON)
                for part in self.folder.glob(f"lock_{self.name}_exp*"):
                    lock(moment, part, GOING_ON)
            else:
                # Other parts look too, whether a whole run is going on.
                lock(moment, whole, GOING_ON, patience=10)
                lock(stack, self.folder / f"lock_{self.stem}", GOING_ON)

    def _newest(self):
        """The newest valid checkpoint or None. Newer ones that are damaged are kept aside."""
        for path in self.checkpoints:
            if not path.exists():
                continue
            try:
                return _read_checkpoint(path)
            except DamagedError as error:
                aside = _free_name(path)
                path.rename(aside)
                messages.log.info(f"{error}; kept as {aside.name}")
        return None

    def finish(self):
        """Remove the checkpoints of a run whose result is complete."""
        for path in reversed(self.checkpoints):
            path.unlink(missing_ok=True)


def _read_checkpoint(path):
    """The content of a checkpoint. DamagedError if it is none, UserError if of another version."""
    saved = load_torch(path, advice="")
    found = saved.get("format") if isinstance(saved, dict) else None
    if found == FORMAT and saved.keys() >= ENTRIES:
        return saved
    if found != FORMAT and str(found).startswith(FORMAT[:-1]):
        versions = f"another version of these scripts ({found}, here {FORMAT})"
        advice = "go on with that version, or --overwrite"
        raise UserError(f"--resume: {path} is of {versions}; {advice}")
    raise DamagedError(f"{path}: not a checkpoint of these scripts")


def _free_name(path):
    """A name beside a damaged checkpoint that no file has yet."""
    for number in itertools.count():
        aside = path.with_name(f"{path.stem}_damaged{number}.pt")
        if not aside.exists():
            return aside


def temporary_name(path):
    """A name beside a file, for what this process writes before it takes the file's name."""
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def flags_apart(theirs, ours, ignored=()):
    """In words, the flags that matter in which two runs differ, with both values.

    theirs, ours: {flag: value}. A flag that an older version did not have was at its default. An
    older version also kept the values of flags that others overrule."""
    ignored = {*ignored, *OF_THE_PROCESS, *(dead.name for dead in DEAD_FLAGS)}
    ignored |= overruled(DEFAULTS | ours).keys()
    theirs = DEFAULTS | theirs
    words = []
    for name, value in ours.items():
        if name not in ignored and theirs.get(name) != value:
            words.append(f"--{name} {theirs.get(name)} there, {value} here")
    return words


def differences(theirs, ours, ignored=()):
    """In words, how two runs differ by their metas: in flags that matter, with both values, and in
    their data; "" if they do not."""
    words = flags_apart(theirs.get("args", {}), ours["args"], ignored)
    if theirs.get("data_sha256") != ours["data_sha256"]:
        there = str(theirs.get("data_sha256"))[:12]
        words.append(f"data {there} there, {ours['data_sha256'][:12]} here")
    return ", ".join(words)


def refuse_another_run(path, theirs, ours):
    """UserError if what `path` holds belongs to a run with other settings or data."""
    words = differences(theirs, ours)
    if words:
        advice = "give its flags, or choose another --save_path"
        raise UserError(f"--resume: {path} is of another run ({words}); {advice}")


def merge(files, args, meta):
    """Join the results and logs of a job array's experiments once all have ended, and say so.

    The joined files are those of the whole run, under its name. Whoever ends last does it; it may
    be done twice. files: of any part. meta: what the run is.
    """
    whole = files.part(None)
    parts = [files.part(exp) for exp in range(args.num_exp)]
    obstacle = _unfinished(whole, parts)
    if obstacle:
        messages.log.info(obstacle)
        return
    results = [read_result(part.result) for part in parts]
    if any(differences(result["meta"], meta, ["exp_index"]) for result in results):
        messages.log.info(f"{whole.stem}_exp*: not joined, some are of another run")
        return
    first = results[0]["meta"]
    every_experiment = {
        "experiments": list(range(args.num_exp)),
        "args": first["args"] | {"exp_index": None},
    }
    merged_meta = first | every_experiment
    scores = {
        name: [result["accs_all_exps"][name] for result in results]
        for name in results[0]["accs_all_exps"]
    }
    merged = {
        "data": [distilled for result in results for distilled in result["data"]],
        "accs_all_exps": {name: list(itertools.chain(*every)) for name, every in scores.items()},
        "meta": merged_meta,
    }
    obstacle = "" if args.overwrite else _another_whole(whole, merged)
    if obstacle:
        messages.log.info(obstacle)
        return
    try:
        events = _joined_events([_ended_log(part.log) for part in parts], merged_meta, scores)
    except DamagedError:
        messages.log.info(f"log_{whole.stem}_exp*: not joined, one is damaged")
        return
    apart = _computed_apart([result["meta"] for result in results])
    if apart:
        messages.log.info(f"{whole.stem}_exp*: joined, though computed differently ({apart})")
    temporary = temporary_name(whole.log)
    temporary.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    os.replace(temporary, whole.log)
    save_torch(merged, whole.result)
    messages.log.info(f"all {args.num_exp} experiments have ended: {whole.result}, {whole.log}")


def _unfinished(whole, parts):
    """In words, what has yet to end before the parts can be joined; "" if nothing has."""
    missing = []
    for exp, part in enumerate(parts):
        if part.is_unfinished() or not part.result.exists():
            missing.append(str(exp))
    if missing:
        words = f"{', '.join(missing)} have ended too (if they have: again with --resume)"
        return f"{whole.result.name} follows when experiments {words}"
    if whole.is_unfinished():
        unjoined = f"{whole.stem}_exp* are not joined"
        return f"{whole.checkpoint}: of an unfinished run with all experiments, so {unjoined}"
    return ""


def _another_whole(whole, merged):
    """In words, why the result of the whole run that is there is not what the parts come to, as it
    would be saved; "" if it is, or if there is none."""
    if not whole.result.exists():
        return ""
    there = read_result(whole.result)
    unjoined = f"so {whole.stem}_exp* are not joined; --overwrite replaces it"
    if differences(there["meta"], merged["meta"]):
        return f"{whole.result}: is of another run, {unjoined}"
    if not _same_sets(there, merged):
        return f"{whole.result}: has other sets or accuracies, {unjoined}"
    return ""


def _same_sets(one, other):
    """Whether two results hold bitwise the same sets, and the same accuracies."""
    if one["accs_all_exps"] != other["accs_all_exps"] or len(one["data"]) != len(other["data"]):
        return False
    for of_one, of_other in zip(one["data"], other["data"], strict=True):
        for tensor, its_other in zip(of_one, of_other, strict=True):
            if not torch.equal(tensor, its_other):
                return False
    return True


def _computed_apart(metas):
    """In words, how results were computed differently, by their metas; "" if they were not."""
    every = []
    for meta in metas:
        facts = {}
        for work, settings in meta.get("computed", {}).items():
            facts |= {f"{work} {name}": value for name, value in settings.items()}
        every.append(facts | meta.get("versions", {}))
    words = []
    for name in dict.fromkeys(itertools.chain(*every)):
        values = list(dict.fromkeys(str(facts.get(name)) for facts in every))
        if len(values) > 1:
            words.append(f"{name} {', '.join(values)}")
    return "; ".join(words)


def _ended_log(path):
    """The events of the log of a run that has ended. DamagedError if it is another file."""
    with damaged(f"{path}: not the log of a run that has ended"):
        events = [json.loads(line) for line in path.read_bytes().splitlines()]
        if events[-1]["event"] != "end":
            raise ValueError("it has not ended")
    return events


def _joined_events(logs, merged_meta, scores):
    """The events of the whole run, from those of its experiments. DamagedError if one lacks what
    the others have. scores: {architecture: [[accuracy] per experiment]}."""
    with damaged("a log of an experiment is incomplete"):
        start = logs[0][0] | {"args": merged_meta["args"]}
        between = []
        seconds = 0
        for events in logs:
            between += [event for event in events if event["event"] not in ("start", "end")]
            end = events[-1]
            seconds += end["seconds_total"] if "seconds_total" in end else end["seconds"]
        end = {
            "event": "end",
            "time": logs[-1][-1]["time"],
            "seconds_total": seconds,
            "summary_percent": {name: tables.summary(every) for name, every in scores.items()},
        }
    return [start, *between, end]
