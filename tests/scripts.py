"""Scripts run in the tests' own process: no start, no import, and whatever they call can be
replaced."""

import importlib
import json
import shlex

import pytest

from bacon import flags
from bacon.run import run as runner
from bacon.score import command

CIFARS = ("CIFAR10", "CIFAR100")
# A run on Digits that takes a second: two canvases per class, three iterations.
SMALL = [
    "--dataset=Digits",
    "--model=ConvNetW32",
    "--ipc=2",
    "--Iteration=3",
    "--batch_real=20",
    "--trained_bs=16",
    "--model_train_steps=2",
    "--num_exp=1",
    "--num_eval=1",
    "--epoch_eval_train=2",
    "--eval_interval=100",
    "--precision=fp32",
]
# One that is over sooner, whose sets are judged twice, at every iteration.
JUDGED_TWICE = [
    *SMALL,
    "--Iteration=2",
    "--model_train_steps=1",
    "--num_eval=2",
    "--eval_interval=1",
]
# One to be interrupted: two experiments with two evaluations each, in the folder "result".
INTERRUPTED = [
    "--dataset=Digits",
    "--model=ConvNetW32",
    "--ipc=1",
    "--Iteration=6",
    "--eval_interval=4",
    "--batch_real=8",
    "--trained_bs=8",
    "--model_train_steps=2",
    "--net_generate_interval=2",
    "--net_num=5",
    "--meter_reset=3",
    "--num_exp=2",
    "--num_eval=2",
    "--epoch_eval_train=1",
    "--save_path=result",
]


def run(script, *argv):
    """The exit code of a script with these flags."""
    module = importlib.import_module(script.removesuffix(".py"))
    try:
        return runner.main(flags.parse_args(module.DATASETS, module.__doc__, list(map(str, argv))))
    except SystemExit as stop:
        return stop.code


def run_name(script, *argv):
    """What the files of a run with these flags are named after."""
    module = importlib.import_module(script.removesuffix(".py"))
    return flags.run_name(flags.parse_args(module.DATASETS, "", list(map(str, argv))).args)


def events(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def assert_one_line(capsys, *words):
    """Standard error holds one line with all the words in it; returns it."""
    text = capsys.readouterr().err
    assert (
        text.count("\n") == 1
        and "Traceback" not in text
        and all(str(word) in text for word in words)
    ), text
    return text


def settings(line):
    """(flags, all that is said of them) of a command line of BACON_cifar10.py."""
    parsed = flags.parse_args(CIFARS, "", shlex.split(line))
    return parsed.args, parsed


def scorer(*words):
    """The arguments of a command line of evaluate.py."""
    return command.build_parser(None).parse_args([str(word) for word in words])


def contents(folder):
    """{path: bytes} of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(words, capsys, parse=settings):
    """The line that a command line is refused with, by code 2."""
    with pytest.raises(SystemExit) as stop:
        parse(words)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1
    return text
