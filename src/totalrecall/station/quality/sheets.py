"""Evidence sheets from the page: a model judges the station's pictures whose truth is known, in a child process.

Sheets are remembered until the station stops; their pages are files that a person saves or prints. The trail keeps that
a sheet was made, of which model and with what result.
"""

import os
import secrets
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.errors import HistoryError, NotFoundError
from totalrecall.station.quality.evidence import Criteria, evidence_html, gather_evidence
from totalrecall.station.quality.known import known_pictures
from totalrecall.station.quality.labelled import Part
from totalrecall.station.quality.workers import Progress, Work, Workers
from totalrecall.station.store.records import Actor

if TYPE_CHECKING:
    from totalrecall.station.quality.services import Services

__all__ = ["Sheets"]

_LANE = "evidence"


class Sheets:
    """The evidence sheets of a station, one at a time. Any thread may call it.

    Args:
        station: whose models are tested.
    """

    def __init__(self, station: "Services") -> None:
        self._station = station
        self._folder = station.settings.folder / "evidence"
        self._workers = Workers()
        shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self, model: str, criteria: Criteria, actor: Actor) -> str:
        """Begin to test a model against criteria, and return the key of the sheet.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: another sheet is being made.
            HistoryError: the pictures cannot be written.
        """
        loaded = self._station.shelf.get(model)
        work = Work(secrets.token_hex(16), "evidence", loaded.name, actor.name)
        folder = self._folder / work.key
        try:
            folder.mkdir(parents=True)
            arguments = {
                "folder": str(folder.absolute()),
                "model": str(loaded.path.absolute()),
                "criteria": asdict(criteria),
                "pictures": known_pictures(self._station, loaded.name, folder),
                "running": dict(self._station.settings.running),
            }
            self._workers.begin(
                work,
                _LANE,
                _gather,
                arguments,
                finish=lambda result: self._made(work, actor, result),
                clean=lambda: shutil.rmtree(folder, ignore_errors=True),
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

    def facts(self, key: str) -> dict[str, Any]:
        """Return how far a sheet is, with its result.

        Raises:
            NotFoundError: there is none of that key.
        """
        work = self._get(key)
        return {**work.to_json(), "result": None if work.result is None else work.result["evidence"]}

    def all(self, model: str) -> list[dict[str, Any]]:
        """Return those of a model without results, the newest first."""
        return [work.to_json() for work in self._workers.all() if work.model == model]

    def page(self, key: str) -> str:
        """Return the page of a sheet that is done, as HTML.

        Raises:
            NotFoundError: there is none of that key, or it is not done.
        """
        result = self._get(key).result
        if result is None:
            raise NotFoundError(f"There is no evidence sheet {key}.")
        return str(result["page"])

    def wait(self, key: str, seconds: float | None = None) -> None:
        """Return when a sheet is made, or after some seconds."""
        self._workers.wait(key, seconds)

    def close(self) -> None:
        """End what is being made."""
        self._workers.close()

    def _get(self, key: str) -> Work:
        work = self._workers.get(key)
        if work is None:
            raise NotFoundError(f"There is no evidence sheet {key}.")
        return work

    def _made(self, work: Work, actor: Actor, result: dict[str, Any]) -> dict[str, Any]:
        evidence = result["evidence"]
        names = ("passed", "model_sha256", "pictures_sha256")
        facts = {**{name: evidence[name] for name in names}, **evidence["criteria"]}
        self._station.trail.append(actor, "evidence", work.model, facts).result()
        return result


def _gather(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Judge the pictures, and make the sheet; runs in a child process."""
    os.chdir(arguments["folder"])
    known = arguments["pictures"]
    parts = [Part(one["name"], one["truth"], (Path(one["file"]),)) for one in known]
    criteria = Criteria(**arguments["criteria"])
    evidence = gather_evidence(arguments["model"], parts, criteria, running=arguments["running"], progress=progress)
    names = {one["file"]: one["name"] for one in known}  # a person knows the picture by the name that it was sent with
    tested = [replace(one, name=names[one.name]) for one in evidence.tested]
    learnt, copies = ([names[file] for file in files] for files in (evidence.learnt, evidence.copies))
    told = replace(evidence, tested=tested, learnt=learnt, copies=copies)
    return {"evidence": told.to_json(), "page": evidence_html(told)}
