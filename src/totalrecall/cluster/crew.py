"""The workers of a fit: they get work as they are free, and whoever dies is replaced."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from totalrecall.cluster.connection import need_ray
from totalrecall.cluster.worker import Worker
from totalrecall.errors import ClusterError
from totalrecall.pictures.formats.header import max_pixels
from totalrecall.system.memory import peak_memory

__all__ = ["Crew"]

Item = TypeVar("Item")

_RESTARTS = 20  # of a worker in all; one that dies more often has a reason
_TRIES = 3  # of the same work: a picture that kills whoever reads it must end the fit


class Crew:
    """Workers of one core each, which Ray places on the nodes. They start at once, beside whatever comes next here.

    Args:
        count: of workers.
    """

    def __init__(self, count: int) -> None:
        self.ray = need_ray()
        actor = self.ray.remote(num_cpus=1, max_restarts=_RESTARTS, max_task_retries=_TRIES)(Worker)
        here = (str(Path.cwd()), max_pixels())
        self.workers = [actor.remote(*here) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.workers)

    def get(self, answers: Any) -> Any:
        """Return what workers answered.

        Raises:
            ClusterError: a worker died again and again.
            TotalRecallError: as the worker raised it.
        """
        errors = self.ray.exceptions
        try:
            return self.ray.get(answers)
        except errors.RayTaskError as error:
            raise getattr(error, "cause", error) from None
        except (errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise ClusterError(
                f"The cluster lost a worker {_TRIES + 1} times at the same work: {reason}. Give fewer --workers, so "
                "that each has more memory; or fit without --ray, which names a picture that cannot be read."
            ) from None

    def spread(self, items: Sequence[Item], ask: Callable[[Any, Item], Any], *, ahead: int = 2) -> Iterator[Any]:
        """Yield what is asked for of each item, in order; each worker has `ahead` of them in hand.

        Args:
            items: pieces of work.
            ask: given a worker and an item, asks for it and returns the answer's reference, or those of its parts,
                of which the first is got.
            ahead: how many a worker has in hand.
        """
        waiting, asked = deque(enumerate(items)), {}
        answers: dict[int, Any] = {}
        free = deque(worker for _ in range(ahead) for worker in self.workers)
        for turn in range(len(items)):
            while turn not in answers:
                while waiting and free:
                    at, item = waiting.popleft()
                    worker = free.popleft()
                    parts = ask(worker, item)
                    asked[parts[0] if isinstance(parts, list) else parts] = (at, worker, parts)
                (done,), _ = self.ray.wait(list(asked), num_returns=1)
                at, worker, parts = asked.pop(done)
                answers[at] = parts
                free.append(worker)
            parts = answers.pop(turn)
            yield [self.get(parts[0]), *parts[1:]] if isinstance(parts, list) else self.get(parts)

    def facts(self) -> list[dict[str, Any]]:
        """Return which processes take part, this one first, and the most memory that each held."""
        context = self.ray.get_runtime_context()

        driver = {"role": "driver", "node": context.get_node_id(), "pid": os.getpid(), "peak_memory": peak_memory()}
        return [driver, *self.get([worker.facts.remote() for worker in self.workers])]

    def close(self) -> None:
        """Let the workers go."""
        for worker in self.workers:
            self.ray.kill(worker)
        self.workers = []
