"""The objective, the random streams, and the way of numbers to a device.

The objective is the Bayesian lower bound of BACON (Zhou et al. 2024, arXiv:2406.01112) and, beside
it, the plain mean matching of DM (Zhao & Bilen 2023) and IDM (Zhao et al. 2023). z and z~ are the
means of a class's real and synthetic embeddings, s is the standard deviation of the real ones;
lambda is 0.8:

    L = L_LH + lambda L_TV + (1 - lambda) L_CLIP
"""

import hashlib
import math

import numpy as np
import torch


def real_mean(embedding):
    """z: the mean of a class's real embeddings (n, D), (D,)."""
    return embedding.mean(0)


def real_deviation(embedding):
    """s: their unbiased standard deviation, (D,); n is at least 2."""
    return embedding.std(0)


# What may be kept of the real embeddings of a class for the terms of a loss, by the name that terms
# use.
REAL_SUMMARIES = {"z": real_mean, "s": real_deviation}


def summaries(embedding, sizes, names):
    """What is kept of every class's real embeddings: {name: (classes, ...)}.

    embedding: (sum(sizes), D), float32 or wider, the rows of a class together. sizes: images per
    class. names: of REAL_SUMMARIES.
    """
    of_class = embedding.split(sizes)
    return {name: torch.stack([REAL_SUMMARIES[name](part) for part in of_class]) for name in names}


def log_likelihood(z_syn, z, s):
    """L_LH: minus the log of a Gaussian around the real mean, summed over dimensions, (classes,).

    sum_d [(z~ - z)^2 / (2 sigma^2) + log(sqrt(2 pi) sigma)] with sigma = exp(s). In closed form
    nothing underflows, however far apart the means are; the released code takes the log of the
    density itself and reaches log 0.
    """
    squared = (z_syn - z).square() * torch.exp(-2 * s) / 2
    return (squared + s + 0.5 * math.log(2 * math.pi)).sum(1)


def total_variation(z_syn, z):
    """L_TV: half the absolute distance of the means, summed over dimensions, (classes,)."""
    return (z_syn - z).abs().sum(1) / 2


def clip_released(z_syn, z, s):
    """L_CLIP as published: 0, (classes,).

    The softmax of any embedding averages to 1/D, so both sides of that term are equal.
    """
    return torch.zeros_like(z_syn[:, 0])


def clip_residual(z_syn, z, s):
    """L_CLIP on standardised residuals r = (z~ - z)/s: sum_d (r - clamp(r, 0, 1))^2, (classes,).

    Dimensions without spread (s < 1e-6) contribute 0.
    """
    spread = s >= 1e-6
    r = torch.where(spread, (z_syn - z) / torch.where(spread, s, 1.0), 0.0)
    return (r - r.clamp(0, 1)).square().sum(1)


def mean_matching(z_syn, z):
    """The loss of DM and IDM: the squared distance of the means, summed, (classes,)."""
    return (z_syn - z).square().sum(1)


def spread(synthetic, s):
    """How far standard deviations of embeddings are apart, summed over dimensions, (classes,).

    sum_d |s~ - s| with s~ that of the synthetic embeddings (classes, n, D); n is at least 2. The
    likelihood takes s as known; this asks the synthetic images of a class to differ as much as its
    real ones.
    """
    return (synthetic.std(1) - s).abs().sum(1)


CLIP_PRIORS = {"released": clip_released, "residual": clip_residual}


def clip(z_syn, z, s, clip_prior):
    """L_CLIP as --clip_prior says, a key of CLIP_PRIORS, (classes,)."""
    return CLIP_PRIORS[clip_prior](z_syn, z, s)


def stream(seed, *name):
    """The generator of one named random stream, such as stream(seed, exp, "class", iteration, c).

    Its seed is a hash of the name, so a draw does not depend on which other draws were made before
    it: evaluating more often, resuming, or splitting classes over processes changes nothing.
    """
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def upload(array, device):
    """An array or tensor of the host as a tensor on `device`.

    A GPU fetches it from pinned memory: nobody waits.
    """
    tensor = torch.as_tensor(array)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
