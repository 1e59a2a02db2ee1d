"""Facts about reading finished runs and kept scores."""

import dataclasses
import json
from pathlib import Path

import pytest
from logs import SHORT, ended, write_events, write_log

from bacon import messages, recipes, runs
from bacon.errors import UserError
from bacon.runs import Experiment

STORED = Path(__file__).parents[1] / "docs" / "runs" / "CIFAR10_ConvNetW32_10ipc_200it"


def test_a_log_becomes_a_record_with_named_fields(tmp_path):
    both = {1: {"ConvNetW32": [[0.1], [0.2]]}, 2: {"ConvNetW32": [[0.3], [0.4]]}}
    line = f"{SHORT} --num_exp 2 --seed 7 --tv_weight 0 --validate 9 --judge_steps 402 --no_aug"
    run = runs.read_run(write_log(tmp_path / "run", line, both, images=(8, 4), precision="bf16"))
    assert run.seed == 7 and run.judges == ["ConvNetW32"] and len(run.evaluations) == 4
    kind = run.kind
    assert (kind.dataset, kind.ipc, kind.network, kind.iterations) == ("Digits", 2, "ConvNetW32", 2)
    assert (kind.method, kind.recipe, kind.init) == ("BACON", "paper", None)
    assert (kind.validate, kind.epochs, kind.judge_steps) == (9, 0, 402)
    assert (kind.images_per_canvas, kind.chroma) == (1, "full")
    assert kind.precisions == ("bf16", "fp32")
    assert not kind.whole and (kind.train_images, kind.test_images) == (8, 4)
    assert [str(departure) for departure in kind.departures] == ["--tv_weight 0.0"]


def test_random_images_have_no_method_and_their_init_is_no_departure(tmp_path):
    line = f"{SHORT} --Iteration 0 --init noise"
    kind = runs.read_run(write_log(tmp_path / "run", line, ended(0.5, it=0), precision="bf16")).kind
    assert (kind.method, kind.recipe, kind.init, kind.departures) == (None, None, "noise", ())
    assert kind.precisions == ("fp32",)  # nothing was distilled


def test_random_images_are_of_one_kind_whatever_would_have_distilled_them(tmp_path):
    def kind(number, words):
        log = write_log(tmp_path / str(number), f"{SHORT} --Iteration 0 {words}", ended(0.3, it=0))
        return runs.read_run(log).kind

    first, *others = (
        kind(number, words)
        for number, words in enumerate(("", "--meter_reset 200 --tv_weight 0", "--lr_net 1"))
    )
    assert [first == other for other in others] == [True, False]


def test_epochs_make_no_kind_where_judges_train_for_steps(tmp_path):
    def kind(number, words):
        log = write_log(tmp_path / str(number), f"{SHORT} {words}", ended(0.3))
        return runs.read_run(log).kind

    first, longer, more_steps = (
        kind(number, words)
        for number, words in enumerate(
            ("--judge_steps 7", "--judge_steps 7 --epoch_eval_train 21", "--judge_steps 8")
        )
    )
    assert first == longer != more_steps


def test_logs_of_earlier_versions_are_read():
    # It has no recipe, chroma, validate and judge_steps, and its number formats are words.
    (log,) = (STORED / "BACON_seed0").glob("log_*.jsonl")
    start = json.loads(log.read_text().splitlines()[0])
    assert "computed" not in start and not {"recipe", "chroma", "validate"} & start["args"].keys()
    kind = runs.read_run(log).kind
    assert (kind.recipe, kind.chroma, kind.validate, kind.judge_steps) == ("paper", "full", 0, 0)
    assert kind.precisions == ("bf16", "bf16") and kind.whole


def test_a_run_of_an_earlier_recipe_of_ours_is_one_with_other_flags(tmp_path, monkeypatch):
    log = write_log(tmp_path / "run", f"{SHORT} --recipe ours --lr_img 3 --tv_weight 0", ended(0.5))
    lines = log.read_text().splitlines()
    start = json.loads(lines[0])
    del start["args"]["experts"]  # a flag that came later
    write_events(log, [start, *map(json.loads, lines[1:])])
    before = recipes.our_settings("Digits", 2)
    now = before | {"lr_img": 3.0, "experts": 4, "ce_weight": 0.7}
    del now["spread_weight"]
    monkeypatch.setattr(recipes, "our_settings", lambda dataset, ipc: now)
    kind = runs.read_run(log).kind
    words = ["--tv_weight 0.0", f"--ce_weight {before['ce_weight']}", "--experts 0"]
    words.append(f"--spread_weight {before['spread_weight']}")
    assert sorted(map(str, kind.departures)) == sorted(words)


def test_an_unfinished_run_is_none_and_a_damaged_log_an_error(tmp_path):
    log = write_log(tmp_path / "run", SHORT, ended(0.5))
    start, *_ = map(json.loads, log.read_text().splitlines())
    write_events(log, [start])
    assert runs.read_run(log) is None
    log.write_text("")
    assert runs.read_run(log) is None
    write_events(log, [{"event": "start"}, {"event": "end"}])
    with pytest.raises(UserError, match="not a log of these scripts"):
        runs.read_run(log)


def test_a_log_in_a_folder_that_cannot_be_read_gets_a_line(tmp_path, capsys):
    write_log(tmp_path / "run", SHORT, ended(0.5))
    (tmp_path / "log_cut.jsonl").write_text("{")
    (tmp_path / "log_folder.jsonl").mkdir()
    with messages.speak("stderr"):
        found = runs.read_runs(runs.logs_below(tmp_path))
    assert len(found) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith("skipped: ") for line in said)
    assert "log_cut.jsonl" in said[0] and "log_folder.jsonl" in said[1]


@pytest.mark.parametrize(
    ("other", "counted"),
    [
        (Experiment(0, 0, {2: [0.1, 0.2]}), 1),  # the same
        (Experiment(0, 0, {2: [0.1]}), 1),  # with fewer judges
        (Experiment(0, 0, {2: [0.1, 0.2, 0.3]}), 1),  # with more
        (Experiment(0, 0, {1: [0.1], 2: [0.1, 0.2]}), 1),  # judged more often
        (Experiment(0, 0, {2: [0.1, 0.3]}), 2),  # another outcome
        (Experiment(0, 1, {2: [0.1, 0.2]}), 2),
        (Experiment(1, 0, {2: [0.1, 0.2]}), 2),
    ],
)
def test_a_copy_of_an_experiment_counts_once_and_the_one_that_tells_more_stays(other, counted):
    first = Experiment(0, 0, {2: [0.1, 0.2]})
    judged = runs.Judged(kind=None, judge="ConvNet", args={}, experiments=[first])
    judged.add(other)
    assert len(judged.experiments) == counted
    if counted == 1:
        most = max(len(first.last), len(other.last))
        assert len(judged.experiments[0].last) == most
        assert len(judged.experiments[0].accuracies) == max(1, len(other.accuracies))


def test_runs_of_a_kind_come_together_for_each_judge(tmp_path):
    both = {"ConvNetW32": [[0.5]], "ConvNet": [[0.8]]}
    for seed in (0, 1):
        line = f"{SHORT} --eval_mode C --seed {seed}"
        write_log(tmp_path / str(seed), line, {1: both, 2: both})
    write_log(tmp_path / "other", f"{SHORT} --lr_img 1", ended(0.1))
    write_log(tmp_path / "judged before the end only", f"{SHORT} --lr_img 2", ended(0.1, it=1))
    found = runs.by_kind(runs.read_runs(runs.logs_below(tmp_path)))
    assert [(one.judge, len(one.experiments)) for one in found] == [
        ("ConvNetW32", 2),
        ("ConvNet", 2),
        ("ConvNetW32", 1),
    ]
    assert found[1].last == [[0.8], [0.8]]


def test_kept_scores_are_the_rows_of_evaluate_by_dataset_and_protocol(tmp_path, capsys):
    text = (STORED / "402_steps.jsonl").read_text()
    (tmp_path / "steps.jsonl").write_text(f'no JSON\n[1]\n{{"set": "of another"}}\n{text}')
    (tmp_path / "log_run.jsonl").write_text(text)  # a log, by its name
    (tmp_path / "folder.jsonl").mkdir()
    with messages.speak("stderr"):
        (kept,) = runs.kept_scores(tmp_path)
    assert kept.dataset == "CIFAR10" and kept.protocol.startswith("402 steps")
    assert kept.rows == [json.loads(line) for line in text.splitlines()]
    assert "folder.jsonl" in capsys.readouterr().err


def test_a_row_of_evaluate_has_all_of_its_keys_and_may_have_more(tmp_path):
    least = dict.fromkeys(runs._OF_A_ROW, 1)
    lacking = {name: value for name, value in least.items() if name != "mean"}
    rows = [least, least | {"more": 2}, lacking]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert runs.read_scores(tmp_path / "x.jsonl") == rows[:2]


@pytest.mark.parametrize(("iterations", "method"), [(0, None), (1, "BACON"), (2, "BACON")])
def test_one_iteration_makes_a_distilled_set(iterations, method, tmp_path):
    line = f"{SHORT} --Iteration {iterations}"
    run = runs.read_run(write_log(tmp_path / "run", line, ended(0.5, it=iterations)))
    assert run.kind.method == method and len(run.kind.precisions) == 1 + bool(iterations)
    assert runs.by_kind([run])[0].last == [[0.5]]


@pytest.mark.parametrize(
    ("dataset", "images", "whole"),
    [
        ("Digits", (1201, 596), True),
        ("Digits", (1200, 596), False),
        ("Digits", (1201, 595), False),
        ("Unknown", (1201, 596), False),
    ],
)
def test_a_part_of_a_dataset_or_an_unknown_one_is_not_whole(dataset, images, whole, tmp_path):
    run = runs.read_run(write_log(tmp_path / "run", SHORT, ended(0.5), images=images))
    assert dataclasses.replace(run.kind, dataset=dataset).whole is whole
