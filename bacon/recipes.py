"""What the paper and its parents publish: datasets, recipes, accuracies; and what a recipe makes of a run. No torch."""

from typing import NamedTuple

from bacon.methods import METHODS


class Spec(NamedTuple):
    """What a dataset looks like: mean and std of pixels in [0,1], and how many images the whole of it has."""

    channels: int
    im_size: tuple[int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int


# mean and std are those of DC, DM and IDM, so that saved sets can be exchanged; of Digits, those of its training split.
DATASETS = {
    "MNIST": Spec(1, (28, 28), 10, (0.1307,), (0.3081,), 60000, 10000),
    "FashionMNIST": Spec(1, (28, 28), 10, (0.2861,), (0.3530,), 60000, 10000),
    "SVHN": Spec(3, (32, 32), 10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), 73257, 26032),
    "CIFAR10": Spec(
        3, (32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 50000, 10000
    ),
    "CIFAR100": Spec(
        3, (32, 32), 100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), 50000, 10000
    ),
    "TinyImageNet": Spec(
        3, (64, 64), 200, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 100000, 10000
    ),
    "Digits": Spec(1, (8, 8), 10, (0.3048,), (0.3757,), 1201, 596),
}
SCRIPTS = {  # which script distils a dataset
    **dict.fromkeys(("MNIST", "FashionMNIST", "Digits"), "BACON_mnist.py"),
    **dict.fromkeys(("CIFAR10", "CIFAR100"), "BACON_cifar10.py"),
    "SVHN": "BACON_svhn.py",
    "TinyImageNet": "BACON_tiny.py",
}
IMAGE_FOLDER = "ImageFolder"  # the dataset of any labelled pictures, which every script accepts

COMMON = {
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate", "init": "real", "chroma": "full", "aug": True,
    "Iteration": 20000,
    "lr_img": 0.2, "batch_real": 256, "embed_last": 1000, "outer_loop": 1, "syn_ce": True, "ce_weight": 0.5,
    "lr_net": 0.01, "net_decay": True, "net_num": 100, "net_push_num": 1, "net_generate_interval": 30,
    "train_net_num": 1, "fetch_net_num": 2, "model_train_steps": 10, "trained_bs": 256,
    "eval_interval": 100, "num_eval": 5, "epoch_eval_train": 1000, "batch_train": 256, "num_exp": 5,
}  # fmt: skip
_WIDE_BATCH = {"batch_real": 5000, "net_generate_interval": 5}
_MNIST = {1: _WIDE_BATCH, 10: {}, 50: {}}
_CIFAR10 = {1: _WIDE_BATCH, 10: {}, 50: {"ce_weight": 0.1, "eval_interval": 500}}
_LONG = {"model_train_steps": 50}
RECIPES = {  # the flags of the released command list, by dataset and ipc
    "MNIST": _MNIST,
    "FashionMNIST": _MNIST,
    "Digits": _MNIST,
    "ImageFolder": _CIFAR10,
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
_BORROWED = {
    "Digits": "MNIST",
    "ImageFolder": "CIFAR10",
}  # whose recipe stands where none is published
_IDM = {
    ("CIFAR100", 50): {"model_train_steps": 10},
    ("TinyImageNet", 10): {"model_train_steps": 10},
}

# Our own recipe, on top of the paper's: chosen on training images held out of MNIST and CIFAR-10, see docs/beyond.md.
_COLOUR = {"init": "cluster", "chroma": "half"}
OURS = {
    "MNIST": {
        1: {"lr_img": 0.2, "ce_weight": 0.2, "init": "cluster"},
        10: {"lr_img": 1.0, "ce_weight": 0.2},
        50: {"lr_img": 5.0, "ce_weight": 0.2},
    },
    "CIFAR10": {
        1: {"lr_img": 1.0, "ce_weight": 0.2, **_COLOUR},
        10: {"lr_img": 2.0, "ce_weight": 0.2, **_COLOUR},
        50: {"lr_img": 5.0, "ce_weight": 0.1, **_COLOUR},
    },
}


def _listed(by_ipc, ipc):
    return max((i for i in by_ipc if i <= ipc), default=1)


def recipe(dataset, ipc, method="BACON", kind="paper"):
    """The settings of a dataset, ipc and method: (settings, whose recipe that is, in words).

    An ipc that is not listed takes the recipe of the largest listed ipc below it. kind: "paper" or "ours".
    """
    if kind == "ours":
        settings, _ = recipe(dataset, ipc, method)
        chosen_on = "MNIST" if SCRIPTS.get(dataset) == "BACON_mnist.py" else "CIFAR10"
        listed = _listed(OURS[chosen_on], ipc)
        return settings | OURS[chosen_on][listed], f"ours for {chosen_on} at ipc {listed}"
    if method == "DM":  # DM's own recipe has no ipc or dataset in it but for the rate
        settings = {
            **COMMON,
            "aug": False,
            "lr_img": 10.0 if ipc >= 100 else 1.0,
            "eval_interval": 2000,
        }
        words = "DM's own"
    else:
        listed = _listed(RECIPES[dataset], ipc)
        settings = {**COMMON, **RECIPES[dataset][listed]}
        owner = "IDM" if (dataset, listed) == ("TinyImageNet", 50) else method
        words = f"{owner}'s for {_BORROWED.get(dataset, dataset)} at ipc {listed}"
        if method == "IDM":
            settings.update(_IDM.get((dataset, listed), {}))
        if dataset in _BORROWED or owner != method or listed != ipc:
            words += f" (none is published for {method} on {dataset} at ipc {ipc})"
    settings.update(METHODS[method].fixed)
    settings.setdefault("meter_reset", settings["eval_interval"])
    return settings, words


# Top-1 test accuracy in percent at ipc 50, 10 and 1, with ConvNet-3, as the paper's page gives it.
PAPER = {
    "DM": {
        "MNIST": (94.8, 94.3, 89.2), "CIFAR10": (63, 48.9, 26), "CIFAR100": (43.6, 29.7, 11.4),
        "TinyImageNet": (None, 12.9, 3.9),
    },
    "IDM": {
        "MNIST": (97.01, 96.26, 93.82), "FashionMNIST": (84.03, 82.53, 78.23), "SVHN": (87.5, 82.95, 69.45),
        "CIFAR10": (67.5, 58.6, 45.6), "CIFAR100": (50, 45.1, 20.1), "TinyImageNet": (None, 21.9, 10.1),
    },
    "BACON": {
        "MNIST": (98.01, 97.3, 94.15), "FashionMNIST": (85.52, 84.23, 78.48), "SVHN": (89.1, 84.64, 69.04),
        "CIFAR10": (70.06, 62.06, 45.62), "CIFAR100": (49.44, 46.15, 23.68), "TinyImageNet": (None, 21.7, 9.7),
    },
}  # fmt: skip


def paper_figure(method, dataset, ipc):
    """The paper's accuracy in percent, or None where it gives none."""
    return dict(zip((50, 10, 1), PAPER.get(method, {}).get(dataset, ()), strict=False)).get(ipc)


# --eval_mode: the architectures of the cross-architecture tables of DC, DM and IDM; "" stands for the training one.
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


def evaluation_due(args, it):
    """Whether iteration `it` begins with an evaluation: every eval_interval, and always the last."""
    return it == args.Iteration or (it > 0 and it % args.eval_interval == 0)


def number_of_evaluations(args):
    """Evaluations of an experiment."""
    return -(-args.Iteration // args.eval_interval) or 1


def training_steps(args):
    """Training steps of an iteration, those of all its networks together."""
    return args.outer_loop * args.fetch_net_num * args.model_train_steps
