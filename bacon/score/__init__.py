"""What evaluate.py does.

command: its flags and tasks. finding, located: which sets a command line names. layouts, foreign,
class_folders: how a set is stored. which_dataset: of which images it is. soft_labels: what labels
mean. protocols: who judges, and how. baselines, fair: real images beside a set. diagnose: in which
way a set was meant.
"""
