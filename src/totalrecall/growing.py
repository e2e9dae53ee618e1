"""Good pictures that join a PaDiM or SPADE model after its fit, or leave it.

What such a model keeps of a picture is added, or taken out, exactly: the model is then that of a fit on the pictures
that it knows, with the same of them to set the threshold. A picture is one among many there. So a false alarm that was
added may score above the threshold still; then it is said, and nothing is bent for it to pass. The pictures themselves
do not join those that set the threshold, since false alarms, picked for scoring high, are no sample of good pictures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.bank import BankPicture
from totalrecall.errors import DataError, PictureError
from totalrecall.files import LARGEST, file_sha256
from totalrecall.fitting import Progress
from totalrecall.images import Source
from totalrecall.membership import Newcomer, is_last_update, named, read_newcomers, read_pictures, without
from totalrecall.update import Change, Changed

if TYPE_CHECKING:
    from totalrecall.onepass import OnePass

__all__ = ["add_pictures", "remove_pictures"]


def add_pictures(detector: "OnePass[Any, Any]", sources: Sequence[Source], progress: Progress | None) -> Change:
    """Let good pictures join a detector; see `Changing.update`.

    Raises:
        SettingError: memory does not hold them.
    """
    model, pictures, calibration = detector._fitted(), list(detector.pictures_), detector.calibration_
    each, beside = detector._growth()
    newcomers, known, skipped = read_newcomers(detector, sources, progress, each=each, beside=beside)
    before = _scores(detector, newcomers)
    change = _told(detector, "add", skipped, known=known)
    if not newcomers:
        return change
    grown = detector._with(model, [one.digest for one in newcomers])
    together = [*pictures, *(one.picture for one in newcomers)]
    detector._become(grown, together, calibration)
    entered = range(len(pictures), len(together))
    detector._become(grown, together, detector._followed(entered, (), progress))
    joined = [
        Changed(one.picture.path, one.picture.sha256, 1, 0, was, now)
        for one, was, now in zip(newcomers, before, _scores(detector, newcomers), strict=True)
    ]
    return _done(detector, change, joined)


def remove_pictures(detector: "OnePass[Any, Any]", names: Sequence[str | Path], progress: Progress | None) -> Change:
    """Let pictures leave a detector; see `Changing.update`.

    Raises:
        DataError: nothing would be left.
    """
    pictures = detector.pictures_
    found, skipped = named(pictures, names)
    change = _told(detector, "remove", skipped)
    if not found:
        return change
    if is_last_update(detector, _gone(pictures, found)):
        detector.undo()
        return _done(detector, replace(change, what="undo"), _gone(pictures, found))
    needed = [at for at in found if detector._must_be_read(at)]
    digests, unread = _read_again(detector, {at: found[at] for at in needed})
    leaving = [at for at in found if at not in needed or at in digests]
    change = replace(change, skipped=[*skipped, *unread])
    if not leaving:
        return change
    if len(leaving) == len(pictures):
        raise DataError("No picture would be left. Fit a new model instead.")
    calibration = detector._followed((), leaving, progress)
    for at in reversed(leaving):
        calibration = without(calibration, at)
    rest = [one for at, one in enumerate(pictures) if at not in set(leaving)]
    detector._become(detector._without(detector._fitted(), leaving, digests), rest, calibration)
    return _done(detector, replace(change, estimated=bool(digests)), _gone(pictures, leaving))


def _scores(detector: "OnePass[Any, Any]", newcomers: Sequence[Newcomer[Any]]) -> list[float]:
    """Return the scores of pictures by the detector as it is."""
    model = detector._ready(detector._fitted())
    return [detector._score_alone(model, one.digest, one.picture) for one in newcomers]


def _read_again(detector: "OnePass[Any, Any]", wanted: dict[int, str]) -> tuple[dict[int, Any], list[PictureError]]:
    """Return of pictures of the fit what the model compared, and why others cannot be had.

    Args:
        detector: that learnt them.
        wanted: which they are, and what they were called.
    """
    found: dict[int, Path] = {}
    errors: list[PictureError] = []
    for at, name in wanted.items():
        picture = detector.pictures_[at]
        # the path that a loaded model tells may be a stranger's: only what the person typed is opened
        told = (name, picture.path) if detector.report_ is not None else (name,)
        places = [Path(one) for one in dict.fromkeys(told) if _holds(one, picture)]
        if places:
            found[at] = places[0]
        else:
            errors.append(
                PictureError(
                    f"{picture.path}: the model keeps sums, not pictures, and subtracts one by its file, which is not "
                    "there with the bytes that were learnt. Give that file's path, or fit again without it."
                )
            )
    digests: dict[int, Any] = {}
    for at, read in zip(found, read_pictures(detector, list(found.values()), None), strict=True):
        if isinstance(read, PictureError):
            errors.append(read)
        else:
            digests[at] = read.digest
    return digests, errors


def _holds(path: str, picture: BankPicture) -> bool:
    """Tell whether a file holds a picture's bytes."""
    try:
        return file_sha256(path, limit=LARGEST["picture"]) == picture.sha256
    except (OSError, ValueError):
        return False


def _gone(pictures: Sequence[BankPicture], which: Sequence[int] | dict[int, str]) -> list[Changed]:
    return [Changed(pictures[at].path, pictures[at].sha256, 1) for at in which]


def _told(
    detector: "OnePass[Any, Any]", what: str, skipped: Sequence[PictureError], *, known: Sequence[str] = ()
) -> Change:
    """Return a change that has not come about."""
    count, threshold = len(detector.pictures_), detector.threshold_
    follows = detector._threshold_follows
    return Change(what, [], known, skipped, (count, count), (threshold, threshold), threshold, follows)


def _done(detector: "OnePass[Any, Any]", change: Change, pictures: Sequence[Changed]) -> Change:
    """Return the change now that it has."""
    now = detector.threshold_
    return replace(
        change,
        pictures=pictures,
        vectors=(change.vectors[0], len(detector.pictures_)),
        threshold=(change.threshold[0], now),
        lowest=now,
    )
