"""Facts about the recipes: the released command list, what stands where none is published, what a
run owes to it."""

import shlex
from pathlib import Path

import pytest

import networks
from bacon import flags, recipes

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "BACON_mnist.py": ("MNIST", "FashionMNIST", "Digits"),
    "BACON_cifar10.py": ("CIFAR10", "CIFAR100"),
    "BACON_svhn.py": ("SVHN",),
    "BACON_tiny.py": ("TinyImageNet",),
}


def settings(line, script="BACON_cifar10.py"):
    parsed = flags.parse_args(SCRIPTS[script], "", shlex.split(line))
    return parsed.args, parsed


def command_lines():
    lines = [
        line
        for line in (ROOT / "Command.txt").read_text().splitlines()
        if line.startswith("python3 ")
    ]
    return [line.removeprefix("python3 -u ").split(" ", 1) for line in lines]


# The released command list, by hand: ce_weight, eval_interval, batch_real, net_generate_interval,
# model_train_steps.
PUBLISHED = {
    ("MNIST", 1): (0.5, 100, 5000, 5, 10),
    ("MNIST", 10): (0.5, 100, 256, 30, 10),
    ("MNIST", 50): (0.5, 100, 256, 30, 10),
    ("FashionMNIST", 1): (0.5, 100, 5000, 5, 10),
    ("FashionMNIST", 10): (0.5, 100, 256, 30, 10),
    ("FashionMNIST", 50): (0.5, 100, 256, 30, 10),
    ("SVHN", 1): (0.5, 100, 5000, 5, 10),
    ("SVHN", 10): (0.5, 100, 256, 30, 10),
    ("SVHN", 50): (0.1, 500, 256, 30, 10),
    ("CIFAR10", 1): (0.5, 100, 5000, 5, 10),
    ("CIFAR10", 10): (0.5, 100, 256, 30, 10),
    ("CIFAR10", 50): (0.1, 500, 256, 30, 10),
    ("CIFAR100", 1): (0.5, 100, 5000, 5, 10),
    ("CIFAR100", 10): (0.1, 100, 256, 30, 50),
    ("CIFAR100", 50): (0.1, 500, 256, 30, 50),
    ("TinyImageNet", 1): (0.5, 100, 256, 30, 10),
    ("TinyImageNet", 10): (0.5, 500, 256, 30, 50),
    ("TinyImageNet", 50): (0.8, 1000, 256, 30, 50),
}
SHARED = {
    "model": "ConvNet",
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
    "init": "real",
    "lr_img": 0.2,
    "num_exp": 5,
    "num_eval": 5,
    "outer_loop": 1,
    "net_decay": True,
    "embed_last": 1000,
    "syn_ce": True,
    "train_net_num": 1,
    "aug": True,
    "Iteration": 20000,
    "trained_bs": 256,
    "batch_train": 256,
    "net_num": 100,
    "net_push_num": 1,
    "net_begin": 0,
    "net_end": 100000,
    "fetch_net_num": 2,
    "lr_net": 0.01,
    "epoch_eval_train": 1000,
    "eval_mode": "S",
    "optim": "sgd",
    "clip_prior": "released",
    "zca": False,
}


@pytest.mark.parametrize(
    ("script", "line"), command_lines(), ids=[line[:75] for _, line in command_lines()]
)
def test_every_command_line_is_the_recipe_and_equals_the_defaults(script, line):
    args, parsed = settings(line, script)
    assert not parsed.departures
    named = (
        f"--dataset {args.dataset} --ipc {args.ipc} --method {args.method} --recipe {args.recipe}"
    )
    short, _ = settings(named, script)
    ours, defaults = vars(args), vars(short)
    differing = {name for name in ours if ours[name] != defaults[name]}
    assert differing <= {
        "mismatch_lambda"
    }  # the released default and the command list differ in a flag without effect

    if args.method == "DM":
        wanted = {
            "lr_img": 1.0,
            "batch_real": 256,
            "Iteration": 20000,
            "eval_interval": 2000,
            "num_exp": 5,
            "num_eval": 5,
            "epoch_eval_train": 1000,
            "embed_last": 1000,
            "aug": False,
            "syn_ce": False,
            "net_num": 1,
            "net_generate_interval": 1,
            "fetch_net_num": 0,
            "outer_loop": 1,
            "train_net_num": 1,
        }
    else:
        names = (
            "ce_weight",
            "eval_interval",
            "batch_real",
            "net_generate_interval",
            "model_train_steps",
        )
        wanted = {**SHARED, **dict(zip(names, PUBLISHED[args.dataset, args.ipc], strict=True))}
        wanted["meter_reset"] = wanted["eval_interval"]
        if args.method == "IDM" and (args.dataset, args.ipc) in {
            ("CIFAR100", 50),
            ("TinyImageNet", 10),
        }:
            wanted["model_train_steps"] = 10
        if args.recipe == "ours":
            wanted |= recipes.OURS["MNIST" if script == "BACON_mnist.py" else "CIFAR10"][args.ipc]
    assert {name: ours[name] for name in wanted} == wanted


def test_command_list_holds_each_method_dataset_and_ipc_once():
    found = [
        (args.method if args.recipe == "paper" else args.recipe, args.dataset, args.ipc)
        for args, _ in (settings(line, script) for script, line in command_lines())
    ]
    wanted = [(method, *key) for method in ("BACON", "IDM", "DM", "ours") for key in PUBLISHED]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("dataset", recipes.DATASETS)
def test_the_papers_ipcs_have_recipes(dataset):
    assert recipes.listed_ipcs(dataset) == (1, 10, 50)


def test_an_unlisted_ipc_takes_the_recipe_of_the_largest_listed_one_below_and_says_so():
    args, parsed = settings("--ipc 20")
    assert args.ce_weight == 0.5
    assert (
        parsed.recipe
        == "BACON's for CIFAR10 at ipc 10 (none is published for BACON on CIFAR10 at ipc 20)"
    )
    assert settings("--ipc 60")[0].ce_weight == 0.1
    assert settings("--ipc 50")[1].recipe == "BACON's for CIFAR10 at ipc 50"


def test_a_run_says_whose_recipe_it_takes():
    assert settings("--method IDM --ipc 1")[1].recipe == "IDM's for CIFAR10 at ipc 1"
    assert settings("--method DM --ipc 7")[1].recipe == "DM's own"
    tiny = settings("--ipc 50", "BACON_tiny.py")[1].recipe
    assert tiny.startswith("IDM's for TinyImageNet at ipc 50 (none is published for BACON")
    assert settings("--dataset Digits --ipc 10", "BACON_mnist.py")[1].recipe.startswith(
        "MNIST".join(["BACON's for ", " "])
    )


def test_dm_takes_ten_times_the_rate_from_ipc_100_on():
    assert settings("--method DM --ipc 99")[0].lr_img == 1.0
    assert settings("--method DM --ipc 100")[0].lr_img == 10.0


def test_the_meter_resets_by_the_recipe_whatever_the_evaluation_interval():
    assert settings("--ipc 10 --eval_interval 7")[0].meter_reset == 100
    assert settings("--ipc 50")[0].meter_reset == 500


@pytest.mark.parametrize(
    ("iterations", "interval"), [(0, 5), (4, 5), (5, 5), (6, 5), (25, 12), (24, 12)]
)
def test_evaluations_are_due_at_every_interval_and_at_the_last_iteration(
    iterations, interval, make_args
):
    args = make_args(Iteration=iterations, eval_interval=interval)
    due = [it for it in range(iterations + 1) if recipes.evaluation_due(args, it)]
    assert due == sorted({*range(interval, iterations + 1, interval), iterations})
    assert recipes.number_of_evaluations(args) == len(due)


def test_every_mode_names_networks_that_exist_and_the_training_one_once():
    for mode in recipes.EVAL_NETWORKS:
        assert set(recipes.architectures(mode, "ConvNetW32")) <= set(networks.NETWORKS)
    assert (
        recipes.architectures("S", "ConvNetW32")
        == recipes.architectures("SS", "ConvNetW32")
        == ["ConvNetW32"]
    )
    assert recipes.architectures("C", "ConvNetW32") == ["ConvNetW32", "ConvNet"]
    assert recipes.architectures("C", "ConvNet") == ["ConvNet"]


def test_our_recipe_is_the_papers_but_for_its_own_settings_and_one_of_bacon():
    for script, listed in (("CIFAR10", 10), ("SVHN", 10), ("MNIST", 1)):
        ours = flags.parse_args((script,), "", ["--recipe=ours", f"--ipc={listed}", "--lr_img=3"])
        theirs = flags.parse_args((script,), "", [f"--ipc={listed}"])
        chosen = recipes.OURS["MNIST" if script == "MNIST" else "CIFAR10"][listed] | {
            "recipe": "ours",
            "lr_img": 3,
        }
        assert vars(ours.args) == vars(theirs.args) | chosen and list(ours.departures) == ["lr_img"]
        assert "ours" in ours.recipe and "ours" not in theirs.recipe


@pytest.mark.parametrize("method", recipes.PAPER)
def test_the_papers_figures_are_those_of_their_cells(method):
    for dataset, row in recipes.PAPER[method].items():
        assert tuple(recipes.paper_figure(method, dataset, ipc) for ipc in (50, 10, 1)) == row
        assert recipes.paper_figure(method, dataset, 20) is None
        # More images per class teach more.
        given = [figure for figure in row if figure is not None]
        assert given == sorted(given, reverse=True) and all(0 < figure < 100 for figure in given)
    assert recipes.paper_figure(method, "Digits", 10) is None
    assert recipes.paper_figure("another", "CIFAR10", 10) is None


def test_what_a_recipe_makes_of_a_run(make_args):
    args = make_args(ipc=3, aug=True, chroma="half", num_exp=4, outer_loop=2, fetch_net_num=3)
    assert recipes.canvases_per_class(args) == 6 and recipes.images_per_class(args) == 24
    assert recipes.training_steps(args) == 2 * 3 * args.model_train_steps
    assert list(recipes.experiments(args)) == [0, 1, 2, 3]
    assert recipes.judged_on(args) == "test"
    args = make_args(ipc=3, aug=False, chroma="full", num_exp=4, exp_index=0, validate=5)
    assert recipes.canvases_per_class(args) == recipes.images_per_class(args) == 3
    assert list(recipes.experiments(args)) == [0]
    assert recipes.judged_on(args) == "validation"
