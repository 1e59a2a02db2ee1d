"""Real images in place of a distilled set, for the same judges: what every method has to beat, and its bound."""

import numpy as np
import torch

import utils
from bacon.canvases import initial
from bacon.errors import UserError
from bacon.score.layouts import SavedSet


def _random(real, ipc, factor, seed):
    """Canvases of random real images, by the streams of a run with --Iteration 0: the same images."""
    streams = {c: utils.stream(seed, 0, "init", c) for c in range(len(real.counts))}
    return initial(real, ipc, "real", factor, streams).flatten(0, 1)


def _herding(real, ipc, factor, seed):
    """Herding (Welling 2009): images added one by one so that their mean stays nearest to the class's, in pixels."""
    chosen = []
    for c, count in enumerate(real.counts):
        indices = np.sort(real.indices(c, count, utils.stream(seed, 0, "coreset", c)))
        images = real.take(indices).flatten(1)
        mean, total, free = images.mean(0), torch.zeros(images.shape[1]), torch.zeros(len(images))
        for k in range(ipc):
            nearest = ((mean * (k + 1) - total - images).square().sum(1) + free).argmin()
            free[nearest] = np.inf
            total += images[nearest]
            chosen.append(indices[nearest])
    return real.take(np.array(chosen))


# name: (factor, (real, ipc, factor, seed) -> canvases (classes * ipc, ch, H, W), class by class; None: all images)
BASELINES = {
    "random": (1, _random),
    "random4": (2, _random),
    "herding": (1, _herding),
    "full": (1, None),
}


def baseline(kind, real, ipc, seed):
    """A sets.SavedSet of `ipc` stored images per class of `real`, a data.RealData on the host, or UserError."""
    factor, choose = BASELINES[kind]
    height, width = real.images.shape[2:]
    if factor == 2 and (height % 2 or width % 2):
        raise UserError(
            f"--baseline {kind}: needs an even height and width, the images have {height}x{width}"
        )
    if choose is None:
        return SavedSet("full", 0, "baseline", real.take(slice(None)), real.labels)
    if ipc > min(real.counts):
        raise UserError(
            f"--baseline {kind}: the smallest class has {min(real.counts)} training images, not {ipc}"
        )
    labels = torch.arange(len(real.counts)).repeat_interleave(ipc)
    return SavedSet(kind, 0, "baseline", choose(real, ipc, factor, seed), labels, factor)
