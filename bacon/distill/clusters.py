"""Initial images that stand for a class: of each cluster the image that a network is surest of.

Clusters are those of a class's embeddings. After DREAM (Liu et al., ICCV 2023), which draws real
batches by cluster, and RDED (Sun et al., CVPR 2024), which stores the patches that a network is
surest of.
"""

import warnings

import numpy as np
import torch
import torch.nn.functional as F

import augment
from bacon.recipes import factor

STEPS = 500  # that the embedding network is trained for, with DSA
DIMENSIONS = 64  # that embeddings are projected to at random
_PIECE = 1000  # images at a time


def by_trained_network(trainer, count, rng, streams):
    """Real images to start from, {class: indices (count,)}, as a network trained for it sees them.

    trainer: a pool.Trainer; the network is none of the pool's. rng: for its training.
    streams: see `representatives`.
    """
    args = trainer.args
    member = trainer.fresh("cluster")
    trainer.train(member, STEPS, rng, augment.parse_strategy(args.dsa_strategy))
    net = member.net.eval()

    def embed(images):
        return trainer.arithmetic.embed_and_classify(net, images, args.embed_last)

    return representatives(embed, trainer.real, count, factor(args), streams)


def representatives(embed, real, count, shrink, streams):
    """For each class of `streams` indices (count,) of its real images, in random order.

    Embeddings, projected to DIMENSIONS, fall into `count` clusters by k-means. Of the half of a
    cluster that is nearest to its centre (of two images, which are equally near, both) the
    likeliest image of the class is taken. A class of fewer images gives all it has, some of them
    again.

    embed: function(images) -> embeddings (n, D), logits (n, classes). real: a RealData.
    shrink: images are seen as a canvas will hold them, 1/shrink of their size.
    streams: {class: generator}. Returns {class: indices}.
    """
    from sklearn.cluster import KMeans  # here, because it takes a second to import
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    chosen = {}
    for c, rng in streams.items():
        indices = np.sort(real.indices(c, real.counts[c], rng))
        embeddings, confidence = _seen(embed, real, indices, shrink, c)
        embeddings = embeddings @ rng.standard_normal((embeddings.shape[1], DIMENSIONS))
        clusters = min(count, len(indices))
        means = KMeans(clusters, n_init=1, random_state=int(rng.integers(2**31)))
        with warnings.catch_warnings():
            # Of equal images some clusters stay empty; the others are all that is needed.
            warnings.simplefilter("ignore", ConvergenceWarning)
            with threadpool_limits(1):  # sums over threads come in any order
                means.fit(embeddings)
        distance = np.linalg.norm(embeddings - means.cluster_centers_[means.labels_], axis=1)
        best = []
        for k in np.unique(means.labels_):
            members = np.flatnonzero(means.labels_ == k)
            near = members[np.argsort(distance[members], kind="stable")][: len(members) // 2 + 1]
            best.append(indices[near[confidence[near].argmax()]])
        chosen[c] = np.resize(rng.permutation(best), count)
    return chosen


@torch.no_grad()
def _seen(embed, real, indices, shrink, c):
    """Embeddings (n, D) of images and their probabilities of class c (n,), float64 on the host."""
    embeddings = []
    confidence = []
    for start in range(0, len(indices), _PIECE):
        images = real.take(indices[start : start + _PIECE])
        height, width = images.shape[2:]
        for size in ((height // shrink, width // shrink), (height, width)):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        embedding, logits = embed(images)
        embeddings.append(embedding.double().cpu().numpy())
        confidence.append(logits.double().softmax(1)[:, c].cpu().numpy())
    return np.concatenate(embeddings), np.concatenate(confidence)
