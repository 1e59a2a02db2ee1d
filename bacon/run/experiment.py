"""One experiment on its way: iterations, their reports, and evaluations in between."""

import itertools
import time

from bacon import figures, tables
from bacon.canvases import colours, decode
from bacon.data.spaces import denormalise
from bacon.distill import distiller
from bacon.errors import DivergedError, Stopped
from bacon.judge import Protocol, judge
from bacon.progress import Progress
from bacon.recipes import architectures, evaluation_due, judged_on

REPORT_EVERY = 10  # iterations between readings of the loss; a reading waits for the device


class Experiment:
    """Its distiller, and how far it and its evaluation have come."""

    def __init__(self, args, exp, train, test, distilling, judging, world, saved=None):
        """saved: a `state_dict` to go on from; None: from the beginning."""
        self.args, self.exp, self.test, self.judging, self.world = args, exp, test, judging, world
        self.it = 0  # the iteration that comes next
        self.unread = 0  # iterations whose losses are not reported yet
        self.scores = {}  # {architecture: [accuracy]}: the judges of iteration `it` that have finished
        self.seconds_of_clusters = 0
        began = time.perf_counter()
        if saved:
            self.distiller = distiller.resumed(
                args, exp, train, distilling, world, saved["distiller"]
            )
            self.it = saved["it"]
            self.unread = saved["unread"]
            self.scores = saved["scores"]
            began = time.perf_counter() - saved["seconds"]
        else:
            self.distiller = distiller.begin(args, exp, train, distilling, world)
            if args.init == "cluster":
                self.seconds_of_clusters = time.perf_counter() - began
            began = time.perf_counter()
        self.since = began  # since when the unread iterations run

    def state_dict(self):
        so_far = {
            "exp": self.exp,
            "it": self.it,
            "unread": self.unread,
            "seconds": time.perf_counter() - self.since,
        }
        return {**so_far, "scores": self.scores, "distiller": self.distiller.state_dict()}

    def run(self, record):
        """Distil what is left: canvases (n,ch,H,W) and labels on the host, and {architecture: [accuracy]} at the end.
        record: a checkpoint.Record. Raises Stopped where a signal asked for it, the state being fit for a checkpoint.
        """
        distiller = self.distiller
        with Progress(self.args.Iteration, f"exp {self.exp}", done=self.it) as progress:
            if seconds := self.seconds_of_clusters:
                record.event("clusters", exp=self.exp, seconds=seconds)
                progress.say(f"exp {self.exp}  initial images, one per cluster: {seconds:.0f} s")
            for it in range(self.it, self.args.Iteration + 1):
                self.it = it
                record.point()
                due = evaluation_due(self.args, it)
                if self.unread and (due or self.unread == REPORT_EVERY):
                    self.report_losses(record, progress)
                if due:
                    self.evaluate(record, progress)
                    self.save_picture(record.files.grid(self.exp, it))
                    self.since = time.perf_counter()
                if it < self.args.Iteration:
                    self.scores = {}
                    distiller.iterate(it)
                    self.unread += 1
                    progress.count()
        return distiller.all_canvases().cpu(), distiller.labels.cpu(), self.scores

    def where(self):
        return f"exp {self.exp}  {self.it}/{self.args.Iteration}"

    def report_losses(self, record, progress):
        """Log and show the losses of the unread iterations; waits for the device."""
        losses, pool = self.distiller.read_losses(), len(self.distiller.pool.members)
        self.distiller.check_networks()
        seconds = (time.perf_counter() - self.since) / self.unread
        record.event("losses", exp=self.exp, it=self.it, pool=pool, seconds=seconds, **losses)
        accuracy = losses.pop("accuracy")
        values = "  ".join(f"{name} {value:.4g}" for name, value in losses.items() if value)
        line = f"{self.where()}  {values}  accuracy {accuracy:.0f} %  {seconds:.2f} s/it"
        progress.report(line, f"loss {losses['loss']:.4g}, accuracy {accuracy:.0f} %")
        self.unread, self.since = 0, time.perf_counter()

    def evaluate(self, record, progress):
        """Train num_eval fresh networks per architecture on the canvases and test them, into `scores`. Touches nothing
        that distillation uses, random streams included. A network's stream depends on the experiment, the architecture
        and its number alone, so that curves over iterations compare like with like, and so that networks in `scores`
        already need not be trained again."""
        args, distiller = self.args, self.distiller
        canvases = distiller.all_canvases()
        if not canvases.isfinite().all():  # by the update after the last loss
            found = f"iteration {self.it}: canvases hold NaN or infinite values"
            raise DivergedError(f"{found}; a smaller --lr_img or --precision fp32 may help")
        synthetic = decode(canvases, distiller.labels, distiller.factor, args.chroma)
        for name in architectures(args.eval_mode, args.model):
            scores, began = self.scores.setdefault(name, []), time.perf_counter()
            if len(scores) == args.num_eval:
                continue  # judged, and logged, before the checkpoint
            while len(scores) < args.num_eval:
                record.point()
                number = len(scores) + self.world.rank  # every process trains one
                progress.now(f"judging with {name} {number + 1}/{args.num_eval}")
                found = self.world.gather_objects(self.judge(name, number, synthetic, record))
                scores += itertools.takewhile(lambda score: isinstance(score, float), found)
                if stops := [stop for stop in found if isinstance(stop, Stopped)]:
                    raise stops[0]
            seconds = time.perf_counter() - began
            record.event(
                "evaluation",
                exp=self.exp,
                it=self.it,
                network=name,
                accuracy=scores,
                seconds=seconds,
            )
            of_all = tables.summary([scores])
            found = f"{judged_on(args)} accuracy {of_all['mean']:.2f} +- {of_all['std']:.2f} %"
            progress.say(
                f"{self.where()}  {name}: {found} over {args.num_eval} judges, {seconds:.0f} s"
            )

    def judge(self, name, number, synthetic, record):
        """Accuracy of judge `number`, None if there is none of that number, or the Stopped that a signal asked for: a
        value, so that the other processes learn of it."""
        args, distiller = self.args, self.distiller
        if number >= args.num_eval:
            return None
        settings = args.epoch_eval_train, args.batch_train, args.lr_net, distiller.strategy
        protocol, rng = (
            Protocol(*settings, steps=args.judge_steps),
            distiller.stream("judge", name, number),
        )
        how = distiller.num_classes, protocol, rng, self.judging
        try:
            return judge(
                name, *synthetic, self.test, *how, after_epoch=lambda *_: record.stop_if_asked()
            )
        except Stopped as stop:
            return stop

    def save_picture(self, path):
        """Write the canvases as a PNG grid, class by class with their names."""
        distiller, real = self.distiller, self.distiller.real
        images = colours(distiller.all_canvases(), self.args.chroma)
        if self.world.leads:
            if real.whitening:
                images = real.whitening.invert(images)
            figures.grid(
                denormalise(images, real.mean, real.std), distiller.labels, real.classes, path
            )
