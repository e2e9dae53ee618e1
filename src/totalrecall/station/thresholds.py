"""A model's threshold, changed by a person: in its file by `update`, so that it can be taken back, and in the trail.

Whoever stands at the line may propose another one; an engineer decides. A proposal is of the model as it was: once the
model has changed, the proposal is gone.
"""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection

from totalrecall.detectors.history import steps_of, undone
from totalrecall.detectors.model_file import read_artifact, read_header, write_artifact
from totalrecall.detectors.model_schema import check_layout_if_known
from totalrecall.errors import ConflictError, SettingError
from totalrecall.registry import is_exported, load_detector
from totalrecall.station.judging.models import digest_of
from totalrecall.station.store.records import iso

if TYPE_CHECKING:
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.station import Station
    from totalrecall.station.store.records import Actor

__all__ = [
    "can_take_back",
    "propose_threshold",
    "proposed_threshold",
    "reject_threshold",
    "set_threshold",
    "take_back_threshold",
]

_PROPOSED = "threshold proposed: "  # and a model's name: the key of the proposal among the values


def set_threshold(
    station: "Station", name: str, actor: "Actor", *, threshold: float | None = None, rate: float | None = None
) -> "Loaded":
    """Let a model judge by another threshold, or at another false-alarm rate, from now on.

    Args:
        station: that judges by it.
        name: of the model.
        actor: who wants it.
        threshold: a score; or None.
        rate: share of good parts; or None.

    Returns:
        The model as it is in use now.

    Raises:
        NotFoundError: there is no model of that name.
        SettingError: the model is an exported graph, or the value is outside what is allowed.
        HistoryError: the file cannot be written.
        DataError: another program changes it.
    """
    before = station.shelf.get(name)
    if is_exported(before.path):
        raise SettingError(f"{before.name} is an exported graph, which keeps its threshold. Export it again.")
    proposal = proposed_threshold(station, before)
    is_proposed = proposal is not None and (proposal["threshold"], proposal["false_alarm_rate"]) == (threshold, rate)
    digest = digest_of(before.path)
    detector = load_detector(before.path, **station.settings.running)
    old = detector.threshold_
    detector.update(threshold=threshold, false_alarm_rate=rate)
    embedded = "backbone.graph" in read_header(before.path)["tensors"]
    details = {"false_alarm_rate": rate, **({"proposed_by": proposal["by"]} if proposal and is_proposed else {})}
    with station.model_files.new_file(before.path.name) as file:
        detector.save(file, embed_backbone=embedded)
        data = file.read_bytes()
    details |= _both(old, detector.threshold_)
    return station.model_files.replace(
        before.name, data, before=digest, actor=actor, action="threshold", details=details
    )


def propose_threshold(
    station: "Station", name: str, actor: "Actor", *, threshold: float | None = None, rate: float | None = None
) -> None:
    """Let an engineer decide whether a model judges by another threshold; it takes the place of a proposal before.

    Raises:
        NotFoundError: there is no model of that name.
        SettingError: the model is an exported graph, or the value is outside what is allowed.
    """
    loaded = station.shelf.get(name)
    if is_exported(loaded.path):
        raise SettingError(f"{loaded.name} is an exported graph, which keeps its threshold. Export it again.")
    if threshold is not None and not (np.isfinite(threshold) and threshold > 0):
        raise SettingError(f"A threshold must be a number over 0, got {threshold:g}.")
    facts = {"threshold": threshold, "false_alarm_rate": rate}
    proposal = {**facts, "by": actor.name, "at": iso(datetime.now(timezone.utc)), "sha256": loaded.sha256}

    def told(connection: Connection) -> None:
        station.trail.append_in(connection, actor, "threshold proposed", loaded.name, facts)

    station.history.set_value(_PROPOSED + loaded.name, proposal, told).result()


def proposed_threshold(station: "Station", loaded: "Loaded") -> dict[str, Any] | None:
    """Return what is proposed for a model as it is: a threshold or a rate, by whom and when; None if nothing is."""
    proposal: dict[str, Any] | None = station.history.value(_PROPOSED + loaded.name)
    return proposal if proposal is not None and proposal["sha256"] == loaded.sha256 else None


def reject_threshold(station: "Station", name: str, actor: "Actor") -> None:
    """Put the proposal for a model aside.

    Raises:
        NotFoundError: there is no model of that name.
        ConflictError: nothing is proposed for it.
    """
    loaded = station.shelf.get(name)
    proposal = proposed_threshold(station, loaded)
    if proposal is None:
        raise ConflictError(f"No threshold is proposed for model {loaded.name}.")
    facts = {name: proposal[name] for name in ("threshold", "false_alarm_rate", "by")}

    def told(connection: Connection) -> None:
        station.trail.append_in(connection, actor, "threshold rejected", loaded.name, facts)

    station.history.set_value(_PROPOSED + loaded.name, None, told).result()


def can_take_back(loaded: "Loaded") -> bool:
    """Tell whether the last change of a model was that of its threshold."""
    steps = loaded.judge.history_
    return bool(steps) and steps[-1].what == "threshold"


def take_back_threshold(station: "Station", name: str, actor: "Actor") -> "Loaded":
    """Take back the last change of a model's threshold: its file is again what it was, to the byte.

    Raises:
        NotFoundError: there is no model of that name.
        ConflictError: its last change was another one.
        HistoryError: the file cannot be written.
        DataError: another program changes it.
    """
    before = station.shelf.get(name)
    digest = digest_of(before.path)
    contents = read_artifact(before.path, check_layout_if_known)
    steps = steps_of(contents[0])
    if not steps or steps[-1].what != "threshold":
        raise ConflictError(f"The last change of model {before.name} was not that of its threshold.")
    with station.model_files.new_file(before.path.name) as file:
        write_artifact(file, *undone(contents))
        new = load_detector(file, **station.settings.running).threshold_
        data = file.read_bytes()
    details = _both(load_detector(before.path, **station.settings.running).threshold_, new)
    return station.model_files.replace(
        before.name, data, before=digest, actor=actor, action="threshold taken back", details=details
    )


def _both(before: float, after: float) -> dict[str, float | None]:
    return {"threshold_before": _known(before), "threshold": _known(after)}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
