"""Run a backbone on pictures: `base` says what an engine is, `openvino` is the one for the CPU.

Nothing heavy is imported before an engine is opened: the settings need the names alone.
"""

import sys
from typing import TYPE_CHECKING

from totalrecall.errors import SettingError
from totalrecall.system.settings import minimum, one_of

if TYPE_CHECKING or "jaxtyping" in sys.modules:  # the test run checks the types of all values
    from totalrecall.backbones.spec import Backbone
    from totalrecall.engines.base import Engine

__all__ = ["KINDS", "PRECISION", "THREADS", "open_engine"]

KINDS = ("openvino",)
PRECISION = one_of(("auto", "f32", "bf16"))
THREADS = minimum(1, hint="Leave it out to use all cores.")


def open_engine(
    backbone: "Backbone",
    layers: tuple[str, ...],
    *,
    kind: str = "openvino",
    precision: str = "auto",
    threads: int | None = None,
) -> "Engine":
    """Return an engine for the layers of a backbone, such as ("layer2", "layer3").

    Raises:
        SettingError: the kind, a layer or the precision does not exist.
    """
    if kind not in KINDS:
        raise SettingError(f"engine must be one of {', '.join(KINDS)}, got {kind!r}.")
    from totalrecall.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(backbone, layers, precision=precision, threads=threads)
