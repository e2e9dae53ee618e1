"""`totalrecall demo`: fit, judge, report on pictures that the program makes itself; it needs no file and no network."""

import argparse
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import add_output_options, complain, program_name, progress_bars, say
from totalrecall.cli.paths import BACKBONE, OUTPUT
from totalrecall.errors import PictureError, SettingError, only_picture_notices
from totalrecall.system.text import counted, human_bytes

if TYPE_CHECKING:
    from totalrecall.backbones import Backbone
    from totalrecall.datasets import DataSet, Sample
    from totalrecall.demo.index import IndexRow
    from totalrecall.detectors.fit_report import Progress
    from totalrecall.evaluation.evaluate import Evaluation
    from totalrecall.patchcore.detector import PatchCore
    from totalrecall.scoring import Result
    from totalrecall.types import Image

__all__ = ["add_parser"]

_KINDS = ("washer", "textile", "board", "wood", "blister")  # as `demo.pictures.KINDS`, which --help need not import
_TITLE = "Total Recall demo"
_MARK = ".totalrecall-demo"  # hidden, in the folder of a demo
_GOOD, _TEST_GOOD, _DEFECTIVE = 50, 10, 12
_RATE = 0.1  # 50 pictures can promise 1/51 at best: the usual 1 % would be an estimate
_SYNTHETIC = (
    "These are synthetic pictures, made by this program. They show what it does and how it tells you, "
    "not how well it will do on your parts: measure that with: totalrecall evaluate"
)
_PARTS = {"features": (0, 45), "coreset": (45, 60), "calibration": (60, 65), "scoring": (65, 90), "drawing": (90, 100)}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="see it work on pictures that it makes itself",
        description="Make synthetic pictures of parts, learn from the good ones, find the damaged ones, and write "
        "overlays, reports and models. Needs no file and no network.",
    )
    parser.add_argument(
        "-o",
        "--out",
        "--output",
        default="totalrecall-demo",
        metavar="DIR",
        type=OUTPUT,
        help="folder to write to (default: %(default)s)",
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=_KINDS, default=list(_KINDS), help="kinds of parts to draw (default: all)"
    )
    parser.add_argument(
        "--backbone",
        default="compact",
        metavar="NAME",
        type=BACKBONE,
        help="name of the backbone; totalrecall backbones list shows all (default: compact)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the pictures and of all random choices (default: 0)"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make pictures, fit, score, show; returns the exit code."""
    from totalrecall.backbones import load
    from totalrecall.demo.index import write_index

    began = time.perf_counter()
    out, kinds = Path(args.out), list(dict.fromkeys(args.kinds))
    backbone = load(args.backbone)  # first: without it the pictures are of no use
    parts = f"{len(kinds)} kinds of parts" if len(kinds) > 1 else "1 kind of part"
    _claim(out, kinds)
    say(args, f"Making synthetic pictures of {parts} in {out}, for each:")
    say(args, f"{_GOOD} good pictures to learn from, {_TEST_GOOD} good and {_DEFECTIVE} damaged pictures to test on")
    _make_pictures(args, kinds, out)
    say(args, f"Fitting and scoring with the backbone {backbone.name}. {_promise()}")
    outcomes = [_show_kind(args, kind, out, backbone) for kind in kinds]
    commands = _commands(backbone.name, out / kinds[0])
    seconds = time.perf_counter() - began
    index = write_index(
        out / "index.html",
        title=_TITLE,
        rows=[row for row, _ in outcomes],
        notes=(
            _SYNTHETIC,
            f"For each kind of part, a PatchCore detector learnt from {_GOOD} good pictures and no defect, with the "
            f"backbone {backbone.name}. Then it judged {_TEST_GOOD} good and {_DEFECTIVE} damaged pictures that it had "
            "not seen.",
            f"{_promise()} It took {seconds:.0f} s in all, making the pictures included.",
        ),
        commands=commands,
    )
    say(args, f"Done in {seconds:.1f} s. Now open {index}")
    say(args, f"Overlays: {out / '*' / 'overlays'}; models: {out / '*' / '*.trecall'}")
    for what, command in commands.items():
        say(args, what)
        say(args, f"    {command}")
    return 1 if any(bad for _, bad in outcomes) else 0


def _claim(out: Path, kinds: list[str]) -> None:
    """Mark the folder as the demo's, unless somebody else's files lie where the demo would write.

    Raises:
        SettingError: they do.
        DataError: the folder cannot be written.
    """
    from totalrecall.system.files import LARGEST, atomic_write, read_regular

    mark, index = out / _MARK, out / "index.html"
    try:
        earlier = _TITLE.encode() in read_regular(index, limit=LARGEST["table"])  # of a version without the mark
    except OSError:
        earlier = False
    if not earlier and not mark.is_file():
        taken = [index, *(file for kind in kinds for file in sorted((out / kind).rglob("*")) if not file.is_dir())]
        for file in taken:
            if os.path.lexists(file):
                raise SettingError(
                    f"--out {out} would write among files that no demo wrote, such as {file}. Name another folder."
                )
    atomic_write(mark, b"Pictures, models and reports of `totalrecall demo`, which writes over them.\n")


def _promise() -> str:
    return (
        f"The threshold is set for {_RATE:.0%} false alarms on average, by cross-validation on the {_GOOD} good "
        f"pictures. {_GOOD} pictures cannot promise fewer than 1 in {_GOOD + 1}."
    )


def _commands(backbone: str, shown: Path) -> dict[str, str]:
    option = "" if backbone == "compact" else f" --backbone {shlex.quote(backbone)}"
    program = program_name()
    names = (f"{shown.name}.trecall", "pictures/test", "heatmaps")
    model, pictures, heatmaps = (shlex.quote(str(shown / name)) for name in names)
    return {
        "Judge the demo's pictures again:": f"{program} predict {model} {pictures} --heatmaps {heatmaps}",
        "Learn from your own good parts:": f"{program} fit FOLDER_OF_GOOD_PICTURES -o part.trecall{option}",
        "Then judge new ones:": f"{program} predict part.trecall NEW_PICTURES --heatmaps heatmaps",
    }


def _make_pictures(args: argparse.Namespace, kinds: list[str], out: Path) -> None:
    from totalrecall.demo.pictures import make_dataset

    with progress_bars(args) as progress:
        for done, kind in enumerate(kinds):
            if progress:
                progress("pictures", done, len(kinds))
            make_dataset(
                out / kind / "pictures",
                kind=kind,
                good=_GOOD,
                test_good=_TEST_GOOD,
                defective=_DEFECTIVE,
                seed=args.seed,
            )
        if progress:
            progress("pictures", len(kinds), len(kinds))


# ---------------------------------------------------------------------- one kind


def _show_kind(
    args: argparse.Namespace, kind: str, out: Path, backbone: "Backbone"
) -> "tuple[IndexRow, list[tuple[str, str]]]":
    """Fit, save, score and show one kind of part; return its row of the index, and the files that were bad."""
    from totalrecall.datasets import open_dataset
    from totalrecall.evaluation.evaluate import evaluate
    from totalrecall.patchcore.detector import PatchCore

    began = time.perf_counter()
    folder = out / kind
    data = open_dataset("mvtec", folder / "pictures")
    with progress_bars(args) as bars:

        def step(name: str, done: int, total: int) -> None:
            if bars:
                first, last = _PARTS[name]
                bars(kind, first + (last - first) * done // max(total, 1), 100)

        detector = PatchCore(backbone=backbone, false_alarm_rate=_RATE, seed=args.seed)
        with only_picture_notices():  # that a drawn picture is unlike the others is no news here
            detector.fit(data.train, progress=step)
        detector.save(folder / f"{kind}.trecall")
        judged: list[tuple[Sample, Result]] = []

        def keep(sample: "Sample", outcome: "Result | PictureError") -> None:
            if not isinstance(outcome, PictureError):
                judged.append((sample, outcome))

        evaluation = evaluate(
            detector, data.test, progress=lambda done, total: step("scoring", done, total), heard=keep
        )
        overlays = _draw(judged, folder / "overlays", step)
    bad = [(str(file.path), file.message) for file in evaluation.bad]
    for _, message in bad:
        complain(message)
    _report(kind, folder, data, detector, evaluation, judged, overlays)
    row = _row(kind, detector, evaluation, judged, overlays)
    _tell(args, row, time.perf_counter() - began)
    return row, bad


def _draw(judged: "list[tuple[Sample, Result]]", folder: Path, step: "Progress") -> "list[tuple[Image, Path]]":
    """Write an overlay for each picture, such as `overlays/scratch-000.png`."""
    from totalrecall.pictures.overlay import save_overlay

    overlays = []
    for done, (sample, result) in enumerate(judged, start=1):
        overlay = result.overlay(title=f"{sample.defect}/{sample.path.name}")
        overlays.append((overlay, save_overlay(folder / f"{sample.defect}-{sample.path.stem}.png", overlay)))
        step("drawing", done, len(judged))
    return overlays


def _report(
    kind: str,
    folder: Path,
    data: "DataSet",
    detector: "PatchCore",
    evaluation: "Evaluation",
    judged: "list[tuple[Sample, Result]]",
    overlays: "list[tuple[Image, Path]]",
) -> None:
    from dataclasses import replace

    from totalrecall.reports.gallery import ReportEntry
    from totalrecall.reports.report import write_report

    fit = detector.report_
    assert fit is not None
    entries = [
        replace(
            ReportEntry.of(result, overlay=overlay, label=sample.label, defect=sample.defect),
            nearest_file=None if result.nearest is None else result.nearest.path,  # made by this very command
        )
        for (sample, result), (overlay, _) in zip(judged, overlays, strict=True)
    ]
    model = folder / f"{kind}.trecall"
    write_report(
        folder / "report.html",
        title=f"Total Recall demo: {kind}",
        model_info={
            "learnt from": f"{len(data.train)} good pictures in {folder / 'pictures' / 'train' / 'good'}",
            "backbone": detector.backbone.name,
            "memory bank": f"{fit.vectors} of {fit.patches} patches, {fit.dimensions} numbers each",
            "model": f"{model} ({human_bytes(model.stat().st_size)})",
            "seconds": f"{sum(fit.seconds[part] for part in ('features', 'coreset', 'calibration')):.1f} to fit, "
            f"{evaluation.seconds:.1f} to score {evaluation.images} pictures and measure",
        },
        entries=entries,
        bad_files=[(str(file.path), file.message) for file in evaluation.bad],
        notes=(_SYNTHETIC,),
        promise=detector.promise_,
        measured=evaluation,
    )


def _row(
    kind: str,
    detector: "PatchCore",
    evaluation: "Evaluation",
    judged: "list[tuple[Sample, Result]]",
    overlays: "list[tuple[Image, Path]]",
) -> "IndexRow":
    from totalrecall.demo.index import IndexRow

    by_label = [[result for sample, result in judged if sample.label == label] for label in (0, 1)]
    good, defective = by_label
    return IndexRow(
        kind,
        report=Path(kind) / "report.html",
        model=Path(kind) / f"{kind}.trecall",
        image_auroc=evaluation.image_auroc,
        pixel_auroc=evaluation.pixel_auroc,
        threshold=detector.threshold_,
        good=len(good),
        defective=len(defective),
        found=sum(result.is_anomalous is True for result in defective),
        false_alarms=sum(result.is_anomalous is True for result in good),
        overlays=_typical(judged, overlays),
    )


def _typical(judged: "list[tuple[Sample, Result]]", overlays: "list[tuple[Image, Path]]") -> "list[tuple[str, Image]]":
    """Return the damaged and the good picture with the middle score: neither the best nor the worst is picked out."""
    shown = []
    for label, words in ((1, "damaged"), (0, "good")):
        ranked = sorted(
            (result.score, position) for position, (sample, result) in enumerate(judged) if sample.label == label
        )
        if ranked:
            position = ranked[len(ranked) // 2][1]
            defect = judged[position][0].defect
            caption = f"{words}: {defect}, the middle one by score" if label else f"{words}, the middle one by score"
            shown.append((caption, overlays[position][0]))
    return shown


def _tell(args: argparse.Namespace, row: "IndexRow", seconds: float) -> None:
    alarms = counted(row.false_alarms, "false alarm")
    say(
        args,
        f"{row.name:<8} found {row.found:>2} of {row.defective} defects, {alarms} in {row.good} good; "
        f"image AUROC {row.image_auroc:.3f}, pixel AUROC {row.pixel_auroc:.3f}; {seconds:.1f} s",
    )
