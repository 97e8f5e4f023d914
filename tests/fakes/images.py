"""Images made of nothing but bytes, and an origin that gives them out of memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from core.digest import Digest
from core.errors import NotFound
from core.transfer import manifests
from core.transfer.ports import Descriptor

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def described(data: bytes, media_type: str, **more: object) -> dict[str, object]:
    """The JSON descriptor of `data`."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


@dataclass(slots=True)
class Image:
    """A one-platform OCI image of `layers`, as the blobs it consists of."""

    layers: list[bytes]
    architecture: str = "amd64"
    run: dict[str, object] = field(default_factory=dict)
    config: bytes = b""
    manifest: bytes = b""

    def __post_init__(self) -> None:
        rootfs = {"type": "layers", "diff_ids": [str(Digest.of(b"plain" + layer)) for layer in self.layers]}
        document = {"os": "linux", "architecture": self.architecture, "rootfs": rootfs, "config": self.run}
        self.config = json.dumps(document).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": manifests.OCI_MANIFEST,
                "config": described(self.config, CONFIG),
                "layers": [described(layer, LAYER) for layer in self.layers],
            }
        ).encode()

    def blobs(self) -> dict[Digest, bytes]:
        """Everything but an index, by digest."""
        return {Digest.of(data): data for data in (self.manifest, self.config, *self.layers)}

    def target(self) -> Descriptor:
        """The manifest's descriptor."""
        return Descriptor(manifests.OCI_MANIFEST, Digest.of(self.manifest), len(self.manifest))


def index_of(*entries: dict[str, object]) -> bytes:
    """An OCI index of descriptors."""
    document = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


@dataclass(slots=True)
class MemoryRemote:
    """A `Remote` out of memory. `before_blob` is called with each blob asked for: it may raise, wait or count."""

    target: Descriptor
    blobs: dict[Digest, bytes]
    before_blob: Callable[[Digest], None] = lambda digest: None
    image: str = "example.org/app:1"
    origin: str = "example.org"
    asked: list[Digest] = field(default_factory=list)

    def resolve(self) -> Descriptor:
        """The target."""
        return self.target

    def document(self, descriptor: Descriptor) -> bytes:
        """The bytes kept under that digest."""
        return self._get(descriptor.digest)

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """The bytes kept under that digest, in pieces of 7."""
        self.before_blob(descriptor.digest)
        data = self._get(descriptor.digest)[start:]
        return (data[start : start + 7] for start in range(0, len(data), 7))

    def _get(self, digest: Digest) -> bytes:
        self.asked.append(digest)
        if digest not in self.blobs:
            raise NotFound(f"{digest} is not there")
        return self.blobs[digest]
