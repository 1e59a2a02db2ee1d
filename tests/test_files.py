"""Facts about files: each is at every moment the old one or the complete new one; locks."""

import contextlib
import threading

import pytest
import torch
from stops import held

from bacon import files


def test_an_interrupted_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.pt"
    files.save_torch({"a": 1}, path)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"pickle|local object"):
        files.save_torch({"a": lambda: 0}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_file_before_is_kept_once_the_new_one_is_complete(tmp_path):
    path, previous = tmp_path / "x.pt", tmp_path / "x_previous.pt"
    files.save_torch({"a": 1}, path, previous)
    assert not previous.exists()
    files.save_torch({"a": torch.ones(2)}, path, previous)
    assert files.load_torch(previous) == {"a": 1} and files.load_torch(path)["a"].tolist() == [1, 1]


def test_a_task_that_looks_does_not_turn_away_one_that_starts(tmp_path):
    looking = held(tmp_path / "lock")  # as a task holds the lock of the whole run for a moment
    timer = threading.Timer(0.3, looking.close)
    timer.start()
    with contextlib.ExitStack() as stack:
        files.lock(stack, tmp_path / "lock", "held", patience=10)
        assert (tmp_path / "lock").exists()
    timer.join()
    assert not (tmp_path / "lock").exists()
