"""How fast the parts of a run are, against one training step of the same network on this machine.
Prints Markdown.

    python tests/benchmark.py [--data_path data]
    python tests/benchmark.py --device cuda          also written to docs/runs/benchmark_<gpu>.md

The yardstick of a workload is the throughput of one training step (forward, backward, SGD) of a
batch of 256 on fixed images, computed as the workload's networks are: without drawing, normalising
or augmenting images. FLOP are counted from shapes (2 per multiply-add of convolutions and linear
layers). Every time is a median; first calls, which compile, are left out. Images that are not found
under --data_path are replaced by random ones of the same shapes, which take the same time. Alone on
2 CPU cores this takes about 11 minutes.

On a GPU every workload is computed uncompiled and compiled, and a second table says what an
iteration is made of: kernels, as the profiler counts them; waits of the host, as
set_sync_debug_mode counts them; the host's share, the time until it has launched all, near 100 %
where it is the host that takes the time; memory beside the data; and what the operations read and
write uncompiled, with the time that this and the FLOP take at the rates of a large copy and a large
bf16 product on the same GPU, the roofline."""

import argparse
import contextlib
import dataclasses
import io
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bacon import canvases, compute, flags, judge, messages
from bacon.data import loading, real_data
from bacon.distill import distiller as distill
from bacon.distill.experts import Snapshot
from bacon.errors import UserError, run_program
from bacon.recipes import DATASETS
from bacon.run import cost

HERE = Path(__file__).resolve().parent.parent
DEVICE = "cpu"  # --device


def settings(line):
    return flags.parse_args(tuple(DATASETS), "", f"{line} --device {DEVICE}".split()).args


def load(name, data_path):
    """The dataset, or random images in its shapes."""
    try:
        return loading.load(name, data_path)
    except UserError:
        print(f"({name} was not found under {data_path}: random images)")
        return random_dataset(name, 5000)


def random_dataset(name, per_class, classes=None):
    spec = DATASETS[name]
    classes = classes or spec.num_classes
    labels = torch.arange(classes).repeat(per_class)
    images = torch.randint(0, 256, (len(labels), spec.channels, *spec.im_size), dtype=torch.uint8)
    return real_data.Dataset(
        name,
        list(map(str, range(classes))),
        spec.mean,
        spec.std,
        images,
        labels,
        images,
        labels,
        "",
        "",
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
    images = torch.from_numpy(
        rng.standard_normal((256, spec.channels, *spec.im_size), dtype="float32")
    )
    labels = torch.from_numpy(rng.integers(spec.num_classes, size=256))
    batch = [x.to(arithmetic.device) for x in (images, labels)]
    seconds = median_seconds(
        lambda: arithmetic.training_step(net, optimizer, *batch), 20, arithmetic.device
    )
    return 256 * flop / seconds / 1e9


class Table:
    """Rows of the Markdown table, printed as they are measured."""

    COLUMNS = ("workload", "part", "seconds", "GFLOP", "GFLOP/s", "of the training step")

    def __init__(self):
        print(f"\n| {' | '.join(self.COLUMNS)} |\n|{'---|' * len(self.COLUMNS)}")

    def row(self, workload, part, seconds, gflop, reference):
        rate = gflop / seconds
        figures = f"{seconds:.3g} | {gflop:,.0f} | {rate:.0f} | {rate / reference:.0%}"
        print(f"| {workload} | {part} | {figures} |", flush=True)


def begin(args, dataset, arithmetic):
    """A Distiller before its first iteration. Untrained networks stand for experts: an iteration
    takes as long with them."""
    distiller = distill.begin(args, 0, dataset.real("train", arithmetic.device), arithmetic)
    if args.experts:
        nets = [distiller.trainer.fresh(f"expert {number}").net for number in range(2)]
        distiller.snapshots = [Snapshot(net, 50.0, is_late=True) for net in nets]
    return distiller


def images_of_iterations(args, dataset):
    """cost.images_per_kind without the training of experts, which is before the first iteration."""
    images = cost.images_per_kind(args, dataset)
    if args.experts:
        images["train"] = 0
    return images


def distillation(table, title, line, data_path, iterations):
    args = settings(line)
    dataset = load(args.dataset, data_path)
    arithmetic = cost.arithmetics(args, dataset).distilling
    spec, flop = DATASETS[args.dataset], cost.flop_per_image(args, DATASETS[args.dataset])
    images = images_of_iterations(args, dataset)
    gflop = {
        kind: images[kind] * flop[kind] / args.Iteration / 1e9
        for kind in ("real", "synthetic", "train")
    }
    before = yardstick(arithmetic, args.model, spec, flop["train"])

    distiller = begin(args, dataset, arithmetic)
    watch = Stopwatch(arithmetic.device)
    watch.watch(distiller, "real_summaries")
    watch.watch(distiller, "update_canvases")
    watch.watch(distiller.trainer, "train")
    rounds = []
    for it in range(2 + iterations):
        start = synchronised(arithmetic.device)
        distiller.iterate(it)
        parts = watch.take()
        parts["iteration"] = synchronised(arithmetic.device) - start
        parts["update_canvases"] -= parts["real_summaries"]
        if it >= 2:
            rounds.append(parts)
    seconds = {name: statistics.median(parts[name] for parts in rounds) for name in rounds[0]}
    # The machine may change its pace over minutes: the yardstick is the mean of before and after.
    reference = (before + yardstick(arithmetic, args.model, spec, flop["train"])) / 2
    step = 256 * flop["train"] / 1e9
    table.row(
        title, f"training step, the yardstick ({arithmetic})", step / reference, step, reference
    )
    table.row(title, "real embeddings", seconds["real_summaries"], gflop["real"], reference)
    table.row(title, "synthetic update", seconds["update_canvases"], gflop["synthetic"], reference)
    if not args.experts:
        table.row(title, "pool training", seconds["train"], gflop["train"], reference)
    table.row(title, "**iteration**", seconds["iteration"], sum(gflop.values()), reference)


def evaluation(table, title, line, data_path):
    args = settings(line)
    dataset = load(args.dataset, data_path)
    arithmetic = cost.arithmetics(args, dataset).judging
    spec, flop = DATASETS[args.dataset], cost.flop_per_image(args, DATASETS[args.dataset])
    test = dataset.real("test", arithmetic.device)
    distiller = distill.begin(args, 0, dataset.real("train", arithmetic.device), arithmetic)
    images, labels = canvases.decode(distiller.all_canvases(), distiller.labels, distiller.factor)
    protocol = judge.protocol_of_run(args, distiller.strategy)

    def train(epochs=args.epoch_eval_train):
        rng = np.random.default_rng(0)
        net = arithmetic.build(args.model, images.shape[1:], spec.num_classes, rng)
        judge.train(
            net, images, labels, dataclasses.replace(protocol, epochs=epochs), rng, arithmetic
        )
        return net

    net = train(3)
    judge.accuracy(net, test, arithmetic)
    before = yardstick(arithmetic, args.model, spec, flop["train", args.model])
    seconds = median_seconds(train, 3, arithmetic.device, warm_up=0)
    scoring = median_seconds(
        lambda: judge.accuracy(net, test, arithmetic), 3, arithmetic.device, warm_up=1
    )
    reference = (before + yardstick(arithmetic, args.model, spec, flop["train", args.model])) / 2
    step = 256 * flop["train", args.model] / 1e9
    gflop = (args.epoch_eval_train + 1) * len(images) * flop["train", args.model] / 1e9
    table.row(
        title, f"training step, the yardstick ({arithmetic})", step / reference, step, reference
    )
    table.row(
        title,
        f"**training, {args.epoch_eval_train} epochs of {len(images)}**",
        seconds,
        gflop,
        reference,
    )
    table.row(
        title,
        f"testing, {len(test):,} images",
        scoring,
        len(test) * flop["test", args.model] / 1e9,
        reference,
    )


def peak_megabytes(command):
    """Peak resident memory of a command in MB. Linux counts what this process had at the start of
    the command, too, so memory is measured before anything is loaded here."""
    pid = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=HERE).pid
    usage = os.wait4(pid, 0)[2]
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def memory(data_path):
    print("| run | peak memory, MB | beside importing torch |\n|---|---|---|")
    imported = peak_megabytes([sys.executable, "-c", "import torch, torchvision"])
    for line in ("--ipc 10", "--ipc 10 --model ConvNetW32"):
        with tempfile.TemporaryDirectory() as folder:
            short = "--Iteration 2 --num_exp 1 --num_eval 1 --epoch_eval_train 1 --compile"
            short += f" --data_path {data_path}"
            command = [
                sys.executable,
                "BACON_cifar10.py",
                *line.split(),
                *short.split(),
                "--save_path",
                folder,
            ]
            peak = peak_megabytes(command)
        run = f"BACON_cifar10.py {line}, 2 iterations, compiled"
        print(f"| {run} | {peak:,.0f} | {peak - imported:,.0f} |", flush=True)


class Bytes(TorchDispatchMode):
    """Adds up what operations read and write, views and allocations aside, and of tables only the
    rows taken."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        view = any(
            a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments
        )
        if not view and not name.startswith(("empty", "new_empty", "detach")):
            moved = (
                2 * [out] if name in ("index", "index_select", "gather") else [args, kwargs, out]
            )
            self.total += sum(
                t.numel() * t.element_size()
                for t in tree_leaves(moved)
                if isinstance(t, torch.Tensor)
            )
        return out


def rates():
    """FLOP/s of a large bf16 product and bytes/s of a large copy on this device."""
    device = torch.device(DEVICE)
    n = 8192 if DEVICE == "cuda" else 256
    # Random numbers: products of constants take less power, and so run faster.
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = median_seconds(lambda: a @ b, 10, device)
    x = torch.randn(4 * n * n, device=device)
    return 2 * n**3 / product, 2 * x.numel() * 4 / median_seconds(lambda: x.clone(), 10, device)


def is_kernel(event):
    """Whether an event of torch's profiler is a kernel of the GPU."""
    if event.device_type != torch.autograd.DeviceType.CUDA:
        return False
    # PyTorch before 2.6 does not tell annotations, such as that of an optimizer's step.
    annotates = getattr(event, "is_user_annotation", False)
    return not annotates and not event.name.startswith(("Memcpy", "Memset"))


def iteration_on_gpu(title, line, data_path, peak, bandwidth, repeat=10):
    """Print the row of the second table: see the top."""
    args = settings(line)
    device = torch.device(DEVICE)
    dataset = load(args.dataset, data_path)
    arithmetic = cost.arithmetics(args, dataset).distilling
    flop = cost.flop_per_image(args, dataset)
    images = images_of_iterations(args, dataset)
    work = sum(n * flop[kind] for kind, n in images.items() if isinstance(kind, str))
    work /= args.Iteration
    distiller = begin(args, dataset, arithmetic)
    numbers = iter(range(1, 1000))  # none of them pushes a network

    def iterate():
        distiller.iterate(next(numbers))

    for _ in range(3):
        iterate()
    torch.cuda.reset_peak_memory_stats()
    host, whole = [], []
    for _ in range(repeat):
        start = synchronised(device)
        iterate()
        host.append(time.perf_counter() - start)
        whole.append(synchronised(device) - start)
    memory = torch.cuda.max_memory_allocated() - distiller.real.images.numel()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        iterate()
        torch.cuda.set_sync_debug_mode("default")
    # Switching the mode on warns, too, in other words.
    waits = sum("called a synchronizing" in str(one.message) for one in caught)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    # Without acc_events PyTorch 2.11 warns that they are cleared at the end.
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        iterate()
        synchronised(device)
    kernels = sum(map(is_kernel, profile.events()))
    moved = Bytes()
    if not arithmetic.compiled:
        with moved:
            iterate()
    seconds = statistics.median(whole)
    cells = [
        title,
        str(arithmetic),
        f"{1e3 * seconds:.1f}",
        f"{kernels:,}",
        str(waits),
        f"{statistics.median(host) / seconds:.0%}",
        f"{memory / 1e9:.2f}",
        f"{moved.total / 1e9:.1f}" if moved.total else "-",
        f"{1e3 * moved.total / bandwidth:.1f}",
        f"{1e3 * work / peak:.1f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


GPU_COLUMNS = "an iteration|computed|ms|kernels|waits of the host|host's share|GB beside the data"
GPU_COLUMNS += "|GB moved|ms to move|ms to compute"


def on_gpu(data_path):
    """The tables of a GPU."""
    peak, bandwidth = rates()
    product = f"{peak / 1e12:.0f} TFLOP/s of a bf16 product"
    print(f"Measured: {product}, {bandwidth / 1e12:.2f} TB/s of a copy\n")
    print(f"|{GPU_COLUMNS}|\n|{'---|' * len(GPU_COLUMNS.split('|'))}")
    workloads = {"CIFAR-10 ipc 10, ConvNet": "--dataset CIFAR10 --ipc 10"}
    workloads["CIFAR-100 ipc 10, ConvNet"] = "--dataset CIFAR100 --ipc 10"
    workloads["CIFAR-10 ipc 10, ConvNetW32"] = "--dataset CIFAR10 --ipc 10 --model ConvNetW32"
    ways = [
        (title, f"{line} {way}")
        for title, line in workloads.items()
        for way in ("--no_compile", "--compile")
    ]
    for title, line in ways:
        iteration_on_gpu(title, line, data_path, peak, bandwidth)
    table = Table()
    for title, line in ways:
        distillation(table, title, line, data_path, iterations=10)
    for title, line in ways[:2]:
        evaluation(table, title, f"{line} --epoch_eval_train 100", data_path)


class Both(io.TextIOBase):
    """Writes to two files."""

    def __init__(self, *files):
        self.files = files

    def write(self, text):
        for file in self.files:
            file.write(text)
            file.flush()
        return len(text)


SCALING = [
    ("CIFAR100", 25, 1),
    ("CIFAR100", 50, 1),
    ("CIFAR100", 100, 1),
    ("CIFAR100", 100, 10),
    ("CIFAR100", 100, 50),
]
SCALING += [
    ("TinyImageNet", 50, 1),
    ("TinyImageNet", 100, 1),
    ("TinyImageNet", 200, 1),
    ("TinyImageNet", 200, 10),
]


def scaling():
    print(
        "\n| one pass of canvas updates, ConvNetW32 | classes | ipc | seconds | seconds per class "
        "| peak memory beside the data, MB |\n|---|---|---|---|---|---|"
    )
    for name, classes, ipc in SCALING:
        command = [
            sys.executable,
            __file__,
            "--device",
            DEVICE,
            "--one_pass",
            name,
            str(classes),
            str(ipc),
        ]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, megabytes = map(float, ended.stdout.split())
        figures = f"{seconds:.2f} | {seconds / classes:.3f} | {megabytes:,.0f}"
        workload = f"{name}, 256 real images per class"
        print(f"| {workload} | {classes} | {ipc} | {figures} |", flush=True)


def one_pass(name, classes, ipc):
    """Seconds of one pass of canvas updates on random images, and the memory it adds to them in
    MB."""

    def megabytes():
        if DEVICE == "cuda":
            return torch.cuda.max_memory_allocated() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            1e6 if sys.platform == "darwin" else 1e3
        )

    args = settings(
        f"--dataset {name} --ipc {ipc} --model ConvNetW32 --batch_real 256 --Iteration 1000"
    )
    dataset = random_dataset(name, 256, int(classes))
    compute.keep_freed_memory()  # as in a run
    of_gpu = DEVICE == "cuda" and compute.has_bf16(DEVICE)
    arithmetic = compute.Arithmetic(DEVICE, "bf16" if of_gpu else "fp32")
    distiller = distill.begin(args, 0, dataset.real("train", DEVICE), arithmetic)
    start = megabytes()
    (member,) = distiller.pool.pick(1, distiller.stream("pick", 0))

    print(
        median_seconds(
            lambda: distiller.update_canvases(member, distill.Pass(0, 0, 0)),
            3,
            arithmetic.device,
            warm_up=1,
        ),
        megabytes() - start,
    )


def main():
    global DEVICE
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", default="data", help="folder of the datasets (default data)")
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="what to measure (default cpu)"
    )
    parser.add_argument("--one_pass", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    DEVICE = options.device
    if options.one_pass:
        return one_pass(*options.one_pass)
    data_path = options.data_path
    day = time.strftime("%Y-%m-%d")
    if DEVICE == "cuda":
        compute.check_device("cuda")
        name = torch.cuda.get_device_name()
        path = HERE / "docs/runs" / f"benchmark_{re.sub(r'[^A-Za-z0-9]+', '_', name)}.md"
        with open(path, "w") as file, contextlib.redirect_stdout(Both(sys.stdout, file)):
            revision = compute.versions(torch.device("cpu"))["git"]
            print(f"{name}, PyTorch {torch.__version__}, {day}, {revision}\n")
            on_gpu(data_path)
            scaling()
        return print(path)
    threads = f"{torch.get_num_threads()} threads"
    print(f"{platform.machine()}, PyTorch {torch.__version__}, {threads}, {day}\n")
    memory(data_path)
    scaling()
    table = Table()
    distillation(
        table, "MNIST ipc 10, ConvNet", "--dataset MNIST --ipc 10", data_path, iterations=3
    )
    small = "--dataset CIFAR10 --ipc 10 --model ConvNetW32"
    distillation(table, "CIFAR-10 ipc 10, ConvNetW32", small, data_path, iterations=15)
    ours = f"{small} --recipe ours"
    distillation(table, "CIFAR-10 ipc 10, ConvNetW32, our recipe", ours, data_path, iterations=15)
    evaluation(table, "CIFAR-10 ipc 10, ConvNetW32", f"{small} --epoch_eval_train 200", data_path)
    with contextlib.suppress(UserError):
        loading.load("CIFAR10", data_path)
        start = time.perf_counter()
        loading.load("CIFAR10", data_path).real("train")
        seconds = time.perf_counter() - start
        print(f"\nLoading CIFAR-10 from cifar10.pt, hash and index included: {seconds:.2f} s")


if __name__ == "__main__":
    with messages.speak("stderr"):
        sys.exit(run_program("benchmark.py", main))
