"""Facts about scoring saved sets: the logged accuracy again, other protocols, baselines, tables and
pictures."""

import functools
import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scripts import SMALL, run

import augment
import evaluate
import networks
from bacon import canvases, compute, figures, judge, recipes
from bacon.canvases import load_distilled
from bacon.data import known_classes, loading, pt_layout, real_data, spaces
from bacon.errors import UserError
from bacon.score import command, drawing, fair, judging, protocols
from bacon.score.rows import distinct_names

LINE = [*SMALL, "--Iteration=2", "--model_train_steps=1", "--num_eval=2", "--eval_interval=1"]


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Judges take a fraction of a second."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ConvNet", "ConvNetW32"):
            patch.setitem(networks.NETWORKS, name, functools.partial(networks.ConvNet, width=4))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits_folder):
    """A folder of finished runs: BACON with two experiments, without a term, random images."""
    root = tmp_path_factory.mktemp("runs")
    kinds = {
        "BACON": ["--num_exp=2", "--eval_mode=C"],
        "no_tv": ["--tv_weight=0"],
        "random": ["--Iteration=0"],
    }
    for name, flags in kinds.items():
        line = [*LINE, "--seed=3", *flags, "--data_path", digits_folder, "--save_path", root / name]
        assert run("BACON_mnist.py", *line) == 0
    return root


@pytest.fixture
def score(capsys, digits_folder, tmp_path):
    """The rows of the scorer for a command line."""

    def rows(*line):
        line = [*map(str, line), "--format=json", f"--save_path={tmp_path / 'cache'}"]
        assert (
            command.main(
                None, line if "--data_path" in line else [*line, f"--data_path={digits_folder}"]
            )
            == 0
        )
        return [json.loads(text) for text in capsys.readouterr().out.splitlines()]

    return rows


def test_scoring_a_set_of_ours_gives_the_logged_accuracy_to_the_digit(runs, score):
    rows = score(runs / "BACON", "--eval_mode=C")
    (path,) = (runs / "BACON").glob("res_*.pt")
    logged = torch.load(path, weights_only=True)["accs_all_exps"]
    assert [row["network"] for row in rows] == ["ConvNetW32", "ConvNet"] == list(logged)
    for row in rows:
        assert [a for experiment in row["accuracy"] for a in experiment] == logged[row["network"]]
        assert row["logged, the same networks"] and (
            row["stored per class"],
            row["decoded per class"],
        ) == ("2", "8")
        assert row["networks"] == 4 and row["std_experiments"] is not None and row["epochs"] == 2
    (one,) = score(path, "--exp=1", "--num_eval=1")
    assert one["accuracy"] == [logged["ConvNetW32"][2:3]] and one["logged, the same networks"]


def test_the_best_epoch_is_shown_on_request_only_and_called_biased(runs, score):
    (plain,) = score(runs / "no_tv")
    (both,) = score(runs / "no_tv", "--biased=1")
    assert both["accuracy"] == plain["accuracy"] and both["mean"] == plain["mean"]
    assert both["best epoch on test (biased)"] >= both["mean"] and not any(
        "biased" in key for key in plain
    )


def test_sets_with_the_same_end_of_path_have_names_that_differ(tmp_path, score, capsys):
    paths = [f"{name}/run/res.pt" for name in ("a", "b/c", "d/c")] + ["a/other/res.pt"]
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    for k, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True)
        images = torch.full((10, 1, 8, 8), float(k))
        torch.save({"data": [[images, torch.arange(10)]]}, tmp_path / path)
    rows = score(tmp_path, "--recursive", *line)
    names = [row["name"] for row in rows]
    assert names == ["other/res.pt", "a/run/res.pt", "b/c/run/res.pt", "d/c/run/res.pt"]
    # Rows that were kept by commands of their own have the short name; the table tells them apart.
    for row in rows:
        row["name"] = "/".join(row["set"].split("/")[-2:])
    (tmp_path / "kept.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run("BACON_mnist.py", *LINE, "--save_path", tmp_path / "ours") == 0
    capsys.readouterr()
    assert command.main(None, ["--table", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert all(table.count(f"  {name}  ") == 1 for name in names), table


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/run/res.pt"], ["run/res.pt"]),
        (["res.pt", "run/res.pt"], ["res.pt", "run/res.pt"]),
        (["run/res.pt", "/x/run/res.pt"], ["run/res.pt", "x/run/res.pt"]),
        (["a/x/y/z.pt", "b/x/y/z.pt", "b/y/z.pt"], ["a/x/y/z.pt", "b/x/y/z.pt", "b/y/z.pt"]),
    ],
)
def test_a_name_is_as_long_as_it_takes(paths, names):
    assert list(distinct_names(paths).values()) == names


def test_a_set_named_twice_is_judged_once(runs, score):
    (path,) = (runs / "no_tv").glob("res_*.pt")
    (row,) = score(runs / "no_tv", path, "--num_eval=1")
    assert row["networks"] == 1


def test_images_that_are_linked_to_have_the_labels_beside_the_link(tmp_path, score):
    for name, roll in {"a": 0, "b": 1}.items():
        (tmp_path / name).mkdir()
        torch.save(torch.arange(10).roll(roll), tmp_path / name / "labels_best.pt")
    torch.save(torch.zeros(10, 1, 8, 8), tmp_path / "a/images_best.pt")
    (tmp_path / "b/images_best.pt").symlink_to("../a/images_best.pt")
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    assert len(score(tmp_path / "a", tmp_path / "b", *line)) == 2


def test_tables_are_printed_as_text_and_markdown(runs, capsys, digits_folder):
    line = [str(runs / "no_tv"), f"--data_path={digits_folder}"]
    assert command.main(None, line) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["accuracy", "%"] and "reproduced" in row and "2 (8)" in row
    assert len(row) <= 120 and "seconds" not in head
    assert command.main(None, [*line, "--format=markdown", "--details"]) == 0
    main, title, behind = capsys.readouterr().out.strip().split("\n\n")
    head, rule, row = main.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 7 and set(rule) <= set("|- ")
    assert title.startswith("### ") and "reproduced" in row
    assert all(word in behind for word in ("accuracy %", "std experiments", "epochs", "seconds"))


def test_a_folder_of_runs_says_what_it_holds_and_is_scored_on_request(runs, score, capsys):
    assert command.main(None, [str(runs)]) == 2
    error = capsys.readouterr().err
    assert (
        "3 in folders below it" in error and "no_tv/res_BACON" in error and "--recursive" in error
    )
    rows = score(runs, "--recursive", "--num_eval=1")
    assert [row["name"].split("/")[0] for row in rows] == ["BACON", "no_tv", "random"]
    assert all(row["logged, the same networks"] for row in rows)


def test_sets_of_several_datasets_are_each_judged_on_their_own_data(
    tmp_path, score, monkeypatch, capsys
):
    for name, file in {"Digits": "digits.pt", "MNIST": "mnist.pt"}.items():
        spec = recipes.DATASETS[name]
        images, labels = (
            torch.randint(256, (20, 1, *spec.im_size), dtype=torch.uint8),
            torch.arange(20) % 10,
        )
        entries = (list("abcdefghij"), images, labels, images, labels)
        torch.save(dict(zip(pt_layout.KEYS, entries, strict=True)), tmp_path / file)
        line = [
            "--dataset",
            name,
            *LINE[1:],
            "--ipc=1",
            "--batch_real=2",
            "--Iteration=0",
            "--no_aug",
        ]
        monkeypatch.setattr(sys, "argv", ["BACON_mnist.py"])
        assert (
            run(
                "BACON_mnist.py",
                *line,
                "--init=noise",
                "--data_path",
                tmp_path,
                "--save_path",
                tmp_path / "x",
            )
            == 0
        )
    capsys.readouterr()
    rows = score(tmp_path / "x", "--data_path", tmp_path)
    assert [row["dataset"] for row in rows] == ["Digits", "MNIST"]
    assert all(row["logged, the same networks"] for row in rows)
    capsys.readouterr()
    for flag, words in (
        ("--baseline=random", "of Digits, MNIST"),
        ("--dataset=MNIST", "from Digits, not from MNIST"),
    ):
        assert command.main(None, [str(tmp_path / "x"), flag, f"--data_path={tmp_path}"]) == 2
        assert words in capsys.readouterr().err


def test_baselines_are_judged_beside_the_set(runs, score):
    rows = score(runs / "random", "--baseline=random,random4,herding,full", "--full_epochs=1")
    assert [row["set"] for row in rows[1:]] == ["random", "random4", "herding", "full"]
    assert [row["stored per class"] for row in rows[1:4]] == ["2"] * 3 and rows[4]["epochs"] == 1
    # random4 is what a run with --Iteration 0 distils: the same images, judged alike.
    assert rows[2]["accuracy"] == rows[0]["accuracy"] and rows[2]["decoded per class"] == "8"


def test_fair_scores_are_those_of_the_baselines_which_are_computed_once(
    runs, score, capsys, tmp_path, digits_folder
):
    line = [runs / "no_tv", "--baseline=random,full", "--full_epochs=1"]
    ours, random, full = score(*line)
    found = fair.scores(ours["accuracy"], None, random["accuracy"], full["accuracy"])
    assert found.keys() == set(fair.NAMES)
    for name, fraction in found.items():
        assert (ours[name], ours[f"{name} spread"]) == (fraction.value, fraction.spread)
    with pytest.MonkeyPatch.context() as patch:
        inner = judging.score
        patch.setattr(judging, "score", lambda one, *rest: one.meta and inner(one, *rest))
        again = score(*line)  # no baseline is judged
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in (ours, random, full)]
    (one, _) = score(runs / "no_tv", "--baseline=random", "--ipc=1")
    assert "IOR" not in one  # that is not equal storage
    line = [*map(str, line), f"--save_path={tmp_path / 'cache'}", f"--data_path={digits_folder}"]
    assert command.main(None, line) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert "baselines.json" in said.err and len(lines) == 4 and max(map(len, lines)) <= 120
    assert (
        lines[0].split()[:5] == ["accuracy", "%", "recorded", "%", "IOR"]
        and f"{ours['LRS']:.3f}" in lines[1]
    )


def test_soft_labels_miss_the_whole_set_by_their_hard_ones(score, tmp_path, digits):
    images = digits.real("train").take(np.arange(20))
    soft = F.one_hot(torch.arange(20) % 10, 10) * 2.0
    torch.save({"data": [[images, soft]]}, tmp_path / "soft.pt")
    torch.save({"data": [[images, soft.argmax(1)]]}, tmp_path / "hard.pt")
    line = [
        "--dataset=Digits",
        "--model=ConvNetW32",
        "--num_eval=1",
        "--epoch_eval_train=3",
        "--full_epochs=1",
    ]
    soft, hard, *_ = score(
        tmp_path / "soft.pt", tmp_path / "hard.pt", *line, "--baseline=random,full"
    )
    assert soft["HLR"] == hard["HLR"] and soft["hard"] == hard["accuracy"]


def test_recorded_accuracies_stand_beside_ours(score, tmp_path, digits, capsys):
    sets = [
        [digits.real("train").take(np.arange(10 * k, 10 * k + 10)), torch.arange(10)]
        for k in range(3)
    ]
    line = ["--dataset=Digits", "--model=ConvNetW32", "--num_eval=1", "--epoch_eval_train=1"]
    torch.save(
        {"data": sets, "accs_all_exps": {"ConvNetW32": [0.1, 0.2, 0.3] * 2, "MLP": []}},
        tmp_path / "x.pt",
    )
    (row,) = score(tmp_path / "x.pt", *line)
    assert (row["recorded"], row["recorded networks"], row["networks"]) == (pytest.approx(20), 6, 3)
    assert "in order" in row["assumed"] and "logged" not in row
    (last,) = score(tmp_path / "x.pt", *line, "--exp=2")
    assert last["recorded"] == pytest.approx(25)  # the fifth and the sixth
    torch.save(
        {"data": sets, "accs_all_exps": {"ConvNetW32": [np.float64(0.5)] * 10}}, tmp_path / "x.pt"
    )
    rows = score(tmp_path / "x.pt", *line)  # three states of one experiment
    assert [row.get("recorded") for row in rows] == [None, None, 50] and rows[2][
        "recorded networks"
    ] == 10
    assert [row["name"][-3:] for row in rows] == [
        " #0",
        " #1",
        " #2",
    ] and "the last one's (--exp 2)" in rows[0]["assumed"]
    assert [row_["accuracy"][0] for row_ in rows] == row["accuracy"]  # and are judged as before


def test_a_baseline_needs_no_set(score):
    line = [
        "--baseline=random",
        "--dataset=Digits",
        "--ipc=1",
        "--num_eval=1",
        "--epoch_eval_train=1",
    ]
    (row,) = score(*line, "--model=ConvNetW32")
    assert row["stored per class"] == row["decoded per class"] == "1"


MODES = sorted({name for mode in "MBWDAPN" for name in recipes.EVAL_NETWORKS[mode]})


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["1 channel", "3 channels"])
@pytest.mark.parametrize("name", MODES)
def test_every_network_of_the_modes_judges(name, shape):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((3, *shape), dtype="float32"))
    pixels = (images * 255).to(torch.uint8)
    test = real_data.RealData(
        pixels, torch.arange(3), (0.0,) * shape[0], (1.0,) * shape[0], 3, "cpu"
    )
    protocol = judge.Protocol(0, 3, 0.01, augment.parse_strategy("flip"))
    score = judge.judge(
        name, images, torch.arange(3), test, 3, protocol, rng, compute.Arithmetic("cpu")
    )
    assert score in (0, 1 / 3, 2 / 3, 1)


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
        args = command.build_parser(None).parse_args(list(line))
        recorder = Recorder()
        net = recorder.build("ConvNetW32", (1, 8, 8), 10, np.random.default_rng(0))
        images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
        protocol = protocols.protocol_of(args, {})
        judge.train(net, images, torch.arange(10), protocol, np.random.default_rng(1), recorder)
        return protocol, recorder.steps

    return train


def test_dc_bench_trains_300_epochs_without_augmentation_and_1000_with():
    def epochs(*line):
        args = command.build_parser(None).parse_args(["--protocol=dc-bench", *line])
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
    args = command.build_parser(None).parse_args([])
    assert protocols.protocol_of(args, {}, lr=0.02).lr == 0.02
    args = command.build_parser(None).parse_args(["--lr_net=0.5"])
    assert protocols.protocol_of(args, {}, lr=0.02).lr == 0.5


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


def test_a_run_ends_in_a_plot_of_its_accuracy(runs):
    (plot,) = (runs / "BACON").glob("acc_*.png")
    assert size(plot) == (660, 440) and not list((runs / "random").glob("acc_*"))


def test_a_set_is_drawn_as_canvases_decoded_and_as_a_map(
    runs, tmp_path, monkeypatch, digits_folder
):
    monkeypatch.setattr(drawing, "TSNE_EPOCHS", 1)
    monkeypatch.setattr(drawing, "TSNE_REAL", 5)
    for flags in (["--grid"], ["--decode", "--grid"], ["--tsne"]):
        path = tmp_path / f"{flags[0]}.png"
        assert (
            command.main(
                None, [str(runs / "no_tv"), f"--data_path={digits_folder}", *flags, str(path)]
            )
            == 0
        )
        assert size(path)[0] > 200


def test_what_needs_no_real_images_loads_none(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", None)
    dc, out = tmp_path / "dc.pt", str(tmp_path / "out")
    for flags in (
        ["--grid", out],
        ["--decode", "--grid", out],
        ["--export", "png", f"{out}_"],
        ["--export", "dc", dc],
    ):
        assert command.main(None, [str(runs / "no_tv"), *map(str, flags)]) == 0
    assert command.main(None, [str(dc), "--dataset=Digits", "--export", "dc", f"{out}.pt"]) == 0
    saved = [torch.load(path, weights_only=True)["data"][0] for path in (dc, f"{out}.pt")]
    assert torch.equal(saved[0][1], saved[1][1]) and torch.allclose(
        saved[0][0], saved[1][0], atol=1e-6
    )
    assert sorted(path.name for path in (tmp_path / "out_").iterdir()) == [
        f"{c:03d}_{c}" for c in range(10)
    ]
    for flags in (
        ["--grid", f"{out}.png"],
        ["--export", "png", f"{out}_dc"],
    ):  # the classes' names are known
        assert command.main(None, [str(dc), "--dataset=Digits", *flags]) == 0
    assert sorted(path.name for path in (tmp_path / "out_dc").iterdir()) == [
        f"{c:03d}_{c}" for c in range(10)
    ]


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "TinyImageNet", "FashionMNIST", "SVHN"])
def test_a_foreign_set_of_a_known_dataset_needs_no_images_for_its_names(
    name, tmp_path, monkeypatch
):
    spec = recipes.DATASETS[name]
    images = torch.zeros(spec.num_classes, spec.channels, *spec.im_size)
    torch.save({"data": [[images, torch.arange(spec.num_classes)]]}, tmp_path / "x.pt")
    monkeypatch.setattr(loading, "load", None)
    line = [str(tmp_path / "x.pt"), f"--dataset={name}", f"--data_path={tmp_path / 'data'}"]
    drawn = []
    monkeypatch.setattr(
        figures, "grid", lambda images, labels, classes, path: drawn.append(classes)
    )
    assert command.main(None, [*line, "--grid", str(tmp_path / "x.png")]) == 0
    assert drawn == [list(known_classes.CLASSES[name])]


def test_names_in_the_data_that_are_at_hand_are_those_shown(tmp_path, monkeypatch):
    images, labels = torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10)
    own = [f"number {c}" for c in range(10)]
    torch.save(
        dict(zip(pt_layout.KEYS, (own, images, labels, images, labels), strict=True)),
        tmp_path / "mnist.pt",
    )
    torch.save({"data": [[images.float(), labels]]}, tmp_path / "x.pt")
    line = [str(tmp_path / "x.pt"), "--dataset=MNIST", f"--data_path={tmp_path}"]
    drawn = []
    monkeypatch.setattr(
        figures, "grid", lambda images, labels, classes, path: drawn.append(classes)
    )
    assert command.main(None, [*line, "--grid", str(tmp_path / "x.png")]) == 0 and drawn == [own]


@pytest.mark.parametrize(
    ("recorded", "shown", "words"),
    [
        ([10.0, 20.0, 60.0], 30, "up to 60, taken for percent"),
        ([0.1, 0.2, 0.6], 30, ""),
        ([0.1, float("nan"), 0.6], None, "1 of 3 are NaN or infinite, so none is shown"),
        ([0.1, -0.2, 0.6], None, "-0.2 to 0.6 are no accuracies"),
    ],
)
def test_recorded_accuracies_that_are_none_are_said(
    recorded, shown, words, score, tmp_path, digits, capsys
):
    one = [digits.real("train").take(np.arange(10)), torch.arange(10)]
    torch.save({"data": [one], "accs_all_exps": {"ConvNetW32": recorded}}, tmp_path / "x.pt")
    line = [
        str(tmp_path / "x.pt"),
        "--dataset=Digits",
        "--model=ConvNetW32",
        "--num_eval=1",
        "--epoch_eval_train=1",
    ]
    (row,) = score(*line)
    assert row.get("recorded") == (shown if shown is None else pytest.approx(shown))
    assert command.main(None, [*line, f"--save_path={tmp_path}"]) == 0
    said = capsys.readouterr()
    assert ("recorded accuracies of ConvNetW32: " + words in said.err) == bool(
        words
    ) and "nan" not in said.out


def test_help_speaks_to_users_examples_first_within_80_columns():
    text = command.build_parser(evaluate.__doc__).format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert (
        text.index("python evaluate.py SET.pt --dataset")
        < text.index("\n  --recursive")
        < text.index("--device")
    )
    for line in evaluate.__doc__.splitlines():
        if "python evaluate.py" in line:  # what it shows can be typed
            command.build_parser(None).parse_args(line.strip().split("  ")[0].split()[2:])


def test_a_folder_of_ones_own_images_is_distilled_and_scored(tmp_path, capsys, digits, score):
    real = {
        "train": (digits.images_train, digits.labels_train),
        "val": (digits.images_test, digits.labels_test),
    }
    rng = np.random.default_rng(0)
    for split, (images, labels) in real.items():
        for c in (3, 7):
            folder = tmp_path / "own" / split / f"digit {c}"
            folder.mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:12]):
                side = int(rng.integers(16, 24))  # pictures of several sizes
                Image.fromarray(image[0].numpy()).resize((side, side + 4)).save(folder / f"{i}.png")
    own = [
        *LINE[1:],
        "--dataset=ImageFolder",
        "--data_path",
        tmp_path / "own",
        "--save_path",
        tmp_path / "x",
    ]
    assert run("BACON_tiny.py", *own) == 2
    assert "--im_size" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert run("BACON_tiny.py", *own, "--im_size=16") == 0
    assert "CIFAR10 at ipc 1 (none is published for BACON on ImageFolder" in capsys.readouterr().out
    images, labels, meta = load_distilled(next((tmp_path / "x").glob("res_*.pt")))
    assert images.shape == (16, 1, 16, 16) and meta["classes"] == ["digit 3", "digit 7"]
    dataset = loading.load("ImageFolder", tmp_path / "own", im_size=16)
    pixels = dataset.images_train.double() / 255
    assert meta["mean"][0] == pytest.approx(pixels.mean().item(), abs=1e-4)
    assert meta["std"][0] == pytest.approx(pixels.std(unbiased=False).item(), abs=1e-4)
    (row,) = score(tmp_path / "x", "--data_path", tmp_path / "own")
    assert row["logged, the same networks"] and row["stored per class"] == "2"
    # Pictures of it need no real images, and are the same where these are gone.
    for folder, name in (("own", "here"), ("nowhere", "gone")):
        line = [
            tmp_path / "x",
            "--data_path",
            tmp_path / folder,
            "--export",
            "png",
            tmp_path / name,
        ]
        assert command.main(None, [str(word) for word in line]) == 0
    here, gone = (sorted((tmp_path / name).rglob("*.png")) for name in ("here", "gone"))
    assert len(here) == 16 and [path.read_bytes() for path in here] == [
        path.read_bytes() for path in gone
    ]


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
            Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(
                tmp_path / folder / "x.png"
            )
    with pytest.raises(UserError) as error:
        loading.load("ImageFolder", tmp_path)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_decode_draws_what_the_canvases_hold(runs, tmp_path, digits_folder):
    (result,) = (runs / "no_tv").glob("res_*.pt")
    images, labels, meta = canvases.load_distilled(result)
    stored = canvases.read_result(result)["data"][0]
    for flags, (shown, of_class) in (([], stored), (["--decode"], (images, labels))):
        drawn, expected = tmp_path / "drawn.png", tmp_path / "expected.png"
        line = [str(result), f"--data_path={digits_folder}", *flags]
        assert command.main(None, [*line, "--grid", str(drawn)]) == 0
        pixels = spaces.denormalise(shown, meta["mean"], meta["std"])
        figures.grid(pixels, of_class, meta["classes"], expected)
        assert drawn.read_bytes() == expected.read_bytes()
        drawn.unlink()


def test_a_map_shows_test_images_and_images_of_the_set_each_with_its_own_class(
    runs, tmp_path, monkeypatch, digits_folder, digits
):
    monkeypatch.setattr(drawing, "TSNE_EPOCHS", 1)
    monkeypatch.setattr(drawing, "TSNE_REAL", 5)
    monkeypatch.setattr(compute.Arithmetic, "embed", lambda self, net, images, last: images)
    (result,) = (runs / "no_tv").glob("res_*.pt")
    mapped = []
    monkeypatch.setattr(figures, "tsne", lambda *arguments: mapped.append(arguments))
    for seed in ([], ["--seed=0"], ["--seed=1"]):
        line = [str(result), f"--data_path={digits_folder}", *seed]
        assert command.main(None, [*line, "--tsne", str(tmp_path / "map.png")]) == 0
    real, of_real, synthetic, of_synthetic, classes, *_ = mapped[0]
    assert classes == dict(enumerate(digits.classes))
    assert of_real.tolist() == [c for c in range(10) for _ in range(5)]
    test = digits.real("test")
    for image, c in zip(real, of_real, strict=True):
        those = test.take(np.flatnonzero(test.labels == c))
        assert (those - image).abs().amax((1, 2, 3)).min() < 1e-6
    images, labels, _ = canvases.load_distilled(result)
    assert torch.equal(synthetic, images) and torch.equal(of_synthetic, labels)
    assert torch.equal(mapped[1][0], real) and not torch.equal(mapped[2][0], real)
