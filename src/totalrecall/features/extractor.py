"""Pictures -> feature maps. Pictures are decoded while the engine works on earlier ones."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import cv2
import numpy as np

from totalrecall.backbones import Backbone
from totalrecall.backbones.position import at_size
from totalrecall.backbones.quantize import is_quantized
from totalrecall.engines import Engine, open_engine
from totalrecall.errors import PictureError, SettingError
from totalrecall.pictures.formats.header import MAX_PIXELS
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LoadedPicture, Source, failure, load_pictures
from totalrecall.system.threads import in_order
from totalrecall.types import LayerMap, PreparedImage

__all__ = ["FeatureExtractor"]

Outcome = TypeVar("Outcome")

# Pixels of the pictures that are judged at a time: their maps in original size take five times as much as they do. Two
# of the largest that are let in by default would need memory that one does not.
PIXELS_AT_ONCE = MAX_PIXELS
_LARGEST = 1e15  # feature: a sum of a thousand squares of it is far below the largest float32
_UNUSABLE = (
    "some of its features are not numbers, or above 1e15, so it has no score. Look at the picture; if others fail "
    "too, look at the backbone and try --precision f32."
)


def _usable(pieces: Sequence[Mapping[str, LayerMap]]) -> bool:
    """Return whether all features of a picture's pieces are numbers that are small enough to compute distances."""
    # subtle: of features with a nan both are nan, which is not within the limits
    return all(
        bool(features.max() < _LARGEST and features.min() > -_LARGEST)
        for piece in pieces
        for features in piece.values()
    )


def _pixels(loaded: LoadedPicture) -> int:
    return 0 if loaded.geometry is None else math.prod(loaded.geometry.original)


class FeatureExtractor:
    """Turns pictures into the feature maps of some layers.

    Args:
        backbone: the frozen graph.
        recipe: how pictures are prepared.
        layers: numbers of the layers; what the backbone advises if None.
        engine: what runs the backbone, one of `engines.KINDS`.
        device: what it computes on; the processor if not given.
        precision: `auto`, `f32` or `bf16`; `int8` for a graph of 8 bits.
        threads: of the engine; all cores if not given.

    Raises:
        SettingError: the backbone does not have one of the layers, or its graph has not 8 bits where that is asked for.
    """

    def __init__(
        self,
        backbone: Backbone,
        recipe: Recipe,
        *,
        layers: Sequence[int] | None,
        engine: str = "openvino",
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        names = [layer.name for layer in backbone.layers]
        layers = backbone.advice.layers if layers is None else layers
        self.numbers = tuple(layers)
        self.layers = tuple(f"layer{number}" for number in layers)
        for number, name in zip(layers, self.layers, strict=True):
            if name not in names:
                has = " ".join(layer_name.removeprefix("layer") for layer_name in names)
                raise SettingError(f"layers: backbone {backbone.name} has no layer {number}. It has: {has}.", "layers")
        if precision == "int8" and not is_quantized(backbone):
            raise SettingError(
                f"precision int8 needs a graph of 8 bits, which backbone {backbone.name} has not. Make one by "
                "`totalrecall fit --precision int8`, or in Python by `totalrecall.tuning.fit_int8`.",
                "precision",
            )
        self.backbone = backbone
        self.recipe = recipe
        self.engine_name = engine
        self.device = device
        self.precision = "auto" if precision == "int8" else precision  # of what in the graph has not 8 bits
        self.threads = threads

    @cached_property
    def engine(self) -> Engine:
        """The engine, opened at first use: reading a model's facts needs none."""
        backbone = at_size(self.backbone, self.recipe.piece)
        return open_engine(
            backbone,
            self.layers,
            engine=self.engine_name,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the engine. It is opened again where it is used, maybe on another processor."""
        return {name: value for name, value in vars(self).items() if name != "engine"}

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return rows, columns and channels of each layer's map, computed from the recipe."""
        by_name = {layer.name: layer for layer in self.backbone.layers}
        sides = [self.recipe.tile * -(-self.recipe.piece // by_name[name].stride) for name in self.layers]
        return [(side, side, by_name[name].channels) for side, name in zip(sides, self.layers, strict=True)]

    def maps(self, prepared: PreparedImage) -> list[LayerMap]:
        """Return the feature maps of one prepared picture, one per layer, each (1, h, w, c), with the lowest delay.

        Raises:
            PictureError: some features are not numbers, or are too large.
        """
        pieces = [self.engine.run(piece[None]) for piece in self.pieces(prepared)]
        if not _usable(pieces):
            raise PictureError(_UNUSABLE)
        return self._join(pieces)

    def stream_maps(
        self,
        function: Callable[[LoadedPicture, list[LayerMap] | None], Outcome],
        sources: Iterable[Source],
        *,
        hashes: bool = False,
    ) -> Iterator[Outcome]:
        """Yield function(picture, feature maps) of each picture in order; several are computed at the same time.

        A picture that cannot be read, or whose features cannot be used, comes in its turn: with its error, and None
        instead of the maps.
        """

        def finish(item: tuple[LoadedPicture, list[dict[str, LayerMap]]]) -> Outcome:
            loaded, pieces = item
            try:
                return function(loaded, self._join(pieces) if pieces else None)
            except (MemoryError, cv2.error) as error:  # the picture is so large that its map does not fit
                if loaded.error is not None:
                    raise
                return function(LoadedPicture(loaded.path, error=failure(loaded.path, error)), None)

        maps = self._feature_maps(sources, hashes)
        return in_order(finish, maps, size=lambda item: _pixels(item[0]), limit=PIXELS_AT_ONCE)

    def _feature_maps(
        self, sources: Iterable[Source], hashes: bool
    ) -> Iterator[tuple[LoadedPicture, list[dict[str, LayerMap]]]]:
        """Yield each picture with the feature maps of its pieces, in order; a picture that cannot be read has none."""
        waiting: deque[LoadedPicture] = deque()  # read, and not yielded yet

        def readable(pictures: Iterable[LoadedPicture]) -> Iterator[tuple[LoadedPicture, PreparedImage]]:
            for loaded in pictures:
                waiting.append(loaded)
                if loaded.prepared is not None:
                    for piece in self.pieces(loaded.prepared):
                        yield loaded, piece
                if sum(map(_pixels, waiting)) >= PIXELS_AT_ONCE:  # the engine is to finish these first
                    return

        pictures = load_pictures(sources, self.recipe, hashes=hashes)
        for first in pictures:
            pieces: list[dict[str, LayerMap]] = []
            for loaded, maps in self.engine.stream(readable(chain([first], pictures))):
                pieces.append(maps)
                if len(pieces) < self.recipe.tile**2:
                    continue
                while waiting[0] is not loaded:  # those before it could not be read
                    yield waiting.popleft(), []
                finished = waiting.popleft()
                if _usable(pieces):
                    yield finished, pieces
                else:
                    yield replace(finished, prepared=None, error=PictureError(f"{finished.path}: {_UNUSABLE}")), []
                pieces = []
            while waiting:
                yield waiting.popleft(), []

    def pieces(self, prepared: PreparedImage) -> list[np.ndarray]:
        """Cut a prepared picture into the squares that the backbone sees, row by row; without tiles there is one."""
        count = self.recipe.tile
        if count == 1:
            return [prepared]
        side = self.recipe.piece
        rows = prepared.reshape(count, side, count, side, 3).swapaxes(1, 2)  # (T*s, T*s, 3) -> (T, T, s, s, 3)
        return [np.ascontiguousarray(piece) for piece in rows.reshape(-1, side, side, 3)]

    def _join(self, pieces: list[dict[str, LayerMap]]) -> list[LayerMap]:
        """Join the feature maps of the pieces: T*T of (1, h, w, c) -> (1, T*h, T*w, c) for each layer."""
        if len(pieces) == 1:
            return [pieces[0][name] for name in self.layers]
        count = self.recipe.tile
        joined = []
        for name in self.layers:
            _, h, w, c = pieces[0][name].shape
            grid = np.concatenate([piece[name] for piece in pieces]).reshape(count, count, h, w, c)
            joined.append(grid.swapaxes(1, 2).reshape(1, count * h, count * w, c))
        return joined
