"""Finished runs and kept scores, read from their files: what tables, plots and docs/ show.

A run is read from its log (docs/resume.md lists the events), scores from the lines of evaluate.py
--format json.
"""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from bacon import compute, entries, flags, recipes
from bacon.entries import EXPERIMENTS, FRACTIONS, NUMBER, TEXT, whole
from bacon.errors import DamagedError, UserError, damaged
from bacon.messages import log as messages
from bacon.methods import METHODS, TERMS, terms_of


@dataclass(frozen=True)
class Departure:
    """A flag whose value is not the recipe's."""

    flag: str
    value: str

    def __str__(self):
        return f"--{self.flag} {self.value}"


@dataclass(frozen=True)
class Kind:
    """What was run and how it was judged, but for the seed. Runs of a kind share a row of a table.

    validate: training images per class that judges are tested on; 0: they are tested on the test
    images.
    method, recipe: of a distilled set, else None. init: of a set that was not distilled, else None.
    epochs, judge_steps: of a judge; it trains for the one that is not 0.
    images_per_canvas: 4 with multi-formation, else 1.
    precisions: number formats of distilling and of judging; where nothing was distilled, of judging
    alone.
    departures: those that no other field tells and that change figures.
    """

    dataset: str
    validate: int
    ipc: int
    method: str | None
    recipe: str | None
    init: str | None
    network: str
    iterations: int
    epochs: int
    judge_steps: int
    images_per_canvas: int
    chroma: str
    precisions: tuple[str, ...]
    train_images: int
    test_images: int
    data_sha256: str
    departures: tuple[Departure, ...]

    @property
    def whole(self):
        """Whether the data is all of a known dataset."""
        spec = recipes.DATASETS.get(self.dataset)
        sizes = (self.train_images, self.test_images)
        return spec is not None and sizes == (spec.train, spec.test)

    @property
    def same_data(self):
        """What runs on the same images have in common."""
        return self.dataset, self.train_images, self.test_images, self.data_sha256


@dataclass(frozen=True)
class Evaluation:
    """What the judges of an architecture found at an iteration.

    accuracies: in [0, 1], one for each judge.
    """

    judge: str
    iteration: int
    experiment: int
    accuracies: list[float]


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended. args: all its flags."""

    kind: Kind
    args: dict
    evaluations: list[Evaluation]

    @property
    def seed(self):
        return self.args["seed"]

    @property
    def judges(self):
        """The architectures that judged it, each once."""
        return list(dict.fromkeys(evaluation.judge for evaluation in self.evaluations))


# Flags that Kind tells in fields of their own, or that change no figure.
_TOLD = (
    "aug", "chroma", "Iteration", "model", "num_exp", "num_eval", "eval_interval", "eval_mode",
    "epoch_eval_train", "judge_steps", "validate",
)  # fmt: skip


# What the first event of a log has at least, what its args have, and what they may lack.
_OF_A_START = {
    "args": entries.DICTIONARY,
    "departures": entries.DICTIONARY,
    "train_images": whole(0),
    "test_images": whole(0),
    "data_sha256": TEXT,
}
_OF_ARGS = {
    "dataset": TEXT,
    "seed": whole(0),
    "ipc": whole(1),
    "method": entries.one_of(*METHODS),
    "model": TEXT,
    "init": TEXT,
    "aug": entries.SWITCH,
    "Iteration": whole(0),
    "epoch_eval_train": whole(0),
    "syn_ce": entries.SWITCH,
    "ce_weight": NUMBER,
}
_OF_LATER_ARGS = {
    "recipe": TEXT,
    "chroma": TEXT,
    "judge_steps": whole(0),
    "validate": whole(0),
    **{f"{name}_weight": NUMBER for name in TERMS},
}
_OF_AN_EVALUATION = {
    "network": TEXT,
    "it": whole(0),
    "exp": whole(0),
    "accuracy": FRACTIONS,
}


def read_run(log):
    """The `FinishedRun` of a log, or None if it did not end. UserError if it is damaged."""
    wrong = f"{log}: not a log of these scripts, or a damaged one"
    with damaged(wrong):
        lines = Path(log).read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        if not events or events[-1]["event"] != "end":
            return None
        fault = _fault_of_events(events)
        if fault:
            raise DamagedError(f"{wrong} ({fault})")
        start = events[0]
        evaluations = [
            Evaluation(event["network"], event["it"], event["exp"], event["accuracy"])
            for event in events
            if event["event"] == "evaluation"
        ]
        return FinishedRun(_kind(start), start["args"], evaluations)


def _fault_of_events(events):
    """In words, the first entry of a log's events that no table could show, or ""."""
    start = events[0]
    fault = entries.fault(start, _OF_A_START)
    fault = fault or entries.fault(start["args"], _needed_args(start["args"]), _OF_LATER_ARGS)
    if fault:
        return f"line 1: {fault}"
    for number, event in enumerate(events, 1):
        if event["event"] == "evaluation":
            fault = entries.fault(event, _OF_AN_EVALUATION)
            if fault:
                return f"line {number}: {fault}"
    return ""


def _needed_args(args):
    """{flag: entries.Kind} of what the args of a log have at least, by their method."""
    needed = dict(_OF_ARGS)
    if args.get("method") in list(METHODS):
        for name in terms_of(args["method"]):
            needed |= dict.fromkeys(TERMS[name].settings, TEXT)
    return needed


def _kind(start):
    """The `Kind` of a run, by the first event of its log."""
    # Logs of earlier versions lack the flags that came later.
    args = {"recipe": "paper", "chroma": "full", "judge_steps": 0, "validate": 0} | start["args"]
    distilled = args["Iteration"] > 0
    told = _TOLD if distilled else (*_TOLD, "init", *flags.OF_DISTILLING)
    departures = start["departures"]
    if distilled and args["recipe"] == "ours":
        departures = _from_our_recipe(args)
    works = ("distilling", "judging") if distilled else ("judging",)
    return Kind(
        dataset=args["dataset"],
        validate=args["validate"],
        ipc=args["ipc"],
        method=args["method"] if distilled else None,
        recipe=args["recipe"] if distilled else None,
        init=None if distilled else args["init"],
        network=args["model"],
        iterations=args["Iteration"],
        epochs=0 if args["judge_steps"] else args["epoch_eval_train"],
        judge_steps=args["judge_steps"],
        images_per_canvas=4 if args["aug"] else 1,
        chroma=args["chroma"],
        precisions=tuple(_precision(start, work) for work in works),
        train_images=start["train_images"],
        test_images=start["test_images"],
        data_sha256=start["data_sha256"],
        departures=tuple(
            Departure(flag, str(value))
            for flag, (value, _) in departures.items()
            if flag not in told
        ),
    )


def _from_our_recipe(args):
    """The departures {flag: (value, usual value)} of a run of our recipe from what it is now.

    Our recipe changes between versions. A run of an earlier one is a run with other flags.
    args: the run's flags, without those that came later.
    """
    settings, _ = recipes.recipe(args["dataset"], args["ipc"], args["method"], "ours")
    return flags.departures({**flags.DEFAULTS, **args}, {**flags.DEFAULTS, **settings})


def _precision(start, work):
    """The number format of "distilling" or "judging"."""
    if "computed" in start:
        computed = start["computed"][work]
        fault = entries.fault(computed, {"precision": TEXT})
        if fault:
            raise ValueError(f"line 1: {fault}")
        return computed["precision"]
    # Logs of earlier versions hold it in words only.
    return compute.settings_in(start["arithmetic"][work]).precision


def logs_below(folder):
    """The logs below a folder, in the order of their paths."""
    return sorted(Path(folder).rglob("log_*.jsonl"))


def read_runs(logs):
    """The `FinishedRun`s of logs. A message says which log cannot be read."""
    found = []
    for log in logs:
        try:
            run = read_run(log)
        except UserError as error:
            messages.info(f"skipped: {error}")
            continue
        except OSError as error:  # a folder of that name, a link to nowhere, no permission
            messages.info(f"skipped: {log}: {error.strerror}")
            continue
        if run:
            found.append(run)
    return found


@dataclass
class Experiment:
    """One experiment of a run and what the judges of one architecture found.

    accuracies: {iteration: [accuracy in [0, 1] per judge]}.
    """

    seed: int
    number: int
    accuracies: dict[int, list[float]]

    @property
    def last(self):
        """The accuracies after the last iteration."""
        return self.accuracies[max(self.accuracies)]

    def copies(self, other):
        """Whether one of the two is the other, or the other with fewer judges."""
        if (self.seed, self.number) != (other.seed, other.number):
            return False
        judges = min(len(self.last), len(other.last))
        return self.last[:judges] == other.last[:judges]

    def tells_more_than(self, other):
        """Of copies: whether this one has more judges, or as many at more iterations."""
        mine = (len(self.last), len(self.accuracies))
        return mine > (len(other.last), len(other.accuracies))


@dataclass
class Judged:
    """The experiments of all runs of a kind, judged by one architecture.

    args: the flags of the first run.
    """

    kind: Kind
    judge: str
    args: dict = field(compare=False)
    experiments: list[Experiment] = field(default_factory=list)

    @property
    def last(self):
        """[[accuracy in [0, 1] per judge] per experiment] after the last iteration."""
        return [experiment.last for experiment in self.experiments]

    def add(self, new):
        """Count an experiment, a copy once.

        Copies are a job array's part beside the joined file, or the same run with fewer judges or
        evaluations. The same seed with another outcome, such as that of another number of
        processes, is an experiment more.
        """
        for place, known in enumerate(self.experiments):
            if new.copies(known):
                if new.tells_more_than(known):
                    self.experiments[place] = new
                return
        self.experiments.append(new)


def by_kind(runs):
    """The runs as [`Judged`], one for every kind and architecture of judges."""
    found = {}
    for run in runs:
        for judge in run.judges:
            judged = found.setdefault((run.kind, judge), Judged(run.kind, judge, run.args))
            for experiment in _experiments(run, judge):
                judged.add(experiment)
    return [judged for judged in found.values() if judged.experiments]


def _experiments(run, judge):
    """The experiments of a run that were judged at its end."""
    found = {}
    for evaluation in run.evaluations:
        if evaluation.judge == judge:
            accuracies = found.setdefault(evaluation.experiment, {})
            accuracies[evaluation.iteration] = evaluation.accuracies
    return [
        Experiment(run.seed, number, accuracies)
        for number, accuracies in sorted(found.items())
        if run.kind.iterations in accuracies
    ]


@dataclass
class KeptScores:
    """Rows that evaluate.py --format json wrote, of one dataset and protocol.

    rows: a JSON object each.
    """

    dataset: str
    protocol: str
    rows: list[dict] = field(default_factory=list)


# What a row of evaluate.py has at least.
_OF_A_ROW = {
    "set": TEXT,
    "name": TEXT,
    "layout": TEXT,
    "dataset": TEXT,
    "protocol": TEXT,
    "network": TEXT,
    "networks": whole(1),
    "accuracy": EXPERIMENTS,
    "mean": NUMBER,
    "std": NUMBER,
    "std_networks": NUMBER,
    "std_experiments": entries.or_none(NUMBER),
    "stored per class": TEXT,
    "decoded per class": TEXT,
    "seconds": NUMBER,
}
# What only some rows have.
_OF_SOME_ROWS = {
    "recorded": NUMBER,
    "recorded std": NUMBER,
    "best epoch on test (biased)": NUMBER,
    "validate": whole(0),
}
# Figures that stand beside their spread, and only in some rows: fair.NAMES.
_FRACTIONS = ("IOR", "HLR", "LRS")


def kept_scores(folder):
    """The `KeptScores` in .jsonl files below a folder, in the order in which they are found.

    A message says which file cannot be read.
    """
    found = {}
    for path in sorted(Path(folder).rglob("*.jsonl")):
        if path.name.startswith("log_"):
            continue
        try:
            rows = read_scores(path)
        except UserError as error:
            messages.info(f"skipped: {error}")
            continue
        except OSError as error:
            messages.info(f"skipped: {path}: {error.strerror}")
            continue
        for row in rows:
            names = (row["dataset"], row["protocol"])
            found.setdefault(names, KeptScores(*names)).rows.append(row)
    return list(found.values())


def read_scores(path):
    """The rows of evaluate.py in a file of lines; those of other programs are left out.

    OSError if the file cannot be read, UserError if a row has a value that no table could show.
    """
    rows = []
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and row.keys() >= _OF_A_ROW.keys():
                fault = _fault_of_row(row)
                if fault:
                    where = f"line {number} is a damaged row of evaluate.py"
                    raise DamagedError(f"{path}: {where} ({fault})")
                rows.append(row)
    return rows


def _fault_of_row(row):
    """In words, the first entry of a row that no table could show, or ""."""
    needed = dict(_OF_A_ROW)
    for name in _FRACTIONS:
        if name in row:
            needed |= {name: NUMBER, f"{name} spread": NUMBER}
    if "recorded" in row:
        needed["recorded networks"] = whole(1)
    return entries.fault(row, needed, _OF_SOME_ROWS)
