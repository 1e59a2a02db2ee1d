"""Facts about Algorithm 1 in plain lines: the fast distiller computes the same."""

import pytest
import torch

from bacon.distill import plain


@pytest.mark.parametrize(
    "flags",
    [
        {"method": "BACON", "meter_reset": 3, "net_generate_interval": 2, "net_num": 4},
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


def test_the_command_of_the_plain_lines_judges_canvases_of_0_and_of_100_iterations(
    quick, monkeypatch, capsys
):
    def distil(args, real, iterations):
        judged.append(iterations)
        return torch.arange(10.0)[:, None, None, None].expand(10 * args.ipc, 1, 8, 8)

    def judge(network, images, labels, test, num_classes, protocol, rng, arithmetic):
        # Four images to a canvas, each with the label of its class.
        assert images.shape == (40, 1, 8, 8)
        assert torch.equal(images, labels.float()[:, None, None, None].expand(images.shape))
        assert len(test) == 50 and num_classes == 10  # of the few digits
        drawn.append(rng.random())
        return judged[-1] / 200

    judged, drawn = [], []
    monkeypatch.setattr(plain, "distil", distil)
    monkeypatch.setattr(plain.judge, "judge", judge)
    plain.main()
    assert drawn[0] == drawn[1]  # both begin with the same network and batches
    assert capsys.readouterr().out.splitlines() == [
        "after 0 iterations: 0.00 % of the test digits",
        "after 100 iterations: 50.00 % of the test digits",
    ]
