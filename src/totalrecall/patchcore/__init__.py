"""PatchCore: the memory bank, how it is chosen, searched, changed.

In reading order: `detector` (fit, score, predict), `settings`, `fitting` (pictures to bank, then calibration; `plan`
says what memory it takes, `reading` reads, `tilted` copies few pictures, `gathered` and `chunks` hold the patches),
`coreset` (algorithm 1), `bank`, `judge` (eq. 6 and 7), `calibration_patches` (what recalibration needs), `updatable`
and `update`; then `joined` (several banks, one score), `joined_state` and `joined_update`.
"""
