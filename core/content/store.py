"""Blobs by digest: verified before they are seen, durable before they are referenced, collected by nobody's guess.

On disk: `blobs/<algorithm>/<hex>`, `ingest/` (partials and marks, see `core.content.ingest`), `gc.lock`.

Rules of this file: a blob enters through a `Span` only. A span holds `gc.lock` shared from the first byte until the
caller has recorded what refers to the blobs; collection holds it exclusively and asks what to keep under it, so
that nothing is collected between its coming and its being referenced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from core import fsio, syscalls
from core.content import ingest
from core.content.ingest import Ingest, WrongBytes
from core.digest import Digest
from core.errors import Busy, NotFound, from_os_error

_ALGORITHMS: Final = ("sha256", "sha512")
_HASH_STEP: Final = 1 << 20


class BlobMissing(NotFound):
    """The store does not hold that blob."""


class ContentStore:
    """The blobs of one node. Any thread and any process may use the same folder at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = fsio.make_private(folder / "ingest")
        for algorithm in _ALGORITHMS:
            fsio.make_private(folder / "blobs" / algorithm)
        self._settle()

    def _settle(self) -> None:
        """What was published in another boot and not synced may be half there: keep it only if it hashes right."""
        boot = ingest.this_boot()
        if all(made_in == boot for _, _, made_in in ingest.marks(self._incoming)):
            return
        with fsio.locked(self.folder / "gc.lock"):
            doubtful = [(mark, digest) for mark, digest, made_in in ingest.marks(self._incoming) if made_in != boot]
            for mark, digest in doubtful:
                if not self.intact(digest):
                    self.discard(digest)
                mark.unlink()

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, or would lie."""
        return self.folder / "blobs" / digest.algorithm / digest.hex

    def size(self, digest: Digest) -> int | None:
        """Bytes of a held blob; None when it is not held."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return None

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob is held; with another size than `size` it counts as missing, and is replaced."""
        return self.size(digest) == size

    def read(self, digest: Digest, limit: int) -> bytes:
        """The whole of a small blob, hashed again; raises `BlobMissing`, `OverLimit`, `WrongBytes`."""
        try:
            data = fsio.read_bounded(self.path(digest), limit)
        except FileNotFoundError:
            raise BlobMissing(f"blob {digest} is not in the content store") from None
        hasher = digest.hasher()
        hasher.update(data)
        if hasher.hexdigest() != digest.hex:
            raise WrongBytes(f"blob {digest} has rotted on disk")
        return data

    def intact(self, digest: Digest) -> bool:
        """Whether a held blob still hashes to its name; reads all of it. False when it is not held."""
        hasher = digest.hasher()
        try:
            with open(self.path(digest), "rb", buffering=0) as blob:
                while chunk := blob.read(_HASH_STEP):
                    hasher.update(chunk)
        except FileNotFoundError:
            return False
        return hasher.hexdigest() == digest.hex

    def discard(self, digest: Digest) -> None:
        """Drop a blob that is known to be wrong; harmless when it is not held."""
        self.path(digest).unlink(missing_ok=True)

    def begun(self, digest: Digest) -> int:
        """Bytes of a blob that somebody brings, or began to bring."""
        return ingest.begun(self._incoming / ingest.partial_name(digest))

    def walk(self) -> Iterator[Digest]:
        """Every blob held, in order."""
        for algorithm in _ALGORITHMS:
            for name in sorted(os.listdir(self.folder / "blobs" / algorithm)):
                yield Digest.parse(f"{algorithm}:{name}")

    @contextlib.contextmanager
    def span(self) -> Iterator[Span]:
        """Nothing is collected inside the block: begin it before a blob is brought in or relied on, end it after what
        refers to the blobs is recorded. Waits while a collection runs.
        """
        with fsio.locked(self.folder / "gc.lock", shared=True):
            yield Span(self)

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Nothing can come in inside the block. Raises `Busy` at once when a span is open: it never holds up a pull."""
        lock = fsio.Lock(self.folder / "gc.lock")
        if not lock.acquire(wait=False):
            raise Busy("content is in use by a transfer; it is collected after that")
        try:
            yield
        finally:
            lock.release()

    def collect(self, keep: Callable[[], Collection[Digest]]) -> list[Digest]:
        """Remove the blobs that `keep()`, asked while nothing can come in, does not name; returns what was removed.

        Raises `Busy` as `closed` does.
        """
        with self.closed():
            kept = frozenset(keep())
            removed = [digest for digest in self.walk() if digest not in kept]
            for digest in removed:
                self.discard(digest)
            self.sweep()
            return removed

    def sweep(self) -> None:
        """Remove what nobody is bringing in any more, and nobody came back for. Call it while `closed`."""
        ingest.sweep(self._incoming)


class Span:
    """The right to bring blobs in; valid inside the block of `ContentStore.span`, in any of its threads."""

    def __init__(self, store: ContentStore) -> None:
        self.store = store
        self._incoming = store.folder / "ingest"

    @contextlib.contextmanager
    def ingest(self, digest: Digest, size: int, waiting: Callable[[], None]) -> Iterator[Ingest | None]:
        """A writer for one blob, or None when the blob is held, perhaps because another has just brought it.

        While another thread or process brings the same blob `waiting` is called over and over: it sleeps a little, or
        raises to give up. What was neither published nor kept at the end of the block is removed. Raises `NoSpace`,
        `Failed`.
        """
        if self.store.has(digest, size):
            yield None
            return
        partial = self._incoming / ingest.partial_name(digest)
        try:
            fd = ingest.claim(partial, waiting)
        except OSError as error:
            raise from_os_error(error, f"bringing in blob {digest}") from error
        writer = Ingest(digest, size, partial, self.store.path(digest), fd)
        try:
            if self.store.has(digest, size):
                yield None
            else:
                yield writer
        finally:
            if not (writer.published or writer.kept):
                partial.unlink(missing_ok=True)
            os.close(fd)

    def put(self, digest: Digest, data: bytes, waiting: Callable[[], None]) -> None:
        """Bring in a small blob at once; raises as `Ingest.write` and `Ingest.publish` do."""
        with self.ingest(digest, len(data), waiting) as writer:
            if writer is not None:
                writer.write(data)
                writer.publish()

    def sync(self) -> None:
        """Make every blob published so far durable, in one go: call it before anything refers to them."""
        seen = ingest.marks(self._incoming)
        fd = os.open(self.store.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(fd)
        except OSError as error:
            raise from_os_error(error, "writing content to disk") from error
        finally:
            os.close(fd)
        for mark, _, _ in seen:
            mark.unlink(missing_ok=True)
