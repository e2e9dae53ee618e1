"""Has the light, the camera or the material moved since the fit?

In reading order: `conditions` (what is noted of each picture), `monitor`, `bets` (the test), `words` (what a person
reads), `state` (the file between two runs).
"""
