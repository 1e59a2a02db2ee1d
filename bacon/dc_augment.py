"""The augmentation of Dataset Condensation's own code (Zhao et al. 2021), which is not DSA.

Each image of a batch gets one operation of the strategy, uniformly, and its own draw of it. Arrays
are (C,H,W) float32, normalised.
"""

import numpy as np
import torch

PAD = 4  # pixels around an image that is cropped
ZOOM = 0.2  # at most, bigger or smaller
DEGREES = 45  # at most
NOISE = 0.001  # standard deviation


def strategy(dataset, network):
    """The operations that DC's judge draws from, names in OPS; () for no augmentation.

    They are of MNIST, and of ConvNetBN on any dataset.
    """
    if network == "ConvNetBN":
        return ("crop", "noise")
    return ("crop", "scale", "rotate") if dataset == "MNIST" else ()


def _crop(image, mean, rng):
    """Cut a window at 0..7 along each axis out of the image in a border of the batch's means.

    mean: (C,).
    """
    top, left = rng.integers(2 * PAD, size=2)
    height, width = image.shape[1:]
    framed = np.tile(mean[:, None, None], (1, height + 2 * PAD, width + 2 * PAD))
    framed[:, PAD : PAD + height, PAD : PAD + width] = image
    return framed[:, top : top + height, left : left + width]


def _scale(image, mean, rng):
    """Resize each axis to int(U[0.8, 1.2) of the height), centred in zeros; cut at the centre.

    A pixel of the new image is the nearest of the old one.
    """
    height, width = image.shape[1:]
    h = int(rng.uniform(1 - ZOOM, 1 + ZOOM) * height)
    w = int(rng.uniform(1 - ZOOM, 1 + ZOOM) * height)
    rows = np.arange(h) * height // h
    columns = np.arange(w) * width // w
    side = max(h, w, height, width)
    top = (side - h) // 2
    left = (side - w) // 2
    framed = np.zeros((len(image), side, side), image.dtype)
    framed[:, top : top + h, left : left + w] = image[:, rows][:, :, columns]
    return _centre(framed, height, width)


def _rotate(image, mean, rng):
    """Rotate by whole degrees in [-45, 45), by splines of order 3.

    What enters is the mean of the channel means.
    """
    from scipy import ndimage

    angle = int(rng.integers(-DEGREES, DEGREES))
    rotated = ndimage.rotate(image, angle, axes=(-2, -1), cval=float(mean.mean()))
    return _centre(rotated, *image.shape[1:])


def _noise(image, mean, rng):
    return image + np.float32(NOISE) * rng.standard_normal(image.shape, dtype=np.float32)


def _centre(image, height, width):
    top = (image.shape[1] - height) // 2
    left = (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


OPS = {"crop": _crop, "scale": _scale, "rotate": _rotate, "noise": _noise}


def apply(images, ops, rng):
    """A batch (n,C,H,W) augmented by `ops`, names in OPS.

    rng: a numpy.random.Generator, the only source of randomness.
    """
    if not ops:
        return images
    batch = images.cpu().numpy()
    mean = batch.mean((0, 2, 3))
    changed = [OPS[ops[rng.integers(len(ops))]](image, mean, rng) for image in batch]
    return torch.from_numpy(np.stack(changed)).to(images)
