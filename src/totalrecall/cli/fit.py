"""`totalrecall fit`: good pictures -> a model file."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import (
    add_output_options,
    add_reading_options,
    add_split_options,
    check_target,
    complain,
    fraction,
    human_bytes,
    progress_bars,
    say,
    write_json,
)
from totalrecall.cli.paths import BACKBONE, INPUT, OUTPUT
from totalrecall.errors import DataError, SettingError
from totalrecall.notices import only_picture_notices
from totalrecall.wording import counted

if TYPE_CHECKING:
    from totalrecall.kinds import AnyDetector
    from totalrecall.masks import Marking
    from totalrecall.onepass import OnePassPlan
    from totalrecall.plan import Plan

__all__ = [
    "add_detector_options",
    "add_parser",
    "add_preparation_options",
    "make_detector",
    "memory_size",
    "tell_region",
    "training_pictures",
]


METHODS = ("patchcore", "padim", "spade")  # as `kinds.KINDS`, without importing it to show --help


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "fit",
        help="learn what good pictures look like",
        description="Learn from good pictures only and write a model file. No defect is needed.",
    )
    parser.add_argument(
        "good", nargs="+", metavar="GOOD", type=INPUT, help="files, folders or globs; with --layout the data set's root"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="MODEL", type=OUTPUT, help="model file to write, such as part.trecall"
    )
    add_split_options(parser)
    add_detector_options(parser)
    parser.add_argument(
        "--json", metavar="FILE", type=OUTPUT, help="write what the fit did and took, as JSON ('-' for stdout)"
    )
    parser.add_argument(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help="most that this program may hold, such as 2GB, whatever the number of pictures (default half of the free)",
    )
    parser.add_argument("--no-embed", action="store_true", help="leave the backbone out of the model file")
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the settings of detectors. Those that only some methods have default to None: each class has its own."""
    group = parser.add_argument_group("detector")
    group.add_argument("--method", choices=METHODS, default="patchcore", help="of detection (default %(default)s)")
    group.add_argument(
        "--backbone", default="compact", metavar="NAME", type=BACKBONE, help="see `totalrecall backbones list`"
    )
    group.add_argument(
        "--layers",
        type=int,
        nargs="+",
        metavar="N",
        help="whose features are joined (default 2 3; for padim and spade all of 1 2 3 that the backbone has)",
    )
    group.add_argument("--coreset", type=fraction, metavar="SHARE", help="of patches kept (patchcore; default 0.01)")
    group.add_argument(
        "--at-least", type=int, metavar="N", help="patches kept, whatever the share (patchcore; default 2000)"
    )
    group.add_argument(
        "--coreset-radius",
        type=float,
        metavar="DISTANCE",
        help="end early once every patch is within this distance of a kept one (patchcore; default 0: never)",
    )
    add_preparation_options(group)
    group.add_argument(
        "--patch-size", type=int, metavar="P", help="neighbourhood of a patch, odd (patchcore; default 3)"
    )
    group.add_argument("--stride", type=int, metavar="S", help="step of the patch grid (patchcore; default 1)")
    group.add_argument("--descriptor", metavar="NAME", help="concat or paper-code (patchcore; default concat)")
    group.add_argument("--scoring", metavar="NAME", help="map1pct, top1pct, max or paper (patchcore; default map1pct)")
    group.add_argument(
        "--neighbours",
        type=int,
        metavar="K",
        help="patchcore: of eq. 7, for --scoring paper (default 9); spade: good pictures looked at (default 50)",
    )
    group.add_argument(
        "--dimensions", type=int, metavar="D", help="channels drawn (padim; default 100 of up to 512, 550 of more)"
    )
    group.add_argument(
        "--ignore-outliers",
        action="store_const",
        const=True,
        help="leave out the bad patches of good pictures that are unlike all others (patchcore; see audit)",
    )
    _add_threshold_options(group)
    group.add_argument("--precision", default="auto", metavar="NAME", help="auto (default), f32 or bf16")
    group.add_argument("--threads", type=int, metavar="N", help="of the backbone (default: all cores)")


def _add_threshold_options(group: "argparse._ArgumentGroup") -> None:
    """Add what the threshold is to hold for, and how it is set."""
    group.add_argument(
        "--false-alarm-rate", type=fraction, default=0.01, metavar="RATE", help="of good pictures (default 0.01)"
    )
    group.add_argument(
        "--holdout",
        type=fraction,
        default=0.2,
        metavar="SHARE",
        help="of good pictures that set the threshold where some are held out together (default 0.2; 0: no verdict)",
    )
    group.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="good pictures set the threshold in K folds, each scored without its fold; 1 holds a share out together "
        "(patchcore; default 20, 1 over a thousand pictures)",
    )
    group.add_argument(
        "--new-parts",
        action="store_const",
        const=True,
        help="the rate is for parts to come: photographs of one part, told by its surface, are held out together "
        "(patchcore)",
    )
    group.add_argument(
        "--min-area", type=int, default=1, metavar="PIXELS", help="smallest region that is marked (default 1)"
    )


def add_preparation_options(group: "argparse._ArgumentGroup") -> None:
    """Add how pictures are prepared, the same for whatever learns from them."""
    group.add_argument(
        "--size", type=int, default=256, metavar="PIXELS", help="side of the prepared picture (default 256)"
    )
    group.add_argument("--resize", default="squash", metavar="MODE", help="squash, letterbox or crop (default squash)")
    group.add_argument("--crop", type=int, metavar="PIXELS", help="with --resize crop: side of the middle that is kept")
    group.add_argument(
        "--tile", type=int, default=1, metavar="N", help="see the picture N times as large, in N x N pieces (default 1)"
    )
    group.add_argument(
        "--roi",
        metavar="MASK",
        type=INPUT,
        help="picture that marks the region to inspect: white on black, or painted on transparent",
    )
    group.add_argument(
        "--bit-depth",
        default="auto",
        metavar="BITS",
        help="that the camera of 16-bit pictures has: 8 to 16, or auto: found over all of them (default auto)",
    )


_PREPARATION = ("size", "resize", "crop", "tile", "roi", "bit_depth")
_COMMON = ("backbone", *_PREPARATION, "false_alarm_rate", "holdout", "min_area", "precision", "seed")
_BANK = ("coreset", "at_least", "coreset_radius", "ignore_outliers", "folds", "new_parts")
_OWN = ("layers", *_BANK, "patch_size", "stride", "descriptor", "scoring")
_OF_METHOD = (*_OWN, "neighbours", "dimensions")


def make_detector(args: argparse.Namespace) -> "AnyDetector":
    """Return an unfitted detector from the parsed options.

    Raises:
        SettingError: an option was given that its method does not have.
    """
    from inspect import signature

    from totalrecall.kinds import KINDS, detector_class

    kind = detector_class(args.method)
    given = {name: getattr(args, name) for name in _OF_METHOD if getattr(args, name) is not None}
    for name in given:
        if name not in signature(kind).parameters:
            owners = [other for other in KINDS if name in signature(detector_class(other)).parameters]
            raise SettingError(f"{name} is for method {' or '.join(owners)}, got --method {args.method}. Leave it out.")
    make: Any = kind
    detector: AnyDetector = make(**{name: getattr(args, name) for name in _COMMON}, **given, threads=args.threads)
    return detector


def run(args: argparse.Namespace) -> int:
    """Fit and save."""
    output = Path(args.output)
    if output.is_dir():  # found out now, not after the work
        raise DataError(f"{output} is a folder. Give a file to write, such as {output / 'part.trecall'}.")
    check_target("--output", args.output)
    check_target("--json", args.json)
    detector = make_detector(args)
    tell_region(args, detector.region)
    pictures = training_pictures(args)
    with only_picture_notices(), progress_bars(args) as progress:  # each skipped picture is named below
        announce = None if args.quiet and not args.json else (lambda plan: _announce(args, plan))
        detector.fit(pictures, memory=args.memory, announce=announce, progress=progress)
    for error in detector.skipped_:
        complain(error)
    detector.save(output, embed_backbone=not args.no_embed)
    _tell(args, detector, output)
    return 1 if detector.skipped_ else 0


def tell_region(args: argparse.Namespace, region: "Marking | None") -> None:
    """Say how much of the picture the region of interest leaves, before the work: a mask may be read otherwise."""
    from totalrecall.masks import roi_words

    if region is not None:
        say(args, roi_words(region))


def memory_size(text: str) -> int:
    """Return the bytes of a size as a person writes it, for argparse."""
    from totalrecall.memory import parse_size

    try:
        return parse_size(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("memory ")) from None


def _announce(args: argparse.Namespace, plan: "Plan | OnePassPlan") -> None:
    """Say what the fit will take, before it starts."""
    from totalrecall.learning import chunked_note
    from totalrecall.memory import format_size
    from totalrecall.onepass import OnePassPlan

    if isinstance(plan, OnePassPlan):
        say(
            args,
            f"Plan: {counted(plan.pictures, 'picture')}, a model of {human_bytes(plan.model)}; at most "
            f"{human_bytes(plan.memory)} of memory (allowed {human_bytes(plan.limit)})",
        )
        return
    time = "" if math.isnan(plan.seconds) else f", about {_duration(plan.seconds)}"
    scratch = f"{human_bytes(plan.scratch)} of scratch" if plan.scratch else "no scratch"
    say(
        args,
        f"Plan: {counted(plan.pictures, 'picture')}, {plan.patches} patches of {plan.dimensions} numbers "
        f"({human_bytes(4 * plan.patches * plan.dimensions)}); at most {human_bytes(plan.memory)} of memory "
        f"(allowed {human_bytes(plan.limit)}), {scratch}{time}",
    )
    if plan.way == "chunks":
        note = chunked_note(plan)
        say(args, f"Note: {note.removesuffix('.')} (--memory {format_size(plan.exact)}).")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def training_pictures(args: argparse.Namespace) -> list[Path]:
    """Return the good pictures that the options name."""
    from totalrecall.picture_files import find_pictures

    if args.layout is None:
        return find_pictures(args.good)
    from totalrecall.datasets import open_dataset

    if len(args.good) != 1:
        raise SettingError(f"--layout {args.layout} takes one folder, the data set's root; got {len(args.good)}.")
    return list(open_dataset(args.layout, args.good[0], seed=args.seed).train)


def _tell(args: argparse.Namespace, detector: "AnyDetector", output: Path) -> None:
    report = detector.report_
    assert report is not None
    seconds = report.seconds
    coreset = f"coreset {seconds['coreset']:.1f}, " if "coreset" in seconds else ""
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
        f"Seconds: features {seconds['features']:.1f} "
        f"(of which decoding, in threads beside it, {seconds['decode']:.1f}), "
        f"{coreset}calibration {seconds['calibration']:.1f}; peak memory {human_bytes(report.peak_memory)}",
    )
    _tell_repeats(args, detector)
    note = promise.note()
    if note and math.isnan(promise.threshold):
        complain(f"warning: {note}")  # with --quiet too: such a model judges nothing
    elif note:
        say(args, f"Note: {note}")
    _tell_repeated(args, detector)
    _tell_outliers(args, detector)
    say(args, f"Wrote {output} ({human_bytes(output.stat().st_size)})")
    if args.json:
        from dataclasses import asdict

        calibration = detector.calibration_
        facts = {"model": str(output), **promise.facts()}
        facts |= {"parts": calibration.parts, "new_parts": calibration.new_parts}
        skipped = [str(error) for error in detector.skipped_]
        outliers = getattr(detector, "outliers_", [])
        write_json(
            args.json, {**facts, **asdict(report), "skipped": skipped, "outliers": outliers, "notices": args.notices}
        )


def _tell_repeats(args: argparse.Namespace, detector: "AnyDetector") -> None:
    """Say which pictures were left out as repeats of others."""
    from totalrecall.copies import repeats_note

    assert detector.report_ is not None
    repeats = detector.report_.repeats
    if repeats:
        given = len(repeats) + len(detector.pictures_) + len(detector.skipped_)
        say(args, f"Note: {repeats_note(repeats, given)}")


def _tell_repeated(args: argparse.Namespace, detector: "AnyDetector") -> None:
    """Say where many pictures show the same part, and what it means for the stated rate."""
    from totalrecall.outliers import repeated_note

    note = repeated_note(detector.calibration_)
    if note:
        say(args, f"Note: {note}")


def _tell_outliers(args: argparse.Namespace, detector: "AnyDetector") -> None:
    """Name good pictures that set the threshold alone, and those unlike the others, or what was left out of them."""
    from totalrecall.outliers import bar_note, outlier_note

    note = bar_note(detector.calibration_, detector.pictures_)
    if note:
        say(args, f"Note: {note}")
    names = getattr(detector, "outliers_", [])
    if not names:
        return
    if args.ignore_outliers:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        which = "1 picture that is" if len(names) == 1 else f"{len(names)} pictures that are"
        say(args, f"Left out the bad patches of {which} unlike the others: {shown}")
    else:
        say(args, f"Note: {outlier_note(names, len(detector.calibration_.scores))}")
