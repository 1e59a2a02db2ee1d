"""What the judge of IDC's own code (Kim et al. 2022) does to a batch: a chain of operations, then
CutMix.

The operations and their strengths are those of DSA (augment.OPS). DSA draws one of them, IDC chains
them: flip, colour, one of crop, scale and rotate, then cutout. Which of the three is drawn for the
batch; the numbers of all operations are drawn for each image. Images are (n, C, H, W), normalised;
rng is a numpy.random.Generator, the only source of randomness.
"""

import dataclasses
import math

import torch

import augment
import utils

BEFORE = ("flip", "color")
ONE_OF = ("crop", "scale", "rotate")
AFTER = ("cutout",)

# IDC leaves MNIST and SVHN unflipped; Digits is no dataset of its.
UNFLIPPED = ("MNIST", "SVHN", "Digits")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a judge does to batches.

    strategy: names of operations in augment.OPS. cutmix: the probability of CutMix.
    """

    strategy: tuple
    cutmix: float = 0.5


def plan(dataset, factor=1, ipc=None):
    """The `Plan` for a set of `dataset` with factor^2 images on a canvas, `ipc` canvases per class.

    Where IDC has CutMix it leaves cutout out. It has no CutMix for MNIST with several images on a
    canvas, and none, but cutout, for SVHN with one image per class.
    """
    strategy = (*BEFORE, *ONE_OF)
    if dataset in UNFLIPPED:
        strategy = ("color", *ONE_OF)
    if dataset == "MNIST" and factor > 1:
        return Plan(strategy, cutmix=0.0)
    if dataset == "SVHN" and factor == 1 and ipc == 1:
        return Plan((*strategy, *AFTER), cutmix=0.0)
    return Plan(strategy)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Operations in the order in which they are applied, and their numbers.

    u: (len(ops), n, 3) float32 in [0, 1), on the host.
    """

    ops: tuple
    u: torch.Tensor


def draw(strategy, n, rng):
    """A `Chain` for n images of the operations in `strategy`, whatever their order there."""
    ops = [op for op in BEFORE if op in strategy]
    moving = [op for op in ONE_OF if op in strategy]
    if moving:
        ops.append(moving[rng.integers(len(moving))])
    ops += [op for op in AFTER if op in strategy]
    u = rng.random((len(ops), n, 3), dtype="float32")
    return Chain(tuple(ops), torch.from_numpy(u))


def apply(images, strategy, rng):
    """A batch after the operations of a fresh `draw`."""
    chain = draw(strategy, len(images), rng)
    if not chain.ops:
        return images
    numbers = utils.upload(chain.u, images.device)
    for op, u in zip(chain.ops, numbers, strict=True):
        images = augment.OPS[op](images, u)
    return images


def draw_box(height, width, rng):
    """CutMix's box, one for the batch: (rows, columns), a slice each.

    It is to cover 1 - b of the image, b from Beta(1, 1). Its sides are rounded down to an even
    number of pixels; its centre is any pixel; what reaches over the border is cut off.
    """
    side = math.sqrt(1 - rng.beta(1.0, 1.0))
    rows = _span(height, side, rng)
    columns = _span(width, side, rng)
    return rows, columns


def _span(size, side, rng):
    half = int(size * side) // 2
    centre = int(rng.integers(size))
    return slice(max(0, centre - half), min(size, centre + half))


def cutmix(images, targets, p, rng):
    """With probability p a box of each image is replaced by another image's of the batch.

    targets: (n, classes), probabilities, mixed by the area of the box, see `draw_box`. Nothing is
    changed in place.
    """
    if rng.random() >= p:
        return images, targets
    height, width = images.shape[2:]
    rows, columns = draw_box(height, width, rng)
    other = utils.upload(rng.permutation(len(images)), images.device)
    return augment.paste(images, targets, rows, columns, other)
