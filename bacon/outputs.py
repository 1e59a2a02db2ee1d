"""Where evaluate.py may write. Every output is asked for here before anything is computed.

An output is a new file, or replaces a file of its own kind, which the content tells: a picture
replaces a picture, an order of classes an order, a cache of baselines a cache. It never replaces or
joins what is read, and two outputs never meet.
"""

import dataclasses
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bacon.errors import UserError
from bacon.recipes import IMAGE_FOLDER

PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of every PNG file


@dataclasses.dataclass(frozen=True)
class Kind:
    """What an output is.

    words: for messages. endings: of its names; empty where any name will do. is_own: path ->
    whether that file holds such a thing; None where nothing is ever replaced. required: whether a
    place that cannot be written is an error.
    """

    words: str
    endings: tuple = ()
    is_own: Callable | None = None
    required: bool = True


@dataclasses.dataclass(frozen=True)
class Output:
    """One output: the flag that asks for it, its name as typed, its kind, what it is made from."""

    flag: str
    name: str
    kind: Kind
    source: str


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a command reads: files, and folders of pictures, in which every picture counts."""

    files: Iterable = ()
    folders: Iterable = ()


def is_png(path):
    """Whether the file `path` is a PNG picture, be it cut short."""
    with open(path, "rb") as file:
        return file.read(len(PNG)) == PNG


def is_order(path):
    """Whether the file `path` is an order of classes in JSON."""
    return orders_classes(_json(path))


def orders_classes(order):
    """Whether `order` is a list of each of the numbers 0..n-1, once, of n > 0 classes."""
    if not isinstance(order, list) or not all(type(c) is int for c in order):
        return False
    return len(order) > 0 and sorted(order) == list(range(len(order)))


def is_cache(path):
    """Whether the file `path` is a cache of baselines: {key: [[accuracies], seconds]} in JSON."""
    cache = _json(path)
    return isinstance(cache, dict) and all(map(_is_entry, cache.values()))


def _is_entry(value):
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], list):
        return False
    return all(isinstance(number, (int, float)) for number in (*value[0], value[1]))


def _json(path):
    """What a JSON file holds, None for any other file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


PICTURE = Kind("a PNG picture", (".png",), is_png)
ORDER = Kind("an order of classes", (".json", ".txt"), is_order)
CACHE = Kind("a cache of baselines", (".json",), is_cache, required=False)
SET_FILE = Kind("a set", (".pt", ".pth"))
PICTURES = Kind("a folder of pictures")

# Endings of names that promise a kind of file, of which a new output must not make another.
_PROMISES = {
    ".bmp", ".csv", ".eps", ".gif", ".gz", ".h5", ".html", ".ipynb", ".jpeg", ".jpg", ".json",
    ".jsonl", ".log", ".mat", ".md", ".npy", ".npz", ".pdf", ".pkl", ".png", ".pt", ".pth", ".py",
    ".safetensors", ".sh", ".svg", ".tar", ".tex", ".tif", ".tiff", ".txt", ".webp", ".yaml",
    ".yml", ".zip",
}  # fmt: skip


def of_scorer(args):
    """What the flags of evaluate.py write, a list of `Output`; for --plot see plots.plot_runs."""
    source = ", ".join([*args.paths[:3], *["..."] * (len(args.paths) > 3)])
    source = source or f"--baseline {','.join(args.baseline)}"
    export, exported = args.export or ("", None)
    kept = Path(args.save_path) / "baselines.json" if args.baseline and not args.biased else None
    wanted = (
        (f"--export {export}", exported, PICTURES if export == "png" else SET_FILE),
        ("--grid", args.grid, PICTURE),
        ("--tsne", args.tsne, PICTURE),
        ("--relabel", args.relabel if args.diagnose else None, ORDER),
        ("--save_path", None if kept is None else str(kept), CACHE),
    )
    return [Output(flag, name, kind, source) for flag, name, kind in wanted if name is not None]


def inputs(found, data_path, dataset=None):
    """The `Inputs` of evaluate.py: `found`, files and folders of pictures, and real pictures.

    dataset: its name, None where it is still to be found.
    """
    root = path_of(data_path)
    real = [root / "tiny-imagenet-200"]
    if dataset in (None, IMAGE_FOLDER) and (root / "train").is_dir():
        real += [root / name for name in ("train", "val", "test")]
    folders = [path for path in (*found, *real) if path.is_dir()]
    return Inputs([path for path in found if not path.is_dir()], folders)


def path_of(name):
    """The path that a name on the command line means."""
    return Path(os.path.expanduser(name))


def check(outputs, read):
    """UserError, one line, unless all `outputs` can be written without harm to any other file.

    outputs: a list of `Output`. read: the `Inputs` of the same command. Nothing is written here.
    """
    for output in outputs:
        _check(output, read)
    for k, one in enumerate(outputs):
        for other in outputs[:k]:
            place = Path(os.path.realpath(path_of(one.name)))
            other_place = Path(os.path.realpath(path_of(other.name)))
            if place.is_relative_to(other_place) or other_place.is_relative_to(place):
                both = f"{other.flag} {other.name} and {one.flag} {one.name}"
                clash = "one would replace the other or lie within it; give them names apart"
                raise UserError(f"{both}: {clash}")


def _check(output, read):
    """UserError unless this output can be written; see `check`."""
    kind = output.kind
    path = path_of(output.name)
    target = Path(os.path.realpath(path))
    linked = f" (a link to {target})" if os.path.islink(path) else ""
    refused = f"{output.flag} {output.name}"
    _check_outside(target, read.folders, f"{refused}{linked}")
    try:
        found = os.stat(path)
    except FileNotFoundError:
        found = None
    except OSError as error:  # below a file, a name too long, links in a circle
        if not kind.required:
            return
        raise UserError(f"{refused}: cannot be written ({error.strerror})") from error
    is_there = found is not None or os.path.islink(path)
    if kind.is_own is None and is_there:
        raise UserError(f"{refused}{linked}: exists already; choose another name")
    if found is None:
        _check_new(output, target, refused, linked)
    else:
        _check_replaced(output, path, found, read.files, f"{refused}{linked}")


def _check_outside(target, folders, refused):
    """UserError if a place lies within folders whose pictures are read."""
    for folder in folders:
        if target.is_relative_to(os.path.realpath(folder)):
            within = f"lies within {folder}, whose pictures are read; name a place outside"
            raise UserError(f"{refused}: {within}")


def _check_replaced(output, path, found, read_files, refused):
    """UserError unless what is there may be replaced: a file of the output's own kind.

    found: os.stat of it. read_files: files that the same command reads.
    """
    for file in read_files:
        if os.path.exists(file) and os.path.samefile(path, file):
            replaced = f"would replace {file}, which is read; give another name"
            raise UserError(f"{refused}: {replaced}")
    if stat.S_ISDIR(found.st_mode):
        example = path / f"new{output.kind.endings[0]}"
        raise UserError(f"{refused}: is a folder; name a file, such as {example}")
    if stat.S_ISCHR(found.st_mode):  # such as /dev/null, in which nothing can be lost
        return
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{refused}: is neither a file nor a new name; give another name")
    try:
        is_own = _is_own(output.kind, path, found)
        what = None if is_own else _what(path)
        if output.kind.required and is_own:
            os.close(os.open(path, os.O_WRONLY))  # whether it may be written
    except OSError as error:
        raise UserError(f"{refused}: cannot be written ({error.strerror})") from error
    if not is_own:
        replaced = f"would replace {path}, which is {what}; give another name"
        raise UserError(f"{refused}: {output.kind.words} of {output.source} {replaced}")


def _is_own(kind, path, found):
    """Whether a file is of a `Kind`: by its content, or empty and with an ending of that kind."""
    target = Path(os.path.realpath(path))
    if found.st_size == 0 and target.suffix.lower() in kind.endings:
        return True
    return kind.is_own(path)


def _check_new(output, target, refused, linked):
    """UserError unless a new file can be made: by its name, in a folder that is there or not."""
    kind = output.kind
    ending = target.suffix.lower()
    if kind.endings and output.name.endswith(("/", os.sep)):
        example = f"{output.name}new{kind.endings[0]}"
        raise UserError(f"{refused}: the name of a folder; name a file, such as {example}")
    if kind.endings and ending in _PROMISES and ending not in kind.endings:
        promise = f"{kind.words} is written there, but the name ends in {ending}"
        advice = f"give one that ends in {kind.endings[0]}"
        raise UserError(f"{refused}{linked}: {promise}; {advice}")
    folder = target.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not kind.required:
        return
    try:
        with tempfile.TemporaryFile(dir=folder):  # more than permissions: read-only disks, /proc
            pass
    except OSError as error:
        why = f"{folder}: {error.strerror}"
        raise UserError(f"{refused}{linked}: cannot be written, {why}") from error


def _what(path):
    """In words what a file is that must not be replaced."""
    with open(path, "rb") as file:
        start = file.read(200)
    if zipfile.is_zipfile(path):
        return "a .pt file or another archive"
    if start.startswith(b'{"event"') or b'"event": ' in start:
        return "the log of a run"
    for kind in (PICTURE, ORDER, CACHE):
        if kind.is_own(path):
            return kind.words
    return "a file of another kind" if start else "an empty file of another kind"


def prepare(name):
    """The path of an output that `check` has passed, with its folder made where it is missing."""
    path = path_of(name)
    Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
    return path
