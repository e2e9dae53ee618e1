"""PatchCore: fit, score, predict, save, load. Wiring only; each step of the road is a module of its own.

What it shares with the methods that it is compared with, judging and keeping, is in `detector_base`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from totalrecall.backbones import Backbone
from totalrecall.bank import Bank
from totalrecall.calibration import Calibration
from totalrecall.detector_base import Detector, Measured, SkippedPictureWarning, Sources, expand
from totalrecall.errors import PictureError
from totalrecall.extractor import PatchExtractor
from totalrecall.fitting import Learnt, Progress, flatten_grid
from totalrecall.images import Geometry
from totalrecall.learning import Announce, learn
from totalrecall.scoring import picture_score
from totalrecall.search_plan import choose_levels
from totalrecall.settings import Settings
from totalrecall.types import LayerMap, Mask, Patches

__all__ = ["PatchCore", "SkippedPictureWarning"]


@dataclass(frozen=True, eq=False)
class _Patches:
    """A picture's patches inside the region of interest, (n, d), their (row, column), (n, 2), and the grid's shape."""

    patches: Patches
    cells: np.ndarray
    grid: tuple[int, int]


class PatchCore(Detector[Bank, _Patches]):
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

    kind = "patchcore"
    settings: Settings
    extractor: PatchExtractor

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
        super().__init__(backbone, size=size, resize=resize, crop=crop, tile=tile, roi=roi)
        self.settings = Settings(
            backbone=self.backbone.name,
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
        self.extractor = PatchExtractor(self.backbone, self.recipe, self.settings, threads=threads)

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
            announce: called before the work begins with what it will take, after a pilot of a few pictures.
            progress: called with (step, done, total); steps are `features`, `coreset`, `calibration`.

        Raises:
            DataError: no picture could be read, or the disk cannot hold the patches.
            SettingError: not even the bank fits into that memory.

        Warns:
            SkippedPictureWarning: some pictures could not be read; ChunkedFitWarning: see there.
        """
        sources = expand(pictures)
        learnt, reader = learn(self.extractor, sources, memory=memory, announce=announce, progress=progress)
        with reader.report.timing("coreset"):
            choice = learnt.choose()
        with reader.report.timing("calibration"):
            calibration, levels = self._calibrate(learnt, progress)
        bank = learnt.bank(choice)  # last, so that no other bank is in memory beside it
        bank = bank if levels is None else bank.with_levels(levels)
        reader.report.finish(bank, learnt.patch_count, choice.radius, len(calibration.scores))
        self._model, self._pictures, self._calibration = bank, bank.pictures, calibration
        self.report_, self.skipped_ = reader.report, reader.skipped
        self._warn_of_skipped(len(sources))
        return self

    def _calibrate(self, learnt: Learnt, progress: Progress | None) -> tuple[Calibration, tuple[int, ...] | None]:
        """Score a share of the good pictures by a bank that holds none of them; see which search suits such a bank.

        That bank is made for this alone. The detector's own holds every good picture: with forty parts, giving up eight
        would cost more than it brings, and a bank that knows more only brings good parts nearer: the safe side to err.
        """
        scores, peaks = [], []
        unseen: list[Patches] = []
        levels = None
        if learnt.held:
            bank = learnt.bank(learnt.choose(without=learnt.held))
            for done, seen in enumerate(learnt.again(learnt.held), start=1):
                geometry = self.recipe.geometry(seen.picture.height, seen.picture.width)
                if len(seen.cells):
                    measured = self._measure(bank, _Patches(seen.patches, seen.cells, learnt.grid))
                    score, full_map = self._judged(measured, geometry)
                    scores.append(score)
                    peaks.append(float(full_map.max()))
                    unseen += [seen.patches[:: len(seen.cells) // 8 + 1]] if len(unseen) < 8 else []
                if progress:
                    progress("calibration", done, len(learnt.held))
            levels = choose_levels(bank.vectors, np.concatenate(unseen)) if unseen else None
        return Calibration(np.array(scores), np.array(peaks), self.settings.false_alarm_rate), levels

    # ------------------------------------------------------------------ judging

    def _digest(self, maps: Sequence[LayerMap], geometry: Geometry) -> _Patches:
        grid = self.extractor.grid_of(maps)  # (1, rows, columns, d)
        patches, cells = flatten_grid(grid, self.recipe.prepared_roi(geometry))
        if not len(patches):
            raise PictureError("the region of interest covers none of it, it is hidden by the crop.")
        return _Patches(patches, cells, (grid.shape[1], grid.shape[2]))

    def _measure(self, model: Bank, digest: _Patches) -> Measured:
        found, nearest = model.nearest(digest.patches)
        distances, indices = found[:, 0], nearest[:, 0]
        settings = self.settings
        score = picture_score(
            distances, indices, digest.patches, model, scoring=settings.scoring, neighbours=settings.neighbours
        )
        grid = np.zeros(digest.grid, np.float32)
        grid[digest.cells[:, 0], digest.cells[:, 1]] = distances
        picture, row, column = model.origin[indices[distances.argmax()]].tolist()
        return Measured(grid, score, (picture, row, column))

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
        text += f" from {len(self.pictures_)} pictures"
        if report is not None and report.chunks > 1:
            text += f", every patch within {report.radius:.4g} of it ({report.chunks} chunks)"
        return text

    def _kept(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        bank = self.bank_
        header = {} if bank.levels is None else {"search": {"levels": list(bank.levels)}}
        basis = {} if bank.basis is None else {"bank.basis": bank.basis}
        return header, {"bank.vectors": bank.vectors, "bank.origin": bank.origin, **basis}

    def _restored(self, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> Bank:
        levels = tuple(header["search"]["levels"]) if "search" in header else None
        vectors, origin, basis = tensors["bank.vectors"], tensors["bank.origin"], tensors.get("bank.basis")
        return Bank(vectors, origin, self._pictures, basis, levels).checked()
