"""Train networks on a distilled set and test them on real images: the field's judge, for anybody's sets.

Also here, because distilling and judging share them: `Arithmetic`, which decides how networks are computed, and the
training step of a network. The default protocol is that of Dataset Condensation (Zhao et al. 2021) as BACON and IDM use
it: the last epoch of the last iteration counts, nothing is selected on the test set.

    python evaluate.py PATH ... --dataset CIFAR10        score saved sets of any layout that sets.py knows
    python evaluate.py PATH --export png OUT             write a set in another layout
    python evaluate.py PATH --grid OUT.png               look at it
    python evaluate.py --table result                    the finished runs below a folder beside the paper's figures
    python evaluate.py --plot result/log_x.jsonl OUT.png accuracy over iterations
"""

import argparse
import ctypes
import dataclasses
import functools
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import augment
import data
import figures
import networks
import sets
import tables
import utils
from utils import UserError


def _embed(net, images, last):
    return net.embed(images, last).float()


def _embed_and_classify(net, images, last):
    embedding, logits = net.embed_and_classify(images, last)
    return embedding.float(), logits.float()


def _loss_and_correct(net, images, labels):
    logits = net.classify(images).float()
    hard = labels if labels.dim() == 1 else labels.argmax(1)
    return F.cross_entropy(logits, labels), (logits.argmax(1) == hard).sum()


def _share_of_loss_and_correct(net, images, labels, total):
    logits = net.classify(images).float()
    loss = F.cross_entropy(logits, labels, reduction="sum") / total  # the label -100 weighs nothing
    return loss, (logits.argmax(1) == labels).sum()


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
        self._share_of_loss_and_correct = wrap(_share_of_loss_and_correct)

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
        """One step of cross-entropy on a batch; returns how many of it were classified correctly, on the device.

        labels: int64 (n,), or soft ones, probabilities (n, classes).
        """
        loss, correct = self._call(self._loss_and_correct, net, images, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return correct

    def shared_training_step(self, net, optimizer, images, labels, total, world):
        """`training_step` on a batch of `total` images of which this process has `images`; other processes the others.

        Gradients and the count are summed over all processes, so that the network stays the same on each. Shapes that
        recur are computed: the share is filled up with images that weigh nothing.
        """
        fill = -len(images) % 32 or (32 if len(images) == 0 else 0)
        images = torch.cat([images, images.new_zeros(fill, *images.shape[1:])])
        labels = torch.cat([labels, labels.new_full((fill,), -100)])
        loss, correct = self._call(self._share_of_loss_and_correct, net, images, labels, total)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [parameter.grad for parameter in net.parameters()]
        buffer = torch.cat([*(g.flatten() for g in gradients), correct[None]])
        world.sum_(buffer)
        for gradient, summed in zip(gradients, buffer[:-1].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))
        optimizer.step()
        return buffer[-1].to(correct.dtype)

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


def has_device(name):
    """Whether PyTorch can compute on the device `name`: cpu, cuda or mps, with or without a number."""
    kind = torch.device(name).type
    return kind == "cpu" or getattr(torch.backends if kind == "mps" else torch, kind).is_available()


def check_device(name):
    """UserError unless --device `name` can compute here; auto can."""
    if name != "auto" and not has_device(name):
        what = {"cuda": "CUDA device", "mps": "Apple GPU"}[name]
        raise UserError(f"--device {name}: PyTorch finds no {what} here; use --device cpu or auto")


@functools.cache
def compile_error(device):
    """Why torch.compile does not work on a device, in a few words, or None if it does, which a small function shows."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and not shutil.which(compiler):
        return f"no C++ compiler ({compiler}) found"
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler or its headers lack
        output = str(error).partition("Output:")[2] or str(error)
        return next(filter(None, map(str.strip, output.splitlines())), type(error).__name__)[:150]
    return None


# Planned FLOP on a CPU from which compiling repays itself: CIFAR-10, ConvNetW32, 4.05e12 FLOP took 81 s with compiling
# anew (48 s of it) and 73 s without on 2 cores; what is compiled once is cached on disk for later runs.
COMPILE_FROM = 4e12


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
    if wanted and (error := compile_error(device)):
        notes.append(f"running without torch.compile, on a CPU three times slower or more: {error}")
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
    """How a judging network trains: batches of `batch`, rate `lr`, DSA with the operations `strategy`.

    optimizer: a key of OPTIMIZERS, which also sets the rate's schedule over `epochs`. cutmix: probability per batch.
    """

    epochs: int
    batch: int
    lr: float
    strategy: tuple
    optimizer: str = "sgd"
    cutmix: float = 0.0

    @property
    def passes(self):
        """Passes over the set: with SGD one more than `epochs`, as in the published code."""
        return self.epochs + (self.optimizer == "sgd")

    def __str__(self):
        mixed = f", CutMix {self.cutmix}" if self.cutmix else ""
        strategy = "_".join(self.strategy) or "none"
        return f"{self.epochs} epochs, batch {self.batch}, {self.optimizer} {self.lr:g}, DSA {strategy}{mixed}"


def _new_sgd(net, lr, optimizer, arithmetic):
    return arithmetic.optimizer(net, lr, decay=True)  # momentum starts from zero again


def _same_adamw(net, lr, optimizer, arithmetic):
    optimizer = optimizer or torch.optim.AdamW(net.parameters())  # its weight decay is PyTorch's default, 0.01
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


# name: (the optimizer at a new rate, the epochs after which the rate changes, by which factor)
OPTIMIZERS = {
    "sgd": (_new_sgd, lambda epochs: {epochs // 2 + 1}, 0.1),
    "adamw": (_same_adamw, lambda epochs: {max(1, k * epochs // 5) - 1 for k in (1, 2, 3, 4)}, 0.5),
}


def train(net, images, labels, protocol, rng, arithmetic, after_epoch=None):
    """Train `net` on images (n,C,H,W) float32, normalised and decoded.

    labels: int64 (n,), or soft ones, probabilities (n, classes). after_epoch: called with the number of each epoch;
    it may raise to give up.
    Shuffled batches, the last partial one kept. By the paper's protocol: SGD with momentum 0.9 and weight decay 5e-4;
    after epoch index epochs // 2 + 1 a new SGD at a tenth of the rate, its momentum starting from zero.
    """
    net.train()
    make, drops, factor = OPTIMIZERS[protocol.optimizer]
    drops, lr = drops(protocol.epochs), protocol.lr
    optimizer = make(net, lr, None, arithmetic)
    if protocol.cutmix and labels.dim() == 1:
        labels = F.one_hot(labels, net.classifier.out_features).float()
    for epoch in range(protocol.passes):
        order = torch.from_numpy(rng.permutation(len(images))).to(images.device, non_blocking=images.is_cuda)
        for index in order.split(protocol.batch):
            batch = augment.dsa(images[index], augment.draw(protocol.strategy, len(index), rng))
            targets = labels[index]
            if protocol.cutmix:
                batch, targets = augment.cutmix(batch, targets, protocol.cutmix, rng)
            arithmetic.training_step(net, optimizer, batch, targets)
        if epoch in drops:
            lr *= factor
            optimizer = make(net, lr, optimizer, arithmetic)
        if after_epoch:
            after_epoch(epoch)
            net.train()


@torch.no_grad()
def accuracy(net, test, arithmetic):
    """Share of the whole test set (a data.RealData) that `net`, in eval mode, classifies correctly, in [0, 1]."""
    net.eval()
    step = arithmetic.chunk(test.images.shape[2:])
    pieces = (slice(start, start + step) for start in range(0, len(test), step))
    correct = sum(arithmetic.correct(net, test.take(piece), test.labels_of(piece)) for piece in pieces)
    return correct.item() / len(test)


def judge(name, images, labels, test, num_classes, protocol, rng, arithmetic, after_epoch=None):
    """Train one fresh network `name` on a decoded synthetic set and return its accuracy on the test set, in [0, 1]."""
    net = arithmetic.build(name, images.shape[1:], num_classes, rng)
    train(net, images, labels, protocol, rng, arithmetic, after_epoch)
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


# ---------------------------------------------------------------------------------------------------------------------
# Scoring saved sets
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Rules:
    """A row of PROTOCOLS: what --protocol takes where neither a flag nor the set says otherwise."""

    epochs: int
    plain_epochs: int  # where DSA is switched off
    batch: int
    lr: float
    optimizer: str
    cutmix: float
    source: str


PROTOCOLS = {
    "paper": Rules(1000, 1000, 256, 0.01, "sgd", 0.0, "DC's judge as IDM and BACON run it; a run of ours has its own"),
    "dc-bench": Rules(1000, 300, 256, 0.01, "sgd", 0.0, "DC-bench (Cui et al. 2022), as DC (Zhao et al. 2021)"),
    "ncfm": Rules(2000, 2000, 128, 0.001, "adamw", 0.5, "NCFM (Wang et al. 2025); the rate halves at each fifth"),
}
_FROM_THE_RUN = ("epoch_eval_train", "batch_train", "lr_net", "dsa_strategy")  # flags of a run that are its protocol


def protocol_of(saved, args):
    """The Protocol by which --protocol and the flags in `args` judge a sets.SavedSet."""
    rules, own = PROTOCOLS[args.protocol], {}
    if args.protocol == "paper":
        own = {name: saved.meta["args"][name] for name in _FROM_THE_RUN if saved.meta}
    if rules.optimizer == "sgd" and saved.lr:
        own["lr_net"] = saved.lr
    own |= {name: value for name in _FROM_THE_RUN if (value := getattr(args, name)) is not None}
    try:
        strategy = augment.parse_strategy(own.get("dsa_strategy", utils.COMMON["dsa_strategy"]))
    except ValueError as error:
        raise UserError(f"--dsa_strategy: {error}") from None
    epochs = own.get("epoch_eval_train", rules.epochs if strategy else rules.plain_epochs)
    batch, lr = own.get("batch_train", rules.batch), own.get("lr_net", rules.lr)
    return Protocol(epochs, batch, lr, strategy, rules.optimizer, rules.cutmix)


def arithmetic_of(saved, args, planned_flop):
    """How the judges of a set are computed, and lines for the user: as in the run that made it, or by the flags."""
    logged = saved.meta.get("arithmetic", {}).get("judging")
    settings = args.device, args.precision, args.compile
    if logged and settings == ("auto", "auto", None):
        device, *rest = logged.split(", ")
        settings = device if has_device(device) else "auto", "bf16" if "bf16" in rest else "fp32", "compiled" in rest
    arithmetic, notes = choose_arithmetic(*settings, planned_flop)
    if logged and str(arithmetic) != logged:
        notes.append(f"{saved.path}: was judged on {logged}, here on {arithmetic}, so the last digits may differ")
    return arithmetic, notes


class RealImages:
    """The real images on a device, in each space that sets live in: normalised, or whitened by ZCA."""

    def __init__(self, dataset, say):
        self.dataset, self.say, self.made = dataset, say, {}

    def whitening(self, space, device="cpu"):
        """The data.Whitening that a set with SavedSet.zca `space` was distilled in."""
        self.say(f"fitting the ZCA whitening on {len(self.dataset.labels_train):,} training images")
        return data.Whitening.fit(self.of("train", space, device))

    def of(self, split, space, device, whitening=None):
        """A split, train or test, as a data.RealData."""
        # MTT whitens pixels in [0,1], these scripts normalised images.
        return self.dataset.real(split, device, whitening, normalised=space != "pixels")

    def test(self, space, device):
        """The test images as a data.RealData for sets with SavedSet.zca `space`."""
        if (space, device) not in self.made:
            whitening = self.whitening(space, device) if space else None
            self.made[space, device] = self.of("test", space, device, whitening)
        return self.made[space, device]


def score(saved, names, test, num_classes, protocol, seed, num_eval, arithmetic, every=0, say=print):
    """Judge one sets.SavedSet: {architecture: ([accuracy] of the last epoch, [best accuracy] or [], seconds)}.

    The random stream of a judge is that of the run which saved the set, so one of ours gets the logged accuracy again.
    every: if not 0, test after every so many epochs too; the best of these is selected on the test set, so biased.
    """
    images, labels = (tensor.to(arithmetic.device) for tensor in saved.decoded())
    if labels.dim() == 2:
        labels = labels.softmax(1)
    scores = {}
    for name in names:
        last, best, began = [], [], time.perf_counter()
        for number in range(num_eval):
            rng, seen = utils.stream(seed, saved.exp, "judge", name, number), []
            net = arithmetic.build(name, images.shape[1:], num_classes, rng)

            def test_now(epoch, net=net, seen=seen):
                if (epoch + 1) % every == 0:
                    seen.append(accuracy(net, test, arithmetic))

            train(net, images, labels, protocol, rng, arithmetic, test_now if every else None)
            last.append(accuracy(net, test, arithmetic))
            if every:
                best.append(max([*seen, last[-1]]))
            say(f"{_short_name(saved)}  {name} {number + 1}/{num_eval}: {100 * last[-1]:.2f} %")
        scores[name] = last, best, time.perf_counter() - began
    return scores


def _short_name(saved):
    return "/".join(Path(saved.path).parts[-2:]) if saved.layout != "baseline" else saved.path


def _per_class(labels, num_classes):
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"


def score_rows(experiments, scores, protocol, num_classes):
    """Rows of the scorer's table, one for each architecture, from the experiments of a file taken together.

    experiments: [SavedSet]. scores: the result of `score` for each of them.
    """
    rows, saved = [], experiments[0]
    for name in scores[0]:
        last, best, seconds = zip(*(of_experiment[name] for of_experiment in scores), strict=True)
        row = {
            "set": saved.path, "name": _short_name(saved), "layout": saved.layout, "assumed": saved.assumed,
            "stored per class": _per_class(saved.hard_labels(), num_classes),
            "decoded per class": _per_class(saved.hard_labels().repeat(saved.factor**2), num_classes),
            "network": name, **tables.summary(last), "accuracy": last, "protocol": str(protocol),
            "epochs": protocol.epochs, "seconds": sum(seconds),
        }  # fmt: skip
        recorded = [one.recorded.get(name, []) for one in experiments]
        if all(recorded):
            same = all(a[: len(b)] == b[: len(a)] for a, b in zip(last, recorded, strict=True))
            row |= {"logged": tables.summary(recorded)["mean"], "logged, the same networks": same}
        if all(best):
            row["best epoch on test (biased)"] = tables.summary(best)["mean"]
        rows.append(row)
    return rows


def _score_cells(row):
    """The columns of the printed table."""
    cells = {
        "set": row["name"], "stored/class": row["stored per class"], "decoded/class": row["decoded per class"],
        "network": row["network"], "mean %": f"{row['mean']:.2f}", "std": f"{row['std']:.2f}",
        "networks": row["networks"], "epochs": row["epochs"], "seconds": f"{row['seconds']:.0f}",
    }  # fmt: skip
    if "logged" in row:
        cells["logged %"] = f"{row['logged']:.2f}" + (" reproduced" if row["logged, the same networks"] else "")
    if "best epoch on test (biased)" in row:
        cells["best epoch on test (biased)"] = f"{row['best epoch on test (biased)']:.2f}"
    return cells


# ---------------------------------------------------------------------------------------------------------------------
# Baselines: real images in place of a distilled set
# ---------------------------------------------------------------------------------------------------------------------


def _random(real, ipc, factor, seed):
    """Canvases of random real images, by the streams of a run with --Iteration 0: the same images."""
    streams = {c: utils.stream(seed, 0, "init", c) for c in range(len(real.counts))}
    return data.initial_canvases(real, ipc, "real", factor, streams).flatten(0, 1)


def _herding(real, ipc, seed):
    """Herding (Welling 2009): images added one by one so that their mean stays nearest to the class's, in pixels."""
    chosen = []
    for c in range(len(real.counts)):
        indices = np.sort(real.indices(c, real.counts[c], utils.stream(seed, 0, "coreset", c)))
        images = real.take(indices).flatten(1)
        mean, total = images.mean(0), torch.zeros(images.shape[1])
        free = torch.zeros(len(images))
        for k in range(ipc):
            nearest = ((mean * (k + 1) - total - images).square().sum(1) + free).argmin()
            free[nearest] = np.inf
            total += images[nearest]
            chosen.append(indices[nearest])
    return real.take(np.array(chosen))


# name: (factor, (real training images on the host, ipc, seed) -> canvases, class by class); full is the whole set
BASELINES = {
    "random": (1, lambda real, ipc, seed: _random(real, ipc, 1, seed)),
    "random4": (2, lambda real, ipc, seed: _random(real, ipc, 2, seed)),
    "herding": (1, _herding),
    "full": (1, None),
}


def baseline(kind, real, ipc, seed):
    """A baseline as a sets.SavedSet: `ipc` stored images per class of `real`, a data.RealData on the host."""
    factor, choose = BASELINES[kind]
    height, width = real.images.shape[2:]
    if factor == 2 and (height % 2 or width % 2):
        raise UserError(f"--baseline {kind}: needs an even height and width, the images have {height}x{width}")
    if choose is None:
        return sets.SavedSet("full", 0, "baseline", real.take(slice(None)), real.labels)
    if ipc > min(real.counts):
        raise UserError(f"--baseline {kind}: the smallest class has {min(real.counts)} training images, not {ipc}")
    labels = torch.arange(len(real.counts)).repeat_interleave(ipc)
    return sets.SavedSet(kind, 0, "baseline", choose(real, ipc, seed), labels, factor)


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------

_SHARED = {name: (kind, text) for flags in utils.FLAGS.values() for name, kind, _, text in flags}  # with the scripts


def build_parser():
    """The parser of evaluate.py. An absent flag is None where the set, or else the protocol, decides."""
    parser = utils.OneLineParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("what to do").add_argument
    add("paths", nargs="*", metavar="PATH", help="saved sets: files, folders of files, or class folders of pictures")
    add("--table", metavar="FOLDER", help="tabulate the finished runs below a folder")
    add("--plot", nargs=2, metavar=("LOG", "OUT.png"), help="draw a run's accuracy over iterations")
    add("--export", nargs=2, metavar=("FORMAT", "OUT"), help=f"write the set as {', '.join(sets.EXPORTS)}; see README")
    add("--grid", metavar="OUT.png", help="draw the set's canvases by class (with --decode what they hold)")
    add("--tsne", metavar="OUT.png", help="draw a t-SNE of real and synthetic embeddings, up to ten classes")
    add = parser.add_argument_group("the sets").add_argument
    add(
        "--dataset",
        choices=(*data.DATASETS, utils.IMAGE_FOLDER),
        metavar="NAME",
        help="of which data they are; our own say so",
    )
    add("--data_path", default="data", help="folder of the datasets (default data)")
    add("--im_size", type=utils.whole(4), help=_SHARED["im_size"][1])
    add("--factor", type=int, choices=(1, 2), help="2: a canvas holds four images (default: what the layout implies)")
    add(
        "--zca",
        action="store_true",
        help="sets of other programs live in ZCA space: test images are whitened as by MTT",
    )
    add("--exp", type=utils.whole(0), help="only this experiment of a file with several (to export or draw: default 0)")
    add("--decode", action="store_true", help="draw the decoded images instead of the canvases")
    add = parser.add_argument_group("judging").add_argument
    add("--protocol", choices=PROTOCOLS, default="paper", help=f"{', '.join(PROTOCOLS)} (default paper); see README")
    add("--eval_mode", choices=utils.EVAL_MODES, nargs="+", default=["S"], metavar="MODE", help=_SHARED["eval_mode"][1])
    add("--model", help="the network of modes S, SS and C (default: the one that distilled the set, else ConvNet)")
    add("--num_eval", type=utils.whole(1), help="fresh networks per architecture (default: as the run, else 5)")
    for name in _FROM_THE_RUN:
        add(f"--{name}", type=_SHARED[name][0], help=f"{_SHARED[name][1]} (default: the run's or the protocol's)")
    add(
        "--baseline",
        type=lambda text: text.split(","),
        default=[],
        help=f"also judge real images: {','.join(BASELINES)}",
    )
    add("--ipc", type=utils.whole(1), help="stored images per class of the baselines (default: as the sets)")
    add("--full_epochs", type=utils.whole(1), default=20, help="epochs on the whole training set, --baseline full")
    add(
        "--biased",
        type=utils.whole(1),
        metavar="N",
        help="also show the best of every N epochs on the test set",
    )
    add("--seed", type=utils.whole(0), help="every random number follows from it (default: the run's, else 0)")
    add("--device", choices=_SHARED["device"][0], default="auto", help=_SHARED["device"][1])
    add("--precision", choices=_SHARED["precision"][0], default="auto", help=_SHARED["precision"][1])
    add("--compile", action="store_true", default=None, help="torch.compile (default: as the run, else if it pays)")
    add("--no_compile", dest="compile", action="store_false", default=None, help=argparse.SUPPRESS)
    add = parser.add_argument_group("output").add_argument
    add("--format", choices=("text", "json", "markdown"), default="text", help="text, JSON lines or Markdown")
    return parser


def main(argv=None):
    """The command line: see the top of this file. Returns the exit code: 0, or 2 for a mistake, said in one line."""
    args = build_parser().parse_args(argv)
    try:
        with utils.memory_errors():
            return _main(args)
    except UserError as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"evaluate.py: error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
    return 2


def _main(args):
    judged = bool(args.paths or args.baseline)
    if judged + bool(args.table) + bool(args.plot) > 1:
        raise UserError("--table and --plot stand alone: give them without PATH, --baseline or each other")
    if args.table:
        for title, rows in tables.of_runs(args.table, args.biased).items():
            _print(args.format, rows, rows, title)
        return 0
    if args.plot:
        _say(tables.plot_run(*args.plot))
        return 0
    check_device(args.device)
    for kind in args.baseline:
        if kind not in BASELINES:
            raise UserError(f"--baseline {kind}: unknown; choose from {', '.join(BASELINES)}")
    if args.export and args.export[0] not in sets.EXPORTS:
        raise UserError(f"--export {args.export[0]}: unknown; choose from {', '.join(sets.EXPORTS)}")
    if not judged:
        raise UserError("nothing to do: give paths of saved sets, --baseline, --table or --plot; --help explains them")
    shown = args.export or args.grid or args.tsne
    for flag, idle in {
        "--baseline": args.baseline and shown,
        "--decode": args.decode and not args.grid,
        "--ipc": args.ipc and not args.baseline,
        "--biased": args.biased and shown,
    }.items():
        if idle:
            raise UserError(f"{flag}: has no effect here; leave it out, or see --help for what it goes with")
    return _with_sets(args)


def _say(line):
    print(line, file=sys.stderr, flush=True)  # the table alone goes to standard output


def _print(kind, rows, shown, title=None):
    if kind == "json":
        for row in rows:
            print(json.dumps({"table": title, **row} if title else row))
        return
    if title:
        print(f"### {title}\n" if kind == "markdown" else title)
    print(tables.render(shown, markdown=kind == "markdown"), end="\n\n" if title else "\n")


def _dataset_name(args, metas):
    """Of which dataset the sets are, by --dataset and what they say themselves."""
    names = {path: meta["args"]["dataset"] for path, meta in metas.items() if meta}
    name = args.dataset or next(iter(names.values()), None)
    for path in metas:
        if name is None:
            raise UserError(f"{path}: does not say of which dataset it is; give --dataset")
        if names.get(path, name) != name:
            raise UserError(f"{path}: was distilled from {names[path]}, not from {name}")
    if name is None:
        raise UserError("--baseline: give --dataset")
    return name


def _with_sets(args):
    metas = {path: sets.read_meta(path) for path in args.paths}
    name = _dataset_name(args, metas)
    if not args.im_size and name == utils.IMAGE_FOLDER:
        args.im_size = next((meta["args"].get("im_size") for meta in metas.values() if meta), None)
    elif args.im_size and name != utils.IMAGE_FOLDER:
        raise UserError(f"--im_size: resizes pictures of ImageFolder only, not {name}")
    dataset = data.load(name, args.data_path, _say, args.im_size)
    facts = sets.Facts.of(dataset)
    by_path = {}
    for path in args.paths:
        for saved in sets.read(path, facts, args.factor, args.zca):
            path = Path(saved.path)  # which may be named twice; a link to a file may have other labels beside it
            by_path.setdefault(path.parent.resolve() / path.name, {})[saved.exp] = saved
    by_path = {experiments[min(experiments)].path: list(experiments.values()) for experiments in by_path.values()}
    for path, experiments in by_path.items():
        saved = experiments[0]
        if args.exp is not None:
            by_path[path] = [saved for saved in experiments if saved.exp == args.exp]
            if not by_path[path]:
                numbers = ", ".join(str(saved.exp) for saved in experiments)
                raise UserError(f"--exp {args.exp}: {path} has experiments {numbers}")
        _say(f"{path}: {saved.layout} layout, {len(experiments)} experiments; assumed: {saved.assumed}")
        other = saved.meta.get("data_sha256", dataset.fingerprint)
        if other != dataset.fingerprint:
            _say(f"{path}: distilled from data with hash {other[:8]}, judged on {dataset.fingerprint[:8]}")
    real = RealImages(dataset, _say)
    if args.export or args.grid or args.tsne:
        first = [experiments[0] for experiments in by_path.values()]
        if len(first) != 1:
            raise UserError(f"--export, --grid, --tsne: need one set, found {len(first)}")
        _show(first[0], args, facts, real)
        return 0
    rows = _score(args, by_path, real, facts)
    _print(args.format, rows, [_score_cells(row) for row in rows])
    return 0


def _show(saved, args, facts, real):
    """Do what --export, --grid and --tsne say with one set."""
    whitening = real.whitening(saved.zca) if saved.zca else None
    if args.export:
        _say(sets.export(saved, *args.export, facts, whitening))
    images, labels = saved.canvases, saved.hard_labels()
    if args.decode or args.tsne:
        images, labels = saved.decoded()[0], labels.repeat(saved.factor**2)
    if args.grid:
        figures.grid(sets.pixels(saved, images, facts, whitening), labels, facts.classes, args.grid)
        _say(args.grid)
    if args.tsne:
        _tsne(saved, images, labels, args, real, whitening)
        _say(args.tsne)


TSNE_CLASSES, TSNE_REAL, TSNE_TRAIN, TSNE_EPOCHS = 10, 100, 5000, 10


def _tsne(saved, images, labels, args, real, whitening):
    """Map the first classes' real test images and synthetic ones by a network trained on real training images."""
    dataset, seed = real.dataset, args.seed or 0
    arithmetic, _ = choose_arithmetic(args.device, args.precision, args.compile, 0)
    device, rng = arithmetic.device, utils.stream(seed, "t-SNE")
    train_images = real.of("train", saved.zca, device, whitening)
    held_out = real.of("test", saved.zca, device, whitening)
    name = args.model or saved.meta.get("args", {}).get("model", "ConvNet")
    _check_networks([name], sets.Facts.of(dataset))
    net = arithmetic.build(name, images.shape[1:], dataset.num_classes, rng)
    index = train_images.any_indices(TSNE_TRAIN, rng)
    protocol = Protocol(TSNE_EPOCHS, 256, 0.01, augment.parse_strategy(utils.COMMON["dsa_strategy"]))
    train(net, train_images.take(index), train_images.labels_of(index), protocol, rng, arithmetic)
    net.eval()
    classes = dict(list(enumerate(dataset.classes))[:TSNE_CLASSES])
    chosen = np.concatenate([held_out.indices(c, TSNE_REAL, rng) for c in classes])
    shown = labels < len(classes)
    with torch.no_grad():
        real_embedding = arithmetic.embed(net, held_out.take(chosen), None)
        synthetic = arithmetic.embed(net, images[shown].to(device), None)
    title = f"t-SNE of {name}'s embeddings, trained on {len(index):,} real images"
    figures.tsne(real_embedding, held_out.labels_of(chosen), synthetic, labels[shown], classes, args.tsne, title)


def _judges_of(saved, args, facts):
    """(architectures, networks of each, seed) by the flags, else as in the run that made the set."""
    run = saved.meta.get("args", {})
    model = args.model or run.get("model", "ConvNet")
    names = list(dict.fromkeys(name for mode in args.eval_mode for name in architectures(mode, model)))
    _check_networks(names, facts)
    return names, args.num_eval or run.get("num_eval", 5), run.get("seed", 0) if args.seed is None else args.seed


def _check_networks(names, facts):
    for name in names:
        try:
            networks.check(name, facts.shape[0], facts.num_classes, facts.shape[1:])
        except ValueError as error:
            raise UserError(f"--model, --eval_mode: {error}") from None


def _score(args, by_path, real, facts):
    """Judge every set, then the baselines, with the settings of the first set: rows of `score_rows`."""
    groups = [(experiments, experiments[0]) for experiments in by_path.values()]  # and whose settings judge them
    for kind in dict.fromkeys(args.baseline):
        like = dataclasses.replace(groups[0][1], zca=None, lr=None) if by_path else _NO_SET
        ipc = args.ipc or (max(1, len(like.canvases) // facts.num_classes) if by_path else 10)
        _, _, seed = _judges_of(like, args, facts)
        groups.append(([baseline(kind, real.of("train", None, "cpu"), ipc, seed)], like))

    rows, arithmetics = [], {}
    for experiments, like in groups:
        (names, num_eval, seed), protocol = _judges_of(like, args, facts), protocol_of(like, args)
        if experiments[0].path == "full":
            protocol = dataclasses.replace(protocol, epochs=args.full_epochs)
        flop = max(networks.flop(name, facts.shape[0], facts.num_classes, facts.shape[1:]) for name in names)
        images = len(experiments[0].canvases) * experiments[0].factor ** 2 * protocol.passes * num_eval
        arithmetic, notes = arithmetic_of(like, args, flop * images)
        arithmetic = arithmetics.setdefault(str(arithmetic), arithmetic)  # compiled code serves all sets
        for line in [*notes, f"{experiments[0].path}: {protocol}; seed {seed}; {arithmetic}"]:
            _say(line)
        test = real.test(experiments[0].zca, arithmetic.device)
        judge_one = functools.partial(
            score, names=names, test=test, num_classes=facts.num_classes, protocol=protocol, seed=seed,
            num_eval=num_eval, arithmetic=arithmetic, every=args.biased or 0, say=_say,
        )  # fmt: skip
        rows += score_rows(experiments, [judge_one(saved) for saved in experiments], protocol, facts.num_classes)
    return rows


_NO_SET = sets.SavedSet("", 0, "", torch.empty(0), torch.empty(0))  # stands for the settings of no set in particular


if __name__ == "__main__":
    sys.exit(main())
