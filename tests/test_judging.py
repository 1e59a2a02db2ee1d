"""Facts about judging sets: the logged accuracy again, baselines, fair scores, what is recorded."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from saved_sets import save_mtt
from scripts import JUDGED_TWICE, run, scorer

from bacon import judge
from bacon.data import spaces
from bacon.errors import UserError
from bacon.score import baselines, command, fair, finding, judging, protocols, sets
from bacon.score.rows import Recorded


def test_scoring_a_set_of_ours_gives_the_logged_accuracy_to_the_digit(digit_runs, score):
    rows = score(digit_runs / "BACON", "--eval_mode=C")
    (path,) = (digit_runs / "BACON").glob("res_*.pt")
    logged = torch.load(path, weights_only=True)["accs_all_exps"]
    assert [row["network"] for row in rows] == ["ConvNetW32", "ConvNet"] == list(logged)
    for row in rows:
        assert [a for experiment in row["accuracy"] for a in experiment] == logged[row["network"]]
        assert row["logged, the same networks"] and (
            row["stored per class"],
            row["decoded per class"],
        ) == ("2", "8")
        assert row["networks"] == 4 and row["std_experiments"] is not None and row["epochs"] == 2
    (one,) = score(path, "--exp=1", "--num_eval=1")
    assert one["accuracy"] == [logged["ConvNetW32"][2:3]] and one["logged, the same networks"]


def test_a_set_is_judged_on_the_images_that_its_run_held_out(
    score, digits_folder, tmp_path, capsys
):
    line = ["--data_path", digits_folder, "--save_path", tmp_path / "run", "--validate=9"]
    assert run("BACON_mnist.py", *JUDGED_TWICE, "--Iteration=0", *line) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "run").glob("res_*.pt")
    logged = torch.load(path, weights_only=True)["accs_all_exps"]["ConvNetW32"]
    # The baseline is made of the training images that are left, and judged on the same ones.
    for row in score(path, "--validate=9", "--baseline=random4"):
        assert row["accuracy"] == [logged] and row["validate"] == 9
        assert row["layout"] == "baseline" or row["logged, the same networks"]
        assert all(90 * accuracy == pytest.approx(round(90 * accuracy)) for accuracy in logged)
    # Beside the test images what was logged is of no use, nor is the accuracy that was kept.
    tested = score(path, "--baseline=random4")
    assert all("validate" not in row and "logged" not in row for row in tested)
    assert all(row["accuracy"] != [logged] for row in tested)


@pytest.mark.parametrize("words", [["--judge_steps=50"], ["--zca"]], ids=str)
def test_the_scorer_judges_as_the_run_did(words, score, digits_folder, tmp_path, capsys):
    line = [*JUDGED_TWICE, "--Iteration=1", "--data_path", digits_folder, *words]
    assert run("BACON_mnist.py", *line, "--save_path", tmp_path / "run") == 0
    capsys.readouterr()
    (row,) = score(tmp_path / "run")
    assert row["logged, the same networks"]
    if "--judge_steps=50" in words:  # by epochs it would have taken three
        assert row["protocol"].startswith("50 steps")


def test_whitening_is_fitted_on_training_images_and_given_to_the_test_images(real):
    for space, normalised in (("pixels", False), ("normalised", True)):
        whitening = spaces.Whitening.fit(real.dataset.real("train", normalised=normalised))
        images = real.dataset.real("test", normalised=normalised).take(slice(None))
        found = real.test(space, "cpu").take(slice(None))
        torch.testing.assert_close(found, whitening.apply(images))


def test_a_set_with_a_learnt_rate_is_judged_with_it(score, tmp_path, canvases, facts):
    (tmp_path / "mtt").mkdir()
    save_mtt(tmp_path / "mtt", *canvases, facts)
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    (row,) = score(tmp_path / "mtt", *line)
    assert row["protocol settings"]["lr"] == 0.03125


def test_the_best_epoch_is_shown_on_request_only_and_called_biased(digit_runs, score):
    (plain,) = score(digit_runs / "no_tv")
    (both,) = score(digit_runs / "no_tv", "--biased=1")
    assert both["accuracy"] == plain["accuracy"] and both["mean"] == plain["mean"]
    assert both["best epoch on test (biased)"] >= both["mean"] and not any(
        "biased" in key for key in plain
    )


def test_baselines_are_judged_beside_the_set(digit_runs, score):
    rows = score(digit_runs / "random", "--baseline=random,random4,herding,full", "--full_epochs=1")
    assert [row["set"] for row in rows[1:]] == ["random", "random4", "herding", "full"]
    assert [row["stored per class"] for row in rows[1:4]] == ["2"] * 3 and rows[4]["epochs"] == 1
    # random4 is what a run with --Iteration 0 distils: the same images, judged alike.
    assert rows[2]["accuracy"] == rows[0]["accuracy"] and rows[2]["decoded per class"] == "8"


def test_fair_scores_are_those_of_the_baselines_which_are_computed_once(
    digit_runs, score, capsys, tmp_path, digits_folder
):
    line = [digit_runs / "no_tv", "--baseline=random,full", "--full_epochs=1"]
    ours, random, full = score(*line)
    found = fair.scores(ours["accuracy"], None, random["accuracy"], full["accuracy"])
    assert found.keys() == set(fair.NAMES)
    for name, fraction in found.items():
        assert (ours[name], ours[f"{name} spread"]) == (fraction.value, fraction.spread)
    with pytest.MonkeyPatch.context() as patch:
        inner = judging.score
        patch.setattr(judging, "score", lambda one, *rest: one.meta and inner(one, *rest))
        again = score(*line)  # no baseline is judged
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in (ours, random, full)]
    (one, _) = score(digit_runs / "no_tv", "--baseline=random", "--ipc=1")
    assert "IOR" not in one  # that is not equal storage
    line = [*map(str, line), f"--save_path={tmp_path / 'cache'}", f"--data_path={digits_folder}"]
    assert command.main(None, line) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert "baselines.json" in said.err and len(lines) == 4 and max(map(len, lines)) <= 120
    assert (
        lines[0].split()[:5] == ["accuracy", "%", "recorded", "%", "IOR"]
        and f"{ours['LRS']:.3f}" in lines[1]
    )


def test_another_number_of_images_or_other_data_is_another_baseline(
    score, tmp_path, digits, digits_folder
):
    line = ["--baseline=random", "--dataset=Digits", "--num_eval=1", "--epoch_eval_train=1"]
    kept = tmp_path / "cache" / "baselines.json"
    counts = []
    for ipc in (1, 2, 1):
        score(*line, f"--ipc={ipc}")
        counts.append(len(json.loads(kept.read_text())))
    entries = torch.load(digits_folder / "digits.pt", weights_only=True)
    entries["images_train"] = 255 - entries["images_train"]
    (tmp_path / "other").mkdir()
    torch.save(entries, tmp_path / "other" / "digits.pt")
    score(*line, "--ipc=1", "--data_path", tmp_path / "other")
    counts.append(len(json.loads(kept.read_text())))
    assert counts == [1, 2, 2, 3]


def test_judges_train_on_the_probabilities_of_soft_labels(score, tmp_path, monkeypatch):
    trained_on = []

    def judged(name, images, labels, *others):
        trained_on.append(labels)
        return [0.5]

    monkeypatch.setattr(judging, "_judge", judged)
    logits = 4 * torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    for labels, expected in ((logits, logits.softmax(1)), (logits.argmax(1), logits.argmax(1))):
        torch.save({"data": [[torch.randn(20, 1, 8, 8), labels]]}, tmp_path / "x.pt")
        score(tmp_path / "x.pt", "--dataset=Digits", "--num_eval=1")
        torch.testing.assert_close(trained_on.pop(), expected)


def test_soft_labels_miss_the_whole_set_by_their_hard_ones(score, tmp_path, digits):
    images = digits.real("train").take(np.arange(20))
    soft = F.one_hot(torch.arange(20) % 10, 10) * 2.0
    torch.save({"data": [[images, soft]]}, tmp_path / "soft.pt")
    torch.save({"data": [[images, soft.argmax(1)]]}, tmp_path / "hard.pt")
    line = [
        "--dataset=Digits",
        "--model=ConvNetW32",
        "--num_eval=1",
        "--epoch_eval_train=3",
        "--full_epochs=1",
    ]
    soft, hard, *_ = score(
        tmp_path / "soft.pt", tmp_path / "hard.pt", *line, "--baseline=random,full"
    )
    assert soft["HLR"] == hard["HLR"] and soft["hard"] == hard["accuracy"]


def test_recorded_accuracies_stand_beside_ours(score, tmp_path, digits, capsys):
    sets = [
        [digits.real("train").take(np.arange(10 * k, 10 * k + 10)), torch.arange(10)]
        for k in range(3)
    ]
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    torch.save(
        {"data": sets, "accs_all_exps": {"ConvNetW32": [0.1, 0.2, 0.3] * 2, "MLP": []}},
        tmp_path / "x.pt",
    )
    (row,) = score(tmp_path / "x.pt", *line)
    assert (row["recorded"], row["recorded networks"], row["networks"]) == (pytest.approx(20), 6, 3)
    assert "in order" in row["assumed"] and "logged" not in row
    (last,) = score(tmp_path / "x.pt", *line, "--exp=2")
    assert last["recorded"] == pytest.approx(25)  # the fifth and the sixth
    torch.save(
        {"data": sets, "accs_all_exps": {"ConvNetW32": [np.float64(0.5)] * 10}}, tmp_path / "x.pt"
    )
    rows = score(tmp_path / "x.pt", *line)  # three states of one experiment
    assert [row.get("recorded") for row in rows] == [None, None, 50] and rows[2][
        "recorded networks"
    ] == 10
    assert [row["name"][-3:] for row in rows] == [
        " #0",
        " #1",
        " #2",
    ] and "the last one's (--exp 2)" in rows[0]["assumed"]
    assert [row_["accuracy"][0] for row_ in rows] == row["accuracy"]  # and are judged as before


@pytest.mark.parametrize(
    ("recorded", "shown", "words"),
    [
        ([10.0, 20.0, 60.0], 30, "up to 60, taken for percent"),
        ([0.1, 0.2, 0.6], 30, ""),
        ([0.1, float("nan"), 0.6], None, "1 of 3 are NaN or infinite, so none is shown"),
        ([0.1, -0.2, 0.6], None, "-0.2 to 0.6 are no accuracies"),
    ],
)
def test_recorded_accuracies_that_are_none_are_said(
    recorded, shown, words, score, tmp_path, digits, capsys
):
    one = [digits.real("train").take(np.arange(10)), torch.arange(10)]
    torch.save({"data": [one], "accs_all_exps": {"ConvNetW32": recorded}}, tmp_path / "x.pt")
    line = [
        str(tmp_path / "x.pt"),
        "--dataset=Digits",
        "--model=ConvNetW32",
        "--num_eval=1",
        "--epoch_eval_train=1",
    ]
    (row,) = score(*line)
    assert row.get("recorded") == (shown if shown is None else pytest.approx(shown))
    assert command.main(None, [*line, f"--save_path={tmp_path}"]) == 0
    said = capsys.readouterr()
    assert ("recorded accuracies of ConvNetW32: " + words in said.err) == bool(
        words
    ) and "nan" not in said.out


def test_a_baseline_needs_no_set(score):
    line = [
        "--baseline=random",
        "--dataset=Digits",
        "--ipc=1",
        "--num_eval=1",
        "--epoch_eval_train=1",
    ]
    (row,) = score(*line, "--model=ConvNetW32")
    assert row["stored per class"] == row["decoded per class"] == "1"


# Jobs and rows without judging


@pytest.fixture
def real(digits_folder):
    return finding.RealImages("Digits", scorer(f"--data_path={digits_folder}"))


def a_set(labels, **fields):
    canvases = torch.zeros(len(labels), 1, 8, 8)
    return sets.SavedSet("x.pt", 0, "DC", canvases, torch.as_tensor(labels), **fields)


def a_job(real, *of_job, meta=None):
    judges = protocols.Judges(["ConvNet"], 2, 0, judge.Protocol(3, 256, 0.01, ()))
    return judging.Job(real, list(of_job), meta or {}, judges)


@pytest.mark.parametrize(
    ("fields", "times", "decoded"),
    [
        ({}, 1, "1-2"),
        ({"factor": 2}, 1, "4-8"),
        ({"factor": 2, "canvases_per_image": 2}, 2, "8-16"),  # half of the numbers each
    ],
    ids=str,
)
def test_a_row_tells_how_much_is_stored_of_the_smallest_and_the_largest_class(
    fields, times, decoded, real
):
    labels = torch.tensor([*range(10), 3, 4]).repeat(times)
    for of_set in (labels, F.one_hot(labels, 10).float()):
        row = judging._row(
            a_job(real, a_set(of_set, **fields)), "ConvNet", [judging.Scores([0.5], [], 1)]
        )
        assert (row.stored, row.decoded, row.numbers) == ("1-2", decoded, "64-128")
    even = a_job(real, a_set(torch.arange(10).repeat(times), **fields))
    row = judging._row(even, "ConvNet", [judging.Scores([0.5], [], 1)])
    assert (row.stored, row.decoded, row.numbers) == ("1", decoded.split("-")[0], "64")


def test_a_row_has_the_accuracies_and_the_time_of_all_experiments(real):
    job = a_job(real, a_set(range(10)), a_set(range(10)))
    both = [judging.Scores([0.2, 0.4], [0.5, 0.3], 2), judging.Scores([0.6, 0.8], [0.9, 0.7], 3)]
    row = judging._row(job, "ConvNet", both)
    assert row.accuracy == [[0.2, 0.4], [0.6, 0.8]] and row.seconds == 5
    assert (row.network, row.dataset, row.epochs) == ("ConvNet", "Digits", 3)
    assert row.summary["mean"] == pytest.approx(50) and row.best_epoch == pytest.approx(60)
    assert judging._row(job, "ConvNet", [judging.Scores([0.2], [], 2)] * 2).best_epoch is None


# Of a run whose judges are those of `a_job`.
ARGS = {"seed": 0, "epoch_eval_train": 3, "dsa_strategy": "none"}
OF_RUN = {"args": ARGS}


@pytest.mark.parametrize(
    ("recorded", "meta", "expected"),
    [
        ([[0.5, 0.25], [0.75, 0.5]], OF_RUN, Recorded(50, 17.678, 4, True, True)),
        ([[0.5], [0.75, 0.5, 0.25]], OF_RUN, Recorded(50, 17.678, 4, True, True)),
        ([[0.5, 0.25], [0.75, 0.25]], OF_RUN, Recorded(43.75, 20.729, 4, True, False)),
        ([[0.5, 0.25], [0.75, 0.5]], {}, Recorded(50, 17.678, 4, False, False)),
        (
            [[0.5, 0.25], [0.75, 0.5]],
            {"args": ARGS | {"judge_steps": 5}},
            Recorded(50, 17.678, 4, True, False),
        ),
        (
            [[0.5, 0.25], [0.75, 0.5]],
            {"args": ARGS | {"seed": 1}},
            Recorded(50, 17.678, 4, True, False),
        ),
        ([[0.5, 0.25], []], OF_RUN, None),
        ([[0.5, 0.25], [float("nan"), 0.5]], OF_RUN, None),
    ],
    ids=[
        "the same",
        "as far as both go",
        "another",
        "not by these",
        "other judges",
        "other seed",
        "of some",
        "not a number",
    ],
)
def test_what_is_recorded_is_reproduced_if_ours_is_the_same_to_the_digit(
    recorded, meta, expected, real
):
    both = [a_set(range(10), recorded={"ConvNet": one}, meta=meta) for one in recorded]
    found = judging._recorded(a_job(real, *both, meta=meta), "ConvNet", [[0.5, 0.25], [0.75, 0.5]])
    assert judging._recorded(a_job(real, *both), "MLP", [[0.5], [0.5]]) is None
    if expected is None:
        assert found is None
        return
    assert (found.mean, found.std) == pytest.approx((expected.mean, expected.std), abs=1e-3)
    assert found.networks == expected.networks
    assert (found.of_ours, found.reproduced) == (expected.of_ours, expected.reproduced)


def of_seed(seed):
    return {"meta": {"args": {"seed": seed}}}


@pytest.mark.parametrize(
    ("stored", "line", "expected"),
    [
        ([], ["random"], [("random", 10)]),
        ([], ["random", "--ipc=3"], [("random", 3)]),
        ([a_set([*range(10)] * 2)], ["random"], [("random", 2)]),
        ([a_set([*range(10)] * 2)], ["random", "--ipc=3"], [("random", 3)]),
        ([a_set([*range(10)] * 2)] * 2, ["random,random"], [("random", 2)]),
        ([a_set(range(10)), a_set([*range(10)] * 2)], ["random"], [("random", 1), ("random", 2)]),
        ([a_set(range(10), **of_seed(1)), a_set(range(10))], ["random"], [("random", 1)]),
        ([a_set(range(10), factor=2)], ["random,random4"], [("random", 1), ("random4", 1)]),
    ],
    ids=["10", "asked for", "as the set", "not as the set", "once", "by storage", "seeds", "kinds"],
)
def test_baselines_have_the_storage_of_the_sets_each_once(stored, line, expected, real):
    files = [finding.SetsOfFile([one], real) for one in stored]
    line = [f"--data_path={real.data_path}", "--dataset=Digits", "--baseline", *line]
    jobs = judging._jobs_of_baselines(files, scorer(*line))
    found = [(one.sets[0].baseline, len(one.sets[0].canvases) / 10) for one in jobs]
    assert found == expected


def test_baselines_of_pictures_need_one_size(tmp_path):
    args = scorer("--dataset=ImageFolder", f"--data_path={tmp_path}", "--baseline=random")
    sizes = [finding.RealImages("ImageFolder", args, size) for size in (16, 24)]
    files = [finding.SetsOfFile([a_set(range(10))], real) for real in sizes]
    words = "of ImageFolder with --im_size 16 and ImageFolder with --im_size 24; give those of one"
    with pytest.raises(UserError, match=words):
        judging._jobs_of_baselines(files, args)


def test_the_work_of_a_job_is_that_of_its_costliest_network_on_every_image(real, monkeypatch):
    planned = []
    monkeypatch.setattr(protocols, "arithmetic_of", lambda *args: planned.append(args[2]))
    monkeypatch.setattr(judging.networks, "flop", lambda name, *args: len(name))
    for factor in (1, 2):
        judges = protocols.Judges(["MLP", "ConvNet"], 5, 0, judge.Protocol(3, 256, 0.01, ()))
        job = judging.Job(real, [a_set([*range(10)] * 2, factor=factor)], {}, judges)
        judging._arithmetic(job, None)
    epochs = judge.Protocol(3, 256, 0.01, ()).passes
    assert planned == [7 * 5 * epochs * 20, 7 * 5 * epochs * 80]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "b/x.pt"),
        ({"name": "a/b/x.pt"}, "a/b/x.pt"),
        ({"exp": 3, "is_snapshot": True}, "b/x.pt #3"),
        ({"baseline": "random", "path": ""}, "random"),
    ],
    ids=str,
)
def test_a_set_is_called_by_the_end_of_its_path_or_what_tells_it_from_others(fields, name, real):
    one = dataclasses.replace(a_set(range(10)), **{"path": "/a/b/x.pt"} | fields)
    row = judging._row(a_job(real, one), "ConvNet", [judging.Scores([0.5], [], 1)])
    assert (row.name, row.set) == (name, fields.get("baseline", "/a/b/x.pt"))


def test_real_images_are_judged_once_by_each_network_unless_anything_else_differs(
    tmp_path, monkeypatch
):
    asked = []

    def score(saved, judges, bench):
        asked.append(judges.names)
        return {name: judging.Scores([0.5] * judges.num_eval, [], 3) for name in judges.names}

    monkeypatch.setattr(judging, "score", score)
    random = a_set(range(10), baseline="random")
    protocol = judge.Protocol(3, 256, 0.01, ())
    judges = protocols.Judges(["MLP", "ConvNet"], 2, 0, protocol)
    others = {
        "fewer": (random, dataclasses.replace(judges, num_eval=1), "data"),
        "more": (random, dataclasses.replace(judges, num_eval=3), "data"),
        "another seed": (random, dataclasses.replace(judges, seed=1), "data"),
        "another protocol": (
            random, dataclasses.replace(judges, protocol=judge.Protocol(4, 256, 0.01, ())), "data",
        ),
        "other data": (random, judges, "others"),
        "other images": (dataclasses.replace(random, baseline="herding"), judges, "data"),
    }  # fmt: skip
    for _ in range(2):  # in the second round all is there
        found = judging._kept_scores(random, judges, None, baselines.Cache(tmp_path), "data")
        assert found == dict.fromkeys(judges.names, judging.Scores([0.5, 0.5], [], 3))
        assert asked == [["MLP"], ["ConvNet"]]
    for kind, (one, by, data) in others.items():
        asked.clear()
        found = judging._kept_scores(one, by, None, baselines.Cache(tmp_path), data)
        assert len(found["MLP"].accuracies) == by.num_eval
        assert asked == ([] if kind == "fewer" else [["MLP"], ["ConvNet"]]), kind
