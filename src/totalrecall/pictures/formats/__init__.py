"""What picture files say of themselves, by each format's own structure.

In reading order: `header` (size, depth, orientation, pages), then the strict readers `jpeg`, `bmp` and `tiff`.
"""
