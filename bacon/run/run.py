"""A run from start to end: what comes before the first iteration, its experiments, its result."""

import contextlib
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from bacon import compute, messages, parallel, plots, recipes, tables
from bacon.data import loading
from bacon.data.datasets import DATASETS, IMAGE_FOLDER
from bacon.data.spaces import Whitening
from bacon.errors import DivergedError, Stopped, UserError, damaged, run_program
from bacon.files import save_torch
from bacon.run import cost, expert_files, preflight, words
from bacon.run.experiment import Ended, Experiment, Setting
from bacon.run.folder import Files, existing_folder
from bacon.run.folder import merge as merge_job_array
from bacon.run.record import Record, StopSignals

# Flags that the log and the result leave out.
UNRECORDED = {"resume", "overwrite", "dry_run", "checkpoint_minutes"}


def main(settings):
    """Do what a script's command line says, flags.Settings: its exit code, see errors.ENDINGS and
    docs/resume.md."""

    def work():
        with parallel.joined(settings.args.device) as world:
            return run_settings(settings, world)

    try:
        code = run_program(Path(sys.argv[0]).name, work, outlives_output=True)
    except SystemExit as ended:  # the leading process failed and says why
        code = ended.code
    parallel.end_if_connected(code)
    return code


def run_settings(settings, world):
    """Do what parsed settings say, as one process of `world`; returns the exit code."""
    args = settings.args
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_voice(world))
        if args.dry_run:
            estimate(settings, world)
            return 0
        prepared = prepare(settings, world, stack)
        if prepared.run is None:
            messages.log.info(f"{prepared.files.result}: finished already")
        else:
            prepared.run.go(prepared.files, prepared.signals, prepared.saved)
        if args.exp_index is not None and world.leads:
            merge_job_array(prepared.files, args, prepared.meta)
    return 0


@contextlib.contextmanager
def one_voice(world):
    """Within a `with` block, lines go to standard output, those of the leading process alone."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(messages.speak("stdout", silent=not world.leads))
        if not world.leads:  # nor does the progress of an experiment show
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(nowhere)))
        yield


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is there when a run can begin."""

    files: Files
    meta: dict  # what the run is, for its log and result
    signals: StopSignals
    run: object  # the Run; None where all of it is done already
    saved: dict | None  # the checkpoint that it goes on from


def estimate(settings, world):
    """--dry_run: say what a run would be and cost. Shapes and counts are in the table: no image is
    read but those of ImageFolder."""
    args = settings.args
    spec = own_images(args) or spec_of(args)
    preflight.check_flags(settings, spec, world)
    arithmetics = cost.arithmetics(args, spec)
    source = "random images, timed in place of the real ones"
    alone = parallel.World()  # what is timed is one process
    words.describe(settings, spec, source, arithmetics, Files(args, args.exp_index), alone)
    if world.leads:
        cost.dry_run(args, spec, arithmetics)


def prepare(settings, world, stack):
    """All that comes before the first iteration: `Prepared`. Nothing is written before every check
    has passed. The dataset is let go at the end: of several processes each keeps its share.

    stack: an ExitStack that holds the locks and the signals until the run has ended.
    """
    args = settings.args
    own = own_images(args)
    spec = own or spec_of(args)
    preflight.check_flags(settings, spec, world)
    files = Files(args, args.exp_index)
    needed = cost.checkpoint_bytes(args, spec)
    world.from_leader(lambda: files.admit(args.resume, args.overwrite, needed))
    if recipes.matches_in_experts(args) and args.expert_path:
        world.from_leader(lambda: existing_folder("--expert_path", expert_files.folder_of(args)))

    dataset = own or load_once(args, world)
    words.tell_time_left()
    preflight.check_data(args, dataset, settings.given)
    arithmetics = cost.arithmetics(args, dataset)
    meta = about(settings, dataset)
    signals = stack.enter_context(StopSignals())
    left = world.from_leader(lambda: files.claim(stack, meta, args.resume, args.overwrite))
    if left.finished:
        return Prepared(files, meta, signals, run=None, saved=None)

    if left.saved is not None:
        arithmetics = restored(left.saved["arithmetic"])
    meta |= about_arithmetics(arithmetics, world)
    if left.saved is not None:
        words.tell_resumed(left.saved, meta, files)
    source = f"from {dataset.source} (sha256 {dataset.fingerprint[:12]})"
    words.describe(settings, dataset, source, arithmetics, files, world)
    device = arithmetics.distilling.device
    train, test = real_data(args, dataset, device, world.share(dataset.num_classes))
    setting = Setting(args, train, test, arithmetics.distilling, arithmetics.judging, world)
    return Prepared(files, meta, signals, Run(setting, meta), left.saved)


def own_images(args):
    """The dataset of --dataset ImageFolder, see --validate; None for one of the table."""
    if args.dataset != IMAGE_FOLDER:
        return None
    dataset = loading.load_image_folder(args.data_path, args.im_size)
    return dataset.validation(args.validate) if args.validate else dataset


def spec_of(args):
    """What the table says of the dataset, with the sizes that --validate makes of it. UserError if
    fewer than two training images per class would stay."""
    spec = DATASETS[args.dataset]
    if not args.validate:
        return spec
    held = args.validate * spec.num_classes
    if spec.train - held < 2 * spec.num_classes:
        found = f"{args.dataset} has {spec.train:,} training images of {spec.num_classes} classes"
        raise UserError(f"--validate {args.validate}: {found}, 2 of each have to stay; give fewer")
    return spec._replace(train=spec.train - held, test=held)


def load_once(args, world):
    """The dataset, which the leading process fetches and caches before the others read it; see
    --validate."""
    loaded = []

    def load():
        loaded.append(loading.load(args.dataset, args.data_path))

    world.from_leader(load)
    if not world.leads:
        load()
    (dataset,) = loaded
    return dataset.validation(args.validate) if args.validate else dataset


def real_data(args, dataset, device, own=None):
    """Training images, of the range `own` of classes or of all, and test images, as
    real_data.RealData on the device. With --zca whitened, as fitted on all training images."""
    whitening = Whitening.fit(dataset.real("train", device)) if args.zca else None
    train = dataset.real("train", device, whitening, own)
    return train, dataset.real("test", device, whitening)


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
    }


def about_arithmetics(arithmetics, world):
    """What the log and the result say of how a run computes: in words, and field by field, and with
    which versions of what."""
    distilling = arithmetics.distilling
    judging = arithmetics.judging
    return {
        "versions": compute.versions(distilling.device),
        "arithmetic": {
            "distilling": str(distilling),
            "judging": str(judging),
            "processes": world.size,
        },
        "computed": {
            "distilling": dataclasses.asdict(distilling.settings()),
            "judging": dataclasses.asdict(judging.settings()),
        },
    }


def restored(saved):
    """The `cost.Arithmetics` of a checkpoint, which need not be those chosen here; UserError if one
    is impossible here."""
    distilling, judging = saved
    return cost.Arithmetics(_restored(*distilling), _restored(*judging))


def _restored(device, precision, compiled):
    try:
        compute.check_device(device)
    except UserError as error:
        raise UserError(f"--resume: the checkpoint was computed on {device}; {error}") from None
    arithmetic = compute.choose(device, precision, compiled, 0)
    if arithmetic.compiled != compiled:
        why = compute.compile_error(arithmetic.device.type)
        there = "the checkpoint was computed with --compile"
        raise UserError(f"--resume: {there}, which does not work here: {why}")
    return arithmetic


class Run:
    """The experiments of a run: those that have ended and the one on its way. Its `state_dict` is a
    checkpoint."""

    def __init__(self, setting, meta):
        """setting: what the experiments share. meta: what the log and the result say of the run."""
        self.setting = setting
        self.args = setting.args
        self.world = setting.world
        self.meta = meta
        self.ended = []  # an `Ended` of each
        self.experiment = None
        self.began = time.perf_counter()

    def state_dict(self):
        ended = [[one.exp, one.canvases, one.labels, one.scores] for one in self.ended]
        arithmetics = (self.setting.distilling, self.setting.judging)
        return {
            "meta": self.meta,
            "arithmetic": [[a.device.type, a.precision, a.compiled] for a in arithmetics],
            "seconds": time.perf_counter() - self.began,
            "ended": ended,
            "experiment": self.experiment.state_dict() if self.experiment else None,
        }

    def load_state_dict(self, state):
        """Go on from a `state_dict` of a run with the same settings; UserError if it is none."""
        another = "the checkpoint is of another version of these scripts"
        with damaged(f"--resume: {another}; go on with it, or --overwrite"):
            self.meta = state["meta"]
            self.ended = [Ended(*of_experiment) for of_experiment in state["ended"]]
            self.began -= state["seconds"]
            if state["experiment"]:
                self.experiment = Experiment.resumed(self.setting, state["experiment"])

    def go(self, files, signals, saved=None):
        """Run what is left and write its records.

        saved: the checkpoint to go on from; None: from the beginning. Raises Stopped once a
        checkpoint is written, and DivergedError.
        """
        if saved is not None:
            self.load_state_dict(saved)
            saved["experiment"] = None  # or a second copy of the pool would stay
        minutes = self.args.checkpoint_minutes
        record = Record(files, minutes, signals, self.state_dict, self.world)
        with contextlib.closing(record):
            try:
                self.open_record(record, saved)
                if recipes.matches_in_experts(self.args):
                    self.take_experts(record)
                self.run_experiments(record)
            except DivergedError as error:
                record.event("diverged", reason=str(error))
                raise
            except Stopped as stop:
                record.save()
                record.event("interrupted", signal=str(stop), **self.position())
                again = f"the same command with --resume goes on from {files.checkpoint}"
                raise Stopped(f"stopped by {stop}; {again}") from None

    def open_record(self, record, saved):
        """Begin the log and the checkpoints, or go on with those that are there."""
        if saved is None:
            record.begin(self.args.overwrite, command=sys.argv, **self.meta)
        elif not saved["log_bytes"]:  # stopped before its log had its name
            record.begin(saved.get("replaces", False), command=sys.argv, **self.meta)
        else:
            record.go_on(saved["log_bytes"])
            here = {
                "distilling": str(self.setting.distilling),
                "judging": str(self.setting.judging),
            }
            record.event(
                "resume",
                **self.position(),
                command=sys.argv,
                arithmetic=here,
                versions=compute.versions(self.setting.distilling.device),
            )

    def take_experts(self, record):
        """Read the experts, or train them, before the first iteration."""
        began = time.perf_counter()
        of_run = expert_files.ExpertFiles(self.setting, self.meta, record.between_points)
        self.setting.snapshots.extend(of_run.snapshots(record))
        if self.experiment is None and not self.ended:  # else the log has them
            accuracies = [snapshot.accuracy for snapshot in self.setting.snapshots]
            seconds = time.perf_counter() - began
            record.event("experts", accuracy_percent=accuracies, seconds=seconds)

    def run_experiments(self, record):
        files = record.files
        if self.ended:
            self.save_result(files)  # in case the process ended between a checkpoint and this
        for exp in recipes.experiments(self.args)[len(self.ended) :]:
            if self.experiment is None:
                self.experiment = Experiment.begin(self.setting, exp, record.between_points)
            self.ended.append(self.experiment.run(record))
            self.experiment = None
            record.save()
            self.save_result(files)
        self.end(record)

    def end(self, record):
        """The last event, the plot, and what the user is told. The checkpoints go."""
        files = record.files
        accuracies = self.accuracies()
        record.event(
            "end",
            seconds_total=time.perf_counter() - self.began,
            summary_percent={name: tables.summary(scores) for name, scores in accuracies.items()},
        )
        if self.world.leads:
            record.log.sync()
            plot = self.plot(files)
            files.finish()
            picture = files.grid(self.ended[-1].exp, self.args.Iteration)
            words.tell_end(self.args, accuracies, [files.result, files.log, picture, *plot])

    def plot(self, files):
        """Draw the accuracy over iterations, if there were several evaluations; what to tell the
        user of it."""
        if self.args.Iteration <= self.args.eval_interval:
            return []
        try:
            return [plots.plot_runs([files.log])]
        except (UserError, OSError) as error:  # such as no matplotlib: the run itself is done
            return [f"no plot of the accuracy: {error}"]

    def position(self):
        """Where the run stands, for an event."""
        if self.experiment is None:
            return {"ended": len(self.ended)}
        return {"exp": self.experiment.exp, "it": self.experiment.it}

    def accuracies(self):
        """{architecture: [[accuracy per network] per experiment]} of the experiments that have
        ended."""
        names = self.ended[0].scores
        return {name: [one.scores[name] for one in self.ended] for name in names}

    def save_result(self, files):
        if not self.world.leads:
            return
        flat = {}
        for name, of_experiments in self.accuracies().items():
            flat[name] = [accuracy for scores in of_experiments for accuracy in scores]
        meta = {**self.meta, "experiments": [one.exp for one in self.ended]}
        # Pickle writes equal strings once if they are one object: as copies, a resumed run's file
        # has the same bytes.
        plain = json.loads(json.dumps({"accs_all_exps": flat, "meta": meta}))
        sets = [[one.canvases, one.labels] for one in self.ended]
        save_torch({"data": sets, **plain}, files.result)
