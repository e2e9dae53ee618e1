"""Recipes: which product is made, and so which model judges, at which false-alarm rate, by which camera, told to whom.

They stand in `recipes.toml` in the station's folder, which people write:

    [product."Bottle 0.5 l"]
    model = "bottle"
    false_alarm_rate = 0.005
    camera = "0"
    outputs = ["webhook", "mqtt"]

The file is read again when it changes. A file with a fault changes nothing: the recipes in use stay, and `fault` says
what is wrong. Which product is made is chosen by `select`, and remembered.
"""

import contextlib
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from totalrecall.errors import NotFoundError, SettingError, TotalRecallError
from totalrecall.station.store.records import STATION, Actor
from totalrecall.system.files import read_regular, sha256
from totalrecall.system.text import listed, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.quality.services import Services

__all__ = ["FILE", "Recipe", "Recipes", "parse_recipes"]

FILE = "recipes.toml"
_KEYS = ("model", "false_alarm_rate", "camera", "outputs")
_LARGEST = 1 << 20  # bytes of the file
_MOST = 1000  # recipes
_LONGEST = 200  # letters of a name
_LOOK = 1.0  # seconds between two looks whether the file has changed
_VALUE = "product"  # under which the choice is remembered
_VARIANTS = 32  # models at a rate of their own that are held
_NAMED = 8


@dataclass(frozen=True)
class Recipe:
    """What is done while a product is made.

    Attributes:
        product: its name.
        model: the name of the model that judges.
        false_alarm_rate: at which it judges; the model's own if None.
        camera: that takes the pictures, as `serve --camera` names it; any if None.
        outputs: the names of the links that are told; all if None.
    """

    product: str
    model: str
    false_alarm_rate: float | None = None
    camera: str | None = None
    outputs: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON types."""
        return {**asdict(self), "outputs": None if self.outputs is None else list(self.outputs)}


def parse_recipes(text: str, models: Collection[str], outputs: Collection[str] | None = None) -> dict[str, Recipe]:
    """Return the recipes of a file by product, in the file's order.

    Args:
        text: of the file.
        models: the names that there are.
        outputs: the names that there are; not checked if None.

    Raises:
        SettingError: the file is no TOML, or a recipe is not as described; one line, that names the fault.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingError(f"{FILE} is no TOML: {printable(str(error))}.") from None
    unknown = sorted(set(table) - {"product"})
    if unknown:
        raise SettingError(f'{FILE} holds tables [product."NAME"] alone, got {_shown(unknown[0])}.')
    products = table.get("product", {})
    if not isinstance(products, dict) or not all(isinstance(facts, dict) for facts in products.values()):
        raise SettingError(f'{FILE}: product must be tables such as [product."Bottle 0.5 l"].')
    if len(products) > _MOST:
        raise SettingError(f"{FILE} holds {len(products)} products, allowed are {_MOST}.")
    return {product: _recipe(product, facts, models, outputs) for product, facts in products.items()}


def _recipe(product: str, facts: dict[str, Any], models: Collection[str], outputs: Collection[str] | None) -> Recipe:
    if not product.strip() or len(product) > _LONGEST or not product.isprintable():
        raise SettingError(
            f"{FILE}: a product's name must have 1 to {_LONGEST} printable letters, got {_shown(product)}."
        )
    where = f"{FILE}, product {_shown(product)}"
    unknown = sorted(set(facts) - set(_KEYS))
    if unknown:
        raise SettingError(f"{where}: keys are {', '.join(_KEYS)}, got {_shown(unknown[0])}.")
    model, rate, camera = (facts.get(name) for name in ("model", "false_alarm_rate", "camera"))
    if not isinstance(model, str) or model not in models:
        names = listed(sorted(models), _NAMED)
        raise SettingError(f"{where}: model must be one of {names}, got {_shown(model)}.")
    if rate is not None:
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1 or math.isnan(rate):
            raise SettingError(
                f"{where}: false_alarm_rate must be over 0 and under 1, got {_shown(rate)}. For 1 percent write 0.01."
            )
        rate = float(rate)
    if isinstance(camera, int) and not isinstance(camera, bool):  # a number, as `--camera 0`
        camera = str(camera)
    if camera is not None and (not isinstance(camera, str) or not 0 < len(camera) <= _LONGEST):
        raise SettingError(f"{where}: camera must be a number or an address, got {_shown(camera)}.")
    told = facts.get("outputs")
    if told is not None:
        if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
            raise SettingError(f'{where}: outputs must be a list of names such as ["webhook"], got {_shown(told)}.')
        strange = [name for name in told if outputs is not None and name not in outputs]
        if strange:
            names = listed(sorted(outputs or ()), _NAMED) or "none here"
            raise SettingError(f"{where}: outputs are {names}, got {_shown(strange[0])}.")
        told = tuple(told)
    return Recipe(product, model, rate, camera, told)


def _shown(value: object) -> str:
    return "nothing" if value is None else printable(repr(value)[:80])


class Recipes:
    """The recipes of a station, and which of them is in use. Any thread may call it.

    Args:
        station: whose models judge.

    Raises:
        SettingError: the file has a fault, at the start.
    """

    def __init__(self, station: "Services") -> None:
        self._station = station
        self.path = station.settings.folder / FILE
        self.fault: str | None = None  # why a changed file is not in use
        self.lost: str | None = None  # the product that was made before a restart, if its recipe is gone
        self._lock = threading.RLock()
        self._recipes: dict[str, Recipe] = {}
        self._current: Recipe | None = None
        self._listeners: list[Callable[[Recipe | None], None]] = []
        self._variants: OrderedDict[tuple[str, str, float], Loaded] = OrderedDict()
        self._stamp = _stamp(self.path)
        self._digest = ""
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        self._recipes = self._read()
        product = station.history.value(_VALUE)
        if isinstance(product, str):
            self._current = self._recipes.get(product)
            if self._current is None:
                self.lost = product  # at the model's own rate parts could pass that the recipe would reject
                self.fault = (
                    f"Product {product!r} was made when the station stopped, and {FILE} has it no longer. "
                    "Nothing is judged until a product is chosen."
                )

    @property
    def current(self) -> Recipe | None:
        """The recipe in use; None if no product is chosen."""
        return self._current

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
            names = listed(list(self._recipes), _NAMED) or f"none: {FILE} has no product"
            raise NotFoundError(f"product must be one of {names}, got {_shown(product)}.")
        return recipe

    def select(self, product: str | None, actor: Actor) -> Recipe | None:
        """Choose the product that is made from now on; None: none, and models judge at their own rates.

        Raises:
            NotFoundError: there is no such product.
            SettingError: its model cannot judge at its rate.
        """
        with self._lock:
            recipe = None if product is None else self.get(product)
            if recipe is not None:
                self.loaded(recipe.model, recipe.false_alarm_rate)  # found out now, not at the first picture
            before = self._current
            details = {
                "before": None if before is None else before.product,
                "model": None if recipe is None else recipe.model,
                "false_alarm_rate": None if recipe is None else recipe.false_alarm_rate,
            }

            def told(connection: Connection) -> None:
                self._station.trail.append_in(connection, actor, "recipe", product or "", details)

            self._station.history.set_value(_VALUE, product, told).result()
            self._current, self.fault, self.lost = recipe, None, None
        self._tell(recipe)
        return recipe

    def on_change(self, listener: Callable[[Recipe | None], None]) -> None:
        """Call a function with the recipe in use whenever it changes: a camera's, or that of an OPC UA server."""
        self._listeners.append(listener)

    def for_picture(self, model: str | None, product: str | None = None) -> Recipe | None:
        """Return the recipe by which a picture is judged.

        Args:
            model: that a client asked for; None if it did not.
            product: that a client says it shows; None for the one that is made.

        Raises:
            NotFoundError: there is no such product.
            SettingError: the product's recipe names another model than the client.
        """
        if product is not None:
            recipe = self.get(product)
            if model not in (None, recipe.model):
                raise SettingError(f"Product {product!r} is judged by model {recipe.model}, got model {_shown(model)}.")
            return recipe
        current = self._current
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
        with self._lock:
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
        current = self._current
        return {
            "product": None if current is None else current.product,
            "recipes": [recipe.to_json() for recipe in self.all()],
            "fault": self.fault,
        }

    # ------------------------------------------------------------------ the file

    def look(self) -> None:
        """Read the file again if it has changed."""
        with self._lock:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            before = self._current
            try:
                recipes = self._read()
                if before is not None and before.product not in recipes:
                    raise SettingError(
                        f"Product {before.product!r} is being made, and {FILE} has it no longer. Choose another first."
                    )
                new = recipes.get(self.lost) if self.lost is not None else None
                new = new if before is None else recipes[before.product]
                if new is not None:
                    self.loaded(new.model, new.false_alarm_rate)
            except TotalRecallError as error:
                self.fault = str(error)
                return
            self._recipes, self._current = recipes, new
            if new is not None or self.lost is None:
                self.fault = self.lost = None
        self._station.trail.append(STATION, "recipes read", FILE, {"sha256": self._digest, "products": list(recipes)})
        if new != before:
            self._tell(new)

    def watch(self, seconds: float = _LOOK) -> None:
        """Look every so many seconds, in a thread, until `close`."""

        def run() -> None:
            while not self._closing.wait(seconds):
                with contextlib.suppress(TotalRecallError):  # the database is gone; the station says so elsewhere
                    self.look()

        if self._watcher is None and seconds > 0:
            self._watcher = threading.Thread(target=run, name="station-recipes", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()

    def _read(self) -> dict[str, Recipe]:
        try:
            data = read_regular(self.path, limit=_LARGEST)
        except FileNotFoundError:
            self._digest = ""
            return {}
        except OSError as error:
            raise SettingError(f"{FILE} cannot be read: {error.strerror or error}.") from None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise SettingError(f"{FILE} must be text in UTF-8.") from None
        models = [loaded.name for loaded in self._station.shelf.all()]
        recipes = parse_recipes(text, models, [link.name for link in self._station.links])
        self._digest = sha256(data)
        return recipes

    def _tell(self, recipe: Recipe | None) -> None:
        for listener in self._listeners:
            with contextlib.suppress(Exception):  # one listener's fault must not keep the others from hearing of it
                listener(recipe)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
