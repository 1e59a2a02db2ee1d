"""The methods, and the terms of their losses. No torch: flags, recipes and --help read this too.

A method is one record of METHODS, a term one record of TERMS. The loop reads them and knows no
method by name. docs/extending.md adds one of each.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Term:
    """One term of the loss of a class.

    function: its name in utils.py. It takes what `sees` names, for G classes at once, then the
    settings that `settings` names, by keyword, and returns (G,).
    sees: "z_syn", the means (G, D) of the synthetic embeddings; "synthetic", these embeddings
    (G, n, D); and names of utils.REAL_SUMMARIES, what is kept of the real embeddings.
    weight: of the term unless a flag says otherwise.
    about: help of that flag, --<name>_weight; None: there is no flag.
    zero_with: {setting: value} with which the term is identically zero; empty: with none.
    images: synthetic images of a class that it needs at least.
    of_every_method: whether any method takes it where its flag gives it a weight; else it belongs
    to the methods that name it.
    """

    function: str
    sees: tuple[str, ...]
    weight: float
    about: str | None = None
    settings: tuple[str, ...] = ()
    zero_with: dict = field(default_factory=dict)
    images: int = 1
    of_every_method: bool = False


# The keys name a term in the log, in its flag and in Method.terms.
TERMS = {
    "lh": Term(
        function="log_likelihood",
        sees=("z_syn", "z", "s"),
        weight=1.0,
        about="weight of the log-likelihood term (BACON)",
    ),
    "tv": Term(
        function="total_variation",
        sees=("z_syn", "z"),
        weight=0.8,
        about="weight of the total-variation prior (BACON: lambda)",
    ),
    "clip": Term(
        function="clip",
        sees=("z_syn", "z", "s"),
        weight=0.2,
        about="weight of the clip prior (BACON: 1 - lambda)",
        settings=("clip_prior",),
        zero_with={"clip_prior": "released"},
    ),
    "match": Term(function="mean_matching", sees=("z_syn", "z"), weight=1.0),
    "spread": Term(
        function="spread",
        sees=("synthetic", "s"),
        weight=0.0,
        about="weight of the distance between standard deviations of embeddings (any method)",
        images=2,
        of_every_method=True,
    ),
}


@dataclass(frozen=True)
class Method:
    """What a method minimises, what makes it that method, and which recipe is its own.

    about: what it is, in brackets behind its name in --help.
    terms: of its loss, keys of TERMS. The cross-entropy of --syn_ce is added to them, and terms of
    every method.
    joint_step: one optimizer step for the sum of all classes' losses, in place of a step per class.
    It also lets the networks have batch normalisation, since all classes are then in one batch.
    fixed: settings that are the method, not a choice: other values have no effect.

    recipe: settings of its own recipe, whatever the dataset and ipc, on top of recipes.COMMON;
    None: the recipe goes by dataset and ipc, see recipes.RECIPES, and the fields below count.
    rate: function(ipc) -> lr_img of its own recipe; None: that of `recipe`.
    follows: the method whose published recipes it takes; None: they are its own.
    exceptions: {(dataset, ipc): settings} of its recipes that differ from those of RECIPES.
    unpublished: {(dataset, ipc): method} where it published no recipe, and whose line stands there.
    has_ours: whether --recipe ours was chosen for it.
    """

    about: str
    terms: tuple[str, ...]
    joint_step: bool = False
    fixed: dict = field(default_factory=dict)
    recipe: dict | None = None
    rate: Callable[[int], float] | None = None
    follows: str | None = None
    exceptions: dict = field(default_factory=dict)
    unpublished: dict = field(default_factory=dict)
    has_ours: bool = False


def _rate_of_dm(ipc):
    return 10.0 if ipc >= 100 else 1.0


# DM in terms of the pool: one untrained network, replaced at every iteration.
_ONE_FRESH_NETWORK = {
    "net_num": 1,
    "net_push_num": 1,
    "net_generate_interval": 1,
    "net_begin": 0,
    "net_end": 100000,
    "train_net_num": 1,
    "fetch_net_num": 0,
    "outer_loop": 1,
    "syn_ce": False,
    "ce_weight": 0.5,
    "model_train_steps": 0,
    "trained_bs": 256,
    "net_decay": True,
    "meter_reset": 2000,
}

METHODS = {
    # Zhou et al. 2024, arXiv:2406.01112
    "BACON": Method(
        about="the paper's",
        terms=("lh", "tv", "clip"),
        unpublished={("TinyImageNet", 50): "IDM"},
        has_ours=True,
    ),
    # Zhao et al., CVPR 2023
    "IDM": Method(
        about="its parent",
        terms=("match",),
        exceptions={
            ("CIFAR100", 50): {"model_train_steps": 10},
            ("TinyImageNet", 10): {"model_train_steps": 10},
        },
    ),
    # Zhao and Bilen, WACV 2023
    "DM": Method(
        about="plain distribution matching",
        terms=("match",),
        joint_step=True,
        fixed=_ONE_FRESH_NETWORK,
        recipe={"aug": False, "eval_interval": 2000},
        rate=_rate_of_dm,
    ),
}


def terms_of(method):
    """The terms that the loss of a method may have: its own, then those of every method."""
    shared = [name for name, term in TERMS.items() if term.of_every_method]
    return [*METHODS[method].terms, *shared]


def terms_in_use(args):
    """The terms of a run's loss: the method's own, and those of every method with a weight."""
    own = METHODS[args.method].terms
    return [name for name in terms_of(args.method) if name in own or weight_of(name, args)]


def weight_of(name, args):
    """The weight of a term in a run: its flag's, or the term's own where there is no flag."""
    term = TERMS[name]
    return term.weight if term.about is None else getattr(args, f"{name}_weight")


def is_zero(name, args):
    """Whether a term of a run adds nothing to the loss, by its weight or by its settings."""
    if not weight_of(name, args):
        return True
    zero_with = TERMS[name].zero_with
    return bool(zero_with) and all(
        getattr(args, setting) == value for setting, value in zero_with.items()
    )


def weight_flags(terms):
    """The names of the flags, without dashes, that set the weights of terms."""
    return [f"{name}_weight" for name in terms if TERMS[name].about is not None]


def joint_methods():
    """The methods that take one step for all classes, as --method names them."""
    return [name for name, method in METHODS.items() if method.joint_step]


def methods_with_ours():
    """The methods that --recipe ours was chosen for."""
    return [name for name, method in METHODS.items() if method.has_ours]
