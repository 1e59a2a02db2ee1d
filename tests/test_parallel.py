"""Facts about one distillation over several processes, which torchrun really starts, on CPUs with gloo."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import BACON_mnist
import cost
import data
import distill
import evaluate
import parallel
import utils

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses /proc")]

# Rounding differs between one process and several, in the order of the gradients' sum. A smooth network and a smooth
# loss let it grow by a small factor in every iteration; ReLU and the total variation's |z~-z| have kinks, at which a
# difference of 1e-7 becomes one of 1e-3.
SMOOTH = "--dataset Digits --model ConvNetASwish --tv_weight 0 --ipc 2 --batch_real 30 --trained_bs 64 --lr_img 1"
SMALL = "--model_train_steps 2 --num_exp 1 --num_eval 3 --epoch_eval_train 1 --precision fp32 --no_compile"
LINE = f"{SMOOTH} {SMALL} --checkpoint_minutes 0"
RESULT = "res_BACON_Digits_ConvNetASwish_2ipc.pt"
ITERATIONS = 5


def torchrun(processes, script, *arguments):
    """Start it; its output is read by `finish`."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", str(script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, seconds=120):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def alone(line):
    return distill.run(BACON_mnist.DATASETS, BACON_mnist.__doc__, line.split())


def result(folder):
    saved = torch.load(folder / RESULT, weights_only=True)
    return saved["data"][0][0], saved["accs_all_exps"]["ConvNetASwish"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def line(digits_folder):
    return f"{LINE} --data_path {digits_folder}"


@pytest.fixture(scope="module")
def finished(folder, line):
    """{processes: (canvases and scores of a run, those of its initialisation, what each process said)}."""
    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for n in (1, 2, 4):
        lines = [f"{line} --Iteration {it} --save_path {folder}/{n}_{it}" for it in (ITERATIONS, 0)]
        said = []
        if n == 1:
            assert [alone(line) for line in lines] == [0, 0]
        else:
            code, output = finish(torchrun(n, HERE / "several_runs.py", *lines))
            assert code == 0, output
            said = [json.loads(text) for text in re.findall(r"PROCESS (\{.*?\})", output)]
        found[n] = (result(folder / f"{n}_{ITERATIONS}"), result(folder / f"{n}_0"), said)
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("processes", [2, 4])
def test_the_canvases_are_those_of_one_process_up_to_rounding(finished, processes):
    start, (one, _), (several, _) = finished[1][1][0], finished[1][0], finished[processes][0]
    torch.testing.assert_close(several, one, rtol=0, atol=1e-4)
    assert (one - start).abs().max() > 0.1


@pytest.mark.parametrize("processes", [2, 4])
def test_the_same_set_scores_the_same_whoever_trains_the_judges(finished, processes):
    canvases, scores = finished[1][1]
    assert torch.equal(finished[processes][1][0], canvases)
    assert finished[processes][1][1] == scores and len(set(scores)) > 1


def test_memory_per_process_falls_with_their_number(finished, digits):
    whole = sum(t.numel() * t.element_size() for t in (digits.images_train, digits.labels_train))
    whole += 2 * finished[1][0][0].numel() * 4
    for n in (2, 4):
        held = [process["bytes"] for process in finished[n][2]]
        assert len(held) == n and sum(held) == whole
        assert max(held) < 1.25 * whole / n  # 10 classes in 4 shares: 3 at most


def test_the_bytes_sent_are_those_of_the_cost_model(finished):
    args = utils.parse_args(BACON_mnist.DATASETS, "", LINE.split()).args
    for n in (2, 4):
        assert {process["sent"] for process in finished[n][2]} == {cost.bytes_per_iteration(args)}


def test_a_killed_process_ends_the_run_and_any_number_goes_on_from_its_checkpoint(folder, line):
    flags = f"{line} --Iteration 400 --eval_interval 1000 --save_path {folder}/killed"
    process = torchrun(2, "BACON_mnist.py", *flags.split())
    checkpoint = folder / "killed" / "ckpt_BACON_Digits_ConvNetASwish_2ipc.pt"
    until(lambda: checkpoint.exists() and reached_iteration(checkpoint) >= 4)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[1]), signal.SIGKILL)
    code, output = finish(process)
    assert code != 0
    assert "lost contact with the others; the same command with --resume goes on" in output
    reached = reached_iteration(checkpoint)
    assert 4 <= reached < 400
    # The same run, as if it had been meant to end two iterations later.
    ended = {}
    for n in (1, 4):
        target = folder / f"resumed_{n}"
        shutil.copytree(folder / "killed", target)
        for path in target.glob("ckpt_*"):
            saved = utils.load_torch(path)
            saved["meta"]["args"]["Iteration"] = reached + 2
            torch.save(saved, path)
        flags = f"{line} --Iteration {reached + 2} --eval_interval 1000 --save_path {target} --resume"
        if n == 1:
            assert alone(flags) == 0
        else:
            code, output = finish(torchrun(n, "BACON_mnist.py", *flags.split()))
            assert code == 0, output
        ended[n] = result(target)[0]
    torch.testing.assert_close(ended[1], ended[4], rtol=0, atol=1e-4)


def test_a_folder_deleted_under_several_processes_is_written_again(folder, line):
    target = folder / "deleted"
    process = torchrun(2, "BACON_mnist.py", *f"{line} --Iteration 4000 --save_path {target}".split())
    checkpoint = target / "ckpt_BACON_Digits_ConvNetASwish_2ipc.pt"
    until(lambda: checkpoint.exists() and reached_iteration(checkpoint) >= 2)
    target.rename(folder / "gone")
    code, output = finish(process)
    assert code != 0 and output.count("was deleted during the run") == 1, output
    assert reached_iteration(checkpoint) >= 2 and list(target.glob("log_*"))


def reached_iteration(checkpoint):
    try:
        experiment = utils.load_torch(checkpoint)["experiment"]  # None before the first one begins
    except utils.UserError:  # the run is about to rename a new one to this name
        return 0
    return experiment["it"] if experiment else 0


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_shares_are_contiguous_even_and_complete():
    for size in (1, 2, 3, 7, 10):
        shares = [parallel.World(rank, size).share(10) for rank in range(size)]
        assert [c for share in shares for c in share] == list(range(10))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_several_processes_cannot_do_is_refused(make_args):
    spec = data.DATASETS["Digits"]
    with pytest.raises(utils.UserError, match="11 processes for 10 classes"):
        distill.check_world(make_args(), spec, parallel.World(0, 11))
    with pytest.raises(utils.UserError, match="ConvNetBN"):
        distill.check_world(make_args(model="ConvNetBN", method="DM"), spec, parallel.World(0, 2))
    distill.check_world(make_args(model="ConvNetBN", method="DM"), spec, parallel.World())


def test_networks_that_differ_between_processes_end_the_run(digits, make_args):
    class World(parallel.World):
        drift = 0.0

        def gather_objects(self, value):
            return [value, [number + self.drift for number in value]]

    world = World(0, 2)
    real = digits.real("train", own=world.share(10))
    distiller = distill.Distiller(make_args(), 0, real, evaluate.Arithmetic("cpu"), world)
    distiller.check_networks()
    world.drift = 1e-12
    with pytest.raises(parallel.ParallelError, match="no longer the same"):
        distiller.check_networks()


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
