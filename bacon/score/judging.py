"""Who judges which set, and the rows that come of it."""

import dataclasses
import time

import torch

import networks
import utils
from bacon import compute, judge, messages, tables
from bacon.data.real_data import RealData
from bacon.errors import UserError
from bacon.score import baselines, fair, protocols, which_dataset
from bacon.score.finding import RealImages, SetsOfFile
from bacon.score.rows import Recorded, Row, distinct_names, end_of


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """Sets that are judged together, as experiments of one row.

    sets: [SavedSet]. meta: of the run whose settings the judges have, empty if there is none.
    """

    real: RealImages
    sets: list
    meta: dict
    judges: protocols.Judges


@dataclasses.dataclass(frozen=True)
class Scores:
    """What networks of one architecture, trained on a set, get on the test images, in [0,1].

    accuracies: of each network after its last epoch. best: of each at its best epoch, which is
    chosen on the test set; empty unless it was asked for. seconds: that all of it took.
    """

    accuracies: list
    best: list
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """What judges of a set share: the test images, a real_data.RealData, and how they compute.

    test_every: epochs after which they are tested beside the last, None: never.
    """

    test: RealData
    num_classes: int
    arithmetic: compute.Arithmetic
    test_every: int | None = None


def score_all(files, args):
    """Judge the sets of every file, then the baselines of each kind of judges: rows of the table.

    files: [SetsOfFile]. args: the flags of evaluate.py.
    """
    jobs = _jobs_of_sets(files, args)
    cache = None
    if args.baseline:
        jobs += _jobs_of_baselines(files, args)
        if not args.biased:
            cache = baselines.Cache(args.save_path)
    arithmetics = {}  # one for all sets that are computed alike, so that they share compiled code
    rows = []
    for job in jobs:
        arithmetic = _arithmetic(job, args)
        arithmetic = arithmetics.setdefault(arithmetic.settings(), arithmetic)
        how = f"{job.judges.protocol}; seed {job.judges.seed}; {arithmetic}"
        messages.log.info(f"{job.sets[0].title}: {how}")
        rows += _rows_of_job(job, arithmetic, args, cache)
    fair.add_scores(rows)
    return rows


# Jobs


def _jobs_of_sets(files, args):
    names = distinct_names([one.sets[0].path for one in files])
    jobs = []
    for one in files:
        facts = one.real.facts
        first = one.sets[0]
        sets = [dataclasses.replace(saved, name=names[first.path]) for saved in one.sets]
        together = [[saved] for saved in sets] if first.is_snapshot else [sets]
        for part in together:
            canvases_per_class = len(part[0].canvases) // facts.num_classes
            several = protocols.judges_of(
                args, facts, first.meta, first.lr, part[0].factor, canvases_per_class
            )
            jobs += [Job(one.real, part, first.meta, judges) for judges in several]
    return jobs


def _jobs_of_baselines(files, args):
    """Real images beside the sets: for each storage and kind of judges, as of its first set."""
    if not (files or args.dataset):
        raise UserError("--baseline: give --dataset")
    datasets = sorted({one.real.title for one in files})
    if len(datasets) > 1:
        of_several = f"the sets are of {' and '.join(datasets)}; give those of one"
        raise UserError(f"--baseline: {of_several}")
    jobs = []
    seen = []
    for one in files or [SetsOfFile([], RealImages(args.dataset, args, args.im_size))]:
        meta = one.sets[0].meta if one.sets else {}
        ipc = args.ipc or 10
        if one.sets and not args.ipc:
            ipc = one.sets[0].stored_per_class(one.real.facts.num_classes)
        for kind in dict.fromkeys(args.baseline):
            stored = ipc if kind != "full" else None
            for judges in _judges_of_baseline(kind, one.real, meta, stored, args):
                alike = (kind, stored, dataclasses.replace(judges, seed=0))
                if alike in seen:
                    continue
                seen.append(alike)
                images = one.real.of("train", None, "cpu")
                made = baselines.baseline(kind, images, ipc, judges.seed)
                jobs.append(Job(one.real, [made], meta, judges))
    return jobs


def _judges_of_baseline(kind, real, meta, stored, args):
    """The protocols.Judges of real images, of which those of all images train for --full_epochs."""
    factor = baselines.BASELINES[kind].factor
    several = protocols.judges_of(args, real.facts, meta, None, factor, stored)
    if kind != "full":
        return several
    found = []
    for judges in several:
        steps = judges.protocol.steps
        if steps and args.full_epochs:
            instead = f"the judges train for {steps} steps, by --judge_steps or as the set's run"
            raise UserError(f"--full_epochs: has no effect here, {instead}; leave it out")
        epochs = args.full_epochs or FULL_EPOCHS
        protocol = dataclasses.replace(judges.protocol, epochs=epochs)
        found.append(dataclasses.replace(judges, protocol=protocol))
    return found


FULL_EPOCHS = 20  # of --full_epochs


def _arithmetic(job, args):
    """The compute.Arithmetic of a job, by the work that it takes."""
    channels, *im_size = job.real.facts.shape
    classes = job.real.facts.num_classes
    flop = max(networks.flop(name, channels, classes, tuple(im_size)) for name in job.judges.names)
    saved = job.sets[0]
    decoded = len(saved.canvases) * saved.factor**2
    images = job.judges.protocol.images(decoded) * job.judges.num_eval
    return protocols.arithmetic_of(job.meta, args, flop * images, saved.title)


# Judging


def _rows_of_job(job, arithmetic, args, cache):
    facts = job.real.facts
    saved = job.sets[0]
    test = job.real.test(saved.whitened_from, arithmetic.device, saved.held_out)
    bench = Bench(test, facts.num_classes, arithmetic, args.biased)
    if cache and saved.baseline:
        fingerprint = job.real.dataset.fingerprint
        images = f"{len(saved.canvases)} images"
        data = f"{fingerprint}, {images}, {arithmetic}, {torch.__version__}"
        if job.real.validate:
            data += f", --validate {job.real.validate}"
        scores = [_kept_scores(saved, job.judges, bench, cache, data)]
    else:
        scores = [score(one, job.judges, bench) for one in job.sets]
    hard = None
    if saved.labels.dim() == 2 and "full" in args.baseline:
        hard = [score(one.hard(), job.judges, bench) for one in job.sets]
    rows = []
    for name in job.judges.names:
        row = _row(job, name, [of_set[name] for of_set in scores])
        if hard:
            row.hard = [of_set[name].accuracies for of_set in hard]
        _say_what_is_amiss(row, job)
        rows.append(row)
    return rows


def score(saved, judges, bench):
    """Judge one SavedSet: {architecture: Scores}.

    The random stream of a judge is that of the run which saved the set, so one of ours gets the
    logged accuracy again.
    """
    images, labels = saved.decoded()
    images = images.to(bench.arithmetic.device)
    labels = labels.to(bench.arithmetic.device)
    if labels.dim() == 2:
        labels = labels.softmax(1)
    scores = {}
    for name in judges.names:
        last = []
        best = []
        began = time.perf_counter()
        for number in range(judges.num_eval):
            rng = utils.stream(judges.seed, saved.exp, "judge", name, number)
            tested = _judge(name, images, labels, judges.protocol, rng, bench)
            last.append(tested[-1])
            if bench.test_every:
                best.append(max(tested))
            which = f"{name} {number + 1}/{judges.num_eval}"
            messages.log.info(f"{_short_name(saved)}  {which}: {100 * last[-1]:.2f} %")
        scores[name] = Scores(last, best, time.perf_counter() - began)
    return scores


def _judge(name, images, labels, protocol, rng, bench):
    """The accuracies of one fresh network: after every bench.test_every epochs, and at the end."""
    tested = []

    def test_now(epoch, net):
        if bench.test_every and (epoch + 1) % bench.test_every == 0:
            tested.append(judge.accuracy(net, bench.test, bench.arithmetic))

    last = judge.judge(
        name,
        images,
        labels,
        bench.test,
        bench.num_classes,
        protocol,
        rng,
        bench.arithmetic,
        test_now,
    )
    return [*tested, last]


def _kept_scores(saved, judges, bench, cache, data):
    """The `score` of real images, of each network from the baselines.Cache where it is there.

    data: what besides the judges the accuracies follow from, in words.
    """
    found = {}
    for name in judges.names:
        key = f"{saved.baseline}, {name}, {judges.protocol}, seed {judges.seed}, {data}"
        kept = cache.get(key, judges.num_eval)
        if kept:
            found[name] = Scores(kept.accuracies, [], kept.seconds)
            messages.log.info(f"{saved.baseline}  {name}: from {cache.path}")
            continue
        own = score(saved, dataclasses.replace(judges, names=[name]), bench)[name]
        found[name] = own
        written = cache.put(key, own.accuracies, own.seconds)
        messages.log.info(f"{saved.baseline}  {name}: {written}")
    return found


# Rows


def _short_name(saved):
    """How rows and lines call a set."""
    if saved.baseline:
        return saved.baseline
    name = saved.name or end_of(saved.path, 2)
    return f"{name} #{saved.exp}" if saved.is_snapshot else name


def _row(job, network, scores):
    """The `Row` of an architecture. scores: the Scores of each set."""
    saved = job.sets[0]
    facts = job.real.facts
    protocol = job.judges.protocol
    counts = torch.bincount(saved.hard().labels, minlength=facts.num_classes)
    canvases = sorted({counts.min().item(), counts.max().item()})  # of a class
    stored = [count // saved.canvases_per_image for count in canvases]
    decoded = [count * saved.factor**2 for count in canvases]
    numel = saved.canvases[0].numel()
    numbers = [count * numel // saved.canvases_per_image for count in canvases]
    accuracy = [one.accuracies for one in scores]
    best = [one.best for one in scores]
    return Row(
        set=saved.title,
        name=_short_name(saved),
        baseline=saved.baseline,
        layout=saved.layout,
        assumed=saved.assumed,
        dataset=facts.dataset,
        stored="-".join(map(str, stored)),
        decoded="-".join(map(str, decoded)),
        numbers="-".join(map(str, numbers)),
        network=network,
        accuracy=accuracy,
        summary=tables.summary(accuracy),
        protocol=str(protocol),
        protocol_settings=protocol.settings(),
        epochs=0 if protocol.steps else protocol.epochs,
        seconds=sum(one.seconds for one in scores),
        recorded=_recorded(job, network, accuracy),
        best_epoch=tables.summary(best)["mean"] if all(best) else None,
        validate=job.real.validate,
    )


def _recorded(job, network, accuracy):
    """What the file of a job's sets records of a network, as `Recorded`, or None; also None where
    its run was judged on other images."""
    saved = job.sets[0]
    if saved.held_out != job.real.validate:
        return None
    recorded = [one.recorded.get(network, []) for one in job.sets]
    if not all(recorded):
        return None
    recorded, remark = tables.as_fractions(recorded)
    if remark:
        messages.log.info(f"{saved.path}: recorded accuracies of {network}: {remark}")
    if recorded is None:
        return None
    found = tables.summary(recorded)
    of_ours = bool(saved.meta)
    judges = job.judges
    reproduced = (
        of_ours
        and judges.protocol == protocols.of_run(saved.meta)
        and judges.seed == saved.meta["args"].get("seed", 0)
        and all(map(_agree, accuracy, recorded))
    )
    return Recorded(found["mean"], found["std"], found["networks"], of_ours, reproduced)


def _agree(ours, theirs):
    """Whether two lists of accuracies are the same, as far as both go."""
    shorter = min(len(ours), len(theirs))
    return ours[:shorter] == theirs[:shorter]


def _say_what_is_amiss(row, job):
    """A line if a set of another program is near chance, but recorded far above it."""
    if job.meta or row.recorded is None:
        return
    mean = row.summary["mean"]
    recorded = row.recorded.mean
    facts = job.real.facts
    if which_dataset.far_below(mean, recorded, facts.num_classes):
        text = f"{row.network} gets {mean:.1f} %, but {recorded:.1f} % are recorded"
        text += f"; is it a set of {facts.dataset}, and read as it was meant? see --diagnose"
        messages.log.info(f"{row.set}: {text}")
