"""Saved distilled sets, whoever saved them: recognise the layout, and read it.

Layouts are told apart by what a file or folder holds, never by its name, and read without running
any code in them:

    these scripts           {'data': [[images, labels], ...], 'accs_all_exps', 'meta': {...}},
                            normalised
    DC, DSA, DM, IDM, BACON {'data': [[images, labels], ...], ...}, normalised; IDM and BACON put
                            four images on a canvas
    images beside labels    two tensors, and a learnt rate: images_best.pt, labels_best.pt and
                            lr_best.pt (MTT, DATM), or entries of one file, as .npz (RFAD)
    NCFM                    [images, labels], pixels in [0,1], four images on a canvas
    image folder            a folder of pictures per class

None of it needs the real images. What a file does not say itself is an assumption, which
`SavedSet.assumed` names.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bacon import compute, entries
from bacon.canvases import colours, is_result
from bacon.data import pictures
from bacon.data.pt_layout import WHOLE_NUMBERS
from bacon.data.spaces import PIXELS, denormalise, misread, normalise
from bacon.entries import DICTIONARY, TEXT, list_of, or_none, whole
from bacon.errors import DamagedError, UserError, damaged
from bacon.recipes import IMAGE_FOLDER
from bacon.score import class_folders, foreign, soft_labels, which_dataset
from bacon.score.sets import Facts, SavedSet


@dataclasses.dataclass(frozen=True)
class Found:
    """A file or an image folder of a known layout.

    content: of the file, None of a folder. reader: function(Found, Facts, Way) -> [SavedSet].
    meta: the dictionary of these scripts, empty unless they wrote it. note: what of the content is
    not used, in words.
    """

    path: Path
    content: Any
    reader: Callable
    meta: dict = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Way:
    """How a set is to be read, whatever its file says or implies; what is None is left to that.

    factor: 1, or 2 if a canvas holds four images. zca: whether it lives in whitened space. pixels:
    a key of spaces.PIXELS. soft: what soft labels are, of soft_labels.KINDS. order: the class that
    each label means, a list.
    """

    factor: int | None = None
    zca: bool = False
    pixels: str | None = None
    soft: str | None = None
    order: list | None = None


def _is_device(name):
    """Whether a value names a device as these scripts do, such as cuda or cuda:1."""
    return isinstance(name, str) and bool(re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", name))


# What is needed to judge a set of ours as its run did, of the flags in its 'meta'.
_ARGS = {
    "dataset": TEXT,
    "epoch_eval_train": whole(0),
    "batch_train": whole(1),
    "lr_net": entries.ABOVE_ZERO,
    "dsa_strategy": TEXT,
}
# Flags that a file may lack, since early ones do or because judging goes without.
_MORE_ARGS = {
    "model": TEXT,
    "seed": whole(0),
    "num_eval": whole(1),
    "judge_steps": whole(0),
    "validate": whole(0),
    "im_size": or_none(whole(1)),
}
_META = {"factor": entries.one_of(1, 2)}
_MORE_META = {
    "chroma": entries.one_of("full", "half"),
    "experiments": list_of(whole(0), "whole numbers"),
    "mean": list_of(entries.NUMBER, "finite numbers"),
    "std": list_of(entries.ABOVE_ZERO, "numbers above 0"),
    "classes": or_none(entries.LIST),
    "data_sha256": or_none(TEXT),
    "computed": DICTIONARY,
    "arithmetic": DICTIONARY,
}
_COMPUTED = {
    "device": entries.Kind("cpu, cuda or mps", _is_device),
    "threads": or_none(whole(0)),
    "precision": TEXT,
    "compiled": entries.SWITCH,
}


# What is at a path


def recognise(path):
    """What is at `path`, a file or a folder of class folders, as `Found`. UserError, naming it,
    unless it has a known layout."""
    if path.is_dir():
        return Found(path, None, _read_pictures)
    content = foreign.load(path)
    if isinstance(content, dict) and str(content.get("format")).startswith("BACON checkpoint"):
        ends = "the checkpoint of a run that has not ended; its set follows, see --resume"
        raise UserError(f"{path}: {ends}")
    if isinstance(content, dict) and content.keys() == {"about", "state"}:
        is_expert = "a trained network of --recipe ours, see --experts; it holds no set"
        raise UserError(f"{path}: {is_expert}")
    if is_result(content):
        fault = _fault_of_meta(content["meta"]) or _fault_of_recorded(content["accs_all_exps"])
        if fault:
            raise DamagedError(f"{path}: damaged set (its {fault})")
        return Found(path, content, _read_ours, content["meta"])
    with damaged(f"{path}: damaged set"):
        understood = foreign.understood(path, content)
    content = understood.content
    for fits, reader in _LAYOUTS:
        if fits(content):
            return Found(path, content, reader, note=understood.note)
    layouts = "{'data': [[images, labels], ...]}, [images, labels], or a tensor of images"
    layouts += " with its labels in a file beside it, or entries named images and labels"
    held = _kind_of(content)
    raise UserError(f"{path}: holds {held}, none of the known layouts: {layouts}")


def _fault_of_meta(meta):
    """In words, what the 'meta' of a result of these scripts lacks or has amiss, or "".

    It is found before a set is judged, which may take hours.
    """
    args = meta["args"] if isinstance(meta["args"], dict) else {}
    missing = [name for name in _ARGS if name not in args]
    if missing:
        return f"'meta' does not say {', '.join(sorted(missing))}"
    fault = entries.fault(args, _ARGS, _MORE_ARGS)
    if fault:
        return f"flags: {fault}"
    fault = entries.fault(meta, _META, _MORE_META) or _fault_of_computed(meta)
    return f"'meta': {fault}" if fault else ""


def _fault_of_computed(meta):
    """In words, what is amiss in what a 'meta' says of the device of the judges, or ""."""
    fields = meta.get("computed", {}).get("judging", {})
    fault = entries.fault(fields, {}, _COMPUTED)
    if fault:
        return f"'computed' of judging: {fault}"
    if "judging" not in meta.get("arithmetic", {}):
        return ""
    words = meta["arithmetic"]["judging"]
    with contextlib.suppress(AttributeError, ValueError):  # no text, or no number of threads
        if _is_device(compute.settings_in(words).device):
            return ""
    return f"'arithmetic' of judging is {words!r}, not words such as 'cpu, 2 threads, fp32'"


def _fault_of_recorded(recorded):
    """In words, what is amiss in the accuracies that a result of these scripts records, or ""."""
    if not isinstance(recorded, dict):
        return f"'accs_all_exps' is {_what(recorded)}, not a dictionary"
    numbers = dict.fromkeys(recorded, list_of(entries.RECORDED, "numbers"))
    fault = entries.fault(recorded, numbers)
    return f"'accs_all_exps': {fault}" if fault else ""


def _kind_of(content):
    """What a file holds that is no set, in words."""
    if isinstance(content, dict):
        names = [f"{name} (no numbers)" if content[name] is None else str(name) for name in content]
        return f"a dictionary of {', '.join(names[:6])}"
    if isinstance(content, torch.Tensor):
        return f"a tensor of {_what(content)}"
    return type(content).__name__


def own_facts(found):
    """The `Facts` that a file of ours says itself."""
    with damaged(f"{found.path}: damaged set"):
        meta = found.meta
        images = found.content["data"][0][0]
        mean = tuple(meta["mean"])
        classes = list(meta["classes"])
        shape = (len(mean), *colours(images[:1], meta.get("chroma", "full")).shape[2:])
        dataset = meta["args"]["dataset"]
        return Facts(dataset, shape, len(classes), mean, tuple(meta["std"]), lambda: classes)


# What a Found holds


def read(found, facts, way=None, exp=None):
    """All sets of a `Found` as a list of SavedSet that fit `facts`.

    way: a `Way`. exp: only this experiment. UserError for what is no set, or of other data.
    """
    way = way or Way()
    if way.zca and found.meta and not found.meta["zca"]:
        raise UserError(f"--zca: {found.path} says that it is not whitened")
    if way.zca and not way.pixels and not found.meta:
        way = dataclasses.replace(way, pixels="zca")
    with damaged(f"{found.path}: damaged set"):
        sets = []
        for saved in found.reader(found, facts, way):
            saved = dataclasses.replace(saved, assumed=saved.assumed + found.note)
            sets.append(_checked(saved, facts, way))
    if not sets:
        raise UserError(f"{found.path}: holds no set, its 'data' is empty")
    chosen = [saved for saved in sets if exp in (None, saved.exp)]
    if not chosen:
        numbers = ", ".join(str(saved.exp) for saved in sets)
        raise UserError(f"--exp {exp}: {found.path} has experiments {numbers}")
    return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class _Converted:
    """Images normalised or whitened, as `SavedSet` has them. words: what they were stored as."""

    images: torch.Tensor
    whitened_from: str | None
    words: str


def _converted(images, pixels, facts):
    """The `_Converted` of images that are stored as `pixels`, a key of spaces.PIXELS."""
    convert, whitened_from, words = PIXELS[pixels]
    return _Converted(convert(images, facts.mean, facts.std), whitened_from, words)


def _read_ours(found, facts, way):
    meta = found.meta
    _refuse_other_data(found, facts, way)
    # Of one's own images there may be more since, which moves their mean and std.
    moved = (tuple(meta["mean"]), tuple(meta["std"])) != (facts.mean, facts.std)
    if moved and meta["zca"]:
        raise UserError(f"{found.path}: was whitened on other training images than these")
    assumed = "nothing, the file says it all"
    if moved:
        assumed += ", normalised anew by these images' mean and std"
    experiments = len(found.content["data"])
    numbers = meta.get("experiments", range(experiments))
    chroma = meta.get("chroma", "full")
    sets = []
    for k, (canvases, labels) in enumerate(found.content["data"]):
        canvases = colours(canvases, chroma)
        if moved:
            canvases = denormalise(canvases, meta["mean"], meta["std"])
            canvases = normalise(canvases, facts.mean, facts.std)
        whitened_from = "normalised" if meta["zca"] else None
        if way.pixels:
            converted = _converted(canvases, way.pixels, facts)
            canvases = converted.images
            whitened_from = converted.whitened_from
            assumed = converted.words
        recorded = {}
        for name, accuracies in found.content["accs_all_exps"].items():
            recorded[name] = _part(accuracies, k, experiments)
        sets.append(
            SavedSet(
                str(found.path),
                numbers[k],
                "these scripts'",
                canvases,
                labels,
                factor=meta["factor"],
                whitened_from=whitened_from,
                meta=meta,
                recorded=recorded,
                assumed=assumed,
                canvases_per_image=2 if chroma == "half" else 1,
            )
        )
    return sets


def _refuse_other_data(found, facts, way):
    """UserError unless a set of ours is of the data of `facts` and has the factor asked for."""
    path = found.path
    meta = found.meta
    dataset = meta["args"]["dataset"]
    if dataset != facts.dataset:
        raise UserError(f"{path}: was distilled from {dataset}, not from {facts.dataset}")
    # Every other dataset has one list of classes, by several names.
    if facts.dataset == IMAGE_FOLDER and "classes" in meta:
        theirs = [pictures.composed(name) for name in meta["classes"]]
        here = [pictures.composed(name) for name in facts.names()]
        if theirs != here:
            text = f"its classes are {some(theirs)}, but those of the images are {some(here)}"
            raise UserError(f"{path}: {text}")
    if way.factor not in (None, meta["factor"]):
        raise UserError(f"--factor {way.factor}: {path} says that its factor is {meta['factor']}")


def _part(accuracies, k, experiments):
    """Those of experiment k, of accuracies that belong to several experiments in order."""
    each = len(accuracies) // experiments
    return accuracies[k * each : (k + 1) * each]


def _read_dc(found, facts, way):
    stored = found.content["data"]
    recorded = _recorded(found.content)
    # Accuracies that cannot be shared out evenly are not those of several experiments.
    counts = sorted({len(accuracies) for accuracies in recorded.values()})
    are_snapshots = any(count % max(1, len(stored)) for count in counts)
    factor_said = "factor 1 (--factor 2 for IDM's, BACON's)"
    if way.factor:
        factor_said = f"factor {way.factor}"
    of_sets = ""
    if are_snapshots:
        of_sets = _said_of_snapshots(counts, len(stored))
    elif recorded and len(stored) > 1:
        number = ", ".join(map(str, counts))
        of_each = f"those of the {len(stored)} experiments in order"
        of_sets = f"; {number} recorded accuracies are {of_each}"
    sets = []
    for k, (canvases, labels) in enumerate(stored):
        converted = _converted(canvases, way.pixels or "normalised", facts)
        own = {}
        for name, accuracies in recorded.items():
            if not are_snapshots:
                own[name] = _part(accuracies, k, len(stored))
            elif k == len(stored) - 1:
                own[name] = accuracies
        sets.append(
            SavedSet(
                str(found.path),
                k,
                "DC",
                converted.images,
                labels,
                factor=way.factor or 1,
                whitened_from=converted.whitened_from,
                recorded=own,
                assumed=f"{converted.words}, {factor_said}{of_sets}",
                is_snapshot=are_snapshots,
            )
        )
    return sets


def _recorded(content):
    """{architecture: [accuracy]} of a file of DC's, {} where they are anything else: they are not
    what makes it a set."""
    recorded = {}
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        for name, accuracies in content.get("accs_all_exps", {}).items():
            if accuracies:
                recorded[name] = [float(accuracy) for accuracy in accuracies]
        return recorded
    return {}


def _said_of_snapshots(counts, sets):
    number = ", ".join(map(str, counts))
    text = f"; {number} recorded accuracies do not go into {sets} sets, so these are one"
    text += " experiment as saved at several iterations, and the accuracies the last one's"
    return f"{text} (--exp {sets - 1})"


# Names of files of images as MTT and DATM write them.
_AS_MTT = re.compile(r"images(_zca)?(_best|_\d+)?")


def _read_pair(found, facts, way):
    pair = found.content
    pixels = way.pixels
    if pair.images.dtype == torch.uint8:
        pixels = pixels or "bytes"
    shaped = foreign.shaped(pair.images.detach(), facts.shape)
    labels = pair.labels
    if isinstance(labels, torch.Tensor) and labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    as_mtt = pair.rate is not None or bool(_AS_MTT.fullmatch(found.path.stem))
    layout = "images beside labels"
    if pair.labels_of and as_mtt:
        hard = isinstance(labels, torch.Tensor) and labels.dim() == 1
        layout = "MTT" if hard else "MTT, soft labels (DATM)"
    converted = _converted(shaped.images, pixels or "normalised", facts)
    assumed = f"{converted.words}{shaped.words}, factor {way.factor or 1}"
    if pair.labels_of:
        assumed += f", labels of {pair.labels_of}"
    if pair.rate is not None:
        assumed += f", learnt rate {pair.rate:.3g}"
    if as_mtt and not pixels:
        assumed += " (MTT and DATM publish sets in ZCA space: --zca)"
    return [
        SavedSet(
            str(found.path),
            0,
            layout,
            converted.images,
            labels,
            factor=way.factor or 1,
            whitened_from=converted.whitened_from,
            lr=pair.rate,
            assumed=assumed,
        )
    ]


def _read_ncfm(found, facts, way):
    images, labels = found.content
    low, high = images.aminmax()
    in_unit = low >= -1e-3 and high <= 1 + 1e-3
    if not (in_unit or way.pixels):
        known = "but this layout has pixels in [0,1]; see --pixels and --factor"
        values = f"{low:.2f}..{high:.2f}"
        raise UserError(f"{found.path}: [images, labels] with values {values}, {known}")
    if in_unit and way.pixels == "zca":
        raise UserError(f"--zca: {found.path} holds pixels in [0,1], which are not whitened")
    converted = _converted(images.detach(), way.pixels or "unit", facts)
    factor = way.factor or 2
    return [
        SavedSet(
            str(found.path),
            0,
            "NCFM",
            converted.images,
            labels,
            factor=factor,
            whitened_from=converted.whitened_from,
            assumed=f"{converted.words}, factor {factor}",
        )
    ]


def _read_pictures(found, facts, way):
    folder = found.path
    if way.pixels:
        text = "holds pictures of 8 bits, which are not whitened"
        raise UserError(f"--zca, --pixels: {folder} {text}")
    names = pictures.class_names(folder)
    order = class_folders.order_of(folder, names, facts)
    _, pixels, labels = pictures.read_class_folders(folder)
    if facts.shape[0] == 1 and pictures.is_grey(pixels):
        pixels = pixels[:, :1]
    factor = way.factor or 1
    assumed = f"pixels of 8 bits, normalised here, factor {factor}, class folders {order.how}"
    canvases = _converted(pixels.float() / 255, "unit", facts).images
    labels = torch.tensor(order.labels)[labels]
    return [
        SavedSet(str(folder), 0, "image folder", canvases, labels, factor=factor, assumed=assumed)
    ]


# Content that tells a layout


def _is_pair(content):
    return isinstance(content, foreign.Pair)


def _is_dc(content):
    return isinstance(content, dict) and "data" in content


def _is_ncfm(content):
    return isinstance(content, (list, tuple)) and len(content) == 2 and _is_images(content[0])


def _is_images(value):
    return isinstance(value, torch.Tensor) and value.dim() == 4


# The first that fits a file's content reads it.
_LAYOUTS = ((_is_pair, _read_pair), (_is_dc, _read_dc), (_is_ncfm, _read_ncfm))


# Whether a set is sound

# Layouts, by how they begin, whose pixels are taken as they are.
_AS_STORED = ("DC", "MTT", "images beside labels")


def _checked(saved, facts, way):
    """The set with float32 canvases and labels as `SavedSet` has them. UserError, one line naming
    the file, unless it is sound and fits `facts`."""
    fault = _fault_of_images(saved.canvases, saved.factor, facts)
    fault = fault or _fault_of_labels(saved.labels, saved.canvases, facts)
    if fault:
        experiment = f", experiment {saved.exp}" if saved.exp else ""
        raise UserError(f"{saved.path}{experiment}: {fault}")
    canvases = saved.canvases.detach().float().contiguous()
    meaning = soft_labels.meaning_of(saved.path, saved.labels.detach(), way.soft)
    labels = meaning.labels
    assumed = saved.assumed
    if meaning.words:
        assumed += f", {meaning.words}"
    if way.order:
        class_of = torch.tensor(way.order)
        labels = class_of[labels] if labels.dim() == 1 else labels[:, class_of.argsort()]
        assumed += ", classes in the order of --relabel"
    notes = list(saved.notes)
    if saved.layout.startswith(_AS_STORED):
        notes.append(misread(canvases, way.pixels))
    notes.append(meaning.note)
    return dataclasses.replace(
        saved,
        canvases=canvases,
        labels=labels,
        soft=meaning.kind,
        facts=facts,
        assumed=assumed,
        notes=tuple(note for note in notes if note),
    )


def _fault_of_images(images, factor, facts):
    """What keeps images from being a set's that fits `facts`, in words, or ""."""
    if not _is_images(images):
        return f"images are {_what(images)}, not a tensor (n,C,H,W)"
    found = "x".join(map(str, images.shape[1:]))
    size = "x".join(map(str, facts.shape))
    if found != size:
        fitting = which_dataset.of_size(tuple(images.shape[1:]))
        return f"images are {found}{fitting}, but {facts.dataset}'s are {size}"
    if len(images) == 0:
        return "holds no images"
    if not images.is_floating_point():
        text = f"images are {_what(images)}, but this layout has normalised float32 ones"
        return f"{text}; --pixels bytes takes whole numbers in [0,255]"
    if factor == 2 and (facts.shape[1] % 2 or facts.shape[2] % 2):
        needed = f"needs an even height and width, {facts.dataset} has {size}"
        return f"factor 2 {needed}; see --factor"
    bad = images.isfinite().logical_not().flatten(1).any(1).sum().item()
    if bad:
        return f"{bad} of {len(images)} images have pixels that are NaN or infinite"
    return ""


def _fault_of_labels(labels, images, facts):
    """What keeps labels from being those of images that fit `facts`, in words, or ""."""
    classes = f"{facts.dataset} has {facts.num_classes} classes"
    is_labels = isinstance(labels, torch.Tensor) and labels.dim() in (1, 2)
    if not is_labels or len(labels) != len(images):
        return f"labels are {_what(labels)}, but there are {len(images)} images"
    if labels.dim() == 2:
        if labels.shape[1] != facts.num_classes or not labels.isfinite().all():
            return f"soft labels are {_what(labels)}, but {classes}"
        return ""
    if labels.dtype not in WHOLE_NUMBERS and not torch.equal(labels, labels.round()):
        return f"labels are {_what(labels)}, not whole numbers"
    present = labels.long().unique().tolist()
    if present[0] < 0 or present[-1] >= facts.num_classes:
        return f"labels are {present[0]}..{present[-1]}, but {classes}"
    if len(present) < facts.num_classes:
        return f"has images of {len(present)} classes, but {classes}"
    return ""


def _what(value):
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def some(names):
    """The first three of some names, and how many others there are, in words."""
    others = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return ", ".join(names[:3]) + others
