"""Hostile manifests, indexes and configs: one meaning, or refused."""

import json
from typing import Any

import pytest

from core.digest import Digest
from core.errors import Invalid, OverLimit, Unsupported
from core.layers import Compression
from core.transfer.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_DOCUMENT,
    OCI_INDEX,
    OCI_MANIFEST,
    Ambiguous,
    Index,
    Manifest,
    compression,
    parse_config,
    parse_document,
)

HEX = "a" * 64
CONFIG: dict[str, Any] = {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": f"sha256:{HEX}",
    "size": 10,
}
LAYER: dict[str, Any] = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": f"sha256:{HEX}",
    "size": 10,
}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [{"mediaType": OCI_MANIFEST, "digest": f"sha256:{HEX}", "size": 3}],
}


def read(document: object, declared: str = OCI_MANIFEST) -> Manifest | Index:
    return parse_document(json.dumps(document).encode(), declared)


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


def test_a_manifest_is_its_config_and_layers() -> None:
    found = read(MANIFEST)
    assert isinstance(found, Manifest)
    assert found.layers[0].digest == Digest("sha256", HEX)
    assert found.layers[0].size == 10


def test_an_index_is_its_entries_with_their_platforms() -> None:
    entry = INDEX["manifests"][0] | {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    found = read(INDEX | {"manifests": [entry]}, OCI_INDEX)
    assert isinstance(found, Index)
    assert [str(platform) for _, platform in found.entries] == ["linux/arm64"]


@pytest.mark.parametrize("both", [{"manifests": []}, {"manifests": INDEX["manifests"]}])
def test_a_document_with_manifests_and_layers_is_refused(both: dict[str, Any]) -> None:
    with pytest.raises(Ambiguous):
        read(MANIFEST | both)


def test_a_document_with_config_and_manifests_is_refused() -> None:
    with pytest.raises(Ambiguous):
        read(INDEX | {"config": CONFIG}, OCI_INDEX)


@pytest.mark.parametrize(
    ("document", "declared"),
    [
        (MANIFEST, DOCKER_MANIFEST),
        (MANIFEST, OCI_INDEX),
        (INDEX, OCI_MANIFEST),
        (INDEX | {"mediaType": OCI_MANIFEST}, OCI_MANIFEST),
        (INDEX | {"mediaType": DOCKER_LIST}, OCI_INDEX),
    ],
)
def test_a_media_type_that_differs_from_the_one_declared_is_refused(document: dict[str, Any], declared: str) -> None:
    with pytest.raises(Ambiguous):
        read(document, declared)


@pytest.mark.parametrize("declared", ["", "application/json", DOCKER_MANIFEST, OCI_INDEX])
def test_a_document_without_a_media_type_needs_an_oci_header_of_its_shape(declared: str) -> None:
    with pytest.raises(Ambiguous):
        read(without(MANIFEST, "mediaType"), declared)
    assert isinstance(read(without(MANIFEST, "mediaType"), OCI_MANIFEST + "; charset=utf-8"), Manifest)


def test_a_key_given_twice_is_refused() -> None:
    text = json.dumps(MANIFEST)
    with pytest.raises(Ambiguous, match="twice"):
        parse_document(f'{text[:-1]}, "layers": []}}'.encode(), OCI_MANIFEST)


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "layer\u017f"])
def test_a_key_that_others_read_as_ours_is_refused(key: str) -> None:
    with pytest.raises(Ambiguous):
        read(MANIFEST | {key: []})
    with pytest.raises(Ambiguous):
        read(MANIFEST | {"layers": [LAYER | {"Digest": "x"}]})


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../etc/x",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[1:]}",
        f"sha256:{HEX}\n",
        "sha1:" + "a" * 40,
        "md5:" + "a" * 32,
        HEX,
        "",
        None,
        7,
    ],
)
def test_a_digest_is_refused_by_grammar(digest: object) -> None:
    with pytest.raises(Invalid):
        read(MANIFEST | {"layers": [LAYER | {"digest": digest}]})


def test_a_sha512_digest_is_fine() -> None:
    assert isinstance(read(MANIFEST | {"layers": [LAYER | {"digest": "sha512:" + "a" * 128}]}), Manifest)


@pytest.mark.parametrize("size", [-1, 1.5, "10", None, True, 2**63])
def test_a_size_that_is_no_number_of_bytes_is_refused(size: object) -> None:
    with pytest.raises(Invalid):
        read(MANIFEST | {"layers": [LAYER | {"size": size}]})


def test_too_many_layers_are_refused() -> None:
    assert isinstance(read(MANIFEST | {"layers": [LAYER] * 512}), Manifest)
    with pytest.raises(OverLimit):
        read(MANIFEST | {"layers": [LAYER] * 513})


def test_an_index_of_a_hundred_thousand_is_refused() -> None:
    entry = {"mediaType": "x", "digest": "x", "size": 0}
    with pytest.raises(OverLimit):
        parse_document(json.dumps(INDEX | {"manifests": [entry] * 80_000}).encode(), OCI_INDEX)


def test_a_document_over_four_mebibytes_is_refused_unread() -> None:
    with pytest.raises(OverLimit):
        parse_document(b" " * (MAX_DOCUMENT + 1), OCI_MANIFEST)


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (b'{"schemaVersion":1,"fsLayers":[],"history":[]}', "application/json"),
        (json.dumps(MANIFEST | {"fsLayers": []}).encode(), OCI_MANIFEST),
    ],
)
def test_schema_1_is_refused_for_its_own_reason(data: bytes, declared: str) -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        parse_document(data, declared)


@pytest.mark.parametrize("version", [None, 1.5, "2", 3])
def test_another_schema_version_is_refused(version: object) -> None:
    with pytest.raises(Invalid):
        read(MANIFEST | {"schemaVersion": version})


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"size": NaN}', b"9" * 5000],
    ids=range(9),
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises((Invalid, OverLimit)):
        parse_document(data, OCI_MANIFEST)


def test_the_urls_of_a_foreign_layer_are_not_read() -> None:
    found = read(MANIFEST | {"layers": [LAYER | {"urls": ["http://127.0.0.1:1/x"]}]})
    assert "127.0.0.1" not in repr(found)


def test_an_artifact_is_no_image() -> None:
    with pytest.raises(Unsupported, match="artifact"):
        read(MANIFEST | {"config": CONFIG | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}})


@pytest.mark.parametrize(
    ("media_type", "packed"),
    [
        ("application/vnd.oci.image.layer.v1.tar", Compression.NONE),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Compression.GZIP),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Compression.ZSTD),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Compression.GZIP),
        ("application/vnd.docker.image.rootfs.diff.tar", Compression.NONE),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression.GZIP),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Compression.GZIP),
    ],
)
def test_the_media_type_alone_says_how_a_layer_is_packed(media_type: str, packed: Compression) -> None:
    assert compression(media_type) is packed


@pytest.mark.parametrize(
    "media_type", ["", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/plain", "application/x-tar"]
)
def test_other_layers_are_not_supported(media_type: str) -> None:
    with pytest.raises(Unsupported):
        compression(media_type)


def config(**run: object) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{HEX}"]}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": run}).encode()


def test_of_a_config_only_the_fixed_list_goes_on() -> None:
    data = config(
        Env=["A=b"],
        Cmd=["/bin/sh"],
        Entrypoint=None,
        User="www:www",
        WorkingDir="/srv",
        Volumes={"/data": {}},
        StopSignal="SIGQUIT",
        Labels={"io.kubernetes.cri.x": "host", "cdi.k8s.io/x": "vendor.com/gpu=all"},
    )
    found, diff_ids = parse_config(data, 1)
    assert found.env == ("A=b",)
    assert found.volumes == ("/data",)
    assert "host" not in repr(found)
    assert "gpu" not in repr(found)
    assert diff_ids == (Digest("sha256", HEX),)


def test_a_config_with_another_number_of_layers_is_refused() -> None:
    with pytest.raises(Invalid, match="diff_ids"):
        parse_config(config(), 2)


@pytest.mark.parametrize(
    "user", ["4294967296:0", "2147483648", "0:2147483648", "-1", "+0", " 4294967296 ", "9" * 5000, "1:2:3"]
)
def test_a_user_that_would_overflow_to_root_is_refused(user: str) -> None:
    with pytest.raises(Invalid):
        parse_config(config(User=user), 1)


@pytest.mark.parametrize("user", ["", "0", "2147483647:2147483647", "www", "www:staff", "1000:www"])
def test_an_ordinary_user_is_fine(user: str) -> None:
    assert parse_config(config(User=user), 1)[0].user == user


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/8", "proc/self/fd/8", "//proc/1", "/a/../proc", "/sys", "/proc", "/./sys/fs"]
)
def test_a_working_dir_of_the_kernel_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        parse_config(config(WorkingDir=path), 1)


def test_a_working_dir_is_absolute_and_short() -> None:
    assert parse_config(config(WorkingDir="app//x/../y/"), 1)[0].working_dir == "/app/y"
    assert parse_config(config(WorkingDir="/procedures"), 1)[0].working_dir == "/procedures"


def test_a_volume_over_the_kernels_file_systems_is_left_out() -> None:
    assert parse_config(config(Volumes={"/proc": {}, "/sys/fs/cgroup": {}, "/data": {}}), 1)[0].volumes == ("/data",)


@pytest.mark.parametrize(
    "run",
    [
        {"Env": "A=b"},
        {"Env": [1]},
        {"Cmd": ["a\0b"]},
        {"Cmd": ["\ud800"]},
        {"User": 0.5},
        {"Volumes": ["/x"]},
        {"WORKINGDIR": "/x"},
    ],
)
def test_a_config_of_the_wrong_shape_is_refused(run: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        parse_config(config(**run), 1)
