"""Changes of the models' files: the audit trail announces each of them before the file is written.

    the row of the trail, committed -> the file is replaced -> the model is read again and used

So no file is changed, and no picture judged by another model, without a row that says so, whenever the process is
killed. Each row holds the file's SHA-256 as `sha256`, and a change that of the file before as `sha256_before`. What was
announced and is not there, is told by another row: at once if the file cannot be written, at the next start if the
process was killed in between. A file that another program replaced is told before it is used.
"""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from totalrecall.errors import ConflictError, DataError, HistoryError, TotalRecallError
from totalrecall.station.judging.models import digest_of
from totalrecall.station.store.disk import writing
from totalrecall.station.store.records import STATION, Actor
from totalrecall.system.files import exclusive, sha256, write_atomically

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded, Shelf
    from totalrecall.station.store.chain import Entry
    from totalrecall.station.store.database import Database
    from totalrecall.station.store.trail import Trail

__all__ = ["CHANGES", "NOT_IN_PLACE", "REPLACED", "START", "ModelFiles"]

FIT = "fit"
CHANGES = (FIT, "threshold", "threshold taken back", "approve", "undo")
NOT_IN_PLACE = "change not in place"
REPLACED = "model replaced"  # by another program
START = "start"
_TELLING = (*CHANGES, NOT_IN_PLACE, REPLACED, START)  # the rows that tell a model's hash

TakeBack = Callable[[Connection, Mapping[str, Any]], object]


class ModelFiles:
    """Writes the files of a station's models, and writes down who changed them. Any thread may call it.

    Args:
        shelf: of the models.
        database: of the station.
        trail: in it.
        folder: for files that are being made; emptied at the start.
    """

    def __init__(self, shelf: "Shelf", database: "Database", trail: "Trail", folder: Path) -> None:
        self._shelf, self._database, self._trail = shelf, database, trail
        self._folder = folder
        self._changing = threading.Lock()  # one change at a time
        self._take_back: dict[str, TakeBack] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def take_back_by(self, action: str, function: TakeBack) -> None:
        """Call a function with the details of each change of a kind that was announced and is not in place.

        What it writes comes in one transaction with the row that says so: there it undoes what came with the
        announcement.
        """
        self._take_back[action] = function

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Give a path at which a new version of a model can be made; it is gone afterwards.

        Raises:
            HistoryError: it cannot be written.
        """
        with writing(self._folder), tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield Path(folder) / name

    def replace(
        self,
        model: str,
        data: bytes,
        *,
        before: str,
        actor: Actor,
        action: str,
        details: Mapping[str, Any],
        also: Callable[[Connection], object] | None = None,
    ) -> "Loaded":
        """Put another file in the place of a model's, and use it.

        Args:
            model: its name.
            data: the bytes of the new file.
            before: SHA-256 of the file that is expected there.
            actor: who wants it.
            action: one of `CHANGES`.
            details: for the row of the trail.
            also: what is written in the transaction that announces the change.

        Returns:
            The model as it is in use now.

        Raises:
            NotFoundError: there is no model of that name.
            ConflictError: another file is there.
            HistoryError: the file cannot be written.
            DataError: another program changes it.
            UnusableFileError: the new file cannot be used; the one before is there again.
        """
        path = self._shelf.get(model).path
        with self._changing, exclusive(path) as there:
            if there != before:
                raise ConflictError(
                    f"The model's file {path.name} has changed since then (SHA-256 {there[:12]}, expected "
                    f"{before[:12]}). Look at the model as it is now, and decide again."
                )
            self._settle(model, there)
            facts = {**details, "sha256_before": before, "sha256": sha256(data)}
            row = self._announce(actor, action, model, facts, also)
            old = path.read_bytes()
            try:
                _write(path, data, before)
                return self._shelf.reload(model)
            except BaseException as error:
                with contextlib.suppress(TotalRecallError):
                    _write(path, old, facts["sha256"])
                    self._shelf.look()
                self._tell_not_in_place(row, action, model, facts, path, error)
                raise

    def add(self, path: Path, data: bytes, *, actor: Actor, details: Mapping[str, Any]) -> "Loaded":
        """Write the file of a model that was fitted here, and offer it; otherwise as `replace`.

        Raises:
            SettingError: there is a model of that name.
            HistoryError: the file cannot be written.
        """
        with self._changing:
            facts = {**details, "sha256_before": None, "sha256": sha256(data)}
            row = self._announce(actor, FIT, path.stem, facts, None)
            try:
                _write(path, data, None)
                return self._shelf.add(path)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    path.unlink()
                self._tell_not_in_place(row, FIT, path.stem, facts, path, error)
                raise

    def reload(self, model: str, actor: Actor) -> "Loaded":
        """Read a model's file again because somebody asks for it.

        Raises:
            NotFoundError: there is no model of that name.
            UnusableFileError: the file cannot be used; the model in use stays.
        """
        in_use = self._shelf.get(model)
        self._trail.append(actor, "reload", in_use.name, {"sha256": in_use.sha256}).result()
        return self._shelf.reload(in_use.name)

    def found(self, loaded: "Loaded") -> None:
        """Write down, before it is used, that a file is another than the trail says.

        Raises:
            HistoryError: it cannot be written down.
        """
        entry = self._trail.last(loaded.name, _TELLING)
        before = None if entry is None else entry.facts().get("sha256")
        if before != loaded.sha256:
            details = {"sha256_before": before, "sha256": loaded.sha256, "file": loaded.path.name}
            self._trail.append(STATION, REPLACED, loaded.name, details).result()

    def start(self) -> None:
        """Compare the files with what the trail says of them, and write down where they differ and what is in use.

        Raises:
            HistoryError: it cannot be written down.
        """
        for loaded in self._shelf.all():
            self._settle(loaded.name, loaded.sha256)
            self._trail.append(STATION, START, loaded.name, {"sha256": loaded.sha256}).result()
        there = {loaded.name for loaded in self._shelf.all()} | self._shelf.faults.keys()
        for name in self._trail.subjects(FIT) - there:
            entry = self._trail.last(name, _TELLING)
            if entry is not None and entry.action == FIT:
                self._tell_found_not_in_place(entry, None)

    def _announce(
        self,
        actor: Actor,
        action: str,
        model: str,
        facts: Mapping[str, Any],
        also: Callable[[Connection], object] | None,
    ) -> int:
        def write(connection: Connection) -> int:
            if also is not None:
                also(connection)
            return self._trail.append_in(connection, actor, action, model, facts)

        return self._database.write(write).result()

    def _settle(self, model: str, there: str) -> None:
        """Write down where the file of a model is not the one that the trail says."""
        entry = self._trail.last(model, _TELLING)
        facts = {} if entry is None else entry.facts()
        if entry is None or facts.get("sha256") == there:
            return
        if entry.action in CHANGES and facts.get("sha256_before") == there:
            self._tell_found_not_in_place(entry, there)
            return
        details = {"sha256_before": facts.get("sha256"), "sha256": there}
        self._trail.append(STATION, REPLACED, model, details).result()

    def _tell_found_not_in_place(self, entry: "Entry", there: str | None) -> None:
        what = "the file before is there" if there else "there is no such file"
        self._not_in_place(entry.id, entry.action, entry.subject, entry.facts(), there, f"found later: {what}")

    def _tell_not_in_place(
        self, row: int, action: str, model: str, facts: Mapping[str, Any], path: Path, error: BaseException
    ) -> None:
        there = None
        with contextlib.suppress(TotalRecallError):  # gone; or somebody else's by now
            there = digest_of(path)
        reason = str(error) if isinstance(error, TotalRecallError) else type(error).__name__
        with contextlib.suppress(TotalRecallError):  # else it is found before the next change, or at the next start
            self._not_in_place(row, action, model, facts, there, reason)

    def _not_in_place(
        self, row: int, action: str, model: str, facts: Mapping[str, Any], there: str | None, reason: str
    ) -> None:
        details = {"row": row, "action": action, "sha256": there, "reason": reason}

        def write(connection: Connection) -> None:
            if action in self._take_back:
                self._take_back[action](connection, facts)
            self._trail.append_in(connection, STATION, NOT_IN_PLACE, model, details)

        self._database.write(write).result()


def _write(path: Path, data: bytes, before: str | None) -> None:
    try:
        write_atomically(path, lambda file: file.write(data), replacing=before)
    except DataError as error:
        if before is not None and _is_another(path, before):
            raise
        raise HistoryError(str(error)) from None  # the disk is full, or the folder is gone: it may be tried again


def _is_another(path: Path, before: str) -> bool:
    with contextlib.suppress(TotalRecallError):
        return digest_of(path) != before
    return False
