"""Distil SVHN (32x32 colour house numbers, 10 classes; its train and test
splits) with BACON, IDM or DM.

  python BACON_svhn.py --ipc 10             the paper's recipe

Top-1 test accuracy in percent the paper reports for BACON with ConvNet-3:

                   ipc 1    ipc 10    ipc 50
    SVHN           69.04     84.64     89.1
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
