"""The page over several reports: a row of figures and links for each model, and a picture or two of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from totalrecall.reports.page import jpeg_uri, write_page
from totalrecall.types import Image

__all__ = ["IndexRow", "write_index"]

_WIDTH = 860  # pixels


@dataclass(frozen=True)
class IndexRow:
    """One model, as tested on labelled pictures.

    Attributes:
        name: name of the part.
        report: its report, relative to the index.
        model: its model file, relative to the index.
        image_auroc: image AUROC.
        pixel_auroc: pixel AUROC; nan where it was not measured.
        threshold: score above which a picture is judged defective.
        good: number of good pictures tested.
        defective: number of defective pictures tested.
        found: number of defective pictures that were judged defective.
        false_alarms: number of good pictures that were judged defective.
        overlays: pictures to show, each with its caption.
    """

    name: str
    report: Path
    model: Path
    image_auroc: float
    pixel_auroc: float
    threshold: float
    good: int
    defective: int
    found: int
    false_alarms: int
    overlays: Sequence[tuple[str, Image | Path]] = ()

    @property
    def anchor(self) -> str:
        """The `id` of its section."""
        return f"part-{quote(self.name)}"

    def pictures(self) -> Iterator[tuple[str, str]]:
        """Yield the caption and the `src` of each overlay whose file is still there."""
        for caption, overlay in self.overlays:
            source = jpeg_uri(overlay, _WIDTH)
            if source is not None:
                yield caption, source


def write_index(
    path: str | Path,
    *,
    title: str,
    rows: Sequence[IndexRow],
    notes: Sequence[str] = (),
    commands: Mapping[str, str] | None = None,
) -> Path:
    """Write the index and return its path.

    Args:
        path: the HTML file; the rows' links start at its folder.
        title: the page's heading.
        rows: the models, in the order in which they are shown.
        notes: sentences to print under the heading, such as "The pictures are synthetic."
        commands: next steps: what a command does, then the command.

    Raises:
        DataError: the folder cannot be made or written.
    """
    return write_page(path, "index.html", {"title": title, "notes": notes, "rows": rows, "commands": commands or {}})
