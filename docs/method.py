"""Draw docs/method.png from stored sets, by the scripts' own functions; `make figures` runs it.

One canvas and its four images, these under one draw of DSA, and two canvases of half-size chroma.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

import augment
from bacon.canvases import colours, read_result
from bacon.data.spaces import denormalise

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "runs" / "CIFAR10_ConvNetW32_10ipc_200it"
NAME = "res_BACON_CIFAR10_ConvNetW32_10ipc.pt"


def canvases_of_class(saved, c):
    """The canvases of class c of a saved set, as they are stored."""
    canvases, labels = saved["data"][0]
    return canvases[labels == c]


def show(axes, image, title):
    axes.imshow(image, interpolation="nearest", cmap="gray")
    axes.set_title(title, fontsize=8)


def main():
    bacon = read_result(RUNS / "BACON_seed0" / NAME)
    ours = read_result(RUNS / "ours_seed0" / NAME)
    mean = bacon["meta"]["mean"]
    std = bacon["meta"]["std"]

    def pixels(images):
        """Normalised images (n, C, H, W) as (n, H, W, C) in [0, 1]."""
        return denormalise(images, mean, std).clamp(0, 1).permute(0, 2, 3, 1)

    figure = Figure(figsize=(9.6, 5.2), layout="tight")
    axes = figure.subplots(3, 6)
    for each in axes.flat:
        each.axis("off")

    canvas = canvases_of_class(bacon, 7)[:1]  # a horse
    images = augment.split(canvas)
    rotated = augment.dsa(images, augment.Transform("rotate", torch.tensor([[0.9, 0.0, 0.0]])))
    show(axes[0, 0], pixels(canvas)[0], "a canvas, 3x32x32")
    for i in range(4):
        show(axes[0, i + 1], pixels(images)[i], f"image {i + 1}, 3x32x32")
        show(axes[1, i + 1], pixels(rotated)[i], "one draw of DSA")

    planes = canvases_of_class(ours, 7)[:2]
    decoded = pixels(colours(planes, "half"))
    luma = torch.nn.functional.pixel_shuffle(planes[:, :4], 2)[:, 0]
    for i in range(2):
        show(axes[2, 3 * i], luma[i], f"canvas {i + 1}: luma, 32x32")
        show(axes[2, 3 * i + 1], torch.cat(list(planes[i, 4:])), "chroma, twice 16x16")
        show(axes[2, 3 * i + 2], decoded[i], "as a canvas")
    figure.savefig(ROOT / "docs" / "method.png", dpi=110)


if __name__ == "__main__":
    main()
