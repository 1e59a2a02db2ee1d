"""Differentiable Siamese augmentation (DSA: Zhao and Bilen, ICML 2021).

And, from bacon.formation, `split` and `tile`: the four-images-on-a-canvas layout called
multi-formation (IDM: Zhao et al., CVPR 2023).

Augmenting is draw, then apply. `draw` picks an op and its uniform numbers u on the host, from the
caller's generator; `dsa` applies them to any batch. Siamese means that one row of u serves a whole
batch, and the same Transform the real and the synthetic one. Images are (N, C, H, W), float32 or
float64, normalised; an op is differentiable with respect to them and never makes the host wait for
the device. On CUDA the gradients of scale, rotate and split are sums by atomics, so their last bits
vary from run to run; those of the other ops do not.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

import utils
from bacon.formation import split, tile  # noqa: F401 (for the scripts, which have both from here)


def _columns(images, u):
    """u (n, 3) as three tensors (n, 1, 1, 1) of the images' dtype, to broadcast over images."""
    return u.to(images.dtype).view(-1, 3, 1, 1, 1).unbind(1)


def _pixels(images):
    """Row numbers (H, 1) and column numbers (W,) of the images' pixels, in the images' dtype."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device, dtype=images.dtype)
    x = torch.arange(width, device=images.device, dtype=images.dtype)
    return y[:, None], x


def color(images, u):
    """Brightness, then saturation (around the pixel's grey), then contrast (around the mean)."""
    brightness, saturation, contrast = _columns(images, u)
    images = images + (brightness - 0.5)
    images = torch.lerp(images.mean(1, keepdim=True), images, 2 * saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast + 0.5)


def crop(images, u):
    """Translate by whole pixels, up to k = floor(size/8 + 0.5) along each axis.

    Zeros enter at the border.
    """
    y, x = _pixels(images)
    u_y, u_x, _ = _columns(images, u)
    k_y, k_x = [int(size / 8 + 0.5) for size in images.shape[2:]]
    padded = F.pad(images, (k_x, k_x, k_y, k_y))
    rows = (y + (u_y * (2 * k_y + 1)).floor()).long()
    columns = (x + (u_x * (2 * k_x + 1)).floor()).long()
    # No pixel is read twice, so the gradient's scatter has one summand per pixel: deterministic on
    # CUDA too.
    index = (rows * padded.shape[3] + columns).flatten(2)
    return padded.flatten(2).gather(2, index.expand(*images.shape[:2], -1)).view(images.shape)


def cutout(images, u):
    """Zero a square of half the side, c = floor(size/2 + 0.5) along each axis.

    It is centred anywhere and cut at the border.
    """
    height, width = images.shape[2:]
    y, x = _pixels(images)
    u_y, u_x, _ = _columns(images, u)
    return images.masked_fill(_inside(y, height, u_y) & _inside(x, width, u_x), 0)


def _inside(pixel, size, u):
    """Which pixels of an axis of `size` are in cutout's square."""
    c = int(size / 2 + 0.5)
    start = (u * (size + 1 - c % 2)).floor() - c // 2
    return (pixel >= start) & (pixel < start + c)


def flip(images, u):
    """Mirror left and right with probability 1/2."""
    return torch.where(_columns(images, u)[0] < 0.5, images.flip(3), images)


def scale(images, u):
    """Resize around the centre.

    The sampling grid is stretched by a factor in [1/1.2, 1.2) along each axis.
    """
    s_x, s_y, _ = [1 / 1.2 + column * (1.2 - 1 / 1.2) for column in _columns(images, u)]
    return _warp(images, ((s_x, 0), (0, s_y)))


def rotate(images, u):
    """Rotate around the centre by an angle in [-15, 15) degrees."""
    angle = (_columns(images, u)[0] - 0.5) * math.radians(30)
    cos = angle.cos()
    sin = angle.sin()
    return _warp(images, ((cos, -sin), (sin, cos)))


def _warp(images, matrix):
    """Bilinear samples at matrix @ (x, y), where the image spans [-1, 1]; zeros outside.

    The grid is that of F.affine_grid(align_corners=False), written out: affine_grid multiplies
    matrices, which autocast turns into bfloat16 (a tenth of a pixel at 64x64), and takes twice as
    long on a CPU.
    """
    height, width = images.shape[2:]
    y, x = _pixels(images)
    y = (2 * y + 1) / height - 1
    x = (2 * x + 1) / width - 1
    (a, b), (c, d) = matrix
    grid = torch.stack((a * x + b * y, c * x + d * y), dim=-1).squeeze(1)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)


# Each op takes images (N, C, H, W) and u (N, 3), uniform in [0, 1); (1, 3) for one draw shared by
# the batch.
OPS = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


class Transform(NamedTuple):
    """One drawn augmentation.

    op: a name in OPS, None for the identity. u: its numbers, (n, 3) float32, on the host.
    """

    op: str | None
    u: torch.Tensor


def parse_strategy(text):
    """'color_crop_flip' -> ('color', 'crop', 'flip'); 'none' and '' -> ().

    ValueError for an op not in OPS.
    """
    ops = () if text in ("", "none", "None") else tuple(text.split("_"))
    for op in ops:
        if op not in OPS:
            allowed = f"none or {', '.join(OPS)}, joined by _"
            raise ValueError(f"unknown DSA op {op!r} in {text!r}; allowed: {allowed}")
    return ops


def draw(strategy, n, rng):
    """One op of the strategy, uniformly, and n rows of numbers: n=1 is the Siamese draw.

    strategy: a tuple of names; an empty one draws the identity. rng: a numpy.random.Generator, the
    only source of randomness.
    """
    if not strategy:
        return Transform(None, torch.zeros(n, 3))
    op = strategy[rng.integers(len(strategy))]
    return Transform(op, torch.from_numpy(rng.random((n, 3), dtype="float32")))


def dsa(images, transform):
    """Apply a Transform with one row, or one row per image, to images (N, C, H, W)."""
    if transform.op is None:
        return images
    return OPS[transform.op](images, utils.upload(transform.u, images.device))


def dsa_per_class(images, transforms, sizes):
    """Apply transforms[g] (one row each) to class g, the next sizes[g] images.

    The result is that of `dsa` class by class, by one call per distinct op. ValueError or
    RuntimeError if the lengths do not fit together.
    """
    drawn = utils.upload(torch.cat([transform.u for transform in transforms]), images.device)
    rows = [u.expand(size, 3) for u, size in zip(drawn.split(1), sizes, strict=True)]
    parts = list(images.split(sizes))
    classes_of = {}  # op: classes
    for g, transform in enumerate(transforms):
        classes_of.setdefault(transform.op, []).append(g)
    if len(classes_of) == 1:
        (op,) = classes_of
        return images if op is None else OPS[op](images, torch.cat(rows))
    for op, classes in classes_of.items():
        if op is None:
            continue
        batch = torch.cat([parts[g] for g in classes])
        u = torch.cat([rows[g] for g in classes])
        changed = OPS[op](batch, u).split([sizes[g] for g in classes])
        for g, part in zip(classes, changed, strict=True):
            parts[g] = part
    return torch.cat(parts)


def cutmix(images, targets, p, rng):
    """CutMix (Yun et al. 2019): a box of each image is replaced by that of another of the batch.

    p: the probability that this happens. targets: (n, classes), probabilities, mixed by area. The
    box covers a share U[0, 1) of the image and is cut at the border; it is one for the batch, as in
    the published code. rng: a numpy.random.Generator.
    """
    if rng.random() >= p:
        return images, targets
    height, width = images.shape[2:]
    side = math.sqrt(rng.random())
    centre = rng.random(2)
    rows = _span(centre[0], side, height)
    columns = _span(centre[1], side, width)
    other = utils.upload(rng.permutation(len(images)), images.device)
    return paste(images, targets, rows, columns, other)


def _span(centre, side, size):
    """The pixels of an axis that a box covers. size: pixels; centre, side: shares of the axis."""
    first = min(1, max(0, centre - side / 2))
    last = min(1, max(0, centre + side / 2))
    return slice(round(first * size), round(last * size))


def paste(images, targets, rows, columns, other):
    """The exchange of CutMix: the box (rows, columns) of image i is replaced by that of other[i].

    rows, columns: slices. targets: (n, classes), probabilities; image other[i] counts in target i
    by the area of the box. other: int64 (n,), on the images' device. Nothing is changed in place.
    """
    height, width = images.shape[2:]
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[other, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, torch.lerp(targets, targets[other], area / (height * width))
