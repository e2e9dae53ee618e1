"""PaDiM's model of good pictures: a Gaussian at each position of the patch grid (Defard et al. 2021, section III).

Every position (i, j) has a vector for each picture: the features of all layers there, the coarser maps repeated on the
finest grid, of which `d` dimensions were drawn at random once and for all. Their mean and covariance

    Sigma_ij = 1 / (N - 1) sum_k (x_ij^k - mu_ij) (x_ij^k - mu_ij)^T + epsilon I        eq. 1, epsilon = 0.01

make the score of a vector its Mahalanobis distance, sqrt((x - mu)^T Sigma^-1 (x - mu))   eq. 2.

The model stores the number of pictures, the means, and the sums of the products above (the scatter). These sums add
up, so pictures can be learnt a few at a time, and more of them later (Chan, Golub and LeVeque 1979). With Sigma = L L^T
the distance is the length of L^-1 (x - mu), so a picture costs one product per position.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from totalrecall.errors import BackboneError
from totalrecall.features.patches import repeated_cells
from totalrecall.system.threads import in_worker, one_blas_thread, renew_in_child, workers
from totalrecall.types import LayerMap, Patches, PatchGrid, PatchStack

__all__ = ["EPSILON", "Gaussians", "Grown", "choose_channels", "default_channels", "embed"]

EPSILON = 0.01  # of eq. 1: it keeps Sigma invertible however few pictures there are
_NARROW = 512  # channels of all layers together: up to here the paper's choice for ResNet-18, beyond WideResNet50-2's
_FEW, _MANY = 100, 550
_BLOCK_FLOATS = 1 << 20  # doubles worked on at once: 8 MB


def default_channels(total: int) -> int:
    """Return how many of all channels the paper keeps: 100 of ResNet-18's 448, 550 of WideResNet50-2's 1792."""
    return min(_FEW if total <= _NARROW else _MANY, total)


def choose_channels(total: int, count: int, seed: int) -> np.ndarray:
    """Return `count` of `total` channels, ascending, drawn without replacement (section III.A)."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def embed(maps: Sequence[LayerMap], channels: np.ndarray) -> PatchGrid:
    """Return the chosen channels of all layers on the finest layer's grid, (n, h, w, d).

    A position takes of each coarser map the cell that it lies in. The paper says "spatially corresponding activation
    vectors"; the public codes repeat cells too. Between cells nothing is made up that no picture had.

    Args:
        maps: one map a layer, each (n, h_l, w_l, c_l).
        channels: (d,) ascending, counted through the layers in the order given.
    """
    h, w = max((layer_map.shape[1:3] for layer_map in maps), key=math.prod)
    out = np.empty((len(maps[0]), h, w, len(channels)), np.float32)
    first = filled = 0
    for layer_map in maps:
        chosen = channels[(channels >= first) & (channels < first + layer_map.shape[3])] - first
        rows, columns = repeated_cells(layer_map.shape[1], h), repeated_cells(layer_map.shape[2], w)
        repeated = layer_map[..., chosen][:, rows[:, None], columns]  # (n, h_l, w_l, d_l) -> (n, h, w, d_l)
        out[..., filled : filled + len(chosen)] = repeated
        first, filled = first + layer_map.shape[3], filled + len(chosen)
    return out


class Gaussians:
    """A mean and a covariance for each of `positions`, of vectors of `dimensions` numbers.

    Attributes:
        count: pictures seen.
        mean: float64 (positions, d).
        scatter: float32 (positions, d * (d + 1) / 2), the upper triangle of each scatter matrix, row by row.
    """

    def __init__(self, positions: int, dimensions: int) -> None:
        self.count = 0
        self.mean = np.zeros((positions, dimensions))
        self.scatter = np.zeros((positions, dimensions * (dimensions + 1) // 2), np.float32)
        self._whitening: np.ndarray | None = None
        self._lock = threading.Lock()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget who held the lock, in a forked child: the thread is gone."""
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the lock and what is worked out at first use."""
        return {name: value for name, value in vars(self).items() if name not in ("_whitening", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _whitening=None, _lock=threading.Lock())
        renew_in_child(self)

    @classmethod
    def of(cls, count: int, mean: np.ndarray, scatter: np.ndarray) -> "Gaussians":
        """Return what was kept as it was.

        Raises:
            ValueError: the parts do not fit together; says which.
        """
        if mean.ndim != 2 or mean.dtype != np.float64 or not mean.size or not np.isfinite(mean).all():
            raise ValueError("gaussians.mean (empty, wrong type, or not finite)")
        positions, d = mean.shape
        if scatter.shape != (positions, d * (d + 1) // 2) or scatter.dtype != np.float32:
            raise ValueError("gaussians.scatter (wrong shape or type)")
        if count < 1 or not np.isfinite(scatter).all():
            raise ValueError("gaussians.scatter (not finite, or of no picture)")
        gaussians = cls(0, d)
        gaussians.count, gaussians.mean, gaussians.scatter = count, mean, scatter
        return gaussians

    @staticmethod
    def size(positions: int, dimensions: int) -> tuple[int, int]:
        """Return the bytes that the model stores, and the bytes that judging needs in addition."""
        d = dimensions
        return positions * (8 * d + 2 * d * (d + 1)), 4 * positions * d * d

    @property
    def positions(self) -> int:
        """How many positions there are."""
        return len(self.mean)

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return int(self.mean.shape[1])

    # ------------------------------------------------------------------ learning

    def add(self, patches: PatchStack) -> None:
        """Take in more pictures, (n, positions, d)."""
        self._take(patches, len(patches))

    def remove(self, patches: PatchStack) -> None:
        """Take pictures (n, positions, d) out again, fewer than all; the result is exact up to rounding."""
        self._take(patches, -len(patches))

    def _take(self, patches: PatchStack, count: int) -> None:
        """Add the sums of pictures, or with a negative count subtract them."""
        if not count:
            return
        sign = np.sign(count)

        def block(part: slice) -> None:
            rows = patches[:, part].transpose(1, 0, 2).astype(np.float64)  # (n, b, d) -> (b, n, d)
            mean = rows.mean(axis=1)
            rows -= mean[:, None]
            scatter = sign * (rows.transpose(0, 2, 1) @ rows)  # (b, d, n) @ (b, n, d) -> (b, d, d)
            self._merge(part, count, mean, scatter)

        self._in_blocks(block, self.dimensions * (self.dimensions + len(patches)))
        self.count, self._whitening = self.count + count, None

    def merge(self, other: "Gaussians") -> None:
        """Take in what another has seen."""
        if not other.count:
            return

        def block(part: slice) -> None:
            self._merge(part, other.count, other.mean[part], other.full_scatter(part))

        self._in_blocks(block, 2 * self.dimensions**2)
        self.count, self._whitening = self.count + other.count, None

    def _merge(self, part: slice, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Add the sums of `count` other pictures, (b, d) and (b, d, d), at some positions; `self.count` is the old.

        With a negative count and a negative scatter the same equation takes pictures out again.
        """
        apart = mean - self.mean[part]
        share = count / (self.count + count)
        # between the two means lies scatter of its own: Chan et al., eq. 2.1
        scatter += (self.count * share) * apart[:, :, None] * apart[:, None, :]
        rows, columns = np.triu_indices(self.dimensions)
        self.scatter[part] += scatter[:, rows, columns]
        self.mean[part] += share * apart

    # ------------------------------------------------------------------ judging

    def covariance(self, part: slice = slice(None)) -> np.ndarray:
        """Return Sigma of eq. 1 at some positions, float64 (b, d, d); of a single picture it is epsilon I."""
        covariance = self.full_scatter(part) / max(self.count - 1, 1)
        diagonal = np.arange(self.dimensions)
        covariance[:, diagonal, diagonal] += EPSILON
        return covariance

    def distances(self, patches: Patches) -> np.ndarray:
        """Return the Mahalanobis distance (positions,) of a picture's vectors (positions, d) to their Gaussians."""
        apart = (patches - self.mean).astype(np.float32)
        with one_blas_thread():
            white = self.whitening @ apart[:, :, None]  # (p, d, d) @ (p, d, 1) -> (p, d, 1)
        return np.sqrt(np.einsum("pdk,pdk->p", white, white))

    @property
    def whitening(self) -> np.ndarray:
        """L^-1 of Sigma = L L^T for each position, float32 (positions, d, d); worked out at first use."""
        with self._lock:
            if self._whitening is None:
                self._whitening = self._whiten()
            return self._whitening

    def check_positive(self) -> None:
        """Raise ValueError unless each covariance has a Cholesky root, as that of real pictures has."""

        def block(part: slice) -> None:
            np.linalg.cholesky(self.covariance(part))

        try:
            if self._whitening is None:
                self._in_blocks(block, 4 * self.dimensions**2)
        except np.linalg.LinAlgError:
            raise ValueError("gaussians.scatter (of no pictures: it has no root)") from None

    def _whiten(self) -> np.ndarray:
        whitening = np.empty((self.positions, self.dimensions, self.dimensions), np.float32)

        def block(part: slice) -> None:
            whitening[part] = _inverse_of_triangles(np.linalg.cholesky(self.covariance(part)))

        try:
            self._in_blocks(block, 4 * self.dimensions**2)
        except np.linalg.LinAlgError:
            largest = float(np.abs(self.mean).max())
            raise BackboneError(
                f"The backbone's features, of up to {largest:.3g}, leave no covariance that has a root; PaDiM needs "
                "features of a usual size, such as 1. Use another backbone, or --method patchcore."
            ) from None
        return whitening

    def full_scatter(self, part: slice) -> np.ndarray:
        """Return scatter matrices with both their triangles, float64 (b, d, d)."""
        rows, columns = np.triu_indices(self.dimensions)
        packed = self.scatter[part]
        full = np.empty((len(packed), self.dimensions, self.dimensions))
        full[:, rows, columns] = packed
        full[:, columns, rows] = packed
        return full

    def _in_blocks(self, function: Callable[[slice], None], floats: int) -> None:
        """Call the function on all positions, a block at a time, on all cores; it needs so many numbers a position."""
        step = max(_BLOCK_FLOATS // floats, 1)
        parts = [slice(first, first + step) for first in range(0, self.positions, step)]
        with one_blas_thread():
            for _ in map(function, parts) if in_worker() else workers().map(function, parts):
                pass


def _inverse_of_triangles(lower: np.ndarray) -> np.ndarray:
    """Return the inverses of lower triangular matrices (b, d, d).

    By halves, [[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]]: nearly all of it is products, and it takes a
    sixth of the arithmetic of `numpy.linalg.inv`, which does not know that they are triangles.
    """
    d = lower.shape[-1]
    if d <= 16:
        return np.linalg.inv(lower)
    half = d // 2
    out = np.zeros_like(lower)
    out[:, :half, :half] = _inverse_of_triangles(lower[:, :half, :half])
    out[:, half:, half:] = _inverse_of_triangles(lower[:, half:, half:])
    out[:, half:, :half] = -(out[:, half:, half:] @ (lower[:, half:, :half] @ out[:, :half, :half]))
    return out


_BATCH = 32  # pictures taken in at a time


class Grown(Gaussians):
    """The Gaussians of a fit and of what joined and left since: older versions could update a PaDiM so.

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
        if len(left):
            try:
                self.check_positive()  # what was never learnt leaves sums that have no root
            except ValueError:
                raise ValueError("gaussians.left (never learnt)") from None
