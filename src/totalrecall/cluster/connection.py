"""The Ray cluster that a command's work is spread over: one that runs already, or one of this machine for the command.

Ray is imported here only where a cluster is asked for: it takes seconds, and it is an extra.
"""

import contextlib
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from totalrecall._version import __version__
from totalrecall.errors import ClusterError, MissingExtraError, SettingError
from totalrecall.system.threads import cores as own_cores

__all__ = ["LOCAL", "Cluster", "check_workers", "connected", "need_ray"]

LOCAL = "local"
_RUNNING_HERE = "auto"
_ANSWER = 5.0  # seconds: an open port answers in milliseconds, and Ray itself would try for two minutes
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113, 3.4, and empty settings
_PROBE = 120.0  # seconds that a node may take to start Python and import this package
_ADDRESSES = f"HOST:PORT of a cluster, {_RUNNING_HERE} for the one that runs on this machine, or {LOCAL}"
_STARTS = 3  # of a local cluster: Ray gives its parts half a minute, and a busy machine may need more
_LATE = "timed out during startup"  # of a bare Exception
_NONE_RUNS = "Could not find any running Ray instance"  # of a ConnectionError
_QUIET = {  # read when Ray is imported; what a person has set stays
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning about graphics cards, which a task without one may see
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of work that nobody waits for any more: the first error is told in one line
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        address: as it was given.
        nodes: machines, or what stands for them.
        cores: that Ray may give to workers, over all nodes.
    """

    address: str
    nodes: int
    cores: int

    def room(self, cores: int, most: int | None = None) -> int:
        """Return how many workers of so many cores the cluster has room for.

        Args:
            cores: of each worker.
            most: to use.

        Raises:
            SettingError: it has no room for one, or `most` is not at least 1.
        """
        check_workers(most)
        room = self.cores // cores
        if room < 1:
            raise SettingError(
                f"threads must be at most the {self.cores} cores of the cluster, got {cores}: each worker gets so "
                "many.",
                "threads",
            )
        return room if most is None else min(room, most)


def check_workers(most: int | None) -> None:
    """Refuse a number of workers that is none; before a cluster is started.

    Raises:
        SettingError: it is not at least 1.
    """
    if most is not None and most < 1:
        raise SettingError(f"workers must be at least 1, got {most}. Leave it out to use the whole cluster.", "workers")


@contextlib.contextmanager
def connected(address: str, *, cores: int | None = None) -> Iterator[Cluster]:
    """Be connected to a cluster inside a `with` block.

    A cluster of this machine (`local`) is started for the block and ended with it. If this process is killed, its
    workers end at once, and two small helpers of Ray (agents) some minutes later. A cluster that ran before goes on
    running. What workers print is not shown.

    Args:
        address: `local`; `auto`, the cluster that runs on this machine; or `HOST:PORT` of a cluster that this machine
            belongs to.
        cores: of a local cluster; those that this process may use if not given.

    Raises:
        MissingExtraError: Ray is not installed.
        SettingError: the address is nothing of that, or `cores` is given for a cluster that runs already.
        ClusterError: the cluster does not answer, or has other versions of Python, Ray or Total Recall.

    Examples:
        >>> from totalrecall.cluster.connection import connected
        >>> with connected("local", cores=1) as cluster:  # doctest: +SKIP
        ...     print(cluster.cores)
        1
    """
    _check(address, cores)
    ray = need_ray()
    if address not in (LOCAL, _RUNNING_HERE):
        _check_answers(address)
    if ray.is_initialized():
        raise ClusterError("This process is connected to a Ray cluster already. Leave that one first: ray.shutdown().")
    try:
        with _keeping_sigterm():
            _start(ray, address, cores)
        if address != LOCAL:
            _check_nodes(ray)
        yield Cluster(address, len(_nodes(ray)), int(ray.cluster_resources().get("CPU", 0)))
    finally:
        with _keeping_sigterm():
            ray.shutdown()  # ends a local cluster; of another it only takes leave


def need_ray() -> Any:
    """Return the package ray.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            f'--ray needs the package ray, which cannot be imported ({error}). Run: pip install "totalrecall[cluster]"'
        ) from None
    return ray


def _check(address: str, cores: int | None) -> None:
    """Refuse what is no address before anything is started."""
    host, _, port = address.rpartition(":")
    if address not in (LOCAL, _RUNNING_HERE) and not (
        host and "/" not in host and port.isascii() and port.isdigit() and 0 < int(port) < 65536
    ):
        raise SettingError(
            f"ray must be {_ADDRESSES}, got {address!r}. Run the command on a machine of the cluster.", "ray"
        )
    if cores is not None and (address != LOCAL or cores < 1):
        raise SettingError(f"cores must be at least 1, and only for the cluster {LOCAL}, got {cores} for {address}.")


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER) as connection:
            greeted = os.environ.get("RAY_USE_TLS") == "1" or _greets(connection)
        if not greeted:
            raise OSError("what listens there is not Ray")
    except (OSError, UnicodeError) as error:  # UnicodeError: a host's name that no network could carry
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"No Ray cluster answers at {address} ({reason}). Give the address that `ray start --head` printed, or "
            f"--ray {LOCAL}."
        ) from None


def _greets(connection: socket.socket) -> bool:
    """Tell whether HTTP/2 is spoken there, as by a head of Ray: for others Ray would wait minutes, deaf to signals.

    Raises:
        OSError: nothing comes, or the connection is ended.
    """
    connection.sendall(_HELLO)
    kind = b""
    while len(kind) < 4 and (piece := connection.recv(4 - len(kind))):
        kind += piece
    return kind[3:] == b"\x04"  # length, in three bytes, then the kind of the frame: settings


def _start(ray: Any, address: str, cores: int | None, tries: int = _STARTS) -> None:
    try:
        _init(ray, address, cores)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(_why(error, address)) from None
    except Exception as error:
        if _LATE not in str(error):
            raise
        if address != LOCAL or tries == 1:
            raise ClusterError(_why(error, address)) from None
        ray.shutdown()
        _start(ray, address, cores, tries - 1)


def _init(ray: Any, address: str, cores: int | None) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    utils, command = import_module("ray._private.utils"), _command()
    utils.__dict__["get_entrypoint_name"] = lambda: command  # its own fails at a word that is no Unicode
    if address == LOCAL:
        count = own_cores() if cores is None else cores
        ray.init(address=LOCAL, num_cpus=count, include_dashboard=False, **quiet)
    else:
        ray.init(address=address, **quiet)
    # of a worker that died Ray tells on stdout all the same, which is for what was asked for
    import_module("ray._private.worker").__dict__["_worker_logs_enabled"] = False


def _command() -> str:
    """Return the command as it stands in Ray's list of jobs."""
    return subprocess.list2cmdline([sys.executable, *sys.argv]).encode("utf-8", "backslashreplace").decode()


def _why(error: Exception, address: str) -> str:
    """Return in one line why Ray could not start or be joined."""
    reason = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, UnicodeEncodeError):
        return f"Ray cannot work in the folder {Path.cwd()}: its name is not UTF-8. Run the command in another folder."
    if "Version mismatch" in reason:
        return (
            f"The cluster at {address} has other versions than this machine: {reason}. "
            "Use the same Python and the same Ray on both."
        )
    if address == _RUNNING_HERE and _NONE_RUNS in reason:
        return f"No Ray cluster runs on this machine. Start one with `ray start --head`, or give --ray {LOCAL}."
    if address == LOCAL:
        return f"Ray cannot start on this machine: {reason}. Free some memory, disk and processor, or leave --ray out."
    return (
        f"The Ray cluster at {address} cannot be joined: {reason}. Run the command on a machine of the cluster; if the "
        f"cluster asks for a token, set RAY_AUTH_MODE=token; or use --ray {LOCAL}."
    )


def _nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _versions() -> tuple[str, str]:
    """Return the versions of Total Recall and of Python where this is called."""
    return __version__, platform.python_version()


def _check_nodes(ray: Any) -> None:
    """Have every node import this package, and compare: a worker of another version would compute other scores."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(_versions)
    nodes = {
        node["NodeManagerAddress"]: ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in _nodes(ray)
    }
    for host, answer in nodes.items():
        try:
            package, python = ray.get(answer, timeout=_PROBE)
        except ray.exceptions.RayError as error:
            reason = (" ".join(str(error).split()) or type(error).__name__)[-200:]
            raise ClusterError(
                f"Machine {host} of the cluster cannot run Total Recall: {reason}. Install version {__version__} there."
            ) from None
        if (package, python) != _versions():
            raise ClusterError(
                f"Machine {host} of the cluster has Total Recall {package} on Python {python}, this one has "
                f"{__version__} on {platform.python_version()}. Install the same there."
            )


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Keep what this process does at SIGTERM: Ray puts in a handler of its own, and the command line needs its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():  # others may not set it
            signal.signal(signal.SIGTERM, before)
