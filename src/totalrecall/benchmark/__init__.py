"""Methods x categories x seeds on a labelled data set, as tables next to published values.

In reading order: `run` (which cells, which are done already), `cell` (one of them), `tables`, `page`, `ablation` (one
setting after another), `published` (the figures of papers, each with its source).
"""
