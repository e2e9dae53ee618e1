"""How a detector of one backbone measures a picture: feature maps -> features -> distances -> score and map."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from totalrecall.detectors.base import Detector, Model
from totalrecall.errors import PictureError
from totalrecall.pictures.geometry import Frame
from totalrecall.pictures.loading import LoadedPicture
from totalrecall.scoring import Measurement, NearestPatch, PatchDistances
from totalrecall.types import LayerMap

__all__ = ["Features", "OneBackbone"]

Features = TypeVar("Features")


class OneBackbone(Detector[Model], Generic[Model, Features]):
    """A detector that turns a picture's feature maps into what its model compares, and measures their distances."""

    @abstractmethod
    def _features(self, maps: Sequence[LayerMap], frame: Frame) -> Features:
        """Turn a picture's feature maps, one a layer, each (1, h, w, c), into what the model compares.

        Args:
            maps: of the picture.
            frame: its geometry and region of interest.

        Raises:
            PictureError: nothing of it is left to compare.
        """

    @abstractmethod
    def _distances(self, model: Model, features: Features) -> PatchDistances:
        """Measure one picture against a model.

        Raises:
            PictureError: a distance is no finite number.
        """

    def measure(self, loaded: LoadedPicture, maps: Sequence[LayerMap] | None = None) -> Measurement:
        """Measure one picture; see `Detector.measure`."""
        state, geometry = self._fitted(), loaded.geometry
        assert geometry is not None
        try:
            if maps is None:
                assert loaded.image is not None
                prepared, geometry = self.recipe.prepare(loaded.image)
                maps = self.extractor.maps(prepared)
            frame = self.recipe.frame(geometry)
            distances = self._distances(state.model, self._features(maps, frame))
        except PictureError as error:
            raise PictureError(f"{loaded.path}: {error}") from None
        score, full_map = distances.score_and_map(frame)
        grid, (row, column) = distances.grid.shape, distances.worst_cell
        nearest = None
        if distances.nearest is not None:
            source = state.pictures[distances.nearest[0]]
            place = self.recipe.cell_centre((source.height, source.width), grid, *distances.nearest[1:])
            nearest = NearestPatch(source.path, *place)
        mean, largest = float(distances.grid.mean()), float(distances.grid[row, column])
        return Measurement(score, full_map, mean, largest, geometry.cell_centre(grid, row, column), nearest, frame)
