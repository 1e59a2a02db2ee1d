"""Experts on disk: trained once, then shared by all runs of their settings, a job array's included.

A file holds one expert. It is written at every moment at which the expert is kept, so that a run
that was stopped goes on with it.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from bacon import messages
from bacon.distill import experts
from bacon.distill.pool import Trainer
from bacon.errors import DamagedError
from bacon.files import load_torch, lock, save_torch
from bacon.progress import duration

# Flags that an expert depends on, beside the data and how it is computed.
FLAGS = (
    "dataset", "im_size", "model", "seed", "validate", "zca", "dsa_strategy", "lr_net", "net_decay",
    "trained_bs", "expert_steps",
)  # fmt: skip
PATIENCE = 24 * 60 * 60  # seconds to wait for another process that trains an expert


def about(args, meta):
    """What an expert depends on, as plain containers. meta: what the run is, as its log says."""
    versions = {name: value for name, value in meta["versions"].items() if name != "git"}
    return {
        "args": {name: getattr(args, name) for name in FLAGS},
        "data_sha256": meta["data_sha256"],
        "train_images": meta["train_images"],
        "computed": meta["computed"]["distilling"],
        "processes": meta["arithmetic"]["processes"],
        "versions": versions,
    }


def folder_of(args):
    """The folder where a run keeps its experts, or takes them from."""
    return Path(os.path.expanduser(args.expert_path or args.save_path))


class ExpertFiles:
    """The experts of a run, which are trained where their files are not there yet."""

    def __init__(self, setting, meta, before_batch=None):
        """setting: an experiment.Setting. meta: see `about`. before_batch: see pool.Trainer."""
        args = setting.args
        self.args = args
        self.world = setting.world
        self.trainer = Trainer(
            args, 0, setting.train, setting.distilling, setting.world, before_batch
        )
        self.about = json.loads(json.dumps(about(args, meta)))
        digest = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()
        steps = f"{args.expert_steps}steps"
        self.stem = f"expert_{args.dataset}_{args.model}_{steps}_seed{args.seed}_{digest[:8]}"
        self.folder = folder_of(args)

    def path(self, number):
        return self.folder / f"{self.stem}_{number}.pt"

    def snapshots(self, record):
        """[experts.Snapshot] of all experts.

        record: a record.Record. Raises Stopped where a signal asked for it; what was trained until
        then is on the disk.
        """
        found = []
        for number in range(self.args.experts):
            with contextlib.ExitStack() as stack:
                self.world.from_leader(lambda stack=stack: self._claim(stack, record))
                state = self._trained(number, record)
            found += experts.snapshots(self.trainer, number, state)
        return found

    def _claim(self, stack, record):
        """Wait until no other process trains these experts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"lock_{self.stem}"
        refusal = "these experts are still being trained"
        lock(stack, path, refusal, PATIENCE, record.between_points)

    def _trained(self, number, record):
        """The state of an expert at the end of its training."""
        path = self.path(number)
        title = f"expert {number + 1} of {self.args.experts}"
        saved = self.world.from_leader(lambda: self._read(path))
        if saved is not None and len(saved["kept"]) == experts.MOMENTS:
            messages.log.info(f"{title}: from {path}")
            return saved
        began = time.perf_counter()
        for state in experts.train(self.trainer, number, saved):
            if self.world.leads:
                save_torch({"about": self.about, "state": state}, path)
            record.point()
        accuracy = state["kept"][-1]["accuracy"]
        took = duration(time.perf_counter() - began)
        reached = f"{accuracy:.0f} % of its last training images"
        messages.log.info(f"{title}: {self.args.expert_steps:,} steps, {reached}, {took}")
        return state

    def _read(self, path):
        """The state of an expert in a file; None where there is none, or none that can be used."""
        if not path.exists():
            return None
        try:
            content = load_torch(path)
        except DamagedError:
            messages.log.info(f"{path}: damaged; this expert is trained again")
            return None
        if not isinstance(content, dict) or content.get("about") != self.about:
            messages.log.info(f"{path}: is no expert of these settings; it is trained again")
            return None
        return content["state"]
