"""Facts about the pictures: they stay readable at every size, and show what they are given."""

import itertools
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bacon import figures
from bacon.errors import UserError


@pytest.mark.parametrize(
    ("classes", "ipc", "side", "most"), [(10, 50, 32, 50), (200, 1, 64, 1), (200, 50, 64, 6)]
)
def test_grids_stay_readable_at_every_size(classes, ipc, side, most, tmp_path):
    images = torch.linspace(0, 0.9, side).expand(classes * ipc, 3, side, side)
    labels = torch.arange(classes).repeat_interleave(ipc)
    figures.grid(images, labels, [f"class {c}" for c in range(classes)], tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        width, height = picture.size
        inked = (np.asarray(picture.convert("L")) < 255).mean()
    assert 0.7 < width / height < 2.2 and width < 3000
    assert inked > 0.4 * classes * most * side**2 / (width * height)


def test_long_names_are_cut_and_no_name_is_needed(tmp_path):
    images, labels = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    figures.grid(
        images, labels, ["", "a name of forty letters and many more words"], tmp_path / "x.png"
    )
    figures.grid(
        images, labels, ["", "a name of forty letters and many more things"], tmp_path / "y.png"
    )
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


HARD = {
    "mathematics": r"$\foo$",
    "one dollar": "5 $",
    "bytes": "caf\udce9",
    "a surrogate": "\ud800",
    "two lines": "a\nb",
    "hidden": "_x",
    "escaped": r"a\$b$",
}


@pytest.mark.parametrize("name", HARD.values(), ids=HARD)
def test_names_of_any_characters_are_shown_as_they_are(name, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    legends = []

    def close(figure):
        found = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
        legends.extend(text for legend in found for text in legend.get_texts())

    monkeypatch.setattr(pyplot, "close", close)
    figures.curve({name: {1: [1.0], 2: [2.0]}}, {name: 2.0}, name, tmp_path / "curve.png")
    points, labels = (
        torch.randn(8, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(8) % 2,
    )
    figures.tsne(points, labels, points, labels, {0: name, 1: "b"}, tmp_path / "map.png", name)
    assert len(legends) == 4 and {
        text._preprocess_math(text.get_text())[1] for text in legends
    } == {False}
    figures.grid(torch.ones(2, 1, 8, 8), torch.arange(2), [name, ""], tmp_path / "grid.png")
    ink = np.asarray(Image.open(tmp_path / "grid.png").convert("L"))
    assert ink.min() < 128  # the images are white


def test_the_images_of_a_class_stand_from_left_to_right_in_their_order(tmp_path):
    greys = torch.tensor([25, 128, 76, 51, 153, 102]) / 255
    images = greys.view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    labels = torch.tensor([1, 0, 1, 0, 0, 1])
    figures.grid(images, labels, ["a", "b"], tmp_path / "x.png")
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    places = {}
    for grey in (25, 51, 76, 102, 128, 153):
        rows, columns = np.nonzero(picture == grey)
        centre = int(np.median(rows)), int(np.median(columns))
        y, x = centre
        assert (picture[y - 30 : y + 30, x - 30 : x + 30] == grey).all()
        places[grey] = centre
    lines = {y: [] for y in sorted({y for y, _ in places.values()})}
    for grey, (y, _) in sorted(places.items(), key=lambda item: item[1][1]):
        lines[y].append(grey)
    assert list(lines.values()) == [[128, 51, 153], [25, 76, 102]]


@pytest.fixture
def plotted(monkeypatch):
    """The axes of every plot, kept open."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    axes = []
    monkeypatch.setattr(pyplot, "close", lambda figure: axes.extend(figure.axes))
    yield axes
    monkeypatch.undo()
    pyplot.close("all")


def test_a_curve_is_the_mean_within_a_band_of_one_standard_deviation(plotted, tmp_path):
    from matplotlib.colors import to_rgb

    points = {20: [3.0, 5.0, 10.0], 10: [1.0]}
    figures.curve({"a": points}, {"line": 2.0}, "title", tmp_path / "curve.png")
    (axes,) = plotted
    curve, line = axes.lines
    assert curve.get_xydata().tolist() == [[10, 1], [20, 6]]
    assert list(line.get_ydata()) == [2, 2]
    (band,) = axes.collections
    outline = band.get_paths()[0].vertices
    spread = np.std([3.0, 5.0, 10.0])
    for it, low, high in ((10, 1, 1), (20, 6 - spread, 6 + spread)):
        edge = outline[outline[:, 0] == it, 1]
        assert (edge.min(), edge.max()) == (pytest.approx(low), pytest.approx(high))
    picture = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB"))
    colour = [round(255 * part) for part in to_rgb(curve.get_color())]
    for x, y in axes.transData.transform([[10, 1], [20, 6]]):
        assert picture[round(len(picture) - y), round(x)].tolist() == colour


def test_dots_and_stars_of_a_class_share_the_colour_of_its_name(plotted, tmp_path, monkeypatch):
    manifold = pytest.importorskip("sklearn.manifold")
    monkeypatch.setattr(manifold.TSNE, "fit_transform", lambda self, points: points[:, :2])
    points = torch.arange(20.0).view(10, 2)
    labels = torch.tensor([3, 5, 5, 3, 5, 3])
    stars = torch.tensor([5, 3, 3, 5])
    names = {3: "three", 5: "five"}
    figures.tsne(points[:6], labels, points[6:], stars, names, tmp_path / "map.png", "of digits")
    (axes,) = plotted
    said = "of digits\ndots: real test images, stars: synthetic images"
    assert axes.get_title() == said and not axes.get_xticks().size and not axes.get_yticks().size
    colours = {}
    legend = axes.get_legend()
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        colours[text.get_text()] = handle.get_facecolor()[0, :3].tolist()
    shown = {name: [] for name in names.values()}
    for collection in axes.collections:
        colour = collection.get_facecolor()[0, :3].tolist()
        (name,) = [name for name in colours if colours[name] == colour]
        shown[name].append(collection.get_offsets().tolist())
    for c, name in names.items():
        assert shown[name] == [points[:6][labels == c].tolist(), points[6:][stars == c].tolist()]


def test_images_of_a_large_grid_are_magnified_less(tmp_path):
    def zoom(count, side=8):
        """How often a pixel of one of `count` images is repeated: its first row is white."""
        images = torch.zeros(count, 1, side, side)
        images[:, :, 0] = 1
        images[:, :, 1:] = 0.5
        figures.grid(images, torch.zeros(count, dtype=torch.int64), [""], tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as picture:
            grey = np.asarray(picture.convert("L")) == 128
        rows = np.flatnonzero(grey.any(1))
        return (np.flatnonzero(np.diff(rows, append=10**6) > 1)[0] + 1) / (side - 1)

    assert zoom(2, figures.SIDE) == zoom(2, 2 * figures.SIDE) == 1 < zoom(2, figures.SIDE - 1)
    few = zoom(2)
    many = zoom(3000)
    assert few == int(few) and many == int(many)
    assert 8 * few >= figures.SIDE > 8 * (few - 1)
    assert 8 * (many + 1) > figures.SIDE // 2 and many < few


def test_a_plot_without_matplotlib_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"^plots need matplotlib: pip install matplotlib$"):
        figures.curve({"a": {1: [1.0]}}, {}, "title", tmp_path / "curve.png")


def boxes(path, colours):
    """{colour: (top, left, bottom, right)} of all that has one of the colours in a picture, which
    fills its box; colours that are nowhere are left out."""
    code = np.array([2**16, 2**8, 1])
    codes = np.asarray(Image.open(path)) @ code
    found = {}
    for colour in colours:
        rows, columns = np.divmod(np.flatnonzero(codes == colour @ code), codes.shape[1])
        if len(rows):
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert len(rows) == (box[2] - box[0]) * (box[3] - box[1])
            found[colour] = tuple(map(int, box))
    return found


@pytest.mark.parametrize(
    ("classes", "ipc", "side", "area", "shown", "lines"),
    [
        (2, 3, 32, figures.AREA, 3, 1),
        (3, 25, 8, figures.AREA, 25, 1),
        (3, 26, 8, figures.AREA, 26, 2),
        (2, 51, 8, figures.AREA, 51, 3),
        (12, 2, 16, figures.AREA, 2, 1),
        (4, 10, 32, 30_000, 6, 1),  # of 34 pixels each with its gap, 7,500 for a class
        (4, 2, 32, 1_000, 1, 1),  # at least one is shown
    ],
)
def test_every_image_has_a_place_of_its_own_in_lines_below_each_other(
    classes, ipc, side, area, shown, lines, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "AREA", area)
    labels = torch.arange(classes).repeat(ipc)
    colours = [(100 + int(c), 10 + k // classes, 200) for k, c in enumerate(labels)]
    images = (torch.tensor(colours) / 255).view(-1, 3, 1, 1).expand(-1, 3, side, side)
    names = [f"name {c}" for c in range(classes)]
    figures.grid(images, labels, names, tmp_path / "x.png")
    found = boxes(tmp_path / "x.png", colours)
    sizes = {(bottom - top, right - left) for top, left, bottom, right in found.values()}
    ((height, width),) = sizes
    assert height == width and height % side == 0
    blocks = []
    for c in range(classes):
        places = [found[colour] for colour in colours[c::classes] if colour in found]
        assert len(places) == shown and places == sorted(places)  # line by line
        tops = [top for top, *_ in places]
        in_lines = [places[tops.index(top) :][: tops.count(top)] for top in sorted(set(tops))]
        assert len(in_lines) == lines and max(map(len, in_lines)) == -(-shown // lines)
        for line in in_lines:
            lefts = [left for _, left, *_ in line]
            assert lefts == [places[0][1] + k * (width + 2) for k in range(len(line))]
        assert sorted(set(tops)) == [tops[0] + k * (height + 2) for k in range(lines)]
        blocks.append((places[0][1], tops[0]))
    assert blocks == sorted(blocks)  # classes go down, then to the right
    for (left, top), (next_left, next_top) in itertools.pairwise(blocks):
        if left == next_left:
            between = next_top - top - lines * (height + 2)
            assert (between > 0) == (lines > 1)  # classes of several lines stand apart
    ink = np.asarray(Image.open(tmp_path / "x.png").convert("L")) < 100
    first = min(top for top, *_ in found.values())
    assert ink[:first].any() == (shown < ipc)  # a caption says so
    for top, left, *_ in found.values():
        if (left, top) in blocks:
            before = [right for _, _, _, right in found.values() if right <= left]
            name = ink[top : top + lines * (height + 2), max(before, default=0) : left]
            assert name.any() and not name[:, -4:].any()  # each name stands before its images


def test_a_long_name_stays_within_the_picture(plotted, tmp_path):
    name = " ".join(["--experts 0"] * 30)
    figures.curve({name: {1: [1.0]}}, {name: 2.0}, "title", tmp_path / "curve.png")
    (axes,) = plotted
    (legend,) = axes.figure.legends
    shown = [text.get_text().split() for text in legend.get_texts()]
    assert shown == [name.split(), f"{name}: 2.00".split()]
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= axes.figure.bbox.width


def test_lines_beside_each_other_look_different_and_any_name_gets_a_png(plotted, tmp_path):
    lines = {f"line {k}": float(k) for k in range(7)}
    figures.curve({}, lines, "title", tmp_path / "no_ending")
    (axes,) = plotted
    styles = [line.get_linestyle() for line in axes.lines]
    assert len(styles) == 7
    assert all(len(set(styles[k : k + 3])) == 3 for k in range(5))
    assert axes.get_title() == "title"
    with Image.open(tmp_path / "no_ending") as picture:
        assert picture.format == "PNG"
