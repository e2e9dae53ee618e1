"""For tests of who may call what: a station's users in a file, certificates."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from totalrecall.station.access.passwords import PasswordHasher
from totalrecall.station.access.users import Users
from totalrecall.station.store.database import Database
from totalrecall.station.store.records import ANYBODY
from totalrecall.station.store.trail import Trail

PASSWORD = "four plain words here"


@contextlib.contextmanager
def open_users(place: Path | str) -> Iterator[Users]:
    """Give the users of a station; their passwords are hashed as quickly as argon2 can.

    Args:
        place: the station's folder, or the address of its database.
    """
    address = place if isinstance(place, str) else f"sqlite:///{place / 'history.db'}"
    with Database(address) as database:
        users = Users(database, Trail(database), PasswordHasher(memory_kib=8, passes=1))
        users.trail_rows = lambda: Trail(database).rows(1000)
        users.trail_verified = Trail(database).verify
        yield users


def with_roles(users: Users) -> Users:
    """Add a user of each role, called after it."""
    for role in ("engineer", "operator", "auditor"):
        users.add(f"{role}s-name", role, PASSWORD, ANYBODY)
    return users


def make_certificate(certificate: Path, key: Path, *more: str) -> None:
    """Write a certificate for localhost and its key, by openssl."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", *curve, *name, *files, *(more or ("-nodes",))]
    subprocess.run(command, check=True, capture_output=True)
