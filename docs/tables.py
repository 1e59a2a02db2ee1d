"""The tables of measured figures in README.md and docs/, made from docs/runs: `make tables`.

A page holds a table between the lines <!-- table: NAME --> and <!-- end -->, where NAME is a key of
TABLES. Accuracies are percent: mean and population standard deviation over judges, "a ± b".
"""

import functools
import itertools
import json
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bacon import recipes, runs  # noqa: E402

RUNS = ROOT / "docs" / "runs"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
CIFAR10 = "CIFAR10_ConvNetW32_10ipc_200it"
LONGER = "CIFAR10_ConvNetW32_10ipc_1000it"
WIDE = "CIFAR10_ConvNet_10ipc_300it"
LONG_WIDE = "CIFAR10_ConvNet_10ipc_1500it"

OURS = "[Ours](beyond.md)"
POOL = "Ours without experts and spread"
RANDOM = "Random real images, four to a canvas"
DM = "DM, one image to a canvas"


# Figures


def log_of(folder, run):
    """The log of a run of docs/runs."""
    (log,) = (RUNS / folder / run).glob("log_*.jsonl")
    return log


def by_iteration(folder, run):
    """What the judges of a run found, {iteration: [percent per judge]}."""
    evaluations = runs.read_run(log_of(folder, run)).evaluations
    return {one.iteration: percent(one.accuracies) for one in evaluations}


def at_the_end(folder, run):
    """Percent of each judge after the last iteration of a run."""
    found = by_iteration(folder, run)
    return found[max(found)]


def of_seeds(folder, run, seeds):
    """Percent of each judge, of the runs of several seeds together."""
    return list(itertools.chain(*(at_the_end(folder, f"{run}_seed{seed}") for seed in seeds)))


def scores(path):
    """The rows that evaluate.py wrote into a file of docs/runs."""
    return runs.read_scores(RUNS / path)


def of_rows(rows):
    """Percent of each judge, of rows of evaluate.py together."""
    return [
        number for row in rows for experiment in row["accuracy"] for number in percent(experiment)
    ]


def percent(fractions):
    return [100 * fraction for fraction in fractions]


def cell(accuracies):
    """Mean and standard deviation of accuracies in percent; no accuracies: an empty cell."""
    if not accuracies:
        return ""
    return f"{statistics.fmean(accuracies):.2f} ± {statistics.pstdev(accuracies):.2f}"


def mean(accuracies):
    return f"{statistics.fmean(accuracies):.2f}"


def markdown(head, *rows):
    """A table of lists of cells."""
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells):
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


# README.md


def by_method(sets, columns):
    """Accuracies of several methods; the best of each column is bold.

    sets: {name: run}. columns: {title: folder}.
    """
    found = []
    for folder in columns.values():
        seeds = (0, 1, 2) if folder == CIFAR10 else (0,)
        accuracies = [of_seeds(folder, run, seeds) for run in sets.values()]
        best = max(accuracies, key=statistics.fmean)
        found.append([f"**{cell(one)}**" if one is best else cell(one) for one in accuracies])
    rows = [[name, *cells] for name, *cells in zip(sets, *found, strict=True)]
    return markdown(["Dataset, ipc", *columns], *rows)


def readme():
    """Every method on CIFAR-10 and MNIST."""
    sets = {
        "[Ours](docs/beyond.md), in the same storage": "ours",
        "BACON": "BACON",
        "IDM": "IDM",
        DM: "DM",
        RANDOM: "random",
    }
    columns = {}
    for dataset in ("CIFAR-10", "MNIST"):
        for ipc in (50, 10, 1):
            iterations = 100 if ipc == 1 else 200
            folder = f"{dataset.replace('-', '')}_ConvNetW32_{ipc}ipc_{iterations}it"
            columns[f"{dataset} {ipc}"] = folder
    return by_method(sets, columns)


# docs/results.md


def seeds_of(run):
    """The seeds with which a run of CIFAR-10 at ipc 10 was made."""
    folders = (RUNS / CIFAR10).glob(f"{run}_seed[0-9]")
    return sorted(int(folder.name[-1]) for folder in folders)


def per_seed(run):
    """The mean of each seed's judges."""
    return [mean(of_seeds(CIFAR10, run, [seed])) for seed in seeds_of(run)]


def difference(run):
    """How much better than BACON's the sets of a run are on the same seeds, in points."""
    shared = sorted({*seeds_of(run)} & {*seeds_of("BACON")})
    own = statistics.fmean(of_seeds(CIFAR10, run, shared))
    bacon = statistics.fmean(of_seeds(CIFAR10, "BACON", shared))
    return f"{own - bacon:+.2f}"


def by_seed():
    """CIFAR-10 at ipc 10, seed by seed."""
    sets = {
        RANDOM: "random",
        "Random real images, colours at half resolution": "half_chroma_random",
        DM: "DM",
        "IDM": "IDM",
        "BACON": "BACON",
        "[Ours](beyond.md), not distilled": "ours_start",
        OURS: "ours",
    }
    seeds = seeds_of("random")
    rows = []
    for name, run in sets.items():
        missing = [""] * (len(seeds) - len(seeds_of(run)))
        against = "" if run == "BACON" else difference(run)
        rows.append([name, *per_seed(run), *missing, against])
    return markdown(["Seed", *map(str, seeds), "against BACON"], *rows)


def terms():
    """CIFAR-10 at ipc 10 without one term of the loss, and IDM with other weights."""
    sets = {
        "BACON without the log-likelihood, `--lh_weight 0`": "no_log_likelihood",
        "BACON without total variation, `--tv_weight 0`": "no_total_variation",
        "BACON without the cross-entropy, `--no_syn_ce`": "no_cross_entropy",
        "BACON with `--clip_prior residual`": "residual_clip",
        "IDM with `--ce_weight 0.15` (published: 0.5)": "IDM_ce_0.15",
        "IDM with `--ce_weight 0.05`": "IDM_ce_0.05",
    }
    rows = []
    for name, run in sets.items():
        together = cell(of_seeds(CIFAR10, run, seeds_of(run)))
        rows.append([name, *per_seed(run), together, difference(run)])
    return markdown(["Seed", "0", "1", "2", "all", "against BACON"], *rows)


def final(folder, file, run):
    """Percent of each judge of a run's set or a baseline, from a file of rows of evaluate.py."""
    rows = [row for row in scores(f"{folder}/{file}.jsonl") if run in Path(row["set"]).parts]
    return of_rows(rows)


def of_several(folder, file, names):
    """The same of several runs together."""
    return list(itertools.chain(*(final(folder, file, run) for run in names)))


def wide_cifar10():
    """The curves of CIFAR-10 at width 128."""
    iterations = (0, 100, 200, 300, 600, 900, 1200, 1500)
    curves = {
        "BACON": by_iteration(WIDE, "random_seed0") | by_iteration(WIDE, "BACON_seed0"),
        POOL: by_iteration(WIDE, "ours_seed0"),
        OURS: by_iteration(LONG_WIDE, "ours_seed0"),
    }
    head = ["Iteration", *(f"{iteration:,}" for iteration in iterations)]
    rows = [
        [name, *(cell(curve.get(iteration)) for iteration in iterations)]
        for name, curve in curves.items()
    ]
    return markdown(head, *rows)


def longer():
    """Our recipe after 200 and 1,000 iterations, by judges of 201 epochs."""
    rows = []
    for name, dataset, run, seeds in (
        (f"CIFAR-10, ipc 10: {POOL}", "CIFAR10_ConvNetW32_10ipc", "ours_pool", range(3)),
        (f"CIFAR-10, ipc 10: {OURS}", "CIFAR10_ConvNetW32_10ipc", "ours", range(3)),
        (f"MNIST, ipc 10: {OURS}", "MNIST_ConvNetW32_10ipc", "ours", [0]),
        (f"MNIST, ipc 50: {OURS}", "MNIST_ConvNetW32_50ipc", "ours", [0]),
    ):
        random = cell(of_seeds(f"{dataset}_200it", "random", seeds))
        after = [cell(of_seeds(f"{dataset}_{n}it", run, seeds)) for n in (200, 1000)]
        rows.append([name, random, *after])
    return markdown(["", "Random images", "200 iterations", "1,000 iterations"], *rows)


@dataclass(frozen=True)
class Judged:
    """A row of `judged`: runs of a folder, or a baseline, whose judges are taken together."""

    name: str
    iterations: str
    folder: str
    runs: tuple[str, ...]


def of_seeds_0_to_2(run):
    return tuple(f"{run}_seed{seed}" for seed in range(3))


def judged(width, rows):
    """A table of sets of one width under DC's judge and IDC's."""
    lines = []
    for row in rows:
        by_dc = of_several(row.folder, "1000_epochs", row.runs)
        by_idc = of_several(row.folder, "idc", row.runs)
        lines.append([row.name, row.iterations, cell(by_dc), cell(by_idc)])
    return markdown([f"Width {width}", "Iterations", "DC's judge", "IDC's judge"], *lines)


def both_judges():
    """Sets of CIFAR-10 at ipc 10 and width 32 under DC's judge and IDC's."""
    return judged(
        32,
        [
            Judged(RANDOM, "0", CIFAR10, ("random4",)),
            Judged("BACON", "200", CIFAR10, ("BACON_seed0",)),
            Judged(POOL, "200", CIFAR10, of_seeds_0_to_2("ours_pool")),
            Judged(POOL, "1,000", LONGER, of_seeds_0_to_2("ours_pool")),
            Judged(OURS, "200", CIFAR10, of_seeds_0_to_2("ours")),
            Judged(OURS, "1,000", LONGER, of_seeds_0_to_2("ours")),
        ],
    )


def both_judges_wide():
    """The same at width 128."""
    return judged(
        128,
        [
            Judged(RANDOM, "0", WIDE, ("random4",)),
            Judged("BACON", "300", WIDE, ("BACON_seed0",)),
            Judged(POOL, "300", WIDE, ("ours_seed0",)),
            Judged(OURS, "1,500", LONG_WIDE, ("ours_seed0",)),
        ],
    )


def cifar100():
    """CIFAR-100."""
    sets = {OURS: "ours", "BACON": "BACON", "IDM": "IDM", RANDOM: "random"}
    folders = {f"CIFAR-100 {ipc}": f"CIFAR100_ConvNetW32_{ipc}ipc_200it" for ipc in (10, 1)}
    return by_method(sets, folders)


def wide_mnist():
    """The curve of MNIST at width 128."""
    folder = "MNIST_ConvNet_10ipc_500it"
    iterations = range(0, 600, 100)
    bacon = by_iteration(folder, "random_seed0") | by_iteration(folder, "BACON_seed0")
    own = of_seeds("MNIST_ConvNet_10ipc_150it", "ours", [0])
    rows = [
        [
            "BACON",
            *(cell(bacon[it]) for it in iterations),
            cell(final(folder, "1000_epochs", "BACON_seed0")),
            str(recipes.paper_figure("BACON", "MNIST", 10)),
        ],
        [f"{POOL}, 150 iterations", *[""] * len(iterations), cell(own), ""],
    ]
    last = ["the last, 1,001 epochs", "the paper's, 20,000"]
    return markdown(["MNIST, iteration", *map(str, iterations), *last], *rows)


def real():
    """What judges reach on real images in so many steps."""
    found = [
        cell(of_rows(scores(f"CIFAR10_ConvNetW32_whole/{n}_steps.jsonl"))) for n in (402, 2002)
    ]
    row = ["Real images, none twice before all were seen", *found]
    return markdown(["Trained on", "402 steps", "2,002 steps"], row)


def formats():
    """What bf16 changes."""
    digits = "Digits_ConvNetW32_1ipc_100it"
    runs_of = {
        "CIFAR-10, ipc 10, 200 iterations": (CIFAR10, "BACON_fp32", "BACON", 3),
        "Digits, ipc 1, 100 iterations": (digits, "fp32", "bf16", 5),
    }
    rows = []
    for name, (folder, exact, rounded, count) in runs_of.items():
        fp32 = of_seeds(folder, exact, range(count))
        bf16 = of_seeds(folder, rounded, range(count))
        change = f"{statistics.fmean(bf16) - statistics.fmean(fp32):+.2f}"
        rows.append([name, f"0 to {count - 1}", str(len(fp32)), cell(fp32), change])
    return markdown(["BACON, ConvNetW32", "Seeds", "Judges", "fp32", "bf16 changes"], *rows)


# docs/beyond.md


def equal_steps():
    """CIFAR-10 at ipc 10 by judges that all train for 402 steps."""

    def of_run(run):
        return cell(of_several(CIFAR10, "402_steps", of_seeds_0_to_2(run)))

    half = of_seeds(CIFAR10, "half_chroma_random_steps", [0])
    start = of_seeds(CIFAR10, "ours_start_steps", [0])
    return markdown(
        ["", "402 steps"],
        ["Random real images, colours at half resolution *", cell(half)],
        ["Our initial images, not distilled *", cell(start)],
        ["IDM", of_run("IDM")],
        ["BACON", of_run("BACON")],
        ["`--recipe ours`", f"**{of_run('ours')}**"],
    )


_BY_EPOCHS = "validation accuracy %, epochs"
_BY_STEPS = "validation accuracy %, 402 steps"
_BY_IDC = "validation accuracy %, IDC"


@dataclass(frozen=True)
class Part:
    """A row of `validation`: what was tried.

    flags: those of the run. change: what was changed in the code, as validation.jsonl says it.
    start: the flags of its initial images, where these were judged too.
    """

    name: str
    flags: str
    change: str | None = None
    start: str | None = None


def by_pool(lr_img=2, ce_weight=0.2):
    """The flags of our recipe for CIFAR-10 at ipc 10 without experts, spread and cooldown.

    With other rates on request.
    """
    return f"--chroma half --init cluster --lr_img {lr_img} --ce_weight {ce_weight}"


PARTS = [
    Part("BACON", "", start=""),
    Part("`--lr_img 1 --ce_weight 0.2`", "--lr_img 1 --ce_weight 0.2"),
    Part("`--init cluster`", "--init cluster", start="--init cluster"),
    Part("`--chroma half`", "--chroma half", start="--chroma half"),
    Part("half chroma, clusters and rates", by_pool(), start="--chroma half --init cluster"),
    Part("these with `--lr_img 4`", by_pool(lr_img=4)),
    Part("these with `--ce_weight 0.1`", by_pool(ce_weight=0.1)),
    Part("these with `--ce_weight 0.4`", by_pool(ce_weight=0.4)),
    Part(
        "these with soft labels",
        by_pool(),
        "labels half one-hot, half the pool's mean softmax at temperature 2",
    ),
    Part(
        "these with `--lr_img 4` that falls to 0",
        by_pool(lr_img=4),
        "rate falling to 0 by a cosine",
    ),
    Part("these with colours enlarged bilinearly", by_pool(), "chroma enlarged bilinearly"),
    Part(
        "these with a constant weight of the cross-entropy",
        by_pool(),
        "cross-entropy weighted as at 60 % training accuracy",
    ),
]


@functools.cache
def validation_lines():
    text = (RUNS / "validation.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def validated(flags, iterations, change=None, epochs=201):
    """The line of validation.jsonl about a run, whose flags are given from --ipc on."""
    wanted = f"{flags.strip()} --model ConvNetW32 --validate 500 --seed 0"
    for line in validation_lines():
        same = line["flags"] == wanted and line["iterations"] == iterations
        # A line without epochs is of judges that trained for so many steps.
        same = same and line.get("epochs", epochs) == epochs
        if same and line.get("patched") == change:
            return line
    raise KeyError(f"validation.jsonl has no line for {wanted}, {iterations} iterations")


def both_columns(line):
    """Cells of a line of validation.jsonl: after 201 epochs, after 402 steps."""
    found = [line.get(_BY_EPOCHS), line.get(_BY_STEPS)]
    return [mean(accuracies) if accuracies else "" for accuracies in found]


def validation():
    """What half chroma, clusters and rates are worth on images held out of training."""
    rows = []
    for part in PARTS:
        end = both_columns(validated(f"--ipc 10 {part.flags}", 200, part.change))
        start = ["", ""]
        if part.start is not None:
            start = both_columns(validated(f"--ipc 10 {part.start}", 0))
        rows.append([part.name, *end, *start])
    started = ["initial images, 201 epochs", "initial images, 402 steps"]
    return markdown(["", "201 epochs", "402 steps", *started], *rows)


def experts(count=5, cross_entropy=17, own=False, spread=True, cooldown=True):
    """The flags of experts, as our recipe has them or otherwise.

    cross_entropy: its weight in late experts. own: whether there is that of the network that
    matches.
    """
    words = [f"--experts {count}"]
    if cross_entropy:
        words.append(f"--expert_ce {cross_entropy}")
    if not own:
        words.append("--no_syn_ce")
    if spread:
        words.append("--spread_weight 1.5")
    if cooldown:
        words.append("--cooldown 0.2")
    return " ".join(words)


def parts_of_experts():
    """What experts, spread and cooldown are worth for CIFAR-10 at ipc 10, by 1,001 epochs."""
    rows = []
    for name, flags in (
        (POOL, ""),
        ("and with `--spread_weight 1.5`", "--spread_weight 1.5"),
        ("`--recipe ours`", experts()),
        ("without the spread", experts(spread=False)),
        ("without the cooldown", experts(cooldown=False)),
        ("with the cross-entropy of the network that matches", experts(cross_entropy=0, own=True)),
        ("with two experts", experts(count=2)),
        ("with ten experts", experts(count=10)),
    ):
        line = validated(f"--ipc 10 {by_pool()} {flags}", 200, epochs=1001)
        rows.append([name, mean(line[_BY_EPOCHS])])
    return markdown(["", "1,001 epochs"], *rows)


INSTEAD_OF_SPREAD = [
    Part(
        "8 x squared differences of the deviations",
        experts(spread=False),
        "spread: 8 x sum over dimensions of (s~ - s)^2",
    ),
    Part(
        "1.5 x differences relative to the real deviations",
        experts(spread=False),
        "spread: 1.5 x mean of s x sum over dimensions of |s~ / s - 1|",
    ),
    Part(
        "1.5 x differences of deviations along random directions",
        experts(spread=False),
        "spread: 1.5 x sum of |s~ - s| along the axes of a random rotation",
    ),
    Part(
        "30 x energy distance to 80 real embeddings",
        experts(spread=False),
        "spread: 30 x energy distance between the embeddings and those of 80 real images",
    ),
    Part(
        "the spread and 0.05 x squared distance of each image to the class mean",
        experts(),
        "beside the spread: 0.05 x mean squared distance of embeddings to the real mean",
    ),
    Part(
        "the spread and 20 x distance of the means in hyperbolic space",
        experts(),
        "beside the spread: 20 x Lorentz distance of the means",
    ),
]


def instead_of_spread():
    """Other terms in place of the spread or beside it, for CIFAR-10 at ipc 10, by 1,001 epochs."""
    rows = []
    for part in INSTEAD_OF_SPREAD:
        line = validated(f"--ipc 10 {by_pool()} {part.flags}", 200, part.change, epochs=1001)
        rows.append([part.name, mean(line[_BY_EPOCHS])])
    return markdown(["In place of the spread", "1,001 epochs"], *rows)


def after_1000_iterations():
    """What experts are worth for CIFAR-10 at ipc 10 after 1,000 iterations and more."""
    rows = []
    for name, flags, iterations in (
        ("`--recipe ours`", experts(), 1000),
        ("with ten experts", experts(count=10), 1000),
        ("with the pool in place of experts", "--spread_weight 1.5 --cooldown 0.2", 1000),
        ("`--recipe ours`, 3,000 iterations", experts(), 3000),
    ):
        line = validated(f"--ipc 10 {by_pool()} {flags}", iterations)
        rows.append([name, mean(line[_BY_EPOCHS]), mean(line[_BY_IDC])])
    return markdown(["", "DC's judge, 201 epochs", "IDC's judge"], *rows)


@dataclass(frozen=True)
class Weights:
    """A row of `by_cross_entropy`, in flags of validation.jsonl; "" where nothing was measured.

    base: of all its runs. pool: what the run with a pool has more, None if there is none. experts:
    what those with experts have more. tried: their weights of the cross-entropy. random: of the
    random images.
    """

    name: str
    base: str
    pool: str | None
    tried: tuple[int, ...]
    experts: str = ""
    random: str = ""
    iterations: int = 200
    epochs: int = 201


WEIGHTS = [
    Weights(
        "CIFAR-10, ipc 1",
        base="--ipc 1 --chroma half --init cluster --lr_img 1",
        pool="--ce_weight 0.2",
        tried=(17,),
        iterations=100,
        epochs=1001,
    ),
    Weights(
        "MNIST, ipc 1",
        base="--dataset MNIST --ipc 1 --init cluster --lr_img 0.2",
        pool="--ce_weight 0.2",
        tried=(2,),
        iterations=100,
    ),
    Weights(
        "MNIST, ipc 10",
        base="--dataset MNIST --ipc 10",
        pool="--lr_img 1 --ce_weight 0.2",
        tried=(17, 2, 0),
        experts="--lr_img 1",
        random="--dataset MNIST --ipc 10",
    ),
    Weights(
        "MNIST, ipc 50",
        base="--dataset MNIST --ipc 50",
        pool=None,
        tried=(17, 2, 0),
        experts="--lr_img 1",
        random="--dataset MNIST --ipc 50",
    ),
]


def by_cross_entropy():
    """Experts by dataset, ipc and weight of the cross-entropy, on validation images."""
    rows = []
    for row in WEIGHTS:
        random = ""
        if row.random:
            random = mean(validated(row.random, 0, epochs=row.epochs)[_BY_EPOCHS])
        pool = ""
        if row.pool is not None:
            found = validated(f"{row.base} {row.pool}", row.iterations, epochs=row.epochs)
            pool = mean(found[_BY_EPOCHS])
        cells = [row.name, f"{row.epochs:,}", random, pool]
        for weight in (17, 2, 0):
            if weight in row.tried:
                parts = [row.base, row.experts, experts(cross_entropy=weight)]
                words = " ".join(part for part in parts if part)
                found = validated(words, row.iterations, epochs=row.epochs)
                cells.append(mean(found[_BY_EPOCHS]))
            else:
                cells.append("")
        rows.append(cells)
    head = ["", "Epochs", "Random images", "Pool", "Experts, 17", "Experts, 2", "Experts, 0"]
    return markdown(head, *rows)


# docs/speed.md


def benchmark(first_column):
    """The lines of cells of the first table of runs/benchmark_2cores.md with this first column."""
    text = (RUNS / "benchmark_2cores.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    (block, *_) = [block for block in blocks if block.startswith(f"| {first_column} |")]
    return [
        [part.strip() for part in line.strip("|").split("|")] for line in block.splitlines()[2:]
    ]


def time():
    """Seconds of every part of a run."""
    workloads = ["MNIST ipc 10, ConvNet", "CIFAR-10 ipc 10, ConvNetW32"]
    parts = {}
    for workload, part, seconds, _, rate, share in benchmark("workload"):
        name = part.partition(" (")[0]
        shown = f"{seconds} ({rate} GFLOP/s)" if "yardstick" in name else f"{seconds}, {share}"
        # A second reading of the yardstick belongs to the judges.
        parts.setdefault(name, {}).setdefault(workload, shown)
    rows = [[name, *(found.get(one, "") for one in workloads)] for name, found in parts.items()]
    return markdown(["Part", *workloads], *rows)


def canvases():
    """Seconds and memory of a pass of canvas updates, by classes and canvases."""
    rows = []
    for what, *cells in benchmark("one pass of canvas updates, ConvNetW32"):
        rows.append([what.partition(",")[0], *cells])
    head = ["Dataset", "Classes", "ipc", "Seconds", "Seconds per class", "Peak memory, MB"]
    return markdown(head, *rows)


# The pages

TABLES = {
    "readme": readme,
    "by_seed": by_seed,
    "terms": terms,
    "wide_cifar10": wide_cifar10,
    "longer": longer,
    "both_judges": both_judges,
    "both_judges_wide": both_judges_wide,
    "cifar100": cifar100,
    "wide_mnist": wide_mnist,
    "real": real,
    "formats": formats,
    "equal_steps": equal_steps,
    "validation": validation,
    "parts_of_experts": parts_of_experts,
    "instead_of_spread": instead_of_spread,
    "after_1000_iterations": after_1000_iterations,
    "by_cross_entropy": by_cross_entropy,
    "time": time,
    "canvases": canvases,
}


def names(text):
    """The tables between the markers of a page."""
    return [name for _, name, _ in MARKED.findall(text)]


def filled(text):
    """A page with its tables made anew. KeyError for a name that is not in TABLES."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def main():
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: tables made anew")


if __name__ == "__main__":
    main()
