"""The cells of a benchmark as tasks of a cluster; each asks Ray for cores, or for a card.

All cells travel once, in one object that every machine fetches: they share a backbone and data sets. Back come a cell's
line, and its thumbnails as bytes, since a worker's own folder is nobody else's. The process that began the benchmark
writes both, as soon as they come, so its death loses only the cells that are under way.
"""

import os
import platform
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from totalrecall.benchmark.cell import Cell, Progress
from totalrecall.benchmark.run import Outcome, Way, measured
from totalrecall.cluster.connection import need_ray
from totalrecall.cluster.share import Share
from totalrecall.errors import PICTURE_NOTICES, ClusterError, TotalRecallError
from totalrecall.pictures.formats.header import max_pixels, set_max_pixels
from totalrecall.system.files import atomic_write
from totalrecall.system.threads import limit_cores

__all__ = ["Tasks"]

_DEATHS = 3  # of workers over one family of cells; then it is the cells that kill them


@dataclass(frozen=True)
class _Order:
    """How every task measures.

    Attributes:
        cores: that it may use.
        thumbnails: whether any are made.
        folder: that relative paths start from.
        pixels: that a picture may have.
    """

    cores: int
    thumbnails: bool
    folder: str
    pixels: int


@dataclass(frozen=True, eq=False)
class _Answer:
    """What a task gave of one cell.

    Attributes:
        place: of the cell in its family.
        outcome, seconds: see `Outcome`.
        thumbnails: name and bytes of each.
    """

    place: int
    outcome: dict[str, Any] | str
    seconds: float
    thumbnails: list[tuple[str, bytes]]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a task gave: of each cell, and the notices that a person must see."""

    cells: list[_Answer]
    notices: Sequence[tuple[type[Warning], str]]


class Tasks:
    """Measures cells by the workers of the cluster that is connected: `run_benchmark(..., way=Tasks(share).way)`.

    A task whose worker dies is done again by another. Cells that end every worker that has them are named as bad ones,
    and the others are measured.

    Args:
        share: what each cell gets.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._ray = need_ray()

    @property
    def way(self) -> Way:
        """What `run_benchmark` takes."""
        return Way(self._measure, self._share.room)

    def _measure(
        self, families: Sequence[Sequence[Cell]], folder: Path | None, _progress: Progress | None
    ) -> Iterator[Outcome]:
        """Yield the outcome of each cell, as they come; see `Way`."""
        order = _Order(self._share.cores, folder is not None, str(Path.cwd()), max_pixels())
        given = [self._ray.put([list(family) for family in families])]  # in a list it travels as a reference
        asked = {"num_cpus": self._share.cores, "num_gpus": self._share.cards, "max_retries": _DEATHS - 1}
        task = self._ray.remote(**asked)(_measured)
        left = iter(range(len(families)))
        pending: dict[Any, int] = {}
        while True:
            for number in islice(left, self._share.room - len(pending)):
                pending[task.remote(given, number, order)] = number
            if not pending:
                return
            (done,), _ = self._ray.wait(list(pending), num_returns=1)
            yield from self._taken(done, families[pending.pop(done)], folder)

    def _taken(self, reference: Any, family: Sequence[Cell], folder: Path | None) -> Iterator[Outcome]:
        """Yield what a task gave, once its thumbnails are written.

        Raises:
            TotalRecallError: as the worker raised it: no cell can be measured there.
            ClusterError: the worker failed otherwise.
        """
        try:
            answers: _Answers = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, TotalRecallError):
                raise cause from None
            raise ClusterError(
                f"A worker failed: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}."
            ) from None
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            for cell in family:
                message = f"{_DEATHS} workers in turn died over it ({reason}). Look at the memory of the machines."
                yield cell, message, 0.0
            return
        for category, text in answers.notices:
            warnings.warn(text, category, stacklevel=2)
        for answer in answers.cells:
            if folder is not None:
                for name, data in answer.thumbnails:
                    atomic_write(folder / name, data)
            yield family[answer.place], answer.outcome, answer.seconds


# ---------------------------------------------------------------------- workers


def _measured(given: Sequence[Any], number: int, order: _Order) -> _Answers:
    """Measure one family of those given, in a process of the cluster."""
    limit_cores(order.cores)
    set_max_pixels(order.pixels)
    try:
        os.chdir(order.folder)
    except OSError as error:
        raise ClusterError(
            f"Machine {platform.node()} of the cluster cannot use the folder {order.folder} "
            f"({error.strerror or error}). Each machine must see the same folders."
        ) from None
    family: list[Cell] = need_ray().get(given[0])[number]
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(record=True) as heard:
        for category in PICTURE_NOTICES:
            warnings.simplefilter("always", category)
        folder = Path(place) if order.thumbnails else None
        cells = [
            _Answer(family.index(cell), outcome, seconds, _thumbnails(outcome, folder))
            for cell, outcome, seconds in measured([family], folder)
        ]
    notices = [(said.category, str(said.message)) for said in heard if issubclass(said.category, PICTURE_NOTICES)]
    return _Answers(cells, notices)


def _thumbnails(outcome: dict[str, Any] | str, folder: Path | None) -> list[tuple[str, bytes]]:
    if isinstance(outcome, str) or folder is None:
        return []
    return [(shown["file"], (folder / shown["file"]).read_bytes()) for shown in outcome["shown"]]
