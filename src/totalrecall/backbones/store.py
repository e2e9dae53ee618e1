"""Find a backbone by name, keep a new one: those built in first, then the per-user folder `backbones`."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from totalrecall.backbones.spec import Backbone, Layer, parse_facts, read_metadata
from totalrecall.errors import BackboneError, SettingError
from totalrecall.files import atomic_write, home

__all__ = ["BackboneInfo", "add", "available", "load"]

_BUILT_IN = Path(__file__).resolve().parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone on disk without reading its graph; `problem` says why a damaged one is unusable."""

    name: str
    path: Path
    built_in: bool
    size: int
    layers: tuple[Layer, ...] = ()
    source: str = ""
    licence: str = ""
    preprocessing: str = ""
    architecture: str = ""
    problem: str = ""


def load(name: str | Path) -> Backbone:
    """Return a backbone by its name, or from a path that ends in .onnx.

    Raises:
        SettingError: what was given cannot be a name.
        BackboneError: there is none of that name, or its file cannot be used.
    """
    if str(name).endswith(".onnx"):
        path = Path(name)
    else:
        _check_name(str(name))
        found = [folder / f"{name}.onnx" for folder in _folders() if (folder / f"{name}.onnx").is_file()]
        if not found:
            names = ", ".join(info.name for info in available()) or "none yet"
            raise BackboneError(
                f"No backbone is called {str(name)!r}. There are: {names}. "
                f"Add one with: totalrecall backbones add {name} --weights FILE"
            )
        path = found[0]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackboneError(
            f"Cannot read the backbone {path}: {error.strerror or error}. Name an .onnx file."
        ) from None
    return Backbone.from_onnx(data, f"The backbone {path}")


def add(
    name: str,
    weights: str | Path,
    *,
    save_as: str | None = None,
    source: str = "",
    licence: str = "",
    form: str | None = None,
) -> Backbone:
    """Build a backbone from a weights file, keep it in the per-user folder, and return it.

    Args:
        name: the architecture, such as "resnet18".
        weights: safetensors file with torchvision's (also timm's) key names.
        save_as: the name to keep it under; `name` if not given. One of the same name is replaced.
        source: where the weights come from.
        licence: the licence of the weights.
        form: "torchvision" or "caffe"; as the file's own metadata says if not given.

    Raises:
        SettingError: the architecture does not exist, or the name cannot be used.
        BackboneError: the weights are missing, damaged, or of another architecture.
        DataError: the per-user folder cannot be written.
    """
    from totalrecall.backbones.resnet import build_resnet

    kept = name if save_as is None else save_as
    _check_name(kept)
    if (_BUILT_IN / f"{kept}.onnx").is_file():
        raise SettingError(f"The name {kept!r} belongs to a backbone that is built in. Choose another name.")
    backbone = build_resnet(name, weights, name=kept, form=form, source=source, licence=licence)
    atomic_write(_added() / f"{kept}.onnx", backbone.graph)
    return backbone


def available() -> list[BackboneInfo]:
    """Return the backbones that are here, those built in first, each folder by name."""
    infos: dict[str, BackboneInfo] = {}
    for folder in _folders():
        for path in sorted(folder.glob("[!.]*.onnx")):
            infos.setdefault(path.stem, _info(path))  # as `load` does: one built in hides one added
    return list(infos.values())


def _info(path: Path) -> BackboneInfo:
    built_in = path.parent == _BUILT_IN
    size = 0
    try:
        size = path.stat().st_size
        # mapped, not read: the metadata lies behind what can be hundreds of megabytes of graph
        metadata = read_metadata(np.memmap(path, np.uint8, "r").data, f"The backbone {path}")
        layers, texts = parse_facts(metadata, f"The backbone {path}")
    except (OSError, ValueError, BackboneError) as error:  # ValueError: an empty file cannot be mapped
        problem = str(error) if isinstance(error, BackboneError) else f"The backbone {path} cannot be read: {error}."
        return BackboneInfo(path.stem, path, built_in, size, problem=problem)
    facts = {fact: text for fact, text in texts.items() if fact != "name"}  # the file's name is what `load` goes by
    return BackboneInfo(path.stem, path, built_in, size, layers, **facts)


def _added() -> Path:
    return home() / "backbones"


def _folders() -> tuple[Path, Path]:
    return _BUILT_IN, _added()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingError(
            f"A backbone's name has letters, digits, '_', '-' and '.', begins with a letter or digit, and is at most "
            f"64 long, got {name!r}."
        )
