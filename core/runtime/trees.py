"""A folder with all below it as a stream of entries, for copies between this node and a machine's guest.

This file is on both sides; it uses nothing but the standard library. Rules of it: a stream has no paths, only names and
the way down and up, so that it leads nowhere; no link is followed; what came is under a name of its own until it is
whole. Both sides read as if the other were hostile. An entry is a head, big-endian: kind (u8), mode (u16), uid, gid
(u32), times of access and change in nanoseconds (i64), size (u64), length of the name (u16); the name; then

    FILE    `size` bytes                     LINK    its target, `size` bytes
    FOLDER  what is in it, up to its UP      ENTER   the same in a folder that may be there; mode, owner and times hold
    UP      the end of a folder                      only with size 1
    END     the end of all; size: entries that were left out (devices, sockets, fifos)
    FAILED  the other side cannot go on: name is the category, `size` bytes say why
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final

DEPTH: Final = 200
LONGEST_NAME: Final = 255
LONGEST_TARGET: Final = 4095
LONGEST_WORDS: Final = 1000
NAME: Final = b"copy"
"""What the entry at the top is called on its way."""
_BLOCK: Final = 64 << 10
_HEAD: Final = struct.Struct(">BHIIqqQH")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Read = Callable[[int], bytes]
"""Gives exactly so many bytes, or raises."""
Write = Callable[[bytes], object]
Take = Callable[[int], None]
"""Called with the bytes of each entry before anything is done; raises when that is too much."""


class Kind(IntEnum):
    """What an entry is; see above."""

    FILE = 1
    LINK = 2
    FOLDER = 3
    ENTER = 4
    UP = 5
    END = 6
    FAILED = 7


class CopyFailed(Exception):
    """A copy cannot be made, or not be gone on with; `category` is a word of `core.errors.Category`."""

    def __init__(self, category: str, message: str) -> None:
        super().__init__(message)
        self.category = category
        self.message = message


class Entry:
    """One entry without what follows it: `owner` is user and group, `times` are those of access and change."""

    __slots__ = ("kind", "mode", "name", "owner", "size", "times")

    def __init__(self, kind: Kind, name: bytes = b"", size: int = 0, found: os.stat_result | None = None) -> None:
        self.kind = kind
        self.name = name
        self.size = size
        self.mode, self.owner, self.times = 0, (0, 0), (0, 0)
        if found is not None:
            self.mode = stat.S_IMODE(found.st_mode)
            self.owner = (found.st_uid, found.st_gid)
            self.times = (found.st_atime_ns, found.st_mtime_ns)

    def encoded(self) -> bytes:
        """As bytes."""
        return _HEAD.pack(self.kind, self.mode, *self.owner, *self.times, self.size, len(self.name)) + self.name


def entry(read: Read) -> Entry:
    """The next entry; raises `CopyFailed` for one that cannot be, and what the other side says with FAILED."""
    number, mode, uid, gid, accessed, changed, size, length = _HEAD.unpack(read(_HEAD.size))
    if not 1 <= number <= len(Kind) or length > LONGEST_NAME or mode > 0o7777 or max(uid, gid) == 0xFFFFFFFF:
        raise CopyFailed("failed", "the other side sends nonsense")
    kind, name = Kind(number), read(length)
    if kind is Kind.FAILED:
        raise CopyFailed(name.decode("ascii", "replace"), _words(read(min(size, LONGEST_WORDS))))
    if kind < Kind.UP and (name in (b"", b".", b"..") or b"/" in name or b"\0" in name):
        raise CopyFailed("invalid", f"{name!r} is no name")
    if kind is Kind.LINK and not 0 < size <= LONGEST_TARGET:
        raise CopyFailed("invalid", f"the link {name!r} leads too far")
    made = Entry(kind, name, size)
    made.mode, made.owner, made.times = mode, (uid, gid), (accessed, changed)
    return made


def _words(said: bytes) -> str:
    return "".join(one if one.isprintable() else "?" for one in said.decode("utf-8", "replace"))


def failed(category: str, message: str) -> bytes:
    """What the other side is told when this one cannot go on."""
    words = message.encode("utf-8", "replace")[:LONGEST_WORDS]
    return Entry(Kind.FAILED, category.encode(), size=len(words)).encoded() + words


# Out of folders.


class Sender:
    """Sends entries; `skipped` counts those left out."""

    def __init__(self, write: Write, take: Take) -> None:
        self._write = write
        self._take = take
        self.skipped = 0

    def send(self, folder: int, name: str) -> None:
        """The entry `name` of an open folder with all below it, and END; raises `CopyFailed`, `OSError`."""
        if not self._entry(folder, name, NAME, 0):
            raise CopyFailed("invalid", f"{name} is no file, folder or link")
        self.end()

    def end(self) -> None:
        """That was all."""
        self._write(Entry(Kind.END, size=self.skipped).encoded())

    def _entry(self, folder: int, name: str, called: bytes, depth: int) -> bool:
        """False: it was left out."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                fd = os.open(name, _FOLDER, dir_fd=folder)
            elif stat.S_ISREG(found.st_mode):
                fd = os.open(name, _FILE, dir_fd=folder)
            elif stat.S_ISLNK(found.st_mode):
                self._link(os.readlink(os.fsencode(name), dir_fd=folder), called, found)
                return True
            else:
                self.skipped += 1
                return False
        except FileNotFoundError:
            if depth == 0:
                raise CopyFailed("not found", f"{name} is not there") from None
            return False  # it went while we copied
        try:
            return self._folder(fd, called, depth) if stat.S_ISDIR(found.st_mode) else self._file(fd, called)
        finally:
            os.close(fd)

    def _link(self, target: bytes, called: bytes, found: os.stat_result) -> None:
        self._take(0)
        self._write(Entry(Kind.LINK, called, len(target), found).encoded() + target)

    def _folder(self, fd: int, called: bytes, depth: int) -> bool:
        if depth > DEPTH:
            raise CopyFailed("over a limit", f"folders are nested more than {DEPTH} deep")
        self._take(0)
        self._write(Entry(Kind.FOLDER, called, 0, os.fstat(fd)).encoded())
        for name in sorted(os.listdir(fd)):
            self._entry(fd, name, os.fsencode(name), depth + 1)
        self._write(Entry(Kind.UP).encoded())
        return True

    def _file(self, fd: int, called: bytes) -> bool:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self.skipped += 1
            return False
        self._take(found.st_size)
        self._write(Entry(Kind.FILE, called, found.st_size, found).encoded())
        left = found.st_size
        while left:
            data = os.read(fd, min(_BLOCK, left)) or bytes(min(_BLOCK, left))  # cut off while it was read: filled up
            self._write(data)
            left -= len(data)
        return True


# Into folders.


def blocks(read: Read, size: int) -> Iterator[bytes]:
    """The bytes of a file, in pieces."""
    while size:
        data = read(min(_BLOCK, size))
        size -= len(data)
        yield data


class Receiver:
    """Lays entries out. `set_id`: bits that set ids are kept; `fresh`: nobody else makes anything where it goes."""

    def __init__(self, read: Read, take: Take, *, set_id: bool, fresh: bool) -> None:
        self._read = read
        self._take = take
        self._modes = 0o7777 if set_id else 0o1777
        self._fresh = fresh
        self._made = 0

    def receive(self, top: int) -> int:
        """Everything up to END, into the open folder; gives how many entries were left out.

        Raises `CopyFailed` for nonsense and for what the other side says, `OSError`.
        """
        way: list[tuple[int, Entry]] = []
        try:
            while (one := entry(self._read)).kind is not Kind.END:
                self._lay(one, way, way[-1][0] if way else top)
            if way:
                raise CopyFailed("failed", "the other side sends nonsense")
            return one.size
        finally:
            for fd, _ in way:
                os.close(fd)

    def _lay(self, one: Entry, way: list[tuple[int, Entry]], here: int) -> None:
        if one.kind is Kind.UP:
            if not way:
                raise CopyFailed("failed", "the other side sends nonsense")
            fd, given = way.pop()
            try:
                if given.kind is Kind.FOLDER or given.size:
                    self._own(given, fd)
            finally:
                os.close(fd)
            return
        self._take(one.size if one.kind is Kind.FILE else 0)
        if one.kind in (Kind.FOLDER, Kind.ENTER):
            if len(way) > DEPTH:
                raise CopyFailed("over a limit", f"folders are nested more than {DEPTH} deep")
            way.append((_entered(here, one), one))
        elif self._fresh:
            self._make(one, here, one.name)
        else:
            self._replace(one, here)

    def _replace(self, one: Entry, here: int) -> None:
        self._made += 1
        aside = aside_name(self._made)
        try:
            self._make(one, here, aside)
            rename(here, aside, here, one.name)
        except BaseException:
            remove(here, aside)
            raise

    def _make(self, one: Entry, here: int, name: bytes) -> None:
        if one.kind is Kind.LINK:
            os.symlink(self._read(one.size), name, dir_fd=here)
            os.chown(name, *one.owner, dir_fd=here, follow_symlinks=False)
            return
        fd = os.open(name, _NEW, 0o600, dir_fd=here)
        try:
            for data in blocks(self._read, one.size):
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            self._own(one, fd)
        finally:
            os.close(fd)

    def _own(self, one: Entry, fd: int) -> None:
        os.fchown(fd, *one.owner)
        os.fchmod(fd, one.mode & self._modes)  # after the owner: chown drops the bits that set ids
        os.utime(fd, ns=one.times)


def _entered(here: int, one: Entry) -> int:
    try:
        os.mkdir(one.name, 0o700 if one.kind is Kind.FOLDER else 0o755, dir_fd=here)
    except FileExistsError:
        if one.kind is Kind.FOLDER:
            raise
    return os.open(one.name, _FOLDER, dir_fd=here)


def receive_new(read: Read, take: Take, folder: int, name: str, *, set_id: bool) -> int:
    """One entry, laid out aside in the open folder and called `name` when it is whole; a file there is replaced.

    Gives how many entries were left out; raises as `Receiver` does.
    """
    aside = aside_name(0)
    os.mkdir(aside, 0o700, dir_fd=folder)
    try:
        fd = os.open(aside, _FOLDER, dir_fd=folder)
        try:
            skipped = Receiver(read, take, set_id=set_id, fresh=True).receive(fd)
            rename(fd, NAME, folder, os.fsencode(name))
        finally:
            os.close(fd)
    finally:
        remove(folder, aside)
    return skipped


def aside_name(number: int) -> bytes:
    """A name that nobody can guess."""
    return b".copy-%s-%d" % (os.urandom(8).hex().encode(), number)


def rename(source: int, name: bytes, target: int, called: bytes) -> None:
    """Give it its name; a file there is replaced. Raises `CopyFailed` where a folder is in the way, `OSError`."""
    try:
        os.rename(name, called, src_dir_fd=source, dst_dir_fd=target)
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        words = f"{os.fsdecode(called)} is there already, and is a folder or not to be replaced by one"
        raise CopyFailed("conflict", words) from error
    except FileNotFoundError as error:
        raise CopyFailed("failed", "the other side sent nothing") from error
    except OSError as error:
        if error.errno == 39:  # ENOTEMPTY: without another module for one number
            raise CopyFailed("conflict", f"the folder {os.fsdecode(called)} is there already") from error
        raise


def remove(folder: int, name: bytes) -> None:
    """Remove it with all below it, following no link; harmless when it is not there."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        fd = os.open(name, _FOLDER, dir_fd=folder)
        try:
            for one in os.listdir(fd):
                remove(fd, os.fsencode(one))
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=folder)
