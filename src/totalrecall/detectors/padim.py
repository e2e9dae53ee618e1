"""PaDiM: fit, score, predict, save, load (Defard et al. 2021). Wiring; the mathematics is in `gaussians`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from totalrecall.detectors.base import Measured
from totalrecall.detectors.gaussians import Gaussians, Grown, choose_channels, default_channels, embed
from totalrecall.detectors.one_pass import Learner, OnePass, pyramid_layers
from totalrecall.detectors.settings import PadimSettings
from totalrecall.errors import BackboneError, DataError, SettingError
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.pictures.geometry import Geometry
from totalrecall.system.settings import takes
from totalrecall.system.text import counted
from totalrecall.types import LayerMap, Patches

__all__ = ["PaDiM"]


_BATCH = 32  # pictures taken in at a time
_BLOCKS = 64 << 20  # bytes of products


@dataclass(frozen=True, eq=False)
class _Embedding:
    """A picture's vectors (positions, d), and which positions (rows, columns) count (None: all)."""

    patches: Patches
    inside: np.ndarray | None


class PaDiM(OnePass[Gaussians, _Embedding]):
    """A Gaussian for each position of the picture; the parts must lie in the same place in all pictures.

    The score of a picture is the largest value of its anomaly map. Distances are Mahalanobis distances: standard
    deviations, not feature units. There is no nearest good patch, so `Result.nearest` is None.

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
        layers = pyramid_layers(self.backbone, settings.layers)
        self.settings = replace(settings, backbone=self.backbone.name, layers=layers)
        self.extractor = FeatureExtractor(
            self.backbone, self.recipe, layers=layers, precision=settings.precision, threads=settings.threads
        )
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
        return self._fitted()

    def _ready(self, model: Gaussians) -> Gaussians:
        assert model.whitening is not None
        return model

    # ------------------------------------------------------------------ judging

    def _digest(self, maps: Sequence[LayerMap], geometry: Geometry) -> _Embedding:
        patches = embed(maps, self.channels)[0].reshape(-1, len(self.channels))  # (1, h, w, d) -> (h*w, d)
        if len(patches) != math.prod(self._grid):
            raise BackboneError(f"Backbone {self.backbone.name} gives another grid than its strides say. Add it again.")
        return _Embedding(patches, self._inside(geometry, self._grid))

    def _measure(self, model: Gaussians, digest: _Embedding) -> Measured:
        grid = model.distances(digest.patches).reshape(self._grid)
        return Measured(grid if digest.inside is None else np.where(digest.inside, grid, np.float32(0)))

    @property
    def _grid(self) -> tuple[int, int]:
        rows, columns, _ = max(self.extractor.shapes())
        return rows, columns

    # ------------------------------------------------------------------ learning and keeping

    def _learner(self, count: int) -> "_Learner":  # noqa: ARG002  sums are of one size
        rows, columns = self._grid
        return _Learner(Gaussians(rows * columns, len(self.channels)))

    def _sizes(self, count: int) -> tuple[int, int]:
        rows, columns = self._grid
        kept, beside = Gaussians.size(rows * columns, len(self.channels))
        waiting = 4 * _BATCH * rows * columns * len(self.channels)
        held = kept if count > 2 and self.settings.holdout else 0
        return kept, beside + held + 2 * waiting + _BLOCKS

    def _growth(self) -> tuple[int, int]:
        model = self.gaussians_
        return 3 * 4 * model.positions * model.dimensions, 2 * sum(Gaussians.size(model.positions, model.dimensions))

    def _with(self, model: Gaussians, digests: Sequence[_Embedding]) -> Gaussians:
        return Grown.begun(model).with_joined([one.patches for one in digests])

    def _without(self, model: Gaussians, leaving: Sequence[int], digests: Mapping[int, _Embedding]) -> Gaussians:
        first = self._first_joined
        joined = [at - first for at in leaving if at >= first]
        try:
            return Grown.begun(model).with_left(joined, [digests[at].patches for at in leaving if at < first])
        except ValueError as error:
            raise DataError(f"The pictures cannot be subtracted: {error}. Fit a new model instead.") from None

    def _must_be_read(self, picture: int) -> bool:
        return picture < self._first_joined

    @property
    def _first_joined(self) -> int:
        """The first of the pictures that joined after the fit: of those before it there are only sums."""
        model = self.gaussians_
        return len(self.pictures_) - (len(model.joined) if isinstance(model, Grown) else 0)

    def _smaller(self) -> str:
        return f"It grows with the square of dimensions ({len(self.channels)}) and of size: lower one of them."

    def _counts(self) -> tuple[int, int, int]:
        model = self.gaussians_
        return model.count * model.positions, model.dimensions, model.positions

    def _kept(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        model = Grown.begun(self.gaussians_)
        since = {"gaussians.joined": model.joined, "gaussians.left": model.left}
        return {}, {
            "gaussians.count": np.array([model.fitted.count], np.int32),
            "gaussians.mean": model.fitted.mean,
            "gaussians.scatter": model.fitted.scatter,
            "gaussians.channels": self.channels.astype(np.int32),
            **{name: vectors for name, vectors in since.items() if len(vectors)},
        }

    def _restored(self, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Gaussians:  # noqa: ARG002
        channels, total = tensors["gaussians.channels"], sum(one[2] for one in self.extractor.shapes())
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
        if grown.count != len(self._pictures):
            raise ValueError(f"gaussians.count (of {grown.count} pictures, {len(self._pictures)} are listed)")
        grown.check_positive()
        return grown

    def facts(self) -> dict[str, Any]:
        """Return what the model holds, as JSON types in reading order."""
        model = self.gaussians_
        return {"positions": model.positions, "dimensions": model.dimensions}

    def summary(self) -> str:
        """Say in one line what was learnt."""
        model, total = self.gaussians_, sum(one[2] for one in self.extractor.shapes())
        return (
            f"Gaussians: {model.positions} positions, {model.dimensions} of {total} channels each, "
            f"from {counted(model.count, 'picture')}"
        )


class _Learner(Learner[Gaussians, _Embedding]):
    """Takes pictures in a batch at a time: a product of a batch costs little more than that of a picture."""

    def __init__(self, others: Gaussians) -> None:
        self._others = others
        self._held = Gaussians(0, others.dimensions)
        self._waiting: list[np.ndarray] = []

    def add(self, at: int, digest: _Embedding) -> None:  # noqa: ARG002  sums have no order
        self._take(self._others, digest)

    def so_far(self) -> Gaussians:
        self._empty(self._others)
        return self._others

    def add_held(self, at: int, digest: _Embedding) -> None:  # noqa: ARG002
        if not self._held.positions:
            self._held = Gaussians(self._others.positions, self._others.dimensions)
        self._take(self._held, digest)

    def finish(self) -> Gaussians:
        self._empty(self._held if self._held.positions else self._others)
        self._others.merge(self._held)
        return self._others

    def _take(self, gaussians: Gaussians, digest: _Embedding) -> None:
        self._waiting.append(digest.patches)
        if len(self._waiting) == _BATCH:
            self._empty(gaussians)

    def _empty(self, gaussians: Gaussians) -> None:
        if self._waiting:
            gaussians.add(np.stack(self._waiting))
            self._waiting.clear()
