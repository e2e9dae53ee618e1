"""The file of the recipes, `recipes.toml` in the station's folder, which people write:

[product."Bottle 0.5 l"]
model = "bottle"
false_alarm_rate = 0.005
camera = "rtsp://camera.local/stream"
camera_interval = 0.5
outputs = ["webhook", "mqtt"]
"""

import math
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from totalrecall.errors import SettingError
from totalrecall.station.camera_source import MOST_SECONDS, camera_source
from totalrecall.system.text import listed, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FILE", "NAMED", "Recipe", "parse_recipes", "shown_value"]

FILE = "recipes.toml"
NAMED = 8  # names in a message
_KEYS = ("model", "false_alarm_rate", "camera", "camera_interval", "outputs")
_MOST = 1000  # recipes
_LONGEST = 200  # letters of a name
_LONGEST_SOURCE = 1000  # letters of a camera's address or path


@dataclass(frozen=True)
class Recipe:
    """What is done while a product is made.

    Attributes:
        product: its name.
        model: the name of the model that judges.
        false_alarm_rate: at which it judges; the model's own if None.
        camera: that takes the pictures, as `serve --camera` names it; no other than those of `serve` if None.
        camera_interval: seconds between two of its frames; that of `serve` if None.
        outputs: the names of the links that are told; all if None.
    """

    product: str
    model: str
    false_alarm_rate: float | None = None
    camera: str | None = None
    camera_interval: float | None = None
    outputs: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON types; of a camera in the network only the host, since a password may be there."""
        camera = self.camera
        if camera is not None and "://" in camera:
            camera = camera_source(camera).label
        outputs = None if self.outputs is None else list(self.outputs)
        return {**asdict(self), "camera": camera, "outputs": outputs}


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
        raise SettingError(f'{FILE} holds tables [product."NAME"] alone, got {shown_value(unknown[0])}.')
    products = table.get("product", {})
    if not isinstance(products, dict) or not all(isinstance(facts, dict) for facts in products.values()):
        raise SettingError(f'{FILE}: product must be tables such as [product."Bottle 0.5 l"].')
    if len(products) > _MOST:
        raise SettingError(f"{FILE} holds {len(products)} products, allowed are {_MOST}.")
    return {product: _recipe(product, facts, models, outputs) for product, facts in products.items()}


def _recipe(product: str, facts: dict[str, Any], models: Collection[str], outputs: Collection[str] | None) -> Recipe:
    if not product.strip() or len(product) > _LONGEST or not product.isprintable():
        raise SettingError(
            f"{FILE}: a product's name must have 1 to {_LONGEST} printable letters, got {shown_value(product)}."
        )
    where = f"{FILE}, product {shown_value(product)}"
    unknown = sorted(set(facts) - set(_KEYS))
    if unknown:
        raise SettingError(f"{where}: keys are {', '.join(_KEYS)}, got {shown_value(unknown[0])}.")
    model, rate = facts.get("model"), facts.get("false_alarm_rate")
    if not isinstance(model, str) or model not in models:
        names = listed(sorted(models), NAMED)
        raise SettingError(f"{where}: model must be one of {names}, got {shown_value(model)}.")
    if rate is not None:
        if not _is_number(rate) or not 0 < rate < 1:
            raise SettingError(
                f"{where}: false_alarm_rate must be over 0 and under 1, got {shown_value(rate)}. "
                "For 1 percent write 0.01."
            )
        rate = float(rate)
    camera, interval = _camera(facts, where)
    return Recipe(product, model, rate, camera, interval, _outputs(facts, where, outputs))


def _camera(facts: dict[str, Any], where: str) -> tuple[str | None, float | None]:
    """Return the camera of a recipe and its interval. Whether it can be opened shows when the product is chosen."""
    camera, interval = facts.get("camera"), facts.get("camera_interval")
    if isinstance(camera, int) and not isinstance(camera, bool):  # a number, as `--camera 0`
        camera = str(camera)
    if camera is not None and (not isinstance(camera, str) or not 0 < len(camera) <= _LONGEST_SOURCE):
        raise SettingError(f"{where}: camera must be a number, an address or a video file, got {shown_value(camera)}.")
    if camera is not None and "://" in camera:
        try:
            camera_source(camera)
        except SettingError as error:
            raise SettingError(f"{where}: {error}") from None
    if interval is not None:
        if camera is None:
            raise SettingError(f"{where}: camera_interval needs a camera. Name one, or leave it out.")
        if not _is_number(interval) or not 0 <= interval <= MOST_SECONDS:
            raise SettingError(
                f"{where}: camera_interval must be from 0 to {MOST_SECONDS:,} seconds, got {shown_value(interval)}."
            )
        interval = float(interval)
    return camera, interval


def _outputs(facts: dict[str, Any], where: str, outputs: Collection[str] | None) -> tuple[str, ...] | None:
    told = facts.get("outputs")
    if told is None:
        return None
    if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
        raise SettingError(f'{where}: outputs must be a list of names such as ["webhook"], got {shown_value(told)}.')
    strange = [name for name in told if outputs is not None and name not in outputs]
    if strange:
        names = listed(sorted(outputs or ()), NAMED) or "none here"
        raise SettingError(f"{where}: outputs are {names}, got {shown_value(strange[0])}.")
    return tuple(told)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def shown_value(value: object) -> str:
    """Return a value as messages show it."""
    return "nothing" if value is None else printable(repr(value)[:80])
