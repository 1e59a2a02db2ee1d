"""Distil CIFAR10 or CIFAR100 (32x32 colour photographs of 10 or 100 classes)
with BACON, IDM or DM.

  python BACON_cifar10.py --ipc 10          the paper's recipe for CIFAR10
  python BACON_cifar10.py --dataset CIFAR100 --ipc 1

Top-1 test accuracy in percent the paper reports for BACON with ConvNet-3:

                   ipc 1    ipc 10    ipc 50
    CIFAR10        45.62     62.06     70.06
    CIFAR100       23.68     46.15     49.44
"""

import sys
from pathlib import Path

# python -P, python -I and PYTHONSAFEPATH leave this folder out.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bacon.data.datasets import of_script
from bacon.flags import parse_args

DATASETS = of_script(__file__)

if __name__ == "__main__":
    # --help and wrong flags end here, before PyTorch is imported.
    settings = parse_args(DATASETS, __doc__)
    from bacon.run import run

    raise SystemExit(run.main(settings))
