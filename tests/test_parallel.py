"""Facts about one distillation over several processes, which torchrun starts, on CPUs with gloo."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import SMALL, run, run_name

import utils
from bacon import compute, parallel
from bacon.canvases import load_distilled
from bacon.distill import clusters, distiller, experts
from bacon.errors import DivergedError, ParallelError, Stopped, UserError
from bacon.files import load_torch

HERE = Path(__file__).resolve().parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses /proc"),
]

# Rounding differs between one process and several, in the order of the gradients' sum. A smooth
# network and a smooth loss let it grow by a small factor in every iteration; ReLU and the total
# variation's |z~-z| have kinks, at which a difference of 1e-7 becomes one of 1e-3.
SMOOTH = (
    f"{' '.join(SMALL)} --model ConvNetASwish --tv_weight 0 --batch_real 30 --trained_bs 64 "
    "--lr_img 1 --num_eval 3 --epoch_eval_train 1 --no_compile"
)
ITERATIONS = 5
KILLED = 1000  # iterations of the run that is killed


def torchrun(processes, *lines):
    """Start several_runs.py; its output is read by `finish`."""
    command = [
        "torch.distributed.run",
        f"--nproc_per_node={processes}",
        str(HERE / "several_runs.py"),
        *lines,
    ]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-m", *command], cwd=HERE.parent, text=True, **pipe)


def finish(process, seconds=120):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def result(folder):
    (path,) = folder.glob("res_*.pt")
    saved = torch.load(path, weights_only=True)
    return saved["data"][0][0], saved["accs_all_exps"]["ConvNetASwish"]


def reached_iteration(checkpoint):
    try:
        experiment = load_torch(checkpoint)["experiment"]  # None before the first one begins
    except UserError:  # the run is about to rename a new one to this name
        return 0
    return experiment["it"] if experiment else 0


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def line(digits_folder):
    return f"{SMOOTH} --checkpoint_minutes 0 --eval_interval 10000 --data_path {digits_folder}"


def both(line, folder, n):
    """A short run and its initialisation."""
    return [f"{line} --Iteration {it} --save_path {folder}/{n}_{it}" for it in (ITERATIONS, 0)]


@pytest.fixture(scope="module")
def experts_line(line):
    return f"{line} --Iteration {ITERATIONS} --experts 2 --expert_steps 20 --expert_ce 1"


@pytest.fixture(scope="module")
def adam_line(line):
    """A run of one iteration, whose networks are untrained and so the same to the bit.

    Adam divides by the size of a gradient: where that is rounding alone, nothing is comparable.
    """
    return f"{line} --Iteration 1 --train_net_num 2 --optim adam --lr_img 0.1"


@pytest.fixture(scope="module")
def colour_line(folder):
    """A run with half-size chroma from clusters, on a folder of pictures.

    Each is of one colour, in random shades.
    """
    rng = np.random.default_rng(0)
    images = (
        rng.integers(0, 200, (2, 3, 20, 1, 1, 3)) + rng.integers(0, 56, (2, 3, 20, 8, 8, 1))
    ).astype(np.uint8)
    for split, classes in zip(("train", "val"), images, strict=True):
        for c, of_class in enumerate(classes):
            (folder / f"images/{split}/{c}").mkdir(parents=True)
            for k, image in enumerate(of_class):
                Image.fromarray(image).save(folder / f"images/{split}/{c}/{k}.png")
    line = f"{SMOOTH} --batch_real 10 --trained_bs 16 --eval_interval 10000"
    line += " --chroma half --init cluster"
    return (
        line.replace("Digits", f"ImageFolder --data_path {folder}/images")
        + f" --Iteration {ITERATIONS}"
    )


@pytest.fixture(scope="module")
def alone(folder, line, colour_line, experts_line, adam_line):
    before, clusters.STEPS = clusters.STEPS, 5
    adam = f"{adam_line} --save_path {folder}/1_adam"
    colour = f"{colour_line} --save_path {folder}/1_colour"
    experts = f"{experts_line} --save_path {folder}/1_experts"
    for flags in (*both(line, folder, 1), colour, experts, adam):
        assert run("BACON_mnist.py", *flags.split()) == 0
    clusters.STEPS = before


@pytest.fixture(scope="module")
def two(folder, line, colour_line, experts_line, adam_line):
    """What two processes said, and the iteration of the last run's checkpoint.

    That run was killed.
    """
    colour = f"{colour_line} --save_path {folder}/2_colour"
    process = torchrun(
        2,
        *both(line, folder, 2),
        colour,
        f"{experts_line} --save_path {folder}/2_experts",
        f"{adam_line} --save_path {folder}/2_adam",
        f"{line} --Iteration {KILLED} --save_path {folder}/killed",
    )
    name = run_name("BACON_mnist.py", *line.split(), "--Iteration", KILLED)
    checkpoint = folder / f"killed/ckpt_{name}.pt"
    until(
        lambda: (
            process.poll() is not None
            or (checkpoint.exists() and reached_iteration(checkpoint) >= 4)
        )
    )
    assert process.poll() is None, finish(process)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[1]), signal.SIGKILL)
    code, output = finish(process)
    assert code != 0, output
    return output, reached_iteration(checkpoint)


@pytest.fixture(scope="module")
def resumable(folder, line, two):
    """resumable(n): a copy of the killed run, and its flags.

    As if it had been meant to end two iterations later.
    """

    def named(iterations):
        return run_name("BACON_mnist.py", *line.split(), "--Iteration", iterations)

    def make(n):
        target, end = folder / f"resumed_{n}", two[1] + 2
        shutil.copytree(folder / "killed", target)
        for path in target.glob("*_*"):
            path.rename(target / path.name.replace(named(KILLED), named(end)))
        for path in target.glob("ckpt_*"):
            saved = load_torch(path)
            saved["meta"]["args"]["Iteration"] = end
            torch.save(saved, path)
        return target, f"{line} --Iteration {end} --save_path {target} --resume"

    return make


@pytest.fixture(scope="module")
def three(folder, line, resumable):
    """What three processes said; the last run is the one of two processes that was killed."""
    code, output = finish(torchrun(3, *both(line, folder, 3), resumable(3)[1]))
    assert code == 0, output
    return output


def test_the_canvases_are_those_of_one_process_up_to_rounding(folder, alone, two, three):
    (start, _), (one, _) = result(folder / "1_0"), result(folder / f"1_{ITERATIONS}")
    for n in (2, 3):
        torch.testing.assert_close(result(folder / f"{n}_{ITERATIONS}")[0], one, rtol=0, atol=1e-4)
    assert (one - start).abs().max() > 0.1


def test_half_chroma_and_clusters_are_those_of_one_process_up_to_rounding(folder, alone, two):
    paths = [next((folder / f"{n}_colour").glob("res_*.pt")) for n in (1, 2)]
    sets = [load_distilled(path) for path in paths]
    (one, labels, meta), (both, *_) = sets
    assert (
        meta["chroma"] == "half"
        and one.shape == (3 * 4 * 4, 3, 8, 8)
        and labels.unique().tolist() == [0, 1, 2]
    )
    torch.testing.assert_close(both, one, rtol=0, atol=1e-4)


def test_experts_that_processes_train_together_are_those_of_one_up_to_rounding(folder, alone, two):
    (one, _), (both, _) = (result(folder / f"{n}_experts") for n in (1, 2))
    torch.testing.assert_close(both, one, rtol=0, atol=1e-4)
    assert not torch.equal(one, result(folder / f"1_{ITERATIONS}")[0])
    assert len(list((folder / "2_experts").glob("expert_*.pt"))) == 2


def test_by_adam_the_canvases_are_those_of_one_process(folder, alone, two):
    (start, _), (one, _), (both, _) = (result(folder / of) for of in ("1_0", "1_adam", "2_adam"))
    torch.testing.assert_close(both, one, rtol=0, atol=1e-5)
    assert (one - start).abs().max() > 0.1


def test_the_same_set_scores_the_same_whoever_trains_the_judges(folder, alone, two, three):
    canvases, scores = result(folder / "1_0")
    for n in (2, 3):
        theirs, accuracies = result(folder / f"{n}_0")
        assert torch.equal(theirs, canvases) and accuracies == scores
    assert len(set(scores)) > 1


def test_memory_per_process_falls_with_their_number(two, three, digits):
    whole = sum(t.numel() * t.element_size() for t in (digits.images_train, digits.labels_train))
    whole += 2 * 10 * 2 * 64 * 4  # canvases and their momentum
    for n, output in ((2, two[0]), (3, three)):
        held = [int(number) for number in re.findall(r"PROCESS holds (\d+) bytes", output)]
        assert len(held) == n and sum(held) == whole
        assert max(held) < 1.25 * whole / n  # 10 classes in 3 shares: 4 at most


def test_a_killed_process_ends_the_run_and_any_number_goes_on_from_its_checkpoint(
    folder, two, three, resumable
):
    output, reached = two
    # The other process notices, unless torchrun has told it to stop before.
    lost = "lost contact with the others; the same command with --resume goes on"
    assert lost in output or "SIGTERM: stopping" in output
    assert 4 <= reached < KILLED
    target, flags = resumable(1)
    assert run("BACON_mnist.py", *flags.split()) == 0
    torch.testing.assert_close(
        result(target)[0], result(folder / "resumed_3")[0], rtol=0, atol=1e-4
    )


def test_shares_are_contiguous_even_and_complete():
    for size in (1, 2, 3, 7, 10):
        shares = [parallel.World(rank, size).share(10) for rank in range(size)]
        assert [c for share in shares for c in share] == list(range(10))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("device", "gpus", "backend"),
    [("auto", 2, "cpu:gloo,cuda:nccl"), ("cpu", 2, "gloo"), ("auto", 0, "gloo")],
)
def test_tensors_of_a_cpu_never_reach_nccl_and_one_that_hangs_does_not_abort(
    device, gpus, backend, monkeypatch
):
    settings = {
        "WORLD_SIZE": 2,
        "RANK": 1,
        "LOCAL_RANK": 1,
        "TORCHELASTIC_RUN_ID": 0,
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": 1,
    }
    for name, value in settings.items():  # as torchrun does
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    begun, none = [], lambda *args, **settings: None
    monkeypatch.setattr(torch.cuda, "set_device", begun.append)
    for name, stand_in in {
        "new_group": none,
        "destroy_process_group": none,
        "all_gather_object": none,
    }.items():
        monkeypatch.setattr(parallel.dist, name, stand_in)
    handling = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    monkeypatch.setattr(
        parallel.dist,
        "init_process_group",
        lambda b, timeout: begun.append((b, os.environ[handling])),
    )
    with parallel.joined(device) as world:
        assert (world.rank, world.size) == (1, 2)
    assert begun[-1] == (backend, "2") and begun[:-1] == [1] * ("nccl" in backend)


@pytest.mark.parametrize(
    "variables", [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "4"}, {"RANK": "x"}], ids=str
)
@pytest.mark.parametrize("run_id", [None, "left by another program"])
def test_variables_that_torchrun_did_not_set_make_no_group(variables, run_id, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if run_id and variables.get("WORLD_SIZE") != "4":
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
    with parallel.joined("cpu") as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "two"), ("RANK", ""), ("LOCAL_RANK", "-1"), ("RANK", "1.0")]
)
def test_a_variable_of_torchrun_that_is_no_number_is_named(name, value, monkeypatch):
    variables = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}
    for each, number in (variables | {name: value}).items():
        monkeypatch.setenv(each, number)
    refused = pytest.raises(UserError, match=f"^{name}={value}: must be a whole number")
    with refused, parallel.joined("cpu"):
        pass


def test_a_collective_that_times_out_is_a_lost_contact(monkeypatch):
    class Work:
        def wait(self, timeout):
            assert timeout < parallel.TIMEOUT
            raise RuntimeError("NCCL communicator was aborted")

    monkeypatch.setattr(parallel.dist, "all_gather", lambda parts, rows, async_op: Work())
    with pytest.raises(ParallelError, match="process 1 of 2 lost contact"):
        parallel.World(1, 2).gather(torch.zeros(5, 1), 10)


def test_a_collective_without_memory_is_no_lost_contact(monkeypatch):
    def fail(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(parallel.dist, "all_gather_object", fail)
    with pytest.raises(RuntimeError, match="allocate memory"):
        parallel.World(1, 2).gather_objects(None)


@pytest.mark.parametrize("which", ["networks of the pool", "experts"])
def test_networks_that_differ_between_processes_end_the_run(which, digits, make_args):
    class World(parallel.World):
        drift = 0.0

        def gather_objects(self, value):
            return [value, [number + self.drift for number in value]]

    world = World(0, 2)
    real = digits.real("train", own=world.share(10))
    args = make_args(experts=1 if which == "experts" else 0)
    d = distiller.begin(args, 0, real, compute.Arithmetic("cpu"), world)
    if which == "experts":
        d.snapshots = [experts.Snapshot(d.trainer.fresh("expert").net, 50.0, is_late=True)]
    d.check_networks()
    world.drift = 1e-12
    with pytest.raises(ParallelError, match=f"the {which} are no longer the same"):
        d.check_networks()


def test_indices_mean_the_same_image_in_every_share(digits):
    def real(own):
        return digits.real("train", own=own)

    whole, part = real(None), real(range(3, 6))
    rng = utils.stream(0, "test")
    indices = whole.any_indices(300, rng)
    mine = part.owned(indices)
    assert len(part) == len(whole) and 0 < len(mine) < 300
    assert set(part.labels_of(mine).tolist()) == {3, 4, 5}
    assert torch.equal(part.take(mine), whole.take(mine))
    with pytest.raises(IndexError):
        part.take(indices)


def test_what_the_leader_alone_does_ends_every_process_where_it_fails(monkeypatch):
    def broadcast(objects, source, group):
        assert source == 0
        if not led:
            return  # on the leader
        objects[:] = led

    monkeypatch.setattr(parallel.dist, "broadcast_object_list", broadcast)
    led = None

    def fail():
        raise UserError("no such file")

    with pytest.raises(UserError, match="no such file"):
        parallel.World(0, 2).from_leader(fail)
    assert parallel.World(0, 2).from_leader(lambda: [5]) == [5]
    led = [[5], False]
    assert parallel.World(1, 2).from_leader(fail) == [5]  # which the leader had
    led = [None, True]
    with pytest.raises(SystemExit) as stop:
        parallel.World(1, 2).from_leader(fail)
    assert stop.value.code == 2


@pytest.fixture
def started_by_torchrun(monkeypatch):
    """The second of two processes on a machine with one GPU."""
    variables = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


NO_GPU = "--nproc_per_node: process 1 has no GPU of its own, there are 1; start one process per GPU"


@pytest.mark.usefixtures("started_by_torchrun")
@pytest.mark.parametrize(
    ("device", "words"), [("mps", "--device mps: several"), ("cuda", NO_GPU), ("auto", NO_GPU)]
)
def test_a_device_that_processes_cannot_share_is_refused(device, words, monkeypatch):
    monkeypatch.setattr(parallel, "_connect", None)
    with pytest.raises(UserError, match=f"^{words}"), parallel.joined(device):
        pass


@pytest.mark.usefixtures("started_by_torchrun")
@pytest.mark.parametrize("error", [None, UserError("no")])
def test_a_group_lasts_as_long_as_the_work(error, monkeypatch):
    """Whether that fails or not. The group is one of a single process here."""

    def connect(cuda, local):
        assert not cuda and local == 1
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        return torch.distributed.new_group(backend="gloo")

    monkeypatch.setattr(parallel, "_connect", connect)
    waited = []
    monkeypatch.setattr(parallel.World, "gather_objects", lambda *args: waited.append(args))
    with contextlib.suppress(UserError), parallel.joined("cpu") as world:
        assert (world.rank, world.size, world.leads) == (1, 2, False)
        assert torch.distributed.is_initialized()
        if error:
            raise error
    assert not torch.distributed.is_initialized()
    assert len(waited) == (0 if error else 1)  # nobody hangs up while another is listening


@pytest.fixture
def calls_of_nccl(started_by_torchrun, monkeypatch):
    """What `parallel` asks of a group of GPUs that is not there."""
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(parallel, "_connect", lambda cuda, local: None)
    monkeypatch.setattr(parallel.World, "gather_objects", lambda *args: None)
    monkeypatch.setattr(parallel.dist, "destroy_process_group", lambda: calls.append("destroy"))
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: "destroy" not in calls)
    monkeypatch.setattr(parallel.os, "_exit", lambda code: calls.append(code))
    return calls


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (None, ["destroy"]),
        (Stopped("SIGTERM"), ["destroy"]),
        (DivergedError("nan"), ["destroy"]),
        (UserError("a disk of this process is full"), [2]),
        (MemoryError(), [2]),
        (SystemExit(2), [2]),
    ],
)
def test_a_process_that_fails_alone_does_not_wait_for_the_others_of_nccl(
    error, calls, calls_of_nccl
):
    """destroy_process_group would: its own message would never be seen."""
    ends = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with ends, parallel.joined("cuda"):
        if error:
            raise error
    parallel.end_if_connected(2)
    assert calls_of_nccl == calls


@pytest.mark.usefixtures("started_by_torchrun")
def test_processes_that_cannot_reach_each_other_say_which(monkeypatch):
    def connect(cuda, local):
        raise RuntimeError("timed out")

    monkeypatch.setattr(parallel, "_connect", connect)
    words = r"^process 1 of 2 cannot reach the others \(timed out\)$"
    with pytest.raises(ParallelError, match=words), parallel.joined("cpu"):
        pass
