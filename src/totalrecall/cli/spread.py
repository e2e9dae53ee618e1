"""`predict --ray`: the options, and the work by a cluster."""

import argparse
from collections import Counter
from pathlib import Path

from totalrecall.cli.common import check_target, complain, judging, progress_bars, say
from totalrecall.cli.options import add_ray_options, refuse_workers_without_ray, running
from totalrecall.cli.paths import OUTPUT
from totalrecall.errors import SettingError
from totalrecall.system.files import is_special
from totalrecall.system.text import counted

__all__ = ["add_spread_options", "check_spread", "predict_spread"]

_HERE_ONLY = ("json", "csv", "heatmaps", "report", "monitor", "parts_per_day", "good_pictures")


def add_spread_options(parser: argparse.ArgumentParser) -> None:
    """Add --ray, and what is only for it."""
    group = add_ray_options(
        parser,
        promise="PICTURES may be addresses such as s3://bucket/folder, and a run that was ended goes on when the same "
        "command is given again",
        cores="--threads cores (one if not given)",
    )
    group.add_argument("--out", "-o", metavar="FILE", type=OUTPUT, help="write the results as Parquet; only with --ray")


def check_spread(args: argparse.Namespace) -> None:
    """Refuse options that only fit to the other way of working.

    Raises:
        SettingError: naming the option.
        DataError: --out cannot be written.
    """
    if args.ray is None:
        refuse_workers_without_ray(args)
        if args.out is not None:
            advice = "Add --ray local, or write --json FILE or --csv FILE."
            raise SettingError(f"--out is only for --ray, got {args.out}. {advice}")
        return
    for name in _HERE_ONLY:
        if getattr(args, name) is not None:
            raise SettingError(f"--{name.replace('_', '-')} does not work with --ray. Write --out FILE.parquet.")
    if args.out is None or args.out == "-" or is_special(Path(args.out)):  # beside a pipe there is no place for parts
        raise SettingError(f"--ray needs a file for the results, got {args.out}. Write --out FILE.parquet.")
    check_target("--out", args.out)


def predict_spread(args: argparse.Namespace) -> "tuple[Counter[str], int]":
    """Judge on a cluster, and write the results.

    Returns:
        How many pictures got each verdict, or were `unreadable`; and how many were judged now, by this command.
    """
    from totalrecall.cluster.connection import connected
    from totalrecall.cluster.listing import is_remote, list_pictures
    from totalrecall.cluster.parts import check_parts, opened_parts
    from totalrecall.cluster.predicting import Judging, judge_parts
    from totalrecall.engines import Running
    from totalrecall.registry import load_judge
    from totalrecall.system.files import file_sha256

    how = Running(**running(args))
    judging(args, load_judge(args.model, **running(args)))  # what is wrong with it is said before anything starts
    inputs = [name if is_remote(name) else str(Path(name)) for name in args.pictures]
    asked = {
        "model": args.model,
        "sha256": file_sha256(args.model),
        "pictures": inputs,
        "folder": str(Path.cwd()),
        "engine": how.engine,
        "device": how.device,
        "precision": how.precision,
        "false_alarm_rate": args.false_alarm_rate,
        "threshold": args.threshold,
        "max_pixels": args.max_pixels,
    }
    check_parts(Path(args.out), asked)
    with connected(args.ray) as cluster:
        how_judged = Judging(args.model, how, args.false_alarm_rate, args.threshold)
        workers = cluster.room(how_judged.cores, args.workers)
        with opened_parts(Path(args.out), asked, list_pictures(inputs), workers) as parts:
            if parts.done:
                say(args, f"Went on where an earlier run ended: {parts.done} of {counted(parts.total, 'picture')} done")
            with progress_bars(args) as progress:
                now = judge_parts(parts, how_judged, workers, failed=complain, progress=progress)
            return parts.join(Path(args.out)), now
