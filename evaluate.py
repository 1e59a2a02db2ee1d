"""Train networks on a distilled set and test them on real images: the field's judge, by the paper's protocol.

Also here, because distilling and judging share them: `Arithmetic`, which decides how networks are computed, and the
training step of a network. The protocol is that of Dataset Condensation (Zhao et al. 2021) as BACON and IDM use it: the
last epoch of the last iteration counts, nothing is selected on the test set.

    python evaluate.py --table result      one line for each finished run below a folder, seeds taken together
"""

import ctypes
import dataclasses
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import augment
import networks
import utils


def _embed(net, images, last):
    return net.embed(images, last).float()


def _embed_and_classify(net, images, last):
    embedding, logits = net.embed_and_classify(images, last)
    return embedding.float(), logits.float()


def _loss_and_correct(net, images, labels):
    logits = net.classify(images).float()
    return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()


def _correct(net, images, labels):
    return (net.classify(images).argmax(1) == labels).sum()


class Arithmetic:
    """How networks are computed: device, number format, compiled or not. Inputs and outputs are float32 throughout.

    Compiled code is made once per shape and architecture and serves every network of that architecture.
    """

    def __init__(self, device, precision="fp32", compiled=False):
        self.device, self.precision, self.compiled = torch.device(device), precision, compiled
        # On CPUs channels_last is a gain in compiled code and a trap outside it.
        fast_layout = compiled or self.device.type == "cuda"
        self.memory_format = torch.channels_last if fast_layout else torch.contiguous_format
        if compiled:
            torch._dynamo.config.recompile_limit = 256  # shapes and architectures of one run, none of them endless
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self._embed, self._embed_and_classify = wrap(_embed), wrap(_embed_and_classify)
        self._loss_and_correct, self._correct = wrap(_loss_and_correct), wrap(_correct)

    def _call(self, function, net, images, *rest):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return function(net, images.contiguous(memory_format=self.memory_format), *rest)

    def build(self, name, shape, num_classes, rng):
        """A fresh network on the device. shape: (channels, H, W) of an image."""
        net = networks.build(name, shape[0], num_classes, tuple(shape[1:]), rng, self.device)
        return net.to(memory_format=self.memory_format)

    def embed(self, net, images, last):
        """Network.embed, (n, D)."""
        return self._call(self._embed, net, images, last)

    def embed_and_classify(self, net, images, last):
        """Network.embed_and_classify, (n, D) and (n, classes)."""
        return self._call(self._embed_and_classify, net, images, last)

    def correct(self, net, images, labels):
        """How many of a batch the network classifies correctly, a tensor on the device."""
        return self._call(self._correct, net, images, labels)

    def training_step(self, net, optimizer, images, labels):
        """One step of cross-entropy on a batch; returns how many of it were classified correctly, on the device."""
        loss, correct = self._call(self._loss_and_correct, net, images, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return correct

    def optimizer(self, net, lr, decay):
        """SGD for a network's parameters: with `decay` momentum 0.9 and weight decay 5e-4, else plain."""
        fused = self.device.type in ("cpu", "cuda")
        settings = {"momentum": 0.9, "weight_decay": 5e-4} if decay else {}
        return torch.optim.SGD(net.parameters(), lr=lr, fused=fused, **settings)

    def chunk(self, im_size):
        """Images to compute at once, so that memory stays bounded: 256 of 32x32 on a CPU, eight times that on a GPU."""
        pixels = 2**18 if self.device.type == "cpu" else 2**21
        return max(1, pixels // (im_size[0] * im_size[1]))

    def __str__(self):
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device}{threads}, {self.precision}{', compiled' if self.compiled else ''}"


def keep_freed_memory():
    """Tell glibc to keep the memory of freed tensors for the next ones; no effect with another C library.

    By default it hands every large block back to the system, and the page faults of taking it again are a quarter of
    the time that a ConvNet of width 128 takes on a CPU. Peak memory hardly changes: the next step needs it again.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


COMPILE_FROM = 4e12  # planned FLOP on a CPU from which compiling, about a minute, repays itself


def choose_arithmetic(device, precision, compiled, planned_flop):
    """Resolve --device, --precision auto and an absent --compile by fixed rules: (Arithmetic, lines for the user).

    By default only long work on a CPU is compiled. bf16 is taken on CUDA where the GPU has it, and on a CPU that has it
    in hardware if the networks are compiled: uncompiled, it is slower than fp32 there.
    """
    notes = []
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if device == "cpu":
        keep_freed_memory()
    wanted = (device == "cpu" and planned_flop >= COMPILE_FROM) if compiled is None else compiled
    compiler = os.environ.get("CXX", "g++")
    if wanted and device == "cpu" and not shutil.which(compiler):
        notes.append(f"no C++ compiler ({compiler}) found: running without torch.compile, three times slower or more")
        wanted = False
    if precision == "auto":
        if device == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has = torch.cpu.get_capabilities() if device == "cpu" and wanted else {}
            bf16 = has.get("avx512_bf16", False) or has.get("amx_bf16", False)
        precision = "bf16" if bf16 else "fp32"
    return Arithmetic(device, precision, wanted), notes


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a judging network trains: `epochs` + 1 passes over the set, rate `lr`, DSA with the operations `strategy`."""

    epochs: int
    batch: int
    lr: float
    strategy: tuple


def train(net, images, labels, protocol, rng, arithmetic):
    """Train `net` on images (n,C,H,W) float32, normalised and decoded, with labels (n,) int64, by the paper's protocol.

    Shuffled batches, the last partial one kept; SGD with momentum 0.9 and weight decay 5e-4; after epoch index
    epochs // 2 + 1 a new SGD at a tenth of the rate, its momentum starting from zero.
    """
    net.train()
    optimizer = arithmetic.optimizer(net, protocol.lr, decay=True)
    for epoch in range(protocol.epochs + 1):
        order = torch.from_numpy(rng.permutation(len(images))).to(images.device, non_blocking=images.is_cuda)
        for index in order.split(protocol.batch):
            batch = augment.dsa(images[index], augment.draw(protocol.strategy, len(index), rng))
            arithmetic.training_step(net, optimizer, batch, labels[index])
        if epoch == protocol.epochs // 2 + 1:
            optimizer = arithmetic.optimizer(net, protocol.lr * 0.1, decay=True)


@torch.no_grad()
def accuracy(net, test, arithmetic):
    """Share of the whole test set (a data.RealData) that `net`, in eval mode, classifies correctly, in [0, 1]."""
    net.eval()
    step = arithmetic.chunk(test.images.shape[2:])
    pieces = (slice(start, start + step) for start in range(0, len(test), step))
    correct = sum(arithmetic.correct(net, test.take(piece), test.labels_of(piece)) for piece in pieces)
    return correct.item() / len(test)


def judge(name, images, labels, test, num_classes, protocol, rng, arithmetic):
    """Train one fresh network `name` on a decoded synthetic set and return its accuracy on the test set, in [0, 1]."""
    net = arithmetic.build(name, images.shape[1:], num_classes, rng)
    train(net, images, labels, protocol, rng, arithmetic)
    return accuracy(net, test, arithmetic)


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


def summary(accuracies):
    """Figures over experiments: accuracies [[per network] per experiment], in [0, 1], to a dict in percent.

    mean and std (population) are over all networks; std_networks is the spread of networks within an experiment,
    std_experiments that of the experiments' means (None for a single experiment).
    """
    percent = [[100 * a for a in experiment] for experiment in accuracies]
    every = [a for experiment in percent for a in experiment]
    within = statistics.fmean(statistics.pvariance(experiment) for experiment in percent) ** 0.5
    between = statistics.pstdev([statistics.fmean(e) for e in percent]) if len(percent) > 1 else None
    return {
        "mean": statistics.fmean(every),
        "std": statistics.pstdev(every),
        "networks": len(every),
        "std_networks": within,
        "std_experiments": between,
    }


def table(by_architecture):
    """A text table of `summary` per architecture: {name: [[accuracy per network] per experiment]}."""
    lines = [f"{'network':<16}{'accuracy %':>16}{'networks':>10}{'std networks':>14}{'std experiments':>17}"]
    for name, accuracies in by_architecture.items():
        s = summary(accuracies)
        between = "-" if s["std_experiments"] is None else f"{s['std_experiments']:.2f}"
        figure = f"{s['mean']:.2f} +- {s['std']:.2f}"
        lines.append(f"{name:<16}{figure:>16}{s['networks']:>10}{s['std_networks']:>14.2f}{between:>17}")
    return "\n".join(lines)


def finished_runs(folder):
    """Runs that ended, by their logs below `folder`: {what was run: {architecture: {(seed, exp): [accuracy]}}}.

    What was run: a tuple of the table's first columns and the other flags. UserError if there is no such folder or a
    log is damaged.
    """
    if not Path(folder).is_dir():
        raise utils.UserError(f"--table {folder}: no such folder")
    runs = {}
    for path in sorted(Path(folder).rglob("log_*.jsonl")):
        try:
            events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if not events or events[-1]["event"] != "end":
                continue
            args = events[0]["args"]
            flags = (f"--{k} {v}" for k, (v, _) in events[0]["departures"].items() if k not in _COLUMNS)
            about = (
                *(args["dataset"], args["ipc"], args["method"] if args["Iteration"] else f"random ({args['init']})"),
                *("four" if args["aug"] else "one", args["Iteration"], args["model"]),
                *(events[0]["data_sha256"][:8], " ".join(flags)),
            )
            for event in events:
                if event["event"] == "evaluation" and event["it"] == args["Iteration"]:
                    scores = runs.setdefault(about, {}).setdefault(event["network"], {})
                    scores[args["seed"], event["exp"]] = event["accuracy"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise utils.UserError(f"{path}: not a log of these scripts ({type(error).__name__})") from error
    return runs


_COLUMNS = ("aug", "Iteration", "model", "num_exp", "num_eval", "init")


def table_of_runs(folder):
    """The finished runs below `folder` as a text table, the experiments of all seeds taken together."""
    about = ("dataset", "ipc", "set", "images/canvas", "iterations", "distilled with", "data")
    rows = [(*about, "judge", "accuracy %", "networks", "seeds", "other flags")]
    for (*about, flags), by_architecture in finished_runs(folder).items():
        for name, scores in by_architecture.items():
            s = summary(list(scores.values()))
            figure = f"{s['mean']:.2f} +- {s['std']:.2f}"
            rows.append((*about, name, figure, s["networks"], len({seed for seed, _ in scores}), flags))
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell!s:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def main(argv=None):
    """The command line: see the top of this file. Returns the exit code."""
    parser = utils.OneLineParser(description="Tabulate finished runs.")
    parser.add_argument("--table", metavar="FOLDER", required=True, help="the folder whose logs are tabulated")
    try:
        print(table_of_runs(parser.parse_args(argv).table))
    except utils.UserError as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
