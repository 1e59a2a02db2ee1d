"""The methods, and the terms of their losses. No torch: flags, recipes and --help read this too.

A method is one record of METHODS, a term one record of TERMS. The loop reads them and knows no method by name.
docs/extending.md adds one of each.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Term:
    """One term of the loss of a class.

    function: its name in utils.py. It takes what `sees` names, for G classes at once, then the settings that `settings`
    names, by keyword, and returns (G,).
    sees: "z_syn", the means (G, D) of the synthetic embeddings; "synthetic", these embeddings (G, n, D); and names of
    utils.REAL_SUMMARIES, what is kept of the real embeddings.
    weight: of the term unless a flag says otherwise. about: help of that flag, --<name>_weight; None: there is no flag.
    """

    function: str
    sees: tuple[str, ...]
    weight: float
    about: str | None = None
    settings: tuple[str, ...] = ()


# The keys name a term in the log, in its flag and in Method.terms.
TERMS = {
    "lh": Term(
        "log_likelihood", ("z_syn", "z", "s"), 1.0, "weight of the log-likelihood term (BACON)"
    ),
    "tv": Term(
        "total_variation",
        ("z_syn", "z"),
        0.8,
        "weight of the total-variation prior (BACON: lambda)",
    ),
    "clip": Term(
        "clip",
        ("z_syn", "z", "s"),
        0.2,
        "weight of the clip prior (BACON: 1 - lambda)",
        settings=("clip_prior",),
    ),
    "match": Term("mean_matching", ("z_syn", "z"), 1.0),
}


@dataclass(frozen=True)
class Method:
    """What a method minimises, and what makes it that method.

    terms: of its loss, keys of TERMS. The cross-entropy of --syn_ce is added to them.
    joint_step: one optimizer step for the sum of all classes' losses, in place of a step per class. It also lets the
    networks have batch normalisation, since all classes are then in one batch.
    fixed: settings that are the method, not a choice: other values have no effect.
    recipe: settings of its published recipe that differ from the common ones of recipes.COMMON whatever the dataset
    and ipc; None: its recipe goes by dataset and ipc, see recipes.RECIPES.
    has_ours: whether --recipe ours was chosen for it.
    """

    terms: tuple[str, ...]
    joint_step: bool = False
    fixed: dict = field(default_factory=dict)
    recipe: dict | None = None
    has_ours: bool = False


# The weights of terms that a method does not have, and the settings of such terms, have no effect.
_NO_BOUND = {"lh_weight": 1.0, "tv_weight": 0.8, "clip_weight": 0.2, "clip_prior": "released"}
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
    "BACON": Method(terms=("lh", "tv", "clip"), has_ours=True),
    # Zhao et al., CVPR 2023
    "IDM": Method(terms=("match",), fixed=_NO_BOUND),
    # Zhao and Bilen, WACV 2023
    "DM": Method(
        terms=("match",),
        joint_step=True,
        fixed={**_NO_BOUND, **_ONE_FRESH_NETWORK},
        recipe={"aug": False, "lr_img": 1.0, "eval_interval": 2000},
    ),
}
