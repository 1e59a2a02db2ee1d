"""Facts about whole runs on a GPU, which `python -m pytest -m gpu` checks where there is one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scripts import SMALL, events, run

import augment
import utils
from bacon import compute, judge
from bacon.distill.distiller import Distiller
from bacon.recipes import EVAL_NETWORKS

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.filterwarnings("default")]
# Atomics and other kernels move last bits, so two runs are compared by the direction in which their
# canvases went.
LINE = [*SMALL, "--no_compile", "--Iteration=6", "--checkpoint_minutes=0"]


@pytest.fixture
def distilled(tmp_path, digits_folder, monkeypatch):
    """distilled(folder, *flags): the canvases that a run leaves.

    Of the same folder with --resume: of the rest of it. fp32 is without TF32 here, whose rounding
    leads two runs apart within six iterations.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def make(folder, *given, code=0):
        folder = tmp_path / folder
        line = [*LINE, f"--data_path={digits_folder}", *given, f"--save_path={folder}"]
        assert run("BACON_mnist.py", *line) == code
        (log,) = folder.glob("log_*.jsonl")
        (result,) = folder.glob("res_*.pt") if code == 0 else (None,)
        return events(log), result and torch.load(result, weights_only=True)["data"][0][0]

    return make


def alike(canvases, others, start):
    """The cosine between the ways that two runs went from the same start."""
    return F.cosine_similarity(
        (canvases - start).flatten(), (others - start).flatten(), dim=0
    ).item()


BATCH_NORM = ("--method=DM", "--model=ConvNetBN")
EXPERTS = ("--experts=1", "--expert_steps=9", "--expert_ce=17", "--spread_weight=1.5")


@pytest.mark.parametrize(
    ("precision", "least", "flags"),
    [
        ("fp32", 0.99, ()),
        ("bf16", 0.8, ()),
        ("fp32", 0.99, ("--zca",)),
        ("bf16", 0.8, ("--zca",)),
        ("fp32", 0.99, BATCH_NORM),
        ("bf16", 0.8, BATCH_NORM),
        # Not in bf16: its rounding leads an expert's training apart, on any device.
        ("fp32", 0.99, EXPERTS),
    ],
)
def test_a_gpu_distils_what_a_cpu_does(precision, least, flags, distilled):
    _, start = distilled("start", "--device=cpu", "--Iteration=0", *flags)
    flags = [
        *flags,
        "--Iteration=2",
    ]  # later a kink of ReLU here and there turns rounding into another way
    _, cpu = distilled("cpu", "--device=cpu", "--precision=fp32", *flags)
    log, gpu = distilled("gpu", "--device=cuda", f"--precision={precision}", *flags)
    assert log[0]["arithmetic"]["distilling"] == f"cuda, {precision}"
    assert (cpu - start).abs().max() > 0.01
    assert alike(gpu, cpu, start) > least


def test_a_run_that_was_stopped_goes_on_on_the_gpu(distilled, monkeypatch):
    iterate = Distiller.iterate

    def until_the_third(self, it):
        iterate(self, it)
        if it == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    _, start = distilled("start", "--device=cuda", "--Iteration=0")
    _, whole = distilled("whole", "--device=cuda", "--precision=fp32")
    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "iterate", until_the_third)
        distilled("parts", "--device=cuda", "--precision=fp32", code=75)
    log, parts = distilled("parts", "--device=cuda", "--precision=fp32", "--resume")
    assert [e["it"] for e in log if e["event"] == "resume"] == [3]
    assert alike(parts, whole, start) > 0.99


def test_compiled_networks_distil_the_same(distilled):
    if error := compute.compile_error("cuda"):
        pytest.skip(f"torch.compile does not work on this GPU: {error}")
    _, start = distilled("start", "--device=cuda", "--Iteration=0")
    _, plain = distilled("plain", "--device=cuda", "--precision=fp32")
    log, compiled = distilled("compiled", "--device=cuda", "--precision=fp32", "--compile")
    assert log[0]["arithmetic"]["distilling"] == "cuda, fp32, compiled"
    assert alike(compiled, plain, start) > 0.99


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_distil_what_one_does(distilled, digits_folder, tmp_path):
    _, start = distilled("start", "--device=cuda", "--Iteration=0")
    _, one = distilled("one", "--device=cuda", "--precision=fp32")
    line = [
        *LINE,
        f"--data_path={digits_folder}",
        "--device=cuda",
        "--precision=fp32",
        f"--save_path={tmp_path}/two",
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "BACON_mnist.py",
        *line,
    ]
    environment = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0"}
    subprocess.run(command, cwd=ROOT, check=True, timeout=600, env=environment)
    (result,) = (tmp_path / "two").glob("res_*.pt")
    assert alike(torch.load(result, weights_only=True)["data"][0][0], one, start) > 0.99


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name", sorted({name for names in EVAL_NETWORKS.values() for name in names if name})
)
def test_every_architecture_judges_without_waiting(name, precision):
    arithmetic, rng = compute.Arithmetic("cuda", precision), np.random.default_rng(0)
    images, labels = (
        torch.from_numpy(rng.standard_normal((20, 3, 32, 32), dtype="float32")),
        torch.arange(20) % 10,
    )
    on_cpu, net = (
        a.build(name, (3, 32, 32), 10, utils.stream(0, "net"))
        for a in (compute.Arithmetic("cpu"), arithmetic)
    )
    with torch.no_grad():
        wanted = on_cpu.eval().embed(images)
        found = arithmetic.embed(net.eval(), images.cuda(), None).cpu()
    assert F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.99
    images, labels = images.cuda(), labels.cuda()
    protocol = judge.Protocol(
        1, 10, 0.01, augment.parse_strategy("color_crop_cutout_flip_scale_rotate")
    )
    judge.train(
        net, images, labels, protocol, rng, arithmetic
    )  # kernels are chosen, memory is taken
    torch.cuda.set_sync_debug_mode("error")
    try:
        judge.train(net, images, labels, protocol, rng, arithmetic)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(parameter.isfinite().all() for parameter in net.parameters())
