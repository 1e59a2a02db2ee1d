"""How networks are computed: the device, the number format, compiled or not, and the training step of a network."""

import ctypes
import dataclasses
import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import networks
from bacon.errors import UserError, short


def _embed(net, images, last):
    return net.embed(images, last).float()


def _embed_and_classify(net, images, last):
    embedding, logits = net.embed_and_classify(images, last)
    return embedding.float(), logits.float()


def _loss_and_correct(net, images, labels, total):
    logits = net.classify(images).float()
    hard = labels if labels.dim() == 1 else labels.argmax(1)
    loss = F.cross_entropy(
        logits, labels, reduction="sum" if total else "mean"
    )  # the label -100 weighs nothing
    return loss / total if total else loss, (logits.argmax(1) == hard).sum()


def _correct(net, images, labels):
    return (net.classify(images).argmax(1) == labels).sum()


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a log keeps of an `Arithmetic`. threads: those of a CPU, else None."""

    device: str
    threads: int | None
    precision: str
    compiled: bool

    def __str__(self):
        threads = f", {self.threads} threads" if self.threads is not None else ""
        return f"{self.device}{threads}, {self.precision}{', compiled' if self.compiled else ''}"


def settings_in(words):
    """The `Settings` in words such as 'cpu, 2 threads, bf16, compiled'.

    Files of earlier versions hold them in no other way.
    """
    device, *rest = words.split(", ")
    threads = [int(part.split(" ")[0]) for part in rest if part.endswith(" threads")]
    precision = "bf16" if "bf16" in rest else "fp32"
    return Settings(device, threads[0] if threads else None, precision, "compiled" in rest)


class Arithmetic:
    """How networks are computed: device, number format, compiled or not. Inputs and outputs are float32 throughout.
    Compiled code is made once per shape and architecture and serves every network of that architecture."""

    def __init__(self, device, precision="fp32", compiled=False):
        self.device, self.precision, self.compiled = torch.device(device), precision, compiled
        fast_layout = compiled or self.device.type == "cuda"  # on CPUs a trap outside compiled code
        self.memory_format = torch.channels_last if fast_layout else torch.contiguous_format
        if compiled:
            config = (
                torch._dynamo.config
            )  # shapes and architectures of one run, none of them endless
            setattr(
                config,
                "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit",
                256,
            )
        functions = (_embed, _embed_and_classify, _loss_and_correct, _correct)
        self._functions = {f: torch.compile(f, dynamic=False) if compiled else f for f in functions}

    def _call(self, function, net, images, *rest):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._functions[function](
                net, images.contiguous(memory_format=self.memory_format), *rest
            )

    def build(self, name, shape, num_classes, rng):
        """A fresh network on the device. shape: (channels, H, W) of an image."""
        net = networks.build(name, shape[0], num_classes, tuple(shape[1:]), rng, self.device)
        return net.to(memory_format=self.memory_format)

    def embed(self, net, images, last):
        """Network.embed, (n, D)."""
        return self._call(_embed, net, images, last)

    def embed_and_classify(self, net, images, last):
        """Network.embed_and_classify, (n, D) and (n, classes)."""
        return self._call(_embed_and_classify, net, images, last)

    def correct(self, net, images, labels):
        """How many of a batch the network classifies correctly, a tensor on the device."""
        return self._call(_correct, net, images, labels)

    def training_step(self, net, optimizer, images, labels, total=None, world=None):
        """One step of cross-entropy on a batch; returns how many of it were classified correctly, on the device.

        labels: int64 (n,), or soft ones, probabilities (n, classes).
        world, total: of a batch of `total` images this process has `images`, the other processes of `world` the others.
        Gradients and the count are then summed over all of them, so that the network stays the same on each.
        """
        if world:  # shapes that recur are computed: images that weigh nothing fill the share up
            fill = -len(images) % 32 or (32 if len(images) == 0 else 0)
            images = torch.cat([images, images.new_zeros(fill, *images.shape[1:])])
            labels = torch.cat([labels, labels.new_full((fill,), -100)])
        loss, correct = self._call(_loss_and_correct, net, images, labels, total)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if world:
            gradients = [parameter.grad for parameter in net.parameters()]
            buffer = torch.cat([*(g.flatten() for g in gradients), correct[None]])
            world.sum_(buffer)
            for gradient, summed in zip(
                gradients, buffer[:-1].split([g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(summed.view_as(gradient))
            correct = buffer[-1].to(correct.dtype)
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

    def settings(self):
        """What a log keeps of it."""
        threads = torch.get_num_threads() if self.device.type == "cpu" else None
        return Settings(str(self.device), threads, self.precision, self.compiled)

    def __str__(self):
        return str(self.settings())


def keep_freed_memory():
    """Tell glibc to keep the memory of freed tensors for the next ones; no effect with another C library. By default
    the page faults of taking large blocks again are a quarter of a ConvNet's time on a CPU. Peak memory hardly changes.
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
    """UserError unless PyTorch finds --device `name` here; auto can always be found."""
    if name != "auto" and not has_device(name):
        what = {"cuda": "CUDA device", "mps": "Apple GPU"}[name]
        raise UserError(f"--device {name}: PyTorch finds no {what} here; use --device cpu or auto")


def working(name):
    """The kind of device that --device `name` means, of auto the best; UserError if a tiny operation fails there."""
    kind = (
        name
        if name != "auto"
        else next(kind for kind in ("cuda", "mps", "cpu") if has_device(kind))
    )
    try:
        torch.ones(2, device=kind).sum().item()
    except RuntimeError as error:
        raise UserError(
            f"--device {name}: {kind} cannot compute here ({short(error)}); use --device cpu"
        ) from error
    return kind


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


def has_bf16(device):
    """Whether a device multiplies bfloat16 numbers in hardware; of CPUs PyTorch before 2.9 tells by a private name."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return has.get("avx512_bf16", False) or has.get("amx_bf16", False)
    return device == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


# Planned FLOP from which compiling repays itself. On a CPU CIFAR-10, ConvNetW32, 4.05e12 FLOP took 81 s with compiling
# anew (48 s of it) and 73 s without on 2 cores; what is compiled once is cached on disk for later runs. On CUDA the
# same by a model: at 20 to 50e12 FLOP/s uncompiled, a gain of a third repays a minute within two to four minutes.
COMPILE_FROM = {"cpu": 4e12, "cuda": 5e15, "mps": float("inf")}


def choose(device, precision, compiled, planned_flop):
    """Resolve --device, --precision auto and an absent --compile by fixed rules: (Arithmetic, lines for the user). By
    default long work is compiled, and bf16 is taken where the hardware has it, however much work there is: uncompiled,
    a training step on a CPU takes 0.8 to 1.2 times as long in it as in fp32."""
    notes = []
    if (device := working(device)) == "cpu":
        keep_freed_memory()
    wanted = planned_flop >= COMPILE_FROM[device] if compiled is None else compiled
    if wanted and (error := compile_error(device)):
        slower = "three times slower or more" if device == "cpu" else "slower"
        notes.append(f"running without torch.compile, on {device} {slower}: {error}")
        wanted = False
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    return Arithmetic(device, precision, wanted), notes


def versions():
    """What computed a result: Python, PyTorch and NumPy, the git revision of this folder, the GPU or kind of CPU."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parents[1]),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        revision = subprocess.run(
            git, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = "unknown"
    describe = (
        torch.cuda.get_device_name
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability
    )
    libraries = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return {**libraries, "git": revision, "processor": describe()}
