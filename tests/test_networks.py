"""Facts about the networks: sizes, embeddings, initial weights, and plain references in float64."""

import itertools
import math
from contextlib import nullcontext

import numpy
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounter

from networks import NETWORKS, ConvNet, build, check, needs_two_images

CIFAR = (3, 10, (32, 32))  # channels, classes, image size


def fresh(name, channels=3, num_classes=10, im_size=(32, 32), seed=0, **kwargs):
    return build(name, channels, num_classes, im_size, numpy.random.default_rng(seed), **kwargs)


def images(n, channels, h, w, seed=0, **kwargs):
    return torch.randn(n, channels, h, w, generator=torch.Generator().manual_seed(seed), **kwargs)


# Sizes


PARAMETERS = {
    "ConvNet": 320_010,
    "MLP": 411_146,
    "LeNet": 62_006,
    "AlexNet": 1_872_202,
    "AlexNetBN": 1_874_122,
    "VGG11": 9_231_114,
    "VGG11BN": 9_231_114,
    "ResNet18": 11_173_962,
    "ResNet18BN": 11_173_962,
    # no final pooling: the classifier sees 4x4 maps instead of 1x1
    "ResNet18BN_AP": 11_173_962 + 15 * 512 * 10,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_those_of_the_published_nets(name):
    assert sum(p.numel() for p in check(name, *CIFAR).parameters()) == PARAMETERS[name]


def test_every_published_name_exists():
    family = "D1 D2 D3 D4 D5 D6 D7 D8 W32 W64 W128 W256 W512 W1024 "
    family += "AS AR AL ASwish ASwishBN NN BN LN IN GN NP MP AP"
    assert set(NETWORKS) == {
        "ConvNet",
        *PARAMETERS,
        *(f"ConvNet{variant}" for variant in family.split()),
    }


def halvings(name):
    """How often ConvNet-D halves its map; 0 for the other names, which fit all sizes from 28 on."""
    return int(name[-1]) if name.startswith("ConvNetD") else 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_net_fits_every_dataset_unless_a_map_vanishes(name):
    for channels, (side, num_classes) in itertools.product(
        (1, 3), ((28, 10), (32, 100), (64, 200))
    ):
        if max(side, 32) < 2 ** halvings(name):
            with pytest.raises(
                ValueError, match=f"^{name} cannot take {side}x{side} images: .*reach size 0$"
            ):
                check(name, channels, num_classes, (side, side))
        else:
            net = check(name, channels, num_classes, (side, side))
            assert net(torch.empty(2, channels, side, side, device="meta")).shape == (
                2,
                num_classes,
            )


TOO_DEEP_FOR_8X8 = {
    "LeNet",
    "VGG11",
    "VGG11BN",
    "ResNet18",
    "ResNet18BN",
    *(f"ConvNetD{d}" for d in range(4, 9)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_8x8_images_work_or_are_refused_clearly(name):
    if name in TOO_DEEP_FOR_8X8:
        for make in (check, lambda *where: build(*where, numpy.random.default_rng(0))):
            with pytest.raises(ValueError) as error:
                make(name, 1, 10, (8, 8))
            assert (
                str(error.value)
                == f"{name} cannot take 8x8 images: a feature map would reach size 0"
            )
    else:
        logits = fresh(name, 1, 10, (8, 8))(images(2, 1, 8, 8))
        assert logits.shape == (2, 10)
        assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"ConvNetD6", "ConvNetD7", "ConvNetD8"}))
def test_fresh_logits_are_finite_and_tell_images_apart(name):
    logits = fresh(name)(images(2, 3, 32, 32))
    assert logits.isfinite().all()
    assert (logits[0] - logits[1]).abs().max() > 1e-6


def test_oblong_images_keep_height_and_width_apart():
    net = fresh("ConvNetLN", 3, 10, (32, 64))
    assert net.embed(images(2, 3, 32, 64)).shape == (2, 128 * 4 * 8)
    with pytest.raises(ValueError, match=r"^ConvNetD4 cannot take 8x64 images"):
        check("ConvNetD4", 3, 10, (8, 64))


@pytest.mark.parametrize("name", ["ConvNet", "LeNet", "AlexNet", "ResNet18", "ResNet18BN_AP"])
def test_odd_sides_round_as_the_modules_do(name):
    assert check(name, 3, 10, (25, 57))(torch.empty(2, 3, 25, 57, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("make", [check, fresh])
def test_an_unknown_name_is_answered_with_the_known_ones_in_one_line(make):
    with pytest.raises(ValueError, match=r"^unknown network 'ConvNetD9'") as error:
        make("ConvNetD9", *CIFAR)
    assert all(name in str(error.value) for name in NETWORKS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_normalisation_is_what_batch_statistics_means(name):
    net = check(name, 3, 10, (256, 256))
    assert net.has_batch_statistics == ("BN" in name)
    assert isinstance(net, ConvNet) == name.startswith("ConvNet")


@pytest.mark.parametrize(
    "name", ["ConvNet", "ConvNetLN", "ConvNetGN", "ConvNetBN", "AlexNetBN", "VGG11"]
)
def test_an_image_feels_its_batch_only_through_batch_statistics(name):
    net, x = fresh(name).double(), images(3, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(net(x)[:2], net(x[:2]), rtol=1e-9, atol=0) != net.has_batch_statistics


# Embeddings


@pytest.mark.parametrize(
    ("last", "width"), [(None, 2048), (1000, 2048), (12, 2048), (-1, 8192), (1, 128 * 32 * 32)]
)
def test_convnet_3_has_twelve_features_and_last_slices_them(last, width):
    net = fresh("ConvNet")
    assert len(net.features) == 12
    assert net.embed(images(2, 3, 32, 32), last).shape == (2, width)


@pytest.mark.parametrize("name", ["ConvNetNN", "ConvNetNP"])
def test_no_norm_and_no_pooling_leave_no_module(name):
    assert len(check(name, *CIFAR).features) == 9


@pytest.mark.parametrize("name", ["ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18BN_AP"])
def test_28x28_images_go_on_as_32x32_ones(name):
    first = check(name, 1, 10, (28, 28)).features[0](torch.empty(1, 1, 28, 28, device="meta"))
    side = {"LeNet": 28, "ResNet18BN_AP": 28}.get(
        name, 32
    )  # LeNet's unpadded conv5 takes 4; ResNets do not pad more
    assert first.shape[2:] == (side, side)


@pytest.mark.parametrize("last", [None, 1000, -1, 3, 0])
@pytest.mark.parametrize(
    "name", ["ConvNet", "ConvNetASwish", "ConvNetNN", "MLP", "LeNet", "AlexNetBN"]
)
def test_one_forward_gives_embedding_and_logits(name, last):
    net, x = fresh(name).eval(), images(3, 3, 32, 32)
    embedding, logits = net.embed_and_classify(x, last)
    assert torch.equal(embedding, net.embed(x, last))
    assert torch.equal(logits, net.classify(x))
    assert torch.equal(logits, net(x))
    assert torch.equal(logits, net.classifier(net.embed(x)))


def test_one_forward_updates_batch_statistics_once():
    net = fresh("ConvNetBN")
    net.embed_and_classify(images(2, 3, 32, 32), -1)
    assert {int(m.num_batches_tracked) for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {
        1
    }


def test_one_compiled_graph_serves_every_net_of_a_pool():
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def embed_and_classify(net, x):
        return net.embed_and_classify(x, 1000)

    x = images(2, 3, 32, 32)
    for seed in range(3):
        net = fresh("ConvNetW32", seed=seed)
        assert torch.equal(embed_and_classify(net, x)[1], net(x))
    assert counter.frame_count == 1


# Initial weights


def test_the_rng_alone_decides_the_weights():
    before = torch.random.get_rng_state(), numpy.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (fresh("ConvNetBN", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (numpy.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])


def test_two_nets_from_one_rng_differ():
    rng = numpy.random.default_rng(0)
    a, b = (build("MLP", *CIFAR, rng) for _ in range(2))
    assert not any(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_device_gets_the_same_weights():
    host, device = fresh("ResNet18BN").state_dict(), fresh("ResNet18BN", device="cuda").state_dict()
    assert all(device[key].is_cuda and torch.equal(host[key], device[key].cpu()) for key in host)


@pytest.mark.parametrize("name", ["ConvNet", "ConvNetLN", "LeNet", "AlexNetBN", "ResNet18BN"])
def test_each_layer_starts_in_pytorchs_default_distribution(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        defaults = NETWORKS[name](
            *CIFAR
        ).state_dict()  # the constructor itself uses PyTorch's initialisation
    net = fresh(name)
    assert all(parameter.requires_grad for parameter in net.parameters())
    ours = net.state_dict()
    assert ours.keys() == defaults.keys()
    for key, default in defaults.items():
        value = ours[key]
        assert (value.shape, value.dtype) == (default.shape, default.dtype)
        if (default == default.flatten()[0]).all():  # normalisations are constants
            assert torch.equal(value, default), key
            continue
        fan_in = ours[key.rsplit(".", 1)[0] + ".weight"][0].numel()
        bound = 1 / math.sqrt(fan_in)
        assert max(value.abs().max(), default.abs().max()) <= bound * (1 + 1e-6), key
        u = (
            value.double() / bound
        )  # U(-1, 1): mean 0 +- sqrt(1/3n), second moment 1/3 +- sqrt(4/45n)
        assert abs(u.mean()) < 5 * math.sqrt(1 / 3 / u.numel()), key
        assert abs(u.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / u.numel()), key


def test_a_large_layer_cannot_be_told_from_pytorchs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, linear = nn.Conv2d(128, 128, 3), nn.Linear(3072, 128)
    for ours, default in ((fresh("ConvNet").features[4], conv), (fresh("MLP").features[1], linear)):
        assert (
            scipy.stats.ks_2samp(
                ours.weight.detach().flatten(), default.weight.detach().flatten()
            ).pvalue
            > 0.01
        )


# Forwards against plain references


def normalise(x, dims, scale, shift):
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def per_channel(dims):
    return lambda x, scale, shift: normalise(x, dims, scale[:, None, None], shift[:, None, None])


def four_groups(x, scale, shift):
    one, zero = torch.ones(()), torch.zeros(())
    x = torch.cat([normalise(part, (1, 2, 3), one, zero) for part in x.chunk(4, dim=1)], dim=1)
    return x * scale[:, None, None] + shift[:, None, None]


def whole_map(x, scale, shift):
    return normalise(x, (1, 2, 3), scale, shift)


def avg2(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def max2(x):
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return torch.stack([x[..., i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)]).amax(0)


def relu(x):
    return x.clamp(min=0)


batch, instance = per_channel((0, 2, 3)), per_channel((2, 3))


# Each reference takes images and p, which hands out the parameters in order.
def convnet(norm=instance, act=relu, pool=avg2, depth=3):
    def forward(x, p):
        for d in range(depth):
            x = F.conv2d(x, p(), p(), padding=3 if d == 0 and x.shape[2] == 28 else 1)
            x = norm(x, p(), p()) if norm else x
            x = pool(act(x))
        return F.linear(x.flatten(1), p(), p())

    return forward


def mlp(x, p):
    return F.linear(relu(F.linear(relu(F.linear(x.flatten(1), p(), p())), p(), p())), p(), p())


def lenet(x, p):
    x = max2(relu(F.conv2d(x, p(), p(), padding=2 if x.shape[2] == 28 else 0)))
    return mlp(max2(relu(F.conv2d(x, p(), p()))), p)


def alexnet(norm):
    def forward(x, p):
        for layer, padding in enumerate((4 if x.shape[2] == 28 else 2, 2, 1, 1, 1)):
            x = F.conv2d(x, p(), p(), padding=padding)
            x = relu(norm(x, p(), p()) if norm else x)
            x = max2(x) if layer in (0, 1, 4) else x
        return F.linear(x.flatten(1), p(), p())

    return forward


def vgg11(norm):
    def forward(x, p):
        for layer in range(8):
            x = F.conv2d(x, p(), p(), padding=3 if layer == 0 and x.shape[2] == 28 else 1)
            x = relu(norm(x, p(), p()))
            x = max2(x) if layer in (0, 1, 3, 5, 7) else x
        return F.linear(x.flatten(1), p(), p())

    return forward


def crop_avg2(x):
    return avg2(x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2])


def resnet18(norm, pooled):
    def block(x, p, halve):
        stride = 2 if halve and not pooled else 1
        pool = crop_avg2 if halve and pooled else lambda x: x
        y = pool(relu(norm(F.conv2d(x, p(), stride=stride, padding=1), p(), p())))
        y = norm(F.conv2d(y, p(), padding=1), p(), p())
        if halve:
            x = norm(pool(F.conv2d(x, p(), stride=stride)), p(), p())
        return relu(y + x)

    def forward(x, p):
        x = relu(norm(F.conv2d(x, p(), padding=1), p(), p()))
        for halve in (False, False, True, False, True, False, True, False):
            x = block(x, p, halve)
        return F.linear((x if pooled else avg2(avg2(x))).flatten(1), p(), p())

    return forward


REFERENCES = {
    "ConvNet": convnet(),
    "ConvNetD2": convnet(depth=2),
    "ConvNetAS": convnet(act=lambda x: 1 / (1 + (-x).exp())),
    "ConvNetAR": convnet(),
    "ConvNetAL": convnet(act=lambda x: torch.where(x > 0, x, 0.01 * x)),
    "ConvNetASwish": convnet(act=lambda x: x / (1 + (-x).exp())),
    "ConvNetASwishBN": convnet(norm=batch, act=lambda x: x / (1 + (-x).exp())),
    "ConvNetNN": convnet(norm=None),
    "ConvNetBN": convnet(norm=batch),
    "ConvNetLN": convnet(norm=whole_map),
    "ConvNetIN": convnet(),
    "ConvNetGN": convnet(norm=four_groups),
    "ConvNetNP": convnet(pool=lambda x: x),
    "ConvNetMP": convnet(pool=max2),
    "ConvNetAP": convnet(),
    "MLP": mlp,
    "LeNet": lenet,
    "AlexNet": alexnet(None),
    "AlexNetBN": alexnet(batch),
    "VGG11": vgg11(instance),
    "VGG11BN": vgg11(batch),
    "ResNet18": resnet18(instance, pooled=False),
    "ResNet18BN": resnet18(batch, pooled=False),
    "ResNet18BN_AP": resnet18(batch, pooled=True),
}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["28x28", "32x32"])
@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_forward_equals_the_plain_reference(name, shape):
    net = fresh(name, shape[0], 10, shape[1:]).double()
    rng = torch.Generator().manual_seed(0)
    for p in net.parameters():
        # Not of a convolution: a norm's 1 and 0 would hide a scale or shift left out or misplaced.
        if p.dim() != 4:
            p += 0.1 * torch.randn(p.shape, generator=rng, dtype=p.dtype)
    x = images(2, *shape, dtype=torch.float64)
    parameters = iter(net.parameters())
    expected = REFERENCES[name](x, parameters.__next__)
    assert next(parameters, None) is None
    assert torch.allclose(net(x), expected, rtol=1e-9, atol=1e-10)


def test_a_name_near_to_several_is_answered_with_one_of_them():
    with pytest.raises(ValueError, match=r"did you mean ConvNet") as error:
        check("ConvNetD9", *CIFAR)
    assert str(error.value).count("did you mean") == 1


@pytest.mark.parametrize(
    ("name", "side", "needs"),
    [
        ("ResNet18BN_AP", 8, True),
        ("ResNet18BN_AP", 15, True),
        ("ResNet18BN_AP", 16, False),
        ("ConvNetBN", 8, False),
        ("ConvNet", 8, False),
        ("MLP", 8, False),
    ],
)
def test_a_network_that_normalises_single_pixels_over_the_batch_needs_two_images(name, side, needs):
    assert needs_two_images(name, 1, 10, (side, side)) == needs
    net = fresh(name, 1, 10, (side, side))
    with pytest.raises(ValueError, match="more than 1 value") if needs else nullcontext():
        net(torch.zeros(1, 1, side, side))
    net(torch.zeros(2, 1, side, side))
