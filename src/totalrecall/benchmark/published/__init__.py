"""Published figures, to stand beside our own: one CSV a data set, one figure a row, each with its source.

They were taken from papers and from the owners' own repositories; nothing here was measured by this library. `trust`
says how: `printed` was read in the owner's own files, `secondary` in a reprint of them by others. Figures of the
PatchCore paper and of anomalib differ in weights, picture sizes and scores, so compare with the `protocol` that yours
follows.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from totalrecall.datasets import LAYOUTS
from totalrecall.errors import SettingError

__all__ = ["MEAN", "METRICS", "PROTOCOLS", "TRUST", "PublishedValue", "published"]

METRICS = ("image_auroc", "image_f1", "pixel_auroc", "pixel_aupro")  # as in the JSON of `evaluate`
MEAN = "mean"  # the category of a figure over all categories of a set
TRUST = ("printed", "secondary")
PROTOCOLS = {
    "paper": "another method, as the PatchCore paper reports it",
    "paper-100": "PatchCore paper, all patches kept; resize 256, crop 224, layers 2 and 3, torchvision's first weights",
    "paper-25": "PatchCore paper, coreset of 25 %; otherwise as paper-100",
    "paper-10": "PatchCore paper, coreset of 10 %; otherwise as paper-100",
    "paper-1": "PatchCore paper, coreset of 1 %; otherwise as paper-100",
    "paper-100-ivfpq": "PatchCore paper, all patches kept, approximate search",
    "paper-1-280px": "PatchCore paper, coreset of 1 %, pictures of 280 pixels, layers 2 and 3",
    "paper-1-280px-layers123": "PatchCore paper, coreset of 1 %, pictures of 280 pixels, layers 1 to 3",
    "paper-1-320px": "PatchCore paper, coreset of 1 %, pictures of 320 pixels, three backbones together",
    "paper-mstc": "PatchCore paper, every fifth frame, resize 256, layers 3 and 4",
    "paper-remade": "SPADE or PaDiM as the PatchCore paper's authors ran them again on WideResNet50-2",
    "own-paper": "SPADE (K = 50) or PaDiM (550 of the channels) as their own papers report them; resize 256, crop 224",
    "official-10": "the authors' code, coreset of 10 %, resize 256, crop 224; its PRO is of defective pictures alone",
    "official-1-320px": "the authors' code, coreset of 1 %, 320 pixels, three backbones; its PRO as in official-10",
    "anomalib": "anomalib's model cards of 2023, seed 42: resize 256, crop 224; PatchCore of 10 % with k = 9",
    "anomalib-2022": "anomalib's earlier model cards, seed 42; picture size not stated there",
}


@dataclass(frozen=True)
class PublishedValue:
    """One published figure.

    Attributes:
        dataset: the layout's name, as `datasets.LAYOUTS` has it.
        category: as `datasets.categories` names it, or `mean` over all of them.
        method: `patchcore`, `padim`, `spade`, or another that we do not have.
        backbone: by its name here, several joined by `+`; empty where the method has none or it is not said.
        protocol: one of `PROTOCOLS`.
        metric: one of `METRICS`.
        value: percent.
        source: where it was read.
        trust: one of `TRUST`.
        shots: good pictures fitted on; None for all of the set.
    """

    dataset: str
    category: str
    method: str
    backbone: str
    protocol: str
    metric: str
    value: float
    source: str
    trust: str
    shots: int | None = None


def published(
    dataset: str,
    *,
    category: str | None = None,
    method: str | None = None,
    backbone: str | None = None,
    metric: str | None = None,
    protocol: str | None = None,
    shots: int | None = None,
) -> list[PublishedValue]:
    """Return what is published about a data set, in the order of its CSV; empty where nothing is.

    Args:
        dataset: a layout's name.
        category, method, backbone, metric, protocol: only figures of this one; of all if not given.
        shots: only figures of a fit on so many good pictures; those of a fit on all of them if not given.

    Raises:
        SettingError: the data set, metric or protocol is unknown.
    """
    for name, value, allowed in (
        ("dataset", dataset, LAYOUTS),
        ("metric", metric, METRICS),
        ("protocol", protocol, PROTOCOLS),
    ):
        if value is not None and value not in allowed:
            raise SettingError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    wanted = {"category": category, "method": method, "backbone": backbone, "metric": metric, "protocol": protocol}
    return [
        row
        for row in _rows(dataset)
        if row.shots == shots and all(value in (None, getattr(row, name)) for name, value in wanted.items())
    ]


@cache
def _rows(dataset: str) -> tuple[PublishedValue, ...]:
    """Return every row of a data set's CSV."""
    table = files(__name__) / f"{dataset}.csv"
    if not table.is_file():
        return ()
    return tuple(_parsed(row) for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines(), strict=True))


def _parsed(row: dict[str, str]) -> PublishedValue:
    return PublishedValue(
        dataset=row["dataset"],
        category=row["category"],
        method=row["method"],
        backbone=row["backbone"],
        protocol=row["protocol"],
        metric=row["metric"],
        value=float(row["value"]),
        source=row["source"],
        trust=row["trust"],
        shots=int(row["shots"]) if row["shots"] else None,
    )
