"""Facts about what a GPU would be kept waiting for, counted on a CPU.

How often the host waits for it, and uploads to it.
"""

import collections

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import augment
import utils
from bacon import compute, judge
from bacon.distill import distiller
from bacon.recipes import EVAL_NETWORKS

# Operations whose result the host needs, or whose result's size depends on values.
WAITING = {
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "bincount",
    "equal",
    "unique_consecutive",
}
WAITING |= {"_unique2", "unique_dim", "repeat_interleave"}
OF_A_NETWORK = 8  # weights and biases of three convolutions and the classifier


class Traffic(TorchDispatchMode):
    """While open, counts waits by their cause, and uploads by utils.upload.

    Whatever else crosses is a wait too.
    """

    def __init__(self, monkeypatch):
        super().__init__()
        self.waits, self.uploads, self.inside, self.host = collections.Counter(), 0, False, []
        for owner, name in (
            (torch.Tensor, "cpu"),
            (torch.Tensor, "tolist"),
            (torch.Tensor, "numpy"),
        ):
            self.watch(monkeypatch, owner, name, lambda *args, **kwargs: True)
        self.watch(
            monkeypatch, torch.Tensor, "to", lambda _, *args, **kwargs: self.is_device(args, kwargs)
        )
        for name in ("tensor", "as_tensor"):  # made on a GPU, they are uploads that block
            self.watch(
                monkeypatch, torch, name, lambda *args, **kwargs: self.is_device(args, kwargs)
            )
        upload, from_numpy = utils.upload, torch.from_numpy

        def counted(array, device):
            self.uploads, self.inside = self.uploads + 1, True
            uploaded = upload(array, device).clone()
            self.inside = False
            return uploaded

        monkeypatch.setattr(utils, "upload", counted)
        monkeypatch.setattr(
            torch, "from_numpy", lambda array: self.host.append(from_numpy(array)) or self.host[-1]
        )

    def watch(self, monkeypatch, owner, name, crosses):
        inner = getattr(owner, name)

        def watched(*args, **kwargs):
            if not self.inside and crosses(*args, **kwargs):
                self.waits[name] += 1
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    @staticmethod
    def is_device(args, kwargs):
        return isinstance(kwargs.get("device"), str | torch.device) or any(
            isinstance(a, str | torch.device) for a in args
        )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.waits[name] += 1
        if name.startswith(("index", "_index_put", "gather")):
            indices = [
                t
                for t in tree_leaves(args[1:3])
                if isinstance(t, torch.Tensor) and t is not args[0]
            ]
            on_host = {t.data_ptr() for t in self.host}
            self.waits["index on the host"] += any(t.data_ptr() in on_host for t in indices)
            self.waits["mask as index"] += any(t.dtype == torch.bool for t in indices)
        return func(*args, **(kwargs or {}))

    def of(self, function, *args):
        """(waits, uploads) of a call."""
        self.waits.clear()
        self.uploads = 0
        with self:
            function(*args)
        return dict(+self.waits), self.uploads


@pytest.fixture
def traffic(monkeypatch):
    return Traffic(monkeypatch)


@pytest.fixture
def arithmetic():
    return compute.Arithmetic("cpu")


def test_what_would_wait_is_counted(traffic):
    x, index = torch.arange(6.0), np.array([1, 2])
    assert traffic.of(lambda: x.sum().item()) == ({"_local_scalar_dense": 1}, 0)
    assert traffic.of(lambda: bool(x[0] > 1))[0]
    assert traffic.of(lambda: (x.tolist(), x.cpu(), x.numpy(), x.to("cpu")))[0].keys() >= {
        "tolist",
        "cpu",
        "numpy",
        "to",
    }
    assert traffic.of(lambda: x[x > 2])[0]["mask as index"]
    assert traffic.of(lambda: x[torch.from_numpy(index)]) == ({"index on the host": 1}, 0)
    assert traffic.of(lambda: torch.tensor([1.0], device="cpu"))[0] == {"tensor": 1}
    assert traffic.of(lambda: x.nonzero())[0] == {"nonzero": 1}
    assert traffic.of(lambda: x[utils.upload(index, "cpu")]) == ({}, 1)


@pytest.mark.parametrize(
    "flags", [{}, {"zca": True}, {"init": "noise", "aug": False}, {"clip_prior": "residual"}]
)
def test_an_iteration_waits_for_nothing_and_uploads_little(
    flags, traffic, arithmetic, digits, make_args
):
    args = make_args(net_generate_interval=2, fetch_net_num=2, **flags)
    d = distiller.begin(args, 0, digits.real("train"), arithmetic)
    canvases = 3  # indices of the real images, and what DSA does to them and to the synthetic ones
    pool = args.fetch_net_num * args.model_train_steps
    assert traffic.of(d.iterate, 0) == ({}, canvases + pool + args.net_push_num * OF_A_NETWORK)
    assert traffic.of(d.iterate, 1) == ({}, canvases + pool)
    assert traffic.of(d.trainer.train, d.pool.members[0], 2, utils.stream(0, "x")) == ({}, 2)
    waits, uploads = traffic.of(d.read_losses)
    assert sum(waits.values()) <= 5 and uploads == 0  # once in ten iterations


@pytest.mark.parametrize("augmentation", ["DSA", "IDC"])
@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_an_epoch_of_a_judge_waits_for_nothing(cutmix, augmentation, traffic, arithmetic, digits):
    real, rng = digits.real("train"), np.random.default_rng(0)
    images, labels = real.batch(slice(0, 40))
    labels = torch.nn.functional.one_hot(labels, 10).float() if cutmix else labels
    net = arithmetic.build("ConvNetW32", (1, 8, 8), 10, rng)
    strategy = augment.parse_strategy("color_crop_cutout_flip_scale_rotate")
    protocol = judge.Protocol(2, 16, 0.01, strategy, cutmix=cutmix, augmentation=augmentation)
    order, batches = 1, 3
    each = order + batches * (2 if cutmix else 1)
    epochs = protocol.passes
    assert traffic.of(judge.train, net, images, labels, protocol, rng, arithmetic) == (
        {},
        epochs * each,
    )
    waits, uploads = traffic.of(judge.accuracy, net, digits.real("test"), arithmetic)
    assert waits == {"_local_scalar_dense": 1} and uploads == 0


@pytest.mark.parametrize("name", sorted({n for mode in "MBAPN" for n in EVAL_NETWORKS[mode]}))
def test_no_network_waits(name, traffic, arithmetic):
    net = arithmetic.build(name, (3, 32, 32), 10, np.random.default_rng(0))
    optimizer = arithmetic.optimizer(net, 0.01, decay=True)
    step = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    assert traffic.of(arithmetic.training_step, net, optimizer, *step) == ({}, 0)
