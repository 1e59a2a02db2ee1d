"""Small class folders of pictures, and what loading them says."""

from loads import heard
from PIL import Image


def put(path, value=0, size=(8, 8), **options):
    """A picture of one colour, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, 255 - value)).save(path, **options)


def classes(root, *names, each=2):
    """Class folders of pictures; those of a class differ in their colour."""
    for value, name in enumerate(names):
        for k in range(each):
            put(root / name / f"{k}.png", 20 * value + k)


def own(tmp_path, train=("a", "b"), val=("a", "b")):
    """An ImageFolder with these classes in its splits: its --data_path."""
    classes(tmp_path / "train", *train)
    classes(tmp_path / "val", *val)
    return tmp_path


def loaded(root):
    """The dataset of an ImageFolder, and what was said of it."""
    return heard("ImageFolder", root)
