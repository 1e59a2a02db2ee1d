"""Facts about files of other programs: they are read without running code, or named in one line."""

import argparse
import contextlib
import io
import logging
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import Bomb
from scripts import scorer
from torch.utils.data import TensorDataset

import bacon
from bacon import messages
from bacon.errors import UserError
from bacon.files import load_torch
from bacon.score import command, finding, foreign, layouts, sets


@pytest.fixture(scope="module")
def facts(digits):
    return sets.Facts.of("Digits", digits, lambda: digits.classes)


@pytest.fixture(scope="module")
def images():
    """Twenty normalised images of Digits' shape."""
    return torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


LABELS = torch.arange(20) % 10


def read(path, facts, **kwargs):
    """All sets at a path."""
    with told() as lines:
        found = finding.found_at(path)
    assert lines == []
    return [saved for one in found for saved in layouts.read(one, facts, layouts.Way(**kwargs))]


class Kept(logging.Handler):
    """Keeps the lines of messages in a list."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def told():
    """The messages of a block, a list of lines."""
    kept = Kept()
    with messages.speak("stderr", silent=True):
        messages.log.addHandler(kept)
        yield kept.lines
    messages.log.removeHandler(kept)


def same(saved, images):
    return torch.equal(saved.canvases, images.float()) and torch.equal(saved.labels, LABELS)


# How programs name files: of images, of labels, of the learnt rate or None; the layout's name.
PAIRS = [
    ("images_best.pt", "labels_best.pt", "lr_best.pt", "MTT"),
    ("images_2000.pt", "labels_2000.pt", None, "MTT"),
    ("images.pt", "labels.pt", "lr.pt", "MTT"),
    ("CIFAR10_IPC10_images.pt", "CIFAR10_IPC10_labels.pt", None, "images beside labels"),
    ("images_DC_CIFAR10_1_best.pt", "labels_DC_CIFAR10_1_best.pt", None, "images beside labels"),
    ("syn_image.pth", "syn_label.pth", None, "images beside labels"),
    ("x.pt", "x_labels.pt", None, "images beside labels"),
    ("images_of_image.pt", "labels_of_image.pt", None, "images beside labels"),
]


@pytest.mark.parametrize(("name", "beside", "rate", "layout"), PAIRS)
def test_images_beside_labels_are_one_set(name, beside, rate, layout, images, facts, tmp_path):
    torch.save(images, tmp_path / name)
    torch.save(LABELS, tmp_path / beside)
    if rate:
        torch.save(torch.tensor([0.25]), tmp_path / rate)
    for path in (tmp_path, tmp_path / name):
        (saved,) = read(path, facts)
        assert same(saved, images) and (saved.layout, saved.lr) == (layout, 0.25 if rate else None)
        assert f"labels of {beside}" in saved.assumed
        assert ("learnt rate 0.25" in saved.assumed) == bool(rate)


def test_arrays_of_numpy_in_files_of_their_own_are_one_set(images, facts, tmp_path):
    for kind, of_it in {"images": images[:, 0], "labels": LABELS}.items():
        np.save(tmp_path / f"{kind}.npy", of_it.numpy())
    (saved,) = read(tmp_path, facts)
    assert same(saved, images)
    np.save(tmp_path / "features.npy", np.zeros((3, 3)))
    with told() as lines:
        (one,) = finding.found_at(tmp_path)
    assert one.path.name == "images.npy"
    assert "features.npy: holds a tensor of torch.float64 (3, 3)" in lines[0]


def test_several_sets_in_a_folder_have_their_own_labels(images, facts, tmp_path):
    for k, name in enumerate(("CIFAR10_IPC10", "CIFAR10_IPC50")):
        torch.save(images + k, tmp_path / f"{name}_images.pt")
        torch.save(LABELS.float(), tmp_path / f"{name}_labels.pt")  # DataDAM's are float32
    first, second = read(tmp_path, facts)
    assert same(first, images) and same(second, images + 1)


STORED = {
    "channels first": (lambda x: x, ""),
    "channels last": (lambda x: x.transpose(0, 2, 3, 1), "channels last"),
    "no channels": (lambda x: x[:, 0], "without a dimension of channels"),
    "flat": (lambda x: x.reshape(len(x), -1), "flat"),
    "float64": (lambda x: x.astype(np.float64), ""),
    "big-endian": (lambda x: x.astype(">f4"), ""),
    "Fortran's order": (np.asfortranarray, ""),
}


@pytest.mark.parametrize("kind", STORED)
def test_npz_is_read_however_its_images_are_stored(kind, images, facts, tmp_path):
    store, words = STORED[kind]
    others = {"k": np.float32(3.5), "names": np.array(["a", None], dtype=object)}
    np.savez(tmp_path / "best.npz", images=store(images.numpy()), labels=LABELS.numpy(), **others)
    (saved,) = read(tmp_path, facts)
    assert same(saved, images) and words in saved.assumed and "not used: k, names" in saved.assumed


def test_npz_of_whole_numbers_is_pixels_of_8_bits_and_has_soft_labels(facts, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    targets = np.eye(10, dtype=np.float32)[LABELS] - 0.1  # as KIP and RFAD regress on them
    np.savez_compressed(tmp_path / "x.npz", x=pixels, y=targets, lr=0.5)
    (saved,) = read(tmp_path / "x.npz", facts)
    expected = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - facts.mean[0]) / facts.std[0]
    torch.testing.assert_close(saved.canvases, expected)
    assert torch.equal(saved.labels, torch.from_numpy(targets))
    assert "pixels in [0,255]" in saved.assumed and saved.lr == 0.5


def settings():
    names = np.array(["cat", "dog"])
    mean = np.zeros(3, np.float32)
    where = Path("result")
    return argparse.Namespace(ipc=2, lr=np.float64(0.5), mean=mean, names=names, path=where)


# Forms of one experiment: (images, labels) -> content; what the line about assumptions says of it.
FORMS = {
    "a tuple": (lambda x, y: {"data": (x, y)}, ""),
    "a list": (lambda x, y: {"data": [x, y]}, ""),
    "tuples in a tuple": (lambda x, y: {"data": ((x, y),)}, ""),
    "a dictionary": (lambda x, y: {"data": {"images": x, "labels": y}}, ""),
    "dictionaries": (lambda x, y: {"data": [{"image_syn": x, "label_syn": y}]}, ""),
    "numpy's arrays": (lambda x, y: {"data": [[x.numpy(), y.numpy()]]}, ""),
    "a list of labels": (lambda x, y: {"data": [[x, y.tolist()]]}, ""),
    "a list of images": (lambda x, y: {"data": [[list(x), y]]}, ""),
    "a third entry": (lambda x, y: {"data": [[x, y, 0.1]]}, "not used: what follows images"),
    "settings": (lambda x, y: {"data": [[x, y]], "args": settings(), "lr": 1}, "used: args, lr"),
    "arrays": (lambda x, y: {"data": [[x, y]], "mean": np.ones(3), "it": np.int64(3)}, "mean, it"),
    "named entries": (lambda x, y: {"images": x, "labels": y, "args": settings()}, "used: args"),
    "its package's": (lambda x, y: {"image_tensor": x, "hard_labels": y}, ""),
    "data and labels": (lambda x, y: {"data": x, "labels": y}, ""),
    "with a rate": (lambda x, y: (x, y, torch.tensor(0.5)), "learnt rate 0.5"),
    "labels in a list": (lambda x, y: (x, y.tolist(), torch.tensor(0.5)), "learnt rate 0.5"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms_of_one_experiment_are_read_as_the_same_set(kind, images, facts, tmp_path):
    make, words = FORMS[kind]
    for old in (True, False):  # numpy's arrays are named otherwise by older pickles
        torch.save(make(images, LABELS), tmp_path / "x.pt", _use_new_zipfile_serialization=old)
        (saved,) = read(tmp_path / "x.pt", facts)
        assert same(saved, images) and words in saved.assumed


def test_two_experiments_stay_two(images, facts, tmp_path):
    torch.save({"data": ((images, LABELS), (images + 1, LABELS))}, tmp_path / "x.pt")
    first, second = read(tmp_path / "x.pt", facts)
    assert same(first, images) and same(second, images + 1)


class Settings:
    """A class of somebody's program."""


def refusal(path):
    """The one line by which a file is refused."""
    with pytest.raises(UserError) as error:
        layouts.recognise(path)
    text = str(error.value)
    assert path.name in text and "\n" not in text and "delete" not in text
    return text


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_refused_with_its_conversion(protocol, images, facts, tmp_path, monkeypatch):
    path = tmp_path / "acc_0.6206.pkl"  # as the released trainer keeps its best set
    path.write_bytes(pickle.dumps((images, LABELS), protocol=protocol))
    before = path.read_bytes()
    text = refusal(path)
    assert "a pickle" in text and path.read_bytes() == before
    with pytest.raises(UserError, match="a pickle"):
        finding.found_at(tmp_path)
    monkeypatch.setattr(torch, "load", torch.load)  # which the lines replace
    exec(text.partition("in Python: ")[2], {})
    monkeypatch.undo()
    (saved,) = read(tmp_path, facts)  # the folder has a set now
    assert same(saved, images)


def test_a_class_of_a_program_is_named_with_the_python_that_converts_it(images, facts, tmp_path):
    classes = {Settings(): "test_foreign.Settings", TensorDataset(LABELS): "TensorDataset"}
    for extra, name in classes.items():
        path = tmp_path / "res_x.pt"
        torch.save({"data": [[images, LABELS]], "args": extra}, path)
        text = refusal(path)
        assert name in text and "damaged" not in text
        exec(text.partition(": import")[2].join(["import", ""]), {})
        (saved,) = read(tmp_path / "res_x.pt.pt", facts)
        assert same(saved, images)


def test_code_in_a_file_is_never_run(tmp_path):
    boom = tmp_path / "boom"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb(boom)))
    torch.save({"data": Bomb(boom)}, tmp_path / "b.pt")
    np.save(tmp_path / "c.npy", np.array([Bomb(boom)], dtype=object))
    np.savez(tmp_path / "d.npz", images=np.array([Bomb(boom)], dtype=object), labels=np.zeros(1))
    torch.save({"data": [[np.array([Bomb(boom)], dtype=object), LABELS]]}, tmp_path / "e.pt")
    for name in ("a.pkl", "b.pt", "c.npy", "d.npz", "e.pt"):
        refusal(tmp_path / name)
    assert not boom.exists()


def cut(path, save):
    save(path)
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path, save):
    save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def npz(path):
    with open(path, "wb") as file:
        np.savez(file, images=np.ones((20, 1, 8, 8)), labels=np.ones(20))


def npy(path, dtype=float):
    with open(path, "wb") as file:
        np.save(file, np.ones((20, 1, 8, 8), dtype=dtype), allow_pickle=True)


def entries(path, *unnamed, **named):
    with open(path, "wb") as file:
        np.savez(file, *unnamed, **named)


def program():
    """A zip archive as torch.jit.save writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"):
            file.writestr(name, "")
    return buffer.getvalue()


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "nothing")


LFS = "version https://git-lfs.github.com/spec/v1\noid x\n"
SAFE = b"\x39" + bytes(7) + b'{"images":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
# What lies at x: how it is written, and the words of the line.
KINDS = {
    "nothing": (lambda path: path.write_bytes(b""), ["empty", "copy it again"]),
    "LFS": (lambda path: path.write_text(LFS), ["git lfs pull"]),
    "a page": (lambda path: path.write_text("<!DOCTYPE html>\n<html>"), ["web page", "download"]),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF" + bytes(99)), ["HDF5", "numpy.savez"]),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(99)), ["gzip", "unpack"]),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n" + bytes(99)), ["picture"]),
    "safetensors": (lambda path: path.write_bytes(SAFE), ["safetensors", "load_file"]),
    "a zip": (archive, ["zip archive", "unpack"]),
    "text": (lambda path: path.write_text("hello " * 99), ["damaged or not", "copy it again"]),
    "a cut npz": (lambda path: cut(path, npz), ["damaged"]),
    "another npz": (lambda path: flipped(path, npz), ["damaged"]),
    "a cut npy": (lambda path: cut(path, npy), ["damaged"]),
    "objects": (lambda path: npy(path, object), ["Python objects"]),
    "an old .pt": (lambda path: cut(path, lambda to: torch.save([LABELS], to)), ["damaged"]),
    "a program": (lambda path: path.write_bytes(program()), ["a program (TorchScript)"]),
    "data alone": (lambda path: torch.save({"data": LABELS}, path), ["'data'", "without labels"]),
    "data by class": (lambda path: torch.save({"data": {0: LABELS}}, path), ["'data' holds dict"]),
    "half a pair": (lambda path: torch.save({"data": [{"x": LABELS}]}, path), ["holds dict, not"]),
    "no data": (lambda path: torch.save({"data": None}, path), ["'data' holds NoneType"]),
    "unnamed": (lambda path: entries(path, LABELS), ["arr_0", "entries named images"]),
    "words": (lambda path: entries(path, images=LABELS, labels=["a"]), ["labels (no numbers)"]),
    "weights": (lambda path: torch.save({"conv.weight": LABELS}, path), ["conv.weight", "none"]),
    "labels": (lambda path: torch.save(LABELS, path), ["a tensor of torch.int64 (20,)"]),
    "rates": (lambda path: torch.save((torch.ones(2, 9), LABELS, torch.zeros(1)), path), ["0.0"]),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named_whatever_its_name(kind, suffix, tmp_path):
    write, words = KINDS[kind]
    path = tmp_path / f"x{suffix}"
    write(path)
    before = path.read_bytes()
    text = refusal(path)
    assert all(word in text for word in words), text
    assert path.read_bytes() == before


def test_one_unknown_file_does_not_stop_a_folder(images, facts, tmp_path, capsys):
    for name in ("a.pt", "c.pt"):
        torch.save({"data": [[images, LABELS]]}, tmp_path / name)
    torch.save({"conv.weight": images}, tmp_path / "b.pt")
    (tmp_path / "d.pt").write_text(LFS)
    (tmp_path / "._a.pt").write_bytes(b"of another system")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/a.pt").write_bytes(b"")
    with told() as lines:
        found = finding.found_at(tmp_path, recursive=True)
    assert [one.path.name for one in found] == ["a.pt", "c.pt"]
    assert len(lines) == 2 and all(line.startswith("skipped: ") for line in lines)
    assert "b.pt: holds a dictionary of conv.weight" in lines[0]
    assert "d.pt: is a Git LFS pointer" in lines[1]
    line = [str(tmp_path), "--dataset=Digits", "--recursive", "--grid", str(tmp_path / "x.png")]
    assert command.main(None, line) == 2  # two layouts, one grid: but both were found
    assert "found 2" in capsys.readouterr().err
    for name in ("a.pt", "c.pt"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"b\.pt: holds .* so it is with 1 more"):
        finding.found_at(tmp_path)


def test_many_unknown_files_get_a_few_lines(images, tmp_path):
    torch.save({"data": [[images, LABELS]]}, tmp_path / "set.pt")
    for k in range(15):
        (tmp_path / f"other{k}.pt").write_bytes(b"")
    with told() as lines:
        assert len(finding.found_at(tmp_path)) == 1
    assert len(lines) == finding.REFUSALS + 1 and lines[-1] == f"skipped: 5 others at {tmp_path}"


def test_files_that_end_in_exp_are_parts_of_our_own_job_arrays_only(images, facts, tmp_path):
    for name in ("dm.pt", "dm_exp1.pt", "dm_exp2.pt"):
        torch.save({"data": [[images, LABELS]]}, tmp_path / name)
    assert len(read(tmp_path, facts)) == 3


def test_arrays_do_not_hide_what_a_folder_was_before(images, facts, tmp_path):
    from torchvision.utils import save_image

    for c in range(10):
        (tmp_path / str(c)).mkdir()
        save_image(images[c], tmp_path / f"{c}/x.png")
        np.save(tmp_path / f"{c}/features.npy", np.zeros(3))
        (tmp_path / f"{c}/x.pkl").write_bytes(b"")
    np.savez(tmp_path / "features.npz", a=np.zeros(3))
    (one,) = finding.found_at(tmp_path)
    assert one.path == tmp_path
    torch.save({"data": [[images, LABELS]]}, tmp_path / "res.pt")
    (tmp_path / "buffer.pkl").write_bytes(b"\x80\x04.")
    assert [file.name for file in finding.files(tmp_path)] == ["features.npz", "res.pt"]


def test_a_folder_of_arrays_below_is_said(images, tmp_path):
    (tmp_path / "10").mkdir()
    np.savez(tmp_path / "10/best.npz", images=images, labels=LABELS)
    with pytest.raises(UserError, match=r"1 in folders below it, as 10/best\.npz; --recursive"):
        finding.files(tmp_path)
    assert finding.files(tmp_path, recursive=True) == [tmp_path / "10/best.npz"]


def test_no_message_advises_to_delete_a_file():
    for source in Path(bacon.__file__).parent.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        for advice in ("or delete", "delete it", "; delete"):
            assert advice not in text, source


def test_an_archive_that_is_packed_in_an_unknown_way_is_refused(tmp_path):
    npz(tmp_path / "x.npz")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # of a file, and its entry
        start = content.find(header)
        while start >= 0:
            content[start + place : start + place + 2] = (97).to_bytes(2, "little")
            start = content.find(header, start + 1)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz: damaged, or holds Python objects"):
        foreign.load(tmp_path / "x.npz")


def test_a_tensor_of_another_shape_is_images_only_beside_labels_of_its_name(tmp_path):
    flat = torch.rand(20, 64)
    for name, labels, expected in (
        ("weights.pt", None, torch.Tensor),
        ("x.pt", "x_labels.pt", foreign.Pair),
        ("x.pt", "labels.pt", torch.Tensor),  # of any of the files there
    ):
        if labels:
            torch.save(LABELS, tmp_path / labels)
        assert isinstance(foreign.understood(tmp_path / name, flat).content, expected)
        for file in tmp_path.glob("*labels.pt"):
            file.unlink()


def test_settings_and_arrays_are_read_by_this_module_alone(tmp_path):
    torch.save({"args": settings()}, tmp_path / "x.pt")
    assert foreign.load(tmp_path / "x.pt")["args"].ipc == 2
    with pytest.raises(UserError, match=r"it holds argparse\.Namespace, whose code is not run"):
        load_torch(tmp_path / "x.pt")


def test_nothing_is_read_from_a_pipe_which_might_never_end(images, facts, tmp_path):
    torch.save({"data": [[images, LABELS]]}, tmp_path / "a.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    handle = os.open(tmp_path / "pipe.pt", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(handle, b"waiting")
        with told() as lines:
            (found,) = finding.found_at(tmp_path)
        assert found.path.name == "a.pt"
        (line,) = lines
        assert line.startswith(f"skipped: {tmp_path / 'pipe.pt'}: damaged or not a .pt file")
        assert os.read(handle, 99) == b"waiting"
    finally:
        os.close(handle)


def test_a_file_that_may_not_be_read_is_named(images, tmp_path):
    """As root may read all, the file goes between looking for it and reading it."""
    with pytest.raises(UserError) as error:
        foreign.load(tmp_path / "gone.pt")
    assert str(error.value) == f"{tmp_path / 'gone.pt'}: No such file or directory"


RATES = {
    "text": ("fast", "holds str, no learning rate"),
    "two": (torch.ones(2), "holds 2 numbers in place of one learning rate; see --lr_net"),
    "none": ([], "holds 0 numbers in place of one learning rate; see --lr_net"),
    "below 0": (-0.1, "holds -0.1, which is no learning rate; without that file"),
    "infinite": (float("inf"), "holds inf, which is no learning rate; without that file"),
    "not a number": (float("nan"), "holds nan, which is no learning rate; without that file"),
}


@pytest.mark.parametrize("kind", RATES)
def test_a_file_of_rates_holds_one_number_above_0(kind, images, tmp_path):
    rate, words = RATES[kind]
    torch.save(images, tmp_path / "images.pt")
    torch.save(LABELS, tmp_path / "labels.pt")
    torch.save(rate, tmp_path / "lr.pt")
    with pytest.raises(UserError) as error:
        layouts.recognise(tmp_path / "images.pt")
    assert str(error.value).startswith(f"{tmp_path / 'lr.pt'}: {words}")


def test_an_archive_of_arrays_whose_entries_are_misplaced_is_damaged(tmp_path):
    path = tmp_path / "x.npz"
    npz(path)
    content = bytearray(path.read_bytes())
    content[:4] = b"PK\0\0"  # where the first entry begins
    path.write_bytes(content)
    assert zipfile.is_zipfile(path)
    assert "damaged, or holds Python objects, which are not read" in refusal(path)


def test_a_damaged_part_of_a_job_array_is_told_by_itself(images, facts, tmp_path):
    torch.save({"data": [[images, LABELS]]}, tmp_path / "dm.pt")
    (tmp_path / "dm_exp1.pt").write_text("hello " * 99)
    with told() as lines:
        (found,) = finding.found_at(tmp_path)
    assert found.path.name == "dm.pt"
    (line,) = lines
    assert line.startswith(f"skipped: {tmp_path / 'dm_exp1.pt'}: damaged or not a .pt file")


@pytest.mark.parametrize("name", ["Digits2", "ImageFolder2"])
def test_a_dataset_that_only_another_version_knows_is_named(name, images, tmp_path):
    args = {"dataset": name, "epoch_eval_train": 1, "batch_train": 1, "lr_net": 0.1}
    meta = {"args": args | {"dsa_strategy": ""}, "factor": 1, "zca": None}
    ours = {"data": [[images, LABELS]], "accs_all_exps": {}, "meta": meta}
    torch.save(ours, tmp_path / "ours.pt")
    with pytest.raises(UserError, match=f"^dataset {name}: unknown; choose from .* or ImageFolder"):
        finding.find(scorer(tmp_path / "ours.pt"))
