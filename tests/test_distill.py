"""Facts about Algorithm 1: the canvas optimizer, the network pool, one iteration, and what must not influence it."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import augment
import utils
from bacon import canvases, compute, distill, judge, spaces
from bacon.errors import DivergedError


@pytest.fixture
def distiller(digits, make_args):
    """Make a Distiller of a small Digits run; keyword arguments are flags."""

    def make(exp=0, **flags):
        return distill.Distiller(make_args(**flags), exp, digits.real("train"), compute.Arithmetic("cpu"))

    return make


def canvases_after(distiller, iterations):
    for it in range(iterations):
        distiller.iterate(it)
    return distiller.canvases.clone()


# Canvas optimizer


@pytest.mark.parametrize("joint", [False, True], ids=["a turn per class", "one turn for all"])
def test_closed_form_sgd_is_torch_sgd_stepping_once_per_turn(joint):
    classes, passes = 7, 12
    g = torch.Generator().manual_seed(0)
    start = torch.randn(classes, 3, 5, generator=g, dtype=torch.float64)
    targets = torch.randn(passes, classes, 3, 5, generator=g, dtype=torch.float64)
    turns = [range(classes)] if joint else [range(c, c + 1) for c in range(classes)]

    def loss(x, p, turn):  # of some classes' canvases alone; not quadratic, and another one at every pass
        here = slice(turn.start, turn.stop)
        return (1 - torch.cos(x[here] - targets[p, here])).sum() + 0.1 * x[here].pow(4).sum()

    x = start.clone().requires_grad_()
    sgd = torch.optim.SGD([x], lr=0.2, momentum=0.5)
    for p in range(passes):
        for turn in turns:
            sgd.zero_grad()
            loss(x, p, turn).backward()
            sgd.step()

    ours = start.clone()
    optimizer = distill.ClosedFormSGD(ours, 0.2, turns)

    for p in range(passes):
        for served in optimizer.turns():
            leaf = ours.clone().requires_grad_()
            optimizer.step(served, torch.autograd.grad(loss(leaf, p, served), leaf)[0])
    torch.testing.assert_close(ours, x.detach(), rtol=0, atol=1e-10)
    assert (ours - start).abs().max() > 0.1


def test_per_class_adam_is_torch_adam_stepping_once_per_class():
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = start.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=0.05)
    ours = start.clone()
    optimizer = distill.PerClassAdam(ours, 0.05, [range(c, c + 1) for c in range(4)])
    for _ in range(5):
        for c in range(4):
            adam.zero_grad()
            x[c].pow(4).sum().backward()
            adam.step()
        for classes in optimizer.turns():
            optimizer.step(classes, 4 * ours[classes.start : classes.stop].pow(3))
    torch.testing.assert_close(ours, x.detach(), rtol=0, atol=1e-12)


# Network pool


def test_the_pool_starts_with_three_and_the_oldest_leaves():
    pool = distill.NetPool(lambda number: number, capacity=5)
    assert pool.members == [0, 1, 2]
    pool.push(2)
    pool.push(2)
    assert pool.members == [2, 3, 4, 5, 6]
    pool.push(10**9)  # only those that stay are made
    assert pool.members == [10**9 + n for n in (2, 3, 4, 5, 6)]


def test_the_pool_picks_distinct_members_from_the_slice_only_if_it_holds_more_than_ten():
    pool = distill.NetPool(lambda number: number, capacity=100, start=30)
    rng = np.random.default_rng(0)
    picks = {n for _ in range(200) for n in pool.pick(2, rng, 5, 16)}
    assert picks == set(range(5, 16))
    assert {n for _ in range(300) for n in pool.pick(2, rng, 5, 15)} == set(range(30))
    assert sorted(pool.pick(99, rng)) == list(range(30))


def test_the_meter_is_training_accuracy_in_percent_since_the_reset_and_0_before_training(distiller):
    d = distiller()
    member = d.pool.members[0]
    assert member.percent() == 0
    d.train_network(member, np.random.default_rng(0))
    assert member.seen == 32
    assert member.percent() == 100 * member.correct / 32
    d.pool.reset_meters()
    assert member.percent() == 0 and member.seen == 0


def test_meters_are_reset_before_the_update_of_a_reset_iteration(distiller, monkeypatch):
    d = distiller(meter_reset=2, train_net_num=3, fetch_net_num=9)
    weights = {}
    inner = distill.Distiller.gradient

    def spy(self, member, when, *rest):
        weights.setdefault(when[0], []).append(float(member.percent()))
        return inner(self, member, when, *rest)

    monkeypatch.setattr(distill.Distiller, "gradient", spy)
    canvases_after(d, 4)
    assert weights[0] == [0.0] * 3 and weights[2] == [0.0] * 3
    assert any(w > 0 for w in weights[1]) and any(w > 0 for w in weights[3])


# One iteration, against a plain reference


def plain_reference(args, real, iterations):
    """Algorithm 1 as the released code runs it: class by class, torch.optim.SGD over the whole tensor, plain autograd.

    It shares the random streams, the networks and the augmentation with distill.py, and nothing else.
    """
    arithmetic = compute.Arithmetic("cpu")
    shape, classes = tuple(real.images.shape[1:]), len(real.counts)
    strategy = augment.parse_strategy(args.dsa_strategy)
    factor = 2 if args.aug else 1

    def stream(*name):
        return utils.stream(args.seed, 0, *name)

    def fresh():
        net = arithmetic.build(args.model, shape, classes, stream("network", plain_reference.born))
        plain_reference.born += 1
        decay = {"momentum": 0.9, "weight_decay": 5e-4} if args.net_decay else {}
        return {"net": net, "opt": torch.optim.SGD(net.parameters(), lr=args.lr_net, **decay), "right": 0, "seen": 0}

    plain_reference.born = 0
    rows = []
    for c in range(classes):
        rng = stream("init", c)
        picked = [real.take(real.indices(c, args.ipc, rng)) for _ in range(factor**2)]
        rows.append(augment.tile(torch.cat(picked), factor))
    x = torch.cat(rows).requires_grad_()
    optimizer = torch.optim.SGD([x], lr=args.lr_img, momentum=0.5)
    pool = [fresh() for _ in range(min(3, args.net_num))]

    for it in range(iterations):
        if it > 0 and it % args.meter_reset == 0:
            for p in pool:
                p["right"] = p["seen"] = 0
        if it % args.net_generate_interval == 0:
            pool = (pool + [fresh() for _ in range(args.net_push_num)])[-args.net_num :]
        order = stream("pick", it).permutation(len(pool))[: args.train_net_num]
        on = [pool[i] for i in order]
        for turn in range(args.outer_loop):
            for i, p in enumerate(on):
                p["net"].eval()
                total = 0
                for c in range(classes):
                    rng = stream("class", it, turn, i, c)
                    images = real.take(real.indices(c, args.batch_real, rng))
                    transform = augment.draw(strategy, 1, rng)
                    mine = augment.split(x[c * args.ipc : (c + 1) * args.ipc], factor)
                    a = p["net"].embed(augment.dsa(images, transform), args.embed_last).detach()
                    synthetic = augment.dsa(mine, transform)
                    b = p["net"].embed(synthetic, args.embed_last)
                    z, z_syn, sigma = a.mean(0), b.mean(0), a.std(0).exp()
                    if args.method == "BACON":
                        loss = ((z_syn - z) ** 2 / (2 * sigma**2)).sum() + 0.8 * 0.5 * (z_syn - z).abs().sum()
                    else:
                        loss = ((z_syn - z) ** 2).sum()
                    if args.syn_ce:
                        w = 100 * p["right"] / p["seen"] if p["seen"] else 0
                        target = torch.full((len(synthetic),), c)
                        loss = loss + args.ce_weight * w * F.cross_entropy(p["net"].classify(synthetic), target)
                    if args.method == "DM":
                        total = total + loss
                    else:
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                if args.method == "DM":
                    optimizer.zero_grad()
                    total.backward()
                    optimizer.step()
            for i, k in enumerate(stream("fetch", it, turn).permutation(len(pool))[: args.fetch_net_num]):
                p, rng = pool[k], stream("train", it, turn, i)
                p["net"].train()
                for _ in range(args.model_train_steps):
                    indices = real.any_indices(args.trained_bs, rng)
                    logits, labels = p["net"].classify(real.take(indices)), real.labels_of(indices)
                    p["right"] += (logits.argmax(1) == labels).sum().item()
                    p["seen"] += len(labels)
                    p["opt"].zero_grad()
                    F.cross_entropy(logits, labels).backward()
                    p["opt"].step()
    return x.detach()


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
    ids=["BACON", "BACON, unequal classes", "BACON, two loops and networks", "IDM", "IDM, inner layer", "DM"],
)
def test_iterations_equal_the_plain_reference(distiller, flags):
    # Without cutout: on 8x8 digits it leaves constant feature maps, where rounding decides on which side of the ReLU's
    # kink a normalised value of 0 lies, and the two ways of summing part.
    d = distiller(**{"ipc": 1, "batch_real": 8, "dsa_strategy": "color_crop_flip_scale_rotate", **flags})
    start = d.canvases.clone()
    ours = canvases_after(d, 6)
    plain = plain_reference(d.args, d.real, 6).view_as(ours)
    moved = (plain - start).abs().max()
    assert moved > 0.05
    # float32, with other orders of summation: rounding, far below what any change of the algorithm would move
    torch.testing.assert_close(ours, plain, rtol=0, atol=2e-4 * float(moved))


def test_real_and_synthetic_images_of_a_class_get_the_same_transform(distiller, monkeypatch):
    calls = []
    inner = augment.dsa_per_class

    def spy(images, transforms, sizes):
        calls.append((transforms, sizes))
        return inner(images, transforms, sizes)

    monkeypatch.setattr(augment, "dsa_per_class", spy)
    distiller().iterate(0)
    (real, real_sizes), (synthetic, synthetic_sizes) = calls
    assert real_sizes == [20] * 10 and synthetic_sizes == [8] * 10
    assert [t.op for t in real] == [t.op for t in synthetic] and len({t.op for t in real}) > 1
    assert all(torch.equal(a.u, b.u) and len(a.u) == 1 for a, b in zip(real, synthetic, strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc, and glibc's allocator")
def test_memory_of_a_pass_does_not_grow_with_the_classes():
    program = """if True:
        import functools, re, torch
        import networks
        from bacon import compute, data, distill, flags
        peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1e3
        networks.NETWORKS["ConvNetW32"] = functools.partial(networks.ConvNet, width=4, depth=1)
        args = flags.parse_args(("CIFAR100",), "", "--model ConvNetW32 --ipc 1 --batch_real 256".split()).args
        images = torch.randint(256, (25600, 3, 32, 32), dtype=torch.uint8)
        real = data.RealData(images, torch.arange(100).repeat(256), (0.5,) * 3, (0.25,) * 3, 100, "cpu")
        compute.keep_freed_memory()
        distiller = distill.Distiller(args, 0, real, compute.Arithmetic("cpu"))
        start = peak()
        for classes in (12, 100):
            losses = torch.zeros(len(distiller.loss_names), 100)
            distiller.gradient(distiller.pool.members[0], (0, 0, 0), range(classes), losses)
            print(peak() - start)"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    few, all_of_them = map(float, output.split())
    assert few > 20  # one class's 256 real images, 3 MB, and their embeddings, 4 MB, some times over
    assert all_of_them < 2.5 * few  # for eight times the classes


@pytest.mark.parametrize("chunk", [1, 50])
def test_chunks_bound_memory_and_change_only_rounding(distiller, monkeypatch, chunk):
    whole = canvases_after(distiller(), 2)
    monkeypatch.setattr(compute.Arithmetic, "chunk", lambda self, size: chunk)
    largest = []
    for name in ("embed", "embed_and_classify"):
        inner = getattr(compute.Arithmetic, name)

        def spy(self, net, images, last, inner=inner, name=name):
            # Real images are cut anywhere; synthetic ones, which need a graph, between classes of 8.
            largest.append(len(images) - (8 if name == "embed_and_classify" else 0))
            return inner(self, net, images, last)

        monkeypatch.setattr(compute.Arithmetic, name, spy)
    torch.testing.assert_close(canvases_after(distiller(), 2), whole, rtol=0, atol=1e-5)
    assert max(largest) <= chunk


def test_updates_build_no_graph_on_real_images_and_leave_networks_frozen(distiller, monkeypatch):
    d = distiller()
    grad_modes = []
    inner = compute.Arithmetic.embed

    def spy(self, net, images, last):
        grad_modes.append((torch.is_grad_enabled(), images.requires_grad))
        return inner(self, net, images, last)

    monkeypatch.setattr(compute.Arithmetic, "embed", spy)
    d.iterate(0)
    assert set(grad_modes) == {(False, False)}
    assert not any(p.requires_grad or p.grad is not None for m in d.pool.members for p in m.net.parameters())


def test_dm_uses_a_fresh_untrained_network_at_every_iteration(distiller, monkeypatch):
    used = []
    inner = distill.Distiller.gradient

    def spy(self, member, when, classes, losses):
        used.append(member.net.classifier.weight.clone())
        assert classes == range(10) and member.seen == 0
        return inner(self, member, when, classes, losses)

    monkeypatch.setattr(distill.Distiller, "gradient", spy)
    canvases_after(distiller(method="DM"), 3)
    assert len(used) == 3 and not torch.equal(used[0], used[1]) and not torch.equal(used[1], used[2])


def test_dm_with_batch_norm_sees_all_classes_in_one_batch(distiller, monkeypatch):
    d = distiller(method="DM", model="ConvNetBN", ipc=1)
    monkeypatch.setattr(compute.Arithmetic, "chunk", lambda self, size: 4)
    sizes = []
    for name in ("embed", "embed_and_classify"):
        inner = getattr(compute.Arithmetic, name)

        def spy(self, net, images, last, inner=inner):
            sizes.append((len(images), net.training))
            return inner(self, net, images, last)

        monkeypatch.setattr(compute.Arithmetic, name, spy)
    d.iterate(0)
    assert sizes == [(200, True), (10, True)]


def test_a_class_short_of_batch_real_gives_all_its_images(distiller, digits):
    d = distiller(batch_real=10000)
    counts = torch.bincount(digits.labels_train).tolist()
    rng = np.random.default_rng(0)
    assert [len(d.real.indices(c, 10000, rng)) for c in range(10)] == counts
    d.iterate(0)
    assert all(np.isfinite(v) for v in d.read_losses().values())


def test_term_weights_of_zero_switch_terms_off(distiller):
    no_terms = {"lh_weight": 0, "tv_weight": 0, "clip_prior": "residual"}
    d = distiller(**no_terms, clip_weight=0.5, syn_ce=False)
    start = d.canvases.clone()
    assert not torch.equal(canvases_after(d, 1), start)
    d = distiller(**no_terms, clip_weight=0, ce_weight=0)
    assert torch.equal(canvases_after(d, 1), start)


# Reproducibility


def test_same_seed_gives_bitwise_the_same_canvases_and_another_seed_or_experiment_does_not(distiller):
    first = canvases_after(distiller(), 3)
    torch.rand(7), np.random.default_rng().random(7)
    assert torch.equal(first, canvases_after(distiller(), 3))
    assert not torch.equal(first, canvases_after(distiller(seed=1), 3))
    assert not torch.equal(first, canvases_after(distiller(exp=1), 3))


def test_nothing_reads_or_reseeds_a_global_generator(distiller):
    def states():
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002

    before = states()
    d = distiller()
    canvases_after(d, 2)
    synthetic, protocol = canvases.decode(d.all_canvases(), d.labels, 2), judge.Protocol(1, 10, 0.01, d.strategy)
    judge.judge("ConvNetW32", *synthetic, d.real, 10, protocol, np.random.default_rng(0), d.arithmetic)
    assert states() == before


# Losses


def test_logged_losses_are_means_over_classes_of_unweighted_terms(distiller):
    d = distiller()
    d.iterate(0)  # every meter is 0 here, so the cross-entropy has no weight
    losses = d.read_losses()
    assert list(losses) == ["loss", "lh", "tv", "clip", "ce", "accuracy"]
    assert losses["loss"] == pytest.approx(losses["lh"] + 0.8 * losses["tv"], rel=1e-5)
    assert losses["clip"] == 0 and 0 <= losses["accuracy"] <= 100
    assert d.read_losses() == {}


def test_a_loss_that_is_not_finite_is_reported_with_iteration_class_and_term(distiller):
    d = distiller()
    values = torch.zeros(6, 10)
    values[0, 3] = values[2, 3] = float("nan")
    d.losses = [(6, torch.zeros(6, 10)), (7, values)]
    with pytest.raises(DivergedError, match="iteration 7, class 3: tv is nan"):
        d.read_losses()


# GPU


@pytest.mark.gpu
def test_the_loop_never_waits_for_the_gpu(digits, make_args):
    args = make_args(device="cuda", net_generate_interval=2)
    d = distill.Distiller(args, 0, digits.real("train", "cuda"), compute.Arithmetic("cuda"))
    d.iterate(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for it in range(1, 4):
            d.iterate(it)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(v) for v in d.read_losses().values())


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
    ours = distill.ClosedFormSGD(planes, 0.05, turns)
    for p in range(passes):
        for c in range(classes):
            gradient = torch.zeros_like(pixels)
            gradient[c] = torch.autograd.grad(loss(pixels, p), pixels)[0][c]
            pixels.grad = projected(gradient)
            sgd.step()
        for served in ours.turns():
            leaf = planes.clone().requires_grad_()
            ours.step(served, torch.autograd.grad(loss(spaces.from_planes(leaf), p), leaf)[0])
    torch.testing.assert_close(spaces.from_planes(planes), pixels.detach(), rtol=0, atol=1e-12)
    assert (pixels.detach() - start).abs().max() > 0.1


def test_initial_images_by_cluster_are_real_ones_of_the_class_and_the_same_for_the_same_seed(distiller, digits):
    small = {"init": "cluster", "ipc": 2, "trained_bs": 32}
    first, again, other = distiller(**small), distiller(**small), distiller(**small, seed=1)
    assert torch.equal(first.canvases, again.canvases) and not torch.equal(first.canvases, other.canvases)
    halved = F.avg_pool2d(digits.real("train").take(slice(None)), 2)
    for c in range(10):
        of_class = halved[digits.labels_train == c]
        quadrants = first.canvases[c].unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        distance = (quadrants[:, None] - of_class).abs().amax((2, 3, 4))
        assert (distance.min(1).values < 1e-6).all() and len(set(distance.argmin(1).tolist())) == 8
