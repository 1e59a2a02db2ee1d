"""What a set is worth beside real images: IOR, HLR and the label-robust score of DD-Ranking; a cache of baselines.

Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", arXiv 2505.13300. Accuracies are fractions
of the last epoch. Spreads of independent parts add up as squares.
"""

import dataclasses
import json
import math
import os
from contextlib import suppress
from pathlib import Path

from bacon import outputs, tables
from bacon.errors import UserError

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
        parts = (
            (2 * s,) if (hard, h) == (own, s) else (s, h)
        )  # hard labels: the set's accuracy counts in both
        found["LRS"] = (
            score,
            math.hypot(*parts, r, f) / 2 * (score + math.exp(-1) / (math.e - math.exp(-1))),
        )
    return found


def _fractions(accuracies):
    summary = tables.summary(accuracies) if accuracies is not None else None
    return (summary["mean"] / 100, summary["std"] / 100) if summary else (None, None)


class Baselines:
    """Accuracies of real images, kept in the file `path` so that each is computed once."""

    def __init__(self, folder):
        self.path = Path(os.path.expanduser(folder)) / "baselines.json"
        self._known = self._read()

    def _read(self):
        """What the file holds, {} if there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.path.stat().st_size == 0:
                return {}
            if not outputs.is_cache(self.path):
                advice = "give another folder by --save_path"
                raise UserError(f"{self.path}: is no cache of baselines; {advice}")
            return json.loads(self.path.read_text(encoding="utf-8"))
        return {}

    def get(self, key, networks):
        """So many accuracies, and the seconds of all that are kept under a key; None if there are fewer."""
        accuracies, seconds = self._known.get(key, ((), 0))
        return (accuracies[:networks], seconds) if len(accuracies) >= networks else None

    def put(self, key, accuracies, seconds):
        """Keep them; returns in a few words whether that could be written."""
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._known = self._known | self._read()  # another process may have kept its own since
            self._known[key] = (accuracies, seconds)
            temporary.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
            os.replace(temporary, self.path)
        except (OSError, UserError) as error:
            self._known[key] = (accuracies, seconds)
            return f"not kept in {self.path} ({getattr(error, 'strerror', None) or error})"
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
        found |= judged(saved, dataclasses.replace(judges, names=[name]))
        if cache:
            say(f"{saved.path}  {name}: {cache.put(key, found[name][0], found[name][2])}")
    return found


def beside(rows):
    """Rows of the scorer, those of sets with `scores` by the rows of random and all real images among them."""
    for row in rows:
        if row["layout"] == "baseline":
            continue
        random = _baseline(rows, "random", row, ("network", "stored per class"))
        full = _baseline(rows, "full", row, ("network",))
        found = scores(row["accuracy"], row.get("hard"), random, full)
        for name, (value, spread) in found.items():
            row[name] = value
            row[f"{name} spread"] = spread
    return rows


def _baseline(rows, kind, row, same):
    """The accuracy of a row of `kind` that is like `row` in the columns `same`, or None.

    Of several, one whose judges have the row's protocol, but for how long they train.
    """
    alike = [one for one in rows if one["layout"] == "baseline" and one["set"] == kind]
    alike = [one for one in alike if all(one[column] == row[column] for column in same)]
    by_protocol = [one for one in alike if _but_length(one) == _but_length(row)]
    chosen = [*by_protocol, *alike]
    return chosen[0]["accuracy"] if chosen else None


def _but_length(row):
    settings = row["protocol settings"]
    return {name: settings[name] for name in settings if name not in ("epochs", "steps")}
