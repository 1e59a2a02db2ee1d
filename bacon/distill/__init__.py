"""Algorithm 1.

plain: in plain lines, the file to read first. distiller: as the scripts run it. optimizers: how
canvases step. pool: the networks they are matched on. experts: such networks trained beforehand.
clusters: initial images that stand for a class.
"""
