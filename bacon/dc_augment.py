"""The augmentation of Dataset Condensation's own code (Zhao et al. 2021), which is not DSA: a draw for each image.

Each image of a batch gets one operation of the strategy, uniformly. Arrays are (C,H,W) float32, normalised.
"""

import numpy as np
import torch

PAD, ZOOM, DEGREES, NOISE = 4, 0.2, 45, 0.001


def strategy(dataset, network):
    """The operations that DC's judge draws from, names in OPS: of MNIST, and for ConvNetBN on any dataset; else ()."""
    return {"ConvNetBN": ("crop", "noise")}.get(
        network, ("crop", "scale", "rotate") if dataset == "MNIST" else ()
    )


def _crop(image, mean, rng):
    """Cut a window at 0..7 along each axis out of the image in a border of the batch's channel means."""
    (top, left), (height, width) = rng.integers(2 * PAD, size=2), image.shape[1:]
    framed = np.tile(mean[:, None, None], (1, height + 2 * PAD, width + 2 * PAD))
    framed[:, PAD : PAD + height, PAD : PAD + width] = image
    return framed[:, top : top + height, left : left + width]


def _scale(image, mean, rng):
    """Resize each axis to int(U[0.8, 1.2) of the height), the nearest pixel, centred in zeros; cut at the centre."""
    height, width = image.shape[1:]
    h, w = (int(rng.uniform(1 - ZOOM, 1 + ZOOM) * height) for _ in range(2))
    side = max(h, w, height, width)
    framed, top, left = (
        np.zeros((len(image), side, side), image.dtype),
        (side - h) // 2,
        (side - w) // 2,
    )
    framed[:, top : top + h, left : left + w] = image[:, np.arange(h) * height // h][
        :, :, np.arange(w) * width // w
    ]
    return _centre(framed, height, width)


def _rotate(image, mean, rng):
    """Rotate by whole degrees in [-45, 45), splines of order 3, what enters is the mean of the channel means."""
    from scipy import ndimage

    angle = int(rng.integers(-DEGREES, DEGREES))
    return _centre(
        ndimage.rotate(image, angle, axes=(-2, -1), cval=float(mean.mean())), *image.shape[1:]
    )


def _noise(image, mean, rng):
    return image + np.float32(NOISE) * rng.standard_normal(image.shape, dtype=np.float32)


def _centre(image, height, width):
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


OPS = {"crop": _crop, "scale": _scale, "rotate": _rotate, "noise": _noise}


def apply(images, ops, rng):
    """A batch (n,C,H,W) augmented by `ops`, names in OPS. rng: a numpy.random.Generator, the only randomness."""
    if not ops:
        return images
    batch = images.cpu().numpy()
    mean = batch.mean((0, 2, 3))
    changed = [OPS[ops[rng.integers(len(ops))]](image, mean, rng) for image in batch]
    return torch.from_numpy(np.stack(changed)).to(images)
