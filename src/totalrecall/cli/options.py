"""Options that several commands share, and what is made of them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import check_target
from totalrecall.cli.paths import BACKBONE, INPUT, OUTPUT
from totalrecall.errors import SettingError

if TYPE_CHECKING:
    from totalrecall.registry import AnyDetector

__all__ = [
    "add_detector_options",
    "add_preparation_options",
    "add_rate_options",
    "add_reading_options",
    "add_report_options",
    "add_split_options",
    "check_report",
    "fraction",
    "make_detector",
    "memory_size",
    "training_pictures",
]

METHODS = ("patchcore", "padim", "spade")  # as `kinds.KINDS`, without importing it to show --help


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

    from totalrecall.registry import KINDS, detector_class

    kind = detector_class(args.method)
    given = {name: getattr(args, name) for name in _OF_METHOD if getattr(args, name) is not None}
    for name in given:
        if name not in signature(kind).parameters:
            owners = [other for other in KINDS if name in signature(detector_class(other)).parameters]
            raise SettingError(f"{name} is for method {' or '.join(owners)}, got --method {args.method}. Leave it out.")
    make: Any = kind
    detector: AnyDetector = make(**{name: getattr(args, name) for name in _COMMON}, **given, threads=args.threads)
    return detector


def memory_size(text: str) -> int:
    """Return the bytes of a size as a person writes it, for argparse."""
    from totalrecall.system.text import parse_size

    try:
        return parse_size(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("memory ")) from None


def training_pictures(args: argparse.Namespace) -> list[Path]:
    """Return the good pictures that the options name."""
    from totalrecall.pictures.files import find_pictures

    if args.layout is None:
        return find_pictures(args.good)
    from totalrecall.datasets import open_dataset

    if len(args.good) != 1:
        raise SettingError(f"--layout {args.layout} takes one folder, the data set's root; got {len(args.good)}.")
    return list(open_dataset(args.layout, args.good[0], seed=args.seed).train)


# as `datasets.LAYOUTS`, without importing it to show --help
LAYOUTS = ("folder", "mvtec", "mvtec-loco", "mvtec-ad2", "btad", "visa", "mtd", "mstc", "kolektor")


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, which every command that reads pictures has."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse larger pictures, by their header (default 100000000)",
    )


def add_split_options(parser: argparse.ArgumentParser, *, seed: bool = True) -> None:
    """Add the options that say which pictures of a data set are meant."""
    parser.add_argument("--layout", choices=LAYOUTS, help="how the data set's folder is laid out")
    if seed:
        parser.add_argument("--seed", type=int, default=42, help="of the split and of all random choices (default 42)")


def add_rate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that set another threshold than the model's, for this run only."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--false-alarm-rate", type=fraction, metavar="RATE", help="judge at this rate (default: the model's), this once"
    )
    group.add_argument(
        "--threshold", type=fraction, metavar="SCORE", help="judge by this score (default: the model's), this once"
    )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add --report, and --parts-per-day for it."""
    parser.add_argument(
        "--report", metavar="FILE", type=OUTPUT, help="write an HTML page of scores, threshold and overlays, under 5 MB"
    )
    parser.add_argument(
        "--parts-per-day", type=int, metavar="N", help="good parts a day, for the report's false alarms a day"
    )
    parser.add_argument(
        "--good-pictures",
        metavar="DIR",
        type=INPUT,
        action="append",
        help="folder of the learnt pictures, for the report to show the nearest; may be given several times",
    )


def check_report(args: argparse.Namespace) -> None:
    """Refuse a report that cannot be written.

    Args:
        args: of a command with `add_report_options`.

    Raises:
        SettingError: it has no name, or there are parts a day for no report.
        DataError: it is a folder, or its folder cannot be written.
    """
    if args.parts_per_day is not None and args.report is None:
        raise SettingError(f"--parts-per-day is for --report only, got {args.parts_per_day}. Write --report FILE.html.")
    if args.parts_per_day is not None and args.parts_per_day < 1:
        raise SettingError(f"--parts-per-day must be at least 1, got {args.parts_per_day}.")
    if args.good_pictures and args.report is None:
        raise SettingError(
            f"--good-pictures is for --report only, got {args.good_pictures[0]}. Write --report FILE.html."
        )
    for folder in args.good_pictures or ():
        if not _is_folder(folder):
            raise SettingError(f"--good-pictures must be a folder, got {folder}. Name that of the pictures learnt.")
    if args.report is None:
        return
    if args.report == "-":
        raise SettingError(f"--report must name a file of its own, got {args.report}. Write --report FILE.html.")
    check_target("--report", args.report)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False


def fraction(text: str) -> float:
    """Read a number for argparse, with a clear message for words."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number such as 0.01, got {text!r}") from None
