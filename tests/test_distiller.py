"""Facts about Algorithm 1: one iteration against plain lines, and what must not influence it."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import augment
from bacon import canvases, compute, judge
from bacon.distill import clusters, distiller, experts
from bacon.errors import DivergedError


def canvases_after(d, iterations):
    for it in range(iterations):
        d.iterate(it)
    return d.canvases.clone()


def test_real_and_synthetic_images_of_a_class_get_the_same_transform(make_distiller, monkeypatch):
    calls = []
    inner = augment.dsa_per_class

    def spy(images, transforms, sizes):
        calls.append((transforms, sizes))
        return inner(images, transforms, sizes)

    monkeypatch.setattr(augment, "dsa_per_class", spy)
    make_distiller().iterate(0)
    (real, real_sizes), (synthetic, synthetic_sizes) = calls
    assert real_sizes == [20] * 10 and synthetic_sizes == [8] * 10
    assert [t.op for t in real] == [t.op for t in synthetic] and len({t.op for t in real}) > 1
    assert all(
        torch.equal(a.u, b.u) and len(a.u) == 1 for a, b in zip(real, synthetic, strict=True)
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc, and glibc's allocator")
def test_memory_of_a_pass_does_not_grow_with_the_classes():
    program = """if True:
        import functools, re, torch
        import networks
        from bacon import compute, flags
        from bacon.data import real_data
        from bacon.distill import distiller
        def peak():
            status = open("/proc/self/status").read()
            return int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) / 1e3
        networks.NETWORKS["ConvNetW32"] = functools.partial(networks.ConvNet, width=4, depth=1)
        line = "--model ConvNetW32 --ipc 1 --batch_real 256"
        args = flags.parse_args(("CIFAR100",), "", line.split()).args
        images = torch.randint(256, (25600, 3, 32, 32), dtype=torch.uint8)
        labels = torch.arange(100).repeat(256)
        real = real_data.RealData(images, labels, (0.5,) * 3, (0.25,) * 3, 100, "cpu")
        compute.keep_freed_memory()
        d = distiller.begin(args, 0, real, compute.Arithmetic("cpu"))
        start = peak()
        for classes in (12, 100):
            d.gradient(d.pool.members[0], distiller.Pass(0, 0, 0), range(classes))
            print(peak() - start)"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    few, all_of_them = map(float, output.split())
    assert (
        few > 20
    )  # one class's 256 real images, 3 MB, and their embeddings, 4 MB, some times over
    assert all_of_them < 2.5 * few  # for eight times the classes


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ([2, 2, 2], 4, [slice(0, 2), slice(2, 3)]),
        ([2, 2, 2], 6, [slice(0, 3)]),
        ([3, 1, 1], 2, [slice(0, 1), slice(1, 3)]),  # a class is not divided
        ([1, 5], 3, [slice(0, 1), slice(1, 2)]),
    ],
)
def test_a_chunk_has_as_many_classes_as_the_limit_holds(sizes, limit, expected):
    assert list(distiller.chunks(sizes, limit)) == expected


@pytest.mark.parametrize("chunk", [1, 50])
def test_chunks_bound_memory_and_change_only_rounding(make_distiller, monkeypatch, chunk):
    whole = canvases_after(make_distiller(), 2)
    monkeypatch.setattr(compute.Arithmetic, "chunk", lambda self, size: chunk)
    largest = []
    for name in ("embed", "embed_and_classify"):
        inner = getattr(compute.Arithmetic, name)

        def spy(self, net, images, last, inner=inner, name=name):
            # Real images are cut anywhere; synthetic ones, which need a graph, between classes of
            # 8.
            largest.append(len(images) - (8 if name == "embed_and_classify" else 0))
            return inner(self, net, images, last)

        monkeypatch.setattr(compute.Arithmetic, name, spy)
    torch.testing.assert_close(canvases_after(make_distiller(), 2), whole, rtol=0, atol=1e-5)
    assert max(largest) <= chunk


def test_updates_build_no_graph_on_real_images_and_leave_networks_frozen(
    make_distiller, monkeypatch
):
    d = make_distiller()
    grad_modes = []
    inner = compute.Arithmetic.embed

    def spy(self, net, images, last):
        grad_modes.append((torch.is_grad_enabled(), images.requires_grad))
        return inner(self, net, images, last)

    monkeypatch.setattr(compute.Arithmetic, "embed", spy)
    d.iterate(0)
    assert set(grad_modes) == {(False, False)}
    assert not any(
        p.requires_grad or p.grad is not None for m in d.pool.members for p in m.net.parameters()
    )


def test_dm_uses_a_fresh_untrained_network_at_every_iteration(make_distiller, monkeypatch):
    used = []
    inner = distiller.Distiller.gradient

    def spy(self, member, this_pass, classes):
        used.append(member.net.classifier.weight.clone())
        assert classes == range(10) and member.seen == 0
        return inner(self, member, this_pass, classes)

    monkeypatch.setattr(distiller.Distiller, "gradient", spy)
    canvases_after(make_distiller(method="DM"), 3)
    assert (
        len(used) == 3 and not torch.equal(used[0], used[1]) and not torch.equal(used[1], used[2])
    )


def test_dm_with_batch_norm_sees_all_classes_in_one_batch(make_distiller, monkeypatch):
    d = make_distiller(method="DM", model="ConvNetBN", ipc=1)
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


def test_a_class_short_of_batch_real_gives_all_its_images(make_distiller, digits):
    d = make_distiller(batch_real=10000)
    counts = torch.bincount(digits.labels_train).tolist()
    rng = np.random.default_rng(0)
    assert [len(d.real.indices(c, 10000, rng)) for c in range(10)] == counts
    d.iterate(0)
    assert all(np.isfinite(v) for v in d.read_losses().values())


def test_term_weights_of_zero_switch_terms_off(make_distiller):
    no_terms = {"lh_weight": 0, "tv_weight": 0, "clip_prior": "residual"}
    d = make_distiller(**no_terms, clip_weight=0.5, syn_ce=False)
    start = d.canvases.clone()
    assert not torch.equal(canvases_after(d, 1), start)
    d = make_distiller(**no_terms, clip_weight=0, ce_weight=0)
    assert torch.equal(canvases_after(d, 1), start)


# Reproducibility


def test_same_seed_gives_bitwise_the_same_canvases_and_another_seed_or_experiment_does_not(
    make_distiller,
):
    first = canvases_after(make_distiller(), 3)
    torch.rand(7), np.random.default_rng().random(7)
    assert torch.equal(first, canvases_after(make_distiller(), 3))
    assert not torch.equal(first, canvases_after(make_distiller(seed=1), 3))
    assert not torch.equal(first, canvases_after(make_distiller(exp=1), 3))


def test_nothing_reads_or_reseeds_a_global_generator(make_distiller):
    def states():
        return [
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        ]

    before = states()
    d = make_distiller()
    canvases_after(d, 2)
    synthetic, protocol = (
        canvases.decode(d.all_canvases(), d.labels, 2),
        judge.Protocol(1, 10, 0.01, d.strategy),
    )
    judge.judge(
        "ConvNetW32", *synthetic, d.real, 10, protocol, np.random.default_rng(0), d.arithmetic
    )
    assert states() == before


# Losses


def test_logged_losses_are_means_over_classes_of_unweighted_terms(make_distiller):
    d = make_distiller()
    d.iterate(0)  # every meter is 0 here, so the cross-entropy has no weight
    losses = d.read_losses()
    assert list(losses) == ["loss", "lh", "tv", "clip", "ce", "accuracy"]
    assert losses["loss"] == pytest.approx(losses["lh"] + 0.8 * losses["tv"], rel=1e-5)
    assert losses["clip"] == 0 and 0 <= losses["accuracy"] <= 100
    assert d.read_losses() == {}


def test_the_logged_accuracy_is_percent_of_the_images_of_a_class(make_distiller):
    d = make_distiller()
    d.terms = {}
    logits = torch.eye(10)[[3, 3, 3, 5]].expand(1, -1, -1)  # of one class, three of four are right
    loss = d.loss(torch.zeros(1, 4, 6), {}, logits, torch.tensor([3]), torch.tensor(0.0))
    logged = dict(zip(d.loss_names, loss.logged[:, 0].tolist(), strict=True))
    assert logged["accuracy"] == 75


@pytest.mark.parametrize(("method", "own"), [("BACON", ["lh", "tv", "clip"]), ("IDM", ["match"])])
def test_any_method_adds_the_spread_by_its_weight_and_without_one_knows_nothing_of_it(
    make_distiller, method, own
):
    without = make_distiller(method=method)
    assert without.loss_names == ["loss", *own, "ce", "accuracy"]
    d = make_distiller(method=method, spread_weight=1.5)
    assert d.loss_names == ["loss", *own, "spread", "ce", "accuracy"]
    for one in (without, d):
        one.iterate(0)
    before, losses = without.read_losses(), d.read_losses()
    assert losses["loss"] == pytest.approx(before["loss"] + 1.5 * losses["spread"], rel=1e-5)
    assert losses["spread"] > 0 and not torch.equal(without.canvases, d.canvases)


def test_the_rate_of_canvases_is_a_tenth_in_the_cooldown(make_args):
    rates = {}
    for share in (0.0, 0.2, 0.25, 1.0):
        args = make_args(Iteration=10, lr_img=0.5, cooldown=share)
        rates[share] = [distiller.rate_of_canvases(args, it) for it in range(10)]
    # 1.8 iterations of 9 are two.
    args = make_args(Iteration=9, lr_img=0.5, cooldown=0.2)
    assert [distiller.rate_of_canvases(args, it) for it in range(9)] == [0.5] * 7 + [0.05] * 2
    assert rates == {
        0.0: [0.5] * 10,
        0.2: [0.5] * 8 + [0.05] * 2,
        0.25: [0.5] * 8 + [0.05] * 2,
        1.0: [0.05] * 10,
    }


def test_the_cooldown_slows_the_canvases(make_distiller):
    # From its first iteration on: momentum is that of the gradients, not of the steps.
    start = make_distiller().canvases.clone()
    fast = canvases_after(make_distiller(Iteration=1), 1) - start
    slow = canvases_after(make_distiller(Iteration=1, cooldown=1), 1) - start
    torch.testing.assert_close(slow, fast / 10, rtol=1e-3, atol=1e-6)


def test_every_iteration_of_a_run_has_its_own_rate(make_distiller):
    d = make_distiller(Iteration=5, cooldown=0.4, lr_img=0.5)
    rates = []
    for it in range(5):
        d.iterate(it)
        rates.append(d.optimizer.lr)
    assert rates == [0.5] * 3 + [0.05] * 2


@pytest.mark.parametrize("init", ["real", "noise"])
def test_experiments_start_from_other_canvases_and_networks(init, make_distiller):
    first, second = (make_distiller(exp=exp, init=init) for exp in (0, 1))
    assert not torch.equal(first.canvases, second.canvases)
    weights = [d.pool.members[0].net.classifier.weight for d in (first, second)]
    assert not torch.equal(*weights)


def test_experiments_have_other_streams_of_clusters(make_distiller, monkeypatch):
    draws = []

    def note(trainer, count, rng, streams):
        draws.append([one.random() for one in (rng, *streams.values())])
        return {c: np.arange(count) for c in streams}

    monkeypatch.setattr(clusters, "by_trained_network", note)
    for exp in (0, 1):
        make_distiller(exp=exp, init="cluster")
    # Of the network and of each of ten classes, in two experiments.
    assert len({draw for of_experiment in draws for draw in of_experiment}) == 2 * 11


def test_a_loss_that_is_not_finite_is_reported_with_iteration_class_and_term(make_distiller):
    d = make_distiller()
    values = torch.zeros(6, 10)
    values[0, 3] = values[2, 3] = float("nan")
    d.unread = [distiller.PassLosses(6, torch.zeros(6, 10)), distiller.PassLosses(7, values)]
    with pytest.raises(DivergedError, match="iteration 7, class 3: tv is nan"):
        d.read_losses()


# GPU


@pytest.mark.gpu
@pytest.mark.parametrize(
    "given",
    [
        {"net_generate_interval": 2},
        {"experts": 1, "expert_steps": 9, "expert_ce": 17.0, "spread_weight": 1.5},
    ],
    ids=["pool", "experts"],
)
def test_the_loop_never_waits_for_the_gpu(given, digits, make_args):
    args = make_args(device="cuda", Iteration=4, **given)
    real = digits.real("train", "cuda")
    d = distiller.begin(args, 0, real, compute.Arithmetic("cuda"))
    if args.experts:
        *_, trained = experts.train(d.trainer, 0)
        d.snapshots = experts.snapshots(d.trainer, 0, trained)
    d.iterate(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for it in range(1, 4):
            d.iterate(it)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(v) for v in d.read_losses().values())


def test_initial_images_by_cluster_are_real_ones_of_the_class_and_the_same_for_the_same_seed(
    make_distiller, digits
):
    small = {"init": "cluster", "ipc": 2, "trained_bs": 32}
    first, again, other = (
        make_distiller(**small),
        make_distiller(**small),
        make_distiller(**small, seed=1),
    )
    assert torch.equal(first.canvases, again.canvases) and not torch.equal(
        first.canvases, other.canvases
    )
    halved = F.avg_pool2d(digits.real("train").take(slice(None)), 2)
    for c in range(10):
        of_class = halved[digits.labels_train == c]
        quadrants = (
            first.canvases[c]
            .unfold(2, 4, 4)
            .unfold(3, 4, 4)
            .permute(0, 2, 3, 1, 4, 5)
            .flatten(0, 2)
        )
        distance = (quadrants[:, None] - of_class).abs().amax((2, 3, 4))
        assert (distance.min(1).values < 1e-6).all() and len(set(distance.argmin(1).tolist())) == 8
