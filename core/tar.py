"""A strict, streaming reader of tar: ustar, GNU long names, PAX and base-256 numbers (POSIX.1-2017 pax; tar(5)).

Rules of this file: an archive lists the same members as Go's archive/tar lists, or it is refused (`Invalid`), because
two readers that disagree are how files are smuggled. Extension headers are capped before they are read. Sparse files
are refused: their claimed size has nothing to do with their bytes. Nothing here touches a file system.

A block is 512 bytes and the buffer holds a whole number of them, so no header ever straddles two fillings.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from core.errors import Invalid, OverLimit
from core.values import dataclass

T = TypeVar("T")

BLOCK: Final = 512
BUFFER: Final = 1 << 20
MAX_EXTENSION: Final = 1 << 20

REGULAR: Final = ord("0")
OLD_REGULAR: Final = 0
HARDLINK: Final = ord("1")
SYMLINK: Final = ord("2")
CHARACTER: Final = ord("3")
BLOCK_DEVICE: Final = ord("4")
DIRECTORY: Final = ord("5")
FIFO: Final = ord("6")
_GLOBAL_HEADER: Final = ord("g")
_EXTENDED_HEADER: Final = ord("x")
_GNU_NAME: Final = ord("L")
_GNU_LINK: Final = ord("K")
_GNU_SPARSE: Final = ord("S")
_BODILESS: Final = frozenset((HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sB100s8s64x8s8s155s8x4s")
_ZERO: Final = bytes(BLOCK)
_USTAR: Final = b"ustar\0"
_GNU: Final = b"ustar  \0"
_STAR_TRAILER: Final = b"tar\0"
_XATTR: Final = b"SCHILY.xattr."
_PAX_TIME: Final = re.compile(rb"(-?)(\d{1,18})(?:\.(\d*))?")
_NANO: Final = 1_000_000_000
_FAR: Final = _NANO << 40


@dataclass(slots=True)
class Member:
    """One entry: `kind` is the type flag, names are raw bytes, times are nanoseconds since 1970, `xattrs` by name."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    atime: int
    link: bytes
    major: int
    minor: int
    xattrs: Mapping[bytes, bytes]


class TarReader:
    """Yields members in order. `fill(view)` puts up to `len(view)` bytes into `view` and says how many.

    Where the bytes lie in a file, `skip(count)` moves on past so many of them, and bodies that nobody asks for are not
    read; who gives it compares `position` with the file's size, since what is skipped may not be there.
    """

    def __init__(self, fill: Callable[[memoryview], int], skip: Callable[[int], object] | None = None) -> None:
        self._fill = fill
        self._skip = skip
        self._taken = 0
        self._view = memoryview(bytearray(BUFFER))
        self._at = 0
        self._end = 0
        self._body = 0
        self._padding = 0
        self._numbers: dict[bytes, int] = {}

    def next(self) -> Member | None:
        """The next member, or None at the end of the archive; what is left of the last one's body is skipped.

        Raises `Invalid` (not a tar that everybody reads alike, or cut short), `OverLimit` (an oversized extension).
        """
        name: bytes | None = None
        link: bytes | None = None
        records: dict[bytes, bytes] | None = None
        while (raw := self._block()) is not None:
            member = self._header(raw)
            if member.kind == _EXTENDED_HEADER:
                records = _once(records, _pax(self._extension(member)))
            elif member.kind == _GNU_NAME:
                name = _once(name, self._extension(member).partition(b"\0")[0])
            elif member.kind == _GNU_LINK:
                link = _once(link, self._extension(member).partition(b"\0")[0])
            elif member.kind != _GLOBAL_HEADER:
                self._complete(member, records, name, link)
                return member
            elif records is None and name is None and link is None:
                _pax(self._extension(member))  # read as a check only: readers do not agree to whom its records apply
            else:
                raise Invalid("the tar has a global header between a member and its extension header")
        if records is not None or name is not None or link is not None:
            raise Invalid("the tar ends after an extension header that belongs to no member")
        return None

    def piece(self) -> memoryview:
        """The next part of the current member's body, valid until the next call; empty at the body's end."""
        if not self._body:
            return self._view[0:0]
        if self._at == self._end and not self._refill():
            raise Invalid("the tar is cut short inside a file's content")
        start = self._at
        self._at = min(start + self._body, self._end)
        self._body -= self._at - start
        return self._view[start : self._at]

    @property
    def position(self) -> int:
        """How many bytes of the archive come before the next one: after `next`, where the member's body begins."""
        return self._taken - (self._end - self._at)

    def drain(self) -> None:
        """Read what follows the end of the archive, so that it is hashed too."""
        while self._refill():
            pass

    def _refill(self) -> int:
        filled = 0
        while filled < BUFFER and (count := self._fill(self._view[filled:])):
            filled += count
        self._at, self._end = 0, filled
        self._taken += filled
        return filled

    def _skip_body(self) -> None:
        beyond = self._body + self._padding - (self._end - self._at)
        if self._skip is not None and beyond > 0:
            self._skip(beyond)
            self._taken += beyond
            self._at = self._end = self._body = self._padding = 0
            return
        while self._body:
            self.piece()
        rest, self._padding = self._padding, 0
        if rest:
            if self._at + rest > self._end:
                raise Invalid("the tar is cut short after a file's content")
            self._at += rest

    def _block(self) -> bytes | None:
        self._skip_body()
        raw = self._raw_block()
        if raw is None:
            return None
        if raw == _ZERO:
            second = self._raw_block()
            if second is None or second == _ZERO:
                return None
            raise Invalid("the tar has a header after its end mark")
        return raw

    def _raw_block(self) -> bytes | None:
        start = self._at
        if start == self._end:
            if not self._refill():
                return None
            start = 0
        if start + BLOCK > self._end:
            raise Invalid("the tar is cut short inside a header")
        self._at = start + BLOCK
        return self._view[start : self._at].tobytes()

    def _extension(self, member: Member) -> bytes:
        if member.size > MAX_EXTENSION:
            raise OverLimit(f"a tar extension header claims {member.size} bytes; at most {MAX_EXTENSION} are read")
        parts = []
        while piece := self.piece():
            parts.append(piece.tobytes())
        return b"".join(parts)

    def _header(self, raw: bytes) -> Member:
        name, mode, uid, gid, size, mtime, check, kind, link, magic, major, minor, prefix, trailer = _HEADER.unpack(raw)
        if _octal(check) not in _checksums(raw, check):
            raise Invalid("not a tar header: the checksum is wrong", advice="Check the layer's media type.")
        known = self._number
        member = Member(
            name.partition(b"\0")[0], kind, known(mode), known(uid), known(gid), _number(size), _number(mtime), 0,
            link.partition(b"\0")[0], 0, 0, {},
        )  # fmt: skip
        member.mtime *= _NANO
        member.atime = member.mtime
        ustar = magic[:6] == _USTAR
        if ustar or magic == _GNU:
            member.major, member.minor = known(major), known(minor)
        if ustar:
            if trailer == _STAR_TRAILER:
                raise Invalid("a tar in star's own format is not supported")
            if prefix[0]:
                member.name = prefix.partition(b"\0")[0] + b"/" + member.name
        elif magic == _GNU:
            self._gnu_times(member, prefix)
        self._set_body(member)
        return member

    def _gnu_times(self, member: Member, prefix: bytes) -> None:
        # Where ustar has a prefix GNU has atime and ctime; junk there is read differently by different readers.
        if prefix[0]:
            member.atime = _number(prefix[:12]) * _NANO
        if prefix[12]:
            _number(prefix[12:24])

    def _set_body(self, member: Member) -> None:
        size = 0 if member.kind in _BODILESS else member.size
        if size < 0:
            raise Invalid(f"the tar gives {member.name[:80]!r} a negative size")
        self._body = size
        self._padding = -size % BLOCK

    def _complete(
        self, member: Member, records: dict[bytes, bytes] | None, name: bytes | None, link: bytes | None
    ) -> None:
        if member.kind == _GNU_SPARSE:
            raise Invalid("the tar holds a sparse file, which layers may not")
        if records is not None:
            if (name and b"path" in records) or (link and b"linkpath" in records):
                raise Invalid("the tar names one member twice, by PAX and by GNU headers")
            _merge(member, records)
        if name:
            member.name = name
        if link:
            member.link = link
        if member.kind == OLD_REGULAR:
            member.kind = DIRECTORY if member.name.endswith(b"/") else REGULAR
        if member.uid < 0 or member.gid < 0 or max(member.uid, member.gid) > 0xFFFFFFFE:
            raise Invalid(f"the tar gives {member.name[:80]!r} an owner out of range")
        if not (-_FAR < member.mtime < _FAR and -_FAR < member.atime < _FAR):
            raise Invalid(f"the tar gives {member.name[:80]!r} a time out of range")
        self._set_body(member)

    def _number(self, field: bytes) -> int:
        # Modes and owners repeat; the fields' values are remembered, a bounded number of them.
        value = self._numbers.get(field)
        if value is None:
            value = _number(field)
            if len(self._numbers) < 4096:
                self._numbers[field] = value
        return value


def _once(before: T | None, new: T) -> T:
    if before is not None:
        raise Invalid("the tar has two extension headers of one kind in a row")
    return new


def _checksums(raw: bytes, check: bytes) -> tuple[int, ...]:
    # The sum of all bytes with the checksum's own taken for spaces; some old writers summed them as signed.
    blank = 256 - sum(check)
    if raw.isascii():
        return ((zlib.adler32(raw) & 0xFFFF) - 1 + blank,)  # Adler's lower half is the sum: 512 × 127 is below 65521
    unsigned = sum(raw) + blank
    return unsigned, unsigned - 256 * sum(byte > 127 for byte in raw)


def _octal(field: bytes) -> int:
    text = field[:-1] if field[-1] in b" \0" else field
    if not text.isdigit():
        text = field.strip(b" \0").partition(b"\0")[0]
        if not text:
            return 0
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise Invalid(f"not a tar header: {field!r} is not an octal number", advice="Check the layer's media type.")
    return int(text, 8)


def _number(field: bytes) -> int:
    if field[0] < 0x80:
        return _octal(field)
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    if not -(1 << 63) <= value < 1 << 63:
        raise Invalid("the tar holds a number of more than 63 bits")
    return value


def _pax(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise Invalid("the tar has a PAX record without a length")
        end = at + int(digits)
        if end > len(data) or end < space + 4 or data[end - 1] != 0x0A:
            raise Invalid("the tar has a PAX record of a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals or b"\0" in key:
            raise Invalid("the tar has a PAX record without a keyword")
        if b"\0" in value and key in (b"path", b"linkpath", b"uname", b"gname"):
            raise Invalid(f"the tar has a PAX {key.decode()} with a NUL in it")
        if key.startswith(b"GNU.sparse."):
            raise Invalid("the tar holds a sparse file, which layers may not")
        records[key] = value
        at = end
    return records


def _merge(member: Member, records: Mapping[bytes, bytes]) -> None:
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_XATTR):
            if value:
                xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue  # POSIX: an empty value leaves the header's own in force
        elif key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.link = value
        elif key == b"mtime":
            member.mtime = _pax_time(value)
        elif key == b"size":
            member.size = _decimal(value)
        elif key == b"uid":
            member.uid = _decimal(value)
        elif key == b"gid":
            member.gid = _decimal(value)
    member.atime = _pax_time(records[b"atime"]) if records.get(b"atime") else member.mtime
    member.xattrs = xattrs


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19 or int(value) >= 1 << 63:
        raise Invalid(f"the tar has a PAX number that is none: {value[:40]!r}")
    return int(value)


def _pax_time(value: bytes) -> int:
    found = _PAX_TIME.fullmatch(value)
    if found is None:
        raise Invalid(f"the tar has a PAX time that is none: {value[:40]!r}")
    sign, seconds, fraction = found.groups()
    nanoseconds = int(seconds) * _NANO + int(((fraction or b"")[:9]).ljust(9, b"0"))
    return -nanoseconds if sign else nanoseconds
