"""What a run says of itself: what it is about to do, where it goes on, and what came of it."""

import os
import textwrap
import time

from bacon import messages, recipes, tables
from bacon.progress import duration
from bacon.run import cost

COLUMNS = 100  # of a terminal that the lines at the start and at the end of a run fit


def describe(settings, spec, source, arithmetics, files, world):
    """Say what is about to run.

    settings: flags.Settings. spec: as in preflight.check_flags. source: of the images, in words.
    arithmetics: cost.Arithmetics. files: folder.Files.
    """
    args = settings.args
    facts = {
        "data": _data(args, spec, source),
        "canvases": _canvases(args, spec),
        "recipe": _recipe(settings),
        "judges": _judges(args, spec),
        "device": _device(args, arithmetics, world),
        "files": f"{files.result}, {files.log.name}, {files.folder / 'vis_*.png'}",
    }
    messages.log.info(_subject(args))
    wrapper = textwrap.TextWrapper(
        COLUMNS, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False
    )
    for title, text in facts.items():
        wrapper.initial_indent = f"{title:<11}"
        for line in wrapper.wrap(text):
            messages.log.info(line)


def _subject(args):
    if not args.Iteration:
        return f"images of {args.dataset} that are judged and not distilled"
    by = ", by our recipe" if args.recipe == "ours" else ""
    return f"{args.method} distils {args.dataset}{by}"


def _data(args, spec, source):
    height, width = spec.im_size
    counts = f"{spec.train:,} training and {spec.test:,} {recipes.judged_on(args)} images"
    return f"{counts}, {spec.channels}x{height}x{width}, {spec.num_classes} classes, {source}"


def _canvases(args, spec):
    height, width = spec.im_size
    stored = f"{args.ipc} per class"
    if args.chroma == "half":
        each = f"{recipes.canvases_per_class(args)} per class"
        stored = f"{each}, chroma at half resolution: the storage of {args.ipc}"
    stored += f" ({args.ipc * spec.channels * height * width:,} numbers)"
    decoded = ""
    if args.aug:
        decoded = f", four images each: {recipes.images_per_class(args)} decoded"
    exps = recipes.experiments(args)
    which = f" {exps[0]}" if len(exps) == 1 else f"s {exps[0]} to {exps[-1]}"
    experiments = f"experiment{which} of {args.num_exp}"
    return f"{stored}{decoded}; {args.Iteration:,} iterations, {experiments}, seed {args.seed}"


def _recipe(settings):
    departures = []
    for name, (value, usual) in settings.departures.items():
        departures.append(f"--{name} {value} (not {usual})")
    if not departures:
        return settings.recipe
    return f"{settings.recipe}, except {', '.join(departures)}"


def _judges(args, spec):
    names = ", ".join(recipes.architectures(args.eval_mode, args.model))
    length = f"{args.epoch_eval_train:,} epochs"
    if args.judge_steps:
        length = f"{args.judge_steps:,} steps"
    often = f"every {args.eval_interval:,} iterations and at the last"
    work = cost.about_judging(args, spec)
    return f"{often}: {args.num_eval} x {names}, {length}{work}"


def _device(args, arithmetics, world):
    said = f"{arithmetics.distilling}; judges {arithmetics.judging}"
    if world.size > 1:
        said += f"; {world.size} processes, each on its own classes"
    if args.compile is None:
        why = "compiled where the work repays it, which moves last digits"
        said += f" ({why}: --compile, --no_compile)"
    return said


def tell_time_left():
    """Say when this job ends, where Slurm tells: a judge that does not fit in never ends."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if not end.isdigit():
        return
    left = duration(max(0, int(end) - time.time()))
    longer = "a judge that takes longer starts anew in every job"
    advice = "--dry_run times it, --epoch_eval_train shortens it"
    messages.log.info(f"Slurm ends this job in {left}; {longer}: {advice}")


def tell_resumed(saved, meta, files):
    """Say where a run goes on, and if it may end in other bytes than an undisturbed one.

    saved: the content of the checkpoint. meta: what the run is here.
    """
    experiment = saved["experiment"]
    where = "before the next one"
    if experiment:
        where = f"at iteration {experiment['it']} of the one after"
    ended = len(saved["ended"])
    messages.log.info(f"going on from {files.checkpoint}: {ended} experiments ended, {where}")
    there = {**saved["meta"]["versions"], **saved["meta"]["arithmetic"]}
    here = {**meta["versions"], **meta["arithmetic"]}
    changes = []
    for name, value in here.items():
        if there.get(name) != value:
            changes.append(f"{name} {there.get(name)}, now {value}")
    if changes:
        messages.log.info(f"bitwise the same result is not guaranteed: {'; '.join(changes)}")


def tell_end(args, accuracies, written):
    """Say which files a run wrote, and its result as a newcomer understands it: a table where there
    is more to compare, and a sentence.

    accuracies: {architecture: [[accuracy of each judge] per experiment]}. written: paths, or words.
    """
    messages.log.info("wrote")
    for path in written:
        messages.log.info(f"  {path}")
    experiments = len(next(iter(accuracies.values())))
    if len(accuracies) > 1 or experiments > 1:
        messages.log.info(tables.of_scores(accuracies))
    sentence = conclusion(args, accuracies)
    messages.log.info(textwrap.fill(sentence, COLUMNS, break_on_hyphens=False))


def conclusion(args, accuracies):
    """What the first architecture reached, in a sentence."""
    name, scores = next(iter(accuracies.items()))
    found = tables.summary(scores)
    stored = "1 canvas" if args.ipc == 1 else f"{args.ipc} canvases"
    what = "not distilled"
    if args.Iteration:
        what = f"distilled by {'our recipe' if args.recipe == 'ours' else args.method}"
    reached = f"{found['mean']:.2f} % of the {recipes.judged_on(args)} images"
    spread = f"+- {found['std']:.2f} over {found['networks']} judges"
    of = f"{stored} per class of {args.dataset}"
    return f"{of}, {what}, train a fresh {name} to {reached} ({spread})"
