"""Facts about soft labels: however they were rounded, probabilities are told from logits."""

import math

import pytest
import torch
import torch.nn.functional as F

from bacon.errors import UserError
from bacon.score import command, layouts, sets, soft_labels


def logits(n=40, classes=10, seed=0):
    drawn = torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))
    drawn[torch.arange(n), torch.arange(n) % classes] += 4
    return drawn


def probabilities(n=40, classes=10):
    return logits(n, classes).softmax(1)


def one_hot(n=40, classes=10):
    return F.one_hot(torch.arange(n) % classes, classes).float()


def one_row_off(by):
    labels = probabilities()
    labels[3] *= 1 + by
    return labels


# labels, and whether rows are renormalised with a word
PROBABILITIES = {
    "exact": (probabilities(), False),
    "one-hot": (one_hot(), False),
    "smoothed": (0.9 * one_hot() + 0.01, False),
    "float16": (probabilities().half(), False),
    "bf16": (probabilities().bfloat16(), True),
    "two decimals": (probabilities().mul(100).round().div(100), True),
    "three decimals": (probabilities().mul(1000).round().div(1000), True),
    "two decimals of 100 classes": (probabilities(200, 100).mul(100).round().div(100), True),
    "three decimals of 200 classes": (probabilities(200, 200).mul(1000).round().div(1000), True),
    "one row 1 % more": (one_row_off(0.01), True),
    "one row 1 % less": (one_row_off(-0.01), True),
    "smoothed too much": (0.9 * one_hot() + 0.1 / 9, True),
    "noise below 0": (one_hot() - 1e-8, False),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_rows_that_sum_up_to_about_one_are_probabilities(kind):
    labels, renormalised = PROBABILITIES[kind]
    found = soft_labels.meaning_of("x.pt", labels)
    assert found.kind == "probabilities" and not found.note
    assert ("renormalised: rows sum up to " in found.words) == renormalised
    exact = labels.float() / labels.float().sum(1, keepdim=True)
    torch.testing.assert_close(found.labels.softmax(1), exact, rtol=0, atol=1e-5)


LOGITS = {
    "of a network": logits(),
    "logarithms": probabilities().log(),
    "one-hot by 3": 3 * one_hot(),
    "after a ReLU": (3 * logits()).relu(),
}


@pytest.mark.parametrize("kind", LOGITS)
def test_logits_stay_as_they_are(kind):
    found = soft_labels.meaning_of("x.pt", LOGITS[kind])
    assert (found.kind, found.words, found.note) == ("logits", "soft labels are logits", "")
    assert torch.equal(found.labels, LOGITS[kind])


UNCLEAR = {
    "percent": 100 * probabilities(),
    "whole percent": (100 * probabilities()).round(),
    "each class by itself": 0.9 * one_hot() + 0.1,
    "one row of nothing": torch.cat((probabilities(), torch.zeros(1, 10))),
    "a tenth less": 0.9 * probabilities(),
    "7 % less": 0.93 * probabilities(),
    "bytes": 255 * probabilities(),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_may_be_either_is_asked_for(kind):
    labels = UNCLEAR[kind]
    with pytest.raises(UserError, match=r"x\.pt.*--labels probabilities .* logits or hard"):
        soft_labels.meaning_of("x.pt", labels)
    assert torch.equal(soft_labels.meaning_of("x.pt", labels, "logits").labels, labels)
    assert torch.equal(soft_labels.meaning_of("x.pt", labels, "hard").labels, labels.argmax(1))
    if kind != "one row of nothing":
        read = soft_labels.meaning_of("x.pt", labels, "probabilities").labels.softmax(1)
        torch.testing.assert_close(read, labels / labels.sum(1, keepdim=True))


TARGETS = {
    "one-hot less 0.1": (one_hot() - 0.1, 10),
    "centred, of 100 classes": (one_hot(200, 100) - 0.01, 100),
    "of two classes": (one_hot(10, 2) - 0.5, 2),
    "learnt": (one_hot() - 0.1 + 0.1 * logits().tanh(), 10),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_of_a_regression_are_warned_of(kind):
    labels, classes = TARGETS[kind]
    found = soft_labels.meaning_of("x.pt", labels)
    assert found.kind == "logits" and torch.equal(found.labels, labels)
    assert "nearly uniform" in found.note and "--labels hard" in found.note
    if kind != "learnt":
        assert f"{100 * math.e / (math.e + classes - 1):.1f} %" in found.note
    assert not soft_labels.meaning_of("x.pt", labels, "logits").note  # who asks for it knows


def test_hard_labels_are_what_they_are():
    labels = torch.arange(10)
    for asked in (None, "hard"):
        assert torch.equal(soft_labels.meaning_of("x.pt", labels, asked).labels, labels)
    for asked in ("logits", "probabilities"):
        with pytest.raises(UserError, match=r"x\.pt has hard labels"):
            soft_labels.meaning_of("x.pt", labels, asked)


def test_a_set_is_scored_by_the_likeliest_class_on_request(digits, digits_folder, tmp_path, capsys):
    images = digits.real("train").take(range(20))
    torch.save({"data": [[images, one_hot(20) - 0.1]]}, tmp_path / "x.pt")
    torch.save({"data": [[images, torch.arange(20) % 10]]}, tmp_path / "hard.pt")
    line = ["--dataset=Digits", f"--data_path={digits_folder}", "--export", "dc"]
    assert command.main(None, [str(tmp_path / "x.pt"), *line, str(tmp_path / "a.pt")]) == 0
    assert "x.pt: its soft labels, as logits, are nearly uniform" in capsys.readouterr().err
    line += [str(tmp_path / "b.pt"), "--labels=hard"]
    assert command.main(None, [str(tmp_path / "x.pt"), *line]) == 0
    said = capsys.readouterr().err
    assert "hard labels, the likeliest class of soft ones" in said and "uniform" not in said
    facts = sets.Facts.of("Digits", digits, lambda: digits.classes)
    (soft,) = layouts.read(layouts.recognise(tmp_path / "x.pt"), facts, layouts.Way(soft="hard"))
    (hard,) = layouts.read(layouts.recognise(tmp_path / "hard.pt"), facts, layouts.Way(soft="hard"))
    assert torch.equal(soft.labels, hard.labels) and (soft.soft, hard.soft) == ("hard", "")


@pytest.mark.parametrize(("spreads", "flat"), [([1.9, 1.9, 9], True), ([2.1, 2.1, 0], False)])
def test_logits_are_flat_if_half_of_the_rows_are(spreads, flat):
    """Their likeliest class is less than exp(2) times as likely as the least likely one."""
    labels = torch.tensor([[-1.0, spread - 1, 0.0] for spread in spreads])
    assert soft_labels.is_flat(labels) == flat


def test_what_cannot_be_probabilities_is_refused_though_it_was_asked_for():
    for labels in (logits(), torch.cat((probabilities(), torch.zeros(1, 10)))):
        with pytest.raises(UserError, match=r"^--labels probabilities: some of x are negative or"):
            soft_labels.meaning_of("x", labels, "probabilities")


def test_labels_in_words_say_whether_rows_are_divided_by_their_sums():
    exact = soft_labels.meaning_of("x", probabilities())
    off = soft_labels.meaning_of("x", one_row_off(0.01))
    asked = soft_labels.meaning_of("x", 100 * probabilities(), "probabilities")
    words = "soft labels are probabilities"
    assert (exact.words, asked.words) == (words, words)
    assert off.words == f"{words}, renormalised: rows sum up to 1..1.01"
    taken = soft_labels.meaning_of("x", logits(), "hard")
    assert (taken.kind, taken.words) == ("hard", "hard labels, the likeliest class of soft ones")
    assert soft_labels.meaning_of("x", torch.arange(3)).words == ""


@pytest.mark.parametrize(
    ("decimals", "classes", "allowed"),
    [(3, 10, 0.05), (3, 200, 0.1), (2, 50, 0.25), (4, 900, 0.05)],
)
def test_rows_may_miss_1_by_what_rounding_explains(decimals, classes, allowed):
    rounded = probabilities(40, classes).mul(10**decimals).round().div(10**decimals)
    assert soft_labels._allowed(rounded) == pytest.approx(allowed)
