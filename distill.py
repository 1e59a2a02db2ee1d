"""Algorithm 1: distil a training set into a few synthetic canvases per class, by BACON, IDM or DM.

    for every iteration:
        push fresh networks into the pool
        canvases step down the gradient of the objective, on networks drawn from the pool
        networks drawn from the pool train on real images

`Distiller.iterate` is that loop's body and `run` all that a script does. Sources: BACON (Zhou et al. 2024,
arXiv:2406.01112), IDM (Zhao et al., CVPR 2023), DM (Zhao & Bilen, WACV 2023).
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import augment
import cost
import data
import evaluate
import figures
import networks
import parallel
import runs
import tables
import utils
from utils import UserError, stream

REPORT_EVERY = 10  # iterations between readings of the loss; a reading waits for the device


# ---------------------------------------------------------------------------------------------------------------------
# Canvases and their optimizer
# ---------------------------------------------------------------------------------------------------------------------


def decode(canvases, factor):
    """Canvases (G, ipc, ch, H, W) to the images they hold, class by class: (G * factor^2 * ipc, ch, H, W)."""
    images = augment.split(canvases.flatten(0, 1), factor)
    return images.unflatten(0, (factor**2, *canvases.shape[:2])).transpose(0, 1).flatten(0, 2)


class ClosedFormSGD:
    """SGD with momentum over one pass, as if it stepped over all canvases once for every turn, in closed form.

    The published code takes one optimizer step per class over the whole tensor, so a class keeps drifting along its
    momentum while other classes have their turn: k such steps are x - lr v (mu + ... + mu^k) and v mu^k. A class's
    gradient depends on its own canvases only, so all gradients of a pass can be computed at once.
    """

    def __init__(self, canvases, lr, turns, own=None, momentum=0.5):
        """canvases: (classes, ...), updated in place. turns: the ranges of classes that are served one by one.

        own: the range of classes that `canvases` holds, by default all of `turns`.
        """
        self.canvases, self.lr, self.momentum = canvases, lr, momentum
        self.own = own or range(len(canvases))
        self.velocity = torch.zeros_like(canvases)
        turn = [t for t, classes in enumerate(turns) for c in classes if c in self.own]
        turn = torch.tensor(turn, dtype=torch.float64)
        self.before, self.after = self._drift_factors(turn), self._drift_factors(len(turns) - 1 - turn)

    def _drift_factors(self, steps):
        shape = (-1, *[1] * (self.canvases.dim() - 1))
        decay = self.momentum**steps
        distance = self.lr * self.momentum * (1 - decay) / (1 - self.momentum)
        return [factor.to(self.canvases.dtype).to(self.canvases.device).view(shape) for factor in (distance, decay)]

    def _drift(self, distance, decay):
        self.canvases.addcmul_(self.velocity, distance, value=-1)
        self.velocity.mul_(decay)

    def run_pass(self, gradient):
        """One pass. gradient: function(range of classes) -> gradient of the loss at their current canvases."""
        self._drift(*self.before)
        self.velocity.mul_(self.momentum).add_(gradient(self.own))
        self.canvases.add_(self.velocity, alpha=-self.lr)
        self._drift(*self.after)

    def state_dict(self, gather=lambda rows: rows):
        """gather: own rows, one per class, -> the rows of all classes."""
        return {"velocity": gather(self.velocity)}

    def load_state_dict(self, state):
        """From a `state_dict` of all classes, of which the own ones are taken."""
        self.velocity.copy_(state["velocity"][self.own.start : self.own.stop])


class PerClassAdam:
    """Adam with PyTorch's defaults, one step over all canvases for every turn: no closed form, so slow."""

    def __init__(self, canvases, lr, turns, own=None):
        self.canvases, self.turns, self.own = canvases, turns, own or range(len(canvases))
        self.adam = torch.optim.Adam([canvases], lr=lr)

    def run_pass(self, gradient):
        """One pass, as in ClosedFormSGD."""
        for classes in self.turns:
            self.canvases.grad = torch.zeros_like(self.canvases)
            mine = range(max(classes.start, self.own.start), min(classes.stop, self.own.stop))
            if mine:
                self.canvases.grad[mine.start - self.own.start : mine.stop - self.own.start] = gradient(mine)
            self.adam.step()

    def state_dict(self, gather=lambda rows: rows):
        """As in ClosedFormSGD."""
        return self._of_rows(self.adam.state_dict(), gather)

    def load_state_dict(self, state):
        """As in ClosedFormSGD."""
        self.adam.load_state_dict(self._of_rows(state, lambda rows: rows[self.own.start : self.own.stop]))

    def _of_rows(self, state, function):
        moments = state["state"].get(0, {})  # empty before the first step; `step` is a number
        moments = {name: function(value) if value.dim() else value for name, value in moments.items()}
        return {**state, "state": {0: moments} if moments else {}}


OPTIMIZERS = {"sgd": ClosedFormSGD, "adam": PerClassAdam}


# ---------------------------------------------------------------------------------------------------------------------
# Network pool
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# The algorithm
# ---------------------------------------------------------------------------------------------------------------------


class Distiller:
    """One experiment: canvases, their optimizer and the network pool, and what an iteration does to them.

    Of a parallel run's canvases it holds those of the classes that `world` gives to this process; see parallel.py.
    """

    def __init__(self, args, exp, real, arithmetic, world=None):
        self.args, self.exp, self.real, self.arithmetic = args, exp, real, arithmetic
        self.world = world or parallel.World()
        self.shape, self.num_classes = tuple(real.images.shape[1:]), len(real.counts)
        self.strategy = augment.parse_strategy(args.dsa_strategy)
        self.factor = 2 if args.aug else 1
        self.terms = utils.objective_terms(
            args.method, args.lh_weight, args.tv_weight, args.clip_weight, args.clip_prior
        )
        everything, self.own = range(self.num_classes), self.world.share(self.num_classes)
        streams = {c: self.stream("init", c) for c in self.own}
        self.canvases = data.initial_canvases(real, args.ipc, args.init, self.factor, streams)
        self.labels = torch.arange(self.num_classes, device=self.canvases.device).repeat_interleave(args.ipc)  # of all
        # DM steps once for the sum over classes, the others once per class.
        turns = [everything] if args.method == "DM" else [range(c, c + 1) for c in everything]
        self.optimizer = OPTIMIZERS[args.optim](self.canvases, args.lr_img, turns, self.own)
        self.pool = NetPool(self.fresh_member, args.net_num)
        self.losses = []  # (iteration, (terms, classes) on the device) of every pass not yet read

    def stream(self, *name):
        return stream(self.args.seed, self.exp, *name)

    def fresh_member(self, number):
        args = self.args
        net = self.arithmetic.build(args.model, self.shape, self.num_classes, self.stream("network", number))
        net.requires_grad_(False)
        optimizer = self.arithmetic.optimizer(net, args.lr_net, args.net_decay)
        return Member(net, optimizer, torch.zeros((), dtype=torch.int64, device=self.canvases.device))

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
                self.optimizer.run_pass(functools.partial(self.gradient, member, (it, k, i)))
            for i, member in enumerate(pool.pick(args.fetch_net_num, self.stream("fetch", it, k))):
                self.train(member, self.stream("train", it, k, i))

    def train(self, member, rng):
        """Train a pool network on `model_train_steps` batches of real images of all classes, not augmented."""
        member.net.train().requires_grad_(True)
        for _ in range(self.args.model_train_steps):
            indices = self.real.any_indices(self.args.trained_bs, rng)
            mine = self.real.owned(indices)
            batch = member.net, member.optimizer, self.real.take(mine), self.real.labels_of(mine)
            if self.world.size == 1:
                correct = self.arithmetic.training_step(*batch)
            else:
                correct = self.arithmetic.shared_training_step(*batch, len(indices), self.world)
            member.correct = member.correct + correct
            member.seen += len(indices)
        member.optimizer.zero_grad(set_to_none=True)  # or a pool of 100 would keep 100 gradients
        member.net.requires_grad_(False)

    def gradient(self, member, when, classes):
        """Gradient of the loss of `classes`, a range of own ones, with respect to their canvases, (n, ipc, ch, H, W).

        when: (iteration, outer loop, network), which names the random streams. The values of the loss are kept in
        `losses` for `read_losses`.
        """
        # Batch statistics, which only DM's networks may have, are those of all classes together.
        joint = member.net.has_batch_statistics
        member.net.train(joint)
        streams = [self.stream("class", *when, c) for c in classes]
        indices = [self.real.indices(c, self.args.batch_real, rng) for c, rng in zip(classes, streams, strict=True)]
        transforms = [augment.draw(self.strategy, 1, rng) for rng in streams]  # Siamese: real and synthetic share it

        z, s = self.real_moments(member.net, indices, transforms, joint)

        n = self.args.ipc * self.factor**2
        here = self.canvases[classes.start - self.own.start : classes.stop - self.own.start]
        gradient, losses = torch.empty_like(here), here.new_empty(len(self.loss_names), len(here))
        labels_here = torch.arange(classes.start, classes.stop, device=here.device)[:, None]
        for group in self.groups([n] * len(classes), joint):
            canvases = here[group].detach().requires_grad_()
            images = augment.dsa_per_class(decode(canvases, self.factor), transforms[group], [n] * len(canvases))
            embedding, logits = self.arithmetic.embed_and_classify(member.net, images, self.args.embed_last)
            z_syn = embedding.unflatten(0, (-1, n)).mean(1)
            logits = logits.unflatten(0, (-1, n))
            losses[:, group], loss = self.loss(member, z_syn, z[group], s[group], logits, labels_here[group])
            (gradient[group],) = torch.autograd.grad(loss.sum(), canvases)
        self.losses.append((when[0], classes.start, losses))
        return gradient

    def loss(self, member, z_syn, z, s, logits, labels):
        """Loss of G classes, (G,), and what the log shows of it, (names, G).

        z_syn, z, s: (G, D), see utils.class_moments. logits: (G, n, classes) of the synthetic images. labels: (G, 1).
        """
        labels = labels.expand(logits.shape[:2])
        values = {name: (weight, f(z_syn, z, s)) for name, (weight, f) in self.terms.items()}
        cross_entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
        weight = self.args.ce_weight * member.percent() if self.args.syn_ce else 0.0
        loss = sum(weight * value for weight, value in values.values() if weight)
        if self.args.syn_ce:
            loss = loss + weight * cross_entropy
        accuracy = 100 * (logits.argmax(2) == labels).float().mean(1)
        shown = [loss, *(value for _, value in values.values()), cross_entropy, accuracy]
        return torch.stack([value.detach() for value in shown]), loss

    @property
    def loss_names(self):
        """The rows of a logged loss: total, each term before its weight, cross-entropy, accuracy in percent."""
        return ["loss", *self.terms, "ce", "accuracy"]

    def real_moments(self, net, indices, transforms, joint):
        """Mean and standard deviation of the embeddings of real images, (classes, D) each: see utils.class_moments.

        indices, transforms: of each class. Without a graph, so that memory is one chunk's. Results go into one tensor:
        small ones of each chunk, lying between large ones that are freed, would keep the C library from using their
        memory again.
        """
        z, s = None, None
        for group in self.groups([len(i) for i in indices], joint):
            sizes = [len(i) for i in indices[group]]
            images = self.real.take(np.concatenate(indices[group]))
            with torch.no_grad():
                images = augment.dsa_per_class(images, transforms[group], sizes)
                pieces = [images] if joint else images.split(self.arithmetic.chunk(self.shape[1:]))
                embeddings = [self.arithmetic.embed(net, piece, self.args.embed_last) for piece in pieces]
            moments = utils.class_moments(torch.cat(embeddings), sizes)
            if z is None:
                z, s = (moment.new_empty(len(indices), moment.shape[1]) for moment in moments)
            z[group], s[group] = moments
        return z, s

    def groups(self, sizes, joint):
        """Slices over classes with `sizes` images each: as many at a time as a chunk holds, at least one; or all."""
        limit = float("inf") if joint else self.arithmetic.chunk(self.shape[1:])
        start, total = 0, 0
        for stop, size in enumerate(sizes):
            if stop > start and total + size > limit:
                yield slice(start, stop)
                start, total = stop, 0
            total += size
        yield slice(start, len(sizes))

    def read_losses(self):
        """Mean over classes of each logged value since the last reading, {name: float}; waits for the device.

        Raises DivergedError if any of them is NaN or infinite.
        """
        losses, self.losses = self.all_losses(), []
        if not losses:
            return {}
        whens, starts, values = zip(*losses, strict=True)
        values = [v.cpu().double() for v in values]  # MPS has no float64
        for it, start, value in zip(whens, starts, values, strict=True):
            if not value.isfinite().all():
                # The total comes first but says least: name the term that broke it, if one did.
                rows = value.isfinite().logical_not().nonzero().tolist()
                row, c = max(rows, key=lambda rc: (rc[0] > 0, -rc[1], -rc[0]))
                raise utils.DivergedError(
                    f"iteration {it}, class {start + c}: {self.loss_names[row]} is {value[row, c].item()}; "
                    "a smaller --lr_img or --precision fp32 may help"
                )
        means = torch.cat(values, 1).mean(1).tolist()
        return dict(zip(self.loss_names, means, strict=True))

    def all_losses(self):
        """`losses` of all processes, by iteration and class."""
        if self.world.size == 1:
            return self.losses
        parts = self.world.gather_objects([(it, start, value.cpu()) for it, start, value in self.losses])
        return sorted((entry for part in parts for entry in part), key=lambda entry: entry[:2])

    def all_canvases(self):
        """Canvases (classes * ipc, ch, H, W) of all classes."""
        return self.gather(self.canvases).flatten(0, 1)

    def gather(self, rows):
        return self.world.gather(rows, self.num_classes)

    def check_networks(self):
        """Raises ParallelError unless the networks are the same on all processes, to the bit."""
        if self.world.size == 1:
            return
        sums = [sum(p.double().sum() for p in member.net.parameters()).item() for member in self.pool.members]
        if len(set(map(repr, self.world.gather_objects(sums)))) > 1:
            raise parallel.ParallelError(
                "the networks of the pool are no longer the same on all processes, whose hardware or PyTorch may differ"
            )

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
        own = self.own
        self.canvases.copy_(state["canvases"][own.start : own.stop])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pool.load_state_dict(state["pool"])
        self.losses = []
        for it, start, value in state["losses"]:
            first, stop = max(start, own.start), min(start + value.shape[1], own.stop)
            if first < stop:
                self.losses.append((it, first, value[:, first - start : stop - start].to(self.canvases.device)))


# ---------------------------------------------------------------------------------------------------------------------
# A whole run
# ---------------------------------------------------------------------------------------------------------------------


def check(args, spec):
    """Refuse what cannot work before anything is written: UserError that names the flag.

    spec: the shape of the images and the classes, a data.Spec, or a data.Dataset where no table knows them.
    """
    try:
        augment.parse_strategy(args.dsa_strategy)
    except ValueError as error:
        raise UserError(f"--dsa_strategy: {error}") from None
    try:
        net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    except ValueError as error:
        raise UserError(f"--model: {error}") from None
    if not isinstance(net, networks.ConvNet):
        raise UserError(f"--model {args.model}: only networks of the ConvNet family can distil; others can judge")
    if net.has_batch_statistics and args.method != "DM":
        raise UserError(f"--model {args.model}: batch normalisation can distil with --method DM only")
    if len(net.features[: args.embed_last]) == 0:
        raise UserError(
            f"--embed_last {args.embed_last}: leaves no module of the {len(net.features)} of {args.model}; "
            "give at least 1, or a negative number of modules to leave out"
        )
    for name in evaluate.architectures(args.eval_mode, args.model):
        try:
            networks.check(name, spec.channels, spec.num_classes, spec.im_size)
        except ValueError as error:
            raise UserError(f"--eval_mode {args.eval_mode}: {error}") from None
    if args.aug and (spec.im_size[0] % 2 or spec.im_size[1] % 2):
        raise UserError(f"--aug: needs an even height and width, {args.dataset} has {spec.im_size}")
    if args.resume and args.overwrite:
        raise UserError("--overwrite: contradicts --resume; give one of them")
    if args.exp_index is not None and args.exp_index >= args.num_exp:
        raise UserError(f"--exp_index {args.exp_index}: must be below --num_exp {args.num_exp}")
    evaluate.check_device(args.device)
    prior = args.clip_weight if args.clip_prior == "residual" else 0
    if args.method == "BACON" and not (args.lh_weight or args.tv_weight or prior or args.syn_ce):
        raise UserError("--lh_weight, --tv_weight: every term of the loss is switched off, nothing is left to minimise")


def check_data(args, dataset):
    """Refuse an ipc or a class that the data cannot serve; returns lines to tell the user."""
    counts = torch.bincount(dataset.labels_train).tolist()
    c = min(range(len(counts)), key=counts.__getitem__)
    smallest = f"class {c} ({dataset.classes[c]}) of {args.dataset} has {counts[c]} training images"
    if args.init == "real" and args.ipc > counts[c]:
        raise UserError(f"--ipc {args.ipc}: {smallest}; use --ipc {counts[c]} or less, or --init noise")
    if counts[c] < 2:
        raise UserError(f"{dataset.source}: {smallest}; a standard deviation needs 2")
    if counts[c] < args.batch_real:
        return [f"{smallest}, fewer than --batch_real {args.batch_real}: classes short of it give all they have"]
    return []


def describe(settings, dataset, distilling, judging, files, world=None):
    """What is about to run, as lines for the user."""
    args, (height, width) = settings.args, dataset.im_size
    train, test = len(dataset.labels_train), len(dataset.labels_test)
    decoded = f", four images each: {4 * args.ipc} decoded" if args.aug else ""
    departures = ", ".join(f"--{k} {v} (not {usual})" for k, (v, usual) in settings.departures.items())
    judges = ", ".join(evaluate.architectures(args.eval_mode, args.model))
    first, last = cost.experiments(args)[0], cost.experiments(args)[-1]
    experiments = f" {first}" if first == last else f"s {first} to {last}"
    return [
        f"{args.method} distils {args.dataset}: {train:,} training and {test:,} test images, "
        f"{dataset.channels}x{height}x{width}, {dataset.num_classes} classes, from {dataset.source} "
        f"(sha256 {dataset.fingerprint[:12]})",
        f"canvases   {args.ipc} per class{decoded}; {args.Iteration:,} iterations, "
        f"experiment{experiments} of {args.num_exp}, seed {args.seed}",
        f"recipe     {settings.recipe}" + (f", except {departures}" if departures else ""),
        f"judges     every {args.eval_interval:,} iterations and at the last: {args.num_eval} x {judges}, "
        f"{args.epoch_eval_train:,} epochs",
        f"device     {distilling}; judges {judging}"
        + (f"; {world.size} processes, each on its own classes" if world and world.size > 1 else ""),
        f"files      {files.result}, {files.log.name}, {files.folder / 'vis_*.png'}",
    ]


def run(datasets, description, argv=None):
    """Do what a script's command line says; returns its exit code.

    0: done. 2: a bad flag, file, folder or disk, said in one line. 3: the loss became NaN or infinite. 4: another
    process of a parallel run was lost. 75: stopped by a signal. 130: interrupted before there was anything to keep.
    After 4 and 75, start again with --resume.
    """
    script, world = Path(sys.argv[0]).name, parallel.World()
    try:
        settings = utils.parse_args(datasets, description, argv)
        with parallel.joined(settings.args.device) as world, utils.memory_errors():
            return run_settings(settings, world)
    except UserError as error:
        print(f"{script}: error: {utils.one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that vanished
        print(f"{script}: error: {utils.one_line(error.filename or 'writing')}: {error.strerror}", file=sys.stderr)
        return 2
    except utils.DivergedError as error:
        if world.leads:  # this and a stop are the same on all processes
            print(f"{script}: diverged: {error}", file=sys.stderr)
        return 3
    except parallel.ParallelError as error:
        print(f"{script}: {error}; the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        return 4
    except utils.Stopped as stop:
        if world.leads:
            print(f"{script}: {stop}", file=sys.stderr)
        return runs.STOPPED
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        return 130


def run_settings(settings, world):
    """Do what parsed and checked settings say, as one process of `world`; returns the exit code."""
    args = settings.args
    own = data.load_image_folder(args.data_path, args.im_size) if args.dataset == utils.IMAGE_FOLDER else None
    spec = own or data.DATASETS[args.dataset]
    check(args, spec)
    check_world(args, spec, world)
    files = runs.Files(args, args.exp_index)
    with contextlib.ExitStack() as stack:
        if not world.leads:  # one process speaks
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        if not args.dry_run:
            needed = cost.checkpoint_bytes(args, spec)
            world.from_leader(lambda: files.check(args.resume, args.overwrite, needed))
        dataset = own or load(args, world)
        notes = settings.notes + check_data(args, dataset)
        distilling, judging, more = cost.choose_arithmetic(args, dataset)
        notes += more
        if args.dry_run:
            tell(notes, describe(settings, dataset, distilling, judging, files))
            if world.leads:
                cost.dry_run(args, dataset, *real_data(args, dataset, distilling.device), distilling, judging)
            return 0

        meta = about(settings, dataset)
        signals = stack.enter_context(runs.StopSignals())
        saved, more = world.from_leader(lambda: files.claim(stack, meta, args.resume, args.overwrite))
        notes += more
        if saved == "finished":
            tell(notes, [f"{files.result}: finished already"])
        else:
            if saved:
                distilling, judging = map(restored, saved["arithmetic"])
            meta["arithmetic"] = {"distilling": str(distilling), "judging": str(judging), "processes": world.size}
            if saved:
                notes += resuming(saved, meta, files)
            tell(notes, describe(settings, dataset, distilling, judging, files, world))
            train, test = real_data(args, dataset, distilling.device, world.share(dataset.num_classes))
            del dataset, own, spec  # of several processes each keeps its share
            Run(args, meta, train, test, distilling, judging, world).go(files, signals, saved)
        if args.exp_index is not None and world.leads:
            print(runs.merge(args, meta))
    return 0


def check_world(args, spec, world):
    """Refuse what several processes cannot do. spec: as in `check`."""
    if world.size > spec.num_classes:
        raise UserError(f"--nproc_per_node: {world.size} processes for {spec.num_classes} classes; start fewer")
    net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    if world.size > 1 and net.has_batch_statistics:
        raise UserError(
            f"--model {args.model}: batch normalisation needs all classes in one process; start one process"
        )


def load(args, world):
    """The dataset, which the leading process fetches and caches before the others read it."""
    loaded = []
    world.from_leader(lambda: loaded.append(data.load(args.dataset, args.data_path)))
    return loaded[0] if loaded else data.load(args.dataset, args.data_path)


def about(settings, dataset):
    """What the log and the result say of a run, however often it was stopped."""
    args, unrecorded = settings.args, ("resume", "overwrite", "dry_run", "checkpoint_minutes")
    return {
        "args": {name: value for name, value in vars(args).items() if name not in unrecorded},
        "recipe": settings.recipe,
        "departures": {name: list(pair) for name, pair in settings.departures.items()},
        "zca": {"eps": data.Whitening.EPS, "fitted_on": dataset.fingerprint} if args.zca else None,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "classes": dataset.classes,
        "factor": 2 if args.aug else 1,
        "data_sha256": dataset.fingerprint,
        "train_images": len(dataset.labels_train),
        "test_images": len(dataset.labels_test),
        "versions": utils.versions(),
    }


def restored(saved):
    """The arithmetic of a checkpoint, which need not be the one chosen here; UserError if it is impossible here."""
    device, precision, compiled = saved
    try:
        evaluate.check_device(device)
    except UserError as error:
        raise UserError(f"--resume: the checkpoint was computed on {device}; {error}") from None
    arithmetic, _ = evaluate.choose_arithmetic(device, precision, compiled, 0)
    if arithmetic.compiled != compiled:
        why = evaluate.compile_error(arithmetic.device.type)
        raise UserError(f"--resume: the checkpoint was computed with --compile, which does not work here: {why}")
    return arithmetic


def resuming(saved, meta, files):
    """Lines for the user about going on from a checkpoint, and whether to the bit."""
    experiment, ended = saved["experiment"], len(saved["ended"])
    where = f"at iteration {experiment['it']} of the one after" if experiment else "before the next one"
    lines = [f"going on from {files.checkpoint}: {ended} experiments ended, {where}"]
    there, here = ({**m["versions"], **m["arithmetic"]} for m in (saved["meta"], meta))
    if changes := [
        f"{name} {there.get(name)}, now {value}" for name, value in here.items() if there.get(name) != value
    ]:
        lines.append(f"bitwise the same result is not guaranteed: {'; '.join(changes)}")
    return lines


def real_data(args, dataset, device, own=None):
    """Training images, of the range `own` of classes or of all, and test images as data.RealData on the device.

    Whitened with --zca, which is fitted on all training images.
    """
    whitening = data.Whitening.fit(dataset.real("train", device)) if args.zca else None
    return dataset.real("train", device, whitening, own), dataset.real("test", device, whitening)


def tell(*lines):
    for line in itertools.chain(*lines):
        print(line, flush=True)


class Run:
    """The experiments of a run: those that have ended and the one on its way. Its `state_dict` is a checkpoint."""

    def __init__(self, args, meta, train, test, distilling, judging, world):
        self.args, self.meta, self.distilling, self.judging, self.world = args, meta, distilling, judging, world
        self.start = functools.partial(
            Experiment, args, train=train, test=test, distilling=distilling, judging=judging, world=world
        )
        self.ended = []  # [experiment, canvases, labels, {architecture: [accuracy]}] of each
        self.experiment = None
        self.began = time.perf_counter()

    def state_dict(self):
        return {
            "meta": self.meta,
            "arithmetic": [[a.device.type, a.precision, a.compiled] for a in (self.distilling, self.judging)],
            "seconds": time.perf_counter() - self.began,
            "ended": self.ended,
            "experiment": self.experiment and self.experiment.state_dict(),
        }

    def load_state_dict(self, state):
        """Go on from a `state_dict` of a run with the same settings; UserError if it is none."""
        try:
            self.meta, self.ended = state["meta"], state["ended"]
            self.began -= state["seconds"]
            if state["experiment"]:
                self.experiment = self.start(state["experiment"]["exp"])
                self.experiment.load_state_dict(state["experiment"])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if utils.is_lack_of_memory(error):
                raise
            raise UserError(
                f"--resume: the checkpoint is of another version of these scripts ({type(error).__name__}); go on with "
                "that version, or --overwrite"
            ) from error

    def go(self, files, signals, saved=None):
        """Run what is left and write its records. saved: the checkpoint to go on from; None: from the beginning."""
        bytes_kept = 0
        if saved:
            self.load_state_dict(saved)
            bytes_kept = saved["log_bytes"]
            saved["experiment"] = None  # or a second copy of the pool would stay
        record = runs.Record(files, self.args.checkpoint_minutes, signals, self.state_dict, self.world, bytes_kept)
        with contextlib.closing(record):
            try:
                if not saved:
                    record.save()  # before the first event, so that no log is ever without a checkpoint
                if bytes_kept:
                    here = {"distilling": str(self.distilling), "judging": str(self.judging)}
                    record.log.write(
                        "resume", **self.position(), command=sys.argv, arithmetic=here, versions=utils.versions()
                    )
                else:
                    record.log.write("start", command=sys.argv, **self.meta)
                self.run_experiments(record)
            except utils.DivergedError as error:
                record.log.write("diverged", reason=str(error))
                raise
            except utils.Stopped as stop:
                record.save()
                record.check()
                record.log.write("interrupted", signal=str(stop), **self.position())
                raise utils.Stopped(
                    f"stopped by {stop}; the same command with --resume goes on from {files.checkpoint}"
                ) from None

    def run_experiments(self, record):
        files = record.files
        if self.ended:
            self.save_result(record)  # in case the process ended between a checkpoint and this
        for exp in cost.experiments(self.args)[len(self.ended) :]:
            self.experiment = self.experiment or self.start(exp)
            self.ended.append([exp, *self.experiment.run(record)])
            self.experiment = None
            record.save()
            self.save_result(record)
        record.check()
        accuracies = self.accuracies()
        summaries = {name: tables.summary(scores) for name, scores in accuracies.items()}
        record.log.write("end", seconds=time.perf_counter() - self.began, accuracy=summaries)
        if self.world.leads:
            record.log.sync()
            plot = self.plot(files)
            files.finish()
            print(tables.of_scores(accuracies))
            print(f"{files.result}\n{files.log}\n{files.grid(self.ended[-1][0], self.args.Iteration)}{plot}")

    def plot(self, files):
        """Draw the accuracy over iterations, if there were several evaluations; what to tell the user of it."""
        if self.args.Iteration <= self.args.eval_interval:
            return ""
        try:
            return f"\n{tables.plot_run(files.log)}"
        except (UserError, OSError) as error:  # such as a missing matplotlib: the run itself is done
            return f"\nno plot of the accuracy: {error}"

    def position(self):
        return {"exp": self.experiment.exp, "it": self.experiment.it} if self.experiment else {"ended": len(self.ended)}

    def accuracies(self):
        """{architecture: [[accuracy per network] per experiment]} of the experiments that have ended."""
        every = [scores for *_, scores in self.ended]
        return {name: [scores[name] for scores in every] for name in every[0]}

    def save_result(self, record):
        if not self.world.leads:
            return
        flat = {name: [a for experiment in scores for a in experiment] for name, scores in self.accuracies().items()}
        sets = [[canvases, labels] for _, canvases, labels, _ in self.ended]
        meta = {**self.meta, "experiments": [exp for exp, *_ in self.ended]}
        # Pickle writes equal strings once if they are one object: as copies, a resumed run's file has the same bytes.
        plain = json.loads(json.dumps({"accs_all_exps": flat, "meta": meta}))
        with record.writing():
            utils.save_torch({"data": sets, **plain}, record.files.result)


class Experiment:
    """One experiment on its way: its distiller, and how far it and its evaluation have come."""

    def __init__(self, args, exp, train, test, distilling, judging, world):
        self.args, self.exp, self.test, self.judging, self.world = args, exp, test, judging, world
        self.distiller = Distiller(args, exp, train, distilling, world)
        self.it = 0  # the iteration that comes next
        self.unread, self.since = 0, time.perf_counter()  # iterations whose losses are not reported yet, and since when
        self.scores = {}  # {architecture: [accuracy]}: the judges of iteration `it` that have finished

    def state_dict(self):
        return {
            "exp": self.exp,
            "it": self.it,
            "unread": self.unread,
            "seconds": time.perf_counter() - self.since,
            "scores": self.scores,
            "distiller": self.distiller.state_dict(),
        }

    def load_state_dict(self, state):
        self.it, self.unread, self.scores = state["it"], state["unread"], state["scores"]
        self.since = time.perf_counter() - state["seconds"]
        self.distiller.load_state_dict(state["distiller"])

    def run(self, record):
        """Distil what is left: canvases (n,ch,H,W) and labels on the host, and {architecture: [accuracy]} at the end.

        record: a runs.Record. Raises utils.Stopped where a signal asked for it, the state being fit for a checkpoint.
        """
        distiller = self.distiller
        progress = utils.Progress(self.args.Iteration, f"exp {self.exp}", done=self.it - self.unread)
        try:
            for it in range(self.it, self.args.Iteration + 1):
                self.it = it
                record.point()
                due = cost.evaluation_due(self.args, it)
                if self.unread and (due or self.unread == REPORT_EVERY):
                    self.report_losses(record.log, progress)
                if due:
                    self.evaluate(record, progress)
                    with record.writing():
                        save_picture(distiller, record.files.grid(self.exp, it))
                    record.check()
                    self.since = time.perf_counter()
                if it < self.args.Iteration:
                    self.scores = {}
                    distiller.iterate(it)
                    self.unread += 1
        finally:
            progress.close()
        return distiller.all_canvases().cpu(), distiller.labels.cpu(), self.scores

    def report_losses(self, log, progress):
        """Log and show the losses of the unread iterations; waits for the device."""
        losses, pool = self.distiller.read_losses(), len(self.distiller.pool.members)
        self.distiller.check_networks()
        seconds = (time.perf_counter() - self.since) / self.unread
        log.write("losses", exp=self.exp, it=self.it, pool=pool, seconds=seconds, **losses)
        accuracy = losses.pop("accuracy")
        values = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        line = (
            f"exp {self.exp}  iteration {self.it}/{self.args.Iteration}  {values}  "
            f"synthetic accuracy {accuracy:.1f} %  pool {pool}  {seconds:.2f} s/it"
        )
        progress.advance(self.unread, line, f"loss {losses['loss']:.4g}, accuracy {accuracy:.0f} %")
        self.unread, self.since = 0, time.perf_counter()

    def evaluate(self, record, progress):
        """Train num_eval fresh networks per architecture on the canvases and test them, into `scores`.

        Touches nothing that distillation uses, random streams included. A network's stream depends on the experiment,
        the architecture and its number alone, so that curves over iterations compare like with like, and so that
        networks in `scores` already need not be trained again.
        """
        args, distiller = self.args, self.distiller
        canvases = distiller.all_canvases()
        if not canvases.isfinite().all():  # by the update after the last loss
            raise utils.DivergedError(
                f"iteration {self.it}: canvases hold NaN or infinite values; a smaller --lr_img or --precision fp32 "
                "may help"
            )
        images = augment.split(canvases, distiller.factor)
        labels = augment.split_labels(distiller.labels, distiller.factor)
        protocol = evaluate.Protocol(args.epoch_eval_train, args.batch_train, args.lr_net, distiller.strategy)
        for name in evaluate.architectures(args.eval_mode, args.model):
            scores, began = self.scores.setdefault(name, []), time.perf_counter()
            if len(scores) == args.num_eval:
                continue  # judged, and logged, before the checkpoint
            while len(scores) < args.num_eval:
                record.point()
                number, score, stop = len(scores) + self.world.rank, None, None  # every process trains one
                progress.now(f"judging with {name} {number + 1}/{args.num_eval}")
                if number < args.num_eval:
                    rng = distiller.stream("judge", name, number)
                    try:
                        score = evaluate.judge(
                            name, images, labels, self.test, distiller.num_classes, protocol, rng, self.judging,
                            after_epoch=lambda epoch: record.stop_if_asked(),
                        )  # fmt: skip
                    except utils.Stopped as error:
                        stop = str(error)
                found, stops = zip(*self.world.gather_objects((score, stop)), strict=True)
                scores += itertools.takewhile(lambda score: score is not None, found)
                if any(stops):
                    raise utils.Stopped(next(filter(None, stops)))
            seconds = time.perf_counter() - began
            figures = tables.summary([scores])
            record.log.write("evaluation", exp=self.exp, it=self.it, network=name, accuracy=scores, seconds=seconds)
            progress.say(
                f"exp {self.exp}  iteration {self.it}  {name}: accuracy {figures['mean']:.2f} +- {figures['std']:.2f} "
                f"% over {args.num_eval} networks, {seconds:.0f} s"
            )


def save_picture(distiller, path):
    """Write the canvases as a PNG grid, class by class with their names."""
    images = distiller.all_canvases()
    if not distiller.world.leads:
        return
    if distiller.real.whitening:
        images = distiller.real.whitening.invert(images)
    images = data.denormalise(images, distiller.real.mean, distiller.real.std)
    figures.grid(images, distiller.labels, distiller.real.classes, path)
