"""Recipes: which product is made, and so which model judges, at which false-alarm rate, by which camera, told to whom.

They stand in `recipes.toml` in the station's folder (`recipe_file.py`), which is read again when it changes. A file
with a fault changes nothing: the recipes in use stay, and `fault` says what is wrong. Which product is made is chosen
by `select`, and remembered. A picture is judged by the recipe that was in use when it was taken, however long it waits.
"""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from totalrecall.errors import HistoryError, NotFoundError, SettingError, TotalRecallError
from totalrecall.station.quality.recipe_file import FILE, NAMED, Recipe, parse_recipes, shown_value
from totalrecall.station.store.records import STATION, Actor
from totalrecall.system.files import read_regular, sha256
from totalrecall.system.text import listed, unexpected

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.quality.services import Services

__all__ = ["Prepare", "Recipes"]

_LOG = logging.getLogger("totalrecall.station")
_LARGEST = 1 << 20  # bytes of the file
_LOOK = 1.0  # seconds between two looks whether the file has changed
_READ = "recipes read"  # action of the trail
_VALUE = "product"  # under which the choice is remembered
_VARIANTS = 32  # models at a rate of their own that are held
_CHANGES = 1000  # that are remembered, for pictures that were taken before them

Prepare = Callable[[Recipe | None], Callable[[bool], object]]


class Recipes:
    """The recipes of a station, and which of them is in use. Any thread may call it.

    Args:
        station: whose models judge.
        on_rate: called with the name of a model that judges at another rate from now on.

    Raises:
        SettingError: the file has a fault, at the start.
    """

    def __init__(self, station: "Services", on_rate: Callable[[str], object] = lambda _: None) -> None:
        self._station, self._on_rate = station, on_rate
        self.path = station.settings.folder / FILE
        self.lost: str | None = None  # why nothing is judged: the product that was made has no recipe any more
        self._lost_product: str | None = None
        self._file_fault: str | None = None  # why a changed file is not in use
        self._changing = threading.RLock()  # one change at a time, from its check until everybody has heard of it
        self._prepared_by: list[Prepare] = []
        self._listeners: list[Callable[[Recipe | None], None]] = []
        self._variants_lock = threading.Lock()
        self._variants: OrderedDict[tuple[str, str, float], Loaded] = OrderedDict()
        self._stamp = self._seen = self._stamps()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        self._recipes, self._digest = self._read()
        product = station.history.value(_VALUE)
        current = self._recipes.get(product) if isinstance(product, str) else None
        # since when a recipe is in use, by time.monotonic
        self._uses: tuple[tuple[float, Recipe | None], ...] = ((0.0, current),)
        if isinstance(product, str) and current is None:
            # at the model's own rate parts could pass that the recipe would reject
            self._lost_product = product
            self.lost = (
                f"Product {product!r} was made when the station stopped, and {FILE} has it no longer. "
                "Nothing is judged until a product is chosen."
            )

    @property
    def current(self) -> Recipe | None:
        """The recipe in use; None if no product is chosen."""
        return self._uses[-1][1]

    @property
    def fault(self) -> str | None:
        """What is wrong with the file, or why nothing is judged; None if all is well."""
        return self._file_fault or self.lost

    def all(self) -> list[Recipe]:
        """Return all recipes, in the file's order."""
        return list(self._recipes.values())

    def get(self, product: str) -> Recipe:
        """Return a product's recipe.

        Raises:
            NotFoundError: there is none.
        """
        recipe = self._recipes.get(product)
        if recipe is None:
            if not self._recipes:
                raise NotFoundError(f"{FILE} has no product yet, got {shown_value(product)}. Write its recipe first.")
            names = listed(list(self._recipes), NAMED)
            raise NotFoundError(f"product must be one of {names}, got {shown_value(product)}.")
        return recipe

    def at(self, moment: float) -> Recipe | None:
        """Return the recipe that was in use at a moment of time.monotonic."""
        uses = self._uses  # subtle: replaced as a whole, so that no lock is needed
        return next((recipe for since, recipe in reversed(uses) if since <= moment), uses[0][1])

    # ------------------------------------------------------------------ changes

    def select(self, product: str | None, actor: Actor, by: str | None = None) -> Recipe | None:
        """Choose the product that is made from now on; None: none, and models judge at their own rates.

        Args:
            product: its name.
            actor: who chooses.
            by: whom the actor names, where the station cannot check it.

        Raises:
            NotFoundError: there is no such product.
            SettingError: its model cannot judge at its rate, or its camera cannot be opened; the one before stays.
        """
        with self._changing:
            recipe = None if product is None else self.get(product)
            before = self.current
            details = {
                "before": None if before is None else before.product,
                "model": None if recipe is None else recipe.model,
                "false_alarm_rate": None if recipe is None else recipe.false_alarm_rate,
                **({} if by is None else {"by": by}),
            }

            def told(connection: Connection) -> None:
                self._station.trail.append_in(connection, actor, "recipe", product or "", details)

            with self._change(recipe):
                self._station.history.set_value(_VALUE, product, told).result()
        return recipe

    @contextlib.contextmanager
    def _change(self, recipe: Recipe | None) -> Iterator[None]:
        """Prepare a recipe, let the caller write down that it is chosen, use it and tell of it; called while changing.

        Raises:
            SettingError: it cannot be used. Nothing has changed then, nor where the caller raises.
        """
        if recipe is not None:
            self.loaded(recipe.model, recipe.false_alarm_rate)  # found out now, not at the first picture
        was, chosen, settles = self.current, False, []
        try:
            for prepare in self._prepared_by:
                settles.append(prepare(recipe))  # noqa: PERF401  where the next one raises, this one is settled
            yield
            # what waited because nothing was judged is judged by the recipe that ends this, and not by none
            before = () if self.lost is not None else self._uses[1 - _CHANGES :]
            self._uses = (*before, (time.monotonic(), recipe))
            self.lost = self._lost_product = None
            chosen = True
        finally:
            for settle in settles:
                settle(chosen)
        for model in {model for model, _ in _rates(was) ^ _rates(recipe)}:
            self._on_rate(model)
        self._tell()

    def before_change(self, prepare: Prepare) -> None:
        """Let a link prepare for a recipe before it is used: open its camera.

        Args:
            prepare: called with the recipe, or with None; it raises SettingError if the recipe cannot be used, and
                else returns a function, which is called with whether the recipe is in use now.
        """
        self._prepared_by.append(prepare)

    def on_change(self, listener: Callable[[Recipe | None], None]) -> None:
        """Call a function with the recipe in use whenever it, or anything in `facts`, changes. It must not wait."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        """Tell all listeners; called while changing, so that all hear of changes in their order."""
        for listener in self._listeners:
            with contextlib.suppress(Exception):  # one listener's fault must not keep the others from hearing of it
                listener(self.current)

    # ------------------------------------------------------------------ pictures

    def for_picture(self, model: str | None, product: str | None = None, taken: float | None = None) -> Recipe | None:
        """Return the recipe by which a picture is judged.

        Args:
            model: that a client asked for; None if it did not.
            product: that a client says it shows; None for the one that is made.
            taken: when it was taken, by time.monotonic; now if None.

        Raises:
            NotFoundError: there is no such product.
            SettingError: the product's recipe names another model than the client.
        """
        current = self.current if taken is None else self.at(taken)
        if current is None and model is None and len(self._models()) > 1:
            current = self.current  # no product was chosen then, and no model is named: else it would wait for ever
        if product is not None:
            recipe = current if current is not None and current.product == product else self.get(product)
            if model not in (None, recipe.model):
                raise SettingError(
                    f"Product {product!r} is judged by model {recipe.model}, got model {shown_value(model)}."
                )
            return recipe
        return current if current is not None and model in (None, current.model) else None

    def loaded(self, model: str, rate: float | None = None) -> "Loaded":
        """Return a model that judges at a recipe's rate; its file stays as it is.

        Raises:
            NotFoundError: there is no such model.
            SettingError: it has no scores of good pictures, which a rate needs.
        """
        loaded = self._station.shelf.get(model)
        return loaded if rate is None else self.at_rate(loaded, rate)

    def at_rate(self, loaded: "Loaded", rate: float) -> "Loaded":
        """Return a model that judges at a rate.

        Raises:
            SettingError: it has no scores of good pictures, which a rate needs.
        """
        key = (loaded.name, loaded.sha256, rate)
        with self._variants_lock:
            variant = self._variants.get(key)
            if variant is None:
                variant = replace(loaded, judge=loaded.judge.judging(false_alarm_rate=rate))
                self._variants[key] = variant
                for old in [one for one in self._variants if one[0] == key[0] and one[1] != key[1]]:
                    del self._variants[old]  # of a model that was replaced
                while len(self._variants) > _VARIANTS:
                    self._variants.popitem(last=False)
            self._variants.move_to_end(key)
            return variant

    def facts(self) -> dict[str, Any]:
        """Return the recipes as JSON types, with the product in use."""
        current = self.current
        return {
            "product": None if current is None else current.product,
            "recipes": [recipe.to_json() for recipe in self.all()],
            "fault": self.fault,
        }

    # ------------------------------------------------------------------ the file

    def look(self) -> None:
        """Read the file again if it, or the models that it may name, have changed."""
        with self._changing:
            stamp = self._stamps()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            before = self.facts()
            try:
                self._take_over(*self._read())
            except Exception as error:  # whatever it is, it is said, and the file is looked at again
                fault = str(error) if isinstance(error, TotalRecallError) else unexpected(error)
                if fault != self._file_fault:
                    _LOG.warning("The recipes in use stay: %s", fault)
                self._file_fault = fault
                if isinstance(error, HistoryError) or not isinstance(error, TotalRecallError):
                    self._stamp = None  # it is not the file's fault, so the next look tries again
            else:
                self._file_fault = None
            if self.facts() != before:
                self._tell()

    def _take_over(self, recipes: dict[str, Recipe], digest: str) -> None:
        """Use the recipes of a file that has changed, once the trail tells of it.

        Raises:
            SettingError: the product that is made has no recipe any more, or one that cannot be used.
            HistoryError: it cannot be written down.
        """
        before = self.current
        if before is not None and before.product not in recipes:
            raise SettingError(
                f"Product {before.product!r} is being made, and {FILE} has it no longer. Choose another first."
            )
        product = self._lost_product if before is None else before.product
        new = None if product is None else recipes.get(product)
        with contextlib.nullcontext() if new == before else self._change(new):
            if digest != self._digest:
                self._write_down(recipes, digest)
            self._recipes, self._digest = recipes, digest

    def _write_down(self, recipes: dict[str, Recipe], digest: str) -> None:
        details = {"sha256": digest, "products": list(recipes)}
        self._station.trail.append(STATION, _READ, FILE, details).result()

    def start(self) -> None:
        """Write down that the file was changed while the station was down, if it was.

        Raises:
            HistoryError: it cannot be written down.
        """
        entry = self._station.trail.last(FILE, (_READ,))
        if self._digest != ("" if entry is None else entry.facts()["sha256"]):
            self._write_down(self._recipes, self._digest)

    def watch(self, seconds: float = _LOOK) -> None:
        """Look every so many seconds, in a thread, until `close`."""

        def run() -> None:
            while not self._closing.wait(seconds):
                self._look_by_itself()

        if self._watcher is None and seconds > 0:
            self._watcher = threading.Thread(target=run, name="station-recipes", daemon=True)
            self._watcher.start()

    def _look_by_itself(self) -> None:
        stamp = self._stamps()
        is_whole, self._seen = stamp == self._seen, stamp
        if not is_whole:  # whoever writes it in place empties it first, and an empty file is a good one
            return
        try:
            self.look()
        except TotalRecallError:  # the database is gone; the station says so elsewhere
            return
        except Exception as error:  # of who is told: the file is looked at all the same
            _LOG.warning("A change of the recipes could not be told: %s", unexpected(error))

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()

    def _read(self) -> tuple[dict[str, Recipe], str]:
        """Return the recipes of the file, and its digest.

        Raises:
            SettingError: it has a fault.
        """
        try:
            data = read_regular(self.path, limit=_LARGEST)
        except FileNotFoundError:
            return {}, ""
        except OSError as error:
            raise SettingError(f"{FILE} cannot be read: {error.strerror or error}.") from None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise SettingError(f"{FILE} must be text in UTF-8.") from None
        outputs = [link.name for link in self._station.links if link.is_output]
        return parse_recipes(text, self._models(), outputs), sha256(data)

    def _models(self) -> list[str]:
        return [loaded.name for loaded in self._station.shelf.all()]

    def _stamps(self) -> object:
        """Return what differs once the file, or the models that it may name, have changed."""
        try:
            status = self.path.stat()
        except OSError:
            return None, self._models()
        return (status.st_mtime_ns, status.st_size, status.st_ino), self._models()


def _rates(recipe: Recipe | None) -> set[tuple[str, float]]:
    """Return the model that a recipe lets judge at another rate than its own, with the rate."""
    if recipe is None or recipe.false_alarm_rate is None:
        return set()
    return {(recipe.model, recipe.false_alarm_rate)}
