"""The models of a station by name, and their files, which may be replaced while it runs.

A model's name is its file's stem. A file that was replaced is read and warmed up beside the model in use, which goes on
judging meanwhile; then the two are swapped at once, so no request is dropped. A file that cannot be used leaves the
model in use as it is, and the reason is told.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from totalrecall.detectors.model_file import missing_model
from totalrecall.errors import ModelFileError, NotFoundError, SettingError, TotalRecallError, UnusableFileError
from totalrecall.registry import load_judge, warm_up
from totalrecall.station.store.records import iso
from totalrecall.system.files import file_sha256
from totalrecall.system.text import listed, unexpected

if TYPE_CHECKING:
    from totalrecall.registry import AnyJudge

__all__ = ["Loaded", "Shelf", "digest_of", "model_name"]

_MOST_NAMED = 8
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model as it is in use.

    Attributes:
        name: the stem of its file.
        path: of the file.
        sha256: of the file that it was read from.
        judge: the detector, or the exported graph.
        at: when it was read, UTC.
    """

    name: str
    path: Path
    sha256: str
    judge: "AnyJudge"
    at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return what clients are told of it."""
        judge = self.judge
        threshold = float(judge.threshold_)
        return {
            "name": self.name,
            "sha256": self.sha256,
            "kind": judge.kind,
            "backbone": judge.backbone.name,
            "threshold": threshold if np.isfinite(threshold) else None,
            "promise": judge.promise_.in_words(),
            "training_pictures": len(judge.pictures_),
            "loaded_at": iso(self.at),
        }


class Shelf:
    """Reads models and keeps them by name. Any thread may call it.

    Args:
        paths: of the model files.
        running: engine, device, precision and threads, for `load_judge`.
        before_use: called with each model that was read again and is another, before it judges; if it raises, the
            model before goes on.
        on_change: called with it once it is in use.

    Raises:
        SettingError: two files have the same name.
        ModelFileError, BackboneError: a file cannot be used.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        running: Mapping[str, Any] | None = None,
        *,
        before_use: Callable[[Loaded], None] = lambda _: None,
        on_change: Callable[[Loaded], None] = lambda _: None,
    ) -> None:
        self._running = dict(running or {})
        self._before_use, self._on_change = before_use, on_change
        self._models: dict[str, Loaded] = {}
        self._stamps: dict[str, _Stamp | None] = {}
        self.faults: dict[str, str] = {}  # why a file that was replaced is not in use, by the model's name
        self._reading = threading.Lock()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        for path in paths:
            self.add(path)

    def add(self, path: str | Path) -> Loaded:
        """Read a model and offer it by its name.

        Raises:
            SettingError: there is one of that name.
            ModelFileError, BackboneError: the file cannot be used.
        """
        path = Path(path)
        name = model_name(path)
        with self._reading:
            if name in self._models:
                first = self._models[name].path
                raise SettingError(f"Two models have the name {name}: {first} and {path}. Rename one of the files.")
            self._stamps[name] = _stamp(path)
            loaded = self._read(name, path)
            self._models = {**self._models, name: loaded}
        return loaded

    def get(self, name: str | None = None) -> Loaded:
        """Return a model; without a name the only one.

        Raises:
            NotFoundError: there is none of that name, or the name is missing and there are several.
        """
        models = self._models
        if name is None and len(models) == 1:
            return next(iter(models.values()))
        if name is None or name not in models:
            names = listed(sorted(models), _MOST_NAMED)
            got = "no name" if name is None else repr(name[:80])
            raise NotFoundError(f"model must be one of {names}, got {got}.")
        return models[name]

    def all(self) -> list[Loaded]:
        """Return all models, by name."""
        return [loaded for _, loaded in sorted(self._models.items())]

    def reload(self, name: str) -> Loaded:
        """Read a model's file again, whether it was replaced or not.

        Raises:
            NotFoundError: there is no model of that name.
            ModelFileError, BackboneError: the file cannot be used; the model in use stays, and `faults` says why.
        """
        with self._reading:
            before = self.get(name)
            self._stamps[name] = _stamp(before.path)
            try:
                loaded = self._read(name, before.path)
                if loaded.sha256 != before.sha256:
                    self._before_use(loaded)
            except Exception as error:
                self.faults[name] = str(error) if isinstance(error, TotalRecallError) else unexpected(error)
                if not isinstance(error, UnusableFileError):
                    self._stamps[name] = None  # it is not the file's fault, so the next look tries again
                raise
            self._models = {**self._models, name: loaded}
            self.faults.pop(name, None)
        if loaded.sha256 != before.sha256:
            self._on_change(loaded)
        return loaded

    def look(self) -> None:
        """Read those models again whose files were replaced."""
        for loaded in self.all():
            stamp = _stamp(loaded.path)
            if stamp == self._stamps[loaded.name]:
                continue
            if stamp is None:
                self._stamps[loaded.name] = None  # if it comes back, it is read
                self.faults[loaded.name] = f"{loaded.path} is gone; the model stays in use until the station ends."
                continue
            try:
                self.reload(loaded.name)
            except Exception as error:  # whatever it is, the other models are looked at, and this one later again
                self.faults.setdefault(loaded.name, unexpected(error))

    def watch(self, seconds: float) -> None:
        """Look every so many seconds, in a thread, until `close`."""
        if seconds <= 0 or self._watcher is not None:
            return

        def run() -> None:
            while not self._closing.wait(seconds):
                self.look()

        self._watcher = threading.Thread(target=run, name="station-models", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()

    def _read(self, name: str, path: Path) -> Loaded:
        digest = ""
        while True:  # a file that is replaced while it is read would get the hash of another
            before, digest = digest, digest_of(path)
            if digest == before:
                break
            judge = load_judge(path, **self._running)
        warm_up(judge)
        return Loaded(name, path, digest, judge, datetime.now(timezone.utc))


def model_name(path: Path) -> str:
    """Return the name of a model: its file's stem.

    Raises:
        SettingError: it holds what an address cannot.
    """
    name = path.stem
    if not name or not name.isprintable() or any(letter in name for letter in "/\\?#%"):
        raise SettingError(
            f"A model's name is its file's, and may not be empty or hold / \\ ? # %, got {name!r}. Rename the file."
        )
    return name


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a model's file.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        return file_sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        raise missing_model(path) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from None


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:  # gone, or being replaced
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
