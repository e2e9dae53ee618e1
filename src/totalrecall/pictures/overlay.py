"""One picture that shows a decision: the part, the heat map over it, outlines, the score and the verdict in words.

The colours mean the same on every picture of a model: 0 to the pixel threshold is faint, above it is hot. So a good
picture looks calm, and two overlays can be compared. The heat lies over a grey copy of the part, so that no colour of
the part can be taken for heat; the part in its own colours is beside it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from totalrecall.errors import SettingError
from totalrecall.system.files import atomic_write

__all__ = ["HOTTEST", "OutlinedRegion", "draw_overlay", "encode_overlay", "heat_colours", "save_overlay"]

# Not `types.Image` and its kin: those promise one height and width within a call, and here sizes change.
Picture: TypeAlias = NDArray[np.uint8]  # (h, w, 3) RGB
Heights: TypeAlias = NDArray[np.floating[Any]]  # (h, w)
Judged: TypeAlias = NDArray[np.bool_]  # (h, w)

_PAPER, _INK, _SOFT = (250, 250, 247), (28, 30, 33), (110, 114, 120)
_BAD, _FINE, _UNSURE = (178, 34, 34), (20, 110, 70), (96, 100, 108)
_LIGHT_LINE, _DARK_LINE, _LABEL_LINE = (255, 255, 255), (16, 16, 16), (64, 190, 255)
_PAD = 16
_PANEL, _WIDE_PANEL, _LONGEST = (
    460,
    936,
    640,
)  # pixels: a panel's width beside or under another, and its greatest height
_HEADER, _FOOTER, _CAPTION = 60, 64, 24
HOTTEST = 2.0  # the colour scale ends at this multiple of the pixel threshold
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@runtime_checkable  # the test run checks types at every call
class OutlinedRegion(Protocol):
    """A box of original pixels to outline; `totalrecall.scoring.Region` is one."""

    @property
    def x(self) -> int: ...
    @property
    def y(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def area(self) -> int: ...
    @property
    def peak(self) -> float: ...


def draw_overlay(
    image: Picture,
    anomaly_map: Heights,
    *,
    threshold: float | None,
    score: float,
    score_threshold: float | None,
    is_anomalous: bool | None,
    regions: Sequence[OutlinedRegion] = (),
    roi: Judged | None = None,
    title: str | None = None,
    truth: Judged | None = None,
    numbers: bool = True,
) -> Picture:
    """Return the overlay, at most 968 pixels wide whatever the picture's size.

    Args:
        image: the original picture.
        anomaly_map: one value a pixel of `image`; values that are not finite are drawn as 0.
        threshold: pixels above it are anomalous and drawn hot; None or nan scales by the map's own maximum and says so.
        score: the picture's score.
        score_threshold: the verdict's threshold; None or nan shows the score without a verdict.
        is_anomalous: the verdict; None where there is none.
        regions: boxes to outline, in pixels of `image`.
        roi: True where the picture was judged; the rest is drawn dimmed.
        title: a line under the verdict, such as the file's name; shortened in the middle if too long.
        truth: True where a person marked the defect; outlined in blue beside the boxes.
        numbers: write numbers beside the colours; not where the map is known only as shares of its scale.

    Raises:
        SettingError: the map, the region of interest or the truth is not of the picture's size.
    """
    for name, array in (("anomaly_map", anomaly_map), ("roi", roi), ("truth", truth)):
        if array is not None and array.shape != image.shape[:2]:
            raise SettingError(
                f"{name} must be of the picture's size {image.shape[0]} x {image.shape[1]}, got "
                f"{array.shape[0]} x {array.shape[1]}. Take the map back to original pixels first."
            )
    threshold = _known(threshold)
    if threshold is not None and threshold <= 0:
        threshold = None  # distances are never below 0: such a threshold gives no scale
    judged = _known(score_threshold)
    heights = np.where(np.isfinite(anomaly_map), anomaly_map, 0).astype(np.float32)
    stacked = image.shape[1] > 1.5 * image.shape[0]
    size = _panel_size(image.shape[0], image.shape[1], stacked=stacked)
    plain, heat = _resize(image, size), _resize(heights, size)
    scale = _scale_end(heights, threshold)
    judged_here = None if roi is None else cv2.resize(roi.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

    hot = _heat(plain, heat, scale, calibrated=threshold is not None)
    if judged_here is not None:
        hot = _dim_outside(hot, judged_here)
    if threshold is not None:
        _outline_heat(hot, heat, threshold)
    boxed = plain.copy()
    caption = "picture" if truth is None else "picture, label in blue"
    if truth is not None:
        _outline_truth(boxed, truth)
    for region in regions:
        _outline_box(boxed, region, size[0] / image.shape[1], size[1] / image.shape[0])

    sheet = _lay_out(boxed, hot, caption, stacked=stacked)
    _write_verdict(sheet, score, judged, is_anomalous, title)
    _draw_scale(sheet, scale, calibrated=threshold is not None, numbers=numbers)
    return sheet


def save_overlay(path: str | Path, overlay: Picture) -> Path:
    """Write an overlay as PNG, whole or not at all, and return its path.

    Raises:
        DataError: the folder cannot be made or written.
    """
    return atomic_write(path, encode_overlay(overlay))


def encode_overlay(overlay: Picture) -> bytes:
    """Return an overlay as the bytes of a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _panel_size(h: int, w: int, *, stacked: bool) -> tuple[int, int]:
    """Return the drawn picture's width and height: a sensible size, the same shape; small pictures are enlarged."""
    share = min((_WIDE_PANEL if stacked else _PANEL) / w, _LONGEST / h)
    return max(round(w * share), 1), max(round(h * share), 1)


def _resize(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    smaller = size[0] < array.shape[1]
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR))


def _scale_end(heights: Heights, threshold: float | None) -> float:
    """Return the value at the hot end of the colours; the model's, or for want of a threshold the map's own."""
    if threshold is not None:
        return HOTTEST * threshold
    return max(float(heights.max(initial=0)), 1e-12)


def _heat(plain: Picture, heat: Heights, scale: float, *, calibrated: bool) -> Picture:
    """Return the heat over the picture in grey; the more heat, the less of the picture shows through."""
    grey = cv2.cvtColor(cv2.cvtColor(plain, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    grey = 24 + 0.82 * grey  # pure black and pure white would hide the ends of the colours
    colours, cover = heat_colours(np.clip(heat / np.float32(scale), 0, 1), calibrated=calibrated)
    mixed = grey + (colours - grey) * cover[..., None]
    hot: Picture = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return hot


def heat_colours(share: Heights, *, calibrated: bool) -> tuple[Heights, Heights]:
    """Return the colour, RGB 0..255, and its cover, 0..1, at shares 0..1 of the scale.

    Inferno's lightness rises evenly and it reads the same with every common colour blindness. With a threshold,
    which is at 0.5, a step in the cover sets apart what is above it.
    """
    levels = np.rint(255 * (0.18 + 0.76 * share)).astype(np.uint8)  # inferno's black and its near white are left out
    table = cv2.cvtColor(
        cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    calm = 0.34 * np.clip((share - 0.25) / 0.25, 0, 1) ** 2 if calibrated else 0.75 * share
    cover = np.where(share > 0.5, 0.62 + 0.3 * (share - 0.5), calm) if calibrated else calm
    return table[:, 0].astype(np.float32)[levels], cover.astype(np.float32)


def _dim_outside(picture: Picture, judged: Judged) -> Picture:
    dimmed = np.where(judged[..., None], picture, picture // 3).astype(np.uint8)
    edges, _ = cv2.findContours(judged.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(dimmed, edges, -1, (190, 190, 190), 1, cv2.LINE_AA)
    return dimmed


def _outline_heat(picture: Picture, heat: Heights, threshold: float) -> None:
    edges, _ = cv2.findContours((heat > threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, _DARK_LINE, 3, cv2.LINE_AA)
    cv2.drawContours(picture, edges, -1, _LIGHT_LINE, 1, cv2.LINE_AA)


def _outline_truth(picture: Picture, truth: Judged) -> None:
    h, w = picture.shape[:2]
    # a defect of a few pixels must not vanish in a smaller drawing, so its outline is scaled, not its pixels
    edges, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    share = np.array([w / truth.shape[1], h / truth.shape[0]])
    scaled = [np.rint((edge + 0.5) * share - 0.5).astype(np.int32) for edge in edges]
    cv2.drawContours(picture, scaled, -1, _DARK_LINE, 4, cv2.LINE_AA)
    cv2.drawContours(picture, scaled, -1, _LABEL_LINE, 2, cv2.LINE_AA)


def _outline_box(picture: Picture, region: OutlinedRegion, scale_x: float, scale_y: float) -> None:
    """Draw a region's box in a light line on a dark one; a box too small to see is drawn larger about its middle."""
    middle_x, middle_y = (region.x + region.width / 2) * scale_x, (region.y + region.height / 2) * scale_y
    half_w, half_h = max(region.width * scale_x / 2, 5) + 3, max(region.height * scale_y / 2, 5) + 3
    start = (max(round(middle_x - half_w), 1), max(round(middle_y - half_h), 1))
    end = (min(round(middle_x + half_w), picture.shape[1] - 2), min(round(middle_y + half_h), picture.shape[0] - 2))
    cv2.rectangle(picture, start, end, _DARK_LINE, 5)
    cv2.rectangle(picture, start, end, (255, 214, 64), 2)


def _lay_out(boxed: Picture, hot: Picture, words: str, *, stacked: bool) -> Picture:
    """Return the sheet with both panels and their captions: side by side or, where the picture is wide, stacked."""
    h, w = boxed.shape[:2]
    columns, rows = (1, 2) if stacked else (2, 1)
    width = max(columns * w + (columns + 1) * _PAD, 460)
    height = _HEADER + rows * (h + _CAPTION) + (rows - 1) * _PAD + _FOOTER
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    spare = (width - columns * w) // (columns + 1)
    for number, (panel, caption) in enumerate(((boxed, words), (hot, "heat map"))):
        column, row = (0, number) if stacked else (number, 0)
        x = spare + column * (w + spare)
        y = _HEADER + row * (h + _CAPTION + _PAD)
        _write(sheet, caption, (x, y + 16), 0.5, _SOFT)
        sheet[y + _CAPTION : y + _CAPTION + h, x : x + w] = panel
    return sheet


def _write_verdict(
    sheet: Picture, score: float, threshold: float | None, is_anomalous: bool | None, title: str | None
) -> None:
    """Write the verdict in words, behind a shape that says the same to those who cannot tell red from green."""
    x, y = _PAD, 10
    if threshold is None or is_anomalous is None:
        words, colour = f"NO VERDICT  score {score:.2f}, no threshold", _UNSURE
        cv2.rectangle(sheet, (x + 2, y + 4), (x + 22, y + 24), colour, -1, cv2.LINE_AA)
    elif is_anomalous is True:
        words, colour = f"DEFECT  {_pair(score, threshold, '>')}", _BAD
        corners = np.array([(x + 12, y), (x + 25, y + 25), (x - 1, y + 25)], np.int32)
        cv2.fillPoly(sheet, [corners], colour, cv2.LINE_AA)
        cv2.line(sheet, (x + 12, y + 9), (x + 12, y + 16), _LIGHT_LINE, 2, cv2.LINE_AA)
        cv2.circle(sheet, (x + 12, y + 21), 1, _LIGHT_LINE, -1, cv2.LINE_AA)
    else:
        words, colour = f"GOOD  {_pair(score, threshold, '<=')}", _FINE
        cv2.circle(sheet, (x + 12, y + 13), 13, colour, -1, cv2.LINE_AA)
        tick = np.array([(x + 6, y + 13), (x + 11, y + 18), (x + 19, y + 8)], np.int32)
        cv2.polylines(sheet, [tick], False, _LIGHT_LINE, 2, cv2.LINE_AA)
    room = sheet.shape[1] - x - 34 - _PAD
    _write(sheet, words, (x + 34, y + 21), min(0.75, 0.75 * room / _text_width(words, 0.75, 2)), colour, 2)
    if title:
        _write(sheet, _shorten(title, sheet.shape[1] - 2 * _PAD, 0.5), (x, y + 44), 0.5, _SOFT)


def _pair(score: float, threshold: float, sign: str) -> str:
    """Return both numbers with as many decimals as it takes to tell them apart, or "3.00 > 3.00" would puzzle."""
    for digits in range(2, 7):
        left, right = f"{score:.{digits}f}", f"{threshold:.{digits}f}"
        if left != right:
            return f"{left} {sign} {right}"
    return f"{score:.2f} {sign} {threshold:.2f}"


def _draw_scale(sheet: Picture, scale: float, *, calibrated: bool, numbers: bool) -> None:
    """Draw the colour bar as the colours look over a mid-grey part, with numbers at its ends and at the threshold."""
    top = sheet.shape[0] - _FOOTER + 14
    left, right = _PAD, sheet.shape[1] - _PAD
    colours, cover = heat_colours(np.linspace(0, 1, right - left, dtype=np.float32)[None], calibrated=calibrated)
    bar = 150 + (colours - 150) * cover[..., None]
    sheet[top : top + 14, left:right] = np.rint(bar).astype(np.uint8)
    middle = (left + right) // 2
    if calibrated:
        most = f">= {scale:.3g}" if numbers else f">= {HOTTEST:g} times that"
        between = "pixel threshold" + (f" {scale / HOTTEST:.3g}" if numbers else "")
    else:
        most = f"{scale:.3g}" if numbers else "its largest"
        between = "no threshold: scaled to this picture"
    ticks = [(left, "0"), (right - 1, most), (middle, between)]
    for x, text in ticks:
        marked = x != middle or calibrated
        if marked:
            cv2.line(sheet, (x, top - (4 if x == middle else 0)), (x, top + 18), _INK, 1)
        width = _text_width(text, 0.5, 1)
        _write(sheet, text, (int(np.clip(x - width // 2, left, right - width)), top + 35), 0.5, _INK)


def _text_width(text: str, scale: float, thick: int) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, thick)[0][0])


def _write(
    sheet: Picture, text: str, place: tuple[int, int], scale: float, colour: tuple[int, int, int], thick: int = 1
) -> None:
    cv2.putText(sheet, text, place, _FONT, scale, colour, thick, cv2.LINE_AA)


def _shorten(text: str, room: int, scale: float) -> str:
    """Return text that fits into `room` pixels: the middle gives way, since the end of a path tells files apart."""
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)  # the Hershey fonts hold ASCII only
    if _text_width(text, scale, 1) <= room:
        return text
    for length in range(len(text) - 1, 0, -1):
        short = text[: length // 3] + "..." + text[-(length - length // 3) :]
        if _text_width(short, scale, 1) <= room:
            return short
    return ""
