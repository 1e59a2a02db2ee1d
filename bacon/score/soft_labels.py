"""What soft labels (n,classes) are: probabilities, logits, or the targets of a regression.

A file does not say it. Rows without negatives that sum up to about 1 are probabilities, whoever
rounded them; rows with negatives are logits. What may be either is for --labels to say.
"""

import dataclasses

import torch

from bacon.errors import UserError

KINDS = ("logits", "probabilities", "hard")  # of --labels; hard: the likeliest class
EXACT = 1e-3  # by which a row of probabilities may miss 1 without a word
# By which it may miss 1 at all: bf16 misses it by 0.002, smoothing that adds 0.1/(C-1) in place of
# 0.1/C by 0.05 at most from three classes on, two decimals of ten classes by 0.05. Rows of logits
# without a negative that all sum up to 0.95..1.05 do not happen.
ABOUT = 0.05
MOST = 0.5  # the same where numbers have few decimals: each is off by half of the last one
NOISE = 1e-6  # below 0 that is still no negative
# Logits of which, in half of the rows, the likeliest class is at most exp(2) = 7.4 times as likely
# as the least likely one. One-hot less 0.1, as FRePo and RFAD have it, spreads 1, DATM's logits 13.
FLAT = 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Meaning:
    """What labels mean.

    kind: of KINDS, "" of labels that were hard. labels: logits (n,classes), of which softmax makes
    what to train on, or classes int64 (n,). words: what was assumed. note: a warning or "".
    """

    kind: str
    labels: torch.Tensor
    words: str = ""
    note: str = ""


def kind_of(labels):
    """The kind of soft labels (n,classes) by their numbers, or None where they may be either."""
    if (labels < -NOISE).any():
        return "logits"
    sums = labels.sum(1)
    if labels.max() <= 1 + ABOUT:
        return "probabilities" if (sums - 1).abs().max() <= _allowed(labels) else None
    alike = (sums - sums.median()).abs().max() <= ABOUT * sums.median()  # as percent do
    one_hot = (labels > NOISE).sum(1).max() <= 1  # as logits, and as probabilities
    return None if alike and not one_hot else "logits"


def _allowed(labels):
    """By how much rows of probabilities may miss 1: more where all have up to three decimals."""
    for decimals in (1, 2, 3):
        rounded = labels.mul(10**decimals).round().div(10**decimals)
        if torch.allclose(rounded, labels, rtol=0, atol=1e-5):
            half_of_the_last = 0.5 / 10**decimals
            return min(MOST, max(ABOUT, labels.shape[1] * half_of_the_last))
    return ABOUT


def is_flat(labels):
    """Whether the softmax of logits (n,classes) is nearly uniform: little is learnt from it."""
    spread = labels.amax(1) - labels.amin(1)
    return bool(spread.median() < FLAT)


def meaning_of(path, labels, asked=None):
    """The `Meaning` of a set's labels, (n,) or (n,classes).

    path: of the set. asked: of KINDS, or None. UserError, naming the path, where they cannot be
    what was asked for, or could be several things.
    """
    if labels.dim() == 1:
        if asked not in (None, "hard"):
            raise UserError(f"--labels: {path} has hard labels")
        return Meaning("", labels.long())
    labels = labels.float()
    if asked == "hard":
        words = "hard labels, the likeliest class of soft ones"
        return Meaning("hard", labels.argmax(1), words)
    kind = asked or kind_of(labels)
    sums = labels.sum(1, keepdim=True)
    between = f"{sums.min():.4g}..{sums.max():.4g}"
    if kind is None:
        text = f"has soft labels without negatives, whose rows sum up to {between}"
        known = "probabilities (divided by these sums), logits or hard (the likeliest class)"
        raise UserError(f"{path}: {text}; say what they are: --labels {known}")
    if kind == "logits":
        note = _warning(labels) if asked is None and is_flat(labels) else ""
        return Meaning(kind, labels, "soft labels are logits", note)
    if (labels < -NOISE).any() or not (labels > 0).any(1).all():
        raise UserError(f"--labels probabilities: some of {path} are negative or nothing")
    if asked is None and torch.allclose(sums, torch.ones(len(labels), 1), atol=EXACT):
        return Meaning(kind, labels.clamp_min(1e-30).log(), "soft labels are probabilities")
    renormalised = f"soft labels are probabilities, renormalised: rows sum up to {between}"
    words = "soft labels are probabilities" if asked else renormalised
    return Meaning(kind, (labels / sums).clamp_min(1e-30).log(), words)


def _warning(labels):
    likeliest = 100 * labels.softmax(1).amax(1).mean().item()
    text = "its soft labels, as logits, are nearly uniform"
    text += f": {likeliest:.1f} % for the likeliest class"
    return f"{text}; if they are the targets of a regression, --labels hard takes that class alone"
