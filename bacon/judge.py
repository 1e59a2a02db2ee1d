"""The field's judge: train fresh networks on a decoded synthetic set, test them on real images.

The default protocol is that of Dataset Condensation (Zhao et al. 2021) as BACON and IDM use it: the last epoch of the
last iteration counts, nothing is selected on the test set.
"""

import dataclasses
import itertools

import torch
import torch.nn.functional as F

import augment
import utils
from bacon import dc_augment


def _dsa(images, strategy, rng):
    return augment.dsa(images, augment.draw(strategy, len(images), rng))


AUGMENTATIONS = {"DSA": _dsa, "DC": dc_augment.apply}  # name: (images, strategy, rng) -> images


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a judging network trains: batches of `batch`, rate `lr`, DSA with the operations `strategy`. optimizer: a key
    of SCHEDULES, which also sets the rate's schedule over `epochs`. cutmix: probability per batch. augmentation: a key
    of AUGMENTATIONS, in place of DSA. steps: if not 0, batches to train on, and schedule over, in place of epochs."""

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
        """Passes over the set, if not `steps` end them: with SGD one more than `epochs`, as in the published code."""
        return self.steps or self.epochs + (self.optimizer == "sgd")

    def images(self, n):
        """Images of a set of n that a network is trained on, each as often as it comes."""
        return self.steps * min(self.batch, n) or self.passes * n

    def __str__(self):
        length = f"{self.steps} steps" if self.steps else f"{self.epochs} epochs"
        augmented = f"{self.augmentation} {'_'.join(self.strategy) or 'none'}"
        mixed = f", CutMix {self.cutmix}" if self.cutmix else ""
        return f"{length}, batch {self.batch}, {self.optimizer} {self.lr:g}, {augmented}{mixed}"


def _new_sgd(net, lr, optimizer, arithmetic):
    return arithmetic.optimizer(net, lr, decay=True)  # momentum starts from zero again


def _same_adamw(net, lr, optimizer, arithmetic):
    optimizer = optimizer or torch.optim.AdamW(net.parameters())  # its weight decay is PyTorch's default, 0.01
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


# name: (the optimizer at a new rate, the epochs after which the rate changes, by which factor)
SCHEDULES = {
    "sgd": (_new_sgd, lambda epochs: {epochs // 2 + 1}, 0.1),
    "adamw": (_same_adamw, lambda epochs: {max(1, k * epochs // 5) - 1 for k in (1, 2, 3, 4)}, 0.5),
}


def train(net, images, labels, protocol, rng, arithmetic, after_epoch=None):
    """Train `net` on images (n,C,H,W) float32, normalised and decoded, in shuffled batches, the last partial one kept.

    labels: int64 (n,), or soft ones, probabilities (n, classes). after_epoch: function(number of the epoch, net), to be
    called after each; it may test the network, or raise to give up. By the paper's protocol: SGD with momentum 0.9 and
    weight decay 5e-4; after epoch index epochs // 2 + 1 a new SGD at a tenth of the rate, its momentum from zero.
    """
    net.train()
    make, drops, factor = SCHEDULES[protocol.optimizer]
    drops, lr = drops(protocol.steps or protocol.epochs), protocol.lr
    optimizer = make(net, lr, None, arithmetic)
    if protocol.cutmix and labels.dim() == 1:
        labels = F.one_hot(labels, net.classifier.out_features).float()
    units, left = itertools.count(), protocol.steps  # units of the schedule: epochs, or steps
    for epoch in range(protocol.passes):
        batches = utils.upload(rng.permutation(len(images)), images.device).split(protocol.batch)
        if protocol.steps:
            batches, left = batches[:left], left - len(batches[:left])
        for number, index in enumerate(batches, 1):
            batch = AUGMENTATIONS[protocol.augmentation](images[index], protocol.strategy, rng)
            targets = labels[index]
            if protocol.cutmix:
                batch, targets = augment.cutmix(batch, targets, protocol.cutmix, rng)
            arithmetic.training_step(net, optimizer, batch, targets)
            if (protocol.steps or number == len(batches)) and next(units) in drops:
                lr *= factor
                optimizer = make(net, lr, optimizer, arithmetic)
        if after_epoch:
            after_epoch(epoch, net)
            net.train()
        if protocol.steps and not left:
            break


@torch.no_grad()
def accuracy(net, test, arithmetic):
    """Share of the whole test set (a data.RealData) that `net`, in eval mode, classifies correctly, in [0, 1]."""
    net.eval()
    step = arithmetic.chunk(test.images.shape[2:])
    pieces = (slice(start, start + step) for start in range(0, len(test), step))
    correct = sum(arithmetic.correct(net, *test.batch(piece)) for piece in pieces)
    return correct.item() / len(test)


def judge(name, images, labels, test, num_classes, protocol, rng, arithmetic, after_epoch=None):
    """Train one fresh network `name` on a decoded synthetic set; returns its accuracy on the test set, in [0, 1]."""
    net = arithmetic.build(name, images.shape[1:], num_classes, rng)
    train(net, images, labels, protocol, rng, arithmetic, after_epoch)
    return accuracy(net, test, arithmetic)
