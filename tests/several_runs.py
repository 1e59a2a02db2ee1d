"""What torchrun starts in test_parallel.py: command lines of BACON_mnist.py one after the other, in the same processes.

    torchrun --nproc_per_node=2 tests/several_runs.py "--ipc 1 ..." "--ipc 2 ..."

Then every process prints the bytes of its share of canvases, momentum and training images, and what it has sent in an
iteration of the first command line.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import BACON_mnist
import data
import distill
import evaluate
import parallel
import utils

with parallel.joined("cpu") as world:
    every = [utils.parse_args(BACON_mnist.DATASETS, "", line.split()) for line in sys.argv[1:]]
    for settings in every:
        distill.run_settings(settings, world)

    args = every[0].args
    dataset = data.load(args.dataset, args.data_path)
    train, _ = distill.real_data(args, dataset, "cpu", world.share(dataset.num_classes))
    distiller = distill.Distiller(args, 0, train, evaluate.Arithmetic("cpu"), world)
    held = (distiller.canvases, distiller.optimizer.velocity, train.images, train.labels)
    before = world.sent
    distiller.iterate(0)
    mine = {"bytes": sum(t.numel() * t.element_size() for t in held), "sent": world.sent - before}
    print("PROCESS " + json.dumps(mine), flush=True)
