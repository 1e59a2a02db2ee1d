"""Where real images come from.

Under the data path a dataset is looked for as `<name in lower case>.pt`, see pt_layout.KEYS, then
as the official files where torchvision puts them; else these are downloaded. The first load of the
official files writes the .pt, so that a job on a compute node without internet starts in a second.
A file that is there but does not fit is an error: it is neither passed over for the next source nor
overwritten.
"""

import contextlib
import math
import os
from pathlib import Path

from bacon.data.fetching import tidied
from bacon.data.image_folder import load_image_folder
from bacon.data.pt_layout import dataset_of, layout
from bacon.data.readers import READERS
from bacon.errors import UserError, short
from bacon.files import load_torch, lock, save_torch, there, unreadable
from bacon.messages import log
from bacon.recipes import DATASETS, IMAGE_FOLDER

# Datasets that come with a library: no folder is needed for them, and no .pt is written.
AT_HAND = {"Digits"}


def load(name, data_path, im_size=None):
    """The `Dataset` called `name` in DATASETS, from the first source found under `data_path`.

    What takes time or writes files is told. im_size: of ImageFolder, see `load_image_folder`.
    UserError, naming the file, for anything missing, damaged or of another shape than the table's.
    """
    if name == IMAGE_FOLDER:
        return load_image_folder(data_path, im_size)
    if name not in DATASETS:
        known = f"{', '.join(DATASETS)} or {IMAGE_FOLDER}"
        raise UserError(f"dataset {name}: unknown; choose from {known}")
    root = Path(os.path.expanduser(data_path))
    cache = root / f"{name.lower()}.pt"
    if name in AT_HAND:
        return _cached(name, cache) if os.path.exists(cache) else _official(name, root)
    if there(root) and not root.is_dir():
        raise UserError(f"--data_path {root}: not a folder")
    if there(cache):
        return _cached(name, cache)
    with contextlib.ExitStack() as stack:
        # The tasks of a job array start at once: one reads and writes.
        stack.enter_context(tidied((root, *root.parents)))
        with contextlib.suppress(OSError):  # a folder that cannot be written
            root.mkdir(parents=True, exist_ok=True)
            lock(stack, root / f"lock_{name.lower()}", "", math.inf)
        if there(cache):  # by now
            return _cached(name, cache)
        dataset = _official(name, root, cache)
        if not _other_size(dataset):
            _keep(dataset, cache)
        return dataset


def _cached(name, cache):
    """The dataset in a .pt."""
    dataset = dataset_of(name, load_torch(cache), cache)
    size = _other_size(dataset)
    if size:
        without = "without that file the official ones are read or fetched"
        log.info(f"{name}: {cache} {size}; {without}")
    return dataset


def _official(name, root, cache=None):
    """The dataset from its official files. cache: the .pt that is to be written if it is whole."""
    if name not in READERS:
        missing = f"no {name.lower()}.pt is there, and no reader reads anything else"
        raise UserError(f"--data_path {root}: {missing}; put that file there, or add a reader")
    try:
        entries, source = READERS[name](name, root)
    except OSError as error:
        raise unreadable(error.filename or root, error) from error
    dataset = dataset_of(name, entries, source)
    size = _other_size(dataset)
    if size:
        if cache:
            size += f"; it is not kept as {cache.name}, so the next start reads it again"
        log.info(f"{name}: {source} {size}")
    return dataset


def _keep(dataset, cache):
    """Write a dataset as a .pt for the next start, or tell why that cannot be done."""
    train = (dataset.images_train, dataset.labels_train)
    test = (dataset.images_test, dataset.labels_test)
    try:
        save_torch(layout(dataset.classes, train, test), cache)
    except (OSError, RuntimeError) as error:  # RuntimeError: how torch reports some failed writes
        again = f"so the next start reads {dataset.source} again"
        log.info(f"{dataset.name}: cannot write {cache} ({short(error)}), {again}")
    else:
        instead = f"which the next start reads instead of {dataset.source}"
        log.info(f"{dataset.name}: wrote {cache}, {instead}")


def _other_size(dataset):
    """How many images there are, in words, if the whole dataset has another number; else ""."""
    whole = DATASETS[dataset.name]
    if (dataset.train, dataset.test) == (whole.train, whole.test):
        return ""
    found = f"{dataset.train:,} training and {dataset.test:,} test images"
    return f"holds {found}, the whole set {whole.train:,} and {whole.test:,}"
