"""Logins over the network: throttled, and computed by one thread, so that the event loop and the inspections go on."""

import math
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from totalrecall.errors import LoginError, ThrottledError
from totalrecall.station.access.sessions import Session
from totalrecall.station.access.throttle import LoginThrottle
from totalrecall.station.access.user_names import LONGEST_NAME, look
from totalrecall.station.access.users import Users
from totalrecall.station.store.records import Actor

__all__ = ["Logins"]

_WAITING = 16  # passwords that may wait to be checked; each takes a fifth of a second

T = TypeVar("T")


class Logins:
    """Checks passwords for the HTTP service.

    Args:
        users: whose passwords they are.
        throttle: of failures.
    """

    def __init__(self, users: Users, throttle: LoginThrottle | None = None) -> None:
        self._users = users
        self._throttle = LoginThrottle() if throttle is None else throttle
        self._one = anyio.CapacityLimiter(1)  # 64 MiB and one core at a time, however many knock
        self._waiting = 0

    async def log_in(
        self, name: str, password: str, address: str, *, instead_of: str | None = None
    ) -> tuple[Session, str]:
        """Begin a session and return it with its secret.

        Args:
            name: as typed.
            password: as typed.
            address: of the client.
            instead_of: secret of a session that ends.

        Raises:
            LoginError: the name or the password is wrong, or the user is disabled; which of them is not said.
            ThrottledError: there were too many failures, or too many passwords wait to be checked.
        """
        key = self._admit(name, address)
        begun = await self.compute(partial(self._users.log_in, name, password, address=address, instead_of=instead_of))
        if begun is None:
            raise LoginError("The name or the password is wrong.")
        self._throttle.succeeded(key, address)
        return begun

    async def change_password(self, actor: Actor, password: str, new: str, address: str) -> None:
        """Give a user a new password, who has to say the old one.

        Raises:
            LoginError: the old password is wrong.
            ThrottledError: there were too many failures.
            SettingError: the new one is not allowed.
        """
        key = self._admit(actor.name, address)
        if not await self.compute(partial(self._users.has_password, actor.name, password)):
            raise LoginError("The old password is wrong.")
        self._throttle.succeeded(key, address)
        await self.compute(partial(self._users.set_password, actor.name, new, actor))

    def _admit(self, name: str, address: str) -> str:
        """Count an attempt, and return what its failures are counted under: names that look alike are one."""
        key = look(unicodedata.normalize("NFKC", name[:LONGEST_NAME]).lower())
        wait = self._throttle.admit(key, address)
        if wait > 0:
            seconds = math.ceil(wait)
            raise ThrottledError(f"There were too many failed logins. Try again in {seconds} s.", seconds=seconds)
        return key

    async def compute(self, function: Callable[[], T]) -> T:
        """Run what hashes a password in the one thread that does.

        Raises:
            ThrottledError: too many wait.
        """
        if self._waiting >= _WAITING:
            raise ThrottledError("Too many passwords wait to be checked. Try again in 5 s.", seconds=5)
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(function, limiter=self._one)
        finally:
            self._waiting -= 1
