"""Files of other programs: of which kind one is, and its images and labels, without running code.

A kind is told by the first bytes, never by the name. What can be run when it is read, a pickle or a
class of a program, is refused with the lines of Python that convert it. `understood` puts the forms
in which people keep one set or several into two: DC's dictionary {'data': [[images, labels], ...]}
and a `Pair`.
"""

import _codecs
import argparse
import dataclasses
import re
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from bacon.errors import UserError, damaged
from bacon.files import HoldsCode, load_torch

# Types of the arrays and numbers of numpy that files hold beside tensors.
_NUMPY_TYPES = (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32",
    "uint16", "uint8", "bool", "complex128", "complex64", "str", "bytes", "object",
)  # fmt: skip


def _allowed_classes():
    """Classes that `load` makes objects of, as torch.serialization.safe_globals takes them.

    None of them runs code of the file. A pickle names numpy's functions by one of two modules.
    """
    core = np._core if hasattr(np, "_core") else np.core
    functions = {"scalar": core.multiarray.scalar, "_reconstruct": core.multiarray._reconstruct}
    allowed = [argparse.Namespace, np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in _NUMPY_TYPES]
    for name, function in functions.items():
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            allowed.append((function, f"{module}.{name}"))
    # Settings hold paths, under a name that depends on the version and on the system.
    for name in ("pathlib.PosixPath", "pathlib._local.PosixPath"):
        allowed.append((PurePosixPath, name))
    for name in ("pathlib.WindowsPath", "pathlib._local.WindowsPath"):
        allowed.append((PureWindowsPath, name))
    return [*allowed, _codecs.encode]  # a pickled array carries its bytes as encoded text


# The first bytes of files that hold no tensors as they are: (bytes, what the file is, what to do).
_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file", "fetch it with git lfs pull"),
    (b"<!doctype html", "a web page, not the file itself", "download the file again"),
    (b"<html", "a web page, not the file itself", "download the file again"),
    (b"\x89hdf", "an HDF5 file, which is not read", "save its arrays with numpy.savez"),
    (b"\x1f\x8b", "packed by gzip", "unpack it first"),
    (b"7z\xbc\xaf", "packed by 7-Zip", "unpack it first"),
    (b"rar!", "packed by RAR", "unpack it first"),
    (b"\x89png", "a single picture", "give a folder of class folders of pictures"),
    (b"\xff\xd8\xff", "a single picture", "give a folder of class folders of pictures"),
)
_NPY = b"\x93NUMPY"
_PICKLE = b"\x80"
# How torch.save began its files before they were zip archives: a pickle of this number.
_OLD_TORCH = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
# A safetensors file begins with the length of its header, 8 bytes, and the header, which is JSON.
_SAFETENSORS = re.compile(rb'.{5}\0\0\0\{\s*"', re.DOTALL)
PICKLES = (".pkl", ".pickle")


def load(path):
    """Content of a file: of .npz a dictionary of tensors, of .npy a tensor, else of a .pt file.

    UserError, naming the file, if it is of another kind, damaged or may run code.
    """
    path = Path(path)
    if path.is_fifo() or path.is_char_device():
        return load_torch(path)  # which refuses it
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if not start:
        raise UserError(f"{path}: is empty (0 bytes); copy it again")
    for begins, what, advice in _OTHER_KINDS:
        if start.lower().startswith(begins):
            raise UserError(f"{path}: is {what}; {advice}")
    if start.startswith(_NPY):
        with _numpy_file(path):
            # A map of the file fails where its header promises more than it holds.
            return _tensor(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            return _load_npz(path, names)
        if any("/code/" in name for name in names):
            raise UserError(f"{path}: is a program (TorchScript), which is not run, and no set")
    if (start.startswith(_PICKLE) or path.suffix.lower() in PICKLES) and not _is_torch(path, start):
        raise UserError(
            f"{path}: is a pickle, which may run code when it is read, so it is not read. If you "
            f"trust where it is from, convert it once in Python: "
            f"import functools, pathlib, pickle, torch; "
            f"torch.load = functools.partial(torch.load, map_location='cpu'); "
            f"images, labels = pickle.loads(pathlib.Path({str(path)!r}).read_bytes()); "
            f"{_saving(path)}"
        )
    if _SAFETENSORS.match(start):
        raise UserError(
            f"{path}: is a safetensors file, which is not read. Convert it once in Python, with "
            f"its own names of images and labels: import torch; "
            f"from safetensors.torch import load_file; content = load_file({str(path)!r}); "
            f"images, labels = content['images'], content['labels']; {_saving(path)}"
        )
    try:
        with torch.serialization.safe_globals(_allowed_classes()):
            return load_torch(path)
    except HoldsCode as error:
        raise UserError(
            f"{error}. If you trust where it is from, save its tensors once in Python, wherever "
            f"it keeps them: import torch; "
            f"content = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
            f"images, labels = content['data'][0]; {_saving(path)}"
        ) from error


def _is_torch(path, start):
    """Whether torch.save wrote a file: today's are zip archives, old ones begin with a number."""
    return _OLD_TORCH in start or zipfile.is_zipfile(path)


def _saving(path):
    """The Python that saves `images` and `labels` beside `path` in DC's layout."""
    name = str(path.with_name(path.name + ".pt"))
    return f"torch.save({{'data': [[images, labels]]}}, {name!r})"


def _numpy_file(path):
    return damaged(f"{path}: damaged, or holds Python objects, which are not read")


def _load_npz(path, names):
    """The arrays of a .npz file as {name: tensor}; None for those of Python objects or text."""
    if not any(name.endswith(".npy") for name in names):
        raise UserError(f"{path}: is a zip archive without tensors or arrays; unpack it first")
    content = {}
    with _numpy_file(path):
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise ValueError(str(error)) from error
        if broken:
            raise ValueError(f"the checksum of {broken} does not fit")
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                try:
                    content[name] = _tensor(arrays[name])
                except (TypeError, ValueError):
                    content[name] = None  # objects or text: no tensor
    return content


def _tensor(array):
    """A numpy array or number as a tensor of its own. TypeError for one of objects or text."""
    array = np.asarray(array)
    # A copy, because a tensor takes no foreign order of bytes and no array that is read-only.
    native = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(native)).reshape(array.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """One set as images and labels, tensors, that stand beside each other.

    rate: the judges' rate that it was learnt with, or None. labels_of: the name of the file of its
    labels, "" if it is that of the images.
    """

    images: torch.Tensor
    labels: torch.Tensor
    rate: float | None = None
    labels_of: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Understood:
    """The content of a file in a form that has a reader. note: what of it is not used, in words."""

    content: Any
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Shaped:
    """Images (n,C,H,W). words: how else they were stored, "" if they were stored so."""

    images: torch.Tensor
    words: str = ""


# Names of entries and files under which programs keep them. The first that is there counts.
_IMAGES = (
    "images", "image_syn", "images_syn", "syn_images", "image_tensor", "image", "imgs", "data", "x",
    "x_syn", "x_train",
)  # fmt: skip
_LABELS = (
    "labels", "label_syn", "labels_syn", "syn_labels", "soft_labels", "hard_labels", "label",
    "targets", "target", "y", "y_syn", "y_train",
)  # fmt: skip
_RATES = ("lr", "syn_lr", "lr_net")
_FILES_OF_LABELS = ("labels", "label", "targets")
_FILES_OF_RATES = ("lr",)
_IMAGES_IN_NAME = re.compile("(?<![a-z])(images|image|imgs|img)(?![a-z])", re.IGNORECASE)


def understood(path, content):
    """`Understood` of what a file holds. A form that is not known stays as it is.

    DC's dictionary keeps its other entries; its experiments become lists [images, labels] of
    tensors. UserError for a tensor of images without a file of labels beside it.
    """
    if _is_array(content):
        content = _as_tensor(content)
        # Images of other shapes, see `shaped`, are told from other tensors by labels of their name.
        labels_of_its_name = _is_named_after(_beside(path, _FILES_OF_LABELS), path)
        if content.dim() == 4 or (content.dim() > 1 and labels_of_its_name):
            return Understood(_pair_of_files(path, content))
        return Understood(content)
    if isinstance(content, dict):
        return _of_dictionary(path, content)
    if isinstance(content, (list, tuple)) and len(content) > 1 and _is_array(content[0]):
        images, labels, *others = map(_as_tensor, content)
        if len(others) == 1 and _is_array(others[0]) and others[0].numel() == 1:
            return Understood(Pair(images, labels, _rate(path, others[0])))
        note = f", not used: {len(others)} entries after images and labels" if others else ""
        return Understood([images, labels], note)
    return Understood(content)


def _of_dictionary(path, content):
    data = content.get("data")
    if "data" not in content or _is_array(data):
        return _of_names(path, content)
    if not isinstance(data, (dict, list, tuple)):
        raise _no_pairs(path, data)
    unused = [str(name) for name in content if name not in ("data", "accs_all_exps")]
    experiments = _experiments(path, data)
    if any(len(one) > 2 for one in experiments):
        experiments = [one[:2] for one in experiments]
        unused.append("what follows images and labels in 'data'")
    note = f", not used: {', '.join(unused)}" if unused else ""
    return Understood({**content, "data": experiments}, note)


def _no_pairs(path, value):
    """The error about a 'data' that is not of DC's form."""
    held = type(value).__name__ + (" without labels" if _is_array(value) else "")
    found = f"'data' holds {held}, not [images, labels]"
    return UserError(f"{path}: damaged set or another layout: {found}")


def _experiments(path, data):
    """The 'data' of DC's dictionary as a list of experiments [images, labels, ...], as tensors.

    One pair, or one dictionary of named entries, in place of a list of them is one experiment.
    """
    one_pair = isinstance(data, (list, tuple)) and len(data) > 1 and _is_array(data[0])
    if one_pair or isinstance(data, dict):
        data = [data]
    experiments = []
    for one in data:
        if isinstance(one, dict):
            images = _first_of(one, _IMAGES)
            labels = _first_of(one, _LABELS)
            if images and labels:
                one = [one[images], one[labels]]
        if not isinstance(one, (list, tuple)) or len(one) < 2:
            raise _no_pairs(path, one)
        experiments.append([_as_tensor(value) for value in one])
    return experiments


def _of_names(path, content):
    """A dictionary with images and labels under names of their own, as a `Pair`."""
    images = _first_of(content, _IMAGES)
    labels = _first_of(content, _LABELS)
    rate = _first_of(content, _RATES)
    if images == "data" and not labels:
        raise _no_pairs(path, content[images])
    if not (images and labels and _is_array(content[images])):
        return Understood(content)
    unused = [str(name) for name in content if name not in (images, labels, rate)]
    learnt = _rate(path, content[rate]) if rate else None
    pair = Pair(_as_tensor(content[images]), _as_tensor(content[labels]), learnt)
    return Understood(pair, f", not used: {', '.join(unused)}" if unused else "")


def _first_of(content, names):
    return next((name for name in names if content.get(name) is not None), None)


def _is_array(value):
    return isinstance(value, (torch.Tensor, np.ndarray))


def _as_tensor(value):
    """An array, a list of numbers or one of tensors of one shape as a tensor; else the value."""
    if isinstance(value, np.ndarray):
        return _tensor(value)
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(one, (int, float, np.number)) for one in value):
            return _tensor(np.array(value))
        if all(isinstance(one, torch.Tensor) and one.shape == value[0].shape for one in value):
            return torch.stack(tuple(value))
    return value


def _rate(path, value):
    """A learnt rate as a number. UserError, naming the file, for anything else."""
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: holds {type(value).__name__}, no learning rate") from error
    if len(numbers) != 1:
        found = f"{len(numbers)} numbers in place of one learning rate"
        raise UserError(f"{path}: holds {found}; see --lr_net")
    rate = numbers.item()
    if not 0 < rate < float("inf"):
        advice = "without that file the judges train with the protocol's, or with --lr_net"
        raise UserError(f"{path}: holds {rate}, which is no learning rate; {advice}")
    return rate


def _pair_of_files(path, images):
    labels = _beside(path, _FILES_OF_LABELS)
    if not labels:
        name = _names_beside(path, _FILES_OF_LABELS)[0]
        raise UserError(f"{path}: a tensor of images without labels; put them beside it as {name}")
    rate = _beside(path, _FILES_OF_RATES)
    learnt = _rate(rate, load(rate)) if rate else None
    return Pair(images, _as_tensor(load(labels)), learnt, labels.name)


def _names_beside(path, words):
    """Names that files of labels or rates beside a file of images have, the likelier first.

    As MTT (images_best.pt), DATM (images.pt), DataDAM (X_images.pt) and DD-Ranking
    (images_DC_..._best.pt) name them: the word for images gives way. MTT keeps the pixels of a set
    as images_zca_best.pt too.
    """
    stem = path.stem
    suffix = path.suffix
    if not _IMAGES_IN_NAME.search(stem):
        own = [f"{stem}_{word}{suffix}" for word in words]
        return own + [f"{word}{end}{suffix}" for word in words for end in ("_best", "")]
    stems = dict.fromkeys((stem, stem.replace("_zca", "")))
    return [_IMAGES_IN_NAME.sub(word, one, count=1) + suffix for one in stems for word in words]


def _beside(path, words):
    """The file of labels, or of a rate, beside a file of images, or None."""
    files = (path.with_name(name) for name in _names_beside(path, words) if name != path.name)
    return next((file for file in files if file.is_file()), None)


def _is_named_after(file, path):
    """Whether a file beside the file of images `path` is named after it: it belongs to it alone."""
    if file is None:
        return False
    return bool(_IMAGES_IN_NAME.search(path.stem)) or file.name.startswith(f"{path.stem}_")


def belong_to(path):
    """Files that by their names belong to the images in the file `path`, and are no sets."""
    names = [*_names_beside(path, _FILES_OF_LABELS), *_names_beside(path, _FILES_OF_RATES)]
    names.append(path.name.replace("images_", "images_zca_", 1))
    files = {path.with_name(name) for name in names if name != path.name}
    return {file for file in files if _is_named_after(file, path)}


def has_labels(path):
    """Whether a file of labels lies beside a file of images."""
    return _beside(path, _FILES_OF_LABELS) is not None


def shaped(images, shape):
    """`Shaped` images of a dataset's `shape` (C,H,W).

    They may be stored (n,H,W,C), grey ones (n,H,W), or flat, (n, C*H*W). Others stay as they are.
    """
    channels, height, width = shape
    found = tuple(images.shape[1:])
    if found == (channels, height, width):
        return Shaped(images)
    if found == (height, width, channels):
        return Shaped(images.permute(0, 3, 1, 2), ", channels last")
    if found == (height, width) and channels == 1:
        return Shaped(images[:, None], ", without a dimension of channels")
    if found == (channels * height * width,):
        return Shaped(images.reshape(-1, *shape), ", flat, channels first")
    return Shaped(images)
