"""Facts about folders of pictures: which are classes, which files count, how one is read."""

import os
import unicodedata

import numpy as np
import pytest
import torch
from heard import hearing
from loads import unlisted
from own_pictures import classes, loaded, own, put
from PIL import Image

from bacon.data import pictures
from bacon.errors import UserError


def read(root):
    """(names, labels, the value of the first pixel of every picture, the lines that were said)."""
    with hearing() as said:
        names, images, labels = pictures.read_class_folders(root)
    return names, labels, images[:, 0, 0, 0].tolist(), said


def refusal(root):
    with pytest.raises(UserError) as error:
        pictures.read_class_folders(root)
    assert "\n" not in str(error.value)
    return str(error.value)


# Which folders are classes


def test_a_class_folder_without_pictures_is_named_and_never_vanishes(tmp_path):
    classes(tmp_path, "a", "c")
    (tmp_path / "b").mkdir()
    assert refusal(tmp_path) == f"{tmp_path / 'b'}: without pictures; add pictures or move it away"
    (tmp_path / "b/holiday.heic").write_bytes(b"x")
    text = refusal(tmp_path)
    assert str(tmp_path / "b") in text and "not a picture: 1 (b/holiday.heic)" in text
    (tmp_path / "d/empty").mkdir(parents=True)
    assert f"{tmp_path / 'b'} and 1 other class folders: without pictures" in refusal(tmp_path)


HIDDEN = [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", ".thumbnails"]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_folders_are_no_classes_and_none_of_their_copies_count(name, tmp_path):
    classes(tmp_path, "a", "b")
    put(tmp_path / name / "0.png", 200)
    put(tmp_path / "a" / name / "0-checkpoint.png", 200)
    names, labels, values, said = read(tmp_path)
    assert (names, labels, values) == (["a", "b"], [0, 0, 1, 1], [0, 1, 20, 21])
    hidden = f"hidden or of the system: 2 ({name}, a/{name})"
    assert said == [f"{tmp_path}: ignored what is {hidden}"]


def test_all_that_is_ignored_is_counted_in_one_line(tmp_path):
    classes(tmp_path, "a", "b")
    hidden = ("a/._0.png", "a/.DS_Store", "b/Thumbs.db")
    for file in (*hidden, "notes.txt", "a/labels.csv", "a/movie.mp4", "b/scan.pdf"):
        (tmp_path / file).write_bytes(b"x")
    put(tmp_path / "stray.png")
    (tmp_path / "b/up").symlink_to(tmp_path)
    names, labels, _, (line,) = read(tmp_path)
    assert (names, labels) == (["a", "b"], [0, 0, 1, 1])
    for words in (
        "hidden or of the system: 3 (a/.DS_Store, a/._0.png, b/Thumbs.db)",
        "not a picture: 4 (notes.txt, a/labels.csv, a/movie.mp4, ...)",
        "in no class folder: 1 (stray.png)",
        "a link to a folder that is read already: 1 (b/up)",
    ):
        assert words in line


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"two\nlines.txt"])
def test_a_name_of_any_bytes_is_said_in_a_line_that_can_be_printed(name, tmp_path):
    classes(tmp_path, "a")
    try:
        (tmp_path / "a" / os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this system takes no such name")
    _, _, _, (line,) = read(tmp_path)
    assert "not a picture: 1 (a/" in line and line.encode("utf-8") and "\n" not in line


def test_sound_folders_say_nothing(tmp_path):
    classes(tmp_path, "a", "b")
    assert read(tmp_path) == (["a", "b"], [0, 0, 1, 1], [0, 1, 20, 21], [])


@pytest.mark.parametrize("files", [[], ["x.png", "y.png"]], ids=["empty", "flat"])
def test_a_folder_without_class_folders_is_refused(files, tmp_path):
    for file in files:
        put(tmp_path / file)
    text = refusal(tmp_path)
    assert f"{tmp_path}: has no class folders with pictures" in text
    assert not files or "in no class folder: 2 (x.png, y.png)" in text


def test_names_that_look_alike_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    root = own(tmp_path, train=(composed, "tea"), val=(decomposed, "tea"))
    dataset, said = loaded(root)
    assert dataset.classes == [composed, "tea"] and not said
    put(root / "train" / decomposed / "9.png", 100)
    dataset, said = loaded(root)
    assert dataset.classes == [composed, "tea"] and dataset.labels_train.tolist() == [0, 0, 0, 1, 1]
    alike = f"2 folders have names that read {composed}: they are one class"
    assert said == [f"{root / 'train'}: {alike}"]


def test_accents_of_other_scripts_are_composed_too(tmp_path):
    classes(tmp_path, unicodedata.normalize("NFD", "がくせい"), unicodedata.normalize("NFD", "각"))
    assert read(tmp_path)[0] == ["がくせい", "각"]


# Links


@pytest.mark.parametrize("place", ["class", "inside", "picture"])
def test_links_are_followed(place, tmp_path):
    root, far = tmp_path / "root", tmp_path / "far"
    classes(root, "a", "b")
    put(far / "7.png", 70)
    if place == "class":
        (root / "c").symlink_to(far)
    elif place == "inside":
        (root / "b/more").symlink_to(far)
    else:
        (root / "b/7.png").symlink_to(far / "7.png")
    names, labels, values, said = read(root)
    assert values == [0, 1, 20, 21, 70] and not said
    assert labels == ([0, 0, 1, 1, 2] if place == "class" else [0, 0, 1, 1, 1])
    assert names == (["a", "b", "c"] if place == "class" else ["a", "b"])


LOOPS = [("a/loop", "a"), ("a/loop", "."), ("a/x/y/loop", "a/x"), ("a/again", "a/x")]


@pytest.mark.parametrize(("link", "target"), LOOPS)
def test_a_loop_ends_and_a_folder_counts_once(link, target, tmp_path):
    classes(tmp_path, "a", "b")
    put(tmp_path / "a/x/y/5.png", 5)
    (tmp_path / link).symlink_to(tmp_path / target)
    names, labels, values, (line,) = read(tmp_path)
    assert names == ["a", "b"] and sorted(values) == [0, 1, 5, 20, 21] and labels == [0, 0, 0, 1, 1]
    assert "a link to a folder that is read already: 1 (" in line


def test_a_class_that_is_a_link_to_the_folder_itself_is_none(tmp_path):
    classes(tmp_path, "a", "b")
    (tmp_path / "loop").symlink_to(tmp_path)
    names, _, _, (line,) = read(tmp_path)
    assert names == ["a", "b"] and "read already: 1 (loop)" in line


@pytest.mark.parametrize("link", ["c", "a/more", "a/3.png"])
def test_a_link_to_nothing_is_named(link, tmp_path):
    classes(tmp_path, "a", "b")
    (tmp_path / link).symlink_to("/nowhere/at all")
    assert refusal(tmp_path) == f"{tmp_path / link}: a link to /nowhere/at all, which is not there"
    # A folder of results may hold such a link: looking for class folders passes it over.
    assert [kind.name for kind in pictures.class_folders(tmp_path)] == ["a", "b"]


def test_a_link_to_itself_is_named(tmp_path):
    classes(tmp_path, "a")
    (tmp_path / "a/x.png").symlink_to(tmp_path / "a/x.png")
    assert str(tmp_path / "a/x.png") in refusal(tmp_path)


# Folders and pictures that may not be read


@pytest.mark.parametrize("locked", ["", "b", "b/deep"])
def test_a_folder_that_may_not_be_read_is_never_skipped(locked, tmp_path, monkeypatch):
    classes(tmp_path, "a", "b")
    put(tmp_path / "b/deep/1.png")
    unlisted(monkeypatch, tmp_path / locked)
    assert refusal(tmp_path) == f"{tmp_path / locked}: cannot be read (Permission denied)"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
@pytest.mark.parametrize("locked", ["b", "b/deep", "b/deep/1.png"])
def test_what_may_not_be_read_is_named(locked, tmp_path):
    classes(tmp_path, "a", "b")
    put(tmp_path / "b/deep/1.png")
    (tmp_path / locked).chmod(0)
    try:
        assert refusal(tmp_path) == f"{tmp_path / locked}: cannot be read (Permission denied)"
    finally:
        (tmp_path / locked).chmod(0o700)


def test_a_picture_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    classes(tmp_path, "a")

    def refuse(file):
        raise PermissionError(13, "Permission denied", os.fspath(file))

    monkeypatch.setattr(Image, "open", refuse)
    assert refusal(tmp_path) == f"{tmp_path / 'a/0.png'}: cannot be read (Permission denied)"


# Pictures


ENDINGS = ["jfif", "JFIF", "jpe", "jpeg", "JPEG", "webp", "bmp", "tif", "Png", "pbm"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_the_endings_of_pictures_are_read(ending, tmp_path):
    classes(tmp_path, "a", "b")
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "pbm": "PPM"}
    picture = Image.new("1" if ending == "pbm" else "RGB", (8, 8))
    picture.save(tmp_path / f"a/9.{ending}", kinds.get(ending.lower()))
    _, labels, _, said = read(tmp_path)
    assert labels == [0, 0, 0, 1, 1] and not said


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_cannot_be_decoded_is_named(content, tmp_path):
    classes(tmp_path, "a", "b")
    (tmp_path / "a/1.png").write_bytes(content)
    assert f"{tmp_path / 'a/1.png'}: cannot be decoded" in refusal(tmp_path)


def test_pixels_of_more_than_8_bits_are_refused(tmp_path):
    classes(tmp_path, "a", "b")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "a/1.png")
    assert "1.png: has pixels of more than 8 bits (mode I" in refusal(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_a_picture_is_turned_as_its_exif_data_say(kind, orientation, tmp_path):
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[0, 0] = 255  # a corner that no turn and no mirror but the right one puts there
    upright[0:2, 0:6] = 255
    # What a camera stores is what the picture's orientation undoes.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(kind, {})
    (tmp_path / "a").mkdir()
    picture = Image.fromarray(np.ascontiguousarray(stored))
    picture.save(tmp_path / f"a/x.{kind}", exif=exif, **options)
    _, images, _ = pictures.read_class_folders(tmp_path)
    np.testing.assert_allclose(images[0].numpy().transpose(1, 2, 0), upright, atol=60)


def test_damaged_exif_data_turn_nothing(tmp_path):
    plain = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    (tmp_path / "a").mkdir()
    Image.fromarray(plain).save(tmp_path / "a/x.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    _, images, _ = pictures.read_class_folders(tmp_path)
    np.testing.assert_array_equal(images[0].numpy().transpose(1, 2, 0), plain)


def test_a_folder_that_is_gone_is_named(tmp_path):
    assert refusal(tmp_path / "gone").startswith(f"{tmp_path / 'gone'}: cannot be read (No such")


def test_a_lack_of_memory_is_not_called_a_damaged_picture(tmp_path, monkeypatch):
    classes(tmp_path, "a")

    def lack(file):
        raise MemoryError

    monkeypatch.setattr(Image, "open", lack)
    with pytest.raises(MemoryError):
        pictures.read_class_folders(tmp_path)


@pytest.mark.parametrize(("levels", "refused"), [((7, 7), True), ((7, 8), True), ((7, 10), False)])
def test_images_of_one_colour_cannot_be_normalised(levels, refused, tmp_path):
    """Their standard deviation is 0, or below one level of 255."""
    for split in ("train", "val"):
        for k, level in enumerate(levels):
            put(tmp_path / split / f"a/{k}.png", level)
    if not refused:
        dataset, _ = loaded(tmp_path)
        assert np.allclose(dataset.std, 1.5 / 255, atol=1e-4)
        return
    with pytest.raises(UserError) as error:
        loaded(tmp_path)
    assert str(error.value) == f"{tmp_path / 'train'}: all pixels of a channel are the same"


def test_a_picture_is_grey_where_its_three_channels_are_one_and_the_same():
    shades = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    assert pictures.is_grey(shades.repeat(1, 3, 1, 1))
    for channel in range(3):
        images = shades.repeat(1, 3, 1, 1)
        images[1, channel, 2, 3] += 1
        assert not pictures.is_grey(images)


# Their size


def test_a_picture_is_resized_by_its_shorter_side_and_cut_at_the_centre(tmp_path):
    # Red, green and blue parts of 8, 16 and 8 columns: a square of the height is the green one.
    path = tmp_path / "a" / "0.png"
    path.parent.mkdir()
    columns = [(255, 0, 0)] * 8 + [(0, 255, 0)] * 16 + [(0, 0, 255)] * 8
    pixels = np.array([columns] * 16, dtype="uint8")
    Image.fromarray(pixels).save(path)
    _, images, _ = pictures.decode_pictures([pictures.ClassPictures("a", [path])], "", im_size=16)
    assert images[0, 1].eq(255).all() and images[0, [0, 2]].eq(0).all()


def test_a_picture_is_resized_by_bicubic_interpolation(tmp_path):
    path = tmp_path / "a" / "0.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), "uint8")
    picture = Image.fromarray(pixels)
    picture.save(path)
    _, images, _ = pictures.decode_pictures([pictures.ClassPictures("a", [path])], "", im_size=6)
    expected = np.asarray(picture.resize((6, 6), Image.Resampling.BICUBIC))
    assert np.array_equal(images[0].permute(1, 2, 0), expected)
