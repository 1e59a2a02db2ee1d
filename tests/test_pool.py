"""Facts about the pool: who enters and leaves, who is picked, what the accuracy meter counts."""

import numpy as np
import torch

import augment
from bacon import compute
from bacon.distill import distiller, pool


def test_the_pool_starts_with_three_and_the_oldest_leaves():
    queue = pool.NetPool(lambda number: number, capacity=5)
    assert queue.members == [0, 1, 2]
    queue.push(2)
    queue.push(2)
    assert queue.members == [2, 3, 4, 5, 6]
    queue.push(10**9)  # only those that stay are made
    assert queue.members == [10**9 + n for n in (2, 3, 4, 5, 6)]


def test_the_pool_picks_distinct_members_from_the_slice_only_if_it_holds_more_than_ten():
    queue = pool.NetPool(lambda number: number, capacity=100, start=30)
    rng = np.random.default_rng(0)
    picks = {n for _ in range(200) for n in queue.pick(2, rng, 5, 16)}
    assert picks == set(range(5, 16))
    assert {n for _ in range(300) for n in queue.pick(2, rng, 5, 15)} == set(range(30))
    assert sorted(queue.pick(99, rng)) == list(range(30))


def test_the_meter_is_training_accuracy_in_percent_since_the_reset_and_0_before_training(
    make_distiller,
):
    d = make_distiller()
    member = d.pool.members[0]
    assert member.percent() == 0
    d.trainer.train(member, 2, np.random.default_rng(0))
    assert member.seen == 32
    assert member.percent() == 100 * member.correct / 32
    d.pool.reset_meters()
    assert member.percent() == 0 and member.seen == 0


def test_training_with_dsa_draws_an_operation_for_each_batch(make_distiller, monkeypatch):
    d = make_distiller()
    strategy = ("color", "crop")
    trained_on = []

    def note(self, net, optimizer, images, labels, **others):
        trained_on.append(images)
        return torch.tensor(0)

    monkeypatch.setattr(compute.Arithmetic, "training_step", note)
    d.trainer.train(d.pool.members[0], 4, np.random.default_rng(0), strategy)
    rng = np.random.default_rng(0)
    for images in trained_on:
        real, _ = d.real.batch(d.real.owned(d.real.any_indices(16, rng)))
        assert torch.equal(images, augment.dsa(real, augment.draw(strategy, 1, rng)))
        assert not torch.equal(images, real)
    assert len(trained_on) == 4


def test_the_flags_of_the_pool_say_which_networks_are_picked_and_how_many_enter(make_distiller):
    flags = {"net_num": 30, "net_push_num": 20, "net_begin": 5, "net_end": 16}
    d = make_distiller(**flags, train_net_num=11)
    picked = d.pick_of_pool(0)
    assert {id(member) for member in picked} == {id(member) for member in d.pool.members[5:16]}
    assert len(d.pool.members) == 3 + 20


def test_meters_are_reset_before_the_update_of_a_reset_iteration(make_distiller, monkeypatch):
    d = make_distiller(meter_reset=2, train_net_num=3, fetch_net_num=9)
    weights = {}
    inner = distiller.Distiller.gradient

    def spy(self, member, this_pass, *rest):
        weights.setdefault(this_pass.iteration, []).append(float(member.percent()))
        return inner(self, member, this_pass, *rest)

    monkeypatch.setattr(distiller.Distiller, "gradient", spy)
    for it in range(4):
        d.iterate(it)
    assert weights[0] == [0.0] * 3 and weights[2] == [0.0] * 3
    assert any(w > 0 for w in weights[1]) and any(w > 0 for w in weights[3])
