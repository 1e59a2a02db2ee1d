"""Facts about reading finished runs and kept scores."""

import dataclasses
import json
from pathlib import Path

import pytest
import scored
from logs import SHORT, ended, write_events, write_log

from bacon import messages, recipes, runs, tables
from bacon.errors import UserError
from bacon.runs import Experiment
from bacon.score import command, fair
from bacon.score.rows import BIASED

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


def edited(log, change):
    """Write the events of a log anew, after change(start, [evaluation])."""
    start, *evaluations, end = map(json.loads, log.read_text().splitlines())
    change(start, evaluations)
    write_events(log, [start, *evaluations, end])


def setting(name, value):
    """A change of an entry of all evaluations."""

    def change(start, evaluations):
        for evaluation in evaluations:
            evaluation[name] = value

    return change


def flag(name, value):
    """A change of a flag; of Ellipsis, there is no such flag."""

    def change(start, evaluations):
        start["args"][name] = value
        if value is ...:
            del start["args"][name]

    return change


def started(name, value):
    """A change of an entry of the first event."""

    def change(start, evaluations):
        start[name] = value

    return change


# how a log is changed, and the words that say what is wrong with it
DAMAGED = {
    "accuracy null": (setting("accuracy", [None]), "'accuracy' is [None]"),
    "accuracy NaN": (setting("accuracy", [0.5, float("nan")]), "'accuracy' is [0.5, nan]"),
    "accuracies null": (setting("accuracy", None), "'accuracy' is None"),
    "no accuracies": (setting("accuracy", []), "'accuracy' is []"),
    "percent": (setting("accuracy", [50.0]), "'accuracy' is [50.0]"),
    "iteration null": (setting("it", None), "'it' is None"),
    "experiment a text": (setting("exp", "0"), "'exp' is '0'"),
    "network a number": (setting("network", 1), "'network' is 1"),
    "no seed": (flag("seed", ...), "'seed' is missing"),
    "seed null": (flag("seed", None), "'seed' is None"),
    "no ipc": (flag("ipc", ...), "'ipc' is missing"),
    "ipc a list": (flag("ipc", [2]), "'ipc' is [2]"),
    "iterations a fraction": (flag("Iteration", 2.5), "'Iteration' is 2.5"),
    "epochs a text": (flag("epoch_eval_train", "20"), "'epoch_eval_train' is '20'"),
    "steps null": (flag("judge_steps", None), "'judge_steps' is None"),
    "no cross-entropy": (flag("syn_ce", ...), "'syn_ce' is missing"),
    "no clip prior": (flag("clip_prior", ...), "'clip_prior' is missing"),
    "a method of others": (flag("method", "DSA"), "'method' is 'DSA'"),
    "no flags": (started("args", None), "'args' is None"),
    "images null": (started("train_images", None), "'train_images' is None"),
    "hash null": (started("data_sha256", None), "'data_sha256' is None"),
    "departures a list": (started("departures", [1]), "'departures' is [1]"),
    "number format null": (
        started("computed", {"distilling": {"precision": None}}),
        "'precision' is None",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_finished_log_with_a_damaged_value_gets_a_line_and_the_others_are_shown(
    kind, tmp_path, capsys
):
    change, words = DAMAGED[kind]
    write_log(tmp_path / "a", SHORT, ended(0.25))
    damaged = write_log(tmp_path / "b", SHORT, ended(0.5))
    write_log(tmp_path / "c", f"{SHORT} --seed 1", ended(0.75))
    edited(damaged, change)
    start = f"skipped: {damaged}: not a log of these scripts, or a damaged one ("
    for line in (["--details"], ["--format=json", "--biased=1"]):
        assert command.main(None, ["--table", str(tmp_path), *line]) == 0
        printed = capsys.readouterr()
        (said,) = printed.err.splitlines()
        assert said.startswith(start) and words in said
        assert "50.0" in printed.out  # the mean of the two others


def test_a_plot_leaves_a_damaged_log_out_and_says_so(tmp_path, capsys):
    write_log(tmp_path / "a", SHORT, ended(0.25))
    log = write_log(tmp_path / "b", SHORT, ended(0.5))
    edited(log, setting("accuracy", [float("nan")]))
    assert command.main(None, ["--plot", str(log)]) == 2
    words = "(line 2: 'accuracy' is [nan], not a list of numbers from 0 to 1)"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(log) in said and words in said
    assert not list(tmp_path.rglob("*.png"))
    assert command.main(None, ["--plot", str(tmp_path)]) == 0
    said, _ = capsys.readouterr().err.splitlines()
    assert said.startswith(f"skipped: {log}") and words in said


def a_kept_row(**fields):
    """A line of evaluate.py --format json."""
    row = scored.a_row(name="x.pt", summary=tables.summary([[0.5]])).as_json()
    return json.dumps(row | fields)


# entries of a kept row, and the words that say what is wrong with it
DAMAGED_ROWS = {
    "mean null": ({"mean": None}, "'mean' is None"),
    "mean NaN": ({"mean": float("nan")}, "'mean' is nan"),
    "spread a text": ({"std": "0"}, "'std' is '0'"),
    "accuracy null": ({"accuracy": [[None]]}, "'accuracy' is [[None]]"),
    "set null": ({"set": None}, "'set' is None"),
    "protocol a list": ({"protocol": []}, "'protocol' is []"),
    "seconds null": ({"seconds": None}, "'seconds' is None"),
    "IOR alone": ({"IOR": 0.5}, "'IOR spread' is missing"),
    "IOR null": ({"IOR": None, "IOR spread": 0.5}, "'IOR' is None"),
    "recorded alone": ({"recorded": 50.0}, "'recorded networks' is missing"),
    "recorded null": ({"recorded": None, "recorded networks": 1}, "'recorded' is None"),
    "validate a text": ({"validate": "9"}, "'validate' is '9'"),
    "best epoch null": ({BIASED: None}, f"'{BIASED}' is None"),
}


@pytest.mark.parametrize("kind", DAMAGED_ROWS)
def test_kept_scores_with_a_damaged_value_get_a_line_and_the_others_are_shown(
    kind, tmp_path, capsys
):
    fields, words = DAMAGED_ROWS[kind]
    write_log(tmp_path / "a", SHORT, ended(0.25))
    damaged = tmp_path / "b.jsonl"
    damaged.write_text(f"{a_kept_row()}\n{a_kept_row(**fields)}\n")
    (tmp_path / "c.jsonl").write_text(f"{a_kept_row(set='c.pt', name='c.pt')}\n")
    assert command.main(None, ["--table", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    (said,) = printed.err.splitlines()
    assert said.startswith(f"skipped: {damaged}: line 2 is a damaged row") and words in said
    assert "25.00" in printed.out and "c.pt" in printed.out and "x.pt" not in printed.out


def test_whatever_a_row_of_evaluate_has_is_looked_at():
    assert set(fair.NAMES) == set(runs._FRACTIONS)
    assert BIASED in runs._OF_SOME_ROWS


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
    every = json.loads(a_kept_row())
    least = {name: every[name] for name in runs._OF_A_ROW}
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
