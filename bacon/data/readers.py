"""Readers of what lies on a disk: the official files of every dataset, and class folders of pictures.

A reader gives the entries of the `.pt` layout that DC, DM, DC-bench and IDM share; `data.load` calls it.
"""

import contextlib
import io
import os
import re
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bacon.data.pictures import (  # noqa: F401 (some of them for those who import `readers`)
    PICTURES,
    all_below,
    class_folders,
    class_names,
    composed,
    is_grey,
    is_hidden,
    printable,
    read_class_folders,
    refuse_gone,
    some,
)
from bacon.errors import UserError, short
from bacon.files import there, unreadable
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
    files = [
        (path.removesuffix(".gz"), None) for path, _ in archives
    ]  # nobody publishes sums of the unpacked files
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
    missing = [path for path, _ in files if not there(root / path)]
    # torchvision would download over a damaged file, and does not tell which one is damaged: so look here first.
    for path, md5 in files + (archives if missing else []):
        if there(root / path) and not check_integrity(root / path, md5):
            advice = "replace it, or move it away to have it fetched"
            damage = f"not the official file of {name} (its md5 differs)"
            raise UserError(f"{root / path}: {damage}; {advice}")
        if missing and path not in missing and md5 is None:
            advice = "add it, or move the rest away to have all fetched"
            raise UserError(f"{root / missing[0]}: missing, though {path} is there; {advice}")
    if missing:
        wanted = [path for path, _ in archives or files]
        say(f"{name}: fetching {', '.join(wanted)} into {root}")
        with _fetching(name, root, wanted):
            for split in splits:
                kind(root, download=True, **split)
    try:
        parts = [kind(root, **split) for split in splits]
    except PermissionError as error:
        raise unreadable(error.filename or root, error) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file provokes in torchvision, pickle or scipy
        raise UserError(
            f"{root / files[0][0]} or a file beside it: damaged or not {name} ({short(error)})"
        ) from error
    classes = getattr(parts[0], "classes", range(DATASETS[name].num_classes))
    return layout(classes, *map(unpack, parts)), (root / files[0][0]).parent


TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def _read_tiny_imagenet(name, root, say):
    from torchvision.datasets.utils import download_url

    folder, archive = root / "tiny-imagenet-200", root / "tiny-imagenet-200.zip"
    if not there(folder) and not there(archive):
        say(f"{name}: downloading {archive.name} (237 MB) into {root}")
        part = archive.with_suffix(".part")  # an interrupted download must not pass for the archive
        with _fetching(name, root, (archive.name, f"{folder.name}/")):
            download_url(TINY_IMAGENET_URL, root, part.name, TINY_IMAGENET_MD5)
            os.replace(part, archive)
    source = folder if folder.is_dir() else archive
    say(f"{name}: decoding the JPEGs of {source}, this takes a minute")
    try:
        if source == folder:
            seen = list(all_below(folder))
            refuse_gone(seen)
            kinds = ("picture", "outside", "other")  # "other" holds the texts
            files = [found.path for found in seen if found.kind in kinds]
            paths = [path.relative_to(folder).as_posix() for path in files]

            def read(path):
                return (folder / path).read_bytes()

            return _decode_tiny_imagenet(source, paths, read, say), source
        with zipfile.ZipFile(archive) as z:
            names = [name for name in z.namelist() if not name.endswith("/")]
            paths = [name for name in names if not any(map(is_hidden, name.split("/")))]
            return _decode_tiny_imagenet(source, paths, z.read, say), source
    except (UserError, MemoryError):
        raise
    except PermissionError as error:
        raise unreadable(error.filename or source, error) from error
    except Exception as error:  # whatever a damaged zip provokes
        raise UserError(f"{source}: damaged or not TinyImageNet ({short(error)})") from error


@dataclass(frozen=True)
class TinyPicture:
    """A picture of TinyImageNet as its path tells it. split: train or val; wnid: the class, or
    None; stem: the name of the file without its suffix, which is the same however the picture is
    stored."""

    split: str
    wnid: str | None
    stem: str
    path: str

    @classmethod
    def at(cls, path):
        """From a path below the folder or in the archive; None for a picture of neither split.
        Accepted: the official train/<wnid>/images/ and val/images/, class folders in both, images/
        or not, and all that in a folder of any name."""
        *folders, file = path.split("/")
        split = next((folder for folder in folders if folder in ("train", "val")), None)
        if split is None:
            return None
        below = folders[folders.index(split) + 1 :]
        wnids = [folder for folder in below if re.fullmatch(r"n\d+", folder)]
        if len(wnids) > 1 or set(below) - {"images", *wnids}:
            return None
        wnid = wnids[0] if wnids else None
        if split == "train" and not wnid and (named := re.match(r"(n\d+)_", file)):
            wnid = named.group(1)
        return cls(split, wnid, Path(file).stem, path)


def _lines(paths, name, read):
    """The lines of the text file called `name`, wherever it lies in `paths`; none if it is not
    there."""
    found = sorted(path for path in paths if path.split("/")[-1] == name)
    if not found:
        return []
    return read(found[0]).decode("utf-8-sig", errors="replace").splitlines()


def _tiny_pictures(source, paths, read, say):
    """The pictures of both splits, each once, with its class: [`TinyPicture`], sorted by path."""
    wnid_of = {}
    for line in _lines(paths, "val_annotations.txt", read):
        words = line.split()  # file name, wnid, bounding box
        if len(words) >= 2:
            wnid_of[Path(words[0]).stem] = words[1]
    pictures = {}
    strangers, nameless, twice = [], [], []
    for path in sorted(path for path in paths if Path(path).suffix.lower() in PICTURES):
        picture = TinyPicture.at(path)
        if picture is None:
            strangers.append(path)
            continue
        wnid = picture.wnid
        if picture.split == "val":
            annotated = wnid_of.get(picture.stem, wnid)
            wnid = wnid or annotated
            if wnid != annotated:
                raise UserError(f"{source}: {path} is of class {annotated} by val_annotations.txt")
        if wnid is None:
            nameless.append(path)
            continue
        key = (picture.split, wnid, picture.stem)
        if key in pictures:
            twice.append(path)
        else:
            pictures[key] = TinyPicture(picture.split, wnid, picture.stem, path)
    if nameless:
        where = "neither its folder nor val/val_annotations.txt names the class"
        raise UserError(f"{source}: {nameless[0]} ({len(nameless):,} such pictures): {where}")
    for split in ("train", "val"):
        if not any(picture.split == split for picture in pictures.values()):
            example = f"{split}/n01443537/images/*.JPEG"
            ignored = f", but {some(strangers)}" if strangers else ""
            raise UserError(f"{source}: no pictures in {split}/, as {example}{ignored}")
    # The official test split has no labels.
    strangers = [path for path in strangers if "test" not in path.split("/")]
    if strangers:
        where = "in no class folder of train/ or val/"
        say(printable(f"TinyImageNet: ignored what is {where}: {some(strangers)}"))
    if twice:
        say(printable(f"TinyImageNet: counted once, though found twice: {some(twice)}"))
    return list(pictures.values())


def _decode_tiny_imagenet(source, paths, read, say):
    """The .pt layout from the paths of the official files and `read`: path -> bytes. Labels are positions among the
    sorted wnids of train/; images are sorted by label, then file name. The official val split is our test split: the
    official test split has no labels. Classes are named as words.txt does, if it is there."""
    from PIL import Image

    pictures = _tiny_pictures(source, paths, read, say)
    wnids = sorted({picture.wnid for picture in pictures if picture.split == "train"})
    listed = {line.strip() for line in _lines(paths, "wnids.txt", read)} - {""}
    if lacking := sorted(listed - set(wnids)):
        raise UserError(f"{source}: no pictures in train/ of classes in wnids.txt: {some(lacking)}")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    pairs = []
    for split in ("train", "val"):
        of_split = [picture for picture in pictures if picture.split == split]
        for picture in of_split:
            if picture.wnid not in label_of:
                strange = f"{picture.path} has class {picture.wnid}, train/ has none such"
                raise UserError(f"{source}: {strange}")
        of_split.sort(key=lambda picture: (label_of[picture.wnid], Path(picture.path).name))
        images = np.empty((len(of_split), 3, 64, 64), np.uint8)
        for i, picture in enumerate(track(of_split, "TinyImageNet: pictures", say)):
            content = read(picture.path)
            try:
                image = Image.open(io.BytesIO(content)).convert("RGB")  # some are greyscale
            except Exception as error:  # whatever a damaged JPEG provokes
                damage = f"{picture.path} cannot be decoded ({short(error)})"
                raise UserError(f"{source}: {damage}") from error
            if image.size != (64, 64):
                size = f"{image.height}x{image.width} pixels, not 64x64"
                raise UserError(f"{source}: {picture.path} has {size}")
            images[i] = np.asarray(image).transpose(2, 0, 1)
        pairs.append((images, [label_of[picture.wnid] for picture in of_split]))
    words = dict(line.split("\t", 1) for line in _lines(paths, "words.txt", read) if "\t" in line)
    return layout([words.get(wnid, wnid).split(",")[0] for wnid in wnids], *pairs)


def _read_digits(name, root, say):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(
            "Digits: these images come with scikit-learn; pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # the values are 0..16
    test = np.zeros(len(images), bool)
    for c in range(10):
        test[np.flatnonzero(digits.target == c)[2::3]] = (
            True  # every third of a class, whatever the library's version
        )
    return layout(
        range(10), *((images[mask], digits.target[mask]) for mask in (~test, test))
    ), "scikit-learn"


# name: (name, root folder, say) -> (entries of the .pt layout, where they came from)
READERS = {
    **dict.fromkeys(("MNIST", "FashionMNIST"), partial(_read_torchvision, _mnist)),
    **dict.fromkeys(("CIFAR10", "CIFAR100"), partial(_read_torchvision, _cifar)),
    "SVHN": partial(_read_torchvision, _svhn),
    "TinyImageNet": _read_tiny_imagenet,
    "Digits": _read_digits,
}
