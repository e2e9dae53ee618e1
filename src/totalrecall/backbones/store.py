"""Find a backbone by name, and store new ones. Built-in backbones come first, then the user's folder, then the hub."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from totalrecall.backbones.published import KNOWN_FILES, PUBLISHED, Remote, architecture_of, parse_remote
from totalrecall.backbones.spec import Backbone, Layer, parse_facts, read_metadata
from totalrecall.errors import BackboneError, DataError, SettingError
from totalrecall.system.files import LARGEST, atomic_write, file_sha256, home, open_regular, read_regular

__all__ = ["BackboneInfo", "add", "available", "load", "places_of"]

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

    A published one that is not here yet is fetched from the hub, said on stderr, and kept: see `add`.

    Raises:
        SettingError: what was given cannot be a name.
        MissingExtraError: it would have to be fetched, and huggingface_hub is not installed.
        BackboneError: there is none of that name, its file cannot be used, or it cannot be fetched.
    """
    if str(name).endswith(".onnx"):
        path = Path(name)
    else:
        _check_name(str(name))
        found = [folder / f"{name}.onnx" for folder in _folders() if _is_file(folder / f"{name}.onnx")]
        if not found and str(name) in PUBLISHED:
            return add(str(name))
        if not found:
            names = ", ".join(info.name for info in available()) or "none yet"
            raise BackboneError(
                f"No backbone is called {str(name)!r}. There are: {names}. Fetched when named: {', '.join(PUBLISHED)}. "
                f"Add one with: totalrecall backbones add {name} --weights FILE"
            )
        path = found[0]
    try:
        data = read_regular(path, limit=LARGEST["backbone"])
    except OSError as error:
        raise BackboneError(
            f"Cannot read the backbone {path}: {error.strerror or error}. Name an .onnx file."
        ) from None
    return Backbone.from_onnx(data, f"The backbone {path}")


def add(
    name: str,
    weights: str | Path | None = None,
    *,
    save_as: str | None = None,
    source: str = "",
    licence: str = "",
    form: str | None = None,
    size: int | None = None,
) -> Backbone:
    """Build a backbone from a weights file or from the hub, keep it in the per-user folder, and return it.

    Args:
        name: the architecture, such as "resnet18", a published name, or `timm:` and the name of a network of timm, for
            which torch and timm must be installed.
        weights: safetensors file or torch checkpoint with the key names of torchvision or timm, or one on the hub (see
            `parse_remote`); those published under the name if not given.
        save_as: the name to keep it under; `name` if not given. One of the same name is replaced.
        source: where the weights come from; of weights from the hub repository, commit, file and SHA-256.
        licence: the licence of the weights.
        form: "torchvision" or "caffe"; as the file's own metadata says if not given.
        size: side of the prepared pictures, for a network of timm that can be built for one size alone.

    Raises:
        SettingError: the architecture does not exist, nothing is published under the name, or the name cannot be used.
        MissingExtraError: it would have to be fetched, and huggingface_hub is not installed.
        BackboneError: the weights are missing, damaged, of another architecture, or cannot be fetched.
        DataError: the per-user folder cannot be written.
    """
    from totalrecall.backbones.families import build, check_architecture
    from totalrecall.backbones.timm_models import PREFIX, build_timm

    kept = name.removeprefix(PREFIX) if save_as is None else save_as
    _check_name(kept)
    if (_BUILT_IN / f"{kept}.onnx").is_file():
        raise SettingError(f"The name {kept!r} belongs to a backbone that is built in. Choose another name.")
    if name.startswith(PREFIX):
        backbone = build_timm(
            name.removeprefix(PREFIX), weights, name=kept, size=size, form=form, source=source, licence=licence
        )
        atomic_write(_added() / f"{kept}.onnx", backbone.graph)
        return backbone
    if size is not None:
        raise SettingError(f"size is for networks of timm, got size {size} for {name}. Leave it out.", "size")
    architecture = architecture_of(name)
    check_architecture(architecture)  # before hundreds of megabytes are fetched for it
    path, origin, terms = _weights(name, kept, weights)
    backbone = build(architecture, path, name=kept, form=form, source=source or origin, licence=licence or terms)
    atomic_write(_added() / f"{kept}.onnx", backbone.graph)
    return backbone


def places_of(name: str) -> list[Path]:
    """Return where a backbone of that name would lie."""
    return [folder / f"{name}.onnx" for folder in _folders()] if _NAME.fullmatch(name) else []


def available() -> list[BackboneInfo]:
    """Return the backbones that are here, those built in first, each folder by name."""
    infos: dict[str, BackboneInfo] = {}
    for folder in _folders():
        try:
            paths = sorted(folder.glob("[!.]*.onnx"))
        except OSError:  # another user's folder, which may not be looked into
            continue
        for path in paths:
            infos.setdefault(path.stem, _info(path))  # as `load` does: one built in hides one added
    return list(infos.values())


def _info(path: Path) -> BackboneInfo:
    built_in = path.parent == _BUILT_IN
    size = 0
    try:
        with open_regular(path, limit=LARGEST["backbone"]) as file:
            size = os.fstat(file.fileno()).st_size
        # mapped, not read: the metadata lies behind what can be hundreds of megabytes of graph
        metadata = read_metadata(np.memmap(path, np.uint8, "r").data, f"The backbone {path}")
        layers, texts = parse_facts(metadata, f"The backbone {path}")
    except (OSError, ValueError, BackboneError) as error:  # ValueError: an empty file cannot be mapped
        problem = str(error) if isinstance(error, BackboneError) else f"The backbone {path} cannot be read: {error}."
        return BackboneInfo(path.stem, path, built_in, size, problem=problem)
    facts = {fact: text for fact, text in texts.items() if fact != "name"}  # the file's name is what `load` goes by
    return BackboneInfo(path.stem, path, built_in, size, layers, **facts)


def _weights(name: str, kept: str, weights: str | Path | None) -> tuple[Path, str, str]:
    """Return the weights file on this machine, fetched if need be, and its source and licence where they are known."""
    if weights is None:
        return _fetched(name, kept, PUBLISHED[name])
    remote = parse_remote(weights) if isinstance(weights, str) else None
    if remote is not None:
        return _fetched(name, kept, remote)
    path = Path(weights)
    known = PUBLISHED[name]
    digest = _hash_of(path) if known.sha256 or name in KNOWN_FILES else ""
    if digest and digest == known.sha256:  # brought by hand
        return path, f"{known}, sha256 {digest}", known.licence
    package = KNOWN_FILES.get(name)
    if package is not None and digest == package.sha256:
        return path, f"{package.source}, sha256 {digest}", package.licence
    return path, "", ""


def _hash_of(path: Path) -> str:
    """Return a weights file's SHA-256, or nothing where it cannot be read: whoever reads it says why."""
    try:
        return file_sha256(path, limit=LARGEST["weights"])
    except OSError:
        return ""


def _fetched(name: str, kept: str, remote: Remote) -> tuple[Path, str, str]:
    from totalrecall.backbones.hub import fetch

    command = f"totalrecall backbones add {name} --weights {Path(remote.file).name}"
    fetched = fetch(remote, command if kept == name else f"{command} --save-as {kept}")
    return fetched.path, fetched.source, remote.licence


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  is_file raises where another user's folder may not be looked into


def _added() -> Path:
    return home() / "backbones"


def _folders() -> tuple[Path, ...]:
    try:
        return _BUILT_IN, _added()
    except DataError:  # a user without a home folder has added none
        return (_BUILT_IN,)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingError(
            f"A backbone's name has letters, digits, '_', '-' and '.', begins with a letter or digit, and is at most "
            f"64 long, got {name!r}."
        )
