"""Saved distilled sets, whoever saved them: recognise the layout, read it, write it in another one.

Layouts are told apart by what a file or folder holds, never by its name, and read without running any code in them:

    these scripts               {'data': [[images, labels], ...], 'accs_all_exps', 'meta': {...}}, normalised
    DC, DSA, DM, IDM, BACON     {'data': [[images, labels], ...], ...}, normalised; IDM and BACON put four on a canvas
    images beside labels        two tensors, and a learnt rate: images_best.pt, labels_best.pt and
                                lr_best.pt (MTT, DATM), or entries of one file, as .npz (RFAD)
    NCFM                        [images, labels], pixels in [0,1], four images on a canvas
    image folder                a folder of pictures per class

None of it needs the real images. What a file does not say itself is an assumption, which `SavedSet.assumed` names.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

import torch

from bacon.canvases import colours, decode, is_result
from bacon.data import pictures
from bacon.data.pt_layout import WHOLE_NUMBERS
from bacon.data.spaces import PIXELS, denormalise, misread, normalise
from bacon.errors import UserError, damaged
from bacon.files import save_torch
from bacon.recipes import DATASETS, IMAGE_FOLDER
from bacon.score import class_folders, foreign, soft_labels, which_dataset
from bacon.score.finding import files, some


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What a set must fit: the images' shape (C,H,W), the number of classes, mean and std of pixels in [0,1].

    names: () -> the classes' names. It is called only where they are needed, because it may load the real images.
    """

    dataset: str
    shape: tuple
    num_classes: int
    mean: tuple
    std: tuple
    names: Callable

    @classmethod
    def of(cls, name, spec, names):
        """spec: a recipes.Spec or a data.Dataset."""
        return cls(
            name,
            (spec.channels, *spec.im_size),
            spec.num_classes,
            tuple(spec.mean),
            tuple(spec.std),
            names,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SavedSet:
    """One synthetic set: canvases float32 (n,C,H,W), normalised or whitened; labels int64 (n,) or logits (n,classes).

    factor: 2 if a canvas holds four images. zca: None, or the space the whitening was fitted in, "normalised" images
    (these scripts) or "pixels" in [0,1] (MTT). lr: the judges' rate that the set was learnt with, if it was. meta: the
    dictionary of these scripts, else empty. recorded: {architecture: [accuracy in [0,1]]} of this experiment. alone:
    the file's others are earlier or later states of it, no experiments. facts: those that it was found to fit. halves:
    2 if a canvas was stored in half its numbers, with chroma at half resolution. soft: what soft
    labels were taken for, of soft_labels.KINDS. notes: warnings, a line each. name: how a table
    calls it beside others, "" for the end of its path.
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
    alone: bool = False
    facts: Facts | None = None
    halves: int = 1
    soft: str = ""
    notes: tuple = ()
    name: str = ""

    def decoded(self):
        """The images to train on, (factor^2 n, C, H, W), and their labels, in the order of `canvases.decode`."""
        return decode(self.canvases, self.labels, self.factor)

    def hard(self):
        """The same set with hard labels: of soft ones, the likeliest class."""
        return (
            self
            if self.labels.dim() == 1
            else dataclasses.replace(self, labels=self.labels.argmax(1))
        )

    def class_names(self):
        """The classes' names: those that the set says, else those of the real images, which may be loaded for them."""
        return [str(name) for name in self.meta.get("classes") or self.facts.names()]


# A file or image folder of a known layout: its content (None of a folder), its reader, its meta ({} unless it is ours).
Found = collections.namedtuple("Found", "path content reader meta")
# What is needed to judge a set of ours as its run did.
_ARGS = {
    "dataset": str,
    "epoch_eval_train": int,
    "batch_train": int,
    "lr_net": (int, float),
    "dsa_strategy": str,
}


def own_facts(found):
    """The `Facts` that a file of ours says itself."""
    with damaged(f"{found.path}: damaged set"):
        meta, images = found.meta, found.content["data"][0][0]
        mean, std, classes = tuple(meta["mean"]), tuple(meta["std"]), list(meta["classes"])
        shape = (len(mean), *colours(images[:1], meta.get("chroma", "full")).shape[2:])
        return Facts(meta["args"]["dataset"], shape, len(classes), mean, std, lambda: classes)


def found_at(path, recursive=False, say=print):
    """The sets at `path` as a list of `Found`. In a folder a file that is no set gets a line alone.

    UserError if the path is a file that is no set, or a folder in which none is.
    """
    found, refused = [], []
    candidates = files(path, recursive)
    for file in candidates:
        try:
            found.append(recognise(file))
        except UserError as error:
            refused.append(error)
    if not found:
        others = f"; so it is with {len(refused) - 1} more at {path}" if len(refused) > 1 else ""
        raise UserError(f"{refused[0]}{others}")
    for error in refused[:REFUSALS]:
        say(f"skipped: {error}")
    if len(refused) > REFUSALS:
        say(f"skipped: {len(refused) - REFUSALS} others at {path}")
    return found


REFUSALS = 10  # files of a folder that are no sets, which get a line of their own


def recognise(path):
    """What is at `path`, one of `files`, as `Found`. UserError, naming it, unless it has a known layout."""
    if path.is_dir():
        return Found(path, None, _read_pictures, {})
    content = foreign.load(path)
    if isinstance(content, dict) and str(content.get("format")).startswith("BACON checkpoint"):
        raise UserError(
            f"{path}: the checkpoint of a run that has not ended; its set follows, see --resume"
        )
    if is_result(content):
        return Found(path, content, _read_ours, _sound_meta(path, content["meta"]))
    with damaged(f"{path}: damaged set"):
        content, note = foreign.understood(path, content)
    reader = next((reader for fits, reader in _LAYOUTS if fits(content)), None)
    if reader is None:
        layouts = "{'data': [[images, labels], ...]}, [images, labels], or a tensor of images"
        layouts += " with its labels in a file beside it, or entries named images and labels"
        held = _kind_of(content)
        raise UserError(f"{path}: holds {held}, none of the known layouts: {layouts}")
    return Found(path, content, functools.partial(_noted, note, reader) if note else reader, {})


def _kind_of(content):
    """What a file holds that is no set, in words."""
    if isinstance(content, dict):
        names = [f"{name} (no numbers)" if content[name] is None else str(name) for name in content]
        return f"a dictionary of {', '.join(names[:6])}"
    if isinstance(content, torch.Tensor):
        return f"a tensor of {_what(content)}"
    return type(content).__name__


def _sound_meta(path, meta):
    """The 'meta' of a result of these scripts. UserError unless it says how to judge the set."""
    args = meta["args"] if isinstance(meta["args"], dict) else {}
    missing = [name for name, kind in _ARGS.items() if not isinstance(args.get(name), kind)]
    if missing:
        words = ", ".join(sorted(missing))
        raise UserError(f"{path}: damaged set (its 'meta' does not say {words})")
    return meta


def _noted(note, reader, *arguments):
    """The sets of a reader, in whose `assumed` a note about the file stands."""
    for saved in reader(*arguments):
        yield dataclasses.replace(saved, assumed=saved.assumed + note)


def read(found, facts, factor=None, zca=False, pixels=None, soft=None, order=None, exp=None):
    """All sets of a `Found` as a list of SavedSet that fit `facts`. UserError for what is no set or of other data.

    factor: 1 or 2 overrides what a layout implies, zca: the set lives in whitened space; our own files say both.
    pixels, soft: of PIXELS and soft_labels.KINDS, whatever the file says or implies. order: see
    `diagnose.read_order`. exp: only this experiment.
    """
    if zca and found.meta and not found.meta["zca"]:
        raise UserError(f"--zca: {found.path} says that it is not whitened")
    pixels = pixels or ("zca" if zca and not found.meta else None)
    with damaged(f"{found.path}: damaged set"):
        read = found.reader(found.path, found.content, facts, factor, pixels)
        sets = [_checked(one, facts, soft, order, pixels) for one in read]
    if not sets:
        raise UserError(f"{found.path}: holds no set, its 'data' is empty")
    chosen = [saved for saved in sets if exp in (None, saved.exp)]
    if not chosen:
        raise UserError(
            f"--exp {exp}: {found.path} has experiments {', '.join(str(saved.exp) for saved in sets)}"
        )
    return chosen


def _read_ours(path, saved, facts, factor, pixels):
    meta, experiments, assumed = saved["meta"], len(saved["data"]), "nothing, the file says it all"
    if meta["args"]["dataset"] != facts.dataset:
        raise UserError(
            f"{path}: was distilled from {meta['args']['dataset']}, not from {facts.dataset}"
        )
    if (
        facts.dataset == IMAGE_FOLDER and "classes" in meta
    ):  # the other datasets have one list, by several names
        theirs = [pictures.composed(name) for name in meta["classes"]]
        here = [pictures.composed(name) for name in facts.names()]
        if theirs != here:
            raise UserError(
                f"{path}: its classes are {some(theirs)}, but those of the images are {some(here)}"
            )
    if factor not in (None, meta["factor"]):
        raise UserError(f"--factor {factor}: {path} says that its factor is {meta['factor']}")
    moved = (tuple(meta["mean"]), tuple(meta["std"])) != (
        facts.mean,
        facts.std,
    )  # of one's own images, by more of them
    if moved and meta["zca"]:
        raise UserError(f"{path}: was whitened on other training images than these")
    assumed += ", normalised anew by these images' mean and std" if moved else ""
    for k, (canvases, labels) in enumerate(saved["data"]):
        recorded = {
            name: _part(accuracies, k, experiments)
            for name, accuracies in saved["accs_all_exps"].items()
        }
        if meta["args"].get("validate"):
            recorded = {}  # on validation images, of no use beside accuracies on test images
        canvases = colours(canvases, meta.get("chroma", "full"))
        if moved:
            canvases = normalise(
                denormalise(canvases, meta["mean"], meta["std"]), facts.mean, facts.std
            )
        number, space = (
            meta.get("experiments", range(experiments))[k],
            "normalised" if meta["zca"] else None,
        )
        if pixels:
            convert, space, assumed = PIXELS[pixels]
            canvases = convert(canvases, facts.mean, facts.std)
        about = {
            "factor": meta["factor"],
            "zca": space,
            "meta": meta,
            "recorded": recorded,
            "assumed": assumed,
        }
        halves = 2 if meta.get("chroma") == "half" else 1
        yield SavedSet(
            str(path), number, "these scripts'", canvases, labels, **about, halves=halves
        )


def _part(accuracies, k, experiments):
    each = len(accuracies) // experiments
    return accuracies[k * each : (k + 1) * each]


def _read_dc(path, saved, facts, factor, pixels):
    convert, space, assumed = PIXELS[pixels or "normalised"]
    assumed += f", factor {factor}" if factor else ", factor 1 (--factor 2 for IDM's, BACON's)"
    stored, recorded = saved["data"], {}
    with contextlib.suppress(
        AttributeError, TypeError, ValueError
    ):  # these are not what makes it a set
        recorded = {
            name: list(map(float, of_it))
            for name, of_it in saved.get("accs_all_exps", {}).items()
            if of_it
        }
    alone = any(
        len(of_it) % max(1, len(stored)) for of_it in recorded.values()
    )  # they cannot be of one each
    counts = ", ".join(map(str, sorted({len(of_it) for of_it in recorded.values()})))
    if alone:
        assumed += f"; {counts} recorded accuracies do not go into {len(stored)} sets, so these are one experiment "
        assumed += f"as saved at several iterations, and the accuracies the last one's (--exp {len(stored) - 1})"
    elif recorded and len(stored) > 1:
        assumed += (
            f"; {counts} recorded accuracies are those of the {len(stored)} experiments in order"
        )
    for k, (canvases, labels) in enumerate(stored):
        own = {
            name: of_it if alone else _part(of_it, k, len(stored))
            for name, of_it in recorded.items()
        }
        about = {
            "recorded": {} if alone and k < len(stored) - 1 else own,
            "assumed": assumed,
            "alone": alone,
        }
        canvases = convert(canvases, facts.mean, facts.std)
        yield SavedSet(str(path), k, "DC", canvases, labels, factor or 1, space, **about)


def _read_pair(path, saved, facts, factor, pixels):
    if saved.images.dtype == torch.uint8:
        pixels = pixels or "bytes"
    convert, space, assumed = PIXELS[pixels or "normalised"]
    images, how = foreign.shaped(saved.images.detach(), facts.shape)
    labels = saved.labels
    if isinstance(labels, torch.Tensor) and labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    as_mtt = saved.rate is not None or re.fullmatch(r"images(_zca)?(_best|_\d+)?", path.stem)
    kind = "images beside labels"
    if saved.labels_of and as_mtt:
        kind = "MTT, soft labels (DATM)"
        if isinstance(labels, torch.Tensor) and labels.dim() == 1:
            kind = "MTT"
    assumed += f"{how}, factor {factor or 1}"
    if saved.labels_of:
        assumed += f", labels of {saved.labels_of}"
    if saved.rate is not None:
        assumed += f", learnt rate {saved.rate:.3g}"
    if as_mtt and not pixels:
        assumed += " (MTT and DATM publish sets in ZCA space: --zca)"
    canvases = convert(images, facts.mean, facts.std)
    about = {"factor": factor or 1, "zca": space, "lr": saved.rate, "assumed": assumed}
    yield SavedSet(str(path), 0, kind, canvases, labels, **about)


def _read_ncfm(path, saved, facts, factor, pixels):
    low, high = saved[0].aminmax()
    unit, values = low >= -1e-3 and high <= 1 + 1e-3, f"{low:.2f}..{high:.2f}"
    if not (unit or pixels):
        known = "but this layout has pixels in [0,1]; see --pixels and --factor"
        raise UserError(f"{path}: [images, labels] with values {values}, {known}")
    if unit and pixels == "zca":
        raise UserError(f"--zca: {path} holds pixels in [0,1], which are not whitened")
    convert, space, assumed = PIXELS[pixels or "unit"]
    canvases, factor = convert(saved[0].detach(), facts.mean, facts.std), factor or 2
    yield SavedSet(
        str(path),
        0,
        "NCFM",
        canvases,
        saved[1],
        factor,
        space,
        assumed=f"{assumed}, factor {factor}",
    )


def _read_pictures(folder, _, facts, factor, pixels):
    if pixels:
        raise UserError(
            f"--zca, --pixels: {folder} holds pictures of 8 bits, which are not whitened"
        )
    names = pictures.class_names(folder)
    order = class_folders.order_of(folder, names, facts)
    _, pixels, labels = pictures.read_class_folders(folder)
    if facts.shape[0] == 1 and pictures.is_grey(pixels):
        pixels = pixels[:, :1]
    assumed = f"pixels of 8 bits, normalised here, factor {factor or 1}, class folders {order.how}"
    canvases = PIXELS["unit"][0](pixels.float() / 255, facts.mean, facts.std)
    labels = torch.tensor(order.labels)[labels]
    yield SavedSet(str(folder), 0, "image folder", canvases, labels, factor or 1, assumed=assumed)


def _is_images(value):
    return isinstance(value, torch.Tensor) and value.dim() == 4


# Content that tells a layout, and its reader: (path, content, facts, factor, pixels) -> sets. The first that fits.
_LAYOUTS = (
    (lambda s: isinstance(s, foreign.Pair), _read_pair),
    (lambda s: isinstance(s, dict) and "data" in s, _read_dc),
    (lambda s: isinstance(s, (list, tuple)) and len(s) == 2 and _is_images(s[0]), _read_ncfm),
)


_AS_STORED = (
    "DC",
    "MTT",
    "images beside labels",
)  # layouts, by how they begin, whose pixels are taken as they are


def _checked(saved, facts, soft=None, order=None, pixels=None):
    """The set with float32 canvases; UserError, one line naming the file, unless it is sound and of this dataset."""
    if fault := _fault(saved.canvases, saved.labels, saved.factor, facts):
        raise UserError(f"{saved.path}{f', experiment {saved.exp}' if saved.exp else ''}: {fault}")
    canvases = saved.canvases.detach().float().contiguous()
    meaning = soft_labels.meaning_of(saved.path, saved.labels.detach(), soft)
    labels, assumed = meaning.labels, saved.assumed
    if meaning.words:
        assumed += f", {meaning.words}"
    if order:
        means = torch.tensor(order)
        labels = means[labels] if labels.dim() == 1 else labels[:, means.argsort()]
        assumed += ", classes in the order of --relabel"
    found = {"canvases": canvases, "labels": labels, "soft": meaning.kind, "facts": facts}
    as_pixels = misread(canvases, pixels) if saved.layout.startswith(_AS_STORED) else ""
    notes = (*saved.notes, *filter(None, (as_pixels, meaning.note)))
    return dataclasses.replace(saved, **found, assumed=assumed, notes=notes)


def _fault(images, labels, factor, facts):
    """What keeps images and labels from being a set that fits `facts`, in words, or None."""
    dataset, classes = facts.dataset, facts.num_classes
    if not _is_images(images):
        return f"images are {_what(images)}, not a tensor (n,C,H,W)"
    found, size = ("x".join(map(str, shape)) for shape in (images.shape[1:], facts.shape))
    if found != size:
        fitting = which_dataset.of_size(tuple(images.shape[1:]))
        return f"images are {found}{fitting}, but {dataset}'s are {size}"
    if len(images) == 0:
        return "holds no images"
    if not images.is_floating_point():
        text = f"images are {_what(images)}, but this layout has normalised float32 ones"
        return f"{text}; --pixels bytes takes whole numbers in [0,255]"
    if factor == 2 and (facts.shape[1] % 2 or facts.shape[2] % 2):
        return f"factor 2 needs an even height and width, {dataset} has {size}; see --factor"
    if bad := images.isfinite().logical_not().flatten(1).any(1).sum().item():
        return f"{bad} of {len(images)} images have pixels that are NaN or infinite"
    if (
        not isinstance(labels, torch.Tensor)
        or labels.dim() not in (1, 2)
        or len(labels) != len(images)
    ):
        return f"labels are {_what(labels)}, but there are {len(images)} images"
    if labels.dim() == 2 and (labels.shape[1] != classes or not labels.isfinite().all()):
        return f"soft labels are {_what(labels)}, but {dataset} has {classes} classes"
    if (
        labels.dim() == 1
        and labels.dtype not in WHOLE_NUMBERS
        and not torch.equal(labels, labels.round())
    ):
        return f"labels are {_what(labels)}, not whole numbers"
    present = (labels if labels.dim() == 1 else labels.argmax(1)).long().unique().tolist()
    if present[0] < 0 or present[-1] >= classes:
        return f"labels are {present[0]}..{present[-1]}, but {dataset} has {classes} classes"
    if labels.dim() == 1 and len(present) < classes:
        return f"has images of {len(present)} classes, but {dataset} has {classes}"
    return None


def _what(value):
    return (
        f"{value.dtype} {tuple(value.shape)}"
        if isinstance(value, torch.Tensor)
        else type(value).__name__
    )


def pixels(saved, images, whitening=None):
    """Images of a set as pixels, [0,1] but for what distilling pushed outside; whitening: that of a set with `zca`."""
    images = whitening.invert(images) if saved.zca else images
    return (
        images if saved.zca == "pixels" else denormalise(images, saved.facts.mean, saved.facts.std)
    )


def _export_png(out, pixels, labels, saved):
    from torchvision.utils import save_image

    clipped = ((pixels < 0) | (pixels > 1)).float().mean().item()
    names = saved.class_names()
    digits = max(
        3, len(str(len(names) - 1))
    )  # as many for all classes: sorted names are in label order then
    for c, name in enumerate(names):
        name = re.sub(r"[^\w-]", "_", name)
        folder = out / f"{c:0{digits}d}_{name}"
        folder.mkdir(parents=True)
        for i, image in enumerate(pixels[labels == c].clamp(0, 1)):
            save_image(image, folder / f"{i:05d}.png")
    return f"{100 * clipped:.2f} % of the pixel values were outside [0,1] and are clipped"


def _export_dc(out, pixels, labels, saved):
    images = normalise(pixels, saved.facts.mean, saved.facts.std)
    save_torch({"data": [[images, labels]], "accs_all_exps": {}}, out)
    return "decoded images, normalised; labels in the images' order, not grouped by class"


def _export_ddranking(out, pixels, labels, saved):
    if (statistics := _DDRANKING.get(saved.facts.dataset)) is None:
        known = f"ddranking 0.2.0 has no {saved.facts.dataset}, only {', '.join(_DDRANKING)}"
        raise UserError(f"--export ddranking: {known}")
    images = normalise(pixels, DATASETS[statistics].mean, DATASETS[statistics].std)
    save_torch({"image_tensor": images, "hard_labels": labels}, out)
    return f"arguments of compute_metrics, normalised by the statistics of {statistics} as it does"


# The statistics by which ddranking 0.2.0 normalises its test images: for CIFAR-100 it takes CIFAR-10's.
_DDRANKING = {"CIFAR10": "CIFAR10", "CIFAR100": "CIFAR10", "TinyImageNet": "TinyImageNet"}
EXPORTS = {"png": _export_png, "dc": _export_dc, "ddranking": _export_ddranking}


def export(saved, kind, out, whitening=None):
    """Write the decoded images of a set and their hard labels to `out`, which must not exist; a line about it.

    kind: png, a folder of class folders that torchvision's ImageFolder reads with the same labels; dc, a file in DC's
    layout; ddranking, the input of that package. UserError if `out` cannot be written or does not suit the set.
    """
    out = Path(os.path.expanduser(out))
    if os.path.lexists(out):
        raise UserError(f"--export {kind} {out}: exists already; choose another name")
    images, labels = saved.hard().decoded()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        line = EXPORTS[kind](out, pixels(saved, images, whitening), labels, saved)
    except OSError as error:
        raise UserError(f"--export {kind} {out}: cannot write there ({error.strerror})") from error
    soft = "; the likeliest class of soft labels" if saved.labels.dim() == 2 else ""
    return f"{out}: {len(images)} images of {saved.path}, experiment {saved.exp}; {line}{soft}"
