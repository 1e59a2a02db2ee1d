"""Sets written in the layouts of others: class folders of pictures, and DC's file."""

import os
import re
from pathlib import Path

from bacon import messages
from bacon.data.spaces import normalise
from bacon.errors import UserError
from bacon.files import save_torch


def _write_png(out, pixels, labels, saved):
    from torchvision.utils import save_image

    names = saved.class_names()
    # As many digits for all classes: their sorted names are in label order then.
    digits = max(3, len(str(len(names) - 1)))
    for c, name in enumerate(names):
        name = re.sub(r"[^\w-]", "_", name)
        folder = out / f"{c:0{digits}d}_{name}"
        folder.mkdir(parents=True)
        for i, image in enumerate(pixels[labels == c].clamp(0, 1)):
            save_image(image, folder / f"{i:05d}.png")
    clipped = ((pixels < 0) | (pixels > 1)).float().mean().item()
    return f"{100 * clipped:.2f} % of the pixel values were outside [0,1] and are clipped"


def _write_dc(out, pixels, labels, saved):
    images = normalise(pixels, saved.facts.mean, saved.facts.std)
    save_torch({"data": [[images, labels]], "accs_all_exps": {}}, out)
    return "decoded images, normalised; labels in the images' order, not grouped by class"


# name: function(path, pixels, labels, the SavedSet) that writes them; returns what to say of it.
EXPORTS = {"png": _write_png, "dc": _write_dc}


def export(saved, kind, out, whitening=None):
    """Write the decoded images of a SavedSet and their hard labels to `out`, which must not exist.

    kind: png, a folder of class folders that torchvision's ImageFolder reads with the same labels;
    dc, a file in DC's layout. whitening: that of a whitened set. UserError if `out` exists or
    cannot be written.
    """
    out = Path(os.path.expanduser(out))
    if os.path.lexists(out):
        raise UserError(f"--export {kind} {out}: exists already; choose another name")
    images, labels = saved.hard().decoded()
    pixels = saved.pixels(images, whitening)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        about = EXPORTS[kind](out, pixels, labels, saved)
    except OSError as error:
        raise UserError(f"--export {kind} {out}: cannot write there ({error.strerror})") from error
    if saved.labels.dim() == 2:
        about += "; the likeliest class of soft labels"
    written = f"{len(images)} images of {saved.path}, experiment {saved.exp}"
    messages.log.info(f"{out}: {written}; {about}")
