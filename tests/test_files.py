"""Facts about files: each is at every moment the old one or the complete new one; locks."""

import contextlib
import errno
import os
import socket
import stat
import threading

import pytest
import torch
from heard import hearing
from layouts import Bomb
from loads import locked
from stops import held

from bacon import files
from bacon.errors import DamagedError, UserError


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


# Saving


def test_a_saved_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    path = tmp_path / "x.pt"
    before = os.umask(0o027)
    try:
        files.save_torch({}, path)
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        assert os.umask(before) == 0o027


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_the_name_is_brought_there_too(
    tmp_path, monkeypatch
):
    path = tmp_path / "x.pt"
    synced = []
    handles = []

    def note(handle):
        handles.append(handle)
        status = os.fstat(handle)
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    files.save_torch({"a": torch.ones(9)}, path)
    of_file, of_folder = synced
    assert of_file == (False, path.stat().st_size, False)
    assert of_folder[0] and of_folder[2]
    for handle in handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_a_file_system_that_syncs_no_folders_is_saved_to(tmp_path, monkeypatch):
    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    files.save_torch({"a": 1}, tmp_path / "x.pt")
    assert files.load_torch(tmp_path / "x.pt") == {"a": 1}


def test_a_save_that_does_not_fit_names_the_file_and_leaves_the_old_one(tmp_path, small_disk):
    path, previous = tmp_path / "x.pt", tmp_path / "previous.pt"
    files.save_torch({"a": 1}, path)
    with pytest.raises(OSError, match="File too large") as error:
        files.save_torch({"a": torch.zeros(100_000)}, path, previous)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == [path] and files.load_torch(path) == {"a": 1}
    gone = tmp_path / "gone/x.pt"
    with pytest.raises(FileNotFoundError) as error:
        files.save_torch({}, gone)
    assert error.value.filename == str(gone)


# Loading


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "Input/output error"), UserError),
        (OSError(errno.EINVAL, "Invalid argument"), DamagedError),
        (ValueError("of some kind"), DamagedError),
        (MemoryError(), MemoryError),
        (RuntimeError("you tried to allocate memory"), RuntimeError),
    ],
)
def test_what_a_file_holds_is_blamed_only_where_it_can_be_at_fault(
    error, kind, old_format, tmp_path, monkeypatch
):
    path = tmp_path / "x.pt"
    torch.save({}, path, _use_new_zipfile_serialization=not old_format)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    if old_format and not issubclass(kind, UserError):
        kind = DamagedError  # without checksums, damage may ask for any memory
    with pytest.raises(kind) as found:
        files.load_torch(path, "; do this")
    assert type(found.value) is kind
    if kind is DamagedError:
        of_kind = f"not a .pt file of plain tensors ({type(error).__name__}); do this"
        assert str(found.value) == f"{path}: damaged or {of_kind}"
    elif kind is UserError:
        assert str(found.value) == f"{path}: Input/output error"


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    for old_format in (False, True):
        options = {"_use_new_zipfile_serialization": not old_format}
        torch.save(Bomb(tmp_path / "ran"), tmp_path / "x.pt", **options)
        with pytest.raises(files.HoldsCode, match=r"it holds \S+, whose code is not run$"):
            files.load_torch(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


# Places


def test_what_keeps_people_out_is_named_and_nothing_above_it(tmp_path, monkeypatch):
    refused = PermissionError(errno.EACCES, "Permission denied")
    said = "cannot be read (Permission denied)"
    (tmp_path / "a/b").mkdir(parents=True)
    assert str(files.unreadable(tmp_path / "a/b", refused)) == f"{tmp_path / 'a/b'}: {said}"
    locked(monkeypatch, tmp_path / "a")
    assert str(files.unreadable(tmp_path / "a/b/c", refused)) == f"{tmp_path / 'a'}: {said}"
    broken = OSError(errno.EIO, "Input/output error")
    expected = f"{tmp_path / 'a/b/c'}: cannot be read (Input/output error)"
    assert str(files.unreadable(tmp_path / "a/b/c", broken)) == expected
    with pytest.raises(UserError, match="a: cannot be read"):
        files.there(tmp_path / "a/b")


def test_what_is_there_is_told_from_what_is_gone(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "sound").symlink_to(tmp_path / "file")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    assert files.there(tmp_path) and files.there(tmp_path / "sound")
    for name in ("nothing", "nothing/below", "file/below", "sound/below"):
        assert not files.there(tmp_path / name)
    for name in ("dead", "dead/below"):
        with pytest.raises(UserError) as error:
            files.there(tmp_path / name)
        gone = f"a link to {tmp_path / 'nowhere'}, which is not there"
        assert str(error.value) == f"{tmp_path / 'dead'}: {gone}"


# Locks


def test_a_held_lock_names_its_holder_and_whoever_waits_says_so_once(tmp_path):
    path = tmp_path / "lock"
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with held(path), contextlib.ExitStack() as stack:
        assert path.read_text() == f"{me}\n"
        waiting = f"waiting for {me}, which holds {path}"
        for given, lines in (({}, []), ({"patience": 0.12}, [waiting])):
            with hearing() as said, pytest.raises(UserError) as error:
                files.lock(stack, path, "do this", **given)
            assert str(error.value) == f"{path}: held by {me}: do this" and said == lines
        assert path.read_text() == f"{me}\n"
    assert not path.exists()


def test_a_lock_that_a_dead_process_left_is_taken_over(tmp_path):
    path = tmp_path / "lock"
    path.write_text("process 7 on a machine with a very long name that is not this one\n")
    before = path.read_text().strip()
    with hearing() as said, held(path):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert said == [f"lock: {before} ended without finishing; taking over"]
    with hearing() as said, held(path):
        path.unlink()  # as people do
    assert said == []


@pytest.mark.parametrize("system", ["Windows", "no locks"])
def test_where_there_are_no_locks_work_goes_on(system, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    if system == "Windows":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", refuse)
    with hearing() as said, held(tmp_path / "lock"):
        pass
    without = "this file system has no locks (No locks available)"
    told = [f"{tmp_path / 'lock'}: {without}; do not start the same run twice"]
    assert said == (told if system == "no locks" else [])


@pytest.mark.parametrize("instead", [False, True])
def test_a_lock_whose_file_was_removed_meanwhile_is_taken_of_the_new_one(
    instead, tmp_path, monkeypatch
):
    path = tmp_path / "lock"
    inner = files.fcntl.flock
    removed = []

    def remove_once(*args):
        if not removed:
            removed.append(path.unlink())
            if instead:
                path.touch()
        inner(*args)

    monkeypatch.setattr(files.fcntl, "flock", remove_once)
    with held(path):
        monkeypatch.setattr(files.fcntl, "flock", inner)
        with contextlib.ExitStack() as stack, pytest.raises(UserError, match="held by process"):
            files.lock(stack, path, "")
    assert not path.exists()
