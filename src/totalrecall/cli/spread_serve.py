"""`serve --ray`: the options, and the replicas that judge for the station."""

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from totalrecall.cli.options import add_ray_option, running
from totalrecall.errors import SettingError
from totalrecall.system.text import counted

if TYPE_CHECKING:
    import numpy as np

    from totalrecall.cluster.serving import Replicas, ServedModel
    from totalrecall.scoring import Result
    from totalrecall.station.judging.inspecting import Waiting
    from totalrecall.station.judging.models import Loaded
    from totalrecall.station.settings import StationSettings
    from totalrecall.station.station import Station

__all__ = ["Spread", "add_replica_options", "check_replicas", "replicas_of"]


def add_replica_options(parser: argparse.ArgumentParser) -> None:
    """Add --ray, and what is only for it."""
    group = add_ray_option(
        parser,
        promise="replicas there judge the pictures, each with --threads cores (one if not given) or, with --device, a "
        "card; the history must be in PostgreSQL",
    )
    group.add_argument(
        "--replicas",
        metavar="MIN:MAX",
        help="have MIN to MAX replicas, as many as the load asks for; N: always N (default: 1 to as many as there is "
        "room for)",
    )


def check_replicas(args: argparse.Namespace, settings: "StationSettings") -> None:
    """Refuse options that do not fit together, before anything starts.

    Raises:
        SettingError: naming the option.
    """
    if args.ray is None:
        if args.replicas is not None:
            raise SettingError(f"--replicas is only for --ray, got {args.replicas}. Add --ray local.", "replicas")
        return
    _counts(args.replicas)
    from totalrecall.station.store.addresses import parse_address

    kind = parse_address(settings.database_address).get_backend_name()
    if kind != "postgresql":
        got = f"{kind}, the default" if args.database is None else kind
        raise SettingError(
            f"--ray needs a history that every machine of the cluster reaches, in PostgreSQL, got {got}. "
            "Write --database postgresql+psycopg://USER@HOST/NAME, or leave --ray out.",
            "database",
        )


class Spread:
    """The replicas, as the station sees them: they judge in its stead."""

    def __init__(self, replicas: "Replicas", words: str) -> None:
        self._replicas = replicas
        self.words = words
        self.at_once = replicas.at_once

    def start(self, station: "Station") -> None:
        """Start them for the models of a station.

        Raises:
            ClusterError: they cannot be started.
        """
        from totalrecall.station.store.claim import mark_of

        # a database belongs to one station; so one that was killed is replaced by the next, and no other one is
        with station.database.read() as connection:
            name = f"totalrecall-{mark_of(connection)[:16]}"
        self._replicas.start([_served(loaded) for loaded in station.shelf.all()], name)

    def judge(self, loaded: "Loaded", waiting: "Waiting", *, alone: bool) -> "tuple[Result, np.ndarray | None]":
        """Have a picture judged; see `totalrecall.station.judging.inspecting.Judges`."""
        from totalrecall.cluster.serving import Order

        del alone  # a replica always judges one picture
        return self._replicas.judge(Order(_served(loaded), waiting.picture, waiting.conditions, waiting.rate))

    def find_fault(self) -> str | None:
        """Return why nothing can be judged at the moment."""
        return self._replicas.find_fault()

    def stop(self) -> None:
        """Say that the station stops; see `totalrecall.cluster.serving.Replicas.stop`."""
        self._replicas.stop()

    def close(self) -> None:
        """End the replicas."""
        self._replicas.close()


def _served(loaded: "Loaded") -> "ServedModel":
    from totalrecall.cluster.serving import ServedModel

    return ServedModel(loaded.name, loaded.path, loaded.sha256)


@contextlib.contextmanager
def replicas_of(args: argparse.Namespace, settings: "StationSettings") -> "Iterator[Spread | None]":
    """Be connected to the cluster of --ray inside a `with` block, and give what judges there; None without --ray.

    Raises:
        SettingError: the cluster has no room for the replicas.
        ClusterError: the cluster cannot be used.
    """
    if args.ray is None:
        yield None
        return
    from totalrecall.cluster.connection import connected
    from totalrecall.cluster.serving import Replicas, count_of, need_serve
    from totalrecall.cluster.share import share_of
    from totalrecall.engines import Running
    from totalrecall.station.judging.recent import heat_of

    need_serve()
    how = Running(**running(args))
    least, most = _counts(args.replicas)
    with connected(args.ray):
        share = share_of(args.device, args.threads, each="replica")
        count = count_of(share, least, most)
        replicas = Replicas(count, share, how, heat=heat_of, whole_maps=settings.wrong_product)
        words = counted(count.most, "replica")
        spread = Spread(replicas, f"{count.least} to {words}" if count.most > count.least else words)
        try:
            yield spread
        finally:
            spread.close()


def _counts(text: str | None) -> tuple[int, int | None]:
    """Return the least and the largest number of replicas.

    Raises:
        SettingError: the text is neither N nor MIN:MAX.
    """
    if text is None:
        return 1, None
    first, colon, second = text.partition(":")
    numbers = [int(one) if one.isascii() and one.isdigit() and len(one) < 7 else 0 for one in (first, second or first)]
    least, most = numbers
    if (colon and not second) or not 1 <= least <= most:
        raise SettingError(
            f"--replicas must be MIN:MAX with 1 <= MIN <= MAX, or N, got {text!r}. Write 1:4.", "replicas"
        )
    return least, most
