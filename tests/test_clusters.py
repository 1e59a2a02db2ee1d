"""Facts about initial images by cluster: which image stands for one, what small classes give."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bacon import compute
from bacon.data import real_data
from bacon.distill import clusters, pool
from bacon.parallel import World

CENTRES = [40, 120, 200]  # grey levels of three clusters, well apart


@pytest.fixture
def real():
    """Two classes of 4x4 images, 21 about each of the grey levels, which an image's mean tells."""
    rng = np.random.default_rng(0)
    levels = np.concatenate(
        [c + rng.permutation(np.arange(-10, 11)) for _ in range(2) for c in CENTRES]
    )
    images = torch.from_numpy(levels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return real_data.RealData(
        images, torch.arange(2).repeat_interleave(63), (0.0,), (1.0,), 2, "cpu"
    )


def grey(images):
    return 255 * images.mean((1, 2, 3))


def embed(images):
    """Three embedding dimensions, one for each level; darker images are surer to be of class 0."""
    level = grey(images)
    return torch.stack([level, level / 2, -level], 1), torch.stack([-level, level], 1) / 100


def streams():
    return {c: np.random.default_rng(c + 1) for c in (0, 1)}


def test_each_cluster_gives_the_surest_image_of_its_nearer_half(real):
    chosen = clusters.representatives(embed, real, 3, 2, streams())
    for c, indices in chosen.items():
        assert set(real.labels[indices].tolist()) == {c} and len(set(indices.tolist())) == 3
        found = sorted(grey(real.take(indices)).round().tolist())
        # Of the levels from -10 to 10 about a centre the nearer half is -5 to 5; class 0 takes the
        # darkest of it.
        assert found == [centre + (-5 if c == 0 else 5) for centre in CENTRES]


def test_the_same_streams_choose_the_same_images_in_random_order(real):
    first, again = (clusters.representatives(embed, real, 12, 1, streams()) for _ in range(2))
    assert all(np.array_equal(first[c], again[c]) for c in (0, 1))
    assert first[0].tolist() != sorted(first[0])


def test_a_class_of_fewer_images_than_clusters_gives_all_of_them_some_again(real):
    chosen = clusters.representatives(embed, real, 130, 1, streams())[1]
    assert len(chosen) == 130 and set(chosen.tolist()) == set(range(63, 126))


def test_the_network_of_clusters_is_trained_with_dsa_for_as_long_as_the_page_says(
    make_args, digits, monkeypatch
):
    trained = []

    def note(trainer, member, steps, rng, strategy=()):
        trained.append((steps, strategy))

    monkeypatch.setattr(pool.Trainer, "train", note)
    args = make_args(init="cluster", dsa_strategy="crop_flip")
    trainer = pool.Trainer(args, 0, digits.real("train"), compute.Arithmetic("cpu"), World())
    clusters.by_trained_network(trainer, 2, np.random.default_rng(0), streams())
    ((steps, strategy),) = trained
    page = (Path(__file__).parents[1] / "docs" / "beyond.md").read_text()
    assert f"A network is trained for {steps} steps." in page
    assert strategy == ("crop", "flip")


def test_equal_images_of_a_class_leave_clusters_empty():
    levels = torch.tensor([10, 10, 10, 90, 200], dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    every = real_data.RealData(images, torch.zeros(5, dtype=torch.long), (0.0,), (1.0,), 1, "cpu")
    found = clusters.representatives(embed, every, 5, 1, {0: np.random.default_rng(0)})[0]
    assert len(found) == 5 and {*levels[found].tolist()} == {10, 90, 200}


@pytest.mark.parametrize("shrink", [1, 2])
def test_clusters_see_images_at_the_size_that_they_have_on_a_canvas(shrink):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), "uint8"))
    every = real_data.RealData(pixels, torch.zeros(9, dtype=torch.long), (0.0,), (1.0,), 1, "cpu")
    seen = []

    def note(images):
        seen.append(images)
        return embed(images)

    clusters.representatives(note, every, 3, shrink, {0: np.random.default_rng(0)})
    small = F.avg_pool2d(pixels / 255, shrink)
    expected = F.interpolate(small, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(torch.cat(seen), expected)


@pytest.mark.parametrize(("aug", "shrink"), [(True, 2), (False, 1)])
def test_four_images_of_a_canvas_are_seen_at_half_their_size(
    aug, shrink, make_args, digits, monkeypatch
):
    shrinks = []
    monkeypatch.setattr(clusters, "representatives", lambda *given: shrinks.append(given[3]))
    monkeypatch.setattr(clusters, "STEPS", 1)
    args = make_args(init="cluster", aug=aug)
    trainer = pool.Trainer(args, 0, digits.real("train"), compute.Arithmetic("cpu"), World())
    clusters.by_trained_network(trainer, 2, np.random.default_rng(0), streams())
    assert shrinks == [shrink]


def test_the_projection_of_embeddings_keeps_twelve_clusters_apart():
    # Image k is one of ten about corner k // 10 of twelve: corners are 14 apart, images 2 off.
    levels = torch.arange(120, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    labels = torch.arange(4).repeat_interleave(120)
    every = real_data.RealData(levels.repeat(4, 1, 1, 1), labels, (0.0,), (1.0,), 4, "cpu")
    around = 2 * torch.randn(120, 512, generator=torch.Generator().manual_seed(0)) / 512**0.5

    def embed(images):
        k = grey(images).round().long()
        return 10 * torch.eye(512)[k // 10] + around[k], torch.zeros(len(k), 4)

    of_class = {c: np.random.default_rng(c) for c in range(4)}
    for indices in clusters.representatives(embed, every, 12, 1, of_class).values():
        assert sorted(index % 120 // 10 for index in indices.tolist()) == list(range(12))
