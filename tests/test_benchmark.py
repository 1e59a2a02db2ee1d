"""Facts about tests/benchmark.py: its rows are whole, also those that only a GPU fills."""

import functools
import types

import benchmark
import pytest
import torch

LINE = "--dataset CIFAR10 --ipc 1 --model ConvNetW32 --batch_real 4 --trained_bs 4 "
LINE += "--model_train_steps 1 --epoch_eval_train 1 --no_compile --Iteration 20"


@pytest.fixture
def few_images(monkeypatch):
    """Random images in place of the whole dataset, and a GPU's functions on a CPU."""
    make = functools.partial(benchmark.random_dataset, per_class=8)
    monkeypatch.setattr(benchmark, "random_dataset", lambda name, per_class: make(name))
    for name, value in (
        ("reset_peak_memory_stats", None),
        ("max_memory_allocated", 0),
        ("set_sync_debug_mode", None),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("more", ["", "--experts 2 --expert_ce 1"])
def test_the_row_of_a_gpu_has_a_cell_for_each_column(more, few_images, tmp_path, capsys):
    line = f"{LINE} {more}"
    benchmark.iteration_on_gpu("a title", line, str(tmp_path), 1e12, 1e11, repeat=2)
    row = capsys.readouterr().out.splitlines()[-1]
    cells = row.strip("|").split("|")
    assert len(cells) == len(benchmark.GPU_COLUMNS.split("|"))
    assert cells[0].strip() == "a title" and float(cells[2]) > 0 and float(cells[7]) > 0


def test_kernels_are_counted_without_copies_and_annotations():
    kinds = torch.autograd.DeviceType

    def event(name, device_type=kinds.CUDA, is_user_annotation=False):
        return types.SimpleNamespace(
            name=name, device_type=device_type, is_user_annotation=is_user_annotation
        )

    assert benchmark.is_kernel(event("gemm"))
    assert not benchmark.is_kernel(event("aten::mm", kinds.CPU))
    assert not benchmark.is_kernel(event("Memcpy HtoD"))
    assert not benchmark.is_kernel(event("Memset"))
    assert not benchmark.is_kernel(event("Optimizer.step#SGD.step", is_user_annotation=True))


@pytest.mark.parametrize(("more", "parts"), [("", 5), ("--experts 2 --expert_ce 1", 4)])
def test_the_rows_of_distilling_and_judging_have_a_cell_for_each_column(
    more, parts, few_images, tmp_path, capsys
):
    table = benchmark.Table()
    benchmark.distillation(table, "a title", f"{LINE} {more}", str(tmp_path), iterations=1)
    of_distilling = capsys.readouterr().out
    assert of_distilling.count("| a title") == parts
    benchmark.evaluation(table, "a title", LINE, str(tmp_path))
    lines = (of_distilling + capsys.readouterr().out).splitlines()
    rows = [line for line in lines if line.startswith("| a title")]
    assert len(rows) > parts
    for row in rows:
        assert len(row.strip("|").split("|")) == len(table.COLUMNS)
