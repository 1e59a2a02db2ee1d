"""Facts about what the entries of files may hold."""

import math

import numpy as np
import pytest

from bacon import entries

# kind: values that it takes, and values that it does not
KINDS = {
    "whole": (entries.whole(1), [1, 7], [0, -1, 10**400, 1.0, True, "1", None, [1]]),
    "one of": (entries.one_of(1, 2), [1, 2], [3, 2.0, True, "2", None, []]),
    "or none": (entries.or_none(entries.whole(0)), [None, 0], [-1, "0", False]),
    "switch": (entries.SWITCH, [True, False], [0, 1, None, "True"]),
    "text": (entries.TEXT, ["", "x"], [b"x", None, 1]),
    "any list": (entries.LIST, [[], [1, "a"], (None,)], ["a", None, {1: 2}]),
    "dictionary": (entries.DICTIONARY, [{}, {1: 2}], [[], None, "{}"]),
    "number": (entries.NUMBER, [0, -1.5, 10**400], [math.nan, math.inf, None, True, "1"]),
    "above zero": (entries.ABOVE_ZERO, [1, 1e-9], [0, -0.0, -1, math.nan, math.inf, "1", None]),
    "recorded": (
        entries.RECORDED,
        [1, 50.0, math.nan, np.float32(0.5), np.int64(1)],
        [None, "0.5", True, [0.5]],
    ),
    "list": (
        entries.list_of(entries.TEXT, "texts"),
        [[], ["a"], ("a", "b")],
        ["a", None, {"a": 1}, ["a", 1]],
    ),
    "fractions": (
        entries.FRACTIONS,
        [[0], [0.5, 1]],
        [[], [None], [math.nan], [1.5], [-0.1], 0.5, None, ["0.5"], {0: 1}],
    ),
    "experiments": (
        entries.EXPERIMENTS,
        [[[0.5]], [[0, 1], [0.5]]],
        [[], [[]], [0.5], None, [[0.5], [None]], [[2]]],
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_takes_what_its_words_say_and_nothing_else(name):
    kind, right, wrong = KINDS[name]
    assert [kind.fits(value) for value in right] == [True] * len(right)
    assert [kind.fits(value) for value in wrong] == [False] * len(wrong)


def test_the_first_entry_that_is_not_as_it_should_be_is_named_with_its_value():
    needed = {"a": entries.whole(1), "b": entries.TEXT}
    optional = {"c": entries.NUMBER}
    assert entries.fault({"a": 1, "b": "x"}, needed) == ""
    assert entries.fault({"a": 1, "b": "x", "c": 0.5, "d": None}, needed, optional) == ""
    assert entries.fault({"a": 1}, needed) == "'b' is missing"
    assert entries.fault({"a": 0, "b": "x"}, needed) == (
        "'a' is 0, not a whole number from 1 to 1,000,000,000"
    )
    found = entries.fault({"a": 1, "b": "x", "c": math.nan}, needed, optional)
    assert found == "'c' is nan, not a finite number"
    assert entries.fault([1], needed) == "[1] is not a dictionary"


def test_a_long_value_is_cut_and_stays_in_one_line():
    found = entries.fault({"a": ["x\n"] * 100}, {"a": entries.TEXT})
    assert found.endswith("..., not a text") and len(found) < 100 and "\n" not in found
