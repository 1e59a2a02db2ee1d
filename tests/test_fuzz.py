"""Whatever is on the command line or in the files: one line or a run, no traceback, no damage.

`python -m pytest -s tests/test_fuzz.py` prints how many cases each test tried.
"""

import contextlib
import functools
import io
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from layouts import written, zip_tiny
from scripts import contents, run

from bacon import canvases, flags
from bacon.data import loading
from bacon.errors import UserError
from bacon.files import load_torch
from bacon.recipes import DATASETS
from bacon.run import cost
from bacon.run import run as runner
from bacon.run.experiment import Experiment

pytestmark = pytest.mark.usefixtures("quick")
CASES = functools.partial(
    settings,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # failing cases are small enough; making them smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
tried = {}


@pytest.fixture(autouse=True)
def report(request, capsys):
    yield
    with capsys.disabled():
        print(f"\n{request.node.name}: {tried.get(request.node.originalname, 0)} cases", end="")


def count(name):
    tried[name] = tried.get(name, 0) + 1


def outcome(script, *argv):
    """(exit code, standard error) of a script's main function."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(script, *argv)
    return code, err.getvalue()


# Flags

NAMES = [name for rows in flags.FLAGS.values() for name, *_ in rows] + [
    name for name, *_ in flags.DEAD_FLAGS
]
WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            "-1",
            "0",
            "1",
            "2",
            "1e9",
            "999999999",
            "1000000001",
            "-999999999",
            "nan",
            "inf",
            "1e-400",
            "0x10",
            "1_0",
            "٣",
            "true",
            "None",
            "~nobody",
            "/dev/null",
            "/proc/self",
            "a" * 300,
            "\udcff",
            "none",
            "color__crop",
            "DM",
            "IDM",
            "ConvNetW32",
            "ConvNetBN",
            "ConvNetD4",
            "MLP",
            "Digits",
            "MNIST",
            "adam",
            "noise",
            "residual",
            "M",
            "bf16",
            "cuda",
        ]
    ),
    st.integers(-(10**12), 10**12).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_characters="\0"), max_size=8),
)
FLAG = st.tuples(
    st.sampled_from([*NAMES, *(f"no_{name}" for name in NAMES)]), st.none() | WORDS
).map(lambda pair: f"--{pair[0]}" if pair[1] is None else f"--{pair[0]}={pair[1]}")


@CASES(max_examples=400)
@given(words=st.lists(FLAG | WORDS, max_size=4))
def test_any_flags_give_one_line_or_a_run(words, tmp_path, monkeypatch):
    count("test_any_flags_give_one_line_or_a_run")
    begun = []
    monkeypatch.setattr(runner.Run, "go", lambda *args: begun.append(1))  # the work itself
    monkeypatch.setattr(cost, "dry_run", lambda *args: begun.append(1))
    monkeypatch.chdir(tmp_path)
    usual = ["--dataset=Digits", "--ipc=1", "--model=ConvNetW32", "--save_path=result"]
    code, text = outcome("BACON_mnist.py", *usual, *words)
    if "-h" in words or "--help" in words:
        return
    assert code in (0, 2), text
    assert text.count("\n") == (code == 2) and "Traceback" not in text, text
    assert bool(begun) == (code == 0)
    for path in tmp_path.iterdir():
        assert path.is_dir() and not contents(path) and (code == 0 or not any(path.iterdir()))
        shutil.rmtree(path)


def refuse(message, *args, **kwargs):
    raise OSError(message)


SAFE_VALUES = {
    "Iteration": [0, 1, 2],
    "ipc": [1, 3],
    "method": ["BACON", "IDM", "DM"],
    "init": ["real", "noise"],
    "optim": ["sgd", "adam"],
    "batch_real": [2, 7, 10**9],
    "embed_last": [-1, 1, 4, 1000],
    "outer_loop": [1, 2],
    "ce_weight": [0, 1e30],
    "lr_img": [1e-30, 0.2, 1e30],
    "lr_net": [1e-30, 0.01, 1e30],
    "clip_prior": ["released", "residual"],
    "net_num": [1, 2, 10**6],
    "net_push_num": [0, 1],
    "net_generate_interval": [1, 10**9],
    "net_begin": [-5, 0, 10**9],
    "net_end": [-5, 0, 10**9],
    "train_net_num": [1, 10**9],
    "fetch_net_num": [0, 1, 10**9],
    "model_train_steps": [0, 1],
    "trained_bs": [1, 10**9],
    "meter_reset": [1, 10**9],
    "eval_interval": [1, 10**9],
    "batch_train": [1, 10**9],
    "dsa_strategy": ["none", "color_crop_cutout_flip_scale_rotate", "flip"],
    "seed": [0, 10**9],
}
VALID = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(v) for name, v in SAFE_VALUES.items()}
)
SWITCHES = st.lists(
    st.sampled_from(["aug", "syn_ce", "net_decay", "zca"]).flatmap(
        lambda n: st.sampled_from([n, f"no_{n}"])
    )
)


@CASES(max_examples=25)
@given(values=VALID, switches=SWITCHES)
def test_extreme_valid_flags_run_or_diverge(values, switches, tmp_path):
    count("test_extreme_valid_flags_run_or_diverge")
    first = {
        "Iteration": 1,
        "batch_real": 7,
        "trained_bs": 8,
        "model_train_steps": 1,
        "batch_train": 64,
        "ipc": 1,
    }
    fixed = {
        "dataset": "Digits",
        "model": "ConvNetW32",
        "num_exp": 1,
        "num_eval": 1,
        "epoch_eval_train": 1,
    }
    line = [f"--{name}={value}" for name, value in {**first, **values, **fixed}.items()]
    line += [f"--{name}" for name in switches]
    code, text = outcome(
        "BACON_mnist.py", *line, "--no_compile", "--overwrite", "--save_path", tmp_path / "result"
    )
    assert code in (0, 2, 3) and text.count("\n") == (code != 0), (code, text)
    if code == 0:
        (result,) = (tmp_path / "result").glob("res_*.pt")
        assert canvases.load_distilled(result)[0].isfinite().all()
    shutil.rmtree(tmp_path / "result", ignore_errors=True)


# Damaged files


@st.composite
def damages(draw):
    """A function bytes -> other bytes.

    Cut, overwritten somewhere, extended, or something else altogether.
    """
    where, junk = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=12))
    kind = draw(
        st.sampled_from(["cut", "overwrite", "start", "extend", "insert", "replace", "zeros"])
    )

    def damage(content):
        at = int(where * len(content))
        return {
            "cut": content[:at],
            "overwrite": content[:at] + junk + content[at + len(junk) :],
            "start": junk + content[len(junk) :],
            "extend": content + junk,
            "insert": content[:at] + junk + content[at:],
            "replace": junk,
            "zeros": bytes(len(content)),
        }[kind]

    return damage


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Per kind of input: the folder of an intact data path, the file to damage, the dataset and
    its row of the table."""
    root, kinds = tmp_path_factory.mktemp("originals"), {}

    def keep(kind, folder, file, name):
        copy = root / f"copy of {kind}"
        shutil.copytree(root / folder, copy)
        intact = loading.load(name, copy)
        kinds[kind] = (root / folder, root / folder / file, intact, DATASETS[name])

    with pytest.MonkeyPatch.context() as patch:
        written("MNIST", root / "idx", patch, train=2)
        shutil.copytree(root / "idx", root / "pt")
        loading.load("MNIST", root / "pt")
        shutil.rmtree(root / "pt/MNIST")
        (root / "legacy").mkdir()
        entries = load_torch(root / "pt/mnist.pt")
        torch.save(entries, root / "legacy/mnist.pt", _use_new_zipfile_serialization=False)
        three = DATASETS["TinyImageNet"]._replace(num_classes=3)
        patch.setitem(DATASETS, "TinyImageNet", three)
        written("TinyImageNet", root / "tiny", patch, train=2)
        zip_tiny(root / "tiny")
        shutil.rmtree(root / "tiny/tiny-imagenet-200")

        keep("images", "idx", "MNIST/raw/train-images-idx3-ubyte", "MNIST")
        keep("labels", "idx", "MNIST/raw/t10k-labels-idx1-ubyte", "MNIST")
        keep("pt", "pt", "mnist.pt", "MNIST")
        keep("legacy pt", "legacy", "mnist.pt", "MNIST")
        keep("zip", "tiny", "tiny-imagenet-200.zip", "TinyImageNet")
    return kinds


def assert_holds_what_the_file_does(kind, dataset, intact, content):
    """What was loaded from a damaged file: what it says where nothing checks it, else the truth."""
    numbers = np.frombuffer(content, np.uint8)
    if kind == "images":
        pixels = numbers[16 : 16 + intact.images_train.numel()]
        assert dataset.images_train.flatten().tolist() == pixels.tolist()
    elif kind == "labels":
        assert dataset.labels_test.tolist() == numbers[8 : 8 + len(intact.labels_test)].tolist()
    elif kind == "legacy pt":
        entries = torch.load(io.BytesIO(content), weights_only=True)
        for split, ours in (("train", dataset.images_train), ("val", dataset.images_test)):
            assert torch.equal(ours, entries[f"images_{split}"])
    else:  # there is a check sum
        assert dataset.fingerprint == intact.fingerprint


@pytest.mark.parametrize("kind", ["images", "labels", "pt", "legacy pt", "zip"])
@CASES(max_examples=40)
@given(damage=damages())
def test_damaged_data_files_give_one_line_and_stay_as_they_are(
    kind, damage, originals, tmp_path, monkeypatch
):
    count("test_damaged_data_files_give_one_line_and_stay_as_they_are")
    folder, file, intact, spec = originals[kind]
    monkeypatch.setitem(DATASETS, intact.name, spec)
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    path = copy / file.relative_to(folder)
    path.write_bytes(damage(file.read_bytes()))
    before = contents(copy)
    try:
        dataset = loading.load(intact.name, copy)
    except UserError as error:
        assert "\n" not in str(error) and str(copy) in str(error)
    else:
        assert_holds_what_the_file_does(kind, dataset, intact, before[path])
    after = contents(copy)
    assert {path: after.get(path) for path in before} == before
    shutil.rmtree(copy)


FLAGS = [
    "--dataset=Digits",
    "--model=ConvNetW32",
    "--ipc=1",
    "--Iteration=3",
    "--batch_real=5",
    "--trained_bs=5",
    "--model_train_steps=1",
    "--num_exp=1",
    "--num_eval=1",
    "--epoch_eval_train=1",
    "--net_num=2",
    "--checkpoint_minutes=0",
    "--save_path=result",
]


@pytest.fixture
def stopped(quick, tmp_path):
    """A run that was killed with two checkpoints, and the result it would have ended in."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert outcome("BACON_mnist.py", *FLAGS)[0] == 0
        (result,) = folder.glob("result/res_*.pt")
        wanted = result.read_bytes()
        patch.setattr(Experiment, "save_picture", lambda *args: refuse("no picture"))
        assert outcome("BACON_mnist.py", *FLAGS, "--overwrite")[0] == 2
    assert len(list(folder.glob("result/ckpt_*.pt"))) == 2
    return folder, wanted


@CASES(max_examples=25)
@given(first=damages(), second=st.none() | damages())
def test_damaged_checkpoints_are_kept_and_resumed_around_or_refused(
    first, second, stopped, tmp_path, monkeypatch
):
    count("test_damaged_checkpoints_are_kept_and_resumed_around_or_refused")
    folder, wanted = stopped
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    monkeypatch.chdir(copy)
    previous, newest = sorted(copy.glob("result/ckpt_*.pt"), key=lambda p: "previous" not in p.name)
    before = [
        damage(path.read_bytes()) if damage else path.read_bytes()
        for path, damage in ((newest, first), (previous, second))
    ]
    for path, content in zip((newest, previous), before, strict=True):
        path.write_bytes(content)
    code, text = outcome("BACON_mnist.py", *FLAGS, "--resume")
    kept = [path.read_bytes() for path in copy.glob("result/ckpt_*_damaged*.pt")]
    if code == 0:  # from either checkpoint
        (result,) = copy.glob("result/res_*.pt")
        assert result.read_bytes() == wanted and text == ""
    else:
        assert (
            code == 2 and text.count("\n") == 1 and "no valid checkpoint" in text and len(kept) == 2
        )
    assert all(content in before for content in kept)
    shutil.rmtree(copy)


@CASES(max_examples=60)
@given(damage=damages())
def test_damaged_results_are_refused_in_one_line(damage, stopped, tmp_path):
    count("test_damaged_results_are_refused_in_one_line")
    (tmp_path / "intact.pt").write_bytes(stopped[1])
    (tmp_path / "res.pt").write_bytes(damage(stopped[1]))
    for read in (canvases.load_distilled, lambda path: canvases.read_result(path)["data"][0]):
        intact, *_ = read(tmp_path / "intact.pt")
        try:
            images, *_ = read(tmp_path / "res.pt")
        except UserError as error:
            assert "\n" not in str(error) and "res.pt" in str(error)
        else:
            assert torch.equal(images, intact)  # there is a check sum
