"""Algorithm 1: distil a training set into a few synthetic canvases per class, by BACON, IDM or DM.

    for every iteration:
        push fresh networks into the pool
        canvases step down the gradient of the loss, on networks drawn from the pool
        networks drawn from the pool train on real images

`Distiller.iterate` is that loop's body, `update_canvases` its middle line, `loss` what is
minimised. plain.py is the same algorithm in a hundred plain lines, which the tests hold this module
to. Sources: BACON (Zhou et al. 2024, arXiv:2406.01112), IDM (Zhao et al., CVPR 2023), DM (Zhao &
Bilen, WACV 2023).
"""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F

import augment
import utils
from bacon.canvases import decode_by_class, initial
from bacon.distill import clusters, experts
from bacon.distill.optimizers import OPTIMIZERS
from bacon.distill.pool import NetPool, Trainer
from bacon.errors import DivergedError, ParallelError
from bacon.methods import METHODS, TERMS, terms_in_use, weight_of
from bacon.parallel import World
from bacon.recipes import canvases_per_class, cooled_iterations, factor, images_per_class


@dataclasses.dataclass(frozen=True)
class Pass:
    """Which pass of canvas updates it is; it names the random streams."""

    iteration: int
    loop: int  # of --outer_loop
    network: int  # which of the --train_net_num networks picked


@dataclasses.dataclass(frozen=True)
class Draw:
    """What the update of a class draws: real images, and DSA.

    The DSA is shared by these and the synthetic images (Siamese).
    """

    indices: np.ndarray
    transform: augment.Transform


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What a network makes of n images of each of G classes.

    embedding: (G, n, D). logits: (G, n, all classes).
    """

    embedding: torch.Tensor
    logits: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of G classes.

    total: (G,). logged: what the log shows of it, (names, G), without a graph; see `loss_names`.
    """

    total: torch.Tensor
    logged: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient of the loss of some classes.

    canvases: with respect to their canvases. logged: the values of that loss, (names, classes).
    """

    canvases: torch.Tensor
    logged: torch.Tensor


@dataclasses.dataclass(frozen=True)
class PassLosses:
    """The values of a pass for the log, (names, own classes), on the device."""

    iteration: int
    values: torch.Tensor


class Distiller:
    """One experiment: canvases, their optimizer and the pool, and what an iteration does to them.

    canvases: (own classes, canvases per class, ...), as they are stored. Of a parallel run's
    classes it holds those that `world` gives to this process; see parallel.py.
    """

    def __init__(self, args, exp, real, arithmetic, world, canvases, snapshots=()):
        """args: the flags. exp: number of the experiment. real: training images, a RealData.

        arithmetic: a compute.Arithmetic. world: a parallel.World. canvases: of own classes, changed
        in place. snapshots: with --experts, [experts.Snapshot] of all of them.
        """
        self.args = args
        self.exp = exp
        self.real = real
        self.arithmetic = arithmetic
        self.world = world
        self.canvases = canvases
        self.num_classes = len(real.counts)
        self.factor = factor(args)  # images along each side of a canvas
        self.own = world.share(self.num_classes)
        self.strategy = augment.parse_strategy(args.dsa_strategy)
        every_class = torch.arange(self.num_classes, device=real.images.device)
        # Of the canvases of all classes.
        self.labels = every_class.repeat_interleave(canvases_per_class(args))

        self.method = METHODS[args.method]
        self.terms = active_terms(args)
        seen = {name for term in self.terms.values() for name in TERMS[term.name].sees}
        self.kept_of_real = sorted(seen & utils.REAL_SUMMARIES.keys())
        if self.method.joint_step:
            served = [range(self.num_classes)]
        else:
            served = [range(c, c + 1) for c in range(self.num_classes)]
        self.optimizer = OPTIMIZERS[args.optim](canvases, args.lr_img, served, self.own)
        self.trainer = Trainer(args, exp, real, arithmetic, world)
        self.snapshots = snapshots
        # With --experts there is no pool.
        self.pool = NetPool(self.trainer.fresh, args.net_num, start=0 if args.experts else 3)
        self.unread = []  # PassLosses since the last `read_losses`

    def stream(self, *name):
        return utils.stream(self.args.seed, self.exp, *name)

    def iterate(self, it):
        """Iteration `it` of Algorithm 1."""
        args = self.args
        if args.experts:
            matched_on = experts.pick(self.snapshots, args.train_net_num, self.stream("pick", it))
        else:
            matched_on = self.pick_of_pool(it)
        self.optimizer.set_rate(rate_of_canvases(args, it))
        for k in range(args.outer_loop):
            for i, network in enumerate(matched_on):
                self.update_canvases(network, Pass(it, k, i))
            if not args.experts:
                self.train_pool(it, k)

    def pick_of_pool(self, it):
        """The networks of the pool that iteration `it` matches on, once fresh ones have entered."""
        args = self.args
        pool = self.pool
        if it > 0 and it % args.meter_reset == 0:
            pool.reset_meters()
        if it % args.net_generate_interval == 0:
            pool.push(args.net_push_num)
        rng = self.stream("pick", it)
        return pool.pick(args.train_net_num, rng, args.net_begin, args.net_end)

    def train_pool(self, it, k):
        """Train some networks of the pool, in loop k of iteration `it`."""
        args = self.args
        trained = self.pool.pick(args.fetch_net_num, self.stream("fetch", it, k))
        for i, member in enumerate(trained):
            self.trainer.train(member, args.model_train_steps, self.stream("train", it, k, i))

    def update_canvases(self, member, this_pass):
        """One pass on one network: every class steps down the gradient of its loss."""
        logged = []
        for classes in self.optimizer.turns:
            self.optimizer.drift_before_(self.canvases)
            gradient = self.gradient(member, this_pass, classes)
            self.optimizer.step_(self.canvases, classes, gradient.canvases)
            self.optimizer.drift_after_(self.canvases)
            logged.append(gradient.logged)
        self.unread.append(PassLosses(this_pass.iteration, torch.cat(logged, 1)))

    def gradient(self, member, this_pass, classes):
        """The `Gradient` of the loss of some classes at their current canvases.

        classes: a range of own ones; an empty one where it is another process's turn.
        """
        if len(classes) == 0:
            nothing = self.canvases.new_empty(len(self.loss_names), 0)
            return Gradient(self.canvases[:0], nothing)
        net = member.net
        # Batch statistics, which only a joint step allows, are those of all classes together.
        all_in_one_batch = net.has_batch_statistics
        limit = math.inf if all_in_one_batch else self.arithmetic.chunk(self.real.images.shape[2:])
        net.train(all_in_one_batch)
        draws = [self.draw(this_pass, c) for c in classes]
        real = self.real_summaries(net, draws, limit)
        expert = self.late_expert(this_pass) if self.args.expert_ce else None

        first = classes.start - self.own.start
        canvases = self.canvases[first : first + len(classes)]
        gradient = torch.empty_like(canvases)
        logged = canvases.new_empty(len(self.loss_names), len(classes))
        labels = torch.arange(classes.start, classes.stop, device=canvases.device)
        images_each = images_per_class(self.args)
        for group in chunks([images_each] * len(classes), limit):
            x = canvases[group].detach().requires_grad_()  # (G, canvases, ...)
            transforms = [draw.transform for draw in draws[group]]
            images = decode_by_class(x, self.factor, self.args.chroma)  # (G * n, C, H, W)
            images = augment.dsa_per_class(images, transforms, [images_each] * len(x))
            seen = self.embed_by_class(net, images, len(x))
            of_expert = None
            if expert is not None:
                of_expert = self.embed_by_class(expert, images, len(x)).logits
            real_of_group = {name: values[group] for name, values in real.items()}
            percent = member.percent()
            loss = self.loss(
                seen.embedding, real_of_group, seen.logits, labels[group], percent, of_expert
            )
            (of_group,) = torch.autograd.grad(loss.total.sum(), x)
            gradient[group] = of_group
            logged[:, group] = loss.logged
        return Gradient(gradient, logged)

    def embed_by_class(self, net, images, classes):
        """What a network makes of the images of so many classes, class by class, an `Embedded`."""
        embedding, logits = self.arithmetic.embed_and_classify(net, images, self.args.embed_last)
        by_class = (classes, -1)
        return Embedded(embedding.unflatten(0, by_class), logits.unflatten(0, by_class))

    def late_expert(self, this_pass):
        """The network of --expert_ce in a pass: any expert at one of its last five moments."""
        rng = self.stream("expert_ce", this_pass.iteration, this_pass.loop, this_pass.network)
        late = [snapshot for snapshot in self.snapshots if snapshot.is_late]
        (chosen,) = experts.pick(late, 1, rng)
        return chosen.net

    def draw(self, this_pass, c):
        """The `Draw` of class c in a pass."""
        rng = self.stream("class", this_pass.iteration, this_pass.loop, this_pass.network, c)
        indices = self.real.indices(c, self.args.batch_real, rng)
        return Draw(indices, augment.draw(self.strategy, 1, rng))

    def loss(self, embedding, real, logits, labels, percent, of_expert=None):
        """The `Loss` of G classes.

        embedding: (G, n, D), of the synthetic images. real: {name: (G, ...)}, what is kept of the
        real embeddings. logits: (G, n, all classes), of the synthetic images. labels: (G,).
        percent: the network's training accuracy. of_expert: with --expert_ce, (G, n, all classes),
        the logits in an expert late in its training.
        """
        seen = {"synthetic": embedding, "z_syn": embedding.mean(1), **real}
        total = 0
        values = []
        for term in self.terms.values():
            value = term.of(seen)
            values.append(value)
            if term.weight:
                total = total + term.weight * value
        labels = labels[:, None].expand(-1, logits.shape[1])  # (G, n)
        cross_entropy = mean_cross_entropy(logits, labels)
        if self.args.syn_ce:
            total = total + self.args.ce_weight * percent * cross_entropy
        if of_expert is not None:
            in_expert = mean_cross_entropy(of_expert, labels)
            total = total + self.args.expert_ce * in_expert
            values.append(in_expert)
        accuracy = 100 * (logits.argmax(2) == labels).float().mean(1)
        logged = [total, *values, cross_entropy, accuracy]
        return Loss(total, torch.stack([value.detach() for value in logged]))

    @property
    def loss_names(self):
        """The rows of logged values.

        The loss, each term before its weight, the cross-entropy in the late expert if it counts and
        in the network, the accuracy in percent.
        """
        of_expert = ["expert_ce"] if self.args.expert_ce else []
        return ["loss", *self.terms, *of_expert, "ce", "accuracy"]

    def real_summaries(self, net, draws, limit):
        """What the terms see of the real embeddings of each class: {name: (classes, ...)}.

        No graph is built. At most `limit` images are computed at once. Results go into one tensor
        for each name: small ones of each chunk, lying between large ones that are freed, would keep
        the C library from using their memory again.
        """
        kept = {}
        for group in chunks([len(draw.indices) for draw in draws], limit):
            sizes = [len(draw.indices) for draw in draws[group]]
            transforms = [draw.transform for draw in draws[group]]
            images = self.real.take(np.concatenate([draw.indices for draw in draws[group]]))
            with torch.no_grad():
                images = augment.dsa_per_class(images, transforms, sizes)
                pieces = images.split(int(min(limit, len(images))))
                embeddings = [
                    self.arithmetic.embed(net, piece, self.args.embed_last) for piece in pieces
                ]
                found = utils.summaries(torch.cat(embeddings), sizes, self.kept_of_real)
            for name, values in found.items():
                if name not in kept:
                    kept[name] = values.new_empty(len(draws), *values.shape[1:])
                kept[name][group] = values
        return kept

    def read_losses(self):
        """Mean over classes of each logged value since the last reading, {name: float}.

        It waits for the device. DivergedError if any value is NaN or infinite.
        """
        passes = self.losses_of_all_classes()
        self.unread = []
        for one in passes:
            self._check_finite(one)
        if not passes:
            return {}
        values = torch.cat([one.values.double() for one in passes], 1)
        return dict(zip(self.loss_names, values.mean(1).tolist(), strict=True))

    def _check_finite(self, of_pass):
        finite = of_pass.values.isfinite()
        if finite.all():
            return
        broken = finite.logical_not().nonzero().tolist()  # [row, class] of each
        # The total comes first but says least: name the term that broke it, if one did.
        terms = [place for place in broken if place[0] > 0]
        row, c = min(terms or broken, key=lambda place: (place[1], place[0]))
        value = of_pass.values[row, c].item()
        found = f"iteration {of_pass.iteration}, class {c}: {self.loss_names[row]} is {value}"
        raise DivergedError(f"{found}; a smaller --lr_img or --precision fp32 may help")

    def losses_of_all_classes(self):
        """The unread `PassLosses` with the values of all classes, on the host."""
        passes = []
        for one in self.unread:
            rows = self.gather(one.values.T.contiguous())  # a row for each class
            passes.append(PassLosses(one.iteration, rows.T.cpu()))
        return passes

    def all_canvases(self):
        """Canvases of all classes as they are stored.

        (n, ch, H, W) or, with --chroma half, (n, 6, H/2, W/2).
        """
        return self.gather(self.canvases).flatten(0, 1)

    def gather(self, rows):
        """Rows of own classes to the rows of all classes, on every process."""
        return self.world.gather(rows, self.num_classes)

    def check_networks(self):
        """Raises ParallelError unless the networks are the same on all processes, to the bit."""
        if self.world.size == 1:
            return
        sums = []
        for network in (*self.pool.members, *self.snapshots):
            sums.append(sum(p.double().sum() for p in network.net.parameters()).item())
        everywhere = self.world.gather_objects(sums)
        if len({repr(of_process) for of_process in everywhere}) > 1:
            which = "experts" if self.snapshots else "networks of the pool"
            found = f"the {which} are no longer the same on all processes"
            raise ParallelError(f"{found}, whose hardware or PyTorch may differ")

    def state_dict(self):
        """All that the next iteration depends on, of all processes, for `resumed`.

        Random streams need no state: they are named by the iteration.
        """
        return {
            "canvases": self.gather(self.canvases),
            "optimizer": self.optimizer.state_dict(self.gather),
            "pool": self.pool.state_dict(),
            "losses": [(one.iteration, one.values) for one in self.losses_of_all_classes()],
        }


def begin(args, exp, real, arithmetic, world=None, snapshots=(), before_batch=None):
    """A Distiller before its first iteration, its canvases as --init says.

    With --init cluster a network is trained for them. before_batch: of that training, see Trainer;
    the other arguments are those of `Distiller`.
    """
    world = world or World()
    trainer = Trainer(args, exp, real, arithmetic, world, before_batch)
    own = world.share(len(real.counts))
    count = canvases_per_class(args)
    chosen = None
    if args.init == "cluster":
        streams = {c: utils.stream(args.seed, exp, "cluster", c) for c in own}
        rng = utils.stream(args.seed, exp, "cluster")
        chosen = clusters.by_trained_network(trainer, count * factor(args) ** 2, rng, streams)
    streams = {c: utils.stream(args.seed, exp, "init", c) for c in own}
    canvases = initial(real, count, args.init, factor(args), streams, args.chroma, chosen)
    return Distiller(args, exp, real, arithmetic, world, canvases, snapshots)


def resumed(args, exp, real, arithmetic, world, state, snapshots=()):
    """A Distiller that goes on from a `state_dict` of the same settings.

    That may be from any device and any number of processes. The other arguments are those of
    `Distiller`.
    """
    own = world.share(len(real.counts))
    canvases = state["canvases"][own.start : own.stop].to(real.images.device, copy=True)
    distiller = Distiller(args, exp, real, arithmetic, world, canvases, snapshots)
    distiller.optimizer.load_state_dict(state["optimizer"])
    distiller.pool.load_state_dict(state["pool"])
    for iteration, values in state["losses"]:
        of_own = values[:, own.start : own.stop].to(real.images.device)
        distiller.unread.append(PassLosses(iteration, of_own))
    return distiller


def rate_of_canvases(args, it):
    """The learning rate of iteration `it`: --lr_img, a tenth of it in the --cooldown."""
    cooled = cooled_iterations(args.cooldown, args.Iteration)
    in_cooldown = cooled > 0 and it >= args.Iteration - cooled
    return args.lr_img / 10 if in_cooldown else args.lr_img


def mean_cross_entropy(logits, labels):
    """The mean over the images of each class, (G,). logits: (G, n, all classes). labels: (G, n)."""
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)


def chunks(sizes, limit):
    """Slices over classes with `sizes` images each.

    As many classes at a time as `limit` images hold, at least one.
    """
    start = 0
    total = 0
    for stop, size in enumerate(sizes):
        if stop > start and total + size > limit:
            yield slice(start, stop)
            start = stop
            total = 0
        total += size
    yield slice(start, len(sizes))


@dataclasses.dataclass(frozen=True)
class ActiveTerm:
    """A term of the loss of a run, with its weight and its settings."""

    name: str
    weight: float
    settings: dict

    def of(self, seen):
        """The term's values for G classes, (G,), before its weight.

        seen: {name: (G, ...)}, see methods.Term.
        """
        term = TERMS[self.name]
        function = getattr(utils, term.function)
        return function(*[seen[name] for name in term.sees], **self.settings)


def active_terms(args):
    """The terms of a run's loss, {name: ActiveTerm}, in the order of the log."""
    terms = {}
    for name in terms_in_use(args):
        settings = {setting: getattr(args, setting) for setting in TERMS[name].settings}
        terms[name] = ActiveTerm(name, weight_of(name, args), settings)
    return terms
