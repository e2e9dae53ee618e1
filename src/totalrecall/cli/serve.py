"""`totalrecall serve`: the inspection station."""

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.common import complain, say
from totalrecall.cli.links import add_link_options, links_of, serial_reader
from totalrecall.cli.options import add_running_options, duration, memory_size, running
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.cli.spread_serve import add_replica_options, check_replicas, replicas_of
from totalrecall.errors import MissingExtraError

if TYPE_CHECKING:
    import socket

    from totalrecall.cli.spread_serve import Spread
    from totalrecall.station.settings import StationSettings
    from totalrecall.station.station import Link

__all__ = ["add_parser"]

_NEEDED = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "multipart", "argon2")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the inspection station",
        description="Run the inspection station: fitted models as a web service with a page, a history and an audit "
        "trail. It needs the extra [station].",
    )
    parser.add_argument("models", nargs="+", metavar="MODELS", type=INPUT, help="files that `fit` or `export` wrote")
    parser.add_argument(
        "--folder",
        metavar="DIR",
        type=OUTPUT,
        default="totalrecall-station",
        help="where the station keeps its history and pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="an SQLAlchemy address, such as postgresql+psycopg://user@host/name (default: history.db in the folder)",
    )
    _add_network_options(parser)
    _add_limits(parser)
    quality = parser.add_argument_group("quality")
    quality.add_argument(
        "--golden-every",
        type=duration,
        metavar="TIME",
        default=0.0,
        help="judge the golden pictures again this often, such as 8h (default: at the start, and when asked)",
    )
    quality.add_argument(
        "--hold-on-golden-failure",
        action="store_true",
        help="a model whose golden check fails judges nothing until a check passes or an engineer releases it",
    )
    quality.add_argument(
        "--wrong-product",
        action="store_true",
        help="a picture that is far from all good pictures as a whole gets `wrong product` instead of a verdict",
    )
    add_link_options(parser)
    add_replica_options(parser)
    add_running_options(parser, precision=True)
    parser.add_argument("--quiet", "-q", action="store_true", help="print only errors and warnings")
    parser.set_defaults(run=run)


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")
    network.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="listen here (default: %(default)s)")
    network.add_argument("--port", type=int, metavar="N", default=8000, help="of TCP (default: %(default)s)")
    network.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients call this machine; may be given several times",
    )
    network.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a reverse proxy whose X-Forwarded-For and X-Forwarded-Proto are believed; may be given several times",
    )
    network.add_argument(
        "--insecure", action="store_true", help="serve another address than 127.0.0.1 without users or tokens"
    )
    network.add_argument("--tls-cert", metavar="FILE", type=INPUT, help="certificate chain, PEM")
    network.add_argument("--tls-key", metavar="FILE", type=INPUT, help="its key, PEM")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--queue", type=int, metavar="N", default=64, help="pictures that may wait; one more gets 503 (default: 64)"
    )
    limits.add_argument(
        "--max-body", type=memory_size, metavar="SIZE", default=64 << 20, help="of one request (default: 64MB)"
    )
    limits.add_argument(
        "--timeout", type=float, metavar="SECONDS", default=30.0, help="to send a request (default: %(default)g)"
    )
    limits.add_argument(
        "--connections",
        type=int,
        metavar="N",
        default=256,
        help="that one address may have open, this computer's programs together; 0 for no limit (default: %(default)s)",
    )
    kept = parser.add_argument_group("pictures that are kept")
    kept.add_argument(
        "--keep", type=memory_size, metavar="SIZE", default=5 << 30, help="of all kept pictures (default: 5GB)"
    )
    kept.add_argument(
        "--keep-good",
        type=float,
        metavar="SHARE",
        default=0.02,
        help="of the good pictures; rejects and near misses are kept all (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    check_extra()
    from totalrecall.system.memory import limit_heaps
    from totalrecall.system.threads import cores

    limit_heaps(cores() + 1)  # it works for months
    settings, links = _settings(args), links_of(args)
    check_replicas(args, settings)
    from totalrecall.station.serving import listen

    # in this order: a port that is taken is told before Ray starts
    with listen(settings) as sock, replicas_of(args, settings) as spread:
        _serve(args, settings, links, spread, sock)
    say(args, "Stopped. Everything that was answered is in the history.")
    return 0


def _serve(
    args: argparse.Namespace,
    settings: "StationSettings",
    links: "list[Link]",
    spread: "Spread | None",
    sock: "socket.socket",
) -> None:
    from totalrecall.station.access.policy import check_exposure
    from totalrecall.station.app import guarded
    from totalrecall.station.serving import serve
    from totalrecall.station.station import Station

    port = sock.getsockname()[1]
    stop = _nothing if spread is None else spread.stop
    station = Station(settings, links, serial_reader(args), spread)
    try:
        for notice in [*check_exposure(settings.policy, station.users, _place(args)), *_of_tls(settings)]:
            complain(f"warning: {notice}")
        app = guarded(station)
        if spread is not None:
            spread.start(station)
        station.start()
        names = ", ".join(loaded.name for loaded in station.shelf.all())
        host, scheme = settings.policy.host, "http" if settings.policy.tls is None else "https"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        by = "" if spread is None else f", judged by {spread.words}"

        def serving() -> None:
            say(args, f"Serving {names} at {address}{by} (Ctrl-C stops)")
            sys.stdout.flush()  # into a pipe or a log, too: the process stays for months

        serve(app, settings, sock, station.metrics.refused, serving, stop)
    finally:
        stop()
        station.close()


def _nothing() -> None:
    """Do nothing."""


def _of_tls(settings: "StationSettings") -> list[str]:
    from totalrecall.station.access.certificate import tls_notices

    return [] if settings.policy.tls is None else tls_notices(settings.policy.tls)


def check_extra() -> None:
    """Refuse to go on where the station's packages are missing.

    Raises:
        MissingExtraError: one of them is.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"The station needs {', '.join(missing)}, which this environment has not. "
            "Install it: pip install 'totalrecall[station]'"
        )


def _place(args: argparse.Namespace) -> str:
    """Return the options by which `totalrecall station` finds the history; an address may hold a password."""
    return "--database URL" if args.database is not None else f"--folder {shlex.quote(args.folder)}"


def _settings(args: argparse.Namespace) -> "StationSettings":
    from totalrecall.station.access.policy import Policy, check_tls
    from totalrecall.station.settings import StationSettings

    certificate, key = (None if file is None else Path(file) for file in (args.tls_cert, args.tls_key))
    return StationSettings(
        models=tuple(map(Path, args.models)),
        folder=Path(args.folder),
        database=args.database,
        policy=Policy(
            host=args.host,
            allow_hosts=tuple(args.allow_host),
            proxies=tuple(args.proxy),
            insecure=args.insecure,
            tls=check_tls(certificate, key),
            max_body=args.max_body,
            timeout=args.timeout,
            connections=args.connections,
        ),
        port=args.port,
        queue=args.queue,
        keep_bytes=args.keep,
        keep_good=args.keep_good,
        running=running(args),
        golden_every=args.golden_every,
        hold_on_golden_failure=args.hold_on_golden_failure,
        wrong_product=args.wrong_product,
    )
