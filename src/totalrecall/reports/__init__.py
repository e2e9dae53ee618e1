"""The pages that people look at.

In reading order: `writer` (a report while pictures are judged), `report`, `gallery` (pictures side by side), `plots`,
`page` (style and skeleton of every page), `good_pictures` (which files a report may show).
"""
