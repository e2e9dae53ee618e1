"""The pages that people look at. `report_pictures` scores pictures and writes a report of them.

In reading order: `writer` (a report while pictures are scored), `report` (what is on the page), `gallery` (which
pictures are shown), `plots` (drawings), `page` (templates, style and how values look), `good_pictures` (which files a
report may show). The mark-up is in `templates/`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totalrecall.reports.writer import report_pictures

__all__ = ["report_pictures"]


def __getattr__(name: str) -> Any:
    """Import the writer at first use: a page alone needs no detector."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from totalrecall.reports import writer

    return getattr(writer, name)
