"""Millions of pictures judged by the workers of a cluster, a model in each, results as Parquet.

Plain actors and `ray.wait`, not `map_batches` of Ray Data: there a block has no name that outlives the driver, so what
a killed run had written could be neither told from what it had half written nor left out of the next run. Here a block
has a number, its results are a file of that number, and a worker has two blocks at most: that is all there is of
back-pressure, since a worker that is slow gets no third one.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cluster.connection import need_ray
from totalrecall.cluster.errands import Errands
from totalrecall.cluster.isolating import ended_every_worker, search_killers
from totalrecall.cluster.listing import is_remote, read_remote
from totalrecall.cluster.models import opened_model, shared_model
from totalrecall.cluster.parts import Block, Parts, parquet_part
from totalrecall.engines import Running
from totalrecall.errors import ClusterError, PictureError, TotalRecallError, only_picture_notices
from totalrecall.pictures.formats.header import max_pixels, set_max_pixels
from totalrecall.system.threads import on_one_core

if TYPE_CHECKING:
    from totalrecall.detectors.model_file import Contents
    from totalrecall.registry import AnyJudge
    from totalrecall.scoring import Result

__all__ = ["Judging", "judge_parts"]

_IN_FLIGHT = 2  # blocks of a worker: one that it judges, and one that waits, so that it never does
_DEATHS = 3  # of workers over one block; then a picture of it may kill them


@dataclass(frozen=True)
class Judging:
    """How every worker judges.

    Attributes:
        model: path of the file.
        running: of the backbone; `threads` is how many cores each worker gets, one if None.
        false_alarm_rate: instead of the model's threshold; None leaves that.
        threshold: the same as a score.
        folder: that relative paths of pictures start from.
        pixels: that a picture may have.
    """

    model: str
    running: Running
    false_alarm_rate: float | None = None
    threshold: float | None = None
    folder: str = field(default_factory=os.getcwd)
    pixels: int = field(default_factory=max_pixels)

    @property
    def cores(self) -> int:
        """Cores of each worker."""
        return self.running.threads or 1


def judge_parts(
    parts: Parts,
    judging: Judging,
    workers: int,
    *,
    failed: Callable[[str], None],
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Judge all pictures of a run that are left, and keep each block's results.

    A worker that dies is replaced by Ray where there is room, and its blocks are judged by whoever is free. Where three
    in turn died over a block, the pictures that end a worker are found (see `isolating`) and told like those that
    cannot be read.

    Args:
        parts: of the run.
        judging: how.
        workers: at most at a time; those that the cluster has no core for yet join when it has.
        failed: called with the error of each picture that could not be judged.
        progress: called with (step, done, total).

    Returns:
        How many pictures were judged now.

    Raises:
        ClusterError: workers die again and again, and no picture can be named for it.
        ModelFileError, BackboneError: a worker cannot use the model.
    """
    count = min(workers, parts.total - parts.done)
    if not count:
        return 0
    ray = need_ray()
    actor = ray.remote(num_cpus=judging.cores, max_restarts=-1, max_task_retries=_DEATHS - 1)(_Worker)
    # in a list it travels as a reference, which a worker follows
    asking = _Asking([ray.put(shared_model(judging.model))])
    works = (_Work(block) for block in parts.left())
    errands = Errands(works, asking.judge, _answer, start=asking.ready, ahead=_IN_FLIGHT, rescue=asking)
    for _ in range(count):
        errands.add(actor.remote(judging))
    now = 0
    if progress:
        progress("scoring", parts.done, parts.total)
    while parts.done + now < parts.total:  # workers that the cluster never had a core for are not waited for
        come = errands.step()
        if come is None:
            continue
        block, (data, errors) = come[0].item.block, come[1]
        parts.add(block.index, data)
        now += len(block.names)
        for error in errors:
            failed(error)
        if progress:
            progress("scoring", parts.done + now, parts.total)
    return now


@dataclass(frozen=True)
class _Work:
    """What a worker is to judge.

    Attributes:
        block: the pictures.
        killers: those of them that end a worker: they are told, and not read.
    """

    block: Block
    killers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Asking:
    """Asks workers; also for some pictures once, and for what is left of a block without those that end a worker.

    Attributes:
        model: its reference, see `_Worker.judge`.
    """

    model: list[Any]

    def judge(self, worker: Any, work: _Work) -> Any:
        """Return the reference of a block's answer."""
        return worker.judge.options(max_task_retries=0).remote(self.model, work.block.names, work.killers)

    def ready(self, worker: Any) -> Any:
        """Return the reference of an answer that comes once the worker is there; see `Attempt`."""
        return worker.ready.remote(self.model)

    def read(self, worker: Any, items: Sequence[str]) -> Any:
        """Return the reference of the answer of some pictures, which are judged once; see `Attempt`."""
        return worker.judge.options(max_task_retries=0).remote(self.model, items)

    def search(self, worker: Any, item: _Work) -> Any:
        """Have the pictures of a block found that end a worker; see `Rescue`."""
        return search_killers(self, worker, [name for name in item.block.names if name not in item.killers])

    def without(self, item: _Work, killers: Sequence[str]) -> _Work:
        """Return a block of which some pictures are told, and not read; see `Rescue`."""
        return replace(item, killers=item.killers | set(killers))


def _answer(reference: Any, work: _Work | None) -> Any:
    """Return what a worker answered.

    Raises:
        ClusterError: workers died over it.
        TotalRecallError: as the worker raised it.
    """
    ray = need_ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, ray.exceptions.RayTaskError) and cause.cause is not None:
            cause = cause.cause
        if isinstance(cause, TotalRecallError):
            raise cause from None
        raise ClusterError(f"A worker failed: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}.") from None
    except ray.exceptions.RayError as error:
        what = "before it judged anything"
        if work is not None:
            what = f"over pictures {work.block.names[0]} to {work.block.names[-1]}, though not over one of them alone"
        reason = " ".join(str(error).split())[:300]
        raise ClusterError(
            f"{_DEATHS} workers in turn died {what} ({reason}). What is done is kept. Look at the memory of the "
            "machines, and run the command again."
        ) from None


# ---------------------------------------------------------------------- workers


class _Worker:
    """One process of the cluster, with the model; it judges on the cores that Ray gave it."""

    def __init__(self, judging: Judging) -> None:
        self._judging = judging
        self._judge: AnyJudge | None = None
        self._readers = ThreadPoolExecutor(4)  # a store far away answers after so long that several are asked at a time

    def ready(self, model: list[Any]) -> tuple[bytes, list[str]]:
        """Open the model, where an error is an answer and not a dead worker."""
        self._opened(model)
        return b"", []

    def judge(
        self, model: list[Any], names: Sequence[str], killers: frozenset[str] = frozenset()
    ) -> tuple[bytes, list[str]]:
        """Return the results of some pictures as Parquet, and the errors of those that could not be judged.

        Args:
            model: its reference.
            names: of the pictures.
            killers: those of them that end a worker: they are told, and not read.
        """
        judge = self._opened(model)
        rows: list[dict[str, Any]] = []
        # subtle: on one core the process's other threads, one for each core of the machine, are left asleep
        alone = on_one_core() if self._judging.cores == 1 else contextlib.nullcontext()
        distant = [name for name in names if is_remote(name) and name not in killers]
        remote = {name: self._readers.submit(read_remote, name) for name in distant}
        with alone, only_picture_notices(quiet=True):
            for name in names:
                reading = remote.pop(name, None)
                if name in killers:
                    rows.append({"path": name, "error": ended_every_worker(name)})
                    continue
                try:
                    source = self._path(name) if reading is None else reading.result()
                    rows.append(_row(judge.predict(source), name))
                except PictureError as error:
                    rows.append({"path": name, "error": _named(str(error), self._path(name), name)})
        return parquet_part(rows), [row["error"] for row in rows if "error" in row]

    def _path(self, name: str) -> Path:
        return Path(self._judging.folder, name)

    def _opened(self, model: list[Any]) -> "AnyJudge":
        if self._judge is None:
            set_max_pixels(self._judging.pixels)
            self._judge = _open(need_ray().get(model[0]), self._judging)
        return self._judge


def _open(contents: "Contents | bytes", judging: Judging) -> "AnyJudge":
    running = Running(
        engine=judging.running.engine,
        device=judging.running.device,
        precision=judging.running.precision,
        threads=judging.cores,
    )
    judge = opened_model(contents, judging.model, running)
    if judging.false_alarm_rate is None and judging.threshold is None:
        return judge
    return judge.judging(false_alarm_rate=judging.false_alarm_rate, threshold=judging.threshold)


def _row(result: "Result", name: str) -> dict[str, Any]:
    return {**result.to_json(), "path": name}


def _named(message: str, path: Path, name: str) -> str:
    """Return an error's message under the name that the person gave the picture."""
    for begin in (str(path), "bytes[0]"):
        if message.startswith(begin):
            return f"{name}{message.removeprefix(begin)}"
    return message
