"""Every flag of the scripts: its name, type, default and help; and what a command line comes to. No torch."""

import argparse
import dataclasses
import difflib
import functools
import math
import sys

from bacon.errors import one_line
from bacon.methods import METHODS
from bacon.recipes import EVAL_NETWORKS, IMAGE_FOLDER, RECIPES, SCRIPTS, recipe


def _bounded(convert, kind, low, high):
    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            limit = f"of at most {high:g}" if value > high else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"must be {kind} {limit}, found {text[:40]!r}")
        return value

    return parse


def whole(low):
    """An argparse type: a whole number of at least `low`."""
    return _bounded(int, "a whole number", low, 1e9)


RATE = _bounded(float, "a number", 1e-30, 1e30)
_WEIGHT = _bounded(float, "a number", 0, 1e30)
_SWITCH = "switch"  # --x / --no_x

EVAL_MODES = tuple(EVAL_NETWORKS)

# name, type or choices, default (None: from the recipe), help. Released names are kept, `Iteration` with its capital.
FLAGS = {
    "recipe": [
        ("dataset", str, None, "which images to distil"),
        ("im_size", whole(4), None, "of ImageFolder: side in pixels that images are resized to (default: as they are)"),
        ("model", str, "ConvNet", "network that distils, of the ConvNet family: ConvNet, ConvNetW32, ConvNetD4, ..."),
        ("ipc", whole(1), 50, "synthetic canvases per class"),
        ("method", tuple(METHODS), "BACON", "BACON, its parent IDM, or plain distribution matching DM"),
        ("recipe", ("paper", "ours"), "paper", "the paper's settings, or ours, which reach a higher accuracy (BACON)"),
        ("dsa_strategy", str, None, "DSA operations joined by _, one drawn per batch; 'none' switches DSA off"),
        ("init", ("real", "noise", "cluster"), None, "canvases start from real training images at random, from "
                                                     "standard normal noise, or from one real image per cluster"),
        ("chroma", ("full", "half"), None, "half: colours at half resolution, twice the canvases in the same storage"),
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
        ("clip_prior", ("released", "residual"), "released", "released: identically 0, as in the published code; "
                                                             "residual: acts on standardised residuals"),
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
        ("judge_steps", whole(0), 0, "train judges for this many steps in place of epochs, however many the images"),
        ("validate", whole(0), 0, "hold this many training images per class out, and judge on them instead of the test "
                                  "images: for choosing settings"),
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

# Flags the released code parses and never reads: (name, type, released default, value in the command list).
DEAD_FLAGS = (
    ("mismatch_lambda", float, 0.005, 0.0), ("mismatch_type", str, "l1", "l1"), ("dis_metric", str, "ours", "ours"),
    ("last", int, 100, 100), ("local_num", int, 10, 10), ("local_weight", float, 0.1, 0.1),
    ("weight_layer_index", int, 0, 0), ("inner_loop", int, 1, 1), ("conf_path", str, "", ""),
    ("net_train_real", _SWITCH, True, True),
)  # fmt: skip

SHARED = {name: (kind, text) for flags in FLAGS.values() for name, kind, _, text in flags}  # with evaluate.py
_DEFAULTS = {name: default for flags in (*FLAGS.values(), DEAD_FLAGS) for name, _, default, _ in flags}
# How this process was started, not what the run is: --resume accepts other values of these.
OF_THE_PROCESS = ("data_path", "save_path", "overwrite", "resume", "checkpoint_minutes", "dry_run")
# What is distilled and judged, and how; a run says where it departs from the recipe in these.
_OF_THE_RECIPE = {row[0] for title in ("recipe", "optimisation", "network pool", "evaluation") for row in FLAGS[title]}
_OF_THE_RECIPE -= {"dataset", "ipc", "method", "im_size", "recipe"}
# What --help shows; --help_all shows every flag.
COMMON_FLAGS = ("dataset", "ipc", "model", "method", "recipe", "Iteration", "eval_interval", "seed", "data_path",
                "save_path", "resume", "dry_run")  # fmt: skip


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit code 2, and whose flags take - for _ and any letter case.
    No flag is abbreviated; a word that is none is answered with the nearest one."""

    def __init__(self, **options):
        formatter = functools.partial(argparse.RawDescriptionHelpFormatter, width=80, max_help_position=22)
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def parse_args(self, argv=None):
        return super().parse_args([self._flag(word) for word in (sys.argv[1:] if argv is None else argv)])

    def _flag(self, word):
        if not word.startswith("--") or word == "--":
            return word
        name, equals, value = word.partition("=")
        known = {flag.lower(): flag for flag in self._option_string_actions}
        typed = name.lower().replace("-", "_").replace("__", "--", 1)
        if typed not in known:
            near = difflib.get_close_matches(typed, known, 1)
            self.error(f"{name}: no such flag" + (f"; did you mean {known[near[0]]}?" if near else "; see --help"))
        return known[typed] + equals + value

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message.removeprefix('argument '))}\n")


def one_of(names):
    """An argparse type: one of `names`, in any letter case."""
    known = {str(name).lower(): name for name in names}

    def parse(text):
        if text.lower() not in known:
            near = [f"; did you mean {known[key]}?" for key in difflib.get_close_matches(text.lower(), known, 1)]
            allowed = ", ".join(map(str, names))
            raise argparse.ArgumentTypeError(f"must be one of {allowed}, found {text[:40]!r}{''.join(near)}")
        return known[text.lower()]

    return parse


def _dataset_of(datasets):
    names = (*datasets, IMAGE_FOLDER)

    def parse(text):
        elsewhere = {name.lower(): name for name in SCRIPTS if name not in datasets}.get(text.lower())
        if elsewhere:
            raise argparse.ArgumentTypeError(f"{elsewhere} is distilled by {SCRIPTS[elsewhere]}")
        return one_of(names)(text)

    return parse


def _add(group, name, kind, text):
    options = {"default": argparse.SUPPRESS, "dest": name, "help": text.replace("%", "%%")}
    if kind == _SWITCH:
        group.add_argument(f"--{name}", action="store_const", const=True, **options)
        options["help"] = argparse.SUPPRESS
        group.add_argument(f"--no_{name}", action="store_const", const=False, **options)
    else:
        group.add_argument(f"--{name}", type=kind, metavar="X", **options)


def _default_text(name, default, datasets):
    if default is not None:
        return f"default {default}" if default is not False else ""
    shown = []
    for method in METHODS:
        values = {recipe(d, i, method)[0].get(name) for d in datasets for i in RECIPES[d]} - {None}
        shown.append(" or ".join(str(v) for v in sorted(values)))
    bacon, idm, dm = shown
    if not bacon:
        return ""
    text = f"default, by dataset and ipc: {bacon}" if " or " in bacon else f"default {bacon}"
    return text + (f"; IDM {idm}" if idm != bacon else "") + (f"; DM {dm}" if dm != bacon else "")


def build_parser(datasets, description, everything=True):
    """The parser of one script. Absent flags stay absent, so that the recipe can fill them in. everything: whether its
    help shows all flags, by group, or COMMON_FLAGS."""
    epilog = None if everything else "Every flag, by group: --help_all. What a run writes: README.md."
    parser = OneLineParser(description=description, epilog=epilog, usage="%(prog)s [--flag value ...]", add_help=False)
    common = None if everything else parser.add_argument_group("the flags that people change")
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title)
        for name, kind, default, text in flags:
            if name == "dataset":
                kind, default = _dataset_of(datasets), datasets[0]
                text = f"{text}: {', '.join(datasets)}, or {IMAGE_FOLDER}: your own, see --data_path"
            elif isinstance(kind, tuple):
                if name not in ("eval_mode", "method"):
                    text = f"{text}; one of {', '.join(map(str, kind))}"
                kind = one_of(kind)
            elif kind == _SWITCH and default is not False:
                text = f"{text}; --no_{name} switches it off"
            if shown := _default_text(name, default, datasets):
                text = f"{text} ({shown})"
            hidden = not everything and name not in COMMON_FLAGS
            _add(group if everything else common, name, kind, argparse.SUPPRESS if hidden else text)
    group = parser.add_argument_group("compatibility: released flags that the released code never reads")
    for name, kind, default, _ in DEAD_FLAGS:
        _add(group, name, kind, f"no effect (released default {default!r})" if everything else argparse.SUPPRESS)
    return parser


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a command line came to: the values, what the recipe says, whose that is, and lines to tell the user."""

    args: argparse.Namespace
    usual: dict
    recipe: str
    notes: list

    @property
    def departures(self):
        """{flag: (value, the recipe's value)} where they differ."""
        values = {name: (getattr(self.args, name), self.usual[name]) for name in self.usual if name in _OF_THE_RECIPE}
        return {name: (value, usual) for name, (value, usual) in values.items() if value != usual}


def parse_args(datasets, description, argv=None):
    """Parse a command line of the script that distils `datasets` and fill in the recipe: Settings. By default recipe
    flags are the published ones for this dataset, ipc and method. Exits with code 2 and one line on a bad flag, with
    code 0 after --help and --help_all."""
    words = sys.argv[1:] if argv is None else argv
    for everything, asked in ((False, ("-h", "--help")), (True, ("--help_all", "--help-all"))):
        if set(asked) & set(words):
            build_parser(datasets, description, everything).print_help()
            sys.exit()
    parser = build_parser(datasets, description)
    given = vars(parser.parse_args(words))
    values = {**_DEFAULTS, "dataset": datasets[0], **given}
    if values["recipe"] == "ours" and values["method"] != "BACON":
        parser.error(f"--recipe ours: is for --method BACON, found {values['method']}; give its flags one by one")
    settings, whose = recipe(*(values[name] for name in ("dataset", "ipc", "method", "recipe")))
    usual = {**_DEFAULTS, **settings}
    values = {**values, **settings, **given}
    notes = []
    for name, why, instead in _without_effect(values):
        notes.append(f"--{name} {values[name]} has no effect{why}")
        values[name] = instead
    return Settings(argparse.Namespace(**values), usual, whose, notes)


def _without_effect(values):
    """Flags that the others make idle: (name, why, the value that stands)."""
    if values["im_size"] and values["dataset"] != IMAGE_FOLDER:
        yield "im_size", f": only {IMAGE_FOLDER} resizes", None
    for name, _, default, command in DEAD_FLAGS:
        if values[name] not in (default, command):
            yield name, ": the released code never reads it", values[name]
    for name, value in METHODS[values["method"]].fixed.items():
        if values[name] != value:
            yield name, f" with --method {values['method']}", value
