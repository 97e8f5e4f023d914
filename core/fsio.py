"""Files: durable before published, staged aside, locked by who fills them.

Rules of this file: a name that others read appears by rename only; everything under it is on disk before that;
a staging folder is flock-ed by who fills it, and the sweeper removes only what it can lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.errors import OverLimit

STAGING: Final = ".staging-"


def fsync_dir(path: Path) -> None:
    """Make the names inside folder `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Put `data` at `path`: old or new content, never a mix, also after a power cut when `durable`."""
    temporary = path.with_name(f"{STAGING}{path.name}-{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb", closefd=True) as out:
            out.write(data)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_dir(path.parent)


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole of `path`, at most `limit` bytes; raises `OverLimit` or `OSError`."""
    with open(path, "rb") as source:
        data = source.read(limit + 1)
    if len(data) > limit:
        raise OverLimit(f"{path} is larger than {limit} bytes")
    return data


class Lock:
    """A flock on a file that is made when it is not there. Released by `release()`, and by the process' end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take it; with `wait=False` return False at once when somebody else holds it."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(fd, how)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        self._fd = fd
        return True

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd >= 0

    def write(self, text: str) -> None:
        """Replace the lock file's content: for people and for who waits (not durable, not atomic)."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Let go; harmless when not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[Lock]:
    """Hold the flock at `path` for the block; waits for it."""
    lock = Lock(path)
    lock.acquire(shared=shared)
    try:
        yield lock
    finally:
        lock.release()


def make_private(path: Path) -> Path:
    """Make folder `path` (and parents) with mode 0700, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextlib.contextmanager
def staging(parent: Path, name: str = "") -> Iterator[Path]:
    """A locked folder beside its later siblings; removed at the end unless the block renamed it away."""
    work = parent / f"{STAGING}{name}{'-' if name else ''}{secrets.token_hex(6)}"
    work.mkdir(mode=0o700)
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield work
    finally:
        remove_tree(work)
        os.close(fd)


def publish(work: Path, final: Path) -> None:
    """Rename a staged folder or file, already synced, to `final` and make the name durable."""
    os.rename(work, final)
    fsync_dir(final.parent)


def sweep_staging(parent: Path) -> list[Path]:
    """Remove what dead processes left half-made in `parent`; returns what was removed."""
    swept: list[Path] = []
    if not parent.is_dir():
        return swept
    for entry in sorted(parent.iterdir()):
        if not entry.name.startswith(STAGING):
            continue
        fd = os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            remove_tree(entry)
            swept.append(entry)
        finally:
            os.close(fd)
    return swept


def remove_tree(path: Path) -> None:
    """Remove `path`, file or folder, if it is there; never follows a link, never crosses into what it did not expect.

    Raises `OSError` when something is left (a mount point inside: EBUSY).
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int:
    """Bytes that a process without privileges may still write on the file system of `path`."""
    seen = os.statvfs(path)
    return seen.f_bavail * seen.f_frsize


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A form of `path` short enough for AF_UNIX (108 bytes), good inside the block: to bind, connect or send to.

    A long path goes through its folder, opened for the block; raises `OSError` when there is no such folder.
    """
    if len(os.fsencode(path)) <= 100:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def socket_path(path: Path) -> str:
    """A form of `path` short enough for AF_UNIX (108 bytes): through an open folder when the plain one is too long.

    The folder's descriptor stays open for the life of the process; callers hold few sockets.
    """
    if len(os.fsencode(path)) <= 100:
        return str(path)
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{fd}/{path.name}"
