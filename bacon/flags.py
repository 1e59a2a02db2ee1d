"""Every flag of the scripts: its name, type, default and help; what a command line comes to, and
how its run is named. No torch."""

import argparse
import dataclasses
import difflib
import functools
import hashlib
import itertools
import math
import os
import re
import sys
import typing
import unicodedata

from bacon import hints
from bacon.data.datasets import DATASETS, IMAGE_FOLDER
from bacon.errors import one_line
from bacon.methods import METHODS, TERMS, methods_with_ours, terms_of, weight_flags
from bacon.recipes import EVAL_NETWORKS, cooled_iterations, listed_ipcs, recipe


def _bounded(convert, kind, low, high):
    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            limit = f"of at most {high:g}" if value > high else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"must be {kind} {limit}, {hints.found(text)}")
        return value

    return parse


def whole(low):
    """An argparse type: a whole number of at least `low`."""
    return _bounded(int, "a whole number", low, 1e9)


def path(text):
    """An argparse type: a path. Refused is the empty one, of a variable that is not set, and one
    that is not there and holds a control character, of a script with Windows' line ends."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, found ''; . is the current folder")
    controls = any(unicodedata.category(character) == "Cc" for character in text)
    if controls and not os.path.lexists(text):
        raise argparse.ArgumentTypeError(f"must be a path, {hints.found(text)}")
    return text


RATE = _bounded(float, "a number", 1e-30, 1e30)
_WEIGHT = _bounded(float, "a number", 0, 1e30)
_SHARE = _bounded(float, "a number", 0, 1)
_SWITCH = "switch"  # --x / --no_x
_TRUTH_VALUES = ("true", "false", "yes", "no", "on", "off")

EVAL_MODES = tuple(EVAL_NETWORKS)


def _about_methods():
    described = [f"{name} ({method.about})" for name, method in METHODS.items()]
    return f"what is minimised: {', '.join(described[:-1])} or {described[-1]}"


class Flag(typing.NamedTuple):
    """A flag of the scripts, as it is typed without its two dashes."""

    name: str
    kind: object  # an argparse type, a tuple of choices, or _SWITCH: --x / --no_x
    default: object  # None: from the recipe
    about: str  # for --help


# The weights of the loss terms, each a flag where its row in methods.TERMS has a text.
_FLAGS_OF_TERMS = [
    Flag(f"{name}_weight", _WEIGHT, term.weight, term.about)
    for name, term in TERMS.items()
    if term.about is not None
]

# Released names are kept, `Iteration` with its capital.
FLAGS = {
    "recipe": [
        Flag("dataset", str, None, "which images to distil"),
        Flag(
            "im_size",
            whole(4),
            None,
            "of ImageFolder: side in pixels that images are resized to (default: as they are)",
        ),
        Flag(
            "model",
            str,
            "ConvNet",
            "network that distils, of the ConvNet family: ConvNet, ConvNetW32, ConvNetD4, ...",
        ),
        Flag("ipc", whole(1), 50, "synthetic canvases per class"),
        Flag("method", tuple(METHODS), "BACON", _about_methods()),
        Flag(
            "recipe",
            ("paper", "ours"),
            "paper",
            "the paper's settings, or ours, which reach a higher accuracy (BACON)",
        ),
        Flag(
            "dsa_strategy",
            str,
            None,
            "DSA operations joined by _, one drawn per batch; 'none' switches DSA off",
        ),
        Flag(
            "init",
            ("real", "noise", "cluster"),
            None,
            "canvases start from real training images at random, from standard normal noise, "
            "or from one real image per cluster",
        ),
        Flag(
            "chroma",
            ("full", "half"),
            None,
            "half: colours at half resolution, twice the canvases in the same storage",
        ),
        Flag(
            "aug",
            _SWITCH,
            None,
            "multi-formation: a canvas holds four half-size images (H and W must be even)",
        ),
        Flag("aug_num", (1,), 1, "accepted for the released command lines"),
        Flag(
            "zca",
            _SWITCH,
            False,
            "distil and evaluate in ZCA-whitened space (eps 0.1), fitted on the training images",
        ),
    ],
    "optimisation": [
        Flag(
            "Iteration",
            whole(0),
            None,
            "distillation iterations; 0 evaluates the initialisation",
        ),
        Flag("lr_img", RATE, None, "learning rate of the canvases"),
        Flag(
            "cooldown",
            _SHARE,
            0.0,
            "share of the iterations, at the end, whose lr_img is a tenth; 0: none",
        ),
        Flag(
            "optim",
            ("sgd", "adam"),
            "sgd",
            "canvas optimizer: SGD with momentum 0.5 in closed form over all classes, or "
            "Adam, one step per class (slow)",
        ),
        Flag("batch_real", whole(2), None, "real images per class and update"),
        Flag(
            "embed_last",
            whole(-1000000000.0),
            None,
            "embedding = modules[:N] of the feature stack; 1000 is all of it, -1 all but the "
            "last module",
        ),
        Flag(
            "outer_loop",
            whole(1),
            None,
            "times per iteration that canvases and networks take turns",
        ),
        Flag(
            "syn_ce",
            _SWITCH,
            None,
            "add the cross-entropy of the canvases, weighted by the network's training accuracy",
        ),
        Flag(
            "ce_weight",
            _WEIGHT,
            None,
            "weight of that cross-entropy per percent of training accuracy",
        ),
        *_FLAGS_OF_TERMS,
        Flag(
            "clip_prior",
            ("released", "residual"),
            "released",
            "released: identically 0, as in the published code; residual: acts on "
            "standardised residuals",
        ),
    ],
    "network pool": [
        Flag(
            "experts",
            whole(0),
            0,
            "match on this many networks that are trained beforehand, at random moments of their "
            "training, in place of the pool; 0: the pool",
        ),
        Flag("expert_steps", whole(1), 3000, "batches, with DSA, that each expert is trained for"),
        Flag(
            "expert_ce",
            _WEIGHT,
            0.0,
            "weight of the cross-entropy of the canvases in an expert late in its training",
        ),
        Flag("lr_net", RATE, None, "learning rate of the pool's and of the evaluation networks"),
        Flag("net_decay", _SWITCH, None, "train the pool with momentum 0.9 and weight decay 5e-4"),
        Flag(
            "net_num",
            whole(1),
            None,
            "networks in the pool at most; beyond it the oldest leaves",
        ),
        Flag("net_push_num", whole(0), None, "fresh networks that enter at a time"),
        Flag("net_generate_interval", whole(1), None, "iterations between fresh networks"),
        Flag(
            "net_begin",
            whole(-1000000000.0),
            0,
            "canvases are updated on networks of pool[net_begin:net_end] ...",
        ),
        Flag(
            "net_end",
            whole(-1000000000.0),
            100000,
            "... if that slice holds more than 10 networks, else on any",
        ),
        Flag("train_net_num", whole(1), None, "networks that update the canvases per iteration"),
        Flag("fetch_net_num", whole(0), None, "networks trained on real images per iteration"),
        Flag("model_train_steps", whole(0), None, "batches each of them is trained for"),
        Flag("trained_bs", whole(1), None, "real images per such batch"),
        Flag(
            "meter_reset",
            whole(1),
            None,
            "iterations between resets of the networks' training-accuracy meters",
        ),
    ],
    "evaluation": [
        Flag(
            "eval_mode",
            EVAL_MODES,
            "S",
            "networks trained on the result: S and SS the training architecture, M several, B "
            "with batch norm, W widths, D depths, A activations, P poolings, N norms, C "
            "training architecture and ConvNet",
        ),
        Flag(
            "eval_interval",
            whole(1),
            None,
            "iterations between evaluations; the last iteration is always evaluated",
        ),
        Flag("num_eval", whole(1), None, "fresh networks per architecture and evaluation"),
        Flag("epoch_eval_train", whole(1), None, "epochs (plus one) each of them trains for"),
        Flag("batch_train", whole(1), None, "synthetic images per batch of that training"),
        Flag("num_exp", whole(1), None, "independent experiments"),
        Flag(
            "judge_steps",
            whole(0),
            0,
            "train judges for this many steps in place of epochs, however many the images",
        ),
        Flag(
            "validate",
            whole(0),
            0,
            "hold this many training images per class out, and judge on them instead of the "
            "test images: for choosing settings",
        ),
    ],
    "input and output": [
        Flag(
            "data_path",
            path,
            "data",
            "folder of the datasets; of ImageFolder, that with train/ and val/ or test/",
        ),
        Flag("save_path", path, "result", "folder for results, logs and image grids"),
        Flag(
            "expert_path",
            path,
            None,
            "folder of --experts, which other runs share (default: --save_path)",
        ),
        Flag(
            "overwrite",
            _SWITCH,
            False,
            "replace an earlier run of the same name once this one has begun",
        ),
        Flag(
            "resume",
            _SWITCH,
            False,
            "go on from the newest checkpoint in save_path; starts a run that is not there yet",
        ),
        Flag(
            "checkpoint_minutes",
            _WEIGHT,
            10.0,
            "minutes between checkpoints; 0 writes one at every iteration",
        ),
    ],
    "run control": [
        Flag(
            "exp_index",
            whole(0),
            None,
            "run only this one of num_exp experiments; files end in _exp<k> (default all)",
        ),
        Flag("seed", whole(0), 0, "every random number of the run follows from it"),
        Flag(
            "device",
            ("auto", "cpu", "cuda", "mps"),
            "auto",
            "where to compute; auto takes cuda, then mps, then cpu",
        ),
        Flag(
            "precision",
            ("auto", "fp32", "bf16"),
            "auto",
            "number format inside the networks; auto: bf16 where it pays",
        ),
        Flag(
            "compile",
            _SWITCH,
            None,
            "torch.compile the networks (default where the planned work repays it)",
        ),
        Flag(
            "dry_run",
            _SWITCH,
            False,
            "print recipe, FLOP, memory and estimated hours on this device, then stop",
        ),
    ],
}


class DeadFlag(typing.NamedTuple):
    """A flag of the released scripts, BACON's or IDM's, that changes nothing here."""

    name: str
    kind: object  # as in FLAGS
    default: object  # the released one
    commands: object  # its value in the released command lines
    why: str = "the released code never reads it"  # another value has no effect


DEAD_FLAGS = (
    DeadFlag("mismatch_lambda", float, 0.005, 0.0),
    DeadFlag("mismatch_type", str, "l1", "l1"),
    DeadFlag("dis_metric", str, "ours", "ours"),
    DeadFlag("last", int, 100, 100),
    DeadFlag("local_num", int, 10, 10),
    DeadFlag("local_weight", float, 0.1, 0.1),
    DeadFlag("weight_layer_index", int, 0, 0),
    DeadFlag("inner_loop", int, 1, 1),
    DeadFlag("conf_path", str, "", ""),
    DeadFlag("net_train_real", _SWITCH, True, True),
    DeadFlag("ij_selection", str, "random", "random", "the released code knows random alone"),
    # Of IDM's script for ImageNet alone:
    DeadFlag("load_path", str, "None", "None"),
    DeadFlag("perturbation_type", str, "weight", "weight"),
    DeadFlag("local_match", _SWITCH, False, False),
    DeadFlag("center_reg", _SWITCH, False, False),
    DeadFlag("center_reg_weight", float, 0.01, 0.01),
    DeadFlag("eval_begin", int, 1, 1, "the first evaluation is that of --eval_interval"),
    DeadFlag("model_evaluate", _SWITCH, False, False, "networks of the pool are not tested"),
)

_EVERY_FLAG = [flag for flags in FLAGS.values() for flag in flags]
SHARED = {flag.name: (flag.kind, flag.about) for flag in _EVERY_FLAG}  # with evaluate.py
DEFAULTS = {flag.name: flag.default for flag in (*_EVERY_FLAG, *DEAD_FLAGS)}
# How this process was started, not what the run is: --resume accepts other values of these.
OF_THE_PROCESS = (
    "data_path", "save_path", "expert_path", "overwrite", "resume", "checkpoint_minutes", "dry_run",
)  # fmt: skip
# What is distilled and judged, and how; a run says where it departs from the recipe in these.
_TITLES_OF_THE_RECIPE = ("recipe", "optimisation", "network pool", "evaluation")
_OF_THE_RECIPE = {flag.name for title in _TITLES_OF_THE_RECIPE for flag in FLAGS[title]}
_OF_THE_RECIPE -= {"dataset", "ipc", "method", "im_size", "recipe"}

# A run's name says where it departs from its recipe by these tags, in this order: a text around
# the flag's value, or of a switch the words for on and off. No tag may read exp<k>: that ends the
# files of a job array's experiment.
TAGS = {
    # what is distilled, and how
    "Iteration": "{}it",
    "seed": "seed{}",
    "im_size": "{}px",
    "validate": "validate{}",
    "init": "{}init",
    "chroma": "{}chroma",
    "aug": ("aug", "noaug"),
    "zca": ("zca", "nozca"),
    "dsa_strategy": "dsa-{}",
    "lr_img": "lr{}",
    "cooldown": "cooldown{}",
    "optim": "{}",
    "syn_ce": ("ce", "noce"),
    "ce_weight": "ce{}",
    **{f"{name}_weight": f"{name}{{}}" for name, term in TERMS.items() if term.about is not None},
    "clip_prior": "{}clip",
    "batch_real": "realbatch{}",
    "embed_last": "embed{}",
    "outer_loop": "outer{}",
    "experts": "{}experts",
    "expert_steps": "expertsteps{}",
    "expert_ce": "expertce{}",
    "lr_net": "lrnet{}",
    "net_decay": ("netdecay", "nonetdecay"),
    "net_num": "{}nets",
    "net_push_num": "push{}",
    "net_generate_interval": "netevery{}",
    "net_begin": "netbegin{}",
    "net_end": "netend{}",
    "train_net_num": "use{}",
    "fetch_net_num": "fetch{}",
    "model_train_steps": "netsteps{}",
    "trained_bs": "netbatch{}",
    "meter_reset": "meter{}",
    "precision": "{}",
    # how often that is done, and how it is judged: other figures, of the same images
    "num_exp": "{}exp",
    "eval_interval": "every{}",
    "eval_mode": "mode{}",
    "num_eval": "{}judges",
    "epoch_eval_train": "{}epochs",
    "judge_steps": "{}steps",
    "batch_train": "judgebatch{}",
}
# Flags without a tag: those that every name begins with, and where and how fast to compute.
UNTAGGED = {"dataset", "model", "ipc", "method", "recipe", "exp_index", *OF_THE_PROCESS}
UNTAGGED |= {"device", "compile", "aug_num"}
# Flags that random images, which are not distilled, do not depend on.
OF_DISTILLING = {
    "Iteration",
    "lr_img",
    "cooldown",
    "optim",
    "syn_ce",
    "ce_weight",
    *weight_flags(TERMS),
    *(setting for term in TERMS.values() for setting in term.settings),
    "batch_real",
    "outer_loop",
    "experts",
    "expert_steps",
    "expert_ce",
    "net_num",
    "net_push_num",
    "net_generate_interval",
    "net_begin",
    "net_end",
    "train_net_num",
    "fetch_net_num",
    "model_train_steps",
    "meter_reset",
    "eval_interval",
}
# Characters of a name. With what files add, such as vis_ and _exp0_iter20000.png, they stay below
# 120, and the first lines of a run fit their columns.
LONGEST_NAME = 74
OF_EXPERTS = ("expert_steps", "expert_ce", "expert_path")
# Flags of the pool alone, in whose place --experts is.
OF_THE_POOL = (
    "net_num", "net_push_num", "net_generate_interval", "net_begin", "net_end", "fetch_net_num",
    "model_train_steps", "meter_reset",
)  # fmt: skip
# What --help shows; --help_all shows every flag.
COMMON_FLAGS = (
    "dataset",
    "ipc",
    "model",
    "method",
    "recipe",
    "Iteration",
    "eval_interval",
    "seed",
    "data_path",
    "save_path",
    "resume",
    "dry_run",
)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit code 2.

    Flags take - for _ and any letter case. No flag is abbreviated; a word that is none is answered
    with the nearest one.
    """

    def __init__(self, **options):
        formatter = functools.partial(
            argparse.RawDescriptionHelpFormatter, width=80, max_help_position=22
        )
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def parse_args(self, argv=None):
        words = list(sys.argv[1:] if argv is None else argv)
        end = words.index("--") if "--" in words else len(words)  # what follows are no flags
        checked = [self._flag(word) for word in words[:end]]
        for word, following in itertools.pairwise([*checked, "-"]):
            self._refuse_value_of_switch(word, following)
        return super().parse_args(checked + words[end:])

    def take_paths(self, *names):
        """Let the arguments of these names take paths, see `path`."""
        for action in self._actions:
            if action.dest in names:
                action.type = path

    @property
    def _takes_paths(self):
        return any(not action.option_strings for action in self._actions)

    def _flag(self, word):
        """A word of the command line, a flag by the name that the parser knows. Refuses others."""
        known = {flag.lower(): flag for flag in self._option_string_actions}
        name, equals, value = word.partition("=")
        seen = hints.decoded(word)
        if not word.strip() and hints.strange(word) and not os.path.lexists(word):
            self.error(f"{word!r}: is {hints.strange(word)}; leave it out")
        if seen.startswith((*hints.DASHES, *(f"-{dash}" for dash in hints.DASHES))):
            if self._takes_paths and os.path.lexists(word):
                return word
            self.error(f"{seen}: holds {hints.strange(word)}; type {hints.plain(word)}")
        if word[:1] == "-" and word[1:2].isalpha() and word not in known:
            typed = _underscores(f"-{name}")
            if typed in known:
                self.error(f"{name}: a flag has two dashes; type {known[typed]}")
            self.error(f"{name}: no such flag; {hints.advice(typed, known)}")
        if not word.startswith("--"):
            return word
        if hints.strange(name):
            shown = hints.decoded(name)
            self.error(f"{shown}: holds {hints.strange(name)}; type {hints.plain(name)}")
        typed = _underscores(name)
        if typed not in known:
            self.error(f"{name}: no such flag; {hints.advice(typed, known)}")
        return known[typed] + equals + value

    def _refuse_value_of_switch(self, word, following):
        name, equals, value = word.partition("=")
        action = self._option_string_actions.get(name)
        if action is None or action.nargs != 0 or action.dest == "help":
            return
        if not equals:
            if following.startswith("-"):
                return
            value = following
            is_truth_value = value.lower() in _TRUTH_VALUES and not os.path.lexists(value)
            if self._takes_paths and not is_truth_value:
                return
        ways = f"say --{action.dest}, or leave it out"
        if f"--no_{action.dest}" in self._option_string_actions:
            ways = f"say --{action.dest} or --no_{action.dest}"
        self.error(f"{name}: takes no value, {hints.found(value)}; {ways}")

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message.removeprefix('argument '))}\n")


def _underscores(name):
    """A flag as it is looked up: in lower case, with _ for - after the first two dashes."""
    return f"--{name[2:].lower().replace('-', '_')}"


def one_of(names):
    """An argparse type: one of `names`, in any letter case."""
    known = {str(name).lower(): name for name in names}

    def parse(text):
        if text.lower() not in known:
            near = difflib.get_close_matches(text.lower(), known, 1)
            advice = ""
            if "cuda" in known and hints.names_a_gpu(text):
                advice = f"; {hints.WHICH_GPU}"
            elif near:
                advice = f"; did you mean {known[near[0]]}?"
            allowed = ", ".join(map(str, names))
            found = f"{hints.found(text)}{advice}"
            raise argparse.ArgumentTypeError(f"must be one of {allowed}, {found}")
        return known[text.lower()]

    return parse


def _dataset_of(datasets):
    """An argparse type: a dataset of the script, or pictures of your own."""
    elsewhere = {
        name.lower(): name
        for name, spec in DATASETS.items()
        if spec.script is not None and name not in datasets
    }
    among_these = one_of((*datasets, IMAGE_FOLDER))

    def parse(text):
        if text.lower() in elsewhere:
            name = elsewhere[text.lower()]
            raise argparse.ArgumentTypeError(f"{name} is distilled by {DATASETS[name].script}")
        return among_these(text)

    return parse


def _add(group, name, kind, text):
    options = {"default": argparse.SUPPRESS, "dest": name, "help": text.replace("%", "%%")}
    if kind == _SWITCH:
        group.add_argument(f"--{name}", action="store_const", const=True, **options)
        options["help"] = argparse.SUPPRESS
        group.add_argument(f"--no_{name}", action="store_const", const=False, **options)
    else:
        group.add_argument(f"--{name}", type=kind, metavar="X", **options)


def _default_text(flag, datasets):
    """The default of a flag in words, of every method where methods differ; "" where it is off."""
    if flag.default is False:
        return ""
    if flag.default is not None:
        return f"default {flag.default}"
    texts = {method: _defaults_of(flag.name, method, datasets) for method in METHODS}
    first, *others = METHODS
    if not texts[first]:
        return ""
    words = "default, by dataset and ipc:" if " or " in texts[first] else "default"
    said = [f"{words} {texts[first]}"]
    for method in others:
        if texts[method] != texts[first]:
            said.append(f"{method} {texts[method]}")
    return "; ".join(said)


def _defaults_of(name, method, datasets):
    """The values that the recipes of a method give a flag, over datasets and ipcs, in words."""
    values = set()
    for dataset in datasets:
        for ipc in listed_ipcs(dataset):
            settings, _ = recipe(dataset, ipc, method)
            values.add(settings.get(name))
    return " or ".join(str(value) for value in sorted(values - {None}))


def build_parser(datasets, description, everything=True):
    """The parser of one script. Absent flags stay absent, so that the recipe can fill them in.

    everything: whether its help shows all flags, by group, or COMMON_FLAGS.
    """
    epilog = "Every flag, by group: --help_all. What a run writes: README.md."
    parser = OneLineParser(
        description=description,
        epilog=None if everything else epilog,
        usage="%(prog)s [--flag value ...]",
        add_help=False,
    )
    common = None if everything else parser.add_argument_group("the flags that people change")
    for title, flags in FLAGS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            shown = everything or flag.name in COMMON_FLAGS
            text = _help_of(flag, datasets) if shown else argparse.SUPPRESS
            _add(group if everything else common, flag.name, _argparse_type(flag, datasets), text)
    group = parser.add_argument_group("compatibility: released flags that change nothing")
    for dead in DEAD_FLAGS:
        text = f"no effect (released default {dead.default!r})"
        _add(group, dead.name, dead.kind, text if everything else argparse.SUPPRESS)
    return parser


def _argparse_type(flag, datasets):
    """How the value of a flag is read; _SWITCH for one that takes none."""
    if flag.name == "dataset":
        return _dataset_of(datasets)
    return one_of(flag.kind) if isinstance(flag.kind, tuple) else flag.kind


def _help_of(flag, datasets):
    """The help of a flag: what it is, what it takes, its default."""
    text = flag.about
    if flag.name == "dataset":
        flag = flag._replace(default=datasets[0])
        text += f": {', '.join(datasets)}, or {IMAGE_FOLDER}: your own, see --data_path"
    elif isinstance(flag.kind, tuple):
        if flag.name not in ("eval_mode", "method"):  # whose texts name the choices
            text += f"; one of {', '.join(map(str, flag.kind))}"
    elif flag.kind == _SWITCH and flag.default is not False:
        text += f"; --no_{flag.name} switches it off"
    default = _default_text(flag, datasets)
    return f"{text} ({default})" if default else text


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a command line came to.

    args: every flag. usual: what the recipe says, {flag: value}. recipe: whose that is, in words.
    notes: lines to tell the user. given: the flags that were typed.
    """

    args: argparse.Namespace
    usual: dict
    recipe: str
    notes: list
    given: frozenset

    @property
    def departures(self):
        """{flag: (value, the recipe's value)} where they differ."""
        return departures(vars(self.args), self.usual)


def departures(values, usual):
    """{flag: (value, usual value)} of the flags of a recipe that differ.

    values, usual: {flag: value} of all flags, those of a run and those of its recipe.
    """
    found = {}
    for name in usual:
        if name in _OF_THE_RECIPE and values[name] != usual[name]:
            found[name] = (values[name], usual[name])
    return found


def parse_args(datasets, description, argv=None):
    """Parse a command line of the script that distils `datasets` and fill in the recipe: Settings.

    By default recipe flags are the published ones for this dataset, ipc and method. Exits with code
    2 and one line on a bad flag, with code 0 after --help and --help_all.
    """
    words = sys.argv[1:] if argv is None else argv
    for everything, asked in ((False, ("-h", "--help")), (True, ("--help_all", "--help-all"))):
        if set(asked) & set(words):
            build_parser(datasets, description, everything).print_help()
            sys.exit()
    parser = build_parser(datasets, description)
    given = vars(parser.parse_args(words))
    values = {**DEFAULTS, "dataset": datasets[0], **given}
    if values["recipe"] == "ours" and not METHODS[values["method"]].has_ours:
        allowed = " or ".join(methods_with_ours())
        found = f"is for --method {allowed}, found {values['method']}"
        parser.error(f"--recipe ours: {found}; give its flags one by one")
    settings, whose = recipe(values["dataset"], values["ipc"], values["method"], values["recipe"])
    usual = {**DEFAULTS, **settings}
    values = {**values, **settings, **given}
    notes = []
    for idle in _without_effect(values, usual):
        notes.append(f"--{idle.name} {values[idle.name]} has no effect{idle.why}")
        values[idle.name] = idle.stands
    return Settings(argparse.Namespace(**values), usual, whose, notes, frozenset(given))


class _Idle(typing.NamedTuple):
    """A flag that the others make idle: why, and the value that stands."""

    name: str
    why: str
    stands: object


def _without_effect(values, usual):
    """The flags that have no effect in a run, [_Idle].

    values: {flag: value} of all flags. usual: the same of the recipe.
    """
    found = []
    if values["im_size"] and values["dataset"] != IMAGE_FOLDER:
        found.append(_Idle("im_size", f": only {IMAGE_FOLDER} resizes", None))
    for dead in DEAD_FLAGS:
        value = values[dead.name]
        if value not in (dead.default, dead.commands):
            found.append(_Idle(dead.name, f": {dead.why}", value))
    fixed = fixed_by(values["method"])
    for name, value in fixed.items():
        if values[name] != value:
            found.append(_Idle(name, f" with --method {values['method']}", value))
    values = {**values, **fixed}  # what the method fixes is told once
    for name, why in overruled(values).items():
        if values[name] != usual[name]:
            found.append(_Idle(name, why, usual[name]))
    iterations = values["Iteration"]
    if iterations and not cooled_iterations(values["cooldown"], iterations):
        stands = 0.0 if cooled_iterations(usual["cooldown"], iterations) else usual["cooldown"]
        if values["cooldown"] != stands:
            why = f": of {iterations:,} iterations that is none"
            found.append(_Idle("cooldown", why, stands))
    if values["experts"]:
        names = OF_THE_POOL
        why = " with --experts"
        stands = usual
    else:
        names = OF_EXPERTS
        why = " without --experts"
        stands = DEFAULTS  # the values of our recipe are for its experts
    for name in names:
        if values[name] != stands[name]:
            found.append(_Idle(name, why, stands[name]))
    if not values["syn_ce"] and values["ce_weight"] != usual["ce_weight"]:
        found.append(_Idle("ce_weight", " with --no_syn_ce", usual["ce_weight"]))
    return found


def overruled(values):
    """The flags that others make idle, whatever their own values: {flag: why}.

    values: {flag: value} of all flags.
    """
    found = {}
    if values["judge_steps"]:
        found["epoch_eval_train"] = " with --judge_steps"
    for name in terms_of(values["method"]):
        term = TERMS[name]
        is_zero = all(values[setting] == value for setting, value in term.zero_with.items())
        if term.zero_with and is_zero and term.about is not None:
            settings = [f"--{setting} {value}" for setting, value in term.zero_with.items()]
            found[f"{name}_weight"] = f" with {' '.join(settings)}"
    return found


def fixed_by(method):
    """The flags that have no effect with a method, {flag: the value that stands}: weights and
    settings of terms that it does not have, and what makes it that method."""
    terms = terms_of(method)
    strange = [name for name in TERMS if name not in terms]
    settings = {setting for name in terms for setting in TERMS[name].settings}
    names = weight_flags(strange)
    for name in strange:
        names += [setting for setting in TERMS[name].settings if setting not in settings]
    return {name: DEFAULTS[name] for name in names} | METHODS[method].fixed


def run_name(args):
    """What the files of a run are named after: <kind>_<dataset>_<model>_<ipc>ipc, and a tag for
    every departure from the recipe.

    The kind is the method where the paper's recipe is the base, `ours` with --recipe ours, and
    `random` with --Iteration 0, whatever the method: the flags of distilling play no part there. Of
    a longer name than LONGEST_NAME the last tags become a hash of all. args: every flag, as
    `parse_args` fills them in.
    """
    if args.Iteration == 0:
        kind = "random"
        base, _ = recipe(args.dataset, args.ipc)
        without_effect = OF_DISTILLING
    else:
        kind = "ours" if args.recipe == "ours" else args.method
        base, _ = recipe(args.dataset, args.ipc, args.method, args.recipe)
        without_effect = set()
    usual = {**DEFAULTS, **base}
    tags = []
    for name, text in TAGS.items():
        value = getattr(args, name)
        if name not in without_effect and value != usual[name]:
            tags.append(_tag(text, value))
    beginning = [kind, args.dataset, args.model, f"{args.ipc}ipc"]
    name = "_".join([*beginning, *tags])
    if len(name) <= LONGEST_NAME:
        return name
    ending = "more-" + hashlib.sha256("_".join(tags).encode()).hexdigest()[:8]
    kept = list(beginning)
    for tag in tags:
        if len("_".join([*kept, tag, ending])) > LONGEST_NAME:
            break
        kept.append(tag)
    return "_".join([*kept, ending])


def _tag(text, value):
    """A tag of TAGS for a flag's value, of characters that every shell and file system takes."""
    if isinstance(text, tuple):
        on, off = text
        return on if value else off
    shown = str(value)
    if isinstance(value, float):
        short = f"{value:g}"
        shown = short if float(short) == value else repr(value)
    return re.sub(r"[^A-Za-z0-9.+-]", "-", text.format(shown))
