"""A run on disk, from its first check to its last record.

run: a run from start to end. preflight: what is refused before anything is written. experiment: one
experiment on its way. folder: the files of a run. record: its log, checkpoints and signals.
expert_files: experts, which runs share. words: what it says of itself. cost: what it will take.
"""
