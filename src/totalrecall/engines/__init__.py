"""Run a backbone on pictures: `base` says what an engine is, `openvino` is the one for the CPU."""

from totalrecall.backbones.spec import Backbone
from totalrecall.engines.base import Engine
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import SettingError

__all__ = ["KINDS", "Engine", "open_engine"]

KINDS = ("openvino",)


def open_engine(
    backbone: Backbone,
    layers: tuple[str, ...],
    *,
    kind: str = "openvino",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Return an engine for the layers of a backbone, such as ("layer2", "layer3").

    Raises:
        SettingError: the kind, a layer or the precision does not exist.
    """
    if kind not in KINDS:
        raise SettingError(f"engine must be one of {', '.join(KINDS)}, got {kind!r}.")
    return OpenVinoEngine(backbone, layers, precision=precision, threads=threads)
