"""What is foreseen for far more work than was ever measured, and what will stop it first.

`outlook_of` takes the costs of `cost` to a cluster of given machines and adds what these must carry: the network, and
the memory that Ray shares. `line_of` is for cameras that never end. What comes out is arithmetic on measured constants,
and says nothing of machines that fail, networks that are shared, or disks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from totalrecall.cluster.cost import Constants, Cost, Job, cost_of, predict_job
from totalrecall.errors import SettingError
from totalrecall.system.text import human_bytes

__all__ = ["Line", "Machines", "Outlook", "line_of", "outlook_of"]

_STORE = 0.3  # of a machine's memory, that Ray shares by default
_SPREAD = {  # step: what its spread work is
    "features": "the backbone, on the workers",
    "coreset": "products of the coreset, on the workers",
    "calibration": "the folds, on the workers",
    "scoring": "the backbone and the search, on the workers",
}


@dataclass(frozen=True)
class Machines:
    """A cluster of machines of one kind.

    Attributes:
        count: of them.
        cores: of each; a worker on each.
        memory: bytes of each.
        network: bytes a second that each can take in.
    """

    count: int
    cores: int
    memory: float
    network: float

    @property
    def workers(self) -> int:
        """Of all of them; the process that began the work has the core of one."""
        return max(self.count * self.cores - 1, 1)


@dataclass(frozen=True)
class Outlook:
    """What is foreseen of a job.

    Attributes:
        cost: as if memory and network sufficed.
        parts: seconds of the clock of each thing that takes its time, in words.
        memory: bytes that the machine needs that the work began on.
        store: bytes of these that Ray shares on each machine.
        bottleneck: what stops it first, in words.
    """

    cost: Cost
    parts: Sequence[tuple[str, float]]
    memory: float
    store: float
    bottleneck: str

    @property
    def seconds(self) -> float:
        """Of the clock, as if memory sufficed."""
        return self.cost.seconds + dict(self.parts)[_NETWORK]


_NETWORK = "the network"


def outlook_of(job: Job, constants: Constants, machines: Machines, *, picture_bytes: float) -> Outlook:
    """Return what is foreseen of a job on a cluster.

    Args:
        job: see `fit_job` and `predict_job`.
        constants: of such machines.
        machines: there are.
        picture_bytes: of each picture's file, which a worker reads over the network.
    """
    workers, cores = machines.workers, machines.count * machines.cores
    cost = cost_of(job, constants, workers, cores, machines.count)
    carried = job.counts["pictures"] * picture_bytes / machines.count
    carried += job.everywhere * (machines.count - 1) / machines.count  # what the others have of the coreset's vectors
    parts = [(_NETWORK, carried / machines.network)]
    for step, spent in cost.processor.items():
        if step == "coreset":
            alone = spent["driver"] + constants.wait * job.counts["vectors"]
            parts += [("what one process does of the coreset, alone", alone)]
            parts += [(_SPREAD[step], cost.clock[step] - alone)]
        elif step != "rest":
            busy = spent["driver"] >= 0.99 * cost.clock[step]
            words = f"the process that began the work, at {step}" if busy else _SPREAD[step]
            parts += [(words, cost.clock[step])]
    parts += [("start", cost.clock["rest"])]
    store = job.everywhere + (job.shared - job.everywhere) / machines.count
    return Outlook(cost, parts, cost.memory["machine"], store, _bottleneck(cost, store, parts, machines))


def _bottleneck(cost: Cost, store: float, parts: Sequence[tuple[str, float]], machines: Machines) -> str:
    if store > _STORE * machines.memory:
        return f"shared memory: {human_bytes(store)} on each machine, {human_bytes(_STORE * machines.memory)} there"
    if cost.memory["machine"] > machines.memory:
        return f"memory: {human_bytes(cost.memory['machine'])} on one machine, {human_bytes(machines.memory)} there"
    return max(parts, key=lambda part: part[1])[0]


@dataclass(frozen=True)
class Line:
    """What cameras need that never end.

    Attributes:
        pictures: a second.
        cores: that judge them, none of them ever idle.
        network: bytes a second into all machines.
        stations: that take the pictures in and write them down, each one process.
        databases: that one inspection for each picture needs.
    """

    pictures: float
    cores: float
    network: float
    stations: float
    databases: float


def line_of(
    constants: Constants,
    *,
    cameras: int,
    rate: float,
    vectors: int,
    picture_bytes: float,
    rows_per_second: float,
    leading: float,
    overhead: float = 1.0,
    backbone: str = "compact",
    size: int | None = None,
) -> Line:
    """Return what a line needs.

    Args:
        constants: of the machines that judge.
        cameras: there are; each takes `rate` pictures a second.
        rate: see there.
        vectors: of each model's bank.
        picture_bytes: of each picture's file.
        rows_per_second: that one database acknowledges.
        leading: processor seconds of a picture in the one process of a station on a cluster.
        overhead: processor seconds of a station for each of `predict`.
        backbone, size: see `fit_job`.

    Raises:
        SettingError: a number is not over 0.
    """
    given = {"cameras": cameras, "rate": rate, "rows_per_second": rows_per_second, "leading": leading}
    for name, value in {**given, "overhead": overhead}.items():
        if value <= 0:
            raise SettingError(f"{name} must be over 0, got {value}.", name)
    pictures = cameras * rate
    job = predict_job(math.ceil(pictures), vectors, backbone=backbone, size=size)
    costs = constants.seconds["scoring worker"]
    cores = sum(cost * job.counts[term] for term, cost in costs.items() if term != "one")
    return Line(pictures, overhead * cores, pictures * picture_bytes, pictures * leading, pictures / rows_per_second)
