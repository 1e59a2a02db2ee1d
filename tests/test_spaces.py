"""Facts about the spaces of images: pixels and normalised ones there and back, ZCA whitening."""

import re

import numpy as np
import pytest
import torch
from layouts import fake

from bacon import flags
from bacon.data import real_data, spaces
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
    """Smooth images: neighbouring pixels and channels agree, the last column is constant.

    So their covariance is of low rank.
    """
    rng = np.random.default_rng(0)
    images = rng.normal(128, 30, (n, 1, 1, 1)) + np.cumsum(rng.normal(0, 9, (n, *shape)), axis=2)
    images[..., -1] = 7
    images = torch.from_numpy(images.clip(0, 255).astype(np.uint8))
    return real_data.RealData(
        images, torch.zeros(n, dtype=torch.int64), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), 1, "cpu"
    )


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


COLOURS = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
COLOURS = COLOURS / COLOURS.norm(dim=1, keepdim=True)


def random_colours(n=5, height=8, width=12, channels=3):
    return torch.randn(
        n, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def test_planes_keep_distances_and_their_images_are_had_again_exactly():
    planes = random_colours(channels=6)
    images = spaces.from_planes(planes)
    assert images.shape == (5, 3, 16, 24)
    torch.testing.assert_close(
        images.square().sum((1, 2, 3)), planes.square().sum((1, 2, 3)), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(spaces.to_planes(images), planes, rtol=0, atol=1e-14)


def test_planes_are_the_luma_of_every_pixel_and_twice_the_mean_chroma_of_2x2():
    images = random_colours()
    planes = spaces.to_planes(images)
    assert planes.shape == (5, 6, 4, 6) and 2 * planes.numel() == images.numel()
    for y, x in ((0, 0), (1, 2), (3, 5)):
        block = images[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        luma, *chroma = torch.einsum("kc,ncyx->knyx", COLOURS, block)
        torch.testing.assert_close(planes[:, :4, y, x], luma.flatten(1), rtol=0, atol=1e-14)
        for plane, exact in zip(planes[:, 4:, y, x].T, chroma, strict=True):
            torch.testing.assert_close(plane, 2 * exact.mean((1, 2)), rtol=0, atol=1e-14)


def test_what_half_size_chroma_loses_is_at_right_angles_to_all_it_can_store():
    images, planes = random_colours(), random_colours(height=4, width=6, channels=6)
    lost = images - spaces.from_planes(spaces.to_planes(images))
    assert (lost * spaces.from_planes(planes)).sum().abs() < 1e-11 < lost.square().sum()


def test_whitening_takes_the_eps_that_the_help_of_zca_names():
    _, about = flags.SHARED["zca"]
    (eps,) = re.findall(r"\(eps ([\d.]+)\)", about)
    real = correlated(n=20)
    x = real.take(slice(None))
    default, given = spaces.Whitening.fit(real), spaces.Whitening.fit(real, float(eps))
    assert torch.equal(default.apply(x), given.apply(x))


@pytest.mark.parametrize(
    ("low", "high", "suspected"),
    [
        (0.0, 1.0, "unit"),
        (0.3, 0.4, "unit"),
        (-0.0005, 1.0005, "unit"),
        (-0.01, 1.0, None),
        (0.0, 1.01, None),
        (0.0, 255.0, "bytes"),
        (0.0, 21.0, "bytes"),
        (0.0, 19.0, None),
        (-0.1, 255.0, None),
        (0.0, 300.0, None),
    ],
)
def test_images_that_look_like_pixels_are_suspected_to_be_these(low, high, suspected):
    images = torch.tensor([low, high]).view(1, 1, 1, 2)
    values = f"its pixels are {low:.2f}..{high:.2f}, taken as"
    for pixels, taken in ((None, "normalised"), ("zca", "whitened")):
        said = spaces.misread(images, pixels)
        if suspected:
            assert said.startswith(f"{values} {taken}; ") and said.endswith(f"--pixels {suspected}")
        else:
            assert said == ""
    for pixels in ("unit", "bytes", "normalised"):
        assert spaces.misread(images, pixels) == ""


@pytest.mark.parametrize(("kind", "scale"), [("unit", 1), ("bytes", 255), ("normalised", None)])
def test_pixels_are_normalised_by_the_range_they_are_in(kind, scale):
    unit = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    convert = spaces.PIXELS[kind].convert
    if scale is None:
        assert torch.equal(convert(unit, mean, std), unit)
        return
    stored = (unit * scale).requires_grad_()
    converted = convert(stored, mean, std)
    torch.testing.assert_close(converted, spaces.normalise(unit, mean, std))
    assert not converted.requires_grad
    grey = stored[:, :1]
    assert torch.equal(convert(grey, mean, std), grey)
