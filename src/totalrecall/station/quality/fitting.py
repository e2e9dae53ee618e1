"""Fitting from the page: good pictures that were uploaded become a model, in a child process with its progress.

    pictures -> fits/KEY/pictures -> a child fits -> fits/KEY/model.trecall -> models/NAME.trecall -> the shelf

The pictures of the last fit stay until the next one begins, for `audit` and `capability` on demand. A fit does not
survive the end of the station: what a killed one left is removed at the next start.
"""

import contextlib
import os
import re
import secrets
import shutil
import threading
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.errors import ConflictError, HistoryError, NotFoundError, SettingError
from totalrecall.station.judging.caption import Upload
from totalrecall.station.quality.workers import Progress, Work, Workers
from totalrecall.station.store.records import Actor
from totalrecall.system.files import file_sha256

if TYPE_CHECKING:
    from totalrecall.station.quality.services import Services

__all__ = ["MODELS", "MOST_FITTED", "Fits", "checked_name", "models_of"]

MODELS = "models"  # folder of the models that were fitted here, in the station's
_FEWEST = 3  # pictures
MOST_FITTED = 5000  # pictures of one fit
_LARGEST = 4 << 30  # bytes of all pictures
_NAME = re.compile(r"[^\W_][\w\-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # names that Windows keeps for itself
_SETTINGS = ("false_alarm_rate", "size", "backbone")
_LANE = "fit"
_SHOWN = 20  # pictures of an audit
_BITS = re.compile(r"[^\w.\- ]")


def checked_name(name: str) -> str:
    """Return a model's name as its file is called.

    Raises:
        SettingError: it is none.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise SettingError(
            "A model's name has 1 to 64 letters, digits, - and _, and begins with a letter or digit, got "
            f"{name[:80]!r}.",
            "name",
        )
    return name


def models_of(folder: Path) -> list[Path]:
    """Return the models that were fitted from the page, in a station's folder."""
    return sorted(folder.joinpath(MODELS).glob("*.trecall"))


class Fits:
    """Fits models from uploaded pictures, one at a time. Any thread may call it.

    Args:
        station: that gets the models.
    """

    def __init__(self, station: "Services") -> None:
        self._station = station
        self._folder = station.settings.folder / "fits"
        self._models = station.settings.folder / MODELS
        self._workers = Workers()
        self._beginning = threading.Lock()  # the folder is emptied there
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._models.mkdir(parents=True, exist_ok=True)

    def begin(self, name: str, pictures: Sequence[Upload], actor: Actor, settings: dict[str, Any] | None = None) -> str:
        """Begin to fit a model, and return the key of the work.

        Args:
            name: of the model that is to be.
            pictures: of good parts.
            actor: who asks for it.
            settings: `false_alarm_rate`, `size` and `backbone`, where they should differ from the defaults.

        Raises:
            SettingError: the name or a setting is not allowed, or there are too few or too many pictures.
            ConflictError: there is a model of that name, or another fit is running.
            HistoryError: the pictures cannot be written.
        """
        name, settings = checked_name(name), dict(settings or {})
        unknown = sorted(set(settings) - set(_SETTINGS))
        if unknown:
            raise SettingError(f"Settings of a fit here are {', '.join(_SETTINGS)}, got {unknown[0][:80]!r}.")
        _check_settings(settings)
        if not _FEWEST <= len(pictures) <= MOST_FITTED:
            raise SettingError(f"A fit takes {_FEWEST} to {MOST_FITTED:,} pictures, got {len(pictures)}.")
        total = sum(len(one.picture) for one in pictures)
        if total > _LARGEST:
            raise SettingError(f"The pictures hold {total:,} bytes, allowed are {_LARGEST:,}. Send fewer.")
        with self._beginning:
            self._check_free(name)
            if any(one.state == "running" for one in self._workers.all()):
                raise ConflictError("Another fit is running. Wait until it is done, or cancel it.")
            for old in self._folder.glob("*"):
                shutil.rmtree(old, ignore_errors=True)
            return self._begin(Work(secrets.token_hex(16), "fit", name, actor.name), pictures, actor, settings)

    def _begin(self, work: Work, pictures: Sequence[Upload], actor: Actor, settings: dict[str, Any]) -> str:
        """Write the pictures, and let a child fit."""
        folder = self._folder / work.key
        pictures_folder = folder / "pictures"
        try:
            pictures_folder.mkdir(parents=True)
            for number, one in enumerate(pictures):
                (pictures_folder / f"{number:04d} {_readable(one.name)}").write_bytes(one.picture)
            arguments = {
                "folder": str(pictures_folder.absolute()),
                "model": str((folder / "model.trecall").absolute()),
                "settings": settings,
                "running": dict(self._station.settings.running),
            }
            self._workers.begin(
                work,
                _LANE,
                _fit,
                arguments,
                finish=lambda result: self._fitted(work, actor, result),
                clean=lambda: None if work.result is not None else shutil.rmtree(folder, ignore_errors=True),
            )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise HistoryError(
                f"The pictures cannot be written to {folder}: {error.strerror or error}. Free some space on its disk."
            ) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return work.key

    def begin_audit(self, key: str, actor: Actor) -> str:
        """Begin to look for odd pictures among those of the last fit, and return the key of the work.

        Raises:
            NotFoundError: it was not the last fit, or failed.
            ConflictError: another work is running.
        """
        return self._begin_more(key, "audit", actor)

    def begin_capability(self, key: str, actor: Actor) -> str:
        """Begin to plant defects on the pictures of the last fit; otherwise as `begin_audit`."""
        return self._begin_more(key, "capability", actor)

    def cancel(self, key: str) -> None:
        """End a work; nothing of it is left.

        Raises:
            NotFoundError: none of that key runs.
        """
        self._workers.cancel(key)

    def wait(self, key: str, seconds: float | None = None) -> None:
        """Return when a work is over, or after some seconds."""
        self._workers.wait(key, seconds)

    def facts(self, key: str) -> dict[str, Any]:
        """Return how far a work is, with its result.

        Raises:
            NotFoundError: there is none of that key.
        """
        work = self._workers.get(key)
        if work is None:
            raise NotFoundError(f"There is no fit {key}.")
        return {**work.to_json(), "result": work.result}

    def all(self) -> list[dict[str, Any]]:
        """Return them without results, the newest first."""
        return [work.to_json() for work in self._workers.all()]

    def close(self) -> None:
        """End what runs; nothing of it is left."""
        self._workers.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin_more(self, key: str, what: str, actor: Actor) -> str:
        with self._beginning:  # else a new fit could remove the pictures meanwhile
            return self._begin_with_pictures(key, what, actor)

    def _begin_with_pictures(self, key: str, what: str, actor: Actor) -> str:
        fit = self._workers.get(key)
        folder = self._folder / key
        if fit is None or fit.what != "fit" or fit.state != "done" or not folder.is_dir():
            raise NotFoundError(f"The pictures of fit {key} are not here any more. Fit again.")
        work = Work(secrets.token_hex(16), what, fit.model, actor.name)
        task = _audit if what == "audit" else _capability
        arguments = {
            "folder": str((folder / "pictures").absolute()),
            "model": str((self._models / f"{fit.model}.trecall").absolute()),
            "running": dict(self._station.settings.running),
        }
        self._workers.begin(work, _LANE, task, arguments)
        return work.key

    def _check_free(self, name: str) -> None:
        """Raise ConflictError if there is a model of a name."""
        if any(loaded.name == name for loaded in self._station.shelf.all()) or self._file(name).exists():
            raise ConflictError(f"There is a model {name} already. Choose another name.")

    def _file(self, name: str) -> Path:
        return self._models / f"{name}.trecall"

    def _fitted(self, work: Work, actor: Actor, result: dict[str, Any]) -> dict[str, Any]:
        """Put a model in its place, and offer it."""
        target, source = self._file(work.model), self._folder / work.key / "model.trecall"
        self._check_free(work.model)
        details = {"pictures": result["pictures"], "settings": result["settings"]}
        self._station.model_files.add(target, source.read_bytes(), actor=actor, details=details)
        with contextlib.suppress(OSError):
            source.unlink()  # the shelf's file holds it now
        return result


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse what the detector would refuse, before the pictures are written.

    Raises:
        SettingError: a setting is not allowed.
    """
    from totalrecall.patchcore.settings import Settings

    backbone = settings.get("backbone")
    if backbone is not None and (not isinstance(backbone, str) or not _NAME.fullmatch(backbone)):
        raise SettingError("backbone must be the name of a backbone, such as compact.", "backbone")
    Settings(**settings)


def _readable(name: str) -> str:
    """Return what a person recognises of an uploaded file's name; the number before it makes it a name of ours."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return _BITS.sub("_", last)[-80:] or "picture"


# ---------------------------------------------------------------------- in the child


def _pictures(arguments: dict[str, Any]) -> list[str]:
    """Return the names of the uploaded pictures, and go where they are: a model names its pictures by them."""
    os.chdir(arguments["folder"])
    return sorted(path.name for path in Path().iterdir())


def _sent_name(name: str) -> str:
    """Return what a picture was called when it was sent, without our number before it."""
    return name.partition(" ")[2]


def _fit(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Fit and save a model."""
    from totalrecall.patchcore.detector import PatchCore

    names = _pictures(arguments)
    running = {name: value for name, value in arguments["running"].items() if value is not None}
    detector = PatchCore(**{**running, **arguments["settings"]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        detector.fit(names, progress=progress)
    detector.save(arguments["model"])
    promise = detector.promise_
    return {
        "sha256": file_sha256(arguments["model"]),
        "pictures": len(detector.pictures_),
        "settings": {**detector.settings.stored(), "size": detector.recipe.size},
        "summary": detector.summary(),
        "promise": promise.in_words(),
        "note": promise.note(),
        "skipped": [str(error) for error in detector.skipped_],
        "outliers": list(detector.outliers_),
        "notices": list(dict.fromkeys(str(one.message) for one in caught)),
    }


def _audit(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Look for odd pictures among the good ones."""
    from totalrecall.audit.audit import audit

    names = _pictures(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = audit(names, progress=progress)
    shown = [
        {
            "name": _sent_name(one.entry.path),
            "level": one.entry.level,
            "stands_out": one.entry.stands_out,
            "reason": one.reason,
            "like": one.entry.like,
        }
        for one in seen.show(_SHOWN)
    ]
    return {
        "pictures": len(seen.entries),
        "outliers": len(seen.outliers),
        "parts": seen.parts,
        "worst": shown,
        "duplicates": [list(map(_sent_name, group.paths)) for group in seen.duplicates],
        "skipped": [str(error) for error in seen.skipped],
    }


def _capability(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Plant defects on the good pictures."""
    from totalrecall.capability.capability import capability
    from totalrecall.registry import load_detector

    names = _pictures(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = capability(load_detector(arguments["model"], **arguments["running"]), names, progress=progress)
    return {**found.summary(), "sentences": list(found.sentences()), "notes": list(found.notes())}
