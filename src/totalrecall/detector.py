"""PatchCore: fit, score, predict, save, load. Wiring only; each step of the road is a module of its own."""

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from totalrecall.artifact import read_artifact, write_artifact
from totalrecall.backbones import Backbone, load
from totalrecall.bank import Bank, BankPicture
from totalrecall.calibration import Calibration
from totalrecall.errors import ModelFileError, NotFittedError, PictureError
from totalrecall.extractor import PatchExtractor
from totalrecall.fitting import FitReport, Gathered, Progress, build_bank, flatten_grid, gather, held_out
from totalrecall.images import Geometry, LoadedPicture, Recipe, Source, find_pictures, load_pictures, read_mask
from totalrecall.memory import peak_memory
from totalrecall.results import NearestPatch, Result
from totalrecall.scoring import anomaly_map, find_regions, picture_score
from totalrecall.settings import Settings, check_precision
from totalrecall.types import AnomalyMap, Mask, Patches, PatchGrid

__all__ = ["PatchCore", "SkippedPictureWarning"]

Sources = Source | Iterable[Source]


class SkippedPictureWarning(UserWarning):
    """Some pictures could not be read; the others were used. `PatchCore.skipped_` holds the reasons."""


class PatchCore:
    """Anomaly detection from good pictures alone (Roth et al., CVPR 2022).

    Args:
        backbone: a name (see `totalrecall backbones list`) or a `Backbone`.
        layers: whose features are joined.
        coreset: share of the patches kept in the memory bank, over 0 and at most 1.
        size: pixels of the prepared square's side; with `resize="crop"`, of the short side.
        resize: `squash`, `letterbox` or `crop`.
        crop: side of the middle square kept, with `resize="crop"`.
        tile: prepare the picture this many times as large each way and let the backbone see it in tile x tile pieces.
        roi: region of interest, a mask array or picture; what lies outside is neither seen nor scored.
        patch_size: p, side of the neighbourhood that a patch averages, odd.
        stride: s, step of the patch grid.
        descriptor: `concat` or `paper-code`.
        scoring: `top1pct` (mean of the largest hundredth of the patches' distances), `max` (s*) or `paper` (eq. 7).
        neighbours: b of eq. 7, for `paper`.
        projection: dimensions of the random projection that the coreset is chosen in; None takes vectors of up to 512
            numbers as they are and projects longer ones to 128.
        false_alarm_rate: share of good pictures that may be called anomalous.
        holdout: share of the good pictures that set the threshold, scored by a bank without them; 0: no verdict.
        precision: of the backbone: `auto` (bf16 where the processor has it), `f32` or `bf16`.
        seed: of every random choice: held-out pictures, projection, first centre.
        threads: of the engine; all cores if not given. Not kept in the model.

    Attributes:
        bank_: the memory bank, after `fit`.
        calibration_: scores of the held-out good pictures.
        threshold_: score above which a picture is anomalous; nan without calibration.
        pixel_threshold_: map value above which a region is marked.
        report_: what the fit took; None for a loaded model.
        skipped_: why pictures were left out of the fit.

    Raises:
        SettingError: a setting is outside what is allowed.
        BackboneError: the backbone is not there or cannot be used.
    """

    def __init__(
        self,
        *,
        backbone: str | Backbone = "compact",
        layers: Sequence[int] = (2, 3),
        coreset: float = 0.01,
        size: int = 256,
        resize: str = "squash",
        crop: int | None = None,
        tile: int = 1,
        roi: Mask | str | Path | None = None,
        patch_size: int = 3,
        stride: int = 1,
        descriptor: str = "concat",
        scoring: str = "top1pct",
        neighbours: int = 9,
        projection: int | None = None,
        false_alarm_rate: float = 0.01,
        holdout: float = 0.2,
        precision: str = "auto",
        seed: int = 42,
        threads: int | None = None,
    ) -> None:
        self.settings = Settings(
            backbone=backbone if isinstance(backbone, str) else backbone.name,
            layers=tuple(layers),
            coreset=coreset,
            patch_size=patch_size,
            stride=stride,
            descriptor=descriptor,
            scoring=scoring,
            neighbours=neighbours,
            projection=projection,
            false_alarm_rate=false_alarm_rate,
            holdout=holdout,
            precision=precision,
            seed=seed,
        )
        mask = read_mask(roi) if isinstance(roi, (str, Path)) else roi
        self.recipe = Recipe(size=size, resize=resize, crop=crop, tile=tile, roi=mask)
        self.backbone = load(backbone) if isinstance(backbone, str) else backbone
        self.extractor = PatchExtractor(self.backbone, self.recipe, self.settings, threads=threads)
        self._bank: Bank | None = None
        self._calibration: Calibration | None = None
        self.report_: FitReport | None = None
        self.skipped_: list[PictureError] = []

    # ------------------------------------------------------------------ learning

    def fit(self, pictures: Sources, *, progress: Progress | None = None) -> "PatchCore":
        """Learn what good pictures look like; fitting again forgets.

        Args:
            pictures: a folder, a glob, or any of files, folders, globs and uint8 RGB arrays. Good pictures only.
            progress: called with (step, done, total); steps are `features`, `coreset`, `calibration`.

        Raises:
            DataError: no picture could be read, or the disk cannot hold the patches.

        Warns:
            SkippedPictureWarning: some pictures could not be read.
        """
        sources = _expand(pictures)
        report, skipped = FitReport(), list[PictureError]()
        gathered = gather(self.extractor, sources, report=report, skipped=skipped, progress=progress)
        began = time.perf_counter()
        step = None if progress is None else (lambda done, total: progress("coreset", done, total))
        bank, report.radius = build_bank(gathered, self.settings, progress=step)
        chosen = time.perf_counter()
        calibration = self._calibrate(gathered, progress)
        report.seconds["coreset"], report.seconds["calibration"] = chosen - began, time.perf_counter() - chosen
        report.pictures, report.calibration_pictures = len(bank.pictures), len(calibration.scores)
        report.patches, report.vectors, report.dimensions = len(gathered.patches), len(bank), bank.vectors.shape[1]
        report.peak_memory = peak_memory()
        self._bank, self._calibration = bank, calibration
        self.report_, self.skipped_ = report, skipped
        if skipped:
            warnings.warn(
                f"{len(skipped)} of {len(sources)} pictures were left out. The first: {skipped[0]}",
                SkippedPictureWarning,
                stacklevel=2,
            )
        return self

    def _calibrate(self, gathered: Gathered, progress: Progress | None) -> Calibration:
        """Score a share of the good pictures by a bank that holds none of them.

        That bank is made for this alone. The detector's own bank holds every good picture: with forty parts, giving up
        eight would cost more than it brings, and a bank that knows more only brings good parts nearer, so that the
        threshold errs to the safe side.
        """
        held = held_out(len(gathered.pictures), self.settings.holdout, self.settings.seed)
        scores, peaks = [], []
        if len(held):
            bank, _ = build_bank(gathered, self.settings, without=held.tolist())
            for done, picture in enumerate(held.tolist(), start=1):
                rows, source = gathered.rows_of(picture), gathered.pictures[picture]
                geometry = self.recipe.geometry(source.height, source.width)
                cells = gathered.origin[rows, 1:]
                if len(cells):
                    score, full_map, _ = self._measure(bank, gathered.patches[rows], cells, gathered.grid, geometry)
                    scores.append(score)
                    peaks.append(float(full_map.max()))
                if progress:
                    progress("calibration", done, len(held))
        return Calibration(np.array(scores), np.array(peaks), self.settings.false_alarm_rate)

    # ------------------------------------------------------------------ judging

    def predict(self, picture: Source) -> Result:
        """Judge one picture, a file or a uint8 RGB array, as soon as possible.

        Raises:
            PictureError: it cannot be read.
            NotFittedError: there is no bank yet.
        """
        self._fitted()
        began = time.perf_counter()
        (loaded,) = load_pictures([picture], self.recipe, threads=1)
        if loaded.error is not None:
            raise loaded.error
        assert loaded.prepared is not None
        return self._judge(loaded, self.extractor.describe(loaded.prepared), began)

    def predict_stream(self, pictures: Sources) -> Iterator[Result | PictureError]:
        """Judge many pictures, as many a second as possible; yields in order, the error of one that cannot be read.

        Raises:
            NotFittedError: there is no bank yet.
        """
        self._fitted()
        return self._judge_stream(_expand(pictures))

    def score(self, pictures: Sources) -> np.ndarray:
        """Return the scores (n,) of pictures, Euclidean distance units, bigger is more anomalous.

        Raises:
            PictureError: one of them cannot be read.
            NotFittedError: there is no bank yet.
        """
        scores = []
        for result in self.predict_stream(pictures):
            if isinstance(result, PictureError):
                raise result
            scores.append(result.score)
        return np.array(scores)

    def _judge_stream(self, sources: Sequence[Source]) -> Iterator[Result | PictureError]:
        began = time.perf_counter()
        for loaded, grid in self.extractor.stream(sources):
            if loaded.error is not None:
                yield loaded.error
                continue
            assert grid is not None
            try:
                result: Result | PictureError = self._judge(loaded, grid, began)
            except PictureError as error:
                result = error
            yield result
            began = time.perf_counter()

    def _judge(self, loaded: LoadedPicture, grid: PatchGrid, began: float) -> Result:
        """Turn one picture's patch grid (1, rows, columns, d) into a result."""
        assert loaded.geometry is not None
        patches, cells = flatten_grid(grid, self.recipe.prepared_roi(loaded.geometry))
        if not len(patches):
            raise PictureError(f"{loaded.path}: the region of interest covers none of it, it is hidden by the crop.")
        shape = (grid.shape[1], grid.shape[2])
        score, full_map, worst = self._measure(self.bank_, patches, cells, shape, loaded.geometry)
        threshold = self.threshold_
        return Result(
            path=loaded.path,
            score=score,
            threshold=threshold,
            is_anomalous=score > threshold,
            p_value=math.nan if self._calibration is None else self._calibration.p_value(score),
            anomaly_map=full_map,
            regions=find_regions(full_map, self.pixel_threshold_),
            nearest=self._nearest(worst, shape),
            milliseconds=1000 * (time.perf_counter() - began),
            geometry=loaded.geometry,
        )

    def _measure(
        self, bank: Bank, patches: Patches, cells: np.ndarray, grid: tuple[int, int], geometry: Geometry
    ) -> tuple[float, AnomalyMap, int]:
        """Return a picture's score, its map in original pixels, and the bank vector nearest to its worst patch."""
        found, indices = bank.nearest(patches)
        distances, indices = found[:, 0], indices[:, 0]
        settings = self.settings
        score = picture_score(
            distances, indices, patches, bank, scoring=settings.scoring, neighbours=settings.neighbours
        )
        values = np.zeros(grid, np.float32)
        values[cells[:, 0], cells[:, 1]] = distances
        full_map = anomaly_map(values, geometry, roi=self.recipe.prepared_roi(geometry))
        original_roi = self.recipe.original_roi(*geometry.original)
        if original_roi is not None:
            full_map = full_map * original_roi
        return score, full_map, int(indices[distances.argmax()])

    def _nearest(self, index: int, grid: tuple[int, int]) -> NearestPatch:
        picture, row, column = self.bank_.origin[index].tolist()
        source = self.bank_.pictures[picture]
        geometry = self.recipe.geometry(source.height, source.width)
        cell = (geometry.prepared[0] / grid[0], geometry.prepared[1] / grid[1])
        y, x = geometry.point_to_original((row + 0.5) * cell[0] - 0.5, (column + 0.5) * cell[1] - 0.5)
        return NearestPatch(source.path, x, y)

    # ------------------------------------------------------------------ what was learnt

    def _fitted(self) -> Bank:
        if self._bank is None:
            raise NotFittedError("This detector is not fitted yet. Call fit(good_pictures) or PatchCore.load(file).")
        return self._bank

    @property
    def bank_(self) -> Bank:
        """The memory bank."""
        return self._fitted()

    @property
    def calibration_(self) -> Calibration:
        """Scores of the held-out good pictures."""
        self._fitted()
        assert self._calibration is not None
        return self._calibration

    @property
    def threshold_(self) -> float:
        """Score above which a picture is anomalous; nan without calibration pictures."""
        return math.nan if self._calibration is None else self._calibration.threshold

    @property
    def pixel_threshold_(self) -> float:
        """Map value above which a region is marked; nan without calibration pictures."""
        return math.nan if self._calibration is None else self._calibration.pixel_threshold

    # ------------------------------------------------------------------ keeping

    def save(self, path: str | Path, *, embed_backbone: bool = True) -> Path:
        """Write the model as one file, whole or not at all.

        Args:
            path: usually ends in `.trecall`.
            embed_backbone: keep the backbone's graph inside, so that the file alone is enough on another machine.

        Raises:
            DataError: the place cannot be written.
            NotFittedError: there is nothing to save yet.
        """
        from totalrecall import __version__

        bank, calibration = self.bank_, self.calibration_
        header: dict[str, Any] = {
            "kind": "patchcore",
            "library": __version__,
            "settings": self.settings.to_json(),
            "recipe": self.recipe.to_json(),
            "backbone": self.backbone.to_header(),
            "pictures": [asdict(picture) for picture in bank.pictures],
        }
        tensors = {
            "bank.vectors": bank.vectors,
            "bank.origin": bank.origin,
            "calibration.scores": calibration.scores,
            "calibration.peaks": calibration.peaks,
        }
        if bank.basis is not None:
            tensors["bank.basis"] = bank.basis
        if self.recipe.roi is not None:
            tensors["recipe.roi"] = self.recipe.roi.astype(np.uint8)
        if embed_backbone:
            tensors["backbone.graph"] = np.frombuffer(self.backbone.graph, np.uint8)
        return write_artifact(path, header, tensors)

    @classmethod
    def load(cls, path: str | Path, *, precision: str | None = None, threads: int | None = None) -> "PatchCore":
        """Read a model file.

        Args:
            path: as given to `save`.
            precision: of the backbone here, if it should differ from the fit's.
            threads: of the engine; all cores if not given.

        Raises:
            ModelFileError: the file is missing, damaged, or from a newer version.
            BackboneError: the backbone was not embedded, and the one of that name here is missing or another.
        """
        if precision is not None:
            check_precision(precision)  # here, or the caller's mistake would be taken for damage
        header, tensors = read_artifact(path)
        try:
            if header["kind"] != "patchcore":
                raise ModelFileError(f"{path} holds a {header['kind']} model; this is PatchCore. Use its own class.")
            settings = dict(header["settings"])
            settings["precision"] = precision or settings["precision"]
            roi = tensors.get("recipe.roi")
            graph = tensors.get("backbone.graph")
            data = load(header["backbone"]["name"]).graph if graph is None else graph.tobytes()
            settings["backbone"] = Backbone.from_header(header["backbone"], data, origin=f"The backbone of {path}")
            mask = None if roi is None else roi.astype(bool)
            detector = cls(**settings, **header["recipe"], roi=mask, threads=threads)
            pictures = [BankPicture(**picture) for picture in header["pictures"]]
            detector._bank = Bank(
                tensors["bank.vectors"], tensors["bank.origin"], pictures, tensors.get("bank.basis")
            ).checked()
            detector._calibration = Calibration(
                tensors["calibration.scores"], tensors["calibration.peaks"], detector.settings.false_alarm_rate
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"{path} is damaged: {error} in its header. Copy or fit it again.") from None
        return detector


def _expand(pictures: Sources) -> Sequence[Source]:
    """Turn what `fit` and `predict_stream` take into single pictures; arrays stay as they are."""
    if isinstance(pictures, (str, Path)):
        return find_pictures(pictures)
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    sources: list[Source] = []
    for picture in pictures:
        sources.extend([picture] if isinstance(picture, np.ndarray) else find_pictures(picture))
    return sources
