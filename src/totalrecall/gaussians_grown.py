"""Gaussians that pictures joined or left after the fit, without the pictures of the fit.

The sums of the fit are kept as they were, and beside them the vectors of what joined and left since. The Gaussians are
worked out anew from both. So a step is undone to the bit, which subtracting what was added would not do; a picture that
joined can leave without its file; and a step costs the file its pictures' vectors, not the sums a second time.
"""

from collections.abc import Sequence

import numpy as np

from totalrecall.gaussians import Gaussians
from totalrecall.types import Patches

__all__ = ["Grown"]

_BATCH = 32  # pictures taken in at a time


class Grown(Gaussians):
    """The Gaussians of a fit and of what joined and left since.

    Args:
        fitted: those of the fit, which are not changed.
        joined: float32 (n, positions, d), of the pictures that joined, in their order.
        left: float32 (m, positions, d), of the pictures of the fit that left.

    Raises:
        ValueError: the parts do not fit together, or that which left was never learnt; says which.
    """

    def __init__(self, fitted: Gaussians, joined: np.ndarray, left: np.ndarray) -> None:  # not yet known to fit
        super().__init__(0, fitted.dimensions)
        for name, vectors in (("joined", joined), ("left", left)):
            if vectors.shape[1:] != fitted.mean.shape or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
                raise ValueError(f"gaussians.{name} (wrong shape or type, or not finite)")
        if len(left) >= fitted.count + len(joined):
            raise ValueError("gaussians.left (no picture is left)")
        self.fitted, self.joined, self.left = fitted, joined, left
        self.count, self.mean, self.scatter = fitted.count, fitted.mean, fitted.scatter
        if not len(joined) and not len(left):
            return
        self.mean, self.scatter = fitted.mean.copy(), fitted.scatter.copy()
        for first in range(0, len(joined), _BATCH):
            self.add(joined[first : first + _BATCH])
        for first in range(0, len(left), _BATCH):
            self.remove(left[first : first + _BATCH])
        try:
            if len(left):
                self.whitening  # noqa: B018  what was never learnt leaves sums that have no root
        except np.linalg.LinAlgError:
            raise ValueError("gaussians.left (never learnt)") from None

    @classmethod
    def begun(cls, gaussians: Gaussians) -> "Grown":
        """Return Gaussians as such that nothing joined or left yet, or themselves."""
        if isinstance(gaussians, cls):
            return gaussians
        nothing = np.empty((0, *gaussians.mean.shape), np.float32)
        return cls(gaussians, nothing, nothing)

    def with_joined(self, patches: Sequence[Patches]) -> "Grown":
        """Return the Gaussians once pictures joined, each (positions, d)."""
        return Grown(self.fitted, np.concatenate([self.joined, np.stack(patches)]), self.left)

    def with_left(self, joined: Sequence[int], fitted: Sequence[Patches]) -> "Grown":
        """Return the Gaussians once pictures left: some of those that joined, and some of the fit, (positions, d) each.

        Raises:
            ValueError: no picture would be left, or one of the fit was never learnt.
        """
        left = np.concatenate([self.left, np.stack(fitted)]) if len(fitted) else self.left
        return Grown(self.fitted, np.delete(self.joined, joined, axis=0), left)
