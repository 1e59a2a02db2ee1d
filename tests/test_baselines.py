"""Facts about real images in place of a set, whose accuracies are computed once."""

import numpy as np
import pytest
import torch

from bacon import compute
from bacon.data import real_data
from bacon.distill import distiller
from bacon.errors import UserError
from bacon.score import baselines
from bacon.score.baselines import baseline


@pytest.fixture(scope="module")
def real(digits):
    return digits.real("train")


def test_herding_takes_distinct_images_whose_mean_nears_that_of_the_class(real, digits):
    herd = baseline("herding", real, 3, 0).canvases.unflatten(0, (10, 3))
    for c in range(10):
        mean = real.take(np.flatnonzero(digits.labels_train == c)).mean(0)
        distances = [(herd[c, :k].mean(0) - mean).norm() for k in (1, 2, 3)]
        assert distances[2] < distances[0] and len(herd[c].unique(dim=0)) == 3


def test_random_images_follow_from_the_seed_and_full_is_every_image(real, digits):
    for kind, decoded in {"random": 2, "random4": 8}.items():
        one, same, other = (baseline(kind, real, 2, seed) for seed in (0, 0, 1))
        assert torch.equal(one.canvases, same.canvases) and not torch.equal(
            one.canvases, other.canvases
        )
        assert torch.bincount(one.decoded()[1]).tolist() == [decoded] * 10
    whole = baseline("full", real, 1, 0)
    assert len(whole.canvases) == len(digits.labels_train) and torch.equal(
        whole.labels, digits.labels_train
    )


def test_too_few_images_and_odd_sizes_are_refused(real, digits):
    with pytest.raises(UserError, match="smallest class has 116"):
        baseline("random", real, 117, 0)
    assert len(baseline("random", real, 116, 0).canvases) == 1160
    odd = real_data.RealData(
        digits.images_train[..., :7], digits.labels_train, (0.5,), (0.5,), 10, "cpu"
    )
    with pytest.raises(UserError, match="--baseline random4: needs an even"):
        baseline("random4", odd, 1, 0)


def test_a_cache_of_baselines_gives_what_it_has_and_says_when_it_cannot_keep(tmp_path):
    cache = baselines.Cache(tmp_path / "new")
    assert cache.get("a", 1) is None and "kept in" in cache.put("a", [0.5, 0.25], 3)
    again = baselines.Cache(tmp_path / "new")
    assert again.get("a", 2).accuracies == [0.5, 0.25]
    assert again.get("a", 1).accuracies == [0.5] and again.get("a", 3) is None
    (tmp_path / "file").touch()
    assert "not kept" in baselines.Cache(tmp_path / "file" / "x").put("a", [0.5], 1)
    for content in ("{", '{"a": 1}', "[]", '{"event": "start"}'):
        again.path.write_text(content)
        with pytest.raises(UserError, match=r"new/baselines\.json: is no cache"):
            baselines.Cache(tmp_path / "new")
        assert "not kept" in again.put("b", [0.5], 1) and again.path.read_text() == content


def test_two_processes_keep_their_baselines_in_one_cache(tmp_path):
    one = baselines.Cache(tmp_path)
    other = baselines.Cache(tmp_path)
    one.put("a", [0.25], 1)
    other.put("b", [0.5], 2)
    one.put("c", [0.75], 3)
    kept = baselines.Cache(tmp_path)
    assert [kept.get(key, 1).accuracies for key in "abc"] == [[0.25], [0.5], [0.75]]


def test_herding_adds_the_image_that_brings_the_mean_nearest_to_that_of_the_class(real, digits):
    herd = baseline("herding", real, 4, 0)
    assert herd.labels.tolist() == [c for c in range(10) for _ in range(4)]
    for c in range(10):
        images = real.take(np.flatnonzero(digits.labels_train == c))
        chosen = images[:0]
        for _ in range(4):
            means = torch.stack([torch.cat((chosen, one[None])).mean(0) for one in images])
            distances = (means - images.mean(0)).flatten(1).norm(dim=1)
            taken = [bool((chosen == one).flatten(1).all(1).any()) for one in images]
            distances[taken] = torch.inf
            chosen = torch.cat((chosen, images[distances.argmin()][None]))
        assert torch.equal(herd.canvases[herd.labels == c], chosen)


def test_what_was_kept_has_its_seconds_and_a_failure_to_keep_its_reason(tmp_path):
    cache = baselines.Cache(tmp_path / "new/folder")
    assert cache.put("a", [0.5, 0.25], 3.5) == f"kept in {tmp_path}/new/folder/baselines.json"
    assert [file.name for file in (tmp_path / "new/folder").iterdir()] == ["baselines.json"]
    again = baselines.Cache(tmp_path / "new/folder")
    assert again.get("a", 1) == baselines.Kept([0.5], 3.5)
    (tmp_path / "file").touch()
    not_there = baselines.Cache(tmp_path / "file/x")
    said = not_there.put("a", [0.5], 2)
    assert said.startswith(f"not kept in {tmp_path}/file/x/baselines.json (")
    assert not_there.get("a", 1) == baselines.Kept([0.5], 2)  # for this command at least
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/baselines.json").touch()
    assert baselines.Cache(tmp_path / "empty").get("a", 1) is None


@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_four_images_on_a_canvas_need_both_sides_even(size, digits):
    height, width = size
    odd = real_data.RealData(
        digits.images_train[..., :height, :width], digits.labels_train, (0.5,), (0.5,), 10, "cpu"
    )
    with pytest.raises(UserError, match=f"random4: needs .* the images have {height}x{width}"):
        baseline("random4", odd, 1, 0)
    assert len(baseline("random", odd, 1, 0).canvases) == 10


@pytest.mark.parametrize("seed", [0, 3])
def test_random_images_are_those_that_a_run_of_no_iteration_leaves(seed, make_args, digits):
    real = digits.real("train")
    args = make_args(Iteration=0, ipc=2, seed=seed)
    run = distiller.begin(args, 0, real, compute.Arithmetic("cpu"))
    assert torch.equal(baseline("random4", real, 2, seed).canvases, run.all_canvases())
