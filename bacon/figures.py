"""Pictures of results as PNG files, without a display: a set's images by class, accuracy over iterations, embeddings.

matplotlib and scikit-learn are imported where they are used: they cost a second.
"""

import contextlib
import math

import numpy as np
import torch

from bacon.data.known_classes import plain
from bacon.errors import UserError

SIDE = 64  # screen pixels that an image gets at least, where there are not too many
AREA = 6_000_000  # screen pixels of a grid at most
LINE = 25  # images of a class in one line at most


def grid(images, labels, classes, path):
    """Write images (n,C,H,W) in [0,1] with labels (n,) as a PNG: class by class, the name of the class before it.

    Images are magnified by whole factors. A class of more than LINE images takes several lines, many classes stand in
    several columns; where even that is too large only the first images of each class are shown, and a caption says so.
    """
    from PIL import Image, ImageDraw, ImageFont

    classes = [plain(name) for name in classes]
    of_class = [(labels == c).nonzero().flatten().tolist() for c in range(len(classes))]
    (height, width), most = images.shape[2:], max(map(len, of_class))
    zoom, room = max(1, -(-SIDE // width)), AREA // len(classes)
    while (
        zoom > 1
        and zoom * width > SIDE // 2
        and most * (zoom * width + 2) * (zoom * height + 2) > room
    ):
        zoom -= 1
    w, h = zoom * width + 2, zoom * height + 2
    shown = min(most, max(1, room // (w * h)))
    lines = -(-shown // LINE)
    per_line = -(-shown // lines)
    size = min(24, max(11, lines * h // 4))
    font = ImageFont.load_default(size)
    label_width = math.ceil(min(200, max(font.getlength(name) for name in classes))) + 12
    block_w, block_h = label_width + per_line * w + 6, lines * h + (4 if lines > 1 else 0)

    def distance(columns):  # of a picture with that many columns of classes from 4:3
        return abs(math.log(columns * block_w / (-(-len(classes) // columns) * block_h) / (4 / 3)))

    columns = min(range(1, len(classes) + 1), key=distance)
    rows = -(-len(classes) // columns)
    caption = f"the first {shown} of {most} images of each class" if shown < most else ""
    top = size + 8 if caption else 2
    canvas = Image.new("RGB", (columns * block_w, top + rows * block_h), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 2), caption, "black", font)
    for c, (name, members) in enumerate(zip(classes, of_class, strict=True)):
        x, y, text, cut = c // rows * block_w, top + c % rows * block_h, name, len(name)
        while (
            cut and font.getlength(text := name[:cut] + "..." * (cut < len(name))) > label_width - 8
        ):
            cut -= 1
        draw.text((x + label_width - 6, y + lines * h // 2), text, "black", font, anchor="rm")
        pixels = images[members[:shown]].clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
        for k, image in enumerate(pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()):
            picture = Image.fromarray(image.repeat(zoom, 0).repeat(zoom, 1))
            canvas.paste(picture, (x + label_width + k % per_line * w, y + k // per_line * h))
    canvas.save(path, format="PNG")


@contextlib.contextmanager
def _plot(path, *size):
    """A matplotlib figure of `size` inches and its axes, to be drawn on; then it is written."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("plots need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")  # needs no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=size, dpi=110, layout="constrained")
    yield figure, axes
    figure.savefig(path, format="png")
    pyplot.close(figure)


def _words(text):
    """A text as matplotlib is to show it: no mathematics between dollars, no name left out.

    It leaves those out of a legend that start with an underscore.
    """
    words = plain(text).replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words


def curve(curves, lines, title, path, split="test"):
    """Write a plot of accuracy over iterations, on the images of a split.

    curves: {name: {iteration: [accuracy in percent of every network]}}, drawn with their mean and population standard
    deviation. lines: {name: accuracy in percent}, drawn dashed across the plot.
    """
    with _plot(path, 6, 4) as (figure, axes):
        for color, (name, points) in enumerate(curves.items()):
            its = sorted(points)
            mean, std = (np.array([f(points[it]) for it in its]) for f in (np.mean, np.std))
            axes.plot(its, mean, "o-", color=f"C{color}", markersize=4, label=_words(name))
            axes.fill_between(
                its, mean - std, mean + std, color=f"C{color}", alpha=0.2, linewidth=0
            )
        for k, (name, value) in enumerate(lines.items()):
            style = ("--", ":", "-.")[k % 3]
            axes.axhline(value, linestyle=style, color="0.35", label=_words(f"{name}: {value:.2f}"))
        axes.set(xlabel="iteration", ylabel=f"{split} accuracy, %", title=_words(title))
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower center", fontsize=8)


def tsne(real, real_labels, synthetic, synthetic_labels, classes, path, title=""):
    """Write a t-SNE map of embeddings (n,D): dots are real images, stars synthetic; up to ten classes {label: name}."""
    from sklearn.manifold import TSNE

    with _plot(path, 7, 5.5) as (_, axes):
        both = torch.cat([real, synthetic]).cpu().numpy()
        points = TSNE(
            init="pca", perplexity=min(30, (len(both) - 1) / 3), random_state=0
        ).fit_transform(both)
        dots, stars = points[: len(real)], points[len(real) :]
        for k, (c, name) in enumerate(classes.items()):
            dot = {"color": f"C{k}", "s": 16, "alpha": 0.6, "linewidths": 0}
            dot["label"] = _words(name) or " "  # an empty one would be left out
            axes.scatter(*dots[(real_labels == c).cpu().numpy()].T, **dot)
        for k, c in enumerate(classes):
            star = {"color": f"C{k}", "s": 55, "marker": "*", "ec": "k", "linewidths": 0.5}
            axes.scatter(*stars[(synthetic_labels == c).cpu().numpy()].T, **star)
        meaning = "dots: real test images, stars: synthetic images"
        axes.set(xticks=[], yticks=[], title=f"{_words(title)}\n{meaning}")
        axes.legend(fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
