"""Of which dataset a set of another program is: what speaks for it and against it.

Such a file does not say it, so it is asked for by --dataset, or taken from sets of these scripts
beside it, which is said. Its path, its images' shape and the accuracies in it may contradict.
"""

import re
from pathlib import Path

from bacon.recipes import DATASETS

# How people write the names of datasets in names of files. The first that fits takes its letters
# away, so that FashionMNIST is no MNIST.
_WRITTEN = {
    "CIFAR100": r"cifar[-_ ]?100(?!\d)",
    "CIFAR10": r"cifar[-_ ]?10(?!\d)",
    "SVHN": r"svhn",
    "FashionMNIST": r"fashion[-_ ]?mnist|(?<![a-z])fmnist",
    "MNIST": r"(?<![a-z])mnist",
    "TinyImageNet": r"tiny[-_ ]?image[-_ ]?net",
}
PARENTS = 2  # folders above a file whose names are read where its own says nothing


def named_by(path):
    """The datasets that a path names: those in the file's name, else in the nearest folder's."""
    path = Path(path)
    for name in (path.name, *[folder.name for folder in path.parents][:PARENTS]):
        rest = name.lower()
        found = []
        for dataset, pattern in _WRITTEN.items():
            if re.search(pattern, rest):
                found.append(dataset)
                rest = re.sub(pattern, " ", rest)
        if found:
            return found
    return []


def contradiction(path, dataset):
    """In words, which other dataset a path names, or ""."""
    named = named_by(path)
    if not named or dataset in named or dataset not in DATASETS:
        return ""
    return f"its name says {' and '.join(named)}, but it is read as {dataset}"


def of_size(shape):
    """In words for brackets, the datasets whose images have a shape (C,H,W), or ""."""
    fitting = [name for name, spec in DATASETS.items() if (spec.channels, *spec.im_size) == shape]
    return f" (the size of {', '.join(fitting)})" if fitting else ""


def far_below(accuracy, recorded, num_classes):
    """Whether an accuracy is so near chance, and the recorded one is not, that something is amiss.

    Both are in percent. Published sets get 60 % and more of what is recorded above chance, by any
    network.
    """
    chance = 100 / num_classes
    if not 2 * chance < recorded <= 100:
        return False
    return accuracy - chance < (recorded - chance) / 4
