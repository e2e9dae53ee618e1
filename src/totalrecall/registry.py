"""The kinds of detector by name, and opening a model file whichever kind it holds.

Nothing heavy is imported before a detector is made: `--help` shows the settings of all kinds.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from totalrecall.detectors.settings import CommonSettings, PadimSettings, SpadeSettings
from totalrecall.errors import ModelFileError, SettingError
from totalrecall.patchcore.settings import Settings

if TYPE_CHECKING:
    from totalrecall.detectors.padim import PaDiM
    from totalrecall.detectors.spade import SPADE
    from totalrecall.patchcore.detector import PatchCore

    AnyDetector: TypeAlias = PatchCore | PaDiM | SPADE

__all__ = ["KINDS", "SETTINGS", "detector_class", "load_detector"]

KINDS = {
    "patchcore": "patchcore.detector.PatchCore",
    "padim": "detectors.padim.PaDiM",
    "spade": "detectors.spade.SPADE",
}
SETTINGS: dict[str, type[CommonSettings]] = {"patchcore": Settings, "padim": PadimSettings, "spade": SpadeSettings}


def detector_class(kind: str) -> "type[AnyDetector]":
    """Return the class of a kind.

    Raises:
        SettingError: there is none of that name.
    """
    if kind not in KINDS:
        raise SettingError(f"method must be one of {', '.join(KINDS)}, got {kind!r}.", "method")
    module, _, name = KINDS[kind].rpartition(".")
    found: type[AnyDetector] = getattr(import_module(f"totalrecall.{module}"), name)
    return found


def load_detector(path: str | Path, *, precision: str | None = None, threads: int | None = None) -> "AnyDetector":
    """Read a model file of any kind.

    Args:
        path: as given to `save`.
        precision: of the backbone here, if it should differ from the fit's.
        threads: of the engine; all cores if not given.

    Raises:
        ModelFileError: the file is missing, damaged, of a kind that is not known, or from a newer version.
        BackboneError: the backbone was not embedded, and the one of that name here is missing or another.

    Examples:
        >>> from totalrecall import load_detector
        >>> detector = load_detector("part.trecall")
        >>> detector.kind
        'patchcore'
    """
    from totalrecall.detectors.model_file import read_header

    kind = read_header(path).get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelFileError(
            f"{path} holds a model of kind {str(kind)[:40]!r}, known are {', '.join(KINDS)}. "
            "Run: pip install -U totalrecall"
        )
    return detector_class(kind).load(path, precision=precision, threads=threads)
