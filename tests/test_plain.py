"""Facts about Algorithm 1 in plain lines: the fast distiller computes the same."""

import pytest
import torch

from bacon.distill import plain


@pytest.mark.parametrize(
    "flags",
    [
        {"method": "BACON", "meter_reset": 5, "net_generate_interval": 2, "net_num": 4},
        {"method": "BACON", "batch_real": 118},
        {"method": "BACON", "outer_loop": 2, "train_net_num": 2, "net_decay": False},
        {"method": "IDM", "fetch_net_num": 5},
        {"method": "IDM", "embed_last": -1},
        {"method": "DM"},
    ],
    ids=[
        "BACON",
        "BACON, unequal classes",
        "BACON, two loops and networks",
        "IDM",
        "IDM, inner layer",
        "DM",
    ],
)
def test_iterations_equal_the_plain_reference(make_distiller, flags):
    # Without cutout: on 8x8 digits it leaves constant feature maps, where rounding decides on which
    # side of the ReLU's kink a normalised value of 0 lies, and the two ways of summing part.
    d = make_distiller(
        **{"ipc": 1, "batch_real": 8, "dsa_strategy": "color_crop_flip_scale_rotate", **flags}
    )
    start = d.canvases.clone()
    for it in range(6):
        d.iterate(it)
    ours = d.canvases
    plain_ones = plain.distil(d.args, d.real, 6).view_as(ours)
    moved = (plain_ones - start).abs().max()
    assert moved > 0.05
    # float32, with other orders of summation: rounding, far below what any change of the algorithm
    # would move
    torch.testing.assert_close(ours, plain_ones, rtol=0, atol=2e-4 * float(moved))
