"""Facts about output that cannot be read.

It is closed, of ASCII, a terminal that hangs up, a reader that leaves.
"""

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from scripts import SMALL, events, run_name

from bacon import streams

ROOT = Path(__file__).parents[1]
ASCII = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


def program(text, more=", outlives_output=True"):
    """A command that runs `text` as the work of run_program, with these other arguments."""
    work = textwrap.indent(textwrap.dedent(text), "    ")
    lines = ["import os, sys, time", "from bacon import errors", "def work():", work]
    lines.append(f"sys.exit(errors.run_program('x.py', work{more}))")
    return [sys.executable, "-c", "\n".join(lines)]


def shell(command, redirection, **variables):
    """A finished process, started by a shell with a redirection after it."""
    line = ["sh", "-c", f'"$@" {redirection}', "sh", *command]
    environment = {**os.environ, **variables}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, timeout=60)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_is_said_to_a_closed_stream_reaches_no_later_file(redirection, tmp_path):
    work = f"""
    file = open({str(tmp_path / "log")!r}, "w")
    print("to standard output")
    print("to standard error", file=sys.stderr)
    os.write(1, b"to 1")
    os.write(2, b"to 2")
    assert file.fileno() > 2 and not sys.stdout.isatty()
    return 0
    """
    done = shell(program(work), redirection)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == ""
    if redirection == ">&-":
        assert done.stderr == b"to standard error\nto 2"


@pytest.mark.parametrize("variables", ASCII, ids=str)
def test_what_an_encoding_lacks_is_shown_as_an_escape(variables):
    done = shell(program("print('r\\u00e9sultat \\u2013 \\udcff'); return 0"), "", **variables)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode("ascii", "backslashreplace")
    assert shown.startswith("r\\xe9sultat \\u2013 \\")


def test_bytes_that_are_no_text_are_shown_as_an_escape():
    done = shell(program("print('a\\udcffb'); return 0"), "", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout) == (0, b"a\\udcffb\n")


def test_work_goes_on_when_the_reader_of_its_output_leaves(tmp_path):
    work = f"""
    for number in range(3):
        print("line", number)
        time.sleep(0.3)
    open({str(tmp_path / "done")!r}, "w").close()
    return 7
    """
    done = shell(program(work), f"| head -1; while [ ! -e {tmp_path}/done ]; do sleep 0.05; done")
    assert done.stdout == b"line 0\n"
    assert done.stderr == b"standard output: Broken pipe; going on without it\n"


def test_work_whose_output_is_all_of_it_ends_when_the_reader_leaves(tmp_path):
    work = f"""
    while not os.path.exists({str(tmp_path / "gone")!r}):
        print("a line")
    for _ in range(10000):
        print("a line that nobody reads")
    return 0
    """
    redirection = f"| head -1; touch {tmp_path}/gone"
    done = shell(program(work, more=""), redirection)
    assert (done.stdout, done.stderr) == (b"a line\n", b"x.py: error: writing: Broken pipe\n")


def test_other_faults_of_standard_output_are_still_errors():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = shell(program("print('a line'); return 0"), ">/dev/full")
    assert done.returncode == 2 and b"No space left" in done.stderr


def child_on_terminal(command, cwd=None):
    """(process number, our end) of a command that a terminal of its own controls."""
    number, ours = pty.fork()
    if number == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where these tests run under nohup
        os.chdir(cwd or ROOT)
        os.execvp(command[0], command)
    return number, ours


def ending(number, seconds):
    """The exit code of a child process, negative for a signal."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    raise AssertionError("did not end")


def wait_for(path, seconds=30):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def test_work_goes_on_when_its_terminal_hangs_up(tmp_path):
    begun, gone, done = (tmp_path / name for name in ("begun", "gone", "done"))
    work = f"""
    import pathlib, signal
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pathlib.Path({str(begun)!r}).touch()
    while not pathlib.Path({str(gone)!r}).exists():
        time.sleep(0.02)
    print("a line"); sys.stderr.write("an error\\n"); print("another", flush=True)
    pathlib.Path({str(done)!r}).touch()
    return 7
    """
    number, ours = child_on_terminal(program(work))
    wait_for(begun)
    os.close(ours)
    gone.touch()
    assert ending(number, 20) == 7 and done.exists()


@pytest.mark.slow
def test_a_run_whose_terminal_is_closed_leaves_a_checkpoint_of_that_moment(digits_folder, tmp_path):
    """As a lost SSH session does: the terminal is gone and SIGHUP comes, while the bar is drawn."""
    flags = ["--Iteration=100000", "--no_compile"]
    paths = ["--data_path", str(digits_folder), "--save_path", str(tmp_path)]
    command = [sys.executable, "BACON_mnist.py", *SMALL, *flags, *paths]
    number, ours = child_on_terminal(command)
    name = run_name("BACON_mnist.py", *SMALL, *flags)
    log = tmp_path / f"log_{name}.jsonl"
    shown = b""
    while b"loss" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)
    assert ending(number, 60) == 75
    *_, losses, last = events(log)
    assert (last["event"], last["signal"]) == ("interrupted", "SIGHUP")
    assert losses["event"] == "losses" and losses["it"] <= last["it"] <= losses["it"] + 10
    assert (tmp_path / f"ckpt_{name}.pt").exists()


@pytest.mark.slow
def test_a_run_with_an_ascii_terminal_and_one_with_none_end_well(digits_folder, tmp_path):
    flags = ["--Iteration=1", "--no_compile", "--data_path", str(digits_folder), "--save_path"]
    command = [sys.executable, "BACON_mnist.py", *SMALL, *flags]
    name = run_name("BACON_mnist.py", *SMALL, "--Iteration=1")
    done = shell([*command, f"{tmp_path}/r\u00e9sultat"], "", **ASCII[0])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r\u00e9sultat" / f"res_{name}.pt").exists()
    done = shell([*command, f"{tmp_path}/silent"], ">&- 2>&-", WORLD_SIZE="")
    assert done.returncode == 0
    log = tmp_path / "silent" / f"log_{name}.jsonl"
    assert events(log)[-1]["event"] == "end"


class Failing:
    """A stream over a file, whose writes fail."""

    def __init__(self, file, error):
        self.fileno = file.fileno
        self.error = error
        self.encoding = "of the stream"

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


@pytest.mark.parametrize("name", [None, "standard output"])
@pytest.mark.parametrize("does", [lambda out: out.write("a line"), lambda out: out.flush()])
@pytest.mark.parametrize(
    ("number", "outlived"), [(errno.EPIPE, True), (errno.EIO, True), (errno.ENOSPC, False)]
)
def test_a_reader_that_leaves_is_outlived_and_no_other_fault(
    number, outlived, does, name, tmp_path, capsys
):
    with open(tmp_path / "out", "w") as file:
        out = streams.Outlived(Failing(file, OSError(number, "a fault")), name)
        with contextlib.nullcontext() if outlived else pytest.raises(OSError, match="a fault"):
            assert does(out) in (None, len("a line"))
        os.write(file.fileno(), b"later")
        said = f"{name}: a fault; going on without it\n" if outlived and name else ""
    assert capsys.readouterr().err == said and out.encoding == "of the stream"
    assert (tmp_path / "out").read_bytes() == (b"" if outlived else b"later")


@pytest.mark.parametrize("outlived", [False, True])
def test_streams_are_afterwards_the_callers_own(outlived):
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), streams.usable(outlived):
        assert isinstance(sys.stdout, streams.Outlived) == outlived
        assert isinstance(sys.stderr, streams.Outlived)
        raise KeyError
    assert (sys.stdout, sys.stderr) == before
