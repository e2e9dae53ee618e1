"""Feature maps -> locally aware patch vectors (PatchCore, section 3.1, eq. 1-3).

Each position of the finest chosen layer becomes one vector: the p x p neighbourhood of every layer is averaged there,
the coarser layers are resized to the finest grid, and all layers are joined. Two descriptors say how:

- `concat` (the default): the layers' channels side by side, as the paper's text and most libraries have it;
- `paper-code`: the 1024 numbers of the authors' published code, which averages channels and neighbourhood together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np

from totalrecall.backbones import Advice, Backbone
from totalrecall.errors import PictureError
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.features.settings import PatchSettings
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LoadedPicture, Source
from totalrecall.system.threads import one_blas_thread, side_by_side
from totalrecall.types import FeatureMap, LayerMap, Matrix, Patches, PatchGrid, PreparedImage, PreparedMask

__all__ = [
    "CODE_DIMENSIONS",
    "PatchExtractor",
    "bilinear_weights",
    "bins_of_code",
    "cells_inside",
    "covered_cells",
    "describe",
    "flatten_grid",
    "locally_aware",
    "patch_grid",
    "repeated_cells",
    "resize_bilinear",
]

_SMALL = 1 << 19  # numbers of a patch grid: 0.4 ms of one core
CODE_DIMENSIONS = 1024  # of each layer, and of the joined vector, in the authors' code

Outcome = TypeVar("Outcome")


class PatchExtractor(FeatureExtractor):
    """Turns pictures into grids of patch vectors.

    Args:
        backbone, recipe, layers, engine, device, precision, threads: see `FeatureExtractor`.
        patch_size: side of the neighbourhood that a patch averages; what the backbone advises if None.
        stride: step of the patch grid.
        descriptor: `concat` or `paper-code`.

    Raises:
        SettingError: the backbone does not have one of the layers.
    """

    def __init__(
        self,
        backbone: Backbone,
        recipe: Recipe,
        *,
        layers: Sequence[int] | None,
        patch_size: int | None = 3,
        stride: int = 1,
        descriptor: str = "concat",
        engine: str = "openvino",
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(
            backbone, recipe, layers=layers, engine=engine, device=device, precision=precision, threads=threads
        )
        patch_size = backbone.advice.patch_size if patch_size is None else patch_size
        self.patch_size, self.stride, self.descriptor = patch_size, stride, descriptor
        self._settings = PatchSettings(patch_size=patch_size, stride=stride, descriptor=descriptor)

    def expected_grid(self) -> tuple[int, int, int]:
        """Return rows, columns and dimensions of the patch grids, computed from the recipe."""
        layers = [layer for layer in self.backbone.layers if layer.name in self.layers]
        side = self.recipe.tile * max(-(-self.recipe.piece // layer.stride) for layer in layers)
        side = len(range((self.stride - 1) // 2, side, self.stride))
        return side, side, self._dimensions(layer.channels for layer in layers)

    def grid_fits(self, grid: tuple[int, int], dimensions: int) -> bool:
        """Return whether these settings can give a grid of this size, with patches of so many dimensions."""
        layers = {layer.name: layer for layer in self.backbone.layers}
        stride = min(layers[name].stride for name in self.layers)
        first, step = (self.stride - 1) // 2, self.stride
        # a map may end with the last whole cell, or with a cell that reaches beyond the edge
        sides = {self.recipe.tile * side for side in (self.recipe.piece // stride, -(-self.recipe.piece // stride))}
        possible = {len(range(first, side, step)) for side in sides}
        return set(grid) <= possible and dimensions == self._dimensions(layers[name].channels for name in self.layers)

    def _dimensions(self, channels: Iterable[int]) -> int:
        """Return how many dimensions a patch has."""
        return sum(channels) if self.descriptor == "concat" else CODE_DIMENSIONS

    def describe(self, prepared: PreparedImage) -> PatchGrid:
        """Return the patch grid (1, rows, columns, d) of one prepared picture, with the lowest delay."""
        return self.grid_of(self.maps(prepared))

    def stream(
        self, sources: Iterable[Source], *, hashes: bool = False
    ) -> Iterator[tuple[LoadedPicture, PatchGrid | None]]:
        """Yield each picture with its patch grid (1, rows, columns, d), in order, with the highest throughput.

        A picture that cannot be read comes in its turn: with its error, and None instead of the grid.
        """
        return self.stream_to(lambda loaded, grid: (loaded, grid), sources, hashes=hashes)

    def stream_to(
        self,
        function: Callable[[LoadedPicture, PatchGrid | None], Outcome],
        sources: Iterable[Source],
        *,
        hashes: bool = False,
    ) -> Iterator[Outcome]:
        """Yield function(picture, patch grid) of each picture in order; several are computed at the same time."""

        def finish(loaded: LoadedPicture, maps: list[LayerMap] | None) -> Outcome:
            return function(loaded, None if maps is None else self.grid_of(maps))

        return self.stream_maps(finish, sources, hashes=hashes)

    def grid_of(self, maps: Sequence[LayerMap]) -> PatchGrid:
        """Return the patch grid (1, rows, columns, d) of a picture's feature maps, one per layer."""
        with one_blas_thread():  # the products are small; two threads next to the engine cost a third of the throughput
            return patch_grid(maps, self._settings)


def describe(
    maps: Sequence[LayerMap], *, patch_size: int = 3, stride: int = 1, descriptor: str = "concat"
) -> PatchGrid:
    """Return the grid of patch vectors, (n, h, w, d) on the finest layer's grid, one for every `stride` positions.

    Args:
        maps: one map per layer, each (n, h_l, w_l, c_l), in the order in which their channels are joined.
        patch_size: p of eq. 1, odd.
        stride: s of eq. 3.
        descriptor: `concat` or `paper-code`.

    Raises:
        SettingError: p is even, s is under 1, or the descriptor is unknown.
    """
    return patch_grid(maps, PatchSettings(patch_size=patch_size, stride=stride, descriptor=descriptor))


def patch_grid(maps: Sequence[LayerMap], settings: PatchSettings) -> PatchGrid:
    """Return what `describe` does, by settings that were checked before."""
    patch_size, stride = settings.patch_size or Advice().patch_size, settings.stride
    finest = max((layer_map.shape[1:3] for layer_map in maps), key=lambda shape: shape[0] * shape[1])
    if settings.descriptor == "concat":
        joined = _concatenated(maps, patch_size, finest)
    else:
        joined = np.concatenate(
            [
                _describe_like_the_code([layer_map[i : i + 1] for layer_map in maps], patch_size, finest)
                for i in range(len(maps[0]))
            ]
        )
    if stride == 1:
        return joined
    first = (stride - 1) // 2  # the middle of each s x s block, so that the coarse grid keeps the picture's centre
    return np.ascontiguousarray(joined[:, first::stride, first::stride])


def _concatenated(maps: Sequence[LayerMap], patch_size: int, finest: tuple[int, int]) -> PatchGrid:
    """Return the layers' averages on the finest grid, side by side.

    Averaging along an axis and interpolating along it are both linear, so one small matrix does both; its products
    write where the channels belong, and nothing is copied.
    """
    ends = np.cumsum([layer_map.shape[3] for layer_map in maps]).tolist()
    joined = np.empty((len(maps[0]), *finest, ends[-1]), np.float32)

    def place(layer: int) -> None:
        _, h, w, c = maps[layer].shape
        rows, columns = locally_aware(h, finest[0], patch_size), locally_aware(w, finest[1], patch_size)
        for picture, out in zip(maps[layer], joined[..., ends[layer] - c : ends[layer]], strict=True):
            tall = rows @ picture.reshape(h, w * c)  # (H, h) @ (h, w*c) -> (H, w*c)
            np.matmul(columns, tall.reshape(finest[0], w, c), out=out)  # (W, w) @ (H, w, c) -> (H, W, c)

    layers = range(len(maps))
    if joined.size > _SMALL:
        side_by_side(place, layers)
    else:  # the workers would be longer on their way
        for layer in layers:
            place(layer)
    return joined


@lru_cache(maxsize=32)
def locally_aware(length: int, target: int, width: int) -> Matrix:
    """Return the (target, length) matrix that averages `width` neighbours along one axis (eq. 2) and interpolates.

    Outside the map counts as zero, as in the authors' code and in anomalib.
    """
    at = np.arange(length)
    average = (np.abs(at[:, None] - at) <= width // 2) / np.float32(width)
    weights = (average if target == length else bilinear_weights(length, target) @ average).astype(np.float32)
    weights.setflags(write=False)
    return weights


def covered_cells(roi: PreparedMask, shape: tuple[int, int]) -> np.ndarray:
    """Return which cells of a patch grid touch the region of interest, (rows, columns)."""
    return cv2.resize(roi.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA) > 0


def cells_inside(roi: PreparedMask | None, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the cells (rows, columns) that touch the region of interest; None where all count.

    Raises:
        PictureError: none does.
    """
    if roi is None:
        return None
    inside = covered_cells(roi, shape)
    if not inside.any():
        raise PictureError(
            "no patch of it lies in the region of interest: the crop hides that. Use resize squash, or draw "
            "another region."
        )
    return inside


def flatten_grid(grid: PatchGrid, roi: PreparedMask | None) -> tuple[Patches, np.ndarray]:
    """Return a grid's (1, rows, columns, d) patches inside the region of interest, and their (row, column)."""
    _, rows, columns, dimensions = grid.shape
    cells = _cells(rows, columns)
    patches = grid.reshape(-1, dimensions)  # (1, rows, columns, d) -> (rows*columns, d)
    if roi is None:
        return patches, cells
    inside = covered_cells(roi, (rows, columns)).ravel()
    return patches[inside], cells[inside]


@lru_cache(maxsize=8)
def _cells(rows: int, columns: int) -> np.ndarray:
    """Return row and column of each cell of a grid, (rows*columns, 2)."""
    cells = np.indices((rows, columns)).reshape(2, -1).T
    cells.setflags(write=False)
    return cells


def resize_bilinear(maps: FeatureMap, size: tuple[int, int]) -> PatchGrid:
    """Resize maps (n, h, w, c) to (n, *size, c), bilinear with pixel centres kept (align_corners=False)."""
    n, h, w, c = maps.shape
    if (h, w) == size:
        return maps
    rows, columns = bilinear_weights(h, size[0]), bilinear_weights(w, size[1])
    tall = rows @ maps.reshape(n, h, w * c)  # (H, h) @ (n, h, w*c) -> (n, H, w*c)
    return columns @ tall.reshape(n, size[0], w, c)  # (W, w) @ (n, H, w, c) -> (n, H, W, c)


def repeated_cells(length: int, target: int) -> np.ndarray:
    """Return which of `length` cells covers each of `target` finer ones: a coarse map laid on a fine grid by repeating.

    The neighbour that `torch.nn.functional.interpolate(mode="nearest")` takes.
    """
    return np.arange(target) * length // target


def bilinear_weights(length: int, target: int) -> Matrix:
    """Return the (target, length) matrix that interpolates one axis."""
    at = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
    low = np.floor(at).astype(int)
    weights = np.zeros((target, length), np.float32)
    weights[np.arange(target), low] = 1 - (at - low)
    weights[np.arange(target), np.minimum(low + 1, length - 1)] += at - low
    return weights


def _describe_like_the_code(maps: Sequence[LayerMap], patch_size: int, finest: tuple[int, int]) -> PatchGrid:
    """Return (1, h, w, 1024) as `patchcore.common.MeanMapper` and `Aggregator` of the authors' code compute it."""
    layers = []
    for layer_map in maps:
        _, h, w, c = layer_map.shape
        half = patch_size // 2
        padded = np.pad(layer_map[0], ((half, half), (half, half), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (patch_size, patch_size), axis=(0, 1))
        flat = windows.reshape(h, w, c * patch_size**2)  # (h, w, c, p, p) -> (h, w, c*p*p): torch.nn.Unfold's order
        # averaging and interpolating are both linear, so the cheaper order of the two gives the same numbers
        layers.append(resize_bilinear(_adaptive_average(flat, CODE_DIMENSIONS)[None], finest))
    return _adaptive_average(np.concatenate(layers, axis=3), CODE_DIMENSIONS)


def bins_of_code(length: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each bin begins and ends that torch's adaptive_avg_pool1d averages: two of (bins,)."""
    return np.arange(bins) * length // bins, -(-(np.arange(1, bins + 1) * length) // bins)  # down, and up


def _adaptive_average(values: np.ndarray, bins: int) -> np.ndarray:
    """Average the last axis into `bins` bins that may overlap by one element (torch's adaptive_avg_pool1d)."""
    length = values.shape[-1]
    first, last = bins_of_code(length, bins)
    sums = np.zeros((*values.shape[:-1], length + 1), np.float64)
    np.cumsum(values, axis=-1, dtype=np.float64, out=sums[..., 1:])
    return ((sums[..., last] - sums[..., first]) / (last - first)).astype(np.float32)
