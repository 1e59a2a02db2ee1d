"""Algorithm 1 in plain lines, class by class, as the paper's code runs it: the file to read first.

    python -m bacon.distill.plain

distils scikit-learn's handwritten digits to one canvas per class, in about a minute, and prints how
well a network does that has seen nothing else. distiller.py computes the same images, all classes
at once and many times faster; tests hold it to this file. The random streams, the networks, the
augmentation and the judge are those of the project.
"""

import dataclasses

import torch
import torch.nn.functional as F

import augment
import utils
from bacon import compute, flags, judge
from bacon.canvases import decode
from bacon.data import loading


@dataclasses.dataclass
class PoolNetwork:
    """A network of the pool.

    Its accuracy on the real images that it was trained on weighs the cross-entropy.
    """

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    correct: int = 0
    seen: int = 0

    def percent(self):
        return 100 * self.correct / self.seen if self.seen else 0


def matching_loss(method, real, synthetic):
    """How far the embeddings of a class's synthetic images are from those of its real ones.

    synthetic: (n, D). real: (m, D).
    """
    z = real.mean(0)
    z_syn = synthetic.mean(0)
    if method != "BACON":  # IDM and DM
        return (z_syn - z).square().sum()
    sigma = real.std(0).exp()
    log_likelihood = ((z_syn - z).square() / (2 * sigma**2)).sum()  # and a constant
    total_variation = (z_syn - z).abs().sum() / 2
    return log_likelihood + 0.8 * total_variation  # the clip prior as published is 0


def distil(args, real, iterations, exp=0):
    """Canvases (classes * ipc, C, H, W) after so many iterations.

    args: the flags. real: training images, a RealData. Every draw has a random stream of its own,
    named by what it is for.
    """
    classes = range(len(real.counts))
    factor = 2 if args.aug else 1  # with 2 a canvas holds four half-size images
    strategy = augment.parse_strategy(args.dsa_strategy)
    born = 0

    def stream(*name):
        return utils.stream(args.seed, exp, *name)

    def fresh_network(number):
        arithmetic = compute.Arithmetic("cpu")
        net = arithmetic.build(
            args.model, real.images.shape[1:], len(classes), stream("network", number)
        )
        decay = {"momentum": 0.9, "weight_decay": 5e-4} if args.net_decay else {}
        return PoolNetwork(net, torch.optim.SGD(net.parameters(), lr=args.lr_net, **decay))

    # Canvases start from real images, each at half its size where a canvas holds four.
    rows = []
    for c in classes:
        rng = stream("init", c)
        images = [real.take(real.indices(c, args.ipc, rng)) for _ in range(factor**2)]
        rows.append(augment.tile(torch.cat(images), factor))
    canvases = torch.cat(rows).requires_grad_()
    optimizer = torch.optim.SGD([canvases], lr=args.lr_img, momentum=0.5)

    pool = []
    for _ in range(min(3, args.net_num)):
        pool.append(fresh_network(born))
        born += 1

    for it in range(iterations):
        if it > 0 and it % args.meter_reset == 0:
            for network in pool:
                network.correct = 0
                network.seen = 0
        if it % args.net_generate_interval == 0:
            for _ in range(args.net_push_num):
                pool.append(fresh_network(born))
                born += 1
            pool = pool[-args.net_num :]  # the oldest leave
        order = stream("pick", it).permutation(len(pool))
        matched_on = [pool[i] for i in order[: args.train_net_num]]

        for k in range(args.outer_loop):
            for i, network in enumerate(matched_on):
                network.net.eval()
                loss_of_all = 0
                for c in classes:
                    # One DSA transform serves a class's real and synthetic images (Siamese).
                    rng = stream("class", it, k, i, c)
                    images = real.take(real.indices(c, args.batch_real, rng))
                    transform = augment.draw(strategy, 1, rng)
                    synthetic = augment.split(canvases[c * args.ipc : (c + 1) * args.ipc], factor)
                    synthetic = augment.dsa(synthetic, transform)
                    real_embedding = network.net.embed(
                        augment.dsa(images, transform), args.embed_last
                    )
                    embedding = network.net.embed(synthetic, args.embed_last)

                    loss = matching_loss(args.method, real_embedding.detach(), embedding)
                    if args.syn_ce:
                        labels = torch.full((len(synthetic),), c)
                        cross_entropy = F.cross_entropy(network.net.classify(synthetic), labels)
                        loss = loss + args.ce_weight * network.percent() * cross_entropy
                    if args.method == "DM":
                        loss_of_all = loss_of_all + loss
                        continue
                    # A step over all canvases: those of other classes go on drifting along their
                    # momentum.
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                if args.method == "DM":  # one step for all classes
                    optimizer.zero_grad()
                    loss_of_all.backward()
                    optimizer.step()

            order = stream("fetch", it, k).permutation(len(pool))
            for i, number in enumerate(order[: args.fetch_net_num]):
                network = pool[number]
                network.net.train()
                rng = stream("train", it, k, i)
                for _ in range(args.model_train_steps):
                    indices = real.any_indices(args.trained_bs, rng)
                    labels = real.labels_of(indices)
                    logits = network.net.classify(real.take(indices))
                    network.correct += (logits.argmax(1) == labels).sum().item()
                    network.seen += len(labels)
                    network.optimizer.zero_grad()
                    F.cross_entropy(logits, labels).backward()
                    network.optimizer.step()
    return canvases.detach()


def main():
    command = ["--dataset=Digits", "--model=ConvNetW32", "--ipc=1", "--Iteration=100"]
    args = flags.parse_args(("Digits",), __doc__, command).args
    dataset = loading.load("Digits", "data")
    test = dataset.real("test")
    labels = torch.arange(10).repeat_interleave(args.ipc)
    protocol = judge.Protocol(
        300, args.batch_train, args.lr_net, augment.parse_strategy(args.dsa_strategy)
    )
    for iterations in (0, args.Iteration):
        canvases = distil(args, dataset.real("train"), iterations)
        images, their_labels = decode(canvases, labels, 2)
        rng = utils.stream(args.seed, 0, "judge", args.model, 0)
        arithmetic = compute.Arithmetic("cpu")
        accuracy = judge.judge(
            args.model, images, their_labels, test, 10, protocol, rng, arithmetic
        )
        print(
            f"after {iterations} iterations: {100 * accuracy:.2f} % of the test digits", flush=True
        )


if __name__ == "__main__":
    main()
