"""What people type in place of a flag, a number or a path, and what they are told. No torch."""

import dataclasses
import difflib
import re
import unicodedata

# Hyphens, dashes and the minus sign that editors and web pages put in place of a keyboard's hyphen.
DASHES = tuple("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
_CONTROLS = {"\t": "a tab", "\n": "a newline", "\r": "a carriage return, as Windows ends its lines"}


@dataclasses.dataclass(frozen=True)
class Meant:
    """What a flag of other programs stands for here."""

    names: str  # without dashes, separated by spaces
    flags: dict  # {flag: what it is or takes}; those that the parser at hand has are named
    reason: str = ""  # what else to say; alone where `flags` is empty
    needs: str = ""  # only where the parser has this flag


_OF_DISTILLING = "Iteration"
_CARD = "CUDA_VISIBLE_DEVICES=1 before the command chooses a GPU"
MEANT = (
    Meant(
        "epochs epoch num_epochs num_epoch n_epochs max_epochs train_epochs",
        {"Iteration": "of distilling", "epoch_eval_train": "epochs of a judge"},
    ),
    Meant(
        "iterations iters iter num_iter num_iters n_iter niter max_iter num_iterations",
        {"Iteration": "of distilling"},
    ),
    Meant(
        "steps num_steps max_steps n_steps",
        {"Iteration": "of distilling", "judge_steps": "of a judge"},
    ),
    Meant("epoch_eval eval_epochs eval_epoch", {"epoch_eval_train": "epochs of a judge"}),
    Meant("lr learning_rate lrate", {"lr_img": "of the images", "lr_net": "of the networks"}),
    Meant("lr_image lr_images lr_syn img_lr syn_lr", {"lr_img": "of the images"}),
    Meant("net_lr lr_model lr_network", {"lr_net": "of the networks"}),
    Meant(
        "batch_size batchsize batch bs bsz train_batch_size",
        {
            "batch_real": "real images per class and update",
            "trained_bs": "real images that train a network",
            "batch_train": "synthetic images that train a judge",
        },
    ),
    Meant("batch_syn", {}, "all images of a class are updated at once: leave it out"),
    Meant(
        "images_per_class image_per_class imgs_per_class img_per_class n_per_class spc num_ipc",
        {"ipc": "images per class"},
    ),
    Meant(
        "num_workers workers n_workers nworkers n_jobs pin_memory prefetch",
        {},
        "images are held in memory and no workers load them: leave it out",
    ),
    Meant(
        "gpu gpus gpu_id gpu_ids cuda use_gpu use_cuda n_gpu ngpu num_gpus",
        {"device": "such as cuda"},
        _CARD,
    ),
    Meant("cpu no_cuda no_gpu", {"device": "such as cpu"}),
    Meant(
        "local_rank nproc_per_node nnodes node_rank master_port master_addr world_size rank",
        {},
        "torchrun takes it: torchrun --nproc_per_node=2 BACON_... starts two processes",
        needs=_OF_DISTILLING,
    ),
    Meant(
        "distributed ddp multi_gpu data_parallel",
        {},
        "torchrun --nproc_per_node=2 BACON_... starts two processes: leave it out",
        needs=_OF_DISTILLING,
    ),
    Meant("random_seed manual_seed rng_seed random_state", {"seed": "a whole number"}),
    Meant(
        "output output_dir out out_dir outdir save save_dir result result_path result_dir log_dir",
        {"save_path": "a folder"},
    ),
    Meant(
        "data data_dir datadir data_root dataset_path dataset_dir root path",
        {"data_path": "a folder"},
    ),
    Meant("data_set dataset_name ds", {"dataset": "a name"}),
    Meant("arch architecture network net backbone", {"model": "a network's name"}),
    Meant("width net_width depth net_depth", {"model": "such as ConvNetW32 or ConvNetD4"}),
    Meant("norm net_norm act net_act pooling", {"model": "such as ConvNetGN or ConvNetMP"}),
    Meant(
        "amp fp16 float16 half mixed_precision bf16 bfloat16 fp32 float32",
        {"precision": "auto, fp32 or bf16"},
    ),
    Meant("dsa no_dsa augment augmentation", {"dsa_strategy": "operations joined by _, or none"}),
    Meant("lambda lam lamda alpha", {"tv_weight": "lambda", "clip_weight": "1 - lambda"}),
    Meant(
        "momentum mom mom_img weight_decay wd",
        {"net_decay": "momentum 0.9 and weight decay 5e-4 for the pool's networks"},
        "the images' momentum is 0.5",
    ),
    Meant("optimizer optimiser opt", {"optim": "sgd or adam"}),
    Meant("continue load checkpoint ckpt restart resume_from", {"resume": "takes no value"}),
    Meant("force replace clobber", {"overwrite": "takes no value"}),
    Meant(
        "image_size img_size imgsize imsize size res resolution",
        {"im_size": "of ImageFolder, in pixels"},
    ),
    Meant(
        "num_classes nclass n_classes nclasses num_channels channel channels",
        {},
        "the dataset says: leave it out",
    ),
    Meant("test_interval eval_freq eval_it eval_every", {"eval_interval": "in iterations"}),
    Meant(
        "runs num_runs n_runs repeat repeats num_experiments n_exp nexp trials num_trials",
        {"num_exp": "experiments", "num_eval": "judges of each"},
    ),
    Meant(
        "evaluate eval test test_only eval_only",
        {},
        "python evaluate.py FOLDER scores the sets of a folder",
    ),
    Meant(
        "export grid tsne diagnose baseline protocol relabel table plot",
        {},
        "it is a flag of evaluate.py",
    ),
    Meant(
        "verbose print_freq log_interval wandb project tensorboard",
        {},
        "every figure is in the log_....jsonl of a run: leave it out",
    ),
)


def advice(typed, known):
    """What to say of a flag that is none, the end of a sentence. typed: with two dashes, in lower
    case, _ for -. known: {flag in lower case: flag} of the parser, with two dashes."""
    for meant in MEANT:
        if typed[2:] not in meant.names.split():
            continue
        if meant.needs and f"--{meant.needs.lower()}" not in known:
            continue
        named = []
        for flag, what in meant.flags.items():
            if f"--{flag.lower()}" in known:
                named.append(f"--{flag} ({what})")
        if named:
            said = f"say {_alternatives(named)}"
            return f"{said}; {meant.reason}" if meant.reason else said
        if not meant.flags:
            return meant.reason
    near = difflib.get_close_matches(typed, known, 1)
    return f"did you mean {known[near[0]]}?" if near else "see --help"


def _alternatives(words):
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def decoded(word):
    """A word of the command line; bytes that a C locale left undecoded are taken for UTF-8."""
    try:
        return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # surrogates that stand for no bytes
        return word


def strange(text):
    """The first character of a text that is not a printable one of ASCII, in words; or None."""
    for character in decoded(text):
        if character in _CONTROLS:
            return _CONTROLS[character]
        if not " " <= character <= "~":
            name = unicodedata.name(character, "a character without a name")
            return f"{name} (U+{ord(character):04X})"
    return None


def plain(word):
    """A pasted word as it was meant to be typed: hyphens for dashes, two before a flag, blanks for
    other white space, nothing invisible."""
    typed = ""
    for character in decoded(word):
        if character in DASHES:
            typed += "-"
        elif character.isspace():
            typed += " "
        elif unicodedata.category(character) not in ("Cc", "Cf"):
            typed += character
    name = typed.strip().lstrip("-")
    is_flag = typed.startswith("-") and name[:1].isalpha()
    return f"--{name}" if is_flag else typed.strip()


def found(text):
    """What was found in place of a value; a character that looks right and is not is named."""
    character = strange(text)
    return f"found {text[:40]!r}" + (f", which holds {character}" if character else "")


WHICH_GPU = "say cuda; CUDA_VISIBLE_DEVICES=1 before the command chooses a GPU"


def names_a_gpu(text):
    """Whether a value of --device is how other programs name a GPU: gpu, cuda:1, 0, 0,1."""
    return re.fullmatch(r"gpu|(cuda:?|gpu:?)?\d+(,\d+)*", text.lower()) is not None
