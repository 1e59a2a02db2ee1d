"""Distil TinyImageNet (64x64 colour photographs, 200 classes) with BACON, IDM
or DM.

  python BACON_tiny.py --ipc 1              the paper's recipe

Top-1 test accuracy in percent the paper reports for BACON with ConvNet-3 (for
ipc 50 it reports none):

                   ipc 1    ipc 10
    TinyImageNet    9.7      21.7
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
