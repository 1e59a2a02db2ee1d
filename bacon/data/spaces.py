"""The spaces that images live in: pixels in [0,1], normalised by the dataset's mean and std, whitened by ZCA.

And the planes of luma and half-size chroma that normalised images can be stored in, as video coding does (4:2:0).
"""

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


def _unless_refused(convert):
    """`convert`, but images with other channels, which are refused later, stay as they are."""
    return lambda x, mean, std: convert(x.detach(), mean, std) if x.shape[1] == len(mean) else x


# How a set's images may be stored: (images, mean, std) -> normalised or whitened; SavedSet.zca; in words.
PIXELS = {
    "normalised": (lambda x, mean, std: x, None, "normalised"),
    "unit": (_unless_refused(normalise), None, "pixels in [0,1], normalised here"),
    "bytes": (
        _unless_refused(lambda x, *to: normalise(x / 255, *to)),
        None,
        "pixels in [0,255], normalised here",
    ),
    "zca": (lambda x, mean, std: x, "pixels", "pixels whitened by ZCA"),
}


def misread(images, pixels):
    """A warning, or "", where images taken as normalised (pixels None) or whitened ("zca") are not."""
    if pixels not in (None, "zca"):
        return ""
    low, high = (value.item() for value in images.aminmax())
    if low >= -1e-3 and high <= 1 + 1e-3:
        kind, space = "unit", "[0,1]"
    elif low >= 0 and 20 < high < 255.5:  # normalised images do not reach 20, and have negatives
        kind, space = "bytes", "[0,255]"
    else:
        return ""
    taken = "whitened" if pixels else "normalised"
    values = f"{low:.2f}..{high:.2f}"
    return f"its pixels are {values}, taken as {taken}; if they are in {space}, --pixels {kind}"


def to_planes(images):
    """Normalised RGB images (n,3,H,W), H and W even, as luma and half-size chroma: (n,6,H/2,W/2), half the numbers.

    Orthonormal colours: luma (R+G+B)/sqrt(3), chroma (R-B)/sqrt(2) and (R-2G+B)/sqrt(6). Planes 0 to 3 are the luma of
    every other pixel, 4 and 5 twice the mean chroma of 2x2 pixels. `from_planes` keeps distances, and of all its images
    `from_planes(to_planes(x))` is the nearest to x.
    """
    r, g, b = images.unbind(1)
    luma = (r + g + b)[:, None] / 3**0.5
    chroma = torch.stack(((r - b) / 2**0.5, (r - 2 * g + b) / 6**0.5), 1)
    return torch.cat((F.pixel_unshuffle(luma, 2), 2 * F.avg_pool2d(chroma, 2)), 1)


def from_planes(planes):
    """Planes (n,6,H/2,W/2), see `to_planes`, as images (n,3,H,W)."""
    luma = F.pixel_shuffle(planes[:, :4], 2)[:, 0] / 3**0.5
    chroma = F.interpolate(planes[:, 4:] / 2, scale_factor=2, mode="nearest")
    c1, c2 = chroma[:, 0] / 2**0.5, chroma[:, 1] / 6**0.5
    return torch.stack((luma + c1 + c2, luma - 2 * c2, luma - c1 + c2), 1)


class Whitening:
    """ZCA whitening of normalised images (n,C,H,W), as in MTT, which takes it from kornia.

    With mean m and covariance U diag(S) U^T (over N-1) of the training images as vectors of D = C*H*W pixels, `apply`
    is (x - m) U diag((S + eps)^-1/2) U^T, and `invert` undoes it.
    """

    EPS = 0.1  # the field's

    def __init__(self, mean, forward, backward):
        self._mean, self._forward, self._backward = mean, forward, backward

    @classmethod
    def fit(cls, real, eps=EPS, chunk=1000):
        """From a `RealData` without whitening; `chunk` images at a time are held as floats. In float64: float32 moves
        CIFAR-10's pixels by up to 0.004. About five D x D matrices exist at the peak, of 75 MB each at 3x32x32."""
        device = (
            real.images.device if real.images.device.type != "mps" else "cpu"
        )  # MPS has no float64
        d = real.images[0].numel()
        total, products = (
            torch.zeros(shape, dtype=torch.float64, device=device) for shape in (d, (d, d))
        )
        for start in range(0, len(real), chunk):
            x = real.take(slice(start, start + chunk)).flatten(1).to(device).double()
            total += x.sum(0)
            products.addmm_(x.T, x)
        mean = total / len(real)
        s, u = torch.linalg.eigh(products.addr_(mean, mean, alpha=-len(real)).div_(len(real) - 1))
        root = (s.clamp(min=0) + eps).sqrt()
        return cls(
            *(v.float().to(real.images.device) for v in (mean, (u / root) @ u.T, (u * root) @ u.T))
        )

    def apply(self, x):
        return self._multiply(x.flatten(1) - self._mean.to(x), self._forward).view_as(x)

    def invert(self, x):
        return (self._multiply(x.flatten(1), self._backward) + self._mean.to(x)).view_as(x)

    @staticmethod
    def _multiply(x, matrix):
        with torch.autocast(
            x.device.type, enabled=False
        ):  # pixels stay float32 in half-precision runs
            return x @ matrix.to(x)
