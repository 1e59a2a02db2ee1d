"""Facts about what a run says of itself."""

import re

import pytest
import torch

from bacon import flags, messages
from bacon.run import run as runner
from bacon.run import words


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
