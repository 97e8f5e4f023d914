"""Files: durable before published, staged aside, locked by who fills them.

Rules of this file: a name that others read appears by rename only; everything under it is on disk before that;
a staging folder is flock-ed by who fills it, and the sweeper removes only what it can lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from core import syscalls
from core.errors import OverLimit, from_os_error
from core.values import dataclass

STAGING: Final = ".staging-"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEP: Final = 100


def fsync_dir(path: Path) -> None:
    """Make the names inside folder `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Put `data` at `path`: old or new content, never a mix, also after a power cut when `durable`."""
    temporary = path.with_name(f"{STAGING}{path.name}-{os.urandom(4).hex()}")
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


def read_if_there(path: Path, limit: int) -> bytes | None:
    """As `read_bounded`; None when there is no such file. Raises `OverLimit`, or the class of an `OSError`."""
    try:
        return read_bounded(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


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


def lock_folder(path: Path) -> int | None:
    """An exclusive flock on folder `path` itself, which nobody can remove unlike a file in it; held until it is closed.

    None when somebody else holds it. Raises `OSError`.
    """
    fd = os.open(path, _FOLDER)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_private(path: Path) -> Path:
    """Make folder `path` (and parents) with mode 0700, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def hold(folder: Path) -> int | None:
    """Mark `folder` as somebody's work: a descriptor with a shared flock, which keeps the sweeper away until it closes.

    Shared, so that who fills it and their helpers may hold it together. None when the folder is gone or being swept.
    """
    try:
        fd = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError, FileNotFoundError):  # a sweeper has it, or has moved it away
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.lstat(folder)):
            return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def staging(parent: Path, name: str = "") -> Iterator[Path]:
    """A held folder beside its later siblings; removed at the end unless the block renamed it away."""
    while True:
        work = parent / f"{STAGING}{name}{'-' if name else ''}{os.urandom(6).hex()}"
        work.mkdir(mode=0o700)
        if (fd := hold(work)) is not None:
            break
    try:
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
        if sweep(entry):
            swept.append(entry)
    return swept


def sweep(entry: Path, unless: Callable[[], bool] = lambda: False) -> bool:
    """Remove a file or folder that nobody holds; False when somebody does, or when it is gone already.

    `unless()` is asked once it is locked, and leaves it there when true: whoever held it may have published it.
    """
    try:
        fd = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if unless():
            return False
        remove_tree(entry)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def remove_tree(path: Path) -> None:
    """Remove `path`, file or folder of any depth, if it is there; never follows a link, never enters a mount.

    Raises `OSError` when something is left (a mount point inside: EBUSY or EXDEV).
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        path.unlink(missing_ok=True)
        return
    empty(path)
    os.rmdir(path)


def empty(folder: Path) -> None:
    """Remove all that `folder` holds, as `remove_tree` does."""
    fd = os.open(folder, _FOLDER)
    try:
        clear_folder(fd)
    finally:
        os.close(fd)


@dataclass(slots=True)
class _Level:
    fd: int
    inode: int
    name: str
    names: list[str]


def clear_folder(top: int, keep: Callable[[int, bytes], bool] | None = None) -> None:
    """Remove all that lies in the open folder `top`, but for what `keep(inode of its folder, name)` wants.

    A folder goes when it is empty by then and not kept. Deeper than 100 levels a folder is first moved to the top, so
    that neither descriptors nor names run out; with `keep` it raises `OverLimit` instead. Raises `OSError` as above.
    """
    levels = [_Level(os.dup(top), os.fstat(top).st_ino, "", os.listdir(top))]
    try:
        while levels:
            level = levels[-1]
            if level.names:
                _clear_one(levels, level.names.pop(), keep)
                continue
            os.close(level.fd)
            levels.pop()
            if levels and not (keep and keep(levels[-1].inode, os.fsencode(level.name))):
                _remove_emptied(level.name, levels[-1].fd, kept_inside=keep is not None)
    finally:
        for level in levels:
            os.close(level.fd)


def _clear_one(levels: list[_Level], name: str, keep: Callable[[int, bytes], bool] | None) -> None:
    level = levels[-1]
    if not stat.S_ISDIR(os.lstat(name, dir_fd=level.fd).st_mode):
        if not (keep and keep(level.inode, os.fsencode(name))):
            os.unlink(name, dir_fd=level.fd)
        return
    if len(levels) > _DEEP:
        if keep:
            raise OverLimit(f"folders are nested more than {_DEEP} deep")
        hoisted = f"{STAGING}{os.urandom(8).hex()}"
        os.rename(name, hoisted, src_dir_fd=level.fd, dst_dir_fd=levels[0].fd)
        levels[0].names.append(hoisted)
        return
    fd = syscalls.openat2(level.fd, name, _FOLDER, resolve=syscalls.RESOLVE_NO_XDEV)
    levels.append(_Level(fd, os.fstat(fd).st_ino, name, os.listdir(fd)))


def _remove_emptied(name: str, folder: int, *, kept_inside: bool) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if not (kept_inside and error.errno == errno.ENOTEMPTY):
            raise


def free_bytes(path: Path) -> int:
    """Bytes that a process without privileges may still write on the file system of `path`."""
    seen = os.statvfs(path)
    return seen.f_bavail * seen.f_frsize


def refusal(folder: Path) -> str:
    """Why the file system takes no new file in `folder`, in the system's words; empty: it does, or others decide that.

    A file without a name is tried: after a fault the kernel refuses all writing, and statvfs(2) does not say so.
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        refused = (errno.EROFS, errno.EDQUOT, errno.ENOSPC, errno.EIO)
        return (error.strerror or "").lower() if error.errno in refused else ""
    return ""


def total_bytes(path: Path) -> int:
    """Bytes that the file system of `path` holds in all."""
    seen = os.statvfs(path)
    return seen.f_blocks * seen.f_frsize


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
