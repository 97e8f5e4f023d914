"""A registry as the origin of one image (OCI distribution-spec, pull). The only module that knows the HTTP client.

Rules of this file: no retries here (the caller's, so that they never multiply), no redirect followed by the client
itself, no body read without a limit of bytes and time, every client error turned into one that says what to do.
What may be sent where is decided in `core.transfer.auth`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self, assert_never

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse, HTTPResponse

from core.clock import Clock
from core.content.ingest import WrongBytes
from core.digest import Digest
from core.errors import AgentError, Denied, Invalid, TimedOut, Unavailable
from core.transfer import auth, faults, manifests
from core.transfer.ports import CannotResume, Descriptor
from core.transfer.reference import Reference

_CHUNK: Final = 1 << 20
_CONNECT_SECONDS: Final = 10.0
_CONNECTIONS: Final = 8
"""Kept open to one host; more may be opened."""
_SLOWEST: Final = 32 << 10
"""Bytes of a blob within the patience, or it counts as standing still."""
_MAX_ERROR_BODY: Final = 64 << 10
_MAX_TAGS_BODY: Final = 1 << 20
_DOCUMENTS: Final = (*manifests.MANIFESTS, *manifests.INDEXES)
_ACCEPT: Final = ", ".join(_DOCUMENTS)


def _checked(connected: socket.socket, *, plain: bool) -> socket.socket:
    """Refuse the address behind a name as the name itself would be, before a byte is sent."""
    try:
        auth.check_address(connected.getpeername()[0], plain=plain)
    except BaseException:
        connected.close()
        raise
    return connected


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
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), plain=True)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # the client's own signature differs from http.client
        return _in_time(self, super().getresponse)


class _Secure(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), plain=False)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # the client's own signature differs from http.client
        return _in_time(self, super().getresponse)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class Registry:
    """One image in one registry; its connections are kept, and shared by the threads that fetch, until its block ends.

    `patience`, in seconds, is how long it may take until the next bytes, a whole header, or a whole small document.
    """

    def __init__(
        self, reference: Reference, credentials: auth.Credentials | None, clock: Clock, *, patience: float = 30.0
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._clock = clock
        self._base = f"{auth.base_url(reference.host)}/v2/{reference.repository}"
        self._authorization = ""
        self._patience = patience
        self._etags: dict[Digest, str] = {}
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=patience)
        self._pools = urllib3.PoolManager(num_pools=8, maxsize=_CONNECTIONS, timeout=timeout, retries=False)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pools.clear()

    @property
    def image(self) -> str:
        """The image's full name."""
        return str(self._reference)

    @property
    def origin(self) -> str:
        """The registry as the reference names it."""
        return self._reference.registry

    def resolve(self) -> Descriptor:
        """What tag or digest mean now, without the manifest's body where the registry can say it without.

        Raises `NotFound` (with the tags that are there), `Denied`, `Unavailable`, `TimedOut`, `Throttled`.
        """
        pinned = self._reference.digest
        path = f"manifests/{pinned or self._reference.tag}"
        with self._open("HEAD", path, {"Accept": _ACCEPT}) as head:
            media_type = _media_type(head)
            size = head.headers.get("Content-Length", "")
            stated = head.headers.get("Docker-Content-Digest", "")
            if head.status == 200 and media_type in _DOCUMENTS and size.isdecimal() and (pinned or stated):
                return Descriptor(media_type, pinned or Digest.parse(stated), int(size))
        with self._open("GET", path, {"Accept": _ACCEPT}) as reply:
            self._need(reply, self.image)
            data = self._small(reply, manifests.MAX_DOCUMENT + 1)
            media_type = manifests.parse_document(data, _media_type(reply)).media_type
        return Descriptor(media_type, pinned or Digest.of(data), len(data))

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index by its digest; raises as `resolve`, and `Ambiguous` when the header says another type."""
        with self._open("GET", f"manifests/{descriptor.digest}", {"Accept": descriptor.media_type}) as reply:
            self._need(reply, f"{self.image} ({descriptor.digest})")
            stated = _media_type(reply)
            if stated != descriptor.media_type and stated in _DOCUMENTS:
                raise manifests.Ambiguous(f"{descriptor.digest} was to be {descriptor.media_type}; it came as {stated}")
            return self._small(reply, min(descriptor.size, manifests.MAX_DOCUMENT) + 1)

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """A blob from byte `start` on, in chunks of up to 1 MiB, as they come; never beyond its size + 1 bytes.

        Raises as `resolve`, `WrongBytes` when the registry says another size at once, and `CannotResume`.
        """
        what = f"blob {descriptor.digest} of {self.image}"
        extent = {"Range": f"bytes={start}-"} if start else {}
        with self._open("GET", f"blobs/{descriptor.digest}", extent) as reply:
            if start:
                self._check_extent(reply, descriptor, start)
            else:
                self._need(reply, what)
                self._etags[descriptor.digest] = reply.headers.get("ETag", "")
                stated = reply.headers.get("Content-Length", "")
                if stated.isdecimal() and int(stated) != descriptor.size:
                    raise WrongBytes(f"{what} has {stated[:20]} bytes where {descriptor.size} were promised")
            yield from self._chunks(reply, descriptor.size + 1 - start)

    def _check_extent(self, reply: BaseHTTPResponse, descriptor: Descriptor, start: int) -> None:
        """Take a reply to a range only when it is that range of the same thing (RFC 9110, 14.4 and 15.3.7)."""
        what = f"blob {descriptor.digest} of {self.image}"
        if reply.status in (200, 416):
            raise CannotResume(f"{what}: the registry does not give the rest alone")
        if reply.status != 206:
            self._need(reply, what)
        if reply.headers.get("Content-Range", "") != f"bytes {start}-{descriptor.size - 1}/{descriptor.size}":
            raise CannotResume(f"{what}: the registry gives another part than was asked for")
        if self._etags.setdefault(descriptor.digest, etag := reply.headers.get("ETag", "")) != etag:
            raise CannotResume(f"{what} is another one than before at the registry")

    def _tags(self) -> list[str] | None:
        """The first page of the repository's tags; None when the registry does not say."""
        with self._open("GET", "tags/list", {"Accept": "application/json"}) as reply:
            if reply.status != 200:
                return None
            return faults.tags(self._small(reply, _MAX_TAGS_BODY))

    def _need(self, reply: BaseHTTPResponse, what: str) -> None:
        """Raise what any status but 200 means."""
        if reply.status == 200:
            return
        body = self._small(reply, _MAX_ERROR_BODY)
        by_tag = what == self.image and self._reference.digest is None
        if reply.status == 404 and by_tag and (tags := self._tags()) is not None:
            raise faults.no_such_tag(what, self._reference.tag, tags)
        wait, logged_in = reply.headers.get("Retry-After", ""), self._credentials is not None
        raise faults.refusal(what, reply.status, body, retry_after=wait, logged_in=logged_in)

    @contextlib.contextmanager
    def _open(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
        """The final reply to a request: logins made, redirects followed. Its connection is given back or closed."""
        url, with_login = f"{self._base}/{path}", True
        for _ in range(auth.MAX_REDIRECTS + 1):
            reply = self._logged_in(method, url, headers) if with_login else self._send(method, url, headers, "")
            try:
                if reply.status not in (301, 302, 303, 307, 308):
                    yield reply
                    return
                self._small(reply, _MAX_ERROR_BODY)
            finally:
                reply.close()
            url, same = auth.next_hop(url, reply.headers.get("Location", ""))
            with_login = with_login and same
        raise Invalid(f"{self.image}: the registry redirects more than {auth.MAX_REDIRECTS} times")

    def _logged_in(self, method: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send, and when a login is asked for, log in and send once more."""
        reply = self._send(method, url, headers, self._authorization)
        scope = f"repository:{self._reference.repository}:pull"
        step = auth.after_reply(url, reply.status, reply.headers.getlist("WWW-Authenticate"), self._credentials, scope)
        match step:
            case auth.Answer():
                return reply
            case auth.Again(authorization):
                sent = authorization
            case auth.AskToken(token_url, authorization):
                sent = self._token(token_url, authorization)
            case unknown:
                assert_never(unknown)
        self._small(reply, _MAX_ERROR_BODY)
        reply.close()
        self._authorization = sent
        return self._send(method, url, headers, sent)

    def _token(self, url: str, authorization: str) -> str:
        reply = self._send("GET", url, {"Accept": "application/json"}, authorization)
        try:
            self._need(reply, f"the login for {self.image}")
            return auth.parse_token(self._small(reply, auth.MAX_TOKEN))
        finally:
            reply.close()

    def _send(self, method: str, url: str, headers: Mapping[str, str], authorization: str) -> BaseHTTPResponse:
        """One request, one reply with its body unread. Raises `Denied`, `Unavailable`, `TimedOut`."""
        auth.origin(url)
        sent = {"User-Agent": "reconciler", "Accept-Encoding": "identity", **headers}
        sent |= {"Authorization": authorization} if authorization else {}
        try:
            return self._pools.urlopen(
                method, url, headers=sent, redirect=False, preload_content=False, decode_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise _fault(error, url) from error

    def _small(self, reply: BaseHTTPResponse, limit: int) -> bytes:
        """At most `limit` bytes of a body that must be here within the patience."""
        started, found = self._clock.monotonic(), bytearray()
        for chunk in self._chunks(reply, limit):
            found += chunk
            if self._clock.monotonic() - started > self._patience:
                raise TimedOut(f"{self.image}: the registry takes over {self._patience:.0f} s for a small reply")
        return bytes(found)

    def _chunks(self, reply: BaseHTTPResponse, limit: int) -> Iterator[bytes]:
        """At most `limit` bytes of a body as they come; raises `TimedOut` when it as good as stands still."""
        since, here = self._clock.monotonic(), 0
        while limit > 0:
            try:
                chunk = reply.read1(min(_CHUNK, limit), decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                raise _fault(error, self._base) from error
            if not chunk:
                return
            limit -= len(chunk)
            here += len(chunk)
            yield chunk
            if here >= _SLOWEST:
                since, here = self._clock.monotonic(), 0
            elif self._clock.monotonic() - since > self._patience:
                raise TimedOut(f"{self.image}: the registry sends less than {_SLOWEST} bytes in {self._patience:.0f} s")


def _media_type(reply: BaseHTTPResponse) -> str:
    return reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _fault(error: urllib3.exceptions.HTTPError, url: str) -> AgentError:
    """The client's error in our words."""
    host, words = urllib3.util.parse_url(url).netloc, str(error)
    match error:
        case urllib3.exceptions.SSLError() if "WRONG_VERSION_NUMBER" in words or "UNEXPECTED_EOF" in words:
            return Denied(
                f"{host} does not speak TLS; plain HTTP is done on loopback only",
                advice="Give the registry a certificate, or check the port.",
            )
        case urllib3.exceptions.SSLError():
            return Denied(
                f"{host}: its certificate is not trusted: {words}"[:300],
                advice="Add the certificate's authority to the node's trust store (update-ca-certificates).",
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
