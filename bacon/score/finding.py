"""Which files of a folder are sets, by their names and what lies beside them.

`layouts` reads them, and finds out whether they really are.
"""

import os
import re
from pathlib import Path

from bacon.canvases import is_result
from bacon.data import pictures
from bacon.errors import UserError
from bacon.score import foreign

# Files of sets in a folder. Pickles are searched for too, but only to be refused with advice.
TENSORS, ARRAYS = (".pt", ".pth"), (".npz", ".npy")


def files(path, recursive=False):
    """The sets at `path`: the file itself, files of a folder or of all below it, or class folders.

    Where there are no files of tensors, class folders of pictures come before files of numpy. A
    file may turn out to be no set when it is read, see `sets.found_at`.
    """
    path = Path(os.path.expanduser(path))
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if _sets_in(path, TENSORS, recursive):
        return _sets_in(path, TENSORS + ARRAYS, recursive)
    _refuse_if_below(path, TENSORS)
    for folder in pictures.class_folders(path):
        # A run writes pictures too, of its canvases and its accuracy.
        of_run = ("vis_", "acc_")
        if any(not file.name.startswith(of_run) for file in folder.pictures()):
            return [path]
    for suffixes in (ARRAYS, foreign.PICKLES):
        if found := _sets_in(path, suffixes, recursive):
            return found
        _refuse_if_below(path, suffixes)
    looked_for = "neither .pt or .npz files nor class folders of pictures"
    raise UserError(f"{path}: a folder without sets: {looked_for}")


def _refuse_if_below(path, suffixes):
    """UserError if folders below a folder without sets hold some."""
    below = [str(file.relative_to(path)) for file in _sets_in(path, suffixes, recursive=True)]
    if below:
        where = f"{len(below)} in folders below it, as {some(below)}"
        found = f"a folder without sets, but there are {where}"
        raise UserError(f"{path}: {found}; --recursive takes them all")


def _sets_in(folder, suffixes, recursive):
    """Files of these suffixes that are sets, by their names and the files beside them, sorted.

    None are hidden files, checkpoints of these scripts, parts of a job array beside the whole, and
    labels and learnt rates beside their images.
    """
    found = []
    for file in folder.rglob("*") if recursive else folder.iterdir():
        if file.suffix.lower() not in suffixes or file.is_dir():
            continue
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            found.append(file)
    beside = set()
    for file in found:
        beside |= foreign.belong_to(file)
    chosen = []
    for file in found:
        if file in beside or file.name.startswith("ckpt_") or _is_part(file):
            continue
        # A .npy file may be any array: one of images has labels beside it.
        if file.suffix.lower() != ".npy" or foreign.has_labels(file):
            chosen.append(file)
    return sorted(chosen)


def _is_part(file):
    """Whether a file is a job array's part of a result of these scripts that lies beside it."""
    match = re.fullmatch(r"(.+)_exp(\d+)", file.stem)
    whole = file.with_name(f"{match[1]}{file.suffix}") if match else file
    if whole == file or not whole.is_file():
        return False
    try:
        part_of, its = foreign.load(whole), foreign.load(file)
    except UserError:  # which is told when it is read as a set
        return False
    if not (is_result(part_of) and is_result(its)):
        return False
    experiments = part_of["meta"].get("experiments", range(len(part_of["data"])))
    return int(match[2]) in experiments


def some(names):
    """The first three of some names, and how many others there are, in words."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
