"""Figures over judges and experiments, and the tables and plots of finished runs, which are read from their logs."""

import collections
import contextlib
import itertools
import json
import math
import os
import statistics
import textwrap
from pathlib import Path

from bacon import figures, outputs
from bacon.data.known_classes import plain
from bacon.errors import UserError, damaged
from bacon.recipes import DATASETS, paper_figure

WIDTH = 120  # columns of a text table at most
CUT = 20  # characters that a cell keeps where only its ends are shown


def summary(accuracies):
    """Figures over experiments: accuracies [[per network] per experiment], in [0, 1], to a dict in percent.

    mean and std (population) are over all networks; std_networks is the spread of networks within an experiment,
    std_experiments that of the experiments' means (None for a single experiment).
    """
    percent = [[100 * a for a in experiment] for experiment in accuracies]
    every = list(itertools.chain(*percent))
    within = statistics.fmean(map(statistics.pvariance, percent)) ** 0.5
    between = statistics.pstdev(map(statistics.fmean, percent)) if len(percent) > 1 else None
    mean, std = statistics.fmean(every), statistics.pstdev(every)
    return {
        "mean": mean,
        "std": std,
        "networks": len(every),
        "std_networks": within,
        "std_experiments": between,
    }


def as_fractions(recorded):
    """Accuracies that somebody recorded, [[per network] per experiment]: (fractions, what to say).

    fractions: the same in [0, 1], or None where they are no accuracies. Numbers up to 100 are percent
    if one is above 1.
    """
    every = list(itertools.chain(*recorded))
    if missing := sum(not math.isfinite(number) for number in every):
        return None, f"{missing} of {len(every)} are NaN or infinite, so none is shown"
    if min(every) < 0 or max(every) > 100:
        return None, f"{min(every):g} to {max(every):g} are no accuracies, so none is shown"
    if max(every) <= 1:
        return recorded, ""
    in_percent = [[number / 100 for number in experiment] for experiment in recorded]
    return in_percent, f"up to {max(every):g}, taken for percent"


def cells(s):
    """A `summary` as a table shows it."""
    between = "-" if s["std_experiments"] is None else f"{s['std_experiments']:.2f}"
    spread = {
        "networks": s["networks"],
        "std networks": f"{s['std_networks']:.2f}",
        "std experiments": between,
    }
    return {"accuracy %": f"{s['mean']:.2f} +- {s['std']:.2f}", **spread}


def of_scores(by_architecture):
    """A text table of `summary` per architecture: {name: [[accuracy per network] per experiment]}."""
    return render(
        [{"network": name, **cells(summary(scores))} for name, scores in by_architecture.items()]
    )


def render(rows, markdown=False, cut=None):
    """A table of rows, each {column: cell}, as Markdown or as text of WIDTH columns; a cell that a row lacks is '-'.

    Where text would be wider, the cells of the column `cut` lose their middle, but for CUT characters, then those of
    the widest column go on in the lines below.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown = _markdown if markdown else plain
    lines = [columns, *([shown(row.get(column, "-")) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left, gap, right = ("| ", " | ", " |") if markdown else ("", "  ", "")
    if markdown:
        lines.insert(1, ["-" * width for width in widths])
    else:
        excess = sum(widths) + len(gap) * (len(widths) - 1) - WIDTH
        if excess > 0 and cut in columns and widths[k := columns.index(cut)] > CUT:
            excess, widths[k] = max(0, excess + CUT - widths[k]), max(CUT, widths[k] - excess)
            for line in lines:
                if len(line[k]) > widths[k]:
                    line[k] = (
                        line[k][: (widths[k] - 3) // 2] + "..." + line[k][-((widths[k] - 2) // 2) :]
                    )
        widths[widths.index(max(widths))] -= max(0, excess)
    text = []
    for line in lines:
        wrapped = (
            textwrap.wrap(cell, max(1, w), break_on_hyphens=False)
            for cell, w in zip(line, widths, strict=True)
        )
        for part in itertools.zip_longest(*wrapped, fillvalue=""):
            text.append((left + gap.join(map(str.ljust, part, widths)) + right).rstrip())
    return "\n".join(text)


def _markdown(cell):
    """A cell whose characters neither end it nor start mathematics."""
    return plain(cell).replace("|", r"\|").replace("$", r"\$")


def pick(lines, columns):
    """Of lines, each {column: cell}, those of `columns` in which one of them has something; elsewhere '-'."""
    used = [
        column for column in columns if any(line.get(column) not in (None, "") for line in lines)
    ]
    return [
        {column: "-" if line.get(column) in (None, "") else line[column] for column in used}
        for line in lines
    ]


# Flags that a table shows in columns or words of their own, or that change no figure.
_COLUMNS = (
    "aug", "chroma", "Iteration", "model", "num_exp", "num_eval", "eval_interval", "eval_mode", "epoch_eval_train",
    "judge_steps", "validate",
)  # fmt: skip
BIASED = "best iteration on test (biased)"
_TERMS = (
    "log-likelihood",
    "total variation",
    "clip prior",
    "cross-entropy",
)  # of BACON's loss, and their flags
_TERM_FLAGS = (
    "--lh_weight",
    "--tv_weight",
    "--clip_weight",
    "--clip_prior",
    "--syn_ce",
    "--ce_weight",
)
_WHOLE = "all images"  # how a row says that its data is not a part

# A finished run as its log tells it: its flags; what was run, but for the seed (runs that agree in it and in the judge
# are one row of a table); {architecture: {iteration: {experiment: [accuracy in [0,1]]}}}.
FinishedRun = collections.namedtuple("FinishedRun", "args about scores")


def read_run(log):
    """The `FinishedRun` of a log, or None if it did not end. UserError if it is damaged."""
    with damaged(f"{log}: not a log of these scripts"):
        events = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
        if not events or events[-1]["event"] != "end":
            return None
        start, scores = events[0], {}
        for event in events:
            if event["event"] == "evaluation":
                scores.setdefault(event["network"], {}).setdefault(event["it"], {})[
                    event["exp"]
                ] = event["accuracy"]
        args, sizes = start["args"], (start["train_images"], start["test_images"])
        shown, kinds = _COLUMNS, ("distilling", "judging")
        if not args["Iteration"]:  # random images: that is the set, which its judges alone computed
            shown, kinds = (*_COLUMNS, "init"), ("judging",)
        formats = ["bf16" if "bf16" in start["arithmetic"][kind] else "fp32" for kind in kinds]
        spec = DATASETS.get(args["dataset"])
        whole = (
            _WHOLE if spec and sizes == (spec.train, spec.test) else f"{sizes[0]}+{sizes[1]} images"
        )
        held, steps = args.get("validate"), args.get("judge_steps")
        kind = "one per cluster" if args["init"] == "cluster" else f"random ({args['init']})"
        if args["Iteration"]:
            kind = "ours" if args.get("recipe") == "ours" else args["method"]
        about = {
            "dataset": args["dataset"] + (f", validation ({held} images per class)" if held else ""),
            "ipc": args["ipc"], "set": kind, "network": args["model"], "iterations": args["Iteration"],
            "epochs": args["epoch_eval_train"],
            "training": f"{steps:,} steps" if steps else f"{args['epoch_eval_train']:,} epochs",
            "images per canvas": "four" if args["aug"] else "one", "chroma": args.get("chroma", "full"),
            "precision": "/".join(dict.fromkeys(formats)),
            "data": f"{whole} {start['data_sha256'][:8]}",
            "flags": tuple(f"--{name} {to}" for name, (to, _) in start["departures"].items() if name not in shown),
        }  # fmt: skip
        return FinishedRun(args, about, scores)


def _read_runs(logs, say):
    """The finished runs of logs in a folder. One that cannot be read gets a line, no more."""
    runs = []
    for log in logs:
        try:
            run = read_run(log)
        except UserError as error:
            say(f"skipped: {error}")
        except OSError as error:  # a folder of that name, a link to nowhere, no permission
            say(f"skipped: {log}: {error.strerror}")
        else:
            if run:
                runs.append(run)
    return runs


def _by_kind(runs):
    """[(about, experiments, a run)] for every kind of run and its judge, an architecture, which `about` names too.

    experiments: {(seed, experiment, number): {iteration: [accuracy]}}. A copy, such as a job array's part beside the
    joined file or the same run with fewer judges or evaluations, counts once. The same seed with another outcome, such
    as that of another number of processes, is an experiment more.
    """
    found = {}
    for run in runs:
        for judge, by_it in run.scores.items():
            about = {**run.about, "judge": judge}
            _, experiments, _ = found.setdefault(tuple(about.values()), (about, {}, run))
            for exp in sorted(by_it.get(run.args["Iteration"], ())):
                _add(
                    experiments,
                    run.args["seed"],
                    exp,
                    {it: at[exp] for it, at in by_it.items() if exp in at},
                )
    return [kind for kind in found.values() if kind[1]]


def _add(experiments, seed, exp, by_it):
    last = by_it[max(by_it)]
    for key, other in experiments.items():
        theirs = other[max(other)]
        if (
            key[:2] == (seed, exp) and last[: len(theirs)] == theirs[: len(last)]
        ):  # the same judges, or some of them
            if (len(last), len(by_it)) > (len(theirs), len(other)):
                experiments[key] = by_it
            return
    experiments[seed, exp, len(experiments)] = by_it


def of_runs(folder, biased=False, say=print):
    """For every kind of run below `folder` and its judge a row with all that is known.

    biased: also BIASED. say: gets a line about each log that cannot be read.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--table {folder}: no such folder")
    rows, logs = [], sorted(Path(folder).rglob("log_*.jsonl"))
    for about, experiments, run in _by_kind(_read_runs(logs, say)):
        scores, args = [by_it[about["iterations"]] for by_it in experiments.values()], run.args
        row = {**about, **summary(scores), "experiments": len(scores), "accuracy": scores}
        row["paper %"] = paper_figure(about["set"], about["dataset"], about["ipc"])
        if spec := DATASETS.get(args["dataset"]):
            row["numbers"] = args["ipc"] * spec.channels * math.prod(spec.im_size)
        row["images"] = (
            args["ipc"] * (4 if args["aug"] else 1) * (2 if args.get("chroma") == "half" else 1)
        )
        if biased:
            best = [max(map(statistics.fmean, by_it.values())) for by_it in experiments.values()]
            row[BIASED] = round(100 * statistics.fmean(best), 2)
        if about["set"] == "BACON":
            clip, ce = (
                f"{args['clip_weight']} {args['clip_prior']}",
                args["ce_weight"] if args["syn_ce"] else 0,
            )
            row |= zip(_TERMS, (args["lh_weight"], args["tv_weight"], clip, ce), strict=True)
        rows.append(row)
    if not rows:
        raise UserError(f"--table {folder}: no finished run below it")
    return sorted(rows, key=lambda row: (row["dataset"], row["ipc"]))


# What a row of evaluate.py has at least, as it is shown.
_OF_A_ROW = {
    "set", "name", "layout", "dataset", "protocol", "network", "networks", "accuracy", "mean",
    "std", "std_networks", "std_experiments", "stored per class", "decoded per class", "seconds",
}  # fmt: skip


def kept_scores(folder, say=print):
    """Rows of evaluate.py in the files below `folder` that its --format json filled, by their protocol."""
    kept = {}
    for path in sorted(
        path for path in Path(folder).rglob("*.jsonl") if not path.name.startswith("log_")
    ):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            say(f"skipped: {path}: {error.strerror}")
            continue
        for line in lines:
            with contextlib.suppress(ValueError):  # somebody else's file
                row = json.loads(line)
                if isinstance(row, dict) and row.keys() >= _OF_A_ROW:
                    kept.setdefault(f"{row['dataset']}: {row['protocol']}", []).append(row)
    return kept


def shown(rows, details=False):
    """Tables of the rows of `of_runs`, by dataset: {title: rows for `render`}; details: also what is behind them."""
    tables = {}
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of_it = [row for row in rows if row["dataset"] == dataset]
        budget = "; the paper's at its own budget" if any(row["paper %"] for row in of_it) else ""
        split = "" if "validation" in dataset else "test "
        title = f"{dataset}: {split}accuracy, mean +- std over all networks{budget}"
        tables[title] = _table(
            of_it, ("paper %", "ipc", "set", "network", "judge", "networks", BIASED)
        )
        if not details:
            continue
        behind = (
            "std networks",
            "std experiments",
            "networks",
            "experiments",
            "ipc",
            "numbers",
            "images",
            "set",
        )
        title = f"{dataset}: what is behind each figure (numbers stored and images of a class); the same for all: "
        title += _settings(of_it, networks=True)[0]
        tables[title] = _table(of_it, behind, networks=True)
        alike = {}  # runs of BACON that differ in the weights of its terms alone
        for row in of_it:
            if row["set"] == "BACON":
                row = {
                    **row,
                    "flags": [flag for flag in row["flags"] if not flag.startswith(_TERM_FLAGS)],
                }
                alike.setdefault(str([row["ipc"], _settings([row], networks=True)]), []).append(row)
        if ablated := [row for group in alike.values() if len(group) > 1 for row in group]:
            tables[f"{dataset}: weights of BACON's terms"] = _table(
                ablated, (*_TERMS, "ipc", "judge")
            )
    return tables


def _table(rows, columns, networks=False):
    """Cells of `rows`, of one dataset: the accuracy, `columns`, and the settings that tell a row from others."""
    columns, settings = ("accuracy %", *columns, "settings"), _settings(rows, networks)[1]
    return pick(
        [{**row, **cells(row), "settings": own} for row, own in zip(rows, settings, strict=True)],
        columns,
    )


def _settings(rows, networks=False):
    """The settings of `rows`, of one dataset, in words: (what all share, [what tells a row from others]).

    Without dataset, ipc, set and, if not `networks`, the networks. Data that is a part is told of each row.
    """
    iterations, words = {row["iterations"] for row in rows} - {0}, []
    for row in rows:
        own = {row["iterations"]} - {0} or (
            iterations if len(iterations) == 1 else ()
        )  # random images have any number
        line = [f"{row['network']} judged by {row['judge']}"] if networks else []
        line += [*(f"{n:,} iterations" for n in own), row["training"]]
        chroma = ", chroma at half resolution" if row["chroma"] == "half" else ""
        line.append(f"{row['images per canvas']} per canvas{chroma}")
        words.append([*line, row["precision"], row["data"], *row["flags"]])
    shared = [word for word in words[0] if all(word in line for line in words)]
    shared = [word for word in shared if word != rows[0]["data"] or word.startswith(_WHOLE)]
    return ", ".join(shared), [
        ", ".join(word for word in line if word not in shared) for line in words
    ]


def plot_run(log, path=None, say=print):
    """Draw the accuracy over iterations of the run that wrote `log`, or of the runs of one kind below a folder.

    Returns the path of the PNG: by default acc_*.png beside log_*.jsonl, or in the folder and named after it. Beside
    the curves stand the paper's figure and that of `_random_images`. UserError where there is nothing to draw, or where
    the picture would replace another file, see outputs.check.
    """
    log = Path(log)
    if not log.exists():
        raise UserError(f"--plot {log}: no such file or folder")
    if log.is_dir():
        near = log.resolve()
        logs = sorted(log.rglob("log_*.jsonl"))
    else:
        near = log.parent.resolve()
        logs = [log]
    path = _beside(log, logs) if path is None else os.path.expanduser(path)
    output = outputs.Output("--plot", str(path), outputs.PICTURE, str(log))
    outputs.check([output], outputs.Inputs(logs))
    found = _read_runs(logs, say) if log.is_dir() else filter(None, map(read_run, logs))
    runs = [run for run in found if run.args["Iteration"]]
    kinds = {
        tuple(run.about[name] for name in ("dataset", "ipc", "network", "iterations", "data"))
        for run in runs
    }
    if len(kinds) != 1:
        raise UserError(
            f"--plot {log}: holds finished runs of {len(kinds)} kinds (dataset, ipc, network), needs one"
        )
    ((dataset, ipc, model, iterations, _),) = kinds
    published = {
        method: paper_figure(method, dataset, ipc)
        for method in dict.fromkeys(r.about["set"] for r in runs)
    }
    lines = {
        f"the paper's {method} (ConvNet, full budget)": figure
        for method, figure in published.items()
        if figure
    }
    lines |= _random_images(near, runs)
    title = f"{dataset}, ipc {ipc}, {model}, {iterations:,} iterations"
    split = ["validation"] if runs[0].args.get("validate") else []
    outputs.prepare(path)
    figures.curve(_curves(runs), lines, title, path, *split)
    return path


def _beside(log, logs):
    """Where the plot of `log`, a log or a folder of `logs`, goes by default.

    UserError if the plot of another run goes there.
    """
    if log.is_dir():
        name = log.resolve().name
        path = log / f"acc_{name}.png"
        run = log / f"log_{name}.jsonl"
        taken = run in logs and len(logs) > 1
    else:
        name = log.stem.removeprefix("log_")
        path = log.with_name(f"acc_{name}.png")
        run = log.with_name(f"log_{name}.jsonl")
        taken = run.name != log.name and run.exists()
    if taken:
        raise UserError(f"--plot {log}: {path} is the picture of {run}; name another after the log")
    return path


def _random_images(near, runs):
    """{label: accuracy in percent} of random images, by runs in the folder `near` or one beside it, for each judge."""
    run, seeds, others, lines = runs[0], {r.args["seed"] for r in runs}, [], {}
    for log in sorted({*near.rglob("log_*.jsonl"), *near.parent.glob("*/log_*.jsonl")}):
        with contextlib.suppress(
            UserError, OSError
        ):  # a damaged log of another run does not matter here
            others.append(read_run(log))
    others = [other for other in others if other and not other.args["Iteration"]]
    others = [
        other for other in others if other.args["seed"] in seeds
    ] or others  # of the same seeds if there are such
    alike = (
        "dataset",
        "ipc",
        "aug",
        "init",
        "epoch_eval_train",
        "lr_net",
        "batch_train",
        "dsa_strategy",
        "zca",
    )
    alike += ("chroma", "judge_steps", "validate")
    others = [
        other
        for other in others
        if all(other.args.get(name) == run.args.get(name) for name in alike)
    ]
    others = [other.scores for other in others if other.about["data"] == run.about["data"]]
    for judge in run.scores:
        experiments = [
            accuracies
            for scores in others
            for accuracies in scores.get(judge, {}).get(0, {}).values()
        ]
        if found := list(itertools.chain(*experiments)):
            lines[f"random images, judged by {judge}"] = 100 * statistics.fmean(found)
    return lines


def _curves(runs):
    """{label: {iteration: [accuracy in percent]}} of runs of one kind; a label says in what its runs differ."""
    kinds, curves = _by_kind(runs), {}
    for (about, experiments, _), words in zip(
        kinds, _settings([kind[0] for kind in kinds])[1], strict=True
    ):
        together = {}  # experiments that were judged at the same iterations: those judged most often are drawn
        for by_it in experiments.values():
            together.setdefault(frozenset(by_it), []).append(by_it)
        drawn = max(together, key=lambda its: (len(its), len(together[its])))
        label = ", ".join(filter(None, [about["set"], f"judged by {about['judge']}", words]))
        curves[label] = {
            it: [100 * a for by_it in together[drawn] for a in by_it[it]] for it in sorted(drawn)
        }
    return curves
