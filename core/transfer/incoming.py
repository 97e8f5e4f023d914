"""One blob on its way into the store: gone on with where it broke off, begun anew where it must be.

Rules of this file: nothing of a blob is asked for more than twice over within one pull. What came in pieces and is
wrong may be two things put together: it is fetched once more, whole. What came whole and is wrong is not.
"""

from __future__ import annotations

from collections.abc import Callable

from core.clock import Clock
from core.content.ingest import Ingest, WrongBytes
from core.errors import AgentError, Category, Failed, Retry, TimedOut, Unavailable
from core.retrying import connecting
from core.transfer.faults import Throttled
from core.transfer.ports import CannotResume, Descriptor, Elsewhere, Progress, Remote


class Cancelled(AgentError):
    """The transfer was told to stop, or another part of it failed."""

    retry = Retry.BACKOFF
    category = Category.FAILED


class Incoming:
    """Fills `writer` with a blob of `remote`. `check_stop` is asked for each piece and may raise `Cancelled`."""

    def __init__(
        self,
        remote: Remote,
        descriptor: Descriptor,
        writer: Ingest,
        clock: Clock,
        check_stop: Callable[[], None],
        progress: Progress,
    ) -> None:
        self._remote = remote
        self._descriptor = descriptor
        self._writer = writer
        self._clock = clock
        self._check_stop = check_stop
        self._progress = progress
        self._here = 0
        self._furthest = 0
        self._in_pieces = False
        self.fetched = 0

    def bring(self) -> int:
        """Fetch, verify and publish; returns the bytes fetched. What is here stays when the other side fell silent.

        Raises what `Remote.blob`, `Ingest.write` and `Ingest.publish` raise, and `Failed`.
        """
        self._here = self._writer.resume()
        self._in_pieces = self._here > 0
        try:
            self._fetch()
        except (Unavailable, TimedOut, Throttled, Cancelled):
            self._writer.keep()
            raise
        return self.fetched

    def _fetch(self) -> None:
        try:
            self._whole()
        except WrongBytes:
            if not self._in_pieces:
                raise
            self._begin_anew()
            self._whole()

    def _whole(self) -> None:
        connecting(self._clock, self._try, progress=lambda: self._furthest)
        self._writer.publish()

    def _try(self) -> None:
        """One connection's worth, from where the last one ended if the other side can."""
        if 0 < self._here == self._descriptor.size:
            return
        self._check_stop()
        if self._here:
            try:
                self._take()
            except CannotResume:
                self._begin_anew()
                self._take()
        else:
            self._take()
        if self._here < self._descriptor.size:
            size, digest = self._descriptor.size, self._descriptor.digest
            raise Unavailable(f"{self._remote.origin} broke off after {self._here} of the {size} bytes of {digest}")

    def _take(self) -> None:
        self._in_pieces = self._in_pieces or self._here > 0
        try:
            self._receive()
        except Elsewhere:
            self._begin_anew()
            raise

    def _receive(self) -> None:
        for chunk in self._remote.blob(self._descriptor, self._here):
            self._check_stop()
            self.fetched += len(chunk)
            self._here = self._writer.write(chunk)
            self._furthest = max(self._furthest, self._here)
            self._progress.fetched(self._descriptor.digest, self._here)

    def _begin_anew(self) -> None:
        if self.fetched > self._descriptor.size:
            raise Failed(
                f"{self._remote.image}: blob {self._descriptor.digest} breaks off again and again, and "
                f"{self._remote.origin} cannot go on where it broke off",
                advice="Use a registry or proxy that serves ranges, or a steadier link.",
            )
        self._writer.restart()
        self._here = 0
        self._in_pieces = False
