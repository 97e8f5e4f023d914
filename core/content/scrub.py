"""A slow look at every blob, over and over: what no longer hashes to its name is dropped, before somebody needs it.

Rules of this file: one step reads no more than it is told to, and goes on in the middle of a blob at the next; it takes
what it read out of the page cache again, so that the disk is what is looked at, and no workload pays for it. A blob
goes only while no transfer is under way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import field
from typing import Any, Final

from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Busy
from core.values import dataclass

_CHUNK: Final = 1 << 18


@dataclass(slots=True)
class _Reading:
    digest: Digest
    hasher: Any
    offset: int = 0


@dataclass(slots=True)
class Scrubber:
    """Looks at the blobs of `store` in order, and begins anew when it is through."""

    store: ContentStore
    rounds: int = 0
    """How often it has been through all of them."""
    _todo: Iterator[Digest] = field(default_factory=lambda: iter(()))
    _reading: _Reading | None = None

    def step(self, most: int) -> list[Digest]:
        """Read up to `most` bytes; returns the blobs that were wrong and are gone now. Raises `OSError`."""
        wrong: list[Digest] = []
        rounds = self.rounds
        while most > 0 and self.rounds - rounds < 2:  # no endless rounds over nothing
            if self._reading is None and not self._next():
                continue
            most -= self._read(most, wrong)
        return wrong

    def _next(self) -> bool:
        found = next(self._todo, None)
        if found is None:
            self.rounds += 1
            self._todo = iter(list(self.store.walk()))
            return False
        self._reading = _Reading(found, hashlib.new(found.algorithm))
        return True

    def _read(self, most: int, wrong: list[Digest]) -> int:
        reading = self._reading
        assert reading is not None
        began = reading.offset
        try:
            fd = os.open(self.store.path(reading.digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._reading = None  # collected meanwhile
            return 0
        try:
            while reading.offset - began < most:
                chunk = os.pread(fd, _CHUNK, reading.offset)
                if not chunk:
                    self._finish(reading, wrong)
                    break
                reading.hasher.update(chunk)
                reading.offset += len(chunk)
            os.posix_fadvise(fd, began, reading.offset - began, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        return reading.offset - began + 1  # an empty file takes its turn too

    def _finish(self, reading: _Reading, wrong: list[Digest]) -> None:
        self._reading = None
        if reading.hasher.hexdigest() == reading.digest.hex:
            return
        try:
            with self.store.closed():
                if not self.store.intact(reading.digest):  # it may have been brought anew while it was read
                    self.store.discard(reading.digest)
                    wrong.append(reading.digest)
        except Busy:
            return  # it is met again
