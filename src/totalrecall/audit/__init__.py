"""Which good pictures look least like the others, before anything learns from them.

In reading order: `audit` (ranks the pictures), `checks` (defocus, exposure, the same picture twice), `sheet` (the
page).
"""
