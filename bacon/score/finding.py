"""The sets that a command line names: which files they are, and the real images of each.

`layouts` reads a file; this module finds the files of a folder, by their names and what lies beside
them, and says of which dataset each is.
"""

import dataclasses
import functools
import json
import os
import re
from pathlib import Path

from bacon import messages, outputs
from bacon.canvases import is_result
from bacon.data import loading, pictures, spaces
from bacon.data.known_classes import CLASSES
from bacon.errors import UserError, short
from bacon.recipes import DATASETS, IMAGE_FOLDER
from bacon.score import foreign, layouts, which_dataset
from bacon.score.sets import Facts

# Files of sets in a folder. Pickles are searched for too, but only to be refused with advice.
TENSORS = (".pt", ".pth")
ARRAYS = (".npz", ".npy")
REFUSALS = 10  # files of a folder that are no sets, which get a line of their own


# Files


def files(path, recursive=False):
    """The sets at `path`: the file itself, files of a folder or of all below it, or class folders.

    Where there are no files of tensors, class folders of pictures come before files of numpy. A
    file may turn out to be no set when it is read, see `found_at`.
    """
    path = Path(os.path.expanduser(path))
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if _sets_in(path, TENSORS, recursive):
        return _sets_in(path, TENSORS + ARRAYS, recursive)
    _refuse_if_below(path, TENSORS)
    for folder in pictures.class_folders(path):
        # A run writes pictures too, of its canvases and its accuracy.
        of_run = ("vis_", "acc_")
        if any(not file.name.startswith(of_run) for file in folder.pictures()):
            return [path]
    for suffixes in (ARRAYS, foreign.PICKLES):
        found = _sets_in(path, suffixes, recursive)
        if found:
            return found
        _refuse_if_below(path, suffixes)
    looked_for = "neither .pt or .npz files nor class folders of pictures"
    raise UserError(f"{path}: a folder without sets: {looked_for}")


def _refuse_if_below(path, suffixes):
    """UserError if folders below a folder without sets hold some."""
    below = [str(file.relative_to(path)) for file in _sets_in(path, suffixes, recursive=True)]
    if below:
        where = f"{len(below)} in folders below it, as {layouts.some(below)}"
        found = f"a folder without sets, but there are {where}"
        raise UserError(f"{path}: {found}; --recursive takes them all")


def _sets_in(folder, suffixes, recursive):
    """Files of these suffixes that are sets, by their names and the files beside them, sorted.

    None are hidden files, checkpoints and trained networks of these scripts, parts of a job array
    beside the whole, and labels and learnt rates beside their images.
    """
    found = []
    for file in folder.rglob("*") if recursive else folder.iterdir():
        if file.suffix.lower() not in suffixes or file.is_dir():
            continue
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            found.append(file)
    beside = set()
    for file in found:
        beside |= foreign.belong_to(file)
    chosen = []
    for file in found:
        if file in beside or file.name.startswith("ckpt_") or _is_expert(file) or _is_part(file):
            continue
        # A .npy file may be any array: one of images has labels beside it.
        if file.suffix.lower() != ".npy" or foreign.has_labels(file):
            chosen.append(file)
    return sorted(chosen)


def _is_expert(file):
    """Whether a file is a trained network of these scripts, by its name."""
    return re.fullmatch(r"expert_.+steps_seed\d+_[0-9a-f]{8}_\d+", file.stem) is not None


def _is_part(file):
    """Whether a file is a job array's part of a result of these scripts that lies beside it."""
    match = re.fullmatch(r"(.+)_exp(\d+)", file.stem)
    if not match:
        return False
    whole = file.with_name(f"{match[1]}{file.suffix}")
    if not whole.is_file():
        return False
    try:
        result = foreign.load(whole)
        part = foreign.load(file)
    except UserError:  # which is told when it is read as a set
        return False
    if not (is_result(result) and is_result(part)):
        return False
    experiments = result["meta"].get("experiments", range(len(result["data"])))
    return int(match[2]) in experiments


def found_at(path, recursive=False):
    """The sets at `path` as a list of layouts.Found. In a folder a file that is no set gets a line
    alone.

    UserError if the path is a file that is no set, or a folder in which none is.
    """
    found = []
    refused = []
    for file in files(path, recursive):
        try:
            found.append(layouts.recognise(file))
        except UserError as error:
            refused.append(error)
    if not found:
        others = f"; so it is with {len(refused) - 1} more at {path}" if len(refused) > 1 else ""
        raise UserError(f"{refused[0]}{others}")
    for error in refused[:REFUSALS]:
        messages.log.info(f"skipped: {error}")
    if len(refused) > REFUSALS:
        messages.log.info(f"skipped: {len(refused) - REFUSALS} others at {path}")
    return found


# Real images


class RealImages:
    """The real images of a dataset, loaded when first needed.

    As `SavedSet.whitened_from` says, there are several spaces in which sets live: here "space".
    """

    def __init__(self, name, args, im_size=None):
        """name: of the dataset. args: the flags of evaluate.py. im_size: of pictures in folders."""
        if name not in (*DATASETS, IMAGE_FOLDER):
            known = f"choose from {', '.join(DATASETS)} or {IMAGE_FOLDER}"
            raise UserError(f"dataset {name}: unknown; {known}")
        if args.im_size and name != IMAGE_FOLDER:
            raise UserError(f"--im_size: resizes pictures of ImageFolder only, not {name}")
        self.name = name
        self.data_path = args.data_path
        self.im_size = im_size
        self.validate = args.validate
        self._tests = {}

    @functools.cached_property
    def whole(self):
        """The real_data.Dataset as it is."""
        return loading.load(self.name, self.data_path, self.im_size)

    @functools.cached_property
    def dataset(self):
        """The same, whose test images are training images held out by --validate."""
        return self._without(self.validate)

    def _without(self, held_out):
        """The dataset with so many training images of each class as its test images, if any."""
        return self.whole.validation(held_out) if held_out else self.whole

    @property
    def title(self):
        """Its name and the size to which its pictures are brought, if they are."""
        size = f" with --im_size {self.im_size}" if self.im_size else ""
        return f"{self.name}{size}"

    @property
    def facts(self):
        """What its sets must fit, a sets.Facts; of a dataset in the table without loading it."""
        spec = DATASETS.get(self.name) or self.dataset
        return Facts.of(self.name, spec, self.class_names)

    def class_names(self):
        """The classes' names: the images' where these are at hand, else the known dataset's."""
        known = CLASSES.get(self.name)
        cache = outputs.path_of(self.data_path) / f"{self.name.lower()}.pt"
        is_loaded = "dataset" in vars(self)
        if known and not is_loaded and not cache.exists():
            return list(known)
        return self.dataset.classes

    def whitening(self, space, device="cpu", held_out=0):
        """The spaces.Whitening of a space, fitted on the training images; None of None.

        held_out: how many of each class the run of the set had held out of them, --validate.
        """
        if space is None:
            return None
        fitted = self.dataset if held_out == self.validate else self._without(held_out)
        number = f"{fitted.train:,} training images"
        messages.log.info(f"fitting the ZCA whitening on {number}")
        return spaces.Whitening.fit(fitted.real("train", device, normalised=space != "pixels"))

    def of(self, split, space, device, whitening=None):
        """The images of a split, "train" or "test", as a real_data.RealData."""
        return self.dataset.real(split, device, whitening, normalised=space != "pixels")

    def test(self, space, device, held_out=0):
        """The test images in a space, whitened where it is a whitened one. held_out: see
        `whitening`."""
        key = (space, device, held_out if space else 0)
        if key not in self._tests:
            whitening = self.whitening(space, device, held_out)
            self._tests[key] = self.of("test", space, device, whitening)
        return self._tests[key]


# Sets and their real images


@dataclasses.dataclass(frozen=True, eq=False)
class Located:
    """A file or folder of sets and its real images.

    because: why it is of their dataset, "" where the file says it.
    """

    found: layouts.Found
    real: RealImages
    because: str = ""

    def doubt(self):
        """In words, which other dataset its name says, or ""."""
        if not self.because:
            return ""
        return which_dataset.contradiction(self.found.path, self.real.name)


@dataclasses.dataclass(frozen=True, eq=False)
class SetsOfFile:
    """The sets of a file or folder, [SavedSet], one for each experiment, and their real images."""

    sets: list
    real: RealImages


def find(args):
    """What the paths of `args` name, whatever it holds: [Located]."""
    found = _found(args)
    ours = [one for one in found if one.meta]
    datasets = list(dict.fromkeys(one.meta["args"]["dataset"] for one in ours))
    if args.dataset:
        datasets = [args.dataset]
    sizes = [one.meta["args"].get("im_size") for one in ours]
    sizes = [size for size in sizes if size]
    size_beside = sizes[0] if sizes else None

    @functools.cache
    def of_size(name, im_size):
        return RealImages(name, args, im_size)

    def real(name, im_size):
        if name != IMAGE_FOLDER:
            im_size = None
        return of_size(name, args.im_size or im_size)

    located = []
    for one in found:
        if one.meta:
            own = one.meta["args"]["dataset"]
            name = datasets[0] if len(datasets) == 1 else own
            located.append(Located(one, real(name, one.meta["args"].get("im_size"))))
            continue
        if len(datasets) != 1:
            named = which_dataset.named_by(one.path)
            hint = f" (its name says {' and '.join(named)})" if named else ""
            text = f"does not say of which dataset it is; give --dataset{hint}"
            raise UserError(f"{one.path}: {text}")
        name = datasets[0]
        if args.dataset:
            because = f"of {name} as --dataset says"
            located.append(Located(one, real(name, size_beside), because))
            continue
        beside = f"as {ours[0].path.name} beside it"
        because = f"of {name} {beside} (--dataset if it is not)"
        guessed = Located(one, real(name, size_beside), because)
        if guessed.doubt():
            raise UserError(f"{one.path}: {guessed.doubt()}, {beside}; give --dataset")
        located.append(guessed)
    return located


def _found(args):
    """The layouts.Found at the paths of `args`, each once, though it be named twice."""
    found = {}
    for path in args.paths:
        for one in found_at(path, args.recursive):
            # A file that is linked to has the labels beside the link, so that is another set.
            found.setdefault(one.path.parent.resolve() / one.path.name, one)
    return list(found.values())


def way_of(args, num_classes):
    """How the flags `args` say that sets are read, a layouts.Way."""
    order = None
    if args.relabel and not args.diagnose:  # which writes it
        order = read_order(args.relabel, num_classes)
    return layouts.Way(args.factor, args.zca, args.pixels, args.labels, order)


def read_order(path, num_classes):
    """The class that each label means, a list, from a file of --diagnose --relabel. UserError if it
    is none."""
    try:
        order = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--relabel {path}: cannot be read ({short(error)})") from error
    if not outputs.orders_classes(order) or len(order) != num_classes:
        needed = f"needs a list of each of the numbers 0..{num_classes - 1}, once"
        raise UserError(f"--relabel {path}: {needed}")
    return order


def read(args, needs_real):
    """The sets that `args` name, [SetsOfFile]; says how each file was read.

    needs_real: whether real images are needed, so that a set of one's own images must fit those
    that are there now.
    """
    every = [_read_located(located, args, needs_real) for located in find(args)]
    for one in every:
        _say_of_other_data(one, needs_real)
    return every


def _read_located(located, args, needs_real):
    found = located.found
    real = located.real
    says_all = real.name == IMAGE_FOLDER and "classes" in found.meta
    if says_all and not (needs_real or found.meta["zca"]):
        facts = layouts.own_facts(found)
    else:
        facts = real.facts
    sets = layouts.read(found, facts, way_of(args, facts.num_classes), args.exp)
    if located.because:
        assumed = f"{sets[0].assumed}, {located.because}"
        sets = [dataclasses.replace(saved, assumed=assumed) for saved in sets]
    number = f"{len(sets)} experiment{'s' if len(sets) > 1 else ''}"
    said = f"{sets[0].layout} layout, {number}; assumed: {sets[0].assumed}"
    messages.log.info(f"{found.path}: {said}")
    notes = [located.doubt()]
    for saved in sets:
        notes += saved.notes
    for note in dict.fromkeys(notes):
        if note:
            messages.log.info(f"{found.path}: {note}")
    return SetsOfFile(sets, real)


def _say_of_other_data(one, needs_real):
    """A line if a set was distilled from other images than those that are here, or from those that
    it is judged on."""
    saved = one.sets[0]
    validate = one.real.validate
    if needs_real and validate > saved.held_out:
        seen = f"judged on {validate} training images per class that it may be distilled from"
        advice = f"take a set of a run with --validate {validate}"
        messages.log.info(f"{saved.path}: {seen}; {advice}")
    if needs_real and saved.held_out and not validate:
        without = f"distilled without {saved.held_out} training images per class (--validate)"
        messages.log.info(f"{saved.path}: {without}, judged on the test images")
    theirs = saved.meta.get("data_sha256")
    if not theirs or not (needs_real or saved.whitened_from):
        return
    here = one.real.dataset.fingerprint
    if theirs != here:
        hashes = f"distilled from data with hash {theirs[:8]}, judged on {here[:8]}"
        messages.log.info(f"{saved.path}: {hashes}")
