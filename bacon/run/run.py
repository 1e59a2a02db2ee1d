"""A run from start to end: what is refused, what is said of it, its experiments and its records."""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import textwrap
import time
from pathlib import Path

import torch

import augment
import networks
from bacon import compute, messages, parallel, recipes, tables
from bacon.data import loading
from bacon.data.spaces import Whitening
from bacon.errors import DivergedError, Stopped, UserError, damaged, flag, run_program
from bacon.files import save_torch
from bacon.methods import METHODS
from bacon.run import checkpoint, cost
from bacon.run.experiment import Experiment

COLUMNS = 100  # of a terminal that the lines at the start and at the end of a run fit
UNRECORDED = {
    "resume",
    "overwrite",
    "dry_run",
    "checkpoint_minutes",
}  # flags that the log and the result leave out


def main(settings):
    """Do what a script's command line says, flags.Settings: its exit code, see errors.ENDINGS and docs/resume.md."""

    def work():
        with contextlib.ExitStack() as stack:
            world = stack.enter_context(parallel.joined(settings.args.device))
            stack.enter_context(messages.speak("stdout", silent=not world.leads))
            return run_settings(settings, world)

    return run_program(Path(sys.argv[0]).name, work, outlives_output=True)


def run_settings(settings, world):
    """Do what parsed settings say, as one process of `world`; returns the exit code."""
    args = settings.args
    own = None
    if args.dataset == recipes.IMAGE_FOLDER:
        own = loading.load_image_folder(args.data_path, args.im_size)
    spec = own or recipes.DATASETS[args.dataset]
    if held := args.validate * spec.num_classes:
        own = own and own.validation(args.validate)
        spec = own or spec._replace(train=spec.train - held, test=held)
    with flag("--model"):
        args.model = networks.named(args.model)
    notes = settings.notes + leave_chroma_out(settings, spec)
    check_settings(args, spec, world)
    files = checkpoint.Files(args, args.exp_index)
    with contextlib.ExitStack() as stack:
        if not world.leads:  # one process speaks
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(nowhere)))
        if args.dry_run:  # shapes and counts are in the table: no image is read
            distilling, judging, more = cost.arithmetics(args, spec)
            source = "random images, timed in place of the real ones"
            tell(notes, more, describe(settings, spec, source, distilling, judging, files))
            if world.leads:
                cost.dry_run(args, spec, distilling, judging)
            return 0

        needed = cost.checkpoint_bytes(args, spec)
        world.from_leader(lambda: files.admit(args.resume, args.overwrite, needed))
        dataset = own or load_once(args, world)
        source = f"from {dataset.source} (sha256 {dataset.fingerprint[:12]})"
        distilling, judging, more = cost.arithmetics(args, dataset)
        notes += checkpoint.time_left() + check_data(args, dataset, settings.given) + more
        meta = about(settings, dataset)
        signals = stack.enter_context(checkpoint.StopSignals())
        left = world.from_leader(lambda: files.claim(stack, meta, args.resume, args.overwrite))
        if left.finished:
            tell(notes, left.notes, [f"{files.result}: finished already"])
        else:
            if left.saved:
                distilling, judging = map(restored, left.saved["arithmetic"])
            meta["arithmetic"] = {
                "distilling": str(distilling),
                "judging": str(judging),
                "processes": world.size,
            }
            meta["computed"] = {
                "distilling": dataclasses.asdict(distilling.settings()),
                "judging": dataclasses.asdict(judging.settings()),
            }
            resumed = resuming(left.saved, meta, files) if left.saved else []
            tell(
                notes,
                left.notes,
                resumed,
                describe(settings, dataset, source, distilling, judging, files, world),
            )
            train, test = real_data(
                args, dataset, distilling.device, world.share(dataset.num_classes)
            )
            del dataset, own, spec  # of several processes each keeps its share
            Run(args, meta, train, test, distilling, judging, world).go(files, signals, left.saved)
        if args.exp_index is not None and world.leads:
            tell([checkpoint.merge(files, args, meta)])
    return 0


def leave_chroma_out(settings, spec):
    """Our recipe's --chroma half, where nobody typed it and the images do not allow it, becomes
    full: lines for the user. spec: as in `check_settings`."""
    args = settings.args
    why = no_half_chroma(args, spec)
    if args.chroma != "half" or "chroma" in settings.given or why is None:
        return []
    args.chroma = "full"
    return [f"--chroma half of our recipe is left out: {why}"]


def no_half_chroma(args, spec):
    """Why --chroma half is impossible for images of this shape, in words, or None."""
    multiple = 2 * recipes.factor(args)
    if spec.channels != 3:
        return f"{args.dataset} has no colours"
    if args.zca:
        return "whitened images have no luma and chroma"
    if any(side % multiple for side in spec.im_size):
        found = f"{args.dataset} has {spec.im_size}"
        return f"it needs a height and width divisible by {multiple}, {found}"
    return None


def check_settings(args, spec, world):
    """Refuse what cannot work before anything is written: UserError that names the flag. spec: the shape of the images
    and the classes, a recipes.Spec, or a loading.Dataset where no table knows them."""
    shape = spec.channels, spec.num_classes, spec.im_size
    with flag("--dsa_strategy"):
        augment.parse_strategy(args.dsa_strategy)
    with flag("--model"):
        net = networks.check(args.model, *shape)
    for name in recipes.architectures(args.eval_mode, args.model):
        with flag(f"--eval_mode {args.eval_mode}"):
            networks.check(name, *shape)
    model, found = f"--model {args.model}:", f"{args.dataset} has {spec.im_size}"
    if not isinstance(net, networks.ConvNet):
        raise UserError(f"{model} only networks of the ConvNet family can distil; others can judge")
    if net.has_batch_statistics and not METHODS[args.method].joint_step:
        raise UserError(f"{model} batch normalisation can distil with --method DM only")
    if net.has_batch_statistics and world.size > 1:
        raise UserError(
            f"{model} batch normalisation needs all classes in one process; start one process"
        )
    if len(net.features[: args.embed_last]) == 0:
        none = f"--embed_last {args.embed_last}: leaves no module of the {len(net.features)} of {args.model}"
        raise UserError(f"{none}; give at least 1, or a negative number of modules to leave out")
    if args.aug and any(side % 2 for side in spec.im_size):
        instead = "--no_aug"
        if args.dataset == recipes.IMAGE_FOLDER:
            instead += ", or another --im_size"
        raise UserError(f"--aug: needs an even height and width, {found}; give {instead}")
    why = no_half_chroma(args, spec)
    if args.chroma == "half" and why:
        whitened = args.zca and spec.channels == 3
        instead = "leave out one of it and --zca" if whitened else "leave it out"
        raise UserError(f"--chroma half: {why}; {instead}")
    if args.resume and args.overwrite:
        raise UserError("--overwrite: contradicts --resume; give one of them")
    if args.exp_index is not None and args.exp_index >= args.num_exp:
        raise UserError(f"--exp_index {args.exp_index}: must be below --num_exp {args.num_exp}")
    prior = args.clip_weight if args.clip_prior == "residual" else 0
    if args.method == "BACON" and not (args.lh_weight or args.tv_weight or prior or args.syn_ce):
        raise UserError(
            "--lh_weight, --tv_weight: every term of the loss is switched off, nothing is left to minimise"
        )
    if world.size > spec.num_classes:
        raise UserError(
            f"--nproc_per_node: {world.size} processes for {spec.num_classes} classes; start fewer"
        )
    compute.check_device(args.device)


def check_data(args, dataset, given=("ipc",)):
    """Refuse an ipc or a class that the data cannot serve; returns lines to tell the user.

    given: the flags that were typed."""
    fewest, c = min(
        (count, c) for c, count in enumerate(torch.bincount(dataset.labels_train).tolist())
    )
    smallest = f"class {c} ({dataset.classes[c]}) of {args.dataset} has {fewest} training images"
    if args.init != "noise" and (wanted := recipes.canvases_per_class(args)) > fewest:
        most = fewest * args.ipc // wanted
        default = "" if "ipc" in given else " (the default)"
        raise UserError(
            f"--ipc {args.ipc}{default}: {smallest}; use --ipc {most} or less, or --init noise"
        )
    if fewest < 2:
        raise UserError(f"{dataset.source}: {smallest}; a standard deviation needs 2")
    if fewest < args.batch_real and args.Iteration:
        whose = "" if "batch_real" in given else "the recipe's "
        short = f"{smallest}, fewer than {whose}--batch_real {args.batch_real}"
        return [f"{short}: classes short of it give all they have"]
    return []


def describe(settings, spec, source, distilling, judging, files, world=None):
    """What is about to run, as lines for the user. spec: as in `check_settings`. source: of the images, in words."""
    args, (height, width) = settings.args, spec.im_size
    stored = f"{args.ipc} per class"
    if args.chroma == "half":
        stored = f"{recipes.canvases_per_class(args)} per class, chroma at half resolution: the storage of {args.ipc}"
    stored += f" ({args.ipc * spec.channels * height * width:,} numbers)"
    decoded = f", four images each: {recipes.images_per_class(args)} decoded" if args.aug else ""
    departures = ", ".join(
        f"--{k} {v} (not {usual})" for k, (v, usual) in settings.departures.items()
    )
    judges = ", ".join(recipes.architectures(args.eval_mode, args.model))
    length = (
        f"{args.judge_steps:,} steps" if args.judge_steps else f"{args.epoch_eval_train:,} epochs"
    )
    exps = recipes.experiments(args)
    several = (
        f" {exps[0]}" if len(exps) == 1 else f"s {exps[0]} to {exps[-1]}"
    ) + f" of {args.num_exp}"
    shares = (
        f"; {world.size} processes, each on its own classes" if world and world.size > 1 else ""
    )
    if args.compile is None:
        shares += (
            " (compiled where the work repays it, which moves last digits: --compile, --no_compile)"
        )
    facts = {
        "data": f"{spec.train:,} training and {spec.test:,} {recipes.judged_on(args)} images, "
        f"{spec.channels}x{height}x{width}, {spec.num_classes} classes, {source}",
        "canvases": f"{stored}{decoded}; {args.Iteration:,} iterations, experiment{several}, seed {args.seed}",
        "recipe": settings.recipe + (f", except {departures}" if departures else ""),
        "judges": f"every {args.eval_interval:,} iterations and at the last: {args.num_eval} x {judges}, "
        f"{length}{cost.about_judging(args, spec)}",
        "device": f"{distilling}; judges {judging}{shares}",
        "files": f"{files.result}, {files.log.name}, {files.folder / 'vis_*.png'}",
    }
    if not args.Iteration:
        about = f"images of {args.dataset} that are judged and not distilled"
    elif args.recipe == "ours":
        about = f"{args.method} distils {args.dataset}, by our recipe"
    else:
        about = f"{args.method} distils {args.dataset}"
    lines = [about]
    wrapper = textwrap.TextWrapper(
        COLUMNS, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False
    )
    for title, text in facts.items():
        wrapper.initial_indent = f"{title:<11}"
        lines += wrapper.wrap(text)
    return lines


def tell(*lines):
    for line in itertools.chain(*lines):
        print(line, flush=True)


def load_once(args, world):
    """The dataset, which the leading process fetches and caches before the others read it; see --validate."""
    loaded = []
    world.from_leader(lambda: loaded.append(loading.load(args.dataset, args.data_path)))
    dataset = loaded[0] if loaded else loading.load(args.dataset, args.data_path)
    return dataset.validation(args.validate) if args.validate else dataset


def real_data(args, dataset, device, own=None):
    """Training images, of the range `own` of classes or of all, and test images as loading.RealData on the device.
    With --zca whitened, as fitted on all training images."""
    whitening = Whitening.fit(dataset.real("train", device)) if args.zca else None
    return dataset.real("train", device, whitening, own), dataset.real("test", device, whitening)


def about(settings, dataset):
    """What the log and the result say of a run, however often it was stopped."""
    args = settings.args
    return {
        "args": {name: value for name, value in vars(args).items() if name not in UNRECORDED},
        "recipe": settings.recipe,
        "departures": {name: list(pair) for name, pair in settings.departures.items()},
        "zca": {"eps": Whitening.EPS, "fitted_on": dataset.fingerprint} if args.zca else None,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "classes": dataset.classes,
        "factor": recipes.factor(args),
        "chroma": args.chroma,
        "data_sha256": dataset.fingerprint,
        "train_images": dataset.train,
        "test_images": dataset.test,
        "versions": compute.versions(),
    }


def restored(saved):
    """The arithmetic of a checkpoint, which need not be the one chosen here; UserError if it is impossible here."""
    device, precision, compiled = saved
    try:
        compute.check_device(device)
    except UserError as error:
        raise UserError(f"--resume: the checkpoint was computed on {device}; {error}") from None
    arithmetic = compute.choose(device, precision, compiled, 0)
    if arithmetic.compiled != compiled:
        why = compute.compile_error(arithmetic.device.type)
        raise UserError(
            f"--resume: the checkpoint was computed with --compile, which does not work here: {why}"
        )
    return arithmetic


def resuming(saved, meta, files):
    """Lines for the user about going on from a checkpoint, and whether to the bit."""
    experiment, ended = saved["experiment"], len(saved["ended"])
    where = (
        f"at iteration {experiment['it']} of the one after" if experiment else "before the next one"
    )
    lines = [f"going on from {files.checkpoint}: {ended} experiments ended, {where}"]
    there, here = ({**m["versions"], **m["arithmetic"]} for m in (saved["meta"], meta))
    changes = [
        f"{name} {there.get(name)}, now {value}"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if changes:
        lines.append(f"bitwise the same result is not guaranteed: {'; '.join(changes)}")
    return lines


class Run:
    """The experiments of a run: those that have ended and the one on its way. Its `state_dict` is a checkpoint."""

    def __init__(self, args, meta, train, test, distilling, judging, world):
        self.args, self.meta, self.distilling, self.judging, self.world = (
            args,
            meta,
            distilling,
            judging,
            world,
        )
        self.start = lambda exp, *saved: Experiment(
            args, exp, train, test, distilling, judging, world, *saved
        )
        self.ended = []  # [experiment, canvases, labels, {architecture: [accuracy]}] of each
        self.experiment = None
        self.began = time.perf_counter()

    def state_dict(self):
        return {
            "meta": self.meta,
            "arithmetic": [
                [a.device.type, a.precision, a.compiled] for a in (self.distilling, self.judging)
            ],
            "seconds": time.perf_counter() - self.began,
            "ended": self.ended,
            "experiment": self.experiment and self.experiment.state_dict(),
        }

    def load_state_dict(self, state):
        """Go on from a `state_dict` of a run with the same settings; UserError if it is none."""
        with damaged(
            "--resume: the checkpoint is of another version of these scripts; go on with it, or --overwrite"
        ):
            self.meta, self.ended = state["meta"], state["ended"]
            self.began -= state["seconds"]
            if state["experiment"]:
                saved = state["experiment"]
                self.experiment = self.start(saved["exp"], saved)

    def go(self, files, signals, saved=None):
        """Run what is left and write its records. saved: the checkpoint to go on from; None: from the beginning."""
        if saved:
            self.load_state_dict(saved)
            saved["experiment"] = None  # or a second copy of the pool would stay
        minutes = self.args.checkpoint_minutes
        record = checkpoint.Record(files, minutes, signals, self.state_dict, self.world)
        with contextlib.closing(record):
            try:
                if saved and saved["log_bytes"]:
                    record.go_on(saved["log_bytes"])
                    here = {"distilling": str(self.distilling), "judging": str(self.judging)}
                    about_here = {
                        "command": sys.argv,
                        "arithmetic": here,
                        "versions": compute.versions(),
                    }
                    record.event("resume", **self.position(), **about_here)
                else:
                    replaces = saved.get("replaces", False) if saved else self.args.overwrite
                    record.begin(replaces, command=sys.argv, **self.meta)
                self.run_experiments(record)
            except DivergedError as error:
                record.event("diverged", reason=str(error))
                raise
            except Stopped as stop:
                record.save()
                record.event("interrupted", signal=str(stop), **self.position())
                again = f"the same command with --resume goes on from {files.checkpoint}"
                raise Stopped(f"stopped by {stop}; {again}") from None

    def run_experiments(self, record):
        files = record.files
        if self.ended:
            self.save_result(files)  # in case the process ended between a checkpoint and this
        for exp in recipes.experiments(self.args)[len(self.ended) :]:
            self.experiment = self.experiment or self.start(exp)
            self.ended.append([exp, *self.experiment.run(record)])
            self.experiment = None
            record.save()
            self.save_result(files)
        accuracies = self.accuracies()
        summaries = {name: tables.summary(scores) for name, scores in accuracies.items()}
        record.event("end", seconds=time.perf_counter() - self.began, accuracy=summaries)
        if self.world.leads:
            record.log.sync()
            plot = self.plot(files)
            files.finish()
            written = [
                files.result,
                files.log,
                files.grid(self.ended[-1][0], self.args.Iteration),
                *plot,
            ]
            tell(["wrote", *(f"  {path}" for path in written), self.conclusion(accuracies)])

    def plot(self, files):
        """Draw the accuracy over iterations, if there were several evaluations; what to tell the user of it."""
        if self.args.Iteration <= self.args.eval_interval:
            return []
        try:
            return [tables.plot_run(files.log)]
        except (
            UserError,
            OSError,
        ) as error:  # such as a missing matplotlib: the run itself is done
            return [f"no plot of the accuracy: {error}"]

    def conclusion(self, accuracies):
        """The result as a newcomer understands it: a table where there is more to compare, and a sentence."""
        args, several = self.args, len(accuracies) > 1 or len(self.ended) > 1
        name, s = next((name, tables.summary(scores)) for name, scores in accuracies.items())
        by = "our recipe" if args.recipe == "ours" else args.method
        what = f"distilled by {by}" if args.Iteration else "not distilled"
        stored = "1 canvas" if args.ipc == 1 else f"{args.ipc} canvases"
        found = f"train a fresh {name} to {s['mean']:.2f} % of the {recipes.judged_on(args)} images"
        spread = f"+- {s['std']:.2f} over {s['networks']} judges"
        sentence = f"{stored} per class of {args.dataset}, {what}, {found} ({spread})"
        table = f"{tables.of_scores(accuracies)}\n" if several else ""
        return table + textwrap.fill(sentence, COLUMNS, break_on_hyphens=False)

    def position(self):
        return (
            {"exp": self.experiment.exp, "it": self.experiment.it}
            if self.experiment
            else {"ended": len(self.ended)}
        )

    def accuracies(self):
        """{architecture: [[accuracy per network] per experiment]} of the experiments that have ended."""
        every = [scores for *_, scores in self.ended]
        return {name: [scores[name] for scores in every] for name in every[0]}

    def save_result(self, files):
        if not self.world.leads:
            return
        flat = {
            name: [a for experiment in scores for a in experiment]
            for name, scores in self.accuracies().items()
        }
        sets = [[canvases, labels] for _, canvases, labels, _ in self.ended]
        meta = {**self.meta, "experiments": [exp for exp, *_ in self.ended]}
        # Pickle writes equal strings once if they are one object: as copies, a resumed run's file has the same bytes.
        plain = json.loads(json.dumps({"accs_all_exps": flat, "meta": meta}))
        save_torch({"data": sets, **plain}, files.result)
