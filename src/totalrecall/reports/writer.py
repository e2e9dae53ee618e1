"""A report that grows while pictures are scored: nothing large is kept, and the page is written at the end."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import totalrecall
from totalrecall.datasets import Sample
from totalrecall.errors import PictureError
from totalrecall.evaluation.evaluate import Evaluation
from totalrecall.pictures.files import find_pictures
from totalrecall.reports.gallery import ReportEntry, WorstOverlays
from totalrecall.reports.good_pictures import GoodPictures
from totalrecall.reports.report import write_report
from totalrecall.scoring import Result
from totalrecall.system.files import check_writable, refuse_overwriting

if TYPE_CHECKING:
    from totalrecall.registry import AnyJudge

__all__ = ["ReportWriter", "report_pictures"]


def report_pictures(
    detector: "AnyJudge",
    pictures: str | Path | Sequence[str | Path],
    path: str | Path,
    *,
    title: str = "Total Recall",
    parts_per_day: int | None = None,
    good_pictures: str | Path | Sequence[str | Path] = (),
) -> Path:
    """Score pictures, write an HTML report of them and return its path.

    The page is one file under 5 MB that opens anywhere, offline: verdicts, scores, p-values, what the threshold
    promises, the overlays of the highest scores, and their worst patches next to the nearest good patches. The page
    names each picture that could not be read.

    Args:
        detector: a fitted PatchCore, PaDiM or SPADE.
        pictures: files, folders or globs.
        path: the HTML file; its folder is made.
        title: the page's heading.
        parts_per_day: good parts per day, for the expected number of false alarms; None assumes a number and says so.
        good_pictures: folders in which to look for the pictures that a loaded model learnt.

    Raises:
        DataError: the file cannot be written, or a folder holds no picture; before anything is scored.
        NotFittedError: nothing was learnt yet.

    Examples:
        >>> from totalrecall.reports import report_pictures
        >>> report_pictures(load_detector("part.trecall"), "parts/new", "report.html").name
        'report.html'
    """
    report, files = ReportWriter(path, detector, good_pictures=good_pictures), find_pictures(pictures)
    refuse_overwriting(path, files, "a picture to judge")
    for picture, outcome in zip(files, detector.predict_stream(files), strict=True):
        report.add(picture, outcome)
    return report.write(title, parts_per_day=parts_per_day)


class ReportWriter:
    """Takes in the results of a detector, picture by picture, and writes the page at the end, no file before."""

    def __init__(
        self, path: str | Path, detector: "AnyJudge", *, good_pictures: str | Path | Sequence[str | Path] = ()
    ) -> None:
        """Begin a report.

        Args:
            path: the HTML file.
            detector: the detector that judges.
            good_pictures: folders in which to look for the pictures that a loaded model learnt.

        Raises:
            DataError: the file cannot be written.
        """
        check_writable(path)
        self.path = path
        self._detector = detector
        folders = [good_pictures] if isinstance(good_pictures, (str, Path)) else good_pictures
        self._good = GoodPictures(detector, folders)
        self._entries: list[ReportEntry] = []
        self._bad: list[tuple[str, str]] = []
        self._overlays = WorstOverlays()

    def add(self, picture: str | Path, outcome: Result | PictureError) -> None:
        """Take in the result of a picture; nothing large is kept of it."""
        self._add(picture, outcome, None)

    def add_sample(self, sample: Sample, outcome: Result | PictureError) -> None:
        """Take in the result of a labelled picture."""
        self._add(sample.path, outcome, sample)

    def _add(self, picture: str | Path, outcome: Result | PictureError, sample: Sample | None) -> None:
        if isinstance(outcome, PictureError):
            self._bad.append(_reason(picture, str(outcome)))
            return
        self._overlays.offer(len(self._entries), outcome, sample)
        known = (None, None) if sample is None else (sample.label, sample.defect)
        entry = ReportEntry.of(outcome, label=known[0], defect=known[1])
        file = None if entry.nearest is None else self._good.file(entry.nearest)
        depth = self._detector.recipe.depth
        self._entries.append(replace(entry, nearest_file=file, good_named=self._good.named, depth=depth))

    def write(
        self,
        title: str,
        *,
        facts: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        parts_per_day: int | None = None,
        measured: Evaluation | None = None,
    ) -> Path:
        """Write the page, whole or not at all, and return its path.

        Args:
            title: the page's heading.
            facts: what was done, name by name, put before what the model holds.
            notes: sentences to print under the heading.
            parts_per_day: as for `report_pictures`.
            measured: the metrics, where the pictures are labelled.

        Raises:
            DataError: the file cannot be written.
            SettingError: the file is a picture that was judged.
        """
        refuse_overwriting(self.path, [entry.path for entry in self._entries], "a picture to judge")
        overlays, detector = self._overlays.of(), self._detector
        bad = self._bad if measured is None else [_reason(one.path, one.message) for one in measured.bad]
        return write_report(
            self.path,
            title=title,
            model_info={**(facts or {}), **self._facts()},
            entries=[replace(entry, overlay=overlays.get(number)) for number, entry in enumerate(self._entries)],
            bad_files=bad,
            notes=(*notes, *self._notes()),
            promise=detector.promise_,
            parts_per_day=parts_per_day,
            measured=measured,
        )

    def _facts(self) -> dict[str, str]:
        what, _, learnt = self._detector.summary().partition(": ")
        now = datetime.datetime.now().astimezone()
        return {
            "method": type(self._detector).__name__,
            "learnt": f"{what.lower()}: {learnt}",
            "backbone": self._detector.backbone.name,
            "written": f"{now:%Y-%m-%d %H:%M %Z}, by totalrecall {totalrecall.__version__}",
        }

    def _notes(self) -> list[str]:
        if any(entry.nearest for entry in self._entries) or not self._entries:
            return []
        return [
            f"{type(self._detector).__name__} compares with statistics of all good pictures, so there is no nearest "
            "good picture to show."
        ]


def _reason(picture: str | Path, message: str) -> tuple[str, str]:
    """Return a file and the reason why it is bad; a name at the start of the message is removed."""
    return str(picture), message.removeprefix(f"{picture}").lstrip(": ")
