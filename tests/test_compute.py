"""Facts about how networks are computed: number formats, compiled code, and what `auto` chooses."""

import functools
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F
from heard import hearing
from scripts import SMALL, assert_one_line, run

import networks
from bacon import compute
from bacon.distill import distiller

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_number_formats_stay_inside_the_networks(precision):
    arithmetic = compute.Arithmetic("cpu", precision)
    net = arithmetic.build("ConvNetW32", (3, 16, 16), 10, np.random.default_rng(0))
    images = torch.randn(
        4, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    embedding, logits = arithmetic.embed_and_classify(net, images, 1000)
    (gradient,) = torch.autograd.grad(embedding.sum() + logits.sum(), images)
    assert {t.dtype for t in (embedding, logits, gradient)} == {torch.float32}
    exact, _ = net.embed_and_classify(images)
    torch.testing.assert_close(embedding, exact, rtol=0.05, atol=0.02)


def test_logits_are_float32_even_in_bf16_so_that_classes_do_not_tie():
    arithmetic = compute.Arithmetic("cpu", "bf16")
    net = arithmetic.build("ConvNetW32", (3, 16, 16), 100, np.random.default_rng(0))
    images = torch.randn(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, logits = arithmetic.embed_and_classify(net, images, 1000)
    assert not torch.equal(logits, logits.bfloat16().float())
    best = logits.topk(2, dim=1).values
    assert (best[:, 0] > best[:, 1]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_networks_compute_the_same(digits, make_args, monkeypatch):
    def canvases(arithmetic):
        d = distiller.begin(make_args(), 0, real, arithmetic)
        d.iterate(0)
        d.iterate(1)
        return d.canvases

    monkeypatch.setitem(
        networks.NETWORKS, "ConvNetW32", functools.partial(networks.ConvNet, width=4, depth=1)
    )
    real = digits.real("train")
    with torch._inductor.config.patch(
        compile_threads=1
    ):  # no processes to start for three small graphs
        plain, compiled = (
            canvases(compute.Arithmetic("cpu")),
            canvases(compute.Arithmetic("cpu", compiled=True)),
        )
    torch.testing.assert_close(plain, compiled, rtol=0, atol=1e-4)


def test_auto_settings_follow_fixed_rules(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(compute, "compile_error", lambda device: None)

    def chosen(*arguments):
        with hearing() as said:
            a = compute.choose(*arguments)
        return a.device.type, a.precision, a.compiled, len(said)

    compute._tell_uncompiled.cache_clear()
    # Too short to repay compiling; the number format is the same.
    assert chosen("auto", "auto", None, 1e9) == ("cpu", "bf16", False, 0)
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "bf16", True, 0)
    assert chosen("auto", "auto", False, 1e15) == ("cpu", "bf16", False, 0)
    assert chosen("auto", "fp32", True, 1e9) == ("cpu", "fp32", True, 0)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "fp32", True, 0)
    monkeypatch.setattr(compute, "compile_error", lambda device: "no C++ compiler")
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "fp32", False, 1)
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "fp32", False, 0)  # told once


@pytest.mark.parametrize("bf16", [True, False])
def test_on_cuda_long_work_is_compiled_where_that_works(bf16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(compute, "working", lambda name: {"auto": "cuda"}.get(name, name))
    monkeypatch.setattr(compute, "compile_error", lambda device: None)

    def chosen(planned, compiled=None):
        with hearing() as said:
            a = compute.choose("auto", "auto", compiled, planned)
        return str(a), said

    compute._tell_uncompiled.cache_clear()

    precision = "bf16" if bf16 else "fp32"
    assert chosen(1e15) == (f"cuda, {precision}", [])
    assert chosen(1e16) == (f"cuda, {precision}, compiled", [])
    assert chosen(1e16, False) == (f"cuda, {precision}", [])
    monkeypatch.setattr(
        compute, "compile_error", lambda device: "Cannot find a working triton installation"
    )
    text, (note,) = chosen(1e16)
    assert text == f"cuda, {precision}" and "without torch.compile" in note and "triton" in note


def test_where_code_for_a_device_cannot_be_made_it_is_said_in_a_few_words(monkeypatch):
    def broken(function):
        raise RuntimeError("Cannot find a working triton installation.\nSee the manual.")

    monkeypatch.setattr(torch, "compile", broken)
    assert compute.compile_error.__wrapped__("cuda") == "Cannot find a working triton installation."


def test_a_gpu_that_is_listed_but_cannot_compute_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    def ones(*size, device):
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nmore"
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", ones)
    assert run("BACON_mnist.py", *SMALL, "--save_path", tmp_path / "result") == 2
    assert_one_line(
        capsys, "--device auto: cuda cannot compute here", "no kernel image", "use --device cpu"
    )
    assert not (tmp_path / "result").exists()


@pytest.mark.slow
def test_a_compiler_that_is_missing_or_cannot_compile_is_noticed(monkeypatch, tmp_path):
    program = "from bacon import compute, messages\n"
    program += "with messages.speak('stdout'): compute.choose('cpu', 'auto', True, 0)"
    monkeypatch.setenv("CXX", "no_compiler")
    assert compute.compile_error.__wrapped__("cpu") == "no C++ compiler (no_compiler) found"
    complaint, compiler = "fatal error: Python.h: No such file", tmp_path / "c++"
    compiler.write_text(
        '#!/bin/bash\n[[ "$*" == *--version* ]] && echo "g++ 13" && exit\n'
        f'echo "{complaint}" >&2; exit 1\n'
    )
    compiler.chmod(0o755)
    environment = {
        **os.environ,
        "CXX": str(compiler),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    command = [sys.executable, "-c", program]
    output = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert (
        output.startswith("running without torch.compile")
        and complaint in output
        and output.count("\n") == 1
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_of_large_tensors_stays_with_the_process():
    program = """if True:
        import resource, torch
        from bacon import compute
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(2**24)  # 64 MB: 16,384 pages of 4 kB or 32 huge ones
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(min(faults() for _ in range(6)))
        compute.keep_freed_memory()
        print(max([faults() for _ in range(12)][6:]))  # the first few calls still grow the heap"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    given_back, kept = map(int, output.split())
    assert given_back >= 32 and kept < given_back / 10


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiled_network_is_spared_the_advice_to_use_another_precision(compiled):
    advice = "TensorFloat32 tensor cores for float32 matrix multiplication available"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        compute.Arithmetic("cpu", compiled=compiled)
        warnings.warn(f"{advice} but not enabled.", stacklevel=1)
        warnings.warn("another one", stacklevel=1)
    expected = ["another one"] if compiled else [f"{advice} but not enabled.", "another one"]
    assert [str(one.message) for one in said] == expected


def test_soft_labels_are_logits_that_train_by_soft_cross_entropy():
    arithmetic = compute.Arithmetic("cpu")
    nets = [
        arithmetic.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(0)) for _ in range(2)
    ]
    g = torch.Generator().manual_seed(0)
    images, logits = torch.randn(6, 1, 8, 8, generator=g), torch.randn(6, 10, generator=g)
    optimizer = torch.optim.SGD(nets[0].parameters(), lr=1.0)
    arithmetic.training_step(nets[0], optimizer, images, logits.softmax(1))
    loss = -(logits.softmax(1) * F.log_softmax(nets[1].classify(images), 1)).sum(1).mean()
    for p, q, grad in zip(
        nets[0].parameters(),
        nets[1].parameters(),
        torch.autograd.grad(loss, [*nets[1].parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(p, q - grad, rtol=1e-4, atol=1e-5)


def test_on_an_apple_gpu_nothing_is_compiled_and_numbers_are_fp32(monkeypatch):
    monkeypatch.setattr(compute, "working", lambda name: "mps")
    assert str(compute.choose("auto", "auto", None, 1e30)) == "mps, fp32"


@pytest.mark.parametrize(("count", "filled"), [(0, 32), (1, 32), (32, 32), (33, 64)])
def test_a_share_of_a_batch_is_filled_up_with_images_that_weigh_nothing(count, filled):
    """However many images a process has: its gradients are those of its images, over `total`."""

    class World:
        def sum_(self, tensor):
            """There is no other process."""

    arithmetic = compute.Arithmetic("cpu")
    net = arithmetic.build("MLP", (1, 8, 8), 10, np.random.default_rng(0))
    classify = net.classify
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 10
    logits = classify(images)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / 40
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    expected = [
        parameter.detach() - gradient
        for parameter, gradient in zip(net.parameters(), gradients, strict=True)
    ]
    seen = []
    net.classify = lambda images: seen.append(len(images)) or classify(images)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    correct = arithmetic.training_step(net, optimizer, images, labels, 40, World())
    assert seen == [filled]
    assert correct == (logits.argmax(1) == labels).sum()
    torch.testing.assert_close(list(net.parameters()), expected)


def git(folder, *words):
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *author, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_result_names_the_revision_of_the_code_and_whether_it_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "__file__", str(tmp_path / "bacon/compute.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert compute.versions(CPU)["git"] == "unknown"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    revision = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert compute.versions(CPU)["git"] == revision
    (tmp_path / "code.py").write_text("2")
    assert compute.versions(CPU)["git"] == f"{revision}-dirty"


def test_the_processor_of_a_result_is_the_one_that_computed_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    kind = torch.backends.cpu.get_cpu_capability()
    assert compute.versions(CPU)["processor"] == kind
    assert compute.versions(torch.device("cuda:1"))["processor"] == "GPU 1"


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_memory_that_is_freed_is_kept_where_the_c_library_allocates(device, monkeypatch):
    kept = []
    monkeypatch.setattr(compute, "keep_freed_memory", lambda: kept.append(device))
    monkeypatch.setattr(compute, "working", lambda name: name)
    compute.choose(device, "fp32", False, 0)
    assert kept == (["cpu"] if device == "cpu" else [])


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_an_allocator_that_is_not_glibcs_is_left_alone(platform, monkeypatch):
    def library(name):
        assert platform == "linux"
        return object()  # without mallopt

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(compute.ctypes, "CDLL", library)
    assert compute.keep_freed_memory() is None
