"""How a registry is talked to, without talking: plain HTTP, redirects and logins decided from values.

Rules of this file: no I/O. Credentials go to the origin (scheme, host, port) they are for and to the token service
that origin names, if that is reached by https or is the origin itself; a redirect elsewhere loses them. Plain HTTP is
for loopback, and for the hosts (`plain`: "host" or "host:port") that the node's configuration names. Nothing is sent to
link-local addresses, where clouds keep their metadata services.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import field
from typing import Final, TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit

from core.errors import Denied, Invalid
from core.values import dataclass

MAX_REDIRECTS: Final = 5
MAX_TOKEN: Final = 64 << 10
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"[!-~]{1,8192}")
_CHALLENGE: Final = re.compile(
    r'(?P<scheme>[A-Za-z]+)\s+(?P<fields>(?:[A-Za-z_-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)\s*,?\s*)+)'
)
_FIELD: Final = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_METADATA: Final = ipaddress.ip_address("fd00:ec2::254")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password or token, for one registry; or an `identity` token, which buys others (docker's word)."""

    username: str
    password: str = field(repr=False)
    identity: str = field(default="", repr=False)

    def basic(self) -> str:
        """The Authorization header of RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


Login: TypeAlias = "Callable[[], Credentials | None]"
"""Looks credentials up, perhaps with a program's help, when they are asked for."""


@dataclass(frozen=True, slots=True)
class Again:
    """Send the same request with this Authorization header."""

    authorization: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskToken:
    """GET `url` with this Authorization header ("": none) for a token, then send the request with it.

    With a `form` it is POSTed instead (distribution token spec, OAuth2).
    """

    url: str
    authorization: str = field(repr=False)
    form: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply is what there is."""


Step: TypeAlias = Again | AskToken | Answer


def after_reply(
    url: str,
    status: int,
    challenges: Sequence[str],
    credentials: Credentials | None,
    scope: str,
    plain: Collection[str] = (),
) -> Step:
    """What follows a first reply of `status` to a request for `url`; whatever the next one is, it is the answer.

    `challenges` are its WWW-Authenticate headers; `scope` is asked of the token service when they name none. Raises
    `Denied` for a challenge that would send credentials where they do not belong.
    """
    if status != 401:
        return Answer()
    offered = {scheme: fields for header in reversed(challenges) for scheme, fields in reversed(_challenges(header))}
    if (bearer := offered.get("bearer")) is not None:
        return _token_request(url, bearer, credentials, scope, plain)
    if "basic" in offered and credentials is not None and not credentials.identity:
        return Again(credentials.basic())
    return Answer()


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    if any(ord(letter) < 32 or ord(letter) > 126 for letter in header) or len(header) > 4096:
        raise Denied("the registry's login challenge is malformed")
    return [
        (
            found["scheme"].lower(),
            {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
                for name, quoted, plain in _fields(found["fields"])
            },
        )
        for found in _CHALLENGE.finditer(header)
    ]


def _fields(text: str) -> list[tuple[str, str, str]]:
    return [(found[1], found[2] or "", found[3] or "") for found in _FIELD.finditer(text)]


def _token_request(
    url: str, challenge: dict[str, str], credentials: Credentials | None, scope: str, plain: Collection[str]
) -> AskToken:
    realm = challenge.get("realm", "")
    own = origin(realm, plain) == origin(url, plain)
    if origin(realm, plain)[0] != "https" and not own:
        raise Denied(f"the registry sends logins to {realm[:100]!r}, which is neither https nor the registry itself")
    scopes = (challenge.get("scope") or scope).split()
    asked = [(name, value) for name in ("service",) if (value := challenge.get(name))]
    if credentials is not None and credentials.identity:
        grant = [("grant_type", "refresh_token"), ("refresh_token", credentials.identity), ("client_id", "reconciler")]
        return AskToken(realm, "", urlencode([*grant, *asked, ("scope", " ".join(scopes))]))
    joint = "&" if urlsplit(realm).query else "?"
    query = urlencode([*asked, *(("scope", one) for one in scopes)])
    return AskToken(realm + joint + query, credentials.basic() if credentials is not None else "")


def parse_token(data: bytes) -> str:
    """The Authorization header that a token service's reply means (distribution token spec); raises `Denied`."""
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError):
        reply = None
    token = (reply.get("token") or reply.get("access_token")) if isinstance(reply, dict) else None
    if not isinstance(token, str) or not _URL.fullmatch(token[:8192]) or len(token) > MAX_TOKEN:
        raise Denied("the registry's token service gave no token")
    return f"Bearer {token}"


def base_url(host: str, plain: Collection[str] = ()) -> str:
    """The root URL of a registry: https; plain HTTP on loopback (there port 443 still means https) and for `plain`."""
    split = urlsplit(f"//{host}")
    loopback = is_loopback(split.hostname or "") and split.port != 443
    return f"{'http' if loopback or host in plain else 'https'}://{host}"


def origin(url: str, plain: Collection[str] = ()) -> tuple[str, str, int]:
    """Scheme, host and port of `url`, checked; raises `Denied` for what no request may be sent to."""
    try:
        split = urlsplit(url)
        host, port = (split.hostname or "").lower(), split.port or _DEFAULT_PORTS.get(split.scheme, 0)
    except ValueError as error:
        raise Denied(f"{url[:100]!r} is not a URL: {error}") from None
    if not _URL.fullmatch(url) or "\\" in url or "@" in split.netloc or not host:
        raise Denied(f"{url[:100]!r} is not a URL that is followed")
    if split.scheme not in _DEFAULT_PORTS:
        raise Denied(f"{url[:100]!r} is neither http nor https")
    check_address(host, plain=split.scheme == "http" and not {host, split.netloc.lower()}.intersection(plain))
    return split.scheme, host, port


def check_address(host: str, *, plain: bool) -> None:
    """Refuse link-local addresses, and plain HTTP to anything but loopback; raises `Denied`."""
    address = _address(host)
    if address is not None and (address.is_link_local or address == _METADATA):
        raise Denied(f"{host} is a link-local address, where no registry is")
    if plain and not is_loopback(host):
        raise Denied(
            f"{host} would be asked over plain HTTP, which is done on loopback only",
            advice="Give the registry a certificate, or name the host in the configuration's transfer.plainHttp.",
        )


def is_loopback(host: str) -> bool:
    """Whether `host` is literally loopback: localhost, 127/8, ::1."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def next_hop(url: str, location: str, plain: Collection[str] = ()) -> tuple[str, bool]:
    """Where a redirect from `url` leads, and whether credentials may go along; raises `Denied`, `Invalid`."""
    if not location:
        raise Invalid(f"{url[:200]} redirects to nowhere")
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise Denied(f"{location[:100]!r} is not a URL: {error}") from None
    before, after = origin(url, plain), origin(target, plain)
    if before[0] == "https" and after[0] == "http":
        raise Denied(f"{url[:200]} redirects from https to plain HTTP")
    return target.partition("#")[0], before == after
