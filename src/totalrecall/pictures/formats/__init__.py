"""What picture files say of themselves, by each format's own structure.

In reading order: `header` (format, size, depth), `pages`, then the strict readers `jpeg`, `bmp`, `tiff` and `lzw`.
"""
