"""Facts about what people type in place of a flag, a number or a path, and what they are told."""

import shlex

import pytest
from scripts import CIFARS, refusal, settings

from bacon import flags, hints
from bacon.score import command


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
        "--nproc_per_node 2": "no such flag; see --help",  # it runs in one process
        "''": "must be a path, found ''",
        "'x.pt\r'": "which holds a carriage return",
    }.items():
        assert said in refusal(line, capsys, parse), line
    assert parse("--recursive 1").paths == ["1"]  # a folder of that name
    assert parse("--recursive -- -x").paths == ["-x"]


def test_every_hint_names_flags_that_a_parser_has_and_each_name_stands_in_it_once():
    scripts = flags.build_parser(CIFARS, "")._option_string_actions
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


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("plain text ~!", None),
        ("", None),
        ("a\tb\n", "a tab"),
        ("\x1f", "a character without a name (U+001F)"),
        ("\x7f", "a character without a name (U+007F)"),
        ("\u00e9\n", "LATIN SMALL LETTER E WITH ACUTE (U+00E9)"),
    ],
)
def test_the_first_character_that_is_not_plain_is_named(text, first):
    assert hints.strange(text) == first
    assert hints.found(text) == f"found {text!r}" + (f", which holds {first}" if first else "")


def test_of_a_long_value_the_beginning_is_quoted():
    assert hints.found("x" * 40) == f"found '{'x' * 40}'" == hints.found("x" * 400)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("\u2013seed", "--seed"),
        ("\u2014dry\u2011run", "--dry-run"),
        ("---x", "--x"),
        ("-k8s", "--k8s"),
        ("\u22125", "-5"),  # a number stays one
        ("a\u00a0b\u200b", "a b"),
        ("\u3000a\r", "a"),
        ("\u2013", "-"),
    ],
)
def test_a_pasted_word_is_read_as_it_was_meant(word, meant):
    assert hints.plain(word) == meant


def test_gpus_are_told_from_other_words():
    assert all(map(hints.names_a_gpu, ["gpu", "GPU", "gpu:0", "cuda:12", "cuda1", "0", "0,1,2"]))
    assert not any(map(hints.names_a_gpu, ["cuda", "cpu", "", "cuda:", "x0", "0,", "0 1", "mps"]))
