"""The workers of a fit: they get work as they are free, and whoever dies is replaced."""

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from totalrecall.cluster.connection import need_ray
from totalrecall.cluster.errands import Errands, Rescue
from totalrecall.cluster.isolating import Ledger
from totalrecall.cluster.worker import TRIES, Worker
from totalrecall.errors import ClusterError
from totalrecall.pictures.formats.header import max_pixels
from totalrecall.system.memory import peak_memory

__all__ = ["Crew"]

Item = TypeVar("Item")

_PATIENCE = 300.0  # seconds in which the cluster may have fewer cores than there are workers
_LOOK = 10.0  # seconds after which that is looked at, where nothing comes


def _lost(reason: str) -> str:
    return (
        f"The cluster lost a worker again and again at the same work: {reason}. Give fewer --workers, so that each has "
        "more memory; or fit without --ray, which names a picture that cannot be read."
    )


class Crew:
    """Workers of one core each, which Ray places on the nodes. They start at once, beside whatever comes next here.

    Ray has the work of a worker that dies done again by its successor, and work whose answer was lost with its machine.
    A `Ledger` on this machine knows which work was begun and never ended.

    Args:
        count: of workers.
    """

    def __init__(self, count: int) -> None:
        self.ray = need_ray()
        actor = self.ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Worker)
        here = self.ray.get_runtime_context().get_node_id()
        place = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        name = (
            f"ledger-{uuid.uuid4().hex}"  # handles of actors lie in the object store, and Ray warns of such arguments
        )
        self._ledger = self.ray.remote(num_cpus=0, scheduling_strategy=place, name=name)(Ledger).remote()
        self.workers = [actor.remote(str(Path.cwd()), max_pixels(), name) for _ in range(count)]
        self._short = 0.0

    def __len__(self) -> int:
        return len(self.workers)

    def get(self, answers: Any) -> Any:
        """Return what workers answered.

        Raises:
            ClusterError: a worker died again and again, or the cluster has no room for it any more.
            TotalRecallError: as the worker raised it.
        """
        errors = self.ray.exceptions
        waited = answers if isinstance(answers, list) else [answers]
        while waited and len(self.ray.wait(waited, num_returns=len(waited), timeout=_LOOK)[0]) < len(waited):
            self.look()
        try:
            answer = self.ray.get(answers)
        except errors.RayTaskError as error:
            cause: BaseException = error
            while isinstance(cause, errors.RayTaskError) and cause.cause is not None:
                cause = cause.cause
            raise cause from None
        except (errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError) as error:
            raise ClusterError(_lost(str(error).strip().splitlines()[0].rstrip("."))) from None
        if answer is None:
            raise ClusterError(_lost(f"{TRIES} in turn died over it"))
        return answer

    def look(self) -> None:
        """Look whether there is room for the workers, where nothing has come for a while.

        Raises:
            ClusterError: there was none for minutes: a machine has gone, and no other came.
        """
        cores = int(sum(node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"]))
        self._short = self._short + _LOOK if cores < len(self) else 0.0
        if self._short > _PATIENCE:
            raise ClusterError(
                f"The cluster has {cores} cores left for {len(self)} workers: a machine has gone. Run the command "
                f"again, with --workers {max(cores, 1)}: it goes on where it was."
            )

    def spread(
        self,
        items: Sequence[Item],
        ask: Callable[[Any, Item], Any],
        *,
        ahead: int = 2,
        rescue: Rescue[Item] | None = None,
    ) -> Iterator[Any]:
        """Yield what is asked for of each item, in order; each worker has `ahead` of them in hand.

        Args:
            items: pieces of work.
            ask: given a worker and an item, asks for it and returns the answer's reference, or those of its parts,
                of which the first is got.
            ahead: how many a worker has in hand.
            rescue: what is left of an item over which workers died; such a one ends the fit if not given.

        Raises:
            ClusterError: a worker died again and again.
            TotalRecallError: as the worker raised it.
        """
        errands = Errands(iter(items), ask, self._get, look=(_LOOK, self.look), ahead=ahead, rescue=rescue)
        for worker in self.workers:
            errands.add(worker)
        answers: dict[int, Any] = {}
        for turn in range(len(items)):
            while turn not in answers:
                come = errands.step()
                if come is not None:
                    answers[come[0].at] = come[1]
            yield answers.pop(turn)

    def _get(self, answer: Any, _: object) -> Any:
        return self.get(answer)

    def facts(self) -> list[dict[str, Any]]:
        """Return which processes take part, this one first, and the most memory that each held."""
        context = self.ray.get_runtime_context()

        driver = {"role": "driver", "node": context.get_node_id(), "pid": os.getpid(), "peak_memory": peak_memory()}
        return [driver, *self.get([worker.facts.remote() for worker in self.workers])]

    def close(self) -> None:
        """Let the workers go."""
        for worker in self.workers:
            self.ray.kill(worker)
        self.ray.kill(self._ledger)
        self.workers = []
