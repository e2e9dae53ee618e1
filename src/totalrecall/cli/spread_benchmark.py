"""`benchmark --ray`: the options, and where the cells are measured then."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from totalrecall.cli.common import say
from totalrecall.errors import SettingError
from totalrecall.system.text import counted

if TYPE_CHECKING:
    from totalrecall.benchmark.run import Way

__all__ = ["add_benchmark_spread", "measured_by", "set_threads"]


def add_benchmark_spread(parser: argparse.ArgumentParser) -> None:
    """Add --ray, and what is only for it."""
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster: HOST:PORT, auto for the one that runs on this machine, or local to "
        "use the cores of this machine; each detector is fitted and measured by one worker, the tables are the same",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="measure at most N at a time, each with --threads cores or, with --device, a card (default: as many as "
        "the cluster has room for, with one core each)",
    )


def set_threads(args: argparse.Namespace) -> None:
    """Refuse what is only for --ray; with it, have a cell compute with the cores that it gets.

    Raises:
        SettingError: naming the option.
    """
    if args.ray is None:
        if args.workers is not None:
            raise SettingError(f"--workers is only for --ray, got {args.workers}. Add --ray local.", "workers")
        return
    if args.threads is None and (args.device is None or args.device.lower() == "cpu"):
        args.threads = 1


@contextmanager
def measured_by(args: argparse.Namespace) -> "Iterator[Way | None]":
    """Yield where cells are measured: by the cluster of --ray, which is connected meanwhile, or None for here.

    Raises:
        SettingError: the cluster has not what a cell needs.
        ClusterError: the cluster cannot be used.
    """
    if args.ray is None:
        yield None
        return
    from totalrecall.cluster.cells import Tasks, share_of
    from totalrecall.cluster.connection import connected

    with connected(args.ray) as cluster:
        share = share_of(args.device, args.threads, args.workers)
        each = f"{counted(share.cores, 'core')}{' and a card' if share.cards else ''}"
        say(
            args,
            f"Cluster: {counted(share.cells, 'worker')} of {each} at a time, {counted(cluster.nodes, 'machine')}",
        )
        yield Tasks(share).way
