"""Run a backbone with OpenVINO, and keep the processor's compiled graphs on disk, so that the second start is fast.

The cache cannot make a run fail: at worst a graph is compiled again.

Measured against OpenVINO's own CACHE_DIR, reading the blob ourselves is faster, since the ONNX graph is then never
parsed. Native code reads a blob, so we trust it only where nobody else could have written it: the folder and the entry
belong to the user, they are not links, and nobody else may write to the folder. An entry states what it was compiled
from and for (graph, layers, size, settings, device, versions) and holds the SHA-256 of all this.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from totalrecall._version import __version__
from totalrecall.backbones.spec import Backbone
from totalrecall.engines import Token
from totalrecall.engines.checks import BackboneEngine, check_pictures, checked_model, not_there, refused, stacked
from totalrecall.engines.runtime import capabilities, core, machine
from totalrecall.errors import BackboneError, DataError, SettingError, TotalRecallError
from totalrecall.system.files import atomic_write, home, sha256
from totalrecall.system.threads import (
    abandon,
    check_not_forked,
    generation,
    in_child,
    in_worker,
    undivided,
    wait_before_fork,
)
from totalrecall.types import FeatureMap

__all__ = ["CompiledCache", "OpenVinoEngine"]

_MAGIC = b"TRCOMPILED3\n"
_DIGEST = hashlib.sha256().digest_size
_LONGEST = 1 << 16  # bytes, of what an entry says of itself
_LIMIT = 1 << 30  # bytes; the graphs used longest ago go first
_ANYBODY_ELSE = stat.S_IWGRP | stat.S_IWOTH


class CompiledCache:
    """A folder of compiled graphs. Without a folder it finds nothing and stores nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: tuple[str, ...]) -> bytes | None:
        """Return the compiled graph stored under `key`, or None if there is none that can be trusted."""
        if self._folder is None:
            return None
        try:
            with _own_folder(self._folder) as folder:
                data = _own_file(self._folder / _name(key), folder)
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST
        said = _said(key)
        if not data.startswith(_MAGIC) or data[start : start + len(said)] != said:
            return None
        if hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
            return None
        with contextlib.suppress(OSError):
            os.utime(self._folder / _name(key))  # the time of last use, for `_shrink`
        return data[start + len(said) :]

    def write(self, key: tuple[str, ...], blob: bytes) -> None:
        """Store a compiled graph under `key`; a folder that cannot be written is not an error."""
        if self._folder is None or len(_said(key)) > _LONGEST:
            return
        with contextlib.suppress(TotalRecallError, OSError):
            _make_own(self._folder)
            said = _said(key)
            digest = hashlib.sha256(said)
            digest.update(blob)
            atomic_write(self._folder / _name(key), _MAGIC + digest.digest() + said + blob)
            self._shrink(self._folder)

    def _shrink(self, folder: Path) -> None:
        kept = 0
        for path in sorted(folder.glob("*.compiled"), key=lambda path: path.lstat().st_mtime, reverse=True):
            kept += path.lstat().st_size
            if kept > _LIMIT:
                path.unlink(missing_ok=True)


def _name(key: tuple[str, ...]) -> str:
    return f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.compiled"


def _said(key: tuple[str, ...]) -> bytes:
    """Return the first line of an entry, which states what it is."""
    return json.dumps(list(key)).encode() + b"\n"


def _owner() -> int | None:
    """Return the user's number; None on Windows, which has no such numbers and protects the folder itself."""
    return None if sys.platform == "win32" else os.geteuid()


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[int | None]:
    """Hold a folder open, so that no other can take its place; None where the system cannot.

    Raises:
        OSError: it is not there, is another user's, or others may write to it.
    """
    if _owner() is None:
        yield None
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = os.fstat(handle)
        if status.st_uid != _owner() or status.st_mode & _ANYBODY_ELSE:
            raise PermissionError("another could have written to it")
        yield handle
    finally:
        os.close(handle)


def _own_file(path: Path, folder: int | None) -> bytes:
    """Read an entry of the folder that is held, whole.

    Raises:
        OSError: there is none, or it is no file, a link, or another user's.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags) if folder is None else os.open(path.name, flags, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT or _owner() not in (None, status.st_uid):
            raise PermissionError("it is no file of the user's own")
        return file.read(status.st_size)


def _make_own(folder: Path) -> None:
    """Make the folder, for the user alone; of one that others could write to, what they may have written goes.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if _owner() is None:
        return
    status = folder.stat()
    if status.st_uid != _owner():
        raise PermissionError("it is another user's")
    if status.st_mode & _ANYBODY_ELSE:  # an older version made it with a umask of 002
        folder.chmod(0o700)
        for path in folder.glob("*.compiled"):
            path.unlink(missing_ok=True)


_Hint = Literal["LATENCY", "THROUGHPUT"]
_KEPT = 4  # compiled graphs in memory, one for each picture size and hint


class OpenVinoEngine(BackboneEngine):
    """Runs a backbone on the CPU, or on what else OpenVINO knows, with the graph cut behind the deepest layer.

    A graph is compiled when the first picture of a size arrives, and only for the way in which it is used: `run` with
    one picture uses all cores for it; `run` with more pictures and `stream` process several pictures at a time, each
    on few cores. Any thread may call it.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: tuple[str, ...],
        *,
        device: str | None = None,
        precision: str = "auto",
        cache: Path | Literal["home"] | None = "home",
        threads: int | None = None,
    ) -> None:
        """Check the settings; nothing is compiled yet.

        Args:
            backbone: the graph.
            layers: names of the layers to return, such as ("layer2", "layer3").
            device: OpenVINO's name of what computes, such as "GPU" or "GPU.1"; the processor if not given.
            precision: "f32"; "bf16", half the memory traffic and about 3 digits; "auto", bf16 where the processor
                computes in it natively.
            cache: folder of the processor's compiled graphs; "home" is the per-user folder, None stores nothing.
            threads: threads to compute with; all cores if not given.

        Raises:
            SettingError: a layer, device or precision does not exist, or this machine lacks it.
        """
        super().__init__(backbone, layers, device=device, precision=precision, threads=threads)
        self._given["cache"] = cache
        self._cache = CompiledCache((_home_cache() if cache == "home" else cache) if self._device == "CPU" else None)
        self._compiled: OrderedDict[tuple[int, int, _Hint], _Compiled] = OrderedDict()

    def _chosen(self, device: str | None, precision: str) -> tuple[str, str]:
        name = _checked_device(device)
        return name, _checked_precision(precision, name)

    def renew(self) -> None:
        """Forget the compiled graphs in a forked child, whose threads are gone. They are compiled again when used."""
        super().renew()
        abandon(self._compiled)
        self._compiled = OrderedDict()

    def run(self, images: npt.NDArray[np.generic]) -> dict[str, FeatureMap]:
        """Return layer -> float32 (n, h, w, c).

        Args:
            images: uint8 RGB (n, height, width, 3), n at least 1; height and width may differ from call to call.

        Raises:
            SettingError: the array is of another type or shape.
            BackboneError: the graph is damaged.
        """
        check_pictures(images, 4)
        if len(images) == 1 and in_worker():
            compiled = self._get(images.shape[1], images.shape[2], "THROUGHPUT")
            with undivided():
                return compiled.infer(np.ascontiguousarray(images))
        if len(images) == 1:
            with self._lock:  # one picture has all the cores
                compiled = self._get(images.shape[1], images.shape[2], "LATENCY")
                with undivided():
                    return compiled.infer(np.ascontiguousarray(images))
        return stacked(self.stream(enumerate(images)), len(images))

    def stream(
        self, pictures: Iterable[tuple[Token, npt.NDArray[np.generic]]]
    ) -> Iterator[tuple[Token, dict[str, FeatureMap]]]:
        """Yield each token with layer -> float32 (1, h, w, c), in the order of the pictures.

        It draws a few pictures ahead of what it yields and no more, so the source may be endless. An error in the
        source comes out here; closing the generator stops the work in hand.

        Args:
            pictures: a token of yours with each picture, uint8 RGB (height, width, 3), sizes as they come.

        Raises:
            SettingError: a picture is of another type or shape.
            BackboneError: the graph is damaged.
        """
        pending: deque[tuple[Token, Any, _Compiled]] = deque()
        idle: list[Any] = []
        current: _Compiled | None = None
        born = generation()
        try:
            for token, picture in pictures:
                check_pictures(picture, 3)
                compiled = self._get(picture.shape[0], picture.shape[1], "THROUGHPUT")
                if compiled is not current:
                    idle, current = [], compiled
                if len(pending) >= compiled.in_flight:
                    oldest, request, owner = pending.popleft()
                    yield oldest, owner.finish(request)
                    check_not_forked(born)
                    if owner is current:
                        idle.append(request)
                with undivided():
                    request = idle.pop() if idle else compiled.model.create_infer_request()
                    _running[id(request)] = request
                    request.start_async([np.ascontiguousarray(picture)[np.newaxis]])  # copies the picture in
                pending.append((token, request, compiled))
            while pending:
                token, request, owner = pending.popleft()
                yield token, owner.finish(request)
                check_not_forked(born)
        finally:
            if born == generation():
                # subtle: a request must not be freed while it computes
                for _, request, _ in pending:
                    with contextlib.suppress(RuntimeError):
                        request.cancel()
                        request.wait()
                    _running.pop(id(request), None)
            else:  # it computes in the parent, here it never ends
                abandon((pending, idle, current))

    def _get(self, height: int, width: int, hint: _Hint) -> "_Compiled":
        """Return the graph for one picture size, compiled now or before."""
        key = (height, width, hint)
        with self._lock:
            if key not in self._compiled:
                with undivided():
                    self._compiled[key] = _Compiled(self._compile(height, width, hint), self._layers)
            self._compiled.move_to_end(key)
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            return self._compiled[key]

    def _compile(self, height: int, width: int, hint: _Hint) -> Any:
        settings: dict[str, str | int] = {"PERFORMANCE_HINT": hint}
        if self._device == "AUTO":  # it takes no number format, but leaves the graph's own as it is
            settings["EXECUTION_MODE_HINT"] = "ACCURACY"
        elif self._precision != "f16":
            settings["INFERENCE_PRECISION_HINT"] = self._precision
        if self._threads is not None:
            settings["INFERENCE_NUM_THREADS"] = self._threads
        graph = sha256(self._backbone.graph)  # of what would be compiled, whatever the backbone says
        key = (f"totalrecall {__version__}", graph, *self._layers, f"{height}x{width}", repr(settings), *machine())
        blob = self._cache.read(key)
        if blob is not None:
            with contextlib.suppress(RuntimeError, ValueError, TypeError):  # whole, yet refused: compile anew
                return core().import_model(blob, self._device, settings)
        size = f"on {height}x{width} pictures"
        with refused(self._backbone, size):
            model = checked_model(self._backbone, self._layers, height, width)
        with refused(self._backbone, size, device="" if self._device == "CPU" else self._device):
            compiled = core().compile_model(model, self._device, settings)
        with contextlib.suppress(RuntimeError):  # a plugin that cannot export is no worse off than without a cache
            exported = compiled.export_model()  # bytes up to OpenVINO 2025.0, then a stream of them
            self._cache.write(key, exported if isinstance(exported, bytes) else exported.getvalue())
        return compiled


class _Compiled:
    """A graph compiled for one picture size and hint."""

    def __init__(self, model: Any, layers: tuple[str, ...]) -> None:
        self.model = model
        # one more than are computed at a time, so that none waits while a result is taken out
        self.in_flight = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 1
        self._layers = layers
        self._own = threading.local()

    def infer(self, images: npt.NDArray[np.generic]) -> dict[str, FeatureMap]:
        """Return the maps of one picture, by a request of the calling thread's own; a stream does not need it."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self.model.create_infer_request()
        with _uncomputable():
            request.infer([images], share_outputs=True)  # `collect` copies them
        return self.collect(request)

    def finish(self, request: Any) -> dict[str, FeatureMap]:
        with _uncomputable():
            request.wait()
        _running.pop(id(request), None)
        return self.collect(request)

    def collect(self, request: Any) -> dict[str, FeatureMap]:
        # subtle: the arrays are views of buffers that the request's next picture overwrites, so they are copied
        return {layer: request.get_tensor(layer).data.copy() for layer in self._layers}


def _checked_device(given: str | None) -> str:
    """Return OpenVINO's name of a device.

    Raises:
        SettingError: this machine has none of that name.
    """
    device = (given or "CPU").upper()
    if device == "CPU":  # looking for others takes its time
        return device
    there = list(core().available_devices)
    kinds = [name.partition(".")[0] for name in there]
    allowed = list(dict.fromkeys([*kinds, *there, "AUTO"]))
    if device not in allowed:
        raise not_there("openvino", str(given), allowed, "Install its driver, or leave it out.")
    return device


def _checked_precision(asked: str, device: str) -> str:
    """Return the number format that a device will compute in.

    Raises:
        SettingError: it has not the one that was asked for.
    """
    if device == "CPU":
        native = "BF16" in capabilities()
        if asked == "bf16" and not native:
            raise SettingError(
                "precision bf16 needs a processor with bf16 arithmetic, which this one has not. "
                "Use precision auto or f32.",
                "precision",
            )
        return "bf16" if native and asked != "f32" else "f32"
    offered = ("FP32",) if device == "AUTO" else core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    names = [name for name, said in (("f32", "FP32"), ("bf16", "BF16")) if said in offered]
    if asked == "auto":
        return names[0] if names else "f16"  # an NPU has nothing but its own
    if asked not in names:
        raise SettingError(
            f"precision must be one of {', '.join(['auto', *names])} on device {device}, got {asked}. "
            "Use precision auto.",
            "precision",
            "device",
        )
    return asked


def _home_cache() -> Path | None:
    """Return the per-user folder of compiled graphs; None for a user without a home, as in a container."""
    try:
        return home() / "cache"
    except DataError:
        return None


_running: dict[int, Any] = {}  # the requests of all streams that may be computing


def _wait_for_all() -> None:
    """Wait until OpenVINO's own threads have nothing to do; their outcome is for whoever started them."""
    for request in list(_running.values()):
        with contextlib.suppress(RuntimeError):
            request.wait()


wait_before_fork(_wait_for_all)


@contextlib.contextmanager
def _uncomputable() -> Iterator[None]:
    """Turn what OpenVINO says of a graph that it cannot compute into an error of ours."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        raise BackboneError(f"The backbone's graph cannot be computed ({lines[-1][:300]}). Add it again.") from None


def _renew() -> None:
    """Let a forked child begin anew: what the parent's threads compute never ends here."""
    abandon(list(_running.values()))
    _running.clear()


in_child(_renew)
