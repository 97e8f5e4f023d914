"""Which proxy a request goes through, decided from values: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as curl has them.

Rules of this file: no I/O. Loopback is never asked through a proxy. A proxy's login is in its URL and is never shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Self
from urllib.parse import unquote, urlsplit

from core.errors import Invalid
from core.transfer.auth import is_loopback
from core.values import dataclass


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: its URL without a login, and the login ("user:password" or "")."""

    url: str
    login: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[http[s]://][user:password@]host[:port]`; raises `Invalid`, which shows no password."""
        try:
            split = urlsplit(text if "://" in text else f"http://{text}")
            host, port = split.hostname or "", split.port
        except ValueError:
            host, port, split = "", None, urlsplit("")
        if split.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9.:_-]+", host):
            raise Invalid(f"the proxy {masked(text)!r} is no URL of an HTTP proxy", advice="Write http://host:port.")
        shown = f"[{host}]" if ":" in host else host
        login = f"{unquote(split.username or '')}:{unquote(split.password or '')}" if split.username else ""
        return cls(f"{split.scheme}://{shown}:{port or (443 if split.scheme == 'https' else 80)}", login)


def masked(url: str) -> str:
    """A URL as people may see it: whatever stands before an "@" is `***`."""
    scheme, mark, rest = url.rpartition("://")
    before, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{'***@' if at and before else ''}{host}"[:200]


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies for http and https URLs, and the hosts that are asked directly all the same."""

    http: Proxy | None = None
    https: Proxy | None = None
    direct: tuple[str, ...] = ()

    @classmethod
    def of(cls, http: str | None, https: str | None, direct: Sequence[str] = ()) -> Self:
        """From URLs and entries of NO_PROXY; raises `Invalid`."""
        entries = tuple(entry.strip().lower() for entry in direct if entry.strip())
        return cls(Proxy.parse(http) if http else None, Proxy.parse(https) if https else None, entries)

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Self:
        """What HTTP_PROXY, HTTPS_PROXY, NO_PROXY say, in capitals or not; raises `Invalid`."""
        http, https, direct = (
            env.get(name) or env.get(name.upper()) for name in ("http_proxy", "https_proxy", "no_proxy")
        )
        return cls.of(http, https, (direct or "").split(","))

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for a request to `host` (no brackets); None: ask it directly."""
        found = self.https if scheme == "https" else self.http
        if found is None or is_loopback(host) or any(_covers(entry, host, port) for entry in self.direct):
            return None
        return found


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means `host`: `*`, an address, a CIDR, a name and all below it, each with a port."""
    if entry == "*":
        return True
    named, _, number = entry.rpartition(":")
    if named and number.isdecimal() and (named.count(":") == 0 or named.endswith("]")):
        if int(number) != port:
            return False
        entry = named
    entry = entry.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
