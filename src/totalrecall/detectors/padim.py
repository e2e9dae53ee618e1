"""PaDiM: fit, score, predict, save, load (Defard et al. 2021). The detector; the mathematics is in `gaussians`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.gaussians import Gaussians, Grown, choose_channels, default_channels, embed
from totalrecall.detectors.model_file import Contents
from totalrecall.detectors.one_pass import Inspected, Learner, OnePass
from totalrecall.detectors.settings import PadimSettings
from totalrecall.detectors.state import FitState
from totalrecall.errors import BackboneError, SettingError
from totalrecall.features.patches import cells_inside
from totalrecall.pictures.geometry import Frame
from totalrecall.pictures.loading import LearntPicture
from totalrecall.scoring import PatchDistances
from totalrecall.system.settings import takes
from totalrecall.system.text import counted
from totalrecall.types import LayerMap, Patches

__all__ = ["PaDiM"]


_BATCH = 32  # pictures taken in at a time
_BLOCKS = 64 << 20  # bytes of products


@dataclass(frozen=True, eq=False)
class _Embedding(Inspected):
    """A picture's vectors (positions, d)."""

    patches: Patches


class PaDiM(OnePass[Gaussians, _Embedding]):
    """A Gaussian for each position of the picture; the parts must lie in the same place in all pictures.

    The score of a picture is the largest value of its anomaly map, unless `scoring` is `extent`. Distances are
    Mahalanobis distances: standard deviations, not feature units. There is no nearest good patch, so `Result.nearest`
    is None.

    Examples:
        >>> from totalrecall import PaDiM
        >>> detector = PaDiM(false_alarm_rate=0.2, holdout=0.5).fit("parts/good")
        >>> result = detector.predict("part.png")
        >>> result.nearest is None
        True

    Attributes:
        gaussians_: what was learnt. Of a single good picture it is epsilon I about that picture.
        calibration_, threshold_, pixel_threshold_, report_, skipped_: see `PatchCore`.
    """

    kind = "padim"
    settings: PadimSettings

    @takes(PadimSettings)
    def __init__(self, settings: PadimSettings) -> None:
        """Prepare a detector that has learnt nothing yet.

        Raises:
            SettingError: a setting is outside what is allowed.
            BackboneError: the backbone is not there or cannot be used.
        """
        super().__init__(settings)
        dimensions = settings.dimensions
        total = sum(channels for _, _, channels in self.extractor.shapes())
        if dimensions is not None and dimensions > total:
            raise SettingError(
                f"dimensions must be at most the layers' {total} channels, got {dimensions}.", "dimensions"
            )
        self.channels = choose_channels(total, dimensions or default_channels(total), settings.seed)

    @property
    def gaussians_(self) -> Gaussians:
        """The Gaussians of all positions."""
        return self._fitted().model

    @property
    def _grid(self) -> tuple[int, int]:
        rows, columns, _ = max(self.extractor.shapes())
        return rows, columns

    # ------------------------------------------------------------------ judging

    def _ready(self, model: Gaussians) -> Gaussians:
        assert model.whitening is not None
        return model

    def _features(self, maps: Sequence[LayerMap], frame: Frame) -> _Embedding:
        patches = embed(maps, self.channels)[0].reshape(-1, len(self.channels))  # (1, h, w, d) -> (h*w, d)
        if len(patches) != math.prod(self._grid):
            raise BackboneError(f"Backbone {self.backbone.name} gives another grid than its strides say. Add it again.")
        return _Embedding(cells_inside(frame.prepared_roi, self._grid), patches)

    def _measure(self, model: Gaussians, features: _Embedding) -> PatchDistances:
        with np.errstate(over="ignore", invalid="ignore"):  # `PatchDistances` finds it, and says so
            grid = model.distances(features.patches).reshape(self._grid)
        return PatchDistances(grid if features.inside is None else np.where(features.inside, grid, np.float32(0)))

    # ------------------------------------------------------------------ learning and keeping

    def _learner(self, count: int) -> "_Learner":
        rows, columns = self._grid
        return _Learner(rows * columns, len(self.channels), held=count > 2 and self.settings.holdout > 0)

    def _to_tensors(self, state: FitState[Gaussians]) -> Contents:
        model = state.model
        since: dict[str, np.ndarray] = {}
        if isinstance(model, Grown):  # it is written as it was read, so that the steps of its history can be undone
            since = {"gaussians.joined": model.joined, "gaussians.left": model.left}
            model = model.fitted
        extents = {} if state.extents is None else state.extents.tensors()
        return {}, {
            "gaussians.count": np.array([model.count], np.int32),
            "gaussians.mean": model.mean,
            "gaussians.scatter": model.scatter,
            "gaussians.channels": self.channels.astype(np.int32),
            **{name: vectors for name, vectors in since.items() if len(vectors)},
            **extents,
        }

    def _from_tensors(
        self, contents: Contents, pictures: Sequence[LearntPicture], calibration: Calibration
    ) -> FitState[Gaussians]:
        tensors = contents[1]
        channels, total = tensors["gaussians.channels"], sum(shape[2] for shape in self.extractor.shapes())
        model = Gaussians.of(
            int(tensors["gaussians.count"][0]), tensors["gaussians.mean"], tensors["gaussians.scatter"]
        )
        rows, columns = self._grid
        if (model.positions, model.dimensions) != (rows * columns, len(channels)):
            raise ValueError("gaussians.mean (of another grid)")
        if channels.dtype != np.int32 or (np.diff(channels) < 1).any() or channels[0] < 0 or channels[-1] >= total:
            raise ValueError("gaussians.channels (not ascending channels of the backbone)")
        self.channels = channels.astype(np.int64)
        nothing = np.empty((0, *model.mean.shape), np.float32)
        joined, left = (tensors.get(f"gaussians.{name}", nothing) for name in ("joined", "left"))
        grown = Grown(model, joined, left) if len(joined) or len(left) else model
        if grown.count != len(pictures):
            raise ValueError(f"gaussians.count (of {grown.count} pictures, {len(pictures)} are listed)")
        grown.check_positive()
        extents = self._restored_extents(tensors, calibration, self._grid)
        return FitState(grown, pictures, calibration, extents=extents)

    def facts(self) -> dict[str, Any]:
        """Return what the model holds, as JSON types in reading order."""
        model = self.gaussians_
        return {"positions": model.positions, "dimensions": model.dimensions}

    def summary(self) -> str:
        """Say in one line what was learnt."""
        model, total = self.gaussians_, sum(shape[2] for shape in self.extractor.shapes())
        return (
            f"Gaussians: {model.positions} positions, {model.dimensions} of {total} channels each, "
            f"from {counted(model.count, 'picture')}{self._scored_otherwise()}"
        )


class _Learner(Learner[Gaussians, _Embedding]):
    """Takes pictures in a batch at a time: a product of a batch costs little more than that of a picture.

    Args:
        positions, dimensions: of the Gaussians.
        held: some pictures are held out to set the threshold.
    """

    def __init__(self, positions: int, dimensions: int, *, held: bool) -> None:
        self._size = positions, dimensions
        self._some_held = held
        self._others, self._held = Gaussians(positions, dimensions), Gaussians(0, dimensions)
        self._waiting: list[np.ndarray] = []
        self.smaller = f"It grows with the square of dimensions ({dimensions}) and of size: lower one of them."

    def memory(self) -> tuple[int, int]:
        model, judging = Gaussians.size(*self._size)
        waiting = 4 * _BATCH * math.prod(self._size)
        return model, judging + (model if self._some_held else 0) + 2 * waiting + _BLOCKS

    def add(self, at: int, features: _Embedding) -> None:  # noqa: ARG002  sums have no order
        self._take(self._others, features)

    def so_far(self) -> Gaussians:
        self._empty(self._others)
        return self._others

    def add_held(self, at: int, features: _Embedding) -> None:  # noqa: ARG002
        if not self._held.positions:
            self._held = Gaussians(*self._size)
        self._take(self._held, features)

    def finish(self) -> Gaussians:
        self._empty(self._held if self._held.positions else self._others)
        self._others.merge(self._held)
        return self._others

    def counts(self) -> tuple[int, int, int]:
        positions, dimensions = self._size
        return self._others.count * positions, dimensions, positions

    def _take(self, gaussians: Gaussians, features: _Embedding) -> None:
        self._waiting.append(features.patches)
        if len(self._waiting) == _BATCH:
            self._empty(gaussians)

    def _empty(self, gaussians: Gaussians) -> None:
        if self._waiting:
            gaussians.add(np.stack(self._waiting))
            self._waiting.clear()
