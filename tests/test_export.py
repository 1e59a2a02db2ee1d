"""Facts about sets that are written in the layouts of others."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from heard import hearing
from PIL import Image
from saved_sets import read, save_ours, to_pixels
from torchvision.datasets import ImageFolder

import augment
from bacon.data.spaces import normalise, to_planes
from bacon.errors import UserError
from bacon.recipes import Spec
from bacon.score import export, sets


def test_an_exported_png_folder_is_an_image_folder_with_the_same_labels(
    canvases, facts, tmp_path, caplog
):
    caplog.set_level(logging.INFO, logger="bacon")
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (ours,) = read(tmp_path / "ours.pt", facts)
    export.export(ours, "png", tmp_path / "out")
    (line,) = caplog.messages
    assert "80 images" in line and "clipped" in line
    images, labels = ours.decoded()
    folder = ImageFolder(tmp_path / "out")
    assert len(folder) == 80 and folder.classes[3].startswith("003")
    of_class = {c: iter(images[labels == c]) for c in range(10)}
    for picture, label in folder:
        found = torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32) / 255)
        exact = to_pixels(next(of_class[label]), facts)[0].clamp(0, 1)
        assert (found - exact).abs().max() <= 0.501 / 255
    assert len(read(tmp_path / "out", facts)[0].canvases) == 80


def test_an_exported_dc_file_trains_the_same_network(canvases, facts, tmp_path):
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (ours,) = read(tmp_path / "ours.pt", facts)
    export.export(ours, "dc", tmp_path / "dc.pt")
    (theirs,) = read(tmp_path / "dc.pt", facts)
    for a, b in zip(ours.decoded(), theirs.decoded(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="exists already"):
        export.export(ours, "dc", tmp_path / "dc.pt")


@pytest.fixture
def half_chroma(tmp_path):
    """(facts, our set of two classes with half-size chroma, each quadrant flat in a colour of its
    own, its colours)."""
    spec = Spec(3, (8, 8), 2, (0.5,) * 3, (0.2,) * 3, 9, 9)
    facts = sets.Facts.of("CIFAR10", spec, lambda: ["cat", "dog"])
    colours = torch.rand(
        4, 4, 3, generator=torch.Generator().manual_seed(0)
    )  # of canvas and quadrant
    quadrants = colours.permute(1, 0, 2).flatten(0, 1)[:, :, None, None].expand(-1, -1, 8, 8)
    pixels = augment.tile(quadrants)
    planes, labels = to_planes(normalise(pixels, facts.mean, facts.std)), torch.tensor([0, 0, 1, 1])
    save_ours(
        tmp_path / "ours.pt",
        planes,
        labels,
        facts,
        2,
        "CIFAR10",
        chroma="half",
        classes=["cat", "dog"],
    )
    return facts, tmp_path / "ours.pt", colours


@pytest.mark.parametrize("kind", export.EXPORTS)
def test_half_chroma_is_exported_in_colour_every_image_with_its_label(kind, half_chroma, tmp_path):
    facts, path, colours = half_chroma
    (ours,) = read(path, facts)
    assert (len(ours.canvases), ours.canvases_per_image) == (4, 2) and ours.canvases.shape[1:] == (
        3,
        8,
        8,
    )
    out = tmp_path / ("out" if kind == "png" else "out.pt")
    export.export(ours, kind, out)
    (theirs,) = read(out, facts)
    images, labels = theirs.decoded()
    pixels = to_pixels(images, facts)
    assert len(pixels) == 16
    for image, label in zip(pixels, labels, strict=True):
        distance = (colours - image.mean((1, 2))).abs().amax(2)
        assert distance.min() < 2 / 255 and (distance.argmin() // 4 < 2) == (label == 0)


def test_an_export_of_soft_labels_has_the_likeliest_class_and_says_so(canvases, facts, tmp_path):
    images, labels = canvases
    torch.save({"data": [[images, F.one_hot(labels, 10).float() * 5]]}, tmp_path / "x.pt")
    (saved,) = read(tmp_path / "x.pt", facts)
    with hearing() as said:
        export.export(saved, "dc", tmp_path / "out.pt")
    assert said[-1].endswith("; the likeliest class of soft labels")
    (exported,) = read(tmp_path / "out.pt", facts)
    assert torch.equal(exported.labels, labels)


def test_an_export_that_cannot_be_written_is_one_line(canvases, facts, tmp_path):
    save_ours(tmp_path / "ours.pt", *canvases, facts, 2)
    (saved,) = read(tmp_path / "ours.pt", facts)
    (tmp_path / "file").touch()
    out = tmp_path / "file/x.pt"
    with pytest.raises(UserError) as error:
        export.export(saved, "dc", out)
    assert str(error.value).startswith(f"--export dc {out}: cannot write there (")


def test_pictures_are_clipped_and_how_much_of_them_is_said(tmp_path):
    spec = Spec(1, (2, 2), 2, (0.5,), (0.5,), 1, 1)
    facts = sets.Facts.of("x", spec, lambda: ["T-shirt/top", "b c"])
    canvases = torch.tensor([[[-1.0, 1.0], [0.2, 2.0]], [[-1.5, 0.0], [1.0, 1.0]]])[:, None]
    saved = sets.SavedSet("x.pt", 3, "DC", canvases, torch.tensor([1, 0]), facts=facts)
    with hearing() as said:
        export.export(saved, "png", tmp_path / "new/out")
    clipped = "25.00 % of the pixel values were outside [0,1] and are clipped"
    assert said == [f"{tmp_path / 'new/out'}: 2 images of x.pt, experiment 3; {clipped}"]
    written = {}
    for path in sorted((tmp_path / "new/out").rglob("*.png")):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L")).tolist()
        written[str(path.relative_to(tmp_path / "new/out"))] = pixels
    assert written == {
        "000_T-shirt_top/00000.png": [[0, 128], [255, 255]],
        "001_b_c/00000.png": [[0, 255], [153, 255]],
    }
