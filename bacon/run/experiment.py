"""One experiment on its way: iterations, their reports, and evaluations in between."""

import dataclasses
import itertools
import time

from bacon import figures, tables
from bacon.canvases import colours, decode
from bacon.compute import Arithmetic
from bacon.data.real_data import RealData
from bacon.data.spaces import denormalise
from bacon.distill import distiller
from bacon.errors import DivergedError, Stopped
from bacon.judge import judge, protocol_of_run
from bacon.parallel import World
from bacon.progress import Progress
from bacon.recipes import architectures, evaluation_due, judged_on

REPORT_EVERY = 10  # iterations between readings of the loss; a reading waits for the device


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the experiments of a run have in common."""

    args: object  # every flag
    train: RealData
    test: RealData
    distilling: Arithmetic
    judging: Arithmetic
    world: World
    # With --experts their snapshots, experts.Snapshot; filled before the first iteration.
    snapshots: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Ended:
    """What an experiment that has ended leaves."""

    exp: int
    canvases: object  # (n, ch, H, W), on the host
    labels: object  # (n,), on the host
    scores: dict  # {architecture: [accuracy in [0,1] of each judge]}


class Experiment:
    """Its distiller, and how far it and its evaluation have come."""

    def __init__(self, setting, exp, distiller):
        """A new experiment of that number; see `begin` and `resumed`, which make the distiller."""
        self.setting = setting
        self.args = setting.args
        self.world = setting.world
        self.exp = exp
        self.distiller = distiller
        self.it = 0  # the iteration that comes next
        self.unread = 0  # iterations whose losses are not reported yet
        self.scores = {}  # {architecture: [accuracy]} of the judges of iteration `it` so far
        self.seconds_of_clusters = 0
        self.since = time.perf_counter()  # since when the unread iterations run

    @classmethod
    def begin(cls, setting, exp, before_batch=None):
        """From the beginning: chooses the initial canvases. before_batch: see distiller.begin."""
        args = setting.args
        began = time.perf_counter()
        new = distiller.begin(
            args,
            exp,
            setting.train,
            setting.distilling,
            setting.world,
            setting.snapshots,
            before_batch,
        )
        experiment = cls(setting, exp, new)
        if args.init == "cluster":
            experiment.seconds_of_clusters = time.perf_counter() - began
        return experiment

    @classmethod
    def resumed(cls, setting, saved):
        """Where a `state_dict` was made."""
        began = time.perf_counter()
        restored = distiller.resumed(
            setting.args,
            saved["exp"],
            setting.train,
            setting.distilling,
            setting.world,
            saved["distiller"],
            setting.snapshots,
        )
        experiment = cls(setting, saved["exp"], restored)
        experiment.it = saved["it"]
        experiment.unread = saved["unread"]
        experiment.scores = saved["scores"]
        experiment.since = began - saved["seconds"]
        return experiment

    def state_dict(self):
        return {
            "exp": self.exp,
            "it": self.it,
            "unread": self.unread,
            "seconds": time.perf_counter() - self.since,
            "scores": self.scores,
            "distiller": self.distiller.state_dict(),
        }

    def run(self, record):
        """Distil what is left, and evaluate: an `Ended`.

        record: a record.Record. Raises Stopped where a signal asked for it, the state being fit for
        a checkpoint, and DivergedError.
        """
        args = self.args
        with Progress(args.Iteration, f"exp {self.exp}", done=self.it) as progress:
            if self.seconds_of_clusters:
                self.report_clusters(record, progress)
            for it in range(self.it, args.Iteration + 1):
                self.it = it
                record.point()
                due = evaluation_due(args, it)
                if self.unread and (due or self.unread == REPORT_EVERY):
                    self.report_losses(record, progress)
                if due:
                    self.evaluate(record, progress)
                    self.save_picture(record.files.grid(self.exp, it))
                    self.since = time.perf_counter()
                if it < args.Iteration:
                    self.scores = {}
                    self.distiller.iterate(it)
                    self.unread += 1
                    progress.count()
        canvases = self.distiller.all_canvases().cpu()
        return Ended(self.exp, canvases, self.distiller.labels.cpu(), self.scores)

    def where(self):
        return f"exp {self.exp}  {self.it}/{self.args.Iteration}"

    def report_clusters(self, record, progress):
        seconds = self.seconds_of_clusters
        record.event("clusters", exp=self.exp, seconds=seconds)
        progress.say(f"exp {self.exp}  initial images, one per cluster: {seconds:.0f} s")

    def report_losses(self, record, progress):
        """Log and show the losses of the unread iterations; waits for the device."""
        losses = self.distiller.read_losses()
        self.distiller.check_networks()
        seconds = (time.perf_counter() - self.since) / self.unread
        accuracy = losses.pop("accuracy")
        record.event(
            "losses",
            exp=self.exp,
            it=self.it,
            pool=len(self.distiller.pool.members),
            seconds_per_iteration=seconds,
            **losses,
            accuracy_percent=accuracy,
        )
        values = "  ".join(f"{name} {value:.4g}" for name, value in losses.items() if value)
        line = f"{self.where()}  {values}  accuracy {accuracy:.0f} %  {seconds:.2f} s/it"
        progress.report(line, f"loss {losses['loss']:.4g}, accuracy {accuracy:.0f} %")
        self.unread = 0
        self.since = time.perf_counter()

    def evaluate(self, record, progress):
        """Train num_eval fresh networks per architecture on the canvases and test them, into
        `scores`.

        Touches nothing that distillation uses, random streams included. A network's stream depends
        on the experiment, the architecture and its number alone, so that curves over iterations
        compare like with like, and so that networks in `scores` already need not be trained again.
        """
        args = self.args
        canvases = self.distiller.all_canvases()
        if not canvases.isfinite().all():  # by the update after the last loss
            found = f"iteration {self.it}: canvases hold NaN or infinite values"
            raise DivergedError(f"{found}; a smaller --lr_img or --precision fp32 may help")
        synthetic = decode(canvases, self.distiller.labels, self.distiller.factor, args.chroma)
        for name in architectures(args.eval_mode, args.model):
            scores = self.scores.setdefault(name, [])
            if len(scores) < args.num_eval:  # else judged, and logged, before the checkpoint
                began = time.perf_counter()
                self.judge_all(name, scores, synthetic, record, progress)
                self.report_scores(name, scores, time.perf_counter() - began, record, progress)

    def judge_all(self, name, scores, synthetic, record, progress):
        """Append the accuracies of the judges of an architecture that are not among `scores`."""
        while len(scores) < self.args.num_eval:
            record.point()
            number = len(scores) + self.world.rank  # every process trains one
            progress.now(f"judging with {name} {number + 1}/{self.args.num_eval}")
            found = self.world.gather_objects(self.judge(name, number, synthetic, record))
            scores.extend(itertools.takewhile(lambda accuracy: accuracy is not None, found))

    def judge(self, name, number, synthetic, record):
        """Accuracy of judge `number`; None if there is none of that number, or if a signal stopped
        it: then the next `record.point`, to which all processes come, raises Stopped."""
        args = self.args
        if number >= args.num_eval:
            return None
        protocol = protocol_of_run(args, self.distiller.strategy)

        def after_epoch(*_):
            record.stop_if_asked()

        try:
            return judge(
                name,
                *synthetic,
                self.setting.test,
                self.distiller.num_classes,
                protocol,
                self.distiller.stream("judge", name, number),
                self.setting.judging,
                after_epoch=after_epoch,
            )
        except Stopped:
            return None

    def report_scores(self, name, scores, seconds, record, progress):
        record.event(
            "evaluation",
            exp=self.exp,
            it=self.it,
            network=name,
            accuracy=scores,
            seconds=seconds,
        )
        of_all = tables.summary([scores])
        measured = f"{of_all['mean']:.2f} +- {of_all['std']:.2f} %"
        over = f"over {self.args.num_eval} judges, {seconds:.0f} s"
        found = f"{judged_on(self.args)} accuracy {measured} {over}"
        progress.say(f"{self.where()}  {name}: {found}")

    def save_picture(self, path):
        """Write the canvases as a PNG grid, class by class with their names."""
        real = self.distiller.real
        images = colours(self.distiller.all_canvases(), self.args.chroma)
        if self.world.leads:
            if real.whitening:
                images = real.whitening.invert(images)
            images = denormalise(images, real.mean, real.std)
            figures.grid(images, self.distiller.labels, real.classes, path)
