"""The memory bank M: patch vectors of good pictures, and where each came from; what a detector holds of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from totalrecall.detectors.state import FitState
from totalrecall.patchcore.calibration_patches import CalibrationPatches, Coverage
from totalrecall.pictures.loading import LearntPicture
from totalrecall.search.exact import ExactSearch
from totalrecall.search.levels import principal_basis
from totalrecall.types import Distances, Indices, Matrix, Patches

__all__ = ["Bank", "BankState"]


@dataclass(frozen=True, eq=False)
class Bank:
    """Vectors in the order of selection, so that a prefix of the bank is itself a coreset.

    Attributes:
        vectors: (m, d) float32.
        origin: int32 (m, 3): index into `pictures`, row and column on the patch grid.
        pictures: the pictures that the vectors came from.
        basis: directions that `search` prunes by, or None for it to find them.
        levels: how many of them its bounds take, or None for all; of two, as older models have, the last counts.
    """

    vectors: Patches
    origin: np.ndarray
    pictures: Sequence[LearntPicture]
    basis: Matrix | None = field(default=None, repr=False)
    levels: tuple[int, ...] | None = None

    def checked(self) -> "Bank":
        """Return the bank itself once its parts are known to fit together.

        Raises:
            ValueError: they do not; says which.
        """
        m, d = self.vectors.shape
        if self.vectors.dtype != np.float32 or not m or not np.isfinite(self.vectors).all():
            raise ValueError("bank.vectors (empty, not float32, or not finite)")
        if self.origin.shape != (m, 3) or self.origin.dtype != np.int32 or self.origin.min() < 0:
            raise ValueError("bank.origin (wrong shape, type or sign)")
        if self.origin[:, 0].max() >= len(self.pictures):
            raise ValueError("bank.origin (names a picture that is not listed)")
        if self.basis is not None and (self.basis.shape[0] != d or self.basis.dtype != np.float32):
            raise ValueError("bank.basis (wrong shape or type)")
        levels = self.levels or ()
        if len(levels) > 2 or list(levels) != sorted(set(levels)) or (levels and levels[0] < 1):
            raise ValueError("search.levels (not up to two rising numbers)")
        if levels and (self.basis is None or self.basis.shape[1] != levels[-1]):
            raise ValueError("search.levels (not those of bank.basis)")
        return self

    def with_levels(self, levels: Sequence[int]) -> "Bank":
        """Return the same bank, searched in other dimensions: the same answers, sooner or later."""
        if levels and levels == self.levels:
            return self
        basis = principal_basis(self.vectors, levels[-1]) if levels else None
        return replace(self, basis=basis, levels=tuple(levels))

    def __len__(self) -> int:
        return len(self.vectors)

    def count_vectors(self, picture: int) -> int:
        """Return how many of the vectors came from a picture, by its number."""
        return int(np.count_nonzero(self.origin[:, 0] == picture))

    @cached_property
    def search(self) -> ExactSearch:
        """The search structure, built at first use and kept."""
        return ExactSearch(self.vectors, self.basis, self.levels)

    def nearest(self, queries: Patches, k: int = 1) -> tuple[Distances, Indices]:
        """Return Euclidean distances (q, k), ascending, and bank indices (q, k)."""
        return self.search.nearest(queries, k)

    def neighbours(self, index: int, k: int) -> Indices:
        """Return the indices (1, k) of the k vectors nearest to a bank vector, itself the first (N_b of eq. 7)."""
        return self.nearest(self.vectors[index : index + 1], min(k, len(self)))[1]


@dataclass(frozen=True, eq=False)
class BankState(FitState[Bank]):
    """What a `PatchCore` holds: the bank is its `model`; an update makes another state.

    Attributes:
        patches: what is kept of the good pictures so that the threshold can follow the bank; None in older models.
        coverage: what the coreset covered at the fit; None where that is not known.
    """

    patches: CalibrationPatches | None = None
    coverage: Coverage | None = None

    def __len__(self) -> int:
        return len(self.model)

    @property
    def bank(self) -> Bank:
        """The memory bank."""
        return self.model
