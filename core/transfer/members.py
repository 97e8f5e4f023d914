"""The files of an image archive, by their names in it: those of a folder, or of a tar read where it lies.

Rules of this file: a name out of an archive is only ever looked up, never made a path of the system (a folder's names
are built by us, from digests that were parsed). Of a tar only an index is kept in memory: where each file's bytes are.
A tar is read as layers are (`core.tar`): what readers disagree on is refused, and so are two files of one name. A link
is followed once, by its words, to a file of the same tar: docker and podman write layers that way. A tar that is packed
is unpacked to a nameless file, which is gone with its descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final, Protocol

from core import tar
from core.errors import Invalid, NoSpace, NotFound, OverLimit, Unsupported, from_os_error
from core.layers import Compression
from core.stream import LayerStream
from core.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_CHUNK: Final = 1 << 20
_MOST_MEMBERS: Final = 100_000
_LONGEST_NAME: Final = 1024
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT_FREE: Final = 20
"""One part in so many of the disk stays free while a packed archive is unpacked."""
_MAGIC: Final = (
    (b"\x1f\x8b", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)
_UNREAD: Final = ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))


class Members(Protocol):
    """The files of an archive. Any thread may read."""

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def size(self, name: str) -> int:
        """Its bytes; raises `NotFound`, `Invalid` when it is no regular file."""

    def read(self, name: str, start: int, limit: int) -> Iterator[bytes]:
        """At most `limit` bytes from byte `start` on, in pieces of up to 1 MiB; raises as `size`."""

    def close(self) -> None:
        """Let go of the archive."""


def whole(members: Members, name: str, most: int) -> bytes:
    """The whole of a small file; raises `OverLimit` when it has more than `most` bytes, and as `Members.size`."""
    if (size := members.size(name)) > most:
        raise OverLimit(f"{name} in the archive has {size} bytes; at most {most} are read")
    return b"".join(members.read(name, 0, most))


def packing(start: bytes) -> Compression:
    """How bytes that begin with `start` are packed; raises `Unsupported` for bzip2 and xz."""
    for magic, word in _UNREAD:
        if start.startswith(magic):
            raise Unsupported(f"the archive is packed with {word}", advice="Unpack it, or pack it with gzip or zstd.")
    return next((packed for magic, packed in _MAGIC if start.startswith(magic)), Compression.NONE)


class FolderMembers:
    """The files below a folder (an OCI layout); no link in it is followed."""

    def __init__(self, path: Path) -> None:
        self._folder = os.open(path, _FOLDER)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        try:
            os.close(self._open(name))
        except NotFound:
            return False
        return True

    def size(self, name: str) -> int:
        """Its bytes; raises `NotFound`, `Invalid`."""
        fd = self._open(name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def read(self, name: str, start: int, limit: int) -> Iterator[bytes]:
        """At most `limit` bytes from byte `start` on."""
        fd = self._open(name)
        try:
            yield from _pieces(fd, start, limit)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._folder)

    def _open(self, name: str) -> int:
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for its writer for ever.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = openat2(self._folder, name, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise Invalid(f"{name} in the archive is a link; links are not followed") from None
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"the archive has no {name}") from None
            raise from_os_error(error, f"opening {name} in the archive") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Invalid(f"{name} in the archive is no regular file")
        return fd


class TarMembers:
    """The files of a tar, found once by its headers; their bytes are read from where they lie."""

    def __init__(self, file: FileIO) -> None:
        """Takes `file` over. Raises `Invalid`, `OverLimit`."""
        self._file = file
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._index()

    def has(self, name: str) -> bool:
        """Whether there is a file of that name, or a link to one."""
        return self._resolved(name) in self._files

    def size(self, name: str) -> int:
        """Its bytes; raises `NotFound`, `Invalid`."""
        return self._find(name)[1]

    def read(self, name: str, start: int, limit: int) -> Iterator[bytes]:
        """At most `limit` bytes from byte `start` on."""
        offset, size = self._find(name)
        return _pieces(self._file.fileno(), offset + start, min(limit, max(0, size - start)))

    def close(self) -> None:
        """Let go of the tar."""
        self._file.close()

    def _index(self) -> None:
        end = os.fstat(self._file.fileno()).st_size
        reader = tar.TarReader(self._file.readinto, lambda count: self._file.seek(count, os.SEEK_CUR))
        seen = 0
        while (member := reader.next()) is not None:
            if (seen := seen + 1) > _MOST_MEMBERS:
                raise OverLimit(f"the archive has more than {_MOST_MEMBERS} members")
            if reader.position + member.size > end and member.kind == tar.REGULAR:
                raise Invalid("the archive is cut short", advice="Copy it again, or make it anew.")
            self._take(member, reader.position)

    def _take(self, member: tar.Member, offset: int) -> None:
        if member.kind == tar.DIRECTORY:
            return
        name = _plain(member.name)
        if name in self._files or name in self._links:
            raise Invalid(f"the archive has two members of the name {name[:100]!r}")
        if member.kind == tar.REGULAR:
            self._files[name] = (offset, member.size)
        elif member.kind == tar.SYMLINK:
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), _text(member.link)))
        else:
            raise Invalid(f"{name[:100]!r} in the archive is neither file, folder nor symbolic link")

    def _resolved(self, name: str) -> str:
        return self._links.get(name, name)

    def _find(self, name: str) -> tuple[int, int]:
        found = self._files.get(self._resolved(name))
        if found is not None:
            return found
        if name in self._links:
            raise Invalid(f"{name[:100]!r} in the archive is a link to {self._links[name][:100]!r}, no file of its own")
        raise NotFound(f"the archive has no {name[:100]}")


def _plain(name: bytes) -> str:
    """A member's name without `./` before it; raises `Invalid` for one that leads elsewhere."""
    text = _text(name)
    plain = posixpath.normpath(text)
    if text.startswith("/") or plain.startswith("..") or plain == "." or len(text) > _LONGEST_NAME:
        raise Invalid(f"the archive has a member named {text[:100]!r}, which lies outside of it")
    return plain


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Invalid(f"the archive has a member with a name that is no text: {name[:100]!r}") from None


def _pieces(fd: int, start: int, limit: int) -> Iterator[bytes]:
    while limit > 0 and (piece := os.pread(fd, min(_CHUNK, limit), start)):
        yield piece
        start += len(piece)
        limit -= len(piece)


def open_members(path: Path, scratch: Path) -> Members:
    """The files of the archive at `path`: a folder, or a tar, also packed by gzip or zstd.

    A packed one is unpacked to a nameless file in folder `scratch`. Raises `NotFound`, `Invalid`, `Unsupported`,
    `OverLimit`, `Corrupt`, `NoSpace` and what `from_os_error` makes of the rest.
    """
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            return FolderMembers(path)
        if not stat.S_ISREG(kind):
            raise Invalid(f"{path} is neither a folder nor a file")
        return _tar(FileIO(path), scratch)
    except FileNotFoundError:
        raise NotFound(f"there is no archive {path}", advice="Check spec.archive, or put the archive there.") from None
    except OSError as error:
        raise from_os_error(error, f"reading the archive {path}") from error


def _tar(file: FileIO, scratch: Path) -> Members:
    with contextlib.ExitStack() as opened:
        opened.enter_context(file)
        packed = packing(os.pread(file.fileno(), 8, 0))
        if packed is Compression.NONE:
            members = TarMembers(file)
            opened.pop_all()
            return members
        return TarMembers(_unpacked(file, packed, scratch))


def _unpacked(file: FileIO, packed: Compression, scratch: Path) -> FileIO:
    with contextlib.ExitStack() as opened:
        out = opened.enter_context(FileIO(os.open(scratch, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), "r+"))
        stream = LayerStream(file, packed, "sha256", lambda: _room(scratch))
        view = memoryview(bytearray(_CHUNK))
        while count := stream.fill(view):
            left = view[:count]
            while left:
                left = left[out.write(left) :]
        out.seek(0)
        opened.pop_all()
        return out


def _room(scratch: Path) -> None:
    seen = os.statvfs(scratch)
    if seen.f_bavail < seen.f_blocks // _KEPT_FREE:
        raise NoSpace("the packed archive unpacks to more than the disk has room for")
