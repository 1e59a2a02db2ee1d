"""Saved distilled sets, whoever saved them: recognise the layout, read it, write it in another one.

Layouts are told apart by what a file or folder holds, never by its name, and are read without running any code in them:

    these scripts               {'data': [[images, labels], ...], 'meta': {...}}, normalised
    DC, DSA, DM, IDM, BACON     {'data': [[images, labels], ...], ...}, normalised; IDM and BACON put four on a canvas
    MTT, DATM                   a tensor of images beside one of labels: images_best.pt, labels_best.pt, lr_best.pt
    NCFM                        [images, labels], pixels in [0,1], four images on a canvas
    image folder                a folder of pictures per class

Every layout comes out as the same `SavedSet`. What a file does not say itself is an assumption, which `assumed` names.
"""

import _codecs
import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import torch

import augment
import data
import utils
from utils import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What a set must fit: the images' shape (C,H,W), the number of classes, mean and std of pixels in [0,1]."""

    dataset: str
    shape: tuple
    num_classes: int
    mean: tuple
    std: tuple
    classes: tuple = ()  # their names, if known

    @classmethod
    def of(cls, dataset):
        """From a data.Dataset."""
        shape = (dataset.channels, *dataset.im_size)
        return cls(dataset.name, shape, dataset.num_classes, dataset.mean, dataset.std, tuple(dataset.classes))


@dataclasses.dataclass(frozen=True, eq=False)
class SavedSet:
    """One synthetic set: canvases float32 (n,C,H,W), normalised or whitened; labels int64 (n,) or logits (n,classes).

    factor: 2 if a canvas holds four images. zca: None, or the space the whitening was fitted in, "normalised" images
    (these scripts) or "pixels" in [0,1] (MTT). lr: the judges' rate that the set was learnt with, if it was. meta: the
    dictionary of these scripts, else empty. recorded: {architecture: [accuracy in [0,1]]} of this experiment.
    """

    path: str
    exp: int
    layout: str
    canvases: torch.Tensor
    labels: torch.Tensor
    factor: int = 1
    zca: str | None = None
    lr: float | None = None
    meta: dict = dataclasses.field(default_factory=dict)
    recorded: dict = dataclasses.field(default_factory=dict)
    assumed: str = ""

    def decoded(self):
        """The images to train on, (factor^2 n, C, H, W), and their labels, in the order of `data.load_distilled`."""
        labels = torch.cat([self.labels] * self.factor**2)
        return augment.split(self.canvases, self.factor), labels

    def hard_labels(self):
        """Labels int64 (n,) of the canvases: of soft ones, the likeliest class."""
        return self.labels if self.labels.dim() == 1 else self.labels.argmax(1)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def _numpy_numbers():
    """What torch.load must be allowed to build so that DC's files load: their accuracies are numpy numbers."""
    scalar = np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar
    kinds = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)}
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *kinds, _codecs.encode]  # a pickled number carries its bytes as encoded text


def load_file(path):
    """Content of a .pt file: tensors, numbers and plain containers; code in it is refused, never run (UserError)."""
    with torch.serialization.safe_globals(_numpy_numbers()):
        return utils.load_torch(path)


def read_meta(path):
    """The meta dictionary of a set saved by these scripts; {} for any other file or folder.

    UserError if there is nothing at `path` or it cannot be read.
    """
    for file in _files(path):
        saved = load_file(file) if file.is_file() else None
        if _is_ours(saved):
            return _meta(file, saved)
    return {}


def read(path, facts, factor=None, zca=False):
    """All sets at `path`, a file or a folder, as a list of SavedSet that fit `facts` (a `Facts`).

    factor: 1 or 2 overrides what a layout implies, zca: the set lives in whitened space; our own files say both.
    Raises UserError, one line that names the file, for anything that is not a set or is one of other data.
    """
    return [saved for file in _files(path) for saved in _recognise(file, facts, factor, zca)]


def _files(path):
    """What to read at `path`: the file itself, the .pt files of a folder, or a folder of class folders."""
    path = Path(os.path.expanduser(path))
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if files := sorted(file for file in path.glob("*.pt") if not _is_companion(file)):
        return files
    if below := sorted(path.glob("*/*.pt")):
        raise UserError(f"{path}: a folder without sets, but there are some in folders below it, as {below[0]}")
    if data.class_folders(path):
        return [path]
    raise UserError(f"{path}: a folder without sets: neither .pt files nor class folders of pictures")


def _is_companion(file):
    """Whether `file` is no set of its own, by its name and a file beside it: a checkpoint of these scripts; their
    res_x_exp0.pt to res_x.pt; labels_best.pt, lr_best.pt and images_zca_best.pt to images_best.pt."""
    whole = re.sub(r"_exp\d+(?=\.pt$)", "", file.name)
    images = re.sub("^(labels_|lr_|images_zca_)", "images_", file.name)
    return file.name.startswith("ckpt_") or any(
        name != file.name and file.with_name(name).exists() for name in (whole, images)
    )


def _recognise(file, facts, factor, zca):
    """The sets of one file or image folder, checked."""
    if file.is_dir():
        return [_checked(_read_pictures(file, facts, factor, zca), facts)]
    saved = load_file(file)
    if isinstance(saved, dict) and str(saved.get("format")).startswith("BACON checkpoint"):
        raise UserError(f"{file}: the checkpoint of a run that has not ended; its set follows, see --resume")
    for fits, reader in _LAYOUTS:
        if fits(saved):
            try:
                found = [_checked(one, facts) for one in reader(file, saved, facts, factor, zca)]
                if not found:
                    raise UserError(f"{file}: holds no set, its 'data' is empty")
                return found
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                if utils.is_lack_of_memory(error):
                    raise
                raise UserError(f"{file}: damaged set ({data._short(error)})") from error
    what = (
        f"a dictionary of {', '.join(map(str, list(saved)[:6]))}" if isinstance(saved, dict) else type(saved).__name__
    )
    raise UserError(
        f"{file}: holds {what}, none of the known layouts: {{'data': [[images, labels], ...]}}, [images, labels], or a "
        "tensor of images with its labels in a file beside it"
    )


def _space(zca):
    return f"{zca} whitened by ZCA" if zca else "normalised"


# What is needed to judge a set as its run did.
_ARGS = {"dataset", "epoch_eval_train", "batch_train", "lr_net", "dsa_strategy"}


def _meta(file, saved):
    """The meta dictionary of a file of ours; UserError unless it has what the scorer asks it for."""
    args = saved["meta"]["args"]
    if missing := _ARGS - (args.keys() if isinstance(args, dict) else set()):
        raise UserError(f"{file}: damaged set (its 'meta' does not say {', '.join(sorted(missing))})")
    return saved["meta"]


def _read_ours(file, saved, facts, factor, zca):
    meta = _meta(file, saved)
    if meta["args"]["dataset"] != facts.dataset:
        raise UserError(f"{file}: was distilled from {meta['args']['dataset']}, not from {facts.dataset}")
    theirs, here = list(meta.get("classes", facts.classes)), list(facts.classes)
    if facts.dataset == utils.IMAGE_FOLDER and theirs != here:  # the other datasets have one list, by several names
        raise UserError(f"{file}: its classes are {_some(theirs)}, but those of the images are {_some(here)}")
    if factor not in (None, meta["factor"]):
        raise UserError(f"--factor {factor}: {file} says that its factor is {meta['factor']}")
    if zca and not meta["zca"]:
        raise UserError(f"--zca: {file} says that it is not whitened")
    statistics = [(tuple(meta[name]), tuple(getattr(facts, name))) for name in ("mean", "std")]
    moved = any(a != b for a, b in statistics)  # of one's own images, when pictures are added
    if moved and meta["zca"]:
        raise UserError(f"{file}: was whitened on other training images than these")
    numbers = meta.get("experiments", range(len(saved["data"])))
    for k, (canvases, labels) in enumerate(saved["data"]):
        recorded = {}
        for name, accuracies in saved.get("accs_all_exps", {}).items():
            each = len(accuracies) // len(saved["data"])
            recorded[name] = accuracies[k * each : (k + 1) * each]
        space = "normalised" if meta["zca"] else None
        if moved:
            canvases = _normalise(canvases * _column(meta["std"]) + _column(meta["mean"]), facts)
        yield SavedSet(
            str(file), numbers[k], "these scripts'", canvases, labels, meta["factor"], space, None, meta, recorded,
            "nothing, the file says it all" + (", normalised anew by these images' mean and std" if moved else ""),
        )  # fmt: skip


def _some(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _read_dc(file, saved, facts, factor, zca):
    space = "pixels" if zca else None
    for k, (canvases, labels) in enumerate(saved["data"]):
        assumed = f"{_space(space)}, factor {factor or 1}"
        if not factor:
            assumed += " (--factor 2 for IDM's and BACON's)"
        yield SavedSet(str(file), k, "DC", canvases, labels, factor or 1, space, assumed=assumed)


def _read_mtt(file, saved, facts, factor, zca):
    def beside(kind):
        if file.name.startswith("images"):
            return file.with_name(kind + file.name.removeprefix("images"))
        return file.with_name(f"{kind}_best.pt")

    labels, lr = beside("labels"), beside("lr")
    if not labels.is_file():
        raise UserError(f"{file}: a tensor of images without labels; put them beside it as {labels.name}")
    rate = float(load_file(lr)) if lr.is_file() else None
    if rate is not None and not 0 < rate < float("inf"):
        raise UserError(f"{lr}: holds {rate}, which is no learning rate; delete it to train with the protocol's")
    space = "pixels" if zca else None
    assumed = f"{_space(space)}, factor {factor or 1}"
    if not zca:
        assumed += " (MTT and DATM publish sets in ZCA space: --zca)"
    labels = load_file(labels)
    kind = "MTT" if isinstance(labels, torch.Tensor) and labels.dim() == 1 else "MTT, soft labels (DATM)"
    yield SavedSet(str(file), 0, kind, saved, labels, factor or 1, space, rate, assumed=assumed)


def _read_ncfm(file, saved, facts, factor, zca):
    pixels, labels = saved
    low, high = pixels.min().item(), pixels.max().item()
    if low < -1e-3 or high > 1 + 1e-3:
        raise UserError(
            f"{file}: [images, labels] with values {low:.2f}..{high:.2f}, but this layout has pixels in [0,1]"
        )
    if zca:
        raise UserError(f"--zca: {file} holds pixels in [0,1], which are not whitened")
    assumed = f"pixels in [0,1], normalised here, factor {factor or 2}"
    yield SavedSet(str(file), 0, "NCFM", _normalise(pixels.detach(), facts), labels, factor or 2, assumed=assumed)


def _read_pictures(folder, facts, factor, zca):
    if zca:
        raise UserError(f"--zca: {folder} holds pictures, which are not whitened")
    names, pixels, labels = data.read_class_folders(folder)
    if len(names) != facts.num_classes:
        raise UserError(f"{folder}: {len(names)} class folders, but {facts.dataset} has {facts.num_classes} classes")
    if set(names) == set(facts.classes):
        order, how = [facts.classes.index(name) for name in names], "named as its classes are"
    elif all(name.isdecimal() for name in names):
        order, how = [int(name) for name in names], "by their numbers"
    else:
        order, how = range(len(names)), "in sorted order"
    labels = torch.tensor(order)[labels]
    if facts.shape[0] == 1 and data.is_grey(pixels):
        pixels = pixels[:, :1]
    assumed = f"pixels of 8 bits, normalised here, factor {factor or 1}, class folders {how}"
    canvases = _normalise(pixels.float() / 255, facts)
    return SavedSet(str(folder), 0, "image folder", canvases, labels, factor or 1, assumed=assumed)


def _normalise(pixels, facts):
    if pixels.shape[1] != len(facts.mean):
        return pixels  # of other data: `_checked` says so
    return (pixels.float() - _column(facts.mean)) / _column(facts.std)


def _is_ours(saved):
    meta = saved.get("meta") if isinstance(saved, dict) and "data" in saved else None
    return isinstance(meta, dict) and {"args", "factor", "zca"} <= meta.keys()


def _is_images(value):
    return isinstance(value, torch.Tensor) and value.dim() == 4


# Content that tells a layout, and its reader: (file, content, facts, factor, zca) -> sets. The first that fits counts.
_LAYOUTS = (
    (_is_ours, _read_ours),
    (lambda s: isinstance(s, dict) and "data" in s, _read_dc),
    (lambda s: isinstance(s, (list, tuple)) and len(s) == 2 and _is_images(s[0]), _read_ncfm),
    (_is_images, _read_mtt),
)


def _checked(saved, facts):
    """The set with float32 canvases; UserError, one line naming the file, unless it is sound and of this dataset."""
    where = f"{saved.path}, experiment {saved.exp}" if saved.exp else saved.path
    images, labels, dataset = saved.canvases, saved.labels, facts.dataset
    if not _is_images(images):
        raise UserError(f"{where}: images are {_what(images)}, not a tensor (n,C,H,W)")
    if tuple(images.shape[1:]) != facts.shape:
        raise UserError(f"{where}: images are {_size(images.shape[1:])}, but {dataset}'s are {_size(facts.shape)}")
    if len(images) == 0:
        raise UserError(f"{where}: holds no images")
    if not images.is_floating_point():
        raise UserError(f"{where}: images are {_what(images)}, but this layout has normalised float32 ones")
    if saved.factor == 2 and (facts.shape[1] % 2 or facts.shape[2] % 2):
        size = _size(facts.shape[1:])
        raise UserError(f"{where}: factor 2 needs an even height and width, {dataset} has {size}; see --factor")
    if not images.isfinite().all():
        bad = images.isfinite().logical_not().flatten(1).any(1).sum().item()
        raise UserError(f"{where}: {bad} of {len(images)} images have pixels that are NaN or infinite")
    if not isinstance(labels, torch.Tensor) or labels.dim() not in (1, 2) or len(labels) != len(images):
        raise UserError(f"{where}: labels are {_what(labels)}, but there are {len(images)} images")
    if labels.dim() == 2:
        if labels.shape[1] != facts.num_classes or not labels.isfinite().all():
            raise UserError(f"{where}: soft labels are {_what(labels)}, but {dataset} has {facts.num_classes} classes")
    elif labels.dtype not in data.WHOLE_NUMBERS and not torch.equal(labels, labels.round()):
        raise UserError(f"{where}: labels are {_what(labels)}, not whole numbers")
    present = saved.hard_labels().long().unique().tolist()
    if present[0] < 0 or present[-1] >= facts.num_classes:
        raise UserError(
            f"{where}: labels are {present[0]}..{present[-1]}, but {dataset} has {facts.num_classes} classes"
        )
    if labels.dim() == 1 and len(present) < facts.num_classes:
        raise UserError(f"{where}: has images of {len(present)} classes, but {dataset} has {facts.num_classes}")
    labels, assumed = labels.detach().long() if labels.dim() == 1 else labels.detach().float(), saved.assumed
    if labels.dim() == 2:
        probabilities = (labels >= 0).all() and torch.allclose(labels.sum(1), torch.ones(len(labels)), atol=1e-3)
        if probabilities:
            labels = labels.clamp_min(1e-30).log()  # of which softmax makes them again
        assumed += f", soft labels are {'probabilities' if probabilities else 'logits'}"
    return dataclasses.replace(saved, canvases=images.detach().float().contiguous(), labels=labels, assumed=assumed)


def _size(shape):
    return "x".join(map(str, shape))


def _what(value):
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def pixels(saved, images, facts, whitening=None):
    """Canvases or decoded images of a set as pixels, not clamped: [0,1] but for what distilling pushed outside.

    whitening: the data.Whitening of a set with `zca`, fitted in that set's space.
    """
    if saved.zca:
        images = whitening.invert(images)
    return images if saved.zca == "pixels" else images * _column(facts.std) + _column(facts.mean)


def _column(numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)


def _export_png(out, pixels, labels, facts):
    from torchvision.utils import save_image

    clipped = ((pixels < 0) | (pixels > 1)).float().mean().item()
    names = facts.classes or [f"class{c}" for c in range(facts.num_classes)]
    for c, name in enumerate(names):
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
        folder = out / f"{c:03d}_{name}"  # so that sorted names, as ImageFolder numbers them, are in label order
        folder.mkdir(parents=True)
        for i, image in enumerate(pixels[labels == c].clamp(0, 1)):
            save_image(image, folder / f"{i:05d}.png")
    return f"{100 * clipped:.2f} % of the pixel values were outside [0,1] and are clipped"


def _export_dc(out, pixels, labels, facts):
    images = (pixels - _column(facts.mean)) / _column(facts.std)
    utils.save_torch({"data": [[images, labels]], "accs_all_exps": {}}, out)
    return "decoded images, normalised; labels in the images' order, not grouped by class"


# The statistics by which ddranking 0.2.0 normalises its test images: for CIFAR-100 it takes CIFAR-10's.
_DDRANKING = {"CIFAR10": "CIFAR10", "CIFAR100": "CIFAR10", "TinyImageNet": "TinyImageNet"}


def _export_ddranking(out, pixels, labels, facts):
    if facts.dataset not in _DDRANKING:
        raise UserError(f"--export ddranking: ddranking 0.2.0 has no {facts.dataset}, only {', '.join(_DDRANKING)}")
    spec = data.DATASETS[_DDRANKING[facts.dataset]]
    images = (pixels - _column(spec.mean)) / _column(spec.std)
    utils.save_torch({"image_tensor": images, "hard_labels": labels}, out)
    return f"arguments of compute_metrics, normalised by the statistics of {_DDRANKING[facts.dataset]} as it does"


EXPORTS = {"png": _export_png, "dc": _export_dc, "ddranking": _export_ddranking}


def export(saved, kind, out, facts, whitening=None):
    """Write the decoded images of a set and their hard labels to `out`, which must not exist; a line about it.

    kind: png, a folder of class folders that torchvision's ImageFolder reads with the same labels; dc, a file in DC's
    layout; ddranking, the input of that package. UserError if `out` cannot be written or does not suit the set.
    """
    out = Path(os.path.expanduser(out))
    if out.exists():
        raise UserError(f"--export {kind} {out}: exists already; choose another name or delete it")
    images, _ = saved.decoded()
    labels = saved.hard_labels().repeat(saved.factor**2)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        line = EXPORTS[kind](out, pixels(saved, images, facts, whitening), labels, facts)
    except OSError as error:
        raise UserError(f"--export {kind} {out}: cannot write there ({error.strerror})") from error
    soft = "; the likeliest class of soft labels" if saved.labels.dim() == 2 else ""
    return f"{out}: {len(images)} images of {saved.path}, experiment {saved.exp}; {line}{soft}"
