"""Facts about IOR, HLR and the label-robust score, and about baselines that are computed once."""

import math

import pytest

from bacon.errors import UserError
from bacon.score import fair


def test_the_label_robust_score_by_hand():
    assert fair.label_robust(1, -1) == pytest.approx(1) and fair.label_robust(
        -1, 1
    ) == pytest.approx(0)
    # alpha = 0.5 * 0.2 - 0.5 * 0.4 = -0.1; (0.904837 - 0.367879) / (2.718282 - 0.367879) = 0.536958 / 2.350402
    assert fair.label_robust(0.2, 0.4) == pytest.approx(0.228454, abs=1e-6)
    assert fair.label_robust(0.2, 0.4, weight=1) == pytest.approx(
        (1.221403 - 0.367879) / 2.350402, abs=1e-6
    )


def test_scores_are_fractions_with_the_spread_of_their_parts():
    own, random, full = [[0.5, 0.6]], [[0.3, 0.3]], [[0.78, 0.86]]  # 55 +- 5, 30 +- 0, 82 +- 4 %
    found = fair.scores(own, None, random, full)
    assert found["IOR"] == pytest.approx((0.25, 0.05)) and found["HLR"] == pytest.approx(
        (0.27, math.hypot(0.05, 0.04))
    )
    value = (math.exp(-0.01) - math.exp(-1)) / (math.e - math.exp(-1))
    slope = math.exp(-0.01) / (
        math.e - math.exp(-1)
    )  # alpha is own - (random + full) / 2 where labels are hard
    assert found["LRS"] == pytest.approx((value, slope * math.hypot(0.05, 0.02)))
    soft = fair.scores(own, [[0.4, 0.4]], random, full)
    assert soft["IOR"] == found["IOR"] and soft["HLR"] == pytest.approx((0.42, 0.04))
    assert soft["LRS"][0] == pytest.approx(fair.label_robust(0.25, 0.42))
    assert (
        list(fair.scores(own, None, random, None)) == ["IOR"]
        and fair.scores(own, None, None, None) == {}
    )


def test_a_cache_of_baselines_gives_what_it_has_and_says_when_it_cannot_keep(tmp_path):
    cache = fair.Baselines(tmp_path / "new")
    assert cache.get("a", 1) is None and "kept in" in cache.put("a", [0.5, 0.25], 3)
    again = fair.Baselines(tmp_path / "new")
    assert (
        again.get("a", 2)[0] == [0.5, 0.25]
        and again.get("a", 1)[0] == [0.5]
        and again.get("a", 3) is None
    )
    (tmp_path / "file").touch()
    assert "not kept" in fair.Baselines(tmp_path / "file" / "x").put("a", [0.5], 1)
    for content in ("{", '{"a": 1}', "[]", '{"event": "start"}'):
        again.path.write_text(content)
        with pytest.raises(UserError, match=r"new/baselines\.json: is no cache"):
            fair.Baselines(tmp_path / "new")
        assert "not kept" in again.put("b", [0.5], 1) and again.path.read_text() == content


def test_two_processes_keep_their_baselines_in_one_cache(tmp_path):
    one, other = fair.Baselines(tmp_path), fair.Baselines(tmp_path)
    one.put("a", [0.25], 1)
    other.put("b", [0.5], 2)
    one.put("c", [0.75], 3)
    kept = fair.Baselines(tmp_path)
    assert [kept.get(key, 1)[0] for key in "abc"] == [[0.25], [0.5], [0.75]]


def row(layout, name, accuracy, **settings):
    """A row of the scorer of one network; settings: of its protocol."""
    protocol = {"epochs": 1000, "steps": 0, "batch": 256, "cutmix": 0.0} | settings
    about = {"layout": layout, "set": name, "network": "ConvNet", "stored per class": "10"}
    return about | {"accuracy": [[accuracy]], "protocol settings": protocol}


@pytest.mark.parametrize("other", [{"cutmix": 0.5}, {"batch": 64}], ids=str)
@pytest.mark.parametrize("length", [{}, {"epochs": 20}, {"steps": 7}], ids=str)
def test_a_baseline_of_the_same_protocol_counts_whatever_its_length(length, other):
    random = [row("baseline", "random", 0.1, **other), row("baseline", "random", 0.3, **length)]
    (own, *_) = fair.beside([row("ours", "x.pt", 0.5), *random])
    assert own["IOR"] == pytest.approx(0.2)
    (own, *_) = fair.beside([row("ours", "x.pt", 0.5, **other), *random])
    assert own["IOR"] == pytest.approx(0.4)
    (own, *_) = fair.beside([row("ours", "x.pt", 0.5, lr=3), *random])  # none is alike: the first
    assert own["IOR"] == pytest.approx(0.4)
    assert "HLR" not in own and "IOR" not in random[0]
