"""Facts about the flags: what a command line comes to, what is said of flags without effect, and to wrong ones."""

import importlib
import shlex

import pytest

from bacon import flags

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
    assert [note.split()[0] for note in loud] == ["--mismatch_lambda", "--local_num", "--net_train_real"]


def test_flags_that_a_method_fixes_are_mentioned_and_not_taken():
    args, parsed = settings("--method DM --syn_ce --net_num 50 --tv_weight 0.3 --ce_weight 3 --trained_bs 7")
    assert (args.syn_ce, args.net_num, args.tv_weight, args.ce_weight, args.trained_bs) == (False, 1, 0.8, 0.5, 256)
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
    actions = {a.dest: a for a in flags.build_parser(DATASETS, "")._actions if a.help != "==SUPPRESS=="}
    rows = [row for group in flags.FLAGS.values() for row in group] + [(d[0], d[1], d[2], "") for d in flags.DEAD_FLAGS]
    names = [name for name, *_ in rows]
    assert set(names) == actions.keys() and len(names) == len(set(names))
    for name, _, default, _ in rows:
        assert len(actions[name].help) > 20 and ("default" in actions[name].help or default is False), name
    assert "default, by dataset and ipc: 0.1 or 0.5" in actions["ce_weight"].help
    assert "default 0.2; DM 1.0" in actions["lr_img"].help


@pytest.mark.parametrize("script", ["BACON_mnist.py", "BACON_cifar10.py", "BACON_svhn.py", "BACON_tiny.py"])
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
    assert f"python {script} --ipc" in short.split("--dataset X")[0] and "--help_all" in short.splitlines()[-1]
    assert len(short.splitlines()) < 50 and "--lr_net" not in short and "--conf_path" not in short
    assert all(f"--{name} " in short for name in flags.COMMON_FLAGS)
    assert everything.index("--lr_net") < everything.index("compatibility") < everything.index("--conf_path")


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [("--iteration 10", "Iteration", 10), ("--dry-run", "dry_run", True), ("--lr-img=0.5", "lr_img", 0.5),
     ("--no-aug", "aug", False), ("--IPC 3", "ipc", 3), ("--dataset cifar100", "dataset", "CIFAR100"),
     ("--dataset imagefolder", "dataset", "ImageFolder"), ("--method dm", "method", "DM"),
     ("--eval-mode m", "eval_mode", "M"),
     ("--clip_prior Residual", "clip_prior", "residual"), ("--embed-last -1", "embed_last", -1)],
)  # fmt: skip
def test_flags_take_dashes_and_names_any_letter_case(typed, name, value):
    assert vars(settings(typed)[0])[name] == value


def test_the_scripts_accept_the_datasets_that_others_send_there():
    for script in set(flags.SCRIPTS.values()):
        module = importlib.import_module(script.removesuffix(".py"))
        assert tuple(name for name, there in flags.SCRIPTS.items() if there == script) == module.DATASETS
