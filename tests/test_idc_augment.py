"""Facts about what IDC's judge does to a batch: the chain of operations, and CutMix."""

import collections
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bacon import idc_augment

ALL = ("flip", "color", "crop", "scale", "rotate", "cutout")


@pytest.fixture(params=[(3, 32, 32), (1, 28, 28), (3, 20, 28)], ids=str)
def images(request):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((7, *request.param)))


# One image (C, H, W) and three numbers in [0, 1): IDC's operations as they are described


def flip(x, u):
    return x.flip(2) if u[0] < 0.5 else x


def color(x, u):
    x = x + (u[0] - 0.5) * 1.0  # brightness
    grey = x.mean(0, keepdim=True)
    x = (x - grey) * (u[1] * 2.0) + grey  # saturation
    mean = x.mean()
    return (x - mean) * (u[2] + 0.5) + mean  # contrast


def crop(x, u):
    pads = [int(size * 0.125 + 0.5) for size in x.shape[1:]]
    moved = [math.floor(number * (2 * pad + 1)) for number, pad in zip(u, pads, strict=False)]
    padded = F.pad(x, (pads[1], pads[1], pads[0], pads[0]))
    return padded[:, moved[0] : moved[0] + x.shape[1], moved[1] : moved[1] + x.shape[2]]


def warp(x, matrix):
    theta = torch.tensor([[[*matrix[0], 0], [*matrix[1], 0]]], dtype=x.dtype)
    grid = F.affine_grid(theta, [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, align_corners=False)[0]


def scale(x, u):
    factors = [number * (1.2 - 1 / 1.2) + 1 / 1.2 for number in u]
    return warp(x, [[factors[0], 0], [0, factors[1]]])


def rotate(x, u):
    angle = (u[0] - 0.5) * 2 * 15 / 180 * math.pi
    return warp(x, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def cutout(x, u):
    x = x.clone()
    sides = [int(size * 0.5 + 0.5) for size in x.shape[1:]]
    ends = [size + 1 - side % 2 for size, side in zip(x.shape[1:], sides, strict=True)]
    first = [math.floor(u[axis] * ends[axis]) - sides[axis] // 2 for axis in (0, 1)]
    rows = slice(max(0, first[0]), first[0] + sides[0])
    columns = slice(max(0, first[1]), first[1] + sides[1])
    x[:, rows, columns] = 0
    return x


PLAIN = {
    "flip": flip,
    "color": color,
    "crop": crop,
    "scale": scale,
    "rotate": rotate,
    "cutout": cutout,
}


@pytest.mark.parametrize("move", ["crop", "scale", "rotate"])
def test_a_batch_is_augmented_as_a_plain_loop_over_images_does_it(move, images):
    strategy = ("flip", "color", move, "cutout")
    chain = idc_augment.draw(strategy, len(images), np.random.default_rng(3))
    expected = []
    for number, x in enumerate(images):
        for op, u in zip(strategy, chain.u[:, number].tolist(), strict=True):
            x = PLAIN[op](x, u)
        expected.append(x)
    before = images.clone()
    fast = idc_augment.apply(images, strategy, np.random.default_rng(3))
    torch.testing.assert_close(fast, torch.stack(expected), rtol=0, atol=1e-10)
    assert torch.equal(images, before)


def test_flip_comes_first_then_colour_then_one_of_three_for_the_batch_then_cutout():
    rng = np.random.default_rng(0)
    chains = [idc_augment.draw(ALL, 5, rng).ops for _ in range(3000)]
    assert {(ops[:2], ops[3:]) for ops in chains} == {(("flip", "color"), ("cutout",))}
    drawn = collections.Counter(ops[2] for ops in chains)
    assert set(drawn) == {"crop", "scale", "rotate"}
    assert all(900 < count < 1100 for count in drawn.values())


@pytest.mark.parametrize(
    ("strategy", "ops"),
    [
        ((), ()),
        (("cutout",), ("cutout",)),
        (("cutout", "rotate", "color", "flip"), ("flip", "color", "rotate", "cutout")),
        (("crop", "color"), ("color", "crop")),
    ],
)
def test_what_the_strategy_leaves_out_is_left_out_and_its_order_does_not_matter(strategy, ops):
    assert idc_augment.draw(strategy, 4, np.random.default_rng(0)).ops == ops
    images = torch.ones(4, 1, 8, 8)
    augmented = idc_augment.apply(images, strategy, np.random.default_rng(0))
    assert torch.equal(augmented, images) == (not ops)


def test_every_image_and_every_operation_has_numbers_of_its_own():
    chain = idc_augment.draw(ALL, 50, np.random.default_rng(0))
    assert chain.u.shape == (4, 50, 3) and chain.u.dtype == torch.float32
    assert len(chain.u.unique()) == chain.u.numel()
    assert chain.u.min() >= 0 and chain.u.max() < 1


BASE = ("color", "crop", "scale", "rotate")


@pytest.mark.parametrize(
    ("dataset", "factor", "ipc", "strategy", "cutmix"),
    [
        ("CIFAR10", 2, 10, ("flip", *BASE), 0.5),
        ("CIFAR10", 1, 1, ("flip", *BASE), 0.5),
        ("CIFAR100", 2, 1, ("flip", *BASE), 0.5),
        ("FashionMNIST", 2, 10, ("flip", *BASE), 0.5),
        ("TinyImageNet", 2, 1, ("flip", *BASE), 0.5),
        (None, 1, None, ("flip", *BASE), 0.5),
        ("MNIST", 1, 1, BASE, 0.5),
        ("MNIST", 2, 1, BASE, 0),
        ("MNIST", 2, 50, BASE, 0),
        ("SVHN", 2, 1, BASE, 0.5),
        ("SVHN", 1, 10, BASE, 0.5),
        ("SVHN", 1, 1, (*BASE, "cutout"), 0),
        ("Digits", 2, 1, BASE, 0.5),
    ],
)
def test_the_plan_depends_on_dataset_and_storage(dataset, factor, ipc, strategy, cutmix):
    assert idc_augment.plan(dataset, factor, ipc) == idc_augment.Plan(strategy, cutmix)


# CutMix


def plain_box(height, width, rng):
    """Corners of the box by IDC's description, from the same draws."""
    kept = rng.beta(1.0, 1.0)
    corners = []
    for size in (height, width):
        length = int(size * math.sqrt(1 - kept))
        centre = int(rng.integers(size))
        corners += [centre - length // 2, centre + length // 2]
    return corners


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (9, 14)], ids=str)
def test_the_box_replaces_pixels_and_its_area_mixes_hard_labels(size):
    height, width = size
    classes = 6
    # Image c has the value c everywhere: a target tells how much of each class is in it.
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, height, width)
    targets = F.one_hot(torch.arange(classes), classes).float()
    for seed in range(20):
        mixed, found = idc_augment.cutmix(images, targets, 1.0, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()
        top, bottom, left, right = plain_box(height, width, rng)
        other = rng.permutation(6)
        inside = torch.zeros(height, width, dtype=torch.bool)
        for i in range(height):
            for j in range(width):
                inside[i, j] = top <= i < bottom and left <= j < right
        for c in range(classes):
            assert torch.equal(mixed[c, 1], torch.where(inside, float(other[c]), float(c)))
            shares = [(mixed[c] == k).float().mean().item() for k in range(classes)]
            assert found[c].tolist() == pytest.approx(shares, abs=1e-6)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(6.0))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_cutmix_comes_to_its_share_of_the_batches(p):
    rng = np.random.default_rng(0)
    images = torch.rand(4, 1, 32, 32)
    targets = torch.eye(4)
    results = [idc_augment.cutmix(images, targets, p, rng) for _ in range(1000)]
    mixed = sum(batch is not images for batch, _ in results)
    assert abs(mixed - 1000 * p) < 50 * (p == 0.5) + 1
