"""SPADE: fit, score, predict, save, load (Cohen and Hoshen 2020). The detector; the mathematics is in
`feature_pyramids`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.feature_pyramids import Gallery, pooled
from totalrecall.detectors.model_file import Contents
from totalrecall.detectors.one_pass import Inspected, Learner, OnePass
from totalrecall.detectors.settings import SpadeSettings
from totalrecall.detectors.state import FitState
from totalrecall.errors import ModelFileError
from totalrecall.features.patches import cells_inside
from totalrecall.pictures.geometry import Frame
from totalrecall.pictures.loading import LearntPicture
from totalrecall.scoring import PatchDistances
from totalrecall.system.settings import takes
from totalrecall.system.text import counted
from totalrecall.types import LayerMap

__all__ = ["SPADE"]


@dataclass(frozen=True, eq=False)
class _Pyramid(Inspected):
    """A picture's feature maps, and its pooled features."""

    maps: Sequence[LayerMap]
    pooled: np.ndarray


class SPADE(OnePass[Gallery, _Pyramid]):
    """Correspondences with the good pictures most like a picture.

    The score of a picture is its mean Euclidean distance to those pictures in pooled features, the mean of the deepest
    layer that the detector uses, unless `scoring` is `extent`. (The paper pools the network's last layer; here it is
    layer 3 unless deeper ones are asked for.)
    The anomaly map holds the distance of each position to the nearest of all positions of those pictures, by the
    features of all layers.

    Examples:
        >>> from totalrecall import SPADE
        >>> detector = SPADE(neighbours=3, false_alarm_rate=0.2, holdout=0.5).fit("parts/good")
        >>> detector.neighbours_
        3
        >>> detector.predict("part.png").anomaly_map.shape
        (96, 96)

    Attributes:
        gallery_: the feature pyramids of the good pictures.
        neighbours_: how many of them are looked at.
        calibration_, threshold_, pixel_threshold_, report_, skipped_: see `PatchCore`.
    """

    kind = "spade"
    settings: SpadeSettings

    @takes(SpadeSettings)
    def __init__(self, settings: SpadeSettings) -> None:
        """Prepare a detector that has learnt nothing yet.

        Raises:
            SettingError: a setting is outside what is allowed.
            BackboneError: the backbone is not there or cannot be used.
        """
        super().__init__(settings)

    @property
    def gallery_(self) -> Gallery:
        """The feature pyramids of the good pictures."""
        return self._fitted().model

    @property
    def neighbours_(self) -> int:
        """How many good pictures a picture is compared with."""
        return min(self.settings.neighbours, len(self.gallery_))

    # ------------------------------------------------------------------ judging

    def _features(self, maps: Sequence[LayerMap], frame: Frame) -> _Pyramid:
        deepest, roi = maps[int(np.argmax(self.layers))], frame.prepared_roi
        rows, columns = max(layer.shape[1:3] for layer in maps)
        inside = cells_inside(roi, (rows, columns))
        return _Pyramid(inside, maps, pooled(deepest, cells_inside(roi, deepest.shape[1:3])))

    def _measure(self, model: Gallery, features: _Pyramid) -> PatchDistances:
        if [layer.shape[1:] for layer in features.maps] != [level.shape[1:] for level in model.levels]:
            raise ModelFileError("The model's gallery is of another grid than its backbone gives. Fit it again.")
        with np.errstate(over="ignore", invalid="ignore"):  # `PatchDistances` finds it, and says so
            distances, chosen = model.nearest_pictures(features.pooled, self.settings.neighbours)
            correspondences = model.correspond(features.maps, chosen)
        inside = features.inside
        grid = (
            correspondences.distances if inside is None else np.where(inside, correspondences.distances, np.float32(0))
        )
        worst = int(grid.argmax())
        row, column = divmod(int(correspondences.cells.flat[worst]), grid.shape[1])
        return PatchDistances(grid, float(distances.mean()), (int(correspondences.pictures.flat[worst]), row, column))

    # ------------------------------------------------------------------ learning and keeping

    def _learner(self, count: int) -> "_Learner":
        return _Learner(count, self.extractor.shapes())

    def _to_tensors(self, state: FitState[Gallery]) -> Contents:
        model = state.model
        levels = {f"gallery.layer{layer}": level for layer, level in zip(self.layers, model.levels, strict=True)}
        inside = {} if model.inside is None else {"gallery.inside": model.inside.astype(np.uint8)}
        extents = {} if state.extents is None else state.extents.tensors()
        return {}, {**levels, **inside, "gallery.pooled": model.pooled, **extents}

    def _from_tensors(
        self, contents: Contents, pictures: Sequence[LearntPicture], calibration: Calibration
    ) -> FitState[Gallery]:
        tensors = contents[1]
        levels = [tensors[f"gallery.layer{layer}"] for layer in self.layers]
        inside = tensors.get("gallery.inside")
        listed = {name for name in tensors if name.startswith("gallery.layer")}
        if len(listed) != len(levels):
            raise ValueError(f"{max(listed)} is of no layer of the settings")
        self._check_shapes(levels, tensors["gallery.pooled"].shape[1])
        if (inside is None) != (self.recipe.roi is None):
            raise ValueError("gallery.inside is there, or is missing, other than recipe.roi")
        if inside is not None and not inside.any(axis=(1, 2)).all():
            raise ValueError("gallery.inside has a picture without any position")
        gallery = Gallery(levels, tensors["gallery.pooled"], None if inside is None else inside.astype(bool))
        rows, columns = max(level.shape[1:3] for level in levels)
        extents = self._restored_extents(tensors, calibration, (rows, columns))
        return FitState(gallery.checked(), pictures, calibration, extents=extents)

    def _check_shapes(self, levels: Sequence[np.ndarray], pooled: int) -> None:
        """Raise ValueError unless the levels are of the shapes that the settings give."""
        shapes = self.extractor.shapes()
        for layer, level, (rows, columns, channels) in zip(self.layers, levels, shapes, strict=True):
            # a map may end with the last whole cell, where the plan counts one that stands over the edge
            fits = all(
                0 <= most - size <= self.recipe.tile
                for size, most in zip(level.shape[1:3], (rows, columns), strict=True)
            )
            if not fits or level.shape[3] != channels:
                raise ValueError(f"gallery.layer{layer} is of shape {level.shape}, not {(rows, columns, channels)}")
        deepest = shapes[int(np.argmax(self.layers))][2]
        if pooled != deepest:
            raise ValueError(f"gallery.pooled has {pooled} numbers a picture, the deepest layer {deepest}")

    def facts(self) -> dict[str, Any]:
        """Return what the model holds, as JSON types in reading order."""
        positions, dimensions = self.gallery_.counts()
        return {"neighbours": self.neighbours_, "positions": positions, "dimensions": dimensions}

    def summary(self) -> str:
        """Say in one line what was learnt."""
        fewer = "" if self.neighbours_ == self.settings.neighbours else ", all that there are"
        return (
            f"Gallery: feature pyramids of {counted(len(self.gallery_), 'picture')}; each picture is compared with the "
            f"{self.neighbours_} most like it{fewer}{self._scored_otherwise()}"
        )


class _Learner(Learner[Gallery, _Pyramid]):
    """Keeps each picture's pyramid in the place of its own, in arrays made once: a second copy could be gigabytes.

    Args:
        count: of pictures, at most.
        shapes: rows, columns and channels of each layer's map.
    """

    smaller = "It grows with the pictures and the square of size: give fewer, or lower the size."

    def __init__(self, count: int, shapes: Sequence[tuple[int, int, int]]) -> None:
        self._count, self._shapes = count, shapes
        self._levels: list[np.ndarray] = []
        self._pooled = np.empty((0, 0), np.float32)
        self._inside: np.ndarray | None = None
        self._places: list[int] = []

    def memory(self) -> tuple[int, int]:
        return Gallery.size(self._count, self._shapes)

    def add(self, at: int, features: _Pyramid) -> None:
        if not self._levels:
            self._levels = [np.empty((self._count, *layer_map.shape[1:]), np.float32) for layer_map in features.maps]
            self._pooled = np.zeros((self._count, len(features.pooled)), np.float32)
            if features.inside is not None:
                self._inside = np.zeros((self._count, *features.inside.shape), bool)
        for level, layer_map in zip(self._levels, features.maps, strict=True):
            level[at] = layer_map[0]
        self._pooled[at] = features.pooled
        if self._inside is not None:
            self._inside[at] = features.inside
        self._places.append(at)

    def so_far(self) -> Gallery:
        return Gallery(self._levels, self._pooled, self._inside, among=np.array(sorted(self._places)))

    def add_held(self, at: int, features: _Pyramid) -> None:
        self.add(at, features)  # in a place that is not among those of `so_far`

    def finish(self) -> Gallery:
        """Return all pictures in the order given, those that could not be read closed up."""
        places = sorted(self._places)
        for to, place in enumerate(places):
            if to != place:
                for array in (*self._levels, self._pooled, *([] if self._inside is None else [self._inside])):
                    array[to] = array[place]
        n = len(places)
        inside = None if self._inside is None else self._inside[:n]
        return Gallery([level[:n] for level in self._levels], self._pooled[:n], inside)

    def counts(self) -> tuple[int, int, int]:
        rows, columns = max(level.shape[1:3] for level in self._levels)
        positions = len(self._places) * rows * columns
        return positions, sum(level.shape[3] for level in self._levels), positions
