"""Pictures that leave a PatchCore model: their vectors go, and they no longer help to set the threshold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from totalrecall.errors import DataError
from totalrecall.evidence import Coverage
from totalrecall.membership import is_last_update, named, without
from totalrecall.update import Change, Changed, added_vectors, recalibration_of

if TYPE_CHECKING:
    from totalrecall.detector import PatchCore

__all__ = ["remove_pictures"]


def remove_pictures(detector: "PatchCore", names: Sequence[str | Path]) -> Change:
    """Let pictures leave a detector; see `PatchCore.update`.

    Raises:
        DataError: nothing of the bank would be left.
    """
    found, skipped = named(detector.pictures_, names)
    leaving = list(found)
    bank, threshold = detector.bank_, detector.threshold_
    if not leaving:
        sizes, thresholds = (len(bank), len(bank)), (threshold, threshold)
        return Change("remove", [], (), skipped, sizes, thresholds, threshold, detector._evidence is not None)
    stays = ~np.isin(bank.origin[:, 0], leaving)
    if not stays.any():
        raise DataError("Nothing of the bank would be left. Fit a new model instead.")
    counts = np.bincount(bank.origin[:, 0], minlength=len(bank.pictures))
    gone = [Changed(bank.pictures[at].path, bank.pictures[at].sha256, int(counts[at])) for at in leaving]
    if is_last_update(detector, gone):
        detector.undo()
        thresholds = (threshold, detector.threshold_)
        return Change("undo", gone, (), skipped, (len(bank), len(detector.bank_)), thresholds, thresholds[1])
    fitted = detector._covered().pictures
    lowest = _leave(detector, leaving, stays)
    return Change(
        "remove",
        gone,
        (),
        skipped,
        (len(bank), len(detector.bank_)),
        (threshold, detector.threshold_),
        min(lowest, detector.threshold_) if detector._taught is None else detector._taught,
        detector._evidence is not None,
        estimated=any(at < fitted for at in leaving),
    )


def _leave(detector: "PatchCore", leaving: Sequence[int], stays: np.ndarray) -> float:
    """Take pictures and their vectors out; returns what the threshold cannot be below."""
    bank, coverage = detector.bank_, detector._covered()
    calibration, evidence = detector.calibration_, detector._evidence
    fitted = bank.origin[:, 0] < coverage.pictures
    lost = bank.vectors[fitted & ~stays]
    pictures = detector.pictures_
    if evidence is not None:
        evidence = evidence.raised(
            lost,
            bank.vectors[fitted & stays],
            bank.origin[fitted & stays, 0],
            score_of=lambda grid, at: detector._score_of(grid, pictures[at]),
            level_of=lambda grid, at: detector._level_of(grid, pictures[at]),
        )
    for picture in sorted(leaving, reverse=True):
        evidence = evidence and evidence.without(picture)
        calibration = without(calibration, picture)
    number = np.cumsum(~np.isin(np.arange(len(bank.pictures)), leaving)) - 1  # of those that stay
    origin = bank.origin[stays].copy()
    origin[:, 0] = number[origin[:, 0]]
    rest = [one for at, one in enumerate(bank.pictures) if at not in set(leaving)]
    smaller = replace(bank, vectors=bank.vectors[stays], origin=origin, pictures=rest)
    fewer = sum(at < coverage.pictures for at in leaving)
    coverage = Coverage(coverage.radius, coverage.pictures - fewer)
    detector._become(smaller, calibration, evidence, coverage)
    recalibration = recalibration_of(detector)
    recalibration.add(added_vectors(detector))
    detector._become(smaller, recalibration.calibration(), evidence, coverage)
    return recalibration.lowest_threshold
