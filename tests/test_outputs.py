"""Facts about what evaluate.py writes: nothing of others is replaced, whatever the output and the
name it is given."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import assert_one_line, contents, scorer

from bacon import figures, outputs
from bacon.data import loading, real_data
from bacon.errors import UserError
from bacon.score import baselines, command, diagnose, layouts, sets

LOG = '{"event": "start"}\n{"event": "end"}\n'


def picture(path, color="white"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), color).save(path, format="PNG")
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of files that are somebody's, the current one; nothing is ever computed there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", None)
    monkeypatch.setattr(real_data, "RealData", None)
    for name in ("set.pt", "other.pt"):
        torch.save({"data": [[torch.zeros(10, 1, 8, 8), torch.arange(10)]]}, name)
    (tmp_path / "log_b.jsonl").write_text(LOG)
    (tmp_path / "a_log.png").write_text(LOG)
    (tmp_path / "order.json").write_text("[1, 0, 2]")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "link.png").symlink_to("log_b.jsonl")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "dangling.png").symlink_to("new.jsonl")
    os.mkfifo(tmp_path / "pipe.png")
    picture(tmp_path / "old.png")
    for c in range(10):
        picture(tmp_path / f"pictures/{c}/x.png")
    return tmp_path


LONG = "x" * 300 + ".png"
REFUSED = {
    "other.pt": "would replace other.pt, which is a .pt file or another archive",
    "set.pt": "would replace set.pt, which is read",
    "./set.pt": "would replace set.pt, which is read",
    "log_b.jsonl": "would replace log_b.jsonl, which is the log of a run",
    "a_log.png": "would replace a_log.png, which is the log of a run",
    "order.json": "would replace order.json, which is an order of classes",
    "empty.jsonl": "which is an empty file",
    "link.png": (
        "log_b.jsonl): a PNG picture of set.pt would replace link.png, which is the log of a run"
    ),
    "circle.png": "cannot be written",
    "dangling.png": "the name ends in .jsonl",
    "pipe.png": "neither a file nor a new name",
    "pictures": "is a folder; name a file, such as pictures/new.png",
    "nowhere/": "the name of a folder; name a file, such as nowhere/new.png",
    "order.json/x.png": "cannot be written",
    "/proc/nowhere/x.png": "cannot be written",
    LONG: "cannot be written (File name too long)",
    "new.pt": "the name ends in .pt; give one that ends in .png",
    "new.pdf": "the name ends in .pdf; give one that ends in .png",
}


@pytest.mark.parametrize("flag", ["--grid", "--tsne"])
@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name[:20])
def test_a_picture_replaces_nothing_but_a_picture(name, flag, place, capsys):
    before = contents(place)
    assert command.main(None, ["set.pt", "--dataset=Digits", flag, name]) == 2
    assert_one_line(capsys, f"{flag} {name}", REFUSED[name])
    assert contents(place) == before


@pytest.mark.parametrize(
    "name", ["new.png", "old.png", "a/new/folder/x.PNG", "no_ending", "../up.png", "lr0.5"]
)
def test_new_names_and_old_pictures_are_written(name, place, capsys):
    assert command.main(None, ["set.pt", "--dataset=Digits", "--grid", name]) == 0
    with Image.open(place / name) as drawn:
        assert drawn.format == "PNG" and drawn.size[0] > 100


@pytest.mark.parametrize(
    "name", ["pictures/3/x.png", "pictures/new.png", "pictures/3/new.png", "linked/3/x.png"]
)
@pytest.mark.parametrize("flag", ["--grid", "--tsne", "--export png"])
def test_nothing_joins_a_folder_of_pictures_that_is_read(flag, name, place, capsys):
    (place / "linked").symlink_to("pictures")
    before = contents(place)
    assert command.main(None, ["pictures", "--dataset=Digits", *flag.split(), name]) == 2
    assert_one_line(capsys, name, "lies within pictures, whose pictures are read")
    assert contents(place) == before


def test_nothing_joins_the_real_images(place, capsys):
    picture(place / "own/train/cat/1.png")
    line = ["set.pt", "--dataset=ImageFolder", "--data_path=own", "--grid", "own/train/cat/1.png"]
    assert command.main(None, line) == 2
    assert_one_line(capsys, "own/train/cat/1.png", "lies within own/train")
    line = ["set.pt", "--dataset=Digits", "--data_path=own", "--grid", "own/test/new.png"]
    assert command.main(None, line) == 0  # not the images of this dataset


@pytest.mark.parametrize("line", ["--plot log_b.jsonl --grid x.png", "--table . --export dc x.pt"])
def test_an_output_of_no_set_is_refused(line, place, capsys):
    before = contents(place)
    assert command.main(None, line.split()) == 2
    flag = "--grid" if "--grid" in line else "--export"
    assert_one_line(capsys, f"{flag}: has no effect here")
    assert contents(place) == before


@pytest.mark.parametrize(
    "line",
    [
        "--grid x.png --tsne x.png",
        "--grid x.png --tsne ./x.png",
        "--export png out --grid out/x.png",
        "--export dc x/set.pt --tsne x",
    ],
)
def test_two_outputs_never_meet(line, place, capsys):
    before = contents(place)
    assert command.main(None, ["set.pt", "--dataset=Digits", *line.split()]) == 2
    assert_one_line(capsys, *line.split()[-2:], "names apart")
    assert contents(place) == before


@pytest.mark.parametrize("kind", ["png", "dc"])
@pytest.mark.parametrize("name", ["other.pt", "pictures", "link.png", "dangling.png", "old.png"])
def test_an_export_is_always_new(kind, name, place, capsys):
    before = contents(place)
    assert command.main(None, ["set.pt", "--dataset=Digits", "--export", kind, name]) == 2
    text = assert_one_line(capsys, f"--export {kind} {name}", "exists already; choose another name")
    assert contents(place) == before and "delete" not in text


def test_an_exported_set_is_named_as_one(place, capsys):
    assert (
        command.main(None, ["set.pt", "--dataset=Digits", "--export", "dc", "log_new.jsonl"]) == 2
    )
    assert_one_line(
        capsys, "--export dc log_new.jsonl", "the name ends in .jsonl; give one that ends in .pt"
    )


# The order of classes that --diagnose writes


@pytest.mark.parametrize(
    "name", ["other.pt", "set.pt", "log_b.jsonl", "old.png", "link.png", "new.jsonl", "new.png"]
)
def test_an_order_replaces_nothing_but_an_order(name, place, capsys):
    before = contents(place)
    assert command.main(None, ["set.pt", "--dataset=Digits", "--diagnose", "--relabel", name]) == 2
    assert_one_line(capsys, f"--relabel {name}")
    assert contents(place) == before


@pytest.mark.parametrize("name", ["order.json", "new/order.json"])
def test_the_order_of_one_set_is_written(name, place, capsys, monkeypatch):
    orders = [diagnose.Order(np.arange(10)[::-1], "backwards"), None]

    saved = sets.SavedSet("set.pt", 0, "DC", torch.zeros(10, 1, 8, 8), torch.arange(10))
    confusions = np.ones((2, 10, 10), dtype=np.int64)
    reading = diagnose.Reading(layouts.Way(), saved, 0.0, 1.0, confusions)

    def found(*args):
        return diagnose.Diagnosis(layouts.Way(), [reading], 10, reading, orders.pop(0))

    monkeypatch.setattr(diagnose, "diagnose", found)
    line = ["--dataset=Digits", "--diagnose", "--relabel", name]
    before = contents(place)
    assert command.main(None, ["set.pt", "other.pt", *line]) == 2
    assert_one_line(
        capsys,
        f"--relabel {name}: takes the order of one set, not of 2: set.pt, other.pt; give one",
    )
    assert contents(place) == before
    assert command.main(None, ["set.pt", *line]) == 0
    assert json.loads((place / name).read_text()) == list(range(9, -1, -1)) and outputs.is_order(
        place / name
    )
    capsys.readouterr()
    assert command.main(None, ["set.pt", *line]) == 0
    assert (
        f"--relabel {name}: not written, set.pt was found in no other order"
        in capsys.readouterr().err
    )


def test_what_a_picture_is_of_is_said_by_up_to_three_names():
    for paths, said in ((["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d"], "a, b, c, ...")):
        (picture,) = outputs.of_scorer(scorer(*paths, "--grid=x.png"))
        assert picture.source == said


# The cache of baselines


@pytest.mark.parametrize(
    "content", [LOG, "[1, 0]", '{"a": {"b": 1}}'], ids=["log", "order", "other"]
)
def test_a_cache_replaces_nothing_but_a_cache(content, place, capsys):
    (place / "baselines.json").write_text(content)
    assert command.main(None, ["--baseline=random", "--dataset=Digits", "--save_path=."]) == 2
    assert_one_line(
        capsys,
        "--save_path baselines.json",
        "a cache of baselines of --baseline random would replace",
    )
    assert (place / "baselines.json").read_text() == content


def test_an_empty_cache_is_filled(place):
    (place / "baselines.json").touch()
    assert baselines.Cache(place).put("a", [0.5], 1) == f"kept in {place / 'baselines.json'}"
    assert baselines.Cache(place).get("a", 1) == baselines.Kept([0.5], 1)


def test_kinds_are_told_by_what_a_file_holds(tmp_path):
    path = tmp_path / "x"
    for content, kinds in {
        outputs.PNG + b"cut": [outputs.is_png],
        b"[2, 0, 1]": [outputs.is_order],
        b"[0]": [outputs.is_order],
        b"[true, false]": [],
        b"[0, 0]": [],
        b"[]": [],
        b"{}": [outputs.is_cache],
        b'{"a": [[0.5], 3]}': [outputs.is_cache],
        b'{"a": [0.5, 3]}': [],
        b"PNG": [],
        b"\xff\xfe": [],
    }.items():
        path.write_bytes(content)
        found = [
            is_own
            for is_own in (outputs.is_png, outputs.is_order, outputs.is_cache)
            if is_own(path)
        ]
        assert found == kinds, content


def test_a_disk_that_cannot_be_written_is_told_before_anything_is_computed(place, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", full)
    output = outputs.Output("--grid", "new/x.png", outputs.PICTURE, "set.pt")
    with pytest.raises(
        UserError, match=r"--grid new/x.png: cannot be written, .*: Read-only file system"
    ):
        outputs.check([output], outputs.Inputs())
    assert not (place / "new").exists()


def test_null_takes_any_picture(place, monkeypatch):
    monkeypatch.setattr(figures, "grid", lambda *args: None)
    assert command.main(None, ["set.pt", "--dataset=Digits", "--grid", os.devnull]) == 0


def test_a_cache_that_cannot_be_kept_stops_nothing(place):
    for name in ("order.json/baselines.json", f"{'x' * 300}.json", "/proc/nowhere/baselines.json"):
        cache = outputs.Output("--save_path", name, outputs.CACHE, "--baseline random")
        outputs.check([cache], outputs.Inputs())
    read_only = outputs.Output("--grid", "order.json/x.png", outputs.PICTURE, "set.pt")
    with pytest.raises(UserError, match=r"--grid order.json/x.png: cannot be written"):
        outputs.check([read_only], outputs.Inputs())


def test_an_empty_file_is_replaced_by_what_its_name_promises(place):
    for name in ("empty.png", "empty.json", "empty.txt"):
        (place / name).touch()
    kinds = {"empty.png": outputs.PICTURE, "empty.json": outputs.ORDER, "empty.txt": outputs.ORDER}
    for name, kind in kinds.items():
        outputs.check([outputs.Output("--x", name, kind, "set.pt")], outputs.Inputs())
    with pytest.raises(UserError, match="which is an empty file of another kind"):
        outputs.check([outputs.Output("--x", "empty.json", outputs.PICTURE, "")], outputs.Inputs())


def test_an_old_file_that_may_not_be_written_is_told(place, monkeypatch):
    """As root may write all, the system refuses by hand."""

    def refuse(path, flags):
        assert flags == os.O_WRONLY
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "open", refuse)
    output = outputs.Output("--grid", "old.png", outputs.PICTURE, "set.pt")
    refused = r"^--grid old.png: cannot be written \(Permission denied\)$"
    with pytest.raises(UserError, match=refused):
        outputs.check([output], outputs.Inputs())
