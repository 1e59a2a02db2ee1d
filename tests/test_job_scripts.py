"""Facts about the job scripts of docs/slurm, run as they stand by stand-ins for Slurm's commands;
see test_slurm.py."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts import INTERRUPTED, run_name

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "docs/slurm"
NAME = run_name("BACON_mnist.py", *INTERRUPTED)

# A script whose first run waits, after its first safe place to stop, until the signal has come to
# each process.
HELD = """
import pathlib, runpy, sys, time
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
from bacon.run import record

point, holding = record.Record.point, pathlib.Path("holding")

def hold(self):
    point(self)
    holding.touch()
    while not self.signals.asked:
        time.sleep(0.05)

if not holding.exists():
    record.Record.point = hold
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def cluster(tmp_path):
    """A stand-in for Slurm: submit(script) runs it with a signal to its first step: (exit code,
    output)."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "held.py").write_text(HELD)
    wait = "until [ -e holding ]; do sleep 0.1; done"
    stand_ins = {
        "python": f'exec {sys.executable} "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        "scontrol": 'if [ $1 = show ]; then echo localhost; else echo "$@" >> requeued; fi',
        # as Slurm with --signal=USR1@300: the step's processes get the signal, srun returns their
        # exit code
        "srun": '"$@" & step=$!\n'
        f"[ -e signalled ] || {{ touch signalled; {wait}; kill -$SIGNAL $step; }}\n"
        "wait $step",
    }
    for name, text in stand_ins.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(stat.S_IRWXU)

    def submit(script, **variables):
        variables = {"SLURM_JOB_ID": "71", "SIGNAL": "USR1", **variables}
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **variables}
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return submit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_gpu.sh", "array.sh"])
def test_a_job_requeues_itself_at_the_signal_and_resumes(name, cluster, digits_folder, tmp_path):
    script = (SCRIPTS / name).read_text()
    options = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
    assert any("--requeue" in line for line in options) and any(
        "--signal=USR1@" in line for line in options
    )
    command = "BACON_cifar10.py --ipc 10"
    assert script.count(command) == 1
    small = " ".join(
        [
            *(f for f in INTERRUPTED if "save_path" not in f),
            "--no_compile",
            f"--data_path={digits_folder}",
        ]
    )
    script = script.replace(command, f"held.py {ROOT}/BACON_mnist.py {small}")
    variables, job = {}, "71"
    if "--array" in script:
        variables, job = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "1"}, "70_1"
    code, text = cluster(script, **variables)
    assert (tmp_path / "requeued").read_text() == f"requeue {job}\n", text
    assert "stopped by SIGUSR1" in text and code == 75
    code, text = cluster(script, **variables)  # what the requeued job runs
    assert code == 0 and "going on from" in text
    assert (tmp_path / "requeued").read_text() == f"requeue {job}\n"
    if variables:
        code, text = cluster(script, **{**variables, "SLURM_ARRAY_TASK_ID": "0"})
        assert code == 0 and "all 2 experiments have ended" in text
    assert len(torch.load(tmp_path / f"result/res_{NAME}.pt", weights_only=True)["data"]) == 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_job_of_several_nodes_requeues_itself_and_resumes(cluster, digits_folder, tmp_path):
    script = (SCRIPTS / "torchrun_nodes.sh").read_text()
    if (
        "--shutdown"
        not in subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    ):
        pytest.skip("this torchrun has no --shutdown-timeout yet")
    assert "--signal=TERM@" in script
    small = " ".join(
        [
            *(f for f in INTERRUPTED if "save_path" not in f),
            "--no_compile",
            f"--data_path={digits_folder}",
        ]
    )
    for theirs, ours in {
        "--nproc_per_node=4": "--nproc_per_node=2",
        "$head:29500": f"$head:{free_port()}",
        "BACON_tiny.py --ipc 10": f"held.py {ROOT}/BACON_mnist.py {small}",
        "log_BACON_TinyImageNet_ConvNet_10ipc": f"log_{NAME}",
    }.items():
        assert script.count(theirs) == 1
        script = script.replace(theirs, ours)
    variables = {
        "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "SIGNAL": "TERM",
        "OMP_NUM_THREADS": "1",
    }
    _, text = cluster(script, **variables)
    assert (tmp_path / "requeued").read_text() == "requeue 71\n", text
    assert "stopped by SIGTERM" in text
    log = tmp_path / f"result/log_{NAME}.jsonl"
    assert '"interrupted"' in log.read_text().splitlines()[-1]
    srun = tmp_path / "bin/srun"
    works = srun.read_text()
    srun.write_text("#!/bin/bash\nfalse\n")
    code, _ = cluster(
        script, **variables
    )  # a job that fails before the run goes on is not started for ever
    assert code == 1
    srun.write_text(works)
    code, text = cluster(script, **variables)
    assert code == 0 and "going on from" in text
    assert (tmp_path / "requeued").read_text() == "requeue 71\n"
    assert len(torch.load(tmp_path / f"result/res_{NAME}.pt", weights_only=True)["data"]) == 2
