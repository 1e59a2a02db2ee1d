"""Logs of finished runs, written without a run."""

import json

from bacon import flags, recipes

# A short run on Digits.
SHORT = "--model ConvNetW32 --Iteration 2 --epoch_eval_train 20"
FP32 = {"device": "cpu", "threads": 2, "precision": "fp32", "compiled": False}


def write_log(folder, line, scores, images=None, sha="a" * 64, precision=None):
    """The path of a finished run's log in `folder`, which is made.

    line: flags. scores: {iteration: {judge: [[accuracy] per experiment]}}. images: how many the
    training and test splits have, by default those of the whole dataset. precision: of distilling.
    """
    words = f"--dataset Digits --ipc 2 {line}".split()
    settings = flags.parse_args(tuple(recipes.DATASETS), None, words)
    args = vars(settings.args)
    if images is None:
        spec = recipes.DATASETS[args["dataset"]]
        images = (spec.train, spec.test)
    start = {
        "event": "start",
        "args": args,
        "departures": {name: list(pair) for name, pair in settings.departures.items()},
        "train_images": images[0],
        "test_images": images[1],
        "data_sha256": sha,
        "computed": {"distilling": FP32 | {"precision": precision or "fp32"}, "judging": FP32},
    }
    evaluations = [
        {"event": "evaluation", "exp": exp, "it": it, "network": judge, "accuracy": accuracy}
        for it, by_judge in scores.items()
        for judge, experiments in by_judge.items()
        for exp, accuracy in enumerate(experiments)
    ]
    folder.mkdir(parents=True)
    log = folder / f"log_{args['method']}_{args['dataset']}.jsonl"
    write_events(log, [start, *evaluations, {"event": "end"}])
    return log


def write_events(log, events):
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


def ended(*accuracies, judge="ConvNetW32", it=2):
    """The scores of a run of one experiment that was judged at its end."""
    return {it: {judge: [list(accuracies)]}}


def write_runs(root):
    """A folder of runs: BACON with two experiments and judges, without a term, random images."""
    both = {"ConvNetW32": [[0.5, 0.6], [0.7, 0.8]], "ConvNet": [[0.8, 0.8], [0.9, 0.9]]}
    write_log(root / "BACON", f"{SHORT} --num_exp 2 --eval_mode C", {1: both, 2: both})
    half = {1: {"ConvNetW32": [[0.6, 0.4]]}, 2: {"ConvNetW32": [[0.4, 0.4]]}}
    write_log(root / "no_tv", f"{SHORT} --tv_weight 0", half)
    write_log(root / "random", f"{SHORT} --Iteration 0", ended(0.3, 0.3, it=0))
    return root
