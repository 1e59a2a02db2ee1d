"""Facts about what a run says of itself."""

import re

import pytest
import torch
from heard import hearing

from bacon import compute, flags, messages, parallel, recipes, tables
from bacon.run import cost, folder, words
from bacon.run import run as runner


def test_slurms_time_limit_is_said_where_it_is_known(monkeypatch, capsys):
    def time_left():
        with messages.speak("stdout"):
            words.tell_time_left()
        return capsys.readouterr().out

    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert time_left() == ""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    for end, left in (("8200", "2.0 h"), ("900", "0.0 s")):
        monkeypatch.setenv("SLURM_JOB_END_TIME", end)
        line = time_left()
        assert (
            line.startswith(f"Slurm ends this job in {left}; a judge")
            and "--epoch_eval_train" in line
        )


@pytest.fixture
def two_threads(stopped):
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_another_thread_count_is_mentioned(two_threads, script, capsys, monkeypatch):
    monkeypatch.setattr(runner.Run, "go", lambda *args: None)
    capsys.readouterr()
    assert script("--resume") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "bitwise" in line)
    assert re.search("distilling cpu, 1 threads, (.*), now cpu, 2 threads, \\1", line)


def test_what_departs_from_a_recipe_is_said_with_the_recipes_value():
    def said(*line):
        return words._recipe(flags.parse_args(("CIFAR10",), "", ["--ipc=10", *line]))

    alone = said()
    assert "except" not in alone and "--" not in alone
    assert said("--lr_img=0.3") == f"{alone}, except --lr_img 0.3 (not 0.2)"


@pytest.fixture
def described(tmp_path):
    """What a command line on a dataset is described as, in one line, without double spaces."""

    def say(line, dataset="Digits", processes=1):
        given = f"--dataset {dataset} --ipc 2 --num_eval 3 --save_path {tmp_path} {line}".split()
        settings = flags.parse_args(tuple(recipes.DATASETS), "", given)
        args = settings.args
        cpu = compute.Arithmetic("cpu")
        both = cost.Arithmetics(cpu, cpu)
        files = folder.Files(args, args.exp_index)
        world = parallel.World(0, processes)
        with hearing() as said:
            words.describe(settings, recipes.DATASETS[dataset], "a source", both, files, world)
        lines = [text for text in said if str(tmp_path) not in text]
        assert max(map(len, lines)) <= words.COLUMNS
        for text in said[1:]:  # a column of titles, and one of what is said
            assert text[10] == " " and text[11] != " "
        return " ".join(" ".join(said).split())

    return say


@pytest.mark.parametrize(
    ("line", "dataset", "said"),
    [
        ("", "Digits", "BACON distils Digits data 1,201 training and 596 test images, 1x8x8, 10"),
        ("", "Digits", "2 per class (128 numbers), four images each: 8 decoded; 20,000 iterations"),
        ("--no_aug", "Digits", "2 per class (128 numbers); 20,000 iterations"),
        ("", "CIFAR10", "2 per class (6,144 numbers)"),
        ("--recipe ours", "SVHN", "BACON distils SVHN, by our recipe data"),
        (
            "--chroma half",
            "SVHN",
            "canvases 4 per class, chroma at half resolution: the storage of 2 (6,144 numbers), "
            "four images each: 16 decoded",
        ),
        ("--Iteration 0", "Digits", "images of Digits that are judged and not distilled"),
        ("--num_exp 1", "Digits", "experiment 0 of 1, seed 0"),
        ("--num_exp 4 --seed 7", "Digits", "experiments 0 to 3 of 4, seed 7"),
        ("--num_exp 4 --exp_index 2", "Digits", "experiment 2 of 4"),
        ("--tv_weight 0 --lr_net 1", "Digits", ", except --tv_weight 0.0 (not 0.8), --lr_net 1.0"),
        ("--eval_mode C", "Digits", "at the last: 3 x ConvNet, 1,000 epochs"),
        ("--judge_steps 4000", "Digits", "at the last: 3 x ConvNet, 4,000 steps"),
        ("--compile", "Digits", "device cpu, "),
    ],
)
def test_a_run_is_described_by_its_numbers(line, dataset, said, described):
    assert said in described(line, dataset)


def test_choices_that_are_no_choice_are_not_explained(described):
    alone = described("")
    assert "compiled where the work repays it" in alone and "processes" not in alone
    assert "compiled where the work repays it" not in described("--no_compile")
    assert "2 processes, each on its own classes" in described("", processes=2)


SCORES = {"ConvNet": [[0.5, 0.7]], "LeNet": [[0.1, 0.1]]}


@pytest.mark.parametrize(
    ("line", "scores", "sentence"),
    [
        ("--ipc 1", SCORES, "1 canvas per class of Digits, distilled by BACON, train a fresh "
         "ConvNet to 60.00 % of the test images (+- 10.00 over 2 judges)"),
        ("--ipc 3 --validate 9", {"ConvNet": [[0.5], [0.7]]}, "3 canvases per class of Digits, "
         "distilled by BACON, train a fresh ConvNet to 60.00 % of the validation images"),
        ("--Iteration 0", {"ConvNet": [[0.5]]}, "Digits, not distilled, train"),
        ("--recipe ours", {"ConvNet": [[0.5]]}, "Digits, distilled by our recipe, train"),
    ],
)  # fmt: skip
def test_a_run_ends_in_a_sentence_and_in_a_table_of_what_there_is_to_compare(
    line, scores, sentence, monkeypatch
):
    args = flags.parse_args(("Digits",), "", line.split()).args
    told = []
    monkeypatch.setattr(messages.log, "info", told.append)
    words.tell_end(args, scores, ["a.pt", "a.png"])
    head, *paths = told[:3]
    *table, last = told[3:]
    assert (head, paths) == ("wrote", ["  a.pt", "  a.png"])
    assert sentence in " ".join(last.split())
    assert max(map(len, last.splitlines())) <= words.COLUMNS
    assert table == ([tables.of_scores(scores)] if sum(map(len, scores.values())) > 1 else [])
