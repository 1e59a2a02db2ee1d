"""Facts about scoring saved sets: the logged accuracy again, other protocols, baselines, tables and pictures."""

import importlib
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import augment
import data
import distill
import evaluate
import figures
import networks
import tables
import utils

SMALL = [
    "--model=ConvNetW32", "--ipc=2", "--Iteration=2", "--batch_real=20", "--trained_bs=16",
    "--model_train_steps=1", "--num_exp=1", "--num_eval=2", "--epoch_eval_train=2", "--eval_interval=1",
]  # fmt: skip


def run(*flags, script="BACON_mnist"):
    module = importlib.import_module(script)
    return distill.run(module.DATASETS, module.__doc__, [*SMALL, *map(str, flags)])


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of finished runs: BACON with two experiments, BACON without a term, random images."""
    root = tmp_path_factory.mktemp("runs")
    kinds = {"BACON": ["--num_exp=2", "--eval_mode=C"], "no_tv": ["--tv_weight=0"], "random": ["--Iteration=0"]}
    for name, flags in kinds.items():
        assert run("--dataset=Digits", "--seed=3", *flags, "--save_path", root / name) == 0
    return root


def scored(capsys, *line):
    assert evaluate.main([*map(str, line), "--format=json"]) == 0
    return [json.loads(text) for text in capsys.readouterr().out.splitlines()]


# --- scoring


def test_scoring_a_set_of_ours_gives_the_logged_accuracy_to_the_digit(runs, capsys):
    rows = scored(capsys, runs / "BACON", "--eval_mode=C")
    (path,) = (runs / "BACON").glob("res_*.pt")
    logged = torch.load(path, weights_only=True)["accs_all_exps"]
    assert [row["network"] for row in rows] == ["ConvNetW32", "ConvNet"] == list(logged)
    for row in rows:
        assert [a for experiment in row["accuracy"] for a in experiment] == logged[row["network"]]
        assert row["logged, the same networks"] and (row["stored per class"], row["decoded per class"]) == ("2", "8")
        assert row["networks"] == 4 and row["std_experiments"] is not None and row["epochs"] == 2
    (one,) = scored(capsys, path, "--exp=1", "--num_eval=1")
    assert one["accuracy"] == [logged["ConvNetW32"][2:3]] and one["logged, the same networks"]


def test_the_best_epoch_is_shown_on_request_only_and_called_biased(runs, capsys):
    (plain,) = scored(capsys, runs / "no_tv")
    (both,) = scored(capsys, runs / "no_tv", "--biased=1")
    assert both["accuracy"] == plain["accuracy"] and both["mean"] == plain["mean"]
    assert both["best epoch on test (biased)"] >= both["mean"] and not any("biased" in key for key in plain)


def test_a_set_named_twice_is_judged_once(runs, capsys):
    (path,) = (runs / "no_tv").glob("res_*.pt")
    (row,) = scored(capsys, runs / "no_tv", path, "--num_eval=1")
    assert row["networks"] == 1


def test_images_that_are_linked_to_have_the_labels_beside_the_link(tmp_path, capsys):
    for name, roll in {"a": 0, "b": 1}.items():
        (tmp_path / name).mkdir()
        torch.save(torch.arange(10).roll(roll), tmp_path / name / "labels_best.pt")
    torch.save(torch.zeros(10, 1, 8, 8), tmp_path / "a/images_best.pt")
    (tmp_path / "b/images_best.pt").symlink_to("../a/images_best.pt")
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    assert len(scored(capsys, tmp_path / "a", tmp_path / "b", *line)) == 2


def test_tables_are_printed_as_text_and_markdown(runs, capsys):
    assert evaluate.main([str(runs / "no_tv")]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["set", "stored/class", "decoded/class", "network"] and "reproduced" in row
    assert evaluate.main([str(runs / "no_tv"), "--format=markdown"]) == 0
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") > 9 and set(rule) <= set("|- ")


def test_baselines_are_judged_beside_the_set(runs, capsys, digits):
    rows = scored(capsys, runs / "random", "--baseline=random,random4,herding,full", "--full_epochs=1")
    assert [row["set"] for row in rows[1:]] == ["random", "random4", "herding", "full"]
    assert [row["stored per class"] for row in rows[1:4]] == ["2"] * 3 and rows[4]["epochs"] == 1
    # random4 is what a run with --Iteration 0 distils: the same images, judged by the same networks.
    assert rows[2]["accuracy"] == rows[0]["accuracy"] and rows[2]["decoded per class"] == "8"
    real = digits.real("train")
    herd = evaluate.baseline("herding", real, 3, 0).canvases.unflatten(0, (10, 3))
    for c in range(10):
        mean = real.take(np.flatnonzero(digits.labels_train == c)).mean(0)
        distances = [(herd[c, :k].mean(0) - mean).norm() for k in (1, 2, 3)]
        assert distances[2] < distances[0] and len(herd[c].unique(dim=0)) == 3
    with pytest.raises(utils.UserError, match="smallest class has 116"):
        evaluate.baseline("random", real, 500, 0)


def test_a_baseline_needs_no_set(capsys):
    line = ["--baseline=random", "--dataset=Digits", "--ipc=1", "--num_eval=1", "--epoch_eval_train=1"]
    (row,) = scored(capsys, *line, "--model=ConvNetW32")
    assert row["stored per class"] == row["decoded per class"] == "1"


MODES = sorted({name for mode in "MBWDAPN" for name in evaluate.EVAL_NETWORKS[mode]})


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["1 channel", "3 channels"])
@pytest.mark.parametrize("name", MODES)
def test_every_network_of_the_modes_judges(name, shape):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((3, *shape), dtype="float32"))
    pixels = (images * 255).to(torch.uint8)
    test = data.RealData(pixels, torch.arange(3), (0.0,) * shape[0], (1.0,) * shape[0], 3, "cpu")
    protocol = evaluate.Protocol(0, 3, 0.01, augment.parse_strategy("flip"))
    score = evaluate.judge(name, images, torch.arange(3), test, 3, protocol, rng, evaluate.Arithmetic("cpu"))
    assert score in (0, 1 / 3, 2 / 3, 1)


# --- protocols


class Recorder(evaluate.Arithmetic):
    """Notes the rate, the optimizer and the targets of every step, and does not compute it."""

    def __init__(self):
        super().__init__("cpu")
        self.steps = []

    def training_step(self, net, optimizer, images, labels):
        self.steps.append((optimizer.param_groups[0]["lr"], type(optimizer).__name__, images.clone(), labels))


@pytest.fixture
def recorded(digits, runs):
    """The steps of a judge on ten Digits by --protocol and other flags."""

    def train(*line):
        args = evaluate.build_parser().parse_args(list(line))
        recorder = Recorder()
        net = recorder.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(0))
        saved = evaluate.sets.SavedSet("x", 0, "DC", torch.zeros(10, 1, 8, 8), torch.arange(10))
        images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
        protocol = evaluate.protocol_of(saved, args)
        evaluate.train(net, images, torch.arange(10), protocol, np.random.default_rng(1), recorder)
        return protocol, recorder.steps

    return train


def test_dc_bench_trains_300_epochs_without_augmentation_and_1000_with():
    def epochs(*line):
        args = evaluate.build_parser().parse_args(["--protocol=dc-bench", *line])
        return evaluate.protocol_of(evaluate.sets.SavedSet("x", 0, "DC", None, None), args).epochs

    assert (epochs(), epochs("--dsa_strategy=none")) == (1000, 300)


def test_ncfm_is_adamw_that_halves_at_each_fifth_with_cutmix_on_half_of_the_batches(recorded):
    protocol, _ = recorded("--protocol=ncfm", "--epoch_eval_train=1")
    assert (protocol.batch, protocol.lr, protocol.cutmix) == (128, 1e-3, 0.5)
    _, steps = recorded("--protocol=ncfm", "--epoch_eval_train=100", "--dsa_strategy=none")
    assert len(steps) == 100 and {kind for _, kind, _, _ in steps} == {"AdamW"}
    assert [rate for rate, *_ in steps] == pytest.approx([1e-3 * 0.5 ** (epoch // 20) for epoch in range(100)])
    mixed = [bool((targets.max(1).values < 1).any()) for *_, targets in steps]
    assert 30 < sum(mixed) < 70
    for _, _, images, targets in steps:  # image c has the value c: a target tells how much of each class is in it
        share = torch.stack([(images == c).float().mean((1, 2, 3)) for c in range(10)], 1)
        torch.testing.assert_close(share, targets)


def test_the_rate_that_a_set_was_learnt_with_is_the_judges():
    saved = evaluate.sets.SavedSet("x", 0, "MTT", None, None, lr=0.02)
    args = evaluate.build_parser().parse_args([])
    assert evaluate.protocol_of(saved, args).lr == 0.02
    args = evaluate.build_parser().parse_args(["--lr_net=0.5"])
    assert evaluate.protocol_of(saved, args).lr == 0.5


def test_soft_labels_are_logits_that_train_by_soft_cross_entropy():
    arithmetic = evaluate.Arithmetic("cpu")
    nets = [arithmetic.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(0)) for _ in range(2)]
    g = torch.Generator().manual_seed(0)
    images, logits = torch.randn(6, 1, 8, 8, generator=g), torch.randn(6, 10, generator=g)
    optimizer = torch.optim.SGD(nets[0].parameters(), lr=1.0)
    arithmetic.training_step(nets[0], optimizer, images, logits.softmax(1))
    loss = -(logits.softmax(1) * F.log_softmax(nets[1].classify(images), 1)).sum(1).mean()
    for p, q, grad in zip(
        nets[0].parameters(), nets[1].parameters(), torch.autograd.grad(loss, [*nets[1].parameters()]), strict=True
    ):
        torch.testing.assert_close(p, q - grad, rtol=1e-4, atol=1e-5)


# --- tables and pictures


def test_the_table_has_the_papers_figure_beside_each_cell_and_an_ablation(runs, capsys):
    assert evaluate.main(["--table", str(runs)]) == 0
    first, second, third = capsys.readouterr().out.strip().split("\n\n")
    assert "Digits ipc 2" in first and "whole" in first and "random (real)" in first and "--tv_weight 0" in first
    assert "std experiments" in second
    assert "Weights of BACON's terms" in third and len(third.splitlines()) == 4
    assert tables.paper_figure("BACON", "CIFAR10", 10) == 62.06
    assert tables.paper_figure("DM", "TinyImageNet", 50) is None and tables.paper_figure("DM", "SVHN", 1) is None
    assert evaluate.main(["--table", str(runs), "--biased=1"]) == 0
    assert "best iteration on test (biased)" in capsys.readouterr().out


def test_a_cell_shows_the_paper_and_a_subset_never_passes_for_the_whole(tmp_path, capsys):
    args = {"dataset": "CIFAR10", "ipc": 10, "method": "BACON", "Iteration": 200, "aug": True, "model": "ConvNetW32"}
    args |= {"seed": 0, "epoch_eval_train": 200, "init": "real", "syn_ce": True, "ce_weight": 0.5}
    args |= {"lh_weight": 1, "tv_weight": 0.8, "clip_weight": 0.2, "clip_prior": "released"}
    arithmetic = {"distilling": "cpu, bf16, compiled", "judging": "cpu, fp32"}
    for name, sizes in (("whole", (50000, 10000)), ("subset", (500, 100))):
        start = {"event": "start", "args": args, "departures": {}, "data_sha256": name * 5}
        start |= {"train_images": sizes[0], "test_images": sizes[1], "arithmetic": arithmetic}
        end = {"event": "evaluation", "exp": 0, "it": 200, "network": "ConvNetW32", "accuracy": [0.5]}
        lines = [json.dumps(event) for event in (start, end, {"event": "end"})]
        (tmp_path / f"log_{name}.jsonl").write_text("\n".join(lines))
    assert evaluate.main(["--table", str(tmp_path)]) == 0
    table = capsys.readouterr().out.split("\n\n")[0]
    assert table.count("50.00 +- 0.00 (paper 62.06)") == 2 and "whole whole" in table and "500+100 subset" in table
    assert table.count("bf16/fp32") == 2


def copy_log(source, target, score=None, departures=(), **flags):
    """A finished run's log in another folder, with other flags and, if `score` is given, other accuracies."""
    (log,) = source.glob("log_*")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    events[0]["args"] |= flags
    events[0]["departures"] |= {name: [flags[name], None] for name in departures}
    for event in events:
        if score is not None and event["event"] == "evaluation":
            event["accuracy"] = [score] * len(event["accuracy"])
    target.mkdir()
    (target / log.name).write_text("".join(json.dumps(event) + "\n" for event in events))
    return target / log.name


def test_runs_with_other_settings_never_share_a_cell_and_no_run_is_lost(runs, tmp_path, capsys):
    copy_log(runs / "no_tv", tmp_path / "a", 0.1)
    copy_log(runs / "no_tv", tmp_path / "copy", 0.1)
    fewer = copy_log(runs / "no_tv", tmp_path / "fewer judges", 0.1)
    fewer.write_text(fewer.read_text().replace("[0.1, 0.1]", "[0.1]"))
    copy_log(runs / "no_tv", tmp_path / "same seed", 0.3)
    copy_log(runs / "no_tv", tmp_path / "noise", 0.9, ["init"], init="noise")
    copy_log(runs / "random", tmp_path / "random noise", 0.5, ["init"], init="noise")
    assert evaluate.main(["--table", str(tmp_path), "--format=json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    details = [row for row in rows if row["table"].startswith("What is behind")]
    found = [
        (row["set"], "--init noise" in row["other flags"], "--tv_weight 0.0" in row["other flags"], row["mean %"],
         row["experiments"]) for row in details
    ]  # fmt: skip
    assert sorted(found) == [
        ("BACON", False, True, "20.00", 2),
        ("BACON", True, True, "90.00", 1),
        ("random (noise)", False, False, "50.00", 1),
    ]


def test_an_ablation_says_for_each_row_what_was_run(runs, capsys):
    assert evaluate.main(["--table", str(runs), "--format=json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in rows if row["table"].startswith("Weights")]
    assert [row["total variation"] for row in rows] == [0.8, 0.0]
    assert all((row["dataset"], row["ipc"], row["judge"]) == ("Digits", 2, "ConvNetW32") for row in rows)


def test_a_plot_has_a_curve_for_each_kind_of_run_over_the_same_experiments(runs, tmp_path, monkeypatch):
    copy_log(runs / "no_tv", tmp_path / "a", 0.1)
    copy_log(runs / "no_tv", tmp_path / "copy", 0.1)
    last = copy_log(runs / "no_tv", tmp_path / "judged at the end", 0.5, seed=4)
    lines = [line for line in last.read_text().splitlines(True) if '"evaluation"' not in line or '"it": 2' in line]
    last.write_text("".join(lines))
    other = copy_log(runs / "no_tv", tmp_path / "at other iterations", 0.7, seed=5)
    other.write_text(other.read_text().replace('"it": 1, "network"', '"it": 0, "network"'))
    copy_log(runs / "no_tv", tmp_path / "c", 0.1, seed=6)
    copy_log(runs / "BACON", tmp_path / "b", 0.9, ["lh_weight"], lh_weight=0.0)
    drawn = []
    monkeypatch.setattr(figures, "curve", lambda curves, *rest: drawn.append(curves))
    tables.plot_run(tmp_path, tmp_path / "x.png")
    (curves,) = drawn
    assert curves == {
        "BACON, judged by ConvNetW32, --tv_weight 0.0": {1: [10.0] * 4, 2: [10.0] * 4},
        "BACON, judged by ConvNetW32, --lh_weight 0.0": {1: [90.0] * 4, 2: [90.0] * 4},
        "BACON, judged by ConvNet, --lh_weight 0.0": {1: [90.0] * 4, 2: [90.0] * 4},
    }


def test_somebody_elses_files_do_not_disturb_a_run(tmp_path):
    for name in ("other/log_folder.jsonl", "ours"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other/log_damaged.jsonl").write_text("{")
    (tmp_path / "other/log_dangling.jsonl").symlink_to(tmp_path / "nowhere")
    assert run("--dataset=Digits", "--save_path", tmp_path / "ours") == 0
    assert len(list((tmp_path / "ours").glob("acc_*.png"))) == 1


def test_a_run_ends_in_a_plot_of_its_accuracy(runs, tmp_path, capsys):
    (plot,) = (runs / "BACON").glob("acc_*.png")
    assert size(plot) == (660, 440) and not list((runs / "random").glob("acc_*"))
    drawn = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "curve", lambda *arguments: drawn.update(zip("cltp", arguments, strict=True)))
        (log,) = (runs / "no_tv").glob("log_*")
        tables.plot_run(log)
    ((name, points),) = drawn["c"].items()
    assert name.startswith("BACON") and sorted(points) == [1, 2] and len(points[1]) == 2
    assert list(drawn["l"]) == ["random images, judged by ConvNetW32"]


@pytest.mark.parametrize(("classes", "ipc", "side", "most"), [(10, 50, 32, 50), (200, 1, 64, 1), (200, 50, 64, 6)])
def test_grids_stay_readable_at_every_size(classes, ipc, side, most, tmp_path):
    images = torch.linspace(0, 0.9, side).expand(classes * ipc, 3, side, side)
    labels = torch.arange(classes).repeat_interleave(ipc)
    figures.grid(images, labels, [f"class {c}" for c in range(classes)], tmp_path / "x.png")
    width, height = size(tmp_path / "x.png")
    assert 0.7 < width / height < 2.2 and width < 3000
    with Image.open(tmp_path / "x.png") as picture:
        inked = (np.asarray(picture.convert("L")) < 255).mean()
    assert inked > 0.4 * classes * most * side**2 / (width * height)


def test_a_set_is_drawn_as_canvases_decoded_and_as_a_map(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "TSNE_EPOCHS", 1)
    monkeypatch.setattr(evaluate, "TSNE_REAL", 5)
    for flags in (["--grid"], ["--decode", "--grid"], ["--tsne"]):
        path = tmp_path / f"{flags[0]}.png"
        assert evaluate.main([str(runs / "no_tv"), *flags, str(path)]) == 0
        assert size(path)[0] > 200


# --- own images


def test_a_folder_of_ones_own_images_is_distilled_and_scored(tmp_path, capsys, digits):
    real = {"train": (digits.images_train, digits.labels_train), "val": (digits.images_test, digits.labels_test)}
    rng = np.random.default_rng(0)
    for split, (images, labels) in real.items():
        for c in (3, 7):
            folder = tmp_path / "own" / split / f"digit {c}"
            folder.mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:12]):
                side = int(rng.integers(16, 24))  # pictures of several sizes
                Image.fromarray(image[0].numpy()).resize((side, side + 4)).save(folder / f"{i}.png")
    own = ["--dataset=ImageFolder", "--data_path", tmp_path / "own"]
    assert run(*own, "--save_path", tmp_path / "x", script="BACON_tiny") == 2
    assert "--im_size" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert run(*own, "--im_size=16", "--save_path", tmp_path / "x", script="BACON_tiny") == 0
    assert "CIFAR10 at ipc 1 (none is published for BACON on ImageFolder" in capsys.readouterr().out
    images, labels, meta = data.load_distilled(next((tmp_path / "x").glob("res_*.pt")))
    assert images.shape == (16, 1, 16, 16) and meta["classes"] == ["digit 3", "digit 7"]
    dataset = data.load("ImageFolder", tmp_path / "own", im_size=16)
    pixels = dataset.images_train.double() / 255
    assert meta["mean"][0] == pytest.approx(pixels.mean().item(), abs=1e-4)
    assert meta["std"][0] == pytest.approx(pixels.std(unbiased=False).item(), abs=1e-4)
    (row,) = scored(capsys, tmp_path / "x", "--data_path", tmp_path / "own")
    assert row["logged, the same networks"] and row["stored per class"] == "2"


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([], ["train/ and val/ or test/"]),
        (["train/a"], ["train/ and val/ or test/"]),
        (["train/a", "val"], ["val", "class folders"]),
        (["train/a", "test/b"], ["test/b", "does not have"]),
    ],
    ids=str,
)
def test_a_folder_that_is_no_image_folder_is_one_line(folders, words, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        if "/" in folder:
            Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / folder / "x.png")
    with pytest.raises(utils.UserError) as error:
        data.load("ImageFolder", tmp_path)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_every_mode_has_networks():
    assert {name for mode in evaluate.EVAL_NETWORKS.values() for name in mode if name} <= set(networks.NETWORKS)
