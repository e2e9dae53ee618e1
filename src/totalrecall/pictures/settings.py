"""The settings that say how pictures are prepared. Nothing here imports NumPy: `--help` shows them."""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from totalrecall.errors import SettingError
from totalrecall.system.settings import Checked, Rule, between, one_of, setting

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test run checks the types of all values
    from totalrecall.types import RoiSource

__all__ = ["BIT_DEPTH", "RESIZE_MODES", "Framing", "Preparation"]

RESIZE_MODES = ("squash", "letterbox", "crop")


def _is_bit_depth(value: int | str) -> bool:
    return value == "auto" or (str(value).isdecimal() and 8 <= int(value) <= 16)


SIZE = between(32, 4096, "pixels", "Usual: 224 to 512.")
BIT_DEPTH = Rule("auto, or from 8 to 16 bits", _is_bit_depth, "Cameras have 8, 10, 12 or 14.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Framing(Checked):
    """How a picture becomes the square that the backbone sees."""

    size: int = setting(
        256,
        "pictures",
        "side of the prepared picture, in pixels",
        details="With {resize} `crop` it is the short side before the crop.",
        rule=SIZE,
        metavar="PIXELS",
        stored=False,
    )
    resize: str = setting(
        "squash",
        "pictures",
        "how a picture becomes square: `squash` (stretch it), `letterbox` (pad it) or `crop` (keep its middle)",
        rule=one_of(RESIZE_MODES),
        metavar="MODE",
        stored=False,
    )
    crop: int | None = setting(
        None,
        "pictures",
        "side of the middle square to keep, in pixels; only for {resize} `crop`",
        default_means="the whole {size}",
        metavar="PIXELS",
        stored=False,
    )
    tile: int = setting(
        1,
        "pictures",
        "prepare the picture N times as large and show it to the backbone in N x N pieces, to find small defects",
        rule=between(1, 16, "pieces a side", "2 makes four pieces."),
        metavar="N",
        stored=False,
    )

    def __post_init__(self) -> None:
        """Check every value, and what they must be together."""
        super().__post_init__()
        if self.crop is not None and self.resize != "crop":
            raise SettingError(
                f"crop is only for resize 'crop', got crop {self.crop} with resize {self.resize!r}.", "crop", "resize"
            )
        size: Any = self.size
        if size is not None:
            self._check_size()

    def _check_size(self) -> None:
        if self.crop is not None and not 32 <= self.crop <= self.size:
            raise SettingError(f"crop must be from 32 to size ({self.size}), got {self.crop}.", "crop", "size")
        if self.size * self.tile > 16384:
            got = self.size * self.tile
            raise SettingError(f"size times tile must be at most 16384 pixels, got {got}.", "size", "tile")
        if self.tile > 1 and self.piece % 32:
            wanted = max(round(self.piece / 32), 1) * 32
            name = "size" if self.crop is None else "crop"
            raise SettingError(
                f"With tile, {name} must be a multiple of 32 pixels, got {self.piece}. Use {wanted}.", "tile", name
            )

    @cached_property
    def piece(self) -> int:
        """Side in pixels of what the backbone sees at once; the prepared picture itself unless it is tiled."""
        return self.crop or self.size


@dataclass(frozen=True, kw_only=True)
class Preparation(Framing):
    """How pictures are prepared, as a person says it; `geometry.Recipe` holds what was read from it."""

    size: int | None = setting(  # type: ignore[assignment]  # None until the backbone is known
        None,
        "pictures",
        "side of the prepared picture, in pixels",
        details="With {resize} `crop` it is the short side before the crop.",
        default_means="what suits the backbone: 256 for `compact` and ResNets",
        rule=SIZE,
        metavar="PIXELS",
        stored=False,
    )
    roi: "RoiSource | None" = setting(
        None,
        "pictures",
        "picture that marks the region to inspect: white on black, or painted on transparent",
        details="In Python also an array. What lies outside is neither seen nor scored.",
        default_means="the whole picture",
        metavar="MASK",
        stored=False,
    )
    bit_depth: int | str | None = setting(
        "auto",
        "pictures",
        "bits of the camera that took 16-bit pictures, 8 to 16; `auto` finds them in the good pictures",
        rule=BIT_DEPTH,
        metavar="BITS",
        stored=False,
    )
