"""Facts about the forms that TinyImageNet has on people's disks: all give the same images."""

import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
from heard import hearing
from layouts import written
from PIL import Image

from bacon.data import loading
from bacon.errors import UserError
from bacon.recipes import DATASETS


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """(a folder with the official one, what a reader must see): one training image per class."""
    root = tmp_path_factory.mktemp("official")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return root, written("TinyImageNet", root, monkeypatch, train=1)


@pytest.fixture
def tiny(official, tmp_path, monkeypatch):
    """(the data path, the official folder in it, what a reader must see), to be changed."""
    source, splits = official
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    train, test = (len(labels) for _, labels in splits)
    spec = DATASETS["TinyImageNet"]._replace(train=train, test=test)
    monkeypatch.setitem(DATASETS, "TinyImageNet", spec)
    return tmp_path, tmp_path / "tiny-imagenet-200", splits


def load(root):
    """The dataset and what was said of it, but for what it always says."""
    with hearing() as said:
        dataset = loading.load("TinyImageNet", root)
    usual = (": decoding the JPEGs", ": wrote ")
    return dataset, [line for line in said if not any(words in line for words in usual)]


def assert_whole(root, splits):
    dataset, said = load(root)
    found = (dataset.images_train, dataset.labels_train), (dataset.images_test, dataset.labels_test)
    for (images, labels), (true_images, true_labels) in zip(found, splits, strict=True):
        np.testing.assert_array_equal(labels.numpy(), true_labels)
        np.testing.assert_array_equal(images.numpy(), true_images)
    return said


def refusal(root):
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError) as error:
        load(root)
    assert sorted(root.rglob("*")) == before and "\n" not in str(error.value)
    return str(error.value)


def sort_val(folder, move=True, images="images"):
    """What everybody's script does: a folder per class in val/."""
    for line in (folder / "val/val_annotations.txt").read_text().splitlines():
        file, wnid = line.split("\t")[:2]
        (folder / "val" / wnid / images).mkdir(parents=True, exist_ok=True)
        put = shutil.move if move else shutil.copy
        put(folder / "val/images" / file, folder / "val" / wnid / images / file)


def first_val(folder):
    file, wnid = (folder / "val/val_annotations.txt").read_text().split("\t")[:2]
    return folder / "val/images" / file, wnid


@pytest.mark.parametrize("images", ["images", ""], ids=["images", "bare"])
@pytest.mark.parametrize("annotated", [True, False])
def test_val_may_be_sorted_into_class_folders(images, annotated, tiny):
    root, folder, splits = tiny
    sort_val(folder, images=images)
    if not annotated:
        (folder / "val/val_annotations.txt").unlink()
    assert not assert_whole(root, splits)


def test_pictures_found_twice_count_once(tiny):
    root, folder, splits = tiny
    sort_val(folder, move=False)
    (line,) = assert_whole(root, splits)
    assert line.startswith("TinyImageNet: counted once, though found twice: 200 (val/n")


def test_train_and_val_need_no_images_folders(tiny):
    root, folder, splits = tiny
    for images in [*folder.glob("train/*/images"), folder / "val/images"]:
        for picture in images.iterdir():
            picture.rename(images.parent / picture.name)
        images.rmdir()
    assert not assert_whole(root, splits)


@pytest.mark.parametrize("ending", [".jpeg", ".jpg", ".JPG"])
def test_the_ending_of_pictures_does_not_matter(ending, tiny):
    root, folder, splits = tiny
    for picture in list(folder.rglob("*.JPEG")):
        picture.rename(picture.with_suffix(ending))
    assert not assert_whole(root, splits)


def test_pictures_may_be_converted(tiny):
    root, folder, splits = tiny
    for picture in list(folder.rglob("*.JPEG")):
        with Image.open(picture) as image:
            image.save(picture.with_suffix(".png"))
        picture.unlink()
    assert not assert_whole(root, splits)


@pytest.mark.parametrize("links", ["folder", "splits", "beside", "classes", "images", "files"])
def test_links_are_followed(links, tiny):
    root, folder, splits = tiny
    far = root / "far"
    if links == "folder":
        linked = [folder]
    elif links in ("splits", "beside"):
        linked = [folder / "train", folder / "val"]
    elif links == "classes":
        linked = list((folder / "train").iterdir())
    elif links == "images":
        linked = [folder / "val/images", *folder.glob("train/*/images")]
    else:
        linked = list(folder.rglob("*.JPEG"))
    for i, place in enumerate(linked):
        target = far / f"{i}_{place.name}"
        if links == "beside":
            target = folder / f"a_{place.name}_elsewhere"  # comes before the link that leads to it
        target.parent.mkdir(exist_ok=True)
        place.rename(target)
        place.symlink_to(target)
    said = assert_whole(root, splits)
    assert len(said) == (1 if links == "beside" else 0)  # they lie outside train/ and val/, too
    assert all("in no class folder of train/ or val/: 400 (" in line for line in said)


def test_a_loop_of_links_ends(tiny):
    root, folder, splits = tiny
    (folder / "loop").symlink_to(folder)
    (folder / "train/loop").symlink_to(folder / "train")
    assert not assert_whole(root, splits)


def test_a_link_to_nothing_is_named_and_nothing_is_fetched(tiny):
    root, folder, _ = tiny
    folder.rename(root / "old")
    folder.symlink_to(root / "gone")
    assert refusal(root) == f"{folder}: a link to {root / 'gone'}, which is not there"
    folder.unlink()
    (root / "old").rename(folder)
    shutil.rmtree(folder / "val/images")
    (folder / "val/images").symlink_to(root / "gone")
    images = folder / "val/images"
    assert refusal(root) == f"{images}: a link to {root / 'gone'}, which is not there"


@pytest.mark.parametrize("form", ["nested", "bare zip", "mac zip", "dotted zip"])
def test_folders_in_folders_and_foreign_zips_are_read(form, tiny):
    root, folder, splits = tiny
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    folder.rename(root / "elsewhere")
    if form == "nested":
        shutil.move(root / "elsewhere", folder / "tiny-imagenet-200")
    else:
        top = "tiny-imagenet-200/"
        before = {"bare zip": "", "mac zip": top, "dotted zip": f"./{top}"}[form]
        with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w") as z:
            for path in (file.relative_to(folder) for file in files):
                z.write(root / "elsewhere" / path, before + path.as_posix())
                if form == "mac zip":
                    shadow = path.with_name(f"._{path.name}").as_posix()
                    z.writestr(f"__MACOSX/{top}{shadow}", b"Mac OS X")
    assert not assert_whole(root, splits)


def test_hidden_copies_do_not_count(tiny):
    root, folder, splits = tiny
    for picture in list(folder.rglob("*.JPEG"))[:5]:
        (picture.parent / ".ipynb_checkpoints").mkdir(exist_ok=True)
        shutil.copy(picture, picture.parent / f".ipynb_checkpoints/{picture.stem}-checkpoint.JPEG")
        (picture.parent / f"._{picture.name}").write_bytes(b"Mac OS X")
    assert not assert_whole(root, splits)


@pytest.mark.parametrize("byte", [b"\xe9", b"\xff", b"\x00"])
def test_a_bad_byte_in_a_text_stops_nothing(byte, tiny):
    root, folder, splits = tiny
    wnids = sorted(path.name for path in (folder / "train").iterdir())
    goldfish = f"{wnids[0]}\tgoldfish, Carassius\n".encode()
    cafe = wnids[1].encode() + b"\tcaf" + byte + b"\n"
    (folder / "words.txt").write_bytes(goldfish + cafe)
    annotations = folder / "val/val_annotations.txt"
    of_windows = annotations.read_bytes().replace(b"\n", b"\r\n")
    annotations.write_bytes(b"\xef\xbb\xbf" + of_windows + byte)
    assert not assert_whole(root, splits)
    dataset, _ = load(root)
    assert dataset.classes[0] == "goldfish" and dataset.classes[1].startswith("caf")
    assert dataset.classes[2:] == wnids[2:]


# What cannot be understood


def test_a_picture_whose_folder_contradicts_the_annotations_is_named(tiny):
    root, folder, _ = tiny
    picture, wnid = first_val(folder)
    other = next(path.name for path in (folder / "train").iterdir() if path.name != wnid)
    (folder / "val" / other).mkdir()
    picture.rename(folder / "val" / other / picture.name)
    text = refusal(root)
    assert f"val/{other}/{picture.name} is of class {wnid} by val_annotations.txt" in text


def test_pictures_without_a_class_are_counted_and_named(tiny):
    root, folder, _ = tiny
    (folder / "val/val_annotations.txt").unlink()
    text = refusal(root)
    assert "val/images/1_0.JPEG (200 such pictures): neither its folder nor" in text


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("left", ["nothing", "another layout"])
def test_a_split_without_pictures_is_named(split, left, tiny):
    root, folder, _ = tiny
    if left == "nothing":
        shutil.rmtree(folder / split)
    else:
        (folder / split).rename(folder / "x")
        (folder / "x").rename(folder / f"{split}ing")
    text = refusal(root)
    assert f"{folder}: no pictures in {split}/, as {split}/n01443537/images/*.JPEG" in text
    assert ("but" in text and f"{split}ing/" in text) == (left != "nothing")


def test_classes_that_found_nothing_are_named(tiny):
    root, folder, _ = tiny
    wnids = sorted(path.name for path in (folder / "train").iterdir())
    shutil.rmtree(folder / "train" / wnids[3])
    for picture in (folder / "train" / wnids[5] / "images").iterdir():
        picture.unlink()
    text = refusal(root)
    assert f"no pictures in train/ of classes in wnids.txt: 2 ({wnids[3]}, {wnids[5]})" in text


def test_pictures_in_other_folders_are_counted_in_one_line(tiny):
    root, folder, splits = tiny
    picture, _ = first_val(folder)
    for place in ("train/misc/x.JPEG", "overview.png", "test/images/test_0.JPEG"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / place)
    where = "in no class folder of train/ or val/"
    expected = f"TinyImageNet: ignored what is {where}: 2 (overview.png, train/misc/x.JPEG)"
    assert assert_whole(root, splits) == [expected]


@pytest.mark.parametrize("locked", ["", "val", "train"])
def test_a_folder_that_may_not_be_read_is_named(locked, tiny, monkeypatch):
    root, folder, _ = tiny
    scandir = os.scandir

    def guarded(path):
        if os.fspath(path) == str(folder / locked):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError) as error:
        load(root)
    assert str(error.value) == f"{folder / locked}: cannot be read (Permission denied)"


def test_a_class_of_val_that_train_lacks_is_named(tiny):
    root, folder, _ = tiny
    picture, wnid = first_val(folder)
    shutil.rmtree(folder / "train" / wnid)
    (folder / "wnids.txt").unlink()
    expected = f"val/images/{picture.name} has class {wnid}, train/ has none such"
    assert refusal(root) == f"{folder}: {expected}"


def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    written("SVHN", tmp_path, monkeypatch)

    def lack(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("scipy.io.loadmat", lack)
    with pytest.raises(MemoryError):
        loading.load("SVHN", tmp_path)


def test_digits_without_scikit_learn_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"^Digits: .*pip install scikit-learn$"):
        loading.load("Digits", tmp_path)


def test_a_file_that_a_disk_does_not_give_is_named(tmp_path, monkeypatch):
    """Whatever reads it: here the check of its md5."""
    written("SVHN", tmp_path, monkeypatch)

    def broken(path, md5):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", broken)
    path = tmp_path / "train_32x32.mat"
    with pytest.raises(UserError) as error:
        loading.load("SVHN", tmp_path)
    assert str(error.value) == f"{path}: cannot be read (Input/output error)"
