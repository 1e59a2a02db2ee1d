"""The rows of evaluate.py's table: records, which JSON can hold, and the tables that show them."""

import dataclasses
from pathlib import Path

from bacon import tables
from bacon.score import fair

BIASED = "best epoch on test (biased)"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The accuracy that a file records of its sets by a network, in percent, over judges.

    of_ours: whether these scripts wrote it, so that its judges can be had again. reproduced:
    whether the judges here, as many as both have, got the recorded accuracies to the digit.
    """

    mean: float
    std: float
    networks: int
    of_ours: bool = False
    reproduced: bool = False


@dataclasses.dataclass
class Row:
    """What networks of one architecture make of the sets of a file, or of real images.

    set: the path of the file, or the name of the real images. name: how a table calls it. baseline:
    which real images, "" of sets. layout, assumed, dataset: see `sets`.
    stored, decoded, numbers: images stored, images after decoding and numbers stored, per class, in
    words because classes may differ: "10" or "9-10".
    network: the architecture. accuracy: [[of each network, in [0,1]] of each experiment]. summary:
    of it, by tables.summary. protocol: in words. protocol_settings: the fields of a judge.Protocol.
    epochs: its epochs, 0 where it has steps. seconds: that all of it took.
    recorded: what the file records of it. best_epoch: in percent, the mean of every network's best
    epoch on the test set. hard: the accuracy with hard labels, of a set with soft ones. fair:
    {name: fair.Fraction}. These four are None or empty where there is nothing to say.
    validate: training images per class that the networks are tested on, 0: on the test images.
    """

    set: str
    name: str
    baseline: str
    layout: str
    assumed: str
    dataset: str
    stored: str
    decoded: str
    numbers: str
    network: str
    accuracy: list
    summary: dict
    protocol: str
    protocol_settings: dict
    epochs: int
    seconds: float
    recorded: Recorded | None = None
    best_epoch: float | None = None
    hard: list | None = None
    fair: dict = dataclasses.field(default_factory=dict)
    validate: int = 0

    def as_json(self):
        """The row as a dictionary that JSON can hold; a key that has nothing to say is absent."""
        row = {
            "set": self.set,
            "name": self.name,
            "layout": self.layout,
            "assumed": self.assumed,
            "dataset": self.dataset,
            "stored per class": self.stored,
            "decoded per class": self.decoded,
            "numbers per class": self.numbers,
            "network": self.network,
            **self.summary,
            "accuracy": self.accuracy,
            "protocol": self.protocol,
            "protocol settings": self.protocol_settings,
            "epochs": self.epochs,
            "seconds": self.seconds,
        }
        if self.recorded:
            row["recorded"] = self.recorded.mean
            row["recorded std"] = self.recorded.std
            row["recorded networks"] = self.recorded.networks
            if self.recorded.of_ours:
                row["logged"] = self.recorded.mean
                row["logged, the same networks"] = self.recorded.reproduced
        if self.best_epoch is not None:
            row[BIASED] = self.best_epoch
        if self.hard is not None:
            row["hard"] = self.hard
        for name, fraction in self.fair.items():
            row[name] = fraction.value
            row[f"{name} spread"] = fraction.spread
        if self.validate:
            row["validate"] = self.validate
        return row

    @classmethod
    def from_json(cls, row):
        """The Row of `as_json`, of this or an earlier version; see tables.kept_scores."""
        recorded = None
        if "recorded" in row:
            recorded = Recorded(
                row["recorded"],
                row.get("recorded std", 0.0),
                row["recorded networks"],
                "logged" in row,
                row.get("logged, the same networks", False),
            )
        found = {}
        for name in fair.NAMES:
            if name in row:
                found[name] = fair.Fraction(row[name], row[f"{name} spread"])
        figures = ("mean", "std", "networks", "std_networks", "std_experiments")
        return cls(
            set=row["set"],
            name=row["name"],
            baseline=row["set"] if row["layout"] == "baseline" else "",
            layout=row["layout"],
            assumed=row.get("assumed", ""),
            dataset=row["dataset"],
            stored=row["stored per class"],
            decoded=row["decoded per class"],
            numbers=row.get("numbers per class", ""),
            network=row["network"],
            accuracy=row["accuracy"],
            summary={name: row[name] for name in figures},
            protocol=row["protocol"],
            protocol_settings=row.get("protocol settings", {}),
            epochs=row.get("epochs", ""),
            seconds=row["seconds"],
            recorded=recorded,
            best_epoch=row.get(BIASED),
            hard=row.get("hard"),
            fair=found,
            validate=row.get("validate", 0),
        )


# Names


def end_of(path, parts):
    """The last so many parts of a path."""
    return Path(*Path(path).parts[-parts:]).as_posix()


def distinct_names(paths):
    """{path: its last two parts, or as many more as it takes to tell it from the others}."""
    names = {}
    for path in paths:
        others = [other for other in paths if other != path]
        names[path] = path
        for parts in range(2, len(Path(path).parts) + 1):
            name = end_of(path, parts)
            if name not in [end_of(other, parts) for other in others]:
                names[path] = name
                break
    return names


# Tables


def shown(rows, details=False):
    """Tables of `Row`, {title: rows for tables.render}; the first one has no title. details: also
    what is behind the figures."""
    # Rows that were kept as JSON are of several commands, each of which named its own alone.
    names = distinct_names({row.set for row in rows})
    lines = [_line(row, names[row.set]) for row in rows]
    columns = ["accuracy %", "recorded %", *fair.NAMES, BIASED, "set", "network"]
    if not any(row.fair for row in rows):  # else these stand among the details
        columns += ["networks", "ipc (decoded)"]
    columns += ["tested on"]
    found = {"": tables.pick(lines, columns)}
    if details:
        behind = ["accuracy %", "set", "network", "networks", "ipc (decoded)", "numbers per class"]
        behind += ["std networks", "std experiments", "epochs", "seconds"]
        found["what is behind each figure"] = tables.pick(lines, behind)
    return found


def _line(row, name):
    """All cells of a row, {column: cell}. name: of its file, told from the others'."""
    line = {
        **tables.cells(row.summary),
        "set": row.name,
        "network": row.network,
        "numbers per class": row.numbers,
        "epochs": row.epochs,
        "seconds": round(row.seconds),
    }
    short = end_of(row.set, 2)
    if not row.baseline and row.name.startswith(short):
        line["set"] = name.removesuffix(short) + row.name
    line["ipc (decoded)"] = row.stored
    if row.decoded != row.stored:
        line["ipc (decoded)"] = f"{row.stored} ({row.decoded})"
    if row.recorded:
        line["recorded %"] = f"{row.recorded.mean:.2f} ({row.recorded.networks})"
        if row.recorded.reproduced:
            line["recorded %"] += " reproduced"
    for of_fair, fraction in row.fair.items():
        line[of_fair] = f"{fraction.value:.3f} +- {fraction.spread:.3f}"
    if row.validate:
        line["tested on"] = tables.validation(row.validate)
    if row.best_epoch is not None:
        line[BIASED] = f"{row.best_epoch:.2f}"
    return line
