"""A synthetic set: how its canvases start, what they decode to, and how a saved one is read.

A canvas is a stored image. With multi-formation (factor 2) it holds four half-size images, which training sees at full
size; `decode` is the one place that knows.
"""

import numpy as np
import torch

import augment
import utils
from bacon.errors import UserError, damaged
from bacon.files import load_torch


def initial(real, ipc, init, factor, streams):
    """Canvases (classes, ipc, ch, H, W) float32: real images or standard normal noise.

    real: a data.RealData. With factor 2 every quadrant gets its own draw of ipc distinct real images. streams:
    {class: generator}.
    """
    shape = (ipc, *real.images.shape[1:])
    if init == "noise":
        noise = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in streams.values()])
        return utils.upload(noise, real.images.device)
    canvases = []
    for c, rng in streams.items():
        indices = np.concatenate([real.indices(c, ipc, rng) for _ in range(factor**2)])
        canvases.append(augment.tile(real.take(indices), factor))
    return torch.stack(canvases)


def decode(canvases, labels, factor):
    """Canvases (n,C,H,W) and their labels (n,) or (n,classes) to the images to train on and theirs, factor^2 as many.

    All top-left quadrants come first, then bottom-left, top-right, bottom-right: labels come in four rounds.
    """
    return augment.split(canvases, factor), torch.cat([labels] * factor**2)


def decode_by_class(canvases, factor):
    """Canvases (G, ipc, ch, H, W) to the images they hold, class by class: (G * factor^2 * ipc, ch, H, W)."""
    images = augment.split(canvases.flatten(0, 1), factor)
    return images.unflatten(0, (factor**2, *canvases.shape[:2])).transpose(0, 1).flatten(0, 2)


def is_result(saved):
    """Whether the content of a file is a result of these scripts."""
    meta = saved.get("meta") if isinstance(saved, dict) and saved.keys() >= {"data", "accs_all_exps"} else None
    return isinstance(meta, dict) and {"args", "factor", "zca"} <= meta.keys()


def read_result(path):
    """A result file as it was saved: {'data', 'accs_all_exps', 'meta'}. UserError if it is damaged or anything else."""
    saved = load_torch(path)
    if not is_result(saved):
        raise UserError(f"{path}: not a result of these scripts")
    return saved


def load_distilled(path, exp=0):
    """A saved synthetic set ready to train on: (images, labels, meta) of experiment `exp`.

    images: float32 (n,C,H,W), normalised as meta['mean'] and meta['std'] say, and decoded: four images per canvas if
    meta['factor'] is 2. labels: int64 (n,). meta: the dictionary that was saved with the set.
    Raises UserError, naming the file, if it is missing, damaged, of another program, or has no such experiment.
    """
    saved = read_result(path)
    with damaged(f"{path}: not a set in the layout that these scripts save"):
        sets, meta = saved["data"], saved["meta"]
        if not 0 <= exp < len(sets):
            raise UserError(f"{path}: has no experiment {exp}, only 0..{len(sets) - 1}")
        canvases, labels = sets[exp]
        if len(canvases) != len(labels):
            raise ValueError(f"{len(canvases)} canvases, {len(labels)} labels")
        return *decode(canvases.detach(), labels.to(torch.int64), {1: 1, 2: 2}[meta["factor"]]), meta
