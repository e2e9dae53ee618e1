"""`fit --ray`: the options, and the way of working that they ask for."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import say
from totalrecall.cli.options import add_ray_options, refuse_workers_without_ray, training_pictures
from totalrecall.errors import ClusterError, SettingError, TotalRecallError
from totalrecall.system.files import is_special
from totalrecall.system.text import counted, human_bytes

if TYPE_CHECKING:
    from totalrecall.cluster.fitting import Spread
    from totalrecall.cluster.kept import KeptFit
    from totalrecall.detectors.fit_report import FitReport
    from totalrecall.patchcore.plan import Plan
    from totalrecall.pictures.loading import Source

__all__ = [
    "add_cluster_options",
    "announce_spread",
    "check_cluster",
    "good_pictures",
    "kept_for",
    "spread_over",
    "tell_cluster",
]

_HERE_ONLY = ("memory", "tune", "threads")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add --ray, and what is only for it."""
    group = add_ray_options(
        parser, promise="the model is the same to the bit; GOOD may be addresses such as s3://bucket/folder"
    )
    group.add_argument(
        "--coreset-merge",
        action="store_true",
        help="choose the patches in two rounds: each worker among its own, then among these; for many workers, and "
        "less exact",
    )


def check_cluster(args: argparse.Namespace) -> None:
    """Refuse options that only fit to the other way of working.

    Raises:
        SettingError: naming the option.
    """
    if args.ray is None:
        refuse_workers_without_ray(args)
        if args.coreset_merge:
            raise SettingError("--coreset-merge is only for --ray. Add --ray local, or leave it out.", "coreset_merge")
        return
    for name in _HERE_ONLY:
        if getattr(args, name):
            raise SettingError(f"--{name} does not work with --ray: each worker has one core. Leave it out.", name)
    several = isinstance(args.backbone, list) and len(args.backbone) > 1
    if args.method != "patchcore" or several or args.sizes is not None or args.precision == "int8":
        raise SettingError(
            "--ray fits patchcore with one backbone and one size, not in 8 bits. Leave --ray out, or the others.", "ray"
        )


def good_pictures(args: argparse.Namespace) -> "Sequence[Source]":
    """Return the good pictures that the options name, those behind an address among them.

    Raises:
        DataError: there are none, or an address cannot be listed.
        MissingExtraError: the package that opens such an address is not installed.
    """
    if args.layout is not None:
        return training_pictures(args)
    from totalrecall.cluster.listing import list_pictures
    from totalrecall.cluster.survey import as_sources

    return as_sources(list(list_pictures(args.good)))


@contextmanager
def kept_for(args: argparse.Namespace) -> "Iterator[KeptFit | None]":
    """Hold the folder of what a fit on a cluster keeps, until its model is written; None without --ray.

    Nothing is kept beside a pipe or /dev/null, either.

    Raises:
        DataError: another command works there, or it cannot be written.
    """
    if args.ray is None or is_special(Path(args.output)):
        yield None
        return
    from totalrecall.cluster.kept import opened_fit

    with opened_fit(Path(args.output)) as kept:
        yield kept


@contextmanager
def spread_over(args: argparse.Namespace, kept: "KeptFit | None") -> "Iterator[Spread]":
    """Be connected to the cluster of --ray inside a `with` block, and yield where a fit does its work.

    Raises:
        SettingError: that is no number of workers.
        ClusterError: the cluster cannot be used.
    """
    from totalrecall.cluster.connection import check_workers, connected
    from totalrecall.cluster.fitting import Spread

    check_workers(args.workers)
    with connected(args.ray) as cluster:
        count = cluster.room(1, args.workers)
        spread = Spread(count, merge=args.coreset_merge, kept=kept, told=partial(say, args))
        say(args, f"Cluster: {counted(count, 'worker')}, {counted(cluster.nodes, 'machine')}")
        try:
            yield spread
        except TotalRecallError as error:
            if kept is not None and not isinstance(error, ClusterError):  # given again, it would fail again
                kept.clear()
            raise
        finally:
            spread.close()


def announce_spread(args: argparse.Namespace, plan: "Plan") -> None:
    """Say what the fit will need, before it starts."""
    size = human_bytes(4 * plan.patches * plan.dimensions)
    say(
        args,
        f"Plan: {counted(plan.pictures, 'picture')}, {plan.patches} patches of {plan.dimensions} numbers ({size}), in "
        "the memory that the machines share with Ray, and on their disks",
    )


def tell_cluster(args: argparse.Namespace, report: "FitReport", spread: "Spread") -> None:
    """Say how much memory each process held, and how near a coreset of two rounds is."""
    peaks = [human_bytes(process["peak_memory"]) for process in report.processes]
    say(args, f"Peak memory: {peaks[0]} here; workers {', '.join(peaks[1:])}, with what they share")
    merged = spread.merged
    if merged is not None:
        say(
            args,
            f"Coreset in two rounds, of {merged.candidates} candidates: every patch is within "
            f"{merged.coreset.radius:.4g} of the bank (known before it was measured: {merged.bound:.4g})",
        )
