"""Facts about real images in place of a set."""

import numpy as np
import pytest
import torch

from bacon.data import real_data
from bacon.errors import UserError
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
        baseline("random", real, 500, 0)
    odd = real_data.RealData(
        digits.images_train[..., :7], digits.labels_train, (0.5,), (0.5,), 10, "cpu"
    )
    with pytest.raises(UserError, match="--baseline random4: needs an even"):
        baseline("random4", odd, 1, 0)
