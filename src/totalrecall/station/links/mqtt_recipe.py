"""The product that is made, by MQTT.

    PREFIX/recipe/set     in   the product's name, or JSON: {"product": "Bottle 1 l", "id", "by"}; null chooses none
    PREFIX/recipe         out  retained: product, model, false_alarm_rate; products, fault; request and error

Every change is told on `PREFIX/recipe`, whoever made it; so is why a change was refused. A message is acknowledged once
the change is in the history and the audit trail. Messages are taken in their order, triggers among them: a picture that
is sent after a change is judged by the new recipe.
"""

import contextlib
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from totalrecall.errors import SettingError, TotalRecallError
from totalrecall.station.store.records import Actor

if TYPE_CHECKING:
    from totalrecall.station.quality.recipe_file import Recipe
    from totalrecall.station.quality.recipes import Recipes

__all__ = ["RecipeTopics"]

_ACTOR = Actor("mqtt", "machine")  # a broker does not tell who sent a message
_LARGEST = 10_000  # bytes of a message
_LONGEST = 200  # letters of a text
_KEYS = ("product", "id", "by")


class RecipeTopics:
    """Takes changes of the product, and tells of them.

    Args:
        prefix: of all topics.
        recipes: of the station.
        publish: sends topic and payload to the broker, to be retained; does nothing while there is no connection.
    """

    def __init__(self, prefix: str, recipes: "Recipes", publish: Callable[[str, bytes], object]) -> None:
        self.set_topic, self._topic = f"{prefix}/recipe/set", f"{prefix}/recipe"
        self._recipes, self._publish = recipes, publish
        self._lock = threading.Lock()  # what is retained last must be the newest
        recipes.on_change(self._changed)

    def tell(self, request: str | None = None, error: str | None = None) -> None:
        """Publish the state.

        Args:
            request: id of the message that is answered.
            error: why it was refused.
        """
        with self._lock:
            recipe, facts = self._recipes.current, self._recipes.facts()
            state = {
                "product": None if recipe is None else recipe.product,
                "model": None if recipe is None else recipe.model,
                "false_alarm_rate": None if recipe is None else recipe.false_alarm_rate,
                "products": [known["product"] for known in facts["recipes"]],
                "fault": facts["fault"],
                "request": request,
                "error": error,
            }
            with contextlib.suppress(ValueError, RuntimeError):  # the connection ends: it is told at the next one
                self._publish(self._topic, json.dumps(state, ensure_ascii=False).encode())

    def take(self, payload: bytes) -> None:
        """Choose the product that a message names, and answer."""
        request: str | None = None
        try:
            asked = _asked(payload)
            request = asked.get("id")
            self._recipes.select(asked["product"], _ACTOR, asked.get("by"))
        except TotalRecallError as error:
            self.tell(request, str(error))
        except Exception as error:  # a fault of ours: the client lives on, and the sender is told
            self.tell(request, f"unexpected {type(error).__name__}")
        else:
            if request is not None:  # else the change has been told
                self.tell(request)

    def _changed(self, _recipe: "Recipe | None") -> None:
        self.tell()


def _asked(payload: bytes) -> dict[str, Any]:
    """Return what a message asks for.

    Raises:
        SettingError: it is not as described.
    """
    how = 'Send a product\'s name, or JSON such as {"product": "Bottle 1 l"}; {"product": null} chooses none.'
    if not payload.strip() or len(payload) > _LARGEST:
        raise SettingError(f"The message must have from 1 to {_LARGEST:,} bytes, got {len(payload):,}. {how}")
    try:
        text = payload.decode().strip()
        asked = json.loads(text) if text.startswith("{") else {"product": text}
    except (ValueError, RecursionError):
        raise SettingError(f"The message is neither text in UTF-8 nor JSON. {how}") from None
    if "product" not in asked or set(asked) - set(_KEYS):
        raise SettingError(f"The message must have product, and may have id and by. {how}")
    if not all(value is None or (isinstance(value, str) and len(value) <= _LONGEST) for value in asked.values()):
        raise SettingError(f"product, id and by must be texts of at most {_LONGEST} letters. {how}")
    by = asked.get("by")
    if by is not None and not by.isprintable():
        raise SettingError("by must be printable letters.")
    return asked
