"""PatchCore: fit, score, predict, save, load. Wiring only; each step of the road is a module of its own.

What it shares with the methods that it is compared with, judging and keeping, is in `detector_base`.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from totalrecall.calibration import Calibration
from totalrecall.detectors.base import Measured
from totalrecall.detectors.changing import Changing
from totalrecall.detectors.fit_report import Progress
from totalrecall.drift.conditions import Glance, Reference
from totalrecall.errors import OutlierWarning, PictureError, RepeatedPartsWarning
from totalrecall.features.extractor import PatchExtractor
from totalrecall.features.patches import flatten_grid
from totalrecall.outliers.notes import outlier_note, repeated_note, unlike_the_others
from totalrecall.patchcore.bank import Bank
from totalrecall.patchcore.evidence import Coverage, Evidence, EvidenceKeeper
from totalrecall.patchcore.fitting import Announce, learn, without_outliers
from totalrecall.patchcore.judge import PatchSet, picture_score
from totalrecall.patchcore.reading import Learnt, Seen
from totalrecall.patchcore.settings import Settings, walked_dimensions
from totalrecall.pictures.geometry import Geometry
from totalrecall.pictures.loading import LearntPicture, Source, Sources, expand
from totalrecall.scoring import region_level, smooth_distances, smoothing_sigma
from totalrecall.search.levels import choose_levels
from totalrecall.system.settings import takes
from totalrecall.system.text import counted
from totalrecall.types import LayerMap, Patches

if TYPE_CHECKING:
    from totalrecall.detectors.changes import Change

__all__ = ["PatchCore"]


class PatchCore(Changing[Bank, PatchSet]):
    """Anomaly detection from good pictures alone (Roth et al., CVPR 2022).

    Examples:
        >>> from totalrecall import PatchCore
        >>> detector = PatchCore(false_alarm_rate=0.2, seed=42).fit("parts/good")
        >>> result = detector.predict("part.png")
        >>> result.is_anomalous
        True
        >>> len(detector.pictures_), len(detector.bank_)
        (8, 2000)

    Attributes:
        bank_: the memory bank, after `fit`.
        calibration_: scores of the good pictures, each by a bank without it.
        threshold_: score above which a picture is anomalous; nan without calibration.
        pixel_threshold_: map value above which a region is marked.
        report_: what the fit took; None for a loaded model.
        skipped_: why pictures were left out of the fit.
        outliers_: paths of the good pictures that are unlike the others, the worst first; after a fit only.
    """

    kind = "patchcore"
    _former = {"at_least": 1, "subsampling": "greedy", "folds": 1}  # noqa: RUF012  read only
    settings: Settings
    extractor: PatchExtractor

    @takes(Settings)
    def __init__(self, settings: Settings) -> None:
        """Prepare a detector that has learnt nothing yet.

        Raises:
            SettingError: a setting is outside what is allowed.
            BackboneError: the backbone is not there or cannot be used.
        """
        super().__init__(settings)
        self.settings = replace(settings, backbone=self.backbone.name)
        self.extractor = PatchExtractor(
            self.backbone,
            self.recipe,
            layers=settings.layers,
            patch_size=settings.patch_size,
            stride=settings.stride,
            descriptor=settings.descriptor,
            precision=settings.precision,
            threads=settings.threads,
        )
        self.outliers_: list[str] = []
        self._evidence: Evidence | None = None
        self._coverage: Coverage | None = None

    # ------------------------------------------------------------------ learning

    def fit(
        self,
        pictures: Sources,
        *,
        memory: int | None = None,
        announce: Announce | None = None,
        progress: Progress | None = None,
    ) -> "PatchCore":
        """Learn what good pictures look like; fitting again forgets.

        Args:
            pictures: a folder, a glob, or any of files, folders, globs and uint8 RGB arrays. Good pictures only.
            memory: bytes that the process may hold, whatever the number of pictures; half of what is free if not given.
            announce: called before the work begins with the plan of the fit: memory, scratch space, way.
            progress: called with (step, done, total); steps are `features`, `coreset`, `calibration`.

        Raises:
            DataError: no picture could be read, or the disk cannot hold the patches; or fewer than three parts are seen
                where new ones are to come.
            SettingError: not even the bank fits into that memory.

        Warns:
            SkippedPictureWarning: some pictures could not be read; RepeatedPictureWarning: some repeat earlier ones,
                and count once (see `copies`); OutlierWarning: some are unlike the others, and `ignore_outliers` was not
                set; RepeatedPartsWarning: many show the same part, and `new_parts` was not set; UnlikePictureWarning:
                some are of another size or colour than the others; PassedOverWarning: some files or pages of files are
                not read; ChunkedFitWarning: see there.

        Examples:
            >>> detector = PatchCore(false_alarm_rate=0.2).fit("parts/good")
            >>> detector.report_.pictures, detector.report_.vectors
            (8, 2000)
        """
        sources = expand(pictures)
        with self._depth_of(sources, progress):
            learnt, reader = learn(
                self.extractor, self.settings, sources, memory=memory, announce=announce, progress=progress
            )
            with reader.report.timing("coreset"):
                choice = learnt.choose()
            left_out: list[str] = []
            if self.settings.ignore_outliers:
                with reader.report.timing("comparing"):
                    choice, left_out = without_outliers(learnt, choice, progress)
            with reader.report.timing("calibration"):
                calibration, evidence, levels = self._calibrate(learnt, progress)
            bank = learnt.bank(choice)  # last, so that no other bank is in memory beside it
            bank = bank if levels is None else bank.with_levels(levels)
            reader.report.finish(
                pictures=len(bank.pictures),
                patches=learnt.patch_count,
                bank=bank.vectors.shape,
                radius=choice.radius,
                scored=len(calibration.scores),
            )
            self._take(bank, bank.pictures, calibration)
            known = math.isfinite(choice.radius)  # of a random choice it is not
            self._evidence, self._coverage = evidence, Coverage(choice.radius, len(bank.pictures)) if known else None
            self.report_, self.skipped_ = reader.report, reader.skipped
            self._warn_of_left_out(len(sources))
            self._warn_of_odd(reader.tally)
            repeated = repeated_note(calibration)
            if repeated:
                warnings.warn(repeated, RepeatedPartsWarning, stacklevel=2)
            self.outliers_ = left_out
            if not self.settings.ignore_outliers:
                self.outliers_ = unlike_the_others(calibration, learnt.pictures)
                if self.outliers_:
                    note = outlier_note(self.outliers_, len(calibration.scores))
                    warnings.warn(note, OutlierWarning, stacklevel=2)
        return self

    def _calibrate(
        self, learnt: Learnt, progress: Progress | None
    ) -> tuple[Calibration, Evidence | None, tuple[int, ...] | None]:
        """Score good pictures, each by a bank without its fold; see which search suits such a bank.

        Those banks are made for this alone. The detector's own holds every good picture: with forty parts, giving up
        eight would cost more than it brings, and a bank that knows more only brings good parts nearer.
        """
        judged: list[tuple[int, float, float]] = []  # picture, score, peak
        looked: dict[int, tuple[Glance, float, float]] = {}  # picture: a look at it, mean distance, score
        total = sum(map(len, learnt.folds))
        done, levels, basis = 0, None, None
        keeper = EvidenceKeeper(total, self.settings.false_alarm_rate)
        for fold in learnt.folds:
            bank = learnt.bank(learnt.choose(without=fold), basis=basis)
            unseen: list[Patches] = []
            for seen in learnt.again(fold):
                geometry = self.recipe.geometry(seen.picture.height, seen.picture.width)
                if len(seen.cells):
                    measured = self._measured_of(seen, bank, learnt.grid)
                    score, full_map = self._judged(measured, geometry)
                    judged.append((seen.index, score, region_level(full_map, self.settings.min_area)))
                    weight = self._weight(measured.grid, seen.cells)
                    keeper.add(seen.index, seen.patches, seen.cells, measured.grid, *judged[-1][1:], weight=weight)
                    looked[seen.index] = (seen.glance, float(measured.grid.mean()), score)
                    unseen += [seen.patches[:: len(seen.cells) // 8 + 1]] if len(unseen) < 8 else []
                done += 1
                if progress:
                    progress("calibration", done, total)
            if levels is None and unseen:
                levels = choose_levels(bank.vectors, np.concatenate(unseen))
                basis = bank.with_levels(levels).basis
        judged.sort()
        self._drift = Reference.learn([looked[picture] for picture in sorted(looked)])
        pictures, scores, peaks = np.array(judged, np.float64).reshape(-1, 3).T
        folds = max(len(learnt.folds), 1)
        which = pictures.astype(np.int32)
        calibration = Calibration(scores, peaks, self.settings.false_alarm_rate, folds, which)
        if learnt.parts is not None:
            seen_parts, shown_by = len(np.unique(learnt.parts)), len(learnt.parts)
            calibration = replace(calibration, parts=seen_parts, shown_by=shown_by, new_parts=self.settings.new_parts)
        return calibration, keeper.evidence(), levels

    def _measured_of(self, seen: Seen, bank: Bank, grid: tuple[int, int]) -> Measured:
        """Measure a good picture of the fit by a bank without it.

        Raises:
            PictureError: its score is no number, so it can set no threshold; it is in the bank by now.
        """
        try:
            return self._measured(bank, PatchSet(seen.patches, seen.cells, grid))
        except PictureError as error:
            raise PictureError(f"{seen.picture.path}: {error} Leave it out of the good pictures.") from None

    def _join(self, sources: Sequence[Source], progress: Progress | None) -> "Change":
        from totalrecall.patchcore.update import add_pictures

        return add_pictures(self, sources, progress)

    def _leave(self, names: Sequence[str | Path], progress: Progress | None) -> "Change":  # noqa: ARG002
        from totalrecall.patchcore.update import remove_pictures

        return remove_pictures(self, names)

    def _become(self, bank: Bank, calibration: Calibration, evidence: Evidence | None, coverage: Coverage) -> None:
        """Hold another bank; for `update`."""
        self._model, self._pictures, self._calibration = bank, bank.pictures, calibration
        self._evidence, self._coverage = evidence, coverage

    def _covered(self) -> Coverage:
        """Return what the fit's coreset covers; estimated for a model that does not say."""
        from totalrecall.patchcore.update import estimated_radius

        bank = self.bank_
        if self._coverage is not None:
            return self._coverage
        settings = self.settings
        dimensions = walked_dimensions(bank.vectors.shape[1], settings)
        radius = 0.0 if settings.coreset == 1 else estimated_radius(bank, dimensions=dimensions, seed=settings.seed)
        return Coverage(radius, len(bank.pictures))

    # ------------------------------------------------------------------ judging

    def _digest(self, maps: Sequence[LayerMap], geometry: Geometry) -> PatchSet:
        grid = self.extractor.grid_of(maps)  # (1, rows, columns, d)
        patches, cells = flatten_grid(grid, self.recipe.prepared_roi(geometry))
        if not len(patches):
            raise PictureError("the region of interest covers none of it, it is hidden by the crop.")
        return PatchSet(patches, cells, (grid.shape[1], grid.shape[2]))

    def _measure(self, model: Bank, digest: PatchSet) -> Measured:
        found, nearest = model.nearest(digest.patches)
        distances, indices = found[:, 0], nearest[:, 0]
        settings, cells = self.settings, digest.cells
        grid = np.zeros(digest.grid, np.float32)
        grid[cells[:, 0], cells[:, 1]] = distances
        judged = self._scored(grid, cells)
        score = picture_score(
            judged, indices, digest.patches, model, scoring=settings.scoring, neighbours=settings.neighbours
        )
        picture, row, column = model.origin[indices[distances.argmax()]].tolist()
        return Measured(grid, score, (picture, row, column))

    def _scored(self, grid: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return the distances (p,) that the score is taken of."""
        if self.settings.scoring != "map1pct":
            return np.asarray(grid[cells[:, 0], cells[:, 1]])
        side = self.recipe.piece * self.recipe.tile
        return smooth_distances(grid, cells, smoothing_sigma(side) * grid.shape[0] / side)

    def _weight(self, grid: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return by what the patches (p,) bear upon the score: those around a cell that is smoothed, as it does."""
        scored = self._scored(grid, cells)
        if self.settings.scoring != "map1pct":
            return scored
        around = np.zeros_like(grid)
        around[cells[:, 0], cells[:, 1]] = scored
        return np.asarray(cv2.dilate(around, np.ones((3, 3), np.uint8))[cells[:, 0], cells[:, 1]])

    def _score_of(self, grid: np.ndarray, picture: LearntPicture) -> float:
        """Return a picture's score from its grid of distances; without the weight of eq. 7, which needs patches."""
        inside = self._inside(self.recipe.geometry(picture.height, picture.width), grid.shape)
        distances = self._scored(grid, np.argwhere(np.ones(grid.shape, bool) if inside is None else inside))
        scoring = "max" if self.settings.scoring == "paper" else self.settings.scoring
        nothing = np.empty((0, 0), np.float32)
        return picture_score(distances, np.empty(0, np.int64), nothing, self.bank_, scoring=scoring)

    def _level_of(self, grid: np.ndarray, picture: LearntPicture) -> float:
        """Return the level below which a picture's map shows a region, from its grid of distances."""
        _, full_map = self._judged(Measured(grid, 0.0), self.recipe.geometry(picture.height, picture.width))
        return region_level(full_map, self.settings.min_area)

    # ------------------------------------------------------------------ what was learnt, and keeping it

    @property
    def bank_(self) -> Bank:
        """The memory bank."""
        return self._fitted()

    def facts(self) -> dict[str, Any]:
        """Return what the model holds, as JSON types in reading order."""
        return {"bank_vectors": len(self.bank_), "dimensions": self.bank_.vectors.shape[1]}

    def summary(self) -> str:
        """Say in one line what was learnt."""
        text = f"Bank: {len(self.bank_)} vectors of {self.bank_.vectors.shape[1]} numbers"
        report = self.report_
        if report is not None:
            text = f"Bank: {report.vectors} of {report.patches} patches ({report.dimensions} numbers each)"
        text += f" from {counted(len(self.pictures_), 'picture')}"
        said = report is not None and (report.chunks > 1 or self.settings.coreset_radius)
        if report is not None and said and math.isfinite(report.radius):
            text += f", every patch within {report.radius:.4g} of it"
            text += f" ({report.chunks} chunks)" if report.chunks > 1 else ""
        return text

    def _kept(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        bank = self.bank_
        header = {} if bank.levels is None else {"search": {"levels": list(bank.levels)}}
        if self._coverage is not None:
            header["coreset"] = asdict(self._coverage)
        basis = {} if bank.basis is None else {"bank.basis": bank.basis}
        evidence = {} if self._evidence is None else self._evidence.tensors()
        return header, {"bank.vectors": bank.vectors, "bank.origin": bank.origin, **basis, **evidence}

    def _restored(self, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Bank:
        levels = tuple(header["search"]["levels"]) if "search" in header else None
        vectors, origin, basis = tensors["bank.vectors"], tensors["bank.origin"], tensors.get("bank.basis")
        bank = Bank(vectors, origin, self._pictures, basis, levels).checked()
        self._evidence = Evidence.of(tensors, tensors.get("calibration.pictures"), vectors.shape[1])
        self._check_grid(bank, self._evidence)
        kept = header.get("coreset")
        self._coverage = None if kept is None else Coverage(float(kept["radius"]), int(kept["pictures"]))
        return bank

    def _check_grid(self, bank: Bank, evidence: Evidence | None) -> None:
        """Raise ValueError unless bank and evidence are of the grid that the settings give."""
        (rows, columns, _), d = max(self.extractor.shapes()), bank.vectors.shape[1]
        grid = (len(range((self.settings.stride - 1) // 2, side, self.settings.stride)) for side in (rows, columns))
        rows, columns = grid
        if not self.extractor.grid_fits((rows, columns), d):
            raise ValueError(f"bank.vectors have {d} numbers each, which these layers do not give")
        if bank.origin[:, 1].max() >= rows or bank.origin[:, 2].max() >= columns:
            raise ValueError(f"bank.origin lies outside the grid of {rows} x {columns}")
        if evidence is not None and not self.extractor.grid_fits(evidence.grids.shape[1:], d):
            raise ValueError(f"evidence.grids are not of the grid of {rows} x {columns}")

    @property
    def _size(self) -> int:
        return len(self.bank_)
