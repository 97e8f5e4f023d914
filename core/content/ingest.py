"""One blob on its way in: locked by who brings it, hashed as it comes, seen by nobody before it is right.

Rules of this file: the partial lies in `ingest/<algorithm>-<hex>` and its flock is the right to bring that blob. Who
gets the lock looks whether the name still means the file it locked: the one before may have published or dropped it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from core import proc
from core.digest import Digest, hash8
from core.errors import Corrupt, from_os_error

_STEP: Final = 1 << 20
FRESH: Final = ".fresh-"
"""In the name of a mark, between a blob's name and `<boot>-<random>`: published in that boot and not synced since."""


class WrongBytes(Corrupt):
    """What came is not what its digest and size promised."""

    def hint(self) -> str:
        """Say who may have changed it."""
        return (
            "The registry, a proxy or a disk changed the bytes; they were thrown away. "
            "Push the image again, or pin the digest that is right."
        )


class Ingest:
    """A writer of one blob. Use it from one thread; made by `Span.ingest`."""

    def __init__(self, digest: Digest, size: int, partial: Path, final: Path, fd: int) -> None:
        self.digest = digest
        self.size = size
        self._partial = partial
        self._final = final
        self._fd = fd
        self._hash = digest.hasher()
        self._written = 0
        self._begun = False
        self.published = False
        self.kept = False

    def resume(self) -> int:
        """Go on behind what a dead or failed writer left, hashed again; returns the bytes here, 0 when nothing helps.

        Whether they are right only `publish` knows. Raises `Failed`.
        """
        if not self._begun and 0 < os.fstat(self._fd).st_size <= self.size:
            try:
                os.lseek(self._fd, 0, os.SEEK_SET)
                while chunk := os.read(self._fd, _STEP):
                    self._hash.update(chunk)
                    self._written += len(chunk)
            except OSError as error:
                raise from_os_error(error, f"reading what is here of blob {self.digest}") from error
            self._begun = True
        return self._written

    def keep(self) -> None:
        """Let what was written stay when the block ends, for who tries again. Not called: it is removed."""
        self.kept = True

    def restart(self) -> None:
        """Drop what was written so far: the bytes come again from the first one."""
        self._begun = True
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = self.digest.hasher()
        self._written = 0

    def write(self, chunk: bytes) -> int:
        """Add `chunk`; returns the bytes here. Raises `WrongBytes` beyond the size promised, `NoSpace`, `Failed`."""
        if not self._begun:
            self.restart()
        if self._written + len(chunk) > self.size:
            raise WrongBytes(f"blob {self.digest} is longer than the {self.size} bytes promised")
        self._hash.update(chunk)
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise from_os_error(error, f"writing blob {self.digest}") from error
        self._written += len(chunk)
        return self._written

    def publish(self) -> None:
        """Check size and digest and give the blob its name; raises `WrongBytes`.

        It can be read at once; it outlives a power cut only after `Span.sync`, before which nothing may refer to it.
        """
        if self._written != self.size:
            raise WrongBytes(f"blob {self.digest} has {self._written} bytes where {self.size} were promised")
        if (got := self._hash.hexdigest()) != self.digest.hex:
            raise WrongBytes(f"blob {self.digest} hashes to {self.digest.algorithm}:{got}")
        try:
            mark = f"{self._partial.name}{FRESH}{this_boot()}-{secrets.token_hex(4)}"
            self._partial.with_name(mark).touch(mode=0o600, exist_ok=False)
            os.rename(self._partial, self._final)
        except OSError as error:
            raise from_os_error(error, f"publishing blob {self.digest}") from error
        self.published = True


def partial_name(digest: Digest) -> str:
    """The name of the file in which a blob comes in."""
    return f"{digest.algorithm}-{digest.hex}"


def begun(partial: Path) -> int:
    """Bytes in a partial; 0 where there is none."""
    try:
        return os.stat(partial, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def claim(partial: Path, waiting: Callable[[], None]) -> int:
    """Open `partial` with its flock held; calls `waiting` each time somebody else has it (it sleeps, or raises)."""
    while True:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            waiting()
            continue
        if _is(fd, partial):
            return fd
        os.close(fd)


def _is(fd: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def sweep(folder: Path) -> None:
    """Remove the partials that no process is writing."""
    for name in partials(folder):
        with contextlib.suppress(FileNotFoundError):  # its writer has just published or dropped it
            fd = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is(fd, folder / name):
                    os.unlink(folder / name)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)


def partials(folder: Path) -> Iterator[str]:
    """Names of files being filled (marks of fresh blobs left out)."""
    return (name for name in sorted(os.listdir(folder)) if FRESH not in name)


def this_boot() -> str:
    """The boot in the name of a mark."""
    return hash8(proc.boot_id())


def marks(folder: Path) -> list[tuple[Path, Digest, str]]:
    """The marks of blobs published and not yet synced: the mark, the blob it stands for, the boot it was made in."""
    found = ((folder / name, name.partition(FRESH)) for name in sorted(os.listdir(folder)) if FRESH in name)
    return [(path, Digest.parse(blob.replace("-", ":", 1)), word.partition("-")[0]) for path, (blob, _, word) in found]
