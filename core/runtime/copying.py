"""Copying files into and out of a root that somebody else works in at the same moment.

Rules of this file: a path inside is resolved once, by openat2(2) in the root; from there on everything is reached by
one name relative to an open folder, and no link is followed, so that a workload that swaps folders for links while it
is copied from leads nowhere. What is read is what was opened and looked at: a regular file, as long as it then was. A
copy is made under a name of its own beside the target and gets its name by rename, whole. Devices, sockets and fifos
are left out; entries, bytes and depth are bounded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Final

from core.errors import Conflict, Invalid, NotFound, OverLimit
from core.runtime.rootfs import open_inside
from core.values import dataclass

MOST_ENTRIES: Final = 1_000_000
MOST_BYTES: Final = 16 << 30
_DEPTH: Final = 200
_BLOCK: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


@dataclass(slots=True)
class Budget:
    """What a copy may still take. `keep_set_id`: set-user-id and set-group-id bits are kept, not only the others."""

    bytes: int = MOST_BYTES
    entries: int = MOST_ENTRIES
    keep_set_id: bool = False
    skipped: int = 0
    """Entries left out: devices, sockets, fifos."""

    def take(self, count: int) -> None:
        """One entry of `count` bytes; raises `OverLimit`."""
        self.entries -= 1
        self.bytes -= count
        if self.entries < 0 or self.bytes < 0:
            raise OverLimit(
                "there is more to copy than may be copied at once", advice="Copy less, or say more with --most."
            )

    def mode(self, seen: os.stat_result) -> int:
        """The mode that the copy of it gets."""
        return stat.S_IMODE(seen.st_mode) & ~(0 if self.keep_set_id else _SET_ID)


@dataclass(frozen=True, slots=True)
class Place:
    """An entry, there or to be: its open folder and its name in it."""

    folder: int
    name: str


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def inside(root: int, path: str) -> Iterator[Place]:
    """The entry at `path` of the root; a link at its end is meant itself. Raises `NotFound`, `OSError`."""
    folder, name = posixpath.split(posixpath.normpath("/" + path))
    with _closing(_folder_inside(root, folder)) as fd:
        yield Place(fd, name or ".")


@contextlib.contextmanager
def target_inside(root: int, path: str, name: str) -> Iterator[Place]:
    """Where a copy called `name` goes: into the folder at `path`, else it is called `path`."""
    try:
        fd = open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        if path.endswith("/"):
            raise NotFound(f"{path} is no folder in the container") from None
        with inside(root, path) as place:
            yield place
        return
    with _closing(fd):
        yield Place(fd, name)


def _folder_inside(root: int, path: str) -> int:
    try:
        return open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} is no folder in the container") from None


def copy(source: Place, target: Place, budget: Budget) -> None:
    """Copy an entry with all below it, owners, modes and times kept; a file that is there is replaced.

    Raises `NotFound`, `Conflict` (a folder is there), `Invalid` (no file, folder or link), `OverLimit`, `OSError`.
    """
    aside = f".copy-{secrets.token_hex(8)}"
    try:
        if not _copy(source, Place(target.folder, aside), budget, 0):
            raise Invalid(f"{source.name} is no file, folder or link")
        _rename(target, aside)
    except BaseException:
        _remove(target.folder, aside)
        raise


def _rename(target: Place, aside: str) -> None:
    try:
        os.rename(aside, target.name, src_dir_fd=target.folder, dst_dir_fd=target.folder)
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        raise Conflict(
            f"{target.name} is there already, and is a folder or not to be replaced by one", advice="Remove it first."
        ) from None
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise Conflict(f"the folder {target.name} is there already", advice="Remove it first.") from None
        raise


def _remove(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def _copy(source: Place, target: Place, budget: Budget, depth: int) -> bool:
    """False: it was left out."""
    seen = _look(source)
    if stat.S_ISDIR(seen.st_mode):
        _copy_folder(source, target, budget, depth)
    elif stat.S_ISLNK(seen.st_mode):
        budget.take(0)
        os.symlink(os.readlink(source.name, dir_fd=source.folder), target.name, dir_fd=target.folder)
        os.chown(target.name, seen.st_uid, seen.st_gid, dir_fd=target.folder, follow_symlinks=False)
    elif stat.S_ISREG(seen.st_mode):
        return _copy_file(source, target, budget)
    else:
        budget.skipped += 1
        return False
    return True


def _look(source: Place) -> os.stat_result:
    try:
        return os.stat(source.name, dir_fd=source.folder, follow_symlinks=False)
    except FileNotFoundError:
        raise NotFound(f"{source.name} is not there") from None


def _copy_folder(source: Place, target: Place, budget: Budget, depth: int) -> None:
    if depth > _DEPTH:
        raise OverLimit(f"folders are nested more than {_DEPTH} deep")
    budget.take(0)
    with _closing(os.open(source.name, _FOLDER, dir_fd=source.folder)) as given:
        os.mkdir(target.name, 0o700, dir_fd=target.folder)
        with _closing(os.open(target.name, _FOLDER, dir_fd=target.folder)) as made:
            for name in _names(given):
                with contextlib.suppress(NotFound):  # it went while we copied
                    _copy(Place(given, name), Place(made, name), budget, depth + 1)
            _keep(os.fstat(given), made, budget)


def _names(folder: int) -> list[str]:
    return sorted(os.listdir(folder))


def _taken(given: int, budget: Budget) -> os.stat_result | None:
    """What an open file is, its size taken from the budget; None, and counted, for what is no regular file."""
    seen = os.fstat(given)
    if not stat.S_ISREG(seen.st_mode):
        budget.skipped += 1
        return None
    budget.take(seen.st_size)
    return seen


def _copy_file(source: Place, target: Place, budget: Budget) -> bool:
    with _opened_file(source) as given:
        if (seen := _taken(given, budget)) is None:
            return False
        with _closing(os.open(target.name, _NEW, 0o600, dir_fd=target.folder)) as made:
            left = seen.st_size
            while left and (data := os.read(given, min(_BLOCK, left))):
                _write(made, data)
                left -= len(data)
            _keep(seen, made, budget)
    return True


@contextlib.contextmanager
def _opened_file(source: Place) -> Iterator[int]:
    try:
        fd = os.open(source.name, _FILE, dir_fd=source.folder)
    except FileNotFoundError:
        raise NotFound(f"{source.name} is not there") from None
    with _closing(fd):
        yield fd


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _keep(seen: os.stat_result, made: int, budget: Budget) -> None:
    os.fchown(made, seen.st_uid, seen.st_gid)
    os.fchmod(made, budget.mode(seen))  # after the owner: chown drops the bits that set ids
    os.utime(made, ns=(seen.st_atime_ns, seen.st_mtime_ns))


# As a tar stream.


def pack(source: Place, name: str, out: IO[bytes], budget: Budget) -> None:
    """Write the entry and all below it, called `name`, as a tar (pax) stream; raises as `copy` does."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        if not _pack(source, name, tar, budget, 0):
            raise Invalid(f"{source.name} is no file, folder or link")


def _pack(source: Place, path: str, tar: tarfile.TarFile, budget: Budget, depth: int) -> bool:
    if depth > _DEPTH:
        raise OverLimit(f"folders are nested more than {_DEPTH} deep")
    seen = _look(source)
    if stat.S_ISDIR(seen.st_mode):
        budget.take(0)
        with _closing(os.open(source.name, _FOLDER, dir_fd=source.folder)) as given:
            tar.addfile(_member(path, os.fstat(given), tarfile.DIRTYPE, budget))
            for name in _names(given):
                with contextlib.suppress(NotFound):
                    _pack(Place(given, name), f"{path}/{name}", tar, budget, depth + 1)
    elif stat.S_ISLNK(seen.st_mode):
        budget.take(0)
        member = _member(path, seen, tarfile.SYMTYPE, budget)
        member.linkname = os.readlink(source.name, dir_fd=source.folder)
        tar.addfile(member)
    elif stat.S_ISREG(seen.st_mode):
        return _pack_file(source, path, tar, budget)
    else:
        budget.skipped += 1
        return False
    return True


def _pack_file(source: Place, path: str, tar: tarfile.TarFile, budget: Budget) -> bool:
    with _opened_file(source) as given:
        if (seen := _taken(given, budget)) is None:
            return False
        member = _member(path, seen, tarfile.REGTYPE, budget)
        member.size = seen.st_size
        with open(given, "rb", closefd=False) as data:
            tar.addfile(member, _Padded(data, seen.st_size))  # type: ignore[arg-type]  # only read() is asked of it
    return True


@dataclass(slots=True)
class _Padded:
    """Exactly `left` bytes: a file that was cut off while it was read is filled up, as its size is told already."""

    data: IO[bytes]
    left: int

    def read(self, count: int) -> bytes:
        """At most `count` bytes; empty at the end."""
        wanted = min(count, self.left)
        found = self.data.read(wanted)
        self.left -= wanted
        return found.ljust(wanted, b"\0")


def _member(path: str, seen: os.stat_result, kind: bytes, budget: Budget) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type = kind
    member.mode, member.uid, member.gid = budget.mode(seen), seen.st_uid, seen.st_gid
    member.mtime = seen.st_mtime
    return member


def unpack(given: IO[bytes], root: int, path: str, budget: Budget) -> None:
    """Lay a tar stream out in the folder at `path` of the root; files that are there are replaced, folders kept.

    Raises `Invalid` for what is no tar, a name that leads out, and members that are no file, folder or symbolic link.
    """
    try:
        with tarfile.open(fileobj=given, mode="r|*") as tar, _closing(_folder_inside(root, path)) as top:
            for member in tar:
                budget.take(member.size)
                _lay_out(tar, member, top, budget)
    except tarfile.TarError as error:
        raise Invalid(f"it is no tar stream: {error}") from error


def parts_of(member: tarfile.TarInfo) -> list[str]:
    """The way to a member, name by name; raises `Invalid` where that leads out, or it is no file, folder or link."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _DEPTH:
        raise Invalid(f"member {member.name[:100]!r} leads out, or too deep")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise Invalid(f"member {member.name[:100]!r} is no file, folder or symbolic link")
    if not (parts or member.isdir()):
        raise Invalid("a member has no name")
    return parts


def _lay_out(tar: tarfile.TarFile, member: tarfile.TarInfo, top: int, budget: Budget) -> None:
    parts = parts_of(member)
    with contextlib.ExitStack() as stack:
        here = top
        for part in parts if member.isdir() else parts[:-1]:
            here = stack.enter_context(_closing(_enter(here, part)))
        if not parts or member.isdir():
            if parts:
                _own(member, here, budget)
            return
        place, aside = Place(here, parts[-1]), f".copy-{secrets.token_hex(8)}"
        try:
            _make(tar, member, Place(here, aside), budget)
            _rename(place, aside)
        except BaseException:
            _remove(here, aside)
            raise


def _enter(folder: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)


def _make(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Place, budget: Budget) -> None:
    if member.issym():
        os.symlink(member.linkname, place.name, dir_fd=place.folder)
        os.chown(place.name, member.uid, member.gid, dir_fd=place.folder, follow_symlinks=False)
        return
    with _closing(os.open(place.name, _NEW, 0o600, dir_fd=place.folder)) as made:
        data = tar.extractfile(member)
        while data is not None and (block := data.read(_BLOCK)):
            _write(made, block)
        _own(member, made, budget)


def _own(member: tarfile.TarInfo, made: int, budget: Budget) -> None:
    os.fchown(made, member.uid, member.gid)
    os.fchmod(made, member.mode & 0o7777 & ~(0 if budget.keep_set_id else _SET_ID))
    os.utime(made, (member.mtime, member.mtime))
