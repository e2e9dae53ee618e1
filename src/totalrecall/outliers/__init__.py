"""Good pictures that the other good pictures do not explain.

In reading order: `explain` (leave-one-out distances), `same_part` (photographs of one part), `notes` (what a person
reads).
"""
