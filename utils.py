"""What every part shares and no part owns: the objective, the flags with their recipes, random streams, run records.

The objective is the Bayesian lower bound of BACON (Zhou et al. 2024, arXiv:2406.01112) and, beside it, the plain mean
matching of DM (Zhao & Bilen 2023) and IDM (Zhao et al. 2023). Nothing here reads an `args` object: functions take plain
values, so each of them can be used and tested alone.
"""

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm


class UserError(Exception):
    """A mistake in a flag or an input file: printed as one line, exit code 2, no traceback."""


class DamagedError(UserError):
    """A file that can be read but does not hold what it should."""


class DivergedError(Exception):
    """A loss term became NaN or infinite: printed as one line, exit code 3; files already written stay."""


class Stopped(Exception):
    """A signal asked the run to stop: it writes a checkpoint and ends with exit code 75."""


def is_lack_of_memory(error):
    """Whether an exception means that the machine or the device has no memory left."""
    # PyTorch has a class for it on CUDA only; the messages are those of CUDA and MPS, and of CPUs.
    said = isinstance(error, RuntimeError) and any(w in str(error) for w in ("out of memory", "allocate memory"))
    return said or isinstance(error, MemoryError)


@contextlib.contextmanager
def memory_errors():
    """Turns a lack of memory into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        raise UserError(
            f"out of memory ({one_line(error)[:150] or 'Python'}); smaller batches or --ipc need less, and several "
            "processes share it. A run's last checkpoint stays: --resume goes on with the same flags elsewhere"
        ) from error


# ---------------------------------------------------------------------------------------------------------------------
# The objective
# ---------------------------------------------------------------------------------------------------------------------


def class_moments(embedding, sizes):
    """Mean and unbiased standard deviation of each class's real embeddings.

    embedding: (sum(sizes), D), the rows of a class together. sizes: images per class, each at least 2.
    Returns z and s, both (classes, D) float32 or wider.
    """
    parts = embedding.split(sizes)
    return torch.stack([p.mean(0) for p in parts]), torch.stack([p.std(0) for p in parts])


def log_likelihood(z_syn, z, s):
    """L_LH: minus the log of a Gaussian around the real mean, summed over dimensions, (classes,).

    sum_d [(z~ - z)^2 / (2 sigma^2) + log(sqrt(2 pi) sigma)] with sigma = exp(s). In closed form nothing underflows,
    however far apart the means are; the released code takes the log of the density itself and reaches log 0.
    """
    squared = (z_syn - z).square() * torch.exp(-2 * s) / 2
    return (squared + s + 0.5 * math.log(2 * math.pi)).sum(1)


def total_variation(z_syn, z, s):
    """L_TV: half the absolute distance of the means, summed over dimensions, (classes,)."""
    return (z_syn - z).abs().sum(1) / 2


def clip_released(z_syn, z, s):
    """L_CLIP as published: 0. The softmax of any embedding averages to 1/D, so both sides of that term are equal."""
    return torch.zeros_like(z_syn[:, 0])


def clip_residual(z_syn, z, s):
    """L_CLIP on standardised residuals r = (z~ - z)/s: sum_d (r - clamp(r, 0, 1))^2, (classes,).

    Dimensions without spread (s < 1e-6) contribute 0.
    """
    spread = s >= 1e-6
    r = torch.where(spread, (z_syn - z) / torch.where(spread, s, 1.0), 0.0)
    return (r - r.clamp(0, 1)).square().sum(1)


def mean_matching(z_syn, z, s):
    """The squared distance of the means, summed over dimensions, (classes,): the loss of DM and IDM."""
    return (z_syn - z).square().sum(1)


CLIP_PRIORS = {"released": clip_released, "residual": clip_residual}


def objective_terms(method, lh_weight, tv_weight, clip_weight, clip_prior):
    """The terms of a method's loss as {name: (weight, function(z~, z, s) -> (classes,))}."""
    if method != "BACON":
        return {"match": (1.0, mean_matching)}
    return {
        "lh": (lh_weight, log_likelihood),
        "tv": (tv_weight, total_variation),
        "clip": (clip_weight, CLIP_PRIORS[clip_prior]),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Recipes: the flags of the released command list, by dataset and ipc
# ---------------------------------------------------------------------------------------------------------------------

IMAGE_FOLDER = "ImageFolder"  # the dataset of any labelled pictures, which every script accepts

COMMON = {
    "dsa_strategy": "color_crop_cutout_flip_scale_rotate", "init": "real", "aug": True, "Iteration": 20000,
    "lr_img": 0.2, "batch_real": 256, "embed_last": 1000, "outer_loop": 1, "syn_ce": True, "ce_weight": 0.5,
    "lr_net": 0.01, "net_decay": True, "net_num": 100, "net_push_num": 1, "net_generate_interval": 30,
    "train_net_num": 1, "fetch_net_num": 2, "model_train_steps": 10, "trained_bs": 256,
    "eval_interval": 100, "num_eval": 5, "epoch_eval_train": 1000, "batch_train": 256, "num_exp": 5,
}  # fmt: skip
_WIDE_BATCH = {"batch_real": 5000, "net_generate_interval": 5}
_MNIST = {1: _WIDE_BATCH, 10: {}, 50: {}}
_CIFAR10 = {1: _WIDE_BATCH, 10: {}, 50: {"ce_weight": 0.1, "eval_interval": 500}}
_LONG = {"model_train_steps": 50}
RECIPES = {
    "MNIST": _MNIST,
    "FashionMNIST": _MNIST,
    "Digits": _MNIST,
    "ImageFolder": _CIFAR10,
    "SVHN": _CIFAR10,
    "CIFAR10": _CIFAR10,
    "CIFAR100": {
        1: _WIDE_BATCH,
        10: {"ce_weight": 0.1, **_LONG},
        50: {"ce_weight": 0.1, "eval_interval": 500, **_LONG},
    },
    "TinyImageNet": {
        1: {},
        10: {"eval_interval": 500, **_LONG},
        50: {"ce_weight": 0.8, "eval_interval": 1000, **_LONG},  # IDM's line: BACON published none
    },
}
_BORROWED = {"Digits": "MNIST", "ImageFolder": "CIFAR10"}  # whose recipe stands where none is published
_IDM = {("CIFAR100", 50): {"model_train_steps": 10}, ("TinyImageNet", 10): {"model_train_steps": 10}}

# DM in terms of the pool: one untrained network, replaced at every iteration. These are the method, not settings.
_DM_FIXED = {
    "net_num": 1, "net_push_num": 1, "net_generate_interval": 1, "net_begin": 0, "net_end": 100000,
    "train_net_num": 1, "fetch_net_num": 0, "outer_loop": 1, "syn_ce": False, "ce_weight": 0.5, "model_train_steps": 0,
    "trained_bs": 256, "net_decay": True, "meter_reset": 2000,
}  # fmt: skip
_MEAN_MATCHING_FIXED = {"lh_weight": 1.0, "tv_weight": 0.8, "clip_weight": 0.2, "clip_prior": "released"}
FIXED = {"BACON": {}, "IDM": _MEAN_MATCHING_FIXED, "DM": {**_MEAN_MATCHING_FIXED, **_DM_FIXED}}


def recipe(dataset, ipc, method="BACON"):
    """The settings of a dataset, ipc and method: (settings, whose recipe that is, in words).

    An ipc that is not listed takes the recipe of the largest listed ipc below it.
    """
    if method == "DM":  # DM's own recipe has no ipc or dataset in it but for the rate
        settings = {**COMMON, "aug": False, "lr_img": 10.0 if ipc >= 100 else 1.0, "eval_interval": 2000}
        words = "DM's own"
    else:
        listed = max((i for i in RECIPES[dataset] if i <= ipc), default=1)
        settings = {**COMMON, **RECIPES[dataset][listed]}
        owner = "IDM" if (dataset, listed) == ("TinyImageNet", 50) else method
        words = f"{owner}'s for {_BORROWED.get(dataset, dataset)} at ipc {listed}"
        if method == "IDM":
            settings.update(_IDM.get((dataset, listed), {}))
        if dataset in _BORROWED or owner != method or listed != ipc:
            words += f" (none is published for {method} on {dataset} at ipc {ipc})"
    settings.update(FIXED[method])
    settings.setdefault("meter_reset", settings["eval_interval"])
    return settings, words


# ---------------------------------------------------------------------------------------------------------------------
# Flags
# ---------------------------------------------------------------------------------------------------------------------


def _bounded(convert, kind, low, high):
    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {kind} from {low:g} to {high:g}, found {text[:40]!r}")
        return value

    return parse


def whole(low):
    """An argparse type: a whole number of at least `low`."""
    return _bounded(int, "a whole number", low, 1e9)


RATE = _bounded(float, "a number", 1e-30, 1e30)
_WEIGHT = _bounded(float, "a number", 0, 1e30)
_SWITCH = "switch"  # --x / --no_x

EVAL_MODES = ("S", "SS", "M", "B", "W", "D", "A", "P", "N", "C")
METHODS = tuple(FIXED)

# name, type or choices, default (None: from the recipe), help. Released names are kept, `Iteration` with its capital.
FLAGS = {
    "recipe": [
        ("dataset", str, None, "which images to distil"),
        ("im_size", whole(4), None, "of ImageFolder: side in pixels that images are resized to (default: as they are)"),
        ("model", str, "ConvNet", "network that distils, of the ConvNet family: ConvNet, ConvNetW32, ConvNetD4, ..."),
        ("ipc", whole(1), 50, "synthetic canvases per class"),
        ("method", METHODS, "BACON", "BACON, its parent IDM, or plain distribution matching DM"),
        ("dsa_strategy", str, None, "DSA operations joined by _, one drawn per batch; 'none' switches DSA off"),
        ("init", ("real", "noise"), None, "canvases start from real training images or from standard normal noise"),
        ("aug", _SWITCH, None, "multi-formation: a canvas holds four half-size images (H and W must be even)"),
        ("aug_num", (1,), 1, "accepted for the released command lines"),
        ("zca", _SWITCH, False, "distil and evaluate in ZCA-whitened space (eps 0.1), fitted on the training images"),
    ],
    "optimisation": [
        ("Iteration", whole(0), None, "distillation iterations; 0 evaluates the initialisation"),
        ("lr_img", RATE, None, "learning rate of the canvases"),
        ("optim", ("sgd", "adam"), "sgd", "canvas optimizer: SGD with momentum 0.5 in closed form over all classes, or "
                                          "Adam, one step per class (slow)"),
        ("batch_real", whole(2), None, "real images per class and update"),
        ("embed_last", whole(-1e9), None, "embedding = modules[:N] of the feature stack; 1000 is all of it, -1 all but "
                                         "the last module"),
        ("outer_loop", whole(1), None, "times per iteration that canvases and networks take turns"),
        ("syn_ce", _SWITCH, None, "add the cross-entropy of the canvases, weighted by the network's training accuracy"),
        ("ce_weight", _WEIGHT, None, "weight of that cross-entropy per percent of training accuracy"),
        ("lh_weight", _WEIGHT, 1.0, "weight of the log-likelihood term (BACON)"),
        ("tv_weight", _WEIGHT, 0.8, "weight of the total-variation prior (BACON: lambda)"),
        ("clip_weight", _WEIGHT, 0.2, "weight of the clip prior (BACON: 1 - lambda)"),
        ("clip_prior", tuple(CLIP_PRIORS), "released", "released: identically 0, as in the published code; residual: "
                                                      "acts on standardised residuals"),
    ],
    "network pool": [
        ("lr_net", RATE, None, "learning rate of the pool's and of the evaluation networks"),
        ("net_decay", _SWITCH, None, "train the pool with momentum 0.9 and weight decay 5e-4"),
        ("net_num", whole(1), None, "networks in the pool at most; beyond it the oldest leaves"),
        ("net_push_num", whole(0), None, "fresh networks that enter at a time"),
        ("net_generate_interval", whole(1), None, "iterations between fresh networks"),
        ("net_begin", whole(-1e9), 0, "canvases are updated on networks of pool[net_begin:net_end] ..."),
        ("net_end", whole(-1e9), 100000, "... if that slice holds more than 10 networks, else on any"),
        ("train_net_num", whole(1), None, "networks that update the canvases per iteration"),
        ("fetch_net_num", whole(0), None, "networks trained on real images per iteration"),
        ("model_train_steps", whole(0), None, "batches each of them is trained for"),
        ("trained_bs", whole(1), None, "real images per such batch"),
        ("meter_reset", whole(1), None, "iterations between resets of the networks' training-accuracy meters"),
    ],
    "evaluation": [
        ("eval_mode", EVAL_MODES, "S", "networks trained on the result: S and SS the training architecture, M several, "
                                       "B with batch norm, W widths, D depths, A activations, P poolings, N norms, "
                                       "C training architecture and ConvNet"),
        ("eval_interval", whole(1), None, "iterations between evaluations; the last iteration is always evaluated"),
        ("num_eval", whole(1), None, "fresh networks per architecture and evaluation"),
        ("epoch_eval_train", whole(1), None, "epochs (plus one) each of them trains for"),
        ("batch_train", whole(1), None, "synthetic images per batch of that training"),
        ("num_exp", whole(1), None, "independent experiments"),
    ],
    "input and output": [
        ("data_path", str, "data", "folder of the datasets; of ImageFolder, that with train/ and val/ or test/"),
        ("save_path", str, "result", "folder for results, logs and image grids"),
        ("overwrite", _SWITCH, False, "replace an earlier run of the same name in save_path"),
        ("resume", _SWITCH, False, "go on from the newest checkpoint in save_path; starts a run that is not there yet"),
        ("checkpoint_minutes", _WEIGHT, 10.0, "minutes between checkpoints; 0 writes one at every iteration"),
    ],
    "run control": [
        ("exp_index", whole(0), None, "run only this one of num_exp experiments; files end in _exp<k> (default all)"),
        ("seed", whole(0), 0, "every random number of the run follows from it"),
        ("device", ("auto", "cpu", "cuda", "mps"), "auto", "where to compute; auto takes cuda, then mps, then cpu"),
        ("precision", ("auto", "fp32", "bf16"), "auto", "number format inside the networks; auto: bf16 where it pays"),
        ("compile", _SWITCH, None, "torch.compile the networks (default where the planned work repays it)"),
        ("dry_run", _SWITCH, False, "print recipe, FLOP, memory and estimated hours on this device, then stop"),
    ],
}  # fmt: skip

_ABOUT_THE_RUN = ("input and output", "run control")  # groups that do not change what is distilled and judged
# How this process was started, not what the run is: --resume accepts other values of these.
OF_THE_PROCESS = ("data_path", "save_path", "overwrite", "resume", "checkpoint_minutes", "dry_run")

# Flags the released code parses and never reads: (name, type, released default, value in the command list).
DEAD_FLAGS = (
    ("mismatch_lambda", float, 0.005, 0.0),
    ("mismatch_type", str, "l1", "l1"),
    ("dis_metric", str, "ours", "ours"),
    ("last", int, 100, 100),
    ("local_num", int, 10, 10),
    ("local_weight", float, 0.1, 0.1),
    ("weight_layer_index", int, 0, 0),
    ("inner_loop", int, 1, 1),
    ("conf_path", str, "", ""),
    ("net_train_real", _SWITCH, True, True),
)


def one_line(text):
    """A message as one line: what users typed, which it quotes, may hold any character."""
    return " ".join(str(text).splitlines())


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit code 2."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message.removeprefix('argument '))}\n")


def _add(group, name, kind, text):
    options = {"default": argparse.SUPPRESS, "dest": name, "help": text.replace("%", "%%")}
    if kind == _SWITCH:
        group.add_argument(f"--{name}", action="store_const", const=True, **options)
        options["help"] = argparse.SUPPRESS
        group.add_argument(f"--no_{name}", action="store_const", const=False, **options)
    elif isinstance(kind, tuple):
        group.add_argument(f"--{name}", type=type(kind[0]), choices=kind, metavar=name.upper(), **options)
    else:
        group.add_argument(f"--{name}", type=kind, metavar=name.upper(), **options)


def _default_text(name, default, datasets):
    if default is not None:
        return f"default {default}"
    shown = []
    for method in METHODS:
        values = {recipe(d, i, method)[0].get(name) for d in datasets for i in RECIPES[d]} - {None}
        shown.append(" or ".join(str(v) for v in sorted(values)))
    bacon, idm, dm = shown
    if not bacon:
        return ""
    text = f"default, by dataset and ipc: {bacon}" if " or " in bacon else f"default {bacon}"
    return text + (f"; IDM {idm}" if idm != bacon else "") + (f"; DM {dm}" if dm != bacon else "")


def build_parser(datasets, description):
    """The parser of one script. Absent flags stay absent, so that the recipe can fill them in."""
    parser = OneLineParser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title)
        for name, kind, default, text in flags:
            if name == "dataset":
                kind, default = (*datasets, IMAGE_FOLDER), datasets[0]
                text = f"{text}: {', '.join(datasets)}, or {IMAGE_FOLDER}: your own, see --data_path"
            elif isinstance(kind, tuple) and name not in ("eval_mode", "method"):
                text = f"{text}; one of {', '.join(map(str, kind))}"
            elif kind == _SWITCH:
                text = f"{text}; --no_{name} switches it off"
            shown = _default_text(name, default, datasets)
            _add(group, name, kind, f"{text} ({shown})" if shown else text)
    group = parser.add_argument_group("compatibility", "Released flags that the released code never reads: no effect.")
    for name, kind, default, _ in DEAD_FLAGS:
        _add(group, name, kind, f"no effect (released default {default!r})")
    return parser


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a command line came to: the values, those that depart from the recipe, and lines to tell the user."""

    args: argparse.Namespace
    recipe: str  # whose recipe fills in what was not given
    departures: dict  # {flag: (value, the recipe's value)}
    notes: list


def parse_args(datasets, description, argv=None):
    """Parse a command line of the script that distils `datasets` and fill in the paper's recipe: Settings.

    The default of every recipe flag is the published one for this dataset, ipc and method. Exits with code 2 and one
    line on a bad flag.
    """
    given = vars(build_parser(datasets, description).parse_args(argv))
    plain = {name: default for flags in FLAGS.values() for name, _, default, _ in flags}
    plain.update({name: default for name, _, default, _ in DEAD_FLAGS}, dataset=datasets[0])
    first = {**plain, **given}
    settings, words = recipe(first["dataset"], first["ipc"], first["method"])
    values = {**plain, **settings, **given}

    notes = []
    if values["im_size"] and values["dataset"] != IMAGE_FOLDER:
        notes.append(f"--im_size {values['im_size']} has no effect: only {IMAGE_FOLDER} resizes")
        values["im_size"] = None
    for name, _, default, command in DEAD_FLAGS:
        if values[name] not in (default, command):
            notes.append(f"--{name} {values[name]} has no effect: the released code never reads it")
    for name, value in FIXED[values["method"]].items():
        if values[name] != value:
            notes.append(f"--{name} {values[name]} has no effect with --method {values['method']}")
            values[name] = value
    usual = {**plain, **settings}
    about_images = {row[0] for title, flags in FLAGS.items() if title not in _ABOUT_THE_RUN for row in flags}
    departures = {
        name: (values[name], usual[name])
        for name in values
        if name in about_images - {"dataset", "ipc", "method", "im_size"} and values[name] != usual[name]
    }
    return Settings(argparse.Namespace(**values), words, departures, notes)


# ---------------------------------------------------------------------------------------------------------------------
# Random streams
# ---------------------------------------------------------------------------------------------------------------------


def stream(seed, *name):
    """The generator of one named random stream, such as stream(seed, exp, "class", iteration, c).

    Its seed is a hash of the name, so a draw does not depend on which other draws were made before it: evaluating more
    often, resuming, or splitting classes over processes changes nothing.
    """
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


# ---------------------------------------------------------------------------------------------------------------------
# Run records: result, log, lines for the user
# ---------------------------------------------------------------------------------------------------------------------


def versions():
    """What computed a result: Python, PyTorch and NumPy, the git revision of this folder, the GPU or kind of CPU."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        revision = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = "unknown"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "git": revision,
        "processor": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability(),
    }


def save_torch(obj, path, previous=None):
    """Write `obj` with torch.save so that `path` is at every moment either the old file or the complete new one.

    previous: where the old file goes once the new one is complete. Raises OSError, naming `path`, if the disk is full
    or the folder is gone or read-only.
    """
    path, temporary = Path(path), None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
        with os.fdopen(handle, "wb") as f:
            torch.save(obj, f)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        # torch reports a failed write as a RuntimeError raised while the OSError was handled
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def sync_folder(folder):
    """Bring the names of files that were created, renamed or removed in `folder` to the disk."""
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_torch(path):
    """Content of a .pt file of tensors and plain containers; code in it is refused, never run.

    Raises UserError, naming the file, if it cannot be read: DamagedError if that is because of what it holds.
    """
    sound = False
    try:
        if Path(path).is_fifo() or Path(path).is_char_device():
            raise ValueError("reading it might never end")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as z:
                if damaged := z.testzip():  # torch.load does not look at the checksums
                    raise zipfile.BadZipFile(damaged)
            sound = True
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damage lets zipfile seek to nowhere (EINVAL), and lets an old file without checksums ask for any memory.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UserError(f"{path}: {error.strerror}") from error
        if sound and is_lack_of_memory(error):
            raise
        kind = type(error).__name__  # without torch's text, which advises to load without weights_only
        raise DamagedError(
            f"{path}: damaged or not a .pt file of plain tensors ({kind}); replace or delete it"
        ) from error


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


TIME = "%Y-%m-%dT%H:%M:%S"


class RunLog:
    """The run's record: one JSON object per line, with the time and the kind of event."""

    def __init__(self, path, keep=0):
        """Open for writing after the first `keep` bytes of what is there; the rest is cut off."""
        self.path = Path(path)
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by the run
        self.file.truncate(keep)

    def __len__(self):
        return os.fstat(self.file.fileno()).st_size

    def write(self, event, **fields):
        """Append one event; it is on its way to the disk when this returns. A line is written whole or not at all."""
        now = time.strftime(TIME)
        line, before = (json.dumps({"event": event, "time": now, **fields}) + "\n").encode(), len(self)
        try:
            if self.file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.file.truncate(before)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def sync(self):
        """Wait until every event is on the disk."""
        os.fsync(self.file.fileno())

    def restore(self):
        """Write the file anew, after its folder was deleted while it was open."""
        self.file.seek(0)
        content = self.file.read()
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        self.file.write(content)

    def close(self):
        self.file.close()


class NoLog:
    """The log of a process that leaves records to another one."""

    def write(self, event, **fields):
        pass

    def restore(self):
        pass

    def close(self):
        pass


class Progress:
    """Iterations shown to a person: a bar with an ETA on a terminal, time-stamped lines elsewhere."""

    def __init__(self, total, title, done=0):
        terminal = sys.stdout.isatty() and sys.stderr.isatty()
        options = {"total": total, "initial": done, "desc": title, "unit": "it", "dynamic_ncols": True}
        self.bar = tqdm(**options) if terminal and total else None

    def say(self, text):
        """Print a line of its own, above the bar if there is one."""
        if self.bar:
            self.bar.write(text, file=sys.stdout)
        else:
            print(time.strftime("[%H:%M:%S] ") + text, flush=True)

    def advance(self, steps, text, short):
        """Count finished iterations and show the newest figures, on a bar the short ones."""
        if self.bar:
            self.bar.set_postfix_str(short, refresh=False)
            self.bar.update(steps)
        else:
            self.say(text)

    def now(self, text):
        """Show on a terminal what is being done between two figures."""
        if self.bar:
            self.bar.set_postfix_str(text)

    def close(self):
        if self.bar:
            self.bar.close()
