"""Facts about .pt files: a file is at every moment the old one or the complete new one."""

import pytest
import torch

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
