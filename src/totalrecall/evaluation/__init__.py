"""How good a fitted detector is on a labelled set.

In reading order: `metrics` (AUROC, AUPRO, F1), `evaluate` (a detector on a data set), `curves`.
"""
