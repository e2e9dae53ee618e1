"""Says in words when light, focus, position or the parts have moved since the fit, with a stated error rate.

    monitor = Monitor.open("line1.monitor", detector.drift_, detector.threshold_)   # goes on where the file ends
    for result in detector.predict_stream(pictures):
        for alarm in monitor.observe(result.conditions, result.is_anomalous, result.path):
            print(alarm.words)
    monitor.save("line1.monitor")

At the fit, a `Reference` keeps the conditions under which the calibration pictures were taken (`conditions`). A
`Monitor` bets that the pictures that come differ from them (`bets`), on each number and direction apart, so that
the winning bet names what has moved.

**The promise.** While good pictures come as the calibration pictures did, in any order, and at least half of all
pictures show good parts that are judged so, the chance of any alarm is at most `rate` at the start and `rate` more for
every 1,000 pictures, however few the calibration pictures are. That is exact for light, colour and focus, up to 4,000
pictures (see `bets.Ranks`); nearly so for position, where a picture of the calibration is measured against the
mean of the others. Distance and score come from a bank that knows more than those that scored the calibration pictures,
which brings them down; so for these only a rise counts. What repeats itself in time on a healthy line (a lamp that
warms up each morning) is a change too, and is said.

**What it cannot see** is said by `Reference.words`: what differs among the good pictures themselves hides a change of
that size, and the position of parts that lie anywhere cannot be watched.
"""

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from totalrecall.drift.bets import SHIFTS, STAKES, Bets, Ranks, majority_chance, share_bets
from totalrecall.drift.conditions import FEWEST_PICTURES, MEASURES, Conditions, Reference, change_in_words
from totalrecall.drift.state import Expected, read_state, write_state
from totalrecall.errors import SettingError

__all__ = ["Alarm", "Monitor"]

_SINCE = "patches_since"  # distance of the patches against that of the first pictures watched, not of the calibration
# The likelier cause first, where several alarms come at once: patches lie farther whatever has moved.
_RANKED = ("light", "focus", "across", "down", "red", "blue", "patches", _SINCE, "score")
# Each number and the direction in which it is watched. Distance and score may rise only: see above.
_WATCHES = tuple((name, sign) for name in _RANKED for sign in "+-" if name not in ("patches", "score") or sign == "+")
_COLUMNS = {name: MEASURES.index("patches" if name == _SINCE else name) for name in _RANKED}
_BETS = len(SHIFTS) + len(STAKES)
_HEAD = 800.0  # capital at the start, as if of so many pictures: a change that is there from the first is seen soon
_RECENT = 20  # pictures that an alarm's words are about
_STAGES = (16, 64, 256)  # pictures judged good, after which they join the calibration's in the limits of a measure
_LAST_QUIET = 1000.0  # capital below which a bet has not begun to win


@dataclass
class Alarm:
    """Something has moved.

    Attributes:
        measure: one of `conditions.MEASURES`, or `patches_since`.
        direction: `+` or `-`.
        picture: how many pictures had been watched.
        path: of the last of them.
        words: what has moved, which way and how far, by the pictures since it began.
        level: the measure's median in them.
        ended: how many pictures had been watched when it was back; None while it is not.
    """

    measure: str
    direction: str
    picture: int
    path: str
    words: str
    level: float
    ended: int | None = None


class Monitor:
    """Watches pictures as they come; see the module's docstring.

    After an alarm, its measure rests until the last 20 pictures lie nearer to the good ones than to where they were at
    the alarm; then the alarm has ended and the watch goes on. That end is a description, without an error rate.

    Examples:
        >>> from totalrecall import Monitor, PatchCore
        >>> detector = PatchCore.load("part.trecall")
        >>> monitor = Monitor(detector.drift_, detector.threshold_)
        >>> for result in detector.predict_stream("parts/new", conditions=True):
        ...     for alarm in monitor.observe(result.conditions, result.is_anomalous, result.path):
        ...         print(alarm.words)
        >>> monitor.pictures
        4

    Args:
        reference: of the model.
        threshold: of the model: calibration pictures that it rejects are left out, as rejected pictures are.
        rate: chance of a false alarm at the start, and for every further 1,000 pictures.

    Attributes:
        pictures: watched so far; `counted` of them were judged good.
        alarms: all of them so far, in order.

    Raises:
        SettingError: there are no calibration pictures, or the rate is not a share.
    """

    def __init__(self, reference: Reference, threshold: float, *, rate: float = 0.01) -> None:
        if not 0 < rate < 1:
            raise SettingError(f"rate must be between 0 and 1, got {rate:g}. Usual: 0.01 for every 1,000 pictures.")
        if not len(reference.values):
            raise SettingError(
                "The model keeps no calibration pictures to compare with. Fit it again with a holdout over 0."
            )
        self.reference = reference
        self.rate = rate
        self.threshold = threshold
        self._medians = dict(zip(MEASURES, np.median(reference.values, axis=0).tolist(), strict=True))
        self.reset()

    def reset(self) -> None:
        """Forget all pictures and alarms: the light was set right, or the change is meant to stay."""
        judged_good = self.reference.values[~(self.reference.values[:, -1] > self.threshold)]
        columns = dict(zip(MEASURES, judged_good.T.tolist(), strict=True))
        self.pictures = self.counted = 0
        self.alarms: list[Alarm] = []
        self._standing: list[Alarm] = []  # those that have not ended; of all, a line that runs for years has thousands
        self._ranks = {name: Ranks(columns.get(name, [])) for name in _RANKED}
        self._bets = {watch: Bets([_HEAD] * _BETS) for watch in _WATCHES}
        self._calibrated = len(judged_good)
        self._limits = {name: _limits(ranks) for name, ranks in self._ranks.items()}
        self._quiet = dict.fromkeys(_WATCHES, 0)  # the picture at which a bet was last not winning
        self._recent: deque[tuple[bool, list[float]]] = deque(maxlen=_RECENT)

    # ------------------------------------------------------------------ watching

    def observe(self, conditions: Conditions, is_anomalous: bool | None, path: str = "") -> list[Alarm]:
        """Take in one picture; returns the alarms that it raises, usually none.

        Args:
            conditions: of the picture, `Result.conditions`.
            is_anomalous: the detector's verdict. A rejected picture says nothing of the line's usual numbers; it counts
                only where more than half of all pictures lie beyond all that were judged good. One without a verdict
                (None) is counted as watched, and says nothing at all.
            path: named in the alarm.
        """
        self.pictures += 1
        if is_anomalous is None:
            return []
        self.counted += is_anomalous is False
        self._recent.append((is_anomalous, conditions.values.tolist()))
        raised = []
        stage = is_anomalous is False and self.counted in _STAGES
        for name in _RANKED:
            value = self._recent[-1][1][_COLUMNS[name]]
            if self._open(name):
                self._close_if_over(name)
                continue
            for sign in "+-":
                watch = (name, sign)
                if watch in self._bets and self._bet(watch, value, is_anomalous):
                    raised.append(self._raise(watch, path, conditions.size))
            if is_anomalous is False:
                self._ranks[name].add(value)
                if stage:
                    self._limits[name] = _limits(self._ranks[name])
        return raised

    def _bet(self, watch: tuple[str, str], value: float, is_anomalous: bool) -> bool:
        """Settle a watch's bets on a number; returns whether they have won."""
        name, sign = watch
        bets, ranks = self._bets[watch], self._ranks[name]
        bounds = None
        if is_anomalous is False:
            low, high = ranks.interval(value)
            bounds = (low, high) if sign == "+" else (1 - high, 1 - low)  # the p-value from the other side
        shares = [1.0] * len(STAKES)
        least, most, pictures = self._limits[name]
        if pictures:
            chance = majority_chance(int(pictures), self.rate * self._closeness(name) / len(_WATCHES))
            shares = share_bets(value > most if sign == "+" else value < least, chance)
        bets.settle(bounds, len(ranks.values), shares)
        if bets.mean <= _LAST_QUIET:
            self._quiet[watch] = self.pictures
        return bets.mean >= len(_WATCHES) * 1000 / self.rate

    def _closeness(self, name: str) -> float:
        """Return the share of the rate for the risk that the pictures that set a measure's limits lie close by chance.

        A fifth in all: half of it for the calibration pictures, the rest for what joins them.
        """
        joined = self._limits[name][2] > self._calibrated
        return 0.1 / len(_STAGES) if joined else 0.1

    def _raise(self, watch: tuple[str, str], path: str, size: tuple[int, int]) -> Alarm:
        name, sign = watch
        young = max(self.pictures - self._quiet[watch], FEWEST_PICTURES)
        recent = list(self._recent)[-young:]
        level = median(values[_COLUMNS[name]] for _, values in recent)
        words = change_in_words(name, sign, level - self._usual(name), size)
        rejected = sum(anomalous for anomalous, _ in recent)
        if 2 * rejected > len(recent):
            words += f" ({rejected} of the last {len(recent)} were judged anomalous)"
        alarm = Alarm(name, sign, self.pictures, path, words, level)
        self.alarms.append(alarm)
        self._standing.append(alarm)
        return alarm

    def _usual(self, name: str) -> float:
        """Return where a measure was: the median of the calibration pictures, or of those watched first."""
        if name != _SINCE:
            return self._medians[name]
        values = self._ranks[name].values
        return median(values) if values else math.nan

    def _open(self, name: str) -> Alarm | None:
        return next((alarm for alarm in self._standing if alarm.measure == name), None)

    def _close_if_over(self, name: str) -> None:
        alarm = self._open(name)
        if alarm is None or self.pictures - alarm.picture < _RECENT:
            return
        level = median(values[_COLUMNS[name]] for _, values in self._recent)
        if abs(level - self._usual(name)) < abs(level - alarm.level):
            alarm.ended = self.pictures
            self._standing.remove(alarm)
            for sign in "+-":
                if (name, sign) in self._bets:
                    self._bets[name, sign] = Bets([0.0] * _BETS)
                    self._quiet[name, sign] = self.pictures

    # ------------------------------------------------------------------ telling and keeping

    def words(self) -> list[str]:
        """Say how things stand, a line each: what has moved and is not back, or that nothing has."""
        lines = [f"since picture {alarm.picture}: {alarm.words}" for alarm in self._standing]
        watched = f"{self.pictures} picture{'s' if self.pictures != 1 else ''} watched, {self.counted} judged good"
        return [*lines, watched] if lines else [f"nothing has moved ({watched})"]

    def save(self, path: str | Path) -> Path:
        """Write the state as JSON, whole or not at all.

        Raises:
            DataError: the place cannot be written.
        """
        return write_state(path, self._state())

    @classmethod
    def open(cls, path: str | Path, reference: Reference, threshold: float, *, rate: float = 0.01) -> "Monitor":
        """Go on where a file ends, or begin where there is none; the file is written by `save` alone.

        Raises:
            DataError: the file cannot be read, is no monitor's, is damaged, or watches another model or rate.
            SettingError: as for the constructor.

        Examples:
            >>> from totalrecall import Monitor, PatchCore
            >>> detector = PatchCore.load("part.trecall")
            >>> monitor = Monitor.open("line.monitor", detector.drift_, detector.threshold_)
            >>> monitor.save("line.monitor").name
            'line.monitor'
        """
        monitor = cls(reference, threshold, rate=rate)
        watches = [_key(watch) for watch in _WATCHES]
        state = read_state(
            path, Expected(reference.digest, rate, _RANKED, watches, (_BETS, len(SHIFTS)), len(MEASURES))
        )
        if state is not None:
            monitor._restore(state)
        return monitor

    def _state(self) -> dict[str, Any]:
        return {
            "reference": self.reference.digest,
            "rate": self.rate,
            "pictures": self.pictures,
            "counted": self.counted,
            "alarms": [vars(alarm) for alarm in self.alarms],
            "capital": {_key(watch): bets.capital for watch, bets in self._bets.items()},
            "moved": {_key(watch): bets.moved for watch, bets in self._bets.items()},
            "quiet": {_key(watch): at for watch, at in self._quiet.items()},
            "limits": {name: list(limits) for name, limits in self._limits.items()},
            "ranks": {name: {"seen": ranks.seen, "values": ranks.values} for name, ranks in self._ranks.items()},
            "recent": [[int(anomalous), *values] for anomalous, values in self._recent],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.pictures, self.counted = state["pictures"], state["counted"]
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self._standing = [alarm for alarm in self.alarms if alarm.ended is None]
        self._ranks = {name: Ranks(ranks["values"], ranks["seen"]) for name, ranks in state["ranks"].items()}
        self._limits = {name: (least, most, count) for name, (least, most, count) in state["limits"].items()}
        for watch in _WATCHES:
            self._bets[watch] = Bets(state["capital"][_key(watch)], state["moved"][_key(watch)])
            self._quiet[watch] = state["quiet"][_key(watch)]
        self._recent.extend((bool(anomalous), values) for anomalous, *values in state["recent"])


def _limits(ranks: Ranks) -> tuple[float, float, float]:
    """Return the least and the most of the numbers seen, and how many they are; 0, 0, 0 of none."""
    return (ranks.values[0], ranks.values[-1], float(len(ranks.values))) if ranks.values else (0.0, 0.0, 0.0)


def _key(watch: tuple[str, str]) -> str:
    return "".join(watch)
