"""PatchCore: fit, score, predict, update, save, load. The detector; each step of it is a module of its own.

What it shares with the methods that it is compared with, judging and keeping, is in `detectors.base`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from totalrecall.calibration import Calibration
from totalrecall.detectors.changes import Change, Newcomer, read_newcomers
from totalrecall.detectors.extents import Extents, restored_extents
from totalrecall.detectors.fit_report import Progress, warn_of_fit
from totalrecall.detectors.measuring import OneBackbone
from totalrecall.detectors.model_file import Contents
from totalrecall.detectors.state import FitState
from totalrecall.errors import PictureError
from totalrecall.features.patches import PatchExtractor, flatten_grid
from totalrecall.patchcore.bank import Bank, BankState
from totalrecall.patchcore.calibration_patches import CalibrationPatches, Coverage
from totalrecall.patchcore.judge import Judge, PatchSet
from totalrecall.patchcore.settings import Settings, refuse_several
from totalrecall.patchcore.updatable import UpdatableDetector, Updates
from totalrecall.pictures.geometry import Frame
from totalrecall.pictures.loading import LearntPicture, Source, Sources, expand
from totalrecall.pictures.unlike import PictureTally
from totalrecall.scoring import PatchDistances
from totalrecall.system.settings import takes
from totalrecall.system.text import bytes_of, counted
from totalrecall.types import LayerMap

if TYPE_CHECKING:
    from totalrecall.patchcore.fitting import Announce, Way

__all__ = ["PatchCore"]


class PatchCore(OneBackbone[Bank, PatchSet], UpdatableDetector[Bank]):
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
    former_settings = {"at_least": 1, "subsampling": "greedy", "folds": 1, "tilt_up_to": 0}  # noqa: RUF012  read only
    settings: Settings
    extractor: PatchExtractor
    _state: BankState | None

    @takes(Settings, refuse=refuse_several)
    def __init__(self, settings: Settings) -> None:
        """Prepare a detector that has learnt nothing yet.

        Raises:
            SettingError: a setting is outside what is allowed.
            BackboneError: the backbone is not there or cannot be used.
        """
        super().__init__(settings)
        self.extractor = PatchExtractor(
            self.backbone,
            self.recipe,
            layers=settings.layers,
            patch_size=settings.patch_size,
            stride=settings.stride,
            descriptor=settings.descriptor,
            engine=settings.engine,
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
        )
        self.settings = replace(
            settings,
            backbone=self.backbone.name,
            size=self.recipe.size,
            layers=self.extractor.numbers,
            patch_size=self.extractor.patch_size,
        )
        self.outliers_: list[str] = []

    # ------------------------------------------------------------------ learning

    def fit(
        self,
        pictures: Sources,
        *,
        memory: int | str | None = None,
        announce: "Announce | None" = None,
        progress: Progress | None = None,
        way: "Way | None" = None,
    ) -> "PatchCore":
        """Learn what good pictures look like; fitting again forgets.

        Args:
            pictures: a folder, a glob, or any of files, folders, globs and uint8 RGB arrays. Good pictures only.
            memory: bytes that the process may hold, whatever the number of pictures, or a size such as "2GB"; half of
                what is free if not given.
            announce: called before the work begins with the plan of the fit: memory, scratch space, way.
            progress: called with (step, done, total); steps are `features`, `coreset`, `calibration`.
            way: where the work is done, such as on a cluster (see `cluster`); in this process if not given.

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
        from totalrecall.patchcore.fitting import fit_bank, warn_of_outliers

        sources, limit = expand(pictures), bytes_of(memory)
        with self._depth_of(sources, progress):
            fitted = fit_bank(
                self.extractor, self.settings, sources, memory=limit, announce=announce, progress=progress, way=way
            )
            state, reader = fitted.state, fitted.reader
            self.judge_by(state)
            self.report_, self.skipped_ = reader.report, reader.skipped
            warn_of_fit(reader.report, reader.skipped, reader.tally, state.pictures, len(sources))
            self.outliers_ = warn_of_outliers(state.calibration, state.pictures, self.settings, fitted.left_out)
        return self

    def _updates(self) -> Updates[Bank]:
        return Updates(self._with_added, self._with_removed, self.bank_.count_vectors)

    def _with_added(self, sources: Sequence[Source], progress: Progress | None) -> tuple[BankState, Change]:
        from totalrecall.patchcore import update

        newcomers, known, skipped = self.read_newcomers(sources, PictureTally(self._kinds), progress)
        after, change = update.add(self._bank_state, newcomers, self.judge)
        return after, replace(change, known=known, skipped=[*skipped, *change.skipped])

    def _with_removed(self, leaving: Sequence[int]) -> tuple[BankState, Change]:
        from totalrecall.patchcore import update

        return update.remove(self._bank_state, leaving, self.judge)

    def read_newcomers(
        self, sources: Sequence[Source], tally: PictureTally, progress: Progress | None = None
    ) -> tuple[list[Newcomer[PatchSet]], list[str], list[PictureError]]:
        """Return the pictures that are new to the detector, paths of known ones, and why others cannot be used.

        Args:
            sources: of the pictures.
            tally: notes what sets them apart from those that were learnt.
            progress: called after each picture.

        Raises:
            SettingError: memory does not hold so many.
        """
        rows, columns, d = self.extractor.expected_grid()
        return read_newcomers(
            self.extractor,
            self._features,
            {picture.sha256 for picture in self._bank_state.pictures},
            sources,
            bytes_per_picture=2 * 4 * rows * columns * d,
            tally=tally,
            progress=progress,
        )

    # ------------------------------------------------------------------ judging

    @property
    def judge(self) -> Judge:
        """Measures pictures as the settings say now: a benchmark tries other scorings on a fitted detector."""
        state = self._state
        return Judge(self.settings, self.recipe, None if state is None else state.extents)

    def _features(self, maps: Sequence[LayerMap], frame: Frame) -> PatchSet:
        grid = self.extractor.grid_of(maps)  # (1, rows, columns, d)
        patches, cells = flatten_grid(grid, frame.prepared_roi)
        if not len(patches):
            raise PictureError(
                "no patch of it lies in the region of interest: the crop hides that. Use resize squash, or draw "
                "another region."
            )
        return PatchSet(patches, cells, (grid.shape[1], grid.shape[2]))

    def _distances(self, model: Bank, features: PatchSet) -> PatchDistances:
        return self.judge.measure(model, features)

    # ------------------------------------------------------------------ what was learnt, and keeping it

    @property
    def _bank_state(self) -> BankState:
        self._fitted()
        assert self._state is not None
        return self._state

    @property
    def bank_(self) -> Bank:
        """The memory bank."""
        return self._bank_state.bank

    @property
    def tuning_(self) -> Sequence[Mapping[str, Any]] | None:
        """The settings that were tried before the fit (see `tuning`); None if none were."""
        return None if self._state is None else self._state.tuning

    def keep_tuning(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep in the model which settings were tried before its fit, as `Tuning.to_json` returns them."""
        self.judge_by(replace(self._fitted(), tuning=[dict(row) for row in rows], header=None))

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

    def _to_tensors(self, state: FitState[Bank]) -> Contents:
        assert isinstance(state, BankState)
        bank = state.model
        header: dict[str, Any] = {} if bank.levels is None else {"search": {"levels": list(bank.levels)}}
        if state.coverage is not None:
            header["coreset"] = asdict(state.coverage)
        basis = {} if bank.basis is None else {"bank.basis": bank.basis}
        patches = {} if state.patches is None else state.patches.tensors()
        scored_by = state.extents if self.settings.scoring == "extent" else None
        extents = {} if scored_by is None else scored_by.tensors()
        return header, {"bank.vectors": bank.vectors, "bank.origin": bank.origin, **basis, **patches, **extents}

    def _from_tensors(
        self, contents: Contents, pictures: Sequence[LearntPicture], calibration: Calibration
    ) -> BankState:
        header, tensors = contents
        levels = tuple(header["search"]["levels"]) if "search" in header else None
        vectors, origin, basis = tensors["bank.vectors"], tensors["bank.origin"], tensors.get("bank.basis")
        bank = Bank(vectors, origin, pictures, basis, levels).checked()
        patches = CalibrationPatches.of(tensors, calibration.pictures, vectors.shape[1])
        wanted = self.settings.scoring == "extent"
        extents = restored_extents(tensors, scored=len(calibration.scores), wanted=wanted)
        self._check_grid(bank, patches, extents)
        stored = header.get("coreset")
        coverage = None if stored is None else Coverage(float(stored["radius"]), int(stored["pictures"]))
        return BankState(bank, pictures, calibration, patches=patches, coverage=coverage, extents=extents)

    def _check_grid(self, bank: Bank, patches: CalibrationPatches | None, extents: Extents | None) -> None:
        """Raise ValueError unless the parts of a model are of the grid that the settings give."""
        (rows, columns, _), d = max(self.extractor.shapes()), bank.vectors.shape[1]
        grid = (len(range((self.settings.stride - 1) // 2, side, self.settings.stride)) for side in (rows, columns))
        rows, columns = grid
        if not self.extractor.grid_fits((rows, columns), d):
            raise ValueError(f"bank.vectors have {d} numbers each, which these layers do not give")
        if bank.origin[:, 1].max() >= rows or bank.origin[:, 2].max() >= columns:
            raise ValueError(f"bank.origin lies outside the grid of {rows} x {columns}")
        if patches is not None and not self.extractor.grid_fits(patches.grids.shape[1:], d):
            raise ValueError(f"evidence.grids are not of the grid of {rows} x {columns}")
        if extents is not None and not self.extractor.grid_fits(extents.place.shape, d):
            raise ValueError(f"extents.place is not of the grid of {rows} x {columns}")
