"""docs/extending.md: its examples, applied to a copy of the repository, run as printed."""

import json
import math
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
EDIT = re.compile(
    r"^(?:In|A new file) `(?P<file>[\w/.]+)`"
    r"(?:, (?P<where>at the end|above|a row of)(?: `(?P<name>\w+)`)?[^\n:]*)?:\n\n"
    r"```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
SHELL = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def sections():
    """{heading: text} of the page; "" is what stands before the first heading."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


SECTIONS = sections()


def edits(heading):
    return list(EDIT.finditer(SECTIONS[heading]))


def apply(edit, folder):
    """One printed change, made in the copy of the repository as a reader would make it."""
    path = folder / edit["file"]
    code = edit["code"]
    where = edit["where"]
    if where is None:
        assert not path.exists()
        path.write_text(code)
        return
    text = path.read_text()
    if where == "at the end":
        path.write_text(f"{text}\n\n{code}")
        return
    (start,) = re.finditer(rf"^{edit['name']} = \{{.*\n", text, re.MULTILINE)
    if where == "above":
        path.write_text(f"{text[: start.start()]}{code}\n\n{text[start.start() :]}")
        return
    end = text.index("\n}", start.end()) + 1
    path.write_text(text[:end] + textwrap.indent(code, "    ") + text[end:])


def run(heading, folder):
    """Run the commands of a section with the flags that all share; each must end well."""
    shared = next(line for line in SECTIONS[""].splitlines() if line.startswith("QUICK="))
    done = []
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}'
    for block in SHELL.findall(SECTIONS[heading]):
        one = subprocess.run(
            ["bash", "-euc", f"{python}\n{shared}\n{block}"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert one.returncode == 0, one.stdout + one.stderr
        done.append(one.stdout)
    return "".join(done)


def kmnist_in_small(folder):
    """Files in the layout of KMNIST's own, of noise."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 100), ("test", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.savez(folder / f"kmnist-{split}-imgs.npz", images)
        np.savez(folder / f"kmnist-{split}-labels.npz", np.arange(count) % 10)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the repository's code with every example of the page in it, and the first set."""
    folder = tmp_path_factory.mktemp("house")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "bacon", folder / "bacon", ignore=shutil.ignore_patterns("__pycache__"))
    for heading in SECTIONS:
        for edit in edits(heading):
            apply(edit, folder)
    kmnist_in_small(folder / "data")
    run("", folder)
    return folder


def logged(folder, event):
    """The last event of this name in the log of a run."""
    (log,) = folder.glob("log_*.jsonl")
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [one for one in found if one["event"] == event][-1]


def distilled(folder, term):
    """Whether a run ended, and the log has a term of its loss."""
    losses = logged(folder, "losses")
    return logged(folder, "end") and losses["it"] == 5 and math.isfinite(losses[term])


def test_every_block_of_python_is_an_edit_and_no_example_needs_more_than_two_files():
    assert len(SECTIONS) == 9
    for heading, text in SECTIONS.items():
        found = edits(heading)
        assert len(found) == text.count("```python"), heading
        assert len({edit["file"] for edit in found}) <= 2, heading
        assert (len(found) > 0) == bool(heading)


def test_a_loss_term(house):
    run("A loss term", house)
    assert distilled(house / "result" / "cosine", "direction")
    start = logged(house / "result" / "cosine", "start")
    assert start["args"]["direction_weight"] == 20
    (result,) = (house / "result" / "cosine").glob("res_Cosine_*.pt")
    assert "direction20" in result.name


def test_a_method(house):
    run("A method: a kernel distance", house)
    folder = house / "result" / "mmd"
    assert distilled(folder, "mmd")
    losses = logged(folder, "losses")
    assert 0 < losses["mmd"] < 2
    assert "lh" not in losses


def test_a_dataset_as_one_file(house):
    printed = run("A dataset of your own, as one file", house)
    code = SECTIONS["A dataset of your own, as one file"]
    mean, std, train, test = re.search(
        r"mean=\((.*),\),\n +std=\((.*),\),\n +train=(\d+),\n +test=(\d+)", code
    ).groups()
    assert printed.startswith(f"mean {mean}, std {std}, {train} and {test} images\n")
    assert "none is published for BACON on Scans" in " ".join(printed.split())
    assert distilled(house / "result" / "scans", "lh")


def test_a_dataset_by_a_reader(house):
    run("A dataset by a reader", house)
    start = logged(house / "result" / "kmnist", "start")
    assert start["classes"][:3] == ["o", "ki", "su"]
    assert (start["train_images"], start["test_images"]) == (100, 20)
    assert distilled(house / "result" / "kmnist", "lh")


def test_a_network(house):
    printed = run("A network", house)
    assert distilled(house / "result" / "network", "lh")
    assert "AllConv" in printed


def test_a_protocol(house):
    printed = run("A judge's protocol", house)
    assert "40 epochs, batch 64, sgd, quarters 0.02" in printed


def test_an_operation_of_dsa(house):
    run("A DSA operation", house)
    folder = house / "result" / "shear"
    assert logged(folder, "start")["args"]["dsa_strategy"] == "color_flip_shear"
    assert distilled(folder, "lh")


class Writer:
    """Stands for TensorBoard's SummaryWriter: keeps what it is told."""

    figures = []  # noqa: RUF012 (of all writers)

    def add_scalar(self, name, value, step):
        self.figures.append([name, value, step])

    def close(self):
        self.figures.append("closed")


def test_a_logger(house, monkeypatch):
    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    (command,) = SHELL.findall(SECTIONS["A logger"])
    _, script, pattern = shlex.split(command)
    (log,) = house.glob(pattern)
    monkeypatch.setattr(sys, "argv", [script, str(log)])
    runpy.run_path(str(house / script))
    figures = Writer.figures
    assert figures[-1] == "closed"
    losses = logged(house / "result" / "first", "losses")
    assert ["losses/loss", losses["loss"], 5] in figures
    evaluation = logged(house / "result" / "first", "evaluation")
    percent = pytest.approx(100 * evaluation["accuracy"][0])
    assert [f"accuracy/{evaluation['network']}", percent, 5] in figures
