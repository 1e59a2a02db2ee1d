"""Real images: where they come from, and how batches are drawn from them.

Under the data path a dataset is looked for as `<name in lower case>.pt`, see `readers.KEYS`, then as the official files
where torchvision puts them, else these are downloaded. The first load of the official files writes the .pt, so that a
job on a compute node without internet starts in a second. A file that is there but does not fit is an error: it is
neither passed over for the next source nor overwritten.
"""

import contextlib
import hashlib
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import utils
from bacon.data.pictures import decode_pictures, find_pictures, is_grey, printable, some
from bacon.data.readers import KEYS, READERS, layout, tidied
from bacon.data.spaces import column
from bacon.errors import UserError, short
from bacon.files import load_torch, lock, save_torch, there, unreadable
from bacon.recipes import DATASETS, IMAGE_FOLDER, Spec

WHOLE_NUMBERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


@dataclass(eq=False)
class Dataset:
    """A whole dataset on the host: images uint8 (N,C,H,W), labels int64 (N,). It also has the fields of a `Spec`."""

    name: str
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images_train: torch.Tensor
    labels_train: torch.Tensor
    images_test: torch.Tensor
    labels_test: torch.Tensor
    fingerprint: str  # SHA-256 over shapes, images and labels in their order: a subset never passes for the whole
    source: str  # the file or folder it was read from

    def __post_init__(self):
        self.channels, self.im_size = self.images_train.shape[1], tuple(self.images_train.shape[2:])
        self.num_classes, self.train, self.test = map(
            len, (self.classes, self.labels_train, self.labels_test)
        )

    def validation(self, each):
        """This dataset with `each` training images per class held out, in place of the test images: always the same.

        UserError if a class would keep fewer than two.
        """
        held, labels = [], self.labels_train.numpy()
        for c, name in enumerate(self.classes):
            of_class = np.flatnonzero(labels == c)
            if len(of_class) < each + 2:
                raise UserError(
                    f"--validate {each}: class {c} ({name}) of {self.name} has {len(of_class)} images"
                )
            held.append(utils.stream(0, "validation", c).permutation(of_class)[:each])
        held = torch.from_numpy(np.sort(np.concatenate(held)))
        kept = torch.ones(self.train, dtype=torch.bool).index_fill(0, held, False)
        splits = {
            "images_train": self.images_train[kept], "labels_train": self.labels_train[kept],
            "images_test": self.images_train[held], "labels_test": self.labels_train[held],
        }  # fmt: skip
        return replace(self, **splits)

    def real(self, split, device="cpu", whitening=None, own=None, normalised=True):
        """The images of a split, train or test, on `device` as `RealData`; not normalised, they are in [0,1]."""
        images, labels = getattr(self, f"images_{split}"), getattr(self, f"labels_{split}")
        mean, std = (
            (self.mean, self.std)
            if normalised
            else ((0.0,) * self.channels, (1.0,) * self.channels)
        )
        return RealData(
            images, labels, mean, std, self.num_classes, device, whitening, self.classes, own
        )


def load(name, data_path, say=print, im_size=None):
    """The `Dataset` called `name` in `DATASETS`, from the first source (see top) found under `data_path`. UserError,
    naming the file, for anything missing, damaged or of another shape than the table's.

    say: called with one line for whatever takes time or writes files. im_size: of ImageFolder, see `load_image_folder`.
    """
    if name == IMAGE_FOLDER:
        return load_image_folder(data_path, im_size, say)
    if name not in DATASETS:
        raise UserError(
            f"dataset {name}: unknown; choose from {', '.join(DATASETS)} or {IMAGE_FOLDER}"
        )
    root = Path(os.path.expanduser(data_path))
    cache, kept = root / f"{name.lower()}.pt", name != "Digits"  # which scikit-learn has at hand
    exists = there if kept else os.path.exists  # no folder is needed for Digits
    if kept and there(root) and not root.is_dir():
        raise UserError(f"--data_path {root}: not a folder")
    with contextlib.ExitStack() as stack:
        # The tasks of a job array start at once: one reads and writes.
        if kept and not there(cache):
            stack.enter_context(tidied((root, *root.parents)))
            with contextlib.suppress(OSError):  # a folder that cannot be written
                root.mkdir(parents=True, exist_ok=True)
                lock(stack, root / f"lock_{name.lower()}", "", math.inf, say)
        if exists(cache):
            dataset = _dataset(name, load_torch(cache), cache)
            if size := _other_size(dataset):
                without = "without that file the official ones are read or fetched"
                say(f"{name}: {cache} {size}; {without}")
            return dataset
        try:
            entries, source = READERS[name](name, root, say)
        except OSError as error:
            raise unreadable(error.filename or root, error) from error
        dataset = _dataset(name, entries, source)
        size = _other_size(dataset)
        if size:
            again = f"; it is not kept as {cache.name}, so the next start reads it again"
            say(f"{name}: {source} {size}{again if kept else ''}")
        if kept and not size:
            pairs = (
                (dataset.images_train, dataset.labels_train),
                (dataset.images_test, dataset.labels_test),
            )
            try:
                save_torch(layout(dataset.classes, *pairs), cache)
                say(f"{name}: wrote {cache}, which the next start reads instead of {source}")
            except (
                OSError,
                RuntimeError,
            ) as error:  # RuntimeError: how torch reports some failed writes
                say(
                    f"{name}: cannot write {cache} ({short(error)}), so the next start reads {source} again"
                )
        return dataset


def _other_size(dataset):
    """How many images there are, in words, if the whole dataset has another number of them; else
    nothing."""
    whole = DATASETS[dataset.name]
    if (dataset.train, dataset.test) == (whole.train, whole.test):
        return ""
    found = f"{dataset.train:,} training and {dataset.test:,} test images"
    return f"holds {found}, the whole set {whole.train:,} and {whole.test:,}"


def load_image_folder(data_path, im_size=None, say=print):
    """The `Dataset` of train/ and val/ or test/ under `data_path`: a folder of pictures per class, which names it.
    Images have one channel if all of them are grey, else three; mean and std are computed from the training images.
    Nothing is cached: the folder may change. im_size: see `read_class_folders`."""
    root = Path(os.path.expanduser(data_path))
    folders = [root / name for name in ("train", "val", "test")]
    folders = [folder for folder in folders if there(folder) and folder.is_dir()]
    tests = [folder for folder in folders if folder.name != "train"]
    if len(tests) == len(folders) or not tests:
        raise UserError(
            f"--data_path {root}: ImageFolder needs train/ and val/ or test/ there, with class folders"
        )
    if len(tests) > 1:
        say(f"{root}: networks are tested on val/; test/ is not read")
    of_train, of_test = (find_pictures(folder, say) for folder in (root / "train", tests[0]))
    names, tested = ([kind.name for kind in kinds] for kinds in (of_train, of_test))
    if strange := sorted(set(tested) - set(names)):
        raise UserError(f"{tests[0] / strange[0]}: a class that {root / 'train'} does not have")
    if untested := [name for name in names if name not in tested]:
        say(printable(f"{tests[0]}: lacks {some(untested)} of the {len(names)} classes of train/"))
    if len(names) == 1:
        certain = "every accuracy will be 100 %"
        say(printable(f"{root / 'train'}: has one class only ({names[0]}), so that {certain}"))
    settings = (im_size, "; --im_size makes them equal", say)
    _, train, train_labels = decode_pictures(of_train, f"{root / 'train'}: pictures", *settings)
    _, test, test_labels = decode_pictures(of_test, f"{tests[0]}: pictures", *settings)
    if is_grey(train) and is_grey(test):
        train, test = train[:, :1], test[:, :1]
    test_labels = [names.index(tested[label]) for label in test_labels]
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = [
        torch.bincount(train[:, c].flatten(), minlength=256) / train[:, c].numel()
        for c in range(train.shape[1])
    ]
    mean = [(share * levels).sum().item() for share in shares]
    std = [
        (share * (levels - m) ** 2).sum().item() ** 0.5
        for share, m in zip(shares, mean, strict=True)
    ]
    if min(std) < 1 / 255:
        raise UserError(f"{root / 'train'}: all pixels of a channel are the same")
    mean, std = (tuple(round(value, 4) for value in values) for values in (mean, std))
    spec = Spec(
        train.shape[1], tuple(train.shape[2:]), len(names), mean, std, len(train), len(test)
    )
    entries = layout(names, (train, train_labels), (test, test_labels))
    return _dataset(IMAGE_FOLDER, entries, root, spec)


def _dataset(name, entries, source, spec=None):
    """The `Dataset` of entries in the .pt layout; UserError, naming `source`, where they do not fit the table."""
    spec = spec or DATASETS[name]
    shape = (spec.channels, *spec.im_size)

    def demand(fact, key, wanted):
        if not fact:
            value = entries[key]
            what = (
                f"{value.dtype} {tuple(value.shape)}"
                if isinstance(value, torch.Tensor)
                else type(value).__name__
            )
            what += f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
            raise UserError(f"{source}: {key} is {what}, but {name} needs {wanted}")

    if not isinstance(entries, dict) or not entries.keys() >= set(KEYS):
        raise UserError(f"{source}: not a dataset, which is a dictionary of {', '.join(KEYS)}")
    classes, tensors = entries["classes"], []
    fits = isinstance(classes, (list, tuple)) and len(classes) == spec.num_classes
    demand(fits, "classes", f"a list of {spec.num_classes} names")
    for split in ("train", "val"):
        image_key, label_key = f"images_{split}", f"labels_{split}"
        images, labels = entries[image_key], entries[label_key]
        fits = (
            isinstance(images, torch.Tensor)
            and images.dtype == torch.uint8
            and images.shape[1:] == shape
        )
        demand(fits and len(images), image_key, f"torch.uint8 (N > 0, {str(shape)[1:]}")
        fits = (
            isinstance(labels, torch.Tensor)
            and labels.dtype in WHOLE_NUMBERS
            and labels.shape == images.shape[:1]
        )
        demand(fits, label_key, f"{len(images)} whole numbers")
        low, high = labels.min().item(), labels.max().item()
        if low < 0 or high >= spec.num_classes:
            raise UserError(
                f"{source}: {label_key} holds {low}..{high}, but {name} needs 0..{spec.num_classes - 1}"
            )
        tensors += [images.contiguous(), labels.to(torch.int64).contiguous()]
    counts = torch.bincount(tensors[1], minlength=spec.num_classes)
    if not counts.all():
        raise UserError(
            f"{source}: labels_train has no image of class {counts.argmin()} ({classes[counts.argmin()]})"
        )
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().reshape(-1))
    return Dataset(
        name,
        [str(c) for c in classes],
        spec.mean,
        spec.std,
        *tensors,
        digest.hexdigest(),
        str(source),
    )


class RealData:
    """Labelled uint8 images kept on `device` (a quarter of float32's memory), normalised when a batch is taken.

    images: uint8 (N,C,H,W); labels: int64 (N,); mean, std: C numbers each, of pixels in [0,1]; whitening: a `Whitening`
    or None; classes: their names, for pictures. `counts`: images per class. Indices are drawn on the host from a numpy
    Generator, whatever the device. own: a range of classes, None for all. Images of other classes are not kept; every
    index still counts in all N, so that the processes of a parallel run, which own different classes, draw the same.
    """

    def __init__(
        self, images, labels, mean, std, num_classes, device, whitening=None, classes=None, own=None
    ):
        self.classes = classes or [str(c) for c in range(num_classes)]
        host_labels = labels.cpu().numpy()
        self.counts = np.bincount(host_labels, minlength=num_classes).tolist()
        self._of_class = np.split(
            np.argsort(host_labels, kind="stable"), np.cumsum(self.counts)[:-1]
        )
        self._total, self._place = len(labels), None
        if own is not None and len(own) < num_classes:
            kept = np.flatnonzero((own.start <= host_labels) & (host_labels < own.stop))
            self._place = np.full(
                len(labels), -1
            )  # where an image is among those kept; -1: it is not
            self._place[kept] = np.arange(len(kept))
            images, labels = images[torch.from_numpy(kept)], labels[torch.from_numpy(kept)]
        self.images, self.labels = images.to(device), labels.to(device)
        self.mean, self.std, self.whitening = mean, std, whitening
        self._mean_255, self._std_255 = (255 * column(v, device) for v in (mean, std))

    def __len__(self):
        return self._total

    def owned(self, indices):
        """Those of an index array whose images are kept here, in the same order."""
        return indices if self._place is None else indices[self._place[indices] >= 0]

    def indices(self, c, n, rng):
        """Indices, int64 (n,) on the host, of n distinct images of class c; of all of them if it has fewer."""
        return rng.choice(self._of_class[c], min(n, self.counts[c]), replace=False)

    def any_indices(self, n, rng):
        """Indices, int64 (n,) on the host, of n distinct images of any class; of all of them if there are fewer."""
        return rng.choice(len(self), min(n, len(self)), replace=False)

    def take(self, indices):
        """Images at an index array or slice: float32 (n,C,H,W), (x/255 - mean) / std, then whitened if that is set."""
        return self.batch(indices)[0]

    def labels_of(self, indices):
        """Labels, int64 (n,) on the device, of the images that `take` gives for the same argument."""
        return self.batch(indices)[1]

    def batch(self, indices):
        """(take(indices), labels_of(indices)), for one upload of the indices."""
        if isinstance(indices, slice):
            images, labels = self.images[indices], self.labels[indices]
        else:
            if self._place is not None:
                indices = self._place[indices]
                if (indices < 0).any():
                    raise IndexError("an image of a class that is not kept here")
            indices = utils.upload(indices, self.images.device)
            images, labels = (
                self.images.index_select(0, indices),
                self.labels.index_select(0, indices),
            )
        images = images.to(torch.float32).sub_(self._mean_255).div_(self._std_255)
        return images if self.whitening is None else self.whitening.apply(images), labels
