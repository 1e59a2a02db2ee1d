"""What a run will cost: its work, counted from shapes, and the time, memory and disk of it here."""

import copy
import dataclasses
import functools
import statistics
import sys
import time

import numpy as np
import torch

import augment
import networks
from bacon import compute, judge, messages
from bacon.data.real_data import RealData
from bacon.distill import distiller as distill
from bacon.distill.experts import Snapshot
from bacon.progress import duration
from bacon.recipes import (
    architectures,
    experiments,
    images_per_class,
    largest_pool,
    matches_in_experts,
    number_of_evaluations,
    training_steps,
)


@dataclasses.dataclass(frozen=True)
class Arithmetics:
    """How to distil and how to judge."""

    distilling: compute.Arithmetic
    judging: compute.Arithmetic


def of_judge(name):
    """The kinds of work of a judging network: its training and its test."""
    return ("train", name), ("test", name)


def is_judging(kind):
    return isinstance(kind, tuple)


def flop_per_image(args, spec):
    """FLOP (2 per multiply-add) of one image in each kind of work, counted from shapes without
    computing anything.

    spec: a loading.Dataset or datasets.Spec. Keys: "real", "synthetic", "train" for the distilling
    network; ("train", name) and ("test", name) for judges.
    """
    shape = spec.channels, spec.num_classes, spec.im_size
    flop = {
        "train": networks.flop(args.model, *shape),
        "real": networks.flop(args.model, *shape, weights=False),
        "synthetic": networks.flop(args.model, *shape, weights=False, image=True),
    }
    for name in architectures(args.eval_mode, args.model):
        train, test = of_judge(name)
        flop[train] = networks.flop(name, *shape)
        flop[test] = networks.flop(name, *shape, weights=False)
    return flop


def images_per_kind(args, spec):
    """How many images of each kind of `flop_per_image` an experiment computes."""
    decoded = images_per_class(args) * spec.num_classes
    passes = args.Iteration * args.outer_loop * args.train_net_num
    counts = {
        "real": passes * min(args.batch_real * spec.num_classes, spec.train),
        "synthetic": passes * decoded * (2 if args.expert_ce else 1),
        "train": args.Iteration * training_steps(args) * args.trained_bs,
    }
    if matches_in_experts(args):
        counts["train"] = args.experts * args.expert_steps * args.trained_bs
    judges = number_of_evaluations(args) * args.num_eval
    strategy = augment.parse_strategy(args.dsa_strategy)
    of_a_training = judge.protocol_of_run(args, strategy).images(decoded)
    for name in architectures(args.eval_mode, args.model):
        train, test = of_judge(name)
        counts[train] = judges * of_a_training
        counts[test] = judges * spec.test
    return counts


def arithmetics(args, spec):
    """The `Arithmetics` of a run; what is worth knowing of the choice is said.

    Each is chosen by its own work, that of an experiment and that of an evaluation: neither more
    judging nor more experiments change how one distils.
    """
    distil = 0
    judging = 0
    if args.compile is None:  # else nothing depends on the work
        flop = flop_per_image(args, spec)
        for kind, images in images_per_kind(args, spec).items():
            if is_judging(kind):
                judging += images * flop[kind]
            else:
                distil += images * flop[kind]
        judging /= number_of_evaluations(args)
    distilling = compute.choose(args.device, args.precision, args.compile, distil)
    judges = compute.choose(args.device, args.precision, args.compile, judging)
    return Arithmetics(distilling, judges)


def about_judging(args, spec):
    """What judging costs of a run, in words, and how to judge less where that is much of it.

    In forward passes: one for an image embedded or tested, another for a gradient with respect to
    images, and one more for weights.
    """
    images = images_per_kind(args, spec)
    judging = 0
    for name in architectures(args.eval_mode, args.model):
        train, test = of_judge(name)
        judging += 3 * images[train] + images[test]
    distilling = images["real"] + 2 * images["synthetic"] + 3 * images["train"]
    share = judging / (judging + distilling)
    if number_of_evaluations(args) == 1 or share < 0.1:
        return ""
    less = f"--eval_interval {args.Iteration} judges at the end only: the same images"
    return f"; about {share:.0%} of the work. {less}"


def checkpoint_bytes(args, spec):
    """Size of the largest checkpoint: the networks of a full pool with their momentum, the canvases
    with theirs, and the sets of the experiments that have ended."""
    net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    members = 0 if args.experts else largest_pool(args)
    network = sum(p.numel() for p in net.parameters()) * (2 if args.net_decay else 1)
    canvases = args.ipc * spec.num_classes * spec.channels * spec.im_size[0] * spec.im_size[1]
    copies = {"sgd": 2, "adam": 3}[args.optim] + len(experiments(args))
    return 4 * (members * network + copies * canvases)


def random_images(spec, classes, per_class, device):
    """Random images of a dataset's shape as a real_data.RealData: they take the time of real
    ones."""
    labels = torch.arange(classes).repeat(per_class)
    images = torch.randint(0, 256, (len(labels), spec.channels, *spec.im_size), dtype=torch.uint8)
    return RealData(images, labels, spec.mean, spec.std, classes, device)


def seconds_per_image(args, spec, arithmetics):
    """Measured seconds per image of the kinds of `flop_per_image`, compilation left out, on random
    images.

    What is timed is what a run does: a pass of canvas updates over as many classes as a chunk of
    memory holds ("real" and "synthetic" together, under "real" per real image), a network's
    training, and of each judge an epoch and a test.
    """
    of_distilling = _seconds_of_distilling(args, spec, arithmetics.distilling)
    return of_distilling | _seconds_of_judging(args, spec, arithmetics.judging)


def _median_seconds(device, work):
    """Of some calls of work()."""
    clock = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        clock.append(time.perf_counter() - start)
    return statistics.median(clock[2:])  # the first calls compile


def _seconds_of_distilling(args, spec, arithmetic):
    small = copy.copy(args)
    small.init = "noise"
    rng = np.random.default_rng(0)
    device = arithmetic.device
    each = min(args.batch_real, spec.train // spec.num_classes)
    classes = min(spec.num_classes, max(2, arithmetic.chunk(spec.im_size) // each))
    real = random_images(spec, classes, each, device)
    distiller = distill.begin(small, 0, real, arithmetic)
    member = distiller.trainer.fresh("timed")
    network = member
    steps = min(2, args.model_train_steps)
    strategy = ()
    if args.experts:
        network = Snapshot(member.net, 0, is_late=True)
        distiller.snapshots = [network]
        steps = min(2, args.expert_steps)
        strategy = distiller.strategy

    def update():
        distiller.update_canvases(network, distill.Pass(0, 0, 0))

    def train():
        distiller.trainer.train(member, steps, rng, strategy)

    seconds = {"real": _median_seconds(device, update) / len(real)}
    if training_steps(args) or args.experts:
        images = steps * min(args.trained_bs, len(real))
        seconds["train"] = _median_seconds(device, train) / images
    return seconds


def _seconds_of_judging(args, spec, arithmetic):
    rng = np.random.default_rng(0)
    device = arithmetic.device
    classes = spec.num_classes
    chunk = arithmetic.chunk(spec.im_size)
    decoded = min(images_per_class(args) * classes, 4 * args.batch_train)
    synthetic = random_images(spec, classes, -(-decoded // classes), device)
    test = random_images(spec, classes, -(-chunk // classes), device)
    images, labels = synthetic.batch(slice(0, decoded))
    strategy = augment.parse_strategy(args.dsa_strategy)
    protocol = judge.Protocol(0, args.batch_train, args.lr_net, strategy)
    seconds = {}
    for name in architectures(args.eval_mode, args.model):
        net = arithmetic.build(name, images.shape[1:], classes, rng)
        train = functools.partial(judge.train, net, images, labels, protocol, rng, arithmetic)
        score = functools.partial(judge.accuracy, net, test, arithmetic)
        of_train, of_test = of_judge(name)
        seconds[of_train] = _median_seconds(device, train) / decoded
        seconds[of_test] = _median_seconds(device, score) / len(test)
    return seconds


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table of a dry run. kinds: of `flop_per_image` that it counts together; the time
    of the first is measured. once: whether all experiments share it."""

    title: str
    kinds: tuple
    once: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """What a row of that table comes to, over all experiments."""

    images: int = 0
    tflop: float = 0.0
    seconds: float = 0.0

    def __add__(self, other):
        return Work(
            self.images + other.images, self.tflop + other.tflop, self.seconds + other.seconds
        )


def dry_run(args, spec, arithmetics):
    """Say what the run will cost on this device."""
    counts = images_per_kind(args, spec)
    seconds = seconds_per_image(args, spec, arithmetics)
    _tell_work(args, spec, counts, seconds)
    longest = max(
        sum(counts[kind] * seconds[kind] for kind in of_judge(name))
        for name in architectures(args.eval_mode, args.model)
    )
    a_judge = duration(longest / (number_of_evaluations(args) * args.num_eval))
    messages.log.info(f"a judge takes up to {a_judge}: a job's time limit has to be longer")
    state = checkpoint_bytes(args, spec)
    on_disk = f"{3 * state / 1e6:,.1f} MB of disk while one is written"
    messages.log.info(f"checkpoint about {state / 1e6:,.1f} MB; {on_disk}")
    _tell_memory(spec, state, arithmetics.distilling.device)


def _tell_work(args, spec, counts, seconds):
    """A table of the work of all experiments, by kind."""
    flop = flop_per_image(args, spec)
    training = Row("pool training", ("train",))
    if args.experts:
        training = Row("training of experts", ("train",), once=True)
    rows = [Row("canvas updates", ("real", "synthetic")), training]
    for kind in counts:
        if is_judging(kind):
            what, name = kind
            rows.append(Row(f"judging: {what} {name}", (kind,)))
    messages.log.info(f"{'work':<32}{'images':>14}{'TFLOP':>12}{'GFLOP/s':>10}{'time':>10}")
    total = Work()
    for row in rows:
        several = 1 if row.once else len(experiments(args))
        images = several * sum(counts[kind] for kind in row.kinds)
        tflop = several * sum(counts[kind] * flop[kind] for kind in row.kinds) / 1e12
        takes = several * counts[row.kinds[0]] * seconds.get(row.kinds[0], 0)
        work = Work(images, tflop, takes)
        rate = f"{1000 * tflop / takes:,.0f}" if takes else "-"
        messages.log.info(_line_of_work(row.title, work, rate))
        total += work
    messages.log.info(_line_of_work("total", total, ""))


def _line_of_work(title, work, rate):
    counted = f"{title:<32}{work.images:>14,}{work.tflop:>12,.4g}"
    return f"{counted}{rate:>10}{duration(work.seconds):>10}"


def _tell_memory(spec, checkpoint, device):
    """The most memory that this process has used, and what a run adds. checkpoint: its bytes."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
        where = "GPU memory"
    else:
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        where = "memory"
    pixels = (spec.train + spec.test) * spec.channels * spec.im_size[0] * spec.im_size[1]
    messages.log.info(f"peak {where} about {(peak + checkpoint + pixels) / 1e9:,.1f} GB")
