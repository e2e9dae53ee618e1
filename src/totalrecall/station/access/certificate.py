"""Until when a TLS certificate is good, and who can read its key: what people are told before a browser refuses it.

Python's `ssl` loads a certificate and does not say its dates, so they are read from its DER (RFC 5280, 4.1): within the
signed part, after an optional version, come number, algorithm, issuer and then the validity.
"""

import ssl
import stat
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from totalrecall.errors import DataError
from totalrecall.system.text import counted

__all__ = ["Validity", "read_validity", "tls_notices"]

_SOON = timedelta(days=30)
_END = "-----END CERTIFICATE-----"
_BEFORE_VALIDITY = 3  # serial number, algorithm, issuer
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18  # tags


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate is good, in UTC."""

    begins: datetime
    ends: datetime

    def state(self, now: datetime | None = None) -> str | None:
        """Return `early`, `soon` (it ends within 30 days) or `ended`; None while all is well."""
        now = now or datetime.now(timezone.utc)
        if now < self.begins:
            return "early"
        if now > self.ends:
            return "ended"
        return "soon" if self.ends - now < _SOON else None


def read_validity(certificate: Path) -> Validity:
    """Return the validity of the first certificate of a PEM file: the station's own.

    Raises:
        DataError: it cannot be read.
    """
    try:
        text = certificate.read_text("latin-1")
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(_END) + len(_END)]
        return _validity(ssl.PEM_cert_to_DER_cert(first))
    except OSError as error:
        raise DataError(f"The certificate {certificate} cannot be read: {error.strerror or error}.") from None
    except (ValueError, IndexError):
        raise DataError(f"{certificate} does not say until when it is good.") from None


def tls_notices(tls: tuple[Path, Path], now: datetime | None = None) -> list[str]:
    """Return what the person at the terminal must be told of a certificate and its key.

    Args:
        tls: files of both.
        now: the time; by default that of the clock.

    Raises:
        DataError: the certificate cannot be read.
    """
    certificate, key = tls
    validity, now = read_validity(certificate), now or datetime.now(timezone.utc)
    days = counted(max((validity.ends - now).days, 0), "day")
    words = {
        "early": f"is good from {validity.begins:%Y-%m-%d} on only. Is this computer's clock right?",
        "soon": f"ends on {validity.ends:%Y-%m-%d}, in {days}. Put a new one in its place and start the station again.",
        "ended": f"ended on {validity.ends:%Y-%m-%d}: clients refuse it. Put a new one in its place and start the "
        "station again.",
    }
    state = validity.state(now)
    notices = [] if state is None else [f"the certificate {certificate} {words[state]}"]
    if sys.platform != "win32" and key.stat().st_mode & stat.S_IROTH:
        notices.append(f"everybody on this computer can read the key {key}. Run: chmod o= {key}")
    return notices


def _validity(der: bytes) -> Validity:
    _, begin, _ = _element(der, 0)  # the certificate
    _, at, _ = _element(der, begin)  # its signed part
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        at = end
    for _ in range(_BEFORE_VALIDITY):
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at)
    begins, at = _time(der, at)
    ends, _ = _time(der, at)
    return Validity(begins, ends)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of an element, where its content begins, and where it ends."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length & 0x80:  # the length stands in so many bytes
        count = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return tag, begin, begin + length


def _time(der: bytes, at: int) -> tuple[datetime, int]:
    tag, begin, end = _element(der, at)
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError(tag)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: up to 49 they are of this century
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc), end
