"""Digests: parsed once, at the edge, into a value that cannot be wrong (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Self

from core.errors import Invalid
from core.values import dataclass

_FORMS: Final = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and its lower-case hex; inside the program no plain `str` means a digest."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `sha256:<64 hex>` or `sha512:<128 hex>`; raises `Invalid` on anything else, before a path is built."""
        if isinstance(text, str):
            algorithm, _, hexpart = text.partition(":")
            form = _FORMS.get(algorithm)
            if form is not None and form.fullmatch(hexpart):
                return cls(algorithm, hexpart)
        raise Invalid(f"not a digest: {str(text)[:100]!r}", advice="Write sha256: and 64 lower-case hex digits.")

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The sha256 digest of `data`."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def hasher(self) -> hashlib._Hash:
        """A new hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def short(self) -> str:
        """The first 12 hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def chain_id(parent: Digest | None, diff_id: Digest) -> Digest:
    """The name of the file system made by `diff_id` on top of `parent` (OCI image-spec, config.md, ChainID)."""
    return diff_id if parent is None else Digest.of(f"{parent} {diff_id}".encode())


def hash8(text: str) -> str:
    """The first 8 hex digits of sha256 of `text`: the short hash in names."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
