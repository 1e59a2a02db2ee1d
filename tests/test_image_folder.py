"""Facts about a dataset of one's own images: its splits, its classes, distilled and scored."""

import numpy as np
import pytest
from loads import locked
from own_pictures import classes, loaded, own, put
from PIL import Image
from scripts import JUDGED_TWICE, run

from bacon.canvases import load_distilled
from bacon.data import loading
from bacon.errors import UserError
from bacon.score import command


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_folder_without_pictures_stops_an_image_folder(split, tmp_path):
    root = own(tmp_path)
    (root / split / "logs").mkdir()
    with pytest.raises(UserError, match=f"{split}/logs: without pictures"):
        loading.load("ImageFolder", root)


def test_a_test_split_that_lacks_classes_is_said(tmp_path):
    dataset, said = loaded(own(tmp_path, ("a", "b", "c", "d"), ("a", "c")))
    assert said == [f"{tmp_path / 'val'}: lacks 2 (b, d) of the 4 classes of train/"]
    assert dataset.num_classes == 4 and dataset.labels_test.tolist() == [0, 0, 2, 2]


def test_a_single_class_is_said(tmp_path):
    root = own(tmp_path, ("a",), ("a",))
    put(root / "train/a/9.png", 100)
    certain = "so that every accuracy will be 100 %"
    assert loaded(root)[1] == [f"{root / 'train'}: has one class only (a), {certain}"]


def test_which_test_split_is_read_is_said(tmp_path):
    root = own(tmp_path)
    classes(root / "test", "a", "b")
    assert loaded(root)[1] == [f"{root}: networks are tested on val/; test/ is not read"]


def test_a_split_that_is_a_link_is_read(tmp_path):
    root = own(tmp_path / "far")
    (tmp_path / "near").mkdir()
    for split in ("train", "val"):
        (tmp_path / "near" / split).symlink_to(root / split)
    near, said = loaded(tmp_path / "near")
    assert near.fingerprint == loaded(root)[0].fingerprint and not said


def test_an_image_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    locked(monkeypatch, tmp_path)
    with pytest.raises(UserError) as error:
        loading.load("ImageFolder", tmp_path)
    assert str(error.value) == f"{tmp_path}: cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([], ["train/ and val/ or test/"]),
        (["train/a"], ["train/ and val/ or test/"]),
        (["train/a", "val"], ["val", "class folders"]),
        (["train/a", "test/b"], ["test/b", "does not have"]),
    ],
    ids=str,
)
def test_a_folder_that_is_no_image_folder_is_one_line(folders, words, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        if "/" in folder:
            Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(
                tmp_path / folder / "x.png"
            )
    with pytest.raises(UserError) as error:
        loading.load("ImageFolder", tmp_path)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_folder_of_ones_own_images_is_distilled_and_scored(tmp_path, capsys, digits, score):
    real = {
        "train": (digits.images_train, digits.labels_train),
        "val": (digits.images_test, digits.labels_test),
    }
    rng = np.random.default_rng(0)
    for split, (images, labels) in real.items():
        for c in (3, 7):
            folder = tmp_path / "own" / split / f"digit {c}"
            folder.mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:12]):
                side = int(rng.integers(16, 24))  # pictures of several sizes
                Image.fromarray(image[0].numpy()).resize((side, side + 4)).save(folder / f"{i}.png")
    own = [
        *JUDGED_TWICE[1:],
        "--dataset=ImageFolder",
        "--data_path",
        tmp_path / "own",
        "--save_path",
        tmp_path / "x",
    ]
    assert run("BACON_tiny.py", *own) == 2
    assert "--im_size" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert run("BACON_tiny.py", *own, "--im_size=16") == 0
    assert "CIFAR10 at ipc 1 (none is published for BACON on ImageFolder" in capsys.readouterr().out
    images, labels, meta = load_distilled(next((tmp_path / "x").glob("res_*.pt")))
    assert images.shape == (16, 1, 16, 16) and meta["classes"] == ["digit 3", "digit 7"]
    dataset = loading.load("ImageFolder", tmp_path / "own", im_size=16)
    pixels = dataset.images_train.double() / 255
    assert meta["mean"][0] == pytest.approx(pixels.mean().item(), abs=1e-4)
    assert meta["std"][0] == pytest.approx(pixels.std(unbiased=False).item(), abs=1e-4)
    (row,) = score(tmp_path / "x", "--data_path", tmp_path / "own")
    assert row["logged, the same networks"] and row["stored per class"] == "2"
    # Pictures of it need no real images, and are the same where these are gone.
    for folder, name in (("own", "here"), ("nowhere", "gone")):
        line = [
            tmp_path / "x",
            "--data_path",
            tmp_path / folder,
            "--export",
            "png",
            tmp_path / name,
        ]
        assert command.main(None, [str(word) for word in line]) == 0
    here, gone = (sorted((tmp_path / name).rglob("*.png")) for name in ("here", "gone"))
    assert len(here) == 16 and [path.read_bytes() for path in here] == [
        path.read_bytes() for path in gone
    ]


def coloured(folder, count, grey, seed, size=(6, 4)):
    """Pictures of random pixels: what they hold, (count, H, W, 3)."""
    folder.mkdir(parents=True)
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    if grey:
        pixels[:] = pixels[..., :1]
    for k, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{k}.png")
    return pixels


@pytest.mark.parametrize("grey", [(True, True), (True, False), (False, True), (False, False)])
def test_pictures_keep_their_colours_unless_all_of_both_splits_are_grey(grey, tmp_path):
    train = coloured(tmp_path / "train/a", 3, grey[0], 0)
    test = coloured(tmp_path / "test/a", 2, grey[1], 1)
    dataset, _ = loaded(tmp_path)
    channels = 1 if all(grey) else 3
    assert (dataset.channels, dataset.im_size) == (channels, (4, 6))
    assert (dataset.train, dataset.test) == (3, 2)
    for images, pixels in ((dataset.images_train, train), (dataset.images_test, test)):
        np.testing.assert_array_equal(images.numpy(), pixels.transpose(0, 3, 1, 2)[:, :channels])
    of_train = train[..., :channels] / 255
    assert dataset.mean == tuple(of_train.mean((0, 1, 2)).round(4).tolist())
    assert dataset.std == tuple(of_train.std((0, 1, 2)).round(4).tolist())


def test_pictures_of_both_splits_are_resized_to_one_side(tmp_path):
    coloured(tmp_path / "train/a", 2, False, 0, size=(6, 4))
    coloured(tmp_path / "val/a", 1, False, 1, size=(5, 9))
    said = "val: has pictures of 9x5 pixels, .*train of 4x6; --im_size makes them equal"
    with pytest.raises(UserError, match=said):
        loading.load("ImageFolder", tmp_path)
    dataset = loading.load("ImageFolder", tmp_path, im_size=8)
    assert dataset.images_train.shape == (2, 3, 8, 8) and dataset.images_test.shape == (1, 3, 8, 8)
