"""What a run will cost: its work counted from shapes, and the hours, memory and disk it takes on this device.

The counted work also decides how networks are computed (`choose_arithmetic`): compiling has to repay itself.

    python cost.py [--tflops 20] [--gigabytes 10] [--microseconds 50]

prints what several processes gain: a model, whose assumptions are these three flags.
"""

import argparse
import statistics
import sys
import time

import torch

import augment
import data
import evaluate
import networks
import utils
from utils import stream


def flop_per_image(args, spec):
    """FLOP (2 per multiply-add) of one image in each kind of work, counted from shapes without computing anything.

    spec: a data.Dataset or data.Spec.

    Keys: "real", "synthetic", "train" for the distilling network; ("train", name) and ("test", name) for judges.
    """

    shape = spec.channels, spec.num_classes, spec.im_size
    flop = {"train": networks.flop(args.model, *shape)}
    flop["real"] = networks.flop(args.model, *shape, weights=False, last=args.embed_last)
    flop["synthetic"] = networks.flop(args.model, *shape, weights=False, image=True, last=args.embed_last)
    for name in evaluate.architectures(args.eval_mode, args.model):
        flop["train", name] = networks.flop(name, *shape)
        flop["test", name] = networks.flop(name, *shape, weights=False)
    return flop


def training_steps(args):
    """Training steps of an iteration, those of all its networks together."""
    return args.outer_loop * args.fetch_net_num * args.model_train_steps


def images_per_kind(args, dataset):
    """How many images of each kind of `flop_per_image` an experiment computes."""
    decoded = args.ipc * (4 if args.aug else 1) * dataset.num_classes
    real = torch.bincount(dataset.labels_train).clamp(max=args.batch_real).sum().item()
    passes = args.Iteration * args.outer_loop * args.train_net_num
    evaluations = number_of_evaluations(args) * args.num_eval
    counts = {
        "real": passes * real,
        "synthetic": passes * decoded,
        "train": args.Iteration * training_steps(args) * args.trained_bs,
    }
    for name in evaluate.architectures(args.eval_mode, args.model):
        counts["train", name] = evaluations * (args.epoch_eval_train + 1) * decoded
        counts["test", name] = evaluations * len(dataset.labels_test)
    return counts


def experiments(args):
    """The experiments this process runs: all of num_exp, or the one that --exp_index names."""
    return range(args.num_exp) if args.exp_index is None else [args.exp_index]


def choose_arithmetic(args, dataset):
    """How to distil, how to judge, and lines for the user.

    Each is chosen by its own work, that of an experiment and that of an evaluation: neither judging more often nor
    running more experiments changes the arithmetic that makes the canvases.
    """
    distil = judge = 0
    if args.compile is None:  # else nothing depends on the work
        flop, images = flop_per_image(args, dataset), images_per_kind(args, dataset)
        work = {kind: count * flop[kind] for kind, count in images.items()}
        distil = work["real"] + work["synthetic"] + work["train"]
        judge = (sum(work.values()) - distil) / number_of_evaluations(args)
    distilling, notes = evaluate.choose_arithmetic(args.device, args.precision, args.compile, distil)
    judging, more = evaluate.choose_arithmetic(args.device, args.precision, args.compile, judge)
    return distilling, judging, list(dict.fromkeys(notes + more))


def evaluation_due(args, it):
    """Whether iteration `it` begins with an evaluation: every eval_interval, and always the last."""
    return it == args.Iteration or (it > 0 and it % args.eval_interval == 0)


def number_of_evaluations(args):
    """Evaluations of an experiment."""
    return -(-args.Iteration // args.eval_interval) or 1


def checkpoint_bytes(args, spec):
    """Size of the largest checkpoint: the networks of a full pool with their momentum, the canvases with theirs, and
    the sets of the experiments that have ended."""
    net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    members = min(args.net_num, 3 + -(-args.Iteration // args.net_generate_interval) * args.net_push_num)
    network = sum(p.numel() for p in net.parameters()) * (2 if args.net_decay else 1)
    canvases = args.ipc * spec.num_classes * spec.channels * spec.im_size[0] * spec.im_size[1]
    copies = {"sgd": 2, "adam": 3}[args.optim] + len(experiments(args))
    return 4 * (members * network + copies * canvases)


def seconds_per_image(args, train, test, distilling, judging):
    """Measured seconds per image of each kind of `flop_per_image`, augmentation included, compilation not."""
    arithmetic = distilling
    shape, classes = tuple(train.images.shape[1:]), len(train.counts)
    strategy, rng = augment.parse_strategy(args.dsa_strategy), stream(args.seed, "dry run")
    decoded = args.ipc * (4 if args.aug else 1) * classes
    chunk = arithmetic.chunk(shape[1:])

    def measure(n, work):
        clock = []
        for _ in range(5):
            start = time.perf_counter()
            work(n)
            if arithmetic.device.type == "cuda":
                torch.cuda.synchronize()
            clock.append(time.perf_counter() - start)
        return statistics.median(clock[2:]) / n  # the first calls compile

    def draw(n):
        indices = train.any_indices(n, rng)
        return augment.dsa(train.take(indices), augment.draw(strategy, 1, rng)), train.labels_of(indices)

    def real(n):
        with torch.no_grad():
            arithmetic.embed(net, draw(n)[0], args.embed_last)

    def synthetic(n):
        images = draw(n)[0].requires_grad_()
        embedding, logits = arithmetic.embed_and_classify(net, images, args.embed_last)
        torch.autograd.grad(embedding.sum() + logits.sum(), images)

    def step(n):
        arithmetic.training_step(net, optimizer, *draw(n))

    def score(n):
        with torch.no_grad():
            arithmetic.correct(net, test.take(slice(0, n)), test.labels_of(slice(0, n)))

    def trainable(name, decay):
        net = arithmetic.build(name, shape, classes, rng)
        return net, arithmetic.optimizer(net, args.lr_net, decay)

    net = arithmetic.build(args.model, shape, classes, rng).eval().requires_grad_(False)
    seconds = {"real": measure(min(chunk, len(train)), real)}
    seconds["synthetic"] = measure(min(chunk, decoded, len(train)), synthetic)
    net, optimizer = trainable(args.model, args.net_decay)
    seconds["train"] = measure(min(args.trained_bs, len(train)), step)
    arithmetic = judging
    for name in evaluate.architectures(args.eval_mode, args.model):
        net, optimizer = trainable(name, decay=True)
        seconds["train", name] = measure(min(args.batch_train, decoded, len(train)), step)
        net.eval()
        seconds["test", name] = measure(min(chunk, len(test)), score)
    return seconds


def dry_run(args, dataset, train, test, distilling, judging):
    """Print what the run will cost on this device."""
    flop, images = flop_per_image(args, dataset), images_per_kind(args, dataset)
    images = {kind: len(experiments(args)) * count for kind, count in images.items()}
    seconds = seconds_per_image(args, train, test, distilling, judging)
    labels = {"real": "real embeddings", "synthetic": "synthetic updates", "train": "pool training"}
    print(f"{'work':<32}{'images':>14}{'TFLOP':>12}{'GFLOP/s':>10}{'hours':>10}")
    for kind, count in images.items():
        name = labels.get(kind) or f"evaluation: {kind[0]} {kind[1]}"
        rate = flop[kind] / seconds[kind] / 1e9
        print(
            f"{name:<32}{count:>14,}{count * flop[kind] / 1e12:>12,.1f}{rate:>10,.0f}"
            f"{count * seconds[kind] / 3600:>10,.2f}"
        )
    total = sum(count * flop[kind] for kind, count in images.items()) / 1e12
    hours = sum(count * seconds[kind] for kind, count in images.items()) / 3600
    print(f"{'total':<32}{sum(images.values()):>14,}{total:>12,.1f}{'':>10}{hours:>10,.2f}")

    state = checkpoint_bytes(args, dataset)
    print(f"checkpoint about {state / 1e6:,.1f} MB; {3 * state / 1e6:,.1f} MB of disk while one is written")
    if distilling.device.type == "cuda":
        peak, where = torch.cuda.max_memory_allocated(), "GPU memory"
    else:
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        peak, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "memory"
    print(f"peak {where} about {(peak + state) / 1e9:,.1f} GB")


# ---------------------------------------------------------------------------------------------------------------------
# What several processes gain
# ---------------------------------------------------------------------------------------------------------------------


def bytes_per_iteration(args):
    """Bytes that every process of a parallel run gives to sums in an iteration: of each training step the gradients and
    one count, float32. Canvas updates exchange nothing."""
    spec = data.DATASETS[args.dataset]
    net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    return training_steps(args) * 4 * (sum(p.numel() for p in net.parameters()) + 1)


# Training images per class of the complete datasets, on average: what limits --batch_real.
IMAGES_PER_CLASS = {
    "MNIST": 6000, "FashionMNIST": 6000, "SVHN": 7325, "CIFAR10": 5000, "CIFAR100": 500, "TinyImageNet": 500,
}  # fmt: skip


def iteration_flop(args, processes=1):
    """FLOP of an iteration on the process that has most to do: the most classes, and training batches that are filled
    up to a multiple of 32."""
    flop = flop_per_image(args, data.DATASETS[args.dataset])
    classes = -(-data.DATASETS[args.dataset].num_classes // processes)
    real = min(args.batch_real, IMAGES_PER_CLASS[args.dataset])
    batch = args.trained_bs if processes == 1 else -(-args.trained_bs // processes // 32) * 32
    per_class = real * flop["real"] + args.ipc * (4 if args.aug else 1) * flop["synthetic"]
    return args.outer_loop * args.train_net_num * classes * per_class + training_steps(args) * batch * flop["train"]


def speed_up(args, processes, flops, link, latency):
    """Model of a parallel iteration: (how many times faster than one process, share of the time that sums take).

    flops: FLOP/s that a device reaches; link: bytes/s between two neighbours of a ring, which carries each summed byte
    2 (N-1)/N times; latency: seconds that a sum takes beside.
    """
    carried = bytes_per_iteration(args) * 2 * (processes - 1) / processes
    sums = carried / link + (training_steps(args) * latency if processes > 1 else 0)
    seconds = iteration_flop(args, processes) / flops + sums
    return iteration_flop(args) / flops / seconds, sums / seconds


def main(argv=None):
    parser = utils.OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=utils.RATE, default=20, help="TFLOP/s that a device reaches (default 20)")
    parser.add_argument("--gigabytes", type=utils.RATE, default=10, help="GB/s of the slowest link (default 10)")
    parser.add_argument("--microseconds", type=utils.RATE, default=50, help="latency of a sum (default 50)")
    options = parser.parse_args(argv)
    assumed = options.tflops * 1e12, options.gigabytes * 1e9, options.microseconds * 1e-6
    counts = (1, 2, 4, 8, 16)
    print("| dataset | ipc | TFLOP | MB summed | " + " | ".join(f"N = {n}" for n in counts) + " |")
    print("|---|---|---|---|" + "---|" * len(counts))
    for name in IMAGES_PER_CLASS:
        for ipc in (1, 10, 50):
            args = utils.parse_args(tuple(data.DATASETS), "", ["--dataset", name, "--ipc", str(ipc)]).args
            gains = []
            for n in counts:
                gain, share = speed_up(args, n, *assumed)
                gains.append(f"{gain:.1f}x, {share:.0%}" if n <= data.DATASETS[name].num_classes else "-")
            summed = bytes_per_iteration(args) / 1e6
            print(f"| {name} | {ipc} | {iteration_flop(args) / 1e12:.2f} | {summed:.1f} | {' | '.join(gains)} |")


if __name__ == "__main__":
    main()
