"""What all detectors share, and the two that PatchCore is measured against.

In reading order: `settings`, `state` (what a detector holds once it is fitted), `base` (predict, update, teach, undo,
save, load), `fit_report`, `changes` (who joins, who leaves, what an update reports), `promise` (what the threshold
promises), `extents` (what good pictures say about a score), `history`, `model_file`, `model_schema` and `members` (of a
file that holds several models); then `measuring` (by one backbone), `one_pass` (what PaDiM and SPADE share), `padim`
(its mathematics in `gaussians`) and `spade` (`feature_pyramids`).
"""
