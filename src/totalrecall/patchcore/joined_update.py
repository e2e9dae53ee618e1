"""Good pictures that join or leave a `JoinedPatchCore`: each member takes them in as it would alone.

A picture must pass by the joined score, not by each member's own. So members first take in only what their covering
radius asks for. If that is not enough, each takes in worst patches until the picture is below a limit of its own; the
limits are in proportion to the members' thresholds, and so low that their joined value is the joined threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from totalrecall.detectors.changes import Change, Changed, Newcomer
from totalrecall.patchcore import update
from totalrecall.patchcore.bank import BankState
from totalrecall.patchcore.joined_state import JoinedState, follow, join_scores
from totalrecall.patchcore.judge import Judge, PatchSet

__all__ = ["add", "remove"]

_ROUNDS = 8  # each lowers the threshold a little, since good pictures come nearer too; two or three are usual

_Added = tuple[BankState, Change]


def _unchanged(state: JoinedState, what: str) -> Change:
    """Return the report of a change that nothing came of."""
    size, threshold = len(state), state.threshold
    return Change(what, [], (), [], (size, size), (threshold, threshold), threshold)


def add(
    state: JoinedState, newcomers: Sequence[Sequence[Newcomer[PatchSet]]], judges: Sequence[Judge]
) -> tuple[JoinedState, Change]:
    """Let good pictures join.

    Args:
        state: of the detector.
        newcomers: for each member, the same pictures with its own features.
        judges: of the members.

    Returns:
        The state with them, and what was done; pictures that a member cannot score are named in it.
    """
    added = _added(state, newcomers, judges, [math.inf] * len(judges))
    joining = set.intersection(*({picture.sha256 for picture in change.pictures} for _, change in added))
    skipped = {str(error): error for _, change in added for error in change.skipped}
    if len(joining) < len(newcomers[0]):
        usable = [[one for one in own if one.picture.sha256 in joining] for own in newcomers]
        if not joining:
            return state, replace(_unchanged(state, "add"), skipped=list(skipped.values()))
        after, change = add(state, usable, judges)
        return after, replace(change, skipped=list(skipped.values()))
    after = follow(state, [member for member, _ in added])
    for _ in range(_ROUNDS):
        if not (_scores(added, state.scales) > after.threshold).any():  # none is, where there is no threshold
            break
        added = _added(state, newcomers, judges, _limits(state, after.threshold))
        after = follow(state, [member for member, _ in added])
    return after, _report("add", [change for _, change in added], state, after)


def _added(
    state: JoinedState,
    newcomers: Sequence[Sequence[Newcomer[PatchSet]]],
    judges: Sequence[Judge],
    limits: Sequence[float],
) -> list[_Added]:
    """Return each member once the pictures have joined and score at most its limit, and what it did."""
    added = []
    for member, own, judge, limit in zip(state.model, newcomers, judges, limits, strict=True):
        after, change = update.add(replace(member, taught=limit), own, judge)
        added.append((replace(after, taught=None), change))
    return added


def _scores(added: Sequence[_Added], scales: np.ndarray) -> np.ndarray:
    return join_scores([[picture.after for picture in change.pictures] for _, change in added], scales)


def _limits(state: JoinedState, threshold: float) -> list[float]:
    """Return a limit for each member's score; the joined value of all of them is the threshold."""
    own = [member.calibration.threshold for member in state.model]
    usual = [value if value > 0 else scale for value, scale in zip(own, state.scales.tolist(), strict=True)]
    share = threshold / float(join_scores([[value] for value in usual], state.scales)[0])
    # a hair lower: rounding must not leave a picture above
    return [share * value * (1 - 1e-9) for value in usual]


def remove(state: JoinedState, leaving: Sequence[int], judges: Sequence[Judge]) -> tuple[JoinedState, Change]:
    """Let pictures leave, each by its number among the detector's, ascending.

    Raises:
        DataError: nothing of a member's bank would be left.
    """
    if not leaving:
        return state, _unchanged(state, "remove")
    removed = [update.remove(member, leaving, judge) for member, judge in zip(state.model, judges, strict=True)]
    after = follow(state, [member for member, _ in removed], leaving)
    return after, _report("remove", [change for _, change in removed], state, after)


def _report(what: str, changes: Sequence[Change], before: JoinedState, after: JoinedState) -> Change:
    """Return the report of a change from those of the members."""
    scores = [
        join_scores([[getattr(picture, name) for picture in change.pictures] for change in changes], before.scales)
        for name in ("before", "after")
    ]
    pictures = [
        Changed(
            own[0].path,
            own[0].sha256,
            sum(picture.vectors for picture in own),
            sum(picture.forced for picture in own),
            float(then),
            float(now),
        )
        for *own, then, now in zip(*(change.pictures for change in changes), *scores, strict=True)
    ]
    return Change(
        what,
        pictures,
        vectors=(len(before), len(after)),
        threshold=(before.threshold, after.threshold),
        recalibrated=all(change.recalibrated for change in changes),
        estimated=any(change.estimated for change in changes),
    )
