"""Pictures of a set: its images class by class, and a map of them beside real ones."""

import numpy as np
import torch

import augment
import utils
from bacon import compute, figures, judge, messages, outputs
from bacon.recipes import COMMON
from bacon.score import protocols

# The map shows so many classes, and of each so many real images, as a network sees them that was
# trained on TSNE_TRAIN real ones for TSNE_EPOCHS.
TSNE_CLASSES = 10
TSNE_REAL = 100
TSNE_TRAIN = 5000
TSNE_EPOCHS = 10


def grid(saved, whitening, decode, out):
    """Draw the canvases of a SavedSet by class, or what they hold if `decode`, to `out`."""
    saved = saved.hard()
    images = saved.canvases
    labels = saved.labels
    if decode:
        images, labels = saved.decoded()
    pixels = saved.pixels(images, whitening)
    figures.grid(pixels, labels, saved.class_names(), outputs.prepare(out))
    messages.log.info(out)


def tsne(saved, real, whitening, args):
    """Draw a t-SNE of the first classes' real test images and synthetic ones to the file args.tsne,
    by the embeddings of a network that is trained on real training images.

    real: finding.RealImages of the SavedSet. args: the flags of evaluate.py.
    """
    arithmetic = compute.choose(args.device, args.precision, args.compile, 0)
    device = arithmetic.device
    rng = utils.stream(args.seed or 0, "t-SNE")
    name = args.model or saved.meta.get("args", {}).get("model", "ConvNet")
    protocols.check_networks([name], real.facts)
    known = real.of("train", saved.whitened_from, device, whitening)
    held_out = real.of("test", saved.whitened_from, device, whitening)

    net = arithmetic.build(name, real.facts.shape, real.facts.num_classes, rng)
    index = known.any_indices(TSNE_TRAIN, rng)
    strategy = augment.parse_strategy(COMMON["dsa_strategy"])
    protocol = judge.Protocol(TSNE_EPOCHS, 256, 0.01, strategy)
    judge.train(net, *known.batch(index), protocol, rng, arithmetic)
    net.eval()

    classes = dict(enumerate(real.dataset.classes[:TSNE_CLASSES]))
    chosen = np.concatenate([held_out.indices(c, TSNE_REAL, rng) for c in classes])
    images, labels = saved.hard().decoded()
    shown = labels < len(classes)
    real_images, real_labels = held_out.batch(chosen)
    with torch.no_grad():
        of_real = arithmetic.embed(net, real_images, None)
        of_set = arithmetic.embed(net, images[shown].to(device), None)
    title = f"t-SNE of {name}'s embeddings, trained on {len(index):,} real images"
    path = outputs.prepare(args.tsne)
    figures.tsne(of_real, real_labels, of_set, labels[shown], classes, path, title)
    messages.log.info(args.tsne)
