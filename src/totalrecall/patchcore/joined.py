"""Several memory banks in one detector: of several sizes, of several backbones; one score, one threshold, one map.

A small defect is seen better at a larger size, a missing part at a smaller one, and two backbones err in different
ways. Each member is a `PatchCore` of its own; what makes their scores one is in `joined_state`.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from totalrecall.calibration import Calibration
from totalrecall.detectors.changes import Change, Newcomer
from totalrecall.detectors.fit_report import FitReport, Progress, warn_of_fit
from totalrecall.detectors.members import KIND, apart, graph_name, together
from totalrecall.detectors.model_file import Contents
from totalrecall.detectors.model_schema import DAMAGE, reason_of
from totalrecall.detectors.state import FitState
from totalrecall.engines import Running
from totalrecall.errors import (
    ChunkedFitWarning,
    DataError,
    ModelFileError,
    PictureError,
    SettingError,
    only_picture_notices,
)
from totalrecall.patchcore.bank import BankState
from totalrecall.patchcore.detector import PatchCore
from totalrecall.patchcore.joined_state import JoinedState, join, joined_measurement
from totalrecall.patchcore.judge import PatchSet
from totalrecall.patchcore.plan import JoinedPlan, plan_members
from totalrecall.patchcore.settings import JoinedSettings, Settings
from totalrecall.patchcore.updatable import UpdatableDetector, Updates
from totalrecall.pictures.bit_depth import BitDepth
from totalrecall.pictures.copies import Repeats
from totalrecall.pictures.loading import LearntPicture, LoadedPicture, Source, Sources, expand
from totalrecall.pictures.unlike import PictureTally
from totalrecall.scoring import Measurement
from totalrecall.system.settings import declared, takes
from totalrecall.system.text import bytes_of, counted
from totalrecall.types import LayerMap

__all__ = ["JoinedPatchCore"]


class JoinedPatchCore(UpdatableDetector[tuple[BankState, ...]]):
    """Several `PatchCore` of the same good pictures, whose scores are joined to one.

    Examples:
        >>> from totalrecall import JoinedPatchCore
        >>> detector = JoinedPatchCore(sizes=(64, 96), false_alarm_rate=0.2).fit("parts/good")
        >>> detector.predict("part.png").is_anomalous
        True
        >>> [member.recipe.size for member in detector.members]
        [64, 96]

    Attributes:
        members: the detectors, each with its backbone and its size.
        calibration_: joined scores of the good pictures, each by banks without it.
        threshold_: joined score above which a picture is anomalous; nan without calibration.
        pixel_threshold_: value of the joined map above which a region is marked.
        report_: what the fits took together; None for a loaded model.
        skipped_: why pictures were left out of the fit.
        outliers_: paths of the good pictures that are unlike the others, the worst first; after a fit only.
    """

    kind = KIND
    settings: Settings
    members: tuple[PatchCore, ...]
    _state: JoinedState | None

    @takes(JoinedSettings)
    def __init__(self, settings: JoinedSettings) -> None:
        """Prepare a detector that has learnt nothing yet.

        Raises:
            SettingError: a setting is outside what is allowed, or there is one backbone and one size.
            BackboneError: a backbone is not there or cannot be used.
        """
        wanted = settings.members()
        if len(wanted) < 2:
            raise SettingError(
                "sizes or backbone must name several, got one of each. Use PatchCore, or JoinedPatchCore(sizes=(256, "
                "384)).",
                "sizes",
                "backbone",
            )
        self._hold([PatchCore(**{name: getattr(one, name) for name in declared(type(one))}) for one in wanted])
        sides = [member.recipe.size for member in self.members]
        if settings.crop is not None and len(set(sides)) > 1:
            raise SettingError(
                f"crop is in pixels of one size, got crop {settings.crop} for the sizes {' '.join(map(str, sides))}: "
                "each would see another share of the picture. Cut the pictures beforehand, or mark what counts with "
                "roi.",
                "crop",
                "sizes",
                "roi",
            )
        names = self._names()
        twice = [name for at, name in enumerate(names) if name in names[:at]]
        if twice:
            raise SettingError(f"sizes and backbone name {twice[0]} twice. Name it once.", "sizes", "backbone")

    def _hold(self, members: Sequence[PatchCore]) -> None:
        """Be made of members; pictures are read as the first of them prepares them."""
        first = members[0]
        self.members = tuple(members)
        self.region, self.backbone, self.recipe, self.extractor = (
            first.region,
            first.backbone,
            first.recipe,
            first.extractor,
        )
        self.settings = first.settings
        self.outliers_: list[str] = []
        self._begin()

    def _names(self) -> list[str]:
        return [f"{member.backbone.name} at {member.recipe.size} pixels" for member in self.members]

    # ------------------------------------------------------------------ learning

    def fit(
        self,
        pictures: Sources,
        *,
        memory: int | str | None = None,
        announce: Callable[[JoinedPlan], None] | None = None,
        progress: Progress | None = None,
    ) -> "JoinedPatchCore":
        """Learn what good pictures look like, one member after the other; fitting again forgets.

        Args:
            pictures: as for `PatchCore.fit`.
            memory: bytes that the process may hold, whatever the number of pictures, or a size such as "2GB"; half of
                what is free if not given.
            announce: called before the work begins with the plan of the fits.
            progress: called with (step, done, total); steps are those of `PatchCore.fit`, over all members.

        Raises:
            DataError: as for `PatchCore.fit`, or a picture can be used by some members only.
            SettingError: as for `PatchCore.fit`.

        Warns:
            As `PatchCore.fit`.
        """
        from totalrecall.patchcore.fitting import chunked_note, fit_bank, warn_of_outliers

        sources, limit = expand(pictures), bytes_of(memory)
        with self._depth_of(sources, progress):
            repeats = Repeats(sources)
            parts = [(member.extractor, member.settings) for member in self.members]
            plan = plan_members(parts, self._names(), repeats.distinct, limit)
            if announce:
                announce(plan)
            fits = []
            for at, (member, own) in enumerate(zip(self.members, plan.plans, strict=True)):
                if memory is None and own.way == "chunks":
                    warnings.warn(chunked_note(own), ChunkedFitWarning, stacklevel=2)
                told = _in_turn(progress, at, len(self.members))
                # the first finds the repeats among the pictures, for all
                fits.append(fit_bank(member.extractor, member.settings, repeats, memory=own.limit, progress=told))
            reader = fits[0].reader
            for name, other in zip(self._names(), fits, strict=True):
                _check_same(name, fits[0].state.pictures, other.state.pictures, other.reader.skipped)
            state = join(
                [one.state for one in fits],
                [one.grids for one in fits],
                [member.recipe for member in self.members],
                rate=self.settings.false_alarm_rate,
                min_area=self.settings.min_area,
            )
            self.judge_by(state)
            self.report_ = _joined_report([one.reader.report for one in fits], plan, state.calibration)
            self.skipped_ = reader.skipped
            warn_of_fit(self.report_, reader.skipped, reader.tally, state.pictures, len(sources))
            left_out = list(dict.fromkeys(path for one in fits for path in one.left_out))
            self.outliers_ = warn_of_outliers(state.calibration, state.pictures, self.settings, left_out)
        return self

    def _updates(self) -> Updates[tuple[BankState, ...]]:
        return Updates(self._with_added, self._with_removed, self._count_vectors)

    def _with_added(self, sources: Sequence[Source], progress: Progress | None) -> tuple[JoinedState, Change]:
        from totalrecall.patchcore import joined_update

        newcomers, known, skipped = self._read_newcomers(sources, progress)
        after, change = joined_update.add(self._joined_state, newcomers, [member.judge for member in self.members])
        return after, replace(change, known=known, skipped=[*skipped, *change.skipped])

    def _with_removed(self, leaving: Sequence[int]) -> tuple[JoinedState, Change]:
        from totalrecall.patchcore import joined_update

        return joined_update.remove(self._joined_state, leaving, [member.judge for member in self.members])

    def _count_vectors(self, picture: int) -> int:
        return sum(member.bank_.count_vectors(picture) for member in self.members)

    def _read_newcomers(
        self, sources: Sequence[Source], progress: Progress | None
    ) -> tuple[list[list[Newcomer[PatchSet]]], list[str], list[PictureError]]:
        """Return for each member the pictures that are new and that all can use, known ones, and why not others."""
        tally, count = PictureTally(self._kinds), len(self.members)
        first, known, skipped = self.members[0].read_newcomers(sources, tally, _in_turn(progress, 0, count))
        found = [first]
        with only_picture_notices(quiet=True):  # the first has told
            for at, member in enumerate(self.members[1:], start=1):
                own, _, errors = member.read_newcomers(sources, PictureTally(), _in_turn(progress, at, count))
                found.append(own)
                skipped += [error for error in errors if str(error) not in map(str, skipped)]
        usable = set.intersection(*({one.picture.sha256 for one in own} for own in found))
        return [[one for one in own if one.picture.sha256 in usable] for own in found], known, skipped

    # ------------------------------------------------------------------ judging

    def measure(self, loaded: LoadedPicture, maps: Sequence[LayerMap] | None = None) -> Measurement:
        """Measure one picture by each member: by the first from the maps, by the others from its pixels."""
        state = self._joined_state
        parts = [member.measure(loaded, None if at else maps) for at, member in enumerate(self.members)]
        return joined_measurement(parts, state.scales)

    # ------------------------------------------------------------------ what was learnt, and keeping it

    @property
    def _joined_state(self) -> JoinedState:
        self._fitted()
        assert self._state is not None
        return self._state

    def judge_by(self, state: FitState[tuple[BankState, ...]]) -> None:
        """Judge by another state from now on, and so do the members."""
        # subtle: others, because a detector that was copied (see `judging`) shares these
        self.members = tuple(member.judging_by(own) for member, own in zip(self.members, state.model, strict=True))
        super().judge_by(state)

    def set_depth(self, depth: BitDepth | None) -> None:
        """Prepare pictures by another bit depth from now on."""
        for member in self.members:
            member.set_depth(depth)
        self.recipe = self.members[0].recipe

    def facts(self) -> dict[str, Any]:
        """Return what the model holds, as JSON types in reading order."""
        members = [
            {
                "backbone": member.backbone.name,
                "backbone_sha256": member.backbone.sha256,
                "backbone_licence": member.backbone.licence,
                "size": member.recipe.size,
                "layers": list(member.extractor.numbers),
                "patch_size": member.extractor.patch_size,
                "scale": scale,
                **member.facts(),
            }
            for member, scale in zip(self.members, self._joined_state.scales.tolist(), strict=True)
        ]
        return {"bank_vectors": len(self._joined_state), "members": members}

    def summary(self) -> str:
        """Say in one line what was learnt."""
        banks = [
            f"{name}, {len(member.bank_)} vectors of {member.bank_.vectors.shape[1]} numbers"
            for name, member in zip(self._names(), self.members, strict=True)
        ]
        return f"{len(banks)} banks ({'; '.join(banks)}) from {counted(len(self.pictures_), 'picture')}"

    def _to_tensors(self, state: FitState[tuple[BankState, ...]]) -> Contents:
        assert isinstance(state, JoinedState)
        parts = [member.contents(own) for member, own in zip(self.members, state.model, strict=True)]
        header, tensors = together(parts)
        return header, {**tensors, "joined.scales": state.scales}

    def _from_tensors(
        self, contents: Contents, pictures: Sequence[LearntPicture], calibration: Calibration
    ) -> JoinedState:
        parts, tensors = apart(*contents)
        states: list[BankState] = []
        for member, part in zip(self.members, parts, strict=True):
            state = member.state_from(part)
            assert isinstance(state, BankState)
            states.append(replace(state, header=None, drift=None))
        return JoinedState(tuple(states), pictures, calibration, scales=tensors["joined.scales"]).checked()

    def _graphs(self) -> dict[str, bytes]:
        graphs: dict[str, tuple[str, bytes]] = {}  # by hash: each stands once
        for at, member in enumerate(self.members):
            graphs.setdefault(member.backbone.sha256, (graph_name(at), member.backbone.graph))
        return dict(graphs.values())

    @classmethod
    def from_contents(cls, contents: Contents, path: str | Path, running: Running) -> "JoinedPatchCore":
        """Return the detector of a model file; see `Detector.from_contents`."""
        try:
            parts, _ = apart(*contents)
            detector = cls.__new__(cls)
            members = [PatchCore.from_contents(part, path, running) for part in parts]
            cls._hold(detector, members)
            detector.load_contents(contents)
        except DAMAGE as error:
            raise ModelFileError(f"{path} is damaged: {reason_of(error)}. Copy or fit it again.") from None
        return detector


def _in_turn(progress: Progress | None, at: int, count: int) -> Progress | None:
    """Return what tells how far one of several members is as a part of the whole."""
    if progress is None:
        return None
    whole = progress

    def told(step: str, done: int, total: int) -> None:
        whole(step, at * total + done, count * total)

    return told


def _check_same(
    name: str, pictures: Sequence[LearntPicture], others: Sequence[LearntPicture], skipped: Sequence[PictureError]
) -> None:
    """Refuse members that have not learnt the same pictures.

    Raises:
        DataError: says which picture only some can use.
    """
    first, second = ({picture.sha256: picture.path for picture in several} for several in (pictures, others))
    only = [path for sha256, path in {**first, **second}.items() if sha256 not in first or sha256 not in second]
    if only:
        why = next((f" {error}" for error in skipped if only[0] in str(error)), "")
        raise DataError(
            f"{only[0]} can be used by some members only, not by {name} as by the others.{why} Leave it out of the "
            "good pictures."
        )


def _joined_report(reports: Sequence[FitReport], plan: JoinedPlan, calibration: Calibration) -> FitReport:
    """Return what all fits took together."""
    steps = dict.fromkeys(step for report in reports for step in report.seconds)
    return FitReport(
        pictures=reports[0].pictures,
        repeats=reports[0].repeats,
        calibration_pictures=len(calibration.scores),
        patches=sum(report.patches for report in reports),
        dimensions=max(report.dimensions for report in reports),
        vectors=sum(report.vectors for report in reports),
        radius=math.nan,  # each has its own
        chunks=max(report.chunks for report in reports),
        seconds={step: sum(report.seconds.get(step, 0.0) for report in reports) for step in steps},
        peak_memory=max(report.peak_memory for report in reports),
        scratch=max(report.scratch for report in reports),
        plan=plan.facts(),
    )
