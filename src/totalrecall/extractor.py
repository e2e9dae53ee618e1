"""Pictures -> patch grids: the first three steps of the road in a row, decoding ahead of the engine."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property

from totalrecall.backbones import Backbone
from totalrecall.engines import Engine, open_engine
from totalrecall.errors import SettingError
from totalrecall.images import LoadedPicture, Recipe, Source, load_pictures
from totalrecall.patches import describe
from totalrecall.settings import Settings
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
        return self._describe(self.engine.run(prepared[None]))

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
                    yield loaded, loaded.prepared

        for loaded, maps in self.engine.stream(readable()):
            while waiting[0] is not loaded:  # those before it could not be read
                yield waiting.popleft(), None
            yield waiting.popleft(), self._describe(maps)
        while waiting:
            yield waiting.popleft(), None

    def _describe(self, maps: dict[str, LayerMap]) -> PatchGrid:
        return describe(
            [maps[name] for name in self.layers],
            patch_size=self.settings.patch_size,
            stride=self.settings.stride,
            descriptor=self.settings.descriptor,
        )
