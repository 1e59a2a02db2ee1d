"""Plots of finished runs: accuracy over iterations, beside the paper's and random images."""

import contextlib
import itertools
import os
import statistics
from pathlib import Path

from bacon import figures, outputs, runs, tables
from bacon.errors import UserError


def plot_run(log, path=None):
    """Draw the accuracy over iterations of the run of `log`, or of the runs of a kind in a folder.

    Returns the path of the PNG: by default acc_*.png beside log_*.jsonl, or in the folder and named
    after it. Beside the curves stand the paper's figure and that of random images. UserError where
    there is nothing to draw, or where the picture would replace another file, see outputs.check.
    """
    log = Path(log)
    if not log.exists():
        raise UserError(f"--plot {log}: no such file or folder")
    logs = runs.logs_below(log) if log.is_dir() else [log]
    path = _beside(log, logs) if path is None else os.path.expanduser(path)
    output = outputs.Output("--plot", str(path), outputs.PICTURE, str(log))
    outputs.check([output], outputs.Inputs(logs))
    distilled = _distilled(log, logs)
    _check_one_kind(log, distilled)
    kind = distilled[0].kind
    folder = log.resolve() if log.is_dir() else log.parent.resolve()
    lines = _published(distilled) | _random_images(folder, distilled)
    name = tables.dataset_name(kind)
    title = f"{name}, ipc {kind.ipc}, {kind.network}, {kind.iterations:,} iterations"
    split = ["validation"] if kind.validate else []
    outputs.prepare(path)
    figures.curve(_curves(distilled), lines, title, path, *split)
    return path


def _distilled(log, logs):
    """The finished runs of `log`, a log or a folder of `logs`, in which something was distilled.

    A damaged log in a folder is told and left out; on its own it is an error.
    """
    found = runs.read_runs(logs) if log.is_dir() else [runs.read_run(log)]
    return [run for run in found if run and run.kind.iterations]


def _check_one_kind(log, distilled):
    """UserError unless all runs can share a plot."""
    kinds = {
        (run.kind.same_data, run.kind.validate, run.kind.ipc, run.kind.network, run.kind.iterations)
        for run in distilled
    }
    if len(kinds) != 1:
        found = f"holds finished runs of {len(kinds)} kinds (dataset, ipc, network), needs one"
        raise UserError(f"--plot {log}: {found}")


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


def _published(distilled):
    """{label: accuracy in percent} of the paper, for each method of the runs."""
    lines = {}
    for run in distilled:
        figure = tables.paper_figure(run.kind)
        if figure:
            lines[f"the paper's {run.kind.method} (ConvNet, full budget)"] = figure
    return lines


# Flags in which a run of random images agrees with those that it stands beside.
_ALIKE = ("init", "lr_net", "batch_train", "dsa_strategy", "zca")


def _is_start_of(random, run):
    """Whether `random` judged images like those with which `run` began, in the same way."""
    one = random.kind
    other = run.kind
    judged = all(
        getattr(one, name) == getattr(other, name)
        for name in ("ipc", "images_per_canvas", "chroma", "validate", "epochs", "judge_steps")
    )
    flags = all(random.args.get(name) == run.args.get(name) for name in _ALIKE)
    return one.same_data == other.same_data and judged and flags


def _random_images(folder, distilled):
    """{label: accuracy in percent} of random images for each judge.

    From runs in the folder or one beside it; from those with the seeds of the distilled runs, if
    there are any.
    """
    run = distilled[0]
    seeds = {one.seed for one in distilled}
    random = []
    for log in sorted({*folder.rglob("log_*.jsonl"), *folder.parent.glob("*/log_*.jsonl")}):
        # A damaged log of another run does not matter here.
        with contextlib.suppress(UserError, OSError):
            other = runs.read_run(log)
            if other and not other.kind.iterations:
                random.append(other)
    same_seed = [other for other in random if other.seed in seeds]
    random = [other for other in same_seed or random if _is_start_of(other, run)]
    lines = {}
    for judge in run.judges:
        accuracies = [
            evaluation.accuracies
            for other in random
            for evaluation in other.evaluations
            if evaluation.judge == judge
        ]
        if accuracies:
            mean = statistics.fmean(itertools.chain(*accuracies))
            lines[f"random images, judged by {judge}"] = 100 * mean
    return lines


def _curves(distilled):
    """{label: {iteration: [accuracy in percent]}}; a label says in what the runs differ."""
    every = runs.by_kind(distilled)
    curves = {}
    for judged, words in zip(every, tables.settings(every).own, strict=True):
        name = f"{tables.set_name(judged.kind)}, judged by {judged.judge}"
        label = f"{name}, {words}" if words else name
        curves[label] = _curve(judged)
    return curves


def _curve(judged):
    """{iteration: [accuracy in percent]}, of experiments that were judged at the same iterations.

    Of several such groups, the one that was judged most often, then the largest, is drawn.
    """
    together = {}
    for experiment in judged.experiments:
        together.setdefault(frozenset(experiment.accuracies), []).append(experiment)
    drawn = max(together, key=lambda iterations: (len(iterations), len(together[iterations])))
    return {
        iteration: [
            100 * accuracy
            for experiment in together[drawn]
            for accuracy in experiment.accuracies[iteration]
        ]
        for iteration in sorted(drawn)
    }
