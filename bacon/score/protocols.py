"""Who judges a set, and how: the protocols of the field, the flags of evaluate.py, and the run that
made the set."""

import argparse
import dataclasses
from collections.abc import Callable

import augment
import networks
from bacon import compute, dc_augment, errors, idc_augment, judge, messages
from bacon.recipes import COMMON, architectures

# Flags of a run that are its protocol.
FROM_THE_RUN = ("epoch_eval_train", "judge_steps", "batch_train", "lr_net", "dsa_strategy")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is judged, as far as a protocol's augmentation depends on it.

    dataset, network: names, None where no rule asks for them. factor: 2 if a canvas holds four
    images, else 1. ipc: canvases per class, None where that is unknown.
    """

    dataset: str | None = None
    network: str | None = None
    factor: int = 1
    ipc: int | None = None


@dataclasses.dataclass(frozen=True)
class Augmented:
    """How a judge augments.

    kind: a key of judge.AUGMENTATIONS. strategy: its operations. cutmix: the probability of CutMix.
    """

    kind: str
    strategy: tuple
    cutmix: float = 0.0


def _dsa(subject, strategy):
    """DSA with the operations `strategy`, else those of all recipes."""
    if strategy is None:
        strategy = COMMON["dsa_strategy"]
    return Augmented("DSA", augment.parse_strategy(strategy))


def _dsa_and_cutmix(subject, strategy):
    """NCFM's: DSA, and CutMix on half of the batches."""
    return dataclasses.replace(_dsa(subject, strategy), cutmix=0.5)


def _dc(subject, strategy):
    """DC's own, which follows from the dataset and the network alone."""
    if strategy:
        raise ValueError("has no effect here, --protocol dc has an augmentation of its own")
    return Augmented("DC", dc_augment.strategy(subject.dataset, subject.network))


def _idc(subject, strategy):
    """IDC's own for this dataset and storage, or else with the operations `strategy`."""
    plan = idc_augment.plan(subject.dataset, subject.factor, subject.ipc)
    operations = plan.strategy if strategy is None else augment.parse_strategy(strategy)
    return Augmented("IDC", operations, plan.cutmix)


@dataclasses.dataclass(frozen=True)
class Rules:
    """A protocol: what --protocol takes where neither a flag nor the set says otherwise.

    source: whose it is, for --help.
    plain_epochs: in place of `epochs` where nothing is augmented.
    batch: images. lr: the first rate. optimizer: a key of judge.SCHEDULES.
    augmented: function(Subject, strategy) -> Augmented. strategy: that of --dsa_strategy or of the
    run, None if neither says; ValueError if it does not fit.
    as_the_run: whether a set of ours is judged as its run judged it.
    learnt_rate: whether a rate that a set was learnt with is taken.
    """

    source: str
    epochs: int = 1000
    plain_epochs: int = 1000
    batch: int = 256
    lr: float = 0.01
    optimizer: str = "sgd"
    augmented: Callable = _dsa
    as_the_run: bool = False
    learnt_rate: bool = True


PROTOCOLS = {
    "paper": Rules("DC's as IDM and BACON run it, or that of the set's run", as_the_run=True),
    "dc-bench": Rules("DC-bench (Cui et al. 2022), as DC (Zhao et al. 2021)", plain_epochs=300),
    "dc": Rules(
        "DC's own code: its augmentation for MNIST and ConvNetBN, else none",
        plain_epochs=300,
        augmented=_dc,
    ),
    "ncfm": Rules(
        "NCFM (Wang et al. 2025); the rate halves at each fifth",
        epochs=2000,
        plain_epochs=2000,
        batch=128,
        lr=0.001,
        optimizer="adamw",
        augmented=_dsa_and_cutmix,
        learnt_rate=False,
    ),
    "idc": Rules(
        "IDC's own code (Kim et al. 2022)",
        batch=64,
        optimizer="sgd (IDC)",
        augmented=_idc,
    ),
}


@dataclasses.dataclass(frozen=True)
class Judges:
    """Who judges a set: `num_eval` fresh networks of each architecture in `names`."""

    names: list
    num_eval: int
    seed: int
    protocol: judge.Protocol


def check_networks(names, facts):
    """UserError unless each network can take the images of `facts`, a sets.Facts."""
    channels, *im_size = facts.shape
    with errors.flag("--model, --eval_mode"):
        for name in names:
            networks.check(name, channels, facts.num_classes, tuple(im_size))


def judges_of(args, facts, meta, lr=None, factor=1, ipc=None):
    """The `Judges` of a set, one for each protocol, by the flags, else by the run of `meta`.

    facts: what the set fits, a sets.Facts. lr: see `protocol_of`. factor, ipc: see `Subject`.
    """
    run = meta.get("args", {})
    model = args.model or run.get("model", "ConvNet")
    seed = run.get("seed", 0) if args.seed is None else args.seed
    num_eval = args.num_eval or run.get("num_eval", 5)
    several = [name for mode in args.eval_mode for name in architectures(mode, model)]
    names = list(dict.fromkeys(several))
    check_networks(names, facts)
    by_protocol = {}
    for name in names:
        subject = Subject(facts.dataset, name, factor, ipc)
        protocol = protocol_of(args, run, lr, subject)
        by_protocol.setdefault(protocol, []).append(name)
    return [Judges(own, num_eval, seed, protocol) for protocol, own in by_protocol.items()]


def protocol_of(args, run, lr=None, subject=None):
    """The judge.Protocol by the flags, else by those of the run that made the set, else by
    --protocol.

    lr: the rate that a set was learnt with, if it was. subject: a `Subject`, on which the
    augmentation may depend.
    """
    rules = PROTOCOLS[args.protocol]
    own = {}
    if rules.as_the_run:
        own = {name: run[name] for name in FROM_THE_RUN if name in run}
    if rules.learnt_rate and lr:
        own["lr_net"] = lr
    if args.epoch_eval_train:
        own["judge_steps"] = 0
    for name in FROM_THE_RUN:
        if getattr(args, name) is not None:
            own[name] = getattr(args, name)
    subject = subject or Subject()
    with errors.flag("--dsa_strategy"):
        augmented = rules.augmented(subject, own.get("dsa_strategy"))
    epochs = rules.epochs if augmented.strategy else rules.plain_epochs
    return judge.Protocol(
        epochs=own.get("epoch_eval_train", epochs),
        batch=own.get("batch_train", rules.batch),
        lr=own.get("lr_net", rules.lr),
        strategy=augmented.strategy,
        optimizer=rules.optimizer,
        cutmix=augmented.cutmix,
        augmentation=augmented.kind,
        steps=own.get("judge_steps", 0),
    )


def of_run(meta):
    """The judge.Protocol of the run of `meta`."""
    no_flags = argparse.Namespace(protocol="paper", **dict.fromkeys(FROM_THE_RUN))
    return protocol_of(no_flags, meta["args"])


def computed(meta):
    """How a run computed its judges, a compute.Settings, or None if its `meta` does not say."""
    names = [field.name for field in dataclasses.fields(compute.Settings)]
    fields = meta.get("computed", {}).get("judging", {})
    if set(names) <= set(fields):  # files of later versions may hold more
        return compute.Settings(**{name: fields[name] for name in names})
    words = meta.get("arithmetic", {}).get("judging")
    return compute.settings_in(words) if words else None


def arithmetic_of(meta, args, planned_flop, title):
    """How the judges of a set are computed, a compute.Arithmetic: as in the run that made it, or by
    the flags. Says under the set's `title` what is not as it was or should be."""
    device = args.device
    precision = args.precision
    compiled = args.compile
    logged = computed(meta)
    if logged and (device, precision, compiled) == ("auto", "auto", None):
        device = logged.device if compute.has_device(logged.device) else "auto"
        precision = logged.precision
        compiled = logged.compiled
    arithmetic = compute.choose(device, precision, compiled, planned_flop)
    if logged and arithmetic.settings() != logged:
        differs = f"was judged on {logged}, here on {arithmetic}"
        messages.log.info(f"{title}: {differs}, so the last digits may differ")
    return arithmetic
