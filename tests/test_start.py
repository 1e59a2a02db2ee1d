"""Facts about the start of a script in a process of its own, whatever its shell, its environment
and its streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["BACON_mnist.py", "BACON_cifar10.py", "BACON_svhn.py", "BACON_tiny.py", "evaluate.py"]


def start(script, *argv, options=(), cwd=None, **environment):
    """A finished process of a script, what it said as text. options: of Python. environment:
    variables to add."""
    command = [sys.executable, *options, str(ROOT / script), *map(str, argv)]
    variables = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, errors="surrogateescape"
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_the_package_beside_it_where_python_leaves_its_folder_out(script, tmp_path):
    (tmp_path / script).symlink_to(ROOT / script)
    ways = [("-P", ROOT), ("-I", ROOT), ("-P", tmp_path)]
    for option, folder in ways[
        : 1 if script == "evaluate.py" else 3
    ]:  # evaluate.py takes seconds to start
        if option == "-P" and sys.version_info < (3, 11):
            continue
        done = start(folder / script, "--help", options=[option], cwd=tmp_path)
        assert done.returncode == 0 and "usage: " in done.stdout, done.stderr
    done = start(script, "--help", cwd=tmp_path, PYTHONSAFEPATH="1")
    assert done.returncode == 0 and "usage: " in done.stdout, done.stderr
