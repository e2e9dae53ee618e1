"""What all detectors share, and the two that PatchCore is measured against.

In reading order: `settings`, `fit_report`, `base` (predict, save, load), `promise` (what the threshold promises),
`changing` (update, teach, undo), `changes` (what these report), `membership` (who joins and who leaves), `history`,
`model_file` and `model_schema`; then `one_pass` (what PaDiM and SPADE share), `padim` (its mathematics in `gaussians`)
and `spade` (`feature_pyramids`).
"""
