"""What runs the scripts; it imports the mathematics (utils, networks, augment), never a script.

Begin with `distill.plain`, Algorithm 1 in plain lines, then `distill.distiller`. `run` puts a whole
run together, `score` judges saved sets, `recipes`, `methods` and `flags` say with what.
"""
