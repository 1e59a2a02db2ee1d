"""ImageFolder: a dataset of one's own, as folders of pictures."""

import os
from pathlib import Path

import torch

from bacon.data.pictures import decode_pictures, find_pictures, is_grey, printable, some
from bacon.data.pt_layout import dataset_of, layout
from bacon.errors import UserError
from bacon.files import there
from bacon.messages import log
from bacon.recipes import IMAGE_FOLDER, Spec


def load_image_folder(data_path, im_size=None):
    """The `Dataset` of train/ and val/ or test/ under `data_path`: a folder of pictures per class.

    Folders name the classes. Images have one channel if all of them are grey, else three; mean and
    std are those of the training images. Nothing is cached: the folder may change.
    im_size: see `decode_pictures`. UserError, naming the file or folder, for what is missing,
    cannot be read or does not fit.
    """
    root = Path(os.path.expanduser(data_path))
    train_folder = root / "train"
    test_folder = _test_folder(root)
    of_train = find_pictures(train_folder)
    of_test = find_pictures(test_folder)
    names = [kind.name for kind in of_train]
    tested = [kind.name for kind in of_test]
    _check_classes(names, tested, train_folder, test_folder)

    advice = "; --im_size makes them equal"
    _, train, train_labels = decode_pictures(of_train, f"{train_folder}: pictures", im_size, advice)
    _, test, test_labels = decode_pictures(of_test, f"{test_folder}: pictures", im_size, advice)
    if train.shape[2:] != test.shape[2:]:
        trained, judged = (f"{images.shape[2]}x{images.shape[3]}" for images in (train, test))
        sizes = f"has pictures of {judged} pixels, {train_folder} of {trained}"
        raise UserError(f"{test_folder}: {sizes}{advice}")
    test_labels = [names.index(tested[label]) for label in test_labels]
    if is_grey(train) and is_grey(test):
        train = train[:, :1]
        test = test[:, :1]
    moments = [_mean_and_std(train[:, c]) for c in range(train.shape[1])]
    if min(std for _, std in moments) < 1 / 255:
        raise UserError(f"{train_folder}: all pixels of a channel are the same")
    spec = Spec(
        channels=train.shape[1],
        im_size=tuple(train.shape[2:]),
        num_classes=len(names),
        mean=tuple(round(mean, 4) for mean, _ in moments),
        std=tuple(round(std, 4) for _, std in moments),
        train=len(train),
        test=len(test),
    )
    entries = layout(names, (train, train_labels), (test, test_labels))
    return dataset_of(IMAGE_FOLDER, entries, root, spec)


def _test_folder(root):
    """val/ or test/, whose pictures networks are tested on."""
    folders = []
    for name in ("train", "val", "test"):
        folder = root / name
        if there(folder) and folder.is_dir():
            folders.append(folder)
    tests = [folder for folder in folders if folder.name != "train"]
    if len(tests) == len(folders) or not tests:
        needed = "ImageFolder needs train/ and val/ or test/ there, with class folders"
        raise UserError(f"--data_path {root}: {needed}")
    if len(tests) > 1:
        log.info(f"{root}: networks are tested on val/; test/ is not read")
    return tests[0]


def _check_classes(names, tested, train_folder, test_folder):
    """UserError for a class with no training pictures; what else is odd is told.

    names, tested: of the classes with training and with test pictures.
    """
    strange = sorted(set(tested) - set(names))
    if strange:
        lacks = f"a class that {train_folder} does not have"
        raise UserError(f"{test_folder / strange[0]}: {lacks}")
    untested = [name for name in names if name not in tested]
    if untested:
        lacks = f"lacks {some(untested)} of the {len(names)} classes of train/"
        log.info(printable(f"{test_folder}: {lacks}"))
    if len(names) == 1:
        certain = f"has one class only ({names[0]}), so that every accuracy will be 100 %"
        log.info(printable(f"{train_folder}: {certain}"))


def _mean_and_std(channel):
    """Mean and standard deviation of the uint8 pixels of a channel, as numbers in [0,1].

    From how often each level occurs: the pixels need not be held as floats.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
    mean = (share * levels).sum().item()
    variance = (share * (levels - mean) ** 2).sum().item()
    return mean, variance**0.5
