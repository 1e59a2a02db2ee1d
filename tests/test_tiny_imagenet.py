"""Facts about TinyImageNet: all forms that it has on people's disks give the same images."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from heard import hearing
from layouts import written, zip_tiny
from loads import assert_holds, heard, refused, unlisted
from PIL import Image

from bacon.data import loading
from bacon.data.tiny_imagenet import TinyPicture
from bacon.errors import UserError
from bacon.recipes import DATASETS

CLASSES = 10  # of 200: decoding takes its time


@pytest.fixture(autouse=True)
def few_classes(monkeypatch):
    spec = DATASETS["TinyImageNet"]._replace(num_classes=CLASSES)
    monkeypatch.setitem(DATASETS, "TinyImageNet", spec)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """(a folder with the official one, what a reader must see): one training image per class."""
    root = tmp_path_factory.mktemp("official")
    with pytest.MonkeyPatch.context() as monkeypatch:
        few = DATASETS["TinyImageNet"]._replace(num_classes=CLASSES)
        monkeypatch.setitem(DATASETS, "TinyImageNet", few)
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


def test_annotations_need_no_boxes(tiny):
    root, folder, splits = tiny
    path = folder / "val/val_annotations.txt"
    rows = [line.split("\t")[:2] for line in path.read_text().splitlines()]
    path.write_text("".join(f"{file} {wnid}\n" for file, wnid in rows))
    assert not assert_whole(root, splits)


def test_pictures_found_twice_count_once(tiny):
    root, folder, splits = tiny
    sort_val(folder, move=False)
    (line,) = assert_whole(root, splits)
    assert line.startswith("TinyImageNet: counted once, though found twice: 10 (val/n")


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
    assert all("in no class folder of train/ or val/: 20 (" in line for line in said)


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
    assert "val/images/1_0.JPEG (10 such pictures): neither its folder nor" in text


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
    unlisted(monkeypatch, folder / locked)
    with pytest.raises(UserError) as error:
        load(root)
    assert str(error.value) == f"{folder / locked}: cannot be read (Permission denied)"


def test_a_picture_that_may_not_be_read_is_not_called_damaged(tiny, monkeypatch):
    root, folder, _ = tiny
    picture, _ = first_val(folder)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(picture))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UserError) as error:
        load(root)
    assert str(error.value) == f"{picture}: cannot be read (Permission denied)"


def test_tiny_imagenet_zip_equals_its_folder(tmp_path, monkeypatch):
    folder, other = tmp_path / "folder", tmp_path / "zip"
    other.mkdir()
    splits = written("TinyImageNet", folder, monkeypatch, train=1)
    zip_tiny(folder).rename(other / "tiny-imagenet-200.zip")
    unzipped, zipped = (loading.load("TinyImageNet", root) for root in (folder, other))
    assert_holds(zipped, splits)
    assert zipped.fingerprint == unzipped.fingerprint
    assert zipped.classes == unzipped.classes == sorted(unzipped.classes)
    assert {path.name for path in other.iterdir()} == {"tiny-imagenet-200.zip", "tinyimagenet.pt"}


def test_tiny_imagenet_is_downloaded_under_another_name_first(tmp_path, monkeypatch):
    written("TinyImageNet", tmp_path / "server", monkeypatch, train=1)
    archive = zip_tiny(tmp_path / "server")

    def download_url(url, root, filename, md5):
        assert (
            url.endswith("/tiny-imagenet-200.zip")
            and filename != "tiny-imagenet-200.zip"
            and len(md5) == 32
        )
        (Path(root) / filename).write_bytes(archive.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    root = tmp_path / "data"
    root.mkdir()
    assert loading.load("TinyImageNet", root).num_classes == CLASSES
    assert {path.name for path in root.iterdir()} == {"tiny-imagenet-200.zip", "tinyimagenet.pt"}


def test_tiny_imagenet_names_its_classes_by_the_words_that_are_there(tmp_path, monkeypatch):
    written("TinyImageNet", tmp_path, monkeypatch)
    wnids = loading.load("TinyImageNet", tmp_path).classes
    (tmp_path / "tinyimagenet.pt").unlink()
    words = f"{wnids[0]}\tgoldfish, Carassius auratus\nn99999999\tother\n{wnids[2]}\ttench\n"
    (tmp_path / "tiny-imagenet-200/words.txt").write_text(words)
    assert loading.load("TinyImageNet", tmp_path).classes == [
        "goldfish",
        wnids[1],
        "tench",
        *wnids[3:],
    ]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TINY_DAMAGE = {
    "image": (lambda folder: truncate(next(folder.glob("train/*/images/0_7.JPEG"))), "0_7.JPEG"),
    "size": (
        lambda folder: Image.new("RGB", (1, 1)).save(next(folder.glob("train/*/images/0_7.JPEG"))),
        "0_7.JPEG",
    ),
    "annotations": (
        lambda folder: (folder / "val/val_annotations.txt").unlink(),
        "val_annotations.txt",
    ),
    "annotation": (lambda folder: truncate(folder / "val/val_annotations.txt"), ".JPEG"),
    "class": (lambda folder: next(folder.glob("train/*/images/0_7.JPEG")).unlink(), ""),
    "archive": (
        lambda folder: (
            truncate(zip_tiny(folder.parent)),
            folder.rename(folder.parent / "elsewhere"),
        ),
        ".zip",
    ),
}


@pytest.mark.parametrize("kind", TINY_DAMAGE)
def test_damaged_tiny_imagenet_is_one_line(kind, tmp_path, monkeypatch):
    damage, word = TINY_DAMAGE[kind]
    written("TinyImageNet", tmp_path, monkeypatch, train=1)
    damage(tmp_path / "tiny-imagenet-200")
    refused("TinyImageNet", tmp_path, tmp_path / "tiny-imagenet-200", word)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_incomplete_folder_is_read_again_once_it_is_repaired(split, tmp_path, monkeypatch):
    splits = written("TinyImageNet", tmp_path, monkeypatch)
    folder, cache = tmp_path / "tiny-imagenet-200", tmp_path / "tinyimagenet.pt"
    lost = sorted(folder.glob(f"{split}/**/*.JPEG"))[0]
    lost.rename(tmp_path / "lost")
    sizes = (19, 10) if split == "train" else (20, 9)
    for _ in range(2):
        dataset, said = heard("TinyImageNet", tmp_path)
        assert (dataset.train, dataset.test) == sizes and not cache.exists()
        found = f"holds {sizes[0]} training and {sizes[1]} test images, the whole set 20 and 10"
        again = "it is not kept as tinyimagenet.pt, so the next start reads it again"
        assert said[1:] == [f"TinyImageNet: {folder} {found}; {again}"]
    (tmp_path / "lost").rename(lost)
    dataset, said = heard("TinyImageNet", tmp_path)
    assert_holds(dataset, splits)
    assert cache.exists() and said[1:] == [
        f"TinyImageNet: wrote {cache}, which the next start reads instead of {folder}"
    ]


def test_a_class_of_val_that_train_lacks_is_named(tiny):
    root, folder, _ = tiny
    picture, wnid = first_val(folder)
    shutil.rmtree(folder / "train" / wnid)
    (folder / "wnids.txt").unlink()
    expected = f"val/images/{picture.name} has class {wnid}, train/ has none such"
    assert refusal(root) == f"{folder}: {expected}"


@pytest.mark.parametrize(
    ("path", "split", "wnid"),
    [
        ("train/n01/images/n01_0.JPEG", "train", "n01"),
        ("a/b/train/n01/n01_0.JPEG", "train", "n01"),
        ("train/images/n01_0.JPEG", "train", "n01"),  # by the name of the file
        ("train/n01_0.JPEG", "train", "n01"),
        ("train/images/0_n01.JPEG", "train", None),
        ("val/images/val_0.JPEG", "val", None),
        ("val/n01_0.JPEG", "val", None),  # there the name of a file is no class
        ("val/n01/images/val_0.JPEG", "val", "n01"),
        ("val/train/n01/x.JPEG", None, None),
        ("train/n01/n02/x.JPEG", None, None),
        ("train/n01/other/x.JPEG", None, None),
        ("train/xn01/x.JPEG", None, None),
        ("test/images/test_0.JPEG", None, None),
    ],
)
def test_the_path_of_a_picture_tells_its_split_and_class(path, split, wnid):
    expected = split and TinyPicture(split, wnid, Path(path).stem, path)
    assert TinyPicture.at(path) == expected
