"""Small images in the users' layouts, small command lines, runs and sets, shared by the tests."""

import collections
import functools
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import torture
from scripts import INTERRUPTED, JUDGED_TWICE, SMALL, run
from stops import ask

import networks
from bacon import compute, figures, flags, recipes
from bacon.data import loading, pt_layout
from bacon.distill import clusters, distiller
from bacon.run import cost
from bacon.score import command, sets
from bacon.score.baselines import baseline

torch.set_num_threads(1)  # on images this small a second thread only waits


def pytest_configure(config):
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    if config.getoption("markexpr") != "gpu":
        # What the other tests say of a run is said of a CPU's.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no CUDA device, or not asked for by -m gpu")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def no_internet(monkeypatch):
    """No test of this process fetches anything."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no internet\nhere")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture(scope="session")
def digits():
    return loading.load("Digits", os.devnull)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory, digits):
    """A --data_path with Digits as a .pt file.

    Processes that find it start without importing scikit-learn.
    """
    folder = tmp_path_factory.mktemp("data")
    tensors = digits.images_train, digits.labels_train, digits.images_test, digits.labels_test
    torch.save(
        dict(zip(pt_layout.KEYS, (digits.classes, *tensors), strict=True)), folder / "digits.pt"
    )
    return folder


@pytest.fixture(scope="session")
def few_digits(digits):
    """A reader of Digits with few images."""
    images, labels = digits.images_train[:300], digits.labels_train[:300]
    entries = (digits.classes, images, labels, digits.images_test[:50], digits.labels_test[:50])
    return lambda *args: (dict(zip(pt_layout.KEYS, entries, strict=True)), "scikit-learn")


@pytest.fixture
def quick(monkeypatch, few_digits):
    """Runs on Digits take a fraction of a second.

    By few images and narrow networks; no FLOP are counted, and there is no fsync.
    """
    monkeypatch.setitem(loading.READERS, "Digits", few_digits)
    monkeypatch.setitem(
        networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=4)
    )
    monkeypatch.setattr(cost, "flop_per_image", lambda *args: collections.defaultdict(float))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(sys, "argv", ["BACON_mnist.py"])


@pytest.fixture
def make_args():
    """Settings of a small Digits run; keyword arguments are flags."""

    def make(**given):
        switches = [
            f"--{'' if value else 'no_'}{name}"
            for name, value in given.items()
            if isinstance(value, bool)
        ]
        values = [
            f"--{name}={value}" for name, value in given.items() if not isinstance(value, bool)
        ]
        return flags.parse_args(("Digits", "MNIST"), "", [*SMALL, *switches, *values]).args

    return make


@pytest.fixture
def make_distiller(digits, make_args):
    """Make the Distiller of a small Digits run; keyword arguments are flags."""

    def make(exp=0, **given):
        args = make_args(**given)
        return distiller.begin(args, exp, digits.real("train"), compute.Arithmetic("cpu"))

    return make


@pytest.fixture
def finished(tmp_path):
    """Run a small command line to its end: its folder."""

    def make(*given, folder="run"):
        assert run("BACON_mnist.py", *SMALL, *given, "--save_path", tmp_path / folder) == 0
        return tmp_path / folder

    return make


@pytest.fixture
def script(tmp_path, monkeypatch, quick):
    """Run a small command line in tmp_path/<folder>, the same words in every folder: its exit
    code."""

    def start(*flags, folder="run"):
        folder = tmp_path / folder
        folder.mkdir(exist_ok=True, parents=True)
        monkeypatch.chdir(folder)
        return run("BACON_mnist.py", *INTERRUPTED, *flags)

    monkeypatch.setattr(clusters, "STEPS", 3)
    # What a plot shows has to be the same, too; drawing it takes longer than such a run.
    monkeypatch.setattr(
        figures, "curve", lambda *content: Path(content[-1]).write_text(repr(content[:-1]))
    )
    return start


@pytest.fixture(scope="session")
def undisturbed_runs():
    return {}


@pytest.fixture
def assert_same(script, tmp_path, undisturbed_runs, capsys):
    """Hold what a run left against what an undisturbed one with the same flags leaves, which is
    made once."""

    def check(*flags):
        if flags not in undisturbed_runs:
            assert script(*flags, folder="undisturbed") == 0
            undisturbed_runs[flags] = torture.outcome(tmp_path / "undisturbed")
        assert torture.differences(tmp_path / "run", undisturbed_runs[flags]) == []

    return check


@pytest.fixture
def colour(monkeypatch, quick, few_digits):
    """Digits have three channels, of other brightness each."""
    entries, source = few_digits()
    for split in ("train", "val"):
        grey = entries[f"images_{split}"]
        entries[f"images_{split}"] = torch.cat((grey, grey // 2, 255 - grey), 1)
    spec = recipes.DATASETS["Digits"]._replace(
        channels=3, mean=(0.3, 0.2, 0.7), std=(0.4, 0.2, 0.4)
    )
    monkeypatch.setitem(recipes.DATASETS, "Digits", spec)
    monkeypatch.setitem(loading.READERS, "Digits", lambda *args: (entries, source))


@pytest.fixture
def training_steps(monkeypatch):
    """The training steps that were begun, of any network: a list that grows by one for each."""
    begun = []
    inner = compute.Arithmetic.training_step

    def training_step(*args, **given):
        begun.append(1)
        return inner(*args, **given)

    monkeypatch.setattr(compute.Arithmetic, "training_step", training_step)
    return begun


@pytest.fixture
def at_event(monkeypatch):
    """Do something after the n-th call, from now on, of a function: at_event(n, action, owner,
    name)."""

    def plan(n, action, owner=distiller.Distiller, name="iterate"):
        inner, calls = getattr(owner, name), []

        def spy(*args, **kwargs):
            value = inner(*args, **kwargs)
            calls.append(name)
            if len(calls) == n:
                monkeypatch.setattr(owner, name, inner)
                action()
            return value

        monkeypatch.setattr(owner, name, spy)

    return plan


@pytest.fixture(scope="session")
def stopped_run(tmp_path_factory):
    """A folder for the run of `stopped`, which is made once."""
    return tmp_path_factory.mktemp("stopped") / "run"


@pytest.fixture
def stopped(script, at_event, tmp_path, stopped_run):
    """The folder of a run that was stopped and has two checkpoints."""
    if not stopped_run.exists():
        at_event(9, ask("SIGTERM"))
        assert script("--checkpoint_minutes=0") == 75
        shutil.copytree(tmp_path / "run", stopped_run)
    shutil.copytree(stopped_run, tmp_path / "run", dirs_exist_ok=True)
    return tmp_path / "run/result"


@pytest.fixture
def small_disk():
    """Files cannot grow beyond 66 kB, which a pool outgrows but a log and a fresh checkpoint do
    not."""
    resource = pytest.importorskip("resource")  # Windows has none
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (66_000, before[1]))
    yield before
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def narrow_judges(patch):
    for name in ("ConvNet", "ConvNetW32"):
        patch.setitem(networks.NETWORKS, name, functools.partial(networks.ConvNet, width=4))


@pytest.fixture
def narrow(monkeypatch):
    """Judges take a fraction of a second."""
    narrow_judges(monkeypatch)


@pytest.fixture(scope="session")
def digit_runs(tmp_path_factory, digits_folder):
    """A folder of finished runs: BACON with two experiments, without a term, random images.

    Their networks are narrow.
    """
    root = tmp_path_factory.mktemp("runs")
    kinds = {
        "BACON": ["--num_exp=2", "--eval_mode=C"],
        "no_tv": ["--tv_weight=0"],
        "random": ["--Iteration=0"],
    }
    with pytest.MonkeyPatch.context() as patch:
        narrow_judges(patch)
        for name, words in kinds.items():
            line = [*JUDGED_TWICE, "--seed=3", *words]
            line += ["--data_path", digits_folder, "--save_path", root / name]
            assert run("BACON_mnist.py", *line) == 0
    return root


@pytest.fixture
def score(narrow, capsys, digits_folder, tmp_path):
    """The rows of the scorer for a command line, by narrow judges."""

    def rows(*line):
        line = [*map(str, line), "--format=json", f"--save_path={tmp_path / 'cache'}"]
        if "--data_path" not in line:
            line.append(f"--data_path={digits_folder}")
        assert command.main(None, line) == 0
        return [json.loads(text) for text in capsys.readouterr().out.splitlines()]

    return rows


@pytest.fixture(scope="session")
def facts(digits):
    return sets.Facts.of("Digits", digits, lambda: digits.classes)


@pytest.fixture(scope="session")
def canvases(digits):
    """Two canvases of each class, four real images each, normalised, and their labels."""
    made = baseline("random4", digits.real("train"), 2, seed=0)
    return made.canvases, made.labels
