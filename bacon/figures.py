"""Pictures of results as PNG files, without a display.

A set's images by class, accuracy over iterations, embeddings. matplotlib and scikit-learn are
imported where they are used: they cost a second.
"""

import contextlib
import dataclasses
import math
import textwrap

import numpy as np
import torch

from bacon.data.known_classes import plain
from bacon.errors import UserError

SIDE = 64  # screen pixels that an image gets at least, where there are not too many
AREA = 6_000_000  # screen pixels of a grid at most
LINE = 25  # images of a class in one line at most
LEGEND = 80  # characters of a line in the legend of a plot at most: more would be cut off


def grid(images, labels, classes, path):
    """Write images (n,C,H,W) in [0,1] with labels (n,) as a PNG, class by class.

    classes: their names, each of which stands before its images. Images are magnified by whole
    factors. A class of more than LINE images takes several lines, many classes stand in several
    columns; where even that is too large only the first images of each class are shown, and a
    caption says so.
    """
    from PIL import Image, ImageDraw

    classes = [plain(name) for name in classes]
    of_class = [(labels == c).nonzero().flatten().tolist() for c in range(len(classes))]
    most = max(len(members) for members in of_class)
    plan = _plan(images.shape[2:], most, classes)
    caption = ""
    if plan.shown < most:
        caption = f"the first {plan.shown} of {most} images of each class"
    top = plan.size + 8 if caption else 2
    canvas = Image.new(
        "RGB", (plan.columns * plan.block_w, top + plan.rows * plan.block_h), "white"
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 2), caption, "black", plan.font)
    for c, (name, members) in enumerate(zip(classes, of_class, strict=True)):
        x = c // plan.rows * plan.block_w
        y = top + c % plan.rows * plan.block_h
        middle = (x + plan.label_width - 6, y + plan.lines * plan.h // 2)
        text = _fitting(name, plan.font, plan.label_width - 8)
        draw.text(middle, text, "black", plan.font, anchor="rm")
        for k, pixels in enumerate(_pixels(images[members[: plan.shown]])):
            picture = Image.fromarray(pixels.repeat(plan.zoom, 0).repeat(plan.zoom, 1))
            column = k % plan.per_line
            line = k // plan.per_line
            canvas.paste(picture, (x + plan.label_width + column * plan.w, y + line * plan.h))
    canvas.save(path, format="PNG")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Where everything stands in a grid, in screen pixels.

    zoom: by which images are magnified. w, h: of an image with its gap. shown: images of a class,
    in `lines` lines of `per_line`. size, font: of the names, which stand in `label_width`.
    block_w, block_h: of a class. columns, rows: of classes.
    """

    zoom: int
    w: int
    h: int
    shown: int
    lines: int
    per_line: int
    size: int
    font: object
    label_width: int
    block_w: int
    block_h: int
    columns: int
    rows: int


def _plan(im_size, most, classes):
    """The `_Plan` of a grid of up to `most` images of `im_size`, (H, W), for each class."""
    from PIL import ImageFont

    height, width = im_size
    room = AREA // len(classes)
    zoom = max(1, math.ceil(SIDE / width))
    while zoom > 1 and zoom * width > SIDE // 2 and most * _area(zoom, height, width) > room:
        zoom -= 1
    w = zoom * width + 2
    h = zoom * height + 2
    shown = min(most, max(1, room // (w * h)))
    lines = math.ceil(shown / LINE)
    per_line = math.ceil(shown / lines)
    size = min(24, max(11, lines * h // 4))
    font = ImageFont.load_default(size)
    longest = max(font.getlength(name) for name in classes)
    label_width = math.ceil(min(200, longest)) + 12
    block_w = label_width + per_line * w + 6
    block_h = lines * h + (4 if lines > 1 else 0)

    def distance(columns):
        """Of the shape of a picture with that many columns of classes from 4:3."""
        rows = math.ceil(len(classes) / columns)
        return abs(math.log(columns * block_w / (rows * block_h) / (4 / 3)))

    columns = min(range(1, len(classes) + 1), key=distance)
    return _Plan(
        zoom=zoom,
        w=w,
        h=h,
        shown=shown,
        lines=lines,
        per_line=per_line,
        size=size,
        font=font,
        label_width=label_width,
        block_w=block_w,
        block_h=block_h,
        columns=columns,
        rows=math.ceil(len(classes) / columns),
    )


def _area(zoom, height, width):
    return (zoom * width + 2) * (zoom * height + 2)


def _fitting(name, font, width):
    """As much of a name as fits a width, with dots for the rest."""
    text = name
    cut = len(name)
    while cut > 0 and font.getlength(text) > width:
        cut -= 1
        text = name[:cut] + "..."
    return text


def _pixels(images):
    """Images (n,C,H,W) in [0,1] as uint8 arrays (H,W,3)."""
    pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()


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


def _label(text):
    """A text as the legend below a plot is to show it, in as many lines as it needs."""
    lines = textwrap.wrap(plain(text), LEGEND, break_on_hyphens=False)
    return "\n".join(map(_words, lines))


def curve(curves, lines, title, path, split="test"):
    """Write a plot of accuracy over iterations, on the images of a split.

    curves: {name: {iteration: [accuracy in percent of every network]}}, drawn with their mean and
    population standard deviation. lines: {name: accuracy in percent}, drawn dashed across the plot.
    """
    with _plot(path, 6, 4) as (figure, axes):
        for color, (name, points) in enumerate(curves.items()):
            its = sorted(points)
            mean = np.array([np.mean(points[it]) for it in its])
            std = np.array([np.std(points[it]) for it in its])
            hue = f"C{color}"
            axes.plot(its, mean, "o-", color=hue, markersize=4, label=_label(name))
            axes.fill_between(its, mean - std, mean + std, color=hue, alpha=0.2, linewidth=0)
        for k, (name, value) in enumerate(lines.items()):
            style = ("--", ":", "-.")[k % 3]
            axes.axhline(value, linestyle=style, color="0.35", label=_label(f"{name}: {value:.2f}"))
        axes.set(xlabel="iteration", ylabel=f"{split} accuracy, %", title=_words(title))
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower center", fontsize=8)


def tsne(real, real_labels, synthetic, synthetic_labels, classes, path, title=""):
    """Write a t-SNE map of embeddings (n,D): dots are real images, stars synthetic ones.

    real_labels, synthetic_labels: (n,). classes: {label: name} of those shown, up to ten.
    """
    from sklearn.manifold import TSNE

    with _plot(path, 7, 5.5) as (_, axes):
        both = torch.cat([real, synthetic]).cpu().numpy()
        perplexity = min(30, (len(both) - 1) / 3)
        points = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(both)
        dots = points[: len(real)]
        stars = points[len(real) :]
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
