"""Facts about the spaces of images: pixels and normalised ones there and back, ZCA whitening."""

import numpy as np
import pytest
import torch
from layouts import fake

from bacon import data, spaces
from bacon.recipes import DATASETS


@pytest.mark.parametrize("name", DATASETS)
def test_pixels_are_normalised_by_the_formula_and_back(name):
    (images, _), _ = fake(name)
    mean, std = DATASETS[name].mean, DATASETS[name].std
    pixels = torch.from_numpy(images[:5]) / 255
    normalised = spaces.normalise(pixels, mean, std)
    exact = (images[:5] / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised.numpy(), exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(spaces.denormalise(normalised, mean, std), pixels, atol=1e-6, rtol=0)


def correlated(n=300, shape=(3, 5, 4)):
    """Smooth images: neighbouring pixels and channels agree, the last column is constant (a covariance of low rank)."""
    rng = np.random.default_rng(0)
    images = rng.normal(128, 30, (n, 1, 1, 1)) + np.cumsum(rng.normal(0, 9, (n, *shape)), axis=2)
    images[..., -1] = 7
    images = torch.from_numpy(images.clip(0, 255).astype(np.uint8))
    return data.RealData(images, torch.zeros(n, dtype=torch.int64), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), 1, "cpu")


@pytest.mark.parametrize("chunk", [7, 300, 1000])
def test_whitened_covariance_is_s_over_s_plus_eps(chunk):
    real, eps = correlated(), 0.1
    x = real.take(slice(None)).flatten(1).double().numpy()
    s, u = np.linalg.eigh(np.cov(x, rowvar=False))
    whitening = spaces.Whitening.fit(real, eps, chunk)
    white = whitening.apply(real.take(slice(None)))
    flat = white.flatten(1).double().numpy()
    np.testing.assert_allclose(np.cov(flat, rowvar=False), (u * (s / (s + eps))) @ u.T, atol=1e-5)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-5)
    # symmetric, as opposed to any other whitening: it stays as close to the images as whitening can
    np.testing.assert_allclose(flat, (x - x.mean(0)) @ (u / np.sqrt(s + eps)) @ u.T, atol=1e-4)
    torch.testing.assert_close(whitening.invert(white), real.take(slice(None)), atol=1e-4, rtol=0)

    real.whitening = whitening
    rows = np.array([5, 2])
    assert torch.equal(real.take(rows), whitening.apply(correlated().take(rows)))


def test_whitening_stays_single_precision_under_autocast():
    real = correlated()
    whitening = spaces.Whitening.fit(real)
    x = real.take(slice(0, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whitening.apply(x), whitening.apply(x).float())
        under = whitening.apply(x)
    assert torch.equal(under, whitening.apply(x))
