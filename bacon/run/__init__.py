"""A run on disk, from its first check to its last record.

run: a run from start to end. experiment: one experiment on its way. checkpoint: its files, locks,
log and signals. cost: what it will take.
"""
