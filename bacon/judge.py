"""The field's judge: train fresh networks on a decoded synthetic set, test them on real images.

The default protocol is that of Dataset Condensation (Zhao et al. 2021) as BACON and IDM use it: the
last epoch of the last iteration counts, nothing is selected on the test set.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

import augment
import networks
import utils
from bacon import dc_augment, idc_augment
from bacon.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a batch, and how CutMix chooses its box.

    apply: function(images, strategy, rng) -> images.
    cutmix: function(images, targets, probability, rng) -> images, targets.
    """

    apply: Callable
    cutmix: Callable = augment.cutmix


def _dsa(images, strategy, rng):
    return augment.dsa(images, augment.draw(strategy, len(images), rng))


AUGMENTATIONS = {
    "DSA": Augmentation(_dsa),
    "DC": Augmentation(dc_augment.apply),
    "IDC": Augmentation(idc_augment.apply, idc_augment.cutmix),
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which optimizer trains a judge, and when its rate falls.

    start: function(net, rate, arithmetic) -> a new torch.optim.Optimizer.
    drops: function(length) -> [after how much of a training of that length the rate falls].
    factor: what the rate is multiplied with at each drop.
    restarts: whether a drop starts a new optimizer, its momentum from zero; else the old goes on.
    extra_epochs: epochs trained beyond those asked for.
    """

    start: Callable
    drops: Callable
    factor: float
    restarts: bool = False
    extra_epochs: int = 0


def _sgd(net, rate, arithmetic):
    return arithmetic.optimizer(net, rate, decay=True)


def _adamw(net, rate, arithmetic):
    return torch.optim.AdamW(net.parameters(), lr=rate)  # weight decay: PyTorch's default, 0.01


def _past_the_middle(length):
    return [length // 2 + 2]


def _at_each_fifth(length):
    return sorted({max(1, fifths * length // 5) for fifths in (1, 2, 3, 4)})


def _at_two_thirds_and_five_sixths(length):
    return [2 * length // 3, 5 * length // 6]


SCHEDULES = {
    "sgd": Schedule(_sgd, _past_the_middle, 0.1, restarts=True, extra_epochs=1),  # as published
    "adamw": Schedule(_adamw, _at_each_fifth, 0.5),
    "sgd (IDC)": Schedule(_sgd, _at_two_thirds_and_five_sixths, 0.2),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a judging network trains.

    epochs: passes over the set, see `passes`. batch: images in one. lr: the rate.
    strategy: operations of DSA. optimizer: a key of SCHEDULES, which also sets the rate's schedule
    over `epochs`. cutmix: probability per batch. augmentation: a key of AUGMENTATIONS, in place of
    DSA. steps: if not 0, batches to train on, and schedule over, in place of epochs.
    """

    epochs: int
    batch: int
    lr: float
    strategy: tuple
    optimizer: str = "sgd"
    cutmix: float = 0.0
    augmentation: str = "DSA"
    steps: int = 0

    @property
    def passes(self):
        """Passes over the set where no `steps` are given: `epochs`, or more by the schedule."""
        return self.epochs + SCHEDULES[self.optimizer].extra_epochs

    def batches(self, n):
        """Batches of a pass over n images, the last partial one counted."""
        return math.ceil(n / self.batch)

    def length(self, n):
        """Steps of a training on n images."""
        return self.steps or self.passes * self.batches(n)

    def has_batch_of_one(self, n):
        """Whether a training on n images has a step on a single one."""
        if self.batch == 1:
            return True
        return n % self.batch == 1 and self.length(n) >= self.batches(n)

    def rates(self, n):
        """The rates of a training on n images: {steps done: the rate from then on}."""
        schedule = SCHEDULES[self.optimizer]
        steps_of_a_unit = 1 if self.steps else self.batches(n)
        rate = self.lr
        rates = {0: rate}
        for units in schedule.drops(self.steps or self.epochs):
            rate *= schedule.factor
            rates[units * steps_of_a_unit] = rate
        return rates

    def images(self, n):
        """Images of a set of n that a network is trained on, each as often as it comes."""
        whole_passes, batches_left = divmod(self.length(n), self.batches(n))
        return whole_passes * n + batches_left * self.batch

    def settings(self):
        """The fields as a dictionary that JSON can hold."""
        return dataclasses.asdict(self) | {"strategy": list(self.strategy)}

    def __str__(self):
        length = f"{self.steps} steps" if self.steps else f"{self.epochs} epochs"
        augmented = f"{self.augmentation} {'_'.join(self.strategy) or 'none'}"
        mixed = f", CutMix {self.cutmix}" if self.cutmix else ""
        return f"{length}, batch {self.batch}, {self.optimizer} {self.lr:g}, {augmented}{mixed}"


def check_batches(name, shape, n, num_classes, protocol):
    """UserError if the network `name` cannot take every batch of a training on n images.

    shape: of an image, (C, H, W).
    """
    if not protocol.has_batch_of_one(n):
        return
    channels, height, width = shape
    if not networks.needs_two_images(name, channels, num_classes, (height, width)):
        return
    advice = "choose another --model"
    for batch in range(protocol.batch + 1, n + 1):
        if n % batch != 1:
            advice = f"choose --batch_train {batch} or another --model"
            break
    made = f"{n} images make a batch of one, on which {name} cannot be trained at {height}x{width}"
    raise UserError(f"--batch_train {protocol.batch}: {made}; {advice}")


def protocol_of_run(args, strategy):
    """How the judges of a run train. args: its flags. strategy: see `Protocol`."""
    return Protocol(
        args.epoch_eval_train, args.batch_train, args.lr_net, strategy, steps=args.judge_steps
    )


def train(net, images, labels, protocol, rng, arithmetic, after_epoch=None):
    """Train `net` in shuffled batches, the last partial one kept.

    images: (n,C,H,W) float32, normalised and decoded. labels: int64 (n,), or soft ones,
    probabilities (n, classes). rng: the only source of randomness. after_epoch: function(number of
    the pass, net), to be called after each; it may test the network, or raise. By the paper's
    protocol: SGD with momentum 0.9 and weight decay 5e-4; after epoch index epochs // 2 + 1 a new
    SGD at a tenth of the rate, its momentum from zero.
    """
    schedule = SCHEDULES[protocol.optimizer]
    augmentation = AUGMENTATIONS[protocol.augmentation]
    length = protocol.length(len(images))
    rates = protocol.rates(len(images))
    if protocol.cutmix and labels.dim() == 1:
        labels = F.one_hot(labels, net.classifier.out_features).float()

    net.train()
    optimizer = schedule.start(net, rates[0], arithmetic)
    step = 0
    epoch = 0
    while step < length:
        order = utils.upload(rng.permutation(len(images)), images.device)
        for index in order.split(protocol.batch)[: length - step]:
            batch = augmentation.apply(images[index], protocol.strategy, rng)
            targets = labels[index]
            if protocol.cutmix:
                batch, targets = augmentation.cutmix(batch, targets, protocol.cutmix, rng)
            arithmetic.training_step(net, optimizer, batch, targets)
            step += 1
            if step in rates:
                optimizer = _at_rate(rates[step], schedule, net, optimizer, arithmetic)
        if after_epoch:
            after_epoch(epoch, net)
            net.train()
        epoch += 1


def _at_rate(rate, schedule, net, optimizer, arithmetic):
    """The optimizer that goes on at a new rate: a new one, or the same with its momentum."""
    if schedule.restarts:
        return schedule.start(net, rate, arithmetic)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return optimizer


@torch.no_grad()
def accuracy(net, test, arithmetic):
    """Share of the whole test set that `net`, in eval mode, classifies correctly, in [0, 1].

    test: a RealData.
    """
    net.eval()
    size = arithmetic.chunk(test.images.shape[2:])
    correct = 0
    for start in range(0, len(test), size):
        images, labels = test.batch(slice(start, start + size))
        correct = correct + arithmetic.correct(net, images, labels)
    return correct.item() / len(test)


def judge(name, images, labels, test, num_classes, protocol, rng, arithmetic, after_epoch=None):
    """Train one fresh network on a decoded synthetic set; its accuracy on the test set, in [0, 1].

    name: of networks.NETWORKS. The other arguments are those of `train` and `accuracy`. UserError
    as of `check_batches`.
    """
    check_batches(name, images.shape[1:], len(images), num_classes, protocol)
    net = arithmetic.build(name, images.shape[1:], num_classes, rng)
    train(net, images, labels, protocol, rng, arithmetic, after_epoch)
    return accuracy(net, test, arithmetic)
