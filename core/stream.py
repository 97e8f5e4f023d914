"""The bytes of one layer: a blob unpacked on the way, hashed, and watched for bombs.

Rules of this file: one level of decoding, the one the media type names. Every uncompressed byte goes into the diff id,
those after the archive's end too. A stream that swells more than a thousandfold past 1 GiB is refused, and so is a
zstd window over 128 MiB (RFC 8878 lets decoders limit it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO, Any, Final, Protocol, TypeAlias, cast

from core.errors import Corrupt, OverLimit
from core.layers import Compression

_READ: Final = 64 << 10
_MAX_WINDOW: Final = 128 << 20
_RATIO: Final = 1000
_RATIO_FLOOR: Final = 1 << 30


_Source: TypeAlias = tuple[Callable[[memoryview], int], tuple[type[Exception], ...]]


class BinaryFile(Protocol):
    """An open file of bytes, as `open(path, "rb")` gives it."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""

    def readinto(self, view: memoryview, /) -> int:
        """Fill `view` from its start; says how far."""

    def tell(self) -> int:
        """How many bytes were read."""


class LayerStream:
    """Reads `blob` (an open binary file) as `compression` says; `pulse` is called for every piece and may raise."""

    def __init__(self, blob: BinaryFile, compression: Compression, algorithm: str, pulse: Callable[[], None]) -> None:
        self._blob = blob
        self._pulse = pulse
        self._hash = hashlib.new(algorithm)
        self._source, self._faults = _open(blob, compression)
        self.total = 0

    def fill(self, view: memoryview) -> int:
        """Put up to `len(view)` bytes into `view`; 0 at the end. Raises `Corrupt` (cannot be decoded), `OverLimit`."""
        self._pulse()
        try:
            count = self._source(view)
        except self._faults as error:
            raise Corrupt(f"the layer cannot be unpacked: {error}", advice="Check the layer's media type.") from None
        self._hash.update(view[:count])
        self.total += count
        if self.total > _RATIO_FLOOR and self.total > _RATIO * self._blob.tell():
            raise OverLimit(f"the layer swells more than {_RATIO} times while it is unpacked")
        return count

    def hexdigest(self) -> str:
        """The hash of all bytes read so far: the diff id once `fill` has returned 0."""
        return self._hash.hexdigest()


def _open(
    blob: BinaryFile, compression: Compression
) -> tuple[Callable[[memoryview], int], tuple[type[Exception], ...]]:
    if compression is Compression.NONE:
        return blob.readinto, ()
    if compression is Compression.GZIP:
        from isal import isal_zlib

        return _Gunzip(blob).readinto, (cast(type[Exception], isal_zlib.IsalError), EOFError)
    import zstandard

    frames = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
        cast(IO[bytes], blob), read_size=_READ, read_across_frames=True
    )
    return frames.readinto, (zstandard.ZstdError,)


class _Gunzip:
    """gzip members one after the other (RFC 1952); zeros after the last one are padding, anything else is a fault."""

    def __init__(self, blob: BinaryFile) -> None:
        self._blob = blob
        self._pending = b""
        self._inflater: Any = None

    def readinto(self, view: memoryview) -> int:
        while True:
            if self._inflater is None and not self._begin_member():
                return 0
            piece = self._pending or self._blob.read(_READ)
            if not piece:
                raise EOFError("it ends inside a gzip member")
            out = self._inflater.decompress(piece, len(view))
            self._pending = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._pending, self._inflater = self._inflater.unused_data, None
            if out:
                view[: len(out)] = out
                return len(out)

    def _begin_member(self) -> bool:
        from isal import isal_zlib

        first = self._blob.tell() == 0
        while not self._pending or (not first and not self._pending.strip(b"\0")):
            self._pending = self._blob.read(_READ)
            if not self._pending:
                if first:
                    raise EOFError("it is empty")
                return False
        self._inflater = isal_zlib.decompressobj(16 + isal_zlib.MAX_WBITS)
        self._pending = self._pending if first else self._pending.lstrip(b"\0")
        return True
