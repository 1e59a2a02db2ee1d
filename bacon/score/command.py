"""What evaluate.py does: its flags, who judges a set and how, and the rows of its table."""

import argparse
import dataclasses
import itertools
import json
import textwrap
import time
from pathlib import Path

import numpy as np
import torch

import augment
import networks
import utils
from bacon import compute, errors, figures, flags, judge, messages, outputs, tables
from bacon.data import spaces
from bacon.data.known_classes import plain
from bacon.errors import UserError
from bacon.recipes import COMMON, DATASETS, IMAGE_FOLDER
from bacon.score import diagnose, fair, layouts, protocols, soft_labels, which_dataset
from bacon.score.baselines import BASELINES, baseline
from bacon.score.located import RealImages, find
from bacon.score.located import say as _say


def build_parser(description):
    """The parser of evaluate.py. An absent flag is None where the set, or else the protocol, decides."""
    names, said = (
        (*DATASETS, IMAGE_FOLDER),
        {name: text for name, (_, text) in flags.SHARED.items()},
    )
    known = "; ".join(f"{name}: {rules.source}" for name, rules in protocols.PROTOCOLS.items())
    usage = "python evaluate.py PATH ... [--flag value ...]"
    parser = flags.OneLineParser(prog="evaluate.py", usage=usage, description=description)
    add = parser.add_argument_group("what to do").add_argument
    add(
        "paths",
        nargs="*",
        metavar="PATH",
        help="saved sets: files, folders of files, or class folders of pictures",
    )
    add("--recursive", action="store_true", help="also the files in all folders below a PATH")
    meant = "say in which way sets were meant, by short judges; these are no scores"
    add("--diagnose", action="store_true", help=meant)
    add("--table", metavar="FOLDER", help="tabulate the finished runs below a folder")
    plot = "draw the accuracy over iterations of a run, by its log, or of those below a folder (default OUT.png: there)"
    add("--plot", nargs="+", metavar=("LOG", "OUT.png"), help=plot)
    add(
        "--export",
        nargs=2,
        metavar=("FORMAT", "OUT"),
        help=f"write the set as {', '.join(layouts.EXPORTS)}",
    )
    add(
        "--grid",
        metavar="OUT.png",
        help="draw the set's canvases by class (with --decode what they hold)",
    )
    add(
        "--tsne",
        metavar="OUT.png",
        help="draw a t-SNE of real and synthetic embeddings, up to ten classes",
    )
    add = parser.add_argument_group("the sets").add_argument
    add(
        "--dataset",
        type=flags.one_of(names),
        metavar="NAME",
        help=f"whose images they are of: {', '.join(names)}",
    )
    add("--data_path", default="data", help="folder of the datasets (default data)")
    add("--im_size", type=flags.whole(4), help=said["im_size"])
    add(
        "--factor",
        type=int,
        choices=(1, 2),
        help="2: a canvas holds four images (default: what the layout implies)",
    )
    add(
        "--zca",
        action="store_true",
        help="sets of other programs live in ZCA space: whiten test images as MTT does",
    )
    stored = "how pixels are stored (default: as the layout implies; unit: [0,1], bytes: [0,255], zca: as --zca)"
    add("--pixels", choices=spaces.PIXELS, help=stored)
    meant = "what soft labels are (default: probabilities if they sum to 1; hard: likeliest class)"
    add("--labels", choices=soft_labels.KINDS, help=meant)
    order = "the class that each label means, as --diagnose writes it to FILE where labels are in another order"
    add("--relabel", metavar="FILE", help=order)
    add(
        "--exp",
        type=flags.whole(0),
        help="only this experiment of a file with several (to export or draw: default 0)",
    )
    add("--decode", action="store_true", help="draw the decoded images instead of the canvases")
    add = parser.add_argument_group("judging").add_argument
    add("--protocol", choices=protocols.PROTOCOLS, default="paper", help=f"{known} (default paper)")
    modes = flags.one_of(flags.EVAL_MODES)
    add("--eval_mode", type=modes, nargs="+", default=["S"], metavar="MODE", help=said["eval_mode"])
    add(
        "--model",
        help="the network of modes S, SS and C (default: the one that distilled the set, else ConvNet)",
    )
    add(
        "--num_eval",
        type=flags.whole(1),
        help="fresh networks per architecture (default: as the run, else 5)",
    )
    for name in protocols.FROM_THE_RUN:
        add(
            f"--{name}",
            type=flags.SHARED[name][0],
            help=f"{said[name]} (default: the run's or the protocol's)",
        )
    kinds, kind_of = f"also judge real images: {','.join(BASELINES)}", lambda text: text.split(",")
    add("--baseline", type=kind_of, default=[], metavar="NAME,...", help=kinds)
    add(
        "--ipc",
        type=flags.whole(1),
        help="stored images per class of the baselines (default: as the sets)",
    )
    add(
        "--full_epochs",
        type=flags.whole(1),
        default=20,
        help="epochs of --baseline full, on all real images (20)",
    )
    cache = "folder of baselines.json, which keeps the accuracies of baselines, each computed once (default result)"
    add("--save_path", default="result", metavar="FOLDER", help=cache)
    add(
        "--biased",
        type=flags.whole(1),
        metavar="N",
        help="also show the best of every N epochs on the test set",
    )
    add(
        "--seed",
        type=flags.whole(0),
        help="every random number follows from it (default: the run's, else 0)",
    )
    for name in ("device", "precision"):
        add(f"--{name}", choices=flags.SHARED[name][0], default="auto", help=said[name])
    add(
        "--compile",
        action="store_true",
        default=None,
        help="torch.compile (default: as the run, else if it pays)",
    )
    add("--no_compile", dest="compile", action="store_false", default=None, help=argparse.SUPPRESS)
    add = parser.add_argument_group("output").add_argument
    add(
        "--format",
        choices=("text", "json", "markdown"),
        default="text",
        help="json: a line per row, with everything",
    )
    add(
        "--details",
        action="store_true",
        help="spread and time; of runs also settings and weights of BACON's terms",
    )
    parser.take_paths("paths", "table", "plot", "export", "grid", "tsne")
    parser.take_paths("data_path", "relabel", "save_path")
    return parser


def main(description, argv=None):
    """Do what a command line says; returns the exit code, see errors.run_program. description: what --help opens with."""
    args = build_parser(description).parse_args(argv)

    def work():
        with messages.speak("stderr"):
            return _main(args)

    return errors.run_program("evaluate.py", work)


def _main(args):
    judged = bool(args.paths or args.baseline)
    shown = any(out is not None for out in (args.export, args.grid, args.tsne))
    if judged + bool(args.table) + bool(args.plot) > 1:
        raise UserError(
            "--table and --plot stand alone: give them without PATH, --baseline or each other"
        )
    if not (judged or args.table or args.plot):
        raise UserError(
            "nothing to do: give paths of saved sets, --baseline, --table or --plot; --help explains them"
        )
    formats = args.export[:1] if args.export else []
    for flag, kinds, known in (
        ("--baseline", args.baseline, BASELINES),
        ("--export", formats, layouts.EXPORTS),
    ):
        if unknown := [kind for kind in kinds if kind not in known]:
            raise UserError(f"{flag} {unknown[0]}: unknown; choose from {', '.join(known)}")
    if len(args.plot or ()) > 2:
        several = f"one log or folder and one OUT.png, not {len(args.plot)} names"
        advice = "give the folder to draw several logs"
        raise UserError(f"--plot {' '.join(args.plot)}: takes {several}; {advice}")
    for flag, idle in {
        "--recursive": args.recursive and not args.paths,
        "--baseline": args.baseline and shown,
        "--export, --grid, --tsne": shown and not args.paths,
        "--decode": args.decode and not args.grid,
        "--diagnose": args.diagnose and (shown or args.baseline or args.biased or not args.paths),
        "--ipc": args.ipc and not args.baseline,
        "--biased": args.biased and shown,
        "--details": args.details and (shown or args.plot),
    }.items():
        if idle:
            raise UserError(
                f"{flag}: has no effect here; leave it out, or see --help for what it goes with"
            )
    compute.check_device(args.device)
    if asked := outputs.of_scorer(args):
        found = [file for path in args.paths for file in layouts.files(path, args.recursive)]
        outputs.check(asked, outputs.inputs(found, args.data_path, args.dataset))
    if args.plot:
        _say(tables.plot_run(*args.plot, say=_say))
    elif args.table:
        rows = tables.of_runs(args.table, args.biased, _say)
        kept = tables.kept_scores(args.table, _say)
        tabled = tables.shown(rows, args.details) | {
            title: _shown(of_it, False)[""] for title, of_it in kept.items()
        }
        _print(args.format, [*rows, *itertools.chain(*kept.values())], tabled, cut="set")
    elif args.diagnose:
        _diagnose(args)
    elif shown:
        _show(_read(args, bool(args.tsne)), args)
    else:
        rows = _score(_read(args, True), args)
        _print(args.format, rows, _shown(rows, args.details), cut="set")
    return 0


def _print(kind, rows, shown, cut=None):
    """Print rows as JSON lines, or the tables {title: cells} that show them. cut: see tables.render."""
    if kind == "json":
        print(*map(json.dumps, rows), sep="\n")
        return
    for title, cells in shown.items():
        title = plain(title)
        if title:
            print(f"### {title}\n" if kind == "markdown" else textwrap.fill(title, tables.WIDTH))
        print(
            tables.render(cells, kind == "markdown", cut),
            end="\n\n" if title or len(shown) > 1 else "\n",
        )


def _ways(args, facts):
    """The flags that say how a set of `facts` is read, for layouts.read; but for a --relabel that --diagnose writes."""
    order = (
        diagnose.read_order(args.relabel, facts.num_classes)
        if args.relabel and not args.diagnose
        else None
    )
    return {
        "factor": args.factor,
        "zca": args.zca,
        "pixels": args.pixels,
        "soft": args.labels,
        "order": order,
    }


def _diagnose(args):
    """Print for every set how it was meant: all readings in a table, then a line of advice; write --relabel."""
    arithmetic = compute.choose(args.device, "fp32", args.compile or False, 0)
    every = find(args)
    if args.relabel and len(every) > 1:
        names = ", ".join(str(located.found.path) for located in every[:3]) + ", ..." * (
            len(every) > 3
        )
        several = f"takes the order of one set, not of {len(every)}: {names}; give one"
        raise UserError(f"--relabel {args.relabel}: {several}")
    for located in every:
        found, real = located.found, located.real
        if located.because and not args.dataset:
            _say(f"{found.path}: assumed: {located.because}")
        if located.doubt():
            _say(f"{found.path}: {located.doubt()}")
        ways = _ways(args, real.facts)
        rows, advice, order = diagnose.diagnose(
            found, real, ways, args.exp, arithmetic, args.seed or 0, _say
        )
        if args.relabel and order is None:
            unchanged = f"{found.path} was found in no other order of classes"
            _say(f"--relabel {args.relabel}: not written, {unchanged}")
        elif args.relabel:
            text = json.dumps(order.tolist()) + "\n"
            outputs.prepare(args.relabel).write_text(text, encoding="utf-8")
            advice = advice.replace("--relabel FILE", f"--relabel {args.relabel}")
        title = f"{found.path}: a diagnosis by short judges on test images; these accuracies are no scores"
        _print(
            args.format,
            [{"set": str(found.path), "advice": advice, "readings": rows}],
            {title: rows},
        )
        if args.format != "json":
            print(plain(advice))


def _read(args, needed):
    """The sets that `args` name: [(RealImages, the SavedSet of each experiment in a file)].

    needed: whether real images are, so that ours of one's own images must fit those that are there now.
    """
    groups = []
    for located in find(args):
        one, real = located.found, located.real
        itself = (
            real.name == IMAGE_FOLDER and "classes" in one.meta and not (needed or one.meta["zca"])
        )
        facts = layouts.own_facts(one) if itself else real.facts
        chosen = layouts.read(one, facts, **_ways(args, facts), exp=args.exp)
        if located.because:
            assumed = f"{chosen[0].assumed}, {located.because}"
            chosen = [dataclasses.replace(saved, assumed=assumed) for saved in chosen]
        experiments = f"{len(chosen)} experiment{'s' if len(chosen) > 1 else ''}"
        layout = f"{chosen[0].layout} layout, {experiments}; assumed: {chosen[0].assumed}"
        _say(f"{one.path}: {layout}")
        notes = [located.doubt(), *(note for saved in chosen for note in saved.notes)]
        for note in dict.fromkeys(filter(None, notes)):
            _say(f"{one.path}: {note}")
        groups.append((real, chosen))
    for real, (saved, *_) in groups:
        theirs = saved.meta.get("data_sha256")
        if theirs and (needed or saved.zca) and theirs != (here := real.dataset.fingerprint):
            _say(f"{saved.path}: distilled from data with hash {theirs[:8]}, judged on {here[:8]}")
    return groups


def _show(groups, args):
    """Do what --export, --grid and --tsne say with one set."""
    if len(groups) != 1:
        raise UserError(f"--export, --grid, --tsne: need one set, found {len(groups)}")
    ((real, (saved, *_)),) = groups
    whitening, hard = real.whitening(saved.zca), saved.hard()
    if args.export:
        _say(layouts.export(saved, *args.export, whitening))
    if args.grid is not None:
        images, labels = hard.decoded() if args.decode else (hard.canvases, hard.labels)
        shown = layouts.pixels(saved, images, whitening)
        figures.grid(shown, labels, saved.class_names(), outputs.prepare(args.grid))
        _say(args.grid)
    if args.tsne is not None:
        _tsne(hard, args, real, whitening)
        _say(args.tsne)


TSNE_CLASSES, TSNE_REAL, TSNE_TRAIN, TSNE_EPOCHS = 10, 100, 5000, 10


def _tsne(saved, args, real, whitening):
    """Map the first classes' real test images and synthetic ones by a network trained on real training images."""
    arithmetic = compute.choose(args.device, args.precision, args.compile, 0)
    device, rng = arithmetic.device, utils.stream(args.seed or 0, "t-SNE")
    name = args.model or saved.meta.get("args", {}).get("model", "ConvNet")
    protocols.check_networks([name], real.facts)
    known, held_out = (real.of(split, saved.zca, device, whitening) for split in ("train", "test"))
    net = arithmetic.build(name, real.facts.shape, real.facts.num_classes, rng)
    index = known.any_indices(TSNE_TRAIN, rng)
    protocol = judge.Protocol(
        TSNE_EPOCHS, 256, 0.01, augment.parse_strategy(COMMON["dsa_strategy"])
    )
    judge.train(net, *known.batch(index), protocol, rng, arithmetic)
    net.eval()
    classes = dict(enumerate(real.dataset.classes[:TSNE_CLASSES]))
    chosen = np.concatenate([held_out.indices(c, TSNE_REAL, rng) for c in classes])
    (x, of_real), (images, labels) = held_out.batch(chosen), saved.decoded()
    shown = labels < len(classes)
    with torch.no_grad():
        embedded, synthetic = (
            arithmetic.embed(net, some, None) for some in (x, images[shown].to(device))
        )
    title = f"t-SNE of {name}'s embeddings, trained on {len(index):,} real images"
    path = outputs.prepare(args.tsne)
    figures.tsne(embedded, of_real, synthetic, labels[shown], classes, path, title)


def _score(groups, args):
    """Judge every set, then the baselines of each kind of judges: rows of `score_rows`, with fair scores."""
    jobs, arithmetics, rows = (
        [],
        {},
        [],
    )  # a job: real images, a SavedSet of each experiment, a run's meta, Judges
    names = _distinct_names([experiments[0].path for _, experiments in groups])
    for real, experiments in groups:
        name = names[experiments[0].path]
        experiments = [dataclasses.replace(one, name=name) for one in experiments]
        meta, lr = experiments[0].meta, experiments[0].lr
        for part in [[one] for one in experiments] if experiments[0].alone else [experiments]:
            factor = part[0].factor
            ipc = len(part[0].canvases) // real.facts.num_classes
            several = protocols.judges_of(args, real.facts, meta, lr, factor, ipc)
            jobs += [(real, part, meta, judges) for judges in several]
    if args.baseline:
        if not (groups or args.dataset):
            raise UserError("--baseline: give --dataset")
        if len(names := {real.name for real, _ in groups}) > 1:
            raise UserError(
                f"--baseline: the sets are of {', '.join(sorted(names))}; give those of one dataset"
            )
        jobs += _baselines(groups, args)
    cache = fair.Baselines(args.save_path) if args.baseline and not args.biased else None
    for real, experiments, meta, judges in jobs:
        saved, facts = experiments[0], real.facts
        flop = max(
            networks.flop(name, facts.shape[0], facts.num_classes, facts.shape[1:])
            for name in judges.names
        )
        images = judges.protocol.images(len(saved.canvases) * saved.factor**2) * judges.num_eval
        arithmetic, notes = protocols.arithmetic_of(meta, args, flop * images)
        arithmetic = arithmetics.setdefault(
            str(arithmetic), arithmetic
        )  # compiled code serves all sets
        for line in [*notes, f"{judges.protocol}; seed {judges.seed}; {arithmetic}"]:
            _say(f"{saved.path}: {line}")
        test = real.test(saved.zca, arithmetic.device)

        def judged(one, judges, test=test, arithmetic=arithmetic, facts=facts):
            return score(one, judges, test, facts.num_classes, arithmetic, args.biased, _say)

        if saved.layout != "baseline":
            scores = [judged(one, judges) for one in experiments]
        else:
            about = f"{real.dataset.fingerprint}, {len(saved.canvases)} images, {arithmetic}, {torch.__version__}"
            scores = [fair.kept(saved, judges, about, cache, judged, _say)]
        made = score_rows(experiments, scores, judges.protocol, facts)
        if saved.labels.dim() == 2 and "full" in args.baseline:
            hard = [judged(one.hard(), judges) for one in experiments]
            made = [row | {"hard": [of[row["network"]][0] for of in hard]} for row in made]
        _say_what_is_amiss(made, facts, meta)
        rows += made
    return fair.beside(rows)


def _say_what_is_amiss(rows, facts, meta):
    """A line for each row of another program's set that is near chance, but recorded far above it."""
    for row in rows:
        recorded = row.get("recorded", 0)
        if meta or not which_dataset.far_below(row["mean"], recorded, facts.num_classes):
            continue
        text = f"{row['network']} gets {row['mean']:.1f} %, but {recorded:.1f} % are recorded"
        text += f"; is it a set of {facts.dataset}, and read as it was meant? see --diagnose"
        _say(f"{row['set']}: {text}")


def _baselines(groups, args):
    """Jobs of real images beside the sets: for each storage and kind of judges, with the settings of its first set."""
    jobs, seen = [], []
    for real, experiments in groups or [(RealImages(args.dataset, args, args.im_size), ())]:
        meta, ipc = experiments[0].meta if groups else {}, args.ipc or 10
        if groups and not args.ipc:
            ipc = max(
                1, len(experiments[0].canvases) // experiments[0].halves // real.facts.num_classes
            )
        for kind in dict.fromkeys(args.baseline):
            factor, _ = BASELINES[kind]
            stored = ipc if kind != "full" else None
            for judges in protocols.judges_of(args, real.facts, meta, None, factor, stored):
                if kind == "full":
                    protocol = dataclasses.replace(judges.protocol, epochs=args.full_epochs)
                    judges = dataclasses.replace(judges, protocol=protocol)
                alike = kind, stored, dataclasses.replace(judges, seed=0)
                if alike in seen:
                    continue
                seen.append(alike)
                made = baseline(kind, real.of("train", None, "cpu"), ipc, judges.seed)
                jobs.append((real, [made], meta, judges))
    return jobs


def score(saved, judges, test, num_classes, arithmetic, every=None, say=print):
    """Judge one layouts.SavedSet: {architecture: ([accuracy] of the last epoch, [best accuracy] or [], seconds)}.

    The random stream of a judge is that of the run which saved the set, so one of ours gets the logged accuracy again.
    every: test after every so many epochs too; the best of these is selected on the test set, so biased.
    """
    images, labels = (tensor.to(arithmetic.device) for tensor in saved.decoded())
    labels, scores, protocol = (
        labels.softmax(1) if labels.dim() == 2 else labels,
        {},
        judges.protocol,
    )
    for name in judges.names:
        last, best, began = [], [], time.perf_counter()
        for number in range(judges.num_eval):
            rng, seen = utils.stream(judges.seed, saved.exp, "judge", name, number), []

            def test_now(epoch, net, seen=seen):
                if every and (epoch + 1) % every == 0:
                    seen.append(judge.accuracy(net, test, arithmetic))

            last.append(
                judge.judge(
                    name, images, labels, test, num_classes, protocol, rng, arithmetic, test_now
                )
            )
            best += [max([*seen, last[-1]])] if every else []
            say(
                f"{_short_name(saved)}  {name} {number + 1}/{judges.num_eval}: {100 * last[-1]:.2f} %"
            )
        scores[name] = last, best, time.perf_counter() - began
    return scores


def _short_name(saved):
    """How rows and lines call a set."""
    name = saved.name or (_end_of(saved.path, 2) if saved.layout != "baseline" else saved.path)
    return f"{name} #{saved.exp}" if saved.alone else name


def _end_of(path, parts):
    return Path(*Path(path).parts[-parts:]).as_posix()


def _distinct_names(paths):
    """{path: its last two parts, or as many more as it takes to tell it from the others}."""
    names = {}
    for path in paths:
        others = [other for other in paths if other != path]
        for parts in range(2, len(Path(path).parts) + 1):
            names[path] = _end_of(path, parts)
            if names[path] not in [_end_of(other, parts) for other in others]:
                break
        else:
            names[path] = path
    return names


BIASED = "best epoch on test (biased)"


def score_rows(experiments, scores, protocol, facts):
    """Rows of the table, one for each architecture, of a file's experiments, [SavedSet], and the `score` of each."""
    rows, saved = [], experiments[0]
    counts = torch.bincount(saved.hard().labels, minlength=facts.num_classes)
    ends = sorted({counts.min().item(), counts.max().item()})
    stored = "-".join(str(n // saved.halves) for n in ends)
    decoded = "-".join(str(n * saved.factor**2) for n in ends)
    numbers = "-".join(str(n * saved.canvases[0].numel() // saved.halves) for n in ends)
    for name in scores[0]:
        last, best, seconds = zip(*(of_experiment[name] for of_experiment in scores), strict=True)
        row = {
            "set": saved.path, "name": _short_name(saved), "layout": saved.layout, "assumed": saved.assumed,
            "dataset": facts.dataset, "stored per class": stored, "decoded per class": decoded,
            "numbers per class": numbers, "network": name, **tables.summary(last), "accuracy": last,
            "protocol": str(protocol), "protocol settings": protocol.settings(),
            "epochs": protocol.epochs, "seconds": sum(seconds),
        }  # fmt: skip
        recorded = [one.recorded.get(name, []) for one in experiments]
        remark = ""
        if all(recorded):
            recorded, remark = tables.as_fractions(recorded)
        if remark:
            _say(f"{saved.path}: recorded accuracies of {name}: {remark}")
        if recorded and all(recorded):
            found = tables.summary(recorded)
            row |= {
                "recorded": found["mean"],
                "recorded std": found["std"],
                "recorded networks": found["networks"],
            }
            if saved.meta:  # a run of ours, whose judges can be had again
                same = all(a[: len(b)] == b[: len(a)] for a, b in zip(last, recorded, strict=True))
                row |= {"logged": found["mean"], "logged, the same networks": same}
        if all(best):
            row[BIASED] = tables.summary(best)["mean"]
        rows.append(row)
    return rows


def _shown(rows, details):
    """The rows of `score_rows` as tables to print: {title: rows for tables.render}."""
    lines = []
    # Rows that were kept as JSON are of several commands, each of which named its own alone.
    names = _distinct_names({row["set"] for row in rows})
    for row in rows:
        stored, decoded = row["stored per class"], row["decoded per class"]
        line = {**row, **tables.cells(row), "set": row["name"], "seconds": round(row["seconds"])}
        short = _end_of(row["set"], 2)
        if row["layout"] != "baseline" and row["name"].startswith(short):
            line["set"] = names[row["set"]].removesuffix(short) + row["name"]
        line["ipc (decoded)"] = stored if stored == decoded else f"{stored} ({decoded})"
        if "recorded" in row:
            line["recorded %"] = f"{row['recorded']:.2f} ({row['recorded networks']})"
            line["recorded %"] += " reproduced" * row.get("logged, the same networks", False)
        line |= {
            name: f"{row[name]:.3f} +- {row[f'{name} spread']:.3f}"
            for name in fair.NAMES
            if name in row
        }
        lines.append(line | ({BIASED: f"{row[BIASED]:.2f}"} if BIASED in row else {}))
    main = ("accuracy %", "recorded %", *fair.NAMES, BIASED, "set", "network")
    if not any(
        name in row for row in rows for name in fair.NAMES
    ):  # else they stand among the details
        main += ("networks", "ipc (decoded)")
    shown = {"": tables.pick(lines, main)}
    if details:
        behind = ("accuracy %", "set", "network", "networks", "ipc (decoded)", "numbers per class")
        behind += ("std networks", "std experiments", "epochs", "seconds")
        shown["what is behind each figure"] = tables.pick(lines, behind)
    return shown
