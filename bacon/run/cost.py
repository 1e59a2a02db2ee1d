"""What a run will cost: its work counted from shapes, and the time, memory and disk it takes on this device."""

import copy
import statistics
import sys
import time

import numpy as np
import torch

import augment
import networks
from bacon import compute, judge
from bacon.data.real_data import RealData
from bacon.distill import distiller as distill
from bacon.progress import duration
from bacon.recipes import (
    architectures,
    experiments,
    images_per_class,
    number_of_evaluations,
    training_steps,
)


def flop_per_image(args, spec):
    """FLOP (2 per multiply-add) of one image in each kind of work, counted from shapes without computing anything.
    spec: a data.Dataset or recipes.Spec. Keys: "real", "synthetic", "train" for the distilling network; ("train", name)
    and ("test", name) for judges."""
    shape = spec.channels, spec.num_classes, spec.im_size
    flop = {"train": networks.flop(args.model, *shape)}
    flop["real"] = networks.flop(args.model, *shape, weights=False, last=args.embed_last)
    flop["synthetic"] = networks.flop(
        args.model, *shape, weights=False, image=True, last=args.embed_last
    )
    for name in architectures(args.eval_mode, args.model):
        flop["train", name] = networks.flop(name, *shape)
        flop["test", name] = networks.flop(name, *shape, weights=False)
    return flop


def images_per_kind(args, spec):
    """How many images of each kind of `flop_per_image` an experiment computes."""
    decoded = images_per_class(args) * spec.num_classes
    passes = args.Iteration * args.outer_loop * args.train_net_num
    evaluations = number_of_evaluations(args) * args.num_eval
    counts = {
        "real": passes * min(args.batch_real * spec.num_classes, spec.train),
        "synthetic": passes * decoded,
    }
    counts["train"] = args.Iteration * training_steps(args) * args.trained_bs
    for name in architectures(args.eval_mode, args.model):
        steps = args.judge_steps * min(args.batch_train, decoded)
        counts["train", name] = evaluations * (steps or (args.epoch_eval_train + 1) * decoded)
        counts["test", name] = evaluations * spec.test
    return counts


def arithmetics(args, spec):
    """How to distil, how to judge (compute.Arithmetic), and lines for the user. Each is chosen by its own work, that of
    an experiment and that of an evaluation: neither more judging nor more experiments change how one distils."""
    distil = judging = 0
    if args.compile is None:  # else nothing depends on the work
        flop, images = flop_per_image(args, spec), images_per_kind(args, spec)
        work = {kind: count * flop[kind] for kind, count in images.items()}
        distil = work["real"] + work["synthetic"] + work["train"]
        judging = (sum(work.values()) - distil) / number_of_evaluations(args)
    distilling = compute.choose(args.device, args.precision, args.compile, distil)
    judges = compute.choose(args.device, args.precision, args.compile, judging)
    return distilling, judges, []


def about_judging(args, spec):
    """What judging costs of a run, in words, and how to judge less where that is much of it. In forward passes: one
    for an image embedded or tested, another for a gradient with respect to images, and one more for weights."""
    images = images_per_kind(args, spec)
    judging = sum(
        images[kind] * (3 if kind[0] == "train" else 1)
        for kind in images
        if isinstance(kind, tuple)
    )
    share = judging / (judging + images["real"] + 2 * images["synthetic"] + 3 * images["train"])
    if number_of_evaluations(args) == 1 or share < 0.1:
        return ""
    return f"; about {share:.0%} of the work. --eval_interval {args.Iteration} judges at the end only: the same images"


def checkpoint_bytes(args, spec):
    """Size of the largest checkpoint: the networks of a full pool with their momentum, the canvases with theirs, and
    the sets of the experiments that have ended."""
    net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    members = min(
        args.net_num, 3 + -(-args.Iteration // args.net_generate_interval) * args.net_push_num
    )
    network = sum(p.numel() for p in net.parameters()) * (2 if args.net_decay else 1)
    canvases = args.ipc * spec.num_classes * spec.channels * spec.im_size[0] * spec.im_size[1]
    copies = {"sgd": 2, "adam": 3}[args.optim] + len(experiments(args))
    return 4 * (members * network + copies * canvases)


def random_images(spec, classes, per_class, device):
    """Random images of a dataset's shape as a data.RealData: they take the time of real ones."""
    labels = torch.arange(classes).repeat(per_class)
    images = torch.randint(0, 256, (len(labels), spec.channels, *spec.im_size), dtype=torch.uint8)
    return RealData(images, labels, spec.mean, spec.std, classes, device)


def seconds_per_image(args, spec, distilling, judging):
    """Measured seconds per image of the kinds of `flop_per_image`, compilation left out, on random images. What is
    timed is what a run does: a pass of canvas updates over as many classes as a chunk of memory holds ("real" and
    "synthetic" together, under "real" per real image), a network's training, and of each judge an epoch and a test."""

    def measure(work, device, *of):
        clock = []
        for _ in range(5):
            start = time.perf_counter()
            work(*of)
            if device.type == "cuda":
                torch.cuda.synchronize()
            clock.append(time.perf_counter() - start)
        return statistics.median(clock[2:])  # the first calls compile

    small, rng = copy.copy(args), np.random.default_rng(0)
    small.model_train_steps, small.init = min(2, args.model_train_steps), "noise"
    each = min(args.batch_real, spec.train // spec.num_classes)
    classes = min(spec.num_classes, max(2, distilling.chunk(spec.im_size) // each))
    real = random_images(spec, classes, each, distilling.device)
    distiller = distill.begin(small, 0, real, distilling)
    (member,) = distiller.pool.pick(1, rng)
    seconds = {
        "real": measure(distiller.update_canvases, distilling.device, member, distill.Pass(0, 0, 0))
        / len(real)
    }
    if training_steps(args):
        images = small.model_train_steps * min(args.trained_bs, len(real))
        seconds["train"] = (
            measure(
                distiller.trainer.train, distilling.device, member, small.model_train_steps, rng
            )
            / images
        )

    chunk, device, classes = judging.chunk(spec.im_size), judging.device, spec.num_classes
    decoded = min(images_per_class(args) * classes, 4 * args.batch_train)
    synthetic, test = (
        random_images(spec, classes, -(-n // classes), device) for n in (decoded, chunk)
    )
    images, labels = synthetic.batch(slice(0, decoded))
    protocol = judge.Protocol(
        0, args.batch_train, args.lr_net, augment.parse_strategy(args.dsa_strategy)
    )
    for name in architectures(args.eval_mode, args.model):
        net = judging.build(name, images.shape[1:], classes, rng)
        seconds["train", name] = (
            measure(judge.train, device, net, images, labels, protocol, rng, judging) / decoded
        )
        seconds["test", name] = measure(judge.accuracy, device, net, test, judging) / len(test)
    return seconds


def dry_run(args, spec, distilling, judging):
    """Print what the run will cost on this device."""
    flop, counts = flop_per_image(args, spec), images_per_kind(args, spec)
    seconds, several = seconds_per_image(args, spec, distilling, judging), len(experiments(args))
    rows = [
        ("canvas updates", "real", ("real", "synthetic")),
        ("pool training", "train", ("train",)),
    ]
    rows += [
        (f"judging: {kind[0]} {kind[1]}", kind, (kind,))
        for kind in counts
        if isinstance(kind, tuple)
    ]
    print(f"{'work':<32}{'images':>14}{'TFLOP':>12}{'GFLOP/s':>10}{'time':>10}")
    totals = np.zeros(3)
    for title, kind, counted in rows:
        images = several * sum(counts[name] for name in counted)
        tflop = several * sum(counts[name] * flop[name] for name in counted) / 1e12
        takes = several * counts[kind] * seconds.get(kind, 0)
        rate = f"{1000 * tflop / takes:,.0f}" if takes else "-"
        print(f"{title:<32}{images:>14,}{tflop:>12,.4g}{rate:>10}{duration(takes):>10}")
        totals += images, tflop, takes
    images, tflop, takes = totals
    print(f"{'total':<32}{images:>14,.0f}{tflop:>12,.4g}{'':>10}{duration(takes):>10}")
    names, judges = (
        architectures(args.eval_mode, args.model),
        number_of_evaluations(args) * args.num_eval,
    )
    longest = (
        max(sum(counts[kind, n] * seconds[kind, n] for kind in ("train", "test")) for n in names)
        / judges
    )
    print(f"a judge takes up to {duration(longest)}: a job's time limit has to be longer")
    state = checkpoint_bytes(args, spec)
    print(
        f"checkpoint about {state / 1e6:,.1f} MB; {3 * state / 1e6:,.1f} MB of disk while one is written"
    )
    if distilling.device.type == "cuda":
        peak, where = torch.cuda.max_memory_allocated(), "GPU memory"
    else:
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        peak, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "memory"
    pixels = (spec.train + spec.test) * spec.channels * spec.im_size[0] * spec.im_size[1]
    print(f"peak {where} about {(peak + state + pixels) / 1e9:,.1f} GB")
