"""Plots of finished runs: accuracy over iterations, beside the paper's and random images."""

import contextlib
import itertools
import os
import statistics
from pathlib import Path

from bacon import figures, outputs, runs, tables
from bacon.errors import UserError


def plot_runs(sources, path=None):
    """Draw the accuracy over the iterations of runs, each source a log or a folder of runs.

    All runs are of one dataset, network and ipc; their iterations may differ. path: of the PNG;
    None only with a single source: acc_*.png beside its log_*.jsonl, or in the folder and named
    after it. Returns the path. Beside the curves stand the paper's figure and that of random
    images. UserError where there is nothing to draw, or where the picture would replace another
    file, see outputs.check.
    """
    sources = [Path(source) for source in sources]
    for source in sources:
        if not source.exists():
            raise UserError(f"--plot {source}: no such file or folder")
    logs_of = {source: _logs(source) for source in sources}
    if path is None:
        (source,) = sources
        path = _beside(source, logs_of[source])
    else:
        path = os.path.expanduser(path)
    output = outputs.Output("--plot", str(path), outputs.PICTURE, _words(sources))
    logs = list(itertools.chain(*logs_of.values()))
    outputs.check([output], outputs.Inputs(logs))
    distilled = _distilled(logs_of)
    _check_one_kind(sources, distilled)
    lines = _published(distilled) | _random_images(_folders(sources), distilled)
    kind = distilled[0].kind
    split = ["validation"] if kind.validate else []
    outputs.prepare(path)
    figures.curve(_curves(distilled), lines, _title(distilled), path, *split)
    return path


def _words(sources):
    """The sources in a message: a pattern of a shell may give hundreds."""
    if len(sources) > 2:
        return f"{sources[0]} and {len(sources) - 1} more"
    return " ".join(map(str, sources))


def _logs(source):
    """The logs of a source, which is a log or a folder of runs."""
    return runs.logs_below(source) if source.is_dir() else [source]


def _folders(sources):
    """The folder of each source: itself, or that of the log."""
    return [source.resolve() if source.is_dir() else source.parent.resolve() for source in sources]


def _distilled(logs_of):
    """The finished runs of {source: its logs} in which something was distilled.

    A damaged log in a folder is told and left out; on its own it is an error.
    """
    found = []
    for source, logs in logs_of.items():
        found += runs.read_runs(logs) if source.is_dir() else [runs.read_run(source)]
    return [run for run in found if run and run.kind.iterations]


def _check_one_kind(sources, distilled):
    """UserError unless all runs can share a plot."""
    kinds = {
        (run.kind.same_data, run.kind.validate, run.kind.ipc, run.kind.network) for run in distilled
    }
    if len(kinds) != 1:
        found = f"holds finished runs of {len(kinds)} kinds (dataset, ipc, network), needs one"
        raise UserError(f"--plot {_words(sources)}: {found}")


def _title(distilled):
    """Dataset, ipc, network and the most iterations of runs that share a plot."""
    kind = distilled[0].kind
    iterations = {run.kind.iterations for run in distilled}
    budget = f"{max(iterations):,} iterations"
    if len(iterations) > 1:
        budget = f"up to {budget}"
    return f"{tables.dataset_name(kind)}, ipc {kind.ipc}, {kind.network}, {budget}"


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


def _random_images(folders, distilled):
    """{label: accuracy in percent} of images like those with which the first run began.

    One for each of its judges, from runs in the folders or one beside them; from those with the
    seeds of the distilled runs, if there are any.
    """
    run = distilled[0]
    seeds = {one.seed for one in distilled}
    logs = set()
    for folder in folders:
        logs |= {*folder.rglob("log_*.jsonl"), *folder.parent.glob("*/log_*.jsonl")}
    starts = []
    for log in sorted(logs):
        # A damaged log of another run does not matter here.
        with contextlib.suppress(UserError, OSError):
            other = runs.read_run(log)
            if other and not other.kind.iterations and _is_start_of(other, run):
                starts.append(other)
    same_seed = [other for other in starts if other.seed in seeds]
    judged = runs.by_kind(same_seed or starts)
    by_cluster = run.args["init"] == "cluster"
    name = "initial images, one per cluster" if by_cluster else "random images"
    lines = {}
    for judge in run.judges:
        accuracies = []
        for one in judged:
            if one.judge == judge:
                for of_experiment in one.last:
                    accuracies += of_experiment
        if accuracies:
            lines[f"{name}, judged by {judge}"] = 100 * statistics.fmean(accuracies)
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
