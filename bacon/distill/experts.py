"""Networks trained beforehand, at moments of their training, on which canvases are matched in place
of a pool.

MTT (Cazenavette et al., CVPR 2022) keeps experts' trajectories; here canvases are matched on their
embeddings, at all stages of training.
"""

import dataclasses

import augment
import networks
import utils

MOMENTS = 10  # at which an expert is kept, the first of them untrained


def moments(steps):
    """The training steps after which an expert of so many steps is kept.

    steps * (k / 9)^2 for k = 0 to 9, rounded: the closer together the earlier, because networks
    change fastest at first.
    """
    last = MOMENTS - 1
    return [round(steps * (k / last) ** 2) for k in range(MOMENTS)]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """An expert at a moment of its training.

    accuracy: in percent, of the batches since the moment before; 0 for an untrained network.
    is_late: whether the moment is in the second half of `moments`.
    """

    net: networks.Network
    accuracy: float
    is_late: bool

    def percent(self):
        """Its training accuracy in percent, as of a pool.Member."""
        return self.accuracy


def train(trainer, number, state=None):
    """Train expert `number` of a run; yields its state at each moment that is still to come.

    trainer: a pool.Trainer of experiment 0, so that all experiments of a seed have the same
    experts. state: what an earlier call yielded, to go on from there to the same bits. A state
    holds tensors of the host and plain containers.
    """
    args = trainer.args
    member = trainer.fresh(f"expert {number}")
    strategy = augment.parse_strategy(args.dsa_strategy)
    kept = []
    done = 0
    if state is not None:
        # Pickle writes equal strings once if they are one object: with the keys of this module a
        # state has the same bytes, stopped or not.
        kept = [_moment(one["steps"], one["accuracy"], one["net"]) for one in state["kept"]]
        member.net.load_state_dict(kept[-1]["net"])
        member.optimizer.load_state_dict(state["optimizer"])
        done = kept[-1]["steps"]
    for steps in moments(args.expert_steps)[len(kept) :]:
        member.reset_meter()
        rng = utils.stream(args.seed, 0, "expert", number, steps)
        trainer.train(member, steps - done, rng, strategy)
        done = steps
        net = {name: tensor.cpu().clone() for name, tensor in member.net.state_dict().items()}
        kept.append(_moment(steps, float(member.percent()), net))
        yield {"kept": list(kept), "optimizer": member.optimizer.state_dict()}


def _moment(steps, accuracy, net):
    return {"steps": steps, "accuracy": accuracy, "net": net}


def snapshots(trainer, number, state):
    """The [`Snapshot`] of an expert whose training has ended."""
    found = []
    for k, moment in enumerate(state["kept"]):
        net = trainer.fresh(f"expert {number}").net
        net.load_state_dict(moment["net"])
        found.append(Snapshot(net, moment["accuracy"], is_late=k >= MOMENTS // 2))
    return found


def pick(of_experts, count, rng):
    """`count` distinct snapshots at random, fewer if there are not so many."""
    order = rng.permutation(len(of_experts))
    return [of_experts[i] for i in order[:count]]
