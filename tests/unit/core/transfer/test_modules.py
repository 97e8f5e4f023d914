"""Artifacts of WASM modules: what is one, for which platform it is, and what it must not be taken for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.clock import VirtualClock
from core.content.store import ContentStore
from core.digest import Digest, chain_id
from core.errors import Invalid, NotFound, Unsupported
from core.layers import Budgets, Compression
from core.transfer import platform
from core.transfer.manifests import MODULE_PATH, OCI_MANIFEST, parse_document, parse_module_config
from core.transfer.ports import Descriptor, PulledImage
from core.transfer.pull import pull
from tests.fakes.images import LAYER, MemoryRemote, described

MODULE = b"\0asm\x01\0\0\0"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
EMPTY = "application/vnd.oci.empty.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
WASI = platform.parse("wasi/wasm")


def manifest(config: dict[str, object], *layers: dict[str, object]) -> bytes:
    whole = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(whole).encode()


def artifact(config: bytes = b"{}", kind: str = EMPTY, layer: str = "application/wasm") -> MemoryRemote:
    document = manifest(described(config, kind), described(MODULE, layer))
    blobs = {Digest.of(data): data for data in (document, config, MODULE)}
    return MemoryRemote(Descriptor(OCI_MANIFEST, Digest.of(document), len(document)), blobs)


class Sink:
    """An unpacker of one module, which remembers."""

    def __init__(self) -> None:
        self.name = self.path = ""
        self.got = b""

    def begin(self, diff_ids: Sequence[Digest], sizes: Sequence[int], budgets: Budgets) -> "Sink":
        raise AssertionError("a module is no file system")

    def module(self, name: Digest, path: str) -> "Sink":
        self.name, self.path = str(name), path
        return self

    def missing(self) -> Sequence[int]:
        return [0]

    def ready(self, index: int, blob: Path, compression: Compression) -> None:
        assert compression is Compression.NONE
        self.got = blob.read_bytes()

    def applied(self) -> int:
        return 0

    def finish(self) -> str:
        return self.name

    def abort(self) -> None:
        raise AssertionError("nothing went wrong")


def run(folder: Path, remote: MemoryRemote, wanted: platform.Platform = WASI, sink: Sink | None = None) -> PulledImage:
    with ContentStore(folder).span() as span:
        return pull(remote, wanted, span=span, clock=VirtualClock(), unpacker=sink)


@pytest.mark.parametrize("layer", ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"])
@pytest.mark.parametrize("kind", [WASM_CONFIG, EMPTY])
def test_an_artifact_of_one_module_is_an_image_for_wasi(tmp_path: Path, kind: str, layer: str) -> None:
    sink = Sink()
    pulled = run(tmp_path, artifact(kind=kind, layer=layer), sink=sink)
    assert sink.got == MODULE
    assert sink.path == MODULE_PATH
    assert pulled.platform == "wasi/wasm"
    assert pulled.config.entrypoint == (MODULE_PATH,)
    assert pulled.chain == sink.name


def test_a_module_is_never_named_like_a_layer_of_the_same_bytes(tmp_path: Path) -> None:
    sink = Sink()
    run(tmp_path, artifact(), sink=sink)
    assert sink.name != str(chain_id(None, Digest.of(MODULE)))


def test_a_module_is_not_for_a_node_of_processes(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="wasi/wasm"):
        run(tmp_path, artifact(), platform.parse("linux/amd64"))


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (EMPTY, ["application/wasm", "application/wasm"]),
        (EMPTY, ["application/wasm", LAYER]),
        (IMAGE_CONFIG, ["application/wasm"]),
        (WASM_CONFIG, [LAYER]),
        (EMPTY, [LAYER]),
        ("application/vnd.cncf.helm.config.v1+json", ["application/wasm"]),
    ],
)
def test_what_is_neither_a_module_nor_a_file_system_is_refused(config: str, layers: list[str]) -> None:
    document = manifest(described(b"{}", config), *(described(MODULE, layer) for layer in layers))
    with pytest.raises(Unsupported):
        parse_document(document, OCI_MANIFEST)


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "amd64"},
        {"architecture": ["wasm"]},
        {"layerDigests": [f"sha256:{'b' * 64}"]},
        {"layerDigests": "sha256"},
        [],
    ],
)
def test_a_config_that_contradicts_its_module_is_refused(config: Any) -> None:
    with pytest.raises(Invalid):
        parse_module_config(json.dumps(config).encode(), Digest.of(MODULE))


def test_a_config_may_name_its_module() -> None:
    digest = Digest.of(MODULE)
    config, (name,) = parse_module_config(json.dumps({"os": "wasip1", "layerDigests": [str(digest)]}).encode(), digest)
    assert (config.os, config.architecture) == ("wasi", "wasm")
    assert name != digest


def test_every_name_of_wasi_serves_every_other() -> None:
    for name in ("wasi", "wasip1", "wasip2"):
        found = platform.acceptable(platform.parse(f"{name}/wasm"))
        assert str(found[0]) == f"{name}/wasm"
        assert {one.os for one in found} == {"wasi", "wasip1", "wasip2"}
