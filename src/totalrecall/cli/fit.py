"""`totalrecall fit`: good pictures -> a model file."""

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import (
    add_output_options,
    add_split_options,
    check_target,
    complain,
    fraction,
    human_bytes,
    progress_bars,
    say,
    write_json,
)
from totalrecall.errors import DataError, SettingError

if TYPE_CHECKING:
    from totalrecall.detector import PatchCore

__all__ = ["add_detector_options", "add_parser", "make_detector", "warn_of_floor"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "fit",
        help="learn what good pictures look like",
        description="Learn from good pictures only and write a model file. No defect is needed.",
    )
    parser.add_argument(
        "good", nargs="+", metavar="GOOD", help="files, folders or globs; with --layout the data set's root"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="MODEL", help="model file to write, such as part.trecall"
    )
    add_split_options(parser)
    add_detector_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write what the fit did and took, as JSON ('-' for stdout)")
    parser.add_argument("--no-embed", action="store_true", help="leave the backbone out of the model file")
    add_output_options(parser)
    parser.set_defaults(run=run)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the settings of PatchCore."""
    group = parser.add_argument_group("detector")
    group.add_argument("--backbone", default="compact", metavar="NAME", help="see `totalrecall backbones list`")
    group.add_argument("--layers", type=int, nargs="+", default=[2, 3], metavar="N", help="whose features are joined")
    group.add_argument("--coreset", type=fraction, default=0.01, metavar="SHARE", help="of patches kept (default 0.01)")
    group.add_argument(
        "--size", type=int, default=256, metavar="PIXELS", help="side of the prepared picture (default 256)"
    )
    group.add_argument("--resize", default="squash", metavar="MODE", help="squash, letterbox or crop (default squash)")
    group.add_argument("--crop", type=int, metavar="PIXELS", help="with --resize crop: side of the middle that is kept")
    group.add_argument(
        "--tile", type=int, default=1, metavar="N", help="see the picture N times as large, in N x N pieces (default 1)"
    )
    group.add_argument("--roi", metavar="MASK", help="picture whose white pixels mark the region to inspect")
    group.add_argument(
        "--patch-size", type=int, default=3, metavar="P", help="neighbourhood of a patch, odd (default 3)"
    )
    group.add_argument("--stride", type=int, default=1, metavar="S", help="step of the patch grid (default 1)")
    group.add_argument("--descriptor", default="concat", metavar="NAME", help="concat (default) or paper-code")
    group.add_argument("--scoring", default="top1pct", metavar="NAME", help="top1pct (default), max or paper")
    group.add_argument(
        "--neighbours", type=int, default=9, metavar="B", help="of eq. 7, for --scoring paper (default 9)"
    )
    group.add_argument(
        "--false-alarm-rate", type=fraction, default=0.01, metavar="RATE", help="of good pictures (default 0.01)"
    )
    group.add_argument(
        "--holdout",
        type=fraction,
        default=0.2,
        metavar="SHARE",
        help="of good pictures that set the threshold (default 0.2)",
    )
    group.add_argument("--precision", default="auto", metavar="NAME", help="auto (default), f32 or bf16")
    group.add_argument("--threads", type=int, metavar="N", help="of the backbone (default: all cores)")


def make_detector(args: argparse.Namespace) -> "PatchCore":
    """Return an unfitted detector from the parsed options."""
    from totalrecall.detector import PatchCore

    return PatchCore(
        backbone=args.backbone,
        layers=args.layers,
        coreset=args.coreset,
        size=args.size,
        resize=args.resize,
        crop=args.crop,
        tile=args.tile,
        roi=args.roi,
        patch_size=args.patch_size,
        stride=args.stride,
        descriptor=args.descriptor,
        scoring=args.scoring,
        neighbours=args.neighbours,
        false_alarm_rate=args.false_alarm_rate,
        holdout=args.holdout,
        precision=args.precision,
        seed=args.seed,
        threads=args.threads,
    )


def run(args: argparse.Namespace) -> int:
    """Fit and save."""
    output = Path(args.output)
    if output.is_dir():  # found out now, not after the work
        raise DataError(f"{output} is a folder. Give a file to write, such as {output / 'part.trecall'}.")
    check_target("--output", args.output)
    check_target("--json", args.json)
    detector = make_detector(args)
    pictures = _training_pictures(args)
    with warnings.catch_warnings(), progress_bars(args) as progress:
        warnings.simplefilter("ignore")  # each skipped picture is named below
        detector.fit(pictures, progress=progress)
    for error in detector.skipped_:
        complain(error)
    detector.save(output, embed_backbone=not args.no_embed)
    _tell(args, detector, output)
    return 1 if detector.skipped_ else 0


def _training_pictures(args: argparse.Namespace) -> list[Path]:
    from totalrecall.images import find_pictures

    if args.layout is None:
        return find_pictures(args.good)
    from totalrecall.datasets import open_dataset

    if len(args.good) != 1:
        raise SettingError(f"--layout {args.layout} takes one folder, the data set's root; got {len(args.good)}.")
    return list(open_dataset(args.layout, args.good[0], seed=args.seed).train)


def _tell(args: argparse.Namespace, detector: "PatchCore", output: Path) -> None:
    report = detector.report_
    assert report is not None
    seconds = report.seconds
    say(
        args,
        f"Bank: {report.vectors} of {report.patches} patches ({report.dimensions} numbers each) "
        f"from {report.pictures} pictures",
    )
    say(
        args,
        f"Threshold: score {detector.threshold_:.4g}, from {report.calibration_pictures} of the good pictures, "
        "scored without them",
    )
    say(
        args,
        f"Seconds: features {seconds['features']:.1f} "
        f"(of which decoding, in threads beside it, {seconds['decode']:.1f}), "
        f"coreset {seconds['coreset']:.1f}, calibration {seconds['calibration']:.1f}; "
        f"peak memory {human_bytes(report.peak_memory)}",
    )
    warn_of_floor(args, detector)
    say(args, f"Wrote {output} ({human_bytes(output.stat().st_size)})")
    if args.json:
        from dataclasses import asdict

        calibration = detector.calibration_
        facts = {"model": str(output), "threshold": detector.threshold_, "guaranteed_rate": calibration.guaranteed_rate}
        skipped = [str(error) for error in detector.skipped_]
        write_json(args.json, {**facts, **asdict(report), "skipped": skipped})


def warn_of_floor(args: argparse.Namespace, detector: "PatchCore") -> None:
    """Say so when the good pictures are too few to promise the stated false-alarm rate."""
    calibration = detector.calibration_
    count, rate = len(calibration.scores), calibration.rate
    if not count:
        say(args, "Note: no picture was held out, so there is no threshold and no verdict; scores alone are given.")
    elif calibration.floor > rate:
        needed = -(-1 // rate) - 1
        say(
            args,
            f"Note: a false-alarm rate of {rate:g} cannot be promised from {count} held-out good pictures, only "
            f"{calibration.floor:.2g}; the threshold is their highest score. {needed:.0f} held-out pictures would do.",
        )
