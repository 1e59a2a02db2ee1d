"""Facts about the canvas optimizers: they are PyTorch's, a step per class over the whole tensor."""

import pytest
import torch

from bacon.data import spaces
from bacon.distill import optimizers


@pytest.mark.parametrize("joint", [False, True], ids=["a turn per class", "one turn for all"])
def test_closed_form_sgd_is_torch_sgd_stepping_once_per_turn(joint):
    classes, passes = 7, 12
    g = torch.Generator().manual_seed(0)
    start = torch.randn(classes, 3, 5, generator=g, dtype=torch.float64)
    targets = torch.randn(passes, classes, 3, 5, generator=g, dtype=torch.float64)
    turns = [range(classes)] if joint else [range(c, c + 1) for c in range(classes)]

    def loss(
        x, p, turn
    ):  # of some classes' canvases alone; not quadratic, and another one at every pass
        here = slice(turn.start, turn.stop)
        return (1 - torch.cos(x[here] - targets[p, here])).sum() + 0.1 * x[here].pow(4).sum()

    x = start.clone().requires_grad_()
    sgd = torch.optim.SGD([x], lr=0.2, momentum=0.5)
    for p in range(passes):
        if p == passes // 2:
            sgd.param_groups[0]["lr"] = 0.02
        for turn in turns:
            sgd.zero_grad()
            loss(x, p, turn).backward()
            sgd.step()

    ours = start.clone()
    optimizer = optimizers.ClosedFormSGD(ours, 0.2, turns, range(classes))

    for p in range(passes):
        if p == passes // 2:
            optimizer.set_rate(0.02)
        for served in optimizer.turns:
            optimizer.drift_before_(ours)
            leaf = ours.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(leaf, p, served), leaf)
            optimizer.step_(ours, served, gradient)
            optimizer.drift_after_(ours)
    torch.testing.assert_close(ours, x.detach(), rtol=0, atol=1e-10)
    assert (ours - start).abs().max() > 0.1


@pytest.mark.parametrize("own", [range(4), range(2), range(1, 3), range(2, 4)])
def test_per_class_adam_is_torch_adam_stepping_once_per_class(own):
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = start.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=0.05)
    ours = start[own.start : own.stop].clone()
    optimizer = optimizers.PerClassAdam(ours, 0.05, [range(c, c + 1) for c in range(4)], own)
    for p in range(5):
        if p == 3:
            adam.param_groups[0]["lr"] = 0.01
            optimizer.set_rate(0.01)
        for c in range(4):
            adam.zero_grad()
            x[c].pow(4).sum().backward()
            adam.step()
        for classes in optimizer.turns:
            optimizer.drift_before_(ours)
            rows = slice(classes.start - own.start, classes.stop - own.start)
            gradient = 4 * ours[rows].pow(3) if len(classes) else None
            optimizer.step_(ours, classes, gradient)
            optimizer.drift_after_(ours)
    torch.testing.assert_close(ours, x.detach()[own.start : own.stop], rtol=0, atol=1e-12)


def test_sgd_on_planes_is_projected_sgd_on_pixels():
    classes, passes = 4, 6
    turns = [range(c, c + 1) for c in range(classes)]
    g = torch.Generator().manual_seed(0)
    planes = torch.randn(classes, 6, 3, 4, generator=g, dtype=torch.float64)
    targets = torch.randn(passes, classes, 3, 6, 8, generator=g, dtype=torch.float64)

    def loss(images, p):  # not quadratic, and of pixels that half-size chroma cannot store
        return (1 - torch.cos(images - targets[p])).sum() + 0.1 * images.pow(4).sum()

    def projected(images):
        return spaces.from_planes(spaces.to_planes(images))

    start = spaces.from_planes(planes)
    pixels = start.clone().requires_grad_()
    sgd = torch.optim.SGD([pixels], lr=0.05, momentum=0.5)
    ours = optimizers.ClosedFormSGD(planes, 0.05, turns, range(classes))
    for p in range(passes):
        for c in range(classes):
            gradient = torch.zeros_like(pixels)
            gradient[c] = torch.autograd.grad(loss(pixels, p), pixels)[0][c]
            pixels.grad = projected(gradient)
            sgd.step()
        for served in ours.turns:
            ours.drift_before_(planes)
            leaf = planes.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(spaces.from_planes(leaf), p), leaf)
            ours.step_(planes, served, gradient)
            ours.drift_after_(planes)
    torch.testing.assert_close(spaces.from_planes(planes), pixels.detach(), rtol=0, atol=1e-12)
    assert (pixels.detach() - start).abs().max() > 0.1


def test_adam_that_has_not_stepped_goes_on_as_a_new_one():
    def made():
        return optimizers.PerClassAdam(torch.ones(3, 2), 0.1, [range(3)], range(3))

    state = made().state_dict(lambda rows: rows)
    fresh, restored = made(), made()
    restored.load_state_dict(state)
    canvases = [torch.ones(3, 2), torch.ones(3, 2)]
    for optimizer, ours in zip((fresh, restored), canvases, strict=True):
        optimizer.adam.param_groups[0]["params"] = [ours]
        optimizer.step_(ours, range(3), torch.arange(6.0).view(3, 2))
    assert torch.equal(*canvases) and not torch.equal(canvases[0], torch.ones(3, 2))
