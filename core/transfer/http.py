"""HTTP to one registry and to where it sends us. The only module that knows the HTTP client.

Rules of this file: one request, one reply, no retry and no redirect; every error of the client in our words. What a
host's own settings allow (no verification, our certificate, headers) is for that host alone. The address behind a name
is refused as the name would be, before a byte is sent; behind a proxy only the proxy can tell.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from io import IOBase
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse as Reply
from urllib3.response import HTTPResponse

from core.clock import Clock, timestamp
from core.errors import AgentError, Denied, Invalid, TimedOut, Unavailable, from_os_error
from core.transfer import auth
from core.transfer.endpoints import Endpoint, Ways
from core.transfer.faults import WrongClock, wait_of
from core.transfer.manners import Manners
from core.transfer.proxies import Proxy

__all__ = ["Http", "Reply", "body_faults"]

body_faults: Final = urllib3.exceptions.HTTPError
"""What reading a reply's body may raise; `Http.fault` puts it into our words."""

_CONNECTIONS: Final = 8
"""Kept open to one host; more may be opened."""
_BROKEN: Final = (408, 425, 429)


def _in_time(connection: HTTPConnection, answer: Callable[[], HTTPResponse]) -> HTTPResponse:
    """The whole header within the read timeout, which the client by itself starts anew with every byte."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):  # the other side has closed it at this moment
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    watch = threading.Timer(connection.timeout or 0.0, cut)
    watch.daemon = True
    watch.start()
    try:
        return answer()
    finally:
        watch.cancel()
        if late.is_set():  # what came until the cut may look like a short answer
            raise TimedOut(f"{connection.host} takes too long to answer")


class _Plain(HTTPConnection):
    plain: frozenset[str] = frozenset()
    direct = True

    def _new_conn(self) -> socket.socket:
        named = {self.host, f"{self.host}:{self.port}"}
        return _checked(super()._new_conn(), plain=not named & self.plain, direct=self.direct)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # the client's own signature differs from http.client
        return _in_time(self, super().getresponse)


class _Secure(HTTPSConnection):
    direct = True

    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), plain=False, direct=self.direct)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # the client's own signature differs from http.client
        return _in_time(self, super().getresponse)


def _checked(connected: socket.socket, *, plain: bool, direct: bool) -> socket.socket:
    """Refuse the address behind a name as the name itself would be, before a byte is sent."""
    if direct:
        try:
            auth.check_address(connected.getpeername()[0], plain=plain)
        except BaseException:
            connected.close()
            raise
    return connected


def _pools(plain_hosts: frozenset[str], *, through: bool) -> dict[str, Any]:
    """The client's classes of connections, by scheme; `through` a proxy or not."""

    class Plain(_Plain):
        plain = plain_hosts
        direct = not through

    class Secure(_Secure):
        direct = not through

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

        def _validate_conn(self, conn: Any) -> None:
            if conn.is_closed:  # as the client does, without its warning where verification is switched off
                conn.connect()

    return {"http": PlainPool, "https": SecurePool}


class Http:
    """Requests for one endpoint, by any thread; connections are kept until `close`. `patience`: seconds of silence."""

    def __init__(self, endpoint: Endpoint, ways: Ways, clock: Clock, patience: float) -> None:
        self._endpoint = endpoint
        self._ways = ways
        self._clock = clock
        self._patience = patience
        self._plain = frozenset(ways.plain) | ({endpoint.host} if endpoint.base.startswith("http:") else frozenset())
        self._managers: dict[tuple[bool, Proxy | None], urllib3.PoolManager] = {}
        self._manners = ways.manners or Manners(clock)
        self._waited_for: dict[Reply, str] = {}

    @property
    def plain(self) -> frozenset[str]:
        """The hosts that may be reached without TLS."""
        return self._plain

    def close(self) -> None:
        """Give back all connections."""
        for reply in list(self._waited_for):
            self.end(reply)
        for manager in list(self._managers.values()):
            manager.clear()

    def send(self, method: str, url: str, headers: Mapping[str, str], body: str | IOBase = "") -> Reply:
        """One request, one reply with its body unread. Raises `Denied`, `Unavailable`, `TimedOut`, `WrongClock`."""
        scheme, host, port = auth.origin(url, self._plain)
        own = urlsplit(url).netloc == self._endpoint.host
        proxy = self._ways.proxies.choose(scheme, host, port)
        headers = {"User-Agent": "reconciler", "Accept-Encoding": "identity", **headers}
        headers |= self._endpoint.headers if own else {}
        name = f"{host}:{port}"
        with contextlib.ExitStack() as turn:
            self._manners.enter(name)
            turn.callback(self._manners.leave, name)
            try:
                reply = self._manager(own=own, proxy=proxy).urlopen(
                    *(method, url),
                    headers=headers,
                    body=body or None,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            except urllib3.exceptions.HTTPError as error:
                self._manners.failed(name)
                raise self.fault(error, url, proxy) from error
            except AgentError:
                self._manners.failed(name)
                raise
            if method == "GET" and reply.status in (200, 206):  # a header alone is no answer: its bytes are
                turn.pop_all()
                self._waited_for[reply] = name
            else:
                self._judge(reply, name, proxy)
        return reply

    def came(self, reply: Reply) -> None:
        """The first bytes of a body are here, or its end: the host answers."""
        if (name := self._waited_for.pop(reply, None)) is not None:
            self._manners.answered(name)
            self._manners.leave(name)

    def end(self, reply: Reply) -> None:
        """Nobody reads on: its connection is given back or closed."""
        if (name := self._waited_for.pop(reply, None)) is not None:
            self._manners.leave(name)
        reply.close()

    def broke_off(self, url: str) -> None:
        """A reply's body brought next to nothing: the host counts as failing."""
        _, host, port = auth.origin(url, self._plain)
        self._manners.failed(f"{host}:{port}")

    def _judge(self, reply: Reply, name: str, proxy: Proxy | None) -> None:
        if reply.status == 407:
            reply.close()
            raise Denied(
                f"the proxy {proxy.url if proxy else name} wants a login (407)",
                advice="Write it into the proxy's URL: http://user:password@host:port.",
            )
        if reply.status >= 500 or reply.status in _BROKEN:
            self._manners.failed(name, wait_of(reply.headers, otherwise=0.0))
        else:
            self._manners.answered(name)

    def _manager(self, *, own: bool, proxy: Proxy | None) -> urllib3.PoolManager:
        found = self._managers.get((own, proxy))
        if found is None:
            found = self._managers.setdefault((own, proxy), self._make(own=own, proxy=proxy))
        return found

    def _make(self, *, own: bool, proxy: Proxy | None) -> urllib3.PoolManager:
        connect = min(self._endpoint.connect_seconds, self._patience) if own else self._endpoint.connect_seconds
        timeout = urllib3.Timeout(connect=connect, read=self._patience)
        common: dict[str, Any] = {"num_pools": 8, "maxsize": _CONNECTIONS, "timeout": timeout, "retries": False}
        common["ssl_context"] = self._own_tls if own else self._tls
        if proxy is None:
            manager = urllib3.PoolManager(**common)
        else:
            login = urllib3.make_headers(proxy_basic_auth=proxy.login) if proxy.login else {}
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=login, proxy_ssl_context=self._tls, **common)
        manager.pool_classes_by_scheme = _pools(self._plain, through=proxy is not None)
        return manager

    def _context(self) -> ssl.SSLContext:
        """The system's authorities, the node's and this host's."""
        context = ssl.create_default_context()
        for file in (*filter(None, (self._ways.ca,)), *self._endpoint.trust.ca):
            with _reading(file):
                context.load_verify_locations(file)
        return context

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """For wherever the registry sends us."""
        return self._context()

    @functools.cached_property
    def _own_tls(self) -> ssl.SSLContext:
        """For this host alone: with our certificates, and without asking for its own where that is switched off."""
        trust = self._endpoint.trust
        context = self._context()
        for certificate, key in trust.client:
            with _reading(certificate):
                context.load_cert_chain(certificate, key)
        if trust.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def fault(self, error: urllib3.exceptions.HTTPError, url: str, proxy: Proxy | None = None) -> AgentError:
        """The client's error in our words."""
        host, words = urllib3.util.parse_url(url).netloc or "", str(error)
        if isinstance(error, urllib3.exceptions.ProxyError) and proxy is not None:
            return _proxy_fault(host, words, proxy)
        if isinstance(error, urllib3.exceptions.SSLError) and _is_clock(words, self._clock.wall()):
            now = timestamp(self._clock.wall())
            return WrongClock(f"{host}: its certificate is not valid at the time this node has, {now}: {words}"[:300])
        return _fault(error, host, words)


def _is_clock(words: str, now: float) -> bool:
    """Whether the node's clock is to blame: it is before the certificate's time, or before this program was written."""
    return "not yet valid" in words or ("has expired" in words and now < _WRITTEN)


_WRITTEN: Final = 1_735_689_600.0
"""The start of 2025: no node's clock is right that says less."""


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise Invalid(f"{file} holds no usable certificate or key: {error.reason or error}") from error
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error


def _proxy_fault(host: str, words: str, proxy: Proxy) -> AgentError:
    if " 407 " in words:
        return Denied(
            f"the proxy {proxy.url} wants a login (407)",
            advice="Write it into the proxy's URL: http://user:password@host:port.",
        )
    return Unavailable(
        f"{host} cannot be reached through the proxy {proxy.url}: {words.rpartition(': ')[2]}"[:300],
        advice="Check the proxy, or name the host in NO_PROXY (or transfer.proxy.noProxy).",
    )


def _fault(error: urllib3.exceptions.HTTPError, host: str, words: str) -> AgentError:
    match error:
        case urllib3.exceptions.SSLError() if "WRONG_VERSION_NUMBER" in words or "UNEXPECTED_EOF" in words:
            return Denied(
                f"{host} does not speak TLS; plain HTTP is done on loopback only",
                advice="Give the registry a certificate, check the port, or name it in transfer.plainHttp.",
            )
        case urllib3.exceptions.SSLError():
            return Denied(
                f"{host}: its certificate is not trusted: {words}"[:300],
                advice="Add its authority to the node's trust store (update-ca-certificates), to transfer.ca, or to "
                "the host's hosts.toml.",
            )
        case urllib3.exceptions.NameResolutionError():
            return Unavailable(f"{host}: no such host name", advice="Check the name, and the node's DNS.")
        case urllib3.exceptions.NewConnectionError():
            return Unavailable(f"{host} cannot be reached: {words.rpartition(': ')[2]}")
        case urllib3.exceptions.ConnectTimeoutError() | urllib3.exceptions.ReadTimeoutError():
            return TimedOut(f"{host} does not answer")
        case urllib3.exceptions.LocationParseError():
            return Invalid(f"{host} is not a host")
        case _:
            return Unavailable(f"{host} broke off: {words}"[:300])
