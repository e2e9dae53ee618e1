"""What the engines share that compute a batch of pictures by one call: ONNX Runtime and torch."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.spec import Backbone
from totalrecall.engines import Token
from totalrecall.engines.checks import BackboneEngine, check_pictures, checked_model, refused, stacked
from totalrecall.errors import SettingError
from totalrecall.system.threads import cores, in_order, in_worker
from totalrecall.types import FeatureMap

__all__ = ["BATCH", "BatchedEngine", "checked_precision"]

BATCH = (
    8  # pictures that a graphics card computes at a time; the processor takes one, which is as fast and sooner there
)


class BatchedEngine(BackboneEngine):
    """An engine that computes a batch by one call. Any thread may call it."""

    def __init__(
        self,
        backbone: Backbone,
        layers: tuple[str, ...],
        *,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(backbone, layers, device=device, precision=precision, threads=threads)
        self._sizes: set[tuple[int, int]] = set()  # that the graph was checked for

    @abstractmethod
    def _compute(self, images: npt.NDArray[np.uint8], *, alone: bool) -> dict[str, FeatureMap]:
        """Return layer -> float32 (n, h, w, c), in arrays of the caller's own.

        Args:
            images: (n, height, width, 3), contiguous and writeable.
            alone: whether no other batch is computed at the same time.
        """

    def run(self, images: npt.NDArray[np.generic]) -> dict[str, FeatureMap]:
        """Return layer -> float32 (n, h, w, c) for uint8 RGB pictures (n, height, width, 3).

        Raises:
            SettingError: the array is of another type or shape.
            BackboneError: the graph is damaged.
        """
        check_pictures(images, 4)
        if len(images) == 1:
            return self._checked(images, alone=not in_worker())
        if in_worker():  # one that waited for other workers could wait for itself
            singles: Iterable[Any] = ((at, self._checked(image[None], alone=False)) for at, image in enumerate(images))
        else:
            singles = self.stream(enumerate(images))
        return stacked(singles, len(images))

    def stream(
        self, pictures: Iterable[tuple[Token, npt.NDArray[np.generic]]]
    ) -> Iterator[tuple[Token, dict[str, FeatureMap]]]:
        """Yield each token with layer -> float32 (1, h, w, c), in the order of the pictures.

        It draws a few pictures ahead of what it yields and no more, so the source may be endless. An error in the
        source comes out here; closing the generator stops the work in hand.

        Raises:
            SettingError: a picture is of another type or shape.
            BackboneError: the graph is damaged.
        """

        def compute(group: list[tuple[Token, npt.NDArray[np.generic]]]) -> list[tuple[Token, dict[str, FeatureMap]]]:
            images = np.stack([picture for _, picture in group])
            maps = self._checked(images, alone=False)
            return [
                (token, {layer: features[at : at + 1] for layer, features in maps.items()})
                for at, (token, _) in enumerate(group)
            ]

        on_cpu = self._device == "cpu"
        # as many at the same time as it has threads, and one that waits for its turn where nobody set a limit
        ahead = (self._threads - 1 if self._threads else cores()) if on_cpu else 1
        for group in in_order(compute, _batches(pictures, 1 if on_cpu else BATCH), ahead=ahead):
            yield from group

    def _checked(self, images: npt.NDArray[np.generic], *, alone: bool) -> dict[str, FeatureMap]:
        height, width = images.shape[1:3]
        with self._lock:
            if (height, width) not in self._sizes:
                with refused(self._backbone, f"on {height}x{width} pictures"):
                    checked_model(self._backbone, self._layers, height, width)
                self._sizes.add((height, width))
        return self._compute(np.require(images, np.uint8, ["C", "W"]), alone=alone)  # torch warns of what is read-only


def checked_precision(asked: str, offered: tuple[str, ...], engine: str, device: str) -> str:
    """Return the number format: the first that is offered, or the one that was asked for.

    Raises:
        SettingError: the engine does not offer it on this device.
    """
    if asked == "auto":
        return offered[0]
    if asked not in offered:
        raise SettingError(
            f"precision must be one of {', '.join(['auto', *offered])} for engine {engine} on device {device}, "
            f"got {asked}. Use precision auto.",
            "precision",
            "engine",
            "device",
        )
    return asked


def _batches(
    pictures: Iterable[tuple[Token, npt.NDArray[np.generic]]], most: int
) -> Iterator[list[tuple[Token, npt.NDArray[np.generic]]]]:
    """Yield pictures of the same size that follow each other, at most so many at a time."""
    group: list[tuple[Token, npt.NDArray[np.generic]]] = []
    for token, picture in pictures:
        check_pictures(picture, 3)
        if group and (len(group) == most or group[0][1].shape != picture.shape):
            yield group
            group = []
        group.append((token, picture))
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group
