"""An archive as the origin of one image: an OCI layout (folder or tar), or what docker and podman save (a tar).

Read is what skopeo, podman, buildah, docker and ctr write (OCI image-spec, image-layout.md; Docker image spec 1.2,
"combined image JSON + filesystem changeset"). Where a tar is both, as ctr's and docker's are, it is taken for an OCI
layout, whose bytes have digests.

Rules of this file: nothing here is trusted before `core.transfer.pull` has compared it with its digest and size; a
document has one meaning or is refused (`core.transfer.manifests`); an image of a docker archive has no manifest, so
that one is made of its config and layers, always the same for the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from core.digest import Digest
from core.errors import Corrupt, Invalid, NotFound
from core.layers import Compression
from core.transfer import manifests, platform, reference
from core.transfer.manifests import MAX_DOCUMENT, MAX_ENTRIES, MAX_LAYERS, OCI_INDEX, OCI_MANIFEST, Ambiguous, Index
from core.transfer.members import Members, open_members, packing, whole
from core.transfer.platform import Platform
from core.transfer.ports import Descriptor
from core.transfer.reference import Reference
from core.values import dataclass

INDEX: Final = "index.json"
LAYOUT: Final = "oci-layout"
DOCKER: Final = "manifest.json"
REF_NAME: Final = "org.opencontainers.image.ref.name"
FULL_NAME: Final = "io.containerd.image.name"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_PACKED: Final = {Compression.NONE: "", Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}


@dataclass(frozen=True, slots=True)
class Saved:
    """An image of a docker archive: the names of its files in it."""

    config: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One image in an archive, with the names it has there; what it is: a descriptor, or files."""

    names: tuple[str, ...]
    what: Descriptor | Saved
    platform: Platform | None = None

    def __str__(self) -> str:
        named = ", ".join(self.names)
        what = f"{self.what.digest}" if isinstance(self.what, Descriptor) else self.what.config
        return named or f"(no name) {what}"


def entries(members: Members) -> tuple[Entry, ...]:
    """The images of an archive, in its order; raises `Invalid` when it is no archive of images, and as parsing does."""
    if members.has(INDEX) and members.has(LAYOUT):
        return _layout(whole(members, INDEX, MAX_DOCUMENT))
    if members.has(DOCKER):
        return _saved(whole(members, DOCKER, MAX_DOCUMENT))
    raise Invalid(
        f"it is no image archive: it has neither {LAYOUT} and {INDEX} nor {DOCKER}",
        advice="Give an OCI layout, or what `skopeo copy`, `podman save`, `docker save` or `ctr image export` writes.",
    )


def _layout(data: bytes) -> tuple[Entry, ...]:
    index = manifests.parse_document(data, OCI_INDEX)
    if not isinstance(index, Index):
        raise Ambiguous(f"{INDEX} is a manifest")
    annotated = [entry.get("annotations") or {} for entry in json.loads(data)["manifests"]]
    return tuple(
        Entry(_names(notes), descriptor, offered)
        for (descriptor, offered), notes in zip(index.entries, annotated, strict=True)
        if descriptor.media_type in (*manifests.MANIFESTS, *manifests.INDEXES)
    )


def _names(annotations: object) -> tuple[str, ...]:
    if not isinstance(annotations, dict):
        raise Invalid(f"annotations in {INDEX} are not an object")
    found = [annotations.get(name) for name in (FULL_NAME, REF_NAME)]
    return tuple(dict.fromkeys(name for name in found if isinstance(name, str) and name))


def _saved(data: bytes) -> tuple[Entry, ...]:
    document = manifests.load(data)
    if not isinstance(document, list) or len(document) > MAX_ENTRIES:
        raise Invalid(f"{DOCKER} is not a list of images")
    return tuple(_saved_entry(item) for item in document)


def _saved_entry(item: object) -> Entry:
    if not isinstance(item, dict):
        raise Invalid(f"an entry of {DOCKER} is not an object")
    config, layers, tags = (item.get(name) for name in ("Config", "Layers", "RepoTags"))
    layers = layers or []
    if not isinstance(config, str) or not _all_text(layers) or not _all_text(tags or []):
        raise Invalid(f"an entry of {DOCKER} has no Config, or Layers or RepoTags that are no lists of text")
    if len(layers) > MAX_LAYERS:
        raise Invalid(f"an image of the archive has {len(layers)} layers; at most {MAX_LAYERS} are allowed")
    return Entry(tuple(dict.fromkeys(tags or ())), Saved(config, tuple(layers)))


def _all_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def full_name(name: str) -> Reference | None:
    """The reference that a name in an archive is; None for a mere tag, or what is no reference."""
    if not {"/", ":", "@"}.isdisjoint(name):
        try:
            return reference.parse(name)
        except Invalid:
            return None
    return None


def choose_image(found: Sequence[Entry], wanted: Reference, node: Platform, archive: str) -> Entry:
    """The image whose digest or full reference is `wanted`'s, else whose tag is, else the only one.

    Of several of that name the one for platform `node`. Raises `NotFound` that lists what is there.
    """
    for matching in _matches(found, wanted):
        distinct = list({entry.what: entry for entry in matching}.values())
        if len(distinct) == 1:
            return distinct[0]
        for candidate in platform.acceptable(node) if distinct else ():
            serving = [entry for entry in distinct if entry.platform == candidate]
            if len(serving) == 1:
                return serving[0]
        if distinct:
            break
    there = "; ".join(map(str, found[:20])) or "nothing"
    raise NotFound(
        f"{archive} has no image that is {wanted} and no other; there is: {there}",
        advice="Write one of these names in spec.ref.",
    )


def _matches(found: Sequence[Entry], wanted: Reference) -> Iterator[list[Entry]]:
    if wanted.digest is not None:
        yield [one for one in found if isinstance(one.what, Descriptor) and one.what.digest == wanted.digest]
        return
    yield [one for one in found if any(full_name(name) == wanted for name in one.names)]
    yield [one for one in found if any(_tag(name) == wanted.tag for name in one.names)]
    # The only one; or one image for several platforms, of which an index without names tells no other way.
    yield list(found) if len({one.what for one in found}) == 1 or len({one.names for one in found}) == 1 else []


def _tag(name: str) -> str:
    full = full_name(name)
    return name if full is None else full.tag


@dataclass(slots=True)
class Archive:
    """A `Remote` over an archive; `scratch` is a folder for a packed one. Use it as a context."""

    path: Path
    wanted: Reference
    node: Platform
    scratch: Path
    _members: Members = field(init=False)
    _made: dict[Digest, bytes] = field(init=False, default_factory=dict)
    _files: dict[Digest, str] = field(init=False, default_factory=dict)

    def __enter__(self) -> Self:
        """Open it; raises as `open_members`."""
        self._members = open_members(self.path, self.scratch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._members.close()

    @property
    def image(self) -> str:
        """The image's name, and where it is looked for."""
        return f"{self.wanted} in {self.path}"

    @property
    def origin(self) -> str:
        """The archive's path."""
        return str(self.path)

    def resolve(self) -> Descriptor:
        """The image that is meant; raises `NotFound` that lists those there, and as parsing does."""
        chosen = choose_image(entries(self._members), self.wanted, self.node, str(self.path)).what
        return self._manifest(chosen) if isinstance(chosen, Saved) else chosen

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index; raises `NotFound`, `Invalid`."""
        if (made := self._made.get(descriptor.digest)) is not None:
            return made
        return b"".join(self.blob(descriptor))

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """A blob from byte `start` on, in pieces, at most size + 1 bytes of it; raises `NotFound`, `Corrupt`."""
        digest = descriptor.digest
        name = self._files.get(digest, f"blobs/{digest.algorithm}/{digest.hex}")
        if (size := self._members.size(name)) < descriptor.size:
            raise Corrupt(f"{name} in {self.path} has {size} bytes; its image says {descriptor.size}")
        return self._members.read(name, start, max(0, descriptor.size + 1 - start))

    def _manifest(self, saved: Saved) -> Descriptor:
        """Make the manifest that a docker archive does not have."""
        data = whole(self._members, saved.config, MAX_DOCUMENT)
        _, diff_ids = manifests.parse_config(data, len(saved.layers))
        config = Descriptor(OCI_CONFIG, Digest.of(data), len(data))
        self._files[config.digest] = saved.config
        layers = [self._layer(name, plain) for name, plain in zip(saved.layers, diff_ids, strict=True)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": as_json(config),
            "layers": [as_json(layer) for layer in layers],
        }
        made = json.dumps(manifest, separators=(",", ":")).encode()
        target = Descriptor(OCI_MANIFEST, Digest.of(made), len(made))
        self._made[target.digest] = made
        return target

    def _layer(self, name: str, plain: Digest) -> Descriptor:
        """A layer of a docker archive: mostly plain, so that its digest is the diff id; a packed one is hashed."""
        packed = packing(b"".join(self._members.read(name, 0, 8)))
        size = self._members.size(name)
        digest = plain
        if packed is not Compression.NONE:
            hasher = Digest.of(b"").hasher()
            for piece in self._members.read(name, 0, size):
                hasher.update(piece)
            digest = Digest("sha256", hasher.hexdigest())
        self._files[digest] = name
        return Descriptor(f"{OCI_LAYER}{_PACKED[packed]}", digest, size)


def as_json(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as manifests have it."""
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
