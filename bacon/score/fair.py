"""What a set is worth beside real images: IOR, HLR and the label-robust score of DD-Ranking.

Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", arXiv 2505.13300.
Accuracies are fractions of the last epoch. Spreads of independent parts add up as squares.
"""

import dataclasses
import math

from bacon import tables

NAMES = ("IOR", "HLR", "LRS")

# In what the judges of a baseline and of a set must agree: fields of judge.Protocol. Judges of the
# whole training set have a length of their own, --full_epochs.
SAME_OF_RANDOM = ("epochs", "steps", "batch", "optimizer")
SAME_OF_FULL = ("batch", "optimizer")


@dataclasses.dataclass(frozen=True)
class Fraction:
    """A number, as a fraction, and its standard deviation."""

    value: float
    spread: float


def _fraction_of(accuracies):
    """The `Fraction` of accuracies [[per network] per experiment]; None of None."""
    if accuracies is None:
        return None
    summary = tables.summary(accuracies)
    return Fraction(summary["mean"] / 100, summary["std"] / 100)


def label_robust(ior, hlr, weight=0.5):
    """LRS in [0, 1]: (e^alpha - e^-1) / (e - e^-1), alpha = w IOR - (1 - w) HLR."""
    return (math.exp(weight * ior - (1 - weight) * hlr) - math.exp(-1)) / (math.e - math.exp(-1))


def scores(own, hard, random, full):
    """{name: Fraction} of IOR, HLR and LRS, each if its baselines are there.

    own: [[accuracy per network] per experiment] of the set. hard: of it with hard labels, None
    where they are. random: of as many random images. full: of the whole training set; the last two
    may be None.
    """
    has_hard_labels = hard is None
    own = _fraction_of(own)
    hard = own if has_hard_labels else _fraction_of(hard)
    random = _fraction_of(random)
    full = _fraction_of(full)
    found = {}
    if random:
        spread = math.hypot(own.spread, random.spread)
        found["IOR"] = Fraction(own.value - random.value, spread)
    if full:
        spread = math.hypot(hard.spread, full.spread)
        found["HLR"] = Fraction(full.value - hard.value, spread)
    if random and full:
        found["LRS"] = _label_robust_with_spread(own, hard, random, full, has_hard_labels)
    return found


def _label_robust_with_spread(own, hard, random, full, has_hard_labels):
    value = label_robust(own.value - random.value, full.value - hard.value)
    # By the derivative of LRS: half of its exponential for each of the four accuracies.
    slope = (value + math.exp(-1) / (math.e - math.exp(-1))) / 2
    # With hard labels one accuracy counts in both, twice.
    parts = [2 * own.spread] if has_hard_labels else [own.spread, hard.spread]
    return Fraction(value, math.hypot(*parts, random.spread, full.spread) * slope)


def add_scores(rows):
    """Give every row of a set its `scores`, by the rows of random and of all real images among
    them. rows: rows.Row."""
    for row in rows:
        if row.baseline:
            continue
        of_network = [one for one in rows if one.network == row.network]
        of_storage = [one for one in of_network if one.stored == row.stored]
        random = _baseline("random", of_storage, row, SAME_OF_RANDOM)
        full = _baseline("full", of_network, row, SAME_OF_FULL)
        row.fair = scores(row.accuracy, row.hard, random, full)


def _baseline(kind, rows, own, same):
    """The accuracy of a row of this baseline, or None.

    Its judges agree with those of the row `own` in the fields `same`. Of several, it is the one
    whose judges agree in most fields: of sets with a learnt rate no baseline has the same rate.
    """
    wanted = own.protocol_settings

    def agrees(row, fields):
        return all(row.protocol_settings.get(name) == wanted.get(name) for name in fields)

    def fields_alike(row):
        return sum(agrees(row, [name]) for name in wanted)

    alike = [row for row in rows if row.baseline == kind and agrees(row, same)]
    return max(alike, key=fields_alike).accuracy if alike else None
