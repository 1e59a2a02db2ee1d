"""Score distilled sets, whoever made them: how well do networks that see
nothing else do on real test images? Also draws, exports and tabulates.

Examples:
  python evaluate.py result                    the sets in a folder
  python evaluate.py result --recursive        and in all folders below it
  python evaluate.py SET.pt --dataset CIFAR10  a set of another program
  python evaluate.py SET.pt --baseline random  beside random real images
  python evaluate.py SET.pt --grid OUT.png     its images, class by class
  python evaluate.py SET.pt --export png OUT   as class folders of pictures
  python evaluate.py --table result            finished runs beside the paper
  python evaluate.py --plot result             accuracy over iterations

A set of these scripts is judged as its run judged it, and gets the logged
accuracy again. Sets of DC, DSA, DM, IDM, MTT, DATM, DataDAM, RFAD and NCFM and
folders of pictures are recognised by what they hold (.pt, .npz, .npy); a
line says what was assumed.
Accuracy is that of the last epoch: nothing is selected on the test images.
More: docs/scoring.md
"""

import sys
from pathlib import Path

# python -P, python -I and PYTHONSAFEPATH leave this folder out.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bacon.score import command

if __name__ == "__main__":
    raise SystemExit(command.main(__doc__))
