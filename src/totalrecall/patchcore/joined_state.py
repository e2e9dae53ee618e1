"""What a `JoinedPatchCore` holds: its members' states, and what makes their scores one.

The members are fitted on the same pictures, in the same folds. So each good picture has a leave-one-out score by every
member, and their standard deviation is the member's **scale**. The score of a picture is the mean of the members'
scores, each divided by its scale: it counts the standard deviations by which good pictures differ. The anomaly map and
the mean distance that drift is watched by are joined in the same way. The threshold comes from the joined scores of the
good pictures, as any threshold does.

With fewer than three such scores nothing tells how good pictures differ. The scale is then the mean distance of the
bank's vectors to their nearest neighbour in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.state import FitState
from totalrecall.drift.conditions import Reference
from totalrecall.patchcore.bank import Bank, BankState
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import LearntPicture
from totalrecall.scoring import Measurement, PatchDistances, region_level
from totalrecall.types import AnomalyMap

__all__ = ["JoinedState", "follow", "join", "join_scores", "joined_measurement"]

_LEAST = 3  # scores, of which a standard deviation is taken
_FLAT = 1e-3  # of the mean score: the least standard deviation, where good pictures are alike
_LEAST_SCALE = 1e-30  # of a file: a smaller one would make scores infinite
_SPACED = 1000  # vectors of a bank whose neighbours are looked for


@dataclass(frozen=True, eq=False)
class JoinedState(FitState[tuple[BankState, ...]]):
    """What a `JoinedPatchCore` holds: the members' states are its `model`.

    Attributes:
        scales: float64 (members,), what the scores and distances of each are divided by.
    """

    scales: np.ndarray = field(default_factory=lambda: np.ones(0))

    def __len__(self) -> int:
        return sum(map(len, self.model))

    def checked(self) -> "JoinedState":
        """Return the state itself once its parts are known to fit together.

        Raises:
            ValueError: they do not; says which.
        """
        usable = np.isfinite(self.scales) & (self.scales > _LEAST_SCALE)
        if self.scales.shape != (len(self.model),) or not usable.all():
            raise ValueError("joined.scales (not one above 0 for each member)")
        which = self.calibration.pictures
        if which is None:
            raise ValueError("calibration.pictures is missing")
        for at, member in enumerate(self.model):
            known = member.calibration.pictures
            if known is None or not np.isin(which, known).all():
                raise ValueError(f"members[{at}] has no score of a picture that sets the threshold")
        scores = [_rows(member.calibration.scores, member.calibration, which) for member in self.model]
        if not np.allclose(join_scores(scores, self.scales), self.calibration.scores, rtol=1e-9, atol=0):
            raise ValueError("calibration.scores (not the joined scores of the members)")
        return self


def join_scores(scores: Sequence[Sequence[float] | np.ndarray] | np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the joined scores (n,) from those of each member (members, n)."""
    return np.asarray((np.asarray(scores, np.float64) / scales[:, None]).mean(axis=0))


def _join_maps(maps: Sequence[AnomalyMap], scales: np.ndarray) -> AnomalyMap:
    total = np.zeros(maps[0].shape, np.float64)
    for values, scale in zip(maps, scales.tolist(), strict=True):
        total += values / scale
    return np.asarray(total / len(maps), np.float32)


def joined_measurement(parts: Sequence[Measurement], scales: np.ndarray) -> Measurement:
    """Return what the members together measure of a picture; the worst place is that of the member it is worst to."""
    divided = [part.largest_distance / scale for part, scale in zip(parts, scales.tolist(), strict=True)]
    worst = int(np.argmax(divided))
    return Measurement(
        score=float(join_scores([[part.score] for part in parts], scales)[0]),
        anomaly_map=_join_maps([part.anomaly_map for part in parts], scales),
        mean_distance=float(join_scores([[part.mean_distance] for part in parts], scales)[0]),
        largest_distance=divided[worst],
        worst=parts[worst].worst,
        nearest=parts[worst].nearest,
        frame=parts[0].frame,  # pictures are read as the first member prepares them
    )


# ---------------------------------------------------------------------- of a fit


def join(
    states: Sequence[BankState],
    grids: Sequence[Mapping[int, np.ndarray]],
    recipes: Sequence[Recipe],
    *,
    rate: float,
    min_area: int,
) -> JoinedState:
    """Return the joined state of members that were fitted on the same pictures.

    Args:
        states: of the members.
        grids: distances (rows, columns) of the pictures that set each one's threshold, by their number among all.
        recipes: of the members.
        rate: the stated false-alarm rate.
        min_area: of the smallest region that counts, in pixels.
    """
    pictures = states[0].pictures
    # usually all of them; a member may have left a picture out as an outlier, or have held some out together
    known = [state.calibration.pictures for state in states if state.calibration.pictures is not None]
    which = reduce(np.intersect1d, known).astype(np.int32)
    scores = np.stack([_rows(state.calibration.scores, state.calibration, which) for state in states])
    scales = np.array([_scale(member, state.bank) for member, state in zip(scores, states, strict=True)])
    peaks = [
        _peak([of_member[at] for of_member in grids], recipes, pictures[at], scales, min_area) for at in which.tolist()
    ]
    first = states[0].calibration
    calibration = replace(
        first, scores=join_scores(scores, scales), peaks=np.array(peaks, np.float64), rate=rate, pictures=which
    )
    drift = _join_drift(states, which, calibration.scores, scales)
    members = tuple(replace(state, drift=None) for state in states)
    return JoinedState(members, pictures, calibration, drift, scales=scales)


def _rows(values: np.ndarray, calibration: Calibration, which: np.ndarray) -> np.ndarray:
    """Return the rows of a member's calibration that are of some pictures."""
    assert calibration.pictures is not None
    return np.asarray(values[np.searchsorted(calibration.pictures, which)])


def _scale(scores: np.ndarray, bank: Bank) -> float:
    """Return what a member's scores are divided by."""
    if len(scores) >= _LEAST:
        scale = max(float(scores.std(ddof=1)), _FLAT * float(scores.mean()))
        if scale > 0:
            return scale
    vectors = bank.vectors[:: len(bank) // _SPACED + 1]
    spacing = float(bank.nearest(vectors, 2)[0][:, 1].mean()) if len(bank) > 1 else 0.0
    return spacing if spacing > 0 else 1.0


def _peak(
    grids: Sequence[np.ndarray], recipes: Sequence[Recipe], picture: LearntPicture, scales: np.ndarray, min_area: int
) -> float:
    """Return the level below which the joined map of a good picture shows a region."""
    maps = []
    for grid, recipe in zip(grids, recipes, strict=True):
        frame = recipe.frame(recipe.geometry(picture.height, picture.width))
        maps.append(PatchDistances(grid, 0.0).score_and_map(frame)[1])
    return region_level(_join_maps(maps, scales), min_area)


def _join_drift(
    states: Sequence[BankState], which: np.ndarray, scores: np.ndarray, scales: np.ndarray
) -> Reference | None:
    """Return how the good pictures were taken: as the first member saw them, with the joined distances and scores."""
    drifts = [state.drift for state in states]
    first = drifts[0]
    if first is None:
        return None
    values = _rows(first.values, states[0].calibration, which).copy()
    distances = [
        _rows(drift.values, state.calibration, which)[:, -2]
        for drift, state in zip(drifts, states, strict=True)
        if drift is not None
    ]
    values[:, -2], values[:, -1] = join_scores(distances, scales), scores
    return replace(first, values=values)


# ---------------------------------------------------------------------- of an update


def follow(state: JoinedState, members: Sequence[BankState], leaving: Sequence[int] = ()) -> JoinedState:
    """Return the state with other members, whose banks have changed; the scores of the good pictures follow theirs.

    The joined peaks change in proportion to the mean of the members' own: the maps are not kept whole.

    Args:
        state: as it was.
        members: as they are now.
        leaving: the pictures that left, ascending, by their number before.
    """
    before = state.calibration
    assert before.pictures is not None
    stays = ~np.isin(before.pictures, leaving)
    former = before.pictures[stays]
    which = (former - np.searchsorted(leaving, former)).astype(np.int32)
    then = [_rows(member.calibration.peaks, member.calibration, former) for member in state.model]
    now = [_rows(member.calibration.peaks, member.calibration, which) for member in members]
    scores = [_rows(member.calibration.scores, member.calibration, which) for member in members]
    low, high = join_scores(then, state.scales), join_scores(now, state.scales)
    usable = np.isfinite(low) & np.isfinite(high) & (low > 0)
    ratio = np.divide(high, low, out=np.ones_like(low), where=usable)
    calibration = replace(
        before, scores=join_scores(scores, state.scales), peaks=before.peaks[stays] * ratio, pictures=which
    )
    return replace(state, model=tuple(members), pictures=members[0].pictures, calibration=calibration, header=None)
