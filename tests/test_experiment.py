"""Facts about an experiment on its way: what it logs when, its evaluations, and the picture of its
canvases."""

import argparse
import functools
import types
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import SMALL, events, run

from bacon import compute, figures, recipes
from bacon.data import spaces
from bacon.errors import DivergedError, Stopped
from bacon.parallel import World
from bacon.run import experiment
from bacon.run.experiment import Experiment, Setting


def log_of(folder):
    (log,) = folder.glob("log_*.jsonl")
    return events(log)


def saved(folder):
    (result,) = folder.glob("res_*.pt")
    return torch.load(result, weights_only=True)


def test_evaluating_more_often_or_otherwise_changes_no_canvas(finished):
    names = [
        finished(folder="a"),
        finished("--eval_interval=1", "--num_eval=2", "--eval_mode=P", folder="b"),
    ]
    a, b = (saved(folder) for folder in names)
    assert torch.equal(a["data"][0][0], b["data"][0][0])


def test_the_log_has_losses_every_ten_iterations_and_every_evaluation(finished):
    folder = finished("--Iteration=25", "--eval_interval=12", "--num_eval=2")
    log = log_of(folder)
    assert log[0]["event"] == "start" and log[0]["args"]["Iteration"] == 25
    assert [e["it"] for e in log if e["event"] == "losses"] == [10, 12, 22, 24, 25]
    assert {"lh", "tv", "clip", "ce", "accuracy_percent", "pool", "seconds_per_iteration"} <= log[
        1
    ].keys()
    assert not {"accuracy", "seconds"} & log[1].keys()
    evaluations = [e for e in log if e["event"] == "evaluation"]
    assert [e["it"] for e in evaluations] == [12, 24, 25] and all(
        len(e["accuracy"]) == 2 for e in evaluations
    )
    assert log[-1]["event"] == "end" and log[-1]["summary_percent"]["ConvNetW32"]["networks"] == 2
    assert all(0 <= accuracy <= 1 for e in evaluations for accuracy in e["accuracy"])
    mean = 100 * sum(evaluations[-1]["accuracy"]) / 2
    assert log[-1]["summary_percent"]["ConvNetW32"]["mean"] == pytest.approx(mean)
    assert len(list(folder.glob("vis_*.png"))) == 3


def test_iteration_0_evaluates_the_initialisation(finished):
    folder = finished("--Iteration=0")
    log = log_of(folder)
    assert [(e["event"], e.get("it")) for e in log] == [
        ("start", None),
        ("evaluation", 0),
        ("end", None),
    ]


@pytest.mark.parametrize("mode", ["N", "A", "P"])
def test_evaluation_modes_judge_with_each_of_their_networks(mode, finished):
    folder = finished(f"--eval_mode={mode}", "--Iteration=0")
    assert list(saved(folder)["accs_all_exps"]) == list(recipes.EVAL_NETWORKS[mode])


@pytest.mark.parametrize("zca", [False, True])
def test_the_picture_shows_the_images_of_each_class_in_pixel_colours(
    zca, digits, make_args, tmp_path
):
    def experiment(whitening=None):
        real, arithmetic = digits.real("train", whitening=whitening), compute.Arithmetic("cpu")
        args = make_args(aug=False)
        return Experiment.begin(Setting(args, real, real, arithmetic, arithmetic, World()), 0)

    plain = experiment()
    shown = experiment(spaces.Whitening.fit(plain.distiller.real)) if zca else plain
    canvases = plain.distiller.canvases
    assert torch.equal(shown.distiller.canvases, canvases) is not zca
    shown.save_picture(tmp_path / "x.png")
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("L")) / 255
    for c in range(10):
        for k in range(2):
            pixels = (
                spaces.denormalise(canvases[c, k], digits.mean, digits.std)[0].clamp(0, 1).numpy()
            )
            at = [
                y
                for y in range(2, len(picture) - 63, 66)
                for x in range(picture.shape[1] - 63)
                if np.abs(picture[y : y + 64 : 8, x : x + 64 : 8] - pixels).max() <= 1 / 255
            ]
            assert (
                len(at) == 8 and len(set(at)) == 1
            )  # the samples fit at every offset within the zoom of 8


def test_pixels_beyond_black_and_white_are_shown_as_these(tmp_path):
    images = torch.stack([torch.full((1, 8, 8), -9.0), torch.full((1, 8, 8), 9.0)])
    figures.grid(images, torch.tensor([0, 1]), ["a", "b"], tmp_path / "x.png")
    shades = np.bincount(
        np.asarray(Image.open(tmp_path / "x.png").convert("L")).ravel(), minlength=256
    )
    assert shades[0] >= 64 * 64 and shades[1:255].sum() < 64 * 64 <= shades[255]


def test_a_diverging_run_stops_with_code_3_and_keeps_its_log(tmp_path, capsys):
    assert (
        run("BACON_mnist.py", *SMALL, "--lr_img=1e30", "--Iteration=20", "--save_path", tmp_path)
        == 3
    )
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "iteration" in text and "class" in text
    log = log_of(tmp_path)
    assert [e["event"] for e in log] == ["start", "diverged"] and not list(tmp_path.glob("res_*"))
    assert text.endswith(f": diverged: {log[-1]['reason']}\n")


def test_seconds_in_the_log_are_those_of_one_iteration(make_args, digits, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(experiment, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    args = make_args(Iteration=15, eval_interval=100)
    real = digits.real("train")
    arithmetic = compute.Arithmetic("cpu")
    setting = Setting(args, real, real, arithmetic, arithmetic, World())
    on_its_way = Experiment.begin(setting, 0)
    iterate = on_its_way.distiller.iterate

    def slow(it):
        iterate(it)
        now[0] += 0.5 if it < 10 else 2.0

    monkeypatch.setattr(on_its_way.distiller, "iterate", slow)
    monkeypatch.setattr(on_its_way, "evaluate", lambda *args: None)
    monkeypatch.setattr(on_its_way, "save_picture", lambda *args: None)
    record = mock.Mock()
    on_its_way.run(record)
    logged = [call.kwargs for call in record.event.call_args_list if call.args[0] == "losses"]
    assert [(event["it"], event["seconds_per_iteration"]) for event in logged] == [
        (10, 0.5),
        (15, 2.0),
    ]


def test_of_an_odd_number_of_judges_one_process_trains_none():
    class OfTwo(World):
        def gather_objects(self, value):
            return [0.25, value]  # the other process trained the last judge

    args = argparse.Namespace(num_eval=3)
    this = types.SimpleNamespace(args=args, world=OfTwo(1, 2))
    this.judge = functools.partial(Experiment.judge, this)
    scores = [0.5, 0.75]
    Experiment.judge_all(this, "ConvNet", scores, None, mock.Mock(), mock.Mock())
    assert scores == [0.5, 0.75, 0.25]


@pytest.fixture
def begun(make_args, digits):
    """Make an experiment of two canvases per class that has not begun; keyword arguments are
    flags."""

    def make(world=None, **given):
        real = digits.real("train")
        cpu = compute.Arithmetic("cpu")
        setting = Setting(make_args(**given), real, real, cpu, cpu, world or World())
        return Experiment.begin(setting, 0)

    return make


def test_the_figures_of_a_report_are_those_in_the_log(begun):
    one = begun()
    one.it = 2
    one.unread = 2
    losses = {"loss": 12.345678, "lh": 0.0, "tv": 12.345678, "accuracy": 37.2}
    one.distiller.read_losses = losses.copy
    record, progress = mock.Mock(), mock.Mock()
    one.report_losses(record, progress)
    ((name,), logged) = record.event.call_args
    assert name == "losses" and {"exp": 0, "it": 2, "lh": 0.0, "tv": 12.345678}.items() <= (
        logged.items()
    )
    assert logged["accuracy_percent"] == 37.2 and logged["pool"] == len(one.distiller.pool.members)
    line, short = progress.report.call_args.args
    assert line.startswith("exp 0  2/3  loss 12.35  tv 12.35  accuracy 37 %  ")
    assert "lh" not in line  # a term that is zero is none
    assert short == "loss 12.35, accuracy 37 %" and one.unread == 0


class SecondOf(World):
    """The second of several processes, whose judges have these accuracies."""

    def __init__(self, *accuracies):
        super().__init__(1, len(accuracies))
        self.found = accuracies

    def gather_objects(self, own):
        return [own if rank == self.rank else value for rank, value in enumerate(self.found)]


def test_several_processes_train_a_judge_each_until_there_are_enough(begun, monkeypatch):
    one = begun(num_eval=5)
    one.world = SecondOf(0.0, None, 0.2)
    numbers = []

    def judge(name, number, *others):
        numbers.append(number)
        return None if number >= 5 else number / 10

    monkeypatch.setattr(one, "judge", judge)
    scores = []
    record = mock.Mock()

    def all_but_the_first_are_over(*_):
        if len(scores) == 3:
            one.world.found = (0.3, None, None)

    record.point.side_effect = all_but_the_first_are_over
    one.judge_all("ConvNetW32", scores, "the images", record, mock.Mock())
    assert numbers == [1, 4] and scores == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert record.point.call_count == 2


def test_a_judge_that_was_stopped_ends_the_list_of_scores(begun, monkeypatch):
    """What the processes after it found is done again, or resumed scores would have a gap."""
    one = begun(num_eval=3)
    one.world = SecondOf(0.1, None, 0.3)
    monkeypatch.setattr(one, "judge", lambda *args: None)
    record = mock.Mock()
    record.point.side_effect = [None, Stopped]
    scores = []
    with pytest.raises(Stopped):
        one.judge_all("ConvNetW32", scores, "the images", record, mock.Mock())
    assert scores == [0.1]


def test_judges_that_are_there_are_neither_trained_nor_reported_again(begun, monkeypatch):
    one = begun(num_eval=2, eval_mode="C")
    one.scores = {"ConvNetW32": [0.5, 0.6]}
    monkeypatch.setattr(one, "judge", lambda name, number, *others: number / 10)
    record, progress = mock.Mock(), mock.Mock()
    one.evaluate(record, progress)
    assert one.scores == {"ConvNetW32": [0.5, 0.6], "ConvNet": [0.0, 0.1]}
    ((name,), logged) = record.event.call_args
    assert (name, logged["network"], logged["accuracy"]) == ("evaluation", "ConvNet", [0.0, 0.1])
    record.event.assert_called_once()
    (said,) = progress.say.call_args.args
    assert said.startswith("exp 0  0/3  ConvNet: test accuracy 5.00 +- 5.00 % over 2 judges, ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canvases_that_are_no_numbers_are_not_judged(value, begun):
    one = begun()
    one.distiller.canvases.view(-1)[-1] = value
    with pytest.raises(DivergedError, match="iteration 0: canvases hold NaN or infinite"):
        one.evaluate(None, None)


@pytest.mark.parametrize("init", ["cluster", "real"])
def test_the_time_of_clustering_is_told_where_there_was_any(init, begun, monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(experiment, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    inner = experiment.distiller.begin

    def slow(args, *others):
        now[0] += 42.0
        args.init = "real"  # of which the images are
        made = inner(args, *others)
        args.init = init
        return made

    monkeypatch.setattr(experiment.distiller, "begin", slow)
    one = begun(init=init, Iteration=0)
    monkeypatch.setattr(one, "evaluate", lambda *args: None)
    monkeypatch.setattr(one, "save_picture", lambda *args: None)
    record = mock.Mock()
    one.run(record)
    logged = [(call.args[0], call.kwargs) for call in record.event.call_args_list]
    told = "exp 0  initial images, one per cluster: 42 s" in capsys.readouterr().out
    if init == "cluster":
        assert logged == [("clusters", {"exp": 0, "seconds": 42.0})] and told
    else:
        assert not logged and not told
