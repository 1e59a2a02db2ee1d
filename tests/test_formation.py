"""Facts about multi-formation: four images on a canvas, and back."""

import pytest
import torch
import torch.nn.functional as F
from noise import random_images

import augment


def test_quadrants_come_top_left_bottom_left_top_right_bottom_right():
    canvas = torch.empty(2, 3, 6, 8)
    canvas[..., :3, :4], canvas[..., 3:, :4], canvas[..., :3, 4:], canvas[..., 3:, 4:] = 1, 2, 3, 4
    canvas[1] += 10
    parts = augment.split(canvas)
    assert parts.shape == (8, 3, 6, 8)
    for part, value in zip(parts, (1, 11, 2, 12, 3, 13, 4, 14), strict=True):
        assert torch.equal(part, torch.full_like(part, value))
    assert torch.equal(augment.tile(parts), canvas)


def test_a_tile_is_the_mean_of_two_by_two_pixels():
    images = random_images(8, 3, 6, 10)
    canvases = augment.tile(images)
    for q, (top, left) in enumerate([(0, 0), (3, 0), (0, 5), (3, 5)]):
        for i in range(3):
            for j in range(5):
                expected = images[2 * q : 2 * q + 2, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(
                    (2, 3)
                )
                torch.testing.assert_close(canvases[:, :, top + i, left + j], expected)


def test_split_of_tile_is_upsampling_of_downsampling():
    images = random_images(12, 3, 8, 6, torch.float32)
    small = F.interpolate(
        images, scale_factor=0.5, mode="bilinear", align_corners=False, antialias=False
    )
    expected = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(augment.split(augment.tile(images)), expected)
    constant = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 8, 6)
    assert torch.equal(augment.split(augment.tile(constant)), constant)


def test_factor_one_is_no_multi_formation():
    images = random_images(3, 3, 9, 7)
    assert torch.equal(augment.split(images, 1), images) and torch.equal(
        augment.tile(images, 1), images
    )


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7)])
@pytest.mark.parametrize("layout", [augment.split, augment.tile])
def test_odd_sizes_are_refused(layout, height, width):
    with pytest.raises(ValueError, match=f"divisible by 2, not {height}x{width} images$"):
        layout(torch.zeros(4, 3, height, width))
