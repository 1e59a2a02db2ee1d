"""Replay a small run of ours in the authors' own code, with the same random draws, and compare what
comes out.

    git clone https://github.com/zhouzhengqd/BACON
    python tests/replay_released.py BACON          a minute and a half on one CPU core

A checkout of https://github.com/uitrbn/IDM does as well. Their scripts' main() runs, changed in no
file (released.py): normalisation, initial canvases, pool, losses, updates, augmentation, decoding
and judges are theirs. What is random is fed from ours: image indices, DSA operations and their
numbers, networks picked, initial weights, the order of a judge's images. Both compute in float64,
where a difference that is not rounding shows. Images are made up: no dataset has to be there. Exits
with 0 if all agree, 1 if not, 2 without a checkout."""

import argparse
import collections
import contextlib
import copy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import released

import augment
from bacon import canvases, compute, flags, judge
from bacon.data import real_data, spaces
from bacon.distill import distiller as distill
from bacon.distill import pool
from bacon.recipes import DATASETS

# Script in a checkout: (method, dataset whose shape the images get, any of 10 classes will do).
# IDM_tiny.py is left out: its `if` is the other way round, so that with --aug canvases start from
# one whole image each.
SCRIPTS = {
    "Code/BACON_cifar10.py": ("BACON", "CIFAR10"),
    "Code/BACON_cifar100.py": ("BACON", "MNIST"),
    "Code/BACON_SVHN.py": ("BACON", "SVHN"),
    "Code/BACON_tiny.py": ("BACON", "FashionMNIST"),
    "IDM_cifar10.py": ("IDM", "CIFAR10"),
    "IDM_cifar100.py": ("IDM", "MNIST"),
}
# The published flags in small: two networks leave the pool, meters are reset twice, two judges
# train, on batches the last of which is not full, and at two rates.
COMMAND = [
    "--model=ConvNetW32",
    "--init=real",
    "--aug",
    "--syn_ce",
    "--net_decay",
    "--embed_last=1000",
    "--lr_img=0.2",
    "--ce_weight=0.5",
    "--ipc=2",
    "--batch_real=16",
    "--net_num=5",
    "--net_generate_interval=2",
    "--train_net_num=2",
    "--fetch_net_num=3",
    "--model_train_steps=3",
    "--trained_bs=32",
    "--Iteration=6",
    "--eval_interval=3",
    "--num_eval=1",
    "--epoch_eval_train=6",
    "--batch_train=64",
    "--num_exp=1",
]
BOUND = 1e-10  # the largest difference that passes for rounding in float64


def made_images(name, per_class=40):
    """A real_data.Dataset in the shape of `name`: a faint coarse pattern per class under noise."""
    spec, rng = DATASETS[name], np.random.default_rng(0)
    patterns = torch.from_numpy(rng.random((10, spec.channels, 4, 4), dtype="float32"))
    patterns = F.interpolate(patterns, spec.im_size, mode="bilinear")
    tensors = []
    for _ in ("train", "test"):
        labels = torch.from_numpy(rng.permutation(np.repeat(np.arange(10), per_class)))
        noise = torch.from_numpy(rng.random((len(labels), *patterns.shape[1:]), dtype="float32"))
        tensors += [(255 * (0.2 * patterns[labels] + 0.8 * noise)).to(torch.uint8), labels]
    return real_data.Dataset(
        name, [str(c) for c in range(10)], spec.mean, spec.std, *tensors, "", "made"
    )


@contextlib.contextmanager
def double_precision():
    """What either side calls float or float32 is float64."""
    wider = released.Instead(torch, float32=torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        with (
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
            mock.patch.object(real_data, "torch", wider),
            mock.patch.object(spaces, "torch", wider),
        ):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


class Shuffling(np.random.Generator):
    """The generator of judges: the orders of their images are remembered in `draws`."""

    def __init__(self, draws):
        super().__init__(np.random.PCG64(0))
        self.draws = draws

    def permutation(self, n):
        order = super().permutation(n)
        self.draws["orders of a judge's images"].append(order)
        return order


def run_ours(args, dataset, draws):
    """Our run, whose draws go into `draws`: (Distiller, canvases at the start, births of judges,
    their accuracies)."""

    def siamese(
        transform, *rest
    ):  # drawn once for a class: for its real images, and for its synthetic ones
        return [transform] * (2 if len(transform.u) == 1 else 1)

    def places(picked, pool, *rest):
        return [
            (
                [[p is member for member in pool.members].index(True) for p in picked],
                len(pool.members),
            )
        ]

    def weights(net, *rest):
        return [(net, copy.deepcopy(net.state_dict()))]

    with (
        draws.recorded(real_data.RealData, "indices", "images of a class"),
        draws.recorded(real_data.RealData, "any_indices", "images of all classes"),
        draws.recorded(augment, "draw", "augmentations", siamese),
        draws.recorded(pool.NetPool, "pick", "networks of the pool", places),
        draws.recorded(compute.Arithmetic, "build", "initial weights", weights),
    ):
        d = distill.begin(args, 0, dataset.real("train"), compute.Arithmetic("cpu"))
        start, judges, accuracies = d.all_canvases().clone(), [], []
        test, rng = dataset.real("test"), Shuffling(draws)
        protocol = judge.protocol_of_run(args, d.strategy)
        for it in range(args.Iteration + 1):
            if it and it % args.eval_interval == 0:
                judges.append(len(draws["initial weights"]))
                images = canvases.decode(d.all_canvases(), d.labels, d.factor)
                accuracies.append(
                    judge.judge(args.model, *images, test, 10, protocol, rng, d.arithmetic)
                )
            d.iterate(it)
    return d, start, judges, accuracies


def differences(d, start, judges, accuracies, made):
    """{what: largest absolute difference} of what `run_ours` and `released.run` made."""

    def largest(pairs):
        return float(np.max([(a - b).abs().max().item() for a, b in pairs]))  # NaN if one is

    def weights(births):
        networks = [[net.state_dict() for net in made.networks[n]] for n in births]
        return [(a[key], b[key]) for a, b in networks for key in a]

    of_canvases, *of_networks = [optimizer.state_dict()["state"] for optimizer in made.optimizers]
    momenta = []
    for member, b in zip(d.pool.members, of_networks[-len(d.pool.members) :], strict=True):
        a = member.optimizer.state_dict()["state"]
        momenta += [
            (a[key]["momentum_buffer"], b[key]["momentum_buffer"]) for key in a.keys() | b.keys()
        ]
    found = {
        "canvases at the start": largest([(start, made.start)]),
        "canvases at the end": largest([(d.all_canvases(), made.canvases)]),
        "half of their values": (d.all_canvases() - made.canvases).abs().median().item(),
        "labels": largest([(d.labels, made.labels)]),
        "momentum of the canvases": largest(
            [(d.optimizer.velocity.flatten(0, 1), of_canvases[0]["momentum_buffer"])]
        ),
        "networks of the pool": largest(weights(set(range(len(made.networks))) - set(judges))),
        "momentum of the networks": largest(momenta),
    }
    if judges:
        found["weights of the judges"] = largest(weights(judges))
        found["accuracy of the last"] = abs(accuracies[-1] - made.accuracy)
    return found


def replay(path, method, dataset_name, *more):
    """Of a run with the flags COMMAND and `more`: `differences`, and what it did, in lines."""
    words = [f"--dataset={dataset_name}", *COMMAND, *more]
    args = flags.parse_args(
        (dataset_name,), "", [*words, f"--method={method}", "--meter_reset=3"]
    ).args
    dataset, draws = made_images(dataset_name), released.Draws()
    d, start, _, accuracies = ours = run_ours(args, dataset, draws)
    ops = collections.Counter(
        (transform.op, len(transform.u) > 1) for transform in draws["augmentations"]
    )
    found = differences(*ours, released.run(path, words, args.model, dataset, draws))
    moved, evicted = (d.all_canvases() - start).abs().max(), d.pool.born - len(d.pool.members)
    shape = "x".join(map(str, d.real.images.shape[1:]))
    judged = ", ".join(f"{accuracy:.1%}" for accuracy in accuracies)
    augmented = ", ".join(f"{op} {ops[op, 0]}+{ops[op, 1]}" for op in d.strategy)
    did = [
        f"{method}, {shape}, {args.Iteration + 1} iterations; canvases moved by {moved:.2f}",
        f"{evicted} of {d.pool.born} networks left the pool; judges: {judged}",
        f"augmented, in distilling + judging: {augmented}",
    ]
    return found, did


def agrees(path, method, dataset_name):
    """Whether a script makes what ours makes; prints by how much not."""
    try:
        with double_precision():
            found, did = replay(path, method, dataset_name)
        single, _ = replay(path, method, dataset_name, "--Iteration=0")
    except released.Differs as error:
        print(f"  {error}")
        return False
    print(*(f"  {line}" for line in did), sep="\n")
    for what, value in found.items():
        print(f"  {what:26}{value:8.1e}")
    half, largest = single["half of their values"], single["canvases at the end"]
    within = f"half within {half:.1e}, all within {largest:.1e}"
    print(f"  in float32, canvases after one iteration: {within}")
    return all(value <= BOUND for value in found.values())


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="checkout of the authors' repository")
    folder = parser.parse_args(argv).folder
    found = [name for name in SCRIPTS if folder and (folder / name).is_file()]
    if not found:
        what = (
            f"{folder} holds none of the authors' scripts"
            if folder
            else "needs a checkout of the authors' code"
        )
        print(
            f"replay_released.py: {what}; git clone https://github.com/zhouzhengqd/BACON",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(1)
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    print(f"commit {commit}, PyTorch {torch.__version__}; largest differences in float64:")
    differ = []
    for name in found:
        print(name, flush=True)
        if not agrees((folder / name).resolve(), *SCRIPTS[name]):
            differ.append(name)
    print(f"differ: {', '.join(differ)}" if differ else f"agree: no difference above {BOUND:g}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
