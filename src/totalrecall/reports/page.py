"""How a page is written: templates with one skeleton and one style, and how values look in them.

A page is one file that opens anywhere, offline. jinja2 escapes every value that a template prints. Before that,
`_cleaned` removes control characters and shortens very long names.
"""

import base64
import math
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import cv2
import numpy as np
from markupsafe import Markup

from totalrecall.system.files import atomic_write, read_regular
from totalrecall.types import Image

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["environment", "jpeg", "jpeg_uri", "number", "render", "write_page"]

_LONGEST_NOTE = 4000  # letters of what this program itself says
_LONGEST_TEXT = 300  # letters of what comes from outside


def write_page(path: str | Path, template: str, values: Mapping[str, object]) -> Path:
    """Write a page and return its path.

    Args:
        path: the HTML file; its folder is made.
        template: name of a file in `templates`.
        values: what the template names; `title` and `notes` (sentences under it) for every page.

    Raises:
        DataError: the folder cannot be made or written.
    """
    return atomic_write(path, render(template, values).encode("utf-8", "replace"))


def render(template: str, values: Mapping[str, object]) -> "Markup":
    """Return a template with its values filled in, escaped."""

    return Markup(_environment().get_template(template).render(values))


def environment(folder: Path, longest: int = _LONGEST_TEXT) -> "Environment":
    """Return what renders the templates of a folder; texts that they print are cut to so many letters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=partial(_cleaned, longest=longest),
    )


@cache
def _environment() -> "Environment":
    of_reports = environment(Path(__file__).with_name("templates"))
    of_reports.filters.update({"number": number, "note": _note, "link": _link})
    return of_reports


def _cleaned(value: object, longest: int = _LONGEST_TEXT) -> object:
    """Return what a template prints: mark-up and numbers as they are, texts cleaned; jinja2 escapes them after this."""
    if hasattr(value, "__html__") or isinstance(value, (int, float)):
        return value
    text = "".join(
        letter if letter.isprintable() or letter == "\N{NO-BREAK SPACE}" else "\N{REPLACEMENT CHARACTER}"
        for letter in str(value)
    )
    return text if len(text) <= longest else text[: longest // 3] + "…" + text[-2 * longest // 3 :]


def _note(value: object) -> "Markup":
    """Return a sentence of this program, which may be long."""
    from markupsafe import escape

    return escape(_cleaned(value, _LONGEST_NOTE))


def _link(target: Path) -> "Markup":
    from markupsafe import escape

    # quoted and begun with ./, so that no folder's name can be taken for a scheme such as javascript:
    return escape(f"./{quote(target.as_posix())}")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as it is printed; a dash for one that is not known."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def jpeg(overlay: Image | Path | bytes, width: int) -> bytes | None:
    """Return an overlay as a JPEG of at most `width` pixels, or None where its file is gone.

    Args:
        overlay: pixels (h, w, 3) RGB, a picture's file, or a JPEG already; one that is not too wide stays as it is.
        width: in pixels.
    """
    pixels = _pixels(overlay)
    if pixels is None:
        return None
    h, w = pixels.shape[:2]
    if isinstance(overlay, bytes) and w <= width:
        return overlay
    share = min(width / w, 1.0)
    if share < 1:
        pixels = cv2.resize(pixels, (width, max(round(h * share), 1)), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80 if width > 500 else 70])
    return data.tobytes()


def jpeg_uri(overlay: Image | Path | bytes, width: int) -> str | None:
    """Return an overlay as the `src` of an image of at most `width` pixels, or None where its file is gone."""
    data = jpeg(overlay, width)
    return None if data is None else "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _pixels(overlay: Image | Path | bytes) -> np.ndarray | None:
    """Return (h, w, 3) BGR, or None where the file is gone or is no picture."""
    if isinstance(overlay, Path):
        try:
            overlay = read_regular(overlay)  # subtle: cv2.imread crashes at a name that is not UTF-8
        except OSError:
            return None
    if isinstance(overlay, bytes):
        return cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR) if overlay else None
    return cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
