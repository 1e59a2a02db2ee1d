"""Facts about the figures over judges, and about tables of finished runs."""

import json

import pytest
from logs import SHORT, ended, write_log, write_runs

from bacon import recipes, tables
from bacon.runs import by_kind, logs_below, read_runs
from bacon.score import command


@pytest.fixture
def runs(tmp_path):
    """A folder of runs."""
    return write_runs(tmp_path / "runs")


def printed(capsys, *line):
    assert command.main(None, [*map(str, line)]) == 0
    return capsys.readouterr().out


def rows_of(capsys, folder, *line):
    return [
        json.loads(row)
        for row in printed(capsys, "--table", folder, "--format=json", *line).splitlines()
    ]


def test_cells_hold_any_character_and_stay_one_cell():
    rows = [{"set": "a|b $x$ caf\udce9", "n": 1}]
    assert tables.render(rows).splitlines()[1] == r"a|b $x$ caf\xe9  1"
    assert tables.render(rows, markdown=True).splitlines()[2] == r"| a\|b \$x\$ caf\xe9 | 1 |"


@pytest.mark.parametrize(
    ("recorded", "fractions", "words"),
    [
        ([[0.1, 0.2], [1.0, 0]], [[0.1, 0.2], [1.0, 0]], ""),
        ([[50, 25.0], [0.5, 100]], [[0.5, 0.25], [0.005, 1]], "percent"),
        ([[0.5, 1.5]], [[0.005, 0.015]], "up to 1.5, taken for percent"),
        ([[0.1, float("nan")]], None, "1 of 2 are NaN"),
        ([[0.1], [float("inf")]], None, "1 of 2 are NaN or infinite"),
        ([[-0.1, 0.5]], None, "-0.1 to 0.5 are no accuracies"),
        ([[45.38, 4538.0]], None, "no accuracies"),
    ],
)
def test_recorded_accuracies_are_fractions_percent_or_none(recorded, fractions, words):
    found, said = tables.as_fractions(recorded)
    assert found == fractions and words in said and bool(words) == bool(said)


def test_summary_separates_networks_from_experiments():
    s = tables.summary([[0.5, 0.6], [0.7, 0.8]])
    assert (
        s["mean"] == pytest.approx(65)
        and s["std"] == pytest.approx(125**0.5)
        and s["networks"] == 4
    )
    assert s["std_networks"] == pytest.approx(5) and s["std_experiments"] == pytest.approx(10)
    assert tables.summary([[0.5, 0.6]])["std_experiments"] is None


def test_a_table_has_at_most_120_columns_and_loses_no_word():
    long, path = " ".join(f"--flag_{k} {k}" for k in range(40)), "a/" * 100 + "x.pt"
    for rows in (
        [{"a": 1, "settings": long}, {"a": 22, "settings": ""}],
        [{"set": path, "accuracy %": "1.00 +- 0.10"}],
    ):
        text, markdown = tables.render(rows), tables.render(rows, markdown=True)
        assert max(map(len, text.splitlines())) <= 120 and len(markdown.splitlines()) == 2 + len(
            rows
        )
        for value in rows[0].values():
            assert str(value) in markdown and set("".join(str(value).split())) <= set(text)
    assert all(word in tables.render([{"a": 1, "settings": long}]).split() for word in long.split())


def test_the_table_is_one_for_each_dataset_with_accuracy_first_and_the_papers_figure(runs, capsys):
    write_log(runs / "cifar", f"{SHORT} --dataset CIFAR10 --ipc 10", ended(0.5))
    text = printed(capsys, "--table", runs)
    cifar, digits = text.strip().split("\n\n")
    assert cifar.startswith("CIFAR10") and digits.startswith("Digits")
    title, head, row = cifar.splitlines()
    assert head.split()[:4] == ["accuracy", "%", "paper", "%"] and row.split()[:4] == [
        "50.00",
        "+-",
        "0.00",
        "62.06",
    ]
    assert (
        "own budget" in title
        and "paper" not in digits
        and "random (real)" in digits
        and "--tv_weight 0.0" in digits
    )
    assert "std" not in head and max(map(len, text.splitlines())) <= 120
    assert (
        recipes.paper_figure("DM", "TinyImageNet", 50) is None
        and recipes.paper_figure("DM", "SVHN", 1) is None
    )


def test_details_are_on_request_what_is_behind_each_figure_and_an_ablation(runs, capsys):
    text = printed(capsys, "--table", runs, "--details")
    first, second, third = text.strip().split("\n\n")
    title, _, head = " ".join(second.split()).partition("accuracy %")
    assert (
        "std experiments" in head
        and "20 epochs, four per canvas, fp32, all images aaaaaaaa" in title
    )
    assert "weights of BACON's terms" in third and len(third.splitlines()) == 4
    assert max(map(len, text.splitlines())) <= 120 and first in printed(capsys, "--table", runs)
    rows = [
        row
        for row in rows_of(capsys, runs)
        if row["set"] == "BACON" and row["judge"] == "ConvNetW32"
    ]
    assert [row["total variation"] for row in rows] == [0.8, 0.0]
    assert all((row["dataset"], row["ipc"], row["epochs"]) == ("Digits", 2, 20) for row in rows)


def test_the_best_iteration_is_shown_on_request_only_and_called_biased(runs, capsys):
    assert "biased" not in printed(capsys, "--table", runs)
    assert tables.BIASED in printed(capsys, "--table", runs, "--biased=1")
    rows = {row["set"]: row for row in rows_of(capsys, runs, "--biased=1") if row["flags"]}
    assert rows["BACON"]["mean"] == pytest.approx(40) and rows["BACON"][tables.BIASED] == 50


def test_the_best_iteration_has_two_decimals(tmp_path, capsys):
    write_log(tmp_path / "a", SHORT, ended(0.1234567))
    (row,) = rows_of(capsys, tmp_path, "--biased=1")
    assert row[tables.BIASED] == 12.35


def test_a_subset_never_passes_for_the_whole(tmp_path, capsys):
    line = f"{SHORT} --dataset CIFAR10 --ipc 10"
    subset = {"images": (500, 100), "sha": "subset" * 5}
    write_log(tmp_path / "a", line, ended(0.5), sha="whole" * 5, precision="bf16")
    write_log(tmp_path / "b", line, ended(0.5), **subset, precision="bf16")
    text = printed(capsys, "--table", tmp_path)
    assert text.count("50.00 +- 0.00  62.06") == 2
    assert "all images whole" in text and "500+100 images subset" in text
    assert {row["precision"] for row in rows_of(capsys, tmp_path)} == {"bf16/fp32"}
    assert "500+100 images subset" in printed(capsys, "--table", tmp_path / "b")


def test_the_table_joins_seeds_and_leaves_out_unfinished_runs(tmp_path, capsys):
    for seed in (0, 1):
        write_log(
            tmp_path / f"random{seed}", f"{SHORT} --Iteration 0 --seed {seed}", ended(0.3, it=0)
        )
    log = write_log(tmp_path / "run", f"{SHORT} --no_aug", ended(0.4))
    (tmp_path / "stopped").mkdir()
    stopped = tmp_path / "stopped/log_x.jsonl"
    stopped.write_text("\n".join(log.read_text().splitlines()[:-1]))
    rows = {row["set"]: row for row in rows_of(capsys, tmp_path)}
    one, two = rows["BACON"], rows["random (real)"]
    assert one["mean"] == pytest.approx(40)
    assert (one["images per canvas"], one["network"], one["networks"], one["experiments"]) == (
        "one",
        "ConvNetW32",
        1,
        1,
    )
    assert (two["images per canvas"], two["networks"], two["experiments"]) == (
        "four",
        2,
        2,
    ) and len(rows) == 2
    assert command.main(None, ["--table", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


FOREIGN_LOGS = {
    "cut": b"{",
    "other lines": b'{"epoch": 1}\n{"epoch": 2}\n',
    "no dictionary": b"[1]\n",
    "bytes": b"\xff",
}


def test_a_foreign_log_gets_a_line_and_does_not_stop_a_folder(tmp_path, capsys):
    write_log(tmp_path / "run", SHORT, ended(0.4))
    for name, text in FOREIGN_LOGS.items():
        (tmp_path / f"log_{name}.jsonl").write_bytes(text)
    (tmp_path / "log_folder.jsonl").mkdir()
    (tmp_path / "log_dangling.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.jsonl").mkdir()
    # A row of another program.
    row = {"set": "x", "accuracy": [[0.5]], "protocol": "y", "dataset": "Digits"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert command.main(None, ["--table", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "40.00" in said.out
    skipped = [text for text in said.err.splitlines() if text.startswith("skipped: ")]
    for name in (*FOREIGN_LOGS, "folder", "dangling"):
        assert any(f"log_{name}.jsonl" in text for text in skipped)
    assert len(skipped) == len(FOREIGN_LOGS) + 3


def test_runs_with_other_settings_never_share_a_row_and_no_run_is_lost(tmp_path, capsys):
    line = f"{SHORT} --tv_weight 0"
    write_log(tmp_path / "a", line, ended(0.1, 0.1))
    write_log(tmp_path / "copy", line, ended(0.1, 0.1))
    write_log(tmp_path / "fewer judges", line, ended(0.1))
    write_log(tmp_path / "same seed", line, ended(0.3, 0.3))
    write_log(tmp_path / "noise", f"{line} --init noise", ended(0.9))
    write_log(tmp_path / "random noise", f"{line} --init noise --Iteration 0", ended(0.5, it=0))
    write_log(tmp_path / "long", f"{line} --epoch_eval_train 21", ended(0.6))
    write_log(tmp_path / "whole canvases", f"{line} --no_aug", ended(0.7))
    write_log(tmp_path / "fewer images", line, ended(0.8), sha="b" * 64)
    write_log(tmp_path / "compiled", line, ended(0.2), precision="bf16")
    rows = rows_of(capsys, tmp_path)
    found = [
        (row["set"], "--init noise" in row["flags"], round(row["mean"]), row["experiments"])
        for row in rows
    ]
    # Random images do not depend on the loss.
    assert all(("--tv_weight 0.0" in row["flags"]) == (row["set"] == "BACON") for row in rows)
    bacon = {
        ("BACON", False, 20, 2),
        ("BACON", True, 90, 1),
        *(("BACON", False, mean, 1) for mean in (60, 70, 80, 20)),
    }
    assert set(found) == bacon | {("random (noise)", False, 50, 1)} and len(found) == 7
    *_, head, _, a, b, c, d, e, f, g = (
        printed(capsys, "--table", tmp_path, "--format=markdown").strip().splitlines()
    )
    lines, names = (a, b, c, d, e, f, g), [name.strip() for name in head.split("|")]
    said = [dict(zip(names, map(str.strip, line.split("|")), strict=True)) for line in lines]
    assert (
        len(
            {
                tuple(row[name] for name in ("ipc", "set", "network", "judge", "settings"))
                for row in said
            }
        )
        == 7
    )
    for words in ("--init noise", "21 epochs", "one per canvas", "bbbbbbbb", "bf16/fp32"):
        assert sum(words in line for line in lines) == 1
    assert not any("iterations" in line for line in lines)
    assert sum("--tv_weight" in line for line in lines) == 6


def test_validation_accuracies_and_judges_of_equal_steps_have_tables_and_rows_of_their_own(
    tmp_path, capsys
):
    write_log(tmp_path / "test", SHORT, ended(0.5))
    write_log(tmp_path / "held", f"{SHORT} --validate 9", ended(0.9), images=(8, 4))
    write_log(tmp_path / "steps", f"{SHORT} --judge_steps 402", ended(0.6))
    write_log(tmp_path / "ours", f"{SHORT} --recipe ours", ended(0.7))
    write_log(tmp_path / "clusters", f"{SHORT} --Iteration 0 --init cluster", ended(0.4, it=0))
    text = printed(capsys, "--table", tmp_path, "--details")
    ours, validation = text.split("Digits, validation (9 images per class): accuracy")
    assert (
        "90.00" in validation
        and "90.00" not in ours
        and "test accuracy" not in validation.split("Digits:")[0]
    )
    rows = {round(row["mean"]): row for row in rows_of(capsys, tmp_path)}
    assert rows[60]["training"] == "402 steps" and rows[50]["training"] == "20 epochs"
    assert (rows[70]["set"], rows[40]["set"], rows[50]["set"]) == (
        "ours",
        "one per cluster",
        "BACON",
    )
    assert (rows[50]["numbers"], rows[50]["images"]) == (2 * 64, 8)


def test_scores_that_were_kept_as_json_have_tables_by_protocol_and_other_files_have_none(
    runs, capsys, digits_folder
):
    line = "--baseline random --dataset Digits --model ConvNetW32 --ipc 1 --num_eval 1"
    line += " --judge_steps 2 --no_compile"
    own = ["--data_path", digits_folder, "--save_path", runs.parent / "cache"]
    kept = printed(capsys, *line.split(), *own, "--format=json")
    (runs / "2_steps.jsonl").write_text(kept + "no JSON\n")
    (runs / "other.jsonl").write_text('{"set": "of somebody else"}\n[1]\n')
    row = json.loads(kept)
    _, table = printed(capsys, "--table", runs).split("Digits: 2 steps, batch 256, sgd 0.01, DSA ")
    assert f"{row['mean']:.2f} +- 0.00  random  ConvNetW32" in table and "somebody" not in table
    assert rows_of(capsys, runs)[-1] == row and len(rows_of(capsys, runs)) == 5


@pytest.mark.parametrize("length", [10, 20, 23, 78, 79, 90, 300])
def test_a_column_that_is_cut_keeps_both_ends_and_loses_no_more_than_a_line_has_too_much(length):
    name = "ab" + "x" * (length - 4) + "yz"
    rows = [{"set": name, "other": "o" * 40}, {"set": "short"}]
    head, line, short = tables.render(rows, cut="set").splitlines()
    shown, other = line.split()
    assert other == "o" * 40 and short.split() == ["short", "-"]
    assert head.index("other") == line.index(other) == short.index("-")
    if length + 2 + len(other) <= tables.WIDTH:
        assert shown == name
    else:
        assert len(line) == tables.WIDTH and "..." in shown
        first, last = shown.split("...")
        assert name.startswith(first) and name.endswith(last)
        assert abs(len(first) - len(last)) <= 1


def test_beside_a_column_that_goes_on_below_a_cut_one_stays_readable():
    words = {"settings": "word " * 60}
    for length in (tables.CUT - 1, tables.CUT):
        assert "x" * length in tables.render([{"set": "x" * length, **words}], cut="set")
    text = tables.render([{"set": "a" * 30 + "b" * 30, **words}], cut="set")
    (shown,) = (word for word in text.split() if "..." in word)
    assert len(shown) == tables.CUT and abs(shown.count("a") - shown.count("b")) <= 1
    assert text.split().count("word") == 60
    assert tables.WIDTH - len("word ") < max(map(len, text.splitlines())) <= tables.WIDTH


def a_row_of_details(name):
    """A row with all columns that evaluate.py --details has, of the usual widths."""
    return {
        "accuracy %": "45.38 +- 10.12",
        "set": name,
        "network": "ConvNetW32",
        "networks": 1,
        "ipc (decoded)": "10 (40)",
        "numbers per class": "30720",
        "std networks": "0.00",
        "std experiments": "-",
        "epochs": 1000,
        "seconds": 12,
    }


def test_where_many_columns_stand_beside_a_long_name_only_their_heads_go_on_below():
    rows = [a_row_of_details("folder/" + "x" * 80 + ".pt"), a_row_of_details("y.pt")]
    *heads, first, second = tables.render(rows, cut="set").splitlines()
    assert 1 < len(heads) < 4
    for row, line in zip(rows, (first, second), strict=True):
        cells = [str(cell) for name, cell in row.items() if name != "set"]
        assert [cell for cell in cells if f" {cell} " in f" {line} "] == cells
    (shown,) = (word for word in first.split() if "..." in word)
    assert len(shown) == tables.CUT
    assert sorted(" ".join(heads).split()) == sorted(" ".join(rows[0]).split())
    assert max(len(line) for line in (*heads, first, second)) <= tables.WIDTH


def test_a_table_is_wider_than_the_screen_rather_than_of_columns_that_nobody_can_read():
    rows = [{f"column {number}": "of words " * 9 for number in range(12)}]
    lines = tables.render(rows).splitlines()
    assert all(word in ("column", "of", "words") or word.isdigit() for word in lines_words(lines))
    assert tables.WIDTH < max(map(len, lines)) <= 12 * (tables.LEAST + 2)


def lines_words(lines):
    return " ".join(lines).split()


def test_columns_in_which_no_line_has_anything_are_left_out():
    lines = [{"a": "", "b": None, "c": 0}, {"a": 1, "d": 2}]
    picked = tables.pick(lines, ("d", "b", "c", "a"))
    assert picked == [{"d": "-", "c": 0, "a": "-"}, {"d": 2, "c": "-", "a": 1}]
    assert list(picked[0]) == ["d", "c", "a"]
    assert tables.render(picked).splitlines() == ["d  c  a", "-  0  -", "2  -  1"]


@pytest.mark.parametrize(
    ("line", "weights"),
    [
        ("", {"log-likelihood": 1.0, "total variation": 0.8, "cross-entropy": 0.5}),
        ("--ce_weight 3", {"total variation": 0.8, "cross-entropy": 3.0}),
        ("--no_syn_ce", {"total variation": 0.8, "cross-entropy": 0}),
        ("--method DM", {}),
        ("--recipe ours", {}),  # whose name says its weights
        ("--Iteration 0", {}),
    ],
)
def test_the_weights_of_a_loss_are_told_of_methods_that_have_some(line, weights, tmp_path):
    distilled = "--Iteration" not in line
    write_log(tmp_path / "run", f"{SHORT} {line}", ended(0.5, it=2 if distilled else 0))
    (row,) = tables.of_runs(tmp_path)
    assert weights.items() <= row.weights().items() and bool(row.weights()) == bool(weights)
    assert row.weights().items() <= row.as_json().items()


def test_settings_are_said_once_where_all_share_them_and_else_of_each(tmp_path):
    def said(*lines, **words):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for number, line in enumerate(lines):
            it = 0 if "--Iteration 0" in line else 3 if "--Iteration 3" in line else 2
            write_log(folder / str(number), f"{SHORT} {line}", ended(0.1 * number, it=it))
        judged = by_kind(read_runs(logs_below(folder)))
        found = tables.settings(judged, **words)
        return found.shared, found.own

    every = "20 epochs, four per canvas, fp32, all images aaaaaaaa"
    # Random images go with runs of any number of iterations.
    assert said("", "--Iteration 0") == (f"2 iterations, {every}", ["", ""])
    three = said("", "--Iteration 3", "--Iteration 0")
    assert three == (every, ["2 iterations", "3 iterations", ""])
    assert said("--Iteration 0") == (every, [""])
    apart = said("--no_aug", "--judge_steps 4000 --lr_img 1")
    assert apart == (
        "2 iterations, fp32, all images aaaaaaaa",
        ["20 epochs, one per canvas", "4,000 steps, four per canvas, --lr_img 1.0"],
    )
    shared, own = said("", "--lr_img 1", networks=True)
    assert shared == f"ConvNetW32 judged by ConvNetW32, 2 iterations, {every}"
    assert own == ["", "--lr_img 1.0"]
