"""The bytes of a layer, unpacked on the way: zstd as images have it (RFC 8878)."""

import hashlib
import io
import os
import struct

import pytest
import zstandard

from core.errors import Corrupt, OverLimit
from core.layers import Compression
from core.stream import LayerStream

PLAIN = os.urandom(300_000) + b"some text, over and over; " * 40_000


def skippable(data: bytes, kind: int = 0) -> bytes:
    """A frame that decoders skip (RFC 8878, 3.1.2)."""
    return struct.pack("<II", 0x184D2A50 + kind, len(data)) + data


def packed(data: bytes, **more: int) -> bytes:
    return zstandard.ZstdCompressor(level=3, **more).compress(data)  # type: ignore[arg-type]  # its settings are numbers


def unpacked(blob: bytes) -> bytes:
    """What comes out, checked against the stream's own hash."""
    stream, found = LayerStream(io.BytesIO(blob), Compression.ZSTD, "sha256", lambda: None), bytearray()
    view = memoryview(bytearray(70_001))
    while count := stream.fill(view):
        found += view[:count]
    assert stream.hexdigest() == hashlib.sha256(found).hexdigest()
    assert stream.total == len(found)
    return bytes(found)


def test_one_frame_is_unpacked() -> None:
    assert unpacked(packed(PLAIN)) == PLAIN


def test_many_frames_are_one_layer() -> None:
    pieces = [PLAIN[at : at + 100_000] for at in range(0, len(PLAIN), 100_000)]
    assert unpacked(b"".join(map(packed, pieces))) == PLAIN


def test_an_empty_frame_between_others_ends_nothing() -> None:
    assert unpacked(packed(b"a") + packed(b"") + packed(b"b")) == b"ab"


def test_frames_to_be_skipped_are_skipped_wherever_they_are() -> None:
    blob = skippable(b"x" * 100_000) + packed(PLAIN[:5]) + skippable(b"") + packed(PLAIN[5:]) + skippable(b"end", 15)
    assert unpacked(blob) == PLAIN


def test_a_table_of_contents_behind_the_layer_is_accepted() -> None:
    """zstd:chunked: a frame a file, then the manifest and a footer in frames to be skipped."""
    files = [PLAIN[:1000], PLAIN[1000:200_000], PLAIN[200_000:]]
    toc = packed(b'{"version":1,"entries":[]}')
    footer = struct.pack("<QQQQ", 0, len(toc), 26, 1) + b"GNUlInUx"
    blob = b"".join(map(packed, files)) + skippable(toc) + skippable(footer)
    assert unpacked(blob) == PLAIN


def frame_with_window(exponent: int, mantissa: int = 0) -> bytes:
    """A frame of one empty block that asks for a window of 2 ** (10 + exponent) bytes and `mantissa` eighths more."""
    return b"\x28\xb5\x2f\xfd" + bytes([0, exponent << 3 | mantissa]) + b"\x01\x00\x00"


def test_a_window_of_128_mib_is_the_largest() -> None:
    assert unpacked(frame_with_window(17)) == b""
    for too_large in (frame_with_window(17, 1), frame_with_window(21)):
        with pytest.raises((Corrupt, OverLimit)):
            unpacked(too_large)
        with pytest.raises((Corrupt, OverLimit)):
            unpacked(packed(b"fine") + too_large)


@pytest.mark.parametrize("blob", [b"nonsense", b"\x1f\x8b gzip", packed(PLAIN)[:-1000] + b"x" * 1000])
def test_what_is_no_zstd_cannot_be_unpacked(blob: bytes) -> None:
    with pytest.raises(Corrupt):
        unpacked(blob)


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_a_frame_that_ends_too_early_has_another_diff_id(cut: int) -> None:
    found = unpacked(packed(PLAIN)[:-cut])
    assert hashlib.sha256(found).digest() != hashlib.sha256(PLAIN).digest()
    assert PLAIN.startswith(found)
