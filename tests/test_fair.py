"""Facts about IOR, HLR and the label-robust score, and about baselines that are computed once."""

import math

import pytest

from bacon import fair
from bacon.errors import UserError


def test_the_label_robust_score_by_hand():
    assert fair.label_robust(1, -1) == pytest.approx(1) and fair.label_robust(-1, 1) == pytest.approx(0)
    # alpha = 0.5 * 0.2 - 0.5 * 0.4 = -0.1; (0.904837 - 0.367879) / (2.718282 - 0.367879) = 0.536958 / 2.350402
    assert fair.label_robust(0.2, 0.4) == pytest.approx(0.228454, abs=1e-6)
    assert fair.label_robust(0.2, 0.4, weight=1) == pytest.approx((1.221403 - 0.367879) / 2.350402, abs=1e-6)


def test_scores_are_fractions_with_the_spread_of_their_parts():
    own, random, full = [[0.5, 0.6]], [[0.3, 0.3]], [[0.78, 0.86]]  # 55 +- 5, 30 +- 0, 82 +- 4 %
    found = fair.scores(own, None, random, full)
    assert found["IOR"] == pytest.approx((0.25, 0.05)) and found["HLR"] == pytest.approx((0.27, math.hypot(0.05, 0.04)))
    value = (math.exp(-0.01) - math.exp(-1)) / (math.e - math.exp(-1))
    slope = math.exp(-0.01) / (math.e - math.exp(-1))  # alpha is own - (random + full) / 2 where labels are hard
    assert found["LRS"] == pytest.approx((value, slope * math.hypot(0.05, 0.02)))
    soft = fair.scores(own, [[0.4, 0.4]], random, full)
    assert soft["IOR"] == found["IOR"] and soft["HLR"] == pytest.approx((0.42, 0.04))
    assert soft["LRS"][0] == pytest.approx(fair.label_robust(0.25, 0.42))
    assert list(fair.scores(own, None, random, None)) == ["IOR"] and fair.scores(own, None, None, None) == {}


def test_a_cache_of_baselines_gives_what_it_has_and_says_when_it_cannot_keep(tmp_path):
    cache = fair.Baselines(tmp_path / "new")
    assert cache.get("a", 1) is None and "kept in" in cache.put("a", [0.5, 0.25], 3)
    again = fair.Baselines(tmp_path / "new")
    assert again.get("a", 2)[0] == [0.5, 0.25] and again.get("a", 1)[0] == [0.5] and again.get("a", 3) is None
    (tmp_path / "file").touch()
    assert "not kept" in fair.Baselines(tmp_path / "file" / "x").put("a", [0.5], 1)
    again.path.write_text("{")
    with pytest.raises(UserError, match="move it elsewhere"):
        fair.Baselines(tmp_path / "new")
