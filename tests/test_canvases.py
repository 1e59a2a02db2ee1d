"""Facts about synthetic sets: how canvases start, what they decode to, how a saved set is read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from layouts import Bomb, to_bytes

import augment
import utils
from bacon import canvases, recipes
from bacon.data import real_data
from bacon.data.spaces import from_planes, to_planes
from bacon.errors import UserError
from bacon.flags import parse_args

# Initial canvases


@pytest.fixture
def real(digits):
    return digits.real("train")


def initial(real, ipc, init="real", factor=2):
    return canvases.initial(
        real, ipc, init, factor, {c: utils.stream(0, "init", c) for c in range(10)}
    )


def test_real_canvases_hold_distinct_real_images_of_their_class(real):
    made, every = initial(real, 5, factor=1), real.take(slice(None))
    assert made.shape == (10, 5, 1, 8, 8) and made.dtype == torch.float32
    for c in range(10):
        distance = (made[c][:, None] - every[real.labels == c]).abs().amax((2, 3, 4))
        assert (distance == 0).any(1).all() and len(set(distance.argmin(1).tolist())) == 5


def test_quadrants_of_a_canvas_are_halved_real_images_of_its_class(real):
    made, halved = initial(real, 3), F.avg_pool2d(real.take(slice(None)), 2)
    for c in range(10):
        for y in (0, 4):
            for x in (0, 4):
                distance = made[c][:, None, :, y : y + 4, x : x + 4] - halved[real.labels == c]
                assert (distance.abs().amax((2, 3, 4)) < 1e-6).any(1).all()


def test_noise_canvases_are_standard_normal(real):
    x = initial(real, 50, "noise")
    assert x.shape == (10, 50, 1, 8, 8)
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02


def test_decoding_by_class_gives_each_class_its_own_images():
    x = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 2, 1, 4, 4)
    assert canvases.decode_by_class(x, 2)[:, 0, 0, 0].tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 8
    x = torch.randn(3, 2, 1, 4, 4)
    for c in range(3):
        assert torch.equal(
            canvases.decode_by_class(x, 2).unflatten(0, (3, 8))[c], augment.split(x[c])
        )


# Saved sets


def save_set(path, factor=2, experiments=2):
    """A result of our layout: its content."""
    rng = np.random.default_rng(0)
    sets = [
        [
            torch.from_numpy(rng.normal(size=(6, 3, 8, 8))).float(),
            torch.arange(3).repeat_interleave(2).int(),
        ]
        for _ in range(experiments)
    ]
    meta = {
        "factor": factor,
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
        "args": {"ipc": 2},
        "zca": None,
    }
    saved = {"data": sets, "accs_all_exps": {"ConvNet": [48.7, 49.0]}, "meta": meta}
    torch.save(saved, path)
    return saved


def test_canvases_are_decoded_into_four_images_with_their_labels(tmp_path):
    path = tmp_path / "res.pt"
    saved = save_set(path)
    for exp in (0, 1):
        images, labels, meta = canvases.load_distilled(path, exp)
        assert (
            torch.equal(images, augment.split(saved["data"][exp][0]))
            and images.dtype == torch.float32
        )
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] * 4 and labels.dtype == torch.int64
        assert meta == saved["meta"]


@pytest.mark.parametrize(
    "before",
    [
        "sys.path[:0] = [theirs, ours]",
        "sys.path[:0] = [ours, theirs]",
        "sys.path[:0] = [theirs]; import utils; utils.theirs; sys.path[:0] = [ours]",
    ],
    ids=["theirs first", "ours first", "theirs imported"],
)
def test_a_project_with_modules_of_the_same_names_loads_a_set(before, tmp_path):
    saved = save_set(tmp_path / "res.pt")
    for name in ("augment", "networks", "utils"):  # as DC, DM and MTT have them
        stop = "raise ImportError('not ours')" if name != "utils" else "theirs = 1"
        (tmp_path / f"{name}.py").write_text(stop)
    ours = Path(canvases.__file__).parents[1]
    program = f"import sys; theirs, ours = {str(tmp_path)!r}, {str(ours)!r}; {before}\n"
    program += "sys.modules['numpy'] = None  # nothing but torch\n"
    program += "from bacon.canvases import load_distilled\n"
    program += "images, labels, meta = load_distilled(theirs + '/res.pt', 1)\n"
    program += "print(images.double().sum().item(), labels.tolist(), meta['factor'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    total = augment.split(saved["data"][1][0]).double().sum().item()
    assert done.stdout == f"{total} {[0, 0, 1, 1, 2, 2] * 4} 2\n", done.stderr


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1]), torch.tensor([[0.9, 0.1], [0.2, 0.8]])], ids=["hard", "soft"]
)
def test_every_image_of_a_canvas_carries_its_label(labels):
    four = torch.zeros(2, 1, 4, 4)  # canvases of four flat quadrants: every image must be flat
    for number, (rows, columns) in enumerate(
        [(0, 0), (2, 0), (0, 2), (2, 2)]
    ):  # the documented order
        for canvas in (0, 1):
            four[canvas, :, rows : rows + 2, columns : columns + 2] = 10 * canvas + number
    images, targets = canvases.decode(four, labels, 2)
    assert images[:, 0].flatten(1).unique(dim=1).tolist() == [
        [10 * (i % 2) + i // 2] for i in range(8)
    ]
    assert targets.tolist() == labels.tolist() * 4
    assert all(
        torch.equal(a, b)
        for a, b in zip(canvases.decode(four, labels, 1), (four, labels), strict=True)
    )


def test_a_set_without_multi_formation_is_returned_as_saved(tmp_path):
    ((canvas, label), _) = save_set(tmp_path / "res.pt", factor=1)["data"]
    images, labels, _ = canvases.load_distilled(tmp_path / "res.pt")
    assert torch.equal(images, canvas) and torch.equal(labels, label.long())


SPOILT = {
    "another layout": lambda d, b: {"images_train": d["data"][0][0]},
    "no dictionary": lambda d, b: d["data"],
    "no meta": lambda d, b: {"data": d["data"], "accs_all_exps": {}},
    "no factor": lambda d, b: d | {"meta": {"args": {}, "zca": None}},
    "factor 3": lambda d, b: d | {"meta": d["meta"] | {"factor": 3}},
    "no pairs": lambda d, b: d | {"data": [d["data"][0][:1]]},
    "no tensors": lambda d, b: d | {"data": [["images", "labels"]]},
    "odd size": lambda d, b: d | {"data": [[torch.zeros(6, 3, 7, 7), torch.zeros(6)]]},
    "fewer labels": lambda d, b: d | {"data": [[torch.zeros(6, 3, 8, 8), torch.zeros(5)]]},
    "malicious": lambda d, b: d | {"meta": Bomb(b)},
}


@pytest.mark.parametrize("kind", [*SPOILT, "truncated"])
def test_foreign_or_damaged_set_is_one_line(kind, tmp_path):
    path, bomb = tmp_path / "res.pt", tmp_path / "executed"
    saved = save_set(path)
    path.write_bytes(
        to_bytes(SPOILT[kind](saved, bomb)) if kind in SPOILT else path.read_bytes()[:-50]
    )
    with pytest.raises(UserError) as error:
        canvases.load_distilled(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not bomb.exists()


@pytest.mark.parametrize(
    ("name", "value"), [("args", []), ("args", None), ("experiments", None), ("experiments", ["0"])]
)
def test_a_result_whose_flags_or_experiments_are_damaged_is_refused(name, value, tmp_path):
    saved = save_set(tmp_path / "res.pt")
    saved["meta"][name] = value
    torch.save(saved, tmp_path / "res.pt")
    with pytest.raises(UserError, match=rf"res\.pt: damaged result \(its meta: '{name}' is"):
        canvases.read_result(tmp_path / "res.pt")


def test_missing_set_says_so(tmp_path):
    with pytest.raises(UserError, match=r"res\.pt: No such file"):
        canvases.load_distilled(tmp_path / "res.pt")


@pytest.mark.parametrize("exp", [-1, 2])
def test_experiment_out_of_range_says_what_there_is(exp, tmp_path):
    save_set(tmp_path / "res.pt")
    with pytest.raises(UserError, match=rf"res\.pt: has no experiment {exp}, only 0\.\.1"):
        canvases.load_distilled(tmp_path / "res.pt", exp)


# Chroma at half resolution


def colour_images(per_class=40, classes=3, side=8):
    """A real_data.RealData of random colour images."""
    labels = torch.arange(classes).repeat_interleave(per_class)
    images = torch.randint(
        0, 256, (len(labels), 3, side, side), generator=torch.Generator().manual_seed(0)
    )
    return real_data.RealData(
        images.to(torch.uint8), labels, (0.5,) * 3, (0.2,) * 3, classes, "cpu"
    )


@pytest.mark.parametrize("init", ["real", "noise"])
def test_twice_the_canvases_take_the_same_storage(init):
    real, flags = colour_images(), ["--dataset=CIFAR10", "--ipc=4"]
    stored = {}
    for chroma in ("full", "half"):
        args = parse_args(("CIFAR10",), "", [*flags, f"--chroma={chroma}", f"--init={init}"]).args
        count = recipes.canvases_per_class(args)
        streams = {c: utils.stream(0, "init", c) for c in range(3)}
        stored[chroma] = canvases.initial(real, count, init, 2, streams, chroma)
        assert recipes.images_per_class(args) == 4 * count == (16 if chroma == "full" else 32)
        assert len(canvases.decode_by_class(stored[chroma], 2, chroma)) == 3 * 4 * count
    assert stored["half"].numel() == stored["full"].numel() == 3 * 4 * 3 * 8 * 8
    assert stored["half"].shape == (3, 8, 6, 4, 4)


def test_colours_come_before_multi_formation_and_labels_stay_with_their_images():
    images = (
        torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 8, 8)
        + torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    )
    planes, labels = to_planes(images), torch.tensor([5, 6, 7])
    decoded, targets = canvases.decode(planes, labels, 2, "half")
    assert decoded.shape == (12, 3, 8, 8) and targets.tolist() == [5, 6, 7] * 4
    torch.testing.assert_close(decoded, images.repeat(4, 1, 1, 1))
    by_class = canvases.decode_by_class(planes[:, None], 2, "half")
    torch.testing.assert_close(by_class, images.repeat_interleave(4, 0))


def test_a_saved_set_with_half_chroma_loads_as_colour_images(tmp_path):
    planes, labels = torch.randn(6, 6, 4, 4), torch.arange(3).repeat_interleave(2)
    saved = save_set(tmp_path / "res.pt")
    saved["data"], saved["meta"]["chroma"] = [[planes, labels]], "half"
    torch.save(saved, tmp_path / "res.pt")
    images, targets, _ = canvases.load_distilled(tmp_path / "res.pt")
    assert (
        torch.equal(images, augment.split(from_planes(planes)))
        and targets.tolist() == labels.tolist() * 4
    )


@pytest.mark.parametrize("chroma", ["full", "half"])
@pytest.mark.parametrize("init", ["real", "noise"])
def test_canvases_start_in_single_precision_and_each_class_by_its_own_stream(init, chroma):
    real = colour_images(per_class=12)
    streams = {c: utils.stream(0, "init", c) for c in range(3)}
    every = canvases.initial(real, 2, init, 2, streams, chroma)
    assert every.dtype == torch.float32
    alone = canvases.initial(real, 2, init, 2, {1: utils.stream(0, "init", 1)}, chroma)
    assert torch.equal(every[1:2], alone)


def test_chosen_images_are_put_on_the_canvases_in_their_order(real):
    rows = {c: np.flatnonzero(real.labels.numpy() == c)[:8] for c in (3, 7)}
    made = canvases.initial(real, 2, "cluster", 2, dict.fromkeys(rows), chosen=rows)
    expected = [augment.tile(real.take(rows[c])) for c in (3, 7)]
    assert torch.equal(made, torch.stack(expected))


def test_a_result_is_told_by_its_keys():
    meta = {"args": {}, "factor": 1, "zca": None}
    result = {"data": [], "accs_all_exps": {}, "meta": meta}
    assert canvases.is_result(result | {"more": 1})
    for key in result:
        assert not canvases.is_result({name: result[name] for name in result if name != key})
    for key in meta:
        less = {name: meta[name] for name in meta if name != key}
        assert not canvases.is_result(result | {"meta": less})
    assert not canvases.is_result(result | {"meta": list(meta)})
    assert not canvases.is_result(list(result))
