"""Facts about a whole dataset and about drawing batches of its real images."""

import numpy as np
import pytest
import torch
from layouts import fake

import utils
from bacon.data import loading, pt_layout, real_data
from bacon.errors import UserError
from bacon.recipes import DATASETS

OFFICIAL = [name for name in DATASETS if name != "Digits"]


def test_fingerprint_changes_with_any_pixel_label_or_order(tmp_path):
    seen = set()
    (images, labels), (test_images, test_labels) = fake("MNIST")

    def fingerprint():
        entries = pt_layout.layout(range(10), (images, labels), (test_images, test_labels))
        torch.save(entries, tmp_path / "mnist.pt")
        return loading.load("MNIST", tmp_path).fingerprint

    seen.add(fingerprint())
    images[7, 0, 27, 27] ^= 1
    seen.add(fingerprint())
    test_images[0, 0, 0, 0] ^= 1
    seen.add(fingerprint())
    labels[:2] = labels[:2][::-1] if labels[0] != labels[1] else labels[:2] - 1
    seen.add(fingerprint())
    test_labels[-1] = (test_labels[-1] + 1) % 10
    seen.add(fingerprint())
    images, labels = images[::-1].copy(), labels[::-1].copy()
    seen.add(fingerprint())
    assert len(seen) == 6 and all(len(s) == 64 for s in seen)


def real_of(name, device="cpu", **kwargs):
    (images, labels), _ = fake(name, **kwargs)
    spec = DATASETS[name]
    tensors = torch.from_numpy(images), torch.from_numpy(labels)
    return real_data.RealData(*tensors, spec.mean, spec.std, spec.num_classes, device)


@pytest.mark.parametrize("name", OFFICIAL)
def test_batches_are_normalised_as_the_formula_says(name):
    real, (mean, std) = real_of(name), (DATASETS[name].mean, DATASETS[name].std)
    rows = np.array([3, 0, 3, 5])
    exact = (real.images.numpy()[rows] / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(
        std, (-1, 1, 1)
    )
    batch = real.take(rows)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), exact, atol=1e-6, rtol=0)
    assert torch.equal(real.take(slice(1, 4)), real.take(np.arange(1, 4)))
    assert torch.equal(real.labels_of(rows), real.labels[torch.from_numpy(rows)])
    assert torch.equal(real.labels_of(slice(1, 4)), real.labels[1:4])
    assert real.images.dtype == torch.uint8  # and unchanged by the arithmetic in place


def test_draws_are_distinct_images_of_the_class():
    real = real_of("MNIST", train=7)
    rng = np.random.default_rng(0)
    assert real.counts == [7] * 10 and len(real) == 70
    for c in range(10):
        rows = real.indices(c, 5, rng)
        assert len(set(rows)) == 5 and (real.labels_of(rows) == c).all()
        assert sorted(real.indices(c, 99, rng)) == np.flatnonzero(real.labels.numpy() == c).tolist()
    assert len(set(real.any_indices(60, rng))) == 60
    assert sorted(real.any_indices(99, rng)) == list(range(70))
    first, again = (real.indices(4, 3, np.random.default_rng(5)) for _ in range(2))
    assert (first == again).all()


def test_every_image_of_a_class_is_drawn_equally_often():
    real, rng = real_of("MNIST", train=5), np.random.default_rng(0)
    drawn = np.bincount(
        np.concatenate([real.indices(2, 2, rng) for _ in range(5000)]), minlength=50
    )
    assert np.count_nonzero(drawn) == 5
    assert abs(drawn[drawn > 0] - 2000).max() < 200  # 5.8 standard deviations


def test_draws_depend_on_the_generator_alone():
    a, b = real_of("MNIST", seed=0), real_of("CIFAR10", seed=0)
    b = real_data.RealData(b.images, a.labels, (0.5,) * 3, (0.5,) * 3, 10, "cpu")
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    for c in range(10):
        assert (a.indices(c, 2, first) == b.indices(c, 2, second)).all()
        assert (a.any_indices(9, first) == b.any_indices(9, second)).all()
    assert np.random.get_state()[1].tolist() == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_class_without_images_gives_an_empty_batch():
    images, labels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2, 2])
    real = real_data.RealData(images, labels, (0.5,), (0.5,), 4, "cpu")
    assert real.counts == [1, 0, 2, 0]
    assert real.take(real.indices(1, 5, np.random.default_rng(0))).shape == (0, 1, 4, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_on_cuda_equal_those_on_the_host_and_never_wait():
    host, device = real_of("CIFAR10"), real_of("CIFAR10", device="cuda")
    rows = np.array([3, 0, 9])
    device.take(rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch, labels = device.take(rows), device.labels_of(rows)
        device.take(device.indices(1, 2, np.random.default_rng(0)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(batch.cpu(), host.take(rows))
    assert torch.equal(labels.cpu(), host.labels_of(rows))


def test_validation_images_are_the_same_for_every_seed_and_never_among_those_trained_on(digits):
    held = digits.validation(7)
    assert (
        torch.bincount(held.labels_test).tolist() == [7] * 10
        and held.train + held.test == digits.train
    )
    split = (
        {tuple(x.flatten().tolist()) for x in held.images_train},
        {tuple(x.flatten().tolist()) for x in held.images_test},
    )
    assert not split[0] & split[1]
    assert split[0] | split[1] == {tuple(x.flatten().tolist()) for x in digits.images_train}
    assert torch.equal(held.images_test, digits.validation(7).images_test)
    # Accuracies of other versions are of the same split.
    threes = (digits.labels_train == 3).nonzero()[:, 0].numpy()
    of_version_1 = utils.stream(0, "validation", 3).permutation(threes)[:7]
    kept = held.images_test[held.labels_test == 3]
    assert torch.equal(kept, digits.images_train[np.sort(of_version_1)])
    with pytest.raises(
        UserError, match=r"--validate 200: class . \(.\) of Digits has 1\d\d images"
    ):
        digits.validation(200)


def test_a_fingerprint_holds_the_shape_beside_the_bytes():
    images = torch.arange(48, dtype=torch.uint8)
    found = {
        real_data.fingerprint_of(*tensors)
        for tensors in (
            (images.view(2, 1, 4, 6),),
            (images.view(2, 1, 6, 4),),
            (images.view(2, 1, 4, 6)[:1], images.view(2, 1, 4, 6)[1:]),
        )
    }
    assert len(found) == 3


def small_dataset(of_class=5, classes=3):
    """A `Dataset` of so many images of every class, all different."""
    labels = torch.arange(classes).repeat(of_class)
    images = torch.arange(4 * len(labels), dtype=torch.uint8).view(-1, 1, 2, 2)
    names = [f"c{c}" for c in range(classes)]
    splits = (images, labels, images[:classes], labels[:classes])
    return real_data.Dataset("Small", names, (0.4,), (0.2,), *splits, "", "")


def test_validation_leaves_two_images_of_every_class_at_least():
    data = small_dataset(of_class=5)
    assert data.validation(3).train == 2 * 3
    with pytest.raises(UserError, match=r"class 0 \(c0\) of Small has 5 images"):
        data.validation(4)


def test_a_split_is_normalised_unless_pixels_are_asked_for():
    data = small_dataset()
    pixels = data.images_train / 255
    every = slice(None)
    torch.testing.assert_close(data.real("train").take(every), (pixels - 0.4) / 0.2)
    torch.testing.assert_close(data.real("train", normalised=False).take(every), pixels)
    assert len(data.real("test")) == 3 and data.real("test").classes == ["c0", "c1", "c2"]


def test_datasets_are_told_apart_by_identity():
    data = small_dataset()
    assert len({data, small_dataset()}) == 2 and data == data


@pytest.mark.parametrize("own", [range(1), range(1, 3), range(1, 2), range(3)])
def test_who_keeps_some_classes_draws_the_same_and_holds_the_images_of_these_alone(own):
    data = small_dataset()
    whole, part = data.real("train"), data.real("train", own=own)
    assert len(part) == len(whole) == 15 and part.counts == whole.counts
    assert part.images.shape[0] == 5 * len(own)
    drawn = part.any_indices(9, np.random.default_rng(0))
    assert (drawn == whole.any_indices(9, np.random.default_rng(0))).all()
    kept = part.owned(drawn)
    assert kept.tolist() == [row for row in drawn if data.labels_train[row] in own]
    assert torch.equal(part.take(kept), whole.take(kept))
    assert torch.equal(part.labels_of(kept), whole.labels_of(kept))
    for c in range(3):
        rows = part.indices(c, 2, np.random.default_rng(c))
        assert (rows == whole.indices(c, 2, np.random.default_rng(c))).all()
        if c in own:
            assert torch.equal(part.take(rows), whole.take(rows))
        else:
            with pytest.raises(IndexError, match="of a class that is not kept here"):
                part.take(rows)


def test_a_draw_is_one_from_the_images_of_the_class_in_their_order():
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 3, 3000))
    images = torch.zeros(3000, 1, 1, 1, dtype=torch.uint8)
    real = real_data.RealData(images, labels, (0.5,), (0.5,), 3, "cpu")
    assert real.classes == ["0", "1", "2"]
    for c in range(3):
        expected = np.random.default_rng(c).choice(np.flatnonzero(labels == c), 9, replace=False)
        assert (real.indices(c, 9, np.random.default_rng(c)) == expected).all()
