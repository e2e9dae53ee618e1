"""Against guessed passwords: after some failures each further attempt has to wait, twice as long each time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

__all__ = ["LoginThrottle", "network_of"]

_FORGET = 3600.0  # seconds without a failure after which the failures are forgotten
_LONGEST_WAIT = 900.0  # seconds
_FREE = {"pair": 5, "user": 20, "network": 20}  # failures that cost no wait: user at an address, user, address
_MOST = 4096  # counters of each kind: a flood of names and addresses takes no more memory than these


def network_of(address: str) -> str:
    """Return what failures from an address are counted under: itself, or the /64 that one IPv6 customer gets."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(IPv6Address(int(ip) >> 64 << 64)) + "/64"
    return str(ip)


@dataclass
class _Failures:
    count: int
    last: float


class _Counters:
    """Failures by key, of which the oldest are let go first."""

    def __init__(self, free: int) -> None:
        self.by_key: OrderedDict[Hashable, _Failures] = OrderedDict()
        self._free = free

    def wait(self, key: Hashable, now: float) -> float:
        """Return for how many seconds a key must still wait."""
        failures = self.by_key.get(key)
        if failures is None or now - failures.last > _FORGET:
            return 0.0
        over = failures.count - self._free
        return 0.0 if over < 0 else failures.last + min(2.0 ** min(over, 30), _LONGEST_WAIT) - now

    def fail(self, key: Hashable, now: float) -> None:
        """Count a failure."""
        failures = self.by_key.pop(key, None)
        if failures is None or now - failures.last > _FORGET:
            failures = _Failures(0, now)
        failures.count, failures.last = failures.count + 1, now
        self.by_key[key] = failures
        while len(self.by_key) > _MOST:
            self.by_key.popitem(last=False)

    def take_back(self, key: Hashable) -> None:
        """Uncount one failure: the attempt turned out to be right."""
        failures = self.by_key.get(key)
        if failures is not None:
            failures.count -= 1
            if failures.count <= 0:
                del self.by_key[key]


class LoginThrottle:
    """Counts failed logins by user, by address and by both together. Memory is bounded.

    An attacker must not be able to lock a user out by failing in the user's name: an address from which the user has
    logged in before waits only for its own failures.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pairs, self._users, self._networks = (_Counters(_FREE[kind]) for kind in ("pair", "user", "network"))
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()  # (user, address) that logged in before

    def admit(self, user: str, address: str) -> float:
        """Return 0 and count an attempt, or return the seconds that it must wait for.

        The attempt counts as a failure until `succeeded`, so that a thousand at the same moment do not all come in
        before the first has failed.
        """
        network = network_of(address)
        with self._lock:
            now = self._clock()
            known = (user, network) in self._known
            waits = [self._pairs.wait((user, network), now), self._networks.wait(network, now)]
            if not known:
                waits.append(self._users.wait(user, now))
            if max(waits) > 0:
                return max(waits)
            self._pairs.fail((user, network), now)
            self._networks.fail(network, now)
            if not known:
                self._users.fail(user, now)
            return 0.0

    def succeeded(self, user: str, address: str) -> None:
        """Take the attempt back, and remember that this user logs in from there.

        Other failures from the address stay: somebody with a password of their own must not buy guesses at others'.
        """
        network = network_of(address)
        with self._lock:
            if (user, network) not in self._known:
                self._users.take_back(user)
            self._networks.take_back(network)
            self._pairs.by_key.pop((user, network), None)
            self._known.pop((user, network), None)
            self._known[(user, network)] = None
            while len(self._known) > _MOST:
                self._known.popitem(last=False)

    @property
    def size(self) -> int:
        """Number of counters in memory."""
        with self._lock:
            return sum(len(one.by_key) for one in (self._pairs, self._users, self._networks)) + len(self._known)
