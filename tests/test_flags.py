"""Facts about the flags: what a command line comes to, what is said of flags without effect, and to wrong ones."""

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
        ("--ipc 0", "--ipc", "0"),
        ("--ipc ten", "--ipc", "ten"),
        ("--Iteration -1", "--Iteration", "-1"),
        ("--dataset MNIST", "--dataset", "MNIST"),
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
        ("--ip 3", "--ip", "3"),
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


def test_help_has_a_text_with_a_default_for_every_flag():
    actions = {a.dest: a for a in flags.build_parser(DATASETS, "")._actions if a.help != "==SUPPRESS=="}
    names = [name for group in flags.FLAGS.values() for name, *_ in group] + [d[0] for d in flags.DEAD_FLAGS]
    assert set(names) == actions.keys() - {"help"} and len(names) == len(set(names))
    for name in names:
        assert "default" in actions[name].help and len(actions[name].help) > 20, name
    assert "default, by dataset and ipc: 0.1 or 0.5" in actions["ce_weight"].help
    assert "default 0.2; DM 1.0" in actions["lr_img"].help
