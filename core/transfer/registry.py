"""A registry as the origin of one image (OCI distribution-spec, pull).

Rules of this file: no retries here (the caller's, so that they never multiply), no body read without a limit of bytes
and time. What may be sent where is decided in `core.transfer.auth`; it is sent by `core.transfer.http`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final, Self, assert_never

from core.clock import Clock
from core.content.ingest import WrongBytes
from core.digest import Digest
from core.errors import Invalid, TimedOut
from core.retrying import WORTH
from core.transfer import auth, faults, manifests
from core.transfer.endpoints import Endpoint, Ways, upstream
from core.transfer.http import Http, Reply, body_faults
from core.transfer.ports import CannotResume, Descriptor
from core.transfer.reference import Reference

_CHUNK: Final = 1 << 20
_SLOWEST: Final = 32 << 10
"""Bytes of a blob within the patience, or it counts as standing still."""
_MAX_ERROR_BODY: Final = 64 << 10
_MAX_TAGS_BODY: Final = 1 << 20
_DOCUMENTS: Final = (*manifests.MANIFESTS, *manifests.INDEXES)
_ACCEPT: Final = ", ".join(_DOCUMENTS)
_STRAIGHT: Final = Ways()


class Registry:
    """One image in one registry; its connections are kept, and shared by the threads that fetch, until its block ends.

    `patience`, in seconds, is how long it may take until the next bytes, a whole header, or a whole small document.
    """

    actions = "pull"
    """What is asked of a token service."""

    def __init__(
        self,
        reference: Reference,
        credentials: auth.Credentials | auth.Login | None,
        clock: Clock,
        *,
        patience: float = 30.0,
        endpoint: Endpoint | None = None,
        ways: Ways = _STRAIGHT,
    ) -> None:
        place = endpoint or upstream(reference, ways.plain)
        self._reference = reference
        self._credentials = credentials
        self._clock = clock
        self._base = f"{place.base}/{reference.repository}"
        self._query = f"?ns={reference.registry}" if place.namespace else ""
        self._host = place.host if place.namespace else reference.registry
        self._authorization = ""
        self._patience = patience
        self._etags: dict[Digest, str] = {}
        self._http = Http(place, ways, clock, patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @property
    def image(self) -> str:
        """The image's full name."""
        return str(self._reference)

    @property
    def tag(self) -> str:
        """The tag in the image's name; "" for none."""
        return self._reference.tag

    @property
    def origin(self) -> str:
        """The registry as the reference names it, or the mirror's host."""
        return self._host

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

    def _check_extent(self, reply: Reply, descriptor: Descriptor, start: int) -> None:
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

    def _need(self, reply: Reply, what: str) -> None:
        """Raise what any status but 200 means."""
        if reply.status == 200:
            return
        body = self._small(reply, _MAX_ERROR_BODY)
        by_tag = what == self.image and self._reference.digest is None
        if reply.status == 404 and by_tag and (tags := self._tags()) is not None:
            raise faults.no_such_tag(what, self._reference.tag, tags)
        raise faults.refusal(what, reply.status, body, reply.headers, logged_in=self._credentials is not None)

    @contextlib.contextmanager
    def _open(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Reply]:
        """The final reply to a request: logins made, redirects followed. Its connection is given back or closed."""
        url, with_login = f"{self._base}/{path}{self._query}", True
        for _ in range(auth.MAX_REDIRECTS + 1):
            reply = self._logged_in(method, url, headers) if with_login else self._http.send(method, url, headers)
            try:
                if reply.status not in (301, 302, 303, 307, 308):
                    yield reply
                    return
                self._small(reply, _MAX_ERROR_BODY)
            finally:
                self._http.end(reply)
            url, same = auth.next_hop(url, reply.headers.get("Location", ""), self._http.plain)
            with_login = with_login and same
        raise Invalid(f"{self.image}: the registry redirects more than {auth.MAX_REDIRECTS} times")

    def _login(self) -> auth.Credentials | None:
        """The credentials for this host; looked up when it first asks for them."""
        if callable(self._credentials):
            self._credentials = self._credentials()
        return self._credentials

    def _logged_in(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Send, and when a login is asked for, log in and send once more."""
        held = {"Authorization": self._authorization} if self._authorization else {}
        reply = self._http.send(method, url, {**headers, **held})
        if reply.status != 401:
            return reply
        scope, challenges = (
            f"repository:{self._reference.repository}:{self.actions}",
            reply.headers.getlist("WWW-Authenticate"),
        )
        step = auth.after_reply(url, reply.status, challenges, self._login(), scope, self._http.plain)
        match step:
            case auth.Answer():
                return reply
            case auth.Again(authorization):
                sent = authorization
            case auth.AskToken():
                sent = self._token(step)
            case unknown:
                assert_never(unknown)
        self._small(reply, _MAX_ERROR_BODY)
        self._http.end(reply)
        self._authorization = sent
        return self._http.send(method, url, {**headers, "Authorization": sent})

    def _token(self, step: auth.AskToken) -> str:
        headers = {"Accept": "application/json"}
        headers |= {"Authorization": step.authorization} if step.authorization else {}
        headers |= {"Content-Type": "application/x-www-form-urlencoded"} if step.form else {}
        reply = self._http.send("POST" if step.form else "GET", step.url, headers, step.form)
        try:
            self._need(reply, f"the login for {self.image}")
            return auth.parse_token(self._small(reply, auth.MAX_TOKEN))
        finally:
            self._http.end(reply)

    def _small(self, reply: Reply, limit: int) -> bytes:
        """At most `limit` bytes of a body that must be here within the patience."""
        started, found = self._clock.monotonic(), bytearray()
        for chunk in self._chunks(reply, limit):
            found += chunk
            if self._clock.monotonic() - started > self._patience:
                raise TimedOut(f"{self.image}: the registry takes over {self._patience:.0f} s for a small reply")
        return bytes(found)

    def _chunks(self, reply: Reply, limit: int) -> Iterator[bytes]:
        """At most `limit` bytes of a body as they come; raises `TimedOut` when it as good as stands still."""
        since, here, most = self._clock.monotonic(), 0, limit
        while limit > 0:
            try:
                chunk = reply.read1(min(_CHUNK, limit), decode_content=False)
            except body_faults as error:
                if most - limit < WORTH:
                    self._http.broke_off(self._base)
                raise self._http.fault(error, self._base) from error
            self._http.came(reply)
            if not chunk:
                return
            limit -= len(chunk)
            here += len(chunk)
            yield chunk
            if here >= _SLOWEST:
                since, here = self._clock.monotonic(), 0
            elif self._clock.monotonic() - since > self._patience:
                self._http.broke_off(self._base)
                raise TimedOut(f"{self.image}: the registry sends less than {_SLOWEST} bytes in {self._patience:.0f} s")


def _media_type(reply: Reply) -> str:
    return reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
