"""What torchrun starts in test_parallel.py: command lines of BACON_mnist.py one after the other, in
the same processes.

    torchrun --nproc_per_node=2 tests/several_runs.py "--ipc 1 ..." "--ipc 2 ..."

First every process prints the bytes of its share of canvases, momentum and training images.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import BACON_mnist
from bacon import compute, errors, flags, parallel
from bacon.data import loading
from bacon.distill import clusters
from bacon.distill import distiller as distill
from bacon.run import run

clusters.STEPS = 5


def work():
    every = [flags.parse_args(BACON_mnist.DATASETS, "", line.split()) for line in sys.argv[1:]]
    with parallel.joined("cpu") as world:
        args = every[0].args
        dataset = loading.load(args.dataset, args.data_path)
        train, _ = run.real_data(args, dataset, "cpu", world.share(dataset.num_classes))
        distiller = distill.begin(args, 0, train, compute.Arithmetic("cpu"), world)
        held = (distiller.canvases, distiller.optimizer.velocity, train.images, train.labels)
        print(f"PROCESS holds {sum(t.numel() * t.element_size() for t in held)} bytes", flush=True)
        for settings in every:
            run.run_settings(settings, world)
    return 0


sys.exit(errors.run_program("several_runs.py", work))
