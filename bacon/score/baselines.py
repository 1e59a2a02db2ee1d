"""Real images in place of a distilled set, for the same judges: what every method has to beat, and
its bound; and the file that keeps their accuracies."""

import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

import utils
from bacon import outputs
from bacon.canvases import initial
from bacon.errors import UserError
from bacon.score.sets import SavedSet


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Which real images stand for a set.

    choose: function(real, ipc, factor, seed) -> canvases (classes * ipc, C, H, W), class by class;
    None: all images. factor: 2 if it puts four on a canvas.
    """

    choose: Callable | None
    factor: int = 1


def _random(real, ipc, factor, seed):
    """Canvases of random real images, by the streams of a run with --Iteration 0: the same
    images."""
    streams = {c: utils.stream(seed, 0, "init", c) for c in range(len(real.counts))}
    return initial(real, ipc, "real", factor, streams).flatten(0, 1)


def _herding(real, ipc, factor, seed):
    """Herding (Welling 2009): images added one by one so that their mean stays nearest to the
    class's, in pixels."""
    chosen = []
    for c, count in enumerate(real.counts):
        indices = np.sort(real.indices(c, count, utils.stream(seed, 0, "coreset", c)))
        images = real.take(indices).flatten(1)
        mean = images.mean(0)
        total = torch.zeros(images.shape[1])  # of the images chosen so far
        taken = torch.zeros(len(images))  # infinite of these
        for k in range(ipc):
            distance = (mean * (k + 1) - total - images).square().sum(1)
            nearest = (distance + taken).argmin()
            taken[nearest] = np.inf
            total += images[nearest]
            chosen.append(indices[nearest])
    return real.take(np.array(chosen))


BASELINES = {
    "random": Baseline(_random),
    "random4": Baseline(_random, factor=2),
    "herding": Baseline(_herding),
    "full": Baseline(None),
}


def baseline(kind, real, ipc, seed):
    """A SavedSet of `ipc` stored images per class of `real`, a real_data.RealData on the host, or
    UserError. kind: a key of BASELINES."""
    factor = BASELINES[kind].factor
    choose = BASELINES[kind].choose
    height, width = real.images.shape[2:]
    refused = f"--baseline {kind}"
    if factor == 2 and (height % 2 or width % 2):
        size = f"{height}x{width}"
        raise UserError(f"{refused}: needs an even height and width, the images have {size}")
    if choose is None:
        canvases = real.take(slice(None))
        labels = real.labels
    else:
        fewest = min(real.counts)
        if ipc > fewest:
            text = f"the smallest class has {fewest} training images, not {ipc}"
            raise UserError(f"{refused}: {text}")
        canvases = choose(real, ipc, factor, seed)
        labels = torch.arange(len(real.counts)).repeat_interleave(ipc)
    return SavedSet("", 0, "baseline", canvases, labels, factor, baseline=kind)


@dataclasses.dataclass(frozen=True)
class Kept:
    """Accuracies of fresh networks, and the seconds that those kept under the same key took."""

    accuracies: list
    seconds: float


class Cache:
    """Accuracies of real images, kept in the file `path` so that each is computed once.

    The file is JSON: {key: [[accuracy], seconds]}.
    """

    def __init__(self, folder):
        self.path = Path(os.path.expanduser(folder)) / "baselines.json"
        self._known = self._read()

    def _read(self):
        """What the file holds, {} if there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.path.stat().st_size == 0:
                return {}
            if not outputs.is_cache(self.path):
                advice = "give another folder by --save_path"
                raise UserError(f"{self.path}: is no cache of baselines; {advice}")
            return json.loads(self.path.read_text(encoding="utf-8"))
        return {}

    def get(self, key, networks):
        """The accuracies of so many networks as `Kept`; None if there are fewer."""
        if key not in self._known:
            return None
        accuracies, seconds = self._known[key]
        if len(accuracies) < networks:
            return None
        return Kept(accuracies[:networks], seconds)

    def put(self, key, accuracies, seconds):
        """Keep them; returns in a few words whether that could be written."""
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._known = self._known | self._read()  # another process may have kept its own since
            self._known[key] = (accuracies, seconds)
            temporary.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
            os.replace(temporary, self.path)
        except (OSError, UserError) as error:
            self._known[key] = (accuracies, seconds)
            return f"not kept in {self.path} ({getattr(error, 'strerror', None) or error})"
        return f"kept in {self.path}"
