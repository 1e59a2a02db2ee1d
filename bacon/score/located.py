"""The sets that a command line names, and the real images that each of them is of."""

import dataclasses
import functools
import sys

from bacon import outputs
from bacon.data import loading, spaces
from bacon.data.known_classes import CLASSES
from bacon.errors import UserError
from bacon.recipes import DATASETS, IMAGE_FOLDER
from bacon.score import layouts, which_dataset


def say(line):
    """A message: it goes to standard error, the table alone to standard output."""
    print(line, file=sys.stderr, flush=True)


class RealImages:
    """The real images of a dataset, loaded when first needed: a loading.RealData in each `space`, see SavedSet.zca."""

    def __init__(self, name, args, im_size=None):
        if name not in (*DATASETS, IMAGE_FOLDER):
            raise UserError(
                f"dataset {name}: unknown; choose from {', '.join(DATASETS)} or {IMAGE_FOLDER}"
            )
        if args.im_size and name != IMAGE_FOLDER:
            raise UserError(f"--im_size: resizes pictures of ImageFolder only, not {name}")
        self.name, self._where = name, (args.data_path, im_size)
        self.test = functools.cache(
            lambda space, device: self.of("test", space, device, self.whitening(space, device))
        )

    @functools.cached_property
    def dataset(self):
        return loading.load(self.name, *self._where)

    @property
    def facts(self):
        """What its sets must fit, a layouts.Facts; of a dataset in the table without loading it."""
        return layouts.Facts.of(
            self.name, DATASETS.get(self.name) or self.dataset, self.class_names
        )

    def class_names(self):
        """The classes' names: the images' where these are at hand, else the known dataset's."""
        known = CLASSES.get(self.name)
        cache = outputs.path_of(self._where[0]) / f"{self.name.lower()}.pt"
        if known and "dataset" not in vars(self) and not cache.exists():
            return list(known)
        return self.dataset.classes

    def whitening(self, space, device="cpu"):
        """The spaces.Whitening that sets of this space were distilled in, or None."""
        if space is None:
            return None
        say(f"fitting the ZCA whitening on {self.dataset.train:,} training images")
        return spaces.Whitening.fit(self.of("train", space, device))

    def of(self, split, space, device, whitening=None):
        return self.dataset.real(split, device, whitening, normalised=space != "pixels")


@dataclasses.dataclass(frozen=True, eq=False)
class Located:
    """A set and its real images. because: why it is of their dataset, "" where the file says it."""

    found: layouts.Found
    real: RealImages
    because: str = ""

    def doubt(self):
        """In words, which other dataset its name says, or ""."""
        return which_dataset.contradiction(self.found.path, self.real.name) if self.because else ""


def find(args):
    """The sets that `args` name, whatever they hold: [Located]."""
    files = {}
    for path in args.paths:
        for one in layouts.found_at(path, args.recursive, say):  # a set may be named twice
            # A linked one has the labels beside the link.
            files.setdefault(one.path.parent.resolve() / one.path.name, one)
    found = list(files.values())
    runs = [one.meta["args"] for one in found if one.meta]
    said = [args.dataset] if args.dataset else list(dict.fromkeys(run["dataset"] for run in runs))
    im_size = args.im_size or next((run.get("im_size") for run in runs), None)
    real, located = functools.cache(lambda name: RealImages(name, args, im_size)), []
    run_beside = next((one.path.name for one in found if one.meta), None)
    for one in found:
        if one.meta:
            own = said[0] if len(said) == 1 else one.meta["args"]["dataset"]
            located.append(Located(one, real(own)))
            continue
        if len(said) != 1:
            named = which_dataset.named_by(one.path)
            hint = f" (its name says {' and '.join(named)})" if named else ""
            text = f"does not say of which dataset it is; give --dataset{hint}"
            raise UserError(f"{one.path}: {text}")
        because = f"of {said[0]} as --dataset says"
        if not args.dataset:
            because = f"of {said[0]} as {run_beside} beside it (--dataset if it is not)"
        foreign = Located(one, real(said[0]), because)
        if foreign.doubt() and not args.dataset:
            text = f"{foreign.doubt()}, as {run_beside} beside it; give --dataset"
            raise UserError(f"{one.path}: {text}")
        located.append(foreign)
    return located
