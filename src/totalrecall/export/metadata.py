"""What an exported graph says of itself, as JSON under the key `totalrecall.export` of its metadata."""

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from totalrecall._version import __version__
from totalrecall.backbones.graph_check import fields
from totalrecall.calibration import Calibration
from totalrecall.detectors.base import Detector
from totalrecall.detectors.one_pass import OnePass
from totalrecall.errors import ModelFileError
from totalrecall.patchcore.detector import PatchCore
from totalrecall.pictures.formats.header import MAX_PIXELS
from totalrecall.types import Mask

__all__ = [
    "FORMAT",
    "LARGEST_BATCH",
    "METADATA_KEY",
    "batch_of",
    "calibration_from",
    "facts_of",
    "packed_mask",
    "parsed_facts",
    "read_facts",
    "unpacked_mask",
]

AnyDetector: TypeAlias = Detector[Any]

METADATA_KEY = "totalrecall.export"
LARGEST_BATCH = 64  # pictures: all nodes but the backbone's are written for each
FORMAT = 1
_LONGEST = 256 << 20  # bytes of JSON
_METADATA_PROPS = 14  # the field's number in ONNX's ModelProto
_NEEDED = (
    "format", "library", "kind", "model", "scoring", "threshold", "pixel_threshold", "taught", "threshold_is",
    "min_area", "seed", "recipe", "region_of_interest", "picture_size", "backbone", "grid", "bank", "facts",
    "calibration", "pictures",
)  # fmt: skip


def facts_of(
    detector: AnyDetector,
    *,
    model: str,
    bank: str,
    picture_size: tuple[int, int] | None,
    batch: int,
    grid: tuple[int, int],
) -> dict[str, Any]:
    """Return what a graph says of itself, as JSON types.

    Args:
        detector: that it is made of.
        model: SHA-256 of the model file.
        bank: number type of the bank's vectors.
        picture_size: height and width of all pictures, if it takes no others.
        batch: number of pictures that it takes at once.
        grid: rows and columns of the patches.
    """
    calibration = detector.calibration_
    thresholds = {"threshold": detector.threshold_, "pixel_threshold": detector.pixel_threshold_}
    roi = detector.recipe.roi
    return {
        "format": FORMAT,
        "library": __version__,
        "kind": detector.kind,
        "model": model,
        "scoring": _scoring(detector),
        **{name: value if math.isfinite(value) else None for name, value in thresholds.items()},
        "taught": detector.taught_,
        "threshold_is": detector.promise_.origin,
        "false_alarm_rate": calibration.rate,
        "min_area": detector.settings.min_area,
        "seed": detector.settings.seed,
        "recipe": detector.recipe.to_json(),
        "region_of_interest": None if roi is None else packed_mask(roi),
        "picture_size": None if picture_size is None else list(picture_size),
        "batch": batch,
        "backbone": {**detector.backbone.to_header(), "layers": list(detector.extractor.layers)},
        "grid": list(grid),
        "bank": bank if isinstance(detector, PatchCore) else None,
        "facts": detector.facts(),
        "calibration": {
            "scores": calibration.scores.tolist(),
            "peaks": calibration.peaks.tolist(),
            "rate": calibration.rate,
            "folds": calibration.folds,
            "parts": calibration.parts,
            "shown_by": calibration.shown_by,
            "new_parts": calibration.new_parts,
        },
        "pictures": [asdict(picture) for picture in detector.pictures_],
    }


def batch_of(facts: Mapping[str, Any]) -> int:
    """Return how many pictures a graph takes at once; 1 in a file of before there were others.

    Raises:
        ValueError: it is no such number.
    """
    batch = facts.get("batch", 1)
    if type(batch) is not int or not 1 <= batch <= LARGEST_BATCH:
        raise ValueError(f"batch (must be from 1 to {LARGEST_BATCH})")
    return batch


def _scoring(detector: AnyDetector) -> str:
    if isinstance(detector, PatchCore):
        return detector.judge.scoring
    return "extent" if isinstance(detector, OnePass) and detector.extents_ is not None else "the map's maximum"


def calibration_from(facts: Mapping[str, Any]) -> Calibration:
    """Return the scores of good pictures that a graph says its threshold was set by.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    held = facts["calibration"]
    scores, peaks = (np.array(held[name], np.float64) for name in ("scores", "peaks"))
    if scores.ndim != 1 or scores.shape != peaks.shape or not 0 < float(held["rate"]) < 1:
        raise ValueError("calibration (its scores, peaks or rate)")
    parts = None if held["parts"] is None else int(held["parts"])
    return Calibration(
        scores,
        peaks,
        float(held["rate"]),
        int(held["folds"]),
        parts=parts,
        shown_by=int(held["shown_by"]),
        new_parts=bool(held["new_parts"]),
    )


def packed_mask(mask: Mask) -> dict[str, Any]:
    """Return a mask as JSON types."""
    bits = base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode("ascii")
    return {"height": mask.shape[0], "width": mask.shape[1], "bits": bits}


def unpacked_mask(packed: Mapping[str, Any]) -> Mask:
    """Return the mask that `packed_mask` packed.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    height, width = int(packed["height"]), int(packed["width"])
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError("region_of_interest (its size)")
    length = -(-height * width // 8)
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(packed["bits"], validate=True), length + 1)
    except zlib.error:
        raise ValueError("region_of_interest (its bits)") from None
    if len(data) != length:
        raise ValueError("region_of_interest (its bits)")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=height * width).reshape(height, width).astype(bool)


def read_facts(data: bytes, origin: str) -> tuple[dict[str, Any], str]:
    """Return what a serialized ONNX graph says of itself, and its JSON.

    Raises:
        ModelFileError: it is no exported graph, or a damaged one, or of a newer version.
    """
    text: str | None = None
    try:
        for number, _, value in fields(memoryview(data)):
            if number == _METADATA_PROPS and isinstance(value, memoryview):
                entry = {key: bytes(part) for key, _, part in fields(value) if isinstance(part, memoryview)}
                if entry.get(1) == METADATA_KEY.encode() and len(entry.get(2, b"")) <= _LONGEST:
                    text = entry.get(2, b"").decode()
    except (ValueError, IndexError):
        raise ModelFileError(f"{origin} is damaged or no ONNX file. Export the model again.") from None
    return parsed_facts(text, origin), text or ""


def parsed_facts(text: str | None, origin: str) -> dict[str, Any]:
    """Return the facts of a graph from their JSON.

    Raises:
        ModelFileError: there is none, or it is damaged or of a newer version.
    """
    if text is None:
        raise ModelFileError(
            f"{origin} was not exported by Total Recall: it has no metadata {METADATA_KEY!r}. "
            "Write it with: totalrecall export MODEL --to onnx -o FILE"
        )
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    lacking = [name for name in _NEEDED if name not in facts] if isinstance(facts, dict) else ["format"]
    if not lacking and facts["format"] != FORMAT:
        raise ModelFileError(
            f"{origin} is of format {str(facts['format'])[:20]}, this version reads {FORMAT}. Update it."
        )
    if lacking:
        raise ModelFileError(f"{origin} is damaged: its metadata has no {lacking[0]}. Export the model again.")
    return dict(facts)
