"""Facts about judging a synthetic set: the protocol, the test accuracy, the figures."""

import copy
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import augment
import cost
import distill
import evaluate
import networks
import tables
import utils

STRATEGY = augment.parse_strategy("color_crop_cutout_flip_scale_rotate")


class Recorder(evaluate.Arithmetic):
    """Notes the labels and the optimizer of every training step instead of computing it."""

    def __init__(self):
        super().__init__("cpu")
        self.steps = []

    def training_step(self, net, optimizer, images, labels):
        self.steps.append((labels.tolist(), optimizer))


@pytest.fixture
def small_set():
    g = torch.Generator().manual_seed(0)
    return torch.randn(23, 1, 8, 8, generator=g), torch.arange(23)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_epochs_batches_rate_drop_and_momentum_restart(small_set, epochs):
    recorder = Recorder()
    net = torch.nn.Linear(1, 1)
    evaluate.train(net, *small_set, evaluate.Protocol(epochs, 10, 0.01, STRATEGY), np.random.default_rng(0), recorder)
    steps = recorder.steps
    assert len(steps) == 3 * (epochs + 1)
    orders = []
    for epoch in range(epochs + 1):
        batches = steps[3 * epoch : 3 * epoch + 3]
        assert [len(labels) for labels, _ in batches] == [10, 10, 3]  # the last partial batch is kept
        orders.append([label for labels, _ in batches for label in labels])
        assert sorted(orders[-1]) == list(range(23))
        rate = 0.01 if epoch <= epochs // 2 + 1 else 0.001
        for _, optimizer in batches:
            settings = optimizer.param_groups[0]
            assert (settings["lr"], settings["momentum"], settings["weight_decay"]) == (pytest.approx(rate), 0.9, 5e-4)
    assert orders[0] != orders[1] != list(range(23))
    used = list(dict.fromkeys(id(optimizer) for _, optimizer in steps))
    assert len(used) == (2 if epochs // 2 + 1 < epochs else 1)  # a new optimizer, so momentum starts from zero


def test_training_equals_a_plain_loop_with_one_op_per_batch_and_parameters_per_image(small_set):
    images, labels = small_set
    labels = labels % 10
    arithmetic = evaluate.Arithmetic("cpu")
    ours = arithmetic.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(1))
    plain = copy.deepcopy(ours)
    evaluate.train(ours, images, labels, evaluate.Protocol(4, 10, 0.05, STRATEGY), np.random.default_rng(2), arithmetic)

    rng = np.random.default_rng(2)
    velocity = [torch.zeros_like(p) for p in plain.parameters()]
    rate = 0.05
    for epoch in range(5):
        order = rng.permutation(23)
        for start in (0, 10, 20):
            index = order[start : start + 10]
            op, u = augment.draw(STRATEGY, len(index), rng)
            batch = torch.cat([augment.OPS[op](images[i : i + 1], u[k : k + 1]) for k, i in enumerate(index)])
            loss = F.cross_entropy(plain.classify(batch), labels[index])
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            with torch.no_grad():
                for p, v, g in zip(plain.parameters(), velocity, gradients, strict=True):
                    v.mul_(0.9).add_(g + 5e-4 * p)
                    p.sub_(rate * v)
        if epoch == 4 // 2 + 1:
            rate *= 0.1
            velocity = [torch.zeros_like(p) for p in plain.parameters()]
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_accuracy_is_the_share_of_the_whole_test_set_in_eval_mode(digits, monkeypatch):
    test = digits.real("test")
    arithmetic = evaluate.Arithmetic("cpu")
    net = arithmetic.build("ConvNetBN", (1, 8, 8), 10, np.random.default_rng(0)).train()
    state = copy.deepcopy(net.state_dict())
    monkeypatch.setattr(evaluate.Arithmetic, "chunk", lambda self, size: 100)
    value = evaluate.accuracy(net, test, arithmetic)
    right = sum(
        int(net.eval().classify(test.take(slice(i, i + 1))).argmax() == digits.labels_test[i]) for i in range(len(test))
    )
    assert value == pytest.approx(right / len(test), abs=2.1 / len(test))  # ties aside
    assert all(torch.equal(a, b) for a, b in zip(state.values(), net.state_dict().values(), strict=True))


def test_judging_is_determined_by_its_stream_alone(digits):
    test = digits.real("test")
    train = digits.real("train")
    images, labels = train.take(slice(0, 60)), train.labels_of(slice(0, 60))
    protocol, arithmetic = evaluate.Protocol(4, 32, 0.01, STRATEGY), evaluate.Arithmetic("cpu")

    def score(seed):
        rng = utils.stream(seed, "judge")
        return evaluate.judge("ConvNetW32", images, labels, test, 10, protocol, rng, arithmetic)

    first = score(0)
    torch.rand(3)
    assert first == score(0) and first != score(1)


def test_every_mode_names_networks_that_exist_and_the_training_one_once():
    for mode in evaluate.EVAL_NETWORKS:
        assert set(evaluate.architectures(mode, "ConvNetW32")) <= set(networks.NETWORKS)
    assert tuple(evaluate.EVAL_NETWORKS) == utils.EVAL_MODES
    assert evaluate.architectures("S", "ConvNetW32") == evaluate.architectures("SS", "ConvNetW32") == ["ConvNetW32"]
    assert evaluate.architectures("C", "ConvNetW32") == ["ConvNetW32", "ConvNet"]
    assert evaluate.architectures("C", "ConvNet") == ["ConvNet"]


def test_summary_separates_networks_from_experiments():
    s = tables.summary([[0.5, 0.6], [0.7, 0.8]])
    every = np.array([50, 60, 70, 80.0])
    assert s["mean"] == pytest.approx(65) and s["std"] == pytest.approx(every.std()) and s["networks"] == 4
    assert s["std_networks"] == pytest.approx(5) and s["std_experiments"] == pytest.approx(10)
    assert tables.summary([[0.5, 0.6]])["std_experiments"] is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_number_formats_stay_inside_the_networks(precision):
    arithmetic = evaluate.Arithmetic("cpu", precision)
    net = arithmetic.build("ConvNetW32", (3, 16, 16), 10, np.random.default_rng(0))
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    embedding, logits = arithmetic.embed_and_classify(net, images, 1000)
    (gradient,) = torch.autograd.grad(embedding.sum() + logits.sum(), images)
    assert {t.dtype for t in (embedding, logits, gradient)} == {torch.float32}
    exact, _ = net.embed_and_classify(images)
    torch.testing.assert_close(embedding, exact, rtol=0.05, atol=0.02)


def test_logits_are_float32_even_in_bf16_so_that_classes_do_not_tie():
    arithmetic = evaluate.Arithmetic("cpu", "bf16")
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
def test_compiled_networks_compute_the_same(digits, make_args):
    def canvases(arithmetic):
        d = distill.Distiller(make_args(), 0, real, arithmetic)
        d.iterate(0)
        d.iterate(1)
        return d.canvases

    real = digits.real("train")
    plain, compiled = canvases(evaluate.Arithmetic("cpu")), canvases(evaluate.Arithmetic("cpu", compiled=True))
    torch.testing.assert_close(plain, compiled, rtol=0, atol=1e-4)


def test_auto_settings_follow_fixed_rules(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(evaluate, "compile_error", lambda device: None)

    def chosen(*arguments):
        a, notes = evaluate.choose_arithmetic(*arguments)
        return a.device.type, a.precision, a.compiled, len(notes)

    assert chosen("auto", "auto", None, 1e9) == ("cpu", "fp32", False, 0)  # too short to repay compiling
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "bf16", True, 0)
    assert chosen("auto", "auto", False, 1e15) == ("cpu", "fp32", False, 0)
    assert chosen("auto", "fp32", True, 1e9) == ("cpu", "fp32", True, 0)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "fp32", True, 0)
    monkeypatch.setattr(evaluate, "compile_error", lambda device: "no C++ compiler")
    assert chosen("auto", "auto", None, 1e15) == ("cpu", "fp32", False, 1)


@pytest.mark.slow
def test_a_compiler_that_is_missing_or_cannot_compile_is_noticed(monkeypatch, tmp_path):
    program = "import evaluate; print(*evaluate.choose_arithmetic('cpu', 'auto', True, 0)[1])"
    monkeypatch.setenv("CXX", "no_compiler")
    assert evaluate.compile_error.__wrapped__("cpu") == "no C++ compiler (no_compiler) found"
    complaint, compiler = "fatal error: Python.h: No such file", tmp_path / "c++"
    compiler.write_text(
        f'#!/bin/bash\n[[ "$*" == *--version* ]] && echo "g++ 13" && exit\necho "{complaint}" >&2; exit 1\n'
    )
    compiler.chmod(0o755)
    environment = {**os.environ, "CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.startswith("running without torch.compile") and complaint in output and output.count("\n") == 1


@pytest.mark.parametrize("iterations", [10, 1000])
def test_how_one_distils_does_not_depend_on_how_often_one_judges(iterations, digits, make_args):
    def chosen(**flags):
        args = make_args(Iteration=iterations, model="ConvNet", batch_real=100, epoch_eval_train=50, **flags)
        return str(cost.choose_arithmetic(args, digits)[0])

    usual = chosen()
    assert usual == chosen(eval_interval=1) == chosen(num_eval=500) == chosen(num_exp=100) == chosen(eval_mode="W")
    assert usual == chosen(num_exp=100, exp_index=3)
    assert ("compiled" in usual) == (iterations == 1000 and evaluate.compile_error("cpu") is None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_of_large_tensors_stays_with_the_process():
    program = """if True:
        import resource, torch, evaluate
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(2**24)  # 64 MB: 16,384 pages of 4 kB or 32 huge ones
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(min(faults() for _ in range(6)))
        evaluate.keep_freed_memory()
        print(max([faults() for _ in range(12)][6:]))  # the first few calls still grow the heap"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    given_back, kept = map(int, output.split())
    assert given_back >= 32 and kept < given_back / 10
