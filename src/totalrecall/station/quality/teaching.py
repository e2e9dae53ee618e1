"""Teaching a model from what people judged: a proposed version, its comparison, approval, and one click back.

    judged pictures -> a proposed version, made in a child process -> compared with the version in use -> a person
    approves -> the model's file is replaced -> one click restores the file before, to the byte

The version in use is never written but by `approve` and `undo`, and only if it is still the one that the proposal was
made from. In the station's folder a proposal is `proposals/KEY.trecall`, and the file before `proposals/KEY.before`.
"""

import contextlib
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select, update

from totalrecall.errors import ConflictError, DataError, HistoryError, NotFoundError, SettingError
from totalrecall.registry import is_exported
from totalrecall.station.quality import comparing
from totalrecall.station.quality.known import known_pictures
from totalrecall.station.quality.workers import Work, Workers
from totalrecall.station.store.disk import writing
from totalrecall.station.store.records import Actor, Inspection, iso, storable
from totalrecall.station.store.tables import proposals
from totalrecall.system.files import atomic_write, sha256

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.quality.services import Services

__all__ = ["Teaching"]

_MOST_TAUGHT = 200  # pictures of one proposal
_LEARNS = ("patchcore", "joined")
_BEFORE_KEPT = 10  # files of approved proposals of a model


class Teaching:
    """Proposals of a station. Any thread may call it.

    Args:
        station: whose models are taught.
    """

    def __init__(self, station: "Services") -> None:
        self._station = station
        self._deciding = threading.Lock()  # a file and the word on it change together, by one person at a time
        self._folder = station.settings.folder / "proposals"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._workers = Workers()
        self._sweep()
        station.model_files.take_back_by("approve", _not_approved)
        station.model_files.take_back_by("undo", _not_undone)

    # ------------------------------------------------------------------ proposing

    def propose(self, model: str, *, fine: Sequence[str] = (), missed: Sequence[str] = (), actor: Actor) -> str:
        """Begin to make a proposed version, and return the proposal's key.

        Args:
            model: its name.
            fine: keys of inspections that a person judged "fine": the model learns their pictures.
            missed: keys of inspections that passed and that a person judged "defect": the threshold is lowered until
                it catches them. One of the two.
            actor: who asks for it.

        Raises:
            SettingError: neither or both were given, or the model cannot learn.
            NotFoundError: there is no such model or inspection.
            ConflictError: a picture was judged otherwise or is not kept, or the model is being taught already.
            DataError: the model's file is gone.
            HistoryError: the pictures cannot be written.
        """
        if bool(fine) == bool(missed):
            raise SettingError("A proposal needs pictures that are fine, or defects that were missed: one of the two.")
        loaded = self._station.shelf.get(model)
        keys = list(dict.fromkeys(fine or missed))
        if len(keys) > _MOST_TAUGHT:
            raise SettingError(f"A proposal takes at most {_MOST_TAUGHT} pictures, got {len(keys)}. Choose fewer.")
        _check_kind(loaded, learns=bool(fine))
        taught = [self._checked(loaded, key, "fine" if fine else "defect") for key in keys]
        work = Work(secrets.token_hex(16), "learn" if fine else "catch", loaded.name, actor.name)
        files = _Files(self._folder, work.key)
        try:
            arguments = self._written(files, loaded, taught, work.what)
            self._workers.begin(
                work,
                loaded.name,
                comparing.propose,
                arguments,
                finish=lambda result: self._made(work, loaded, taught, actor, result),
                clean=lambda: files.clean(whole=work.result is None),
            )
        except OSError as error:
            files.clean(whole=True)
            raise HistoryError(
                f"The proposal cannot be written to {self._folder}: {error.strerror or error}. Free some space on its "
                "disk."
            ) from None
        except BaseException:
            files.clean(whole=True)
            raise
        return work.key

    def cancel(self, key: str) -> None:
        """End a proposal that is being made.

        Raises:
            NotFoundError: none of that key is.
        """
        self._workers.cancel(key)

    def wait(self, key: str, seconds: float | None = None) -> None:
        """Return when a proposal is made, or after some seconds."""
        self._workers.wait(key, seconds)

    def _checked(self, loaded: "Loaded", key: str, judgement: str) -> tuple[Inspection, bytes]:
        """Return an inspection that can be taught, with its picture."""
        inspection = self._station.history.inspection(key)
        if inspection.model != loaded.name:
            raise ConflictError(f"Inspection {key} is of model {inspection.model}, not of {loaded.name}.")
        if inspection.judgement != judgement:
            said = "nobody has judged it" if inspection.judgement is None else f"it was judged {inspection.judgement}"
            raise ConflictError(f"Inspection {key} must be judged {judgement} before the model is taught, but {said}.")
        if judgement == "defect" and inspection.verdict == "defect":
            raise ConflictError(f"Inspection {key} was found to be a defect, so there is nothing to teach by it.")
        picture = self._station.kept.picture(key)
        if picture is None:
            raise ConflictError(f"The picture of inspection {key} is not kept any more. Leave it out.")
        if sha256(picture) != inspection.picture_sha256:
            raise ConflictError(f"The kept picture of inspection {key} is not the one that was judged. Leave it out.")
        return inspection, picture

    def _written(
        self, files: "_Files", loaded: "Loaded", taught: Sequence[tuple[Inspection, bytes]], what: str
    ) -> dict[str, Any]:
        """Write what the child needs, and return its arguments."""
        try:
            data = loaded.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"The file of model {loaded.name} cannot be read: {error.strerror or error}. Put it back, try again."
            ) from None
        if sha256(data) != loaded.sha256:
            raise ConflictError(f"The file of model {loaded.name} was just replaced. Try again.")
        with writing(self._folder):
            atomic_write(files.before, data)
        files.work.mkdir()
        names = []
        for inspection, picture in taught:
            names.append(f"inspection-{inspection.key}")
            (files.work / names[-1]).write_bytes(picture)
        return {
            "base": str(files.before.absolute()),
            "proposal": str(files.proposal.absolute()),
            "folder": str(files.work.absolute()),
            "what": what,
            "pictures": names,
            "frozen": known_pictures(self._station, loaded.name, files.work),
            "running": dict(self._station.settings.running),
        }

    def _made(
        self,
        work: Work,
        loaded: "Loaded",
        taught: Sequence[tuple[Inspection, bytes]],
        actor: Actor,
        result: dict[str, Any],
    ) -> dict[str, Any]:
        """Write down a proposal that is complete."""
        pictures = [{"inspection": one.key, "name": one.name, "sha256": one.picture_sha256} for one, _ in taught]
        row = {
            "key": work.key,
            "model": loaded.name,
            "at": datetime.now(timezone.utc),
            "actor": actor.name,
            "base_sha256": loaded.sha256,
            "sha256": result["sha256"],
            "state": "proposed",
            "pictures": pictures,
            "comparison": {**result["comparison"], "what": work.what, "lines": result["lines"]},
        }
        details = {"proposal": work.key, "what": work.what, "sha256": result["sha256"], "base_sha256": loaded.sha256}

        def write(connection: Connection) -> None:
            connection.execute(insert(proposals), row)
            named = [one["inspection"] for one in pictures]
            self._station.trail.append_in(connection, actor, "propose", loaded.name, {**details, "inspections": named})

        self._station.database.write(write).result()
        return result

    # ------------------------------------------------------------------ looking

    def facts(self, key: str) -> dict[str, Any]:
        """Return what is known of a proposal: how far it is, or what it would change.

        Raises:
            NotFoundError: there is none of that key.
        """
        work = self._workers.get(key)
        row = self._row(key)
        if row is None:
            if work is None:
                raise NotFoundError(f"There is no proposal {key}.")
            return {**work.to_json(), "state": "working" if work.state == "running" else work.state}
        return self._told(row)

    def all(self, model: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return proposals, the newest first: those that are being made or failed, then those that are made."""
        query = select(proposals).order_by(proposals.c.at.desc()).limit(limit)
        if model is not None:
            query = query.where(proposals.c.model == storable(model, 255))
        with self._station.database.read() as connection:
            made = [self._told(row) for row in connection.execute(query).mappings()]
        keys = {one["id"] for one in made}
        works = [one for one in self._workers.all() if one.key not in keys and model in (None, one.model)]
        waiting = [one for one in works if one.state != "done"]
        return [
            *({**one.to_json(), "state": "working" if one.state == "running" else one.state} for one in waiting),
            *made,
        ]

    def undoable(self, model: str) -> dict[str, Any] | None:
        """Return the approved proposal that `undo` would take back; None if the model in use is not of one."""
        loaded = self._station.shelf.get(model)
        query = select(proposals).where(
            proposals.c.model == loaded.name, proposals.c.state == "approved", proposals.c.sha256 == loaded.sha256
        )
        with self._station.database.read() as connection:
            row = connection.execute(query.order_by(proposals.c.decided_at.desc()).limit(1)).mappings().first()
        if row is None or not _Files(self._folder, row["key"]).before.is_file():
            return None
        return self._told(row)

    def _row(self, key: str) -> Any:
        with self._station.database.read() as connection:
            return connection.execute(select(proposals).where(proposals.c.key == key)).mappings().one_or_none()

    def _told(self, row: Any) -> dict[str, Any]:
        comparison = dict(row["comparison"])
        what, lines = comparison.pop("what", "learn"), comparison.pop("lines", [])
        return {
            "id": row["key"],
            **{name: row[name] for name in ("model", "actor", "state", "base_sha256", "sha256", "pictures")},
            "at": iso(row["at"]),
            "what": what,
            "lines": lines,
            "comparison": comparison,
            "decided_by": row["decided_by"],
            "decided_at": None if row["decided_at"] is None else iso(row["decided_at"]),
        }

    # ------------------------------------------------------------------ deciding

    def approve(self, key: str, actor: Actor) -> dict[str, Any]:
        """Put a proposed version in the place of the model in use; the file before is kept.

        Raises:
            NotFoundError: there is no such proposal.
            ConflictError: it was decided already, or the model has changed since it was made.
            HistoryError: the model's file cannot be written.
        """
        with self._deciding:
            row = self._undecided(key)
            files = _Files(self._folder, key)
            loaded = self._station.shelf.get(row["model"])
            proposed = _read(files.proposal, row["sha256"])
            self._station.model_files.replace(
                loaded.name,
                proposed,
                before=row["base_sha256"],
                actor=actor,
                action="approve",
                details={"proposal": key},
                also=self._decision(key, "proposed", "approved", actor),
            )
            with contextlib.suppress(OSError):
                files.proposal.unlink()  # the model's own file holds it now
            self._forget_old(loaded.name)
        return self.facts(key)

    def reject(self, key: str, actor: Actor) -> dict[str, Any]:
        """Put a proposed version aside for good.

        Raises:
            NotFoundError: there is no such proposal.
            ConflictError: it was decided already.
        """
        with self._deciding:
            row = self._undecided(key)
            decide = self._decision(key, "proposed", "rejected", actor)

            def write(connection: Connection) -> None:
                decide(connection)
                self._station.trail.append_in(connection, actor, "reject", row["model"], {"proposal": key})

            self._station.database.write(write).result()
            _Files(self._folder, key).clean(whole=True)
        return self.facts(key)

    def undo(self, model: str, actor: Actor) -> dict[str, Any]:
        """Restore the file before the last approved proposal, to the byte.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: the model in use is of no approved proposal, or its file has changed since.
        """
        with self._deciding:
            loaded = self._station.shelf.get(model)
            row = self.undoable(loaded.name)
            if row is None:
                raise ConflictError(
                    f"There is nothing to take back: model {loaded.name} as it is came from no approved proposal."
                )
            files = _Files(self._folder, row["id"])
            before = _read(files.before, row["base_sha256"])
            self._station.model_files.replace(
                loaded.name,
                before,
                before=row["sha256"],
                actor=actor,
                action="undo",
                details={"proposal": row["id"], "approved_by": row["decided_by"], "approved_at": row["decided_at"]},
                also=self._decision(row["id"], "approved", "undone", actor),
            )
            files.clean(whole=True)
        return self.facts(row["id"])

    def close(self) -> None:
        """End what is being made; nothing of it is left."""
        self._workers.close()

    def _undecided(self, key: str) -> Any:
        row = self._row(key)
        if row is None:
            if self._workers.get(key) is not None:
                raise ConflictError(f"Proposal {key} is not complete. Look at it again when it is.")
            raise NotFoundError(f"There is no proposal {key}.")
        if row["state"] != "proposed":
            raise ConflictError(f"Proposal {key} was {row['state']} by {row['decided_by']} already.")
        return row

    def _decision(self, key: str, before: str, after: str, actor: Actor) -> Callable[[Connection], None]:
        """Return what writes down a decision; its row of the trail comes in the same transaction."""
        changes = {"state": after, "decided_by": actor.name, "decided_at": datetime.now(timezone.utc)}

        def write(connection: Connection) -> None:
            query = update(proposals).where(proposals.c.key == key, proposals.c.state == before).values(changes)
            if connection.execute(query).rowcount != 1:
                raise ConflictError(f"Proposal {key} was decided by somebody else meanwhile.")

        return write

    # ------------------------------------------------------------------ tidying up

    def tidy_up(self) -> None:
        """Remove, at the start, files whose proposals are decided; after it is known which decisions are in place."""
        for path in [*self._folder.glob("*.trecall"), *self._folder.glob("*.before")]:
            files, row = _Files(self._folder, path.stem), self._row(path.stem)
            if row is None or row["state"] in ("rejected", "undone"):
                files.clean(whole=True)
            elif row["state"] == "approved":
                files.proposal.unlink(missing_ok=True)  # the model's own file holds it

    def _sweep(self) -> None:
        """Remove what a killed station left half made."""
        for path in self._folder.glob("*.work"):
            shutil.rmtree(path, ignore_errors=True)
            files = _Files(self._folder, path.stem)
            if self._row(path.stem) is None:
                files.clean(whole=True)

    def _forget_old(self, model: str) -> None:
        """Keep the files before the last approved proposals alone."""
        query = select(proposals.c.key).where(proposals.c.model == model, proposals.c.state == "approved")
        with self._station.database.read() as connection:
            keys = connection.execute(query.order_by(proposals.c.decided_at.desc())).scalars().all()
        for key in keys[_BEFORE_KEPT:]:
            _Files(self._folder, key).clean(whole=True)


def _not_approved(connection: Connection, facts: Mapping[str, Any]) -> None:
    """Let a person decide anew on a proposal whose approval did not reach the model's file."""
    of_it = update(proposals).where(proposals.c.key == facts["proposal"], proposals.c.state == "approved")
    connection.execute(of_it.values(state="proposed", decided_by=None, decided_at=None))


def _not_undone(connection: Connection, facts: Mapping[str, Any]) -> None:
    """Let a proposal be approved still, if the model's file was not restored."""
    of_it = update(proposals).where(proposals.c.key == facts["proposal"], proposals.c.state == "undone")
    at = datetime.fromisoformat(facts["approved_at"])
    connection.execute(of_it.values(state="approved", decided_by=facts["approved_by"], decided_at=at))


class _Files:
    """The files of a proposal."""

    def __init__(self, folder: Path, key: str) -> None:
        self.proposal, self.before, self.work = (folder / f"{key}.{end}" for end in ("trecall", "before", "work"))

    def clean(self, *, whole: bool) -> None:
        """Remove the pictures that the child was given, and with `whole` everything."""
        shutil.rmtree(self.work, ignore_errors=True)
        if whole:
            for path in (self.proposal, self.before):
                with contextlib.suppress(OSError):
                    path.unlink()


def _check_kind(loaded: "Loaded", *, learns: bool) -> None:
    """Refuse to teach what cannot learn.

    Raises:
        SettingError: the model cannot.
    """
    if is_exported(loaded.path):
        raise SettingError(
            f"Model {loaded.name} is an exported graph, which cannot be taught. Teach the model that it was exported "
            "from, and export it again."
        )
    if learns and loaded.judge.kind not in _LEARNS:
        raise SettingError(
            f"Model {loaded.name} is of the kind {loaded.judge.kind}, which cannot learn pictures after its fit. Fit "
            "it again with all good pictures."
        )


def _read(path: Path, expected: str) -> bytes:
    """Return a file of ours if it is the one that was written.

    Raises:
        DataError: it is gone or was changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}. Make a new proposal.") from None
    if sha256(data) != expected:
        raise DataError(f"{path} is not the file that was written there. Make a new proposal.")
    return data
