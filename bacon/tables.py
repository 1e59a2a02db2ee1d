"""Tables: figures over judges and experiments, and what the finished runs below a folder gave."""

import itertools
import math
import statistics
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

from bacon import recipes, runs
from bacon.data.known_classes import plain
from bacon.errors import UserError
from bacon.methods import METHODS, TERMS, terms_of

WIDTH = 120  # columns of a text table at most
CUT = 20  # characters that a cell keeps where only its ends are shown
LEAST = 12  # characters of a column whose cells go on in the lines below


# Figures over judges and experiments


def summary(accuracies):
    """Figures over experiments: accuracies [[per network] per experiment], in [0, 1], in percent.

    A dictionary. mean and std (population) are over all networks; std_networks is the spread of
    networks within an experiment, std_experiments that of the experiments' means (None for a single
    experiment).
    """
    percent = [[100 * a for a in experiment] for experiment in accuracies]
    every = list(itertools.chain(*percent))
    within = statistics.fmean(map(statistics.pvariance, percent)) ** 0.5
    between = statistics.pstdev(map(statistics.fmean, percent)) if len(percent) > 1 else None
    return {
        "mean": statistics.fmean(every),
        "std": statistics.pstdev(every),
        "networks": len(every),
        "std_networks": within,
        "std_experiments": between,
    }


def as_fractions(recorded):
    """Accuracies that somebody recorded, [[per network] per experiment]: (fractions, what to say).

    fractions: the same in [0, 1], or None where they are no accuracies. Numbers up to 100 are
    percent if one is above 1.
    """
    every = list(itertools.chain(*recorded))
    missing = sum(not math.isfinite(number) for number in every)
    if missing:
        return None, f"{missing} of {len(every)} are NaN or infinite, so none is shown"
    if min(every) < 0 or max(every) > 100:
        return None, f"{min(every):g} to {max(every):g} are no accuracies, so none is shown"
    if max(every) <= 1:
        return recorded, ""
    in_percent = [[number / 100 for number in experiment] for experiment in recorded]
    return in_percent, f"up to {max(every):g}, taken for percent"


def cells(figures):
    """A `summary` as a table shows it."""
    between = figures["std_experiments"]
    return {
        "accuracy %": f"{figures['mean']:.2f} +- {figures['std']:.2f}",
        "networks": figures["networks"],
        "std networks": f"{figures['std_networks']:.2f}",
        "std experiments": "-" if between is None else f"{between:.2f}",
    }


def of_scores(by_architecture):
    """A text table of `summary` per architecture.

    by_architecture: {name: [[accuracy per network] per experiment]}.
    """
    rows = [{"network": name, **cells(summary(scores))} for name, scores in by_architecture.items()]
    return render(rows)


# A table as text


def render(rows, markdown=False, cut=None):
    """A table of rows, each {column: cell}, as Markdown or as text of WIDTH columns.

    A cell that a row lacks is '-'. Where text would be wider, the cells of the column `cut` lose
    their middle, but for CUT characters, then the widest columns become narrower: their heads, and
    cells of more than CUT characters, go on in the lines below. Where that is not enough, the text
    is wider: of columns of a few characters nobody could read it.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown = _markdown if markdown else plain
    lines = [[shown(row.get(column, "-")) for column in columns] for row in rows]
    lines.insert(0, columns)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if markdown:
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(f"| {_joined(line, widths, ' | ')} |" for line in lines)
    if cut in columns:
        column = columns.index(cut)
        widths[column] = _narrowed(widths[column], _excess(widths))
        for line in lines:
            line[column] = _without_middle(line[column], widths[column])
    _narrow(widths, _with_long_cells(lines, widths))
    _narrow(widths, _with_heads(lines))
    return "\n".join(text for line in lines for text in _wrapped(line, widths))


def _with_long_cells(lines, widths):
    """How narrow each column of a text table may become, if long cells alone are broken.

    lines: the heads, then cells.
    """
    least = []
    for (_, *cells), width in zip(zip(*lines, strict=True), widths, strict=True):
        is_long = max(map(len, cells), default=0) > CUT
        least.append(min(width, LEAST) if is_long else width)
    return least


def _with_heads(lines):
    """How narrow each column may become, if heads are broken between their words too."""
    least = []
    for head, *cells in zip(*lines, strict=True):
        longest_word = max(map(len, head.split()), default=0)
        longest_cell = max(map(len, cells), default=0)
        least.append(max(longest_word, longest_cell if longest_cell <= CUT else LEAST))
    return least


def _narrow(widths, least):
    """Take from the widest columns what a line of columns of these widths has too many."""
    while _excess(widths):
        wider = [column for column, width in enumerate(widths) if width > least[column]]
        if not wider:
            return
        widest = max(wider, key=lambda column: widths[column])
        widths[widest] -= 1


def _excess(widths):
    """How many characters a line of columns of these widths has too many."""
    gaps = 2 * (len(widths) - 1)
    return max(0, sum(widths) + gaps - WIDTH)


def _narrowed(width, excess):
    """The width of a column that gives up `excess` characters, but for CUT."""
    return width if width <= CUT else max(CUT, width - excess)


def _without_middle(cell, width):
    """A cell of at most `width` characters."""
    if len(cell) <= width:
        return cell
    return cell[: (width - 3) // 2] + "..." + cell[-((width - 2) // 2) :]


def _wrapped(line, widths):
    """The lines of text that the cells of a line take."""
    parts = [
        textwrap.wrap(cell, max(1, width), break_on_hyphens=False)
        for cell, width in zip(line, widths, strict=True)
    ]
    return [
        _joined(texts, widths, "  ").rstrip()
        for texts in itertools.zip_longest(*parts, fillvalue="")
    ]


def _joined(texts, widths, gap):
    return gap.join(text.ljust(width) for text, width in zip(texts, widths, strict=True))


def _markdown(cell):
    """A cell whose characters neither end it nor start mathematics."""
    return plain(cell).replace("|", r"\|").replace("$", r"\$")


def pick(lines, columns):
    """Of lines, each {column: cell}, those of `columns` in which one of them has something.

    A line that has nothing there gets '-'.
    """
    used = [
        column for column in columns if any(line.get(column) not in (None, "") for line in lines)
    ]
    return [
        {column: "-" if line.get(column) in (None, "") else line[column] for column in used}
        for line in lines
    ]


# Runs in words


def set_name(kind):
    """What a table calls the set of a runs.Kind."""
    if kind.recipe == "ours":
        return "ours"
    if kind.method:
        return kind.method
    return "one per cluster" if kind.init == "cluster" else f"random ({kind.init})"


def dataset_name(kind):
    """The dataset of a runs.Kind, and what judges are tested on unless that is the test split."""
    return f"{kind.dataset}, {validation(kind.validate)}" if kind.validate else kind.dataset


def validation(each):
    """In words, the held-out training images, so many per class, that judges are tested on."""
    return f"validation ({each} images per class)"


def paper_figure(kind):
    """The paper's accuracy in percent for what was run, at the paper's own budget, or None."""
    if kind.validate or kind.recipe != "paper":
        return None
    return recipes.paper_figure(kind.method, kind.dataset, kind.ipc)


_WHOLE = "all images"


def _data(kind):
    """Which images: all of a dataset, or how many, and the start of their hash."""
    sizes = _WHOLE if kind.whole else f"{kind.train_images}+{kind.test_images} images"
    return f"{sizes} {kind.data_sha256[:8]}"


def _training(kind):
    """How long a judge trains."""
    return f"{kind.judge_steps:,} steps" if kind.judge_steps else f"{kind.epochs:,} epochs"


def _images_per_canvas(kind):
    return "four" if kind.images_per_canvas == 4 else "one"


def _precision(kind):
    return "/".join(dict.fromkeys(kind.precisions))


@dataclass
class Settings:
    """The settings of several rows in words. shared: of all; own: what tells each from others."""

    shared: str
    own: list[str]


def settings(judged, networks=False):
    """The `Settings` of [runs.Judged], all of one dataset, but for dataset, ipc and set.

    networks: also which networks distilled and judged. Data that is a part is told of each row.
    """
    iterations = {one.kind.iterations for one in judged} - {0}
    of_all = []
    for one in judged:
        kind = one.kind
        words = [f"{kind.network} judged by {one.judge}"] if networks else []
        # Random images go with runs of any number of iterations.
        own = {kind.iterations} if kind.iterations else iterations
        if len(own) == 1:
            words += [f"{number:,} iterations" for number in own]
        chroma = ", chroma at half resolution" if kind.chroma == "half" else ""
        words.append(_training(kind))
        words.append(f"{_images_per_canvas(kind)} per canvas{chroma}")
        words.append(_precision(kind))
        words.append(_data(kind))
        of_all.append([*words, *map(str, kind.departures)])
    parts = {_data(one.kind) for one in judged if not one.kind.whole}
    shared = [
        word for word in of_all[0] if word not in parts and all(word in words for words in of_all)
    ]
    own = [", ".join(word for word in words if word not in shared) for words in of_all]
    return Settings(", ".join(shared), own)


# The table of finished runs

BIASED = "best iteration on test (biased)"
_TERM_COLUMNS = {"lh": "log-likelihood", "tv": "total variation", "clip": "clip prior"}


def _weighted_terms(method):
    """The terms of a method's loss that have flags: {key of TERMS: Term}."""
    terms = terms_of(method) if method else ()
    return {name: TERMS[name] for name in terms if TERMS[name].about}


def _column(name):
    """The column that shows the weight of a term."""
    return _TERM_COLUMNS.get(name, name)


def _term_columns(method):
    """The columns that show the weights of a method's loss terms."""
    return [*map(_column, _weighted_terms(method)), "cross-entropy"]


@dataclass
class Row:
    """Finished runs of a kind and an architecture of judges.

    best: percent of BIASED, on request.
    """

    judged: runs.Judged
    best: float | None = None
    summary: dict = field(init=False)

    def __post_init__(self):
        self.summary = summary(self.judged.last)

    @property
    def kind(self):
        return self.judged.kind

    def weights(self):
        """The weights of the terms of the loss, {column: cell}; {} if no flag sets one.

        A term that any method may take is told where it has a weight.
        """
        kind = self.kind
        args = self.judged.args
        if kind.recipe != "paper":
            return {}
        cells = {}
        for name, term in _weighted_terms(kind.method).items():
            weight = args.get(f"{name}_weight", term.weight)  # an older log may lack the flag
            if term.of_every_method and not weight:
                continue
            choices = [str(args[setting]) for setting in term.settings]
            cells[_column(name)] = " ".join([str(weight), *choices]) if choices else weight
        if cells:
            cells["cross-entropy"] = args["ce_weight"] if args["syn_ce"] else 0
        return cells

    def as_json(self):
        """All that is known, {name: value}: a line of --format json."""
        kind = self.kind
        row = {
            "dataset": dataset_name(kind),
            "ipc": kind.ipc,
            "set": set_name(kind),
            "network": kind.network,
            "iterations": kind.iterations,
            "epochs": kind.epochs,
            "training": _training(kind),
            "images per canvas": _images_per_canvas(kind),
            "chroma": kind.chroma,
            "precision": _precision(kind),
            "data": _data(kind),
            "flags": [str(departure) for departure in kind.departures],
            "judge": self.judged.judge,
            **self.summary,
            "experiments": len(self.judged.experiments),
            "accuracy": self.judged.last,
            "paper %": paper_figure(kind),
        }
        spec = recipes.DATASETS.get(kind.dataset)
        if spec:
            row["numbers"] = kind.ipc * spec.channels * math.prod(spec.im_size)
        canvases = kind.ipc * (2 if kind.chroma == "half" else 1)
        row["images"] = canvases * kind.images_per_canvas
        if self.best is not None:
            row[BIASED] = self.best
        return row | self.weights()


def of_runs(folder, biased=False):
    """A `Row` for every kind of finished run below `folder` and its judge.

    biased: also the best iteration by test accuracy. UserError where there is no finished run.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--table {folder}: no such folder")
    rows = []
    for judged in runs.by_kind(runs.read_runs(runs.logs_below(folder))):
        best = _best_on_test(judged) if biased else None
        rows.append(Row(judged, best))
    if not rows:
        raise UserError(f"--table {folder}: no finished run below it")
    return sorted(rows, key=lambda row: (dataset_name(row.kind), row.kind.ipc))


def _best_on_test(judged):
    """Percent of each experiment's best iteration, their mean."""
    best = [
        max(map(statistics.fmean, experiment.accuracies.values()))
        for experiment in judged.experiments
    ]
    return round(100 * statistics.fmean(best), 2)


def shown(rows, details=False):
    """Tables of the rows of `of_runs`, by dataset: {title: rows for `render`}.

    details: also what is behind each figure.
    """
    tables = {}
    for dataset in dict.fromkeys(dataset_name(row.kind) for row in rows):
        of_it = [row for row in rows if dataset_name(row.kind) == dataset]
        tables |= _accuracies(dataset, of_it)
        if details:
            tables |= _behind(dataset, of_it)
            tables |= _ablations(dataset, of_it)
    return tables


def _accuracies(dataset, rows):
    """The table of accuracies of a dataset, {title: rows}."""
    split = "" if rows[0].kind.validate else "test "
    known = any(paper_figure(row.kind) for row in rows)
    budget = "; the paper's at its own budget" if known else ""
    title = f"{dataset}: {split}accuracy, mean +- std over all networks{budget}"
    columns = ("paper %", "ipc", "set", "network", "judge", "networks", BIASED)
    return {title: _table(rows, columns)}


def _behind(dataset, rows):
    """The table of what is behind the figures of a dataset, {title: rows}."""
    columns = (
        "std networks", "std experiments", "networks", "experiments", "ipc", "numbers", "images",
        "set",
    )  # fmt: skip
    what = "what is behind each figure (numbers stored and images of a class)"
    shared = settings([row.judged for row in rows], networks=True).shared
    title = f"{dataset}: {what}; the same for all: {shared}"
    return {title: _table(rows, columns, networks=True)}


def _ablations(dataset, rows):
    """Tables of runs that differ in the weights of their method's terms alone, {title: rows}."""
    tables = {}
    for method in METHODS:
        alike = {}
        for row in rows:
            if row.kind.method == method and row.weights():
                bare = _without_terms(row)
                alike.setdefault((bare.kind, bare.judged.judge), []).append(bare)
        ablated = [row for group in alike.values() if len(group) > 1 for row in group]
        if ablated:
            title = f"{dataset}: weights of {method}'s terms"
            tables[title] = _table(ablated, (*_term_columns(method), "ipc", "judge"))
    return tables


def _without_terms(row):
    """A row whose settings say nothing of the weights of terms."""
    flags = {"syn_ce", "ce_weight"}
    for name, term in _weighted_terms(row.kind.method).items():
        flags |= {f"{name}_weight", *term.settings}
    others = tuple(departure for departure in row.kind.departures if departure.flag not in flags)
    kind = replace(row.kind, departures=others)
    return replace(row, judged=replace(row.judged, kind=kind))


def _table(rows, columns, networks=False):
    """Rows of one dataset: the accuracy, `columns`, and the settings that tell rows apart."""
    own = settings([row.judged for row in rows], networks).own
    lines = [
        {**row.as_json(), **cells(row.summary), "settings": words}
        for row, words in zip(rows, own, strict=True)
    ]
    return pick(lines, ("accuracy %", *columns, "settings"))
