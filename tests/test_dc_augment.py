"""Facts about the augmentation of Dataset Condensation's own code."""

import argparse

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from bacon import dc_augment
from bacon.recipes import DATASETS
from bacon.score import layouts, protocols


@pytest.fixture
def images():
    return torch.from_numpy(
        np.random.default_rng(0).normal(0.5, 1, (40, 2, 28, 28)).astype("float32")
    )


def plain(image, mean, op, rng):
    """One image (C,H,W) by the published description, with the same draws.

    Step by step, with PyTorch's own resizing.
    """
    channels, height, width = image.shape
    if op == "crop":
        framed = mean.view(-1, 1, 1).repeat(1, height + 8, width + 8)
        framed[:, 4:-4, 4:-4] = image
        top, left = rng.integers(8, size=2)
        return framed[:, top : top + height, left : left + width]
    if op == "scale":
        h, w = (int(rng.uniform(0.8, 1.2) * height) for _ in range(2))
        small, side = F.interpolate(image[None], (h, w))[0], max(h, w, height)
        framed = torch.zeros(channels, side, side)
        framed[:, (side - h) // 2 :, (side - w) // 2 :][:, :h, :w] = small
        return framed[:, (side - height) // 2 :, (side - width) // 2 :][:, :height, :width]
    if op == "rotate":
        turned = ndimage.rotate(
            image.numpy(), int(rng.integers(-45, 45)), (-2, -1), order=3, cval=mean.mean().item()
        )
        top, left = ((turned.shape[axis] - side) // 2 for axis, side in ((1, height), (2, width)))
        return torch.from_numpy(turned[:, top : top + height, left : left + width])
    return image + 0.001 * torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))


@pytest.mark.parametrize("ops", [("crop", "scale", "rotate"), ("crop", "noise")], ids="_".join)
def test_each_image_gets_one_operation_as_a_plain_loop_does_it(ops, images):
    rng, mean = np.random.default_rng(3), images.mean((0, 2, 3))
    slow = torch.stack([plain(image, mean, ops[rng.integers(len(ops))], rng) for image in images])
    fast = dc_augment.apply(images, ops, np.random.default_rng(3))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=2e-6)
    assert fast.shape == images.shape and fast.dtype == torch.float32


def test_rectangles_keep_their_shape_and_nothing_is_changed_in_place(images):
    wide, before = images[..., :20], images.clone()
    assert (
        dc_augment.apply(wide, ("crop", "scale", "rotate", "noise"), np.random.default_rng(0)).shape
        == wide.shape
    )
    assert torch.equal(images, before) and dc_augment.apply(images, (), None) is images


@pytest.mark.parametrize(
    ("dataset", "augmented", "plain"),
    [
        ("MNIST", ["DC crop_scale_rotate", "DC crop_noise"], []),
        ("CIFAR10", ["DC crop_noise"], ["DC none"]),
    ],
)
def test_what_is_augmented_depends_on_dataset_and_network(dataset, augmented, plain):
    line = {
        "eval_mode": ["M", "N"],
        "model": None,
        "seed": None,
        "num_eval": None,
        "protocol": "dc",
    }
    args = argparse.Namespace(**line, **dict.fromkeys(protocols.FROM_THE_RUN))
    found = protocols.judges_of(args, layouts.Facts.of(dataset, DATASETS[dataset], None), {})
    told = {
        str(one.protocol).rpartition(", ")[2]: (one.protocol.epochs, one.names) for one in found
    }
    assert sorted(told) == sorted([*augmented, *plain]) and told["DC crop_noise"] == (
        1000,
        ["ConvNetBN"],
    )
    assert all(told[kind][0] == 1000 for kind in augmented) and all(
        told[kind][0] == 300 for kind in plain
    )
