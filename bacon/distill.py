"""Algorithm 1: distil a training set into a few synthetic canvases per class, by BACON, IDM or DM.

    for every iteration:
        push fresh networks into the pool
        canvases step down the gradient of the objective, on networks drawn from the pool
        networks drawn from the pool train on real images

`Distiller.iterate` is that loop's body. `plain_reference` in tests/test_distill.py is the same algorithm in 85 plain
lines, which the tests hold this module to. Sources: BACON (Zhou et al. 2024, arXiv:2406.01112), IDM (Zhao et al., CVPR
2023), DM (Zhao & Bilen, WACV 2023).
"""

import dataclasses
import functools
import time

import numpy as np
import torch
import torch.nn.functional as F

import augment
import networks
import utils
from bacon import clusters
from bacon.canvases import decode_by_class, initial
from bacon.errors import DivergedError, ParallelError
from bacon.parallel import World
from bacon.recipes import canvases_per_class, factor, images_per_class


class ClosedFormSGD:
    """SGD with momentum over one pass, as if it stepped over all canvases once for every turn, in closed form.

    The published code takes one optimizer step per class over the whole tensor, so a class keeps drifting along its
    momentum while other classes have their turn: k such steps are x - lr v (mu + ... + mu^k) and v mu^k. A class's
    gradient depends on its own canvases only, so all gradients of a pass can be computed at once:

        for classes in optimizer.turns():
            optimizer.step(classes, gradient of the loss of `classes` at their current canvases)
    """

    def __init__(self, canvases, lr, served, own=None, momentum=0.5):
        """canvases: (classes, ...), updated in place. served: the ranges of classes that are served one by one. own:
        the range of classes that `canvases` holds, by default all."""
        self.canvases, self.lr, self.momentum = canvases, lr, momentum
        self.own = own or range(len(canvases))
        self.velocity = torch.zeros_like(canvases)
        turn = torch.tensor([t for t, classes in enumerate(served) for c in classes if c in self.own]).double()
        self.before, self.after = self._drift_factors(turn), self._drift_factors(len(served) - 1 - turn)

    def _drift_factors(self, steps):
        shape = (-1, *[1] * (self.canvases.dim() - 1))
        decay = self.momentum**steps
        distance = self.lr * self.momentum * (1 - decay) / (1 - self.momentum)
        return [factor.to(self.canvases.dtype).to(self.canvases.device).view(shape) for factor in (distance, decay)]

    def _drift(self, distance, decay):
        self.canvases.addcmul_(self.velocity, distance, value=-1)
        self.velocity.mul_(decay)

    def turns(self):
        """One pass: yields the ranges of own classes that `step` has to be called with."""
        self._drift(*self.before)
        yield self.own
        self._drift(*self.after)

    def step(self, classes, gradient):
        """gradient: of the loss of `classes`, (classes, ...)."""
        self.velocity.mul_(self.momentum).add_(gradient)
        self.canvases.add_(self.velocity, alpha=-self.lr)

    def state_dict(self, gather=lambda rows: rows):
        """gather: own rows, one per class, -> the rows of all classes."""
        return {"velocity": gather(self.velocity)}

    def load_state_dict(self, state):
        """From a `state_dict` of all classes, of which the own ones are taken."""
        self.velocity.copy_(state["velocity"][self.own.start : self.own.stop])


class PerClassAdam:
    """Adam with PyTorch's defaults, one step over all canvases for every turn: no closed form, so slow. Its methods are
    those of ClosedFormSGD."""

    def __init__(self, canvases, lr, served, own=None):
        self.canvases, self.served, self.own = canvases, served, own or range(len(canvases))
        self.adam = torch.optim.Adam([canvases], lr=lr)

    def turns(self):
        for classes in self.served:
            self.canvases.grad = torch.zeros_like(self.canvases)
            if mine := range(max(classes.start, self.own.start), min(classes.stop, self.own.stop)):
                yield mine
            self.adam.step()

    def step(self, classes, gradient):
        self.canvases.grad[classes.start - self.own.start : classes.stop - self.own.start] = gradient

    def state_dict(self, gather=lambda rows: rows):
        return self._of_rows(self.adam.state_dict(), gather)

    def load_state_dict(self, state):
        self.adam.load_state_dict(self._of_rows(state, lambda rows: rows[self.own.start : self.own.stop]))

    def _of_rows(self, state, function):
        moments = state["state"].get(0, {})  # empty before the first step; `step` is a number
        moments = {name: function(value) if value.dim() else value for name, value in moments.items()}
        return {**state, "state": {0: moments} if moments else {}}


OPTIMIZERS = {"sgd": ClosedFormSGD, "adam": PerClassAdam}


@dataclasses.dataclass
class Member:
    """A network of the pool with its optimizer and its training-accuracy meter."""

    net: networks.Network
    optimizer: torch.optim.Optimizer
    correct: torch.Tensor  # images classified correctly since the last reset, on the device
    seen: int = 0  # images trained on since the last reset

    def reset_meter(self):
        self.correct, self.seen = torch.zeros_like(self.correct), 0

    def percent(self):
        """Training accuracy in percent since the last reset, on the device; 0 for a network not trained since."""
        return 100 * self.correct / max(self.seen, 1)

    def state_dict(self):
        net, optimizer = self.net.state_dict(), self.optimizer.state_dict()
        return {"net": net, "optimizer": optimizer, "correct": self.correct, "seen": self.seen}

    def load_state_dict(self, state):
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.correct, self.seen = state["correct"].to(self.correct.device), state["seen"]


class NetPool:
    """Networks of different ages, the oldest first: IDM's model queue."""

    def __init__(self, fresh, capacity, start=3):
        """fresh: function(birth number) -> Member. The pool starts with `start` of them, at most `capacity`."""
        self.fresh, self.capacity, self.born, self.members = fresh, capacity, 0, []
        self.push(min(start, capacity))

    def push(self, count):
        """`count` fresh networks enter; beyond the capacity the oldest leave."""
        fresh = [self.fresh(self.born + i) for i in range(max(0, count - self.capacity), count)]
        self.members = (self.members + fresh)[-self.capacity :]
        self.born += count

    def pick(self, count, rng, begin=0, end=None):
        """`count` distinct members at random, from [begin:end] if that slice holds more than 10, else from all."""
        candidates = self.members[begin:end]
        if len(candidates) <= 10:
            candidates = self.members
        return [candidates[i] for i in rng.permutation(len(candidates))[:count]]

    def reset_meters(self):
        for member in self.members:
            member.reset_meter()

    def state_dict(self):
        return {"born": self.born, "members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state):
        self.born, states = state["born"], state["members"]
        self.members = [self.fresh(self.born - len(states) + i) for i in range(len(states))]
        for member, saved in zip(self.members, states, strict=True):
            member.load_state_dict(saved)


def chunks(sizes, limit):
    """Slices over classes with `sizes` images each: as many classes at a time as `limit` images hold, at least one."""
    start, total = 0, 0
    for stop, size in enumerate(sizes):
        if stop > start and total + size > limit:
            yield slice(start, stop)
            start, total = stop, 0
        total += size
    yield slice(start, len(sizes))


class Distiller:
    """One experiment: canvases, their optimizer and the network pool, and what an iteration does to them. Of a parallel
    run's canvases it holds those of the classes that `world` gives to this process; see parallel.py."""

    def __init__(self, args, exp, real, arithmetic, world=None, canvases=None):
        """args: the flags. exp: number of the experiment. real: training images, a data.RealData. canvases: those of
        all classes to start from, by default what --init says."""
        self.args, self.exp, self.real, self.arithmetic = args, exp, real, arithmetic
        self.world = world or World()
        self.shape, self.num_classes, self.factor = tuple(real.images.shape[1:]), len(real.counts), factor(args)
        self.strategy = augment.parse_strategy(args.dsa_strategy)
        self.seconds_of_clusters = 0
        weights = args.lh_weight, args.tv_weight, args.clip_weight
        self.terms = utils.objective_terms(args.method, *weights, args.clip_prior)
        everything, self.own = range(self.num_classes), self.world.share(self.num_classes)
        count, device = canvases_per_class(args), real.images.device
        if canvases is None:
            streams = {c: self.stream("init", c) for c in self.own}
            chosen = self.representatives(count * self.factor**2) if args.init == "cluster" else None
            self.canvases = initial(real, count, args.init, self.factor, streams, args.chroma, chosen)
        else:
            self.canvases = canvases[self.own.start : self.own.stop].to(device, copy=True)
        self.labels = torch.arange(self.num_classes, device=device).repeat_interleave(count)  # of all
        # DM steps once for the sum over classes, the others once per class.
        served = [everything] if args.method == "DM" else [range(c, c + 1) for c in everything]
        self.optimizer = OPTIMIZERS[args.optim](self.canvases, args.lr_img, served, self.own)
        self.pool = NetPool(self.fresh_member, args.net_num)
        self.losses = []  # (iteration, (names, own classes) on the device) of every pass not yet read

    def stream(self, *name):
        return utils.stream(self.args.seed, self.exp, *name)

    def fresh_member(self, number):
        args = self.args
        net = self.arithmetic.build(args.model, self.shape, self.num_classes, self.stream("network", number))
        net.requires_grad_(False)
        optimizer = self.arithmetic.optimizer(net, args.lr_net, args.net_decay)
        return Member(net, optimizer, torch.zeros((), dtype=torch.int64, device=self.real.images.device))

    def representatives(self, count):
        """{own class: indices (count,)} of real images to start from, one per cluster, see clusters.py."""
        member, began = self.fresh_member("cluster"), time.perf_counter()
        self.train_network(member, self.stream("cluster"), clusters.STEPS, self.strategy)
        embed = functools.partial(self.arithmetic.embed_and_classify, member.net.eval(), last=self.args.embed_last)
        streams = {c: self.stream("cluster", c) for c in self.own}
        chosen = clusters.representatives(embed, self.real, count, self.factor, streams)
        self.seconds_of_clusters = time.perf_counter() - began
        return chosen

    def iterate(self, it):
        """Iteration `it` of Algorithm 1."""
        args, pool = self.args, self.pool
        if it > 0 and it % args.meter_reset == 0:
            pool.reset_meters()
        if it % args.net_generate_interval == 0:
            pool.push(args.net_push_num)
        picked = pool.pick(args.train_net_num, self.stream("pick", it), args.net_begin, args.net_end)
        for k in range(args.outer_loop):
            for i, member in enumerate(picked):
                self.update_canvases(member, (it, k, i))
            for i, member in enumerate(pool.pick(args.fetch_net_num, self.stream("fetch", it, k))):
                self.train_network(member, self.stream("train", it, k, i))

    def update_canvases(self, member, when):
        """One pass of synthetic updates on a network. when: (iteration, outer loop, number of the network)."""
        losses = self.canvases.new_empty(len(self.loss_names), len(self.own))
        for classes in self.optimizer.turns():
            self.optimizer.step(classes, self.gradient(member, when, classes, losses))
        self.losses.append((when[0], losses))

    def train_network(self, member, rng, steps=None, strategy=()):
        """Train a network on batches of real images of all classes: by default `model_train_steps`, not augmented."""
        member.net.train().requires_grad_(True)
        for _ in range(self.args.model_train_steps if steps is None else steps):
            indices = self.real.any_indices(self.args.trained_bs, rng)
            images, labels = self.real.batch(self.real.owned(indices))
            if strategy:
                images = augment.dsa(images, augment.draw(strategy, 1, rng))
            shared = (len(indices), self.world) if self.world.size > 1 else ()
            correct = self.arithmetic.training_step(member.net, member.optimizer, images, labels, *shared)
            member.correct = member.correct + correct
            member.seen += len(indices)
        member.optimizer.zero_grad(set_to_none=True)  # or a pool of 100 would keep 100 gradients
        member.net.requires_grad_(False)

    def gradient(self, member, when, classes, losses):
        """Gradient of the loss of `classes`, a range of own ones, with respect to their canvases, of their shape. when:
        names the random streams. losses: (names, own classes), into which the values go for `read_losses`."""
        args, net, images_each = self.args, member.net, images_per_class(self.args)
        # Batch statistics, which only DM's networks may have, are those of all classes together.
        joint = net.has_batch_statistics
        net.train(joint)
        limit = float("inf") if joint else self.arithmetic.chunk(self.shape[1:])
        streams = [self.stream("class", *when, c) for c in classes]
        indices = [self.real.indices(c, args.batch_real, rng) for c, rng in zip(classes, streams, strict=True)]
        transforms = [augment.draw(self.strategy, 1, rng) for rng in streams]  # Siamese: real and synthetic share it

        z, s = self.real_moments(net, indices, transforms, limit)
        here = slice(classes.start - self.own.start, classes.stop - self.own.start)
        canvases, losses = self.canvases[here], losses[:, here]
        labels = torch.arange(classes.start, classes.stop, device=canvases.device)[:, None].expand(-1, images_each)
        gradient = torch.empty_like(canvases)
        for group in chunks([images_each] * len(classes), limit):
            x = canvases[group].detach().requires_grad_()
            images = decode_by_class(x, self.factor, args.chroma)
            images = augment.dsa_per_class(images, transforms[group], [images_each] * len(x))
            embedding, logits = self.arithmetic.embed_and_classify(net, images, args.embed_last)
            embedding, logits = (values.unflatten(0, (len(x), images_each)) for values in (embedding, logits))
            losses[:, group], loss = self.loss(member, embedding.mean(1), z[group], s[group], logits, labels[group])
            (gradient[group],) = torch.autograd.grad(loss.sum(), x)
        return gradient

    def loss(self, member, z_syn, z, s, logits, labels):
        """What the log shows of the loss of G classes, (names, G), and that loss, (G,). z_syn, z, s: (G, D), see
        utils.class_moments. logits: (G, n, classes) of the synthetic images. labels: (G, n)."""
        values = {name: (weight, f(z_syn, z, s)) for name, (weight, f) in self.terms.items()}
        cross_entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
        loss = sum(weight * value for weight, value in values.values() if weight)
        if self.args.syn_ce:
            loss = loss + self.args.ce_weight * member.percent() * cross_entropy
        accuracy = 100 * (logits.argmax(2) == labels).float().mean(1)
        shown = [loss, *(value for _, value in values.values()), cross_entropy, accuracy]
        return torch.stack([value.detach() for value in shown]), loss

    @property
    def loss_names(self):
        """The rows of a logged loss: total, each term before its weight, cross-entropy, accuracy in percent."""
        return ["loss", *self.terms, "ce", "accuracy"]

    def real_moments(self, net, indices, transforms, limit):
        """Mean and standard deviation of the embeddings of real images, (classes, D) each: see utils.class_moments.
        indices, transforms: of each class. Without a graph, so that memory is that of `limit` images. Results go into
        one tensor: small ones of each chunk, lying between large ones that are freed, would keep the C library from
        using their memory again."""
        z, s = None, None
        for group in chunks([len(i) for i in indices], limit):
            sizes = [len(i) for i in indices[group]]
            images = self.real.take(np.concatenate(indices[group]))
            with torch.no_grad():
                images = augment.dsa_per_class(images, transforms[group], sizes)
                pieces = images.split(int(min(limit, len(images))))
                embeddings = [self.arithmetic.embed(net, piece, self.args.embed_last) for piece in pieces]
            moments = utils.class_moments(torch.cat(embeddings), sizes)
            if z is None:
                z, s = (moment.new_empty(len(indices), moment.shape[1]) for moment in moments)
            z[group], s[group] = moments
        return z, s

    def read_losses(self):
        """Mean over classes of each logged value since the last reading, {name: float}; waits for the device.
        Raises DivergedError if any of them is NaN or infinite."""
        losses, self.losses = self.all_losses(), []
        for it, values in losses:
            if not values.isfinite().all():
                # The total comes first but says least: name the term that broke it, if one did.
                broken = values.isfinite().logical_not().nonzero().tolist()
                row, c = max(broken, key=lambda rc: (rc[0] > 0, -rc[1], -rc[0]))
                found = f"iteration {it}, class {c}: {self.loss_names[row]} is {values[row, c].item()}"
                raise DivergedError(f"{found}; a smaller --lr_img or --precision fp32 may help")
        if not losses:
            return {}
        means = torch.cat([values.double() for _, values in losses], 1).mean(1).tolist()
        return dict(zip(self.loss_names, means, strict=True))

    def all_losses(self):
        """`losses` of all classes, on the host."""
        return [(it, self.gather(values.T.contiguous()).T.cpu()) for it, values in self.losses]

    def all_canvases(self):
        """Canvases of all classes as they are stored, (n, ch, H, W) or, with --chroma half, (n, 6, H/2, W/2)."""
        return self.gather(self.canvases).flatten(0, 1)

    def gather(self, rows):
        return self.world.gather(rows, self.num_classes)

    def check_networks(self):
        """Raises ParallelError unless the networks are the same on all processes, to the bit."""
        if self.world.size == 1:
            return
        sums = [sum(p.double().sum() for p in member.net.parameters()).item() for member in self.pool.members]
        if len(set(map(repr, self.world.gather_objects(sums)))) > 1:
            found = "the networks of the pool are no longer the same on all processes"
            raise ParallelError(f"{found}, whose hardware or PyTorch may differ")

    def state_dict(self):
        """All that the next iteration depends on, of all processes; random streams are named by it, need no state."""
        return {
            "canvases": self.gather(self.canvases),
            "optimizer": self.optimizer.state_dict(self.gather),
            "pool": self.pool.state_dict(),
            "losses": self.all_losses(),
        }

    def load_state_dict(self, state):
        """Go on from a `state_dict`, from any device and any number of processes, of the same settings."""
        own = slice(self.own.start, self.own.stop)
        self.canvases.copy_(state["canvases"][own])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pool.load_state_dict(state["pool"])
        self.losses = [(it, values[:, own].to(self.canvases.device)) for it, values in state["losses"]]
