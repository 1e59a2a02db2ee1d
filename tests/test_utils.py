"""Facts about the objective and the random streams."""

import math

import numpy as np
import pytest
import torch

import utils


@pytest.fixture
def moments():
    g = torch.Generator().manual_seed(0)
    z_syn, z = torch.randn(2, 4, 7, generator=g, dtype=torch.float64) * 3
    s = torch.rand(4, 7, generator=g, dtype=torch.float64) + 0.1
    return z_syn, z, s


# Objective


def test_moments_are_mean_and_unbiased_standard_deviation_of_each_class():
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = utils.summaries(x, [2, 4, 3], ["z", "s"])
    z, s = kept["z"], kept["s"]
    for row, block in enumerate((x[:2], x[2:6], x[6:])):
        block = block.numpy()
        np.testing.assert_allclose(z[row], block.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            s[row], np.sqrt(((block - block.mean(0)) ** 2).sum(0) / (len(block) - 1)), rtol=1e-12
        )


def test_log_likelihood_is_minus_the_log_of_the_gaussian_density(moments):
    z_syn, z, s = moments
    sigma = s.exp()
    density = torch.exp(-((z_syn - z) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    torch.testing.assert_close(
        utils.log_likelihood(z_syn, z, s), -density.log().sum(1), rtol=1e-12, atol=0
    )


def test_the_terms_stay_finite_where_the_density_underflows():
    z_syn = torch.full((1, 3), 1e4, requires_grad=True)
    z, s = torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 200.0]])
    assert torch.exp(-((z_syn - z) ** 2) / 2).max() == 0  # what the released code takes the log of
    loss = utils.log_likelihood(z_syn, z, s).sum()
    (gradient,) = torch.autograd.grad(loss, z_syn)
    assert loss.isfinite() and gradient.isfinite().all()
    torch.testing.assert_close(gradient[0, 0], torch.tensor(1e4))
    others = [
        utils.total_variation(z_syn, z),
        utils.mean_matching(z_syn, z),
        utils.clip_residual(z_syn, z, s),
    ]
    for value in others:
        (gradient,) = torch.autograd.grad(value.sum(), z_syn)
        assert gradient.isfinite().all() and value.isfinite().all()


def test_log_sigma_has_no_gradient_and_is_the_mean_of_a_perfect_match(moments):
    _, z, s = moments
    loss = utils.log_likelihood(z, z, s)
    torch.testing.assert_close(loss, (s + 0.5 * math.log(2 * math.pi)).sum(1))


def test_total_variation_and_mean_matching_are_plain_sums(moments):
    z_syn, z, _ = moments
    plain_tv, plain_match = torch.zeros(4, dtype=z.dtype), torch.zeros(4, dtype=z.dtype)
    for c in range(4):
        for d in range(7):
            plain_tv[c] += 0.5 * abs(z_syn[c, d] - z[c, d])
            plain_match[c] += (z_syn[c, d] - z[c, d]) ** 2
    torch.testing.assert_close(utils.total_variation(z_syn, z), plain_tv, rtol=1e-12, atol=0)
    torch.testing.assert_close(utils.mean_matching(z_syn, z), plain_match, rtol=1e-12, atol=0)


def test_the_clip_prior_of_the_released_code_is_identically_zero(moments):
    z_syn, z, s = moments
    z_syn = z_syn.requires_grad_()
    # The released term: both mean embeddings through a softmax, averaged over D, their difference
    # less its clamp.
    difference = z_syn.softmax(1).mean(1) - z.softmax(1).mean(1)
    released = (difference - difference.clamp(0, 1)).square() + difference.abs()
    (gradient,) = torch.autograd.grad(released.sum() + z_syn.softmax(1).mean(), z_syn)
    assert released.abs().max() < 1e-15 and gradient.abs().max() < 1e-15
    ours = utils.clip_released(z_syn, z, s)
    assert torch.equal(ours, torch.zeros(4, dtype=z.dtype)) and not ours.requires_grad


def test_the_residual_clip_prior_is_its_plain_formula_and_ignores_dimensions_without_spread(
    moments,
):
    z_syn, z, s = moments
    s[1, 2] = s[3, 0] = 0.0
    s[0, 1] = 5e-7
    s[2, 3] = 2e-6
    plain = []
    for c in range(4):
        r = [float((z_syn[c, d] - z[c, d]) / s[c, d]) if s[c, d] >= 1e-6 else 0.0 for d in range(7)]
        plain.append(sum((x - min(max(x, 0.0), 1.0)) ** 2 for x in r))
    z_syn.requires_grad_()
    loss = utils.clip_residual(z_syn, z, s)
    torch.testing.assert_close(
        loss.detach(), torch.tensor(plain, dtype=z.dtype), rtol=1e-12, atol=0
    )
    (gradient,) = torch.autograd.grad(loss.sum(), z_syn)
    assert gradient.isfinite().all() and gradient[1, 2] == 0 and gradient[3, 0] == 0


def test_the_spread_is_how_far_unbiased_standard_deviations_are_apart():
    g = torch.Generator().manual_seed(2)
    synthetic = torch.randn(3, 4, 5, generator=g, dtype=torch.float64) * 2
    s = torch.rand(3, 5, generator=g, dtype=torch.float64) + 1
    plain = torch.zeros(3, dtype=torch.float64)
    for c in range(3):
        for d in range(5):
            rows = [float(synthetic[c, n, d]) for n in range(4)]
            centre = sum(rows) / 4
            deviation = math.sqrt(sum((row - centre) ** 2 for row in rows) / 3)
            plain[c] += abs(deviation - float(s[c, d]))
    torch.testing.assert_close(utils.spread(synthetic, s), plain, rtol=1e-12, atol=0)


def test_the_spread_of_equal_embeddings_has_a_finite_gradient():
    # A dimension that no synthetic image excites is 0 for all of them, where a root has no slope.
    synthetic = torch.zeros(1, 4, 2, requires_grad=True)
    loss = utils.spread(synthetic, torch.ones(1, 2)).sum()
    (gradient,) = torch.autograd.grad(loss, synthetic)
    assert loss == 2 and torch.equal(gradient, torch.zeros(1, 4, 2))


# Random streams


def test_a_stream_draws_the_same_in_every_version():
    rng = utils.stream(0, 1, "class", 5)
    assert rng.integers(2**32, size=3).tolist() == [2263243105, 565513491, 2135708552]


def test_a_stream_depends_on_its_name_alone():
    first = utils.stream(0, 1, "class", 5).random(4)
    utils.stream(0, 1, "other").random(100)
    assert np.array_equal(first, utils.stream(0, 1, "class", 5).random(4))
    others = [
        (1, 1, "class", 5),
        (0, 2, "class", 5),
        (0, 1, "pick", 5),
        (0, 1, "class", 6),
        (0, 11, "class", 5),
    ]
    assert all(not np.array_equal(first, utils.stream(*name).random(4)) for name in others)
