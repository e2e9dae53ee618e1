"""What the station remembers and who acts on it: an inspection, a person or machine, a choice of inspections."""

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from totalrecall.errors import SettingError

__all__ = [
    "ANYBODY",
    "JUDGEMENTS",
    "NEAR_MISS",
    "NOT_PRODUCTION",
    "REJECTS",
    "ROLES",
    "STATION",
    "VERDICTS",
    "Actor",
    "Filter",
    "Inspection",
    "finite",
    "iso",
    "storable",
    "typed_time",
]

VERDICTS = ("defect", "good", "no verdict", "wrong product", "unreadable")
REJECTS = ("defect", "no verdict", "wrong product")  # of a picture that was read: a person should look at it
JUDGEMENTS = ("defect", "fine")
ROLES = ("operator", "engineer", "auditor", "machine")
NOT_PRODUCTION = ("golden", "study")  # sources of pictures that the station shows to itself
NEAR_MISS = 0.9  # of the threshold: a good part with such a score came near to an alarm


@dataclass(frozen=True)
class Inspection:
    """One picture and what became of it.

    Attributes:
        key: 32 hexadecimal digits, made by the station.
        at: time of the verdict, in UTC.
        model: name of the model that judged.
        model_sha256: of its file.
        source: where the picture came from: `api`, `folder`, `camera`, ...
        name: of the picture, as its sender calls it; it is only shown, never opened.
        picture_sha256: of its bytes.
        serial, line, product: as the sender says, or as read from a code in the picture.
        score: bigger is more anomalous; None without a judgement by the model.
        threshold: that was in force.
        p_value: share of the learnt good pictures that look as odd.
        is_anomalous: the model's verdict; None where it gave none.
        verdict: `defect`, `good`, `no verdict`, `wrong product` or `unreadable`.
        regions: that stand out, as in the JSON of `predict`.
        nearest: good picture, as in the JSON of `predict`.
        milliseconds: that the judgement took.
        error: why there is no verdict.
        job: that the picture belonged to.
        judgement: a person's, `defect` or `fine`.
        judged_by: that person's name.
        judged_at: when, in UTC.
        kept: whether the picture is kept.
    """

    key: str
    at: datetime
    model: str
    model_sha256: str
    source: str
    name: str
    picture_sha256: str
    serial: str | None
    line: str | None
    product: str | None
    score: float | None
    threshold: float | None
    p_value: float | None
    is_anomalous: bool | None
    verdict: str
    regions: list[dict[str, Any]]
    nearest: dict[str, Any] | None
    milliseconds: float
    error: str | None = None
    job: str | None = None
    judgement: str | None = None
    judged_by: str | None = None
    judged_at: datetime | None = None
    kept: bool = False

    def is_near_miss(self, share: float = NEAR_MISS) -> bool:
        """Tell whether the picture was found good with a score of at least that share of the threshold."""
        if self.verdict != "good" or self.score is None or self.threshold is None:
            return False
        return self.score >= share * self.threshold

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as JSON types: the fields of `predict`, then those of the station."""
        return {
            "path": self.name,
            "score": finite(self.score),
            "threshold": finite(self.threshold),
            "is_anomalous": self.is_anomalous,
            "p_value": finite(self.p_value),
            "regions": finite(self.regions),
            "nearest": finite(self.nearest),
            "milliseconds": finite(self.milliseconds),
            "id": self.key,
            "at": iso(self.at),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "verdict": self.verdict,
            "serial": self.serial,
            "line": self.line,
            "product": self.product,
            "source": self.source,
            "picture_sha256": self.picture_sha256,
            "judgement": self.judgement,
            "judged_by": self.judged_by,
            "judged_at": None if self.judged_at is None else iso(self.judged_at),
            "error": self.error,
        }


@dataclass(frozen=True)
class Actor:
    """Who does something: a person, or a machine with a token.

    Attributes:
        name: of the user or token.
        role: `operator`, `engineer`, `auditor` or `machine`.
    """

    name: str
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise SettingError(f"role must be one of {', '.join(ROLES)}, got {self.role!r}.")


ANYBODY = Actor("local", "engineer")  # on this computer, without users
STATION = Actor("station", "machine")  # the program itself


@dataclass(frozen=True)
class Filter:
    """Which inspections are asked for; what is None does not matter.

    Attributes:
        model: its name.
        verdict: one of `VERDICTS`.
        judgement: `defect`, `fine`, or `none` for those that nobody has judged.
        serial: exactly.
        source: exactly.
        since: the earliest time, with its time zone.
        until: the time before which they were, with its time zone.
        text: that stands in the picture's name, serial, line or product, in small or capital letters.
        job: its key.
        to_judge: only rejects and near misses of the production that nobody has judged.
    """

    model: str | None = None
    verdict: str | None = None
    judgement: str | None = None
    serial: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    job: str | None = None
    to_judge: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("verdict", self.verdict, VERDICTS),
            ("judgement", self.judgement, (*JUDGEMENTS, "none")),
        ):
            if value is not None and value not in allowed:
                raise SettingError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
        for name, time in (("since", self.since), ("until", self.until)):
            if time is not None and time.tzinfo is None:
                raise SettingError(f"{name} must have a time zone, got {time.isoformat()}. Add Z for UTC.")


def iso(time: datetime) -> str:
    """Return a time in UTC as text: 2026-11-29T16:45:00.123Z."""
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def typed_time(what: str, text: str) -> datetime:
    """Return a time that a person typed, or a browser's field gave; without a zone it is in UTC.

    Args:
        what: is asked for, for the message.
        text: in ISO 8601.

    Raises:
        SettingError: it is no time.
    """
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))  # Python 3.10 knows no Z
    except ValueError:
        raise SettingError(
            f"{what} must be a time such as 2026-11-29 or 2026-11-29T16:00+01:00, got {text[:80]!r}."
        ) from None
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time


def finite(value: Any) -> Any:
    """Return JSON types in which every number that JSON cannot say is None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str, most: int) -> str:
    """Return a text that every database takes, of at most so many characters; what was cut off shows as an ellipsis.

    PostgreSQL takes no NUL, and no database the halves of surrogate pairs that stand for odd bytes in a file's name.
    """
    text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
