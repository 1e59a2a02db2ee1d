"""Facts about judging a synthetic set: the protocol, step by step, and the test accuracy."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import augment
import utils
from bacon import compute, idc_augment, recipes
from bacon.data import real_data
from bacon.errors import UserError
from bacon.judge import SCHEDULES, Protocol, accuracy, judge, train

STRATEGY = augment.parse_strategy("color_crop_cutout_flip_scale_rotate")


class Recorder(compute.Arithmetic):
    """Notes the labels and the optimizer of every training step instead of computing it."""

    def __init__(self):
        super().__init__("cpu")
        self.steps = []

    def training_step(self, net, optimizer, images, labels):
        self.steps.append((labels.tolist(), optimizer))


@pytest.fixture
def small_set():
    g = torch.Generator().manual_seed(0)
    return torch.randn(23, 1, 8, 8, generator=g), torch.arange(23)


def trained_and_before(images, labels, protocol):
    """A network that was trained by the random stream 2, and a copy of it from before."""
    arithmetic = compute.Arithmetic("cpu")
    net = arithmetic.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(1))
    before = copy.deepcopy(net)
    train(net, images, labels, protocol, np.random.default_rng(2), arithmetic)
    return net, before


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def assert_close(ours, plain):
    """Two networks have the same weights up to rounding."""
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_epochs_batches_rate_drop_and_momentum_restart(small_set, epochs):
    recorder = Recorder()
    net = torch.nn.Linear(1, 1)
    train(net, *small_set, Protocol(epochs, 10, 0.01, STRATEGY), np.random.default_rng(0), recorder)
    steps = recorder.steps
    assert len(steps) == 3 * (epochs + 1)
    orders = []
    for epoch in range(epochs + 1):
        batches = steps[3 * epoch : 3 * epoch + 3]
        assert [len(labels) for labels, _ in batches] == [
            10,
            10,
            3,
        ]  # the last partial batch is kept
        orders.append([label for labels, _ in batches for label in labels])
        assert sorted(orders[-1]) == list(range(23))
        rate = 0.01 if epoch <= epochs // 2 + 1 else 0.001
        for _, optimizer in batches:
            settings = optimizer.param_groups[0]
            assert (settings["lr"], settings["momentum"], settings["weight_decay"]) == (
                pytest.approx(rate),
                0.9,
                5e-4,
            )
    assert orders[0] != orders[1] != list(range(23))
    used = list(dict.fromkeys(id(optimizer) for _, optimizer in steps))
    assert len(used) == (
        2 if epochs // 2 + 1 < epochs else 1
    )  # a new optimizer, so momentum starts from zero


def test_training_equals_a_plain_loop_with_one_op_per_batch_and_parameters_per_image(small_set):
    images, labels = small_set
    labels = labels % 10
    ours, plain = trained_and_before(images, labels, Protocol(4, 10, 0.05, STRATEGY))

    rng = np.random.default_rng(2)
    velocity = [torch.zeros_like(p) for p in plain.parameters()]
    rate = 0.05
    for epoch in range(5):
        order = rng.permutation(23)
        for start in (0, 10, 20):
            index = order[start : start + 10]
            op, u = augment.draw(STRATEGY, len(index), rng)
            batch = torch.cat(
                [augment.OPS[op](images[i : i + 1], u[k : k + 1]) for k, i in enumerate(index)]
            )
            loss = F.cross_entropy(plain.classify(batch), labels[index])
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            with torch.no_grad():
                for p, v, g in zip(plain.parameters(), velocity, gradients, strict=True):
                    v.mul_(0.9).add_(g + 5e-4 * p)
                    p.sub_(rate * v)
        if epoch == 4 // 2 + 1:
            rate *= 0.1
            velocity = [torch.zeros_like(p) for p in plain.parameters()]
    assert_close(ours, plain)


def test_a_network_is_in_training_mode_while_it_trains_whatever_it_was_before(small_set):
    cpu = compute.Arithmetic("cpu")
    net = cpu.build("ConvNetBN", (1, 8, 8), 23, np.random.default_rng(0)).eval()
    (norm, *_) = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = norm.running_mean.clone()
    modes = []

    def after_epoch(epoch, net):
        modes.append(net.training)
        net.eval()  # as a test leaves it

    protocol = Protocol(2, 16, 0.01, ())
    train(net, *small_set, protocol, np.random.default_rng(0), cpu, after_epoch)
    assert modes == [True, True, True] and not torch.equal(norm.running_mean, before)


def test_accuracy_is_the_share_of_the_whole_test_set_in_eval_mode(digits, monkeypatch):
    images, labels = digits.images_test[:150], digits.labels_test[:150]
    test = real_data.RealData(images, labels, digits.mean, digits.std, 10, "cpu")
    arithmetic = compute.Arithmetic("cpu")
    net = arithmetic.build("ConvNetBN", (1, 8, 8), 10, np.random.default_rng(0)).train()
    state = copy.deepcopy(net.state_dict())
    monkeypatch.setattr(compute.Arithmetic, "chunk", lambda self, size: 40)
    value = accuracy(net, test, arithmetic)
    right = sum(
        int(net.eval().classify(test.take(slice(i, i + 1))).argmax() == labels[i])
        for i in range(150)
    )
    assert value == pytest.approx(right / 150, abs=2.1 / 150)  # ties aside
    assert all(
        torch.equal(a, b) for a, b in zip(state.values(), net.state_dict().values(), strict=True)
    )


def test_judging_is_determined_by_its_stream_alone(digits):
    test = digits.real("test")
    real = digits.real("train")
    images, labels = real.take(slice(0, 60)), real.labels_of(slice(0, 60))
    protocol, arithmetic = Protocol(4, 32, 0.01, STRATEGY), compute.Arithmetic("cpu")

    def score(seed):
        rng = utils.stream(seed, "judge")
        return judge("ConvNetW32", images, labels, test, 10, protocol, rng, arithmetic)

    first = score(0)
    torch.rand(3)
    assert first == score(0) and first != score(1)


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_steps_in_place_of_epochs_are_counted_and_the_rate_drops_in_their_middle(small_set, steps):
    recorder, protocol = Recorder(), Protocol(1000, 10, 0.01, STRATEGY, steps=steps)
    train(torch.nn.Linear(1, 1), *small_set, protocol, np.random.default_rng(0), recorder)
    assert len(recorder.steps) == steps and str(protocol).startswith(f"{steps} steps, batch 10")
    rates = [optimizer.param_groups[0]["lr"] for _, optimizer in recorder.steps]
    first = min(steps, steps // 2 + 2)
    assert rates == pytest.approx([0.01] * first + [0.001] * (steps - first))
    sizes = [len(labels) for labels, _ in recorder.steps]
    assert sizes == ([10, 10, 3] * 4)[:steps]  # whole passes, the last one cut off
    assert protocol.images(23) == sum(sizes)


# IDC's judge


def rates_of_torch(epochs, steps_of_an_epoch):
    """The rate of every step under PyTorch's own scheduler with IDC's milestones."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    milestones = [2 * epochs // 3, 5 * epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)
    rates = []
    for _ in range(epochs):
        for _ in range(steps_of_an_epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        scheduler.step()
    return rates


def idc(epochs, batch=10, **settings):
    strategy = ("flip", "color", "crop", "scale", "rotate")
    return Protocol(epochs, batch, 0.01, strategy, "sgd (IDC)", augmentation="IDC", **settings)


@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 7, 20])
def test_by_idc_the_rate_falls_to_a_fifth_twice_and_momentum_is_kept(epochs, small_set):
    recorder = RateRecorder()
    train(torch.nn.Linear(1, 1), *small_set, idc(epochs), np.random.default_rng(0), recorder)
    assert [rate for rate, *_ in recorder.steps] == pytest.approx(rates_of_torch(epochs, 3))
    assert [size for _, _, size in recorder.steps] == [10, 10, 3] * epochs
    (optimizer,) = {optimizer for _, optimizer, _ in recorder.steps}  # so momentum goes on
    settings = optimizer.param_groups[0]
    assert (settings["momentum"], settings["weight_decay"]) == (0.9, 5e-4)


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_by_idc_steps_in_place_of_epochs_have_the_same_schedule(steps, small_set):
    recorder = RateRecorder()
    protocol = idc(1000, steps=steps)
    train(torch.nn.Linear(1, 1), *small_set, protocol, np.random.default_rng(0), recorder)
    assert [rate for rate, *_ in recorder.steps] == pytest.approx(rates_of_torch(steps, 1))


class RateRecorder(compute.Arithmetic):
    """Notes the rate, the optimizer and the size of every step's batch instead of computing it."""

    def __init__(self):
        super().__init__("cpu")
        self.steps = []

    def training_step(self, net, optimizer, images, labels):
        self.steps.append((optimizer.param_groups[0]["lr"], optimizer, len(images)))


@pytest.mark.parametrize("cutmix", [0.0, 0.5, 1.0])
def test_training_by_idc_equals_a_plain_loop_with_hard_labels_mixed_by_area(cutmix, small_set):
    images, labels = small_set
    labels = labels % 10
    protocol = idc(6, cutmix=cutmix)
    ours, plain = trained_and_before(images, labels, protocol)

    rng = np.random.default_rng(2)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 5], gamma=0.2)
    for _ in range(6):
        order = rng.permutation(23)
        for start in (0, 10, 20):
            index = order[start : start + 10]
            batch = idc_augment.apply(images[index], protocol.strategy, rng)
            targets = labels[index]
            others, share = targets, 0.0
            if cutmix and rng.random() < cutmix:
                rows, columns = idc_augment.draw_box(8, 8, rng)
                other = rng.permutation(len(index))
                others = targets[other]
                box = batch[other, :, rows, columns]
                batch = batch.clone()
                batch[:, :, rows, columns] = box
                share = box[0, 0].numel() / 64
            logits = plain.classify(batch)
            own = F.cross_entropy(logits, targets) * (1 - share)
            loss = own + F.cross_entropy(logits, others) * share
            step(optimizer, loss)
        scheduler.step()
    assert_close(ours, plain)


@pytest.mark.parametrize("steps", [0, 7])
def test_every_pass_ends_in_a_call_that_may_test_the_network(steps, small_set):
    for protocol in (idc(3, steps=steps), Protocol(2, 10, 0.01, STRATEGY, steps=steps)):
        recorder = RateRecorder()
        calls = []

        def after(epoch, net, calls=calls, recorder=recorder):
            calls.append((epoch, len(recorder.steps), net.training))
            net.eval()

        net = torch.nn.Linear(1, 1)
        train(net, *small_set, protocol, np.random.default_rng(0), recorder, after)
        ends = [3, 6, 7] if steps else [3, 6, 9]
        assert calls == [(epoch, end, True) for epoch, end in enumerate(ends)]
        assert net.training and protocol.length(23) == ends[-1]


# NCFM's judge


def test_adamw_shrinks_a_weight_of_no_gradient_by_a_hundredth_of_the_rate():
    # Loshchilov and Hutter's decoupled decay; 0.01 is PyTorch's default, which NCFM's code leaves.
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 1.0)
    optimizer = SCHEDULES["adamw"].start(net, 0.5, compute.Arithmetic("cpu"))
    net.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert net.weight.item() == pytest.approx(1 - 0.5 * 0.01)


def test_training_by_ncfm_equals_a_plain_loop_whose_rate_is_halved_at_every_fifth(small_set):
    images, labels = small_set
    labels = labels % 10
    protocol = Protocol(7, 10, 0.01, STRATEGY, "adamw")
    ours, plain = trained_and_before(images, labels, protocol)

    rng = np.random.default_rng(2)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)  # one for all epochs
    milestones = [1, 2, 4, 5]  # 7, 14, 21 and 28 fifths of an epoch, rounded down
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.5)
    for _ in range(7):
        order = rng.permutation(23)
        for start in (0, 10, 20):
            index = order[start : start + 10]
            batch = augment.dsa(images[index], augment.draw(STRATEGY, len(index), rng))
            loss = F.cross_entropy(plain.classify(batch), labels[index])
            step(optimizer, loss)
        scheduler.step()
    assert_close(ours, plain)


MODES = sorted({name for mode in "MBWDAPN" for name in recipes.EVAL_NETWORKS[mode]})


@pytest.mark.parametrize("name", MODES)
def test_every_network_of_the_modes_learns_whichever_class_it_is_shown(name):
    # An untrained network cannot be right about both.
    for c in (0, 2):
        rng = np.random.default_rng(0)
        images = torch.from_numpy(rng.random((3, 3, 32, 32), dtype="float32"))
        labels = torch.full((3,), c)
        pixels = (images * 255).to(torch.uint8)
        test = real_data.RealData(pixels, labels, (0.0,) * 3, (1.0,) * 3, 3, "cpu")
        protocol = Protocol(1, 3, 0.05, augment.parse_strategy("flip"))
        arithmetic = compute.Arithmetic("cpu")
        assert judge(name, images, labels, test, 3, protocol, rng, arithmetic) == 1


def judged(name, images, batch, steps=0):
    """Judge a set of random 8x8 images by the network `name`; the numbers of images per step."""
    generator = torch.Generator().manual_seed(0)
    canvases = torch.randn(images, 1, 8, 8, generator=generator)
    labels = torch.arange(images) % 10
    test = real_data.RealData(
        torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10), (0.5,), (0.2,), 10, "cpu"
    )
    protocol = Protocol(1, batch, 0.01, (), steps=steps)
    recorder = Recorder()
    judge(name, canvases, labels, test, 10, protocol, np.random.default_rng(0), recorder)
    return [len(labels) for labels, _ in recorder.steps]


@pytest.mark.parametrize(
    ("images", "batch", "better"),
    [(40, 39, 40), (40, 1, 2), (41, 1, 3), (41, 8, 9), (5, 2, 3), (5, 4, 5), (1201, 100, 101)],
)
def test_a_last_batch_of_one_image_is_refused_before_training_by_a_network_that_needs_two(
    images, batch, better, monkeypatch
):
    monkeypatch.setattr("bacon.judge.train", None)
    with pytest.raises(UserError) as error:
        judged("ResNet18BN_AP", images, batch)
    words = str(error.value)
    assert words.startswith(f"--batch_train {batch}: {images} images ") and "\n" not in words
    assert "ResNet18BN_AP" in words and "8x8" in words
    assert f"choose --batch_train {better} " in words and images % better != 1


def test_a_single_image_asks_for_another_network():
    with pytest.raises(UserError, match=r"^--batch_train 256: 1 images .* choose another --model$"):
        judged("ResNet18BN_AP", 1, 256)


@pytest.mark.parametrize(
    ("name", "images", "batch", "steps", "sizes"),
    [
        ("ResNet18BN_AP", 10, 8, 0, [8, 2] * 2),
        ("ResNet18BN_AP", 9, 8, 1, [8]),  # the last batch is never reached
        ("ConvNetBN", 9, 8, 0, [8, 1] * 2),  # whose smallest map has 2x2 pixels
        ("MLP", 9, 8, 0, [8, 1] * 2),
    ],
)
def test_other_networks_and_batches_are_trained_as_ever(name, images, batch, steps, sizes):
    assert judged(name, images, batch, steps) == sizes
