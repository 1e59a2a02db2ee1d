"""Recipes and accuracies that the paper and its parents publish, and our recipe. No torch.

Also what a recipe makes of a run: how many images, judges and steps. A method's own part of a
recipe is in methods.METHODS, the shapes of images in data.datasets.
"""

from bacon.data.datasets import DATASETS, IMAGE_FOLDER, Spec, like  # noqa: F401 (for importers)
from bacon.methods import METHODS

COMMON = {  # settings of every published recipe, unless the recipe says otherwise
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate",
    "init": "real",
    "chroma": "full",
    "aug": True,
    "Iteration": 20000,
    "lr_img": 0.2,
    "batch_real": 256,
    "embed_last": 1000,
    "outer_loop": 1,
    "syn_ce": True,
    "ce_weight": 0.5,
    "lr_net": 0.01,
    "net_decay": True,
    "net_num": 100,
    "net_push_num": 1,
    "net_generate_interval": 30,
    "train_net_num": 1,
    "fetch_net_num": 2,
    "model_train_steps": 10,
    "trained_bs": 256,
    "eval_interval": 100,
    "num_eval": 5,
    "epoch_eval_train": 1000,
    "batch_train": 256,
    "num_exp": 5,
}
_WIDE_BATCH = {"batch_real": 5000, "net_generate_interval": 5}
_MNIST = {1: _WIDE_BATCH, 10: {}, 50: {}}
_CIFAR10 = {1: _WIDE_BATCH, 10: {}, 50: {"ce_weight": 0.1, "eval_interval": 500}}
_LONG = {"model_train_steps": 50}
# The flags of the released command list, by dataset and ipc. A dataset that is not in it takes the
# recipes of the one that datasets.like names.
RECIPES = {
    "MNIST": _MNIST,
    "FashionMNIST": _MNIST,
    "SVHN": _CIFAR10,
    "CIFAR10": _CIFAR10,
    "CIFAR100": {
        1: _WIDE_BATCH,
        10: {"ce_weight": 0.1, **_LONG},
        50: {"ce_weight": 0.1, "eval_interval": 500, **_LONG},
    },
    "TinyImageNet": {
        1: {},
        10: {"eval_interval": 500, **_LONG},
        50: {"ce_weight": 0.8, "eval_interval": 1000, **_LONG},  # IDM's line: BACON published none
    },
}

# Our own recipe, on top of the paper's: chosen on training images held out of MNIST and CIFAR-10,
# see docs/beyond.md. Beside experts ce_weight is for those who switch them off (--experts 0 and
# --syn_ce).
_EXPERTS = {"experts": 5, "syn_ce": False, "spread_weight": 1.5, "cooldown": 0.2}
_COLOUR = {"init": "cluster", "chroma": "half"}
_COLOUR_BY_EXPERTS = {**_COLOUR, **_EXPERTS, "expert_ce": 17.0}
OURS = {
    "MNIST": {
        1: {"lr_img": 0.2, "ce_weight": 0.2, "init": "cluster", **_EXPERTS, "expert_ce": 2.0},
        10: {"lr_img": 1.0, "ce_weight": 0.2, **_EXPERTS},
        50: {"lr_img": 1.0, "ce_weight": 0.2, **_EXPERTS},
    },
    "CIFAR10": {
        1: {"lr_img": 1.0, "ce_weight": 0.2, **_COLOUR},
        10: {"lr_img": 2.0, "ce_weight": 0.2, **_COLOUR_BY_EXPERTS},
        50: {"lr_img": 5.0, "ce_weight": 0.1, **_COLOUR_BY_EXPERTS},
    },
}


def listed_ipcs(dataset):
    """The ipcs for which the recipes that a dataset takes are listed."""
    return tuple(RECIPES[_published_for(dataset)])


def recipe(dataset, ipc, method="BACON", kind="paper"):
    """The settings of a dataset, ipc and method: (settings, whose recipe that is, in words).

    An ipc that is not listed takes the recipe of the largest listed ipc below it. kind: "paper" or
    "ours".
    """
    found = _own_recipe if METHODS[method].recipe is not None else _listed_recipe
    settings, words = found(dataset, ipc, method)
    settings |= METHODS[method].fixed
    settings.setdefault("meter_reset", settings["eval_interval"])
    if kind == "ours":
        chosen_on = like(dataset)
        listed = _nearest(OURS[chosen_on], ipc)
        return settings | our_settings(dataset, ipc), f"ours for {chosen_on} at ipc {listed}"
    return settings, words


def our_settings(dataset, ipc):
    """What our recipe has on top of the paper's: {flag: value}."""
    chosen = OURS[like(dataset)]
    return chosen[_nearest(chosen, ipc)]


def _published_for(dataset):
    return dataset if dataset in RECIPES else like(dataset)


def _nearest(by_ipc, ipc):
    return max((listed for listed in by_ipc if listed <= ipc), default=min(by_ipc))


def _own_recipe(dataset, ipc, method):
    """The recipe of a method whose own one is the same whatever the dataset."""
    record = METHODS[method]
    settings = {**COMMON, **record.recipe}
    if record.rate is not None:
        settings["lr_img"] = record.rate(ipc)
    return settings, f"{method}'s own"


def _listed_recipe(dataset, ipc, method):
    """The recipe by dataset and ipc, of the method itself or of the one that it follows."""
    source = _published_for(dataset)
    listed = _nearest(RECIPES[source], ipc)
    publisher = METHODS[method].follows or method
    settings = {**COMMON, **RECIPES[source][listed]}
    settings |= METHODS[publisher].exceptions.get((source, listed), {})
    owner = METHODS[publisher].unpublished.get((source, listed), publisher)
    words = f"{owner}'s for {source} at ipc {listed}"
    if (owner, source, listed) != (method, dataset, ipc):
        words += f" (none is published for {method} on {dataset} at ipc {ipc})"
    return settings, words


# Top-1 test accuracy in percent at ipc 50, 10 and 1, with ConvNet-3, as the paper's page gives it.
PAPER = {
    "DM": {
        "MNIST": (94.8, 94.3, 89.2),
        "CIFAR10": (63, 48.9, 26),
        "CIFAR100": (43.6, 29.7, 11.4),
        "TinyImageNet": (None, 12.9, 3.9),
    },
    "IDM": {
        "MNIST": (97.01, 96.26, 93.82),
        "FashionMNIST": (84.03, 82.53, 78.23),
        "SVHN": (87.5, 82.95, 69.45),
        "CIFAR10": (67.5, 58.6, 45.6),
        "CIFAR100": (50, 45.1, 20.1),
        "TinyImageNet": (None, 21.9, 10.1),
    },
    "BACON": {
        "MNIST": (98.01, 97.3, 94.15),
        "FashionMNIST": (85.52, 84.23, 78.48),
        "SVHN": (89.1, 84.64, 69.04),
        "CIFAR10": (70.06, 62.06, 45.62),
        "CIFAR100": (49.44, 46.15, 23.68),
        "TinyImageNet": (None, 21.7, 9.7),
    },
}


def paper_figure(method, dataset, ipc):
    """The paper's accuracy in percent, or None where it gives none."""
    return dict(zip((50, 10, 1), PAPER.get(method, {}).get(dataset, ()), strict=False)).get(ipc)


# --eval_mode: the architectures of the cross-architecture tables of DC, DM and IDM; "" stands for
# the training one.
EVAL_NETWORKS = {
    "S": ("",),
    "SS": ("",),
    "M": ("MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"),
    "B": ("ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"),
    "W": ("ConvNetW32", "ConvNetW64", "ConvNetW128", "ConvNetW256"),
    "D": ("ConvNetD1", "ConvNetD2", "ConvNetD3", "ConvNetD4"),
    "A": ("ConvNetAS", "ConvNetAR", "ConvNetAL", "ConvNetASwish"),
    "P": ("ConvNetNP", "ConvNetMP", "ConvNetAP"),
    "N": ("ConvNetNN", "ConvNetBN", "ConvNetLN", "ConvNetIN", "ConvNetGN"),
    "C": ("", "ConvNet"),
}


def architectures(mode, model):
    """The networks that an --eval_mode trains, given the training architecture; each once."""
    return list(dict.fromkeys(name or model for name in EVAL_NETWORKS[mode]))


def experiments(args):
    """The experiments this process runs: all of num_exp, or the one that --exp_index names."""
    return range(args.num_exp) if args.exp_index is None else [args.exp_index]


def factor(args):
    """Images along each side of a canvas: 2 with multi-formation, which puts four on it, else 1."""
    return 2 if args.aug else 1


def canvases_per_class(args):
    """Canvases of a class: ipc, or twice as many that each take half the numbers."""
    return args.ipc * (2 if args.chroma == "half" else 1)


def images_per_class(args):
    """Images of a class that its canvases decode to."""
    return canvases_per_class(args) * factor(args) ** 2


def judged_on(args):
    """What judges are tested on, in a word."""
    return "validation" if args.validate else "test"


def cooled_iterations(share, iterations):
    """How many of so many iterations, at the end, are in a --cooldown of that share."""
    return round(share * iterations)


def evaluation_due(args, it):
    """Whether iteration `it` begins with an evaluation: every eval_interval and the last one do."""
    return it == args.Iteration or (it > 0 and it % args.eval_interval == 0)


def number_of_evaluations(args):
    """Evaluations of an experiment."""
    return -(-args.Iteration // args.eval_interval) or 1


def matches_in_experts(args):
    """Whether a run matches in experts, which are trained before its first iteration."""
    return bool(args.experts and args.Iteration)


def largest_pool(args):
    """How many networks the pool of a run comes to hold at most."""
    pushes = -(-args.Iteration // args.net_generate_interval)
    return min(args.net_num, 3 + pushes * args.net_push_num)


def trains_networks(args):
    """Whether a run trains networks on real images: the pool's, experts, or one for clusters."""
    of_pool = args.Iteration and training_steps(args)
    return bool(of_pool or matches_in_experts(args) or args.init == "cluster")


def training_steps(args):
    """Training steps of an iteration, those of all its networks together; experts have theirs
    before."""
    if args.experts:
        return 0
    return args.outer_loop * args.fetch_net_num * args.model_train_steps
