"""Does a graph say what its model says? Its real runtime runs it on pictures, and what differs is written down."""

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from totalrecall._version import __version__
from totalrecall.errors import PictureError
from totalrecall.export.metadata import AnyDetector
from totalrecall.export.runtime import GraphResult, Run
from totalrecall.pictures.loading import LearntPicture, read_image
from totalrecall.system.files import file_sha256
from totalrecall.types import Image

__all__ = ["MAP_TOLERANCE", "TOLERANCE", "CheckPicture", "Comparison", "Parity", "check_pictures", "compare"]

TOLERANCE = 1e-3  # of a score, relative
MAP_TOLERANCE = 3e-3  # of a pixel of the map, relative to the map's largest value
_SMALL = 0.01  # times the threshold: below it a difference is relative to that, not to a score near 0
_LEARNT = 4  # pictures of the fit, as far as they are still there
_SIZES = 3


@dataclass(frozen=True, eq=False)
class CheckPicture:
    """A picture that a graph is tried on, uint8 RGB (h, w, 3)."""

    name: str
    image: Image


@dataclass(frozen=True)
class Comparison:
    """What model and graph say of one picture; None where there is no verdict or no score.

    Attributes:
        picture: its name.
        width, height: of it.
        runtime: that ran the graph.
        score, graph_score: of both.
        difference: of the scores, relative.
        map_difference: the largest of the maps, relative to the model's largest value.
        is_anomalous, graph_is_anomalous: of both.
        same_nearest: whether both name the same good picture; None where there is no bank.
        milliseconds: of the graph.
    """

    picture: str
    width: int
    height: int
    runtime: str
    score: float | None
    graph_score: float | None
    difference: float
    map_difference: float
    is_anomalous: bool | None
    graph_is_anomalous: bool | None
    same_nearest: bool | None
    milliseconds: float

    @property
    def same_verdict(self) -> bool:
        """Whether both say the same."""
        return self.is_anomalous is self.graph_is_anomalous

    @property
    def agrees(self) -> bool:
        """Whether verdict, score and map are the same within the tolerance."""
        return self.same_verdict and self.difference <= TOLERANCE and self.map_difference <= MAP_TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        facts = dict(vars(self))
        for name in ("difference", "map_difference"):
            facts[name] = facts[name] if math.isfinite(facts[name]) else None
        return {**facts, "milliseconds": round(self.milliseconds, 3), "agrees": self.agrees}


@dataclass(frozen=True)
class Parity:
    """All comparisons of a graph with its model."""

    comparisons: Sequence[Comparison]

    @property
    def holds(self) -> bool:
        """Whether all of them agree."""
        return all(comparison.agrees for comparison in self.comparisons)

    @property
    def worst(self) -> Comparison:
        """The comparison that differs most."""
        return max(self.comparisons, key=lambda row: (not row.same_verdict, not row.agrees, row.difference))

    @property
    def changed(self) -> int:
        """How many verdicts the graph changes."""
        return sum(not comparison.same_verdict for comparison in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """Return all as JSON types."""
        return {
            "library": __version__,
            "agrees": self.holds,
            "tolerance": TOLERANCE,
            "map_tolerance": MAP_TOLERANCE,
            "largest_difference": max(row.difference for row in self.comparisons),
            "largest_map_difference": max(row.map_difference for row in self.comparisons),
            "verdicts_changed": self.changed,
            "pictures": [comparison.to_json() for comparison in self.comparisons],
        }


def check_pictures(detector: AnyDetector, picture_size: tuple[int, int] | None) -> Iterator[CheckPicture]:
    """Yield pictures to try a graph on: drawn ones of the sizes of the fit and of others, and learnt ones still there.

    Args:
        detector: whose graph it is.
        picture_size: height and width that the graph takes, if only one.
    """
    learnt = detector.pictures_
    sizes = list({(picture.height, picture.width): None for picture in learnt})
    sizes = [picture_size] if picture_size is not None else sizes[:: max(len(sizes) // _SIZES, 1)][:_SIZES]
    rng = np.random.default_rng(0)
    for height, width in sizes:
        yield CheckPicture(f"noise {width} x {height}", _noise(rng, height, width))
        yield CheckPicture(f"blocks {width} x {height}", _blocks(rng, height, width))
    if picture_size is None:
        height, width = sizes[0]
        for share in (3, 1):
            other = max(height * share // 2, 1), max(width * share // 2, 1)
            yield CheckPicture(f"blocks {other[1]} x {other[0]}", _blocks(rng, *other))
    yield from _learnt_pictures(detector, learnt, picture_size)


def _noise(rng: np.random.Generator, height: int, width: int) -> Image:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _blocks(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a picture of coloured blocks with some noise."""
    coarse = rng.integers(0, 220, (8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    return coarse[rows][:, columns] + rng.integers(0, 36, (height, width, 3), dtype=np.uint8)


def _learnt_pictures(
    detector: AnyDetector, learnt: Sequence[LearntPicture], picture_size: tuple[int, int] | None
) -> Iterator[CheckPicture]:
    """Yield a few pictures of the fit, as far as their files are still what they were."""
    count = 0
    for picture in learnt:
        if count == _LEARNT:
            return
        if picture_size not in (None, (picture.height, picture.width)):
            continue
        try:
            if not Path(picture.path).is_file() or file_sha256(picture.path) != picture.sha256:
                continue
            yield CheckPicture(picture.path, read_image(picture.path, detector.recipe.depth))
        except (OSError, ValueError, PictureError):
            continue
        count += 1


def compare(detector: AnyDetector, runs: Mapping[str, Run], pictures: Iterable[CheckPicture]) -> Parity:
    """Compare a graph with its model.

    Args:
        detector: the model, its backbone in float32.
        runs: what runs the graph, by the runtime's name.
        pictures: to try it on.
    """
    small = _SMALL * abs(detector.threshold_) if math.isfinite(detector.threshold_) else 0.0
    comparisons = []
    for picture in pictures:
        for runtime, run in runs.items():
            comparisons.append(_compared(detector, picture, runtime, run, max(small, 1e-6)))
    return Parity(comparisons)


def _compared(detector: AnyDetector, picture: CheckPicture, runtime: str, run: Run, small: float) -> Comparison:
    began = time.perf_counter()
    graph = run(picture.image)
    milliseconds = 1000 * (time.perf_counter() - began)
    height, width = picture.image.shape[:2]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is no picture of the line
            result = detector.predict(picture.image)
    except PictureError:  # there is no verdict; nor may the graph give one
        differs = math.inf if graph.sound else 0.0
        score = graph.score if graph.sound else None
        return Comparison(
            picture.name,
            width,
            height,
            runtime,
            None,
            score,
            differs,
            0.0,
            None,
            graph.is_anomalous,
            None,
            milliseconds,
        )
    scale = max(float(np.abs(result.anomaly_map).max()), small)
    map_difference = float(np.abs(graph.anomaly_map - result.anomaly_map).max()) / scale
    difference = abs(graph.score - result.score) / max(abs(result.score), small)
    return Comparison(
        picture.name,
        width,
        height,
        runtime,
        result.score,
        graph.score if graph.sound else None,
        difference if graph.sound else math.inf,
        map_difference if graph.sound else math.inf,
        result.is_anomalous,
        graph.is_anomalous,
        _same_nearest(detector, graph, result.nearest.path if result.nearest else None),
        milliseconds,
    )


def _same_nearest(detector: AnyDetector, graph: GraphResult, path: str | None) -> bool | None:
    """Return whether the graph names the good picture that the model names; None where the model names none."""
    if path is None:
        return None
    number = graph.nearest[1]
    return 0 <= number < len(detector.pictures_) and detector.pictures_[number].path == path
