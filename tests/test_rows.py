"""Facts about the rows of the scorer's table and the names of its sets."""

import dataclasses
import json

import pytest
import torch
from scored import a_row
from scripts import JUDGED_TWICE, run

from bacon import tables
from bacon.score import command, fair, rows
from bacon.score.rows import BIASED, Recorded, Row, distinct_names


def test_sets_with_the_same_end_of_path_have_names_that_differ(tmp_path, score, capsys):
    paths = [f"{name}/run/res.pt" for name in ("a", "b/c", "d/c")] + ["a/other/res.pt"]
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    for k, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True)
        images = torch.full((10, 1, 8, 8), float(k))
        torch.save({"data": [[images, torch.arange(10)]]}, tmp_path / path)
    rows = score(tmp_path, "--recursive", *line)
    names = [row["name"] for row in rows]
    assert names == ["other/res.pt", "a/run/res.pt", "b/c/run/res.pt", "d/c/run/res.pt"]
    # Rows that were kept by commands of their own have the short name; the table tells them apart.
    for row in rows:
        row["name"] = "/".join(row["set"].split("/")[-2:])
    (tmp_path / "kept.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run("BACON_mnist.py", *JUDGED_TWICE, "--save_path", tmp_path / "ours") == 0
    capsys.readouterr()
    assert command.main(None, ["--table", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert all(table.count(f"  {name}  ") == 1 for name in names), table


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/run/res.pt"], ["run/res.pt"]),
        (["res.pt", "run/res.pt"], ["res.pt", "run/res.pt"]),
        (["run/res.pt", "/x/run/res.pt"], ["run/res.pt", "x/run/res.pt"]),
        (["a/x/y/z.pt", "b/x/y/z.pt", "b/y/z.pt"], ["a/x/y/z.pt", "b/x/y/z.pt", "b/y/z.pt"]),
    ],
)
def test_a_name_is_as_long_as_it_takes(paths, names):
    assert list(distinct_names(paths).values()) == names


def test_tables_are_printed_as_text_and_markdown(digit_runs, narrow, capsys, digits_folder):
    line = [str(digit_runs / "no_tv"), f"--data_path={digits_folder}"]
    assert command.main(None, line) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["accuracy", "%"] and "reproduced" in row and "2 (8)" in row
    assert len(row) <= 120 and "seconds" not in head
    assert command.main(None, [*line, "--format=markdown", "--details"]) == 0
    main, title, behind = capsys.readouterr().out.strip().split("\n\n")
    head, rule, row = main.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 7 and set(rule) <= set("|- ")
    assert title.startswith("### ") and "reproduced" in row
    assert all(word in behind for word in ("accuracy %", "std experiments", "epochs", "seconds"))


ROW = a_row(
    set="a/x.pt",
    name="x.pt",
    layout="DC",
    assumed="normalised",
    decoded="40",
    accuracy=[[0.25, 0.5], [0.5, 0.75]],
    summary=tables.summary([[0.25, 0.5], [0.5, 0.75]]),
    protocol="1000 epochs",
    seconds=1.5,
)
EVERYTHING = dataclasses.replace(
    ROW,
    recorded=Recorded(50.0, 2.5, 4, of_ours=True, reproduced=True),
    best_epoch=62.5,
    hard=[[0.25, 0.25], [0.5, 0.5]],
    fair={"IOR": fair.Fraction(0.25, 0.0625), "HLR": fair.Fraction(0.5, 0.125)},
    validate=500,
)


def test_a_row_goes_into_a_json_line_and_back():
    of_theirs = dataclasses.replace(ROW, recorded=Recorded(50.0, 2.5, 4))
    baseline = dataclasses.replace(ROW, set="random", baseline="random", layout="baseline")
    for one in (ROW, EVERYTHING, of_theirs, baseline):
        assert Row.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_a_table_has_the_figures_of_each_row_and_tells_the_sets_apart():
    one = dataclasses.replace(ROW, set="r/a/x.pt", name="a/x.pt")
    state = dataclasses.replace(one, set="s/a/x.pt", name="a/x.pt #1", decoded="10", seconds=7.6)
    real = dataclasses.replace(one, set="random", name="random", baseline="random", stored="9-10")
    renamed = dataclasses.replace(one, set="s/a/y.pt", name="y of a")
    line = {"accuracy %": "50.00 +- 17.68", "set": "r/a/x.pt", "network": "ConvNet"}
    lines = [
        line | {"networks": 4, "ipc (decoded)": "10 (40)"},
        line | {"set": "s/a/x.pt #1", "networks": 4, "ipc (decoded)": "10"},
        line | {"set": "random", "networks": 4, "ipc (decoded)": "9-10 (40)"},
        line | {"set": "y of a", "networks": 4, "ipc (decoded)": "10 (40)"},
    ]
    assert rows.shown([one, state, real, renamed]) == {"": lines}
    spreads = {"std networks": "12.50", "std experiments": "12.50"}
    behind = {"numbers per class": "640", **spreads, "epochs": 1000}
    found = rows.shown([one, state, real, renamed], details=True)
    title = "what is behind each figure"
    seconds = (2, 8, 2, 2)
    assert found == {
        "": lines,
        title: [of | behind | {"seconds": one} for of, one in zip(lines, seconds, strict=True)],
    }


def test_a_table_has_what_is_known_of_one_row_for_all():
    other = dataclasses.replace(ROW, set="random", name="random", baseline="random")
    theirs = dataclasses.replace(ROW, recorded=Recorded(50.0, 2.5, 4))
    first, second, third = rows.shown([EVERYTHING, other, theirs])[""]
    line = {"accuracy %": "50.00 +- 17.68", "set": "x.pt", "network": "ConvNet"}
    assert first == line | {
        "recorded %": "50.00 (4) reproduced",
        "IOR": "0.250 +- 0.062",
        "HLR": "0.500 +- 0.125",
        BIASED: "62.50",
        "tested on": "validation (500 images per class)",
    }
    nothing = {"recorded %": "-", "IOR": "-", "HLR": "-", BIASED: "-", "tested on": "-"}
    assert second == line | {"set": "random"} | nothing
    assert third == line | nothing | {"recorded %": "50.00 (4)"}


def test_a_row_that_an_earlier_version_kept_is_read():
    kept = dataclasses.replace(ROW, recorded=Recorded(50.0, 2.5, 4)).as_json()
    assert "logged" not in kept
    for name in ("assumed", "numbers per class", "protocol settings", "epochs", "recorded std"):
        del kept[name]
    found = Row.from_json(kept)
    assert (found.assumed, found.numbers, found.protocol_settings, found.epochs) == ("", "", {}, "")
    assert found.recorded == Recorded(50.0, 0.0, 4)
    assert found.summary == ROW.summary and found.accuracy == ROW.accuracy
