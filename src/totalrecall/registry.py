"""The kinds of detector by name, and opening a model file whichever kind it holds.

Nothing heavy is imported before a detector is made: `--help` shows the settings of all kinds.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from totalrecall.detectors.settings import CommonSettings, PadimSettings, SpadeSettings
from totalrecall.engines import Running
from totalrecall.errors import ModelFileError, SettingError
from totalrecall.patchcore.settings import Settings

if TYPE_CHECKING:
    from totalrecall.detectors.model_file import Contents, Layout
    from totalrecall.detectors.padim import PaDiM
    from totalrecall.detectors.spade import SPADE
    from totalrecall.export.exported import ExportedModel
    from totalrecall.patchcore.detector import PatchCore
    from totalrecall.patchcore.joined import JoinedPatchCore

    AnyDetector: TypeAlias = PatchCore | JoinedPatchCore | PaDiM | SPADE
    AnyJudge: TypeAlias = AnyDetector | ExportedModel

__all__ = [
    "JOINED",
    "KINDS",
    "SETTINGS",
    "detector_class",
    "detector_of",
    "is_exported",
    "load_detector",
    "load_judge",
    "read_model",
    "warm_up",
]

KINDS = {
    "patchcore": "patchcore.detector.PatchCore",
    "padim": "detectors.padim.PaDiM",
    "spade": "detectors.spade.SPADE",
}
JOINED = {"joined": "patchcore.joined.JoinedPatchCore"}  # of method patchcore, with several backbones or sizes
SETTINGS: dict[str, type[CommonSettings]] = {"patchcore": Settings, "padim": PadimSettings, "spade": SpadeSettings}


def detector_class(kind: str) -> "type[AnyDetector]":
    """Return the class of a kind.

    Raises:
        SettingError: there is none of that name.
    """
    if kind not in {**KINDS, **JOINED}:
        raise SettingError(f"method must be one of {', '.join(KINDS)}, got {kind!r}.", "method")
    module, _, name = {**KINDS, **JOINED}[kind].rpartition(".")
    found: type[AnyDetector] = getattr(import_module(f"totalrecall.{module}"), name)
    return found


def load_detector(
    path: str | Path,
    *,
    precision: str | None = None,
    threads: int | None = None,
    engine: str | None = None,
    device: str | None = None,
) -> "AnyDetector":
    """Read a model file of any kind.

    Args:
        path: as given to `save`.
        precision: of the backbone here, if it should differ from the fit's.
        threads: of the engine; all cores if not given.
        engine: what runs the backbone: "openvino" if not given, whatever the fit had.
        device: what the engine computes on; the processor if not given.

    Raises:
        ModelFileError: the file is missing, damaged, of a kind that is not known, or from a newer version.
        BackboneError: the backbone was not embedded, and the one of that name here is missing or another.

    Examples:
        >>> from totalrecall import load_detector
        >>> detector = load_detector("part.trecall")
        >>> detector.kind
        'patchcore'
    """
    running = Running(precision=precision, threads=threads, engine=engine, device=device)
    return detector_of(read_model(path), path, running)


def is_exported(path: str | Path) -> bool:
    """Tell whether a file is an exported graph, by its name."""
    return str(path).endswith(".onnx")


def load_judge(
    path: str | Path,
    *,
    precision: str | None = None,
    threads: int | None = None,
    engine: str | None = None,
    device: str | None = None,
) -> "AnyJudge":
    """Read a model file of any kind, or an exported graph, which judges but cannot learn.

    Args:
        path: as given to `save`, or as `totalrecall export` wrote it, ending in `.onnx`.
        precision: as for `load_detector`; an exported graph computes in float32.
        threads: as for `load_detector`.
        engine: as for `load_detector`; an exported graph is run by OpenVINO.
        device: as for `load_detector`; an exported graph is run by the processor.

    Raises:
        SettingError: another precision, engine or device was asked for than an exported graph has.
        ModelFileError, BackboneError: as for `load_detector`.
    """
    if not is_exported(path):
        return load_detector(path, precision=precision, threads=threads, engine=engine, device=device)
    from totalrecall.export.exported import load_exported

    if precision not in (None, "f32"):
        raise SettingError(
            f"precision must be f32 for an exported graph, got {precision}. Leave it out, or use the model.",
            "precision",
        )
    for name, value, only in (("engine", engine, "openvino"), ("device", device, "cpu")):
        if value is not None and value.lower() != only:
            raise SettingError(
                f"{name} must be {only} for an exported graph, got {value}. Leave it out, or use the model.", name
            )
    return load_exported(path, threads=threads)


def read_model(path: str | Path) -> "Contents":
    """Read header and tensors of a model file of any kind that is known, once, and check their layout.

    Raises:
        ModelFileError: as for `load_detector`.
    """
    from totalrecall.detectors.model_file import read_artifact
    from totalrecall.detectors.model_schema import check_layout

    def check(header: dict[str, Any], layout: "Layout") -> None:
        kind = header.get("kind")
        if not isinstance(kind, str) or kind not in {**KINDS, **JOINED}:
            raise ModelFileError(
                f"{path} holds a model of kind {str(kind)[:40]!r}, this version knows {', '.join((*KINDS, *JOINED))}. "
                "Install the newer Total Recall that wrote the file."
            )
        check_layout(header, layout)

    return read_artifact(path, check)


def detector_of(contents: "Contents", path: str | Path, running: Running | None = None) -> "AnyDetector":
    """Return the detector of a model file that `read_model` read.

    Args:
        contents: header and tensors.
        path: of the file, for the messages.
        running: how the backbone is run here, if it should differ from what the model and the defaults say.

    Raises:
        ModelFileError, BackboneError: as for `load_detector`.
    """
    return detector_class(contents[0]["kind"]).from_contents(contents, path, running or Running())


def warm_up(judge: "AnyJudge") -> None:
    """Let a model do what it does at its first picture alone, and at its first of several."""
    import warnings

    import numpy as np

    height, width = (judge.pictures_[0].height, judge.pictures_[0].width) if judge.pictures_ else (256, 256)
    picture = np.full((height, width, 3), 127, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge.predict(picture)
        for _ in judge.predict_stream([picture, picture]):
            pass
