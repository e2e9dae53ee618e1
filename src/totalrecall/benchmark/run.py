"""Methods x categories x seeds: which cells there are, which are done, and the rest measured one after the other.

Or by a cluster, where a `Way` says so. A finished cell is one line of JSON in `cells.jsonl`. Its key is a hash of
everything that its figures depend on. So a run that was stopped can be continued, and a changed setting makes new
cells.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalrecall.backbones import PUBLISHED, Backbone, available, load
from totalrecall.benchmark.cell import Cell, Progress, measure_family
from totalrecall.datasets import SETS, DataSet, open_dataset
from totalrecall.datasets.overlap import split_note
from totalrecall.errors import DataError, LearntPictureWarning, MissingExtraError, SettingError, TotalRecallError
from totalrecall.registry import KINDS, SETTINGS
from totalrecall.system.files import LARGEST, read_regular
from totalrecall.system.settings import declared
from totalrecall.system.text import human_seconds

__all__ = [
    "PRESETS",
    "BadCell",
    "Benchmark",
    "Journal",
    "Outcome",
    "Way",
    "as_advised",
    "check_settings",
    "detector_settings",
    "measured",
    "open_sets",
    "run_benchmark",
    "run_families",
    "weights_note",
]

# For each preset what all methods take, and under its name what a method alone takes.
#
# paper: the authors' code as its published results were made (arXiv 2106.08265; amazon-science/patchcore-inspection,
# IM224 WR50 10 %): its 1024 numbers a patch, the largest distance as score. Pure: nothing of ours is added.
# anomalib: its defaults of 2.x (`Patchcore`): squashed to 256, no crop; eq. 7 with 9 neighbours.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "all": {"backbone": "wide_resnet50_2", "size": 256, "resize": "crop", "crop": 224, "precision": "f32"},
        "patchcore": {
            "layers": (2, 3),
            "coreset": 0.1,
            "at_least": 1,
            "patch_size": 3,
            "stride": 1,
            "descriptor": "paper-code",
            "scoring": "max",
            "tilt_up_to": 0,
        },
    },
    "anomalib": {
        "all": {"backbone": "wide_resnet50_2.racm_in1k", "size": 256, "resize": "squash", "precision": "f32"},
        "patchcore": {
            "layers": (2, 3),
            "coreset": 0.1,
            "at_least": 1,
            "patch_size": 3,
            "stride": 1,
            "descriptor": "concat",
            "scoring": "paper",
            "neighbours": 9,
            "tilt_up_to": 0,
        },
    },
}

Outcome = tuple[Cell, dict[str, Any] | str, float]
"""A cell, with its line or why it could not be measured, and the seconds that this took."""

_APART = ("backbone", "roi", "seed", "threads")  # of a cell itself, not of its settings


@dataclass(frozen=True)
class BadCell:
    """A cell that could not be measured, and why in one line."""

    title: str
    message: str


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What to run. `settings` is for all methods that have them; `preset` gives those that are not in it.

    Attributes:
        layout, root: of the data set, see `datasets.open_dataset`.
        categories: of it, by name.
        methods: names of methods, of `registry.KINDS`.
        seeds: each makes a cell of its own.
        shots: numbers of good pictures to fit on; None for all of them.
        settings: arguments of the detectors; a path for `roi`.
        preset: of `PRESETS`, or None.
    """

    layout: str
    root: Path
    categories: Sequence[str]
    methods: Sequence[str] = tuple(KINDS)
    seeds: Sequence[int] = (42,)
    shots: Sequence[int | None] = (None,)
    settings: Mapping[str, Any] | None = None
    preset: str | None = None

    @property
    def backbone(self) -> str:
        """The name of the backbone of all cells."""
        given: Mapping[str, Any] = self.settings or {}
        fallback: Mapping[str, Any] = PRESETS[self.preset]["all"] if self.preset else {"backbone": "compact"}
        return str(given.get("backbone", fallback["backbone"]))

    @property
    def seen_only(self) -> bool:
        """Whether pixels are measured only where the crop showed the picture, as in the paper."""
        return self.preset == "paper" and (self.settings or {}).get("resize", "crop") == "crop"

    @property
    def whole(self) -> bool:
        """Whether these are all the categories that the data set officially has."""
        return set(self.categories) >= set(SETS[self.layout].counts) != set()

    @property
    def protocols(self) -> tuple[str, ...]:
        """Whose published values to compare with first, see `published.PROTOCOLS`."""
        coreset = detector_settings("patchcore", self.settings or {}, self.preset)["coreset"]
        paper: tuple[str, ...] = ("official-10", "paper-10", "paper-1")
        if coreset < 0.03:
            paper = ("paper-1", "official-10", "paper-10")
        elif coreset > 0.15:
            paper = ("paper-25", "official-10", "paper-10")
        anomalib = ("anomalib", "anomalib-2022")
        return (*anomalib, *paper, "own-paper") if self.preset == "anomalib" else (*paper, "own-paper", *anomalib)


def check_settings(methods: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse a setting that none of the methods has.

    Raises:
        SettingError: says which, and whose it is.
    """
    for name, value in settings.items():
        if any(_takes(method, name, value) for method in methods):
            continue
        allowing = [method for method in methods if name in declared(SETTINGS[method])]
        if allowing:
            rule = declared(SETTINGS[allowing[0]])[name].rule
            assert rule is not None
            rule.check(name, value)
        else:
            owners = " or ".join(method for method, kind in SETTINGS.items() if name in declared(kind))
            raise SettingError(
                f"{name} is only for {owners}, got methods {' '.join(methods)}. Leave it out.", name, "methods"
            )


def detector_settings(method: str, given: Mapping[str, Any], preset: str | None = None) -> dict[str, Any]:
    """Return every setting of a method: as given, else of the preset, else its default; what it has not is left out."""
    known = {name: what.default for name, what in declared(SETTINGS[method]).items() if name not in _APART}
    values = {**PRESETS[preset]["all"], **PRESETS[preset].get(method, {})} if preset else {}
    if given.get("resize", "crop") != "crop":
        values.pop("crop", None)  # the preset's, which belongs to its way of resizing
    values = {**known, **values, **{name: value for name, value in given.items() if _takes(method, name, value)}}
    return {name: values[name] for name in known}


def _takes(method: str, name: str, value: Any) -> bool:
    """Tell whether a method has a setting and allows the value: `scoring max` is for PatchCore alone."""
    what = declared(SETTINGS[method]).get(name)
    return what is not None and (what.rule is None or value is None or bool(what.rule.test(value)))


def as_advised(method: str, settings: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Return settings of a method with what the backbone advises where nothing was chosen.

    PaDiM and SPADE choose the layers themselves.
    """
    names = ("size", "patch_size", "layers") if method == "patchcore" else ("size",)
    advised = {name: getattr(backbone.advice, name) for name in names if settings.get(name) is None}
    return {**settings, **advised}


def weights_note(benchmark: Benchmark) -> str | None:
    """Say so where the preset's backbone is here, but is not known to be of the weights that the preset means."""
    name = PRESETS[benchmark.preset]["all"]["backbone"] if benchmark.preset else None
    if benchmark.backbone != name:
        return None  # chosen by the person
    remote = PUBLISHED[name]
    for info in available():
        if info.name == name and f"{remote.repository}@" not in info.source:
            return (
                f"The preset {benchmark.preset} is meant for the weights of {remote.repository}, but the backbone "
                f"{name} on this machine comes from {info.source or 'an unknown source'}. To get those weights: "
                f"totalrecall backbones add {name}"
            )
    return None  # or not here, and then it is fetched from there


class Journal:
    """Finished cells in a file, one line for each; a line that was cut off by a kill or a power cut is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, dict[str, Any]] = {}
        try:
            text = read_regular(path, limit=LARGEST["journal"]) if path.exists() else b""
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror or error}. Name another folder.") from None
        self._torn = bool(text) and not text.endswith(b"\n")
        for found in map(_parsed, text.split(b"\n")):
            if found is not None:
                self.lines[found["key"]] = found

    def append(self, line: dict[str, Any]) -> None:
        """Add a line in one write, on disk when this returns.

        Raises:
            DataError: it cannot be written.
        """
        data = json.dumps(line, allow_nan=False, ensure_ascii=True).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write((b"\n" if self._torn else b"") + data)
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"Cannot write {self.path}: {error.strerror or error}. Free some space.") from None
        self._torn = False
        self.lines[line["key"]] = line


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("key"), str) else None


@dataclass(frozen=True)
class Way:
    """Where cells are measured.

    Attributes:
        measure: given families of cells, those together that share a fit (see `cell.measure_family`), a folder for
            thumbnails or None, and what is told of the progress inside a cell; yields each cell's outcome.
        hands: how many cells are measured at a time.
    """

    measure: Callable[[Sequence[Sequence[Cell]], Path | None, Progress | None], Iterator[Outcome]]
    hands: int = 1


def run_benchmark(
    benchmark: Benchmark,
    folder: Path,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], object] | None = None,
    way: Way | None = None,
) -> tuple[list[dict[str, Any]], list[BadCell]]:
    """Measure the cells that are not done yet; return the lines of all that are, in order, and those that failed.

    Args:
        benchmark: what to run.
        folder: folder of `cells.jsonl` and `pictures/`; a run that was stopped is continued there.
        progress: called with (step, done, total); the step `cells` is the whole run.
        tell: called with a line of text for each cell.
        way: where cells are measured; in this process if not given.

    Raises:
        SettingError: a setting fits none of the methods, or is outside what is allowed.
        BackboneError: the backbone is not there.
        DataError: the folder cannot be written.
    """
    check_settings(benchmark.methods, benchmark.settings or {})
    cells, bad = _cells(benchmark, load(benchmark.backbone))
    for method in benchmark.methods:  # a setting that is not allowed is found out before any work
        for cell in [cell for cell in cells if cell.method == method][:1]:
            cell.detector()
    families = [[cell] for cell in cells]
    lines, failed = run_families(families, folder, pictures=True, progress=progress, tell=tell, way=way)
    return lines, [*bad, *failed]


def run_families(
    families: Sequence[Sequence[Cell]],
    folder: Path,
    *,
    pictures: bool,
    progress: Progress | None = None,
    tell: Callable[[str], object] | None = None,
    way: Way | None = None,
) -> tuple[list[dict[str, Any]], list[BadCell]]:
    """Measure the cells that are not done yet; return the lines of all that are, in order, and those that failed.

    Args:
        families: cells, those together that share a fit (see `cell.measure_family`).
        folder, progress, tell, way: as for `run_benchmark`.
        pictures: whether thumbnails of the best and worst pictures are kept.

    Raises:
        DataError: the folder cannot be written.
    """
    way = way or HERE
    journal = Journal(folder / "cells.jsonl")
    cells = [cell for family in families for cell in family]
    left = [[cell for cell in family if cell.key not in journal.lines] for family in families]
    done = sum(cell.key in journal.lines for cell in cells)
    pace = _Pace([cell for family in left for cell in family], way.hands)
    bad = []
    if tell is not None and done:
        tell(f"{done} of {len(cells)} cells are done already, see {journal.path}")
    outcomes = way.measure([family for family in left if family], folder / "pictures" if pictures else None, progress)
    for cell, outcome, seconds in outcomes:
        done += 1
        if isinstance(outcome, str):
            bad.append(BadCell(cell.title, outcome))
            pace.drop(cell)
        else:
            journal.append(outcome)
            pace.take(cell, seconds)
            if tell is not None:
                tell(f"[{done}/{len(cells)}] {cell.title}: {_figures(outcome)}{pace.words()}")
        if progress is not None:
            progress("cells", done, len(cells))
    return [journal.lines[cell.key] for cell in cells if cell.key in journal.lines], bad


def measured(
    families: Sequence[Sequence[Cell]], folder: Path | None, progress: Progress | None = None
) -> Iterator[Outcome]:
    """Measure cells in this process, one after the other; see `Way`.

    Raises:
        SettingError: this machine has not the engine or the device, so no cell can be measured.
    """
    for family in families:
        began = time.perf_counter()
        for cell, outcome in _outcomes(family, folder, progress):
            yield cell, outcome, time.perf_counter() - began
            began = time.perf_counter()


HERE = Way(measured)
"""In this process."""


def _outcomes(
    family: Sequence[Cell], folder: Path | None, progress: Progress | None
) -> Iterator[tuple[Cell, dict[str, Any] | str]]:
    """Yield each cell with its line, or with why it could not be measured.

    Raises:
        SettingError: this machine has not the engine or the device, so no cell can be measured.
    """
    left = list(family)
    try:
        for cell, line in measure_family(family, folder, progress) if family else ():
            left.remove(cell)
            yield cell, line
    except (TotalRecallError, MemoryError, OSError, RuntimeError, ValueError, ArithmeticError) as error:
        if isinstance(error, MissingExtraError) or (isinstance(error, SettingError) and "device" in error.settings):
            raise
        message = str(error) if isinstance(error, TotalRecallError) else f"{type(error).__name__}: {error}"
        yield from ((cell, message) for cell in left)


def open_sets(benchmark: Benchmark) -> tuple[list[tuple[int, DataSet]], list[BadCell]]:
    """Return each category's data for each seed, with the seed, and those that cannot be opened."""
    sets, bad = [], []
    for category in benchmark.categories:
        for seed in benchmark.seeds:
            try:
                data = open_dataset(benchmark.layout, benchmark.root, seed=seed, category=category)
            except DataError as error:
                bad.append(BadCell(f"{category} seed {seed}", str(error)))
                continue
            twice = split_note(data)
            if twice:
                warnings.warn(f"{category}: {twice}", LearntPictureWarning, stacklevel=2)
            sets.append((seed, data))
    return sets, bad


def _cells(benchmark: Benchmark, backbone: Backbone) -> tuple[list[Cell], list[BadCell]]:
    """Return all cells, and those of categories that cannot be opened."""
    given = dict(benchmark.settings or {})
    sets, bad = open_sets(benchmark)
    cells = [
        Cell(
            method,
            data,
            seed,
            backbone,
            as_advised(method, detector_settings(method, given, benchmark.preset), backbone),
            shots=shots,
            roi=Path(given["roi"]) if given.get("roi") else None,
            threads=given.get("threads"),
            seen_only=benchmark.seen_only,
        )
        for seed, data in sets
        for method in benchmark.methods
        for shots in benchmark.shots
    ]
    return cells, bad


class _Pace:
    """How long the cells that are left will take: as long as those of their method took on average, or as all did.

    Args:
        left: the cells.
        hands: how many are measured at a time.
    """

    def __init__(self, left: Sequence[Cell], hands: int) -> None:
        self.left = list(left)
        self._hands = hands
        self._took: dict[str, list[float]] = {}

    def drop(self, cell: Cell) -> None:
        self.left = [other for other in self.left if other is not cell]

    def take(self, cell: Cell, seconds: float) -> None:
        self._took.setdefault(cell.method, []).append(seconds)
        self.drop(cell)

    def words(self) -> str:
        every = [seconds for took in self._took.values() for seconds in took]
        if not self.left or not every:
            return ""
        of_method = [self._took.get(cell.method, every) for cell in self.left]
        seconds = sum(sum(took) / len(took) for took in of_method) / min(self._hands, len(self.left))
        return f"; about {human_seconds(seconds)} left"


def _figures(line: Mapping[str, Any]) -> str:
    shown = [("image AUROC", "image_auroc"), ("pixel AUROC", "pixel_auroc"), ("AUPRO", "pixel_aupro")]
    values = [
        f"{name} {'–' if line['metrics'][key] is None else format(100 * line['metrics'][key], '.1f')}"
        for name, key in shown
    ]
    return f"{', '.join(values)}; {sum(line['seconds'].values()):.1f} s"
