"""The station itself: every input comes through `Station.submit`, every output is told here."""

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from sqlalchemy import Connection

from totalrecall.errors import ConflictError, PictureError, TotalRecallError
from totalrecall.scoring import Result
from totalrecall.station.access.users import Users
from totalrecall.station.judging.caption import UNSAID, Caption
from totalrecall.station.judging.inspecting import Inspector, Judged, Judges, Waiting
from totalrecall.station.judging.metrics import Metrics
from totalrecall.station.judging.model_files import ModelFiles
from totalrecall.station.judging.models import Loaded, Shelf
from totalrecall.station.judging.recent import Recent, RecentInspection, heat_of
from totalrecall.station.judging.room import Room
from totalrecall.station.judging.watching import DriftWatch
from totalrecall.station.judging.wrong_product import ProductCheck
from totalrecall.station.quality.fitting import Fits, models_of
from totalrecall.station.quality.golden import Golden
from totalrecall.station.quality.recipe_file import Recipe
from totalrecall.station.quality.recipes import Recipes
from totalrecall.station.quality.sheets import Sheets
from totalrecall.station.quality.studies import Studies
from totalrecall.station.quality.teaching import Teaching
from totalrecall.station.settings import StationSettings
from totalrecall.station.store.claim import claim_folder
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.kept import KeptPictures
from totalrecall.station.store.records import Inspection
from totalrecall.station.store.trail import Trail
from totalrecall.system.files import sha256

__all__ = ["Link", "Station"]

_DRAWN_AT_ONCE = 16_000_000  # pixels of the pictures that are drawn at the same time: 400 MB for overlays


@dataclass(frozen=True)
class _Asked:
    """A picture on its way to its inspection."""

    key: str
    picture: bytes
    caption: Caption
    recipe: Recipe | None
    also: Callable[[Connection, Inspection], object] | None = None


class Link:
    """An input, an output or both: a hot folder, a camera, a webhook, MQTT, OPC UA.

    Attributes:
        name: stands in the outbox, in recipes and in the log.
        is_output: it is told of inspections, so that a recipe may name it.
    """

    name: str
    is_output: bool = True

    @property
    def fault(self) -> str | None:
        """Why it does not work at the moment, in a line; None if it does. Any thread may ask."""
        return None

    def body(self, inspection: "Inspection") -> dict[str, Any] | None:
        """Return what is to be delivered of an inspection, or None.

        It is written into the outbox within the transaction that holds the inspection, so that no delivery is lost when
        the process is killed.
        """
        del inspection
        return None

    def told(self, inspection: "Inspection") -> None:
        """Take in an inspection that is committed. It must not wait: the thread writes the history."""

    def start(self, station: "Station") -> None:
        """Begin to work; called once, after the models are loaded."""

    def close(self) -> None:
        """Finish what is in hand and stop."""


class Station:
    """Models, history and queue behind every input and output.

    Args:
        settings: of `totalrecall serve`.
        links: inputs and outputs of the line, that are told of every inspection.
        read_serial: gives the serial number that stands in a picture, or None; called where none was said.
        judges: who judges the pictures; this process if None.

    Raises:
        SettingError: a setting is outside what is allowed, or another station uses the folder or the database.
        ModelFileError, BackboneError: a model cannot be used.
        DataError: the folder or the database cannot be used.
    """

    def __init__(
        self,
        settings: StationSettings,
        links: Sequence[Link] = (),
        read_serial: Callable[[bytes], str | None] | None = None,
        judges: Judges | None = None,
    ) -> None:
        self.settings = settings
        self._read_serial = read_serial
        self.links = list(links)
        self.holds: dict[str, str] = {}  # why a model judges nothing at the moment, by its name
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            # before the folder is made: of a model that is not there nothing shall remain
            self.shelf = Shelf(
                settings.models,
                settings.running,
                before_use=lambda loaded: self.model_files.found(loaded),
                on_change=lambda loaded: self.golden.check_soon(loaded.name),
            )
            opened.callback(self.shelf.close)
            opened.enter_context(claim_folder(settings.folder))
            self._add_fitted()
            self.database = Database(settings.database_address, alone=True)
            opened.callback(self.database.close)
            self.history = History(self.database, near_miss=settings.near_miss)
            self.trail = Trail(self.database)
            self.model_files = ModelFiles(self.shelf, self.database, self.trail, settings.folder / "changes")
            self.users = Users(self.database, self.trail)
            self.kept = _kept_pictures(settings, self.database)
            self.recent = Recent()
            self.drawing_room = Room(_DRAWN_AT_ONCE)
            self.metrics = Metrics(
                waiting=lambda: self.inspector.waiting,
                limit=settings.queue,
                held=lambda: len(self.holds),
                links=self._working,
            )
            self.drift = DriftWatch(settings.folder / "monitors")
            opened.callback(self.drift.close)
            self.product_check = ProductCheck()
            self.recipes = Recipes(self, on_rate=lambda model: self.golden.check_soon(model))
            opened.callback(self.recipes.close)
            self.inspector: Inspector = Inspector(self.shelf.get, settings.queue, self.recipes.at_rate, judges)
            opened.callback(self.inspector.close)
            self.golden = Golden(self, every=settings.golden_every, hold=settings.hold_on_golden_failure)
            opened.callback(self.golden.close)
            self.teaching = Teaching(self)
            opened.callback(self.teaching.close)
            self.fits, self.studies, self.sheets = Fits(self), Studies(self), Sheets(self)
            for works in (self.fits, self.studies, self.sheets):
                opened.callback(works.close)
            self._closing = opened.pop_all()
        self.shelf.watch(settings.watch_seconds)
        self.ready = threading.Event()

    def start(self) -> None:
        """Write down what it began with, and which jobs the process before left; check, and let the links begin."""
        self.history.interrupt_jobs().result()
        self.model_files.start()
        self.teaching.tidy_up()
        self.drift.sweep(self.shelf.all())
        self.recipes.start()
        self.golden.start()
        for link in self.links:
            link.start(self)
            self._closing.callback(link.close)
        self.recipes.watch(self.settings.watch_seconds)
        self.ready.set()

    def close(self) -> None:
        """Judge what waits, commit it, and end. In this order: outputs, judging, monitors, database, models."""
        self.ready.clear()
        self._closing.close()

    def while_open(self, close: Callable[[], object]) -> None:
        """Call a function when the station closes, before whatever was opened earlier."""
        self._closing.callback(close)

    # ------------------------------------------------------------------ judging

    def inspect(self, picture: bytes, caption: Caption = UNSAID) -> Inspection:
        """Judge a picture and return its inspection once it is committed; arguments and errors as for `submit`.

        Raises:
            PictureError: it cannot be read.
        """
        return self.submit(picture, caption).result()

    def submit(
        self,
        picture: bytes,
        caption: Caption = UNSAID,
        also: Callable[[Connection, Inspection], object] | None = None,
    ) -> "Future[Inspection]":
        """Let a picture wait to be judged.

        Args:
            picture: the bytes of its file.
            caption: what is said with it.
            also: what is written in the transaction that holds the inspection, so that neither is there without the
                other, whenever the process is killed.

        Returns:
            The inspection once it is committed. Of a picture that cannot be read, the `PictureError`; that is
            committed, too.

        Raises:
            NotFoundError: there is no model or product of that name.
            BusyError: too many pictures wait.
            ConflictError: the model is held, since its golden check failed.
            SettingError: serial or line is too long, or holds a letter that cannot be printed.
        """
        waiting, future = self._waiting(picture, caption.checked(), also)
        self.inspector.submit(waiting)
        return future

    def submit_all(self, pictures: Sequence[bytes], caption: Caption = UNSAID) -> "list[Future[Inspection]]":
        """Let several pictures wait, all of them or none; arguments, result and errors as for `submit`."""
        caption = caption.checked()
        both = [self._waiting(picture, caption) for picture in pictures]
        self.inspector.submit(*(waiting for waiting, _ in both))
        return [future for _, future in both]

    def _waiting(
        self, picture: bytes, caption: Caption, also: Callable[[Connection, Inspection], object] | None = None
    ) -> "tuple[Waiting, Future[Inspection]]":
        """Return a picture as it waits, and what will hold its inspection."""
        lost = self.recipes.lost
        if lost is not None and caption.is_production:
            raise ConflictError(lost)
        recipe = self.recipes.for_picture(caption.model, caption.product, caption.taken)
        loaded = self.shelf.get(caption.model if recipe is None else recipe.model)
        self._check_held(loaded.name, caption.source)
        future: Future[Inspection] = Future()
        # subtle: a request that is given up would cancel it, and then the inspection could not be told any more
        future.set_running_or_notify_cancel()
        done = partial(
            self._judged, _Asked(caption.key or secrets.token_hex(16), picture, caption, recipe, also), future
        )
        conditions = self.drift.watches(loaded) and caption.is_production
        rate = None if recipe is None else recipe.false_alarm_rate
        return Waiting(picture, caption.name, loaded.name, conditions, done, rate), future

    def _check_held(self, model: str, source: str) -> None:
        """Raise ConflictError if a model is held; its golden pictures are judged all the same."""
        held = self.holds.get(model)
        if held is not None and source != "golden":
            raise ConflictError(f"Model {model} is held: {held}")

    def _judged(self, asked: _Asked, future: "Future[Inspection]", judged: Judged) -> None:
        """Write down what came of a picture, and answer once it is committed."""
        try:
            outcome, loaded = judged.outcome, judged.loaded
            if loaded is None or not isinstance(outcome, (Result, PictureError)):
                raise outcome if isinstance(outcome, TotalRecallError) else TotalRecallError("It was not judged.")
            self._check_held(loaded.name, asked.caption.source)  # the check may have failed while it waited
            if self._read_serial is not None and asked.caption.serial is None:
                serial = self._read_serial(asked.picture)
                asked = replace(asked, caption=replace(asked.caption, serial=serial))
            if isinstance(outcome, Result) and self._is_wrong_product(loaded, outcome):
                outcome = replace(outcome, is_anomalous=None)
                inspection = replace(
                    _inspection(asked, loaded, outcome, judged.milliseconds), verdict="wrong product", regions=[]
                )
            else:
                inspection = _inspection(asked, loaded, outcome, judged.milliseconds)
            heat = heat_of(outcome) if isinstance(outcome, Result) and judged.heat is None else judged.heat
            if heat is not None and self.kept.wanted(inspection):
                # before the row that promises it
                inspection = replace(inspection, kept=self.kept.put(inspection, asked.picture, heat))
            bodies = ((link.name, link.body(inspection)) for link in self._told(asked))
            deliveries = [(name, body) for name, body in bodies if body is not None]
            committed = self.history.add(inspection, deliveries, asked.also)
            if isinstance(outcome, Result) and asked.caption.is_production:
                for alarm in self.drift.observe(loaded, outcome, asked.caption.name):
                    self.metrics.drifted(loaded.name, alarm.measure)
        except Exception as error:  # whatever it is, who asked must not wait for ever
            self.metrics.failed(judged.waiting.model)
            future.set_exception(error)
            return
        recent = RecentInspection(inspection, asked.picture, heat)
        committed.add_done_callback(partial(self._committed, asked, recent, outcome, future))

    def _is_wrong_product(self, loaded: Loaded, result: Result) -> bool:
        return self.settings.wrong_product and self.product_check.is_wrong(loaded, result)

    def _told(self, asked: _Asked) -> list[Link]:
        """Return the links that are told of a picture: those of its recipe, and none of one that the station sent."""
        if not asked.caption.is_production:
            return []
        outputs = None if asked.recipe is None else asked.recipe.outputs
        return [link for link in self.links if outputs is None or link.name in outputs]

    def _committed(
        self,
        asked: _Asked,
        recent: RecentInspection,
        outcome: "Result | PictureError",
        future: "Future[Inspection]",
        committed: "Future[None]",
    ) -> None:
        error = committed.exception()
        if error is not None:
            self.metrics.failed(recent.inspection.model)
            future.set_exception(error)
            return
        if asked.caption.is_production:
            self.recent.add(recent)
        self.metrics.inspected(recent.inspection)
        for link in self._told(asked):
            with contextlib.suppress(Exception):  # one output's fault must not keep the others, or the answer, waiting
                link.told(recent.inspection)
        if isinstance(outcome, PictureError):
            future.set_exception(outcome)
        else:
            future.set_result(recent.inspection)

    def _working(self) -> dict[str, bool]:
        """Return whether each link works; of cameras of one name, whether all of them do."""
        working: dict[str, bool] = {}
        for link in self.links:
            working[link.name] = working.get(link.name, True) and link.fault is None
        return working

    def faults(self) -> list[str]:
        """Return what people should look at: a link that does not work, a file of recipes with a fault; a line each."""
        faults = [link.fault for link in self.links]
        return [fault for fault in (*faults, self.recipes.fault) if fault is not None]

    def _add_fitted(self) -> None:
        """Offer the models that were fitted from the page; one that cannot be used must not keep the line waiting."""
        named = {loaded.path.resolve() for loaded in self.shelf.all()}  # on the command line, as the systemd unit does
        for path in models_of(self.settings.folder):
            if path.resolve() in named:
                continue
            try:
                self.shelf.add(path)
            except TotalRecallError as error:
                self.shelf.faults[path.stem] = str(error)


def _inspection(asked: _Asked, loaded: Loaded, outcome: "Result | PictureError", milliseconds: float) -> Inspection:
    caption = asked.caption
    common: dict[str, Any] = {
        "key": asked.key,
        "at": datetime.now(timezone.utc),
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        "picture_sha256": sha256(asked.picture),
        "product": None if asked.recipe is None else asked.recipe.product,
        "milliseconds": round(milliseconds, 3),
        **{name: getattr(caption, name) for name in ("source", "name", "serial", "line", "job")},
    }
    if isinstance(outcome, PictureError):
        nothing: dict[str, Any] = dict.fromkeys(("score", "threshold", "p_value", "is_anomalous", "nearest"))
        return Inspection(**common, **nothing, regions=[], verdict="unreadable", error=str(outcome))
    values = outcome.to_json()
    names = ("score", "threshold", "p_value", "is_anomalous", "regions", "nearest")
    return Inspection(**common, **{name: values[name] for name in names}, verdict=outcome.verdict)


def _kept_pictures(settings: StationSettings, database: Database) -> KeptPictures:
    return KeptPictures(
        settings.folder / "pictures",
        database,
        budget=settings.keep_bytes,
        good_share=settings.keep_good,
        near_miss=settings.near_miss,
    )
