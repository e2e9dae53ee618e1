"""Passwords: which are allowed, and how they are kept (argon2id)."""

import unicodedata

from totalrecall.errors import MissingExtraError, SettingError

__all__ = ["LONGEST_PASSWORD", "SHORTEST_PASSWORD", "PasswordHasher", "check_password_rules"]

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 256
_FEWEST_LETTERS = 5  # different ones
_MEMORY_KIB = 64 << 10
_PASSES = 3
_LANES = 1  # one core: the other goes on with the inspections
_COMMON = (
    " 1234567890 0123456789 123456789a password12 password123 password1234 passwort123 passwort1234 qwertyuiop "
    "qwertzuiop qwerty12345 qwerty123456 1q2w3e4r5t 1qaz2wsx3edc letmein1234 welcome1234 willkommen1 admin12345 "
    "administrator changeme123 iloveyou123 abcdefghij abcdefghijkl totalrecall totalrecall1 inspection engineer123 "
    "operator123 "
)


def check_password_rules(password: str, name: str) -> None:
    """Refuse a password that is too short, too long or easily guessed.

    Raises:
        SettingError: it is. The message never holds the password.
    """
    normal = _normal(password) if len(password) <= LONGEST_PASSWORD else password
    if not SHORTEST_PASSWORD <= len(normal) <= LONGEST_PASSWORD:
        raise SettingError(
            f"A password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, got {len(password)}.",
            "password",
        )
    easy = normal.casefold()
    if f" {easy} " in _COMMON or len(set(easy)) < _FEWEST_LETTERS or (len(name) > 2 and name.casefold() in easy):
        raise SettingError(
            "This password is easily guessed. Choose one that is not common, does not contain the user's name, and has "
            f"at least {_FEWEST_LETTERS} different characters, such as four words.",
            "password",
        )


class PasswordHasher:
    """Keeps passwords as argon2id hashes; one check takes 64 MiB and about a fifth of a second of one core.

    Args:
        memory_kib: of one hash.
        passes: over that memory.
    """

    def __init__(self, memory_kib: int = _MEMORY_KIB, passes: int = _PASSES) -> None:
        try:
            import argon2
        except ImportError as error:
            raise MissingExtraError(
                'Users need the package argon2-cffi, which is not installed. pip install "totalrecall[station]"'
            ) from error
        self._argon2 = argon2
        self._hasher = argon2.PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=_LANES)
        self._nobody: str | None = None

    def hash(self, password: str) -> str:
        """Return the hash of a password that `check_password_rules` let through."""
        return self._hasher.hash(_normal(password))

    def verify(self, hashed: str | None, password: str) -> bool:
        """Tell whether a password is the one of a hash.

        Args:
            hashed: None if there is no such user: then as much is computed all the same, so that the time tells nobody
                which users there are.
            password: as typed. One that is longer than any may be is wrong without a computation.
        """
        if len(password) > LONGEST_PASSWORD:
            return False
        if hashed is None:
            self._nobody = self._nobody or self._hasher.hash("nobody has this password")
        try:
            right = self._hasher.verify(hashed or self._nobody or "", _normal(password))
        except (self._argon2.exceptions.VerificationError, self._argon2.exceptions.InvalidHashError):
            return False
        return bool(right) and hashed is not None

    def is_outdated(self, hashed: str) -> bool:
        """Tell whether a hash was made with other settings than today's."""
        return bool(self._hasher.check_needs_rehash(hashed))


def _normal(password: str) -> str:
    """Return one spelling for what different keyboards send for the same characters."""
    return unicodedata.normalize("NFKC", password)
