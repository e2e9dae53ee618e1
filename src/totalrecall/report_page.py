"""What the report and the index share: the page around the body; text, numbers and pictures made fit for it.

A page is one file that opens anywhere, offline. All text is escaped: file names come from outside. There is no script
in it, and a content policy forbids any.
"""

import base64
import html
import math
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from totalrecall.files import atomic_write
from totalrecall.report_style import STYLE
from totalrecall.types import Image

__all__ = ["LONGEST_NOTE", "jpeg", "jpeg_uri", "number", "text", "write_page"]

LONGEST_NOTE = 4000  # letters of what this program itself says
_LONGEST_TEXT = 300  # of what comes from outside
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(path: str | Path, title: str, parts: Iterable[str]) -> Path:
    """Write a page of HTML parts, empty ones left out, and return its path.

    Raises:
        DataError: the folder cannot be made or written.
    """
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
    return atomic_write(path, page.encode("utf-8", "replace"))


def text(value: object, longest: int = _LONGEST_TEXT) -> str:
    """Return words that are safe in the page: escaped, no control or direction-changing letters, not endless."""
    safe = "".join(letter if letter.isprintable() else "�" for letter in str(value))
    if len(safe) > longest:
        safe = safe[: longest // 3] + "…" + safe[-2 * longest // 3 :]
    return html.escape(safe, quote=True)


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
    """Return (h, w, 3) BGR."""
    if isinstance(overlay, bytes):
        return cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imread(str(overlay)) if isinstance(overlay, Path) else cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
