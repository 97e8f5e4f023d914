"""Manifests, indexes and image configs, parsed once and strictly (OCI image-spec; Docker image manifest v2, schema 2).

Rules of this file: pure, bytes in and values out. One document has one meaning or it is refused: no key twice, keys in
their exact case, one shape, and the same media type in the body, the header and the descriptor that led here
(CVE-2021-41190). Digests are checked by grammar before anyone can make a path or URL of them (CVE-2024-3727). Of an
image's config only the fields of `ImageConfig` go on.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from core.digest import Digest
from core.errors import AgentError, Invalid, OverLimit, Unsupported
from core.layers import Compression
from core.transfer.platform import Platform, normalised
from core.transfer.ports import Descriptor, ImageConfig
from core.values import dataclass

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES: Final = (OCI_INDEX, DOCKER_LIST)

MAX_DOCUMENT: Final = 4 << 20
"""Bytes of one manifest, index or config: what registries accept too."""
MAX_DEPTH: Final = 8
"""Indexes inside indexes."""
MAX_LAYERS: Final = 512
MAX_ENTRIES: Final = 4096
_MAX_ID: Final = 2**31 - 1
_MAX_SIZE: Final = 2**63 - 1

_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1"
_CONFIGS: Final = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_OCI_LAYER: Final = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?P<packed>\+gzip|\+zstd)?"
)
_DOCKER_LAYER: Final = re.compile(
    r"application/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?P<packed>\.gzip|\.zstd)?"
)
MODULE_LAYERS: Final = frozenset({"application/wasm", "application/vnd.wasm.content.layer.v1+wasm"})
_MODULE_CONFIGS: Final = frozenset(
    {f"application/vnd.wasm.config.v{version}+json" for version in (0, 1)} | {"application/vnd.oci.empty.v1+json"}
)
MODULE_PATH: Final = "/main.wasm"
"""Where the one layer of a module's artifact appears as a file."""
_PACKED: Final = {"": Compression.NONE, "gzip": Compression.GZIP, "zstd": Compression.ZSTD}
_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")
_MANIFEST_KEYS: Final = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}
    | {"fsLayers", "signatures"}
)
_DESCRIPTOR_KEYS: Final = frozenset({"mediaType", "digest", "size", "urls", "platform", "data", "annotations"})
_PLATFORM_KEYS: Final = frozenset({"os", "architecture", "variant"})
_CONFIG_KEYS: Final = frozenset({"os", "architecture", "variant", "config", "rootfs"})
_RUN_KEYS: Final = frozenset({"Env", "Entrypoint", "Cmd", "User", "WorkingDir", "Volumes", "StopSignal"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers, base first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def is_module(self) -> bool:
        """Whether it is an artifact of one WASM module (CNCF, "Wasm OCI artifact"), not a file system."""
        return any(layer.media_type in MODULE_LAYERS for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """Images for several platforms: each entry with its platform, None where it names none."""

    media_type: str
    entries: tuple[tuple[Descriptor, Platform | None], ...]


class Ambiguous(Invalid):
    """A document that two readers could read as two things."""

    def hint(self) -> str:
        """Say that nothing here mends it."""
        return self.advice or "Build and push the image again with a current tool; this document is not safe to read."


def parse_document(data: bytes, declared: str) -> Manifest | Index:
    """Read a manifest or an index that a header or descriptor declared as media type `declared` ("" when it said none).

    Raises `Ambiguous`, `Invalid`, `OverLimit`, `Unsupported`.
    """
    declared = declared.partition(";")[0].strip().lower()
    if declared.startswith(_SCHEMA1):
        raise _schema1()
    document = _object(load(data), "the manifest", _MANIFEST_KEYS)
    if document.get("schemaVersion") == 1 or "fsLayers" in document or "signatures" in document:
        raise _schema1()
    if document.get("schemaVersion") != 2:
        raise Invalid(f"the manifest's schemaVersion is {document.get('schemaVersion')!r}; it must be 2")
    media_type = _media_type(document, declared)
    if media_type in INDEXES:
        return _index(document, media_type)
    return _manifest(document, media_type)


def _schema1() -> AgentError:
    return Unsupported(
        "the image is in Docker's schema 1, whose history nobody can verify",
        advice="Push it again with a tool from after 2016 (docker, buildah, skopeo), which write schema 2 or OCI.",
    )


def _media_type(document: Mapping[str, Any], declared: str) -> str:
    """The one type that body, header and shape agree on. OCI lets the body leave it out; then the header decides."""
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index == is_manifest:
        raise Ambiguous("the document is both an index and a manifest, or neither")
    shape = INDEXES if is_index else MANIFESTS
    stated = document.get("mediaType", "")
    if not isinstance(stated, str):
        raise Invalid("the manifest's mediaType is not a string")
    named = stated or declared
    if named not in shape or (declared in (*MANIFESTS, *INDEXES) and declared != named):
        raise Ambiguous(
            f"the document looks like an image {'index' if is_index else 'manifest'}, calls itself "
            f"{stated[:100]!r} and was declared as {declared[:100]!r}"
        )
    if not stated and named not in (OCI_MANIFEST, OCI_INDEX):
        raise Ambiguous("a Docker manifest must name its mediaType")
    return named


def _manifest(document: Mapping[str, Any], media_type: str) -> Manifest:
    config = _descriptor(document.get("config"), "config")
    layers = _list(document.get("layers"), "layers", MAX_LAYERS)
    found = tuple(_descriptor(layer, f"layers[{number}]") for number, layer in enumerate(layers))
    made = Manifest(media_type, config, found)
    if made.is_module and config.media_type in _MODULE_CONFIGS and len(found) == 1:
        return made
    if config.media_type not in _CONFIGS:
        raise Unsupported(
            f"the config is of type {config.media_type[:100]!r}: this is an artifact, not a container image",
            advice="Name the image itself in spec.ref, not its chart, signature or attestation.",
        )
    if config.size > MAX_DOCUMENT:
        raise OverLimit(f"the image config has {config.size} bytes; at most {MAX_DOCUMENT} are read")
    for layer in found:
        compression(layer.media_type)
    return made


def _index(document: Mapping[str, Any], media_type: str) -> Index:
    entries = _list(document.get("manifests"), "manifests", MAX_ENTRIES)
    return Index(media_type, tuple(_entry(entry, f"manifests[{number}]") for number, entry in enumerate(entries)))


def _entry(value: object, where: str) -> tuple[Descriptor, Platform | None]:
    descriptor = _descriptor(value, where)
    stated = value.get("platform") if isinstance(value, dict) else None
    return descriptor, None if stated is None else _platform(stated, f"{where}.platform")


def _platform(value: object, where: str) -> Platform:
    fields = _object(value, where, _PLATFORM_KEYS)
    words = [_text(fields.get(name, ""), f"{where}.{name}") for name in ("os", "architecture", "variant")]
    return normalised(*words)


def compression(media_type: str) -> Compression:
    """How a layer of `media_type` is packed; raises `Unsupported` for what is no file system layer, or is encrypted."""
    found = _OCI_LAYER.fullmatch(media_type) or _DOCKER_LAYER.fullmatch(media_type)
    if found is not None:
        return _PACKED[(found["packed"] or "")[1:]]
    if media_type.endswith("+encrypted"):
        raise Unsupported("the image's layers are encrypted", advice="Push a plain image; keys are not handled here.")
    raise Unsupported(f"a layer is of type {media_type[:100]!r}, which is no file system layer")


def packed(media_type: str) -> Compression:
    """`compression`, and that a module's layer is not packed."""
    return Compression.NONE if media_type in MODULE_LAYERS else compression(media_type)


def parse_config(data: bytes, layers: int) -> tuple[ImageConfig, tuple[Digest, ...]]:
    """Read an image's config: how it is run, and the digests of its `layers` uncompressed layers, base first.

    Raises `Invalid`, `OverLimit`.
    """
    document = _object(load(data), "the image config", _CONFIG_KEYS)
    rootfs = _object(document.get("rootfs"), "rootfs", frozenset({"type", "diff_ids"}))
    if rootfs.get("type") != "layers":
        raise Invalid(f"rootfs.type is {str(rootfs.get('type'))[:40]!r}; it must be 'layers'")
    stated = _list(rootfs.get("diff_ids"), "rootfs.diff_ids", MAX_LAYERS)
    if len(stated) != layers:
        raise Invalid(f"the manifest has {layers} layers, the image config {len(stated)} diff_ids")
    run = _object(document.get("config") or {}, "config", _RUN_KEYS)
    seen = _platform({name: document.get(name) or "" for name in _PLATFORM_KEYS}, "the image config")
    volumes = run.get("Volumes") or {}
    if not isinstance(volumes, dict):
        raise Invalid("config.Volumes is not an object")
    config = ImageConfig(
        env=_texts(run.get("Env"), "config.Env"),
        entrypoint=_texts(run.get("Entrypoint"), "config.Entrypoint"),
        cmd=_texts(run.get("Cmd"), "config.Cmd"),
        user=parse_user(_text(run.get("User") or "", "config.User")),
        working_dir=_working_dir(_text(run.get("WorkingDir") or "", "config.WorkingDir")),
        # An image has no say over the kernel's own file systems: a volume there is left out.
        volumes=tuple(path for path in sorted(map(_inside, volumes)) if not _of_the_kernel(path)),
        stop_signal=_text(run.get("StopSignal") or "", "config.StopSignal"),
        os=seen.os,
        architecture=seen.architecture,
        variant=seen.variant,
    )
    return config, tuple(Digest.parse(text) for text in stated)


def parse_module_config(data: bytes, layer: Digest) -> tuple[ImageConfig, tuple[Digest, ...]]:
    """Read the config of a module's artifact, which may be empty, as `parse_config` does; `layer` is the module.

    Its digest here is not the module's own: a snapshot of a file must never have the name of one of a file system.
    Raises `Invalid`, `OverLimit`.
    """
    document = _object(load(data), "the module's config", frozenset({"os", "architecture", "layerDigests"}))
    if (architecture := document.get("architecture", "wasm")) != "wasm":
        raise Invalid(f"the module's config is for {str(architecture)[:40]!r}; it must be for 'wasm'")
    stated = document.get("layerDigests") or [str(layer)]
    if stated != [str(layer)]:
        raise Invalid("the module's config names other layers than its manifest")
    config = ImageConfig(entrypoint=(MODULE_PATH,), os="wasi", architecture="wasm")
    return config, (Digest.of(f"application/wasm {layer}".encode()),)


def parse_user(text: str) -> str:
    """Check `user[:group]`: a number must fit an id; wrapped round it could become 0 (CVE-2024-40635)."""
    parts = text.split(":")
    if len(parts) > 2:
        raise Invalid(f"user {text[:60]!r} has more than one ':'")
    for part in parts:
        number = re.fullmatch(r"\s*([+-]?)([0-9]+)\s*", part)
        if number and (number[1] or len(number[2]) > 10 or int(number[2]) > _MAX_ID):
            raise Invalid(f"user {text[:60]!r} is not an id", advice=f"Ids go from 0 to {_MAX_ID}.")
    return text


def _inside(path: str) -> str:
    """`path` as it lies below the image's root."""
    return posixpath.normpath("/" + _text(path, "a path in the image config").lstrip("/"))


def _of_the_kernel(path: str) -> bool:
    return path.split("/")[1] in ("proc", "sys")


def _working_dir(text: str) -> str:
    """The folder to start in; one in /proc or /sys is a way out of the container (CVE-2024-21626)."""
    if not text:
        return ""
    path = _inside(text)
    if _of_the_kernel(path):
        raise Invalid(f"the image's WorkingDir is {text[:100]!r}", advice="Build the image with a folder of its own.")
    return path


def _descriptor(value: object, where: str) -> Descriptor:
    fields = _object(value, where, _DESCRIPTOR_KEYS)
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise Invalid(f"{where}.size is {str(size)[:40]!r}; it must be a number of bytes")
    media_type = _text(fields.get("mediaType"), f"{where}.mediaType")
    return Descriptor(media_type, Digest.parse(fields.get("digest")), size)


def load(data: bytes) -> object:
    """The JSON in `data`, no key twice; raises `Invalid`, `OverLimit`, `Ambiguous`."""
    if len(data) > MAX_DOCUMENT:
        raise OverLimit(f"the document has {len(data)} bytes; at most {MAX_DOCUMENT} are read")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError:
        raise OverLimit("the document is nested too deep") from None
    except ValueError as error:
        raise Invalid(f"the document is not JSON: {error}") from error


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Ambiguous("the document names a key twice")
    return found


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _object(value: object, where: str, keys: Collection[str]) -> dict[str, Any]:
    """An object whose keys are `keys` in their exact case, and others that are not read."""
    if not isinstance(value, dict):
        raise Invalid(f"{where} is not an object")
    folded = {key.casefold(): key for key in keys}
    for key in value:
        if key not in keys and (meant := folded.get(key.casefold())) is not None:
            raise Ambiguous(f"{where} has a key {key!r} that some read as {meant!r}")
    return value


def _list(value: object, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(f"{where} is not a list")
    if len(value) > most:
        raise OverLimit(f"{where} has {len(value)} entries; at most {most} are allowed")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or _UNUSABLE.search(value):
        raise Invalid(f"{where} is not a string, or has a NUL or half a character in it")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Invalid(f"{where} is not a list")
    return tuple(_text(item, where) for item in value)
