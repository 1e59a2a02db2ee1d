"""In which way was a set meant? Every reading that fits it, tried by a short judge on real test
images.

The judge's accuracy tells the factor and what soft labels are. Instance norm undoes what scaling
does to pixels, so how these are stored shows by brightness and contrast: the set's beside those of
real images. Labels in another order leave it at chance, and a permutation in the confusion matrix,
found on half of the test images and counted on the others.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np
import torch

import networks
import utils
from bacon import judge, messages
from bacon.data import real_data
from bacon.data.spaces import PIXELS, Whitening
from bacon.errors import UserError
from bacon.score import layouts, soft_labels
from bacon.score.layouts import Way
from bacon.score.sets import SavedSet

JUDGE = "ConvNetW32"
SEEN = 6000  # images that a judge is trained on in all, or more by the epochs
EPOCHS = 8  # at least
BATCH = 32
TEST = 2000  # test images
FITTED = 5000  # training images that ZCA is fitted on
LARGEST = 3072  # pixels of an image, of all channels, for which ZCA is fitted at all
OCTAVES = 3.5  # of contrast by which a reading may be off and still fit
# Of the best accuracy: of readings of pixels that are as good, brightness and contrast decide.
ALIKE = 0.7


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """An order of classes: the class that each label means, (classes,). words: which order that
    is."""

    classes: np.ndarray
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A set as it is read in one `way`, a layouts.Way, and what the judge found.

    brightness: how much brighter it is than real images, in their standard deviations. contrast:
    its standard deviation, of theirs. confusions: a confusion matrix of each half of the test
    images, int64 (2, classes, classes), rows are true classes.
    """

    way: Way
    saved: SavedSet
    brightness: float
    contrast: float
    confusions: np.ndarray

    @property
    def misfit(self):
        """How far the set, so read, is from real images."""
        return abs(math.log2(self.contrast)) + abs(self.brightness)

    @property
    def space(self):
        """How its pixels are stored."""
        return self.way.pixels, self.saved.whitened_from

    @functools.cached_property
    def confusion(self):
        """The confusion matrix of all test images."""
        return self.confusions.sum(0)

    @property
    def accuracy(self):
        return np.trace(self.confusion) / self.confusion.sum()

    @functools.cached_property
    def permuted(self):
        """The accuracy on one half, with classes permuted as it is best on the other."""
        first, second = self.confusions
        return second[_assignment(first)].sum() / second.sum()

    @property
    def error(self):
        """The standard error of an accuracy on half of the images, at most."""
        return 0.5 / math.sqrt(self.confusion.sum() / 2)

    @property
    def reordered(self):
        """Whether another order of the classes is far better."""
        return self.permuted > self.accuracy + 3 * self.error

    @property
    def best(self):
        """The accuracy, in the better order of classes."""
        return max(self.accuracy, self.permuted) if self.reordered else self.accuracy

    def order(self, classes):
        """The `Order` of the classes that labels mean: one of `orders`, if it is as good, or else
        the best. classes: their names."""
        known = orders(classes)
        right = {}
        for words, order in known.items():
            right[words] = self.confusion[order, np.arange(len(order))].sum()
        best = max(right, key=right.get)
        if right[best] / self.confusion.sum() >= self.permuted - 2 * self.error:
            return Order(known[best], best)
        _, labels = _assignment(self.confusion)
        return Order(np.argsort(labels), "in an order of their own")

    def words(self):
        """How the set is read."""
        kinds = {
            None: "normalised",
            "normalised": "whitened by these scripts",
            "pixels": "whitened (ZCA)",
        }
        stored = {"unit": "in [0,1]", "bytes": "in [0,255]"}
        kind = stored.get(self.way.pixels) or kinds[self.saved.whitened_from]
        many = "four images" if self.saved.factor == 2 else "one image"
        soft = f", soft labels are {self.saved.soft}" if self.saved.soft else ""
        if self.saved.soft == "hard":
            soft = ", the likeliest class of soft labels"
        return f"{kind}, {many} a canvas{soft}"


def _assignment(confusion):
    """The label of each class, one to one, by which most of a confusion matrix is right: the index
    arrays of classes and labels."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(-confusion)


def orders(classes):
    """Orders in which others number the classes: {in words: the class that each label means}."""
    keys = {
        "by name": lambda c: classes[c],
        "by name, capitals alike": lambda c: classes[c].lower(),
        "by number, sorted as text": str,
        "backwards": lambda c: -c,
    }
    if all(name[1:].isdecimal() for name in classes):
        keys["by wnid"] = lambda c: int(classes[c][1:])
    found = {}
    for words, key in keys.items():
        found[words] = np.array(sorted(range(len(classes)), key=key))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """How a set is meant to be read.

    given: the layouts.Way of the command line. readings: all that were tried. meant: that which is
    meant, None if all are at chance. order: the `Order` of the classes, None if it is the
    dataset's.
    """

    given: Way
    readings: list
    num_classes: int
    meant: Reading | None = None
    order: Order | None = None

    def table(self):
        """A row for each reading, for tables.render."""
        rows = []
        for one in self.readings:
            given = " (as given)" if one.way == self.given else ""
            rows.append(
                {
                    "reading": one.words() + given,
                    "accuracy %": f"{100 * one.accuracy:.1f}",
                    "classes permuted": f"{100 * one.permuted:.1f}" if one.reordered else "-",
                    "brightness": f"{one.brightness:+.2f}",
                    "contrast": f"x {one.contrast:.2f}",
                    "": "<- meant" if one is self.meant else "",
                }
            )
        return rows

    def advice(self, order_file="FILE"):
        """The flags that read the set as it is meant, and in words how that is, in one line.

        order_file: where the order of classes is written.
        """
        if self.meant is None:
            chance = f"{100 / self.num_classes:.1f} %"
            return f"no reading is better than chance, {chance}"
        flags = []
        for field, flag in _FLAGS.items():
            value = getattr(self.meant.way, field)
            if value != getattr(self.given, field):
                flags.append(f"{flag} {value}")
        text = self.meant.words()
        if self.order:
            flags.append(f"--relabel {order_file}")
            text += f"; classes are numbered {self.order.words}"
        return f"{' '.join(flags) or 'as given'}: {text}"


# Flags of the fields of layouts.Way that readings differ in.
_FLAGS = {"factor": "--factor", "pixels": "--pixels", "soft": "--labels"}


def diagnose(found, real, given, exp, arithmetic, seed=0):
    """Read a layouts.Found in every way that fits it: a `Diagnosis`.

    real: finding.RealImages. given: the layouts.Way of the command line. exp: the experiment, None
    for the first. arithmetic: a compute.Arithmetic.
    """
    facts = real.facts
    networks.check(JUDGE, facts.shape[0], facts.num_classes, facts.shape[1:])
    bench = _Bench(found.path, real, arithmetic, seed)
    candidates = _candidates(found, facts, given, exp)
    # The labels as they are first; others are tried of the readings that fit best.
    first = candidates[0].way.soft
    readings = []
    for one in candidates:
        if one.way.soft == first:
            bench.try_(one, readings)
    meant = _meant(readings, given)
    for one in candidates:
        fits = meant is None or _alike(one.way, meant.way)
        if one.way.soft != first and fits:
            bench.try_(one, readings)
    meant = _meant(readings, given)
    order = None
    if meant is not None and meant.reordered:
        order = meant.order(real.dataset.classes)
    return Diagnosis(given, readings, facts.num_classes, meant, order)


def _alike(way, other):
    return way.factor == other.factor and way.pixels == other.pixels


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """A set as it is read in one `way`, before a judge has seen it."""

    way: Way
    saved: SavedSet


def _candidates(found, facts, given, exp):
    """Experiment `exp` by every way that reads it, [_Candidate], as given first. What two ways read
    alike counts once. UserError if none reads it."""
    chosen = []
    faults = []
    factors = (given.factor, 1, 2)
    pixels = (given.pixels, None, *PIXELS)
    kinds = (given.soft, None, *soft_labels.KINDS)
    for factor, stored, soft in itertools.product(factors, pixels, kinds):
        way = dataclasses.replace(given, factor=factor, pixels=stored, soft=soft)
        try:
            saved = layouts.read(found, facts, way, exp)[0]
        except UserError as error:
            faults.append(error)
            continue
        if soft == "probabilities" and _are_logits(found, facts, way, exp):
            continue
        if not any(_same(saved, other.saved) for other in chosen):
            chosen.append(_Candidate(way, saved))
    if not chosen:
        raise faults[0]
    return chosen


def _are_logits(found, facts, way, exp):
    """Whether labels are so clearly logits that they are not to be tried as probabilities."""
    as_stored = layouts.read(found, facts, dataclasses.replace(way, soft="logits"), exp)[0]
    return soft_labels.kind_of(as_stored.labels) == "logits"


def _same(a, b):
    if a.factor != b.factor or a.whitened_from != b.whitened_from:
        return False
    if a.labels.shape != b.labels.shape or not torch.equal(a.canvases, b.canvases):
        return False
    return torch.allclose(a.labels.float(), b.labels.float(), atol=1e-2)


class _Bench:
    """Tries readings of a set: real images to judge by, in each space loaded once."""

    def __init__(self, path, real, arithmetic, seed):
        self.path = path
        self.real = real
        self.facts = real.facts
        self.arithmetic = arithmetic
        self.seed = seed
        pixels = real.of("test", "pixels", "cpu")
        self.index = pixels.any_indices(TEST, utils.stream(0, "diagnose", "test"))
        self.mean, self.std = _look(pixels.take(self.index))
        self.whitening = functools.cache(self._whitening)
        self.test = functools.cache(self._test)

    def try_(self, candidate, readings):
        """Append the `Reading` of a candidate to `readings`, unless it cannot be tried or, beside
        others, its contrast is far from real images'."""
        saved = candidate.saved
        whitening = self.whitening(saved.whitened_from)
        if saved.whitened_from and not whitening:
            size = f"{math.prod(self.facts.shape):,} pixels"
            why = f"not tried as whitened, that takes too long with {size}"
            messages.log.info(f"{self.path}: {why}")
            return
        mean, std = _look(saved.pixels(saved.canvases, whitening))
        if readings and abs(math.log2(std / self.std)) > OCTAVES:
            return
        brightness = (mean - self.mean) / self.std
        confusions = self._confusions(saved)
        reading = Reading(candidate.way, saved, brightness, std / self.std, confusions)
        readings.append(reading)
        messages.log.info(f"{reading.words()}: {100 * reading.best:.1f} %")

    def _whitening(self, space):
        """The spaces.Whitening of a space, fitted on some training images: near enough to tell
        spaces apart. None of None, and of large images."""
        if space is None or math.prod(self.facts.shape) > LARGEST:
            return None
        real = self.real.of("train", space, "cpu")
        rng = utils.stream(0, "diagnose", "whitening")
        index = torch.from_numpy(real.any_indices(FITTED, rng))
        few = real_data.RealData(
            real.images[index],
            real.labels[index],
            real.mean,
            real.std,
            self.facts.num_classes,
            "cpu",
        )
        return Whitening.fit(few)

    def _test(self, space):
        """Test images in a space, and their labels."""
        return self.real.of("test", space, "cpu", self.whitening(space)).batch(self.index)

    def _confusions(self, saved):
        """What a network that trains on a set makes of test images in its space: see `Reading`."""
        device = self.arithmetic.device
        num_classes = self.facts.num_classes
        x, y = saved.decoded()
        x = x.to(device)
        if y.dim() == 2:
            y = y.softmax(1)
        y = y.to(device)
        rng = utils.stream(self.seed, "diagnose", "judge")
        net = self.arithmetic.build(JUDGE, x.shape[1:], num_classes, rng)
        protocol = judge.Protocol(max(EPOCHS, SEEN // len(x)), BATCH, 0.01, ())
        judge.train(net, x, y, protocol, rng, self.arithmetic)
        net.eval()
        images, labels = self.test(saved.whitened_from)
        found = []
        with torch.no_grad():
            for part in images.split(250):
                found.append(net.classify(part.to(device)).argmax(1).cpu())
        found = torch.cat(found)
        confusions = np.zeros((2, num_classes, num_classes), dtype=np.int64)
        half = np.arange(len(found)) % 2
        np.add.at(confusions, (half, labels.numpy(), found.numpy()), 1)
        return confusions


def _look(pixels):
    """Mean and standard deviation of images (n,C,H,W), each the average of the channels'."""
    mean = pixels.mean().item()
    std = pixels.std((0, 2, 3)).mean().item()
    return mean, std + 1e-9


def _meant(readings, given):
    """The Reading that the set is meant in, or None if all are at chance."""
    alive = [one for one in readings if _is_above_chance(one)]
    if not alive:
        return None
    enough = ALIKE * max(one.best for one in alive)
    good = [one for one in alive if one.best >= enough]
    for one in good:
        if one.way == given and one.saved.meta:  # a file of these scripts says how it is meant
            return one
    space = min(good, key=lambda one: one.misfit).space
    alive = [one for one in alive if one.space == space]
    alive.sort(key=lambda one: -one.best)
    if given.soft != "hard":
        no_logits = [one for one in alive if one.saved.soft == "probabilities"]
        alive = no_logits or alive
        logits = [one.saved.labels for one in readings if one.saved.soft == "logits"]
        if not any(soft_labels.is_flat(labels) for labels in logits):
            # Of labels that are logits a short judge may like the hard ones more.
            alive = [one for one in alive if one.saved.soft != "hard"] or alive
    best = alive[0]
    for one in alive:
        if one.way == given and one.best >= best.best - one.error:
            return one
    return best


def _is_above_chance(reading):
    chance = 1 / len(reading.confusion)
    times = 1.6 if reading.reordered else 1.4
    return reading.best > times * chance + 2 * reading.error
