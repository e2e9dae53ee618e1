"""One cell of a benchmark: a detector fitted and measured on one category with one seed.

Cells that differ in how scores are made of distances share one fit: a family.
"""

import contextlib
import gc
import hashlib
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from totalrecall.backbones import Backbone
from totalrecall.datasets import DataSet, Sample
from totalrecall.errors import DataError, LearntPictureWarning, PictureError, only_picture_notices
from totalrecall.evaluation.curves import OverlapCurve, histogram, roc_points
from totalrecall.evaluation.evaluate import Evaluation, Scored, evaluate, seen_pixels
from totalrecall.pictures.loading import read_image
from totalrecall.pictures.masks import read_roi
from totalrecall.registry import detector_class
from totalrecall.system.files import atomic_write
from totalrecall.system.memory import peak_memory
from totalrecall.system.text import counted

if TYPE_CHECKING:
    from totalrecall.registry import AnyDetector

__all__ = ["VERDICTS", "Cell", "few_shots", "fingerprint", "measure_family", "words_of_settings"]

Progress = Callable[[str, int, int], None]
Line = dict[str, Any]

_TIMED = 20  # single predicts whose median is the latency
VERDICTS = ("found", "defects", "false_alarms", "good")  # at the detector's own threshold
_THUMBNAIL = 400  # pixels wide


@dataclass(frozen=True, eq=False)
class Cell:
    """What one cell measures.

    Attributes:
        method: name of the method, one of `registry.KINDS`.
        data: of the category, split by the seed where the layout has no split of its own.
        seed: of the split, of the choice of few pictures, and of the detector.
        shots: good pictures to fit on; None for all.
        backbone: one for all cells.
        settings: every other argument of the detector but `roi`, `seed` and `threads`.
        roi: mask picture of the region of interest.
        threads: of the engine.
        seen_only: measure pixels only where a crop showed the picture (see `evaluation.evaluate`).
        label: what is special about the cell, in words.
    """

    method: str
    data: DataSet
    seed: int
    backbone: Backbone
    settings: Mapping[str, Any]
    shots: int | None = None
    roi: Path | None = None
    threads: int | None = None
    seen_only: bool = False
    label: str = ""
    setup: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Work out the setup: everything that the figures rest on, as JSON types."""
        from totalrecall._version import __version__

        roi = read_roi(self.roi)
        setup = {
            "method": self.method,
            "layout": self.data.name,
            "root": str(self.data.root.resolve()),
            "category": self.data.category,
            "seed": self.seed,
            "shots": self.shots,
            "backbone": self.backbone.name,
            "architecture": self.backbone.architecture,
            "backbone_sha256": self.backbone.sha256,
            "settings": json.loads(json.dumps(dict(self.settings))),  # a tuple reads back as a list
            "roi": None if roi is None else hashlib.sha256(roi.mask.tobytes()).hexdigest(),
            "threads": self.threads,
            "pixels": "seen" if self.seen_only else "all",
            "data": fingerprint(self.data),
            "library": __version__,
        }
        object.__setattr__(self, "setup", setup)

    @property
    def key(self) -> str:
        """Names the cell: the same only where the whole setup is."""
        return hashlib.sha256(json.dumps(self.setup, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def title(self) -> str:
        """Words for a person."""
        few = "" if self.shots is None else f", {counted(self.shots, 'picture')}"
        label = f", {self.label}" if self.label else ""
        return f"{self.method} {self.data.category} seed {self.seed}{few}{label}"

    def detector(self) -> "AnyDetector":
        """Return the detector, not fitted.

        Raises:
            SettingError: its method does not allow the settings.
        """
        make: Any = detector_class(self.method)
        made: AnyDetector = make(
            backbone=self.backbone, roi=self.roi, seed=self.seed, threads=self.threads, **self.settings
        )
        return made


def fingerprint(data: DataSet) -> str:
    """Return a hash of the names, sizes and labels of a set's pictures: other data makes other cells."""
    digest = hashlib.sha256()
    for sample in data.samples:
        try:
            size = sample.path.stat().st_size
        except OSError:
            size = -1  # the cell will name it
        digest.update(f"{sample.path.name}\0{size}\0{sample.label}\0{sample.split}\0".encode(errors="backslashreplace"))
    return digest.hexdigest()[:20]


def few_shots(pictures: Sequence[Path], shots: int | None, seed: int) -> list[Path]:
    """Return the first `shots` of a seeded order of the pictures, so that more shots hold the fewer; all for None."""
    if shots is None:
        return list(pictures)
    return [pictures[at] for at in np.random.default_rng(seed).permutation(len(pictures))[:shots]]


def words_of_settings(line: Mapping[str, Any]) -> str:
    """Return a cell's settings for a person, without those that are not set."""
    values = {**line["setup"]["settings"], "layers": line["model"]["layers"]}  # those used, where none were named
    return ", ".join(
        f"{name.replace('_', ' ')} {_in_words(value)}" for name, value in values.items() if value is not None
    )


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def measure_family(
    family: Sequence[Cell], folder: Path | None, progress: Progress | None = None
) -> Iterator[tuple[Cell, Line]]:
    """Fit once, then evaluate and time; yield each cell with its line, as JSON types.

    Args:
        family: cells of one fit: they differ only in settings that a detector reads when it judges.
        folder: where thumbnails of the best and worst pictures are put; None for no thumbnails.
        progress: called with (step, done, total).

    Raises:
        TotalRecallError: the cells cannot be measured.
    """
    own_peak = _reset_peak()
    first = family[0]
    detector = first.detector()
    chosen = few_shots(first.data.train, first.shots, first.seed)
    with only_picture_notices():  # what was skipped stands in the line
        detector.fit(chosen, progress=progress)
    for cell in family:
        fitted: Any = detector
        fitted.settings = cell.detector().settings
        line = _line(cell, detector, folder, progress)
        if cell is not first:
            line["verdicts"] = None  # the threshold was set by the first one's scores
        line["peak_of"] = "cell" if own_peak else "process"
        line["pictures"]["train"] = len(chosen)
        yield cell, line
    del detector, fitted
    gc.collect()  # before the next cell, so that its peak is its own


def _line(cell: Cell, detector: "AnyDetector", folder: Path | None, progress: Progress | None) -> Line:
    drawn = _Drawn(seen_only=cell.seen_only)
    step = None if progress is None else (lambda done, total: progress("scoring", done, total))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LearntPictureWarning)  # `open_sets` says it once for all cells
        evaluation = evaluate(detector, cell.data.test, seen_only=cell.seen_only, progress=step, heard=drawn.hear)
    return {
        "key": cell.key,
        "setup": cell.setup,
        "metrics": _metrics(evaluation),
        "verdicts": {name: getattr(evaluation, name) for name in VERDICTS},
        "reasons": evaluation.reasons,
        "seconds": _seconds(detector, evaluation, drawn),
        "latency_ms": _latency(detector, cell.data.test),
        "peak_memory": peak_memory(),
        "model": _model(detector),
        "pictures": {"test": evaluation.images, "pixels": evaluation.pixel_images},
        "curves": {"roc": roc_points(drawn.labels, drawn.scores), "pro": drawn.overlap.points()},
        "histogram": histogram(drawn.labels, drawn.scores),
        "shown": [] if folder is None else _thumbnails(cell, detector, drawn, folder),
        "bad": [str(error) for error in detector.skipped_] + [bad.message for bad in evaluation.bad],
    }


class _Drawn:
    """What a page draws of a detector's results: scores, and the PRO curve."""

    def __init__(self, *, seen_only: bool) -> None:
        self._seen_only = seen_only
        self.scored: list[tuple[Sample, float]] = []
        self.overlap = OverlapCurve()
        self.seconds = 0.0  # spent here

    @property
    def labels(self) -> list[int]:
        return [sample.label for sample, _ in self.scored]

    @property
    def scores(self) -> list[float]:
        return [score for _, score in self.scored]

    def hear(self, sample: Sample, outcome: Scored | PictureError) -> None:
        """Take in the result of a sample."""
        if isinstance(outcome, PictureError):
            return
        began = time.perf_counter()
        self.scored.append((sample, float(outcome.score)))
        with contextlib.suppress(DataError):  # `evaluate` names it
            pixels = seen_pixels(sample, outcome, seen_only=self._seen_only)
            if pixels is not None:
                self.overlap.add(*pixels)
        self.seconds += time.perf_counter() - began


def _metrics(evaluation: Evaluation) -> dict[str, float | None]:
    values = {
        "image_auroc": evaluation.image_auroc,
        "image_average_precision": evaluation.image_average_precision,
        "image_f1": evaluation.image_f1,
        "pixel_auroc": evaluation.pixel_auroc,
        "pixel_average_precision": evaluation.pixel_average_precision,
        "pixel_aupro": evaluation.pixel_aupro,
    }
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _seconds(detector: "AnyDetector", evaluation: Evaluation, drawn: _Drawn) -> dict[str, float]:
    report = detector.report_
    assert report is not None
    steps = [name for name in ("features", "coreset", "calibration") if name in report.seconds]
    stages: dict[str, float] = {str(name): report.seconds[name] for name in steps}
    stages["evaluate"] = evaluation.seconds - drawn.seconds  # what is drawn is not counted
    return {name: round(value, 4) for name, value in stages.items()}


def _latency(detector: "AnyDetector", samples: Sequence[Sample]) -> float | None:
    """Return the median milliseconds of single predicts, file to result; None where no picture can be read."""
    times = []
    picked = np.unique(np.linspace(0, len(samples) - 1, min(_TIMED, len(samples))).astype(int)).tolist()
    for at in [picked[0], *picked]:  # the first once before, to warm up
        with contextlib.suppress(PictureError):
            times.append(detector.predict(samples[at].path).milliseconds)
    return round(statistics.median(times[1:]), 3) if len(times) > 1 else None


def _model(detector: "AnyDetector") -> dict[str, Any]:
    report = detector.report_
    assert report is not None
    bank = getattr(detector, "bank_", None)
    size = int(report.plan["model"]) if bank is None else int(bank.vectors.nbytes)
    return {
        "vectors": report.vectors,
        "dimensions": report.dimensions,
        "bytes": size,
        "chunks": report.chunks,
        "layers": detector.settings.stored()["layers"],
    }


def _extremes(scored: Sequence[tuple[Sample, float]]) -> list[tuple[str, Sample, float]]:
    """Return the worst pictures and the best, most telling first: missed defects, false alarms, then what went well."""
    ranked = sorted((one for one in scored if math.isfinite(one[1])), key=lambda one: one[1])
    bad, good = [[one for one in ranked if one[0].label == label] for label in (1, 0)]
    picks = [("defect that scores lowest", bad[:1]), ("good that scores highest", good[-1:])]
    picks += [("defect that scores highest", bad[1:][-1:]), ("good that scores lowest", good[:-1][:1])]
    picks += [("defect that scores second lowest", bad[1:-1][:1]), ("good that scores second highest", good[1:-1][-1:])]
    return [(why, sample, score) for why, found in picks for sample, score in found]


def _thumbnails(cell: Cell, detector: "AnyDetector", drawn: _Drawn, folder: Path) -> list[dict[str, Any]]:
    shown = []
    for number, (why, sample, score) in enumerate(_extremes(drawn.scored)):
        try:
            result, image = detector.predict(sample.path), read_image(sample.path, detector.recipe.depth)
        except PictureError:  # its file is gone since it was scored
            continue
        overlay = result.overlay(picture=image, title="")
        size = (_THUMBNAIL, round(_THUMBNAIL * overlay.shape[0] / overlay.shape[1]))
        small = cv2.cvtColor(cv2.resize(overlay, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        file = folder / f"{cell.key}-{number}.jpg"
        atomic_write(file, cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
        shown.append({"why": why, "path": str(sample.path), "defect": sample.defect, "score": score, "file": file.name})
    return shown


def _reset_peak() -> bool:
    """Let the system count the peak from here on; False where it cannot, the peak is then that of the process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
