"""The networks that canvases are matched on: how they are made and trained, and their queue."""

import dataclasses

import torch

import augment
import networks
import utils


@dataclasses.dataclass
class Member:
    """A network of the pool with its optimizer and its training-accuracy meter."""

    net: networks.Network
    optimizer: torch.optim.Optimizer
    correct: torch.Tensor  # images classified correctly since the last reset, on the device
    seen: int = 0  # images trained on since the last reset

    def reset_meter(self):
        self.correct = torch.zeros_like(self.correct)
        self.seen = 0

    def percent(self):
        """Training accuracy in percent since the last reset, on the device.

        0 for a network that was not trained since.
        """
        return 100 * self.correct / max(self.seen, 1)

    def state_dict(self):
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "correct": self.correct,
            "seen": self.seen,
        }

    def load_state_dict(self, state):
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.correct = state["correct"].to(self.correct.device)
        self.seen = state["seen"]


class Trainer:
    """Makes the networks of an experiment and trains them on real images, as the flags say."""

    def __init__(self, args, exp, real, arithmetic, world, before_batch=None):
        """args: the flags. exp: number of the experiment. real: training images, a RealData.
        arithmetic: a compute.Arithmetic. world: a parallel.World, whose processes share every
        batch. before_batch: function() that is called before every batch; it may raise, after
        which the network in training is of no use."""
        self.args = args
        self.exp = exp
        self.real = real
        self.arithmetic = arithmetic
        self.world = world
        self.before_batch = before_batch

    def fresh(self, name):
        """A new network, frozen, as a Member.

        name: of its random stream, for those of the pool a number.
        """
        args = self.args
        shape = tuple(self.real.images.shape[1:])
        rng = utils.stream(args.seed, self.exp, "network", name)
        net = self.arithmetic.build(args.model, shape, len(self.real.counts), rng)
        net.requires_grad_(False)
        optimizer = self.arithmetic.optimizer(net, args.lr_net, args.net_decay)
        correct = torch.zeros((), dtype=torch.int64, device=self.real.images.device)
        return Member(net, optimizer, correct)

    def train(self, member, steps, rng, strategy=()):
        """Train a network on `steps` batches of real images of all classes.

        strategy: operations of DSA by which they are augmented. rng: for the batches and DSA.
        """
        size = self.args.trained_bs
        several = self.world.size > 1
        member.net.train().requires_grad_(True)
        for _ in range(steps):
            if self.before_batch is not None:
                self.before_batch()
            indices = self.real.any_indices(size, rng)
            images, labels = self.real.batch(self.real.owned(indices))
            if strategy:
                images = augment.dsa(images, augment.draw(strategy, 1, rng))
            correct = self.arithmetic.training_step(
                member.net,
                member.optimizer,
                images,
                labels,
                total=len(indices) if several else None,
                world=self.world if several else None,
            )
            member.correct = member.correct + correct
            member.seen += len(indices)
        member.optimizer.zero_grad(set_to_none=True)  # or a pool of 100 would keep 100 gradients
        member.net.requires_grad_(False)


class NetPool:
    """Networks of different ages, the oldest first: the queue of IDM (Zhao et al., CVPR 2023)."""

    def __init__(self, fresh, capacity, start=3):
        """fresh: function(birth number) -> Member. The pool starts with `start` of them.

        capacity: how many it can hold.
        """
        self.fresh = fresh
        self.capacity = capacity
        self.born = 0
        self.members = []
        self.push(min(start, capacity))

    def push(self, count):
        """`count` fresh networks enter; beyond the capacity the oldest leave."""
        first = max(0, count - self.capacity)  # those before would leave at once
        fresh = [self.fresh(self.born + i) for i in range(first, count)]
        self.members = (self.members + fresh)[-self.capacity :]
        self.born += count

    def pick(self, count, rng, begin=0, end=None):
        """`count` distinct members at random, fewer if there are not so many.

        They are from [begin:end] if that slice holds more than 10, else from all.
        """
        candidates = self.members[begin:end]
        if len(candidates) <= 10:
            candidates = self.members
        order = rng.permutation(len(candidates))
        return [candidates[i] for i in order[:count]]

    def reset_meters(self):
        for member in self.members:
            member.reset_meter()

    def state_dict(self):
        return {"born": self.born, "members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state):
        states = state["members"]
        self.born = state["born"]
        first = self.born - len(states)
        self.members = [self.fresh(first + i) for i in range(len(states))]
        for member, saved in zip(self.members, states, strict=True):
            member.load_state_dict(saved)
