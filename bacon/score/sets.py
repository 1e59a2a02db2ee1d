"""A saved synthetic set as it is judged, drawn and exported, and what it must fit."""

import dataclasses
from collections.abc import Callable

import torch

from bacon.canvases import decode
from bacon.data.spaces import denormalise


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What a set must fit: the images' shape (C,H,W), the number of classes, mean and std of
    pixels in [0,1].

    names: () -> the classes' names. It is called only where they are needed, because it may load
    the real images.
    """

    dataset: str
    shape: tuple
    num_classes: int
    mean: tuple
    std: tuple
    names: Callable

    @classmethod
    def of(cls, name, spec, names):
        """spec: a recipes.Spec or a loading.Dataset."""
        shape = (spec.channels, *spec.im_size)
        return cls(name, shape, spec.num_classes, tuple(spec.mean), tuple(spec.std), names)


@dataclasses.dataclass(frozen=True, eq=False)
class SavedSet:
    """One synthetic set, or real images in the place of one.

    path: of its file or folder, "" of real images. baseline: which real images, a key of
    baselines.BASELINES, "" of a set. exp: the number of the experiment in its file.
    layout: what its file looks like, in words. assumed: what the file does not say, in words.
    canvases: float32 (n,C,H,W), normalised or whitened. labels: int64 (n,) or logits (n,classes).
    factor: 2 if a canvas holds four images. canvases_per_image: how many canvases take up the
    storage of one image: 2 where their chroma has half the resolution, else 1.
    whitened_from: the images that the whitening was fitted on, "normalised" ones (these scripts) or
    "pixels" in [0,1] (MTT). None: it is not whitened.
    lr: the judges' rate that the set was learnt with, or None. soft: what soft labels were taken
    for, of soft_labels.KINDS, "" of hard ones.
    meta: the dictionary of these scripts, else empty. recorded: {architecture: [accuracy]} that the
    file has of this experiment.
    is_snapshot: the other sets of its file are earlier or later states of it, no experiments.
    facts: those that it was found to fit. notes: warnings, a line each. name: how a table calls it
    beside others, "" for the end of its path.
    """

    path: str
    exp: int
    layout: str
    canvases: torch.Tensor
    labels: torch.Tensor
    factor: int = 1
    whitened_from: str | None = None
    lr: float | None = None
    meta: dict = dataclasses.field(default_factory=dict)
    recorded: dict = dataclasses.field(default_factory=dict)
    assumed: str = ""
    is_snapshot: bool = False
    facts: Facts | None = None
    canvases_per_image: int = 1
    soft: str = ""
    notes: tuple = ()
    name: str = ""
    baseline: str = ""

    @property
    def title(self):
        """What messages call it."""
        return self.baseline or self.path

    @property
    def held_out(self):
        """Training images per class that its run held out and was judged on, --validate."""
        return self.meta["args"].get("validate", 0) if self.meta else 0

    def stored_per_class(self, num_classes):
        """Images per class that its canvases take up the storage of."""
        return max(1, len(self.canvases) // self.canvases_per_image // num_classes)

    def decoded(self):
        """The images to train on, (factor^2 n, C, H, W), and their labels, in the order of
        `canvases.decode`."""
        return decode(self.canvases, self.labels, self.factor)

    def hard(self):
        """The same set with hard labels: of soft ones, the likeliest class."""
        if self.labels.dim() == 1:
            return self
        return dataclasses.replace(self, labels=self.labels.argmax(1))

    def class_names(self):
        """The classes' names: those that the set says, else those of the real images, which may be
        loaded for them."""
        return [str(name) for name in self.meta.get("classes") or self.facts.names()]

    def pixels(self, images, whitening=None):
        """Images of the set as pixels, in [0,1] but for what distilling pushed outside.

        whitening: the spaces.Whitening of a whitened set.
        """
        if self.whitened_from is not None:
            images = whitening.invert(images)
        if self.whitened_from == "pixels":
            return images
        return denormalise(images, self.facts.mean, self.facts.std)
