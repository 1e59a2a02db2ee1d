"""Figures over judges and experiments, and the tables and plots of finished runs, which are read from their logs."""

import contextlib
import dataclasses
import json
import statistics
from pathlib import Path

import figures
from utils import UserError


def summary(accuracies):
    """Figures over experiments: accuracies [[per network] per experiment], in [0, 1], to a dict in percent.

    mean and std (population) are over all networks; std_networks is the spread of networks within an experiment,
    std_experiments that of the experiments' means (None for a single experiment).
    """
    percent = [[100 * a for a in experiment] for experiment in accuracies]
    every = [a for experiment in percent for a in experiment]
    within = statistics.fmean(statistics.pvariance(experiment) for experiment in percent) ** 0.5
    between = statistics.pstdev([statistics.fmean(e) for e in percent]) if len(percent) > 1 else None
    return {
        "mean": statistics.fmean(every),
        "std": statistics.pstdev(every),
        "networks": len(every),
        "std_networks": within,
        "std_experiments": between,
    }


def of_scores(by_architecture):
    """A text table of `summary` per architecture: {name: [[accuracy per network] per experiment]}."""
    rows = []
    for name, accuracies in by_architecture.items():
        s = summary(accuracies)
        row = {"network": name, "accuracy %": _figure(s), "networks": s["networks"]}
        rows.append(row | {"std networks": f"{s['std_networks']:.2f}", "std experiments": _std(s["std_experiments"])})
    return render(rows)


def render(rows, markdown=False):
    """A table of rows, each {column: cell}, as text or Markdown; a cell that a row lacks is '-'."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([str(row.get(column, "-")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    if markdown:
        lines.insert(1, ["-" * width for width in widths])
    padded = [[f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines]
    if markdown:
        return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _figure(s):
    return f"{s['mean']:.2f} +- {s['std']:.2f}"


def _std(value):
    return "-" if value is None else f"{value:.2f}"


# Top-1 test accuracy in percent at ipc 50, 10 and 1, with ConvNet-3, as the paper's page gives it.
PAPER = {
    "DM": {
        "MNIST": (94.8, 94.3, 89.2), "CIFAR10": (63, 48.9, 26), "CIFAR100": (43.6, 29.7, 11.4),
        "TinyImageNet": (None, 12.9, 3.9),
    },
    "IDM": {
        "MNIST": (97.01, 96.26, 93.82), "FashionMNIST": (84.03, 82.53, 78.23), "SVHN": (87.5, 82.95, 69.45),
        "CIFAR10": (67.5, 58.6, 45.6), "CIFAR100": (50, 45.1, 20.1), "TinyImageNet": (None, 21.9, 10.1),
    },
    "BACON": {
        "MNIST": (98.01, 97.3, 94.15), "FashionMNIST": (85.52, 84.23, 78.48), "SVHN": (89.1, 84.64, 69.04),
        "CIFAR10": (70.06, 62.06, 45.62), "CIFAR100": (49.44, 46.15, 23.68), "TinyImageNet": (None, 21.7, 9.7),
    },
}  # fmt: skip


def paper_figure(method, dataset, ipc):
    """The paper's accuracy in percent, or None where it gives none."""
    return dict(zip((50, 10, 1), PAPER.get(method, {}).get(dataset, ()), strict=False)).get(ipc)


# How many training and test images the whole datasets have.
WHOLE = {
    "MNIST": (60000, 10000), "FashionMNIST": (60000, 10000), "SVHN": (73257, 26032), "CIFAR10": (50000, 10000),
    "CIFAR100": (50000, 10000), "TinyImageNet": (100000, 10000), "Digits": (1201, 596),
}  # fmt: skip

_TERMS = ("lh_weight", "tv_weight", "clip_weight", "clip_prior", "syn_ce", "ce_weight")  # what an ablation varies
# Flags that a table shows in columns of their own, or that change no figure.
_COLUMNS = ("aug", "Iteration", "model", "num_exp", "num_eval", "eval_interval", "eval_mode", "epoch_eval_train")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run as its log tells it. scores: {architecture: {iteration: {experiment: [accuracy in [0,1]]}}}."""

    args: dict
    precision: str  # the number format inside the networks, where it differs of distilling/judging: fp32 or bf16
    data: str  # whole or a subset, and the start of the hash over its images and labels
    flags: tuple  # those that depart from the recipe, without what the table shows in columns of its own
    scores: dict

    @property
    def what(self):
        """The method, or the baseline that a run without iterations is."""
        return self.args["method"] if self.args["Iteration"] else f"random ({self.args['init']})"

    def about(self, network):
        """What was run, but for the seed: runs that agree in it are one cell of a table."""
        args = self.args
        return {
            "dataset": args["dataset"], "ipc": args["ipc"], "set": self.what,
            "images/canvas": "four" if args["aug"] else "one", "distilled with": args["model"],
            "iterations": args["Iteration"], "judge": network, "epochs": args["epoch_eval_train"],
            "precision": self.precision, "data": self.data,
            "other flags": " ".join(f"--{name} {value}" for name, value in self.flags),
        }  # fmt: skip


def read_run(log):
    """The `FinishedRun` of a log, or None if it did not end. UserError if it is damaged."""
    try:
        events = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
        if not events or events[-1]["event"] != "end":
            return None
        start = events[0]
        args, departures = start["args"], start["departures"]
        shown = _COLUMNS if args["Iteration"] else (*_COLUMNS, "init")  # see `what`
        flags = tuple((name, value) for name, (value, _) in departures.items() if name not in shown)
        sizes = start["train_images"], start["test_images"]
        whole = "whole" if WHOLE.get(args["dataset"]) == sizes else f"{sizes[0]}+{sizes[1]}"
        scores = {}
        for event in events:
            if event["event"] == "evaluation":
                by_it = scores.setdefault(event["network"], {})
                by_it.setdefault(event["it"], {})[event["exp"]] = event["accuracy"]
        kinds = ("distilling", "judging") if args["Iteration"] else ("judging",)
        formats = ["bf16" if "bf16" in start["arithmetic"][kind] else "fp32" for kind in kinds]
        precision = "/".join(dict.fromkeys(formats))
        return FinishedRun(args, precision, f"{whole} {start['data_sha256'][:8]}", flags, scores)
    except OSError as error:
        raise UserError(f"{log}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{log}: not a log of these scripts ({type(error).__name__})") from error


def finished_runs(folder, flag="--table"):
    """The runs that ended, by the logs below `folder`. UserError if there is no such folder or a log is damaged."""
    if not Path(folder).is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    runs = (read_run(log) for log in sorted(Path(folder).rglob("log_*.jsonl")))
    return [run for run in runs if run]


def _by_kind(runs):
    """[(about, experiments, a run)] for every kind of run and its judge, an architecture.

    experiments: {(seed, experiment, number): {iteration: [accuracy]}}. A copy, such as a job array's part beside the
    joined file or the same run with fewer judges or evaluations, counts once. The same seed with another outcome, such
    as that of another number of processes, is an experiment more.
    """
    found = {}
    for run in runs:
        for network, by_it in run.scores.items():
            about = run.about(network)
            _, experiments, _ = found.setdefault(tuple(about.values()), (about, {}, run))
            for exp in sorted(by_it.get(run.args["Iteration"], ())):
                _add(experiments, run.args["seed"], exp, {it: at[exp] for it, at in by_it.items() if exp in at})
    return [kind for kind in found.values() if kind[1]]


def _add(experiments, seed, exp, by_it):
    last = by_it[max(by_it)]
    for key, other in experiments.items():
        theirs = other[max(other)]
        if key[:2] == (seed, exp) and last[: len(theirs)] == theirs[: len(last)]:  # the same judges, or some of them
            if (len(last), len(by_it)) > (len(theirs), len(other)):
                experiments[key] = by_it
            return
    experiments[seed, exp, len(experiments)] = by_it


def of_runs(folder, biased=False):
    """The finished runs below `folder` as tables: {title: rows for `render`}.

    biased: add the best iteration by test accuracy, which several released codes report.
    """
    kinds = _by_kind(finished_runs(folder))
    if not kinds:
        raise UserError(f"--table {folder}: no finished run below it")
    paper, details, ablations = {}, [], {}
    for about, experiments, run in kinds:
        scores = [by_it[about["iterations"]] for by_it in experiments.values()]
        s = summary(scores)
        figure, dataset, ipc = _figure(s), about["dataset"], about["ipc"]
        published = paper_figure(about["set"], dataset, ipc)
        budget = f"{about['iterations']} it, {about['epochs']} epochs"
        row = {"set": about["set"], "images/canvas": about["images/canvas"], "network": about["distilled with"]}
        row |= {name: about[name] for name in ("judge", "precision")} | {"budget": budget, "data": about["data"]}
        key = (*row.values(), about["other flags"])
        cell = f"{figure} (paper {published})" if published else figure
        paper.setdefault(key, dict(row))[f"{dataset} ipc {ipc}"] = cell
        if about["other flags"]:
            paper[key]["other flags"] = paper[key].pop("other flags", about["other flags"])  # the last column
        detail = {"dataset": dataset, "ipc": ipc, **row, "mean %": f"{s['mean']:.2f}", "std": f"{s['std']:.2f}"}
        detail |= {"std networks": f"{s['std_networks']:.2f}", "std experiments": _std(s["std_experiments"])}
        detail |= {"networks": s["networks"], "experiments": len(scores)}
        if biased:
            best = [max(map(statistics.fmean, by_it.values())) for by_it in experiments.values()]
            detail["best iteration on test (biased)"] = f"{100 * statistics.fmean(best):.2f}"
        details.append(detail | {"other flags": about["other flags"] or "-"})
        if about["set"] == "BACON":
            others = " ".join(f"--{name} {value}" for name, value in run.flags if name not in _TERMS)
            kind = {"dataset": dataset, "ipc": ipc, **row, "other flags": others or "-"}
            terms = {"log-likelihood": run.args["lh_weight"], "total variation": run.args["tv_weight"]}
            terms["clip prior"] = f"{run.args['clip_weight']} {run.args['clip_prior']}"
            terms["cross-entropy"] = run.args["ce_weight"] if run.args["syn_ce"] else 0
            line = {**kind, **terms, "accuracy %": figure, "networks": s["networks"]}
            ablations.setdefault(tuple(kind.values()), []).append(line)
    title = "Accuracy in percent, mean +- std over all networks (in brackets the paper's, at its own budget)"
    tables = {title: list(paper.values()), "What is behind each figure": details}
    if rows := [row for group in ablations.values() if len(group) > 1 for row in group]:
        tables["Weights of BACON's terms"] = rows
    return tables


def plot_run(log, path=None):
    """Draw the accuracy over iterations of the run that wrote `log`, or of the runs of one kind below a folder.

    Returns the path of the PNG, by default acc_*.png beside log_*.jsonl. Runs with other settings have a curve of their
    own, and every point of a curve is of the same experiments: those that were judged most often. Beside the curves:
    the paper's figure and, if a run with --Iteration 0 on the same data and with the same judges is found in the same
    folder or one beside it, the accuracy of random images, of the same seeds if there are such. UserError where there
    is nothing to draw.
    """
    log = Path(log)
    path = path or log.with_name("acc_" + log.stem.removeprefix("log_") + ".png")
    runs = finished_runs(log, "--plot") if log.is_dir() else [run for run in [_read_existing(log)] if run]
    runs = [run for run in runs if run.args["Iteration"]]
    kinds = {(*(run.args[name] for name in ("dataset", "ipc", "model", "Iteration")), run.data) for run in runs}
    if len(kinds) != 1:
        raise UserError(f"--plot {log}: holds finished runs of {len(kinds)} kinds (dataset, ipc, network), needs one")
    ((dataset, ipc, model, iterations, _),) = kinds
    run, curves, lines = runs[0], _curves(runs), {}
    for method in dict.fromkeys(r.what for r in runs):
        if published := paper_figure(method, dataset, ipc):
            lines[f"the paper's {method} (ConvNet, full budget)"] = published
    near = (log if log.is_dir() else log.parent).resolve()
    logs = {*near.rglob("log_*.jsonl"), *near.parent.glob("*/log_*.jsonl")}
    random = []
    for other in sorted(logs):
        with contextlib.suppress(UserError):  # a damaged log of another run does not matter here
            random.append(read_run(other))
    random = [other for other in random if other and not other.args["Iteration"]]
    alike = ("dataset", "ipc", "aug", "init", "epoch_eval_train", "lr_net", "batch_train", "dsa_strategy", "zca")
    seeds = {r.args["seed"] for r in runs}
    random = [other for other in random if other.args["seed"] in seeds] or random
    for network in run.scores:
        found = [
            accuracy
            for other in random
            if other.data == run.data and all(other.args[name] == run.args[name] for name in alike)
            for accuracies in other.scores.get(network, {}).get(0, {}).values()
            for accuracy in accuracies
        ]
        if found:
            lines[f"random images, judged by {network}"] = 100 * statistics.fmean(found)
    figures.curve(curves, lines, f"{dataset}, ipc {ipc}, {model}, {iterations:,} iterations", path)
    return path


def _curves(runs):
    """{label: {iteration: [accuracy in percent]}} of runs of one kind; a label says in what its runs differ."""
    kinds, common = _by_kind(runs), set.intersection(*(set(run.flags) for run in runs))
    curves = {}
    for about, experiments, run in kinds:
        label = f"{about['set']}, judged by {about['judge']}"
        label += "".join(f", --{name} {value}" for name, value in run.flags if (name, value) not in common)
        for name in ("images/canvas", "epochs", "precision"):
            if len({other[name] for other, _, _ in kinds}) > 1:
                label += f", {name} {about[name]}"
        together = {}  # experiments that were judged at the same iterations
        for by_it in experiments.values():
            together.setdefault(frozenset(by_it), []).append(by_it)
        drawn = max(together, key=lambda its: (len(its), len(together[its])))
        curves[label] = {it: [100 * a for by_it in together[drawn] for a in by_it[it]] for it in sorted(drawn)}
    return curves


def _read_existing(log):
    if not log.is_file():
        raise UserError(f"--plot {log}: no such file or folder")
    return read_run(log)
