"""The datasets: what each looks like, and which script distils it. No torch.

A dataset is one row of DATASETS and one reader of readers.READERS, which gives its images.
"""

from typing import NamedTuple


class Spec(NamedTuple):
    """What a dataset looks like.

    im_size: height and width. mean, std: of pixels in [0,1], one a channel. train, test: how many
    images the whole of it has. script: the one that distils it. like: MNIST or CIFAR10, whose
    recipes it takes where none is published for it, and whose recipe of ours.
    """

    channels: int
    im_size: tuple[int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int
    script: str | None = None
    like: str = "CIFAR10"


# mean and std are those of DC, DM and IDM, so that saved sets can be exchanged; of Digits, those of
# its training split.
DATASETS = {
    "MNIST": Spec(
        channels=1,
        im_size=(28, 28),
        num_classes=10,
        mean=(0.1307,),
        std=(0.3081,),
        train=60000,
        test=10000,
        script="BACON_mnist.py",
        like="MNIST",
    ),
    "FashionMNIST": Spec(
        channels=1,
        im_size=(28, 28),
        num_classes=10,
        mean=(0.2861,),
        std=(0.3530,),
        train=60000,
        test=10000,
        script="BACON_mnist.py",
        like="MNIST",
    ),
    "SVHN": Spec(
        channels=3,
        im_size=(32, 32),
        num_classes=10,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        train=73257,
        test=26032,
        script="BACON_svhn.py",
    ),
    "CIFAR10": Spec(
        channels=3,
        im_size=(32, 32),
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        train=50000,
        test=10000,
        script="BACON_cifar10.py",
    ),
    "CIFAR100": Spec(
        channels=3,
        im_size=(32, 32),
        num_classes=100,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        train=50000,
        test=10000,
        script="BACON_cifar10.py",
    ),
    "TinyImageNet": Spec(
        channels=3,
        im_size=(64, 64),
        num_classes=200,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        train=100000,
        test=10000,
        script="BACON_tiny.py",
    ),
    "Digits": Spec(
        channels=1,
        im_size=(8, 8),
        num_classes=10,
        mean=(0.3048,),
        std=(0.3757,),
        train=1201,
        test=596,
        script="BACON_mnist.py",
        like="MNIST",
    ),
}
IMAGE_FOLDER = "ImageFolder"  # the dataset of any labelled pictures, which every script accepts


def of_script(path):
    """The datasets that a script distils, in the table's order: the first is its default.

    path: of the script; its name counts.
    """
    script = path.replace("\\", "/").rpartition("/")[2]
    return tuple(name for name, spec in DATASETS.items() if spec.script == script)


def like(dataset):
    """MNIST or CIFAR10: whose recipes a dataset takes where it has none of its own."""
    return "CIFAR10" if dataset == IMAGE_FOLDER else DATASETS[dataset].like
