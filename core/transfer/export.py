"""Write a held image to an archive: an OCI layout in a tar, or what docker and podman load.

Rules of this file: the same image gives the same bytes (members in order of names, no times, no owners); the blobs go
as they are, hashed on the way, so that what has rotted is never handed on; the archive appears whole under its name, or
not at all.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

from core import fsio
from core.content.ingest import WrongBytes
from core.content.store import BlobMissing, ContentStore
from core.digest import Digest
from core.errors import Invalid, from_os_error
from core.transfer import manifests
from core.transfer.archive import DOCKER, FULL_NAME, INDEX, LAYOUT, REF_NAME, as_json
from core.transfer.manifests import MAX_DOCUMENT, Manifest
from core.transfer.ports import Descriptor
from core.transfer.reference import Reference
from core.values import dataclass

Format = Literal["oci", "docker"]
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_STEP: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What is written: the held image `target` (index or manifest) under `name`; `manifest` is its one image."""

    name: Reference
    target: Descriptor
    manifest: Descriptor
    blobs: tuple[Digest, ...]


def inside(content: ContentStore, target: Descriptor, blobs: Sequence[Digest]) -> tuple[Descriptor, tuple[Digest, ...]]:
    """The manifest of the one image among `blobs` that `target` leads to, and the blobs that it needs by itself.

    Raises `BlobMissing`, `WrongBytes`, and as parsing does.
    """
    current, seen = target, [target.digest]
    while True:
        document = manifests.parse_document(content.read(current.digest, MAX_DOCUMENT), current.media_type)
        if isinstance(document, Manifest):
            return current, tuple(blob for blob in blobs if blob not in seen[:-1])
        current = next((one for one, _ in document.entries if one.digest in blobs and one.digest not in seen), current)
        if current.digest in seen:
            raise Invalid(f"index {current.digest} leads to no image that is held")
        seen.append(current.digest)


def export(
    content: ContentStore, image: Exported, to: Path, form: Format, told: Callable[[int], None] = lambda _: None
) -> int:
    """Write `image` to file `to`, beside it first; returns its bytes. `told` hears of the bytes of blobs so far.

    The caller holds a span. Raises `BlobMissing`, `WrongBytes` (a blob has rotted), `Invalid`, and errors of the disk.
    """
    files = _oci(image) if form == "oci" else _docker(content, image)
    try:
        with fsio.staging(to.parent) as work:
            made = work / "archive"
            with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as out:
                _write(content, files, out, told)
                out.flush()
                os.fsync(out.fileno())
                size = out.tell()
            fsio.publish(made, to)
    except OSError as error:
        raise from_os_error(error, f"writing {to}") from error
    return size


def _oci(image: Exported) -> dict[str, bytes | Digest]:
    notes = {FULL_NAME: str(image.name), REF_NAME: image.name.tag or str(image.name)}
    index = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_INDEX,
        "manifests": [{**as_json(image.target), "annotations": notes}],
    }
    blobs: Mapping[str, Digest] = {f"blobs/{one.algorithm}/{one.hex}": one for one in image.blobs}
    return {INDEX: _json(index), LAYOUT: _LAYOUT, **blobs}


def _docker(content: ContentStore, image: Exported) -> dict[str, bytes | Digest]:
    document = manifests.parse_document(content.read(image.manifest.digest, MAX_DOCUMENT), image.manifest.media_type)
    if not isinstance(document, Manifest):
        raise Invalid(f"{image.name}: {image.manifest.digest} is no manifest of one image")
    config = f"{document.config.digest.hex}.json"
    layers = [f"{layer.digest.hex}.tar" for layer in document.layers]
    tags = [f"{image.name.registry}/{image.name.repository}:{image.name.tag}"] if image.name.tag else []
    files: dict[str, bytes | Digest] = {DOCKER: _json([{"Config": config, "RepoTags": tags, "Layers": layers}])}
    files[config] = document.config.digest
    return files | {name: layer.digest for name, layer in zip(layers, document.layers, strict=True)}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _write(
    content: ContentStore, files: Mapping[str, bytes | Digest], out: IO[bytes], told: Callable[[int], None]
) -> None:
    done = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in _folders(files):
            tar.addfile(_member(folder, 0, tarfile.DIRTYPE))
        for name in sorted(files):
            data = files[name]
            if isinstance(data, bytes):
                tar.addfile(_member(name, len(data)), io.BytesIO(data))
                continue
            with Blob(content, data) as blob:
                tar.addfile(_member(name, blob.size), blob)
                blob.check()
                done += blob.size
            told(done)


def _folders(names: Sequence[str] | Mapping[str, object]) -> Iterator[str]:
    found = {"/".join(parts[:n]) for name in names for parts in [name.split("/")] for n in range(1, len(parts))}
    yield from sorted(found)


def _member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info


class Blob(io.RawIOBase):
    """A blob that is hashed while it is read; `told` hears how far that is. Raises `BlobMissing`."""

    def __init__(self, content: ContentStore, digest: Digest, told: Callable[[int], None] = lambda _: None) -> None:
        size = content.size(digest)
        if size is None:
            raise BlobMissing(f"blob {digest} is not in the content store")
        self.size = size
        self._told = told
        self._digest = digest
        self._hash = digest.hasher()
        self._file = open(content.path(digest), "rb", buffering=0)  # noqa: SIM115 - closed with us

    def read(self, size: int = -1) -> bytes:
        """Some bytes more."""
        piece = self._file.read(_STEP if size < 0 else size)
        self._hash.update(piece)
        self._told(self._file.tell())
        return piece

    def check(self) -> None:
        """Raises `WrongBytes` when what was read is not what its name says."""
        if self._hash.hexdigest() != self._digest.hex:
            raise WrongBytes(f"blob {self._digest} has rotted on disk")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
