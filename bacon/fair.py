"""What a set is worth beside real images: IOR, HLR and the label-robust score of DD-Ranking; a cache of baselines.

Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", arXiv 2505.13300. Accuracies are fractions
of the last epoch. Spreads of independent parts add up as squares.
"""

import json
import math
import os
from contextlib import suppress
from pathlib import Path

from bacon import tables
from bacon.errors import damaged

NAMES = ("IOR", "HLR", "LRS")


def label_robust(ior, hlr, weight=0.5):
    """LRS in [0, 1]: (e^alpha - e^-1) / (e - e^-1), alpha = w IOR - (1 - w) HLR."""
    return (math.exp(weight * ior - (1 - weight) * hlr) - math.exp(-1)) / (math.e - math.exp(-1))


def scores(own, hard, random, full):
    """{name: (value, spread)} of IOR, HLR and LRS, each if its baselines are there.

    own: [[accuracy per network] per experiment] of the set, hard: of it with hard labels, None where they are,
    random: of as many random images, full: of the whole training set; the last two may be None.
    """
    (own, s), (hard, h) = _fractions(own), _fractions(own if hard is None else hard)
    (random, r), (full, f) = _fractions(random), _fractions(full)
    found = {}
    if random is not None:
        found["IOR"] = own - random, math.hypot(s, r)
    if full is not None:
        found["HLR"] = full - hard, math.hypot(h, f)
    if len(found) == 2:
        score = label_robust(own - random, full - hard)
        parts = (2 * s,) if (hard, h) == (own, s) else (s, h)  # hard labels: the set's accuracy counts in both
        found["LRS"] = score, math.hypot(*parts, r, f) / 2 * (score + math.exp(-1) / (math.e - math.exp(-1)))
    return found


def _fractions(accuracies):
    summary = tables.summary(accuracies) if accuracies is not None else None
    return (summary["mean"] / 100, summary["std"] / 100) if summary else (None, None)


class Baselines:
    """Accuracies of real images, kept in the file `path` so that each is computed once."""

    def __init__(self, folder):
        self.path, self._known = Path(os.path.expanduser(folder)) / "baselines.json", {}
        advice = "move it elsewhere, or choose another --save_path"
        text = f"{self.path}: not a cache of baselines; {advice}"
        with damaged(text), suppress(FileNotFoundError, NotADirectoryError):
            self._known = dict(json.loads(self.path.read_text(encoding="utf-8")))

    def get(self, key, networks):
        """So many accuracies, and the seconds of all that are kept under a key; None if there are fewer."""
        accuracies, seconds = self._known.get(key, ((), 0))
        return (accuracies[:networks], seconds) if len(accuracies) >= networks else None

    def put(self, key, accuracies, seconds):
        """Keep them; returns in a few words whether that could be written."""
        self._known[key], temporary = (accuracies, seconds), self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError as error:
            return f"not kept in {self.path} ({error.strerror})"
        return f"kept in {self.path}"


def kept(saved, judges, about, cache, judged, say):
    """The scores of a baseline, as `judged(saved, judges)` finds them, of each network from the cache if it is there.

    about: what besides the judges the accuracies follow from. cache: a `Baselines`, or None.
    """
    found = {}
    for name in judges.names:
        key = f"{saved.path}, {name}, {judges.protocol}, seed {judges.seed}, {about}"
        if cache and (known := cache.get(key, judges.num_eval)):
            found[name] = known[0], [], known[1]
            say(f"{saved.path}  {name}: from {cache.path}")
            continue
        found |= judged(saved, judges._replace(names=[name]))
        if cache:
            say(f"{saved.path}  {name}: {cache.put(key, found[name][0], found[name][2])}")
    return found


def beside(rows):
    """Rows of the scorer, those of sets with `scores` by the rows of random and all real images among them."""

    def baseline(kind, row, *same):
        """The accuracy of that kind's row with the same network, and protocol but for epochs if there are several."""
        alike = [r for r in rows if (r["layout"], r["set"]) == ("baseline", kind) and all(r[k] == row[k] for k in same)]
        alike.sort(key=lambda r: r["protocol"].partition(", ")[2] != row["protocol"].partition(", ")[2])
        return alike[0]["accuracy"] if alike else None

    for row in rows:
        if row["layout"] != "baseline":
            random, full = baseline("random", row, "network", "stored per class"), baseline("full", row, "network")
            for name, (value, spread) in scores(row["accuracy"], row.get("hard"), random, full).items():
                row |= {name: value, f"{name} spread": spread}
    return rows
