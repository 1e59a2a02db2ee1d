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
