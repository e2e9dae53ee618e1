"""What a fit and a prediction on a cluster will take: seconds and memory, from constants that small runs give.

A step of the work is counted: pixels that the backbone reads, patches, products of a patch with a vector. `learned`
works out what one of each costs, in processor seconds of a worker, of the process that began the work (the driver) and
of Ray's own processes, from runs that `benchmarks.cluster_cost` makes. `cost_of` adds them up for another job.

Seconds of the clock follow from those of the processors. Reading, scoring and the folds are spread: divided by the
workers, and never sooner than all processes together can have the cores. In the coreset the driver and the workers take
turns, so what the driver does is not divided by anything; the clock also waits for messages, `wait` for each choice.

What it does not know: spilling to disk, a network slower than the work, machines of several kinds, and tiles, tilted
copies or regions of interest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from totalrecall.backbones import load
from totalrecall.calibration import fold_count, held_count
from totalrecall.cluster.fitting import shard_size
from totalrecall.errors import DataError, SettingError
from totalrecall.patchcore.coreset import budget
from totalrecall.patchcore.detector import PatchCore

__all__ = ["ROLES", "Constants", "Cost", "Job", "Run", "cost_of", "fit_job", "learned", "predict_job"]

ROLES = ("worker", "driver", "ray")
_NUMBER = 4  # bytes
_BANK = 4.5  # times a bank's bytes that a process takes which searches it; as `patchcore.plan` reckons

# What each process does in each step: counts of a job, each with a constant of its own. What is done once, by each
# worker, is `one`: Python and the engine are started.
_WORK: dict[str, dict[str, tuple[str, ...]]] = {
    "features": {"worker": ("one", "pixels"), "driver": ("pictures",), "ray": ("one",)},
    "coreset": {"worker": ("products", "patches"), "driver": ("patches", "vectors"), "ray": ("vectors",)},
    "calibration": {"worker": ("searches", "judged", "banks"), "driver": ("judged",), "ray": ("one",)},
    "rest": {"worker": ("one",), "driver": ("one",), "ray": ("one",)},
    "scoring": {"worker": ("one", "pixels", "searches"), "driver": ("one", "pictures"), "ray": ("one",)},
}
_STEPS = {"fit": ("features", "coreset", "calibration", "rest"), "predict": ("scoring",)}
_TURNS = ("coreset",)  # steps in which the driver and the workers wait for each other
_SMALL = 0.2  # share of the largest value
_HELD = {  # bytes of a process, beside those that are known
    "fit worker": ("one", "at hand"),
    "fit driver": ("one", "patches"),
    "predict worker": ("one",),
    "predict driver": ("one",),
}


@dataclass(frozen=True)
class Job:
    """What is to be done, counted.

    Attributes:
        kind: `fit` or `predict`.
        counts: pictures, pixels, patches, vectors, products and so on; see `_WORK`.
        shared: bytes of patches and their projection, which lie in the memory that processes of a machine share.
        everywhere: of these, what each machine must have: the vectors that the coreset is chosen in.
        own: bytes of each process that are known beforehand: those that it maps, and its banks.
        folds: banks that good pictures are measured by.
    """

    kind: str
    counts: Mapping[str, float]
    shared: float
    everywhere: float
    own: Mapping[str, float]
    folds: int = 0


@dataclass(frozen=True)
class Run:
    """What a job took.

    Attributes:
        job: what was done.
        workers: that did it.
        cores: of the machine.
        clock: seconds of each step, and of what is in none as `rest`.
        processor: seconds of each step by role; those of a prediction are all of its one step's.
        memory: bytes resident at most, by role.
    """

    job: Job
    workers: int
    cores: int
    clock: Mapping[str, float]
    processor: Mapping[str, Mapping[str, float]]
    memory: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Of the whole command, by the clock."""
        return sum(self.clock.values())


@dataclass(frozen=True)
class Constants:
    """What one of each costs on a machine, with a backbone.

    Attributes:
        seconds: processor seconds of each count, by `STEP ROLE`.
        rest: seconds of the clock that belong to no step, by kind of job: start of Ray, workers and engines.
        wait: seconds of the clock for each vector that a coreset chooses, beside the work.
        hands: cores that a worker keeps busy if they are free, by step.
        memory: bytes of each count, by `KIND ROLE`; a worker has `at hand` the patches of a shard, or those of a fold
            that a bank is refilled for.
    """

    seconds: Mapping[str, Mapping[str, float]]
    rest: Mapping[str, float]
    wait: float
    hands: Mapping[str, float]
    memory: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON types."""
        return {name: getattr(self, name) for name in ("seconds", "rest", "wait", "hands", "memory")}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Constants":
        """Return what `to_json` gave.

        Raises:
            DataError: it is something else.
        """
        try:
            return cls(**{name: stored[name] for name in ("seconds", "rest", "wait", "hands", "memory")})
        except KeyError as error:
            raise DataError(f"Constants of costs have no {error}. Run: python -m benchmarks.cluster_cost") from None


@dataclass(frozen=True)
class Cost:
    """What a job will take.

    Attributes:
        clock: seconds of each step, and of what is in none as `rest`.
        processor: seconds of each step by role.
        memory: bytes of each process by role, what it shares counted for each; `machine` is what the machine needs
            that the work began on, with its share of the workers and what they share counted once.
    """

    clock: Mapping[str, float]
    processor: Mapping[str, Mapping[str, float]]
    memory: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Of the whole command, by the clock."""
        return sum(self.clock.values())

    @property
    def processor_seconds(self) -> float:
        """Of all steps and roles."""
        return sum(sum(by_role.values()) for by_role in self.processor.values())


# ---------------------------------------------------------------------- counting


def fit_job(
    pictures: int, *, backbone: str = "compact", size: int | None = None, coreset: float = 0.01, at_least: int = 2000
) -> Job:
    """Return a fit of PatchCore, counted.

    Args:
        pictures: good ones.
        backbone: by name; it must be here.
        size: side of the prepared picture; the backbone's own if not given.
        coreset: share of the patches that the bank keeps, and `at_least` so many of them.

    Raises:
        SettingError: a value is not allowed.
        BackboneError: the backbone is not there.
    """
    _check_pictures(pictures)
    detector = PatchCore(backbone=load(backbone), size=size, coreset=coreset, at_least=at_least)
    rows, columns, dimensions = detector.extractor.expected_grid()
    settings = detector.settings
    narrow = settings.projection or (dimensions if dimensions <= 512 else 128)
    patches = pictures * rows * columns
    vectors = budget(patches, coreset, at_least)
    folds = fold_count(pictures, settings.holdout, settings.folds)
    judged = (pictures if folds > 1 else held_count(pictures, settings.holdout)) * rows * columns
    counts = {
        "one": 1,
        "pictures": pictures,
        "pixels": pictures * _pixels(detector),
        "patches": patches,
        "vectors": vectors,
        "products": patches * vectors * narrow,
        "judged": judged,
        "searches": judged * vectors * dimensions,
        "banks": folds * vectors * dimensions,
        "numbers": patches * dimensions,
        "refilled": _NUMBER * patches * narrow // folds if folds > 1 else 0,
    }
    wide, projected = _NUMBER * patches * dimensions, (0 if narrow == dimensions else _NUMBER * patches * narrow)
    bank = _BANK * _NUMBER * vectors * dimensions
    # beside a projection the wide patches are mapped only as far as banks are made of them
    everywhere = projected or wide
    own = {"worker": everywhere + bank, "driver": everywhere + bank}
    return Job("fit", counts, wide + projected, everywhere, own, folds)


def predict_job(pictures: int, vectors: int, *, backbone: str = "compact", size: int | None = None) -> Job:
    """Return a prediction by a model, counted.

    Args:
        pictures: to judge.
        vectors: of the model's bank.
        backbone, size: see `fit_job`.

    Raises:
        SettingError, BackboneError: see there.
    """
    _check_pictures(pictures)
    if vectors < 1:
        raise SettingError(f"vectors must be at least 1, got {vectors}. `totalrecall info MODEL` says how many.")
    detector = PatchCore(backbone=load(backbone), size=size)
    rows, columns, dimensions = detector.extractor.expected_grid()
    counts = {
        "one": 1,
        "pictures": pictures,
        "pixels": pictures * _pixels(detector),
        "searches": pictures * rows * columns * vectors * dimensions,
    }
    return Job("predict", counts, 0.0, 0.0, {"worker": _BANK * _NUMBER * vectors * dimensions, "driver": 0.0})


def _pixels(detector: PatchCore) -> int:
    """Return how many pixels of a picture the backbone reads."""
    recipe = detector.extractor.recipe
    return (recipe.tile * recipe.piece) ** 2


def _check_pictures(pictures: int) -> None:
    if pictures < 1:
        raise SettingError(f"pictures must be at least 1, got {pictures}.")


# ---------------------------------------------------------------------- learning


def learned(runs: Sequence[Run]) -> Constants:
    """Work out the constants from runs, those of one worker; at least as many of each kind as a step has counts.

    Raises:
        DataError: there are too few.
    """
    alone = [run for run in runs if run.workers == 1]
    seconds, hands, memory, rest = {}, {}, {}, {}
    for kind, steps in _STEPS.items():
        mine = [run for run in alone if run.job.kind == kind]
        if len(mine) < 3:
            raise DataError(f"Costs of {kind} need 3 runs with one worker, got {len(mine)}. Make more of them.")
        jobs = [run.job for run in mine]
        for step in steps:
            for role, terms in _WORK[step].items():
                seconds[f"{step} {role}"] = _solved(terms, jobs, [run.processor[step][role] for run in mine])
            if step != "rest":
                busy = [run.processor[step]["worker"] / run.clock[step] for run in mine]
                hands[step] = max(1.0, float(np.median(busy)))
        rest[kind] = float(np.median([run.clock["rest"] for run in mine]))
        for role in ("worker", "driver"):
            unknown = [run.memory[role] - run.job.own[role] for run in mine]
            memory[f"{kind} {role}"] = _solved(_HELD[f"{kind} {role}"], jobs, unknown)
    fits = [run for run in alone if run.job.kind == "fit"]
    waits = [_waited(run) / run.job.counts["vectors"] for run in fits]
    return Constants(seconds, rest, max(float(np.median(waits)), 0.0), hands, memory)


def _waited(run: Run) -> float:
    """Return the seconds of a coreset in which neither the driver nor the one worker had anything to do."""
    spent = run.processor["coreset"]
    return run.clock["coreset"] - spent["driver"] - spent["worker"]


def _solved(terms: Sequence[str], jobs: Sequence[Job], values: Sequence[float]) -> dict[str, float]:
    """Return what one of each count costs, none less than nothing: least squares of relative errors.

    There are few terms, so that every choice of those that cost something can be tried. What is small beside the
    largest value is noise, and counts for less.
    """
    amounts = np.array([[_amount(job, term, 1) for term in terms] for job in jobs], np.float64)
    target = np.maximum(np.array(values, np.float64), 0)
    weight = 1 / np.maximum(target, max(_SMALL * float(target.max()), 1e-9))
    best, least = np.zeros(len(terms)), math.inf
    for count in range(1, len(terms) + 1):
        for chosen in combinations(range(len(terms)), count):
            scale = amounts[:, chosen].max(axis=0)
            given = amounts[:, chosen] / scale * weight[:, None]
            part = np.linalg.lstsq(given, target * weight, rcond=None)[0]
            error = float(np.sum((given @ part - target * weight) ** 2))
            if (part >= 0).all() and error < least - 1e-12:
                best, least = np.zeros(len(terms)), error
                best[list(chosen)] = part / scale
    return {term: float(value) for term, value in zip(terms, best, strict=True)}


# ---------------------------------------------------------------------- adding up


def cost_of(job: Job, constants: Constants, workers: int, cores: int | None = None, machines: int = 1) -> Cost:
    """Return what a job will take.

    Args:
        job: see `fit_job` and `predict_job`.
        constants: of such a machine and backbone.
        workers: that share the work, a core each.
        cores: that all processes together have; one more than the workers if not given.
        machines: that the workers are on.

    Raises:
        SettingError: there is no worker, core or machine.
    """
    cores = workers + 1 if cores is None else cores
    if min(workers, cores, machines) < 1:
        got = f"{workers}, {cores} and {machines}"
        raise SettingError(f"workers, cores and machines must be at least 1, got {got}.", "workers", "cores")
    processor = {
        step: {
            role: _sum(constants.seconds[f"{step} {role}"], job, workers if role == "worker" else 1) for role in ROLES
        }
        for step in _STEPS[job.kind]
    }
    clock = {
        step: _by_the_clock(step, spent, job, constants, workers, cores)
        for step, spent in processor.items()
        if step != "rest"
    }
    clock["rest"] = constants.rest[job.kind]
    memory = {
        role: job.own[role] + _held(f"{job.kind} {role}", job, constants, workers) for role in ("worker", "driver")
    }
    apart = {role: memory[role] - job.everywhere for role in ("worker", "driver")}
    shared = job.everywhere + (job.shared - job.everywhere) / machines
    memory["machine"] = shared + apart["driver"] + math.ceil(workers / machines) * apart["worker"]
    return Cost(clock, processor, memory)


def _sum(costs: Mapping[str, float], job: Job, times: int = 1) -> float:
    """Return what the counts of a job cost, where what is done once is done so many times."""
    return sum(cost * job.counts[term] * (times if term == "one" else 1) for term, cost in costs.items())


def _held(whose: str, job: Job, constants: Constants, workers: int) -> float:
    return sum(cost * _amount(job, term, workers) for term, cost in constants.memory[whose].items())


def _amount(job: Job, term: str, workers: int) -> float:
    """Return a count, also of what depends on how many workers there are."""
    if term != "at hand":
        return job.counts[term]
    each = int(_NUMBER * job.counts["numbers"] / job.counts["pictures"])
    shard = each * shard_size(int(job.counts["pictures"]), workers, each)
    return max(shard, job.counts["refilled"])


def _by_the_clock(
    step: str, spent: Mapping[str, float], job: Job, constants: Constants, workers: int, cores: int
) -> float:
    """Return the seconds of a step by the clock, from those of the processors."""
    if step in _TURNS:
        return spent["driver"] + spent["worker"] / min(workers, cores) + constants.wait * job.counts["vectors"]
    spread = spent["worker"] / (workers * constants.hands[step])
    if step == "calibration" and job.folds > 1:  # the first fold is measured alone: it says how to search
        first = spent["worker"] / job.folds / constants.hands[step]
        spread = first + spread * (job.folds - 1) / job.folds
    return max(spread, spent["driver"], sum(spent.values()) / cores)
