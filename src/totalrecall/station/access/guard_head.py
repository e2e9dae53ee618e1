"""The head of a request, before anything is believed: what an attacker can write into it is refused here."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from totalrecall.station.access.policy import MAX_HEADER_BYTES, Policy
from totalrecall.station.access.tokens import TOKEN_PREFIX

__all__ = ["Head", "RefusedError", "check_cross_site", "check_host", "read_head"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_HEADERS = 100
_LONGEST_QUERY = 8 << 10
_SECRETS = frozenset(
    {"token", "access_token", "auth_token", "api_key", "apikey", "authorization", "bearer", "password", "session"}
)
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_FORWARDING = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
# What a form of any other site can send without asking the browser for leave
_FORM_TYPES = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


class RefusedError(Exception):
    """A request is answered here, and no handler sees it.

    Args:
        status: of HTTP.
        detail: one line for a person.
        headers: of the response.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


@dataclass(frozen=True)
class Head:
    """What the head of a request says.

    Attributes:
        method: GET, POST, ...
        path: decoded, from the first slash.
        query: as sent.
        scheme: `http` or `https`, as the client calls, who may stand behind a proxy that is believed.
        client: the address of the client.
        host: of the header.
        length: bytes of the body as announced; None if it comes in chunks or there is none.
        headers: all, by name in small letters.
    """

    method: str
    path: str
    query: str
    scheme: str
    client: str
    host: str
    length: int | None
    headers: dict[bytes, list[bytes]]

    def get(self, name: bytes) -> str:
        """Return the value of a header, or an empty text; of several, none counts."""
        values = self.headers.get(name, [])
        return values[0].decode("latin-1").strip() if len(values) == 1 else ""

    @property
    def is_safe(self) -> bool:
        """Whether the method changes nothing."""
        return self.method in SAFE_METHODS

    @property
    def is_secure(self) -> bool:
        """Whether the client calls over TLS."""
        return self.scheme == "https"

    @property
    def origin(self) -> str:
        """The origin of our pages, as the client calls us."""
        return f"{self.scheme}://{self.host.lower()}"

    @property
    def content_type(self) -> str:
        """The type of the body, without parameters."""
        return self.get(b"content-type").partition(";")[0].strip().lower()

    @property
    def wants_page(self) -> bool:
        """Whether a browser goes to a page, rather than a program or a script asking for data."""
        return (
            self.method in ("GET", "HEAD") and "text/html" in self.get(b"accept") and b"hx-request" not in self.headers
        )

    @property
    def shows_page(self) -> bool:
        """Whether a person looks at the answer: a browser goes to it, sends a form, or a script of our pages asks."""
        return "text/html" in self.get(b"accept") or b"hx-request" in self.headers

    @property
    def boundary(self) -> str:
        """What stands between the parts of a multipart body; empty if it is none."""
        if self.content_type != "multipart/form-data":
            return ""
        given = _BOUNDARY.search(self.get(b"content-type"))
        return "" if given is None else given[1] or given[2]

    @property
    def came_through_proxy(self) -> bool:
        """Whether a proxy has left its mark."""
        return any(name in self.headers for name in _FORWARDING)


def read_head(scope: dict[str, Any], policy: Policy) -> Head:
    """Return the head of a request.

    Raises:
        RefusedError: it is too large, contradicts itself, or its address is none that the station has.
    """
    headers: dict[bytes, list[bytes]] = {}
    total = 0
    for name, value in scope["headers"]:
        headers.setdefault(name.lower(), []).append(value)
        total += len(name) + len(value)
    if total > MAX_HEADER_BYTES or len(scope["headers"]) > _MOST_HEADERS:
        raise RefusedError(431, f"The headers must have at most {MAX_HEADER_BYTES:,} bytes and {_MOST_HEADERS} lines.")
    query = scope.get("query_string", b"").decode("latin-1")
    _check_query(query)
    _check_path(scope["path"], scope.get("raw_path") or b"")
    hosts = headers.get(b"host", [])
    if len(hosts) != 1:
        raise RefusedError(400, f"A request must have one Host header, got {len(hosts)}.")
    client, scheme = _caller(scope, headers, policy)
    length = _length(headers, policy)
    return Head(
        scope["method"], scope["path"], query, scheme, client, hosts[0].decode("latin-1").strip(), length, headers
    )


def check_host(head: Head, policy: Policy) -> None:
    """Refuse a request that calls the station by a name that is not its own.

    Raises:
        RefusedError: it does.
    """
    if not policy.allows_host(head.host):
        raise RefusedError(
            421,
            f"This station is not called {head.host[:100]!r}. Call it by its address, or start it with --allow-host.",
        )


def check_cross_site(head: Head, *, public: bool) -> None:
    """Refuse what a page of another site made the browser send.

    Args:
        head: of the request.
        public: the route needs no login, so that no secret of a session protects it.

    Raises:
        RefusedError: another site is behind the request, or that cannot be excluded.
    """
    site, origin, referer = head.get(b"sec-fetch-site"), head.get(b"origin"), head.get(b"referer")
    foreign = RefusedError(403, "This request comes from a page of another site.")
    if head.is_safe:
        navigates = head.get(b"sec-fetch-mode") == "navigate" and head.get(b"sec-fetch-dest") in ("", "document")
        if site in ("cross-site", "same-site") and not navigates:
            raise foreign
        return
    if len(head.headers.get(b"origin", [])) > 1 or len(head.headers.get(b"sec-fetch-site", [])) > 1:
        raise foreign
    if site and site not in ("same-origin", "none"):  # the same site is not enough: another port of this computer
        raise foreign
    if origin:
        if origin.lower() != head.origin and (site, origin) != ("same-origin", "null"):
            raise foreign
    elif referer:
        if _origin_of(referer) != head.origin:
            raise foreign
    elif not site and public and head.content_type in _FORM_TYPES:
        # an old browser may send a form so; a program can send JSON
        raise RefusedError(
            403, "A form must say by the header Origin where it comes from. Programs send application/json."
        )


def _origin_of(address: str) -> str:
    """Return the origin of an address as `Head.origin` writes it; an empty text for what is no address."""
    try:
        parts = urlsplit(address)
    except ValueError:  # a bracket that does not close
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()


def _caller(scope: dict[str, Any], headers: dict[bytes, list[bytes]], policy: Policy) -> tuple[str, str]:
    """Return the client's address and the scheme; what proxies say counts only where they are believed."""
    client, scheme = (scope.get("client") or ("", 0))[0], scope.get("scheme", "http")
    if not policy.trusts_proxy(client):
        return client, scheme
    hops = [hop.strip() for value in headers.get(b"x-forwarded-for", []) for hop in value.decode("latin-1").split(",")]
    for hop in reversed([hop for hop in hops if hop]):
        client = hop[:64]
        if not policy.trusts_proxy(hop):  # what stands further left can be written by anybody
            break
    protocols = headers.get(b"x-forwarded-proto", [])
    if len(protocols) == 1 and protocols[0].strip() in (b"http", b"https"):
        scheme = protocols[0].strip().decode("ascii")
    return client, scheme


def _length(headers: dict[bytes, list[bytes]], policy: Policy) -> int | None:
    lengths = headers.get(b"content-length", [])
    if not lengths:
        return None
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise RefusedError(400, "Content-Length must be one number.")
    if b"transfer-encoding" in headers:
        raise RefusedError(400, "A request has either Content-Length or Transfer-Encoding.")
    length = int(lengths[0])
    if length > policy.max_body:
        raise RefusedError(413, f"The body must have at most {policy.max_body:,} bytes, got {length:,}.")
    return length


def _check_path(path: str, raw: bytes) -> None:
    """Refuse addresses of other servers (absolute form), and those that two programs may read in two ways."""
    raw = raw.partition(b"?")[0]  # some servers leave the query in it
    lower = raw.lower()
    odd = (
        not path.startswith("/")
        or (raw and not raw.startswith(b"/"))
        or "//" in path
        or "\\" in path
        or any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in path)
        or any(part in (".", "..") for part in path.split("/"))
        or b"%2f" in lower
        or b"%5c" in lower
    )
    if odd:
        raise RefusedError(400, "The address must be a plain path from '/'.")


def _check_query(query: str) -> None:
    if not query:
        return
    if len(query) > _LONGEST_QUERY:
        raise RefusedError(
            414, f"What follows '?' must have at most {_LONGEST_QUERY:,} characters, got {len(query):,}."
        )
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_HEADERS)
    except ValueError:
        raise RefusedError(400, f"An address may have at most {_MOST_HEADERS} parameters.") from None
    if any(name.lower() in _SECRETS or TOKEN_PREFIX in value for name, value in pairs):
        raise RefusedError(
            400,
            "A secret must not stand in an address, which logs keep. Send the header Authorization: Bearer TOKEN, "
            "and revoke the token that was sent.",
        )
