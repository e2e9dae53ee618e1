"""Files and arrays -> prepared pictures, and the way back to original pixels.

In reading order: `files` (which files are pictures; `path_patterns`), `loading` (reads them, in threads), `decode`
(bytes to pixels; the formats lie in `formats`), `in_memory` (arrays, PIL pictures, tensors), `settings` (how pictures
are prepared), `geometry` (the square that the backbone sees), `masks` (regions of interest, marked defects), `overlay`
(a heat map over a picture); then `bit_depth`, `copies` and `unlike` (what a set of pictures has in common, and which
stand apart).
"""
