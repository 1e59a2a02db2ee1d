"""Readers of what lies on a disk: the official files of every dataset, and class folders of pictures.

A reader gives the entries of the `.pt` layout that DC, DM, DC-bench and IDM share; `data.load` calls it.
"""

import contextlib
import io
import os
import re
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bacon.errors import UserError, short
from bacon.progress import track
from bacon.recipes import DATASETS

# Of the .pt layout: names, then twice uint8 (N,C,H,W) and whole numbers (N,).
KEYS = ("classes", "images_train", "labels_train", "images_val", "labels_val")


def layout(classes, train, test):
    """The .pt layout from class names and two (images, labels) pairs of arrays, lists or tensors."""
    return dict(zip(KEYS, (list(classes), *map(torch.as_tensor, (*train, *test))), strict=True))


@contextlib.contextmanager
def tidied(folders):
    """Folders that are not there before are removed afterwards if they are empty then."""
    missing = sorted(folder for folder in folders if not folder.exists())
    try:
        yield
    finally:
        for folder in reversed(missing):  # a folder before the one that holds it
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _fetching(name, root, paths):
    """Around a download of `paths` below `root`: one line if it fails, and no folder that it made and left empty."""
    with tidied({folder for path in paths for folder in (root / path).parents}):
        try:
            yield
        except Exception as error:  # whatever a dead network provokes
            wanted = f"{name.lower()}.pt or {', '.join(paths)}"
            text = f"{name}: not under {root}/ and could not be fetched; put {wanted} there ({short(error)})"
            raise UserError(text) from error


# How torchvision stores a dataset: (files it reads, archives it unpacks them from, arguments that select the two
# splits, how to get N,C,H,W images and labels out of a split). Files and archives are (path below the root, md5).
_SPLITS = ({"train": True}, {"train": False})


def _mnist(kind):
    archives = [(f"{kind.__name__}/raw/{archive}", md5) for archive, md5 in kind.resources]
    files = [(path.removesuffix(".gz"), None) for path, _ in archives]  # nobody publishes sums of the unpacked files
    return files, archives, _SPLITS, lambda part: (part.data[:, None], part.targets)


def _cifar(kind):
    batches = (*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"]))
    files = [(f"{kind.base_folder}/{batch}", md5) for batch, md5 in batches]
    archives = [(kind.filename, kind.tgz_md5)]
    return files, archives, _SPLITS, lambda part: (part.data.transpose(0, 3, 1, 2), part.targets)


def _svhn(kind):
    files = [kind.split_list[split][1:] for split in ("train", "test")]
    return files, [], ({"split": "train"}, {"split": "test"}), lambda part: (part.data, part.labels)


def _read_torchvision(storage, name, root, say):
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind = getattr(datasets, name)
    files, archives, splits, unpack = storage(kind)
    missing = [path for path, _ in files if not os.path.exists(root / path)]
    # torchvision would download over a damaged file, and does not tell which one is damaged: so look here first.
    for path, md5 in files + (archives if missing else []):
        if os.path.exists(root / path) and not check_integrity(root / path, md5):
            found = f"not the official file of {name} (its md5 differs)"
            raise UserError(f"{root / path}: {found}; copy it again, or move it elsewhere")
        if missing and path not in missing and md5 is None:
            advice = "add it, or move the rest elsewhere"
            raise UserError(f"{root / missing[0]}: missing, though {path} is there; {advice}")
    if missing:
        wanted = [path for path, _ in archives or files]
        say(f"{name}: fetching {', '.join(wanted)} into {root}")
        with _fetching(name, root, wanted):
            for split in splits:
                kind(root, download=True, **split)
    try:
        parts = [kind(root, **split) for split in splits]
    except Exception as error:  # whatever a damaged file provokes in torchvision, pickle or scipy
        raise UserError(f"{root / files[0][0]} or a file beside it: damaged or not {name} ({short(error)})") from error
    classes = getattr(parts[0], "classes", range(DATASETS[name].num_classes))
    return layout(classes, *map(unpack, parts)), (root / files[0][0]).parent


TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def _read_tiny_imagenet(name, root, say):
    from torchvision.datasets.utils import download_url

    folder, archive = root / "tiny-imagenet-200", root / "tiny-imagenet-200.zip"
    if not folder.is_dir() and not archive.exists():
        say(f"{name}: downloading {archive.name} (237 MB) into {root}")
        part = archive.with_suffix(".part")  # an interrupted download must not pass for the archive
        with _fetching(name, root, (archive.name, f"{folder.name}/")):
            download_url(TINY_IMAGENET_URL, root, part.name, TINY_IMAGENET_MD5)
            os.replace(part, archive)
    source = folder if folder.is_dir() else archive
    say(f"{name}: decoding the JPEGs of {source}, this takes a minute")
    try:
        if source == folder:
            paths = [path.relative_to(root).as_posix() for path in folder.rglob("*.*")]
            return _decode_tiny_imagenet(paths, lambda path: (root / path).read_bytes(), say), folder
        with zipfile.ZipFile(archive) as z:
            return _decode_tiny_imagenet(z.namelist(), z.read, say), archive
    except Exception as error:  # a damaged zip or JPEG, a missing annotation
        raise UserError(f"{source}: damaged or not TinyImageNet ({short(error)})") from error


def _decode_tiny_imagenet(paths, read, say):
    """The .pt layout from the paths of the official files and `read`: path -> bytes. Labels are positions among the
    sorted wnids of train/; images are sorted by label, then file name. The official val split is our test split: the
    official test split has no labels. Classes are named as words.txt does, if it is there."""
    from PIL import Image

    pattern = re.compile(r"tiny-imagenet-200/(train|val)/(?:(n\d+)/)?images/([^/]+\.JPEG)")
    found = [(path, *match.groups()) for path in paths if (match := pattern.fullmatch(path))]
    annotations = read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
    wnid_of = dict(line.split("\t")[:2] for line in annotations)  # file name, wnid, bounding box
    wnids = sorted({wnid for _, split, wnid, _ in found if split == "train"})
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    rows_of, pairs = {"train": [], "val": []}, []
    for path, split, wnid, file in found:
        wnid = wnid or wnid_of.get(file)
        if wnid not in label_of:
            raise ValueError(f"{path} has class {wnid}, train/ has none such")
        rows_of[split].append((label_of[wnid], file, path))
    for rows in map(sorted, rows_of.values()):
        images = np.empty((len(rows), 3, 64, 64), np.uint8)
        for image, (_, _, path) in track(list(zip(images, rows, strict=True)), "TinyImageNet: pictures", say):
            try:
                picture = Image.open(io.BytesIO(read(path))).convert("RGB")  # some are greyscale
            except Exception as error:
                raise ValueError(f"{path} cannot be decoded") from error
            if picture.size != (64, 64):
                raise ValueError(f"{path} is {picture.size} pixels large")
            image[:] = np.asarray(picture).transpose(2, 0, 1)
        pairs.append((images, [label for label, _, _ in rows]))
    words = {}
    if (listed := "tiny-imagenet-200/words.txt") in paths:
        words = dict(line.split("\t", 1) for line in read(listed).decode().splitlines() if "\t" in line)
    return layout([words.get(wnid, wnid).split(",")[0] for wnid in wnids], *pairs)


def _read_digits(name, root, say):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("Digits: these images come with scikit-learn; pip install scikit-learn") from error
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # the values are 0..16
    test = np.zeros(len(images), bool)
    for c in range(10):
        test[np.flatnonzero(digits.target == c)[2::3]] = True  # every third of a class, whatever the library's version
    return layout(range(10), *((images[mask], digits.target[mask]) for mask in (~test, test))), "scikit-learn"


# name: (name, root folder, say) -> (entries of the .pt layout, where they came from)
READERS = {
    **dict.fromkeys(("MNIST", "FashionMNIST"), partial(_read_torchvision, _mnist)),
    **dict.fromkeys(("CIFAR10", "CIFAR100"), partial(_read_torchvision, _cifar)),
    "SVHN": partial(_read_torchvision, _svhn),
    "TinyImageNet": _read_tiny_imagenet,
    "Digits": _read_digits,
}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def class_folders(folder):
    """The folders in `folder` that hold pictures, at any depth, sorted by name: what ImageFolder calls classes."""
    folders = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    return [f for f in folders if any(file.suffix.lower() in PICTURES for file in f.rglob("*"))]


def read_class_folders(folder, im_size=None, advice="", say=print):
    """The pictures of class folders: (names, images uint8 (n,3,H,W), labels (n,), the place of the folder in `names`).

    im_size: side of a square that pictures are resized to, by their shorter side, then cut at the centre; None takes
    them as they are, all of one size. UserError, naming the picture, for one that cannot be decoded, has more than 8
    bits, or is of another size than others, to which `advice` is given.
    """
    from PIL import Image, ImageOps

    folders, images = class_folders(folder), []
    of_class = [sorted(path for path in kind.rglob("*") if path.suffix.lower() in PICTURES) for kind in folders]
    for file in track([file for files in of_class for file in files], f"{folder}: pictures", say):
        try:
            with Image.open(file) as picture:
                mode, picture = picture.mode, picture.convert("RGB")
        except Exception as error:  # whatever a damaged picture provokes
            raise UserError(f"{file}: cannot be decoded ({short(error)})") from error
        if mode.startswith(("I", "F")):  # Pillow would make white of all that is above 255
            raise UserError(f"{file}: has pixels of more than 8 bits (mode {mode}); convert it to 8 bits")
        if im_size:
            picture = ImageOps.fit(picture, (im_size, im_size), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture).transpose(2, 0, 1)
        if images and pixels.shape != images[0].shape:
            (_, h, w), (_, height, width) = pixels.shape, images[0].shape
            raise UserError(f"{file}: has {h}x{w} pixels, others {height}x{width}{advice}")
        images.append(pixels)
    labels = [label for label, files in enumerate(of_class) for _ in files]
    return [path.name for path in folders], torch.from_numpy(np.stack(images)), labels


def is_grey(images):
    """Whether the three channels of images (n,3,H,W) are one and the same."""
    return torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
