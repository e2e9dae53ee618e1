"""A picture's way from its bytes to a verdict.

In reading order: `caption` (what is said with a picture), `models` (files by name, replaced while the station runs),
`model_files` (their changes, told in the audit trail), `room` (how many pixels at the same time), `inspecting` (who
waits, who judges), `wrong_product` (is it another one?), `watching` (drift), `recent` (the last ones, in memory),
`metrics` (for Prometheus).
"""
