"""Facts about what the files of a run are named after, and about many runs in one folder."""

import functools
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from layouts import written
from scripts import SMALL, assert_one_line, run, run_name

import networks
from bacon import errors, flags, tables
from bacon.data import loading
from bacon.distill import clusters
from bacon.run import experiment

ROOT = Path(__file__).parents[1]
DATASETS = ("CIFAR10", "CIFAR100")


def name(line):
    return flags.run_name(flags.parse_args(DATASETS, "", shlex.split(line)).args)


# What a name says


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--ipc 10", "BACON_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --recipe ours", "ours_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --method IDM", "IDM_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --method DM", "DM_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --Iteration 0", "random_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --eval_interval 20000", "BACON_CIFAR10_ConvNet_10ipc_every20000"),
        ("--ipc 1 --dataset CIFAR100 --model ConvNetW32", "BACON_CIFAR100_ConvNetW32_1ipc"),
        ("--ipc 10 --seed 3 --Iteration 200", "BACON_CIFAR10_ConvNet_10ipc_200it_seed3"),
        ("--ipc 10 --tv_weight 0", "BACON_CIFAR10_ConvNet_10ipc_tv0"),
        ("--ipc 10 --lh_weight 0.5 --no_syn_ce", "BACON_CIFAR10_ConvNet_10ipc_noce_lh0.5"),
        ("--validate 9 --optim adam", "BACON_CIFAR10_ConvNet_50ipc_validate9_adam"),
        ("--ipc 10 --lr_img 0.2 --init real --num_exp 5", "BACON_CIFAR10_ConvNet_10ipc"),
        ("--lr_img 1 --chroma half", "BACON_CIFAR10_ConvNet_50ipc_halfchroma_lr1"),
        ("--ipc 10 --recipe ours --chroma full", "ours_CIFAR10_ConvNet_10ipc_fullchroma"),
        ("--ipc 10 --method DM --aug", "DM_CIFAR10_ConvNet_10ipc_aug"),
        ("--ipc 10 --experts 5", "BACON_CIFAR10_ConvNet_10ipc_5experts"),
        ("--judge_steps 402 --num_exp 1", "BACON_CIFAR10_ConvNet_50ipc_1exp_402steps"),
        ("--ipc 10 --dsa_strategy color_crop", "BACON_CIFAR10_ConvNet_10ipc_dsa-color-crop"),
        # random images do not depend on the flags of distilling, but on how they start
        ("--ipc 10 --Iteration 0 --lr_img 3 --eval_interval 7", "random_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --Iteration 0 --method IDM", "random_CIFAR10_ConvNet_10ipc"),
        ("--ipc 10 --Iteration 0 --method DM", "random_CIFAR10_ConvNet_10ipc_noaug"),
        ("--Iteration 0 --recipe ours", "random_CIFAR10_ConvNet_50ipc_clusterinit_halfchroma"),
    ],
)
def test_a_run_is_named_after_what_it_is(line, expected):
    assert name(line) == expected
    elsewhere = "--device cpu --no_compile --data_path x --save_path y --resume --exp_index 2"
    assert name(f"{line} {elsewhere}") == expected  # how it is started is not what it is


def other_values(flag_name, kind, usual):
    """Two values of a flag that are not the recipe's, as words of a command line."""
    if kind == "switch":
        return [f"--no_{flag_name}" if usual else f"--{flag_name}"]
    if isinstance(kind, tuple):
        return [f"--{flag_name}={value}" for value in kind if value != usual]
    if flag_name == "dsa_strategy":
        return ["--dsa_strategy=color", "--dsa_strategy=crop_flip", "--dsa_strategy=none"]
    if flag_name == "cooldown":  # a share
        return [f"--cooldown={value}" for value in (0.1234567, 0.1234568, 1)]
    values = [0.1234567, 0.1234568, 1e-30, 1e30, 3]
    if usual is None or isinstance(usual, int):
        values = [7, 8]
    return [f"--{flag_name}={value}" for value in values]


def test_every_flag_has_a_tag_of_its_own_or_is_named_as_one_that_needs_none():
    rows = [row for group in flags.FLAGS.values() for row in group]
    assert {row[0] for row in rows} == {*flags.TAGS} | flags.UNTAGGED
    assert not {*flags.TAGS} & flags.UNTAGGED
    settings = flags.parse_args(("ImageFolder",), "", ["--dataset=ImageFolder", "--ipc=10"])
    words = []
    for flag_name, kind, *_ in rows:
        if flag_name in flags.TAGS:
            of_flag = other_values(flag_name, kind, settings.usual[flag_name])
            if flag_name in flags.OF_EXPERTS:
                of_flag = [f"{word} --experts=3" for word in of_flag]
            if flag_name == "clip_weight":
                of_flag = [f"{word} --clip_prior=residual" for word in of_flag]
            words += of_flag
    names = []
    for word in words:
        line = ["--dataset=ImageFolder", "--ipc=10", *word.split()]
        args = flags.parse_args(("CIFAR10",), "", line).args
        names.append(flags.run_name(args))
    assert len(words) > 80 and len(set(names)) == len(names)
    beginning = "BACON_ImageFolder_ConvNet_10ipc_"
    tags = re.escape(beginning) + r"(3experts_)?[A-Za-z0-9.+-]+(_residualclip)?"
    assert all(re.fullmatch(tags, found) for found in names)
    assert not any(re.fullmatch(r"exp\d+", found.removeprefix(beginning)) for found in names)


def test_two_runs_that_differ_in_a_flag_have_two_names_however_long():
    many = "--ipc 50 --model ConvNetASwishBN --dataset CIFAR100 --lr_img 0.123456789"
    many += " --tv_weight 1e-10"
    many += " --net_num 17 --Iteration 123456 --dsa_strategy color_crop_cutout_flip_scale"
    names = [name(f"{many} {more}") for more in ("", "--seed 1", "--num_eval 3", "--num_eval 4")]
    assert len(set(names)) == 4 and names[0] == name(many)
    for found in names:
        beginning, ending = found.rsplit("_", 1)
        assert re.fullmatch("more-[0-9a-f]{8}", ending) and len(found) <= flags.LONGEST_NAME
        assert beginning.startswith("BACON_CIFAR100_ConvNetASwishBN_50ipc_123456it")
    assert "_seed1" in names[1]
    assert len(f"vis_{names[0]}_exp999999_iter1000000000.png") < 120
    longest = name(f"--ipc {10**9} --dataset CIFAR100 --model ConvNetASwishBN --Iteration {10**9}")
    assert len(longest) <= flags.LONGEST_NAME


def test_the_names_in_the_readme_are_those_of_its_commands():
    section = (ROOT / "README.md").read_text().split("## What a run writes")[1].split("\n## ")[0]
    text = " ".join(section.split())
    ((example, line),) = re.findall(r"`res_(\S+)\.pt` is `([^`]+)`", text)
    assert name(line) == example
    commands = [words for _, *words in readme_commands() if "--dry_run" not in words]
    names = [name(" ".join(words)) for words in commands]
    kinds = {found.split("_")[0] for found in names}
    assert len(set(names)) == len(names) and kinds >= {"BACON", "ours", "random"}
    assert all(f"`{kind}`" in text for kind in ("ours", "random"))
    beginning = "BACON_CIFAR10_ConvNet_10ipc"
    (tag,) = {found.removeprefix(beginning) for found in names if "_every" in found}
    assert f"`{tag}`" in text


# Many commands, one folder


def readme_commands():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    block = next(block for block in blocks if "BACON_cifar10.py" in block)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["python"]]


@pytest.fixture
def tiny_cifar10(tmp_path, monkeypatch):
    """CIFAR-10's shapes with few images, and networks of four channels."""
    (tmp_path / "data").mkdir()
    written("CIFAR10", tmp_path / "data", monkeypatch, train=40, test=2)
    loading.load("CIFAR10", tmp_path / "data")
    monkeypatch.setattr(clusters, "STEPS", 1)
    monkeypatch.setitem(networks.NETWORKS, "ConvNet", functools.partial(networks.ConvNet, width=4))
    return tmp_path / "data"


def test_the_readmes_commands_work_one_after_the_other(tiny_cifar10, tmp_path, capsys):
    result = tmp_path / "result"
    tiny = "--num_exp 1 --num_eval 1 --epoch_eval_train 1 --batch_real 2 --trained_bs 2 "
    tiny += "--model_train_steps 1 --batch_train 500 --no_compile "
    tiny += f"--data_path {tiny_cifar10} --save_path {result}"
    commands = readme_commands()
    written_names = []
    assert len(commands) >= 6
    for script, *words in commands:
        shorter = [] if "--Iteration" in words else ["--Iteration", 2]
        assert run(script, *words, *shorter, *tiny.split()) == 0
        if "--dry_run" in words:
            assert len(list(result.glob("res_*"))) == len(written_names)
            continue
        written_names.append(f"res_{run_name(script, *words, *shorter, *tiny.split())}.pt")
        assert f"result/{written_names[-1]}" in capsys.readouterr().out
    found = {path.name for path in result.glob("res_*.pt")}
    assert found == set(written_names) and len(found) == len(written_names)
    assert {"BACON", "ours", "IDM", "random"} <= {written.split("_")[1] for written in found}
    assert len(tables.of_runs(result)) == len(found) - 1  # judged less often: the same set
    for script, *words in commands:  # again: each finds its own
        if "--dry_run" not in words:
            shorter = [] if "--Iteration" in words else ["--Iteration", 2]
            assert run(script, *words, *shorter, *tiny.split(), "--resume") == 0
            assert "finished already" in capsys.readouterr().out


@pytest.mark.parametrize("first", ["--seed=1", "--lr_img=0.5", "--num_eval=2", "--precision=bf16"])
def test_a_run_with_another_setting_stands_beside_the_first(first, quick, finished):
    folder = finished(first)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert finished() == folder
    assert {path: path.read_bytes() for path in folder.iterdir() if path in before} == before
    assert len(list(folder.glob("res_*.pt"))) == 2


def test_experiments_of_arrays_of_several_settings_join_their_own(quick, tmp_path, capsys):
    for exp in (0, 1):
        for seed in (0, 1):
            words = [*SMALL, "--num_exp=2", f"--seed={seed}", f"--exp_index={exp}"]
            assert run("BACON_mnist.py", *words, "--save_path", tmp_path) == 0
    assert capsys.readouterr().out.count("all 2 experiments have ended") == 2
    for seed in (0, 1):
        named = run_name("BACON_mnist.py", *SMALL, "--num_exp=2", f"--seed={seed}")
        saved = torch.load(tmp_path / f"res_{named}.pt", weights_only=True)
        assert len(saved["data"]) == 2 and saved["meta"]["args"]["seed"] == seed


# Runs that an earlier version named


OLD = "BACON_Digits_ConvNetW32_2ipc"


@pytest.fixture
def left_by_an_earlier_version(quick, tmp_path):
    """Make a run and give its files the name that an earlier version gave."""

    def make(*words, code=0):
        folder = tmp_path / "run"
        assert run("BACON_mnist.py", *SMALL, *words, "--save_path", folder) == code
        own = run_name("BACON_mnist.py", *SMALL, *words)
        for path in folder.iterdir():
            path.rename(folder / path.name.replace(own, OLD))
        return folder

    return make


@pytest.mark.parametrize(
    "words", [["--recipe=ours", "--experts=0"], ["--Iteration=0"], ["--num_eval=2"]]
)
def test_a_run_of_an_earlier_name_is_found_and_read(words, left_by_an_earlier_version, capsys):
    folder = left_by_an_earlier_version(*words)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = [*SMALL, *words, "--save_path", folder]
    capsys.readouterr()
    assert run("BACON_mnist.py", *again, "--resume") == 0
    assert f"res_{OLD}.pt: finished already" in capsys.readouterr().out
    assert run("BACON_mnist.py", *again) == 2
    assert_one_line(capsys, f"res_{OLD}.pt", "--resume", "--overwrite")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (row,) = tables.of_runs(folder)
    assert row.kind.dataset == "Digits"
    assert (row.kind.recipe == "ours") == ("--recipe=ours" in words)
    assert run("BACON_mnist.py", *SMALL, "--save_path", folder) == 0  # another run stands beside it
    assert {path: path.read_bytes() for path in folder.iterdir() if path in before} == before
    assert run("BACON_mnist.py", *again, "--overwrite") == 0
    assert not list(folder.glob(f"*_{OLD}.*")) and not list(folder.glob(f"*_{OLD}_exp*"))
    own = run_name("BACON_mnist.py", *SMALL, *words)
    assert (folder / f"res_{own}.pt").exists() and len(list(folder.glob("res_*.pt"))) == 2


@pytest.mark.parametrize("words", [["--recipe=ours", "--experts=0"], ["--lr_img=0.5"]])
def test_resume_goes_on_with_a_run_that_an_earlier_version_named(
    words, left_by_an_earlier_version, monkeypatch, capsys
):
    inner, calls = experiment.Experiment.evaluate, []

    def stop_once(self, *args):
        if not calls:
            calls.append(1)
            raise errors.Stopped("SIGTERM")
        inner(self, *args)

    monkeypatch.setattr(experiment.Experiment, "evaluate", stop_once)
    folder = left_by_an_earlier_version(*words, code=75)
    capsys.readouterr()
    assert run("BACON_mnist.py", *SMALL, *words, "--save_path", folder, "--resume") == 0
    assert f"going on from {folder / f'ckpt_{OLD}.pt'}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        f"res_{OLD}.pt", f"log_{OLD}.jsonl", f"vis_{OLD}_exp0_iter3.png"
    }  # fmt: skip
    log = (folder / f"log_{OLD}.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in log].count("resume") == 1


def test_an_old_run_of_other_flags_is_left_alone_and_named(left_by_an_earlier_version, capsys):
    folder = left_by_an_earlier_version("--seed=2")
    (folder / f"ckpt_{OLD}.pt").write_bytes(b"of a run that has not ended")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert run("BACON_mnist.py", *SMALL, "--save_path", folder, "--resume") == 0
    text = capsys.readouterr().out
    beside = f"(unfinished here, with other flags: ckpt_{OLD}.pt)"
    assert f"nothing to resume yet: starting from the beginning {beside}\n" in text
    assert {path: path.read_bytes() for path in folder.iterdir() if path in before} == before


def test_a_name_holds_as_many_tags_as_fit_it(monkeypatch):
    line = "--ipc 10 --lr_img 0.3 --seed 3 --no_aug --tv_weight 2 --batch_real 77 --optim adam"
    whole = name(line)
    shorter = []
    for longest in range(41, len(whole) + 3):
        monkeypatch.setattr(flags, "LONGEST_NAME", longest)
        found = name(line)
        if longest >= len(whole):
            assert found == whole
            continue
        kept, ending = found.split("_more-")
        assert len(found) <= longest and whole.startswith(f"{kept}_")
        following = whole[len(kept) + 1 :].split("_")[0]
        assert len(f"{kept}_{following}_more-{ending}") > longest
        shorter.append(kept)
    assert len(set(shorter)) > 3
