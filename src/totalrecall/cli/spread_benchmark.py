"""`benchmark --ray`: the options, and where the cells are measured then."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from totalrecall.cli.common import say
from totalrecall.cli.options import add_ray_options, refuse_workers_without_ray
from totalrecall.system.text import counted

if TYPE_CHECKING:
    from totalrecall.benchmark.run import Way

__all__ = ["add_benchmark_spread", "measured_by", "set_threads"]


def add_benchmark_spread(parser: argparse.ArgumentParser) -> None:
    """Add --ray, and what is only for it."""
    add_ray_options(
        parser,
        promise="a worker fits and measures one detector after the other, and the tables are the same",
        cores="--threads cores (one if not given)",
    )


def set_threads(args: argparse.Namespace) -> None:
    """Refuse what is only for --ray; with it, have a cell compute with the cores that it gets.

    Raises:
        SettingError: naming the option.
    """
    if args.ray is None:
        refuse_workers_without_ray(args)
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
    from totalrecall.cluster.cells import Tasks
    from totalrecall.cluster.connection import check_workers, connected
    from totalrecall.cluster.share import share_of

    check_workers(args.workers)
    with connected(args.ray) as cluster:
        share = share_of(args.device, args.threads, args.workers)
        each = f"{counted(share.cores, 'core')}{' and a card' if share.cards else ''}"
        say(
            args,
            f"Cluster: {counted(share.room, 'worker')} of {each} at a time, {counted(cluster.nodes, 'machine')}",
        )
        yield Tasks(share).way
