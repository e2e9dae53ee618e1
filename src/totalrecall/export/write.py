"""Export: build a graph, try it, and write it only if it says what the model says; and try one that was written."""

import os
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from totalrecall.engines.runtime import core, openvino_package
from totalrecall.errors import DataError, ModelFileError, SettingError
from totalrecall.export.build import build_graph
from totalrecall.export.exported import read_exported
from totalrecall.export.graph_rules import check_exported
from totalrecall.export.metadata import METADATA_KEY, AnyDetector, batch_of, read_facts
from totalrecall.export.parity import CheckPicture, Parity, check_pictures, compare
from totalrecall.export.runtime import Run, open_onnxruntime, open_openvino
from totalrecall.system.files import atomic_write

__all__ = ["FORMATS", "export", "verify"]

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}  # with the suffix of the file


def export(
    detector: AnyDetector,
    path: str | Path,
    *,
    model: str,
    to: str = "onnx",
    bank: str = "float32",
    picture_size: tuple[int, int] | None = None,
    batch: int = 1,
    pictures: Iterable[CheckPicture] = (),
) -> Parity:
    """Write a fitted detector as one graph, once real runtimes have run it and it says what the detector says.

    Args:
        detector: PatchCore or PaDiM, its backbone in float32 (`load_detector(path, precision="f32")`).
        path: of the file; OpenVINO's .xml has a .bin beside it.
        model: SHA-256 of the model file.
        to: `onnx`, or `openvino` for its own format.
        bank: number type of the bank's vectors.
        picture_size: height and width of all pictures, if the graph is to take no others.
        batch: number of pictures that the graph takes at once.
        pictures: to try it on, besides some that are drawn and some that were learnt.

    Returns:
        What was compared; nothing was written unless it `holds`.

    Raises:
        SettingError: a SPADE model, or a setting outside what is allowed; MissingExtraError: a package is missing.
        DataError: the place cannot be written.
        ModelFileError: a runtime refuses the graph.
    """
    if to not in FORMATS:
        raise SettingError(f"to must be one of {', '.join(FORMATS)}, got {to!r}.", "to")
    path = Path(path)
    if path.suffix != FORMATS[to]:
        raise SettingError(
            f"The file of --to {to} must end in {FORMATS[to]}, got {path}. Write -o {path.stem}{FORMATS[to]}."
        )
    graph = build_graph(detector, model=model, bank=bank, picture_size=picture_size, batch=batch)
    data = graph.SerializeToString()
    tried = chain(check_pictures(detector, picture_size), pictures)
    if to == "onnx":
        check_exported(data, str(path))
        parity = compare(detector, _runs(data, str(path), batch), tried)
        if parity.holds:
            atomic_write(path, data)
        return parity
    return _export_openvino(detector, path, data, batch, tried)


def _export_openvino(
    detector: AnyDetector, path: Path, data: bytes, batch: int, tried: Iterable[CheckPicture]
) -> Parity:
    """Write OpenVINO's two files, if what they hold says what the detector says."""
    model = core().read_model(data)
    model.set_rt_info(read_facts(data, str(path))[1], METADATA_KEY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{path.stem[:40]}.", suffix=".part", dir=path.parent) as folder:
            written = Path(folder) / path.name
            openvino_package().save_model(model, str(written), compress_to_fp16=False)
            del model
            run = open_openvino(str(written), str(path), batch=batch)
            parity = compare(detector, {"openvino": run}, tried)
            if parity.holds:
                os.replace(written.with_suffix(".bin"), path.with_suffix(".bin"))  # noqa: PTH105
                os.replace(written, path)  # noqa: PTH105
            return parity
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise DataError(f"Cannot write {path}: {reason}. Name a place that can be written.") from None


def verify(detector: AnyDetector, path: str | Path, *, model: str, pictures: Iterable[CheckPicture] = ()) -> Parity:
    """Compare an exported ONNX file with its model; see `export`.

    Raises:
        ModelFileError: it is no exported graph, or of another model, or a runtime refuses it.
        MissingExtraError: the package onnxruntime is missing.
    """
    data, facts = read_exported(path)
    if facts["model"] != model:
        raise ModelFileError(
            f"{path} was exported from another model, or from this one before it changed. Export the model again."
        )
    size = facts["picture_size"]
    fixed = None if size is None else (int(size[0]), int(size[1]))
    try:
        batch = batch_of(facts)
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: its metadata ({error}). Export the model again.") from None
    return compare(detector, _runs(data, str(path), batch), chain(check_pictures(detector, fixed), pictures))


def _runs(data: bytes, origin: str, batch: int) -> dict[str, Run]:
    """Return what runs an ONNX graph, by name."""
    return {
        "onnxruntime": open_onnxruntime(data, origin, batch=batch),
        "openvino": open_openvino(data, origin, batch=batch),
    }
