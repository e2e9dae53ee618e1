"""Pictures -> patch grids: the first three steps of the road in a row, decoding ahead of the engine."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from totalrecall.backbones import Backbone
from totalrecall.engines import Engine, open_engine
from totalrecall.errors import SettingError
from totalrecall.images import LoadedPicture, Recipe, Source, load_pictures
from totalrecall.patches import describe
from totalrecall.settings import Settings
from totalrecall.threads import one_blas_thread
from totalrecall.types import LayerMap, PatchGrid, PreparedImage

__all__ = ["PatchExtractor"]


class PatchExtractor:
    """Turns pictures into grids of patch vectors.

    Args:
        backbone: the frozen graph.
        recipe: how pictures are prepared.
        settings: layers, patch size, stride, descriptor, precision.
        threads: of the engine; all cores if not given.

    Raises:
        SettingError: the backbone does not have a layer asked for.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, settings: Settings, *, threads: int | None = None) -> None:
        names = [layer.name for layer in backbone.layers]
        self.layers = tuple(f"layer{number}" for number in settings.layers)
        for number, name in zip(settings.layers, self.layers, strict=True):
            if name not in names:
                has = " ".join(one.removeprefix("layer") for one in names)
                raise SettingError(f"layers: backbone {backbone.name} has no layer {number}. It has: {has}.")
        self.backbone = backbone
        self.recipe = recipe
        self.settings = settings
        self.threads = threads

    @cached_property
    def engine(self) -> Engine:
        """The engine, opened at first use: reading a model's facts needs none."""
        return open_engine(self.backbone, self.layers, precision=self.settings.precision, threads=self.threads)

    def describe(self, prepared: PreparedImage) -> PatchGrid:
        """Return the patch grid (1, rows, columns, d) of one prepared picture, as soon as possible."""
        if self.recipe.tile == 1:
            return self._describe(self.engine.run(prepared[None]))
        return self._describe(self._join([self.engine.run(piece[None]) for piece in self._pieces(prepared)]))

    def stream(
        self, sources: Iterable[Source], *, hashes: bool = False
    ) -> Iterator[tuple[LoadedPicture, PatchGrid | None]]:
        """Yield each picture with its patch grid (1, rows, columns, d), in order, as many a second as possible.

        A picture that cannot be read comes in its turn, with its error and None.
        """
        waiting: deque[LoadedPicture] = deque()

        def readable() -> Iterator[tuple[LoadedPicture, PreparedImage]]:
            for loaded in load_pictures(sources, self.recipe, hashes=hashes):
                waiting.append(loaded)
                if loaded.prepared is not None:
                    for piece in self._pieces(loaded.prepared):
                        yield loaded, piece

        pieces: list[dict[str, LayerMap]] = []
        for loaded, maps in self.engine.stream(readable()):
            pieces.append(maps)
            if len(pieces) < self.recipe.tile**2:
                continue
            while waiting[0] is not loaded:  # those before it could not be read
                yield waiting.popleft(), None
            yield waiting.popleft(), self._describe(self._join(pieces))
            pieces = []
        while waiting:
            yield waiting.popleft(), None

    def _pieces(self, prepared: PreparedImage) -> list[np.ndarray]:
        """Cut a prepared picture into the squares that the backbone sees, row by row; itself alone unless tiled."""
        count, side = self.recipe.tile, self.recipe.piece
        if count == 1:
            return [prepared]
        rows = prepared.reshape(count, side, count, side, 3).swapaxes(1, 2)  # (T*s, T*s, 3) -> (T, T, s, s, 3)
        return [np.ascontiguousarray(piece) for piece in rows.reshape(-1, side, side, 3)]

    def _join(self, pieces: list[dict[str, LayerMap]]) -> dict[str, LayerMap]:
        """Lay the pieces' feature maps side by side again: T*T of (1, h, w, c) -> (1, T*h, T*w, c) a layer."""
        if len(pieces) == 1:
            return pieces[0]
        count = self.recipe.tile
        joined = {}
        for name in self.layers:
            _, h, w, c = pieces[0][name].shape
            grid = np.concatenate([piece[name] for piece in pieces]).reshape(count, count, h, w, c)
            joined[name] = grid.swapaxes(1, 2).reshape(1, count * h, count * w, c)
        return joined

    def _describe(self, maps: dict[str, LayerMap]) -> PatchGrid:
        with one_blas_thread():  # its products are small; beside the engine two threads cost a third of the rate
            return describe(
                [maps[name] for name in self.layers],
                patch_size=self.settings.patch_size,
                stride=self.settings.stride,
                descriptor=self.settings.descriptor,
            )
