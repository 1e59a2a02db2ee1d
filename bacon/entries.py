"""What the entries of a file may hold, and in words which of them holds anything else.

Files come from disks that fail, editors and other programs. A value that is found out when the file
is read costs one line; one that is found out later costs the work done until then. No torch.
"""

import math
import numbers
from collections.abc import Callable
from typing import NamedTuple


class Kind(NamedTuple):
    """What an entry may hold. words: it in words, as in 'not a text'. fits: function(value)."""

    words: str
    fits: Callable


def _is_whole(value):
    # Python counts True among the whole numbers.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_recorded(value):
    # Numbers of numpy are real ones, and so is NaN.
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_fractions(value):
    if not isinstance(value, list) or not value:
        return False
    return all(_is_number(number) and 0 <= number <= 1 for number in value)


def _is_experiments(value):
    return isinstance(value, list) and bool(value) and all(map(_is_fractions, value))


MOST = 10**9  # what a whole number may be at most, as for flags


def whole(low):
    """The `Kind` of a whole number from `low` to MOST."""

    def fits(value):
        return _is_whole(value) and low <= value <= MOST

    return Kind(f"a whole number from {low} to {MOST:,}", fits)


def one_of(*values):
    """The `Kind` of these values alone."""
    words = " or ".join(map(repr, values))

    def fits(value):
        # 1 == True, and 2 == 2.0: only the same type counts.
        return any(type(value) is type(known) and value == known for known in values)

    return Kind(words, fits)


def or_none(kind):
    """The `Kind` of a value of another, or of None."""
    return Kind(f"{kind.words} or None", lambda value: value is None or kind.fits(value))


def list_of(kind, words):
    """The `Kind` of a list or tuple, also an empty one, whose elements are all of a kind.

    words: the elements, as in 'not a list of texts'.
    """

    def fits(value):
        return isinstance(value, (list, tuple)) and all(map(kind.fits, value))

    return Kind(f"a list of {words}", fits)


SWITCH = Kind("True or False", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
LIST = Kind("a list", lambda value: isinstance(value, (list, tuple)))
DICTIONARY = Kind("a dictionary", lambda value: isinstance(value, dict))
NUMBER = Kind("a finite number", _is_number)
ABOVE_ZERO = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
RECORDED = Kind("a number, finite or not", _is_recorded)
FRACTIONS = Kind("a list of numbers from 0 to 1", _is_fractions)
EXPERIMENTS = Kind("a list of lists of numbers from 0 to 1", _is_experiments)


def fault(content, needed, optional=None):
    """In words, the first entry of a dictionary that is not as it should be, or "".

    needed, optional: {name: Kind} of the entries that it must have and of those that it may lack.
    Others may hold anything.
    """
    if not isinstance(content, dict):
        return f"{_short(content)} is not a dictionary"
    for name in needed:
        if name not in content:
            return f"{name!r} is missing"
    for name, kind in {**needed, **(optional or {})}.items():
        if name in content and not kind.fits(content[name]):
            return f"{name!r} is {_short(content[name])}, not {kind.words}"
    return ""


def _short(value):
    """A value in a line of bounded length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
