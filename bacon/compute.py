"""How networks are computed: device, number format, compiled or not, and a training step."""

import ctypes
import dataclasses
import functools
import os
import platform
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import networks
from bacon.errors import UserError, short
from bacon.messages import log


def _embed(net, images, last):
    return net.embed(images, last).float()


def _embed_and_classify(net, images, last):
    embedding, logits = net.embed_and_classify(images, last)
    return embedding.float(), logits.float()


def _loss_and_correct(net, images, labels, total):
    logits = net.classify(images).float()
    hard = labels if labels.dim() == 1 else labels.argmax(1)
    if total:  # the label -100 weighs nothing
        loss = F.cross_entropy(logits, labels, reduction="sum") / total
    else:
        loss = F.cross_entropy(logits, labels)
    return loss, (logits.argmax(1) == hard).sum()


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
    """How networks are computed: device, number format, compiled or not.

    Inputs and outputs are float32 throughout. Compiled code is made once per shape and architecture
    and serves every network of that architecture.
    """

    def __init__(self, device, precision="fp32", compiled=False):
        """device: cpu, cuda or mps. precision: fp32 or bf16."""
        self.device = torch.device(device)
        self.precision = precision
        self.compiled = compiled
        fast_layout = compiled or self.device.type == "cuda"  # on CPUs a trap outside compiled code
        self.memory_format = torch.channels_last if fast_layout else torch.contiguous_format
        self._functions = {}
        for function in (_embed, _embed_and_classify, _loss_and_correct, _correct):
            if compiled:
                self._functions[function] = torch.compile(function, dynamic=False)
            else:
                self._functions[function] = function
        if compiled:
            _raise_recompile_limit()
            # It advises another precision than the one that was asked for.
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores for float32")

    def _call(self, function, net, images, *rest):
        images = images.contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._functions[function](net, images, *rest)

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
        """One step of cross-entropy on a batch; how many of it were classified correctly, on the
        device.

        labels: int64 (n,), or soft ones, probabilities (n, classes). world, total: of a batch of
        `total` images this process has `images`, the other processes of `world` the others.
        Gradients and the count are then summed over all of them, so that the network stays the same
        on each.
        """
        if world:
            images, labels = _filled_up(images, labels)
        loss, correct = self._call(_loss_and_correct, net, images, labels, total)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if world:
            correct = _sum_gradients_(net, correct, world)
        optimizer.step()
        return correct

    def optimizer(self, net, lr, decay):
        """SGD for a network's parameters: with `decay` momentum 0.9 and weight decay 5e-4."""
        fused = self.device.type in ("cpu", "cuda")
        settings = {"momentum": 0.9, "weight_decay": 5e-4} if decay else {}
        return torch.optim.SGD(net.parameters(), lr=lr, fused=fused, **settings)

    def chunk(self, im_size):
        """Images to compute at once, so that memory stays bounded.

        256 of 32x32 on a CPU, eight times that on a GPU.
        """
        pixels = 2**18 if self.device.type == "cpu" else 2**21
        return max(1, pixels // (im_size[0] * im_size[1]))

    def settings(self):
        """What a log keeps of it."""
        threads = torch.get_num_threads() if self.device.type == "cpu" else None
        return Settings(str(self.device), threads, self.precision, self.compiled)

    def __str__(self):
        return str(self.settings())


def _raise_recompile_limit():
    """Let a run compile for all of its shapes and architectures, of which there are not many."""
    config = torch._dynamo.config
    # PyTorch before 2.7 has another name for it.
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, 256)


def _filled_up(images, labels):
    """A share of a batch with images that weigh nothing, up to a multiple of 32, at least 32.

    So few shapes occur, which compiled code needs.
    """
    fill = -len(images) % 32
    if len(images) == 0:
        fill = 32
    images = torch.cat([images, images.new_zeros(fill, *images.shape[1:])])
    labels = torch.cat([labels, labels.new_full((fill,), -100)])
    return images, labels


def _sum_gradients_(net, correct, world):
    """Replace a network's gradients by their sums over all processes; returns the sum of `correct`.

    In one exchange.
    """
    gradients = [parameter.grad for parameter in net.parameters()]
    buffer = torch.cat([*(gradient.flatten() for gradient in gradients), correct[None]])
    world.sum_(buffer)
    sums = buffer[:-1].split([gradient.numel() for gradient in gradients])
    for gradient, summed in zip(gradients, sums, strict=True):
        gradient.copy_(summed.view_as(gradient))
    return buffer[-1].to(correct.dtype)


def keep_freed_memory():
    """Tell glibc to keep the memory of freed tensors for the next ones; else no effect.

    By default the page faults of taking large blocks again are a quarter of a ConvNet's time on a
    CPU. Peak memory hardly changes.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mmap_max = -4  # M_MMAP_MAX of malloc.h
    trim_threshold = -1  # M_TRIM_THRESHOLD
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def has_device(name):
    """Whether PyTorch can compute on the device `name`: cpu, cuda or mps, with a number or not."""
    kind = torch.device(name).type
    if kind == "cpu":
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    return getattr(torch, kind).is_available()


def check_device(name):
    """UserError unless PyTorch finds --device `name` here; auto can always be found."""
    if name != "auto" and not has_device(name):
        what = {"cuda": "CUDA device", "mps": "Apple GPU"}[name]
        raise UserError(f"--device {name}: PyTorch finds no {what} here; use --device cpu or auto")


def working(name):
    """The kind of device that --device `name` means, of auto the best.

    UserError if a tiny operation fails there.
    """
    kind = name
    if name == "auto":
        kind = next(kind for kind in ("cuda", "mps", "cpu") if has_device(kind))
    try:
        torch.ones(2, device=kind).sum().item()
    except RuntimeError as error:
        broken = f"{kind} cannot compute here ({short(error)})"
        raise UserError(f"--device {name}: {broken}; use --device cpu") from error
    return kind


@functools.cache
def compile_error(device):
    """Why torch.compile does not work on a device, in a few words, or None if it does.

    A small function is compiled to see.
    """
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and not shutil.which(compiler):
        return f"no C++ compiler ({compiler}) found"
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler or its headers lack
        output = str(error).partition("Output:")[2] or str(error)
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        return lines[0][:150] if lines else type(error).__name__
    return None


def has_bf16(device):
    """Whether a device multiplies bfloat16 numbers in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return has.get("avx512_bf16", False) or has.get("amx_bf16", False)
    # PyTorch before 2.9 tells by a private name.
    return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


# Planned FLOP from which compiling repays itself. On a CPU CIFAR-10, ConvNetW32, 4.05e12 FLOP took
# 81 s with compiling anew (48 s of it) and 73 s without on 2 cores; what is compiled once is cached
# on disk for later runs. On CUDA the same by a model: at 20 to 50e12 FLOP/s uncompiled, a gain of a
# third repays a minute within two to four minutes.
COMPILE_FROM = {"cpu": 4e12, "cuda": 5e15, "mps": float("inf")}


def choose(device, precision, compiled, planned_flop):
    """The `Arithmetic` of --device, --precision and --compile, by fixed rules where they are open.

    compiled: None to compile long work, by its `planned_flop`. By default bf16 is taken where the
    hardware has it, however much work there is: uncompiled, a training step on a CPU takes 0.8 to
    1.2 times as long in it as in fp32. It is told, once, where nothing can be compiled. UserError
    as of `working`.
    """
    device = working(device)
    if device == "cpu":
        keep_freed_memory()
    wanted = compiled
    if compiled is None:
        wanted = planned_flop >= COMPILE_FROM[device]
    error = compile_error(device) if wanted else None
    if error:
        _tell_uncompiled(device, error)
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    return Arithmetic(device, precision, wanted and not error)


@functools.cache
def _tell_uncompiled(device, error):
    """Cached, so that it is told once."""
    slower = "three times slower or more" if device == "cpu" else "slower"
    log.info(f"running without torch.compile, on {device} {slower}: {error}")


def versions(device):
    """What computes a result on a torch.device: Python, PyTorch and NumPy, the git revision of this
    folder, and the GPU or kind of CPU."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "git": _revision(),
        "processor": processor,
    }


def _revision():
    """The git revision of this folder, or "unknown"."""
    command = ["git", "-C", str(Path(__file__).parents[1])]
    command += ["describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
