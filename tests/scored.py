"""Rows of the scorer, made by hand."""

from bacon.score.rows import Row

USUAL = {
    "set": "x.pt",
    "name": "",
    "baseline": "",
    "layout": "",
    "assumed": "",
    "dataset": "Digits",
    "stored": "10",
    "decoded": "10",
    "numbers": "640",
    "network": "ConvNet",
    "accuracy": [[0.5]],
    "summary": {},
    "protocol": "",
    "protocol_settings": {"epochs": 1000},
    "epochs": 1000,
    "seconds": 0,
}


def a_row(**fields):
    """A Row with these fields, and with what no test looks at in the others."""
    return Row(**(USUAL | fields))
