"""Facts about what a run is said to cost: counted work, time, disk; and how that decides the
arithmetic."""

import functools
import re
import sys
import types

import pytest
import torch
from heard import hearing
from scripts import INTERRUPTED, SMALL, run, run_name
from stops import ask

import networks
from bacon import compute, flags, messages, recipes
from bacon.distill import distiller, pool
from bacon.recipes import DATASETS
from bacon.run import cost


def test_a_dry_run_prints_the_cost_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "result"
    assert run("BACON_mnist.py", *SMALL, "--dry_run", "--save_path", folder) == 0
    text = capsys.readouterr().out
    for word in (
        "canvas updates",
        "pool training",
        "judging: train ConvNetW32",
        "judging: test ConvNetW32",
        "total",
    ):
        assert word in text
    assert (
        "a judge takes up to" in text
        and "checkpoint about" in text
        and "peak memory about" in text
        and not folder.exists()
    )


def test_a_dry_run_needs_no_data(tmp_path, capsys):
    flags = ["--dataset=CIFAR10", f"--data_path={tmp_path / 'none'}", "--dry_run"]
    assert run("BACON_cifar10.py", *SMALL[1:], *flags) == 0
    text = capsys.readouterr().out
    assert "50,000 training and 10,000 test images, 3x32x32" in text and "random images" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dataset", "batch_real", "classes", "each"),
    [("CIFAR10", 256, 3, 256), ("CIFAR10", 9000, 2, 5000), ("CIFAR100", 9000, 2, 500)],
)
def test_distilling_is_timed_with_as_many_images_of_a_class_as_its_batches_have(
    dataset, batch_real, classes, each, make_args, monkeypatch
):
    timed = []

    def images(spec, *sizes):
        timed.append(sizes)
        raise StopIteration

    monkeypatch.setattr(cost, "random_images", images)
    monkeypatch.setattr(compute.Arithmetic, "chunk", lambda self, size: 3 * 256)
    args = make_args(batch_real=batch_real)
    with pytest.raises(StopIteration):
        cost._seconds_of_distilling(args, DATASETS[dataset], compute.Arithmetic("cpu"))
    assert timed == [(classes, each, compute.Arithmetic("cpu").device)]


@pytest.mark.parametrize("method", ["BACON", "DM"])
def test_each_kind_of_work_of_distilling_is_timed_five_times(method, make_args, monkeypatch):
    done = []
    monkeypatch.setattr(distiller.Distiller, "update_canvases", lambda *args: done.append("update"))
    monkeypatch.setattr(pool.Trainer, "train", lambda self, *args: done.append(args[1]))
    args = flags.parse_args(("Digits",), "", ["--ipc=1", f"--method={method}"]).args
    found = cost._seconds_of_distilling(args, DATASETS["Digits"], compute.Arithmetic("cpu"))
    if method == "DM":  # which trains no network
        assert done == ["update"] * 5 and list(found) == ["real"]
    else:
        assert done == ["update"] * 5 + [2] * 5 and list(found) == ["real", "train"]


@pytest.mark.parametrize("method", ["BACON", "DM"])
def test_experts_are_timed_with_dsa_in_steps_of_their_own(method, make_args, monkeypatch):
    trained = []
    monkeypatch.setattr(pool.Trainer, "train", lambda self, *args: trained.append(args))
    args = make_args(
        method=method, experts=1, expert_steps=9, dsa_strategy="crop_flip", model_train_steps=1
    )
    found = cost._seconds_of_distilling(args, DATASETS["Digits"], compute.Arithmetic("cpu"))
    assert list(found) == ["real", "train"]
    assert {(steps, strategy) for _, steps, _, strategy in trained} == {(2, ("crop", "flip"))}


def test_experts_are_trained_once_before_and_their_cross_entropy_takes_another_pass(make_args):
    spec = DATASETS["MNIST"]

    def counts(**given):
        return cost.images_per_kind(make_args(dataset="MNIST", Iteration=10, **given), spec)

    pool_only = counts()
    matched = counts(experts=5, expert_steps=40)
    assert matched["train"] == 5 * 40 * 16 != pool_only["train"]
    assert matched["synthetic"] == pool_only["synthetic"] and matched["real"] == pool_only["real"]
    nothing = cost.images_per_kind(make_args(Iteration=0, experts=5), DATASETS["Digits"])
    assert nothing["train"] == 0
    both = counts(experts=5, expert_steps=40, expert_ce=1)
    assert both == matched | {"synthetic": 2 * matched["synthetic"]}
    small = cost.checkpoint_bytes(make_args(experts=5), spec)
    assert small < cost.checkpoint_bytes(make_args(net_num=1), spec)


def test_a_dry_run_counts_experts_once_for_all_experiments(capsys):
    def trained(*words):
        line = ["--experts=2", "--expert_steps=30", "--expert_ce=1", *words]
        assert run("BACON_mnist.py", *SMALL, *line, "--dry_run") == 0
        (row,) = re.findall(r"training of experts +([\d,]+) ", capsys.readouterr().out)
        return int(row.replace(",", ""))

    assert trained() == trained("--num_exp=3") == 2 * 30 * 16


def test_a_run_says_what_judging_costs_and_how_to_do_less_of_it(make_args):
    args, spec = make_args(dataset="MNIST", eval_interval=1, Iteration=20), DATASETS["MNIST"]
    share = cost.about_judging(args, spec)
    images = cost.images_per_kind(args, spec)
    judging = 3 * images["train", "ConvNetW32"] + images["test", "ConvNetW32"]
    distilling = images["real"] + 2 * images["synthetic"] + 3 * images["train"]
    assert (
        f"about {judging / (judging + distilling):.0%} of the work" in share
        and "--eval_interval 20" in share
    )
    args.eval_interval = 20
    assert cost.about_judging(args, spec) == ""


@pytest.mark.parametrize("method", ["BACON", "DM"])
def test_every_kind_of_work_is_timed_on_random_images(method, make_args):
    args, arithmetic = (
        make_args(method=method, eval_mode="C", init="real"),
        compute.Arithmetic("cpu"),
    )
    before, spec = vars(args).copy(), DATASETS["Digits"]
    seconds = cost.seconds_per_image(args, spec, cost.Arithmetics(arithmetic, arithmetic))
    kinds = {kind for kind, images in cost.images_per_kind(args, spec).items() if images} - {
        "synthetic"
    }
    assert seconds.keys() == kinds and min(seconds.values()) > 0 and vars(args) == before


def test_counted_work_is_that_of_the_shapes(make_args, digits):
    args = make_args(
        ipc=2, Iteration=3, batch_real=20, model_train_steps=2, trained_bs=16, epoch_eval_train=2
    )
    images = cost.images_per_kind(args, digits)
    assert images == {
        "real": 3 * 20 * 10,
        "synthetic": 3 * 80,
        "train": 3 * 2 * 2 * 16,
        ("train", "ConvNetW32"): 3 * 80,
        ("test", "ConvNetW32"): len(digits.labels_test),
    }
    flop = cost.flop_per_image(args, DATASETS["Digits"])
    convolutions = 2 * 9 * (64 * 1 * 32 + 16 * 32 * 32 + 4 * 32 * 32)
    linear = 2 * 32 * 10
    assert flop["real"] == convolutions + linear
    # Backwards costs the same again per layer for its weights, and again for its input but for the
    # first layer's.
    assert flop["train"] == 3 * (convolutions + linear) - 2 * 9 * 64 * 32
    assert flop["synthetic"] == 2 * (convolutions + linear)


def test_checkpoints_of_a_full_pool_have_the_published_size(make_args):
    flags = {
        "ipc": 10,
        "Iteration": 20000,
        "net_num": 100,
        "net_generate_interval": 30,
        "model": "ConvNet",
    }
    args = make_args(**flags)
    spec = DATASETS["CIFAR10"]
    assert cost.checkpoint_bytes(args, spec) == pytest.approx(
        100 * 2 * 4 * 320_010 + 3 * 4 * 100 * 3072
    )
    args.Iteration = 30
    assert cost.checkpoint_bytes(args, spec) == pytest.approx(
        4 * 2 * 4 * 320_010 + 3 * 4 * 100 * 3072
    )


@pytest.mark.parametrize("iterations", [10, 1000])
def test_how_one_distils_does_not_depend_on_how_often_one_judges(iterations, digits, make_args):
    def chosen(**flags):
        args = make_args(
            Iteration=iterations, model="ConvNet", batch_real=100, epoch_eval_train=50, **flags
        )
        return str(cost.arithmetics(args, digits).distilling)

    usual = chosen()
    assert (
        usual
        == chosen(eval_interval=1)
        == chosen(num_eval=500)
        == chosen(num_exp=100)
        == chosen(eval_mode="W")
    )
    assert usual == chosen(num_exp=100, exp_index=3)
    assert ("compiled" in usual) == (iterations == 1000 and compute.compile_error("cpu") is None)


SECONDS = {
    "real": 0.01,
    "train": 0.002,
    ("train", "ConvNetW32"): 0.03,
    ("test", "ConvNetW32"): 0.004,
    ("train", "ConvNet"): 0.05,
    ("test", "ConvNet"): 0.001,
}  # per image


@pytest.fixture
def printed(make_args, monkeypatch, capsys):
    """A dry run of two experiments with two judges of two networks at each of three iterations,
    at SECONDS: its rows as {title: [images, TFLOP, GFLOP/s, seconds]}, and the lines below."""
    monkeypatch.setattr(cost, "seconds_per_image", lambda *args: SECONDS)
    args = make_args(num_exp=2, num_eval=2, eval_mode="C", eval_interval=1)
    arithmetic = compute.Arithmetic("cpu")
    both = cost.Arithmetics(arithmetic, arithmetic)
    with messages.speak("stdout"):
        cost.dry_run(args, DATASETS["Digits"], both)
    rows, below = {}, []
    for line in capsys.readouterr().out.splitlines()[1:]:
        if "total" in rows:
            below.append(line)
            continue
        *cells, value, unit = line[32:].replace(",", "").split()
        seconds = float(value) * {"s": 1, "min": 60, "h": 3600}[unit]
        rows[line[:32].strip()] = [*map(float, cells), seconds]
    return rows, below


def test_a_dry_run_says_how_much_work_and_how_long_of_both_experiments(printed):
    rows, _ = printed
    # 80 decoded images, 3 epochs, 596 test images; 2 experiments x 3 evaluations x 2 judges
    images, tflop, rate, seconds = rows["judging: test ConvNetW32"]
    forward = 2 * 9 * (64 * 1 * 32 + 16 * 32 * 32 + 4 * 32 * 32) + 2 * 32 * 10
    assert images == 12 * 596 and tflop == pytest.approx(images * forward / 1e12, rel=1e-3)
    assert seconds == pytest.approx(images * 0.004, abs=0.5)
    assert rate == pytest.approx(images * forward / 1e9 / (images * 0.004), abs=0.5)
    images, *_, seconds = rows["judging: train ConvNet"]
    assert images == 12 * 3 * 80 and seconds == pytest.approx(images * 0.05, rel=0.02)
    images, *_, seconds = rows["canvas updates"]
    assert images == 2 * 3 * (20 * 10 + 80)
    assert seconds == pytest.approx(2 * 3 * 200 * 0.01, rel=0.05)
    images, *_, seconds = rows["pool training"]
    assert images == 2 * 3 * 2 * 2 * 16 and seconds == pytest.approx(images * 0.002, rel=0.05)


def test_the_total_of_a_dry_run_is_that_of_its_rows(printed):
    rows, _ = printed
    images, tflop, seconds = rows.pop("total")
    assert images == sum(row[0] for row in rows.values())
    assert tflop == pytest.approx(sum(row[1] for row in rows.values()), rel=1e-3)
    assert seconds == pytest.approx(sum(row[3] for row in rows.values()), rel=0.05)


def test_the_longest_judge_is_one_network_trained_and_tested_once(printed):
    _, below = printed
    seconds = 3 * 80 * 0.05 + 596 * 0.001  # of a ConvNet; ConvNetW32 takes 9.6 s
    assert f"a judge takes up to {seconds:.0f} s: a job's time limit has to be longer" in below


@pytest.mark.parametrize("optim", ["sgd", "adam"])
def test_a_checkpoint_is_as_large_as_is_said(optim, make_distiller, make_args):
    flags = {"optim": optim, "ipc": 50, "aug": False, "Iteration": 1, "num_exp": 2}
    flags["fetch_net_num"] = 4  # all networks have been trained, so have momentum
    distiller = make_distiller(**flags)
    distiller.iterate(0)

    def size(state):
        if isinstance(state, torch.Tensor):
            return state.nbytes
        values = state.values() if isinstance(state, dict) else state
        return sum(size(value) for value in values) if isinstance(state, dict | list) else 0

    of_ended = 2 * distiller.all_canvases().nbytes  # the sets of both experiments
    said = cost.checkpoint_bytes(make_args(**flags), DATASETS["Digits"])
    assert said == pytest.approx(size(distiller.state_dict()) + of_ended, rel=0.01)


def test_a_checkpoint_is_as_large_as_announced(script, at_event, make_args, tmp_path, monkeypatch):
    monkeypatch.setitem(
        networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=32)
    )
    at_event(6, ask("SIGTERM"))
    assert script("--num_exp=1") == 75
    args = make_args(ipc=1, Iteration=6, net_generate_interval=2, net_num=5)
    name = run_name("BACON_mnist.py", *INTERRUPTED, "--num_exp=1")
    size = (tmp_path / f"run/result/ckpt_{name}.pt").stat().st_size
    announced = cost.checkpoint_bytes(args, recipes.DATASETS["Digits"])
    assert announced < size < 1.2 * announced


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_what_was_used_and_the_pool_and_the_images_beside_it(
    system, unit, make_args, monkeypatch
):
    resource = pytest.importorskip("resource")  # Windows has none
    used = types.SimpleNamespace(ru_maxrss=3e9 / unit)
    monkeypatch.setattr(resource, "getrusage", lambda who: used)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(cost, "seconds_per_image", lambda *args: SECONDS)
    monkeypatch.setattr(cost, "checkpoint_bytes", lambda *args: 20_500_000_000)
    cpu = compute.Arithmetic("cpu")
    spec = DATASETS["Digits"]._replace(train=10**7, test=10**6)  # 0.7 GB
    with hearing() as said:
        cost.dry_run(make_args(), spec, cost.Arithmetics(cpu, cpu))
    assert said[-1] == "peak memory about 24.2 GB"
    assert said[-2] == "checkpoint about 20,500.0 MB; 61,500.0 MB of disk while one is written"


@pytest.mark.parametrize(
    ("judges", "each"),
    [
        ({}, 3 * 80),  # two epochs, and the paper's one more
        ({"judge_steps": 1001}, 500 * 80 + 60),  # in batches of 60 and 20
        ({"judge_steps": 1001, "ipc": 1}, 1001 * 40),
    ],
)
def test_judging_is_counted_by_steps_or_by_epochs_and_once_more_for_the_last(
    judges, each, make_args
):
    args = make_args(eval_interval=2, num_eval=5, batch_train=60, **judges)
    images = cost.images_per_kind(args, DATASETS["Digits"])
    evaluations = 2  # before the third of three iterations, and at the end
    assert images["train", "ConvNetW32"] == evaluations * 5 * each
    assert images["test", "ConvNetW32"] == evaluations * 5 * 596


def test_what_is_judged_with_depends_on_one_evaluation(make_args, monkeypatch):
    """However many there are."""
    works = []
    monkeypatch.setattr(compute, "choose", lambda *args: works.append(args[-1]))
    for interval, several in ((1, 1), (3, 4)):
        args = make_args(eval_interval=interval, num_exp=several)
        cost.arithmetics(args, DATASETS["Digits"])
    spec = DATASETS["Digits"]
    flop = cost.flop_per_image(args, spec)
    images = {kind: 3 * 80 if kind[0] == "train" else 596 for kind in flop if cost.is_judging(kind)}
    assert works[1] == works[3] == pytest.approx(sum(images[kind] * flop[kind] for kind in images))
    images = cost.images_per_kind(args, spec)
    distilling = ("real", "synthetic", "train")
    assert works[0] == works[2] == sum(images[kind] * flop[kind] for kind in distilling)


@pytest.mark.parametrize(
    ("flags", "counts", "share"),
    [
        ({}, (100, 100, 100, 100, 100), 0.4),  # (3 + 1) of (3 + 1) + (1 + 2 + 3)
        ({"eval_mode": "C"}, (100, 100, 100, 100, 100), 8 / 14),  # two networks judge
        ({}, (1000, 0, 0, 0, 2000), 2 / 3),
        ({}, (0, 100, 0, 100, 0), 3 / 5),
        ({}, (0, 0, 100, 100, 0), 1 / 2),
        ({}, (900, 0, 0, 0, 100), 0.1),
        ({}, (901, 0, 0, 0, 100), None),  # below a tenth nothing is worth saying
        ({"eval_interval": 20}, (0, 0, 0, 100, 100), None),  # at the end it has to be
    ],
)
def test_the_share_of_judging_is_that_of_its_passes(flags, counts, share, make_args, monkeypatch):
    """A pass forward for an image tested or embedded, two more to train on it, and one more for
    the gradient of a synthetic one."""
    real, synthetic, trained, judges, tested = counts
    images = {"real": real, "synthetic": synthetic, "train": trained}
    for name in ("ConvNetW32", "ConvNet"):
        images |= {("train", name): judges, ("test", name): tested}
    monkeypatch.setattr(cost, "images_per_kind", lambda *args: images)
    args = make_args(**{"Iteration": 20, "eval_interval": 5, **flags})
    said = cost.about_judging(args, DATASETS["Digits"])
    if share is None:
        assert said == ""
    else:
        assert said.startswith(f"; about {share:.0%} of the work. --eval_interval 20 judges")


@pytest.mark.parametrize(("batch_real", "each_pass"), [(20, 200), (1000, 1201)])
def test_distilling_is_counted_for_every_pass_and_training_step(batch_real, each_pass, make_args):
    args = make_args(
        Iteration=4, outer_loop=3, train_net_num=2, fetch_net_num=5, model_train_steps=7,
        batch_real=batch_real, trained_bs=16,
    )  # fmt: skip
    images = cost.images_per_kind(args, DATASETS["Digits"])
    assert images["real"] == 4 * 3 * 2 * each_pass  # no more than there are
    assert images["synthetic"] == 4 * 3 * 2 * 80
    assert images["train"] == 4 * 3 * 5 * 7 * 16


def test_no_work_adds_nothing():
    some = cost.Work(images=3, tflop=0.5, seconds=7.0)
    assert cost.Work() + some == some
    assert some + some == cost.Work(images=6, tflop=1.0, seconds=14.0)
