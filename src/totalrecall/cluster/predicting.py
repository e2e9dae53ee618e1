"""Millions of pictures judged by the workers of a cluster, a model in each, results as Parquet.

Plain actors and `ray.wait`, not `map_batches` of Ray Data: there a block has no name that outlives the driver, so what
a killed run had written could be neither told from what it had half written nor left out of the next run. Here a block
has a number, its results are a file of that number, and a worker has two blocks at most: that is all there is of
back-pressure, since a worker that is slow gets no third one.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cluster.connection import need_ray
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
_DEATHS = 3  # of workers over one block; then it is the block that kills them


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

    A worker that dies is replaced by Ray, and judges its blocks anew.

    Args:
        parts: of the run.
        judging: how.
        workers: at most at a time; those that the cluster has no core for yet join when it has.
        failed: called with the error of each picture that could not be judged.
        progress: called with (step, done, total).

    Returns:
        How many pictures were judged now.

    Raises:
        ClusterError: a block ended every worker that had it.
        ModelFileError, BackboneError: a worker cannot use the model.
    """
    ray = need_ray()
    blocks = parts.left()
    count = min(workers, parts.total - parts.done)
    if not count:
        return 0
    actor = ray.remote(num_cpus=judging.cores, max_restarts=-1, max_task_retries=_DEATHS - 1)(_Worker)
    model = [ray.put(shared_model(judging.model))]  # in a list it travels as a reference, which a worker follows once
    pending: dict[Any, tuple[Any, Block | None]] = {}  # what is under way: whose, and of which block
    for _ in range(count):
        worker = actor.remote(judging)
        pending[worker.ready.remote(model)] = (worker, None)
    now = 0
    if progress:
        progress("scoring", parts.done, parts.total)
    while pending:
        done, _ = ray.wait(list(pending), num_returns=1)
        worker, block = pending.pop(done[0])
        data, errors = _answer(ray, done[0], block)
        if block is not None:
            parts.add(block.index, data)
            now += len(block.names)
            for error in errors:
                failed(error)
            if progress:
                progress("scoring", parts.done + now, parts.total)
        # one that has just come up takes as many as it may have; after that one for each that it gives back
        for following in _few(blocks, _IN_FLIGHT if block is None else 1):
            pending[worker.judge.remote(model, following.names)] = (worker, following)
        if parts.done + now == parts.total:
            break  # workers that the cluster never had a core for are not waited for
    return now


def _few(blocks: Iterator[Block], count: int) -> Iterator[Block]:
    for _ in range(count):
        block = next(blocks, None)
        if block is None:
            return
        yield block


def _answer(ray: Any, reference: Any, block: Block | None) -> tuple[bytes, list[str]]:
    """Return what a worker answered: a part, and the errors of pictures."""
    try:
        answer: tuple[bytes, list[str]] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, TotalRecallError):
            raise cause from None
        raise ClusterError(f"A worker failed: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}.") from None
    except ray.exceptions.RayError as error:
        what = "before it judged anything" if block is None else f"over pictures {block.names[0]} to {block.names[-1]}"
        reason = " ".join(str(error).split())[:300]
        raise ClusterError(
            f"{_DEATHS} workers in turn died {what} ({reason}). What is done is kept. Look at these pictures and at "
            "the memory of the machines, and run the command again."
        ) from None
    return answer


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

    def judge(self, model: list[Any], names: Sequence[str]) -> tuple[bytes, list[str]]:
        """Return the results of some pictures as Parquet, and the errors of those that could not be judged."""
        judge = self._opened(model)
        rows: list[dict[str, Any]] = []
        # subtle: on one core the process's other threads, one for each core of the machine, are left asleep
        alone = on_one_core() if self._judging.cores == 1 else contextlib.nullcontext()
        remote = {name: self._readers.submit(read_remote, name) for name in names if is_remote(name)}
        with alone, only_picture_notices(quiet=True):
            for name in names:
                reading = remote.pop(name, None)
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
