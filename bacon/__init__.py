"""What runs the scripts; it imports the mathematics (utils, networks, augment), never a script.

Begin with `distill` (Algorithm 1) and `judge`; `run` puts a whole run together, `recipes` and `flags` say with what.
"""
