"""Find the settings that find most, at the stated false-alarm rate, before a real defect ever came.

    good pictures -> some held out -> defects planted on these -> settings tried one after another -> the best

Every setting is fitted on the same pictures, sets its threshold as `fit` does, and judges the same planted defects.
What counts is the share that it finds at the stated false-alarm rate and at 5, 10 and 20 percent, on average: one
threshold from few pictures is a draw. A setting replaces the best one before it only where it finds clearly more of the
same defects: by over twice the standard error of the difference, which comes from drawing the good pictures and the
defects again (the bootstrap); and where it takes no more time than is allowed. Otherwise chance would choose.

Planted defects are not real ones. The figures compare settings; they do not say what share of real defects is found.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from totalrecall.backbones import Advice, available
from totalrecall.calibration import Calibration
from totalrecall.errors import BackboneError, SettingError
from totalrecall.patchcore.detector import PatchCore
from totalrecall.patchcore.settings import Settings
from totalrecall.pictures.loading import Source, Sources, expand
from totalrecall.planting import as_given
from totalrecall.system.settings import declared
from totalrecall.system.text import bytes_of, counted
from totalrecall.tuning.planted import HELD_AT_MOST, PlantedDefects, plant_defects
from totalrecall.types import Image

__all__ = ["LEAST_PICTURES", "Judged", "Tried", "Tuning", "gain_of", "tune"]

LEAST_PICTURES = 40  # with 18 cookies planted defects chose a size that found 24 of 32 real ones instead of 31
_FITTED_AT_MOST, _HELD_AT_MOST = 80, 20
_HELD = 0.25  # of the pictures
_RATES = (0.05, 0.1, 0.2)  # at which defects are counted too
_CLEARLY, _DRAWS = 2.0, 100  # standard errors, and draws that they come from
_LEAST_GAIN = 0.01  # of the planted defects
_OF_MEMORY = 8  # the part of the memory allowed that good pictures to plant on may take
_TIMED = 9  # pictures, in turn with the settings at the start
_TIMES = 2.0  # the milliseconds at the start, which are allowed unless said otherwise
_SIZES = (0.75, 1.25, 1.5)  # times the size at the start
_SIZE_STEP = 32

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Tried:
    """Settings that were tried.

    Attributes:
        changes: what differs from the settings at the start; nothing in the first row.
        found: planted defects above the threshold of the stated rate, of `planted`.
        share: of them found at the stated rate, 5, 10 and 20 percent, in percent, on average.
        false_alarms: held-out good pictures above the threshold of the stated rate, of `good`.
        milliseconds: of a picture.
        better, error: by how much `share` is above that of the best before it, and the standard error of that.
        chosen: it became the best.
        note: why it was not tried, or not chosen in spite of finding more.
    """

    changes: Mapping[str, Any]
    found: int
    planted: int
    share: float
    false_alarms: int
    good: int
    milliseconds: float
    better: float = 0.0
    error: float = 0.0
    chosen: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """The changes in words."""
        return ", ".join(f"{key} {_said(value)}" for key, value in self.changes.items()) or "as given"


@dataclass(frozen=True, eq=False)
class Tuning:
    """What came of it.

    Attributes:
        settings: the best.
        rows: all that was tried, in order; the first is the start. None with fewer than 40 good pictures.
        fitted, held: how many pictures were fitted on, and how many defects were planted on.
        rate: the stated false-alarm rate.
        budget: milliseconds that were allowed.
        seconds: that it took.
    """

    settings: Settings
    rows: Sequence[Tried]
    fitted: int
    held: int
    rate: float
    budget: float
    seconds: float

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that differ from those at the start."""
        return dict(next((row.changes for row in reversed(self.rows) if row.chosen), {}))

    def detector(self) -> PatchCore:
        """Return a detector of the best settings, which has learnt nothing yet."""
        return _detector(self.settings)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as JSON types."""
        return [_rounded(asdict(row)) for row in self.rows]

    def sentence(self) -> str:
        """Say what came of it."""
        if not self.rows:
            return (
                f"Not tuned: {counted(self.fitted, 'good picture')} are too few to tell settings apart, "
                f"{LEAST_PICTURES} are needed. The settings as given stay."
            )
        first, best = self.rows[0], next(row for row in reversed(self.rows) if row.chosen)
        tried = f"{counted(len(self.rows) - 1, 'other setting')}, {first.planted} planted defects"
        if best is first:
            return f"Tuned ({tried}): the settings as given stay, nothing finds clearly more."
        return (
            f"Tuned ({tried}): {best.name} finds {best.found} instead of {first.found} at the stated rate of "
            f"{100 * self.rate:g} %, in {best.milliseconds / first.milliseconds:.1f} times the time. Planted defects "
            "are not real ones."
        )


def tune(
    pictures: Sources,
    settings: Settings | None = None,
    *,
    budget_ms: float | None = None,
    fixed: Collection[str] = (),
    memory: int | str | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Find settings by planted defects on held-out good pictures.

    Args:
        pictures: good pictures, as for `PatchCore.fit`; of many, 100 are used. With fewer than 40 the settings stay.
        settings: at the start; the defaults if None.
        budget_ms: milliseconds that a picture may take; twice those at the start if None.
        fixed: names of settings that a person has chosen, which stay.
        memory: bytes that a fit may hold, or a size such as "2GB".
        progress: called with ("tuning", done, total).

    Raises:
        DataError: no defect can be planted.
        SettingError: the budget is not above 0.

    Examples:
        >>> from totalrecall.tuning import tune
        >>> tuning = tune("parts/good", fixed=("size", "scoring", "at_least"))  # nothing is left to try here
        >>> tuning.changes
        {}
        >>> detector = tuning.detector().fit("parts/good")
    """
    if budget_ms is not None and not budget_ms > 0:
        raise SettingError(f"budget_ms must be over 0, got {budget_ms:g}. Usual: 20 to 100.", "budget_ms")
    began = time.perf_counter()
    start = Settings() if settings is None else settings
    sources, limit = expand(pictures), bytes_of(memory)
    if len(sources) < LEAST_PICTURES:
        return Tuning(start, [], len(sources), 0, start.false_alarm_rate, budget_ms or 0.0, 0.0)
    fitted, held = _split(sources, start.seed)
    search = _Search(start, fitted, held, budget_ms, limit, progress)
    search.run(_candidates(start, fixed))
    rate, seconds = start.false_alarm_rate, time.perf_counter() - began
    return Tuning(search.best, search.rows, len(fitted), len(held), rate, search.budget, seconds)


def _split(sources: Sequence[Source], seed: int) -> tuple[list[Source], list[Source]]:
    """Return pictures to fit on, and pictures to plant defects on."""
    order = np.random.default_rng(seed).permutation(len(sources)).tolist()
    count = min(max(int(_HELD * len(sources)), 3), _HELD_AT_MOST)
    held, fitted = order[:count], sorted(order[count : count + _FITTED_AT_MOST])
    return [sources[at] for at in fitted], [sources[at] for at in held]


def _candidates(start: Settings, fixed: Collection[str]) -> list[tuple[str, list[Any]]]:
    """Return the settings to try, one after another, and the values of each."""
    detector = _detector(start)
    size, chosen, backbone = detector.recipe.size, detector.extractor.numbers, detector.backbone
    layers = [int(layer.name.removeprefix("layer")) for layer in backbone.layers]
    sizes = {max(round(times * size / _SIZE_STEP) * _SIZE_STEP, _SIZE_STEP) for times in _SIZES}
    few = [(number,) for number in backbone.advice.layers if number in layers]
    more = [(1, 2, 3)] if {1, 2, 3} <= set(layers) and backbone.advice.layers == Advice().layers else []
    name = backbone.name
    values: dict[str, list[Any]] = {
        "backbone": [info.name for info in available() if info.name != name and not info.problem],
        "size": sorted(sizes - {size}),
        "layers": [choice for choice in (*few, *more) if choice != chosen],
        "scoring": [name for name in ("extent", "map1pct") if name != start.scoring],
        "at_least": [2 * start.at_least],
    }
    return [(name, choices) for name, choices in values.items() if choices and name not in fixed]


def _detector(settings: Settings) -> PatchCore:
    make: Any = PatchCore
    made: PatchCore = make(**{name: getattr(settings, name) for name in declared(Settings)})
    return made


@dataclass(frozen=True, eq=False)
class Judged:
    """What one detector gave.

    Attributes:
        calibration: of the pictures that it was fitted on, the same for each detector.
        planted, good: scores of the planted defects, and of the held-out pictures without them.
        milliseconds: of a picture.
    """

    calibration: Calibration
    planted: np.ndarray
    good: np.ndarray
    milliseconds: float

    def hits(self, rate: float, drawn: np.ndarray | None = None) -> np.ndarray:
        """Return which defects (n,) are found at a rate; with a threshold from some of the good pictures, if given."""
        scores = self.calibration.scores if drawn is None else self.calibration.scores[drawn]
        return np.asarray(self.planted > replace(self.calibration, scores=scores, rate=rate).threshold)

    def shares(self, rates: Sequence[float], drawn: np.ndarray | None = None) -> np.ndarray:
        """Return at how many of the rates each defect (n,) is found, as a share."""
        return np.mean([self.hits(rate, drawn) for rate in rates], axis=0)


def gain_of(judged: Judged, leader: Judged, rates: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """Return by what share of the same defects one finds more than the other, and the standard error of that.

    Args:
        judged, leader: fitted on the same pictures, and tried on the same defects.
        rates: false-alarm rates, over which shares are averaged.
        seed: of the draws.
    """
    gain = float((judged.shares(rates) - leader.shares(rates)).mean())
    rng, count = np.random.default_rng(seed), len(judged.calibration.scores)
    gains = []
    for _ in range(_DRAWS):
        drawn, defects = rng.integers(count, size=count), rng.integers(len(judged.planted), size=len(judged.planted))
        ours, theirs = (side.shares(rates, drawn)[defects].mean() for side in (judged, leader))
        gains.append(ours - theirs)
    return gain, float(np.std(gains, ddof=1))


class _Search:
    """Tries settings one after another, from a start.

    Attributes:
        best: settings so far.
        rows: of the table.
        budget: milliseconds that are allowed.
    """

    def __init__(
        self,
        start: Settings,
        fitted: Sequence[Source],
        held: Sequence[Source],
        budget: float | None,
        memory: int | None,
        progress: Progress | None,
    ) -> None:
        self.best, self._start = start, start
        self._rates = sorted({start.false_alarm_rate, *(rate for rate in _RATES if rate > start.false_alarm_rate)})
        self._fitted, self._memory, self._progress = fitted, memory, progress
        self._reference = self._fit(start)
        self._planted: PlantedDefects = plant_defects(
            held, self._reference.recipe, start.seed, most=HELD_AT_MOST if memory is None else memory // _OF_MEMORY
        )
        goods = self._planted.goods
        self._unit = statistics.median(_milliseconds(self._reference, goods[at % len(goods)]) for at in range(_TIMED))
        self._leader = self._judge(self._reference)
        first = self._row({}, self._leader)
        self.budget = _TIMES * first.milliseconds if budget is None else budget
        self.rows = [replace(first, chosen=True)]

    def run(self, candidates: Sequence[tuple[str, list[Any]]]) -> None:
        """Try the values of each setting, and keep the best before the next setting is tried."""
        done, total = 1, 1 + sum(len(values) for _, values in candidates)
        for name, values in candidates:
            before = self.best
            if name == "layers" and before.backbone != self._start.backbone:
                values = []  # another backbone has other layers; what it advises stays
            for value in values:
                self._try(replace(before, **{name: value}))
                done += 1
                if self._progress:
                    self._progress("tuning", done, total)

    def _try(self, settings: Settings) -> None:
        changes = _changes(self._start, settings)
        try:
            judged = self._judge(self._fit(settings))
        except (BackboneError, SettingError) as why:  # layers that a backbone lacks, memory that does not suffice
            count, good = len(self._planted), len(self._planted.goods)
            self.rows.append(Tried(changes, 0, count, 0.0, 0, good, 0.0, note=f"not tried: {why}"))
            return
        gain, error = gain_of(judged, self._leader, self._rates, seed=self._start.seed)
        row = replace(self._row(changes, judged), better=100 * gain, error=100 * error)
        clearly = gain >= max(_CLEARLY * error, _LEAST_GAIN)
        if clearly and judged.milliseconds > self.budget:
            row = replace(row, note=f"takes over {self.budget:.3g} ms")
        elif clearly and row.false_alarms > self._row({}, self._leader).false_alarms + 1:
            row = replace(row, note="more false alarms")
        elif clearly:
            row = replace(row, chosen=True)
            self.best, self._leader = settings, judged
        self.rows.append(row)

    def _fit(self, settings: Settings) -> PatchCore:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the fit on all pictures says them, once
            return _detector(settings).fit(list(self._fitted), memory=self._memory)

    def _judge(self, detector: PatchCore) -> Judged:
        planted = np.array([_score(detector, picture) for picture in self._planted.pictures()])
        good = np.array([_score(detector, picture) for picture in self._planted.goods])
        return Judged(detector.calibration_, planted, good, self._unit * self._times_as_long(detector))

    def _times_as_long(self, detector: PatchCore) -> float:
        """Return the time of a picture, in times of that at the start: in turn, since the machine's speed drifts."""
        goods = self._planted.goods
        pictures = [goods[at % len(goods)] for at in range(_TIMED)]
        both = [(_milliseconds(self._reference, picture), _milliseconds(detector, picture)) for picture in pictures]
        return statistics.median(second / first for first, second in both)

    def _row(self, changes: dict[str, Any], judged: Judged) -> Tried:
        rate = self._start.false_alarm_rate
        found, share = int(judged.hits(rate).sum()), 100 * float(judged.shares(self._rates).mean())
        alarms = int((judged.good > replace(judged.calibration, rate=rate).threshold).sum())
        return Tried(changes, found, len(judged.planted), share, alarms, len(judged.good), judged.milliseconds)


def _changes(start: Settings, settings: Settings) -> dict[str, Any]:
    return {
        name: getattr(settings, name) for name in declared(Settings) if getattr(settings, name) != getattr(start, name)
    }


def _score(detector: PatchCore, picture: Image) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a picture unlike the others, which the fit says
        return detector.predict(as_given(picture, detector.recipe)).score


def _milliseconds(detector: PatchCore, picture: Image) -> float:
    began = time.perf_counter()
    _score(detector, picture)
    return 1000 * (time.perf_counter() - began)


def _said(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: tuples as lists, figures as people read them."""
    changes = {name: list(value) if isinstance(value, tuple) else value for name, value in row["changes"].items()}
    figures = {name: round(row[name], 2) for name in ("share", "milliseconds", "better", "error")}
    return {**row, "changes": changes, **figures}
