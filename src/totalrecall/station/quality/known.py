"""The pictures of a station whose truth is known: the golden ones, and those that people judged."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from totalrecall.station.quality.golden import PICTURES as GOLDEN_PICTURES
from totalrecall.station.store.records import Filter
from totalrecall.station.store.tables import golden

if TYPE_CHECKING:
    from totalrecall.station.quality.services import Services

__all__ = ["known_pictures"]

_MOST_JUDGED = 500  # beside the golden ones, the last that were inspected


def known_pictures(station: "Services", model: str, folder: Path) -> list[dict[str, Any]]:
    """Return the golden pictures of a model, then the judged ones that are kept, each picture once.

    Args:
        station: that holds them.
        model: its name.
        folder: into which the judged ones are written.

    Returns:
        Of each `from` ("golden" or "judged"), `id`, `name`, `truth`, `sha256`, and `file`: a name in the folder or a
        path.
    """
    rows: dict[str, dict[str, Any]] = {}
    with station.database.read() as connection:
        of_model = select(golden).where(golden.c.model == model).order_by(golden.c.id)
        for one in connection.execute(of_model).mappings():
            path = station.settings.folder / GOLDEN_PICTURES / f"{one['key']}.picture"
            if path.is_file():
                facts = {"from": "golden", "id": one["key"], "name": one["name"], "truth": one["expected"]}
                rows[one["picture_sha256"]] = {
                    **facts,
                    "sha256": one["picture_sha256"],
                    "file": str(path.absolute()),
                }
    judged = [
        inspection
        for judgement in ("defect", "fine")
        for inspection in station.history.find(Filter(model=model, judgement=judgement), limit=_MOST_JUDGED)
        if inspection.kept
    ]
    for inspection in sorted(judged, key=lambda one: one.at, reverse=True)[:_MOST_JUDGED]:
        picture = station.kept.picture(inspection.key)
        if picture is None or inspection.picture_sha256 in rows:
            continue
        path = folder / f"frozen-{inspection.key}"
        path.write_bytes(picture)
        facts = {"from": "judged", "id": inspection.key, "name": inspection.name}
        facts |= {"truth": "good" if inspection.judgement == "fine" else "defect", "file": path.name}
        rows[inspection.picture_sha256] = {**facts, "sha256": inspection.picture_sha256}
    return list(rows.values())
