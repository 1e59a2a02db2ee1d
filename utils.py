"""The objective, the random streams, and the way of numbers to a device.

The objective is the Bayesian lower bound of BACON (Zhou et al. 2024, arXiv:2406.01112) and, beside it, the plain mean
matching of DM (Zhao & Bilen 2023) and IDM (Zhao et al. 2023). z and z~ are the means of a class's real and synthetic
embeddings, s is the standard deviation of the real ones; lambda is 0.8:

    L = L_LH + lambda L_TV + (1 - lambda) L_CLIP
"""

import hashlib
import math

import numpy as np
import torch


def class_moments(embedding, sizes):
    """Mean z and unbiased standard deviation s of each class's real embeddings, both (classes, D), float32 or wider.
    embedding: (sum(sizes), D), the rows of a class together. sizes: images per class, each at least 2."""
    parts = embedding.split(sizes)
    return torch.stack([p.mean(0) for p in parts]), torch.stack([p.std(0) for p in parts])


def log_likelihood(z_syn, z, s):
    """L_LH: minus the log of a Gaussian around the real mean, summed over dimensions, (classes,).

    sum_d [(z~ - z)^2 / (2 sigma^2) + log(sqrt(2 pi) sigma)] with sigma = exp(s). In closed form nothing underflows,
    however far apart the means are; the released code takes the log of the density itself and reaches log 0.
    """
    squared = (z_syn - z).square() * torch.exp(-2 * s) / 2
    return (squared + s + 0.5 * math.log(2 * math.pi)).sum(1)


def total_variation(z_syn, z, s):
    """L_TV: half the absolute distance of the means, summed over dimensions, (classes,)."""
    return (z_syn - z).abs().sum(1) / 2


def clip_released(z_syn, z, s):
    """L_CLIP as published: 0. The softmax of any embedding averages to 1/D, so both sides of that term are equal."""
    return torch.zeros_like(z_syn[:, 0])


def clip_residual(z_syn, z, s):
    """L_CLIP on standardised residuals r = (z~ - z)/s: sum_d (r - clamp(r, 0, 1))^2, (classes,). Dimensions without
    spread (s < 1e-6) contribute 0."""
    spread = s >= 1e-6
    r = torch.where(spread, (z_syn - z) / torch.where(spread, s, 1.0), 0.0)
    return (r - r.clamp(0, 1)).square().sum(1)


def mean_matching(z_syn, z, s):
    """The squared distance of the means, summed over dimensions, (classes,): the loss of DM and IDM."""
    return (z_syn - z).square().sum(1)


CLIP_PRIORS = {"released": clip_released, "residual": clip_residual}


def objective_terms(method, lh_weight, tv_weight, clip_weight, clip_prior):
    """The terms of a method's loss as {name: (weight, function(z~, z, s) -> (classes,))}."""
    if method != "BACON":
        return {"match": (1.0, mean_matching)}
    return {
        "lh": (lh_weight, log_likelihood),
        "tv": (tv_weight, total_variation),
        "clip": (clip_weight, CLIP_PRIORS[clip_prior]),
    }


def stream(seed, *name):
    """The generator of one named random stream, such as stream(seed, exp, "class", iteration, c). Its seed is a hash of
    the name, so a draw does not depend on which other draws were made before it: evaluating more often, resuming, or
    splitting classes over processes changes nothing."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def upload(array, device):
    """An array or tensor of the host as a tensor on `device`. A GPU fetches it from pinned memory: nobody waits."""
    tensor, pinned = torch.as_tensor(array), torch.device(device).type == "cuda"
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)
