"""The evidence sheet of a model: what was tested, by which file, against which criteria, with what result.

For the validation file of a line. Whoever has the model and the pictures can make the sheet again: it names both by
their hashes, with the settings, the versions and the machine. Pictures that the model learnt are no evidence, and a
copy of a picture is no further one; so both are left out of the figures and named.
"""

import contextlib
import math
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall._version import __version__
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.registry import load_judge
from totalrecall.reports.page import number, render, write_page
from totalrecall.station.quality.agreement import Share, share_of
from totalrecall.station.quality.labelled import Part, digest_of
from totalrecall.station.quality.workers import Progress
from totalrecall.station.store.records import finite, iso
from totalrecall.system.files import file_sha256, sha256
from totalrecall.system.text import counted

if TYPE_CHECKING:
    from totalrecall.registry import AnyJudge

__all__ = ["Criteria", "Evidence", "JudgedPicture", "evidence_html", "gather_evidence", "write_evidence"]

_PACKAGES = ("numpy", "openvino", "opencv-python-headless", "safetensors")
_TEMPLATE = "evidence.html"
_TAIL = 0.025  # beyond each end of a 95 % interval


@dataclass(frozen=True)
class Criteria:
    """What a model must do, as a person says before the test.

    Attributes:
        max_false_alarms: share of good pictures that may be called defects.
        min_found: share of defects that must be found.

    Raises:
        SettingError: one is no share.
    """

    max_false_alarms: float
    min_found: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise SettingError(f"{name} must be from 0 to 1, got {value:g}. For 2 percent write 0.02.", name)


@dataclass(frozen=True)
class JudgedPicture:
    """A picture with what became of it."""

    name: str
    sha256: str
    truth: str
    verdict: str
    score: float


@dataclass(frozen=True)
class Evidence:
    """A test of a model.

    Attributes:
        model: name of its file; `model_sha256` of that.
        facts: of the model: kind, backbone, settings, promise.
        criteria: that were set.
        tested: every picture that counts.
        learnt: names of the pictures that the model learnt, which do not count.
        copies: names of the pictures that are copies of others, to the byte, which do not count.
        threshold: that was in force.
        at: when the test ended, UTC.
        versions, machine: that ran it.
    """

    model: str
    model_sha256: str
    facts: dict[str, Any]
    criteria: Criteria
    tested: Sequence[JudgedPicture]
    learnt: Sequence[str]
    copies: Sequence[str]
    threshold: float
    at: datetime
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def found(self) -> Share:
        """Defects that are called defects."""
        mine = [one for one in self.tested if one.truth == "defect"]
        return share_of(sum(one.verdict == "defect" for one in mine), len(mine))

    @property
    def false_alarms(self) -> Share:
        """Good pictures that are not called good."""
        mine = [one for one in self.tested if one.truth == "good"]
        return share_of(sum(one.verdict != "good" for one in mine), len(mine))

    @property
    def passed(self) -> bool:
        """Whether both criteria are met by what was counted."""
        within = self.false_alarms.value <= self.criteria.max_false_alarms
        return within and self.found.value >= self.criteria.min_found  # subtle: nan, of none, is never met

    @property
    def needed(self) -> dict[str, int]:
        """How many flawless pictures would show what the count alone says, for each criterion that needs more of them.

        A criterion that is met by what was counted may be so by chance: two good pictures without a false alarm show a
        rate of 84 % at most. It is shown once the 95 % interval meets it, too; 0 and 100 % are never shown.
        """
        limits, needed = self.criteria, {}
        if self.false_alarms.value <= limits.max_false_alarms < self.false_alarms.high:
            needed["false_alarms"] = _pictures_that_show(limits.max_false_alarms)
        if self.found.value >= limits.min_found > self.found.low:
            needed["found"] = _pictures_that_show(1 - limits.min_found)
        return needed

    @property
    def pictures_sha256(self) -> str:
        """A hash of the pictures that count and their truth, whatever their names and order."""
        return sha256("".join(sorted(f"{one.sha256} {one.truth}\n" for one in self.tested)).encode())

    def sentences(self) -> list[str]:
        """Say what was found, a sentence each."""
        limits = self.criteria
        lines = [
            f"False alarms: {self.false_alarms.in_words()}; allowed are {100 * limits.max_false_alarms:g} %.",
            f"Defects found: {self.found.in_words()}; at least {100 * limits.min_found:g} % must be.",
            "In brackets: 95 % interval of Clopper and Pearson. The criteria are compared with what was counted.",
        ]
        for name, what in (("false_alarms", "good pictures without a false alarm"), ("found", "defects, all found,")):
            count = self.needed.get(name)
            if count == 0:
                lines.append("No number of pictures shows a criterion of 0 or 100 %.")
            elif count is not None:
                lines.append(f"The pictures are too few to show this with 95 % confidence: {count} {what} would.")
        for names, why in ((self.learnt, "Learnt by the model"), (self.copies, "Copies of others")):
            if names:
                lines.append(f"{why}, and so not counted: {counted(len(names), 'picture')} of those given.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "passed": self.passed,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "pictures_sha256": self.pictures_sha256,
            "at": iso(self.at),
            "criteria": asdict(self.criteria),
            "false_alarms": self.false_alarms.to_json(),
            "found": self.found.to_json(),
            "needed": self.needed,
            "threshold": finite(self.threshold),
            "facts": self.facts,
            "versions": self.versions,
            "machine": self.machine,
            "learnt": list(self.learnt),
            "copies": list(self.copies),
            "pictures": [asdict(one) for one in self.tested],
        }


def gather_evidence(
    path: str | Path,
    parts: Sequence[Part],
    criteria: Criteria,
    *,
    running: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Judge pictures whose truth is known, and return the evidence.

    Args:
        path: of the model's file.
        parts: with their pictures, which all count.
        criteria: that were set before.
        running: engine, device, precision and threads, for `load_judge`.
        progress: called with ("scoring", done, total).

    Raises:
        ModelFileError, BackboneError: the model cannot be used.
        DataError: there are no good or no defective pictures besides those that were learnt, or a picture is said to
            be both.
        PictureError: a picture cannot be read.
    """
    path = Path(path)
    digest = file_sha256(path)
    judge = load_judge(path, **(running or {}))
    if file_sha256(path) != digest:
        raise DataError(f"{path} was replaced meanwhile. Run the command again.")
    known = {picture.sha256 for picture in judge.pictures_}
    given = [(part.truth, str(picture), digest_of(picture)) for part in parts for picture in part.pictures]
    learnt = [name for _, name, hashed in given if hashed in known]
    counting, copies = _without_copies([one for one in given if one[2] not in known])
    for truth, what in (("good", "good"), ("defect", "defective")):
        if not any(one[0] == truth for one in counting):
            raise DataError(
                f"Evidence needs good and defective pictures that the model has not learnt: no {what} ones."
            )
    tested = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = judge.predict_stream([name for _, name, _ in counting])
        for (truth, name, hashed), result in zip(counting, results, strict=True):
            if isinstance(result, PictureError):
                raise result
            tested.append(JudgedPicture(name, hashed, truth, result.verdict, result.score))
            if progress:
                progress("scoring", len(tested), len(counting))
    return Evidence(
        model=path.name,
        model_sha256=digest,
        facts=_facts(judge),
        criteria=criteria,
        tested=tested,
        learnt=learnt,
        copies=copies,
        threshold=float(judge.threshold_),
        at=datetime.now(timezone.utc),
        versions=_versions(),
        machine=_machine(),
    )


def _pictures_that_show(rate: float) -> int:
    """Return how many flawless pictures have an interval that ends at a rate of faults; 0 where no number has."""
    return math.ceil(math.log(_TAIL) / math.log1p(-rate)) if 0 < rate < 1 else 0


def _without_copies(given: Sequence[tuple[str, str, str]]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return truth, name and hash of each picture once, and the names of the copies.

    Raises:
        DataError: a picture is said to be good and a defect.
    """
    first: dict[str, tuple[str, str, str]] = {}
    copies = []
    for truth, name, hashed in given:
        if hashed not in first:
            first[hashed] = (truth, name, hashed)
        elif first[hashed][0] == truth:
            copies.append(name)
        else:
            raise DataError(f"{name} holds the same picture as {first[hashed][1]}: it cannot be good and a defect.")
    return list(first.values()), copies


def write_evidence(path: str | Path, evidence: Evidence) -> Path:
    """Write the sheet as a page and return its path.

    Raises:
        DataError: the folder cannot be made or written.
    """
    return write_page(path, _TEMPLATE, _values(evidence))


def evidence_html(evidence: Evidence) -> str:
    """Return the sheet as a page."""
    return str(render(_TEMPLATE, _values(evidence)))


def _values(evidence: Evidence) -> dict[str, object]:
    facts = {name: _in_words(value) for name, value in evidence.facts.items()}
    wrong = {"missed": ("defect", "good"), "false alarms": ("good", "defect")}
    return {
        "title": f"Evidence sheet of model {evidence.model}",
        "notes": [f"Made {evidence.at.strftime('%Y-%m-%d %H:%M')} UTC by totalrecall {__version__}."],
        "passed": evidence.passed,
        "numbers": {
            "good": str(evidence.false_alarms.total),
            "false alarms": str(evidence.false_alarms.count),
            "defects": str(evidence.found.total),
            "found": str(evidence.found.count),
            "threshold": number(evidence.threshold),
        },
        "sentences": evidence.sentences(),
        "hashes": {
            "model, SHA-256": evidence.model_sha256,
            "pictures and their truth, SHA-256": evidence.pictures_sha256,
        },
        "facts": facts,
        "versions": evidence.versions,
        "machine": evidence.machine,
        "wrong": {
            what: [
                f"{one.name} (score {one.score:.4g})"
                for one in evidence.tested
                if one.truth == truth and _is(one, said)
            ]
            for what, (truth, said) in wrong.items()
        },
        "heads": ("picture", "truth", "verdict", "SHA-256", "score"),
        "rows": [[one.name, one.truth, one.verdict, one.sha256, number(one.score, 4)] for one in evidence.tested],
    }


def _is(one: JudgedPicture, said: str) -> bool:
    return one.verdict != "defect" if said == "good" else one.verdict != "good"


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _facts(judge: "AnyJudge") -> dict[str, Any]:
    settings = judge.settings.stored()
    return {
        "kind": judge.kind,
        "backbone": judge.backbone.name,
        "backbone, SHA-256": judge.backbone.sha256,
        "good pictures learnt": len(judge.pictures_),
        "threshold promises": judge.promise_.in_words(),
        "settings": {name: value for name, value in settings.items() if value is not None},
        "preparation": {name: value for name, value in judge.recipe.to_json().items() if value is not None},
        "changes since the fit": len(judge.history_),
    }


def _versions() -> dict[str, str]:
    own = {"totalrecall": __version__, "python": platform.python_version()}
    return own | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count() or 0),
        "byte order": sys.byteorder,
    }


def _processor() -> str:
    """Return the processor's name: Linux tells it in a file alone."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
