"""Pictures on a disk: which files they are, the class folders they lie in, and how one is read."""

import contextlib
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bacon.errors import UserError, one_line, short
from bacon.files import there, unreadable
from bacon.messages import log
from bacon.progress import track

# Endings of pictures' names: those of torchvision's ImageFolder, and what browsers and cameras
# write.
PICTURES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".jp2",
}  # fmt: skip
# What systems leave beside pictures, some of it thumbnails.
SYSTEM = {
    "__MACOSX", "__pycache__", "lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN",
    "System Volume Information", "Thumbs.db", "desktop.ini",
}  # fmt: skip
# What is not read, by the kind of a `Found`, in words that fit any number.
IGNORED = {
    "hidden": "hidden or of the system",
    "other": "not a picture",
    "outside": "in no class folder",
    "again": "a link to a folder that is read already",
}


@dataclass(frozen=True)
class Found:
    """A place below a folder of pictures.

    kind: "picture", "gone" for a link to nothing, or a key of IGNORED.
    """

    path: Path
    kind: str


@dataclass(frozen=True)
class ClassFolder:
    """One class of a folder of classes.

    name: composed (NFC). folders: several where their names look alike. above: the folder of
    classes.
    """

    name: str
    folders: tuple[Path, ...]
    above: Path

    def contents(self):
        """Yield a `Found` for everything in it, at any depth."""
        return look_through(self.folders, self.above)

    def pictures(self):
        """Yield the path of every picture in it, at any depth."""
        return (found.path for found in self.contents() if found.kind == "picture")


@dataclass(frozen=True)
class ClassPictures:
    """The pictures of one class, sorted."""

    name: str
    files: list[Path]


def composed(name):
    """A name with accents and letters in one character (NFC), whatever the system stores."""
    return unicodedata.normalize("NFC", name)


def is_hidden(name):
    """Whether a file or folder of this name is none of the user's pictures."""
    return name.startswith(".") or name in SYSTEM


def printable(text):
    """A text as one line that every UTF-8 terminal takes: names of files may hold any bytes."""
    return one_line(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def some(paths):
    """A number of names as '4 (a, b, c, ...)'."""
    names = ", ".join(str(path) for path in paths[:3])
    return f"{len(paths):,} ({names}{', ...' if len(paths) > 3 else ''})"


def _entries(folder):
    """What lies in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(folder, error) from error


def _is_gone(entry):
    """Whether what `_entries` gave is a link that leads nowhere."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def _identity(folder):
    """What tells a folder from all others, by whatever links it is reached."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def look_through(folders, above=None):
    """Yield a `Found` for every file below `folders`, and for every folder that is left out.

    Links are followed; each folder is read once, `above` never. UserError for a folder that cannot
    be read.
    """
    seen = {_identity(above)} if above else set()
    ahead = []
    for folder in folders:
        seen.add(_identity(folder))
        ahead.append(Path(folder))
    while ahead:
        here = ahead.pop()
        for entry in _entries(here):
            path = here / entry.name
            if is_hidden(entry.name):
                yield Found(path, "hidden")
            elif _is_gone(entry):
                yield Found(path, "gone")
            elif entry.is_dir():
                identity = _identity(path)
                if identity in seen:
                    yield Found(path, "again")
                else:
                    seen.add(identity)
                    ahead.append(path)
            elif entry.is_file() and path.suffix.lower() in PICTURES:
                yield Found(path, "picture")
            else:
                yield Found(path, "other")


def _top(folder):
    """What lies in a folder of classes: ([`ClassFolder`] sorted by name, [`Found`] of all else)."""
    of_name = {}
    ignored = []
    folder = Path(folder)
    root = _identity(folder)
    for entry in _entries(folder):
        path = folder / entry.name
        if is_hidden(entry.name):
            ignored.append(Found(path, "hidden"))
        elif _is_gone(entry):
            ignored.append(Found(path, "gone"))
        elif entry.is_dir():
            if _identity(path) == root:
                ignored.append(Found(path, "again"))
            else:
                of_name.setdefault(composed(entry.name), []).append(path)
        elif path.suffix.lower() in PICTURES:
            ignored.append(Found(path, "outside"))
        else:
            ignored.append(Found(path, "other"))
    return [ClassFolder(name, tuple(of_name[name]), folder) for name in sorted(of_name)], ignored


def all_below(folder):
    """Yield a `Found` for everything below a folder.

    Each of its folders is looked through by itself: where one is a link to another, what they hold
    is found under both names.
    """
    kinds, rest = _top(folder)
    yield from rest
    for kind in kinds:
        yield from kind.contents()


def class_folders(folder):
    """The `ClassFolder`s in `folder` that hold pictures, at any depth, sorted by name."""
    kinds, _ = _top(folder)
    return [kind for kind in kinds if any(kind.pictures())]


def refuse_gone(found):
    """UserError for the first link to nothing in [`Found`]: it may be a class or a picture."""
    for one in found:
        if one.kind == "gone":
            there(one.path)


def find_pictures(folder):
    """The pictures of all classes of `folder`, none of them decoded: [`ClassPictures`] by name.

    What is ignored is told in one line, and which folders are one class. UserError as of
    `class_names`.
    """
    found = _look_for_pictures(folder)
    if found.ignored:
        log.info(printable(f"{folder}: ignored what is {found.ignored}"))
    for kind in found.kinds:
        if len(kind.folders) > 1:
            alike = f"{len(kind.folders)} folders have names that read {kind.name}"
            log.info(printable(f"{folder}: {alike}: they are one class"))
    return found.classes


def class_names(folder):
    """The names of the classes of `folder`, in the order of `read_class_folders`. Nothing is told.

    UserError if there are no classes, for a class without pictures, which it names, for a link to
    nothing and for a folder that cannot be read.
    """
    return [kind.name for kind in _look_for_pictures(folder).classes]


@dataclass(frozen=True)
class _Classes:
    """What a folder of classes holds. ignored: in words, what is no picture of a class, or ""."""

    kinds: list[ClassFolder]
    classes: list[ClassPictures]
    ignored: str


def _look_for_pictures(folder):
    """The `_Classes` of a folder, with the errors of `class_names`."""
    kinds, ignored = _top(folder)
    classes = []
    empty = []
    for kind in kinds:
        contents = list(kind.contents())
        ignored += [found for found in contents if found.kind != "picture"]
        files = sorted(found.path for found in contents if found.kind == "picture")
        if not files:
            empty.append(kind)
        classes.append(ClassPictures(kind.name, files))
    refuse_gone(ignored)
    names = {}
    for found in ignored:
        names.setdefault(found.kind, []).append(found.path.relative_to(folder))
    listed = "; ".join(f"{IGNORED[kind]}: {some(names[kind])}" for kind in IGNORED if kind in names)
    if len(empty) == len(kinds):
        raise UserError(f"{folder}: has no class folders with pictures{listed and f' ({listed})'}")
    if empty:
        others = f" and {len(empty) - 1} other class folders" if len(empty) > 1 else ""
        advice = f"add pictures or move it away{listed and f' (ignored: {listed})'}"
        raise UserError(f"{empty[0].folders[0]}{others}: without pictures; {advice}")
    return _Classes(kinds, classes, listed)


def read_picture(file):
    """A picture file as a Pillow image in RGB, turned as its EXIF data say.

    UserError, naming it, for one that cannot be read or decoded, or that has more than 8 bits.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            picture.load()
            upright = picture
            with contextlib.suppress(Exception):  # damaged EXIF data turn nothing
                upright = ImageOps.exif_transpose(picture)
            mode = picture.mode
            if not mode.startswith(("I", "F")):  # Pillow would make white of all that is above 255
                return upright.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged picture provokes
        if isinstance(error, OSError) and error.errno:
            raise unreadable(file, error) from error
        raise UserError(f"{file}: cannot be decoded ({short(error)})") from error
    raise UserError(f"{file}: has pixels of more than 8 bits (mode {mode}); convert it to 8 bits")


def read_class_folders(folder, im_size=None, advice=""):
    """The pictures of class folders: (names, images uint8 (n,3,H,W), labels (n,)).

    A label is the place of the folder's name in `names`. See `find_pictures` and `decode_pictures`,
    whose errors are its own.
    """
    return decode_pictures(find_pictures(folder), f"{folder}: pictures", im_size, advice)


def decode_pictures(classes, title, im_size=None, advice=""):
    """The pictures of [`ClassPictures`], as `read_class_folders` gives them.

    title: how progress is called.

    im_size: side of a square that pictures are resized to, by their shorter side, then cut at the
    centre; None takes them as they are, all of one size. UserError, naming the picture, for one
    that `read_picture` refuses, or of another size than others, to which `advice` is given.
    """
    from PIL import Image, ImageOps

    images = []
    for file in track([file for kind in classes for file in kind.files], title):
        picture = read_picture(file)
        if im_size:
            picture = ImageOps.fit(picture, (im_size, im_size), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture).transpose(2, 0, 1)
        if images and pixels.shape != images[0].shape:
            _, h, w = pixels.shape
            _, height, width = images[0].shape
            raise UserError(f"{file}: has {h}x{w} pixels, others {height}x{width}{advice}")
        images.append(pixels)
    labels = [label for label, kind in enumerate(classes) for _ in kind.files]
    return [kind.name for kind in classes], torch.from_numpy(np.stack(images)), labels


def is_grey(images):
    """Whether the three channels of images (n,3,H,W) are one and the same."""
    return torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
