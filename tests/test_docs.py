"""The pages: links and anchors resolve, commands parse, figures are those of recipes and logs."""

import ast
import collections
import fnmatch
import importlib
import importlib.util
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import events

from bacon import flags, recipes
from bacon.score import command as evaluate

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
JOBS = sorted((ROOT / "docs" / "slurm").glob("*.sh"))
SCRIPTS = sorted(path.stem for path in ROOT.glob("BACON_*.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
# sbatch's and torchrun's
OF_OTHER_PROGRAMS = {"--requeue", "--signal", "--cpus-per-task", "--shutdown-timeout"}


def named(paths):
    return pytest.mark.parametrize("page", paths, ids=lambda path: path.name)


def prose(page):
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page):
    """The anchors of a page's headings as GitHub makes them.

    Letters, digits, _ and - stay; a second heading of the same words gets -1.
    """
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
    """Command lines of Python programs in shell text: [[word, ...]].

    Comments are left out and continued lines joined.
    """
    text = text.replace("\\\n", " ")
    starts = r"^(?:\$ |srun )*((?:python|python3|torchrun) .*)$"
    return [shlex.split(line, comments=True) for line in re.findall(starts, text, re.MULTILINE)]


def documented():
    """(where, command) of every command in the pages, also in sentences, and in job scripts."""
    for page in PAGES:
        if page.name == "extending.md":  # whose commands test_extending.py runs
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
    without = {"extending.md", "method.md"}
    assert {where for where, _ in COMMANDS} == {path.name for path in [*PAGES, *JOBS]} - without
    assert all("python" in path.read_text() or "torchrun" in path.read_text() for path in JOBS)


@pytest.mark.parametrize(
    ("where", "line"), COMMANDS, ids=lambda x: x if isinstance(x, str) else " ".join(x)[:60]
)
def test_every_documented_command_parses(where, line):
    words = [re.sub(r"\$\w+", "0", word) for word in line]  # $SLURM_ARRAY_TASK_ID
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


# test_extending.py applies what extending.md prints, and runs it.
@named([page for page in PAGES if page.name != "extending.md"])
def test_every_documented_flag_exists(page):
    rows = [row for rows in flags.FLAGS.values() for row in rows] + list(flags.DEAD_FLAGS)
    known = {f"--{prefix}{row[0]}" for row in rows for prefix in ("", "no_")} | {"--help_all"}
    known |= set(evaluate.build_parser(None)._option_string_actions) | OF_OTHER_PROGRAMS
    known.add("--direction_weight")  # of the loss term that docs/extending.md adds
    for code in CODE.findall(re.sub(r"(?<!\n)\n(?!\n)", " ", prose(page))):
        assert set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", code)) <= known


@named([page for page in PAGES if page.name != "extending.md"])
def test_every_documented_import_exists(page):
    for language, code in FENCE.findall(page.read_text()):
        if language == "python":
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


def test_the_page_of_our_recipe_has_its_settings():
    rows = table(ROOT / "docs" / "beyond.md", "Gray images, ipc 1")
    told = {"Colour images": {}, "Gray images": {}}
    for name, cells in list(rows.items())[2:]:  # after the head and its line
        images, ipcs = name.split(", ipc ")
        for ipc in map(int, ipcs.split(" and ")):
            told[images][ipc] = cells
    for images, dataset in (("Colour images", "CIFAR10"), ("Gray images", "MNIST")):
        settings_of = {ipc: recipes.recipe(dataset, ipc, kind="ours")[0] for ipc in (1, 10, 50)}
        assert list(told[images]) == list(settings_of)
        for ipc, settings in settings_of.items():
            initial = {"cluster": "clusters", "real": "random"}[settings["init"]]
            initial += {"half": ", half chroma", "full": ""}[settings["chroma"]]
            networks = {0: "pool", 5: "five experts"}[settings.get("experts", 0)]
            assert settings.get("cooldown", 0) == (0.2 if networks == "five experts" else 0)
            entropy = "none"
            if settings["syn_ce"]:
                entropy = f"`--ce_weight {settings['ce_weight']:g}`"
            elif settings.get("expert_ce"):
                entropy = f"`--expert_ce {settings['expert_ce']:g}`"
            weight = settings.get("spread_weight", 0)
            spread = f"{weight:g}" if weight else "none"
            rate = f"{settings['lr_img']:g}"
            assert told[images][ipc] == [initial, networks, entropy, spread, rate]


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


@pytest.fixture(scope="module")
def page_tables():
    """docs/tables.py, which makes the tables of the pages."""
    path = ROOT / "docs" / "tables.py"
    spec = importlib.util.spec_from_file_location("page_tables", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@named(PAGES)
def test_the_tables_of_a_page_are_those_that_make_tables_writes(page, page_tables):
    assert page_tables.filled(page.read_text()) == page.read_text()


def test_the_first_result_of_the_readme_is_that_of_its_logs(page_tables):
    (text,) = re.findall(
        r"^\*\*Our recipe passes .*?(?=\n\n)", README.read_text(), re.DOTALL | re.M
    )
    words = " ".join(text.split())
    curve = page_tables.by_iteration(page_tables.LONG_WIDE, "ours_seed0")
    cells = [page_tables.cell(curve[300])]
    cells += [
        page_tables.cell(page_tables.final(folder, file, run))
        for folder, file, run in (
            (page_tables.LONG_WIDE, "1000_epochs", "ours_seed0"),
            (page_tables.WIDE, "1000_epochs", "BACON_seed0"),
            (page_tables.LONG_WIDE, "idc", "ours_seed0"),
        )
    ]
    assert re.findall(r"\d+\.\d+ ± \d+\.\d+", words) == cells
    paper = recipes.paper_figure("BACON", "CIFAR10", 10)
    assert f"the paper's BACON {paper} % after 20,000" in words
    log = events(page_tables.log_of(page_tables.LONG_WIDE, "ours_seed0"))
    evaluations = [event for event in log if event["event"] == "evaluation"]
    assert f"% after {evaluations[-1]['it']:,} iterations" in words
    minutes = (log[-1]["seconds_total"] - sum(event["seconds"] for event in evaluations)) / 60
    assert f"These {evaluations[-1]['it']:,} iterations took {minutes:.0f} minutes" in words
    above = [event["it"] for event in evaluations if min(event["accuracy"]) > paper / 100]
    assert f"after {above[0]} of the paper's 20,000 iterations" in words
    mean_of = {}
    for method in ("ours", "BACON"):
        names = page_tables.of_seeds_0_to_2(method)
        found = page_tables.of_several(page_tables.CIFAR10, "402_steps", names)
        mean_of[method] = statistics.fmean(found)
    steps = mean_of["ours"] - mean_of["BACON"]
    epochs = float(page_tables.difference("ours"))
    assert f"by {steps:.1f} points instead of {epochs:.1f}" in words


def test_figures_in_the_prose_of_a_page_are_those_of_their_scores(page_tables):
    def final(*names):
        return page_tables.cell(page_tables.final(*names))

    results = (ROOT / "docs" / "results.md").read_text()
    steps = final(page_tables.WIDE, "2002_steps", "ours_seed0")
    epochs = final(page_tables.WIDE, "1000_epochs", "ours_seed0")
    assert f"{steps} in 2,002 steps and {epochs} in 1,001 epochs" in results
    without = final(page_tables.WIDE, "idc", "ours_seed0")
    cutout = final(page_tables.WIDE, "idc_cutout", "ours_seed0")
    scoring = " ".join((ROOT / "docs" / "scoring.md").read_text().split())
    assert f"has {cutout} (two networks) in place of {without} (three)" in scoring
    beyond = (ROOT / "docs" / "beyond.md").read_text()
    of_50 = final("CIFAR10_ConvNetW32_50ipc_200it", "1608_steps", "ours_seed0")
    assert f"In as many steps ours has {of_50}." in beyond


def test_what_experts_gain_is_the_difference_between_their_sets_and_those_of_the_pool(page_tables):
    def gain(folder, judge):
        means = []
        for method in ("ours", "ours_pool"):
            names = page_tables.of_seeds_0_to_2(method)
            means.append(statistics.fmean(page_tables.of_several(folder, judge, names)))
        return f"{means[0] - means[1]:.1f}"

    words = " ".join((ROOT / "docs" / "results.md").read_text().split())
    early = gain(page_tables.CIFAR10, "1000_epochs")
    late = gain(page_tables.LONGER, "1000_epochs")
    by_dc = f"gain {early} points under DC's judge after 200 iterations, and {late} after 1,000."
    early = gain(page_tables.CIFAR10, "idc")
    late = gain(page_tables.LONGER, "idc")
    by_idc = f"Under IDC's judge they gain {early} points after 200 iterations, and {late} after"
    assert by_dc in words and by_idc in words


@pytest.fixture(scope="module")
def drawn_pictures(tmp_path_factory):
    """Where docs/pictures.py has drawn its pictures anew."""
    folder = tmp_path_factory.mktemp("pictures")
    subprocess.run([sys.executable, "docs/pictures.py", folder], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("name", ["method.png", "beyond.png"])
def test_the_pictures_of_the_pages_are_those_of_their_sets(name, drawn_pictures):
    drawn = np.asarray(Image.open(drawn_pictures / name).convert("RGB"), dtype=float)
    kept = np.asarray(Image.open(ROOT / "docs" / name).convert("RGB"), dtype=float)
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 3  # of 255: letters may be drawn in another way


def test_what_our_recipe_gains_on_cifar_100_is_the_difference_between_its_sets_and_bacons(
    page_tables,
):
    gains = []
    for ipc in (10, 1):
        folder = f"CIFAR100_ConvNetW32_{ipc}ipc_200it"
        ours = statistics.fmean(page_tables.at_the_end(folder, "ours_seed0"))
        bacon = statistics.fmean(page_tables.at_the_end(folder, "BACON_seed0"))
        gains.append(f"{ours - bacon:.1f}")
    words = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"it is {gains[0]} points above BACON at ipc 10, and {gains[1]} at ipc 1." in words


def test_every_table_of_make_tables_stands_in_one_page(page_tables):
    found = [name for page in PAGES for name in page_tables.names(page.read_text())]
    assert sorted(found) == sorted(page_tables.TABLES)
