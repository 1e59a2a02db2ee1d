"""Facts about plots of finished runs, and about where they go."""

import pytest
from logs import SHORT, ended, write_log, write_runs
from scripts import assert_one_line, events

from bacon import figures, plots
from bacon.errors import UserError
from bacon.score import command


@pytest.fixture
def runs(tmp_path):
    """A folder of runs."""
    return write_runs(tmp_path / "runs")


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: the arguments of figures.curve."""
    calls = []
    monkeypatch.setattr(figures, "curve", lambda *arguments: calls.append(arguments))
    return calls


def test_a_plot_has_a_curve_for_each_kind_of_run_over_the_same_experiments(tmp_path, drawn):
    line = f"{SHORT} --tv_weight 0"
    low = {"ConvNetW32": [[0.1, 0.1]]}
    high = {"ConvNetW32": [[0.7, 0.7]]}
    write_log(tmp_path / "a", line, {1: low, 2: low})
    write_log(tmp_path / "copy", line, {1: low, 2: low})
    write_log(tmp_path / "c", f"{line} --seed 6", {1: low, 2: low})
    write_log(tmp_path / "judged at the end", f"{line} --seed 4", ended(0.5, 0.5))
    write_log(tmp_path / "at other iterations", f"{line} --seed 5", {0: low, 2: high})
    both = {"ConvNetW32": [[0.9]], "ConvNet": [[0.9]]}
    write_log(tmp_path / "b", f"{SHORT} --lh_weight 0 --eval_mode C", {1: both, 2: both})
    plots.plot_runs([tmp_path], tmp_path / "x.png")
    assert drawn[0][0] == {
        "BACON, judged by ConvNetW32, --tv_weight 0.0": {1: [10.0] * 4, 2: [10.0] * 4},
        "BACON, judged by ConvNetW32, --lh_weight 0.0": {1: [90.0], 2: [90.0]},
        "BACON, judged by ConvNet, --lh_weight 0.0": {1: [90.0], 2: [90.0]},
    }


def test_a_plot_stands_beside_its_log_or_in_the_folder(runs, drawn, capsys):
    (log,) = (runs / "no_tv").glob("log_*")
    assert command.main(None, ["--plot", str(log)]) == 0
    assert command.main(None, ["--plot", str(runs)]) == 0
    assert command.main(None, ["--plot", str(log), str(runs / "own.png")]) == 0
    paths = [runs / "no_tv/acc_BACON_Digits.png", runs / "acc_runs.png", runs / "own.png"]
    assert [call[3] for call in drawn] == [*paths[:2], str(paths[2])]
    assert capsys.readouterr().err.splitlines() == [str(path) for path in paths]


def test_a_plot_has_lines_to_compare_with(runs, drawn):
    (log,) = (runs / "no_tv").glob("log_*")
    plots.plot_runs([log])
    curves, lines, title, _ = drawn[0]
    assert curves == {"BACON, judged by ConvNetW32": {1: [60.0, 40.0], 2: [40.0, 40.0]}}
    assert lines == {"random images, judged by ConvNetW32": pytest.approx(30)}
    assert "2 iterations" in title
    plots.plot_runs([write_log(runs / "cifar", f"{SHORT} --dataset CIFAR10 --ipc 10", ended(0.5))])
    assert drawn[-1][1] == {"the paper's BACON (ConvNet, full budget)": 62.06}


def test_random_images_are_those_of_the_same_kind_and_seed_if_there_are_any(tmp_path, drawn):
    start = f"{SHORT} --Iteration 0"
    write_log(tmp_path / "seed0", start, ended(0.3, it=0))
    write_log(tmp_path / "seed1", f"{start} --seed 1", ended(0.5, it=0))
    write_log(tmp_path / "whole", f"{start} --no_aug", ended(0.9, it=0))
    write_log(tmp_path / "longer", f"{start} --epoch_eval_train 21", ended(0.9, it=0))
    write_log(tmp_path / "other images", start, ended(0.9, it=0), sha="b" * 64)
    for seed, expected in ((0, 30), (1, 50), (2, 40)):
        log = write_log(tmp_path / f"run{seed}", f"{SHORT} --seed {seed}", ended(0.5))
        plots.plot_runs([log])
        assert drawn[-1][1] == {"random images, judged by ConvNetW32": pytest.approx(expected)}


def test_random_images_of_another_dataset_hide_none_of_another_seed(tmp_path, drawn):
    start = f"{SHORT} --Iteration 0"
    write_log(tmp_path / "start", start, ended(0.3, it=0))
    write_log(tmp_path / "copy", start, ended(0.3, it=0))
    write_log(tmp_path / "seed2", f"{start} --seed 2", ended(0.5, it=0))
    write_log(tmp_path / "mnist", f"{start} --seed 1 --dataset MNIST", ended(0.9, it=0))
    plots.plot_runs([write_log(tmp_path / "run", f"{SHORT} --seed 1", ended(0.5))])
    # The copy of a log counts once.
    assert drawn[0][1] == {"random images, judged by ConvNetW32": pytest.approx(40)}


def test_images_that_stand_for_clusters_are_not_called_random(tmp_path, drawn):
    by_cluster = f"{SHORT} --init cluster"
    write_log(tmp_path / "start", f"{by_cluster} --Iteration 0", ended(0.3, it=0))
    plots.plot_runs([write_log(tmp_path / "run", by_cluster, ended(0.5))])
    label = "initial images, one per cluster, judged by ConvNetW32"
    assert drawn[0][1] == {label: pytest.approx(30)}


def test_runs_of_several_budgets_share_a_plot(tmp_path, drawn):
    here = tmp_path / "here"
    there = tmp_path / "there"
    write_log(here / "random", f"{SHORT} --Iteration 0", ended(0.3, it=0))
    short = write_log(here / "short", SHORT, ended(0.4))
    write_log(there / "long", f"{SHORT} --Iteration 4", {2: ended(0.5)[2], 4: ended(0.6)[2]})
    out = tmp_path / "new.png"
    assert command.main(None, ["--plot", str(short), str(here), str(there), str(out)]) == 0
    ((curves, lines, title, path),) = drawn
    assert list(curves.values()) == [{2: [40.0]}, {2: [50.0], 4: [60.0]}]
    assert lines == {"random images, judged by ConvNetW32": pytest.approx(30)}
    assert title.endswith("ConvNetW32, up to 4 iterations") and path == str(out)


def test_runs_of_several_kinds_share_no_plot(runs, drawn, capsys):
    log = write_log(runs / "cifar", f"{SHORT} --dataset CIFAR10 --ipc 10", ended(0.5))
    with pytest.raises(UserError, match="2 kinds"):
        plots.plot_runs([runs])
    assert command.main(None, ["--plot", str(log), str(runs / "no_tv"), "y.png"]) == 2
    assert_one_line(capsys, f"--plot {log} {runs / 'no_tv'}: holds finished runs of 2 kinds")
    assert command.main(None, ["--plot", str(log), "x.png", "y.png"]) == 2
    assert_one_line(capsys, "--plot x.png: no such file or folder")
    assert not drawn


def test_a_plot_of_validation_accuracy_says_so(tmp_path, drawn):
    log = write_log(tmp_path / "held", f"{SHORT} --validate 9", ended(0.5), images=(8, 4))
    plots.plot_runs([log])
    assert "validation (9 images per class)" in drawn[0][2] and drawn[0][4] == "validation"


def test_somebody_elses_files_do_not_disturb_a_plot(tmp_path, drawn):
    (tmp_path / "other/log_folder.jsonl").mkdir(parents=True)
    (tmp_path / "other/log_damaged.jsonl").write_text("{")
    (tmp_path / "other/log_dangling.jsonl").symlink_to(tmp_path / "nowhere")
    log = write_log(tmp_path / "ours", SHORT, ended(0.5))
    assert plots.plot_runs([log]) == tmp_path / "ours/acc_BACON_Digits.png" and len(drawn) == 1


def test_a_foreign_log_stops_no_plot_of_a_folder_but_its_own(tmp_path, drawn, capsys):
    write_log(tmp_path / "run", SHORT, ended(0.4))
    foreign = tmp_path / "log_cut.jsonl"
    foreign.write_text("{")
    assert command.main(None, ["--plot", str(tmp_path)]) == 0
    assert f"skipped: {foreign}" in capsys.readouterr().err and len(drawn) == 1
    assert command.main(None, ["--plot", str(foreign)]) == 2
    assert_one_line(capsys, foreign, "not a log of these scripts")


# Where a plot goes


@pytest.fixture
def four_logs(tmp_path, drawn, monkeypatch):
    """Four logs of one run in the current folder."""
    monkeypatch.chdir(tmp_path)
    log = write_log(tmp_path / "made", SHORT, ended(0.5))
    for name in ("log_a.jsonl", "log_b.jsonl", "log_c.jsonl", "log_d.jsonl"):
        (tmp_path / name).write_bytes(log.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            "log_a.jsonl log_b.jsonl",
            "log_a.jsonl would replace log_b.jsonl, which is the log of a run",
        ),
        ("log_a.jsonl log_a.jsonl", "would replace log_a.jsonl, which is read"),
        ("log_a.jsonl linked", "would replace linked, which is the log of a run"),
        ("log_a.jsonl made", "is a folder; name a file, such as made/new.png"),
        ("log_a.jsonl res.pt", "would replace res.pt, which is a file of another kind"),
        ("log_a.jsonl new.jsonl", "the name ends in .jsonl"),
        (". log_b.jsonl", "would replace log_b.jsonl"),
        (
            "log_a.jsonl log_b.jsonl log_c.jsonl",
            "log_a.jsonl log_b.jsonl would replace log_c.jsonl, which is the log of a run",
        ),
        (
            "log_a.jsonl log_b.jsonl log_c.jsonl log_d.jsonl",
            "log_a.jsonl and 2 more would replace log_d.jsonl, which is the log of a run",
        ),
    ],
    ids=lambda value: value[:25],
)
def test_what_a_shell_makes_of_a_pattern_never_writes_over_a_file(
    names, words, four_logs, drawn, capsys
):
    (four_logs / "linked").symlink_to("log_b.jsonl")
    (four_logs / "res.pt").write_text("mine")

    def contents():
        return {path: path.read_bytes() for path in four_logs.rglob("*.*") if path.is_file()}

    before = contents()
    assert command.main(None, ["--plot", *names.split()]) == 2
    assert_one_line(capsys, "--plot", words)
    assert contents() == before and not drawn


@pytest.mark.parametrize("taken", ["of the folder", "without log_", "not a picture"])
def test_a_plot_by_default_replaces_no_other_runs_plot(taken, tmp_path, drawn):
    log = write_log(tmp_path / "BACON_Digits", SHORT, ended(0.5))
    plotted = log.parent
    if taken == "of the folder":
        write_log(log.parent / "more", f"{SHORT} --seed 1", ended(0.5))
    elif taken == "without log_":
        plotted = log.with_name("BACON_Digits.jsonl")
        plotted.write_bytes(log.read_bytes())
    else:
        (log.parent / "acc_BACON_Digits.png").write_text("mine")
    with pytest.raises(UserError, match=r"acc_BACON_Digits\.png") as error:
        plots.plot_runs([plotted])
    named = plotted if taken != "not a picture" else ""
    assert str(error.value).startswith(f"--plot {named}") and not drawn
    plots.plot_runs([plotted], tmp_path / "a/new/folder.png")
    assert len(drawn) == 1 and (tmp_path / "a/new").is_dir()


def test_the_folder_of_a_single_run_has_that_runs_plot(tmp_path, drawn):
    log = write_log(tmp_path / "BACON_Digits", SHORT, ended(0.5))
    picture = log.parent / "acc_BACON_Digits.png"
    assert plots.plot_runs([log]) == picture and plots.plot_runs([log.parent]) == picture


def test_a_run_ends_in_a_plot_of_its_accuracy(digit_runs, drawn, tmp_path, monkeypatch):
    (log,) = (digit_runs / "BACON").glob("log_*")
    (plot,) = (digit_runs / "BACON").glob("acc_*.png")
    alone = tmp_path / log.name  # without the random images that have come beside it
    alone.write_bytes(log.read_bytes())
    plots.plot_runs([alone])
    ((curves, *rest, _),) = drawn
    monkeypatch.undo()
    figures.curve(curves, *rest, tmp_path / "again.png")
    assert plot.read_bytes() == (tmp_path / "again.png").read_bytes()
    logged = {}
    for event in events(log):
        if event["event"] == "evaluation":
            accuracies = logged.setdefault(event["network"], {}).setdefault(event["it"], [])
            accuracies += [100 * accuracy for accuracy in event["accuracy"]]
    assert list(curves.values()) == list(logged.values())
    assert not list((digit_runs / "random").glob("acc_*"))


@pytest.mark.parametrize(
    ("flags", "images"),
    [
        ("--seed 0", None),
        *((f"--{words}", None) for words in (
            "ipc 3", "no_aug", "chroma half", "epoch_eval_train 21", "judge_steps 7", "zca",
            "init noise", "lr_net 1", "batch_train 7", "dsa_strategy flip",
        )),
        ("--validate 9", (8, 4)),
    ],
)  # fmt: skip
def test_random_images_that_were_chosen_or_judged_otherwise_are_no_start(
    flags, images, tmp_path, drawn
):
    random = f"{SHORT} --Iteration 0 {flags}"
    write_log(tmp_path / "random", random, ended(0.3, it=0), images=images)
    plots.plot_runs([write_log(tmp_path / "run", SHORT, ended(0.5))])
    plots.plot_runs([write_log(tmp_path / "alike", f"{SHORT} {flags}", ended(0.5), images=images)])
    lines = {"random images, judged by ConvNetW32": pytest.approx(30)}
    assert [call[1] for call in drawn] == [lines if flags == "--seed 0" else {}, lines]
