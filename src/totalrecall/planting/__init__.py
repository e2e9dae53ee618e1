"""Defects planted on pictures of good parts: what a detector would find, before a real defect ever came.

In reading order: `shapes` (ragged blobs, tapered lines, smooth noise), `where` (which pixels show the part), `kinds`
(what each kind of defect does to a few pixels), `plant` (a defect on a picture, and its mask), `pictures` (good ones to
plant on, and planted ones as a detector takes them).
"""

from totalrecall.planting.kinds import KINDS
from totalrecall.planting.pictures import as_given, ground
from totalrecall.planting.plant import PlantedDefect, plant
from totalrecall.planting.where import part_mask

__all__ = ["KINDS", "PlantedDefect", "as_given", "ground", "part_mask", "plant"]
