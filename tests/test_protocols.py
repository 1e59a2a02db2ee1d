"""Facts about who judges a set: the protocols, their words, and how a set's run computed."""

import argparse
import dataclasses
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import scorer

from bacon import compute, judge
from bacon.errors import UserError
from bacon.recipes import DATASETS
from bacon.score import command, finding, judging, protocols, sets
from bacon.score.protocols import Subject
from bacon.score.rows import BIASED

ALL = "color_crop_cutout_flip_scale_rotate"


def protocol(*line, run=None, lr=None, **subject):
    return protocols.protocol_of(scorer(*line), run or {}, lr, Subject(**subject))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], f"1000 epochs, batch 256, sgd 0.01, DSA {ALL}"),
        (
            ["--protocol=dc-bench", "--dsa_strategy=none"],
            "300 epochs, batch 256, sgd 0.01, DSA none",
        ),
        (["--protocol=dc-bench", "--dsa_strategy="], "300 epochs, batch 256, sgd 0.01, DSA none"),
        (["--protocol=dc"], "300 epochs, batch 256, sgd 0.01, DC none"),
        (["--protocol=dc", "--dsa_strategy="], "300 epochs, batch 256, sgd 0.01, DC none"),
        (["--judge_steps=7", "--dsa_strategy=flip"], "7 steps, batch 256, sgd 0.01, DSA flip"),
        (
            ["--protocol=ncfm", "--lr_net=0.002"],
            f"2000 epochs, batch 128, adamw 0.002, DSA {ALL}, CutMix 0.5",
        ),
        (
            ["--protocol=idc"],
            "1000 epochs, batch 64, sgd (IDC) 0.01, IDC flip_color_crop_scale_rotate, CutMix 0.5",
        ),
    ],
)
def test_a_protocol_in_words_which_name_the_kept_accuracies_of_baselines(line, words):
    assert str(protocol(*line)) == words


def test_every_protocol_is_a_row_of_the_table_in_the_docs():
    page = Path(__file__).parents[1] / "docs" / "scoring.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    for name, rules in protocols.PROTOCOLS.items():
        (row,) = [line for line in rows if line.startswith(f"| `{name}`")]
        _, epochs, optimizer, batch, *_ = row.strip("| ").split(" | ")
        assert str(rules.epochs) in re.findall(r"\d+", epochs) and batch == str(rules.batch)
        assert f"{rules.lr:g}" in re.findall(r"[\d.]+", optimizer) or optimizer == "the same"


def test_the_fields_of_a_protocol_go_into_a_json_line_and_back():
    for name in protocols.PROTOCOLS:
        found = protocol(f"--protocol={name}", dataset="MNIST", network="ConvNet")
        fields = json.loads(json.dumps(found.settings()))
        assert judge.Protocol(**fields | {"strategy": tuple(fields["strategy"])}) == found


RUN = {
    "epoch_eval_train": 20,
    "judge_steps": 9,
    "batch_train": 32,
    "lr_net": 0.5,
    "dsa_strategy": "flip",
}


def test_the_settings_of_a_run_count_for_the_papers_protocol_alone():
    assert str(protocol(run=RUN)) == "9 steps, batch 32, sgd 0.5, DSA flip"
    assert str(protocol("--epoch_eval_train=3", run=RUN)) == "3 epochs, batch 32, sgd 0.5, DSA flip"
    for name in ("dc-bench", "dc", "ncfm", "idc"):
        assert protocol(f"--protocol={name}", run=RUN) == protocol(f"--protocol={name}")


@pytest.mark.parametrize(("name", "rate"), [("paper", 0.2), ("idc", 0.2), ("ncfm", 0.001)])
def test_a_rate_that_a_set_was_learnt_with_is_taken_by_sgd(name, rate):
    assert protocol(f"--protocol={name}", lr=0.2).lr == rate
    assert protocol(f"--protocol={name}", "--lr_net=0.3", lr=0.2).lr == 0.3


# IDC


@pytest.mark.parametrize(
    ("subject", "strategy", "cutmix"),
    [
        ({"dataset": "CIFAR10", "factor": 2, "ipc": 10}, "flip_color_crop_scale_rotate", 0.5),
        ({"dataset": "MNIST", "factor": 2, "ipc": 10}, "color_crop_scale_rotate", 0),
        ({"dataset": "MNIST", "factor": 1, "ipc": 10}, "color_crop_scale_rotate", 0.5),
        ({"dataset": "SVHN", "factor": 2, "ipc": 1}, "color_crop_scale_rotate", 0.5),
        ({"dataset": "SVHN", "factor": 1, "ipc": 1}, "color_crop_scale_rotate_cutout", 0),
    ],
    ids=str,
)
def test_the_judge_of_idc_follows_dataset_and_storage(subject, strategy, cutmix):
    found = protocol("--protocol=idc", **subject)
    assert (found.epochs, found.batch, found.lr, found.steps) == (1000, 64, 0.01, 0)
    assert (found.augmentation, "_".join(found.strategy)) == ("IDC", strategy)
    assert found.cutmix == cutmix and found.passes == 1000


def test_flags_override_the_judge_of_idc():
    line = ["--protocol=idc", "--epoch_eval_train=1500", "--batch_train=32"]
    found = protocol(*line, "--dsa_strategy=color_cutout", dataset="CIFAR10")
    assert (found.epochs, found.batch, found.strategy) == (1500, 32, ("color", "cutout"))
    assert found.cutmix == 0.5
    assert protocol("--protocol=idc", "--dsa_strategy=none", dataset="CIFAR10").strategy == ()
    with pytest.raises(UserError, match="--dsa_strategy: unknown DSA op 'turn'"):
        protocol("--protocol=idc", "--dsa_strategy=turn")


@pytest.fixture
def subjects(monkeypatch):
    """The subjects that a protocol named `idc` is asked about."""
    asked = []
    rules = protocols.PROTOCOLS["idc"]

    def augmented(subject, strategy):
        asked.append(subject)
        return rules.augmented(subject, strategy)

    monkeypatch.setitem(protocols.PROTOCOLS, "idc", dataclasses.replace(rules, augmented=augmented))
    return asked


def rows_of(capsys, *line):
    assert command.main(None, [*map(str, line), "--format=json"]) == 0
    return [json.loads(text) for text in capsys.readouterr().out.splitlines()]


@pytest.fixture
def small_set(tmp_path, digits):
    """A file in DC's layout with two images per class."""
    images = digits.real("train").take(np.arange(20))
    torch.save({"data": [[images, torch.arange(20) % 10]]}, tmp_path / "set.pt")
    return tmp_path / "set.pt"


def test_the_scorer_tells_a_protocol_how_each_set_is_stored(subjects, quick, capsys, small_set):
    line = ["--dataset=Digits", "--model=ConvNetW32", "--protocol=idc", "--num_eval=1"]
    line += ["--epoch_eval_train=1", "--full_epochs=1", "--baseline=random,random4,full"]
    line += [f"--data_path={small_set.parent}", f"--save_path={small_set.parent}"]
    for factor in (1, 2):
        subjects.clear()
        rows = rows_of(capsys, small_set, *line, f"--factor={factor}")
        assert [row["set"] for row in rows[1:]] == ["random", "random4", "full"]
        assert {(one.dataset, one.network) for one in subjects} == {("Digits", "ConvNetW32")}
        storage = [(one.factor, one.ipc) for one in subjects]
        assert storage == [(factor, 2), (1, 2), (2, 2), (1, None)]


def test_biased_shows_the_best_epoch_of_idc(quick, capsys, monkeypatch, small_set):
    readings = iter([0.25, 0.75, 0.5, 0.375])  # after epochs 3, 6 and 9, and of the last one
    monkeypatch.setattr(judge, "accuracy", lambda *args: next(readings))
    line = ["--dataset=Digits", "--model=ConvNetW32", "--protocol=idc", "--num_eval=1"]
    line += ["--epoch_eval_train=10", "--biased=3", f"--data_path={small_set.parent}"]
    (row,) = rows_of(capsys, small_set, *line)
    assert row["accuracy"] == [[0.375]] and row[BIASED] == 75
    assert next(readings, None) is None


# The judges of a set


def test_architectures_with_the_same_protocol_are_judged_together():
    args = scorer("--eval_mode", "S", "N", "--seed=3")
    facts = sets.Facts.of("CIFAR10", DATASETS["CIFAR10"], None)
    (found,) = protocols.judges_of(args, facts, {})
    assert (found.num_eval, found.seed) == (5, 3) and len(found.names) == len(set(found.names))
    assert found.names[0] == "ConvNet" and "ConvNetBN" in found.names
    by_dc = protocols.judges_of(scorer("--eval_mode", "N", "--protocol=dc"), facts, {})
    assert ["ConvNetBN"] in [one.names for one in by_dc]


# How a set's judges were computed


OLD = {"distilling": "cuda, bf16, compiled", "judging": "cpu, 3 threads, bf16, compiled"}
FIELDS = {"device": "cpu", "threads": 8, "precision": "fp32", "compiled": False}


@pytest.mark.parametrize(
    ("meta", "settings"),
    [
        ({}, None),
        ({"arithmetic": OLD}, compute.Settings("cpu", 3, "bf16", True)),
        (
            {"arithmetic": {"judging": "cuda:1, fp32"}},
            compute.Settings("cuda:1", None, "fp32", False),
        ),
        ({"arithmetic": {"judging": "mps, bf16"}}, compute.Settings("mps", None, "bf16", False)),
        (
            {"arithmetic": OLD, "computed": {"judging": FIELDS}},
            compute.Settings("cpu", 8, "fp32", False),
        ),
        (
            {"computed": {"judging": FIELDS | {"nodes": 2}}},
            compute.Settings("cpu", 8, "fp32", False),
        ),
        (
            {"arithmetic": OLD, "computed": {"judging": {"device": "cpu"}}},
            compute.Settings("cpu", 3, "bf16", True),
        ),
    ],
    ids=["nothing", "words", "one GPU of several", "Apple GPU", "fields", "more", "fewer"],
)
def test_what_a_file_says_of_its_judges_is_read_in_words_and_in_fields(meta, settings):
    assert protocols.computed(meta) == settings


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("threads", [1, 64])
def test_a_set_is_judged_as_its_run_was_and_a_difference_is_told(threads, precision, caplog):
    caplog.set_level(logging.INFO, logger="bacon")
    logged = compute.Settings("cpu", threads, precision, False)
    args = argparse.Namespace(device="auto", precision="auto", compile=None)
    for meta in (
        {"arithmetic": {"judging": str(logged)}},
        {"computed": {"judging": dataclasses.asdict(logged)}},
    ):
        caplog.clear()
        arithmetic = protocols.arithmetic_of(meta, args, 1e9, "x.pt")
        assert (arithmetic.device.type, arithmetic.precision) == ("cpu", precision)
        here = f"cpu, {torch.get_num_threads()} threads, {precision}"
        told = f"x.pt: was judged on {logged}, here on {here}, so the last digits may differ"
        assert caplog.messages == ([] if threads == torch.get_num_threads() else [told])


def test_flags_decide_how_judges_are_computed_before_the_run_does():
    meta = {"arithmetic": {"judging": "cpu, 1 threads, bf16"}}
    args = argparse.Namespace(device="cpu", precision="fp32", compile=False)
    arithmetic = protocols.arithmetic_of(meta, args, 1e9, "x.pt")
    assert str(arithmetic).endswith("fp32")


def test_a_run_writes_how_it_computed_in_words_and_in_fields(finished):
    folder = finished()
    (log,) = folder.glob("log_*.jsonl")
    start = json.loads(log.read_text().splitlines()[0])
    saved = torch.load(next(folder.glob("res_*.pt")), weights_only=True)["meta"]
    for meta in (start, saved):
        for kind in ("distilling", "judging"):
            assert str(compute.Settings(**meta["computed"][kind])) == meta["arithmetic"][kind]
            assert compute.settings_in(meta["arithmetic"][kind]).precision == "fp32"


# What the field's own code says

# dc-bench, dc: main.py of DatasetCondensation (Zhao et al.), kept by DC-bench: with DSA, without.
# ncfm: config/ipc50/cifar10.yaml of NCFM (evaluation_epochs, batch_size, adamw_lr, eval_optimizer).
REFERENCE = {
    "dc-bench": ("1000 epochs, batch 256, sgd 0.01", "300 epochs, batch 256, sgd 0.01"),
    "dc": ("1000 epochs, batch 256, sgd 0.01", "300 epochs, batch 256, sgd 0.01"),
    "ncfm": ("2000 epochs, batch 128, adamw 0.001", "2000 epochs, batch 128, adamw 0.001"),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_a_protocol_trains_as_long_and_fast_as_the_code_it_is_named_after(name):
    augmented, plain = REFERENCE[name]
    if name == "dc":
        with_augmentation = protocol("--protocol=dc", dataset="MNIST", network="ConvNet")
        without = protocol("--protocol=dc", dataset="CIFAR10", network="ConvNet")
    else:
        with_augmentation = protocol(f"--protocol={name}")
        without = protocol(f"--protocol={name}", "--dsa_strategy=none")
    assert with_augmentation.strategy and str(with_augmentation).startswith(f"{augmented}, ")
    assert not without.strategy and str(without).startswith(f"{plain}, ")


@pytest.mark.parametrize("there", [True, False], ids=["the run's device", "a device not here"])
@pytest.mark.parametrize("compiled", [True, False])
def test_judges_compute_as_the_run_did_on_its_device_where_there_is_one(
    compiled, there, monkeypatch
):
    asked = []

    def choose(device, precision, compiled, flop):
        asked.append((device, precision, compiled, flop))
        return compute.Arithmetic("cpu")

    monkeypatch.setattr(compute, "choose", choose)
    monkeypatch.setattr(compute, "has_device", lambda device: there)
    meta = {"computed": {"judging": FIELDS | {"device": "cuda:1", "compiled": compiled}}}
    args = argparse.Namespace(device="auto", precision="auto", compile=None)
    protocols.arithmetic_of(meta, args, 7.0, "a set")
    assert asked == [("cuda:1" if there else "auto", "fp32", compiled, 7.0)]


def test_a_set_of_ours_has_as_many_judges_of_the_network_and_seed_as_in_its_run():
    facts = sets.Facts.of("CIFAR10", DATASETS["CIFAR10"], None)
    meta = {"args": {"model": "ConvNetW32", "seed": 7, "num_eval": 3}}
    (found,) = protocols.judges_of(scorer(), facts, meta)
    assert (found.names, found.num_eval, found.seed) == (["ConvNetW32"], 3, 7)
    flags = ["--model=ConvNetD2", "--seed=0", "--num_eval=1"]
    (found,) = protocols.judges_of(scorer(*flags), facts, meta)
    assert (found.names, found.num_eval, found.seed) == (["ConvNetD2"], 1, 0)


class Recorder(compute.Arithmetic):
    """Notes the rate, the optimizer and the targets of every step, and does not compute it."""

    def __init__(self):
        super().__init__("cpu")
        self.steps = []

    def training_step(self, net, optimizer, images, labels):
        self.steps.append(
            (optimizer.param_groups[0]["lr"], type(optimizer).__name__, images.clone(), labels)
        )


@pytest.fixture
def recorded():
    """The steps of a judge on ten Digits by --protocol and other flags."""

    def train(*line):
        args = scorer(*line)
        recorder = Recorder()
        net = recorder.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(0))
        images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
        protocol = protocols.protocol_of(args, {})
        judge.train(net, images, torch.arange(10), protocol, np.random.default_rng(1), recorder)
        return protocol, recorder.steps

    return train


def test_dc_bench_trains_300_epochs_without_augmentation_and_1000_with():
    def epochs(*line):
        args = scorer("--protocol=dc-bench", *line)
        return protocols.protocol_of(args, {}).epochs

    assert (epochs(), epochs("--dsa_strategy=none")) == (1000, 300)


def test_ncfm_is_adamw_that_halves_at_each_fifth_with_cutmix_on_half_of_the_batches(recorded):
    protocol, _ = recorded("--protocol=ncfm", "--epoch_eval_train=1")
    assert (protocol.batch, protocol.lr, protocol.cutmix) == (128, 1e-3, 0.5)
    _, steps = recorded("--protocol=ncfm", "--epoch_eval_train=100", "--dsa_strategy=none")
    assert len(steps) == 100 and {kind for _, kind, _, _ in steps} == {"AdamW"}
    assert [rate for rate, *_ in steps] == pytest.approx(
        [1e-3 * 0.5 ** (epoch // 20) for epoch in range(100)]
    )
    mixed = [bool((targets.max(1).values < 1).any()) for *_, targets in steps]
    assert 30 < sum(mixed) < 70
    for (
        _,
        _,
        images,
        targets,
    ) in steps:  # image c has the value c: a target tells how much of each class is in it
        share = torch.stack([(images == c).float().mean((1, 2, 3)) for c in range(10)], 1)
        torch.testing.assert_close(share, targets)


def test_the_rate_that_a_set_was_learnt_with_is_the_judges():
    args = scorer()
    assert protocols.protocol_of(args, {}, lr=0.02).lr == 0.02
    args = scorer("--lr_net=0.5")
    assert protocols.protocol_of(args, {}, lr=0.02).lr == 0.5


def test_the_judge_of_dc_has_an_augmentation_that_no_flag_changes():
    assert protocol("--protocol=dc", "--dsa_strategy=").augmentation == "DC"
    with pytest.raises(UserError, match=r"^--dsa_strategy: has no effect here, --protocol dc has"):
        protocol("--protocol=dc", "--dsa_strategy=flip")


def test_epochs_of_the_whole_set_have_no_effect_on_judges_of_equal_steps(digits_folder):
    """Whose number a set's run may say: by --judge_steps."""
    args = scorer("--baseline=full", "--full_epochs=3", f"--data_path={digits_folder}")
    real = finding.RealImages("Digits", args)
    with pytest.raises(UserError, match=r"^--full_epochs: .* the judges train for 7 steps"):
        judging._judges_of_baseline("full", real, {"args": {"judge_steps": 7}}, None, args)
    (judges,) = judging._judges_of_baseline("full", real, {"args": {}}, None, args)
    assert judges.protocol.epochs == 3
