"""Who judges a set, and how: the protocols of the field, the flags of evaluate.py, and the run that made the set."""

import collections

import augment
import networks
from bacon import compute, dc_augment, errors, judge
from bacon.recipes import COMMON, architectures

# What --protocol takes where neither a flag nor the set says otherwise; plain_epochs: where DSA is switched off.
Rules = collections.namedtuple("Rules", "epochs plain_epochs batch lr optimizer cutmix source")
PROTOCOLS = {
    "paper": Rules(1000, 1000, 256, 0.01, "sgd", 0.0, "DC's as IDM and BACON run it, or that of the set's run"),
    "dc-bench": Rules(1000, 300, 256, 0.01, "sgd", 0.0, "DC-bench (Cui et al. 2022), as DC (Zhao et al. 2021)"),
    "dc": Rules(1000, 300, 256, 0.01, "sgd", 0.0, "DC's own code: its augmentation for MNIST and ConvNetBN, else none"),
    "ncfm": Rules(2000, 2000, 128, 0.001, "adamw", 0.5, "NCFM (Wang et al. 2025); the rate halves at each fifth"),
}
# Flags of a run that are its protocol.
FROM_THE_RUN = ("epoch_eval_train", "judge_steps", "batch_train", "lr_net", "dsa_strategy")
# Who judges a set: `num_eval` fresh networks of each architecture in `names`, trained by `protocol`, a judge.Protocol.
Judges = collections.namedtuple("Judges", "names num_eval seed protocol")


def check_networks(names, facts):
    with errors.flag("--model, --eval_mode"):
        for name in names:
            networks.check(name, facts.shape[0], facts.num_classes, facts.shape[1:])


def judges_of(args, facts, meta, lr=None):
    """The `Judges` of a set, one for each protocol, by the flags, else by the run of `meta`. lr: see `protocol_of`."""
    run = meta.get("args", {})
    model, seed = args.model or run.get("model", "ConvNet"), run.get("seed", 0) if args.seed is None else args.seed
    names = list(dict.fromkeys(name for mode in args.eval_mode for name in architectures(mode, model)))
    check_networks(names, facts)
    by_protocol, each = {}, args.num_eval or run.get("num_eval", 5)
    for name in names:
        by_protocol.setdefault(protocol_of(args, run, lr, facts.dataset, name), []).append(name)
    return [Judges(those, each, seed, protocol) for protocol, those in by_protocol.items()]


def protocol_of(args, run, lr=None, dataset=None, network=None):
    """The judge.Protocol by the flags, else by those of the run that made the set, else by --protocol.

    lr: the rate that a set was learnt with, if it was. dataset, network: names, on which DC's augmentation depends.
    """
    rules = PROTOCOLS[args.protocol]
    own = {name: run[name] for name in FROM_THE_RUN if name in run} if run and args.protocol == "paper" else {}
    if rules.optimizer == "sgd" and lr:
        own["lr_net"] = lr
    if args.epoch_eval_train:
        own["judge_steps"] = 0
    own |= {name: value for name in FROM_THE_RUN if (value := getattr(args, name)) is not None}
    with errors.flag("--dsa_strategy"):
        if args.protocol != "dc":
            kind, strategy = "DSA", augment.parse_strategy(own.get("dsa_strategy", COMMON["dsa_strategy"]))
        elif args.dsa_strategy:
            raise ValueError("has no effect here, --protocol dc has an augmentation of its own")
        else:
            kind, strategy = "DC", dc_augment.strategy(dataset, network)
    epochs = own.get("epoch_eval_train", rules.epochs if strategy else rules.plain_epochs)
    batch, lr, steps = own.get("batch_train", rules.batch), own.get("lr_net", rules.lr), own.get("judge_steps", 0)
    return judge.Protocol(epochs, batch, lr, strategy, rules.optimizer, rules.cutmix, kind, steps)


def arithmetic_of(meta, args, planned_flop):
    """How the judges of a set are computed, and lines for the user: as in the run that made it, or by the flags."""
    logged, settings = meta.get("arithmetic", {}).get("judging"), (args.device, args.precision, args.compile)
    if logged and settings == ("auto", "auto", None):
        device, *rest = logged.split(", ")
        device = device if compute.has_device(device) else "auto"
        settings = device, "bf16" if "bf16" in rest else "fp32", "compiled" in rest
    arithmetic, notes = compute.choose(*settings, planned_flop)
    if logged and str(arithmetic) != logged:
        notes.append(f"was judged on {logged}, here on {arithmetic}, so the last digits may differ")
    return arithmetic, notes
