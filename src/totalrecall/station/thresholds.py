"""A model's threshold, changed by a person: in its file by `update`, so that it can be taken back, and in the trail."""

from typing import TYPE_CHECKING, Any

import numpy as np

from totalrecall.detectors.model_file import read_header
from totalrecall.errors import SettingError
from totalrecall.registry import is_exported, load_detector
from totalrecall.system.files import exclusive

if TYPE_CHECKING:
    from totalrecall.station.models import Loaded
    from totalrecall.station.records import Actor
    from totalrecall.station.station import Station

__all__ = ["set_threshold"]


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
        DataError: another program changes the file, or it cannot be written.
    """
    before = station.shelf.get(name)
    if is_exported(before.path):
        raise SettingError(f"{before.name} is an exported graph, which keeps its threshold. Export it again.")
    with exclusive(before.path) as sha256:
        detector = load_detector(before.path, **station.settings.running)
        detector.update(threshold=threshold, false_alarm_rate=rate)
        embedded = "backbone.graph" in read_header(before.path)["tensors"]
        detector.save(before.path, embed_backbone=embedded, replacing=sha256)
    loaded = station.shelf.reload(before.name)
    details: dict[str, Any] = {
        "threshold_before": _known(before.judge.threshold_),
        "threshold": _known(loaded.judge.threshold_),
        "false_alarm_rate": rate,
        "sha256_before": sha256,
        "sha256": loaded.sha256,
    }
    station.trail.append(actor, "threshold", loaded.name, details).result()
    return loaded


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
