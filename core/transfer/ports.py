"""What transfer needs of others, as ports, and the values that travel.

`core.transfer` never imports `core.snapshots`: the one who wires them hands an `Unpacker` in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from core.digest import Digest
from core.errors import Unavailable
from core.layers import Budgets, Compression
from core.values import dataclass

__all__ = [
    "Budgets",
    "CannotResume",
    "Compression",
    "Descriptor",
    "Elsewhere",
    "ImageConfig",
    "LayerSink",
    "LayerState",
    "Progress",
    "PulledImage",
    "Remote",
    "Unpacker",
]


class CannotResume(Unavailable):
    """The other side cannot, or may not, give this blob from where it was asked to: ask for all of it."""


class Elsewhere(Unavailable):
    """What came is not the blob, and another place may have it: what was written is void, ask for all of it again."""


class LayerState(StrEnum):
    """How far one layer is."""

    WAITING = "waiting"
    FETCHING = "fetching"
    HELD = "held"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed pointer to a blob (OCI image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The fixed list of what an image may say about how it is run; nothing else of its metadata reaches a runtime."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def to_json(self) -> dict[str, Any]:
        """A form for records; inverse of `from_json`."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ImageConfig:
        """Read a record."""
        known = {name: value for name, value in data.items() if name in cls.__slots__}
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class PulledImage:
    """A complete image on this node: `target` is what the reference resolved to (index or manifest)."""

    target: Descriptor
    manifest: Descriptor
    config_digest: Digest
    config: ImageConfig
    platform: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]
    chain: str
    """The name of the top committed snapshot (a chain id); "" when it was not unpacked."""
    pulled_from: str
    bytes_fetched: int
    blobs: tuple[Digest, ...] = field(default=())
    """Every blob the image needs to be pushed or unpacked again: index, manifest, config, layers."""


class LayerSink(Protocol):
    """One image being unpacked: layers arrive in any order, verified and complete on disk."""

    def missing(self) -> Sequence[int]:
        """Indexes of the layers that are needed; the others are committed snapshots already and need no blob."""

    def ready(self, index: int, blob: Path, compression: Compression) -> None:
        """Layer `index` lies verified at `blob`: begin to apply it, in the background; returns at once."""

    def applied(self) -> int:
        """How many layers are applied so far."""

    def finish(self) -> str:
        """Wait for all, check every diff id, make durable, commit; returns the top chain id. Raises the first fault."""

    def abort(self) -> None:
        """Stop and leave nothing; harmless after `finish`."""


class Unpacker(Protocol):
    """Makes the snapshots of an image."""

    def begin(self, diff_ids: Sequence[Digest], sizes: Sequence[int], budgets: Budgets) -> LayerSink:
        """Start with the image's uncompressed digests (base first) and the compressed sizes of its layers."""

    def module(self, name: Digest, path: str) -> LayerSink:
        """The same for one WASM module, which becomes the file `path` of a snapshot called `name`."""


class Remote(Protocol):
    """Where one image comes from. Never retries by itself: the caller does, and verifies every byte."""

    @property
    def image(self) -> str:
        """The image's full name, for people."""

    @property
    def origin(self) -> str:
        """Who answers, as status.pulledFrom has it."""

    def resolve(self) -> Descriptor:
        """What the name means now; the rest goes by digest. Raises `NotFound`, `Denied`, `Unavailable`."""

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index, not verified; at most its size + 1 bytes. Raises as `resolve`, and `Ambiguous`."""

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """A config or layer from byte `start` on, not verified; never beyond size + 1 bytes of it.

        Called from several threads. Raises as `resolve`, and, before the first piece, `CannotResume` when it cannot
        begin at `start`: the caller asks anew from 0.
        """


class Progress(Protocol):
    """Who is told how far a transfer is. Called from several threads, often: must be cheap and never raise."""

    def resolved(self, digest: Digest, layers: Sequence[Descriptor]) -> None:
        """The reference is this digest, with these layers."""

    def fetched(self, digest: Digest, total: int) -> None:
        """Of blob `digest`, `total` bytes are here."""

    def layer(self, digest: Digest, state: LayerState) -> None:
        """A layer has moved on."""
