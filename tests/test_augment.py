"""Facts about DSA and CutMix: batched ops against per-image loops over pixels, in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from noise import random_images

import augment

ALL = augment.parse_strategy("color_crop_cutout_flip_scale_rotate")
BELOW_1 = 1 - 2**-24  # the largest number that Generator.random(dtype="float32") returns
SIZES = [(8, 8), (10, 10), (9, 7), (8, 12)]


def coordinates(n, height, width):
    """n equal images whose every pixel holds another number, none of them 0."""
    return torch.arange(1.0, height * width + 1).view(1, 1, height, width).repeat(n, 1, 1, 1)


def extreme_and_random_u(n):
    """Rows (n, 3) of u: all zeros, all just below one, a mixture, then random ones."""
    u = np.random.default_rng(1).random((n, 3), dtype="float32")
    u[:3] = [[0, 0, 0], [BELOW_1] * 3, [0, BELOW_1, 0.5]]
    return torch.from_numpy(u)


# One image (C, H, W) and three Python floats: DSA as its definition reads


def slow_color(x, u):
    channels, height, width = x.shape
    out = x + (u[0] - 0.5)
    for i in range(height):
        for j in range(width):
            grey = sum(out[c, i, j].item() for c in range(channels)) / channels
            out[:, i, j] = (out[:, i, j] - grey) * (2 * u[1]) + grey
    mean = out.sum() / out.numel()
    return (out - mean) * (u[2] + 0.5) + mean


def slow_crop(x, u):
    _, height, width = x.shape
    k_y, k_x = math.floor(height / 8 + 0.5), math.floor(width / 8 + 0.5)
    t_y, t_x = math.floor(u[0] * (2 * k_y + 1)) - k_y, math.floor(u[1] * (2 * k_x + 1)) - k_x
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            if 0 <= i + t_y < height and 0 <= j + t_x < width:
                out[:, i, j] = x[:, i + t_y, j + t_x]
    return out


def slow_cutout(x, u):
    out = x.clone()
    side, centre = [], []
    for size, number in zip(x.shape[1:], u[:2], strict=True):
        side.append(math.floor(size / 2 + 0.5))
        centre.append(math.floor(number * (size + 1 if side[-1] % 2 == 0 else size)))
    for di in range(side[0]):
        for dj in range(side[1]):
            i, j = centre[0] - side[0] // 2 + di, centre[1] - side[1] // 2 + dj
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                out[:, i, j] = 0
    return out


def slow_flip(x, u):
    width = x.shape[2]
    return torch.stack([x[:, :, width - 1 - j] for j in range(width)], 2) if u[0] < 0.5 else x


def slow_warp(x, matrix):
    _, height, width = x.shape
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            x_out, y_out = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
            x_in = matrix[0][0] * x_out + matrix[0][1] * y_out
            y_in = matrix[1][0] * x_out + matrix[1][1] * y_out
            column, row = ((x_in + 1) * width - 1) / 2, ((y_in + 1) * height - 1) / 2
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        out[:, i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * x[:, r, c]
    return out


def slow_scale(x, u):
    s_x, s_y = (1 / 1.2 + number * (1.2 - 1 / 1.2) for number in u[:2])
    return slow_warp(x, [[s_x, 0], [0, s_y]])


def slow_rotate(x, u):
    a = math.radians((u[0] - 0.5) * 30)
    return slow_warp(x, [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


SLOW = {
    "color": slow_color,
    "crop": slow_crop,
    "cutout": slow_cutout,
    "flip": slow_flip,
    "scale": slow_scale,
    "rotate": slow_rotate,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("op", ALL)
def test_an_op_is_its_definition_applied_image_by_image(op, height, width, channels):
    images, u = random_images(6, channels, height, width), extreme_and_random_u(6)
    expected = torch.stack([SLOW[op](x, row) for x, row in zip(images, u.tolist(), strict=True)])
    fast = augment.OPS[op](images, u)
    if op in ("crop", "cutout", "flip"):
        assert torch.equal(fast, expected)
    else:
        torch.testing.assert_close(fast, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("op", ["crop", "cutout", "flip"])
def test_ops_that_move_or_erase_pixels_are_exact_at_the_datasets_sizes(op, size):
    images, u = random_images(5, 3, size, size, torch.float32), extreme_and_random_u(5)
    expected = torch.stack([SLOW[op](x, row) for x, row in zip(images, u.tolist(), strict=True)])
    assert torch.equal(augment.OPS[op](images, u).view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("matrix", [[[0.9, 0.0], [0.0, 1.15]], [[0.97, -0.24], [0.24, 0.97]]])
def test_the_sampling_grid_is_that_of_affine_grid(matrix):
    images = random_images(4, 3, 28, 32)
    matrix = torch.tensor(matrix, dtype=torch.float64)
    theta = F.pad(matrix, (0, 1)).expand(4, 2, 3)
    expected = F.grid_sample(
        images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False
    )
    torch.testing.assert_close(augment._warp(images, matrix[..., None, None, None, None]), expected)


# The drawn parameters


def test_an_integer_parameter_never_exceeds_its_range_in_float32():
    n = torch.arange(1, 200, dtype=torch.float32)
    assert torch.equal((torch.tensor(BELOW_1) * n).floor(), n - 1)
    assert np.float32(BELOW_1) < 1 == np.nextafter(np.float32(BELOW_1), np.float32(2))


@pytest.mark.parametrize("size", [8, 28, 32])
def test_crop_shifts_by_each_of_minus_k_to_k_equally_often(size):
    k, n = math.floor(size / 8 + 0.5), 4000
    u = augment.draw(("crop",), n, np.random.default_rng(2)).u
    dot = torch.zeros(n, 1, size, size)
    dot[:, :, size // 2, size // 2] = 1
    moved = augment.OPS["crop"](dot, u)
    for axis in (2, 3):
        shift = size // 2 - moved.amax(5 - axis).argmax(2).flatten()
        assert sorted(set(shift.tolist())) == list(range(-k, k + 1))
        assert_uniform(torch.bincount(shift + k))


@pytest.mark.parametrize("size", [8, 10, 28])
def test_cutout_centres_take_each_allowed_value_equally_often(size):
    c, n = math.floor(size / 2 + 0.5), 4000
    centres = range(size + 1) if c % 2 == 0 else range(size)
    allowed = {frozenset(range(max(0, o - c // 2), min(size, o - c // 2 + c))): o for o in centres}
    u = augment.draw(("cutout",), n, np.random.default_rng(3)).u
    erased = augment.OPS["cutout"](torch.ones(n, 1, size, size), u)[:, 0] == 0
    for axis in (1, 2):
        seen = [
            allowed[frozenset(row.nonzero().flatten().tolist())] for row in erased.any(3 - axis)
        ]
        assert set(seen) == set(centres)
        assert_uniform(torch.bincount(torch.tensor(seen)))


def test_ops_are_drawn_equally_often():
    rng = np.random.default_rng(4)
    drawn = [augment.draw(ALL, 1, rng).op for _ in range(6000)]
    assert_uniform(torch.tensor([drawn.count(op) for op in ALL]))


def assert_uniform(counts):
    """Chi-square, at four standard deviations of the statistic (the seeds are fixed)."""
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 4 * math.sqrt(2 * freedom)


def test_a_draw_comes_from_its_generator_alone():
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    for n in (1, 7, 1, 32):
        a, b = augment.draw(ALL, n, first), augment.draw(ALL, n, second)
        assert a.op == b.op and torch.equal(a.u, b.u)
        assert a.u.shape == (n, 3) and a.u.dtype == torch.float32 and a.u.device.type == "cpu"
        augment.dsa(random_images(n, 3, 8, 8), a)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_strategies():
    assert tuple(augment.OPS) == ALL
    assert augment.parse_strategy("flip_crop_flip") == ("flip", "crop", "flip")
    for text in ("none", "None", ""):
        assert augment.parse_strategy(text) == ()
    for text, wrong in (("color_blur", "blur"), ("flip_", ""), ("none_flip", "none")):
        with pytest.raises(
            ValueError, match=f"^unknown DSA op .{wrong}. in .*: none or color, crop, cutout"
        ):
            augment.parse_strategy(text)


def test_an_empty_strategy_is_the_identity():
    images = random_images(3, 3, 8, 8)
    transform = augment.draw((), 3, np.random.default_rng(6))
    assert transform.op is None and transform.u.shape == (3, 3)
    assert augment.dsa(images, transform) is images


# Applying them


@pytest.mark.parametrize("op", ALL)
def test_a_siamese_draw_transforms_every_image_of_both_batches_alike(op):
    transform = augment.Transform(op, torch.tensor([[0.2, 0.9, 0.4]]))
    real, synthetic = (augment.dsa(coordinates(n, 8, 10), transform) for n in (7, 2))
    assert not torch.equal(real, coordinates(7, 8, 10))
    for image in (*real, *synthetic):
        assert torch.equal(image, real[0])


@pytest.mark.parametrize("op", ALL)
def test_a_row_of_a_transform_acts_on_its_image_alone(op):
    images, u = random_images(9, 3, 8, 10, torch.float32), extreme_and_random_u(9)
    batch = augment.dsa(images, augment.Transform(op, u))
    for i in range(9):
        assert torch.equal(
            batch[i : i + 1], augment.dsa(images[i : i + 1], augment.Transform(op, u[i : i + 1]))
        )


@pytest.mark.parametrize(
    "ops", [[*ALL, None, *reversed(ALL)], ["rotate", "rotate"], ["color"], [None, None]]
)
@pytest.mark.parametrize("size", [8, 32])
def test_dsa_per_class_equals_dsa_class_by_class(ops, size, monkeypatch):
    calls = []
    for name, op in augment.OPS.items():
        monkeypatch.setitem(
            augment.OPS, name, lambda x, u, name=name, op=op: calls.append(name) or op(x, u)
        )
    rng = np.random.default_rng(7)
    transforms = [augment.Transform(op, augment.draw(ALL, 1, rng).u) for op in ops]
    sizes = [1 + (3 * g) % 5 for g in range(len(ops))]
    images = random_images(sum(sizes), 3, size, size, torch.float32)
    together = augment.dsa_per_class(images, transforms, sizes)
    assert sorted(calls) == sorted({op for op in ops if op})
    separate = [
        augment.dsa(part, t) for part, t in zip(images.split(sizes), transforms, strict=True)
    ]
    assert torch.equal(together, torch.cat(separate))


def test_dsa_per_class_refuses_lengths_that_do_not_fit():
    images, flip = random_images(5, 1, 8, 8), augment.Transform("flip", torch.zeros(1, 3))
    for transforms, sizes in (([flip], [2, 3]), ([flip, flip], [2, 2])):
        with pytest.raises((ValueError, RuntimeError)):
            augment.dsa_per_class(images, transforms, sizes)


@pytest.mark.parametrize("op", ALL)
def test_gradients_with_respect_to_the_images(op):
    images = random_images(2, 3, 6, 5).requires_grad_()
    for u in (torch.tensor([[0.1, 0.8, 0.3]]), torch.tensor([[0.9, 0.2, 0.6], [0.3, 0.7, 0.1]])):
        assert torch.autograd.gradcheck(
            lambda x, u=u: augment.dsa(x, augment.Transform(op, u)), images
        )


def test_gradients_through_split_and_dsa_per_class():
    canvases = random_images(2, 1, 6, 4).requires_grad_()
    transforms = [
        augment.Transform(op, torch.tensor([[0.1, 0.8, 0.3]])) for op in ("scale", "crop", "scale")
    ]
    assert torch.autograd.gradcheck(
        lambda x: augment.dsa_per_class(augment.split(x), transforms, [3, 1, 4]), canvases
    )


def test_saturation_leaves_images_of_one_channel_unchanged():
    images = random_images(4, 1, 8, 8, torch.float32)
    grey, vivid = (
        augment.OPS["color"](images, torch.tensor([[0.7, saturation, 0.2]]))
        for saturation in (0, BELOW_1)
    )
    assert torch.equal(grey, vivid)


@pytest.mark.parametrize("op", ALL)
def test_autocast_does_not_coarsen_an_op(op):
    images, u = random_images(4, 3, 32, 32, torch.float32), extreme_and_random_u(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = augment.OPS[op](images, u)
    assert inside.dtype == torch.float32 and torch.equal(inside, augment.OPS[op](images, u))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("op", ALL)
def test_on_cuda_the_host_never_waits_and_the_result_is_the_cpus(op):
    images, u = random_images(8, 3, 32, 32, torch.float32), extreme_and_random_u(8)
    on_device = images.cuda().requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = augment.dsa(on_device, augment.Transform(op, u))
        result.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(
        result.cpu(), augment.dsa(images, augment.Transform(op, u)), rtol=0, atol=1e-4
    )


# CutMix


class Given:
    """A generator of the numbers that it is given."""

    def __init__(self, *numbers):
        self.numbers = iter(numbers)

    def random(self, size=None):
        return next(self.numbers) if size is None else [next(self.numbers) for _ in range(size)]

    def permutation(self, n):
        return np.arange(n)[::-1].copy()


@pytest.mark.parametrize(
    ("centre", "rows", "columns"),
    [
        ((0.5, 0.5), slice(2, 6), slice(4, 12)),
        ((0.25, 0.75), slice(0, 4), slice(8, 16)),
        ((0.0, 1.0), slice(0, 2), slice(12, 16)),
    ],
    ids=["middle", "touching two sides", "cut by two sides"],
)
def test_the_box_of_cutmix_covers_its_share_around_its_centre(centre, rows, columns):
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 8, 16)
    rng = Given(0.3, 0.25, *centre)  # below p; a quarter of the image, so half of each side
    mixed, targets = augment.cutmix(images, torch.eye(3), 0.5, rng)
    expected = images.clone()
    expected[:, :, rows, columns] = images.flip(0)[:, :, rows, columns]
    assert torch.equal(mixed, expected)
    area = (rows.stop - rows.start) * (columns.stop - columns.start) / 128
    torch.testing.assert_close(targets, torch.lerp(torch.eye(3), torch.eye(3).flip(0), area))


def test_cutmix_leaves_the_other_batches_as_they_are():
    images, targets = torch.rand(3, 1, 8, 8), torch.eye(3)
    assert augment.cutmix(images, targets, 0.5, Given(0.5)) == (images, targets)
