"""Has the light, the camera or the material moved since the fit?

In reading order: `conditions` (what is noted of each picture, and how a change reads), `monitor`, `bets` (the
test), `state` (the file between two runs).
"""
