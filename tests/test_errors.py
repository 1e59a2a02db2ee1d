"""Facts about what a person is told of an error, and with which exit code."""

import errno

import pytest

from bacon import errors


def stands(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.UserError("--ipc 3: no"), 2, "x.py: error: --ipc 3: no"),
        (errors.DamagedError("a.pt: half"), 2, "x.py: error: a.pt: half"),
        (errors.UserError("two\nlines"), 2, "x.py: error: two lines"),
        (OSError(errno.ENOSPC, "No space left", "a.pt"), 2, "x.py: error: a.pt: No space left"),
        (OSError(errno.ENOSPC, "No space left"), 2, "x.py: error: writing: No space left"),
        (PermissionError(errno.EROFS, "Read-only", "b"), 2, "x.py: error: b: Read-only"),
        (errors.DivergedError("class 3"), 3, "x.py: diverged: class 3"),
        (
            errors.ParallelError("process 1 is lost"),
            4,
            "x.py: process 1 is lost; the same command with --resume goes",
        ),
        (errors.Stopped("stopped by SIGTERM"), 75, "x.py: stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "x.py: interrupted"),
        (MemoryError(), 2, "x.py: error: out of memory (Python)"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            2,
            "x.py: error: out of memory (CUDA out of memory. Tried)",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
            2,
            "x.py: error: out of memory (CUDA",
        ),
        (
            RuntimeError("GET was unable to find an engine to execute this computation"),
            2,
            "x.py: error: out of memory (GET",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            2,
            "x.py: error: out of memory (cuDNN",
        ),
        (
            RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
            2,
            "x.py: error: out of memory (CUDNN",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            2,
            "x.py: error: out of memory (DefaultCPU",
        ),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
def test_every_ending_is_one_line_with_its_exit_code(error, code, text, capsys):
    assert errors.run_program("x.py", stands(error)) == code
    said = capsys.readouterr()
    assert said.err.startswith(text) and said.err.count("\n") == 1 and said.out == ""


def test_work_that_ends_well_gives_its_own_code_and_says_nothing(capsys):
    assert errors.run_program("x.py", lambda: 0) == 0
    assert capsys.readouterr().err == ""


def test_what_is_printed_reaches_a_file_with_the_end_of_its_line(tmp_path, monkeypatch):
    with open(tmp_path / "slurm.out", "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        errors.run_program("x.py", lambda: print("a line"))
        assert (tmp_path / "slurm.out").read_text() == "a line\n"


@pytest.mark.parametrize("error", [RuntimeError("sizes differ"), ValueError("x"), AssertionError()])
def test_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        errors.run_program("x.py", stands(error))


def test_what_all_processes_meet_is_said_by_the_first(monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert errors.run_program("x.py", stands(errors.DivergedError("nan"))) == 3
    assert errors.run_program("x.py", stands(errors.Stopped("stopped"))) == 75
    assert capsys.readouterr().err == ""
    assert errors.run_program("x.py", stands(errors.UserError("a file here"))) == 2
    assert "a file here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "variables",
    [{"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "2"}, {"RANK": "", "TORCHELASTIC_RUN_ID": "x"},
     {"RANK": "1", "WORLD_SIZE": "", "TORCHELASTIC_RUN_ID": "x"}],
    ids=str,
)  # fmt: skip
def test_a_process_that_is_alone_says_it_whatever_its_variables(variables, monkeypatch, capsys):
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert errors.run_program("x.py", stands(errors.DivergedError("nan"))) == 3
    assert capsys.readouterr().err == "x.py: diverged: nan\n"


def test_a_value_error_becomes_a_line_that_names_the_flag():
    with pytest.raises(errors.UserError, match=r"^--model: unknown$"), errors.flag("--model"):
        raise ValueError("unknown")
    with pytest.raises(KeyError), errors.flag("--model"):
        raise KeyError("ours")


@pytest.mark.parametrize(
    "error", [AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError]
)
def test_what_other_content_provokes_is_damage_in_one_line_of_bounded_length(error):
    with pytest.raises(errors.DamagedError) as found, errors.damaged("a.pt: not a set"):
        raise error("many\nlines " * 100)
    text = str(found.value)
    assert (
        text.startswith(f"a.pt: not a set ({error.__name__}: ")
        and "\n" not in text
        and len(text) < 250
    )


def test_a_lack_of_memory_is_no_damage():
    with pytest.raises(RuntimeError, match="out of memory"), errors.damaged("a.pt: not a set"):
        raise RuntimeError("CUDA out of memory")
