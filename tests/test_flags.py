"""Facts about the flags: what a command line comes to, and what is said of idle and wrong ones."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import CIFARS, settings

from bacon import flags

ROOT = Path(__file__).parents[1]


def test_departures_name_the_flag_its_value_and_the_recipes():
    _, parsed = settings("--ipc 10 --lr_img 0.3 --no_aug --seed 3 --save_path x")
    assert parsed.departures == {"lr_img": (0.3, 0.2), "aug": (False, True)}


def test_dead_flags_are_accepted_and_only_unusual_values_are_mentioned():
    quiet = "--mismatch_lambda 0 --net_train_real --inner_loop 1 --last 100 --conf_path ''"
    assert not settings(quiet)[1].notes
    loud = settings("--mismatch_lambda 0.3 --local_num 3 --no_net_train_real")[1].notes
    assert [note.split()[0] for note in loud] == [
        "--mismatch_lambda",
        "--local_num",
        "--net_train_real",
    ]


def test_flags_that_a_method_fixes_are_mentioned_and_not_taken():
    args, parsed = settings(
        "--method DM --syn_ce --net_num 50 --tv_weight 0.3 --ce_weight 3 --trained_bs 7"
    )
    assert (args.syn_ce, args.net_num, args.tv_weight, args.ce_weight, args.trained_bs) == (
        False,
        1,
        0.8,
        0.5,
        256,
    )
    named = {"--syn_ce", "--net_num", "--tv_weight", "--ce_weight", "--trained_bs"}
    assert {note.split()[0] for note in parsed.notes} == named and not parsed.departures


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--experts 2 --net_num 7 --meter_reset 9", ["--net_num 7", "--meter_reset 9"]),
        ("--experts 2 --expert_steps 7 --expert_ce 1 --train_net_num 2 --lr_net 0.1", []),
        ("--expert_steps 7 --expert_ce 1", ["--expert_steps 7", "--expert_ce 1.0"]),
        ("--recipe ours --experts 0", ["--expert_ce 17.0"]),
    ],
)
def test_flags_of_the_pool_or_of_experts_without_them_are_mentioned_and_not_taken(line, said):
    args, parsed = settings(f"--ipc 10 {line}")
    why = "with --experts" if args.experts else "without --experts"
    assert parsed.notes == [f"{flag} has no effect {why}" for flag in said]
    assert (args.net_num, args.meter_reset) == (100, 100)
    assert (args.expert_steps, args.expert_ce) == (
        (7, 1.0) if args.experts and not said else (3000, 0.0)
    )


def test_epochs_beside_steps_of_judges_are_mentioned_and_not_taken():
    args, parsed = settings("--ipc 10 --judge_steps 7 --epoch_eval_train 200")
    assert parsed.notes == ["--epoch_eval_train 200 has no effect with --judge_steps"]
    assert parsed.departures == {"judge_steps": (7, 0)}
    alone, quiet = settings("--ipc 10 --judge_steps 7")
    assert not quiet.notes and flags.run_name(args) == flags.run_name(alone)


@pytest.mark.parametrize("value", [0, 0.5])
def test_a_weight_of_the_prior_that_is_zero_is_mentioned_and_not_taken(value):
    args, parsed = settings(f"--ipc 10 --clip_weight {value}")
    (note,) = parsed.notes
    assert note == f"--clip_weight {float(value)} has no effect with --clip_prior released"
    assert args.clip_weight == 0.2 and not parsed.departures
    assert not settings("--ipc 10 --clip_weight 0.2")[1].notes
    args, parsed = settings(f"--ipc 10 --clip_weight {value} --clip_prior residual")
    assert not parsed.notes and args.clip_weight == value
    _, parsed = settings(f"--ipc 10 --method IDM --clip_weight {value}")
    assert parsed.notes == [f"--clip_weight {float(value)} has no effect with --method IDM"]


def test_a_weight_of_the_cross_entropy_without_it_is_mentioned_and_not_taken():
    args, parsed = settings("--ipc 10 --no_syn_ce --ce_weight 0.3")
    assert parsed.notes == ["--ce_weight 0.3 has no effect with --no_syn_ce"]
    assert args.ce_weight == settings("--ipc 10")[0].ce_weight
    ours, parsed = settings("--ipc 10 --recipe ours")
    assert not ours.syn_ce and not parsed.notes
    args, parsed = settings("--ipc 10 --recipe ours --syn_ce --ce_weight 0.3")
    assert args.ce_weight == 0.3 and not parsed.notes


@pytest.mark.parametrize(
    ("line", "said", "taken"),
    [
        ("--Iteration 4 --cooldown 0.1", "--cooldown 0.1", 0.0),
        ("--Iteration 4 --cooldown 0.125", "--cooldown 0.125", 0.0),  # half of one rounds to even
        ("--Iteration 4 --cooldown 0.13", None, 0.13),
        ("--Iteration 4", None, 0.0),
        ("--Iteration 0 --cooldown 0.1", None, 0.1),  # as with all flags of distilling
        ("--Iteration 4 --cooldown 0.1 --recipe ours", "--cooldown 0.1", 0.0),
        ("--Iteration 2 --cooldown 0.1 --recipe ours", "--cooldown 0.1", 0.2),  # nor has ours one
        ("--Iteration 2 --recipe ours", None, 0.2),
    ],
)
def test_a_cooldown_of_no_iteration_is_mentioned_and_not_taken(line, said, taken):
    args, parsed = settings(f"--ipc 10 {line}")
    why = f"has no effect: of {args.Iteration} iterations that is none"
    assert parsed.notes == ([f"{said} {why}"] if said else [])
    assert args.cooldown == taken


def test_every_switch_has_its_negation():
    for name in ("aug", "syn_ce", "net_decay", "zca", "compile", "net_train_real", "dry_run"):
        assert vars(settings(f"--{name}")[0])[name] is True
        assert vars(settings(f"--no_{name}")[0])[name] is False


@pytest.mark.parametrize(
    ("line", "flag", "found"),
    [
        ("--ipc 0", "--ipc", "at least 1, found '0'"),
        ("--ipc ten", "--ipc", "ten"),
        ("--Iteration -1", "--Iteration", "-1"),
        ("--dataset MNIST", "--dataset", "MNIST is distilled by BACON_mnist.py"),
        ("--dataset tinyimagenet", "--dataset", "BACON_tiny.py"),
        ("--lr_img 0", "--lr_img", "0"),
        ("--lr_img 1e39", "--lr_img", "1e39"),
        (f"--ipc {'9' * 400}", "--ipc", "999"),
        ("--lr_img nan", "--lr_img", "nan"),
        ("--lr_net -0.1", "--lr_net", "-0.1"),
        ("--batch_real 1", "--batch_real", "1"),
        ("--eval_interval 0", "--eval_interval", "0"),
        ("--eval_mode Q", "--eval_mode", "Q"),
        ("--aug_num 2", "--aug_num", "2"),
        ("--net_num 0", "--net_num", "0"),
        ("--aug 3", "3", "3"),
        ("--ip 3", "--ip", "did you mean --ipc?"),
        ("--epc 10", "--epc", "did you mean --ipc?"),
        ("--00 1", "--00", "see --help"),
        ("--method BACN", "--method", "did you mean BACON?"),
        ("--dataset CIFAR101", "--dataset", "did you mean CIFAR10"),
        ("--method DC", "--method", "DC"),
        ("--ce_weight -1", "--ce_weight", "-1"),
        ("--checkpoint_minutes -1", "--checkpoint_minutes", "-1"),
        ("--fetch_net_num -1", "--fetch_net_num", "-1"),
        ("--num_eval 0", "--num_eval", "0"),
        ("'--lr_img=a\nb'", "--lr_img", "a"),
        ("'a\n\nb'", "unrecognized", "a  b"),
    ],
)
def test_a_bad_flag_gives_one_line_with_flag_and_value_and_code_2(line, flag, found, capsys):
    with pytest.raises(SystemExit) as stop:
        settings(line)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1 and flag in text and found in text


def test_every_flag_has_a_text_and_a_default_in_it_unless_it_is_off():
    actions = {
        a.dest: a for a in flags.build_parser(CIFARS, "")._actions if a.help != "==SUPPRESS=="
    }
    rows = [row for group in flags.FLAGS.values() for row in group] + [
        (d[0], d[1], d[2], "") for d in flags.DEAD_FLAGS
    ]
    names = [name for name, *_ in rows]
    assert set(names) == actions.keys() and len(names) == len(set(names))
    for name, _, default, _ in rows:
        assert len(actions[name].help) > 20 and (
            "default" in actions[name].help or default is False
        ), name
    for name in ("aug", "net_decay", "syn_ce", "zca", "resume"):
        told = f"; --no_{name} switches it off" in actions[name].help
        assert told == (name in ("aug", "net_decay", "syn_ce"))
    assert "default, by dataset and ipc: 0.1 or 0.5" in actions["ce_weight"].help
    assert "default 0.2; DM 1.0" in actions["lr_img"].help


@pytest.mark.parametrize(
    "script", ["BACON_mnist.py", "BACON_cifar10.py", "BACON_svhn.py", "BACON_tiny.py"]
)
def test_help_opens_with_the_example_and_few_flags_and_fits_80_columns(script, capsys):
    module = importlib.import_module(script.removesuffix(".py"))
    texts = []
    for word in ("--help", "-h", "--help_all", "--help-all"):
        with pytest.raises(SystemExit) as stop:
            flags.parse_args(module.DATASETS, module.__doc__, ["--ipc", "nonsense", word])
        texts.append(capsys.readouterr().out)
        assert not stop.value.code and max(map(len, texts[-1].splitlines())) <= 80
    short, again, everything, also = texts
    assert short == again and everything == also
    assert (
        f"python {script} --ipc" in short.split("--dataset X")[0]
        and "--help_all" in short.splitlines()[-1]
    )
    assert len(short.splitlines()) < 50 and "--lr_net" not in short and "--conf_path" not in short
    assert all(f"--{name} " in short for name in flags.COMMON_FLAGS)
    assert (
        everything.index("--lr_net")
        < everything.index("compatibility")
        < everything.index("--conf_path")
    )


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("--iteration 10", "Iteration", 10),
        ("--dry-run", "dry_run", True),
        ("--lr-img=0.5", "lr_img", 0.5),
        ("--no-aug", "aug", False),
        ("--IPC 3", "ipc", 3),
        ("--dataset cifar100", "dataset", "CIFAR100"),
        ("--dataset imagefolder", "dataset", "ImageFolder"),
        ("--method dm", "method", "DM"),
        ("--eval-mode m", "eval_mode", "M"),
        ("--clip_prior Residual", "clip_prior", "residual"),
        ("--embed-last -1", "embed_last", -1),
    ],
)
def test_flags_take_dashes_and_names_any_letter_case(typed, name, value):
    assert vars(settings(typed)[0])[name] == value


def test_the_words_of_the_command_line_are_taken_where_none_are_given(monkeypatch):
    monkeypatch.setattr("sys.argv", ["BACON_mnist.py", "--ipc=7", "--no_aug"])
    args = flags.parse_args(("MNIST",), "").args
    assert (args.ipc, args.aug, args.model) == (7, False, "ConvNet")


def test_a_row_of_the_table_of_terms_has_a_flag_and_a_tag():
    program = """
import dataclasses
from bacon import methods
row = dataclasses.replace(methods.TERMS["tv"], weight=0.5, about="weight of the other one")
methods.TERMS["other"] = row
both = dataclasses.replace(methods.METHODS["BACON"], terms=("lh", "other"))
methods.METHODS["Both"] = dataclasses.replace(both, about="both", follows="BACON", has_ours=False)
from bacon import flags
from bacon.recipes import recipe
words = ["--ipc=10", "--other_weight=3", "--method=Both", "--tv_weight=2"]
parsed = flags.parse_args(("CIFAR10",), "", words)
assert parsed.args.other_weight == 3.0 and parsed.args.tv_weight == 0.8
assert parsed.notes == ["--tv_weight 2.0 has no effect with --method Both"]
assert flags.run_name(parsed.args) == "Both_CIFAR10_ConvNet_10ipc_other3"
none = "(none is published for Both on CIFAR10 at ipc 10)"
assert parsed.recipe == f"BACON's for CIFAR10 at ipc 10 {none}"
assert flags.fixed_by("BACON") == {"other_weight": 0.5}
parser = flags.build_parser(("CIFAR10",), "")
assert "Both (both)" in " ".join(parser.format_help().split())
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# Flags of the released scripts that set nothing here: (flag, its released default, another value).
RELEASED_WITHOUT_EFFECT = [
    ("mismatch_lambda", "0.005", "0.3"), ("mismatch_type", "l1", "l2"), ("last", "100", "5"),
    ("dis_metric", "ours", "x"), ("local_num", "10", "3"), ("local_weight", "0.1", "0.2"),
    ("weight_layer_index", "0", "1"),
    ("inner_loop", "1", "2"), ("conf_path", "", "x.json"), ("ij_selection", "random", "adjoining"),
    ("load_path", "None", "a.pth"), ("perturbation_type", "weight", "none"),
    ("center_reg_weight", "0.01", "1.5"),
    ("eval_begin", "1", "3"),
]  # fmt: skip
RELEASED_SWITCHES_WITHOUT_EFFECT = ["local_match", "center_reg", "model_evaluate"]


@pytest.mark.parametrize(("name", "default", "other"), RELEASED_WITHOUT_EFFECT)
def test_a_released_flag_without_effect_is_accepted_and_said_unless_default(name, default, other):
    for names in (("CIFAR10", "CIFAR100"), ("TinyImageNet",), ("SVHN",), ("MNIST",)):
        assert not flags.parse_args(names, "", [f"--{name}={default}"]).notes
        (note,) = flags.parse_args(names, "", [f"--{name}={other}"]).notes
        assert note.startswith(f"--{name} {other} has no effect: ")


@pytest.mark.parametrize("name", RELEASED_SWITCHES_WITHOUT_EFFECT)
def test_a_released_switch_without_effect_is_accepted_and_said_where_it_is_on(name):
    assert not settings(f"--no_{name}")[1].notes
    (note,) = settings(f"--{name}")[1].notes
    assert note.startswith(f"--{name} True has no effect: ")


@pytest.mark.parametrize("dataset", ["CIFAR10", "ImageFolder"])
def test_a_size_is_for_pictures_in_folders_alone(dataset):
    parsed = flags.parse_args(("CIFAR10", "ImageFolder"), "", ["--dataset", dataset, "--im_size=8"])
    idle = dataset == "CIFAR10"
    said = ["--im_size 8 has no effect: only ImageFolder resizes"] if idle else []
    assert parsed.notes == said and parsed.args.im_size == (None if idle else 8)


LEAST = {
    0: "Iteration experts net_push_num fetch_net_num model_train_steps judge_steps validate "
    "exp_index seed",
    1: "ipc outer_loop expert_steps net_num net_generate_interval train_net_num trained_bs "
    "meter_reset eval_interval num_eval epoch_eval_train batch_train num_exp",
    2: "batch_real",  # their standard deviation is taken
    4: "im_size",
}


@pytest.mark.parametrize("least", LEAST)
def test_a_number_of_things_is_whole_and_not_below_what_makes_sense(least):
    for name in LEAST[least].split():
        parse, _ = flags.SHARED[name]
        assert (parse(str(least)), parse("1000000000")) == (least, 10**9)
        with pytest.raises(argparse.ArgumentTypeError, match=f"of at least {least}, found"):
            parse(str(least - 1))
        with pytest.raises(argparse.ArgumentTypeError, match="of at most 1e"):
            parse("1000000001")
        with pytest.raises(argparse.ArgumentTypeError, match="a whole number"):
            parse(f"{least}.5")


@pytest.mark.parametrize(
    ("names", "taken", "refused"),
    [
        ("net_begin net_end embed_last", ["-1000000000", "-1", "0"], ["-1000000001", "0.5"]),
        ("lr_img lr_net", ["1e-30", "1e30"], ["0", "-1", "1e31", "inf", "nan", "x"]),
        (
            "ce_weight expert_ce lh_weight tv_weight clip_weight spread_weight checkpoint_minutes",
            ["0", "1e-40", "1e30"],
            ["-1e-9", "1e31", "nan"],
        ),
        ("cooldown", ["0", "0.5", "1"], ["-0.1", "1.1", "nan"]),
    ],
)
def test_other_numbers_are_within_their_bounds(names, taken, refused):
    for name in names.split():
        parse, _ = flags.SHARED[name]
        assert [parse(text) for text in taken] == [float(text) for text in taken]
        for text in refused:
            with pytest.raises(argparse.ArgumentTypeError, match=re.escape(f"found {text!r}")):
                parse(text)


def test_every_number_of_the_command_line_has_its_bounds_tested():
    numbers = {
        name
        for name, (kind, _) in flags.SHARED.items()
        if callable(kind) and kind not in (str, flags.path)
    }
    others = "net_begin net_end embed_last lr_img lr_net cooldown checkpoint_minutes ce_weight"
    weights = {f"{name}_weight" for name in ("lh", "tv", "clip", "spread")} | {"expert_ce"}
    assert numbers == {*" ".join(LEAST.values()).split(), *others.split()} | weights
