"""SPADE: fit, score, predict, save, load (Cohen and Hoshen 2020). Wiring; the mathematics is in `gallery`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.base import Measured
from totalrecall.detectors.feature_pyramids import Gallery, pooled
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.one_pass import Learner, OnePass, pyramid_layers
from totalrecall.detectors.settings import SpadeSettings
from totalrecall.errors import DataError, ModelFileError
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.pictures.geometry import Geometry
from totalrecall.pictures.loading import LearntPicture
from totalrecall.scoring import region_level
from totalrecall.system.settings import takes
from totalrecall.system.text import counted
from totalrecall.types import LayerMap

__all__ = ["SPADE"]


@dataclass(frozen=True, eq=False)
class _Pyramid:
    """A picture's feature maps, its pooled features, and the positions that count (None: all)."""

    maps: Sequence[LayerMap]
    pooled: np.ndarray
    inside: np.ndarray | None


class SPADE(OnePass[Gallery, _Pyramid]):
    """Correspondences with the good pictures most like a picture.

    The score of a picture is its mean Euclidean distance to those pictures in pooled features: the mean of the deepest
    layer that the detector uses. (The paper pools the network's last layer; here it is layer 3 unless deeper ones are
    asked for.)
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
        self.layers = pyramid_layers(self.backbone, settings.layers)
        self.settings = replace(settings, backbone=self.backbone.name, layers=self.layers)
        self.extractor = FeatureExtractor(
            self.backbone, self.recipe, layers=self.layers, precision=settings.precision, threads=settings.threads
        )

    @property
    def gallery_(self) -> Gallery:
        """The feature pyramids of the good pictures."""
        return self._fitted()

    @property
    def neighbours_(self) -> int:
        """How many good pictures a picture is compared with."""
        return min(self.settings.neighbours, len(self.gallery_))

    # ------------------------------------------------------------------ judging

    def _digest(self, maps: Sequence[LayerMap], geometry: Geometry) -> _Pyramid:
        deepest = maps[int(np.argmax(self.layers))]
        rows, columns = max(one.shape[1:3] for one in maps)
        inside = self._inside(geometry, (rows, columns))
        return _Pyramid(maps, pooled(deepest, self._inside(geometry, deepest.shape[1:3])), inside)

    def _measure(self, model: Gallery, digest: _Pyramid) -> Measured:
        if [one.shape[1:] for one in digest.maps] != [level.shape[1:] for level in model.levels]:
            raise ModelFileError("The model's gallery is of another grid than its backbone gives. Fit it again.")
        distances, chosen = model.nearest_pictures(digest.pooled, self.settings.neighbours)
        found = model.correspond(digest.maps, chosen)
        grid = found.distances if digest.inside is None else np.where(digest.inside, found.distances, np.float32(0))
        worst = int(grid.argmax())
        row, column = divmod(int(found.cells.flat[worst]), grid.shape[1])
        return Measured(grid, float(distances.mean()), (int(found.pictures.flat[worst]), row, column))

    def _score_alone(self, model: Gallery, digest: _Pyramid, picture: LearntPicture) -> float:  # noqa: ARG002
        return float(model.nearest_pictures(digest.pooled, self.settings.neighbours)[0].mean())  # needs no map

    # ------------------------------------------------------------------ learning and keeping

    def _learner(self, count: int) -> "_Learner":
        return _Learner(count)

    def _sizes(self, count: int) -> tuple[int, int]:
        return Gallery.size(count, self.extractor.shapes())

    def _growth(self) -> tuple[int, int]:
        (each, _), (model, beside) = (Gallery.size(count, self.extractor.shapes()) for count in (1, len(self.gallery_)))
        return 3 * each, model + beside

    def _with(self, model: Gallery, digests: Sequence[_Pyramid]) -> Gallery:
        learner = _Learner(len(digests))
        for at, digest in enumerate(digests):
            learner.add(at, digest)
        return model.with_pictures(learner.finish())

    def _without(self, model: Gallery, leaving: Sequence[int], digests: Mapping[int, _Pyramid]) -> Gallery:  # noqa: ARG002
        return model.without(leaving)

    @property
    def _threshold_follows(self) -> bool:
        return self.calibration_.pictures is not None  # a model of before does not say which they are

    def _followed(self, entered: Sequence[int], leaving: Sequence[int], progress: Progress | None) -> Calibration:
        """Score those that set the threshold again where other pictures are most like them now: the gallery has all.

        As at the fit, they are compared with the pictures that do not set it.
        """
        calibration, gallery, k = self.calibration_, self.gallery_, self.settings.neighbours
        which = calibration.pictures
        if which is None or not len(which):
            return calibration
        others = np.setdiff1d(np.arange(len(gallery)), which)
        before, after = (gallery.among_only(np.setdiff1d(others, fewer)) for fewer in (entered, leaving))
        if not len(after.among):
            raise DataError("No picture would be left beside those that set the threshold. Fit a new model instead.")
        scores, peaks = calibration.scores.copy(), calibration.peaks.copy()
        for row, picture in enumerate(which.tolist()):
            features = gallery.pooled[picture]
            was, now = (one.nearest_pictures(features, k)[1] for one in (before, after))
            if picture not in leaving and not np.array_equal(was, now):
                scores[row], peaks[row] = self._judged_again(after, picture)
            if progress:
                progress("calibration", row + 1, len(which))
        return replace(calibration, scores=scores, peaks=peaks)

    def _judged_again(self, gallery: Gallery, picture: int) -> tuple[float, float]:
        """Return score and level of a picture of the gallery by those that count in it."""
        inside = None if gallery.inside is None else gallery.inside[picture]
        digest = _Pyramid([level[picture][None] for level in gallery.levels], gallery.pooled[picture], inside)
        geometry = self.recipe.geometry(self.pictures_[picture].height, self.pictures_[picture].width)
        score, full_map = self._judged(self._measured(gallery, digest), geometry)
        return score, region_level(full_map, self.settings.min_area)

    def _smaller(self) -> str:
        return "It grows with the pictures and the square of size: give fewer, or lower the size."

    def _counts(self) -> tuple[int, int, int]:
        model = self.gallery_
        patches = len(model) * model.shape[0] * model.shape[1]
        return patches, sum(level.shape[3] for level in model.levels), patches

    def _kept(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        model = self.gallery_
        levels = {f"gallery.layer{layer}": level for layer, level in zip(self.layers, model.levels, strict=True)}
        inside = {} if model.inside is None else {"gallery.inside": model.inside.astype(np.uint8)}
        return {}, {**levels, **inside, "gallery.pooled": model.pooled}

    def _restored(self, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Gallery:  # noqa: ARG002
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
        return Gallery(levels, tensors["gallery.pooled"], None if inside is None else inside.astype(bool)).checked()

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
        patches, dimensions, _ = self._counts()
        return {"neighbours": self.neighbours_, "positions": patches, "dimensions": dimensions}

    def summary(self) -> str:
        """Say in one line what was learnt."""
        fewer = "" if self.neighbours_ == self.settings.neighbours else ", all that there are"
        return (
            f"Gallery: feature pyramids of {counted(len(self.gallery_), 'picture')}; each picture is compared with the "
            f"{self.neighbours_} most like it{fewer}"
        )


class _Learner(Learner[Gallery, _Pyramid]):
    """Keeps each picture's pyramid in the place of its own, in arrays made once: a second copy could be gigabytes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._levels: list[np.ndarray] = []
        self._pooled = np.empty((0, 0), np.float32)
        self._inside: np.ndarray | None = None
        self._places: list[int] = []

    def add(self, at: int, digest: _Pyramid) -> None:
        if not self._levels:
            self._levels = [np.empty((self._count, *one.shape[1:]), np.float32) for one in digest.maps]
            self._pooled = np.zeros((self._count, len(digest.pooled)), np.float32)
            if digest.inside is not None:
                self._inside = np.zeros((self._count, *digest.inside.shape), bool)
        for level, one in zip(self._levels, digest.maps, strict=True):
            level[at] = one[0]
        self._pooled[at] = digest.pooled
        if self._inside is not None:
            self._inside[at] = digest.inside
        self._places.append(at)

    def so_far(self) -> Gallery:
        return Gallery(self._levels, self._pooled, self._inside, among=np.array(sorted(self._places)))

    def add_held(self, at: int, digest: _Pyramid) -> None:
        self.add(at, digest)  # in a place that is not among those of `so_far`

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
