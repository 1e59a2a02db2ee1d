"""In which way was a set meant? Every reading that fits it, tried by a short judge on real test images.

The judge's accuracy tells the factor and what soft labels are. Instance norm undoes what scaling does to pixels, so how
these are stored shows by brightness and contrast: the set's beside those of real images. Labels in another order leave
it at chance, and a permutation in the confusion matrix, found on half of the test images and counted on the others.
"""

import functools
import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch

import networks
import utils
from bacon import judge
from bacon.data import real_data
from bacon.data.spaces import PIXELS, Whitening
from bacon.errors import UserError, short
from bacon.score import layouts, soft_labels

JUDGE, SEEN, EPOCHS, BATCH = (
    "ConvNetW32",
    6000,
    8,
    32,
)  # images that a judge sees in all, or more by the epochs
TEST, FITTED, LARGEST = (
    2000,
    5000,
    3072,
)  # test images; training images that ZCA is fitted on; its pixels at most
OCTAVES = 3.5  # of contrast by which a reading may be off and still fit
ALIKE = 0.7  # of the best accuracy: of readings of pixels that are as good, brightness and contrast decide


def read_order(path, num_classes):
    """The class that each label means, a list, from a file of --diagnose --relabel. UserError if it is none."""
    try:
        order = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--relabel {path}: cannot be read ({short(error)})") from error
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(
        map(str, range(num_classes))
    ):
        raise UserError(
            f"--relabel {path}: needs a list of each of the numbers 0..{num_classes - 1}, once"
        )
    return order


class Reading:
    """A set as the scorer reads it with `flags`, and what the judge found.

    brightness, contrast: beside real images, in their standard deviations. halves: a confusion matrix of each half of
    the test images, int64 (2, classes, classes), rows are true classes.
    """

    def __init__(self, flags, saved, brightness, contrast, halves):
        from scipy.optimize import linear_sum_assignment

        self.flags, self.saved, self.brightness, self.contrast = flags, saved, brightness, contrast
        self.misfit = abs(math.log2(contrast)) + abs(
            brightness
        )  # how far the set, so read, is from real images
        self.space = flags["pixels"], saved.zca
        self.confusion = halves.sum(0)
        self.accuracy = np.trace(self.confusion) / self.confusion.sum()
        self.permuted = halves[1][linear_sum_assignment(-halves[0])].sum() / halves[1].sum()
        self.error = 0.5 / math.sqrt(
            self.confusion.sum() / 2
        )  # of an accuracy on half of the images, at most
        self.reordered = (
            self.permuted > self.accuracy + 3 * self.error
        )  # another order of the classes is far better
        self.order = np.argsort(
            linear_sum_assignment(-self.confusion)[1]
        )  # the class that each label then means
        self.best = max(self.accuracy, self.permuted if self.reordered else 0)

    def words(self):
        pixels = {
            None: "normalised",
            "normalised": "whitened by these scripts",
            "pixels": "whitened (ZCA)",
        }
        kind = {"unit": "in [0,1]", "bytes": "in [0,255]"}.get(self.flags["pixels"]) or pixels[
            self.saved.zca
        ]
        many = "four images" if self.saved.factor == 2 else "one image"
        soft = f", soft labels are {self.saved.soft}" if self.saved.soft else ""
        if self.saved.soft == "hard":
            soft = ", the likeliest class of soft labels"
        return f"{kind}, {many} a canvas{soft}"


def _readings(found, facts, given, exp):
    """Experiment `exp` by every combination of flags that reads it: [(flags, SavedSet)], as given first.

    given: the flags of the command line. What two combinations read alike counts once. UserError if nothing reads it.
    """
    chosen, faults = [], []
    soft = (given["soft"], None, *soft_labels.KINDS)
    for way in itertools.product((given["factor"], 1, 2), (given["pixels"], None, *PIXELS), soft):
        flags = given | dict(zip(("factor", "pixels", "soft"), way, strict=True))
        try:
            one, *_ = layouts.read(found, facts, **flags, exp=exp)
        except UserError as error:
            faults.append(error)
            continue
        if way[2] == "probabilities":
            as_stored, *_ = layouts.read(found, facts, **flags | {"soft": "logits"}, exp=exp)
            if soft_labels.kind_of(as_stored.labels) == "logits":
                continue
        if not any(_same(one, other) for _, other in chosen):
            chosen.append((flags, one))
    if not chosen:
        raise faults[0]
    return chosen


def _same(a, b):
    alike = a.factor == b.factor and a.zca == b.zca and torch.equal(a.canvases, b.canvases)
    alike = alike and a.labels.shape == b.labels.shape
    return alike and torch.allclose(a.labels.float(), b.labels.float(), atol=1e-2)


def _look(pixels):
    """Mean and standard deviation of images (n,C,H,W), each the average of the channels'."""
    return pixels.mean().item(), pixels.std((0, 2, 3)).mean().item() + 1e-9


def _whitening(real, space, facts):
    """The spaces.Whitening of a space, fitted on some training images: near enough to tell spaces apart. Or None."""
    if space is None or math.prod(facts.shape) > LARGEST:
        return None
    some = real.of("train", space, "cpu")
    index = torch.from_numpy(some.any_indices(FITTED, utils.stream(0, "diagnose", "whitening")))
    few = real_data.RealData(
        some.images[index], some.labels[index], some.mean, some.std, facts.num_classes, "cpu"
    )
    return Whitening.fit(few)


def _halves(saved, images, labels, num_classes, arithmetic, seed):
    """What a network that trains on a set makes of test images in its space: see `Reading`."""
    x, y = saved.decoded()
    x, y = x.to(arithmetic.device), (y.softmax(1) if y.dim() == 2 else y).to(arithmetic.device)
    rng = utils.stream(seed, "diagnose", "judge")
    net = arithmetic.build(JUDGE, x.shape[1:], num_classes, rng)
    protocol = judge.Protocol(max(EPOCHS, SEEN // len(x)), BATCH, 0.01, ())
    judge.train(net, x, y, protocol, rng, arithmetic)
    net.eval()
    with torch.no_grad():
        said = torch.cat(
            [net.classify(part.to(arithmetic.device)).argmax(1).cpu() for part in images.split(250)]
        )
    halves = np.zeros((2, num_classes, num_classes), dtype=np.int64)
    np.add.at(halves, (np.arange(len(said)) % 2, labels.numpy(), said.numpy()), 1)
    return halves


def _orders(classes):
    """Orders in which others number the classes: {in words: the class that each label means}."""
    by = {"by name": lambda c: classes[c], "by name, capitals alike": lambda c: classes[c].lower()}
    by |= {"by number, sorted as text": str, "backwards": lambda c: -c}
    if all(name[1:].isdecimal() for name in classes):
        by["by wnid"] = lambda c: int(classes[c][1:])
    return {words: np.array(sorted(range(len(classes)), key=key)) for words, key in by.items()}


def _order(reading, classes):
    """The class that each label means, by a confusion matrix, and in words which order that is."""
    confusion, orders = reading.confusion, _orders(classes)
    right = {
        words: confusion[order, np.arange(len(order))].sum() for words, order in orders.items()
    }
    best = max(right, key=right.get)
    if right[best] / confusion.sum() >= reading.permuted - 2 * reading.error:
        return orders[best], best
    return reading.order, "in an order of their own"


def diagnose(found, real, given, exp, arithmetic, seed=0, say=print):
    """Read a layouts.Found in every way that fits: (rows of a table, advice in one line, the classes' order or None).

    real: the scorer's RealImages. given: the flags factor, zca, pixels, soft and order of the command line.
    """
    facts = real.facts
    networks.check(JUDGE, facts.shape[0], facts.num_classes, facts.shape[1:])
    pixels = real.of("test", "pixels", "cpu")
    index = pixels.any_indices(TEST, utils.stream(0, "diagnose", "test"))
    (mean, std), several = _look(pixels.take(index)), _readings(found, facts, given, exp)
    whitening_of = functools.cache(lambda space: _whitening(real, space, facts))
    test_of = functools.cache(
        lambda space: real.of("test", space, "cpu", whitening_of(space)).batch(index)
    )
    readings, meant, first = [], None, several[0][0]["soft"]
    for other_labels in (False, True):  # these are tried of the readings that fit best
        for flags, saved in several:
            fits = not meant or all(flags[key] == meant.flags[key] for key in ("factor", "pixels"))
            if not fits or (flags["soft"] != first) != other_labels:
                continue
            whitening = whitening_of(saved.zca)
            if saved.zca and not whitening:
                say(
                    f"{found.path}: not tried as whitened, that takes too long with {math.prod(facts.shape):,} pixels"
                )
                continue
            its_mean, its_std = _look(layouts.pixels(saved, saved.canvases, whitening))
            if readings and abs(math.log2(its_std / std)) > OCTAVES:
                continue
            halves = _halves(saved, *test_of(saved.zca), facts.num_classes, arithmetic, seed)
            readings.append(Reading(flags, saved, (its_mean - mean) / std, its_std / std, halves))
            say(f"{readings[-1].words()}: {100 * readings[-1].best:.1f} %")
        meant = _meant(readings, given)
    rows = [
        {
            "reading": one.words() + (" (as given)" if one.flags == given else ""),
            "accuracy %": f"{100 * one.accuracy:.1f}",
            "classes permuted": f"{100 * one.permuted:.1f}" if one.reordered else "-",
            "brightness": f"{one.brightness:+.2f}",
            "contrast": f"x {one.contrast:.2f}",
            "": "<- meant" if one is meant else "",
        }
        for one in readings
    ]
    if meant is None:
        return rows, f"no reading is better than chance, {100 / facts.num_classes:.1f} %", None
    order, also = None, ""
    names = {"factor": "--factor", "pixels": "--pixels", "soft": "--labels"}
    changed = [f"{names[key]} {value}" for key, value in meant.flags.items() if value != given[key]]
    if meant.reordered:
        order, words = _order(meant, real.dataset.classes)
        changed, also = [*changed, "--relabel FILE"], f"; classes are numbered {words}"
    return rows, f"{' '.join(changed) or 'as given'}: {meant.words()}{also}", order


def _meant(readings, given):
    """The Reading that the set is meant in, or None if all are at chance."""
    chance = 1 / len(readings[0].confusion)
    alive = [
        one
        for one in readings
        if one.best > (1.6 if one.reordered else 1.4) * chance + 2 * one.error
    ]
    if not alive:
        return None
    enough = ALIKE * max(one.best for one in alive)
    space = min((one for one in alive if one.best >= enough), key=lambda one: one.misfit).space
    alive = sorted((one for one in alive if one.space == space), key=lambda one: -one.best)
    if given["soft"] != "hard":
        alive = [one for one in alive if one.saved.soft == "probabilities"] or alive  # no logits
        logits = [one.saved.labels for one in readings if one.saved.soft == "logits"]
        if not any(soft_labels.is_flat(labels) for labels in logits):
            # Of labels that are logits a short judge may like the hard ones more.
            alive = [one for one in alive if one.saved.soft != "hard"] or alive
    return next(
        (one for one in alive if one.flags == given and one.best >= alive[0].best - one.error),
        alive[0],
    )
