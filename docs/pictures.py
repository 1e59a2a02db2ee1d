"""Draw docs/method.png and docs/beyond.png from stored sets, by the scripts' own functions;
`make figures` runs it. An argument names another folder to draw into.
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import augment  # noqa: E402
from bacon.canvases import colours, read_result  # noqa: E402
from bacon.data.spaces import denormalise  # noqa: E402

RUNS = ROOT / "docs" / "runs" / "CIFAR10_ConvNetW32_10ipc_200it"
CAR = 1
HORSE = 7


def saved_set(run):
    """The set of a run of RUNS."""
    (path,) = (RUNS / run).glob("res_*.pt")
    return read_result(path)


def first_canvas(saved, c):
    """The first canvas of class c of a saved set, as it is stored: (1, ...)."""
    canvases, labels = saved["data"][0]
    return canvases[labels == c][:1]


def pixels(saved, images):
    """Normalised images (n, C, H, W) of a saved set as (n, H, W, C) in [0, 1]."""
    meta = saved["meta"]
    return denormalise(images, meta["mean"], meta["std"]).clamp(0, 1).permute(0, 2, 3, 1)


def empty_axes(figure, rows, columns):
    axes = figure.subplots(rows, columns)
    for each in axes.flat:
        each.axis("off")
    return axes


def show(axes, image, title, **options):
    axes.imshow(image, interpolation="nearest", **options)
    axes.set_title(title, fontsize=8)


def draw_method():
    """A canvas of BACON and its four images, and these under one draw of DSA."""
    saved = saved_set("BACON_seed0")
    canvas = first_canvas(saved, HORSE)
    images = augment.split(canvas)
    rotated = augment.dsa(images, augment.Transform("rotate", torch.tensor([[0.9, 0.0, 0.0]])))

    figure = Figure(figsize=(8, 3.5), layout="tight")
    axes = empty_axes(figure, 2, 5)
    show(axes[0, 0], pixels(saved, canvas)[0], "a canvas, 3x32x32")
    for i in range(4):
        show(axes[0, i + 1], pixels(saved, images)[i], f"image {i + 1}, 3x32x32")
        show(axes[1, i + 1], pixels(saved, rotated)[i], "one draw of DSA")
    return figure


def draw_beyond():
    """Two canvases of our recipe: luma, chroma, the canvas and its four images."""
    saved = saved_set("ours_seed0")
    figure = Figure(figsize=(10.6, 3.2), layout="tight")
    axes = empty_axes(figure, 2, 8)
    for row, c in zip(axes, (CAR, HORSE), strict=True):
        planes = first_canvas(saved, c)
        luma = torch.nn.functional.pixel_shuffle(planes[:, :4], 2)[0, 0]
        canvas = colours(planes, "half")
        images = pixels(saved, augment.split(canvas))
        largest = planes[0, 4:].abs().max()
        show(row[0], luma, "luma, 32x32", cmap="gray")
        for plane, name in ((4, "R-B"), (5, "R-2G+B")):
            title = f"{name}, 16x16"
            show(row[plane - 3], planes[0, plane], title, cmap="RdBu", vmin=-largest, vmax=largest)
        show(row[3], pixels(saved, canvas)[0], "the canvas")
        for i in range(4):
            show(row[i + 4], images[i], f"image {i + 1}")
    return figure


def main(folder):
    draw_method().savefig(folder / "method.png", dpi=110)
    draw_beyond().savefig(folder / "beyond.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs")
