"""Saved sets in the layouts of several programs, and reading them."""

import numpy as np
import torch
from torchvision.utils import save_image

from bacon.data.spaces import denormalise
from bacon.score import finding, layouts


def read(path, facts, **kwargs):
    """All sets at a path."""
    return [
        saved
        for file in finding.files(path)
        for saved in layouts.read(layouts.recognise(file), facts, layouts.Way(**kwargs))
    ]


def to_pixels(images, facts):
    """Normalised images as pixel values in [0,1]."""
    return denormalise(images, facts.mean, facts.std)


def save_ours(path, images, labels, facts, factor, dataset="Digits", **meta):
    args = {
        "dataset": dataset,
        "model": "ConvNetW32",
        "seed": 0,
        "num_eval": 1,
        "epoch_eval_train": 1,
    }
    args |= {"batch_train": 256, "lr_net": 0.01, "dsa_strategy": "color_crop", "im_size": None}
    meta = {
        "args": args,
        "mean": list(facts.mean),
        "std": list(facts.std),
        "factor": factor,
        "zca": None,
    } | meta
    torch.save(
        {"data": [[images, labels]], "accs_all_exps": {"ConvNetW32": [0.5]}, "meta": meta}, path
    )


def save_dc(folder, images, labels, facts):
    accuracies = {
        "ConvNet": [np.float64(0.5), np.float32(0.25)]
    }  # numpy numbers, as the released programs save them
    torch.save(
        {"data": [[images, labels]] * 2, "accs_all_exps": accuracies}, folder / "res_DC_x.pt"
    )


def save_mtt(folder, images, labels, facts):
    torch.save(images.clone().requires_grad_(), folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    torch.save(torch.tensor(0.03125), folder / "lr_best.pt")


def save_datm(folder, images, labels, facts):
    save_mtt(folder, images, torch.nn.functional.one_hot(labels, 10) * 3.0, facts)


def save_ncfm(folder, images, labels, facts):
    torch.save([to_pixels(images, facts).clamp(0, 1), labels], folder / "data_20000.pt")


def save_pictures(folder, images, labels, facts):
    for i, (image, label) in enumerate(zip(to_pixels(images, facts), labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        save_image(image, folder / str(label) / f"{i:03d}.png")


# layout: how it is written, the tolerance in normalised units, what the tool calls it
LAYOUTS = {
    "DC": (save_dc, 0, "DC"),
    "MTT": (save_mtt, 0, "MTT"),
    "DATM": (save_datm, 0, "MTT, soft labels (DATM)"),
    "NCFM": (save_ncfm, 1e-6 / 0.3, "NCFM"),
    "PNG": (save_pictures, 0.501 / 255 / 0.3757, "image folder"),
}
