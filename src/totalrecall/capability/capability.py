"""What would a model find? Defects of several kinds and sizes are planted on good pictures, and the model judges them.

    good pictures -> those called good as they are -> planted copies -> hits and misses -> a curve for each kind

A trial is one defect on one picture. The same seed plants the same defects; a trial is the same whichever other kinds
and sizes are planted, and lies at the same place in the same shape at each contrast.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from totalrecall._version import __version__
from totalrecall.capability.detection import DetectionCurve, fit_curve
from totalrecall.errors import DataError, LearntPictureWarning, PictureError, SettingError, UnlikePictureWarning
from totalrecall.pictures.loading import Source, Sources, expand, load_pictures
from totalrecall.planting import KINDS, PlantedDefect, as_given, ground, plant
from totalrecall.scoring import Result
from totalrecall.types import Image, Mask

if TYPE_CHECKING:
    from totalrecall.registry import AnyDetector

__all__ = ["Capability", "CapabilityStudy", "Cell", "KindCapability", "Outcome", "Trial", "capability"]

Progress = Callable[[str, int, int], None]

_STREAM = 1  # of the seed's numbers: what else plants defects, such as a search for settings, draws from another
_SIZES = 6  # that are planted unless said otherwise
_SMALLEST, _LARGEST = 2.0, 64.0  # of them, in pixels of the prepared picture
_OF_PART = 0.3  # the largest, of the square root of the part's area
_LOOKED_AT = 20  # pictures of which the usual size of the part is taken
_NEAR = 16.0  # pixels of the prepared picture within which the worst patch is at a defect: two patches
_HELD = 64_000_000  # bytes of planted copies in memory at once
_MOST_HELD = 32


@dataclass(frozen=True)
class Trial:
    """One defect to plant.

    Attributes:
        kind: a name of `planting.KINDS`.
        size: longest side, pixels of the good picture.
        contrast: share of white; None for kinds that have none.
        number: of the trial, among those of its kind and size.
    """

    kind: str
    size: float
    contrast: float | None
    number: int


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        trial: the defect.
        picture: index of the good picture in `Capability.pictures`.
        hit: whether the copy with the defect is called anomalous; None where the defect could not be planted.
        score: of the copy; nan where there is none.
        located: whether the worst patch lies at the defect.
    """

    trial: Trial
    picture: int
    hit: bool | None
    score: float = math.nan
    located: bool = False


@dataclass(frozen=True)
class Cell:
    """Trials of one kind, contrast and size: how many were planted, found, and found at the right place."""

    size: float
    planted: int
    hits: int
    located: int


@dataclass(frozen=True, eq=False)
class KindCapability:
    """What was found of one kind at one contrast.

    Attributes:
        kind: a name of `planting.KINDS`.
        contrast: share of white; None for kinds that have none.
        cells: one for each size, ascending.
        curve: of the probability of detection; None where fewer than two sizes could be planted.
        outcomes: of all trials.
    """

    kind: str
    contrast: float | None
    cells: Sequence[Cell]
    curve: DetectionCurve | None
    outcomes: Sequence[Outcome] = field(repr=False)

    @property
    def planted(self) -> int:
        """Number of defects that could be planted."""
        return sum(cell.planted for cell in self.cells)

    @property
    def hits(self) -> int:
        """Number of them that were found."""
        return sum(cell.hits for cell in self.cells)

    @property
    def name(self) -> str:
        """The kind, and its contrast where it has one."""
        return self.kind if self.contrast is None else f"{self.kind}, contrast {self.contrast:g}"

    @property
    def smallest_found(self) -> Outcome | None:
        """The smallest defect that was found; of several the one with the highest score."""
        return min(
            (one for one in self.outcomes if one.hit), key=lambda one: (one.trial.size, -one.score), default=None
        )

    @property
    def largest_missed(self) -> Outcome | None:
        """The largest defect that was missed; of several the one with the lowest score."""
        missed = (one for one in self.outcomes if one.hit is False)
        return max(missed, key=lambda one: (one.trial.size, -one.score), default=None)

    def sentence(self, millimetres_per_pixel: float | None = None) -> str:
        """Say in plain words what is found."""
        plural = KINDS[self.kind].plural
        at = "" if self.contrast is None else f" at contrast {self.contrast:g}"
        if not self.planted:
            return f"No {plural} were planted: the part has no room for them, or nothing that they would change."
        last = self.cells[-1] if self.cells[-1].planted else [cell for cell in self.cells if cell.planted][-1]
        rest = f"of {_pixels(last.size, millimetres_per_pixel)} it finds {last.hits} of {last.planted}"
        if self.curve is None:
            return f"{plural.capitalize()}{at}: {rest}."
        size, sure = self.curve.a90, self.curve.a90_95
        if size.relation == "none":
            return f"{plural.capitalize()}{at}: larger ones are found less often, so no size can be named; {rest}."
        if size.relation == ">":
            return f"It does not find 9 of 10 {plural}{at} at any planted size: {rest}."
        smallest = ", the smallest planted" if size.relation == "<=" else ""
        text = f"Finds 9 of 10 {plural} of {_pixels(size.size, millimetres_per_pixel)}{smallest}{at}"
        if sure.relation == ">":
            return f"{text}; there are too few trials to be 95 % sure of it at any size planted."
        known = "the same size" if sure.size == size.size else _pixels(sure.size, millimetres_per_pixel)
        return f"{text}; with 95 % confidence of {known}."

    def to_json(self, millimetres_per_pixel: float | None = None) -> dict[str, Any]:
        """Return it as JSON types."""
        curve = self.curve
        sizes = [cell.size for cell in self.cells]
        empty = [None] * len(sizes)
        expected = empty if curve is None else curve.probability(sizes).tolist()
        low, high = (empty, empty) if curve is None else (bound.tolist() for bound in curve.band(sizes))
        return {
            "kind": self.kind,
            "contrast": self.contrast,
            "planted": self.planted,
            "hits": self.hits,
            "a90": None if curve is None else curve.a90.to_json(),
            "a90_95": None if curve is None else curve.a90_95.to_json(),
            "curve_fits": None if curve is None else curve.fits,
            "sentence": self.sentence(millimetres_per_pixel),
            "sizes": [
                {
                    "size": cell.size,
                    "planted": cell.planted,
                    "hits": cell.hits,
                    "located": cell.located,
                    "probability": at,
                    "probability_95_percent_bounds": None if curve is None else [low[i], high[i]],
                }
                for i, (cell, at) in enumerate(zip(self.cells, expected, strict=True))
            ],
        }


@dataclass(frozen=True, eq=False)
class Capability:
    """What a model would find, of defects that were planted.

    Planted defects are not real ones: real ones of the same size may be found more or less often.

    Examples:
        >>> from totalrecall import PatchCore
        >>> from totalrecall.capability import capability
        >>> detector = PatchCore.load("part.trecall")
        >>> found = capability(detector, "parts/new", kinds=["missing", "faded"], sizes=[3, 12], per_size=2)
        >>> [(kind.kind, len(kind.cells)) for kind in found.kinds]
        [('missing', 2), ('faded', 2)]

    Attributes:
        kinds: what was found of each kind at each contrast.
        pictures: paths of the good pictures that defects were planted on.
        false_alarms: good pictures that are called anomalous as they are; they were left out.
        learnt: good pictures that the model was fitted on.
        on_learnt: whether defects were planted on these, because no others were given.
        skipped: pictures that could not be read or judged, each with the reason.
        threshold: of the score, that decided.
        seed: of the planting.
        per_size: trials of each kind, size and contrast.
        millimetres_per_pixel: of the good pictures; None if nobody said.
        seconds: that all of it took.
    """

    kinds: Sequence[KindCapability]
    pictures: Sequence[str]
    false_alarms: Sequence[str]
    learnt: int
    on_learnt: bool
    skipped: Sequence[PictureError]
    threshold: float
    seed: int
    per_size: int
    millimetres_per_pixel: float | None
    seconds: float
    _study: "CapabilityStudy" = field(repr=False)

    @property
    def planted(self) -> int:
        """Number of defects that were planted."""
        return sum(kind.planted for kind in self.kinds)

    def sentences(self) -> list[str]:
        """Say in plain words what is found, a sentence for each kind and contrast."""
        return [kind.sentence(self.millimetres_per_pixel) for kind in self.kinds]

    def notes(self) -> list[str]:
        """Say what the figures rest on."""
        judged = len(self.pictures) + len(self.false_alarms)
        notes = [
            f"{len(self.false_alarms)} of {judged} good pictures are called anomalous without any defect: left out"
        ] * bool(self.false_alarms)
        if self.on_learnt:
            notes.append(_only_learnt(self.learnt))
        elif self.learnt:
            notes.append(f"{self.learnt} good pictures that the model was fitted on were left out")
        trials = max((cell.planted for kind in self.kinds for cell in kind.cells), default=0)
        if len(self.pictures) < trials / 2:
            notes.append(
                f"Only {len(self.pictures)} good pictures carry up to {trials} defects of each kind and size: other "
                "parts may differ more than the confidence bounds say"
            )
        return notes

    def show(self, outcome: Outcome) -> tuple[PlantedDefect, Result]:
        """Plant the defect of an outcome again, and judge it.

        Raises:
            PictureError: the good picture is gone or is another one now.
        """
        return self._study.replanted(outcome)

    def good_picture(self, outcome: Outcome) -> Image:
        """Return the good picture that the defect of an outcome was planted on.

        Raises:
            PictureError: it is gone, or cannot be read any more.
        """
        return self._study.image(outcome.picture)[0]

    def summary(self) -> dict[str, Any]:
        """Return what a model file keeps of it, as JSON types: sizes for each kind, and how they were found."""
        told = ("kind", "contrast", "planted", "hits", "a90", "a90_95")
        return {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "library": __version__,
            "threshold": self.threshold,
            "good": len(self.pictures),
            "per_size": self.per_size,
            "seed": self.seed,
            "kinds": [{name: facts[name] for name in told} for facts in (kind.to_json() for kind in self.kinds)],
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "threshold": self.threshold,
            "seed": self.seed,
            "per_size": self.per_size,
            "millimetres_per_pixel": self.millimetres_per_pixel,
            "good": len(self.pictures),
            "false_alarms": list(self.false_alarms),
            "learnt": self.learnt,
            "on_learnt": self.on_learnt,
            "planted": self.planted,
            "kinds": [kind.to_json(self.millimetres_per_pixel) for kind in self.kinds],
            "seconds": self.seconds,
            "skipped": [str(error) for error in self.skipped],
        }


class CapabilityStudy:
    """Plants defects on good pictures and has a detector judge them. `capability` does all of it in one call.

    Attributes:
        pictures: paths of the good pictures that defects are planted on.
        sizes: that are planted, ascending.
        trials: number of copies with a defect that are to be judged.
        milliseconds: that one picture took.
    """

    def __init__(
        self,
        detector: "AnyDetector",
        good: Sources,
        *,
        kinds: Sequence[str] | None = None,
        sizes: Sequence[float] | None = None,
        contrasts: Sequence[float] = (0.1,),
        per_size: int = 20,
        seed: int = 0,
        millimetres_per_pixel: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Judge the good pictures as they are; the arguments are those of `capability`."""
        _check(detector, kinds, sizes, contrasts, per_size, seed, millimetres_per_pixel)
        self._began = time.perf_counter()
        self._detector, self._progress = detector, progress
        self._seed, self._millimetres = int(seed), millimetres_per_pixel
        self._kinds = list(dict.fromkeys(kinds or KINDS))
        self._contrasts, self._per_size = sorted(set(map(float, contrasts))), per_size
        self._read(expand(good))
        known = self._default_sizes() if sizes is None else sizes
        self.sizes: list[float] = sorted(set(map(float, known)))

    @property
    def trials(self) -> int:
        """Number of copies with a defect that are to be judged."""
        with_contrast = sum(KINDS[kind].has_contrast for kind in self._kinds)
        rows = with_contrast * len(self._contrasts) + len(self._kinds) - with_contrast
        return rows * len(self.sizes) * self._per_size

    def run(self) -> Capability:
        """Plant and judge; returns what was found."""
        outcomes: list[Outcome] = []
        by_picture: dict[int, list[Trial]] = {}
        for kind in self._kinds:
            for size in self.sizes:
                order = self._generator(kind, size).permutation(len(self.pictures))
                for number in range(self._per_size):
                    contrasts = self._contrasts if KINDS[kind].has_contrast else [None]
                    trials = by_picture.setdefault(int(order[number % len(order)]), [])
                    trials += [Trial(kind, size, contrast, number) for contrast in contrasts]
        total = self.trials
        for picture in sorted(by_picture):
            outcomes += self._judged(picture, by_picture[picture])
            if self._progress:
                self._progress("planting", len(outcomes), total)
        return Capability(
            kinds=self._by_kind(outcomes),
            pictures=self.pictures,
            false_alarms=self._false_alarms,
            learnt=self._learnt,
            on_learnt=self._on_learnt,
            skipped=self._skipped,
            threshold=self._detector.threshold_,
            seed=self._seed,
            per_size=self._per_size,
            millimetres_per_pixel=self._millimetres,
            seconds=time.perf_counter() - self._began,
            _study=self,
        )

    def replanted(self, outcome: Outcome) -> tuple[PlantedDefect, Result]:
        """Plant the defect of an outcome again, and judge it.

        Raises:
            PictureError: the good picture is gone or is another one now.
        """
        image, part, region = self.image(outcome.picture)
        planted = self._planted(image, part, region, outcome.trial)
        if planted is None:
            raise PictureError(f"{self.pictures[outcome.picture]} was replaced by another picture. Measure again.")
        return planted, self._detector.predict(as_given(planted.picture, self._detector.recipe))

    # ------------------------------------------------------------------ the good pictures

    def _read(self, sources: Sequence[Source]) -> None:
        """Read the good pictures, tell those apart that the model learnt, and judge them as they are."""
        hashes = {picture.sha256 for picture in self._detector.pictures_}
        self._skipped: list[PictureError] = []
        fresh: list[tuple[Source, str]] = []
        learnt: list[tuple[Source, str]] = []
        loaded = load_pictures(sources, self._detector.recipe, hashes=True)
        for source, picture in zip(sources, loaded, strict=True):
            if picture.error is not None:
                self._skipped.append(picture.error)
            else:
                (learnt if picture.sha256 in hashes else fresh).append((source, picture.path))
        self._learnt, self._on_learnt = len(learnt), not fresh and bool(learnt)
        chosen = fresh or learnt
        if self._on_learnt:
            warnings.warn(f"{_only_learnt(len(learnt))}.", LearntPictureWarning, stacklevel=4)
        began = time.perf_counter()
        self._sources, self.pictures, self._false_alarms = self._called_good(chosen)
        self.milliseconds = 1000 * (time.perf_counter() - began) / max(len(chosen), 1)
        if not self.pictures:
            raise DataError(self._why_none(len(chosen)))

    def _called_good(self, chosen: Sequence[tuple[Source, str]]) -> tuple[list[Source], list[str], list[str]]:
        """Return the pictures that are called good as they are, their paths, and the paths of the others."""
        fine: list[Source] = []
        paths: list[str] = []
        others: list[str] = []
        results = self._detector.predict_stream([source for source, _ in chosen])
        for done, ((source, path), result) in enumerate(zip(chosen, results, strict=True), start=1):
            if isinstance(result, PictureError):
                self._skipped.append(result)
            elif result.is_anomalous is False:
                fine.append(source)
                paths.append(path)
            else:
                others.append(path)
            if self._progress:
                self._progress("scoring", done, len(chosen))
        return fine, paths, others

    def _why_none(self, judged: int) -> str:
        if judged and len(self._false_alarms) == judged:
            return (
                f"The model calls all {judged} good pictures anomalous, so none is left to plant defects on. Give "
                "pictures like those of the fit, or raise the threshold with --threshold."
            )
        first = f" The first that could not be used: {self._skipped[0]}" if self._skipped else ""
        return f"No good picture could be used.{first}"

    def image(self, at: int) -> tuple[Image, Mask, Mask | None]:
        """Return a good picture, where the part is, and the region of interest in it.

        Raises:
            PictureError: it is gone, or cannot be read any more.
        """
        return ground(self._sources[at], self._detector.recipe)

    def _default_sizes(self) -> list[float]:
        """Return sizes in even steps of ratio, from two pixels as the backbone sees them to a third of the part."""
        scales, sides = [], []
        for at in np.unique(np.linspace(0, len(self.pictures) - 1, _LOOKED_AT).astype(int)).tolist():
            image, part, region = self.image(at)
            geometry = self._detector.recipe.geometry(*image.shape[:2])
            scales.append(_scale(geometry.original, geometry.resized))
            sides.append(math.sqrt(np.count_nonzero(part if region is None else part & region)))
        scale = float(np.median(scales))
        smallest = max(_SMALLEST * scale, 2.0)
        largest = max(min(_LARGEST * scale, _OF_PART * float(np.median(sides))), 3 * smallest)
        return [float(round(size)) for size in np.geomspace(smallest, largest, _SIZES)]

    # ------------------------------------------------------------------ trials

    def _generator(self, *of: object) -> np.random.Generator:
        """Return the generator of something, from the seed: the same whatever else is planted."""
        return np.random.default_rng([self._seed, _STREAM, *np.frombuffer(repr(of).encode(), np.uint8).tolist()])

    def _planted(self, image: Image, part: Mask, region: Mask | None, trial: Trial) -> PlantedDefect | None:
        rng = self._generator(trial.kind, trial.size, trial.number)
        contrast = 1.0 if trial.contrast is None else trial.contrast
        return plant(image, trial.kind, trial.size, rng, contrast=contrast, part=part, region=region)

    def _judged(self, picture: int, trials: Sequence[Trial]) -> list[Outcome]:
        """Plant the trials of one picture, and judge them a few at a time."""
        try:
            image, part, region = self.image(picture)
        except PictureError as error:  # it was there a moment ago
            self._skipped.append(error)
            return [Outcome(trial, picture, None) for trial in trials]
        planted = ((trial, self._planted(image, part, region, trial)) for trial in trials)
        outcomes: list[Outcome] = []
        count = min(max(_HELD // image.nbytes, 1), _MOST_HELD)
        while batch := list(islice(planted, count)):
            outcomes += [Outcome(trial, picture, None) for trial, copy in batch if copy is None]
            copies = [(trial, copy) for trial, copy in batch if copy is not None]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnlikePictureWarning)  # it was said of the good picture
                results = list(
                    self._detector.predict_stream([as_given(copy.picture, self._detector.recipe) for _, copy in copies])
                )
            for (trial, copy), result in zip(copies, results, strict=True):
                if isinstance(result, PictureError):
                    self._skipped.append(result)
                    outcomes.append(Outcome(trial, picture, None))
                else:
                    at_defect = _is_at(result, copy)
                    outcomes.append(Outcome(trial, picture, result.is_anomalous is True, result.score, at_defect))
        return outcomes

    def _by_kind(self, outcomes: Sequence[Outcome]) -> list[KindCapability]:
        found = []
        for kind in self._kinds:
            for contrast in self._contrasts if KINDS[kind].has_contrast else [None]:
                mine = [one for one in outcomes if one.trial.kind == kind and one.trial.contrast == contrast]
                cells = [_cell(size, [one for one in mine if one.trial.size == size]) for size in self.sizes]
                curve = fit_curve(self.sizes, [cell.planted for cell in cells], [cell.hits for cell in cells])
                found.append(KindCapability(kind, contrast, cells, curve, mine))
        return found


def capability(
    detector: "AnyDetector",
    good: Sources,
    *,
    kinds: Sequence[str] | None = None,
    sizes: Sequence[float] | None = None,
    contrasts: Sequence[float] = (0.1,),
    per_size: int = 20,
    seed: int = 0,
    millimetres_per_pixel: float | None = None,
    progress: Progress | None = None,
) -> Capability:
    """Say what a detector would find: plant defects on good pictures, and judge them at its own threshold.

    Planted defects are not real ones. The answer is an idea of what can be found, before any real defect has come.

    Args:
        detector: fitted, with a threshold.
        good: good pictures that it was not fitted on, as for `PatchCore.fit`. Those that it was fitted on are
            recognised by their bytes and left out, unless there are no others.
        kinds: of defects, names of `planting.KINDS`; all if not given.
        sizes: longest sides of the defects in pixels of the pictures; six, by the size of the part, if not given.
        contrasts: shares of white that a defect differs by; missing and shifted pieces have none.
        per_size: defects of each kind, size and contrast.
        seed: of the planting.
        millimetres_per_pixel: to name sizes in millimetres, too.
        progress: called with (step, done, total); steps are `scoring` and `planting`.

    Raises:
        SettingError: the detector has no threshold, or a value is outside what is allowed.
        DataError: no good picture can be used, or all are called anomalous.
        NotFittedError: nothing was learnt yet.

    Warns:
        LearntPictureWarning: all the pictures are among those that the detector was fitted on.

    Examples:
        >>> from totalrecall import PatchCore
        >>> from totalrecall.capability import capability
        >>> detector = PatchCore.load("part.trecall")
        >>> found = capability(detector, "parts/new", kinds=["blob"], sizes=[4, 24], contrasts=[0.3], per_size=5)
        >>> found.kinds[0].cells[1].planted
        5
    """
    return CapabilityStudy(
        detector,
        good,
        kinds=kinds,
        sizes=sizes,
        contrasts=contrasts,
        per_size=per_size,
        seed=seed,
        millimetres_per_pixel=millimetres_per_pixel,
        progress=progress,
    ).run()


def _check(
    detector: "AnyDetector",
    kinds: Sequence[str] | None,
    sizes: Sequence[float] | None,
    contrasts: Sequence[float],
    per_size: int,
    seed: int,
    millimetres_per_pixel: float | None,
) -> None:
    """Refuse what cannot be planted, before any picture is read."""
    for kind in kinds or ():
        if kind not in KINDS:
            raise SettingError(f"kinds must be of {', '.join(KINDS)}, got {kind!r}.", "kinds")
    if sizes is not None and not len(sizes):
        raise SettingError("sizes must be at least one, got none. Leave them out for sizes by the part.", "sizes")
    for size in sizes or ():
        if not 1 <= size <= 1e6:
            raise SettingError(f"sizes must be at least 1 pixel, got {size:g}.", "sizes")
    if not len(contrasts):
        raise SettingError("contrast must be at least one, got none. The usual one is 0.1.", "contrast")
    for contrast in contrasts:
        if not 0 < contrast <= 1:
            raise SettingError(
                f"contrast must be over 0 and at most 1, got {contrast:g}. For 20 percent of white write 0.2.",
                "contrast",
            )
    if not 1 <= per_size <= 10_000:
        raise SettingError(f"per_size must be from 1 to 10000, got {per_size}.", "per_size")
    if seed < 0:
        raise SettingError(f"seed must be 0 or more, got {seed}.", "seed")
    if millimetres_per_pixel is not None and not 0 < millimetres_per_pixel < math.inf:
        raise SettingError(
            f"millimetres_per_pixel must be over 0, got {millimetres_per_pixel:g}. Photograph a ruler to find it.",
            "millimetres_per_pixel",
        )
    if detector.pictures_ and math.isnan(detector.threshold_):
        raise SettingError(
            "The model has no threshold, so it calls nothing a defect. Fit it on more good pictures, or give one with "
            "--threshold (in Python: detector.judging(threshold=...)).",
        )


def _only_learnt(count: int) -> str:
    """Say that there was no good picture but those of the fit."""
    return (
        f"All {count} good pictures are among those that the model was fitted on. For new parts the figures may "
        "differ, and false alarms do not show: give pictures that it does not know"
    )


def _cell(size: float, outcomes: Sequence[Outcome]) -> Cell:
    planted = [one for one in outcomes if one.hit is not None]
    hits = [one for one in planted if one.hit]
    return Cell(size, len(planted), len(hits), sum(one.located for one in hits))


def _is_at(result: Result, copy: PlantedDefect) -> bool:
    """Tell whether the worst patch lies at the defect, within two patches."""
    if result.worst is None:
        return False
    near = _NEAR * _scale(result.geometry.original, result.geometry.resized)
    left, top, width, height = copy.box
    x, y = result.worst
    return left - near <= x <= left + width + near and top - near <= y <= top + height + near


def _scale(original: tuple[int, int], resized: tuple[int, int]) -> float:
    """Return how many pixels of a picture one of the prepared picture stands for, in length."""
    return math.sqrt(original[0] * original[1] / (resized[0] * resized[1]))


def _pixels(size: float, millimetres_per_pixel: float | None) -> str:
    text = f"{size:.3g} pixels"
    return text if millimetres_per_pixel is None else f"{text} ({size * millimetres_per_pixel:.2g} mm)"
