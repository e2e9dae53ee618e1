"""Pictures -> feature maps -> patch vectors (eq. 1 to 3 of the paper).

In reading order: `settings`, `extractor` (runs the backbone, decoding ahead of it), `patches` (feature maps to locally
aware patch vectors), `memory` (what that takes, beforehand).
"""
