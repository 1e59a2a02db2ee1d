"""What is refused before anything is written: flags and data with which a run cannot work."""

import torch

import augment
import networks
from bacon import compute, messages, recipes
from bacon.data.datasets import IMAGE_FOLDER
from bacon.distill import experts
from bacon.errors import UserError, flag
from bacon.methods import (
    METHODS,
    TERMS,
    is_zero,
    joint_methods,
    terms_in_use,
    terms_of,
    weight_flags,
    weight_of,
)


def check_flags(settings, spec, world):
    """Tell which flags have no effect or not all of it, settle what only the images can tell, and
    refuse what cannot work.

    settings: flags.Settings, whose args may change. spec: the shape of the images and the classes,
    a datasets.Spec, or a loading.Dataset where no table knows them.
    """
    args = settings.args
    for note in settings.notes:
        messages.log.info(note)
    with flag("--model"):
        args.model = networks.named(args.model)
    leave_chroma_out(settings, spec)
    leave_spread_out(settings)
    check_settings(args, spec, world)
    tell_too_few_networks(settings)


def leave_chroma_out(settings, spec):
    """Our recipe's --chroma half, where nobody typed it and the images do not allow it, becomes
    full, which is said."""
    args = settings.args
    why = no_half_chroma(args, spec)
    if args.chroma == "half" and "chroma" not in settings.given and why:
        args.chroma = "full"
        messages.log.info(f"--chroma half of our recipe is left out: {why}")


def leave_spread_out(settings):
    """Our recipe's --spread_weight, where nobody typed it and a class has one image, becomes 0,
    which is said."""
    args = settings.args
    why = too_few_images("spread", args)
    if args.spread_weight and "spread_weight" not in settings.given and why:
        args.spread_weight = 0.0
        messages.log.info(f"--spread_weight of our recipe is left out: it {why}")


def tell_too_few_networks(settings):
    """Say where an iteration asks for more networks than there are."""
    args = settings.args
    if not args.Iteration:
        return
    if args.experts:
        networks_there = experts.MOMENTS * args.experts
        whose = f"the experts have {networks_there:,} networks"
        asked = ["train_net_num"]
    else:
        networks_there = recipes.largest_pool(args)
        plural = "" if networks_there == 1 else "s"
        whose = f"the pool has {networks_there:,} network{plural} at most"
        asked = ["train_net_num", "fetch_net_num"]
    for name in asked:
        value = getattr(args, name)
        if value > networks_there:
            flag_of = _flag_of(name, value, settings.given)
            messages.log.info(f"{whose}, fewer than {flag_of}: an iteration takes all of them")


def _flag_of(name, value, given):
    """A flag with its value, and that it is the recipe's where nobody typed it."""
    whose = "" if name in given else "the recipe's "
    return f"{whose}--{name} {value}"


def no_half_chroma(args, spec):
    """Why --chroma half is impossible for images of this shape, in words; "" where it is not."""
    multiple = 2 * recipes.factor(args)
    if spec.channels != 3:
        return f"{args.dataset} has no colours"
    if args.zca:
        return "whitened images have no luma and chroma"
    if any(side % multiple for side in spec.im_size):
        found = f"{args.dataset} has {spec.im_size}"
        return f"it needs a height and width divisible by {multiple}, {found}"
    return ""


def too_few_images(name, args):
    """Why a class has too few synthetic images for a term of the loss, in words; "" where it has
    enough. name: a key of TERMS."""
    needed = TERMS[name].images
    there = recipes.images_per_class(args)
    return f"needs {needed} images per class, found {there}" if there < needed else ""


def check_settings(args, spec, world):
    """Refuse what cannot work: UserError that names the flag. spec: as in `check_flags`."""
    for check in CHECKS:
        check(args, spec, world)


def _check_dsa(args, spec, world):
    with flag("--dsa_strategy"):
        augment.parse_strategy(args.dsa_strategy)


def _check_networks(args, spec, world):
    shape = (spec.channels, spec.num_classes, spec.im_size)
    with flag("--model"):
        networks.check(args.model, *shape)
    for name in recipes.architectures(args.eval_mode, args.model):
        with flag(f"--eval_mode {args.eval_mode}"):
            networks.check(name, *shape)


def _check_distilling_network(args, spec, world):
    net = networks.check(args.model, spec.channels, spec.num_classes, spec.im_size)
    model = f"--model {args.model}:"
    if not isinstance(net, networks.ConvNet):
        raise UserError(f"{model} only networks of the ConvNet family can distil; others can judge")
    if net.has_batch_statistics and not METHODS[args.method].joint_step:
        allowed = " or ".join(joint_methods())
        raise UserError(f"{model} batch normalisation can distil with --method {allowed} only")
    if net.has_batch_statistics and world.size > 1:
        needs = "batch normalisation needs all classes in one process; start one process"
        raise UserError(f"{model} {needs}")
    if len(net.features[: args.embed_last]) == 0:
        none = f"leaves no module of the {len(net.features)} of {args.model}"
        advice = "give at least 1, or a negative number of modules to leave out"
        raise UserError(f"--embed_last {args.embed_last}: {none}; {advice}")


def _check_multi_formation(args, spec, world):
    if args.aug and any(side % 2 for side in spec.im_size):
        instead = "--no_aug"
        if args.dataset == IMAGE_FOLDER:
            instead += ", or another --im_size"
        found = f"{args.dataset} has {spec.im_size}"
        raise UserError(f"--aug: needs an even height and width, {found}; give {instead}")


def _check_chroma(args, spec, world):
    why = no_half_chroma(args, spec)
    if args.chroma == "half" and why:
        whitened = args.zca and spec.channels == 3
        instead = "leave out one of it and --zca" if whitened else "leave it out"
        raise UserError(f"--chroma half: {why}; {instead}")


def _check_ways_to_begin(args, spec, world):
    if args.resume and args.overwrite:
        raise UserError("--overwrite: contradicts --resume; give one of them")


def _check_experiment(args, spec, world):
    if args.exp_index is not None and args.exp_index >= args.num_exp:
        raise UserError(f"--exp_index {args.exp_index}: must be below --num_exp {args.num_exp}")


def _check_loss(args, spec, world):
    has_cross_entropy = (args.syn_ce and args.ce_weight) or args.expert_ce
    if has_cross_entropy or not all(is_zero(name, args) for name in terms_of(args.method)):
        return
    of_terms = weight_flags(METHODS[args.method].terms)
    if args.syn_ce:
        of_terms.append("ce_weight")
    at_zero = [name for name in of_terms if not getattr(args, name)]
    named = ", ".join(f"--{name}" for name in at_zero or of_terms or ["syn_ce"])
    nothing = "every term of the loss is switched off, nothing is left to minimise"
    raise UserError(f"{named}: {nothing}")


def _check_images_of_terms(args, spec, world):
    for name in terms_in_use(args):
        why = too_few_images(name, args)
        if why:
            weight = f"--{name}_weight {weight_of(name, args):g}"
            raise UserError(f"{weight}: {why} (--ipc {args.ipc} --no_aug); leave it out")


def _check_processes(args, spec, world):
    if world.size > spec.num_classes:
        found = f"{world.size} processes for {spec.num_classes} classes"
        raise UserError(f"--nproc_per_node: {found}; start fewer")


def _check_device(args, spec, world):
    compute.check_device(args.device)


CHECKS = (
    _check_dsa,
    _check_networks,
    _check_distilling_network,
    _check_multi_formation,
    _check_chroma,
    _check_ways_to_begin,
    _check_experiment,
    _check_loss,
    _check_images_of_terms,
    _check_processes,
    _check_device,
)


def check_data(args, dataset, given=("ipc",)):
    """Refuse an ipc or a class that the data cannot serve; say where images are short of a batch.

    dataset: a loading.Dataset. given: the flags that were typed.
    """
    counts = torch.bincount(dataset.labels_train).tolist()
    fewest = min(counts)
    c = counts.index(fewest)
    smallest = f"class {c} ({dataset.classes[c]}) of {args.dataset} has {fewest} training images"
    wanted = recipes.canvases_per_class(args)
    if args.init != "noise" and wanted > fewest:
        most = fewest * args.ipc // wanted
        default = "" if "ipc" in given else " (the default)"
        advice = f"use --ipc {most} or less, or --init noise"
        raise UserError(f"--ipc {args.ipc}{default}: {smallest}; {advice}")
    if fewest < 2:
        raise UserError(f"{dataset.source}: {smallest}; a standard deviation needs 2")
    if fewest < args.batch_real and args.Iteration:
        short = f"{smallest}, fewer than {_flag_of('batch_real', args.batch_real, given)}"
        messages.log.info(f"{short}: classes short of it give all they have")
    if dataset.train < args.trained_bs and recipes.trains_networks(args):
        short = f"{args.dataset} has {dataset.train:,} training images"
        flag_of = _flag_of("trained_bs", args.trained_bs, given)
        messages.log.info(f"{short}, fewer than {flag_of}: a batch takes all of them")
