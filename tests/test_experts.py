"""Facts about experts: when they are kept, how they are trained, what canvases are matched on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import augment
import utils
from bacon import compute
from bacon.canvases import decode_by_class
from bacon.distill import distiller, experts, pool
from bacon.parallel import World


@pytest.fixture
def trainer(digits, make_args):
    """Make the Trainer of a small Digits run; keyword arguments are flags."""

    def make(**given):
        args = make_args(experts=2, expert_steps=20, **given)
        return pool.Trainer(args, 0, digits.real("train"), compute.Arithmetic("cpu"), World())

    return make


def trained(trainer, number=0, state=None):
    *_, last = experts.train(trainer, number, state)
    return last


def equal(one, other):
    """Whether two states hold the same numbers."""
    assert [moment["steps"] for moment in one["kept"]] == [m["steps"] for m in other["kept"]]
    return all(
        first["accuracy"] == second["accuracy"]
        and all(torch.equal(first["net"][name], second["net"][name]) for name in first["net"])
        for first, second in zip(one["kept"], other["kept"], strict=True)
    )


def test_an_expert_is_kept_at_ten_moments_closer_together_at_first():
    assert experts.moments(8100) == [100 * k**2 for k in range(10)]
    assert experts.moments(3000) == [0, 37, 148, 333, 593, 926, 1333, 1815, 2370, 3000]


def test_an_expert_is_trained_with_dsa_and_its_meter_begins_anew_at_each_moment(
    trainer, digits, monkeypatch
):
    of_run = trainer(dsa_strategy="color_flip")
    inner, calls = pool.Trainer.train, []

    def train(self, member, steps, rng, strategy=()):
        calls.append((steps, member.seen, strategy))
        inner(self, member, steps, rng, strategy)

    monkeypatch.setattr(pool.Trainer, "train", train)
    state = trained(of_run)
    steps = np.diff(experts.moments(20), prepend=0).tolist()
    assert calls == [(n, 0, augment.parse_strategy("color_flip")) for n in steps]
    # By hand, from the same numbers.
    member = of_run.fresh("expert 0")
    accuracies = []
    done = 0
    for now in experts.moments(20):
        member.reset_meter()
        rng = utils.stream(of_run.args.seed, 0, "expert", 0, now)
        inner(of_run, member, now - done, rng, augment.parse_strategy("color_flip"))
        accuracies.append(float(member.percent()))
        done = now
    assert [moment["accuracy"] for moment in state["kept"]] == accuracies
    assert accuracies[0] == 0 < accuracies[-1] <= 100
    for name, tensor in member.net.state_dict().items():
        assert torch.equal(state["kept"][-1]["net"][name], tensor)


@pytest.mark.parametrize("net_decay", [True, False])
def test_an_expert_that_was_stopped_at_a_moment_goes_on_to_the_same_bits(net_decay, trainer):
    whole = trained(trainer(net_decay=net_decay))
    for moments in (1, 4):
        steps = experts.train(trainer(net_decay=net_decay), 0)
        *_, stopped = (next(steps) for _ in range(moments))
        assert len(stopped["kept"]) == moments
        assert equal(trained(trainer(net_decay=net_decay), 0, stopped), whole)


def test_experts_follow_from_the_seed_and_their_number(trainer):
    first = trained(trainer())
    assert equal(first, trained(trainer()))
    assert not equal(first, trained(trainer(), 1))
    assert not equal(first, trained(trainer(seed=1)))


def test_a_snapshot_has_the_network_of_its_moment_and_tells_which_half_that_is_in(trainer):
    state = trained(trainer())
    found = experts.snapshots(trainer(), 0, state)
    assert [one.percent() for one in found] == [moment["accuracy"] for moment in state["kept"]]
    for one, moment in zip(found, state["kept"], strict=True):
        for name, tensor in one.net.state_dict().items():
            assert torch.equal(tensor, moment["net"][name])
        assert not any(p.requires_grad for p in one.net.parameters())
    assert [one.is_late for one in found] == [False] * 5 + [True] * 5


def test_snapshots_are_picked_at_random_and_none_twice():
    rng = np.random.default_rng(0)
    assert {n for _ in range(200) for n in experts.pick(list(range(20)), 2, rng)} == set(range(20))
    assert sorted(experts.pick(list(range(5)), 9, rng)) == list(range(5))


@pytest.fixture
def matched(trainer, digits, make_args):
    """Make a Distiller that matches on two experts; keyword arguments are flags."""
    of_run = trainer()
    snapshots = [
        one
        for number in range(2)
        for one in experts.snapshots(of_run, number, trained(of_run, number))
    ]

    def make(**given):
        args = make_args(experts=2, expert_steps=20, **given)
        cpu = compute.Arithmetic("cpu")
        return distiller.begin(args, 0, digits.real("train"), cpu, snapshots=snapshots)

    return make


def test_canvases_are_matched_on_experts_alone_and_nothing_is_trained(matched, monkeypatch):
    d = matched(train_net_num=3)
    used = []
    monkeypatch.setattr(
        distiller.Distiller, "update_canvases", lambda self, network, p: used.append(network)
    )
    monkeypatch.setattr(pool.Trainer, "train", lambda *args: pytest.fail("trained"))
    for it in range(30):
        d.iterate(it)
    assert len(used) == 90 and all(any(one is s for s in d.snapshots) for one in used)
    assert len({id(one) for one in used}) == 20 and d.pool.members == []
    for it in range(30):
        assert len({id(one) for one in used[3 * it : 3 * it + 3]}) == 3


@pytest.mark.parametrize("method", ["BACON", "IDM", "DM"])
def test_experts_may_be_taken_by_every_method(method, matched):
    d = matched(method=method)
    before = d.canvases.clone()
    d.iterate(0)
    assert not torch.equal(d.canvases, before)


def test_the_cross_entropy_is_in_any_expert_late_in_its_training(matched):
    d = matched(expert_ce=1.0)
    late = [one.net for one in d.snapshots if one.is_late]
    passes = [distiller.Pass(it, loop, 0) for it in range(40) for loop in range(3)]
    found = [d.late_expert(one) for one in passes]
    assert {id(net) for net in found} == {id(net) for net in late} and len(late) == 10
    again = matched(expert_ce=1.0)
    assert [again.late_expert(one) for one in passes] == found
    assert [matched(expert_ce=1.0, seed=1).late_expert(one) for one in passes] != found


def test_the_cross_entropy_in_the_late_expert_is_added_by_its_weight(matched):
    plain = matched(syn_ce=False)
    weighted = matched(syn_ce=False, expert_ce=3.0)
    this_pass = distiller.Pass(0, 0, 0)
    snapshot = plain.snapshots[2]
    classes = range(4, 5)
    without = plain.gradient(snapshot, this_pass, classes)
    with_it = weighted.gradient(snapshot, this_pass, classes)
    # By hand, in the images that the class's canvases decode to, under its one transform.
    x = plain.canvases[4:5].clone().requires_grad_()
    images = decode_by_class(x, plain.factor, "full")
    transform = plain.draw(this_pass, 4).transform
    images = augment.dsa(images, transform)
    logits = weighted.late_expert(this_pass).classify(images)
    cross_entropy = F.cross_entropy(logits, torch.full((len(images),), 4))
    (expected,) = torch.autograd.grad(3.0 * cross_entropy, x)
    value = cross_entropy.item()
    torch.testing.assert_close(with_it.canvases - without.canvases, expected, rtol=1e-3, atol=1e-5)
    names = weighted.loss_names
    assert names == [*plain.loss_names[:-2], "expert_ce", "ce", "accuracy"]
    logged = dict(zip(names, with_it.logged[:, 0].tolist(), strict=True))
    assert logged["expert_ce"] == pytest.approx(value, rel=1e-4)
    total = without.logged[0, 0].item()
    assert logged["loss"] == pytest.approx(total + 3 * value, rel=1e-4)
