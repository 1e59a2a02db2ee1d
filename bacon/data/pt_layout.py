"""The .pt layout of a dataset, which DC, DM, DC-bench and IDM read too, and what it must hold."""

import torch

from bacon.data.real_data import Dataset, fingerprint_of
from bacon.errors import UserError
from bacon.recipes import DATASETS

# Names of classes, then twice uint8 (N,C,H,W) and whole numbers (N,).
KEYS = ("classes", "images_train", "labels_train", "images_val", "labels_val")
WHOLE_NUMBERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def layout(classes, train, test):
    """The .pt layout of class names and two pairs (images, labels): arrays, lists or tensors."""
    tensors = [torch.as_tensor(values) for values in (*train, *test)]
    return dict(zip(KEYS, (list(classes), *tensors), strict=True))


def dataset_of(name, entries, source, spec=None):
    """The `Dataset` of entries in the .pt layout.

    source: where they came from. spec: what they must be, a recipes.Spec, in place of that of the
    table DATASETS. UserError, naming `source` and the entry, where they do not fit.
    """
    spec = spec or DATASETS[name]
    if not isinstance(entries, dict) or not entries.keys() >= set(KEYS):
        raise UserError(f"{source}: not a dataset, which is a dictionary of {', '.join(KEYS)}")
    classes = entries["classes"]
    if not isinstance(classes, (list, tuple)) or len(classes) != spec.num_classes:
        raise _unfit(name, entries, source, "classes", f"a list of {spec.num_classes} names")
    train = _split(name, entries, source, spec, "train")
    test = _split(name, entries, source, spec, "val")
    counts = torch.bincount(train[1], minlength=spec.num_classes)
    if not counts.all():
        empty = counts.argmin()
        lacks = f"labels_train has no image of class {empty} ({classes[empty]})"
        raise UserError(f"{source}: {lacks}")
    return Dataset(
        name=name,
        classes=[str(c) for c in classes],
        mean=spec.mean,
        std=spec.std,
        images_train=train[0],
        labels_train=train[1],
        images_test=test[0],
        labels_test=test[1],
        fingerprint=fingerprint_of(*train, *test),
        source=str(source),
    )


def _split(name, entries, source, spec, split):
    """(images, labels) of a split, as a `Dataset` has them, if they fit `spec`; else UserError."""
    image_key = f"images_{split}"
    label_key = f"labels_{split}"
    images = entries[image_key]
    labels = entries[label_key]
    shape = (spec.channels, *spec.im_size)
    of_pixels = isinstance(images, torch.Tensor) and images.dtype == torch.uint8
    if not of_pixels or images.shape[1:] != shape or len(images) == 0:
        wanted = f"torch.uint8 (N > 0, {str(shape)[1:]}"
        raise _unfit(name, entries, source, image_key, wanted)
    of_numbers = isinstance(labels, torch.Tensor) and labels.dtype in WHOLE_NUMBERS
    if not of_numbers or labels.shape != images.shape[:1]:
        raise _unfit(name, entries, source, label_key, f"{len(images)} whole numbers")
    low = labels.min().item()
    high = labels.max().item()
    if low < 0 or high >= spec.num_classes:
        wanted = f"{name} needs 0..{spec.num_classes - 1}"
        raise UserError(f"{source}: {label_key} holds {low}..{high}, but {wanted}")
    return images.contiguous(), labels.to(torch.int64).contiguous()


def _unfit(name, entries, source, key, wanted):
    """The UserError of an entry that is not what the dataset `name` needs."""
    value = entries[key]
    if isinstance(value, torch.Tensor):
        found = f"{value.dtype} {tuple(value.shape)}"
    elif isinstance(value, (list, tuple)):
        found = f"{type(value).__name__} of {len(value)}"
    else:
        found = type(value).__name__
    return UserError(f"{source}: {key} is {found}, but {name} needs {wanted}")
