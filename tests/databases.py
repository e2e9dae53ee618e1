"""Databases for tests: a SQLite file each, and a PostgreSQL server of the test run's own where it is installed."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from totalrecall.station.store.records import Inspection

BEGIN = datetime(2026, 11, 29, 16, 0, tzinfo=timezone.utc)


def inspection(number: int = 0, **changes) -> Inspection:
    """Return an inspection of a good part, a second after the one of the number before."""
    facts = {
        "key": f"{number:032x}",
        "at": BEGIN + timedelta(seconds=number),
        "model": "bottle",
        "model_sha256": "a" * 64,
        "source": "api",
        "name": f"part {number}.png",
        "picture_sha256": f"{number:064x}",
        "serial": f"S{number}",
        "line": "line 1",
        "product": None,
        "score": 1.5,
        "threshold": 2.0,
        "p_value": 0.25,
        "is_anomalous": False,
        "verdict": "good",
        "regions": [],
        "nearest": {"path": "good/1.png", "x": 3, "y": 4},
        "milliseconds": 21.5,
    }
    return Inspection(**{**facts, **changes})


def missing_postgresql() -> str | None:
    """Return why no PostgreSQL server can be started here; None if one can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return 'psycopg is not installed (pip install "totalrecall[postgresql]")'
    if os.geteuid() == 0 and _owner() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


class PostgreSQL:
    """A server of its own, in a temporary folder, that listens to no network."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="totalrecall-postgresql-"))
        self._names = 0
        owner = _owner() if os.geteuid() == 0 else None
        self._user = {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        if owner is not None:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self._call("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def data(self) -> Path:
        """The folder of the cluster."""
        return self.folder / "data"

    def start(self) -> None:
        """Start the server, and wait until it answers; after a power cut its processes may still be ending."""
        for pause in (0.5, 1, 2, 4, 8, 16, 0):
            if self._starts():
                return
            time.sleep(pause)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def _starts(self) -> bool:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c max_connections=60"
        log = str(self.folder / "log")
        try:
            self._call("pg_ctl", "-D", str(self.data), "-o", options, "-l", log, "-w", "-t", "100", "start")
        except subprocess.CalledProcessError:
            return False
        return True

    def stop(self, how: str = "immediate") -> None:
        """Stop the server: `immediate` is what a power cut is to it."""
        self._call("pg_ctl", "-D", str(self.data), "-m", how, "-w", "stop")

    def address(self, *options: str, user: str = "postgres") -> str:
        """Return the address of a new, empty database, made with some options of `createdb`."""
        self._names += 1
        name = f"history{self._names}"
        self._call("createdb", "-h", str(self.folder), "-U", "postgres", *options, name)
        return f"postgresql://{user}@/{name}?host={self.folder}"

    def close(self) -> None:
        """Stop the server, and remove all that it wrote."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        programs = _programs()
        assert programs is not None
        subprocess.run(
            [str(programs / program), *arguments],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # subtle: a pipe would stay open as long as the server runs
            stderr=subprocess.DEVNULL,
            timeout=120,
            **self._user,
        )


@contextlib.contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Give a server that ends with the block."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.close()


def _owner() -> "pwd.struct_passwd | None":
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return None


def _programs() -> Path | None:
    """Return the newest folder with PostgreSQL's programs: Debian keeps them off the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(3))
    there = shutil.which("initdb")
    folders = ([Path(there).resolve().parent] if there else []) + folders
    return folders[-1] if folders else None
