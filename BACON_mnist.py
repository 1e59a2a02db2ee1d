"""Distil MNIST, FashionMNIST (28x28 grey, 10 classes) or scikit-learn's Digits
(8x8 grey, 10 classes) with BACON, IDM or DM.

  python BACON_mnist.py --ipc 10            the paper's recipe for MNIST
  python BACON_mnist.py --dataset FashionMNIST --ipc 1

Top-1 test accuracy in percent the paper reports for BACON with ConvNet-3:

                   ipc 1    ipc 10    ipc 50
    MNIST          94.15     97.3      98.01
    FashionMNIST   78.48     84.23     85.52
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
