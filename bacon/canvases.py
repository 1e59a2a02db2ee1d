"""A synthetic set: how its canvases start, what they decode to, and how a saved one is read.

A canvas is a stored image. With multi-formation (factor 2) it holds four half-size images, which
training sees at full size. With --chroma half its colours are stored at half resolution, see
spaces.to_planes, in half the numbers, so that twice as many canvases have the storage of --ipc.
`colours` and `decode` are the places that know.

Importing it needs torch and this package alone, so that `load_distilled` also works within another
project, whose own utils.py, networks.py and augment.py would be found in place of ours.
"""

import torch

from bacon import entries
from bacon.data.spaces import from_planes, to_planes
from bacon.errors import DamagedError, UserError, damaged
from bacon.files import load_torch
from bacon.formation import split, tile


def initial(real, count, init, factor, streams, chroma="full", chosen=None):
    """Stored canvases (classes, count, ...) float32 to start from: real images or normal noise.

    real: a RealData. init: noise, or anything else for real images. factor: with 2 every quadrant
    gets its own draw of `count` distinct images. streams: {class: generator}. chosen:
    {class: indices (factor^2 count,)} of the real images, in place of a draw.
    """
    import numpy as np

    if init == "noise":
        return _noise(real, count, streams, chroma)
    canvases = []
    for c, rng in streams.items():
        if chosen:
            indices = chosen[c]
        else:
            indices = np.concatenate([real.indices(c, count, rng) for _ in range(factor**2)])
        images = tile(real.take(indices), factor)
        canvases.append(images if chroma == "full" else to_planes(images))
    return torch.stack(canvases)


def _noise(real, count, streams, chroma):
    """Canvases of standard normal noise."""
    import numpy as np

    channels, height, width = real.images.shape[1:]
    if chroma == "full":
        shape = (count, channels, height, width)
    else:
        shape = (count, 6, height // 2, width // 2)
    noise = [rng.standard_normal(shape, dtype=np.float32) for rng in streams.values()]
    return torch.from_numpy(np.stack(noise)).to(real.images.device)


def colours(canvases, chroma):
    """Canvases as they are stored (n, ...) to canvases as images, (n,C,H,W)."""
    return canvases if chroma == "full" else from_planes(canvases)


def decode(canvases, labels, factor, chroma="full"):
    """Stored canvases (n,...) and their labels to the images to train on and theirs.

    There are factor^2 as many. All top-left quadrants come first, then bottom-left, top-right,
    bottom-right: labels come in four rounds. labels: (n,) or (n,classes).
    """
    return split(colours(canvases, chroma), factor), torch.cat([labels] * factor**2)


def decode_by_class(canvases, factor, chroma="full"):
    """Stored canvases (G, n, ...) to the images they hold, class by class.

    Images: (G * factor^2 * n, ch, H, W).
    """
    images = split(colours(canvases.flatten(0, 1), chroma), factor)
    return images.unflatten(0, (factor**2, *canvases.shape[:2])).transpose(0, 1).flatten(0, 2)


def is_result(saved):
    """Whether the content of a file is a result of these scripts."""
    if not isinstance(saved, dict) or not saved.keys() >= {"data", "accs_all_exps", "meta"}:
        return False
    meta = saved["meta"]
    return isinstance(meta, dict) and {"args", "factor", "zca"} <= meta.keys()


# What the meta of a result has at least, and what that of an early one lacks.
_OF_META = {"args": entries.DICTIONARY}
_OF_LATER_META = {"experiments": entries.list_of(entries.whole(0), "whole numbers")}


def read_result(path):
    """A result file as it was saved: {'data', 'accs_all_exps', 'meta'}.

    UserError if it is damaged or anything else.
    """
    saved = load_torch(path)
    if not is_result(saved):
        raise UserError(f"{path}: not a result of these scripts")
    fault = entries.fault(saved["meta"], _OF_META, _OF_LATER_META)
    if fault:
        raise DamagedError(f"{path}: damaged result (its meta: {fault})")
    return saved


def load_distilled(path, exp=0):
    """A saved synthetic set ready to train on: (images, labels, meta) of experiment `exp`.

    images: float32 (n,C,H,W), normalised as meta['mean'] and meta['std'] say, and decoded: RGB
    whatever meta['chroma'] is, and four images per canvas if meta['factor'] is 2. labels: int64
    (n,). meta: as it was saved with the set. UserError, naming the file, if it is missing, damaged,
    of another program, or has no such experiment.
    """
    saved = read_result(path)
    with damaged(f"{path}: not a set in the layout that these scripts save"):
        sets = saved["data"]
        meta = saved["meta"]
        if not 0 <= exp < len(sets):
            raise UserError(f"{path}: has no experiment {exp}, only 0..{len(sets) - 1}")
        canvases, labels = sets[exp]
        if len(canvases) != len(labels):
            raise ValueError(f"{len(canvases)} canvases, {len(labels)} labels")
        factor = {1: 1, 2: 2}[meta["factor"]]
        chroma = meta.get("chroma", "full")
        images, labels = decode(canvases.detach(), labels.to(torch.int64), factor, chroma)
        return images, labels, meta
