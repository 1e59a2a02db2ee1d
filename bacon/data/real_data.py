"""Labelled real images: a whole `Dataset` on the host; `RealData`, a split of it to draw from."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch

import utils
from bacon.data.spaces import column
from bacon.errors import UserError


@dataclass(eq=False)
class Dataset:
    """A whole dataset on the host. It also has the fields of a recipes.Spec.

    classes: names. mean, std: a number per channel, of pixels in [0,1].
    images_train, images_test: uint8 (N,C,H,W). labels_train, labels_test: int64 (N,).
    fingerprint: see `fingerprint_of`. source: the file or folder it was read from.
    """

    name: str
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images_train: torch.Tensor
    labels_train: torch.Tensor
    images_test: torch.Tensor
    labels_test: torch.Tensor
    fingerprint: str
    source: str

    @property
    def channels(self):
        return self.images_train.shape[1]

    @property
    def im_size(self):
        return tuple(self.images_train.shape[2:])

    @property
    def num_classes(self):
        return len(self.classes)

    @property
    def train(self):
        """How many training images there are."""
        return len(self.labels_train)

    @property
    def test(self):
        """How many test images there are."""
        return len(self.labels_test)

    def validation(self, each):
        """This dataset with `each` training images per class held out in place of the test images.

        They are always the same. UserError if a class would keep fewer than two.
        """
        labels = self.labels_train.numpy()
        held = []
        for c, name in enumerate(self.classes):
            of_class = np.flatnonzero(labels == c)
            if len(of_class) < each + 2:
                found = f"class {c} ({name}) of {self.name} has {len(of_class)} images"
                raise UserError(f"--validate {each}: {found}")
            held.append(utils.stream(0, "validation", c).permutation(of_class)[:each])
        held = torch.from_numpy(np.sort(np.concatenate(held)))
        kept = torch.ones(self.train, dtype=torch.bool).index_fill(0, held, False)
        return replace(
            self,
            images_train=self.images_train[kept],
            labels_train=self.labels_train[kept],
            images_test=self.images_train[held],
            labels_test=self.labels_train[held],
        )

    def real(self, split, device="cpu", whitening=None, own=None, normalised=True):
        """The images of a split, train or test, as `RealData` on `device`.

        whitening, own: see `RealData`. Images that are not normalised are in [0,1].
        """
        images = getattr(self, f"images_{split}")
        labels = getattr(self, f"labels_{split}")
        mean = self.mean if normalised else (0.0,) * self.channels
        std = self.std if normalised else (1.0,) * self.channels
        return RealData(
            images, labels, mean, std, self.num_classes, device, whitening, self.classes, own
        )


def fingerprint_of(*tensors):
    """SHA-256 over the shapes and contents of tensors, in their order, in hexadecimal.

    It goes into logs and results, so that a subset of a dataset never passes for the whole.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().reshape(-1))
    return digest.hexdigest()


class RealData:
    """Labelled uint8 images on `device`, normalised when a batch is taken.

    So they take a quarter of the memory of float32. Indices are drawn on the host from a numpy
    Generator, whatever the device. `counts`: images per class.
    """

    def __init__(
        self, images, labels, mean, std, num_classes, device, whitening=None, classes=None, own=None
    ):
        """images: uint8 (N,C,H,W). labels: int64 (N,). mean, std: C numbers each, of pixels in
        [0,1].

        whitening: a spaces.Whitening or None. classes: their names, for pictures.
        own: a range of classes, None for all. Images of other classes are not kept. An index still
        counts in all N, so that the processes of a parallel run, which own different classes, draw
        the same.
        """
        self.classes = classes or [str(c) for c in range(num_classes)]
        self.mean = mean
        self.std = std
        self.whitening = whitening
        self._mean_255 = 255 * column(mean, device)
        self._std_255 = 255 * column(std, device)

        host_labels = labels.cpu().numpy()
        self._total = len(labels)
        self.counts = np.bincount(host_labels, minlength=num_classes).tolist()
        by_class = np.argsort(host_labels, kind="stable")
        self._of_class = np.split(by_class, np.cumsum(self.counts)[:-1])
        self._place = None  # where an image is among those kept, -1 if it is not; None: all are
        if own is not None and len(own) < num_classes:
            kept = np.flatnonzero((own.start <= host_labels) & (host_labels < own.stop))
            self._place = np.full(len(labels), -1)
            self._place[kept] = np.arange(len(kept))
            images = images[torch.from_numpy(kept)]
            labels = labels[torch.from_numpy(kept)]
        self.images = images.to(device)
        self.labels = labels.to(device)

    def __len__(self):
        return self._total

    def owned(self, indices):
        """Those of an index array whose images are kept here, in the same order."""
        if self._place is None:
            return indices
        return indices[self._place[indices] >= 0]

    def indices(self, c, n, rng):
        """Indices of n distinct images of class c, int64 (n,) on the host.

        Of all its images if it has fewer.
        """
        return rng.choice(self._of_class[c], min(n, self.counts[c]), replace=False)

    def any_indices(self, n, rng):
        """Indices of n distinct images of any class, int64 (n,) on the host.

        Of all images if there are fewer.
        """
        return rng.choice(len(self), min(n, len(self)), replace=False)

    def take(self, indices):
        """Images at an index array or slice: float32 (n,C,H,W), on the device.

        They are (x/255 - mean) / std, then whitened if there is a whitening.
        """
        return self.batch(indices)[0]

    def labels_of(self, indices):
        """Labels, int64 (n,) on the device, of the images that `take` gives for these indices."""
        return self.batch(indices)[1]

    def batch(self, indices):
        """(take(indices), labels_of(indices)), for one upload of the indices.

        IndexError for an image of a class that is not kept here.
        """
        if isinstance(indices, slice):
            images = self.images[indices]
            labels = self.labels[indices]
        else:
            if self._place is not None:
                indices = self._place[indices]
                if (indices < 0).any():
                    raise IndexError("an image of a class that is not kept here")
            indices = utils.upload(indices, self.images.device)
            images = self.images.index_select(0, indices)
            labels = self.labels.index_select(0, indices)
        images = images.to(torch.float32).sub_(self._mean_255).div_(self._std_255)
        if self.whitening is not None:
            images = self.whitening.apply(images)
        return images, labels
