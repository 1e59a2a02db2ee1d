"""Facts about IOR, HLR and the label-robust score."""

import math

import pytest
from scored import a_row

from bacon.score import fair


def test_the_label_robust_score_by_hand():
    assert fair.label_robust(1, -1) == pytest.approx(1) and fair.label_robust(
        -1, 1
    ) == pytest.approx(0)
    # alpha = 0.5 * 0.2 - 0.5 * 0.4 = -0.1
    # (0.904837 - 0.367879) / (2.718282 - 0.367879) = 0.536958 / 2.350402
    assert fair.label_robust(0.2, 0.4) == pytest.approx(0.228454, abs=1e-6)
    assert fair.label_robust(0.2, 0.4, weight=1) == pytest.approx(
        (1.221403 - 0.367879) / 2.350402, abs=1e-6
    )


def numbers(fraction):
    return fraction.value, fraction.spread


def test_scores_are_fractions_with_the_spread_of_their_parts():
    own = [[0.5, 0.6]]  # 55 +- 5 %
    random = [[0.3, 0.3]]  # 30 +- 0 %
    full = [[0.78, 0.86]]  # 82 +- 4 %
    found = fair.scores(own, None, random, full)
    assert numbers(found["IOR"]) == pytest.approx((0.25, 0.05))
    assert numbers(found["HLR"]) == pytest.approx((0.27, math.hypot(0.05, 0.04)))
    # alpha is own - (random + full) / 2 where labels are hard
    value = (math.exp(-0.01) - math.exp(-1)) / (math.e - math.exp(-1))
    slope = math.exp(-0.01) / (math.e - math.exp(-1))
    assert numbers(found["LRS"]) == pytest.approx((value, slope * math.hypot(0.05, 0.02)))
    soft = fair.scores(own, [[0.4, 0.4]], random, full)
    assert soft["IOR"] == found["IOR"]
    assert numbers(soft["HLR"]) == pytest.approx((0.42, 0.04))
    assert soft["LRS"].value == pytest.approx(fair.label_robust(0.25, 0.42))
    assert list(fair.scores(own, None, random, None)) == ["IOR"]
    assert fair.scores(own, None, None, None) == {}


def test_every_accuracy_of_a_score_widens_its_spread():
    own = [[0.5, 0.6]]  # 55 +- 5 %
    hard = [[0.37, 0.43]]  # 40 +- 3 %
    random = [[0.28, 0.32]]  # 30 +- 2 %
    full = [[0.78, 0.86]]  # 82 +- 4 %
    of_hard_labels = fair.scores(own, None, random, full)
    assert numbers(of_hard_labels["IOR"]) == pytest.approx((0.25, math.hypot(0.05, 0.02)))
    # alpha is own - (random + full) / 2
    slope = math.exp(-0.01) / (math.e - math.exp(-1))
    spread = slope * math.hypot(0.05, 0.01, 0.02)
    assert of_hard_labels["LRS"].spread == pytest.approx(spread)
    # alpha is (own + hard - random - full) / 2
    of_soft_labels = fair.scores(own, hard, random, full)
    assert numbers(of_soft_labels["HLR"]) == pytest.approx((0.42, math.hypot(0.03, 0.04)))
    slope = math.exp(-0.085) / (math.e - math.exp(-1))
    value = fair.label_robust(0.25, 0.42)
    spread = slope * math.hypot(0.025, 0.015, 0.01, 0.02)
    assert numbers(of_soft_labels["LRS"]) == pytest.approx((value, spread))


def row(baseline, accuracy, **settings):
    """A row of one network: of a baseline, or of a set if that is "". settings: of its protocol."""
    return a_row(
        set=baseline or "x.pt",
        baseline=baseline,
        accuracy=[[accuracy]],
        protocol_settings={
            "epochs": 1000,
            "steps": 0,
            "batch": 256,
            "lr": 0.01,
            "optimizer": "sgd",
            "cutmix": 0.0,
        }
        | settings,
    )


OTHERS = [{"cutmix": 0.5}, {"batch": 64}, {"epochs": 20}, {"steps": 7}, {"optimizer": "adamw"}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_set_is_compared_with_the_random_images_of_its_own_protocol(other):
    random = [row("random", 0.1, **other), row("random", 0.3)]
    alike = row("", 0.5)
    as_other = row("", 0.5, **other)
    fair.add_scores([alike, as_other, *random])
    assert alike.fair["IOR"].value == pytest.approx(0.2)
    assert as_other.fair["IOR"].value == pytest.approx(0.4)
    assert "HLR" not in alike.fair and not random[0].fair


def test_random_images_have_not_the_learnt_rate_of_a_set():
    learnt = row("", 0.5, lr=3.0)
    fair.add_scores([learnt, row("random", 0.1, epochs=20, lr=0.01), row("random", 0.3, lr=0.01)])
    assert learnt.fair["IOR"].value == pytest.approx(0.2)


@pytest.mark.parametrize("other", [{"epochs": 20}, {"steps": 7}, {"batch": 64}], ids=str)
def test_no_random_images_count_that_were_judged_for_another_time(other):
    alone = row("", 0.5)
    fair.add_scores([alone, row("random", 0.1, **other)])
    assert not alone.fair


def test_the_whole_training_set_counts_whatever_its_length():
    found = row("", 0.5)
    fair.add_scores([found, row("full", 0.9, batch=64), row("full", 0.8, epochs=20)])
    assert found.fair["HLR"].value == pytest.approx(0.3)
