"""Algorithm 1: `plain` is its shortest form, `distiller` the fast one.

`optimizers`, `pool` and `clusters` serve it.
"""
