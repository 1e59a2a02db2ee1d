"""TinyImageNet's official files: the folder tiny-imagenet-200, or the zip that holds it.

The official val split is our test split: the official test split has no labels.
"""

import io
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bacon.data.fetching import fetching
from bacon.data.pictures import PICTURES, all_below, is_hidden, printable, refuse_gone, some
from bacon.data.pt_layout import layout
from bacon.errors import UserError, short
from bacon.files import there, unreadable
from bacon.messages import log
from bacon.progress import track

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SIDE = 64  # pixels


def read_tiny_imagenet(name, root):
    """The entries of the .pt layout, and the folder or zip below `root` that they came from.

    The zip is fetched if neither is there. UserError, naming the file, for what is damaged, cannot
    be read or is another dataset.
    """
    folder = root / "tiny-imagenet-200"
    archive = root / "tiny-imagenet-200.zip"
    if not there(folder) and not there(archive):
        _fetch(name, root, folder, archive)
    source = folder if folder.is_dir() else archive
    log.info(f"{name}: decoding the JPEGs of {source}, this takes a minute")
    try:
        if source == folder:
            return _entries(_folder_files(folder)), source
        with zipfile.ZipFile(archive) as z:
            return _entries(_zip_files(archive, z)), source
    except (UserError, MemoryError):
        raise
    except PermissionError as error:
        raise unreadable(error.filename or source, error) from error
    except Exception as error:  # whatever a damaged zip provokes
        raise UserError(f"{source}: damaged or not TinyImageNet ({short(error)})") from error


def _fetch(name, root, folder, archive):
    from torchvision.datasets.utils import download_url

    log.info(f"{name}: downloading {archive.name} (237 MB) into {root}")
    part = archive.with_suffix(".part")  # an interrupted download must not pass for the archive
    with fetching(name, root, (archive.name, f"{folder.name}/")):
        download_url(URL, root, part.name, MD5)
        os.replace(part, archive)


class _Files:
    """The files below a folder or in a zip. paths: with slashes. read: function(path) -> bytes."""

    def __init__(self, source, paths, read):
        self.source = source
        self.paths = paths
        self.read = read

    def lines(self, name):
        """The lines of the text file called `name`, wherever it lies; none if it is not there."""
        found = sorted(path for path in self.paths if path.split("/")[-1] == name)
        if not found:
            return []
        return self.read(found[0]).decode("utf-8-sig", errors="replace").splitlines()


def _folder_files(folder):
    seen = list(all_below(folder))
    refuse_gone(seen)
    kinds = ("picture", "outside", "other")  # "other" holds the texts
    files = [found.path for found in seen if found.kind in kinds]
    paths = [path.relative_to(folder).as_posix() for path in files]

    def read(path):
        return (folder / path).read_bytes()

    return _Files(folder, paths, read)


def _zip_files(archive, opened):
    names = [name for name in opened.namelist() if not name.endswith("/")]
    paths = [name for name in names if not any(map(is_hidden, name.split("/")))]
    return _Files(archive, paths, opened.read)


@dataclass(frozen=True)
class TinyPicture:
    """A picture of TinyImageNet as its path tells it.

    split: train or val. wnid: the class, or None. stem: the name of the file without its suffix,
    which is the same however the picture is stored.
    """

    split: str
    wnid: str | None
    stem: str
    path: str

    @classmethod
    def at(cls, path):
        """From a path below the folder or in the archive; None for a picture of neither split.

        Accepted: the official train/<wnid>/images/ and val/images/, class folders in both, images/
        or not, and all that in a folder of any name.
        """
        *folders, file = path.split("/")
        split = next((folder for folder in folders if folder in ("train", "val")), None)
        if split is None:
            return None
        below = folders[folders.index(split) + 1 :]
        wnids = [folder for folder in below if re.fullmatch(r"n\d+", folder)]
        if len(wnids) > 1 or set(below) - {"images", *wnids}:
            return None
        if wnids:
            return cls(split, wnids[0], Path(file).stem, path)
        named = re.match(r"(n\d+)_", file) if split == "train" else None
        return cls(split, named.group(1) if named else None, Path(file).stem, path)


def _pictures(files):
    """The pictures of both splits, each once, with its class: [`TinyPicture`], sorted by path."""
    annotated = _annotated(files)
    pictures = {}
    strangers = []
    nameless = []
    twice = []
    for path in sorted(path for path in files.paths if Path(path).suffix.lower() in PICTURES):
        picture = TinyPicture.at(path)
        if picture is None:
            strangers.append(path)
            continue
        wnid = picture.wnid
        if picture.split == "val":
            wnid = annotated.get(picture.stem, picture.wnid)
            if picture.wnid not in (None, wnid):
                other = f"{path} is of class {wnid} by val_annotations.txt"
                raise UserError(f"{files.source}: {other}")
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
        raise UserError(f"{files.source}: {nameless[0]} ({len(nameless):,} such pictures): {where}")
    for split in ("train", "val"):
        if not any(picture.split == split for picture in pictures.values()):
            example = f"{split}/n01443537/images/*.JPEG"
            ignored = f", but {some(strangers)}" if strangers else ""
            raise UserError(f"{files.source}: no pictures in {split}/, as {example}{ignored}")
    # The official test split has no labels.
    strangers = [path for path in strangers if "test" not in path.split("/")]
    if strangers:
        where = "in no class folder of train/ or val/"
        log.info(printable(f"TinyImageNet: ignored what is {where}: {some(strangers)}"))
    if twice:
        log.info(printable(f"TinyImageNet: counted once, though found twice: {some(twice)}"))
    return list(pictures.values())


def _annotated(files):
    """The classes of val_annotations.txt: {name of the file without its suffix: wnid}."""
    wnid_of = {}
    for line in files.lines("val_annotations.txt"):
        words = line.split()  # file name, wnid, bounding box
        if len(words) >= 2:
            wnid_of[Path(words[0]).stem] = words[1]
    return wnid_of


def _entries(files):
    """The .pt layout from the official `_Files`.

    Labels are positions among the sorted wnids of train/. Images are sorted by label, then by file
    name. Classes are named as words.txt does, if it is there.
    """
    pictures = _pictures(files)
    wnids = sorted({picture.wnid for picture in pictures if picture.split == "train"})
    listed = {line.strip() for line in files.lines("wnids.txt")} - {""}
    lacking = sorted(listed - set(wnids))
    if lacking:
        lacks = f"no pictures in train/ of classes in wnids.txt: {some(lacking)}"
        raise UserError(f"{files.source}: {lacks}")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = _decoded(files, pictures, "train", label_of)
    test = _decoded(files, pictures, "val", label_of)
    words = dict(line.split("\t", 1) for line in files.lines("words.txt") if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0] for wnid in wnids]
    return layout(names, train, test)


def _decoded(files, pictures, split, label_of):
    """The pictures of a split: images uint8 (n, 3, SIDE, SIDE), labels (n,)."""
    of_split = [picture for picture in pictures if picture.split == split]
    for picture in of_split:
        if picture.wnid not in label_of:
            strange = f"{picture.path} has class {picture.wnid}, train/ has none such"
            raise UserError(f"{files.source}: {strange}")
    of_split.sort(key=lambda picture: (label_of[picture.wnid], Path(picture.path).name))
    images = np.empty((len(of_split), 3, SIDE, SIDE), np.uint8)
    for i, picture in enumerate(track(of_split, "TinyImageNet: pictures")):
        images[i] = _pixels(files, picture.path)
    return images, [label_of[picture.wnid] for picture in of_split]


def _pixels(files, path):
    """The pixels of a picture, uint8 (3, SIDE, SIDE)."""
    from PIL import Image

    content = files.read(path)
    try:
        image = Image.open(io.BytesIO(content)).convert("RGB")  # some are greyscale
    except Exception as error:  # whatever a damaged JPEG provokes
        raise UserError(f"{files.source}: {path} cannot be decoded ({short(error)})") from error
    if image.size != (SIDE, SIDE):
        size = f"{image.height}x{image.width} pixels, not {SIDE}x{SIDE}"
        raise UserError(f"{files.source}: {path} has {size}")
    return np.asarray(image).transpose(2, 0, 1)
