"""The pages: links and anchors resolve, commands parse, figures are those of the recipes and of the stored logs."""

import ast
import collections
import fnmatch
import importlib
import json
import re
import shlex
import statistics
import subprocess
from pathlib import Path

import pytest

from bacon import flags, recipes
from bacon.score import command as evaluate

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
JOBS = sorted((ROOT / "docs" / "slurm").glob("*.sh"))
SCRIPTS = sorted(path.stem for path in ROOT.glob("BACON_*.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
OF_OTHER_PROGRAMS = {"--requeue", "--signal", "--shutdown-timeout"}  # sbatch's and torchrun's


def named(paths):
    return pytest.mark.parametrize("page", paths, ids=lambda path: path.name)


def prose(page):
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page):
    """The anchors of a page's headings as GitHub makes them: letters, digits, _ and - stay, a second one gets -1."""
    seen = collections.Counter()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        yield f"{slug}-{seen[slug]}" if seen[slug] else slug
        seen[slug] += 1


def links(page):
    return re.findall(r"\]\(([^)\s]+)\)", CODE.sub("`code`", prose(page)))


@named(PAGES)
def test_every_relative_link_and_anchor_resolves(page):
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_picture_and_job_script_is_linked():
    linked = set()
    for page in PAGES:
        for link in links(page):
            linked.add((page.parent / link.partition("#")[0]).resolve())
    assert {*PAGES[1:], *JOBS, *(ROOT / "docs").glob("*.png")} <= linked


# What is where


def ignored(name):
    """Whether git ignores a file of the top level: by its name, or as hidden."""
    patterns = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    return name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def test_the_tree_in_the_readme_names_all_of_the_top_level_and_of_bacon():
    (tree,) = [code for _, code in FENCE.findall(README.read_text()) if "\nbacon/\n" in code]
    lines = [line for line in tree.splitlines() if not line.startswith("      ")]
    named = [line.split()[0].rstrip("/") for line in lines]
    of_bacon = [path for path in (ROOT / "bacon").iterdir() if not path.name.startswith("__")]
    top = [path for path in ROOT.iterdir() if not ignored(path.name)]
    assert {path.name for path in [*of_bacon, *top]} - {"README.md"} <= set(named)
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "bacon" / name).exists(), name
    assert all(len(line.split()) > 1 for line in lines if line != "bacon/")


@pytest.mark.parametrize("room", ["distill", "run", "score", "data"])
def test_a_package_names_its_modules(room):
    docstring = importlib.import_module(f"bacon.{room}").__doc__
    said = re.findall(r"(?:^|(?<=\. )|\n)([a-z_]+(?:,\s[a-z_]+)*):", docstring)
    named = {name for names in said for name in re.split(r",\s", names)}
    modules = {path.stem for path in (ROOT / "bacon" / room).glob("*.py")} - {"__init__"}
    assert named == modules


# Commands


def commands(text):
    """Command lines of Python programs in shell text: [[word, ...]], comments and continued lines taken care of."""
    text = text.replace("\\\n", " ")
    starts = r"^(?:\$ |srun )*((?:python|python3|torchrun) .*)$"
    return [shlex.split(line, comments=True) for line in re.findall(starts, text, re.MULTILINE)]


def documented():
    """(where, command) of every block, every piece of code in a sentence and every job script that is a command."""
    for page in PAGES:
        if page.name == "extending.md":  # test_extending.py runs its commands
            continue
        blocks = [
            code for language, code in FENCE.findall(page.read_text()) if language != "python"
        ]
        for text in [*blocks, *CODE.findall(re.sub(r"(?<!\n)\n(?!\n)", " ", prose(page)))]:
            yield from ((page.name, command) for command in commands(text))
    for job in JOBS:
        yield from ((job.name, command) for command in commands(job.read_text()))


COMMANDS = list(documented())


def test_the_pages_have_commands():
    assert {where for where, _ in COMMANDS} == {path.name for path in [*PAGES, *JOBS]} - {
        "extending.md",
        "method.md",
    }
    assert all("python" in path.read_text() or "torchrun" in path.read_text() for path in JOBS)


@pytest.mark.parametrize(
    ("where", "command"), COMMANDS, ids=lambda x: x if isinstance(x, str) else " ".join(x)[:60]
)
def test_every_documented_command_parses(where, command):
    words = [re.sub(r"\$\w+", "0", word) for word in command]  # $SLURM_ARRAY_TASK_ID
    program = next(word for word in words[1:] if word.endswith(".py") or word == "pytest")
    rest = words[words.index(program) + 1 :]
    for word in (program, *rest):
        if word.startswith(("docs/", "tests/", "bacon/")) or word.endswith(".py"):
            assert (ROOT / word).exists(), word
    if program == "evaluate.py":
        evaluate.build_parser(None).parse_args(rest)
    elif program.removesuffix(".py") in SCRIPTS:
        module = importlib.import_module(program.removesuffix(".py"))
        flags.parse_args(module.DATASETS, module.__doc__, rest)
    else:
        assert program == "pytest" or program.startswith("tests/")


@named(PAGES)
def test_every_documented_flag_exists(page):
    rows = [row for rows in flags.FLAGS.values() for row in rows] + list(flags.DEAD_FLAGS)
    known = {f"--{prefix}{row[0]}" for row in rows for prefix in ("", "no_")} | {"--help_all"}
    known |= set(evaluate.build_parser(None)._option_string_actions) | OF_OTHER_PROGRAMS
    known.add("--spread_weight")  # of the loss term that docs/extending.md adds
    for code in CODE.findall(re.sub(r"(?<!\n)\n(?!\n)", " ", prose(page))):
        assert set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", code)) <= known


@named(PAGES)
def test_every_documented_import_exists(page):
    for language, code in FENCE.findall(page.read_text()):
        if language == "python" and page.name != "extending.md":  # rows of tables; see its test
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "bacon":
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, name.name) for name in node.names)


# Figures


def table(page, first_cell):
    """The table of a page that has a row which begins with that cell: {first cell: [cell, ...]}."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page.read_text() + "\n", re.MULTILINE):
        rows = [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        if any(row[0] == first_cell for row in rows):
            return {row[0]: row[1:] for row in rows}
    raise AssertionError(f"{page.name} has no table with {first_cell}")


def test_the_papers_figures_in_the_readme_are_those_of_the_recipes():
    rows = table(README, "TinyImageNet")
    methods = rows[""]
    assert sorted(methods) == sorted(recipes.PAPER)
    for dataset in {dataset for figures in recipes.PAPER.values() for dataset in figures}:
        of_paper = [recipes.PAPER[method].get(dataset, (None,) * 3) for method in methods]
        best = [max(figure or 0 for figure in of_ipc) for of_ipc in zip(*of_paper, strict=True)]
        for figures, cell in zip(of_paper, rows[dataset], strict=True):
            printed = cell.split(" / ") if cell != "-" else ["-"] * 3
            assert [None if text == "-" else float(text.strip("*")) for text in printed] == list(
                figures
            )
            assert [text.startswith("**") for text in printed] == [
                f in b for f, *b in zip(figures, best, strict=True)
            ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_papers_figures_in_a_scripts_docstring_are_those_of_the_recipes(script):
    module = importlib.import_module(script)
    head, *lines = module.__doc__.rpartition("\n\n")[2].rstrip().splitlines()
    ipcs = [int(n) for n in re.findall(r"ipc (\d+)", head)]
    rows = {
        name: dict(zip(ipcs, map(float, figures), strict=True))
        for name, *figures in map(str.split, lines)
    }
    for name in module.DATASETS:
        of_paper = {ipc: recipes.paper_figure("BACON", name, ipc) for ipc in (1, 10, 50)}
        assert rows.get(name, {}) == {
            ipc: figure for ipc, figure in of_paper.items() if figure is not None
        }


RUNS = ROOT / "docs" / "runs"
CIFAR10, DIGITS = "CIFAR10_ConvNetW32_10ipc_200it", "Digits_ConvNetW32_1ipc_100it"
RANDOM, DM = "Random real images, four to a canvas", "DM, one image to a canvas"


def kept(name):
    """What the lines of a file of docs/runs hold: events of a run, or rows of evaluate.py."""
    return [json.loads(line) for line in (RUNS / name).read_text().splitlines()]


def events(folder, run, seed):
    (log,) = (RUNS / folder / f"{run}_seed{seed}").glob("log_*.jsonl")
    return kept(log)


def evaluations(folder, run, seed):
    """Percent of every judge, by iteration."""
    of_run = [event for event in events(folder, run, seed) if event["event"] == "evaluation"]
    return {event["it"]: [100 * a for a in event["accuracy"]] for event in of_run}


def accuracies(folder, run, seeds):
    """Percent of every judge of the last evaluation, by seed."""
    return [list(evaluations(folder, run, seed).values())[-1] for seed in seeds]


def shown(percent):
    return f"{statistics.fmean(percent):.2f} ± {statistics.pstdev(percent):.2f}"


def scored(row):
    return f"{row['mean']:.2f} ± {row['std']:.2f}"


def summary(folder, run, seeds):
    return shown([accuracy for of_seed in accuracies(folder, run, seeds) for accuracy in of_seed])


def test_every_run_behind_the_figures_parses_and_has_a_folder_of_its_own():
    runs = subprocess.run(
        ["docs/figures.sh", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    folders = set()
    for minutes, folder, script, *line in map(str.split, runs.splitlines()):
        module = importlib.import_module(script.removesuffix(".py"))
        args = flags.parse_args(module.DATASETS, module.__doc__, line).args
        assert int(minutes) > 0 and folder.startswith(f"{args.dataset}_{args.model}_{args.ipc}ipc_")
        folders.add(folder)
    assert len(folders) == len(runs.splitlines()) > 20


@pytest.mark.parametrize(("page", "ours"), [("README.md", "docs/beyond.md), in the same storage"),
                                            ("docs/results.md", "beyond.md)")])  # fmt: skip
def test_the_papers_table_in_small_is_that_of_the_logs(page, ours):
    rows = table(ROOT / page, "Dataset, ipc")
    runs = {RANDOM: "random", DM: "DM", "IDM": "IDM", "BACON": "BACON", f"[Ours]({ours}": "ours"}
    assert {*runs, "Dataset, ipc", "---"} == rows.keys()
    for k, cell in enumerate(rows["Dataset, ipc"]):
        dataset, ipc = cell.replace("-", "").split()
        folder = f"{dataset}_ConvNetW32_{ipc}ipc_{100 if ipc == '1' else 200}it"
        seeds = range(3) if page == "README.md" and folder == CIFAR10 else [0]
        found = {name: summary(folder, run, seeds) for name, run in runs.items()}
        assert {name: rows[name][k].strip("*") for name in runs} == found
        if page == "README.md":
            best = max(found, key=lambda name: float(found[name].split()[0]))
            assert [name for name in runs if rows[name][k].startswith("**")] == [best]


@pytest.mark.parametrize(("name", "folder", "runs"), [
    ("CIFAR-10", "CIFAR10_ConvNet_10ipc_300it", {"BACON": "BACON", "[Ours](beyond.md)": "ours"}),
    ("MNIST", "MNIST_ConvNet_10ipc_500it", {"BACON": "BACON"}),
])  # fmt: skip
def test_the_curves_at_width_128_are_those_of_their_logs(name, folder, runs):
    rows, dataset = table(ROOT / "docs" / "results.md", f"{name}, iteration"), name.replace("-", "")
    assert rows.keys() == {f"{name}, iteration", "---", *runs}
    its = rows[f"{name}, iteration"][:-2]
    finals = {Path(row["set"]).parent.name: row for row in kept(f"{folder}/1000_epochs.jsonl")}
    for label, run in runs.items():
        by_it = evaluations(folder, run, 0) | (
            evaluations(folder, "random", 0) if run == "BACON" else {}
        )
        cells, final = (
            {str(it): shown(judges) for it, judges in by_it.items()},
            finals[f"{run}_seed0"],
        )
        assert cells.keys() <= set(its) and final["networks"] == 3 and final["epochs"] == 1000
        end = [
            scored(final),
            f"{recipes.paper_figure('BACON', dataset, 10)}" if run == "BACON" else "",
        ]
        assert rows[label] == [*(cells.get(it, "") for it in its), *end]


def test_the_figures_at_width_128_in_sentences_are_those_of_the_logs():
    readme, results = (
        " ".join(page.read_text().split()) for page in (README, ROOT / "docs" / "results.md")
    )
    (steps,) = kept("CIFAR10_ConvNet_10ipc_300it/2002_steps.jsonl")
    assert (
        steps["set"].split("/")[-2] == "ours_seed0"
        and scored(steps) in readme
        and scored(steps) in results
    )
    for row in kept("CIFAR10_ConvNet_10ipc_300it/1000_epochs.jsonl"):
        assert scored(row) in readme
    assert f"{summary('MNIST_ConvNet_10ipc_150it', 'ours', [0])} after 150" in results
    for run, sentence in (
        ("BACON", "after {} minutes, 5.8 s an iteration"),
        ("ours", "{} minutes of distilling"),
    ):
        of_run = events("CIFAR10_ConvNet_10ipc_300it", run, 0)
        seconds = [10 * e["seconds"] for e in of_run if e["event"] == "losses"]
        seconds += [e["seconds"] for e in of_run if e["event"] == "clusters"]
        assert (
            len(seconds) == 30 + (run == "ours")
            and sentence.format(round(sum(seconds) / 60)) in results
        )
        assert run == "BACON" or f"{round(sum(seconds) / 60)} minutes on one CPU core" in readme


TERMS = {
    "BACON": ("BACON", {}),
    "without the log-likelihood, `--lh_weight 0`": ("no_log_likelihood", {"lh_weight": 0}),
    "without total variation, `--tv_weight 0`": ("no_total_variation", {"tv_weight": 0}),
    "without the cross-entropy, `--no_syn_ce`": ("no_cross_entropy", {"syn_ce": False}),
    "clip prior on residuals, `--clip_prior residual`": (
        "residual_clip",
        {"clip_prior": "residual"},
    ),
    "IDM, `--ce_weight 0.5` as published": ("IDM", {"ce_weight": 0.5}),
    "IDM, `--ce_weight 0.15`": ("IDM_ce_0.15", {"ce_weight": 0.15}),
    "IDM, `--ce_weight 0.05`": ("IDM_ce_0.05", {"ce_weight": 0.05}),
}


def test_what_each_term_is_worth_is_that_of_the_logs():
    rows = table(ROOT / "docs" / "results.md", "IDM, `--ce_weight 0.15`")
    for name, (run, settings) in TERMS.items():
        means = [
            f"{statistics.fmean(of_seed):.2f}" for of_seed in accuracies(CIFAR10, run, range(3))
        ]
        assert rows[name] == [*means, summary(CIFAR10, run, range(3))]
        for seed in range(3):
            args = events(CIFAR10, run, seed)[0]["args"]
            assert (
                args | settings | {"seed": seed, "method": "IDM" if "IDM" in name else "BACON"}
                == args
            )


def test_the_measured_accuracies_are_those_of_the_logs():
    results = ROOT / "docs" / "results.md"
    rows = (RANDOM, "random", 8), (DM, "DM", 3), ("IDM", "IDM", 3)
    for name, run, seeds in (*rows, ("BACON", "BACON", 5), ("[Ours](beyond.md)", "ours", 3)):
        means = [
            f"{statistics.fmean(of_seed):.2f}" for of_seed in accuracies(CIFAR10, run, range(seeds))
        ]
        whole = summary(CIFAR10, run, range(seeds))
        assert table(results, "Seed")[name] == [*means, *["-"] * (8 - seeds), whole]
    formats = table(results, "CIFAR-10, ConvNetW32, ipc 10, 200 iterations, seeds 0-2, 9 judges")
    for folder, runs, seeds in (
        (CIFAR10, ("BACON_fp32", "BACON"), 3),
        (DIGITS, ("fp32", "bf16"), 5),
    ):
        assert [summary(folder, run, range(seeds)) for run in runs] in formats.values()
    assert summary(DIGITS, "fp32", [0]) in results.read_text()
    real = table(results, "Trained on")
    for steps, cell in zip(
        real["Trained on"], real["Real images, none twice before all were seen"], strict=True
    ):
        (row,) = kept(f"CIFAR10_ConvNetW32_whole/{steps.replace(',', '').replace(' ', '_')}.jsonl")
        assert cell == scored(row) and row["set"] == "full" and row["networks"] == 3


def test_the_accuracies_beyond_bacon_are_those_of_the_logs():
    page, ours = ROOT / "docs" / "beyond.md", "`--recipe ours`"
    by_steps = kept(f"{CIFAR10}/402_steps.jsonl")
    for name, run in (("IDM", "IDM"), ("BACON", "BACON"), (ours, "ours")):
        judges = [
            100 * a
            for row in by_steps
            if f"/{run}_seed" in row["set"]
            for of in row["accuracy"]
            for a in of
        ]
        steps = shown(judges)
        assert len(judges) == 9 and all("402 steps" in row["protocol"] for row in by_steps)
        assert [cell.strip("*") for cell in table(page, "IDM")[name]] == [
            summary(CIFAR10, run, range(3)),
            steps,
        ]
    for name, run in (("Random real images, chroma at half resolution *", "half_chroma_random"),
                      ("Our initial images, not distilled *", "ours_start")):  # fmt: skip
        assert table(page, "IDM")[name] == [
            summary(CIFAR10, kind, [0]) for kind in (run, f"{run}_steps")
        ]
    (row,) = kept("CIFAR10_ConvNetW32_50ipc_200it/1608_steps.jsonl")
    assert scored(row) in page.read_text()
