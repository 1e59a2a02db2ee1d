"""Facts about what a run is said to cost: counted work, time, disk; and how that decides the arithmetic."""

import pytest
from scripts import SMALL, run

from bacon import compute
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
    # Backwards costs the same again per layer for its weights, and again for its input but for the first layer's.
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
