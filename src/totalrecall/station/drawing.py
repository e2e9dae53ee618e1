"""Pictures of inspections: the overlay, the picture as a browser shows it, and the heat as a layer over it."""

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from totalrecall.errors import NotFoundError, PictureError
from totalrecall.pictures.decode import decode_pixels, to_8_bits
from totalrecall.pictures.overlay import HOTTEST, draw_overlay, encode_overlay, heat_colours
from totalrecall.scoring import Region
from totalrecall.station.judging.room import pixels_of

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.station import Station
    from totalrecall.station.store.records import Inspection

__all__ = ["heat_layer", "overlay_png", "picture_and_heat", "shown_picture", "thumbnail"]

_END = 255  # of the stored heat: `HOTTEST` times the pixel threshold
_WIDEST, _SMALL = 1280, 240  # pixels of a picture on the page, and of a thumbnail


def picture_and_heat(station: "Station", key: str) -> tuple[bytes, npt.NDArray[np.uint8] | None]:
    """Return the bytes of an inspection's picture, and its heat: from memory, or from disk.

    Raises:
        NotFoundError: it was not kept, or is gone.
    """
    seen = station.recent.get(key)
    if seen is not None:
        return seen.picture, seen.heat
    picture, heat = station.kept.picture(key), station.kept.heat(key)
    if picture is None:
        raise NotFoundError(f"The picture of inspection {key} is not kept.")
    return picture, heat


def overlay_png(station: "Station", inspection: "Inspection") -> bytes:
    """Return the overlay of an inspection as PNG: picture, heat, regions, verdict.

    Raises:
        NotFoundError: the picture is not kept.
    """
    data, heat = picture_and_heat(station, inspection.key)
    if heat is None:
        raise NotFoundError(f"Inspection {inspection.key} has no heat map.")
    with station.drawing_room.held(pixels_of(data, inspection.name)):
        return _overlay(station, inspection, data, heat)


def _overlay(station: "Station", inspection: "Inspection", data: bytes, heat: npt.NDArray[np.uint8]) -> bytes:
    image = _pixels(station, inspection, data)
    h, w = image.shape[:2]
    values = cv2.resize(heat, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    threshold = _pixel_threshold(station, inspection)
    known = threshold is not None and bool(np.isfinite(threshold))
    if threshold is None:  # what the colours mean is known, not the number
        threshold = _END / HOTTEST
    elif known:
        values *= np.float32(HOTTEST * threshold / _END)
    overlay = draw_overlay(
        image,
        values,
        threshold=threshold,
        score=float("nan") if inspection.score is None else inspection.score,
        score_threshold=inspection.threshold,
        is_anomalous=inspection.is_anomalous,
        regions=[Region(**region) for region in inspection.regions],
        title=inspection.serial or inspection.name,
        numbers=known,
    )
    return encode_overlay(overlay)


def _pixel_threshold(station: "Station", inspection: "Inspection") -> float | None:
    """Return the pixel threshold that an inspection was judged by; nan if there was none, None if it is not known.

    It is not known if another model has taken the place of that one, or a recipe's false-alarm rate judged.
    """
    if inspection.threshold is None:
        return math.nan
    loaded = _model_of(station, inspection)
    if loaded is None or loaded.judge.threshold_ != inspection.threshold:
        return None
    return float(loaded.judge.pixel_threshold_)


def _model_of(station: "Station", inspection: "Inspection") -> "Loaded | None":
    """Return the model that judged an inspection, if it is still here."""
    return next((one for one in station.shelf.all() if one.sha256 == inspection.model_sha256), None)


def shown_picture(station: "Station", inspection: "Inspection", *, widest: int = _WIDEST) -> bytes:
    """Return an inspection's picture as a JPEG that every browser shows, at most so many pixels wide.

    Raises:
        NotFoundError: it is not kept, or cannot be read.
    """
    data, _ = picture_and_heat(station, inspection.key)
    with station.drawing_room.held(pixels_of(data, inspection.name)):
        return _jpeg(_pixels(station, inspection, data), widest)


def thumbnail(station: "Station", data: bytes) -> bytes:
    """Return a picture's file as a small JPEG.

    Raises:
        NotFoundError: it cannot be read.
    """
    try:
        with station.drawing_room.held(pixels_of(data, "picture")):
            return _jpeg(to_8_bits(decode_pixels(data, "picture"), "picture"), _SMALL)
    except PictureError as error:
        raise NotFoundError(f"The picture cannot be shown: {error}") from None


def _jpeg(image: npt.NDArray[np.uint8], widest: int) -> bytes:
    h, w = image.shape[:2]
    share = min(widest / max(h, w), 1.0)
    if share < 1:
        image = cv2.resize(image, (max(round(w * share), 1), max(round(h * share), 1)), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return jpeg.tobytes()


def heat_layer(station: "Station", inspection: "Inspection") -> bytes:
    """Return an inspection's heat as a PNG with transparency, to lie over the picture.

    Raises:
        NotFoundError: it is not kept.
    """
    _, heat = picture_and_heat(station, inspection.key)
    if heat is None:
        raise NotFoundError(f"Inspection {inspection.key} has no heat map.")
    colours, cover = heat_colours(heat.astype(np.float32) / 255, calibrated=True)
    layer = np.dstack([colours[..., ::-1], 255 * np.clip(cover, 0, 1)])
    _, png = cv2.imencode(".png", np.rint(layer).astype(np.uint8))
    return png.tobytes()


def _pixels(station: "Station", inspection: "Inspection", data: bytes) -> npt.NDArray[np.uint8]:
    """Return RGB pixels as the model saw them: a 16-bit picture by the model's depth, if it is still here."""
    try:
        pixels = decode_pixels(data, inspection.name)
        loaded = _model_of(station, inspection)
        depth = None if loaded is None else loaded.judge.recipe.depth
        return to_8_bits(pixels, inspection.name) if depth is None else depth.to_8_bits(pixels, inspection.name)
    except PictureError as error:
        raise NotFoundError(f"The picture cannot be shown: {error}") from None
