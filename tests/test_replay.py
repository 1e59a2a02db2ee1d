"""Facts about replay_released.py, on a small repository in the shape of the authors'.

It is made here from parts of ours.
"""

import functools
import os
import sys

import pytest
import released
import replay_released
import torch

import networks
import utils

# What the script of a stand-in imports: data, networks, augmentation and judge, with the authors'
# names and draws.
DC_UTILS = """
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage.interpolation import rotate
from torchvision import datasets, transforms

import augment
import networks
from bacon.recipes import DATASETS


def get_dataset(name):
    spec = DATASETS[name]
    normalise = transforms.Normalize(spec.mean, spec.std)
    transform = transforms.Compose([transforms.ToTensor(), normalise])
    kind = getattr(datasets, name)
    options = {"download": True, "transform": transform}
    return [kind("data", train=part, **options) for part in (True, False)]


def get_network(name, *shape):
    return networks.build(name, *shape, np.random.default_rng())


def DiffAugment(x, strategy, seed=-1, param=None):
    n, side, u = len(x), x.shape[2], torch.zeros(len(x), 3)
    op = strategy.split("_")[torch.randint(0, 6, size=(1,)).item()]
    k, c = int(side / 8 + 0.5), int(side / 2 + 0.5)
    if op in ("crop", "cutout"):
        low, high = (-k, k + 1) if op == "crop" else (0, side + 1 - c % 2)
        for column in (0, 1):
            whole = torch.randint(low, high, size=[n, 1, 1]).view(n)
            u[:, column] = (whole - low + 0.5) / (high - low)
    else:
        for column in range({"color": 3, "scale": 2}.get(op, 1)):
            u[:, column] = torch.rand(n, 1, 1, 1).view(n)
    return augment.dsa(x, augment.Transform(op, u))


def evaluate(net, images, labels, test, args):
    data = torch.utils.data.TensorDataset(images.float(), labels)
    size = args["batch_train"]
    batches = torch.utils.data.DataLoader(data, batch_size=size, shuffle=True, num_workers=0)
    lr = args["lr_net"]
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    for epoch in range(args["epoch_eval_train"] + 1):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(DiffAugment(x, args["dsa_strategy"])), y).backward()
            optimizer.step()
        if epoch == args["epoch_eval_train"] // 2 + 1:
            lr = lr * 0.1
            optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    batches = torch.utils.data.DataLoader(test, batch_size=128, shuffle=False, num_workers=2)
    right = sum((net(x).argmax(1) == y).sum().item() for x, y in batches)
    return right / len(test)
"""
SCRIPT = """
import os
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F
import torchnet

import augment
from dc_utils import DiffAugment, evaluate, get_dataset, get_network


def main():
    strategy = "color_crop_cutout_flip_scale_rotate"
    args = dict(word[2:].split("=") for word in sys.argv[1:] if "=" in word)
    args = {name: float(value) if "." in value else int(value) if value.isdigit() else value
            for name, value in args.items()}
    args = {"lr_net": 0.01, "dsa_strategy": strategy, **args}
    ipc, shape = args["ipc"], (3, 10, (32, 32))
    train, test = get_dataset(args["dataset"])
    images, labels = torch.stack([x for x, _ in train]), torch.tensor([y for _, y in train])
    of_class = [torch.nonzero(labels == c).flatten().tolist() for c in range(10)]

    def real(c, n):
        return images[np.random.permutation(of_class[c])[:n]]

    x = torch.randn(10 * ipc, *images.shape[1:], dtype=torch.float)
    for c in range(10):
        x[c * ipc : (c + 1) * ipc] = augment.tile(torch.cat([real(c, ipc) for _ in range(4)]))
    x.requires_grad_()
    label_syn = torch.arange(10).repeat_interleave(ipc)
    optimizer = torch.optim.SGD([x], lr=args["lr_img"], momentum=0.5)

    def fresh():
        net = get_network(args["model"], *shape)
        sgd = torch.optim.SGD(net.parameters(), lr=args["lr_net"], momentum=0.9, weight_decay=5e-4)
        return net, sgd, torchnet.meter.ClassErrorMeter(accuracy=True)

    pool, accuracies = [fresh() for _ in range(3)], []
    for it in range(args["Iteration"] + 1):
        if it and it % args["eval_interval"] == 0:
            decoded = augment.split(x.detach())
            judging = get_network("ConvNet", *shape)
            accuracy = evaluate(judging, decoded, label_syn.repeat(4), test, args)
            accuracies = [accuracy] if it == args["Iteration"] else []
            for *_, meter in pool:
                meter.reset()
        if it % args["net_generate_interval"] == 0:
            pool = (pool + [fresh()])[-args["net_num"] :]
        order = list(range(len(pool)))
        random.shuffle(order)
        for net, _, meter in [pool[i] for i in order[: args["train_net_num"]]]:
            for c in range(10):
                z = real(c, args["batch_real"])
                synthetic = augment.split(x[c * ipc : (c + 1) * ipc])
                z, synthetic = (DiffAugment(batch, strategy, seed=it) for batch in (z, synthetic))
                loss = (net.embed(z).mean(0) - net.embed(synthetic).mean(0)).square().sum()
                weight = args["ce_weight"] * (meter.value()[0] if meter.n else 0)
                own = torch.full((len(synthetic),), c)
                loss = loss + weight * F.cross_entropy(net(synthetic), own)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        order = list(range(len(pool)))
        random.shuffle(order)
        for net, sgd, meter in [pool[i] for i in order[: args["fetch_net_num"]]]:
            for _ in range(args["model_train_steps"]):
                batch = np.random.permutation(sum(of_class, []))[: args["trained_bs"]]
                logits = net(images[batch])
                sgd.zero_grad()
                F.cross_entropy(logits, labels[batch]).backward()
                sgd.step()
                meter.add(logits.detach(), labels[batch])
    os.mkdir("result")
    saved = {"data": [[x.detach(), label_syn]], "accs_all_exps": {"ConvNet": accuracies}}
    torch.save(saved, "result/res_IDM.pt")
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A stand-in for the authors' repository, in which texts may be replaced."""
    monkeypatch.setitem(
        networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=4, depth=1)
    )
    monkeypatch.setattr(
        replay_released, "made_images", functools.partial(replay_released.made_images, per_class=8)
    )
    monkeypatch.setattr(
        replay_released, "COMMAND", [*replay_released.COMMAND, "--batch_real=4", "--trained_bs=8"]
    )

    def make(before="", after=""):
        assert before in SCRIPT + DC_UTILS
        for name, text in {
            "IDM_cifar10": SCRIPT,
            "dc_utils": DC_UTILS,
            "utils": "import kornia",
        }.items():
            (tmp_path / f"{name}.py").write_text(text.replace(before, after) if before else text)
        return tmp_path

    return make


def test_a_script_that_does_the_same_agrees_and_nothing_is_left_changed(checkout, capsys):
    folder = checkout()
    before = (
        sorted(folder.rglob("*")),
        os.getcwd(),
        list(sys.path),
        torch.Tensor.float,
        torch.utils.data.DataLoader,
    )
    assert replay_released.main([str(folder)]) == 0
    after = (
        sorted(folder.rglob("*")),
        os.getcwd(),
        list(sys.path),
        torch.Tensor.float,
        torch.utils.data.DataLoader,
    )
    assert before == after
    assert (
        sys.modules["utils"] is utils
        and "dc_utils" not in sys.modules
        and "kornia" not in sys.modules
    )
    assert torch.get_default_dtype() == torch.float32
    out = capsys.readouterr().out
    assert out.startswith("commit unknown") and out.endswith("\nagree: no difference above 1e-10\n")
    assert "2 of 7 networks left the pool" in out and all(
        f"{op} " in out for op in replay_released.augment.OPS
    )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("momentum=0.5", "momentum=0.4", "momentum of the canvases"),
        ("meter.reset()", "pass", "canvases at the end"),
        ("lr * 0.1", "lr * 0.2", "weights of the judges"),
        (
            '[-args["net_num"] :]',
            "",
            "their code draws networks of the pool from others, or another number",
        ),
        (", seed=it", "", "their code draws augmentations from others, or another number"),
        (
            "+ 1):\n        for x, y",
            "+ 2):\n        for x, y",
            "their code draws augmentations from others",
        ),
        ('order[: args["fetch_net_num"]]', "order[:1]", "images of all classes less often"),
        ("of_class[c])", "of_class[0])", "their code draws images of a class from others"),
    ],
)
def test_a_script_that_does_anything_else_differs(checkout, capsys, before, after, words):
    assert replay_released.main([str(checkout(before, after))]) == 1
    out = capsys.readouterr().out
    assert out.endswith("\ndiffer: IDM_cifar10.py\n")
    (line,) = (line for line in out.splitlines() if words in line)
    assert line.startswith("  their code draws") or float(line.split()[-1]) > 1e-6


def test_without_a_checkout_one_line_says_what_to_clone(tmp_path, capsys):
    for arguments in ([], [str(tmp_path)]):
        assert replay_released.main(arguments) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and "git clone https://github.com/zhouzhengqd/BACON" in text


def test_draws_are_taken_in_their_order_and_have_to_fit():
    class Numbers:
        def next(self):
            return 3

    draws = released.Draws()
    with draws.recorded(Numbers, "next", "numbers", lambda result, *args: [result, result + 1]):
        assert Numbers().next() == 3
    Numbers().next()
    assert draws.take("numbers") == 3
    with pytest.raises(released.Differs, match="draws numbers from others"):
        draws.take("numbers", lambda draw: draw == 3)
    with pytest.raises(released.Differs, match="draws numbers more often"):
        draws.take("numbers")
