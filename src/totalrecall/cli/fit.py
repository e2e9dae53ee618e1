"""`totalrecall fit`: good pictures -> a model file."""

import argparse
import glob
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import (
    add_output_options,
    check_target,
    complain,
    print_table,
    progress_bars,
    say,
    write_json,
)
from totalrecall.cli.options import (
    FIT_SETTINGS,
    add_reading_options,
    add_setting_options,
    add_split_options,
    fraction,
    given_settings,
    make_detector,
    memory_size,
    tell_region,
    training_pictures,
)
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.cli.spread_fit import (
    add_cluster_options,
    announce_spread,
    check_cluster,
    good_pictures,
    kept_for,
    spread_over,
    tell_cluster,
)
from totalrecall.errors import DataError, SettingError, only_picture_notices
from totalrecall.registry import SETTINGS
from totalrecall.system.text import counted, human_bytes, listed

if TYPE_CHECKING:
    from totalrecall.cluster.kept import KeptFit
    from totalrecall.detectors.one_pass import OnePassPlan
    from totalrecall.patchcore.plan import JoinedPlan, Plan
    from totalrecall.pictures.loading import Source
    from totalrecall.registry import AnyDetector
    from totalrecall.tuning import Tuning

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "fit",
        help="learn what good pictures look like",
        description="Learn from good pictures only and write a model file. No defect is needed.",
    )
    parser.add_argument(
        "good",
        nargs="*",  # see _GoodPictures
        action=_GoodPictures,
        metavar="GOOD",
        type=INPUT,
        help="files, folders or globs; with --layout the data set's root",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="MODEL", type=OUTPUT, help="model file to write, such as part.trecall"
    )
    add_split_options(parser)
    parser.add_argument(
        "--method", choices=tuple(SETTINGS), default="patchcore", help="detection method (default: %(default)s)"
    )
    parser.add_argument(
        "--json", metavar="FILE", type=OUTPUT, help="write facts about the fit as JSON ('-' for stdout)"
    )
    parser.add_argument(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help="most memory that the program may use, such as 2GB (default: half of the free memory)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first find settings for these parts: try sizes, layers, scores and backbones on defects that are planted "
        "on held-out good pictures, and keep what finds clearly more",
    )
    parser.add_argument(
        "--budget-ms",
        type=fraction,
        metavar="MS",
        help="most milliseconds per picture, for --tune (default: twice those of the settings as given)",
    )
    parser.add_argument("--no-embed", action="store_true", help="leave the backbone out of the model file")
    add_reading_options(parser)
    add_cluster_options(parser)
    add_output_options(parser)
    add_setting_options(parser, FIT_SETTINGS)
    parser.set_defaults(run=run)


class _GoodPictures(argparse.Action):
    """One or more paths; also those after `--backbone NAME`, which takes several names."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,  # noqa: ARG002  what argparse calls it with
    ) -> None:
        """Take the paths, or the values of --backbone from the first that is one."""
        good = list(values or ())
        names = namespace.backbone or []
        if not good:
            first = next((at for at, name in enumerate(names) if at and _is_path(name)), len(names))
            good = names[first:]
            namespace.backbone = names[:first] or None
        if not good:
            parser.error("the following arguments are required: GOOD")
        setattr(namespace, self.dest, good)


def _is_path(name: str) -> bool:
    """Tell whether a word is the path of pictures rather than the name or the file of a backbone."""
    if name.endswith(".onnx"):
        return False
    return "/" in name or os.sep in name or glob.has_magic(name) or os.path.lexists(name)


def run(args: argparse.Namespace) -> int:
    """Fit and save."""
    output = Path(args.output)
    if output.is_dir():  # found out now, not after the work
        raise DataError(f"{output} is a folder. Give a file to write, such as {output / 'part.trecall'}.")
    check_target("--output", args.output)
    check_target("--json", args.json)
    check_cluster(args)
    eight_bits = args.precision == "int8"
    if eight_bits and args.no_embed:
        raise SettingError("--no-embed leaves the backbone out, and with --precision int8 no other file has it.")
    if eight_bits:
        args.precision = None  # of the fit that the one with 8 bits is compared with
    detector = make_detector(args)
    tell_region(args, detector.region)
    pictures = training_pictures(args) if args.ray is None else good_pictures(args)
    tuning = _tuned(args, pictures)
    if tuning is not None:
        detector = tuning.detector()
    with kept_for(args) as kept:
        if args.ray is not None:
            _fit_spread(args, detector, pictures, kept)
        else:
            detector = _fit_here(args, detector, pictures, eight_bits=eight_bits)
        for error in detector.skipped_:
            complain(error)
        if tuning is not None and tuning.rows:
            from totalrecall.patchcore.detector import PatchCore

            assert isinstance(detector, PatchCore)
            detector.keep_tuning(tuning.to_json())
        detector.save(output, embed_backbone=not args.no_embed)
        if kept is not None:
            kept.remove()
    _tell(args, detector, output, pictures)
    return 1 if detector.skipped_ else 0


def _fit_here(
    args: argparse.Namespace, detector: "AnyDetector", pictures: "Sequence[Source]", *, eight_bits: bool
) -> "AnyDetector":
    """Fit in this process; returns the detector, another one where it has 8 bits."""
    with only_picture_notices(), progress_bars(args) as progress:  # each skipped picture is named later
        fitting = {"memory": args.memory, "announce": lambda plan: _announce(args, plan), "progress": progress}
        if eight_bits:
            from totalrecall.tuning import fit_int8

            detector, compared = fit_int8(detector, pictures, **fitting)
            say(args, f"8 bits: {compared.in_words()}")
        else:
            detector.fit(pictures, **fitting)
    return detector


def _fit_spread(
    args: argparse.Namespace, detector: "AnyDetector", pictures: "Sequence[Source]", kept: "KeptFit | None"
) -> None:
    """Fit on a cluster, or go on with what an earlier fit kept."""
    from totalrecall.patchcore.detector import PatchCore

    assert isinstance(detector, PatchCore)
    with spread_over(args, kept) as spread:
        with only_picture_notices(), progress_bars(args) as progress:
            announce = partial(announce_spread, args)
            known = spread.survey(pictures, progress)
            detector.fit(known, announce=announce, progress=progress, way=spread.way)
        assert detector.report_ is not None
        tell_cluster(args, detector.report_, spread)


def _tuned(args: argparse.Namespace, pictures: "Sequence[Source]") -> "Tuning | None":
    """Find settings by planted defects where --tune asks for it, and show what was tried."""
    if not args.tune:
        if args.budget_ms is not None:
            raise SettingError("--budget-ms is for --tune. Add --tune, or leave it out.", "budget_ms")
        return None
    if args.method != "patchcore":
        raise SettingError(f"--tune is only for method patchcore, got method {args.method}. Leave it out.", "tune")
    if args.sizes is not None or isinstance(args.backbone, list):
        name = "sizes" if args.sizes is not None else "backbone"
        got = " ".join(map(str, getattr(args, name)))
        raise SettingError(
            f"--tune tries settings of one memory bank, got {name} {got}. Leave --tune out, or give one {name}.",
            "tune",
            name,
        )
    from rich.table import Table

    from totalrecall.patchcore.settings import Settings
    from totalrecall.tuning import tune

    given = given_settings(args, Settings)
    say(args, "Tuning: several settings are fitted and tried on planted defects; a setting that you give stays.")
    with progress_bars(args) as progress:
        tuning = tune(
            pictures,
            Settings(**given),
            budget_ms=args.budget_ms,
            fixed=given,
            memory=args.memory,
            progress=progress,
        )
    heads = ("settings", "found", "share %", "+/-", "good called", "ms", "")
    table = Table(*heads, box=None, pad_edge=False)
    for row in tuning.rows:
        better = f"{row.better:+.1f} +/- {row.error:.1f}" if row.changes else ""
        cells = (f"{row.found} of {row.planted}", f"{row.share:.1f}", better, f"{row.false_alarms} of {row.good}")
        table.add_row(row.name, *cells, f"{row.milliseconds:.3g}", "chosen" if row.chosen else row.note)
    if not args.quiet and tuning.rows:
        print_table(table)
    say(args, tuning.sentence())
    return tuning


def _announce(args: argparse.Namespace, plan: "Plan | JoinedPlan | OnePassPlan") -> None:
    """Say what the fit will need, before it starts."""
    from totalrecall.detectors.one_pass import OnePassPlan
    from totalrecall.patchcore.plan import JoinedPlan

    if isinstance(plan, JoinedPlan):
        say(
            args,
            f"Plan: {len(plan.plans)} fits one after the other, a memory bank each; at most {human_bytes(plan.memory)} "
            f"of memory (allowed {human_bytes(plan.limit)})",
        )
        for name, own in zip(plan.names, plan.plans, strict=True):
            _announce_bank(args, own, name)
    elif isinstance(plan, OnePassPlan):
        say(
            args,
            f"Plan: {counted(plan.pictures, 'picture')}, a model of {human_bytes(plan.model)}; at most "
            f"{human_bytes(plan.memory)} of memory (allowed {human_bytes(plan.limit)})",
        )
    else:
        _announce_bank(args, plan, "Plan")


def _announce_bank(args: argparse.Namespace, plan: "Plan", name: str) -> None:
    """Say what the fit of one memory bank will need."""
    from totalrecall.patchcore.fitting import chunked_note
    from totalrecall.system.text import format_size

    scratch = f"{human_bytes(plan.scratch)} of scratch" if plan.scratch else "no scratch"
    say(
        args,
        f"{name}: {counted(plan.pictures, 'picture')}, {plan.patches} patches of {plan.dimensions} numbers "
        f"({human_bytes(4 * plan.patches * plan.dimensions)}); at most {human_bytes(plan.memory)} of memory "
        f"(allowed {human_bytes(plan.limit)}), {scratch}",
    )
    if plan.way == "chunks":
        note = chunked_note(plan)
        say(args, f"Note: {note.removesuffix('.')} (--memory {format_size(plan.exact)}).")


def _tell(args: argparse.Namespace, detector: "AnyDetector", output: Path, pictures: "Sequence[Source]") -> None:
    report = detector.report_
    assert report is not None
    seconds = report.seconds
    coreset = f"coreset {seconds['coreset']:.1f} s, " if "coreset" in seconds else ""
    say(args, detector.summary())
    depth = detector.recipe.depth
    if depth is not None and depth.words():
        say(args, depth.words() or "")
    promise = detector.promise_
    say(args, promise.in_words())
    levels = promise.levels_in_words()
    if levels:
        say(args, f"{levels}. To change it: totalrecall update {output} --false-alarm-rate RATE")
    say(
        args,
        f"Time: features {seconds['features']:.1f} s (decoding {seconds['decode']:.1f} s, in parallel), "
        f"{coreset}calibration {seconds['calibration']:.1f} s; peak memory {human_bytes(report.peak_memory)}",
    )
    _tell_repeats(args, detector)
    note = promise.note()
    if note and math.isnan(promise.threshold):
        complain(f"warning: {note}")  # with --quiet too: such a model judges nothing
    elif note:
        say(args, f"Note: {note}")
    _tell_repeated(args, detector)
    bar = _tell_bar(args, detector, pictures)
    _tell_outliers(args, detector)
    say(args, f"Wrote {output} ({human_bytes(output.stat().st_size)})")
    if args.json:
        from dataclasses import asdict

        calibration = detector.calibration_
        facts = {"model": str(output), **promise.facts()}
        rows = getattr(detector, "tuning_", None)
        facts |= {} if rows is None else {"tuning": [dict(row) for row in rows]}
        facts |= {} if bar is None else {"set_by": bar}
        facts |= {"parts": calibration.parts, "new_parts": calibration.new_parts}
        skipped = [str(error) for error in detector.skipped_]
        outliers = getattr(detector, "outliers_", [])
        write_json(
            args.json, {**facts, **asdict(report), "skipped": skipped, "outliers": outliers, "notices": args.notices}
        )


def _tell_repeats(args: argparse.Namespace, detector: "AnyDetector") -> None:
    """Say which pictures were left out as repeats of others."""
    from totalrecall.pictures.copies import repeats_note

    assert detector.report_ is not None
    repeats = detector.report_.repeats
    if repeats:
        given = len(repeats) + len(detector.pictures_) + len(detector.skipped_)
        say(args, f"Note: {repeats_note(repeats, given)}")


def _tell_repeated(args: argparse.Namespace, detector: "AnyDetector") -> None:
    """Say where many pictures show the same part, and what it means for the stated rate."""
    from totalrecall.outliers.notes import repeated_note

    note = repeated_note(detector.calibration_)
    if note:
        say(args, f"Note: {note}")


def _tell_bar(
    args: argparse.Namespace, detector: "AnyDetector", pictures: "Sequence[Source]"
) -> "dict[str, object] | None":
    """Name good pictures that set the threshold alone, and say what is found with and without them; return the facts.

    Planted defects take a while, so there are none where nobody reads the note.
    """
    from totalrecall.outliers.notes import bar_of

    bar = bar_of(detector.calibration_, detector.pictures_)
    if bar is None or (args.quiet and not args.json):
        return None
    from totalrecall.tuning import found_above

    try:
        found, planted = found_above(detector, pictures, (bar.threshold, bar.without), seed=detector.settings.seed)
    except DataError:  # a part too small to plant on: the thresholds say enough
        found, planted = [], 0
    say(args, f"Note: {bar.in_words(found, planted)}")
    facts: dict[str, object] = {"pictures": bar.pictures, "threshold_without": bar.without}
    return {**facts, "planted": planted, "found": found[0], "found_without": found[1]} if planted else facts


def _tell_outliers(args: argparse.Namespace, detector: "AnyDetector") -> None:
    """Name good pictures that are unlike the others, or what was left out of them."""
    from totalrecall.outliers.notes import outlier_note

    names = getattr(detector, "outliers_", [])
    if not names:
        return
    if args.ignore_outliers:
        which = "1 picture that is" if len(names) == 1 else f"{len(names)} pictures that are"
        say(args, f"Left out the bad patches of {which} unlike the others: {listed(names, 3)}")
    else:
        say(args, f"Note: {outlier_note(names, len(detector.calibration_.scores))}")
