"""Facts about the objective, the recipes, the flags and the random streams."""

import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import utils

ROOT = Path(__file__).parents[1]


@pytest.fixture
def moments():
    g = torch.Generator().manual_seed(0)
    z_syn, z = torch.randn(2, 4, 7, generator=g, dtype=torch.float64) * 3
    s = torch.rand(4, 7, generator=g, dtype=torch.float64) + 0.1
    return z_syn, z, s


# --- objective


def test_moments_are_mean_and_unbiased_standard_deviation_of_each_class():
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z, s = utils.class_moments(x, [2, 4, 3])
    for row, block in enumerate((x[:2], x[2:6], x[6:])):
        block = block.numpy()
        np.testing.assert_allclose(z[row], block.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            s[row], np.sqrt(((block - block.mean(0)) ** 2).sum(0) / (len(block) - 1)), rtol=1e-12
        )


def test_log_likelihood_is_minus_the_log_of_the_gaussian_density(moments):
    z_syn, z, s = moments
    sigma = s.exp()
    density = torch.exp(-((z_syn - z) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    torch.testing.assert_close(utils.log_likelihood(z_syn, z, s), -density.log().sum(1), rtol=1e-12, atol=0)


def test_the_terms_stay_finite_where_the_density_underflows():
    z_syn = torch.full((1, 3), 1e4, requires_grad=True)
    z, s = torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 200.0]])
    assert torch.exp(-((z_syn - z) ** 2) / 2).max() == 0  # what the released code takes the log of
    loss = utils.log_likelihood(z_syn, z, s).sum()
    (gradient,) = torch.autograd.grad(loss, z_syn)
    assert loss.isfinite() and gradient.isfinite().all()
    torch.testing.assert_close(gradient[0, 0], torch.tensor(1e4))
    for term in (utils.total_variation, utils.mean_matching, utils.clip_residual):
        (gradient,) = torch.autograd.grad(term(z_syn, z, s).sum(), z_syn)
        assert gradient.isfinite().all() and term(z_syn, z, s).isfinite().all()


def test_log_sigma_has_no_gradient_and_is_the_mean_of_a_perfect_match(moments):
    _, z, s = moments
    loss = utils.log_likelihood(z, z, s)
    torch.testing.assert_close(loss, (s + 0.5 * math.log(2 * math.pi)).sum(1))


def test_total_variation_and_mean_matching_are_plain_sums(moments):
    z_syn, z, s = moments
    plain_tv, plain_match = torch.zeros(4, dtype=z.dtype), torch.zeros(4, dtype=z.dtype)
    for c in range(4):
        for d in range(7):
            plain_tv[c] += 0.5 * abs(z_syn[c, d] - z[c, d])
            plain_match[c] += (z_syn[c, d] - z[c, d]) ** 2
    torch.testing.assert_close(utils.total_variation(z_syn, z, s), plain_tv, rtol=1e-12, atol=0)
    torch.testing.assert_close(utils.mean_matching(z_syn, z, s), plain_match, rtol=1e-12, atol=0)


def test_the_clip_prior_of_the_released_code_is_identically_zero(moments):
    z_syn, z, s = moments
    z_syn = z_syn.requires_grad_()
    # The released term: both mean embeddings through a softmax, averaged over D, their difference less its clamp.
    difference = z_syn.softmax(1).mean(1) - z.softmax(1).mean(1)
    released = (difference - difference.clamp(0, 1)).square() + difference.abs()
    (gradient,) = torch.autograd.grad(released.sum() + z_syn.softmax(1).mean(), z_syn)
    assert released.abs().max() < 1e-15 and gradient.abs().max() < 1e-15
    ours = utils.clip_released(z_syn, z, s)
    assert torch.equal(ours, torch.zeros(4, dtype=z.dtype)) and not ours.requires_grad


def test_the_residual_clip_prior_is_its_plain_formula_and_ignores_dimensions_without_spread(moments):
    z_syn, z, s = moments
    s[1, 2] = s[3, 0] = 0.0
    plain = []
    for c in range(4):
        r = [float((z_syn[c, d] - z[c, d]) / s[c, d]) if s[c, d] >= 1e-6 else 0.0 for d in range(7)]
        plain.append(sum((x - min(max(x, 0.0), 1.0)) ** 2 for x in r))
    z_syn.requires_grad_()
    loss = utils.clip_residual(z_syn, z, s)
    torch.testing.assert_close(loss.detach(), torch.tensor(plain, dtype=z.dtype), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), z_syn)
    assert gradient.isfinite().all() and gradient[1, 2] == 0 and gradient[3, 0] == 0


def test_bacon_weighs_likelihood_1_total_variation_08_and_clip_02_and_the_others_match_means():
    args, _ = settings("--ipc 10")
    terms = utils.objective_terms(args.method, args.lh_weight, args.tv_weight, args.clip_weight, args.clip_prior)
    assert {name: weight for name, (weight, _) in terms.items()} == {"lh": 1.0, "tv": 0.8, "clip": 0.2}
    for method in ("IDM", "DM"):
        assert utils.objective_terms(method, 1, 1, 1, "released") == {"match": (1.0, utils.mean_matching)}


# --- recipes and flags

SCRIPTS = {
    "BACON_mnist.py": ("MNIST", "FashionMNIST", "Digits"),
    "BACON_cifar10.py": ("CIFAR10", "CIFAR100"),
    "BACON_svhn.py": ("SVHN",),
    "BACON_tiny.py": ("TinyImageNet",),
}


def settings(line, script="BACON_cifar10.py"):
    parsed = utils.parse_args(SCRIPTS[script], "", shlex.split(line))
    return parsed.args, parsed


def command_lines():
    lines = [line for line in (ROOT / "Command.txt").read_text().splitlines() if line.startswith("python3 ")]
    return [line.removeprefix("python3 -u ").split(" ", 1) for line in lines]


# The released command list, by hand: ce_weight, eval_interval, batch_real, net_generate_interval, model_train_steps.
PUBLISHED = {
    ("MNIST", 1): (0.5, 100, 5000, 5, 10),
    ("MNIST", 10): (0.5, 100, 256, 30, 10),
    ("MNIST", 50): (0.5, 100, 256, 30, 10),
    ("FashionMNIST", 1): (0.5, 100, 5000, 5, 10),
    ("FashionMNIST", 10): (0.5, 100, 256, 30, 10),
    ("FashionMNIST", 50): (0.5, 100, 256, 30, 10),
    ("SVHN", 1): (0.5, 100, 5000, 5, 10),
    ("SVHN", 10): (0.5, 100, 256, 30, 10),
    ("SVHN", 50): (0.1, 500, 256, 30, 10),
    ("CIFAR10", 1): (0.5, 100, 5000, 5, 10),
    ("CIFAR10", 10): (0.5, 100, 256, 30, 10),
    ("CIFAR10", 50): (0.1, 500, 256, 30, 10),
    ("CIFAR100", 1): (0.5, 100, 5000, 5, 10),
    ("CIFAR100", 10): (0.1, 100, 256, 30, 50),
    ("CIFAR100", 50): (0.1, 500, 256, 30, 50),
    ("TinyImageNet", 1): (0.5, 100, 256, 30, 10),
    ("TinyImageNet", 10): (0.5, 500, 256, 30, 50),
    ("TinyImageNet", 50): (0.8, 1000, 256, 30, 50),
}
SHARED = {
    "model": "ConvNet", "dsa_strategy": "color_crop_cutout_flip_scale_rotate", "init": "real", "lr_img": 0.2,
    "num_exp": 5, "num_eval": 5, "outer_loop": 1, "net_decay": True, "embed_last": 1000, "syn_ce": True,
    "train_net_num": 1, "aug": True, "Iteration": 20000, "trained_bs": 256, "batch_train": 256, "net_num": 100,
    "net_push_num": 1, "net_begin": 0, "net_end": 100000, "fetch_net_num": 2, "lr_net": 0.01, "epoch_eval_train": 1000,
    "eval_mode": "S", "optim": "sgd", "clip_prior": "released", "zca": False,
}  # fmt: skip


@pytest.mark.parametrize(("script", "line"), command_lines(), ids=[line[:75] for _, line in command_lines()])
def test_every_command_line_is_the_recipe_and_equals_the_defaults(script, line):
    args, parsed = settings(line, script)
    assert not parsed.departures
    short, _ = settings(f"--dataset {args.dataset} --ipc {args.ipc} --method {args.method}", script)
    ours, defaults = vars(args), vars(short)
    differing = {name for name in ours if ours[name] != defaults[name]}
    assert differing <= {"mismatch_lambda"}  # the released default and the command list differ in a flag without effect

    if args.method == "DM":
        wanted = {
            "lr_img": 1.0, "batch_real": 256, "Iteration": 20000, "eval_interval": 2000, "num_exp": 5, "num_eval": 5,
            "epoch_eval_train": 1000, "embed_last": 1000, "aug": False, "syn_ce": False, "net_num": 1,
            "net_generate_interval": 1, "fetch_net_num": 0, "outer_loop": 1, "train_net_num": 1,
        }  # fmt: skip
    else:
        names = ("ce_weight", "eval_interval", "batch_real", "net_generate_interval", "model_train_steps")
        wanted = {**SHARED, **dict(zip(names, PUBLISHED[args.dataset, args.ipc], strict=True))}
        wanted["meter_reset"] = wanted["eval_interval"]
        if args.method == "IDM" and (args.dataset, args.ipc) in {("CIFAR100", 50), ("TinyImageNet", 10)}:
            wanted["model_train_steps"] = 10
    assert {name: ours[name] for name in wanted} == wanted


def test_command_list_holds_each_method_dataset_and_ipc_once():
    found = [
        (args.method, args.dataset, args.ipc)
        for args, _ in (settings(line, script) for script, line in command_lines())
    ]
    wanted = [(method, *key) for method in ("BACON", "IDM", "DM") for key in PUBLISHED]
    assert sorted(found) == sorted(wanted)


def test_an_unlisted_ipc_takes_the_recipe_of_the_largest_listed_one_below_and_says_so():
    args, parsed = settings("--ipc 20")
    assert args.ce_weight == 0.5
    assert parsed.recipe == "BACON's for CIFAR10 at ipc 10 (none is published for BACON on CIFAR10 at ipc 20)"
    assert settings("--ipc 60")[0].ce_weight == 0.1
    assert settings("--ipc 50")[1].recipe == "BACON's for CIFAR10 at ipc 50"


def test_a_run_says_whose_recipe_it_takes():
    assert settings("--method IDM --ipc 1")[1].recipe == "IDM's for CIFAR10 at ipc 1"
    assert settings("--method DM --ipc 7")[1].recipe == "DM's own"
    tiny = settings("--ipc 50", "BACON_tiny.py")[1].recipe
    assert tiny.startswith("IDM's for TinyImageNet at ipc 50 (none is published for BACON")
    assert settings("--dataset Digits --ipc 10", "BACON_mnist.py")[1].recipe.startswith(
        "MNIST".join(["BACON's for ", " "])
    )


def test_dm_takes_ten_times_the_rate_from_ipc_100_on():
    assert settings("--method DM --ipc 99")[0].lr_img == 1.0
    assert settings("--method DM --ipc 100")[0].lr_img == 10.0


def test_the_meter_resets_by_the_recipe_whatever_the_evaluation_interval():
    assert settings("--ipc 10 --eval_interval 7")[0].meter_reset == 100
    assert settings("--ipc 50")[0].meter_reset == 500


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
    actions = {
        a.dest: a for a in utils.build_parser(SCRIPTS["BACON_cifar10.py"], "")._actions if a.help != "==SUPPRESS=="
    }
    flags = [name for group in utils.FLAGS.values() for name, *_ in group] + [d[0] for d in utils.DEAD_FLAGS]
    assert set(flags) == actions.keys() - {"help"} and len(flags) == len(set(flags))
    for name in flags:
        assert "default" in actions[name].help and len(actions[name].help) > 20, name
    assert "default, by dataset and ipc: 0.1 or 0.5" in actions["ce_weight"].help
    assert "default 0.2; DM 1.0" in actions["lr_img"].help


# --- random streams and files


def test_a_stream_depends_on_its_name_alone():
    first = utils.stream(0, 1, "class", 5).random(4)
    utils.stream(0, 1, "other").random(100)
    assert np.array_equal(first, utils.stream(0, 1, "class", 5).random(4))
    others = [(1, 1, "class", 5), (0, 2, "class", 5), (0, 1, "pick", 5), (0, 1, "class", 6), (0, 11, "class", 5)]
    assert all(not np.array_equal(first, utils.stream(*name).random(4)) for name in others)


def test_an_interrupted_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.pt"
    utils.save_torch({"a": 1}, path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        utils.save_torch({"a": lambda: 0}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
