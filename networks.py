"""The networks that distil and judge.

They are the ConvNet family of Gidaris & Komodakis (2018) as used by Dataset Condensation (Zhao et
al., 2021), DM, IDM and BACON, and the nets of their cross-architecture tables.

Every network is a list of feature modules and one linear classifier. `build` makes one with weights
from the caller's random stream; `check` makes one without memory, to count its parameters or to
learn early that it cannot be built.
"""

import difflib
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import utils


class Network(nn.Module):
    """`features`, flattened, then `classifier`. Images are (n, channels, H, W), float, normalised.

    `last` picks the features that make an embedding, as a Python slice does: features[:last]. None
    and the paper's 1000 take all of them, -1 leaves out the last.
    """

    def __init__(self, features, width, num_classes):
        """features: iterable of modules; width: how many numbers per image they end in."""
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(width, num_classes)

    def embed(self, images, last=None):
        """Flattened output of features[:last], (n, D)."""
        return _run(list(self.features)[:last], images).flatten(1)

    def classify(self, images):
        """Logits, (n, num_classes)."""
        return self._logits(self.embed(images))

    def embed_and_classify(self, images, last=None):
        """(embed(images, last), classify(images)) for the price of one forward pass."""
        modules = list(self.features)
        cut = len(modules[:last])
        x = _run(modules[:cut], images)
        return x.flatten(1), self._logits(_run(modules[cut:], x).flatten(1))

    def _logits(self, embedding):
        """The classifier in its own precision even under autocast.

        Logits in bfloat16 would tie between classes.
        """
        if embedding.device.type == "meta":  # which has no autocast
            return self.classifier(embedding)
        with torch.autocast(embedding.device.type, enabled=False):
            return self.classifier(embedding.to(self.classifier.weight.dtype))

    forward = classify

    @property
    def has_batch_statistics(self):
        """Whether an image's output depends on the rest of its batch (in train mode).

        That is what batch normalisation does.
        """
        return any(isinstance(module, nn.BatchNorm2d) for module in self.modules())


def _run(modules, x):
    for module in modules:
        x = module(x)
    return x


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the number format of its input.

    CUDA's autocast takes float32, which doubles what is read and written.
    """

    def forward(self, x):
        if not x.is_cuda:
            return super().forward(x)
        with torch.autocast("cuda", enabled=False):
            weight = self.weight.to(x.dtype)
            bias = self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


# Each norm is made for a (C, H, W) feature map; only layer norm needs H and W.


def _batch_norm(c, *size):
    return nn.BatchNorm2d(c)


def _layer_norm(*shape):
    return nn.LayerNorm(shape)


def _instance_norm(c, *size):
    """The field's: learnt scales and shifts, no running statistics, one channel per group."""
    return GroupNorm(c, c)


def _group_norm(c, *size):
    return GroupNorm(4, c)


# The keys are the endings of ConvNet's names.
NORMS = {"BN": _batch_norm, "LN": _layer_norm, "IN": _instance_norm, "GN": _group_norm}
# No activation works in place: an embedding may be a view of its input.
ACTIVATIONS = {"AS": nn.Sigmoid, "AR": nn.ReLU, "AL": nn.LeakyReLU, "ASwish": nn.SiLU}
POOLINGS = {"MP": nn.MaxPool2d, "AP": nn.AvgPool2d}


class Conv(NamedTuple):
    """A stage of `conv_stages`: a convolution of stride 1, norm, activation, and a pooling by 2.

    width: channels that come out. pooling: a key of POOLINGS, None for no pooling.
    """

    width: int
    kernel: int = 3
    padding: int = 1
    pooling: str | None = None


LENET = (Conv(6, 5, 0, "MP"), Conv(16, 5, 0, "MP"))
ALEXNET = (
    Conv(128, 5, 2, "MP"),
    Conv(192, 5, 2, "MP"),
    Conv(256),
    Conv(192),
    Conv(192, pooling="MP"),
)
VGG11 = (Conv(64, pooling="MP"), Conv(128, pooling="MP"), Conv(256), Conv(256, pooling="MP"))
VGG11 += 2 * (Conv(512), Conv(512, pooling="MP"))


def conv_stages(convs, channels, im_size, norm, activation="AR"):
    """The flat modules of `convs`, [Conv], and the (C, H, W) of their output.

    norm: of NORMS; None and pooling None contribute no module. The first convolution pads 28x28
    images, MNIST's, by 2 more on each side, so that they go on as 32x32 ones would. ValueError if a
    feature map would reach size 0.
    """
    channels_in = channels
    height, width = im_size
    modules = []
    for index, conv in enumerate(convs):
        padding = conv.padding
        if index == 0 and tuple(im_size) == (28, 28):
            padding += 2
        modules.append(nn.Conv2d(channels_in, conv.width, conv.kernel, padding=padding))
        channels_in = conv.width
        height += 2 * padding - conv.kernel + 1
        width += 2 * padding - conv.kernel + 1
        _check_size(im_size, height, width)
        if norm:
            modules.append(NORMS[norm](channels_in, height, width))
        modules.append(ACTIVATIONS[activation]())
        if conv.pooling:
            modules.append(POOLINGS[conv.pooling](2))
            height //= 2
            width //= 2
            _check_size(im_size, height, width)
    return modules, (channels_in, height, width)


def _check_size(im_size, height, width):
    if min(height, width) < 1:
        images = f"{im_size[0]}x{im_size[1]} images"
        raise ValueError(f"cannot take {images}: a feature map would reach size 0")


class ConvNet(Network):
    """`depth` times conv3x3 - norm - activation - pool2: the network of the paper.

    It is the only family whose features count one index per conv, norm, activation and pool, which
    is what `last` of the published recipes means.
    """

    def __init__(
        self,
        channels,
        num_classes,
        im_size,
        depth=3,
        width=128,
        norm="IN",
        activation="AR",
        pooling="AP",
    ):
        convs = [Conv(width, pooling=pooling)] * depth
        features, (c, h, w) = conv_stages(convs, channels, im_size, norm, activation)
        super().__init__(features, c * h * w, num_classes)


def feedforward(channels, num_classes, im_size, convs=(), hidden=(), norm=None):
    """MLP, LeNet, AlexNet and VGG: `convs`, then linear layers with ReLU of the widths `hidden`."""
    features, (c, h, w) = conv_stages(convs, channels, im_size, norm)
    width = c * h * w
    features.append(nn.Flatten())
    for outputs in hidden:
        features += nn.Linear(width, outputs), nn.ReLU()
        width = outputs
    return Network(features, width, num_classes)


class BasicBlock(nn.Module):
    """relu(main(x) + shortcut(x)) of He et al. (2016)."""

    def __init__(self, inputs, width, norm, halve=None):
        """inputs, width: channels that go in and come out. norm: of NORMS. halve: how it halves its
        map: None, "stride" or "pool"."""
        super().__init__()
        stride = 2 if halve == "stride" else 1
        pool = [nn.AvgPool2d(2)] if halve == "pool" else []
        self.main = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
            NORMS[norm](width),
            nn.ReLU(),
            *pool,
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            NORMS[norm](width),
        )
        self.shortcut = nn.Identity()
        if inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), *pool, NORMS[norm](width)
            )
        self.activation = nn.ReLU()

    def forward(self, x):
        return self.activation(self.main(x) + self.shortcut(x))


def resnet18(channels, num_classes, im_size, norm, halve="stride"):
    """ResNet18 with a 3x3 stem and no max pooling, for small images.

    Maps halved by "stride" end in an average pooling by 4; maps halved by "pool" do not, as in the
    released ResNet18BN_AP.
    """
    features = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), NORMS[norm](64), nn.ReLU()]
    for inputs, width in ((64, 64), (64, 128), (128, 256), (256, 512)):
        features.append(BasicBlock(inputs, width, norm, halve if inputs != width else None))
        features.append(BasicBlock(width, width, norm))
    height, width = [side // 8 for side in im_size]
    if halve == "stride":
        # Three times a stride of 2, which rounds up, then the pooling, which rounds down.
        features.append(nn.AvgPool2d(4))
        height, width = [(side + 7) // 8 // 4 for side in im_size]
    _check_size(im_size, height, width)
    return Network(features, 512 * height * width, num_classes)


# name -> constructor(channels, num_classes, im_size), im_size = (H, W).
NETWORKS = {
    "ConvNet": ConvNet,
    **{f"ConvNetD{depth}": partial(ConvNet, depth=depth) for depth in range(1, 9)},
    **{
        f"ConvNetW{width}": partial(ConvNet, width=width) for width in (32, 64, 128, 256, 512, 1024)
    },
    **{f"ConvNet{name}": partial(ConvNet, activation=name) for name in ACTIVATIONS},
    "ConvNetASwishBN": partial(ConvNet, activation="ASwish", norm="BN"),
    **{f"ConvNet{name or 'NN'}": partial(ConvNet, norm=name) for name in (None, *NORMS)},
    **{f"ConvNet{name or 'NP'}": partial(ConvNet, pooling=name) for name in (None, *POOLINGS)},
    "MLP": partial(feedforward, hidden=(128, 128)),
    "LeNet": partial(feedforward, convs=LENET, hidden=(120, 84)),
    "AlexNet": partial(feedforward, convs=ALEXNET),
    "AlexNetBN": partial(feedforward, convs=ALEXNET, norm="BN"),
    "VGG11": partial(feedforward, convs=VGG11, norm="IN"),
    "VGG11BN": partial(feedforward, convs=VGG11, norm="BN"),
    "ResNet18": partial(resnet18, norm="IN"),
    "ResNet18BN": partial(resnet18, norm="BN"),
    "ResNet18BN_AP": partial(resnet18, norm="BN", halve="pool"),
}


def named(name):
    """The key of NETWORKS that `name` is, in any letter case.

    ValueError, in one line, for a name that is none.
    """
    known = {key.lower(): key for key in NETWORKS}
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, 1)
    question = f"did you mean {known[near[0]]}? " if near else ""
    raise ValueError(f"unknown network {name!r}; {question}known are {', '.join(NETWORKS)}")


def check(name, channels, num_classes, im_size):
    """The network `name` for images (channels, *im_size), on the meta device.

    So it has shapes, but neither memory nor random numbers. ValueError, in one line, for a name
    that is none of NETWORKS and for images too small for it.
    """
    name = named(name)
    try:
        with torch.device("meta"):
            return NETWORKS[name](channels, num_classes, im_size)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def needs_two_images(name, channels, num_classes, im_size):
    """Whether the network `name` cannot be trained on a batch of one image (channels, *im_size).

    So it is where it normalises maps of a single pixel over the batch: one value has no spread.
    """
    net = check(name, channels, num_classes, im_size)
    try:
        net(torch.empty(1, channels, *im_size, device="meta"))
    except ValueError:
        return True
    return False


def flop(name, channels, num_classes, im_size, weights=True, image=False):
    """FLOP (2 per multiply-add) of one image in the network `name`.

    They are counted from shapes; nothing is computed. weights, image: whether the gradient with
    respect to these is counted too.
    """
    net = check(name, channels, num_classes, tuple(im_size)).requires_grad_(weights).eval()
    images = torch.empty(1, channels, *im_size, device="meta", requires_grad=image)
    with FlopCounterMode(display=False) as counter:
        logits = net(images)
        if weights or image:
            logits.sum().backward()
    return counter.get_total_flops()


@torch.no_grad()
def build(name, channels, num_classes, im_size, rng, device="cpu"):
    """A fresh network on `device`, in train mode, its weights in PyTorch's default distributions.

    Biases and weights of convolutions and linear layers are U(-b, b) with b = 1 / sqrt(fan_in),
    normalisations the identity. rng: a numpy.random.Generator, the only source of the weights; they
    are drawn on the host, so that every device gets the same. ValueError as of `check`.
    """
    network = check(name, channels, num_classes, im_size).to_empty(device=device)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                uniform = torch.from_numpy(rng.random(tuple(parameter.shape), dtype="float32"))
                parameter.copy_(utils.upload(uniform.mul_(2 * bound).sub_(bound), device))
        elif hasattr(module, "reset_parameters"):  # a normalisation: constants
            module.reset_parameters()
    return network
