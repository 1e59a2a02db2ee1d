"""The spaces that images live in: pixels in [0,1], normalised by mean and std, whitened by ZCA.

And the planes of luma and half-size chroma that normalised images can be stored in, as video coding
does (4:2:0).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


def column(numbers, device="cpu"):
    """One number per channel as a float32 tensor (C,1,1), to broadcast over images (n,C,H,W)."""
    return torch.as_tensor(numbers, dtype=torch.float32, device=device).view(-1, 1, 1)


def normalise(pixels, mean, std):
    """Pixels (n,C,H,W) in [0,1] normalised by mean and std, C numbers each: float32."""
    return (pixels.float() - column(mean, pixels.device)) / column(std, pixels.device)


def denormalise(images, mean, std):
    """Normalised images (n,C,H,W) as pixels: in [0,1] but for what distilling pushed outside."""
    return images * column(std, images.device) + column(mean, images.device)


class Pixels(NamedTuple):
    """How a set's images may be stored.

    convert: function(images (n,C,H,W), mean, std) -> images as a judge takes them, normalised or
    whitened. space: that of these images, see SavedSet.zca. words: for messages.
    """

    convert: Callable
    space: str | None
    words: str


def _unchanged(images, mean, std):
    return images


def _from_unit(images, mean, std):
    # Those with other channels, which are refused later, stay as they are.
    if images.shape[1] != len(mean):
        return images
    return normalise(images.detach(), mean, std)


def _from_bytes(images, mean, std):
    if images.shape[1] != len(mean):
        return images
    return normalise(images.detach() / 255, mean, std)


PIXELS = {  # --pixels
    "normalised": Pixels(_unchanged, None, "normalised"),
    "unit": Pixels(_from_unit, None, "pixels in [0,1], normalised here"),
    "bytes": Pixels(_from_bytes, None, "pixels in [0,255], normalised here"),
    "zca": Pixels(_unchanged, "pixels", "pixels whitened by ZCA"),
}


def misread(images, pixels):
    """A warning, or "", where images are not what they are taken for.

    images: (n,C,H,W). pixels: None if they are taken as normalised, "zca" if as whitened; other
    keys of PIXELS are somebody's word.
    """
    if pixels not in (None, "zca"):
        return ""
    low = images.min().item()
    high = images.max().item()
    if low >= -1e-3 and high <= 1 + 1e-3:
        kind = "unit"
        space = "[0,1]"
    elif low >= 0 and 20 < high < 255.5:  # normalised images do not reach 20, and have negatives
        kind = "bytes"
        space = "[0,255]"
    else:
        return ""
    taken = "whitened" if pixels else "normalised"
    values = f"{low:.2f}..{high:.2f}"
    return f"its pixels are {values}, taken as {taken}; if they are in {space}, --pixels {kind}"


def to_planes(images):
    """Normalised RGB images (n,3,H,W) as luma and half-size chroma, (n,6,H/2,W/2).

    That is half the numbers. H and W are even. Colours are orthonormal: luma (R+G+B)/sqrt(3),
    chroma (R-B)/sqrt(2) and (R-2G+B)/sqrt(6). Planes 0 to 3 are the luma of every other pixel, 4
    and 5 twice the mean chroma of 2x2 pixels. `from_planes` keeps distances, and of all the images
    that it can give `from_planes(to_planes(x))` is the nearest to x."""
    r, g, b = images.unbind(1)
    luma = (r + g + b)[:, None] / 3**0.5
    chroma = torch.stack(((r - b) / 2**0.5, (r - 2 * g + b) / 6**0.5), 1)
    return torch.cat((F.pixel_unshuffle(luma, 2), 2 * F.avg_pool2d(chroma, 2)), 1)


def from_planes(planes):
    """Planes (n,6,H/2,W/2), see `to_planes`, as images (n,3,H,W)."""
    luma = F.pixel_shuffle(planes[:, :4], 2)[:, 0] / 3**0.5
    chroma = F.interpolate(planes[:, 4:] / 2, scale_factor=2, mode="nearest")
    c1 = chroma[:, 0] / 2**0.5
    c2 = chroma[:, 1] / 6**0.5
    return torch.stack((luma + c1 + c2, luma - 2 * c2, luma - c1 + c2), 1)


class Whitening:
    """ZCA whitening of normalised images (n,C,H,W), as in MTT, which takes it from kornia.

    With mean m and covariance U diag(S) U^T (over N-1) of the training images as vectors of
    D = C*H*W pixels, `apply` is (x - m) U diag((S + eps)^-1/2) U^T, and `invert` undoes it.
    """

    EPS = 0.1  # the field's

    def __init__(self, mean, forward, backward):
        """mean: (D,). forward, backward: (D, D), by which vectors are multiplied from the right."""
        self._mean = mean
        self._forward = forward
        self._backward = backward

    @classmethod
    def fit(cls, real, eps=EPS, chunk=1000):
        """From a `RealData` without whitening; `chunk` images at a time are held as floats.

        In float64: float32 moves CIFAR-10's pixels by up to 0.004. About five D x D matrices exist
        at the peak, of 75 MB each at 3x32x32.
        """
        home = real.images.device
        device = "cpu" if home.type == "mps" else home  # MPS has no float64
        d = real.images[0].numel()
        total = torch.zeros(d, dtype=torch.float64, device=device)
        products = torch.zeros((d, d), dtype=torch.float64, device=device)
        for start in range(0, len(real), chunk):
            x = real.take(slice(start, start + chunk)).flatten(1).to(device).double()
            total += x.sum(0)
            products.addmm_(x.T, x)
        mean = total / len(real)
        covariance = products.addr_(mean, mean, alpha=-len(real)).div_(len(real) - 1)
        s, u = torch.linalg.eigh(covariance)
        root = (s.clamp(min=0) + eps).sqrt()
        forward = (u / root) @ u.T
        backward = (u * root) @ u.T
        return cls(*[tensor.float().to(home) for tensor in (mean, forward, backward)])

    def apply(self, x):
        """Normalised images to whitened ones."""
        return self._multiply(x.flatten(1) - self._mean.to(x), self._forward).view_as(x)

    def invert(self, x):
        """Whitened images to normalised ones."""
        return (self._multiply(x.flatten(1), self._backward) + self._mean.to(x)).view_as(x)

    @staticmethod
    def _multiply(x, matrix):
        # Pixels stay float32 in half-precision runs.
        with torch.autocast(x.device.type, enabled=False):
            return x @ matrix.to(x)
