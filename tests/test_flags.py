"""Facts about the flags: what a command line comes to, and what is said of idle and wrong ones."""

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bacon import flags, hints
from bacon.data import datasets
from bacon.score import command

ROOT = Path(__file__).parents[1]
DATASETS = ("CIFAR10", "CIFAR100")


def settings(line):
    parsed = flags.parse_args(DATASETS, "", shlex.split(line))
    return parsed.args, parsed


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
        a.dest: a for a in flags.build_parser(DATASETS, "")._actions if a.help != "==SUPPRESS=="
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


def test_every_dataset_is_distilled_by_the_script_that_others_send_there():
    for name, spec in datasets.DATASETS.items():
        module = importlib.import_module(spec.script.removesuffix(".py"))
        assert name in module.DATASETS and datasets.of_script(spec.script) == module.DATASETS


def test_a_row_of_the_table_of_datasets_is_a_dataset_of_its_script(monkeypatch):
    row = datasets.DATASETS["MNIST"]._replace(mean=(0.19,), std=(0.35,))
    monkeypatch.setitem(datasets.DATASETS, "KMNIST", row)
    names = datasets.of_script("/somewhere/BACON_mnist.py")
    assert names == ("MNIST", "FashionMNIST", "Digits", "KMNIST")
    parsed = flags.parse_args(names, "", ["--dataset", "kmnist", "--ipc", "10"])
    none = "(none is published for BACON on KMNIST at ipc 10)"
    assert parsed.recipe == f"BACON's for MNIST at ipc 10 {none}"
    ours = flags.parse_args(names, "", ["--dataset=KMNIST", "--ipc=10", "--recipe=ours"])
    assert ours.recipe == "ours for MNIST at ipc 10" and ours.args.chroma == "full"
    assert flags.run_name(ours.args) == "ours_KMNIST_ConvNet_10ipc"
    assert "KMNIST" in flags.build_parser(names, "").format_help()


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


def refusal(words, capsys, parse=settings):
    with pytest.raises(SystemExit) as stop:
        parse(words)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("\u2013-seed 1", "\u2013-seed: holds EN DASH (U+2013); type --seed"),
        ("\u2014seed 1", "holds EM DASH (U+2014); type --seed"),
        ("\u2212\u2212seed=1", "holds MINUS SIGN (U+2212); type --seed=1"),
        ("-\u2013seed 1", "holds EN DASH (U+2013); type --seed"),
        ("--dry\u2011run", "--dry\u2011run: holds NON-BREAKING HYPHEN (U+2011); type --dry-run"),
        ("--ipc\u00a010", "holds NO-BREAK SPACE (U+00A0); type --ipc 10"),
        ("--see\u200bd 1", "holds ZERO WIDTH SPACE (U+200B); type --seed"),
        ("'--resume\r'", "holds a carriage return, as Windows ends its lines; type --resume"),
        ("--net_begin \u22125", "\u22125: holds MINUS SIGN (U+2212); type -5"),
        ("--net_begin=\u22125", "at least -1e+09, found '\u22125', which holds"),
        ("--lr_img 1e\u22123", "found '1e\u22123', which holds MINUS SIGN (U+2212)"),
        ("--dataset \u201cCIFAR10\u201d", "QUOTATION MARK (U+201C); did you mean CIFAR10?"),
        ("'--dataset=CIFAR10\r'", "which holds a carriage return"),
        ("\udce2\udc80\udc93-seed", "EN DASH (U+2013); type --seed"),  # as a C locale hands it on
        ("--ipc 1 '\r'", "'\\r': is a carriage return, as Windows ends its lines; leave it out"),
        ("-seed 1", "-seed: a flag has two dashes; type --seed"),
        ("-iteration 1", "type --Iteration"),
        ("-x 1", "-x: no such flag; see --help"),
    ],
)
def test_what_was_pasted_is_named_by_its_character(line, said, capsys):
    assert said in refusal(line, capsys)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--aug True", "--aug: takes no value, found 'True'; say --aug or --no_aug"),
        ("--aug False", "--aug: takes no value, found 'False'; say --aug or --no_aug"),
        ("--syn_ce=1", "--syn_ce: takes no value, found '1'; say --syn_ce or --no_syn_ce"),
        ("--no_zca true --ipc 1", "--no_zca: takes no value, found 'true'; say --zca or --no_zca"),
        ("--net-decay yes", "--net_decay: takes no value, found 'yes'"),
    ],
)
def test_a_switch_that_is_given_a_value_says_what_to_say(line, said, capsys):
    assert said in refusal(line, capsys)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--epochs 5", "--Iteration (of distilling) or --epoch_eval_train (epochs of a judge)"),
        ("--num-epochs 5", "--Iteration (of distilling) or --epoch_eval_train"),
        ("--lr 0.1", "say --lr_img (of the images) or --lr_net (of the networks)"),
        ("--Learning-Rate=0.1", "say --lr_img"),
        ("--batch_size 5", "--batch_real (real images per class and update), --trained_bs (real"),
        ("--num_workers 5", "no workers load them: leave it out"),
        ("--gpu 0", "say --device (such as cuda); CUDA_VISIBLE_DEVICES=1"),
        ("--cuda", "say --device (such as cuda)"),
        ("--iterations 5", "say --Iteration (of distilling)"),
        ("--images_per_class 5", "say --ipc (images per class)"),
        ("--output x", "say --save_path (a folder)"),
        ("--local-rank=1", "torchrun --nproc_per_node=2 BACON_... starts two processes"),
        ("--momentum 0.9", "say --net_decay"),
        ("--grid x", "it is a flag of evaluate.py"),
        ("-lr 0.1", "-lr: no such flag; say --lr_img"),
        ("--epc 10", "did you mean --ipc?"),
    ],
)
def test_a_flag_of_other_programs_gets_the_flag_that_is_meant(line, said, capsys):
    assert said in refusal(line, capsys)


def test_evaluate_names_its_own_flags_only(capsys):
    def parse(line):
        return command.build_parser("").parse_args(shlex.split(line))

    for line, said in {
        "--epochs 5": "say --epoch_eval_train (epochs of a judge)\n",
        "--lr 1": "say --lr_net (of the networks)\n",
        "--batch_size 3": "say --batch_train (synthetic images that train a judge)\n",
        "--images_per_class 3": "say --ipc (images per class)\n",
        "--zca True": "--zca: takes no value, found 'True'; say --zca, or leave it out",
        "\u2014table x": "holds EM DASH (U+2014); type --table",
        "--momentum 1": "no such flag; see --help",
        "''": "must be a path, found ''",
        "'x.pt\r'": "which holds a carriage return",
    }.items():
        assert said in refusal(line, capsys, parse), line
    assert parse("--recursive 1").paths == ["1"]  # a folder of that name
    assert parse("--recursive -- -x").paths == ["-x"]


def test_every_hint_names_flags_that_a_parser_has_and_each_name_stands_in_it_once():
    scripts = flags.build_parser(DATASETS, "")._option_string_actions
    ours = {*scripts, *command.build_parser("")._option_string_actions}
    names = [name for meant in hints.MEANT for name in meant.names.split()]
    for meant in hints.MEANT:
        assert {f"--{flag}" for flag in meant.flags} <= ours
        assert not meant.needs or f"--{meant.needs}" in ours
    assert len(names) == len(set(names))
    assert not {f"--{name}" for name in names} & {flag.lower() for flag in scripts}
    known = {flag.lower(): flag for flag in scripts}
    for name in names:
        assert hints.advice(f"--{name}", known) not in ("", "see --help"), name


@pytest.mark.parametrize("flag", ["save_path", "data_path"])
def test_a_path_without_a_name_or_with_an_invisible_character_is_refused(flag, capsys, tmp_path):
    assert "must be a path, found ''; . is the current folder" in refusal(f"--{flag} ''", capsys)
    said = f"--{flag}: must be a path, found 'result\\r', which holds a carriage return"
    assert said in refusal(f"'--{flag}=result\r'", capsys)
    assert "found 'a\\nb', which holds a newline" in refusal(f"'--{flag}=a\nb'", capsys)
    there = tmp_path / "result\r"
    there.mkdir()
    assert vars(settings(f"'--{flag}={there}'")[0])[flag] == str(there)
    for name in ("r\u00e9sultat \u2013 1", "a b", "~/x", "\udcff"):
        assert vars(settings(f"--{flag} '{name}'")[0])[flag] == name


@pytest.mark.parametrize("value", ["gpu", "GPU", "0", "1", "cuda:0", "cuda1", "0,1"])
def test_a_gpu_that_is_named_as_elsewhere_is_answered_with_cuda(value, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.parse_args(("CIFAR10",), "", ["--device", value])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert "say cuda; CUDA_VISIBLE_DEVICES" in text and "did you mean cpu" not in text


def test_a_file_may_be_called_what_looks_like_a_flag(capsys, tmp_path, monkeypatch):
    def parse(line):
        return command.build_parser("").parse_args(shlex.split(line))

    monkeypatch.chdir(tmp_path)
    assert "holds EN DASH (U+2013); type --set.pt" in refusal("\u2013set.pt", capsys, parse)
    (tmp_path / "\u2013set.pt").touch()
    assert parse("\u2013set.pt").paths == ["\u2013set.pt"]
    assert "type --set.pt" in refusal("\u2013set.pt", capsys)  # these take no paths


def test_half_a_character_is_shown_as_an_escape_of_it(capsys):
    """Half of a pair of surrogates is in a name of Windows only."""
    assert hints.decoded("\ud800") == "\ud800"
    assert "'\\ud800'" in refusal("--ipc \ud800", capsys)


@pytest.mark.parametrize("dataset", ["CIFAR10", "ImageFolder"])
def test_a_size_is_for_pictures_in_folders_alone(dataset):
    parsed = flags.parse_args(("CIFAR10", "ImageFolder"), "", ["--dataset", dataset, "--im_size=8"])
    idle = dataset == "CIFAR10"
    said = ["--im_size 8 has no effect: only ImageFolder resizes"] if idle else []
    assert parsed.notes == said and parsed.args.im_size == (None if idle else 8)
