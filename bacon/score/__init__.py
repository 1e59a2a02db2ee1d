"""What evaluate.py does.

command: its flags and tasks. finding: which sets a command line names. sets: a set as it is judged.
layouts, foreign, class_folders: how a set is stored. which_dataset: of which images it is.
soft_labels: what labels mean. protocols: who judges, and how. judging: the judges at work. rows:
the rows of its table. baselines, fair: real images beside a set. diagnose: in which way a set was
meant. drawing, export: its pictures, and files of other layouts.
"""
