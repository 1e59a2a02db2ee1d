"""How fast the parts of a run are, against one training step of the same network on this machine. Prints Markdown.

    python tests/benchmark.py [--data_path data]     docs/runs/benchmark_2cores.md is what it printed on 2 CPU cores

The yardstick of a workload is the throughput of one training step (forward, backward, SGD) of a batch of 256 on fixed
images, computed as the workload's networks are: without drawing, normalising or augmenting images. FLOP are counted
from shapes (2 per multiply-add of convolutions and linear layers). Every time is a median; first calls, which compile,
are left out. Images that are not found under --data_path are replaced by random ones of the same shapes, which take the
same time. Alone on 2 CPU cores this takes about 11 minutes.
"""

import argparse
import contextlib
import dataclasses
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bacon import canvases, compute, cost, data, distill, flags, judge
from bacon.errors import UserError
from bacon.recipes import DATASETS

HERE = Path(__file__).resolve().parent.parent


def settings(line):
    return flags.parse_args(tuple(DATASETS), "", line.split()).args


def load(name, data_path):
    """The dataset, or random images in its shapes."""
    try:
        return data.load(name, data_path, say=lambda line: None)
    except UserError:
        print(f"({name} was not found under {data_path}: random images)")
        return random_dataset(name, 5000)


def random_dataset(name, per_class, classes=None):
    spec = DATASETS[name]
    classes = classes or spec.num_classes
    labels = torch.arange(classes).repeat(per_class)
    images = torch.randint(0, 256, (len(labels), spec.channels, *spec.im_size), dtype=torch.uint8)
    return data.Dataset(
        name, list(map(str, range(classes))), spec.mean, spec.std, images, labels, images, labels, "", ""
    )


def synchronised(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(function, repeat, device, warm_up=3):
    clock = []
    for _ in range(warm_up + repeat):
        start = synchronised(device)
        function()
        clock.append(synchronised(device) - start)
    return statistics.median(clock[warm_up:])


class Stopwatch:
    """Adds up the time spent in methods: watch(object, name) wraps one, `take` reads and clears."""

    def __init__(self, device):
        self.device, self.seconds = device, {}

    def watch(self, target, name):
        function = getattr(target, name)

        def timed(*args):
            start = synchronised(self.device)
            result = function(*args)
            self.seconds[name] = self.seconds.get(name, 0) + synchronised(self.device) - start
            return result

        setattr(target, name, timed)

    def take(self):
        seconds, self.seconds = self.seconds, {}
        return seconds


def yardstick(arithmetic, name, spec, flop):
    """GFLOP/s of a training step of `name` on a fixed batch of 256."""
    rng = np.random.default_rng(0)
    net = arithmetic.build(name, (spec.channels, *spec.im_size), spec.num_classes, rng)
    optimizer = arithmetic.optimizer(net, 0.01, decay=True)
    images = torch.from_numpy(rng.standard_normal((256, spec.channels, *spec.im_size), dtype="float32"))
    labels = torch.from_numpy(rng.integers(spec.num_classes, size=256))
    batch = [x.to(arithmetic.device) for x in (images, labels)]
    seconds = median_seconds(lambda: arithmetic.training_step(net, optimizer, *batch), 20, arithmetic.device)
    return 256 * flop / seconds / 1e9


class Table:
    """Rows of the Markdown table, printed as they are measured."""

    COLUMNS = ("workload", "part", "seconds", "GFLOP", "GFLOP/s", "of the training step")

    def __init__(self):
        print(f"\n| {' | '.join(self.COLUMNS)} |\n|{'---|' * len(self.COLUMNS)}")

    def row(self, workload, part, seconds, gflop, reference):
        rate = gflop / seconds
        print(
            f"| {workload} | {part} | {seconds:.3g} | {gflop:,.0f} | {rate:.0f} | {rate / reference:.0%} |", flush=True
        )


def distillation(table, title, line, data_path, iterations):
    args = settings(line)
    dataset = load(args.dataset, data_path)
    arithmetic = cost.arithmetics(args, dataset)[0]
    spec, flop = DATASETS[args.dataset], cost.flop_per_image(args, DATASETS[args.dataset])
    images = cost.images_per_kind(args, dataset)
    gflop = {kind: images[kind] * flop[kind] / args.Iteration / 1e9 for kind in ("real", "synthetic", "train")}
    before = yardstick(arithmetic, args.model, spec, flop["train"])

    distiller = distill.Distiller(args, 0, dataset.real("train", arithmetic.device), arithmetic)
    watch = Stopwatch(arithmetic.device)
    watch.watch(distiller, "real_moments")
    watch.watch(distiller, "update_canvases")
    watch.watch(distiller, "train_network")
    rounds = []
    for it in range(2 + iterations):
        start = synchronised(arithmetic.device)
        distiller.iterate(it)
        parts = watch.take()
        parts["iteration"] = synchronised(arithmetic.device) - start
        parts["update_canvases"] -= parts["real_moments"]
        if it >= 2:
            rounds.append(parts)
    seconds = {name: statistics.median(parts[name] for parts in rounds) for name in rounds[0]}
    # The machine may change its pace over minutes: the yardstick is the mean of before and after.
    reference = (before + yardstick(arithmetic, args.model, spec, flop["train"])) / 2
    step = 256 * flop["train"] / 1e9
    table.row(title, f"training step, the yardstick ({arithmetic})", step / reference, step, reference)
    table.row(title, "real embeddings", seconds["real_moments"], gflop["real"], reference)
    table.row(title, "synthetic update", seconds["update_canvases"], gflop["synthetic"], reference)
    table.row(title, "pool training", seconds["train_network"], gflop["train"], reference)
    table.row(title, "**iteration**", seconds["iteration"], sum(gflop.values()), reference)


def evaluation(table, title, line, data_path):
    args = settings(line)
    dataset = load(args.dataset, data_path)
    arithmetic = cost.arithmetics(args, dataset)[1]
    spec, flop = DATASETS[args.dataset], cost.flop_per_image(args, DATASETS[args.dataset])
    test = dataset.real("test", arithmetic.device)
    distiller = distill.Distiller(args, 0, dataset.real("train", arithmetic.device), arithmetic)
    images, labels = canvases.decode(distiller.all_canvases(), distiller.labels, distiller.factor)
    protocol = judge.Protocol(args.epoch_eval_train, args.batch_train, args.lr_net, distiller.strategy)

    def train(epochs=args.epoch_eval_train):
        rng = np.random.default_rng(0)
        net = arithmetic.build(args.model, images.shape[1:], spec.num_classes, rng)
        judge.train(net, images, labels, dataclasses.replace(protocol, epochs=epochs), rng, arithmetic)
        return net

    net = train(3)
    judge.accuracy(net, test, arithmetic)
    before = yardstick(arithmetic, args.model, spec, flop["train", args.model])
    seconds = median_seconds(train, 3, arithmetic.device, warm_up=0)
    scoring = median_seconds(lambda: judge.accuracy(net, test, arithmetic), 3, arithmetic.device, warm_up=1)
    reference = (before + yardstick(arithmetic, args.model, spec, flop["train", args.model])) / 2
    step = 256 * flop["train", args.model] / 1e9
    gflop = (args.epoch_eval_train + 1) * len(images) * flop["train", args.model] / 1e9
    table.row(title, f"training step, the yardstick ({arithmetic})", step / reference, step, reference)
    table.row(title, f"**training, {args.epoch_eval_train} epochs of {len(images)}**", seconds, gflop, reference)
    table.row(title, f"testing, {len(test):,} images", scoring, len(test) * flop["test", args.model] / 1e9, reference)


def peak_megabytes(command):
    """Peak resident memory of a command in MB. Linux counts what this process had at the start of the command, too,
    so memory is measured before anything is loaded here."""
    pid = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=HERE).pid
    usage = os.wait4(pid, 0)[2]
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def memory(data_path):
    print("| run | peak memory, MB | beside importing torch |\n|---|---|---|")
    imported = peak_megabytes([sys.executable, "-c", "import torch, torchvision"])
    for line in ("--ipc 10", "--ipc 10 --model ConvNetW32"):
        with tempfile.TemporaryDirectory() as folder:
            short = f"--Iteration 2 --num_exp 1 --num_eval 1 --epoch_eval_train 1 --compile --data_path {data_path}"
            command = [sys.executable, "BACON_cifar10.py", *line.split(), *short.split(), "--save_path", folder]
            peak = peak_megabytes(command)
        print(f"| BACON_cifar10.py {line}, 2 iterations, compiled | {peak:,.0f} | {peak - imported:,.0f} |", flush=True)


SCALING = [("CIFAR100", 25, 1), ("CIFAR100", 50, 1), ("CIFAR100", 100, 1), ("CIFAR100", 100, 10), ("CIFAR100", 100, 50)]
SCALING += [("TinyImageNet", 50, 1), ("TinyImageNet", 100, 1), ("TinyImageNet", 200, 1), ("TinyImageNet", 200, 10)]


def scaling():
    print(
        "\n| one pass of canvas updates, ConvNetW32 | classes | ipc | seconds | seconds per class "
        "| peak memory beside the data, MB |\n|---|---|---|---|---|---|"
    )
    for name, classes, ipc in SCALING:
        command = [sys.executable, __file__, "--one_pass", name, str(classes), str(ipc)]
        seconds, megabytes = map(
            float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        )
        print(
            f"| {name}, 256 real images per class | {classes} | {ipc} | {seconds:.2f} | {seconds / classes:.3f} "
            f"| {megabytes:,.0f} |",
            flush=True,
        )


def one_pass(name, classes, ipc):
    """Seconds of one pass of canvas updates on random images, and the memory it adds to them in MB."""

    def megabytes():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)

    args = settings(f"--dataset {name} --ipc {ipc} --model ConvNetW32 --batch_real 256 --Iteration 1000")
    dataset = random_dataset(name, 256, int(classes))
    compute.keep_freed_memory()  # as in a run
    arithmetic = compute.Arithmetic("cpu")
    distiller = distill.Distiller(args, 0, dataset.real("train"), arithmetic)
    start = megabytes()
    (member,) = distiller.pool.pick(1, distiller.stream("pick", 0))

    print(
        median_seconds(lambda: distiller.update_canvases(member, (0, 0, 0)), 3, arithmetic.device, warm_up=1),
        megabytes() - start,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="data", help="folder of the datasets (default data)")
    parser.add_argument("--one_pass", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_pass:
        return one_pass(*options.one_pass)
    data_path = options.data_path
    day = time.strftime("%Y-%m-%d")
    print(f"{platform.machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {day}\n")
    memory(data_path)
    scaling()
    table = Table()
    distillation(table, "MNIST ipc 10, ConvNet", "--dataset MNIST --ipc 10", data_path, iterations=3)
    small = "--dataset CIFAR10 --ipc 10 --model ConvNetW32"
    distillation(table, "CIFAR-10 ipc 10, ConvNetW32", small, data_path, iterations=15)
    evaluation(table, "CIFAR-10 ipc 10, ConvNetW32", f"{small} --epoch_eval_train 200", data_path)
    with contextlib.suppress(UserError):
        data.load("CIFAR10", data_path)
        start = time.perf_counter()
        data.load("CIFAR10", data_path).real("train")
        print(f"\nLoading CIFAR-10 from cifar10.pt, hash and index included: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
