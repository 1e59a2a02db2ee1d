"""evaluate.py: its flags, which of them go together, and what each of its tasks prints."""

import argparse
import json
import textwrap

from bacon import compute, errors, flags, messages, outputs, plots, runs, tables
from bacon.data import spaces
from bacon.data.known_classes import plain
from bacon.errors import UserError
from bacon.recipes import DATASETS, IMAGE_FOLDER
from bacon.score import (
    diagnose,
    drawing,
    export,
    finding,
    judging,
    protocols,
    rows,
    soft_labels,
)
from bacon.score.baselines import BASELINES

# Flags


def build_parser(description):
    """The parser of evaluate.py. An absent flag is None where the set, or else the protocol,
    decides."""
    usage = "python evaluate.py PATH ... [--flag value ...]"
    parser = flags.OneLineParser(prog="evaluate.py", usage=usage, description=description)
    _add_tasks(parser.add_argument_group("what to do"))
    _add_sets(parser.add_argument_group("the sets"))
    judges = parser.add_argument_group("judging")
    _add_judges(judges)
    _add_baselines(judges)
    _add_computing(judges)
    _add_output(parser.add_argument_group("output"))
    parser.take_paths("paths", "table", "plot", "export", "grid", "tsne")
    parser.take_paths("data_path", "relabel", "save_path")
    return parser


def _text_of(name):
    """The help of a flag that a run has too."""
    _, text = flags.SHARED[name]
    return text


def _kind_of(name):
    """The type, or the choices, of a flag that a run has too."""
    kind, _ = flags.SHARED[name]
    return kind


def _add_tasks(group):
    group.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="saved sets: files, folders of files, or class folders of pictures",
    )
    group.add_argument(
        "--recursive", action="store_true", help="also take the files in all folders below a PATH"
    )
    group.add_argument(
        "--diagnose",
        action="store_true",
        help="find out how each set must be read (--factor, --pixels, --labels, --relabel): every "
        "way is tried in a short training; prints a table and the flags to use, but no scores",
    )
    group.add_argument(
        "--table", metavar="FOLDER", help="print a table of all finished runs below a folder"
    )
    group.add_argument(
        "--plot",
        nargs="+",
        metavar=("LOG", "OUT.png"),
        help="draw the accuracy over the iterations of a run, whose log is given, or of all runs "
        "below a folder (default of OUT.png: a name beside the log or in the folder); logs and "
        "folders of several runs go before OUT.png",
    )
    group.add_argument(
        "--export",
        nargs=2,
        metavar=("FORMAT", "OUT"),
        help="write the set in another format: png, class folders of pictures; dc, a file as DC "
        "writes it",
    )
    group.add_argument(
        "--grid",
        metavar="OUT.png",
        help="draw the set's canvases, class by class (with --decode: the images on them)",
    )
    group.add_argument(
        "--tsne",
        metavar="OUT.png",
        help="draw a t-SNE map of real and synthetic images, of the first ten classes",
    )


def _add_sets(group):
    names = (*DATASETS, IMAGE_FOLDER)
    group.add_argument(
        "--dataset",
        type=flags.one_of(names),
        metavar="NAME",
        help=f"the dataset that the sets were made from: {', '.join(names)}",
    )
    group.add_argument(
        "--data_path",
        default="data",
        metavar="FOLDER",
        help="folder of the datasets (default data)",
    )
    group.add_argument("--im_size", type=flags.whole(4), metavar="PIXELS", help=_text_of("im_size"))
    group.add_argument(
        "--factor",
        type=int,
        choices=(1, 2),
        help="2: a canvas holds four images, 1: it is one image (default: by the file's layout)",
    )
    group.add_argument(
        "--zca",
        action="store_true",
        help="the sets of other programs are ZCA-whitened: whiten the test images as MTT does",
    )
    group.add_argument(
        "--pixels",
        choices=spaces.PIXELS,
        help="how pixels are stored: normalised by mean and deviation, unit: in [0,1], bytes: in "
        "[0,255], zca: as --zca (default: by the file's layout)",
    )
    group.add_argument(
        "--labels",
        choices=soft_labels.KINDS,
        help="what soft labels are; hard: take the likeliest class (default: probabilities if "
        "they sum to 1, logits if some are negative)",
    )
    group.add_argument(
        "--relabel",
        metavar="FILE",
        help="the class that each label means, where labels are in another order than the "
        "dataset's; with --diagnose that order is written to FILE",
    )
    group.add_argument(
        "--exp",
        type=flags.whole(0),
        metavar="NUMBER",
        help="take only this experiment of a file with several (default: score all; export or "
        "draw 0)",
    )
    group.add_argument(
        "--decode", action="store_true", help="with --grid: draw the images on the canvases"
    )


# What the flags of a run's protocol do here, where they are about judges alone.
_OF_JUDGES = {
    "epoch_eval_train": "epochs that each network trains for; the paper's protocol adds one",
    "judge_steps": "train for this many batches in place of epochs, however large the set",
    "batch_train": "images per batch",
    "lr_net": "first learning rate",
    "dsa_strategy": "DSA operations joined by _, one drawn per batch; 'none' switches DSA off",
}


def _add_judges(group):
    known = "; ".join(f"{name}: {rules.source}" for name, rules in protocols.PROTOCOLS.items())
    group.add_argument(
        "--protocol",
        choices=protocols.PROTOCOLS,
        default="paper",
        help=f"whose rules the judges train by: {known} (default paper)",
    )
    group.add_argument(
        "--eval_mode",
        type=flags.one_of(flags.EVAL_MODES),
        nargs="+",
        default=["S"],
        metavar="MODE",
        help=_text_of("eval_mode"),
    )
    group.add_argument(
        "--model",
        metavar="NETWORK",
        help="the network of modes S, SS and C (default: the one that distilled the set, else "
        "ConvNet)",
    )
    group.add_argument(
        "--num_eval",
        type=flags.whole(1),
        metavar="N",
        help="networks to train from scratch, of each architecture (default: as the run, else 5)",
    )
    for name in protocols.FROM_THE_RUN:
        group.add_argument(
            f"--{name}",
            type=_kind_of(name),
            metavar="NAMES" if name == "dsa_strategy" else "N",
            help=f"{_OF_JUDGES[name]} (default: the run's or the protocol's)",
        )
    group.add_argument(
        "--validate",
        type=flags.whole(1),
        default=0,
        metavar="N",
        help="judge on the N training images per class that a run with --validate N holds out, "
        "for choosing settings (default 0: on the test images)",
    )
    group.add_argument(
        "--biased",
        type=flags.whole(1),
        metavar="N",
        help="also test every N epochs and show the best of these figures, which is biased; with "
        "--table: the best of the evaluations in the log",
    )


def _names_in(text):
    return text.split(",")


def _add_baselines(group):
    group.add_argument(
        "--baseline",
        type=_names_in,
        default=[],
        metavar="NAME,...",
        help=f"also judge real images: {','.join(BASELINES)}",
    )
    group.add_argument(
        "--ipc",
        type=flags.whole(1),
        metavar="N",
        help="stored images per class of the baselines (default: as many as the sets have)",
    )
    group.add_argument(
        "--full_epochs",
        type=flags.whole(1),
        metavar="N",
        help="epochs of --baseline full, which trains on all real images (default "
        f"{judging.FULL_EPOCHS}); not beside --judge_steps",
    )
    group.add_argument(
        "--save_path",
        default="result",
        metavar="FOLDER",
        help="folder of baselines.json, which keeps the accuracies of baselines, so that each is "
        "computed once (default result)",
    )


def _add_computing(group):
    group.add_argument(
        "--seed",
        type=flags.whole(0),
        metavar="N",
        help="every random number follows from it (default: the run's, else 0)",
    )
    for name in ("device", "precision"):
        group.add_argument(f"--{name}", choices=_kind_of(name), default="auto", help=_text_of(name))
    group.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="use torch.compile (default: as the run, else where it saves time)",
    )
    group.add_argument(
        "--no_compile", dest="compile", action="store_false", default=None, help=argparse.SUPPRESS
    )


def _add_output(group):
    group.add_argument(
        "--format",
        choices=("text", "json", "markdown"),
        default="text",
        help="how the table is printed; json: a line for each row, with everything",
    )
    group.add_argument(
        "--details",
        action="store_true",
        help="also print spread and time; with --table also settings and the weights of BACON's "
        "terms",
    )


# What the program does


def main(description, argv=None):
    """Do what a command line says; returns the exit code, see errors.run_program.

    description: what --help opens with. Messages go to standard error, the table alone to standard
    output.
    """
    args = build_parser(description).parse_args(argv)

    def work():
        with messages.speak("stderr"):
            _check(args)
            _do(args)
        return 0

    return errors.run_program("evaluate.py", work)


def _check(args):
    """UserError unless the flags go together, name what there is, and every output can be
    written."""
    _check_task(args)
    _check_names(args)
    _check_effects(args)
    compute.check_device(args.device)
    wanted = outputs.of_scorer(args)
    if wanted:
        found = []
        for path in args.paths:
            found += finding.files(path, args.recursive)
        outputs.check(wanted, outputs.inputs(found, args.data_path, args.dataset))


def _check_task(args):
    """UserError unless there is one thing to do."""
    judges = bool(args.paths or args.baseline)
    tasks = [judges, bool(args.table), bool(args.plot)]
    if sum(tasks) > 1:
        alone = "give them without PATH, --baseline or each other"
        raise UserError(f"--table and --plot stand alone: {alone}")
    if sum(tasks) == 0:
        advice = "give paths of saved sets, --baseline, --table or --plot; --help explains them"
        raise UserError(f"nothing to do: {advice}")


def _check_names(args):
    """UserError for a baseline or a format that there is not."""
    formats = args.export[:1] if args.export else []
    _check_known("--baseline", args.baseline, BASELINES)
    _check_known("--export", formats, export.EXPORTS)


def _check_known(flag, names, known):
    for name in names:
        if name not in known:
            raise UserError(f"{flag} {name}: unknown; choose from {', '.join(known)}")


# The flags that have an effect, by what the program does.
_OF_READING = {
    "recursive", "dataset", "data_path", "im_size", "factor", "zca", "pixels", "labels", "relabel",
    "exp",
}  # fmt: skip
_OF_COMPUTING = {"seed", "device", "precision", "compile"}
_OF_TASK = {
    "plot": {"plot"},
    "table": {"table", "biased", "format", "details"},
    "diagnose": {
        "diagnose", "validate", "seed", "device", "compile", "format", *_OF_READING,
    },
    "export": {"export", *_OF_READING},
    "grid": {"grid", "decode", *_OF_READING},
    "tsne": {"tsne", "model", *_OF_COMPUTING, *_OF_READING},
    "judge": {
        "protocol", "eval_mode", "model", "num_eval", *protocols.FROM_THE_RUN, "validate",
        "biased", "baseline", "ipc", "full_epochs", "save_path", "format", "details",
        *_OF_COMPUTING, *_OF_READING,
    },
}  # fmt: skip
# What says of sets how they are read, so not of real images alone.
_OF_SETS_ALONE = _OF_READING - {"dataset", "data_path", "im_size"}
# What belongs to --baseline; --save_path is where its accuracies would go.
_OF_BASELINES = {"ipc", "full_epochs"}


def _tasks(args):
    """What the program does, keys of _OF_TASK: several pictures of a set can be had at once."""
    for name in ("plot", "table", "diagnose"):
        if getattr(args, name):
            return [name]
    shown = [name for name in ("export", "grid", "tsne") if getattr(args, name) is not None]
    return shown or ["judge"]


def _check_effects(args):
    """UserError for a flag that has no effect beside the others."""
    count = {"paths"}  # which `_check_task` looks at
    for task in _tasks(args):
        count |= _OF_TASK[task]
    if not args.paths:
        count -= _OF_SETS_ALONE
    if not args.baseline:
        count -= _OF_BASELINES
    if "full" not in args.baseline:
        count -= {"full_epochs"}
    parser = build_parser(None)
    for name, value in vars(args).items():
        if name not in count and value != parser.get_default(name):
            flag = "no_compile" if name == "compile" and not value else name
            advice = "leave it out, or see --help for what it goes with"
            raise UserError(f"--{flag}: has no effect here; {advice}")
    instead = "has no effect here, --judge_steps says how long judges train; leave one out"
    for name in ("full_epochs", "epoch_eval_train"):
        if getattr(args, name) and args.judge_steps:
            raise UserError(f"--{name}: {instead}")


def _do(args):
    tasks = _tasks(args)
    if "plot" in tasks:
        _plot(args)
    elif "table" in tasks:
        _tabulate(args)
    elif "diagnose" in tasks:
        _diagnose(args)
    elif "judge" in tasks:
        files = finding.read(args, needs_real=True)
        scored = judging.score_all(files, args)
        as_json = [row.as_json() for row in scored]
        _print(args.format, as_json, rows.shown(scored, args.details), cut="set")
    else:
        _draw_or_export(args)


def _plot(args):
    sources = args.plot
    path = None
    if len(args.plot) > 1:  # the last of several names is the picture's, as for cp
        *sources, path = args.plot
    messages.log.info(plots.plot_runs(sources, path))


def _tabulate(args):
    """Print tables of finished runs, and of the rows of this program that were kept beside them."""
    of_runs = tables.of_runs(args.table, args.biased)
    shown = tables.shown(of_runs, args.details)
    lines = [row.as_json() for row in of_runs]
    for kept in runs.kept_scores(args.table):
        scores = [rows.Row.from_json(row) for row in kept.rows]
        (table,) = rows.shown(scores).values()
        shown[f"{kept.dataset}: {kept.protocol}"] = table
        lines += kept.rows
    _print(args.format, lines, shown, cut="set")


def _diagnose(args):
    """Print for every set how it was meant: all readings in a table, then a line of advice; write
    --relabel."""
    arithmetic = compute.choose(args.device, "fp32", args.compile or False, 0)
    every = finding.find(args)
    if args.relabel and len(every) > 1:
        names = [str(located.found.path) for located in every[:3]] + ["..."] * (len(every) > 3)
        several = f"takes the order of one set, not of {len(every)}: {', '.join(names)}; give one"
        raise UserError(f"--relabel {args.relabel}: {several}")
    for located in every:
        path = located.found.path
        if located.because and not args.dataset:
            messages.log.info(f"{path}: assumed: {located.because}")
        if located.doubt():
            messages.log.info(f"{path}: {located.doubt()}")
        given = finding.way_of(args, located.real.facts.num_classes)
        diagnosis = diagnose.diagnose(
            located.found, located.real, given, args.exp, arithmetic, args.seed or 0
        )
        if args.relabel:
            _write_order(diagnosis.order, path, args.relabel)
        _print_diagnosis(diagnosis, path, args)


def _write_order(order, path, out):
    """Write the diagnose.Order of the set at `path`, if it has one, to the file `out`."""
    if order is None:
        unchanged = f"{path} was found in no other order of classes"
        messages.log.info(f"--relabel {out}: not written, {unchanged}")
        return
    text = json.dumps(order.classes.tolist()) + "\n"
    outputs.prepare(out).write_text(text, encoding="utf-8")


def _print_diagnosis(diagnosis, path, args):
    advice = diagnosis.advice(args.relabel or "FILE")
    table = diagnosis.table()
    about = "a diagnosis by short judges on test images; these accuracies are no scores"
    row = {"set": str(path), "advice": advice, "readings": table}
    _print(args.format, [row], {f"{path}: {about}": table})
    if args.format != "json":
        print(plain(advice))


def _draw_or_export(args):
    """Do what --export, --grid and --tsne say with one set."""
    files = finding.read(args, needs_real=args.tsne is not None)
    if len(files) != 1:
        raise UserError(f"--export, --grid, --tsne: need one set, found {len(files)}")
    real = files[0].real
    saved = files[0].sets[0]
    whitening = real.whitening(saved.whitened_from, held_out=saved.held_out)
    if args.export:
        kind, out = args.export
        export.export(saved, kind, out, whitening)
    if args.grid is not None:
        drawing.grid(saved, whitening, args.decode, args.grid)
    if args.tsne is not None:
        drawing.tsne(saved, real, whitening, args)


def _print(kind, as_json, shown, cut=None):
    """Print rows, dictionaries, as JSON lines, or the tables {title: cells} that show them.

    kind: of --format. cut: see tables.render.
    """
    if kind == "json":
        print(*map(json.dumps, as_json), sep="\n")
        return
    markdown = kind == "markdown"
    for title, cells in shown.items():
        title = plain(title)
        if title and markdown:
            print(f"### {title}\n")
        elif title:
            print(textwrap.fill(title, tables.WIDTH))
        end = "\n\n" if title or len(shown) > 1 else "\n"
        print(tables.render(cells, markdown, cut), end=end)
