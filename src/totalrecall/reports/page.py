"""The report's style sheet: calm, light or dark as the reader's system asks, and plain on paper."""

import base64
import html
import math
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from totalrecall.system.files import atomic_write
from totalrecall.types import Image

__all__ = ["LONGEST_NOTE", "STYLE", "jpeg", "jpeg_uri", "number", "text", "write_page"]

STYLE = """
:root { color-scheme: light dark; --paper: #fafaf7; --card: #fff; --ink: #1c1e21; --soft: #5d636b; --rule: #dcdcd6;
  --bad: #b22222; --fine: #146e46; --cool: #4477aa; --warm: #c4671c; --warmer: #8a4310; --alert: #fdf1e3; }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --card: #202327; --ink: #e8e8e4; --soft: #a3a9b1;
  --rule: #383c42; --bad: #ff8a80; --fine: #6fd3a0; --cool: #77aadd; --warm: #e8944a; --warmer: #f7c493;
  --alert: #3a2c1c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui,
  "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 17px; margin: 34px 0 10px; }
.note { color: var(--soft); margin: 4px 0; max-width: 78ch; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 20px 0 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 8px 16px 9px;
  min-width: 104px; display: flex; flex-direction: column-reverse; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 0; font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums; }
.alert { background: var(--alert); border-left: 4px solid var(--warm); padding: 2px 16px 6px; margin-top: 22px; }
.alert h2 { margin-top: 10px; }
.alert ul { margin: 0 0 8px; padding-left: 20px; }
.verdict { font-weight: 600; white-space: nowrap; }
.bad { color: var(--bad); }
.fine { color: var(--fine); }
.unsure { color: var(--soft); }
.wrong { border: 1px solid currentColor; border-radius: 3px; padding: 0 5px; font-size: 12px; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
svg .mid { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .axis { stroke: var(--soft); }
svg line.limit { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg text.limit { fill: var(--ink); font-weight: 600; }
svg path.axis { fill: none; }
svg .curve { fill: none; stroke: var(--cool); stroke-width: 2.5; stroke-linejoin: round; }
svg circle.limit { fill: var(--ink); }
svg rect.good, svg rect.plain { fill: var(--cool); }
svg rect.defect { fill: url(#hatch); }
svg .under { fill: var(--warm); }
svg .stripe { stroke: var(--warmer); stroke-width: 3; }
.legend { margin: 0 0 4px; color: var(--soft); }
.legend span { margin-right: 20px; white-space: nowrap; }
.legend i { display: inline-block; width: 14px; height: 12px; margin-right: 7px; vertical-align: -1px;
  background: var(--cool); }
.legend i.defect { background: repeating-linear-gradient(45deg, var(--warm) 0 3px, var(--warmer) 3px 5px); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 18px;
  align-items: start; }
.gallery.small { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 12px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; overflow: hidden;
  break-inside: avoid; }
figure img { display: block; width: 100%; max-height: 560px; object-fit: contain; background: #fafaf7; }
figcaption { padding: 7px 12px 8px; font-size: 14px; overflow-wrap: anywhere; }
.small figcaption { font-size: 12px; padding: 5px 8px 6px; }
.patches { display: flex; gap: 14px; padding: 12px 12px 0; font-size: 12px; color: var(--soft); }
.patches span { width: 132px; overflow-wrap: anywhere; }
.patches span + span { width: auto; flex: 1; }
.patches img { width: 132px; height: 132px; margin-bottom: 4px; }
.known { color: var(--soft); white-space: nowrap; margin-right: 6px; }
.kinds tbody th { min-width: 9em; }
.gone { margin: 10px 12px 0; font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
.promise { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 12px 32px;
  align-items: start; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; color: var(--soft); padding-bottom: 4px; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tbody th, .facts th { font-weight: 400; overflow-wrap: anywhere; }
.facts { width: auto; }
.facts th { color: var(--soft); padding-right: 26px; white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
thead th { color: var(--soft); font-size: 13px; font-weight: 600; }
.num, .rows th:nth-child(2), .rows th:nth-child(3), .rows th:nth-child(5), .rows th:nth-child(6) {
  text-align: right; font-variant-numeric: tabular-nums; }
a { color: inherit; text-decoration-color: var(--rule); text-underline-offset: 3px; }
.rank { display: inline-block; min-width: 2.6em; color: var(--soft); font-variant-numeric: tabular-nums; }
@media print {
  :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #bbb; --bad: #b22222;
    --fine: #146e46; --cool: #4477aa; --warm: #c4671c; --warmer: #8a4310; --alert: #fff; }
  body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  .gallery { grid-template-columns: 1fr 1fr; gap: 8px; }
  .gallery.small { grid-template-columns: repeat(4, 1fr); }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  * { print-color-adjust: exact; }
}
"""
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
