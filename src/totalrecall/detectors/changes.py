"""What a change of a model is reported as, which pictures join or leave, and what a known defect teaches."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.fit_report import Progress
from totalrecall.detectors.history import Step
from totalrecall.errors import PictureError, SettingError
from totalrecall.features.extractor import FeatureExtractor
from totalrecall.pictures.geometry import Frame
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, renumbered
from totalrecall.pictures.unlike import PictureTally
from totalrecall.scoring import judged
from totalrecall.system.files import LARGEST, file_sha256
from totalrecall.system.memory import available_memory
from totalrecall.system.text import counted, format_size
from totalrecall.types import LayerMap

__all__ = [
    "Change",
    "Changed",
    "Lesson",
    "Newcomer",
    "are_last_added",
    "catching_threshold",
    "lessons",
    "named_pictures",
    "read_newcomers",
    "score_defects",
    "without",
]

Features = TypeVar("Features")

_SHORTEST_HASH = 8  # digits by which a picture may be named
_SHOWN = 20  # pictures that are named
_STORED_NOTHING = (
    "Note: this model stores nothing about the pictures that set its threshold, so the threshold did not change. It "
    "may be too high now. Fit again with this version to get a threshold that follows."
)


@dataclass(frozen=True)
class Changed:
    """A picture that joined or left.

    Attributes:
        path, sha256: of its file.
        vectors: that entered or left; `forced` of them entered for the picture to pass, though within the radius.
        before, after: its score; nan for one that left.
    """

    path: str
    sha256: str
    vectors: int
    forced: int = 0
    before: float = math.nan
    after: float = math.nan

    def note(self) -> dict[str, Any]:
        """Return what the history keeps of it."""
        return {"path": self.path, "sha256": self.sha256, "vectors": self.vectors}


@dataclass(frozen=True)
class Change:
    """What an update did.

    Attributes:
        what: `add`, `remove` or `threshold`; `undo` where removing the pictures of the last update took it back.
        pictures: that joined or left.
        known: paths that were left out, being in the model already.
        skipped: why pictures could not be used.
        vectors, threshold: of the bank, and of the detector, before and after; of a kind without a bank, pictures.
        lowest: what the threshold cannot be below, by what the model keeps of its good pictures; where that is the
            threshold itself, it is known to a percent.
        recalibrated: whether the model keeps anything of them, so that the threshold could follow.
        estimated: whether pictures of the fit left, so that it could follow by estimate only.
    """

    what: str
    pictures: Sequence[Changed]
    known: Sequence[str] = ()
    skipped: Sequence[PictureError] = field(default_factory=list)
    vectors: tuple[int, int] = (0, 0)
    threshold: tuple[float, float] = (math.nan, math.nan)
    lowest: float = math.nan
    recalibrated: bool = True
    estimated: bool = False

    @property
    def still_anomalous(self) -> int | None:
        """How many of the pictures that joined score above the threshold all the same; None where there is none."""
        if math.isnan(self.threshold[1]):
            return None
        return sum(picture.after > self.threshold[1] for picture in self.pictures)

    def lines(self) -> list[str]:
        """Say what was done, for a person: one fact per line, those about a picture or the threshold indented."""
        lines = [f"{path}: already in the model, left out" for path in self.known]
        if self.what == "threshold":
            return [*lines, *self._threshold_lines()]
        if not self.pictures:
            return [*lines, "Nothing was changed"]
        done = {"add": "Added", "remove": "Removed", "undo": "Undid the update that added"}[self.what]
        before, after = self.vectors
        lines.append(
            f"{done} {counted(len(self.pictures), 'picture')}: bank of {counted(before, 'vector')}, now {after}"
        )
        if self.what == "add":
            lines += self._picture_lines()
        lines += [*self._threshold_lines(), *self._certainty_lines()]
        if self.what == "add" and self.still_anomalous:
            lines.append(f"{self.still_anomalous} of them would still be called anomalous.")
        return lines

    def _picture_lines(self) -> list[str]:
        """Say how the pictures that joined score now."""
        lines = []
        forced = [picture for picture in self.pictures if picture.forced]
        if forced:
            vectors = sum(picture.forced for picture in forced)
            lines.append(
                f"  {vectors} of the added vectors were near the bank already. They were added so that "
                f"{len(forced)} of the pictures pass"
            )
        for picture in self.pictures[:_SHOWN]:
            added = counted(picture.vectors, "vector")
            lines.append(f"  {picture.path}: score {picture.before:.4g}, now {picture.after:.4g}; {added}")
        more = len(self.pictures) - _SHOWN
        return [*lines, f"  and {more} more"] if more > 0 else lines

    def _threshold_lines(self) -> list[str]:
        before, after = self.threshold
        if math.isnan(after):
            return []
        was = "there was none" if math.isnan(before) else f"was {before:.4g}"
        return [f"Threshold: score {after:.4g}" + ("" if before == after else f", {was}")]

    def _certainty_lines(self) -> list[str]:
        """Say how exactly the threshold is known, where there is one."""
        if math.isnan(self.threshold[1]):
            return []
        if not self.recalibrated and self.what == "add":
            return [_STORED_NOTHING]
        if self.estimated:
            return [
                "  This threshold is an estimate, because pictures of the fit were removed. "
                "For an exact one, fit again."
            ]
        if self.what != "undo" and self.lowest < self.threshold[1]:
            return [
                f"  This threshold may be too high: the exact one is between {self.lowest:.4g} and "
                f"{self.threshold[1]:.4g}. The model does not store enough to compute it."
            ]
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON types; nan stays."""
        facts = asdict(replace(self, skipped=()))
        skipped = [str(error) for error in self.skipped]
        return {**facts, "still_anomalous": self.still_anomalous, "skipped": skipped}


# ---------------------------------------------------------------------- who joins, who leaves


@dataclass(frozen=True, eq=False)
class Newcomer(Generic[Features]):
    """A good picture that joins, and what the model compares of it."""

    picture: LearntPicture
    features: Features


def read_newcomers(
    extractor: FeatureExtractor,
    to_features: Callable[[Sequence[LayerMap], Frame], Features],
    known_hashes: Collection[str],
    sources: Sequence[Source],
    *,
    bytes_per_picture: int,
    tally: PictureTally,
    progress: Progress | None = None,
) -> tuple[list[Newcomer[Features]], list[str], list[PictureError]]:
    """Return the pictures that are new to a model, paths of known ones, and why others cannot be used.

    Args:
        extractor: of the detector.
        to_features: turns a picture's feature maps into what the model compares; raises PictureError.
        known_hashes: SHA-256 of the pictures that the model knows.
        sources: of the pictures.
        bytes_per_picture: memory that each takes.
        tally: notes what sets the pictures apart from those that were learnt.
        progress: called after each picture.

    Raises:
        SettingError: memory does not hold so many.
    """
    needed, free = bytes_per_picture * len(sources), available_memory()
    if needed > free:
        raise SettingError(
            f"add got {len(sources)} pictures, which need {format_size(needed)} of memory at once. The free memory "
            f"holds {free // bytes_per_picture}. Add fewer at a time.",
            "add",
        )

    def compared(
        loaded: LoadedPicture, maps: Sequence[LayerMap] | None
    ) -> tuple[LoadedPicture, Features | PictureError]:
        if maps is None or loaded.geometry is None:
            assert loaded.error is not None
            return loaded, loaded.error
        try:
            return loaded, to_features(maps, extractor.recipe.frame(loaded.geometry))
        except PictureError as error:
            error = PictureError(f"{loaded.path}: {error}")
            return replace(loaded, error=error), error

    in_model = set(known_hashes)
    newcomers: list[Newcomer[Features]] = []
    known: list[str] = []
    skipped: list[PictureError] = []
    for at, (read, features) in enumerate(extractor.stream_maps(compared, sources, hashes=True)):
        loaded = renumbered(read, sources[at], at)
        tally.observe(loaded)
        if isinstance(features, PictureError):
            skipped.append(loaded.error or features)
        elif loaded.sha256 in in_model:
            known.append(loaded.path)
        else:
            in_model.add(loaded.sha256)
            newcomers.append(Newcomer(LearntPicture.of(loaded), features))
        if progress:
            progress("features", at + 1, len(sources))
    tally.warn()
    return newcomers, known, skipped


def named_pictures(
    pictures: Sequence[LearntPicture], names: Sequence[str | Path]
) -> tuple[list[int], list[PictureError]]:
    """Return which pictures are meant, ascending, and which names mean none.

    A picture is named by its path as given at the fit, by its hash or the beginning of that, or by the file itself.
    """
    leaving: set[int] = set()
    skipped = []
    for name in map(str, names):
        matches = _matches(pictures, name)
        leaving.update(matches)
        if not matches:
            skipped.append(
                PictureError(f"{name}: the model learnt no such picture. Give its path at the fit, or its SHA-256.")
            )
    return sorted(leaving), skipped


def _matches(pictures: Sequence[LearntPicture], name: str) -> list[int]:
    """Return the pictures of that path; if there are none, of that hash; if there are none, of that file's bytes."""
    matches = [at for at, picture in enumerate(pictures) if picture.path == name]
    if not matches and len(name) >= _SHORTEST_HASH:
        matches = [at for at, picture in enumerate(pictures) if picture.sha256.startswith(name.lower())]
    if matches:
        return matches
    try:
        sha256 = file_sha256(name, limit=LARGEST["picture"])
    except (OSError, ValueError):
        return []
    return [at for at, picture in enumerate(pictures) if picture.sha256 == sha256]


def are_last_added(history: Sequence[Step], leaving: Sequence[LearntPicture]) -> bool:
    """Tell whether just the pictures leave that the last step let join."""
    if not history or history[-1].what != "add":
        return False
    return {noted["sha256"] for noted in history[-1].pictures} == {picture.sha256 for picture in leaving}


def without(calibration: Calibration, picture: int) -> Calibration:
    """Return a calibration once a picture of the detector's is gone, and those after it have moved up."""
    which = calibration.pictures
    if which is None:
        return calibration
    keep = which != picture
    moved = which[keep] - (which[keep] > picture).astype(which.dtype)
    return replace(calibration, scores=calibration.scores[keep], peaks=calibration.peaks[keep], pictures=moved)


# ---------------------------------------------------------------------- what a known defect teaches


@dataclass(frozen=True)
class Lesson:
    """What a known defect says about the threshold.

    Attributes:
        path: of the picture; `sha256` of its file.
        score: Euclidean distance, as `Result` has it.
        p_value: share of good pictures expected to score at least this high; nan if not calibrated.
        caught: whether it is above the threshold as it is; None where there is no threshold.
        threshold: the highest that it is above.
        false_alarm_rate: share of good pictures expected above that; an estimate where it is below the calibration's
            floor, nan if not calibrated.
    """

    path: str
    sha256: str
    score: float
    p_value: float
    caught: bool | None
    threshold: float
    false_alarm_rate: float

    def to_json(self) -> dict[str, Any]:
        """Return the lesson as JSON types."""
        return asdict(self)


def score_defects(
    extractor: FeatureExtractor,
    to_score: Callable[[LoadedPicture, Sequence[LayerMap]], float],
    sources: Sequence[Source],
    tally: PictureTally,
) -> tuple[list[tuple[str, str, float]], list[PictureError]]:
    """Return path, SHA-256 and score of known defects, and why others cannot be scored.

    Args:
        extractor: of the detector.
        to_score: returns a picture's score from its feature maps; raises PictureError.
        sources: of the pictures.
        tally: notes what sets the pictures apart from those that were learnt.
    """

    def score(loaded: LoadedPicture, maps: Sequence[LayerMap] | None) -> tuple[LoadedPicture, float | PictureError]:
        if maps is None:
            assert loaded.error is not None
            return loaded, loaded.error
        try:
            return loaded, to_score(loaded, maps)
        except PictureError as error:
            return loaded, error

    scored: list[tuple[str, str, float]] = []
    skipped: list[PictureError] = []
    for at, (read, outcome) in enumerate(extractor.stream_maps(score, sources, hashes=True)):
        loaded = renumbered(read, sources[at], at)
        tally.observe(loaded)
        if isinstance(outcome, PictureError):
            skipped.append(loaded.error or outcome)
        else:
            scored.append((loaded.path, loaded.sha256, outcome))
    tally.warn(stacklevel=4)
    return scored, skipped


def catching_threshold(scores: Sequence[float]) -> float:
    """Return the highest threshold that all these scores are above."""
    return float(np.nextafter(min(scores), -np.inf))


def lessons(pictures: Sequence[tuple[str, str, float]], calibration: Calibration, threshold: float) -> list[Lesson]:
    """Return what known defects tell.

    Args:
        pictures: path, SHA-256 and score of each.
        calibration: of the detector that scored them, and its threshold as it is.
    """
    result = []
    for path, sha256, score in pictures:
        needed = catching_threshold([score])
        rate = calibration.expected_rate(needed)
        result.append(Lesson(path, sha256, score, calibration.p_value(score), judged(score, threshold), needed, rate))
    return result
