"""What a layer is to those who fetch it and to those who apply it: how it is packed, and what it may cost."""

from __future__ import annotations

from enum import StrEnum

from core.values import dataclass


class Compression(StrEnum):
    """How a layer's tar is packed, decided by its media type alone."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Budgets:
    """What an image may cost: bytes written, inodes, seconds of one layer's applying."""

    layer_bytes: int = 0
    """0: the larger of 4 GiB and 200 × the compressed size."""
    inodes: int = 2_000_000
    seconds: float = 900.0

    def bytes_for(self, compressed: int) -> int:
        """The bytes that a layer of `compressed` bytes may write."""
        return self.layer_bytes or max(4 << 30, 200 * compressed)
