"""A fitted detector -> one ONNX graph: uint8 RGB (1, h, w, 3) of any height and width in; score, map, verdict out."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from totalrecall.backbones.graph import check_onnx
from totalrecall.backbones.position import at_size
from totalrecall.backbones.quantize import is_quantized
from totalrecall.detectors.padim import PaDiM
from totalrecall.detectors.spade import SPADE
from totalrecall.errors import SettingError
from totalrecall.export.graph import OPSET, GraphWriter, Value
from totalrecall.export.metadata import LARGEST_BATCH, METADATA_KEY, AnyDetector, facts_of
from totalrecall.export.patches import (
    BANK_TYPES,
    Bank,
    mahalanobis,
    nearest,
    padim_vectors,
    patch_vectors,
    tiles,
    untiled,
)
from totalrecall.export.preparation import Prepared, prepare
from totalrecall.export.verdict import Cells, anomaly_map, cells_of, extent_score, first_largest, picture_score
from totalrecall.patchcore.detector import PatchCore
from totalrecall.patchcore.joined import JoinedPatchCore
from totalrecall.scoring import cell_sigma
from totalrecall.system.text import format_size

if TYPE_CHECKING:
    import onnx


__all__ = ["build_graph", "check_exportable"]

_LARGEST_FILE = 2_000_000_000  # bytes: ONNX's own limit is 2^31
_LARGEST_DISTANCE = 1e16  # features above 1e15 give no score; see `features.extractor`


@dataclass(frozen=True, eq=False)
class _Distances:
    """What a detector makes of a picture's layer maps.

    Attributes:
        distances: float32 (p,).
        cells: of the grid.
        score: float32 (1,); None where it is the map's largest value.
        worst: int64 (1,), the patch with the largest distance.
        nearest: int64 (1,): the bank vector nearest to it; None without a bank.
    """

    distances: Value
    cells: Cells
    score: Value | None
    worst: Value
    nearest: Value | None


def build_graph(
    detector: AnyDetector,
    *,
    model: str,
    bank: str = "float32",
    picture_size: tuple[int, int] | None = None,
    batch: int = 1,
) -> "onnx.ModelProto":
    """Return the graph of a fitted detector.

    Args:
        detector: PatchCore or PaDiM.
        model: SHA-256 of the model file.
        bank: number type of the bank's vectors, one of `BANK_TYPES`.
        picture_size: height and width of all pictures, if the graph is to take no others.
        batch: number of pictures that the graph takes at once, all of one size; every output then has one more axis, or
            in place of the 1 that number.

    Raises:
        SettingError: it is a SPADE or a joined model, or too large for one file; or the bank's type is unknown, or the
            batch.
        MissingExtraError: the package onnx is not installed.
    """
    check_exportable(detector, bank, batch)
    check_onnx("Exporting a model", "totalrecall[export]")
    import onnx

    backbone = onnx.load_from_string(at_size(detector.backbone, detector.recipe.piece).graph)
    backbone = _lifted(backbone)
    graph = GraphWriter(opset=backbone.opset_import[0].version)
    height, width = picture_size or ("height", "width")
    picture = Value(graph, "picture", "uint8")
    shrinks = _shrinks(detector, picture_size)
    each = [picture] if batch == 1 else [picture.slice(at, at + 1) for at in range(batch)]
    prepared = [prepare(graph, one, detector.recipe, shrinks=shrinks) for one in each]
    maps, shapes = _layer_maps(graph, detector, backbone, prepared)
    measured = [
        _measured(graph, detector, one, its_maps, shapes, bank) for one, its_maps in zip(prepared, maps, strict=True)
    ]
    said = [_outputs(graph, detector, *one) for one in zip(prepared, measured, strict=True)]
    _write_outputs(graph, said)
    grid = measured[0].cells.rows, measured[0].cells.columns
    facts = facts_of(detector, model=model, bank=bank, picture_size=picture_size, batch=batch, grid=grid)
    several = [batch] if batch > 1 else []
    outputs: dict[str, tuple[str, Sequence[int | str]]] = {
        "score": ("float32", [batch]),
        "is_anomalous": ("int64", [batch]),
        "p_value": ("float32", [batch]),
        "nearest": ("int64", [*several, 4]),
        "worst": ("int64", [*several, 2]),
        "map": ("float32", [*several, height, width]),
    }
    inputs: dict[str, tuple[str, Sequence[int | str]]] = {"picture": ("uint8", [batch, height, width, 3])}
    return graph.model(inputs, outputs, {METADATA_KEY: json.dumps(facts, sort_keys=True)})


def check_exportable(detector: AnyDetector, bank: str = "float32", batch: int = 1) -> None:
    """Refuse a detector that cannot be one graph.

    Raises:
        SettingError: says why.
    """
    if isinstance(detector, SPADE):
        raise SettingError(
            "A SPADE model cannot be exported: it compares each picture with other whole pictures' maps, chosen anew "
            "for each, which are hundreds of megabytes. Fit with --method patchcore or padim."
        )
    if isinstance(detector, JoinedPatchCore):
        raise SettingError(
            f"A model of {len(detector.members)} joined banks cannot be exported: one graph holds one backbone at one "
            "size. Fit with one --backbone and one size."
        )
    if is_quantized(detector.backbone):
        raise SettingError(
            "A model of 8 bits cannot be exported: each runtime rounds it in its own way. Fit with --precision auto."
        )
    if not 1 <= batch <= LARGEST_BATCH:
        raise SettingError(f"batch must be from 1 to {LARGEST_BATCH} pictures, got {batch}.", "batch")
    if bank not in BANK_TYPES:
        raise SettingError(f"bank must be one of {', '.join(BANK_TYPES)}, got {bank!r}.", "bank")
    if isinstance(detector, PaDiM):
        if bank != "float32":
            raise SettingError(
                f"bank is only for PatchCore models, got {bank} for a PaDiM model. Leave it out.", "bank"
            )
        gaussians = detector.gaussians_
        size = 4 * gaussians.positions * (gaussians.dimensions + 1) * gaussians.dimensions
        what = "Lower --dimensions or --size, and fit again."
    else:
        size = cast(PatchCore, detector).bank_.vectors.nbytes // (4 // np.dtype(bank).itemsize)
        what = "Use --bank float16, or fit with a smaller --coreset."
    size += len(detector.backbone.graph)
    if size > _LARGEST_FILE:
        raise SettingError(
            f"The graph would take {format_size(size)}, one file of ONNX holds {format_size(_LARGEST_FILE)}. {what}"
        )


def _lifted(backbone: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a backbone of the operator set that the rest of the graph is written in, or of a later one."""
    from onnx import version_converter

    if backbone.opset_import[0].version >= OPSET:
        return backbone
    return version_converter.convert_version(backbone, OPSET)


def _shrinks(detector: AnyDetector, picture_size: tuple[int, int] | None) -> bool:
    if picture_size is None:
        return False
    geometry = detector.recipe.geometry(*picture_size)
    return geometry.resized[0] <= geometry.original[0] and geometry.resized[1] <= geometry.original[1]


def _layer_maps(
    graph: GraphWriter, detector: AnyDetector, backbone: "onnx.ModelProto", prepared: Sequence[Prepared]
) -> tuple[list[list[Value]], list[tuple[int, int, int]]]:
    """Write the backbone, which sees all pictures at once; returns each one's maps (h, w, c), and their shapes."""
    recipe, extractor = detector.recipe, detector.extractor
    side = prepared[0].axes[0].window
    blank = np.zeros((side, side, 3), np.uint8)
    shapes = [tuple(int(length) for length in found.shape[1:]) for found in extractor.maps(blank)]
    images = graph.join([tiles(one.image, recipe.tile, recipe.piece) for one in prepared])
    outputs, pieces = graph.include(backbone, images, "backbone_"), recipe.tile**2
    maps = []
    for at in range(len(prepared)):
        layers = [outputs[name] for name in extractor.layers]
        if len(prepared) > 1:
            layers = [layer.slice(at * pieces, (at + 1) * pieces) for layer in layers]
        maps.append([untiled(layer, recipe.tile, shape) for layer, shape in zip(layers, shapes, strict=True)])
    return maps, [(shape[0], shape[1], shape[2]) for shape in shapes]


def _measured(
    graph: GraphWriter,
    detector: AnyDetector,
    prepared: Prepared,
    maps: Sequence[Value],
    shapes: Sequence[tuple[int, int, int]],
    bank: str,
) -> _Distances:
    """Write what a detector makes of the layers' maps."""
    if isinstance(detector, PatchCore):
        extractor, held = detector.extractor, detector.bank_
        patches, (rows, columns) = patch_vectors(
            maps, shapes, patch_size=extractor.patch_size, stride=extractor.stride, descriptor=extractor.descriptor
        )
        cells = cells_of(graph, prepared, rows, columns)
        near = nearest(graph, patches, cells.total, Bank.of(held.vectors, bank))
        score = picture_score(graph, detector.judge, held, near, cells)
        worst = first_largest(graph, cells.flat(cells.grid(near.distances)))
        return _Distances(near.distances, cells, score, worst, near.indices.take(worst))
    assert isinstance(detector, PaDiM)
    model = detector.gaussians_
    rows, columns, _ = max(shapes)
    vectors = padim_vectors(maps, shapes, detector.channels)
    cells = cells_of(graph, prepared, rows, columns)
    distances = mahalanobis(graph, vectors, model.mean, model.whitening)
    worst = first_largest(graph, cells.flat(cells.grid(distances)))
    extents, sigma = detector.extents_, cell_sigma(detector.recipe, rows)
    by_extent = None if extents is None else extent_score(graph, cells.grid(distances), cells, extents, sigma)
    return _Distances(distances, cells, by_extent, worst, None)


def _write_outputs(graph: GraphWriter, said: Sequence[dict[str, Value]]) -> None:
    """Write what is said of each picture under the names of the outputs."""
    for name, value in said[0].items():
        if len(said) == 1:
            graph.node("Identity", value, name=name)
            continue
        parts = [one[name] for one in said]
        if name in ("nearest", "worst"):
            parts = [part.reshape(1, -1) for part in parts]
        elif name == "map":
            parts = [graph.node("Unsqueeze", part, graph.constant(np.array([0], np.int64))) for part in parts]
        graph.node("Concat", *parts, attributes={"axis": 0}, name=name)


def _outputs(graph: GraphWriter, detector: AnyDetector, prepared: Prepared, measured: _Distances) -> dict[str, Value]:
    """Write score, verdict, p-value, nearest patch and map of a picture; returns them by name."""
    cells = measured.cells
    full = anomaly_map(graph, cells.grid(measured.distances), prepared, detector.recipe.resize, cells)
    score = full.largest() if measured.score is None else measured.score
    # subtle: a comparison with nan is false, and what `ReduceMax` makes of nan is not defined
    sound = (measured.distances < _LARGEST_DISTANCE).to("int32").reduce("ReduceMin") > 0
    if prepared.usable is not None:
        sound = sound & prepared.usable
    if cells.inside is not None:
        sound = sound & (cells.inside.largest() > 0)
    score = graph.where(sound, score, math.nan)
    threshold = detector.threshold_
    verdict = graph.where(sound, (score > threshold).to("int64"), -1)
    unknown = graph.constant(np.array([-1], np.int64))
    verdict = verdict if math.isfinite(threshold) else unknown
    scores = detector.calibration_.scores
    if len(scores):
        ordered = graph.constant(scores.astype(np.float32), "scores_of_good_pictures")
        above = graph.where(ordered < score, 0.0, graph.constant(np.array(1, np.float32))).reduce("ReduceSum")
        p_value = graph.where(sound, (above + 1) * (1 / (len(scores) + 1)), math.nan)
    else:
        p_value = graph.constant(np.array([math.nan], np.float32))
    row = measured.worst / cells.columns
    worst = graph.join([row, measured.worst - row * cells.columns])
    nearest_patch = graph.constant(np.full(4, -1, np.int64))
    if measured.nearest is not None:
        assert isinstance(detector, PatchCore)
        origin = graph.constant(detector.bank_.origin, "bank_origin").take(measured.nearest).to("int64").reshape(3)
        nearest_patch = graph.join([measured.nearest, origin])
    said = {"score": score, "is_anomalous": verdict, "p_value": p_value}
    return {**said, "nearest": nearest_patch, "worst": worst, "map": full}
