"""The job scripts of docs/slurm/ on a real Slurm: preempted and stopped by their time limit, to
bitwise the same files.

    python -m pytest -m slurm               about ten minutes; as root, after
                                            apt-get install --no-install-recommends slurm-wlm munge

The cluster is this host alone: two slurmd that each pretend to have four GPUs, their controller,
and a munge daemon of their own. All of it lives in a temporary folder and ends with the tests. The
scripts are submitted as they stand, with a small run on Digits in the place of the recipe; their
time limit is shortened while they run, as an administrator may."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torture
from scripts import run_name

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "docs" / "slurm"
OF_A_JOB = [
    "--dataset=Digits",
    "--model=ConvNetW32",
    "--ipc=1",
    "--eval_interval=100",
    "--net_num=6",
    "--batch_real=50",
    "--trained_bs=128",
    "--num_eval=2",
    "--epoch_eval_train=50",
    "--precision=fp32",
    "--no_compile",
    "--device=cpu",
]
LONG = (
    50  # seconds that a run lasts at least: Slurm looks for jobs near their limit every 30 seconds
)
PATIENCE = 400  # seconds after which a wait for Slurm, or for a run, is given up

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scontrol",
    "scancel",
    "squeue",
    "sinfo",
    "setpriv",
)
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


def obstacle():
    """Why no cluster can be started here, or None."""
    if absent := [name for name in PROGRAMS if not shutil.which(name, path=PATH)]:
        return (
            f"no {', '.join(absent)} here: apt-get install --no-install-recommends slurm-wlm munge"
        )
    return "only root may start a cluster" if os.geteuid() else None


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(obstacle()), reason=f"needs Slurm: {obstacle()}"),
]


def wait_for(condition, seconds, complaint):
    """The first true value of condition(), asked again and again; after `seconds` the test fails
    with complaint()."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > until:
            pytest.fail(f"after {seconds} s: {complaint()}")
        time.sleep(0.2)
    return value


def tail(path, lines=30):
    return (
        "\n".join([f"--- {path}", *path.read_text(errors="replace").splitlines()[-lines:]])
        if path.exists()
        else ""
    )


# --- a cluster of two nodes, both of them this host


SLURM_CONF = """
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
# A requeued job waits for as long as credentials live, two minutes by default.
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
CryptoType=crypto/munge
# Nothing that needs cgroups, a database, MPI or a mail program.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 Gres=gpu:4
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 Gres=gpu:4
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [s.getsockname()[1] for s in sockets]


class Cluster:
    """A Slurm that runs from `start` until `stop`, with what belongs to it in `folder`."""

    def __init__(self, folder):
        self.folder, self.daemons = folder, []
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))
        }
        self.environment |= {
            "PATH": f"{folder / 'bin'}:{PATH}",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        # Nodes get python and torchrun of these tests; one thread each, or results would depend on
        # who else computes.
        self.environment |= {
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "PYTHONPATH": str(ROOT),
        }

    def start(self):
        host = socket.gethostname().split(".")[0]
        nodes = [host, f"{host}-too"]  # jobs begin on the first, whose name has to lead somewhere
        for name in ("bin", "state", *(f"spool.{node}" for node in nodes)):
            (self.folder / name).mkdir()
        for name, command in {"python": "", "torchrun": "-m torch.distributed.run"}.items():
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
            program.chmod(0o755)
        gpus = [self.folder / f"gpu{n}" for n in range(4)]
        for gpu in gpus:
            gpu.touch()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        files = {kind: self.folder / f"munge.{kind}" for kind in ("socket", "pid", "log", "seed")}
        conf = SLURM_CONF.format(folder=self.folder, host=host, nodes=nodes, ports=free_ports(3))
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(
            f"NodeName={','.join(nodes)} Name=gpu File={self.folder}/gpu[0-3]\n"
        )

        options = [f"--{kind}-file={path}" for kind, path in files.items() if kind != "socket"]
        self.daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={files['socket']}",
            *options,
        )
        wait_for(files["socket"].exists, 30, self.logs)
        self.daemon("slurmctld", "-D", "-c")
        for node in nodes:
            self.daemon("slurmd", "-D", "-N", node)
        wait_for(
            lambda: (
                self.call("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * 2
            ),
            60,
            self.logs,
        )

    def daemon(self, *command):
        log = self.folder / f"{len(self.daemons)}.{command[0]}.log"
        with log.open("w") as file:
            self.daemons.append(
                (
                    log,
                    subprocess.Popen(
                        [
                            "setpriv",
                            "--pdeathsig=TERM",
                            *command,
                        ],  # so that none outlives tests that are killed
                        env=self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                        start_new_session=True,
                    ),
                )
            )

    def logs(self):
        return "\n".join(
            ["the cluster does not answer", *(tail(log, 10) for log, _ in self.daemons)]
        )

    def stop(self):
        """End the jobs, then the daemons, the latest first."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", "--user=root")
            self.call("scancel", "--user=root", "--signal=KILL")
            until = time.monotonic() + 40
            while self.call("squeue", "--noheader").strip() and time.monotonic() < until:
                time.sleep(0.5)
        for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
            for _, process in reversed(self.daemons):
                if process.poll() is None:
                    end(process)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(10)

    def call(self, *command, **options):
        """What a command of Slurm prints; an empty text if it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        return "" if done.returncode else done.stdout

    def submit(self, script, folder, *options):
        folder.mkdir()
        (folder / "job.sh").write_text(script)
        number = self.call("sbatch", "--parsable", *options, "job.sh", cwd=folder).strip()
        assert number.isdigit(), f"sbatch did not take the script\n{self.logs()}"
        return number

    def tasks(self, job):
        """What Slurm knows of a job, or of each task of a job array: [{field: value}]."""
        lines = self.call("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def started_again(self, job):
        return sum(int(task["Restarts"]) for task in self.tasks(job))

    def preempt(self, job, run):
        run.wait_until_it_computes()
        self.call("scontrol", "requeue", job)
        wait_for(
            lambda: self.started_again(job), PATIENCE, lambda: f"job {job} is not requeued\n{run}"
        )

    def stop_by_time_limit(self, job, run):
        """Have Slurm send the signal of --signal=...@300, and see that the script requeues its
        job."""
        run.wait_until_it_computes(resumed=self.started_again(job))
        before = self.started_again(job)
        self.call("scontrol", "update", f"JobId={job}", "TimeLimit=5")
        wait_for(
            lambda: self.started_again(job) > before or self.ended(job, run),
            PATIENCE,
            lambda: f"no signal\n{run}",
        )
        self.call(
            "scontrol", "update", f"JobId={job}", "TimeLimit=60"
        )  # while it waits to be started again

    def ended(self, job, run):
        """Whether all of a job has ended, which has to be well."""
        states = {task["JobState"] for task in self.tasks(job)}
        if bad := states & {"FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"}:
            pytest.fail(f"job {job}: {', '.join(bad)}\n{run}")
        return states == {"COMPLETED"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


# --- runs


class Run:
    """What a job's run has written so far: the folder it was submitted from, and the log to
    follow."""

    def __init__(self, folder, flags, part=""):
        self.folder, self.log = folder, folder / "result" / f"log_{named(flags)}{part}.jsonl"

    def __str__(self):
        return "\n".join(map(tail, sorted(self.folder.glob("slurm-*.out"))))

    def wait_until_it_computes(self, resumed=0):
        def computes():
            text = self.log.read_text() if self.log.exists() else ""
            return text.count('"event": "resume"') >= resumed and text.rfind(
                '"losses"'
            ) > text.rfind('"resume"')

        wait_for(computes, PATIENCE, lambda: f"{self.log} shows no iteration\n{self}")


def replaced(script, changes):
    """A script of docs/slurm/ with some of its words replaced, each of which it has once."""
    text = (SCRIPTS / script).read_text()
    for theirs, ours in changes.items():
        assert text.count(theirs) == 1, f"{script}: {theirs}"
        text = text.replace(theirs, ours)
    return text


def named(flags):
    return run_name("BACON_mnist.py", *flags)


def command(flags):
    return " ".join([str(ROOT / "BACON_mnist.py"), *flags])


def undisturbed(cluster, folder, launcher, flags):
    """Run the command without Slurm: its log's events, and what it leaves as in `torture`."""
    folder.mkdir()
    done = subprocess.run(
        [*launcher, str(ROOT / "BACON_mnist.py"), *flags],
        cwd=folder,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = folder / "result" / f"log_{named(flags)}.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()], torture.outcome(folder)


def long_enough(cluster, folder, launcher, flags):
    """The flags of a run of LONG seconds on this machine, were it idle."""
    log, _ = undisturbed(cluster, folder, launcher, [*flags, "--Iteration=60"])
    seconds = min(event["seconds_per_iteration"] for event in log if event["event"] == "losses")
    return [*flags, f"--Iteration={math.ceil(LONG / seconds)}"]


@pytest.fixture
def flags(digits_folder):
    return [*OF_A_JOB, f"--data_path={digits_folder}", "--resume"]


def test_a_job_that_is_preempted_and_then_stopped_by_its_time_limit(cluster, flags, tmp_path):
    flags = long_enough(cluster, tmp_path / "short", ["python"], [*flags, "--num_exp=1"])
    _, reference = undisturbed(cluster, tmp_path / "undisturbed", ["python"], flags)
    script = replaced("one_gpu.sh", {"BACON_cifar10.py --ipc 10 --resume": command(flags)})
    run = Run(tmp_path / "job", flags)
    job = cluster.submit(script, run.folder)
    cluster.preempt(job, run)
    cluster.stop_by_time_limit(job, run)
    wait_for(lambda: cluster.ended(job, run), PATIENCE, lambda: f"job {job} goes on\n{run}")
    text = (run.folder / f"slurm-{job}.out").read_text()
    assert re.findall("stopped by (.*);|(going on) from", text) == [
        ("SIGTERM", ""),
        ("", "going on"),
        ("SIGUSR1", ""),
        ("", "going on"),
    ], text
    assert not torture.differences(run.folder, reference)


def test_a_job_array_of_which_one_task_is_preempted(cluster, flags, tmp_path):
    flags = [*flags, "--num_exp=5", "--Iteration=60"]
    _, reference = undisturbed(cluster, tmp_path / "undisturbed", ["python"], flags)
    index = "--exp_index $SLURM_ARRAY_TASK_ID"
    script = replaced(
        "array.sh", {f"BACON_cifar10.py --ipc 10 {index} --resume": f"{command(flags)} {index}"}
    )
    run = Run(tmp_path / "job", flags, "_exp3")
    job = cluster.submit(script, run.folder)
    cluster.preempt(f"{job}_3", run)
    wait_for(lambda: cluster.ended(job, run), PATIENCE, lambda: f"job {job} goes on\n{run}")
    outputs = {path.name: path.read_text() for path in run.folder.glob("slurm-*.out")}
    assert sorted(outputs) == [f"slurm-{job}_{n}.out" for n in range(5)]
    assert (
        "stopped by SIGTERM" in outputs[f"slurm-{job}_3.out"]
        and "going on" in outputs[f"slurm-{job}_3.out"]
    )
    assert any("all 5 experiments have ended" in text for text in outputs.values()), run
    for path in (run.folder / "result").glob("*_exp?.*"):
        if not path.name.startswith("vis_"):  # pictures have their names in a whole run as well
            path.unlink()
    assert not torture.differences(run.folder, reference)


def test_a_job_of_two_nodes_that_is_preempted_and_then_stopped_by_its_time_limit(
    cluster, flags, tmp_path
):
    both_here = ["torchrun", "--standalone", "--nproc_per_node=2"]
    flags = long_enough(cluster, tmp_path / "short", both_here, [*flags, "--num_exp=1"])
    _, reference = undisturbed(cluster, tmp_path / "undisturbed", both_here, flags)
    changes = {
        "log_BACON_TinyImageNet_ConvNet_10ipc": f"log_{named(flags)}",
        "--nproc_per_node=4": "--nproc_per_node=1",
        "BACON_tiny.py --ipc 10 --resume": command(flags),
    }
    run = Run(tmp_path / "job", flags)
    job = cluster.submit(replaced("torchrun_nodes.sh", changes), run.folder)
    cluster.preempt(job, run)
    cluster.stop_by_time_limit(job, run)
    wait_for(lambda: cluster.ended(job, run), PATIENCE, lambda: f"job {job} goes on\n{run}")
    text = (run.folder / f"slurm-{job}.out").read_text()
    assert (
        "2 processes" in text
        and text.count("stopped by SIGTERM") == text.count("going on from") == 2
    ), text
    assert not torture.differences(run.folder, reference)
