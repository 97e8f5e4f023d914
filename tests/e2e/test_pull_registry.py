"""Pulling from Debian's docker-registry, of images that skopeo pushed."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.content.ingest import WrongBytes
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Denied, NotFound, Unavailable
from core.transfer import manifests, platform, reference
from core.transfer.auth import Credentials
from core.transfer.ports import PulledImage
from core.transfer.pull import Held, pull
from core.transfer.registry import Registry
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.images import Image, described, index_of
from tests.registry import Registry as Server
from tests.registry import missing_tools

AMD64 = platform.parse("linux/amd64")
IMAGE = Image([os.urandom(3_000_000), os.urandom(200_000), b"small"], run={"Cmd": ["/bin/sh"], "User": "1000"})
ARM = Image([os.urandom(1000)], architecture="arm64")
LOGIN = ("somebody", "a secret")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("registry")) as server:
        push(server, IMAGE, "oci:1", "--preserve-digests")
        push(server, IMAGE, "schema2:1", "--format=v2s2")
        push_index(server, "both:1")
        yield server


@contextlib.contextmanager
def started(folder: Path, login: tuple[str, str] | None = None) -> Iterator[Server]:
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    server = Server(folder, login).start()
    try:
        yield server
    finally:
        server.stop()


def layout(folder: Path, top: bytes, media_type: str, blobs: dict[Digest, bytes]) -> Path:
    """An OCI layout whose tag `latest` is `top`."""
    (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    for digest, data in (blobs | {Digest.of(top): top}).items():
        (folder / "blobs/sha256" / digest.hex).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    named = described(top, media_type, annotations={"org.opencontainers.image.ref.name": "latest"})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return folder


def push(server: Server, image: Image, name: str, *options: str) -> None:
    source = layout(server.folder / name.replace(":", "-"), image.manifest, manifests.OCI_MANIFEST, image.blobs())
    copy(server, source, name, *options)


def push_index(server: Server, name: str) -> None:
    entries = [
        described(image.manifest, manifests.OCI_MANIFEST, platform={"os": "linux", "architecture": image.architecture})
        for image in (IMAGE, ARM)
    ]
    source = server.folder / "index"
    layout(source, index_of(*entries), manifests.OCI_INDEX, IMAGE.blobs() | ARM.blobs())
    copy(server, source, name, "--all", "--preserve-digests")


def copy(server: Server, source: Path, name: str, *options: str) -> None:
    creds = ["--dest-creds", ":".join(server.login)] if server.login else []
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *creds, *options]
    subprocess.run([*command, f"oci:{source}:latest", f"docker://{server.host}/{name}"], check=True)


def fetch(
    folder: Path,
    server: Server,
    name: str,
    login: tuple[str, str] | None = None,
    wanted: platform.Platform = AMD64,
) -> PulledImage:
    clock = SystemClock()
    remote = Registry(reference.parse(f"{server.host}/{name}"), Credentials(*login) if login else None, clock)
    with ContentStore(folder).span() as span, remote:
        return pull(remote, wanted, span=span, clock=clock)


@pytest.mark.parametrize(
    ("name", "media_type"), [("oci:1", manifests.OCI_MANIFEST), ("schema2:1", manifests.DOCKER_MANIFEST)]
)
def test_an_image_is_pulled_whole(tmp_path: Path, server: Server, name: str, media_type: str) -> None:
    pulled = fetch(tmp_path, server, name)
    store = ContentStore(tmp_path)
    assert pulled.target.media_type == media_type
    assert str(pulled.target.digest) == server.digest(name)
    assert [store.read(layer.digest, 10_000_000) for layer in pulled.layers] == IMAGE.layers
    assert (pulled.config.cmd, pulled.config.user, pulled.platform) == (("/bin/sh",), "1000", "linux/amd64")
    assert pulled.pulled_from == server.host
    assert set(store.walk()) == set(pulled.blobs)


def test_a_second_pull_fetches_nothing(tmp_path: Path, server: Server) -> None:
    first = fetch(tmp_path, server, "oci:1")
    again = fetch(tmp_path, server, "oci:1")
    assert first.bytes_fetched == sum(map(len, IMAGE.blobs().values()))
    assert again.bytes_fetched == 0
    assert again.blobs == first.blobs


def test_another_image_with_the_same_layers_fetches_only_what_differs(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, server, "oci:1")
    assert fetch(tmp_path, server, "schema2:1").bytes_fetched < 10_000


@pytest.mark.parametrize(("wanted", "image"), [("linux/amd64", IMAGE), ("linux/arm64/v8", ARM)])
def test_of_an_index_the_wanted_platform_is_pulled(tmp_path: Path, server: Server, wanted: str, image: Image) -> None:
    pulled = fetch(tmp_path, server, "both:1", wanted=platform.parse(wanted))
    assert pulled.manifest.digest == image.target().digest
    assert pulled.target.media_type == manifests.OCI_INDEX
    assert set(ContentStore(tmp_path).walk()) == {pulled.target.digest, *image.blobs()}


def test_a_platform_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, server: Server) -> None:
    with pytest.raises(NotFound, match="linux/amd64, linux/arm64"):
        fetch(tmp_path, server, "both:1", wanted=platform.parse("linux/riscv64"))


def test_a_digest_is_pulled_without_a_tag(tmp_path: Path, server: Server) -> None:
    digest = IMAGE.target().digest
    assert fetch(tmp_path, server, f"oci@{digest}").target == IMAGE.target()


def test_a_missing_tag_is_told_with_those_that_are_there(tmp_path: Path, server: Server) -> None:
    with pytest.raises(NotFound, match="no tag 'nope'") as caught:
        fetch(tmp_path, server, "oci:nope")
    assert caught.value.hint() == "Tags there: 1."
    with pytest.raises(NotFound, match="is not in the registry"):
        fetch(tmp_path, server, "nothing:1")


def test_a_registry_that_is_down_is_unavailable_and_the_image_is_still_held(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with started(tmp_path_factory.mktemp("registry")) as server:
        push(server, ARM, "arm:1", "--preserve-digests")
        pulled = fetch(tmp_path, server, "arm:1", wanted=platform.parse("linux/arm64"))
    with pytest.raises(Unavailable, match="refused"):
        fetch(tmp_path, server, "arm:1")
    with ContentStore(tmp_path).span() as span:
        offline = Held(pulled.target, "arm:1", pulled.pulled_from)
        again = pull(offline, platform.parse("linux/arm64"), span=span, clock=SystemClock())
    assert (again.blobs, again.config) == (pulled.blobs, pulled.config)


def test_a_flipped_byte_in_the_registry_is_never_published(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with started(tmp_path_factory.mktemp("registry")) as server:
        push(server, IMAGE, "app:1", "--preserve-digests")
        victim = Digest.of(IMAGE.layers[1])
        blob = server.storage / f"docker/registry/v2/blobs/sha256/{victim.hex[:2]}/{victim.hex}/data"
        data = bytearray(blob.read_bytes())
        data[1000] ^= 1
        blob.write_bytes(data)
        with pytest.raises(WrongBytes, match=victim.hex):
            fetch(tmp_path, server, "app:1")
        assert victim not in set(ContentStore(tmp_path).walk())
        data[1000] ^= 1
        blob.write_bytes(data)
        assert fetch(tmp_path, server, "app:1").bytes_fetched >= len(IMAGE.layers[1])


def test_a_registry_with_a_login_denies_wrong_ones_and_serves_the_right_one(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with started(tmp_path_factory.mktemp("registry"), LOGIN) as server:
        push(server, ARM, "app:1", "--preserve-digests")
        wanted = platform.parse("linux/arm64")
        with pytest.raises(Denied) as anonymous:
            fetch(tmp_path, server, "app:1", wanted=wanted)
        assert "Set spec.credentials" in anonymous.value.hint()
        with pytest.raises(Denied) as wrong:
            fetch(tmp_path, server, "app:1", (LOGIN[0], "wrong"), wanted)
        assert "check the Secret" in wrong.value.hint()
        assert "wrong" not in str(wrong.value)
        assert fetch(tmp_path, server, "app:1", LOGIN, wanted).target == ARM.target()


def test_a_link_that_resets_every_3_mib_brings_the_image_with_at_most_a_tenth_more(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = Image([os.urandom(14 << 20), os.urandom(7 << 20)])
    size = sum(map(len, image.blobs().values()))
    clock = SystemClock()
    with started(tmp_path_factory.mktemp("registry")) as server:
        push(server, image, "app:1", "--preserve-digests")
        with CuttingProxy(server.port, 3 << 20) as link, ContentStore(tmp_path).span() as span:
            with Registry(reference.parse(f"{link.host}/app:1"), None, clock) as remote:
                pulled = pull(remote, AMD64, span=span, clock=clock)
            assert link.cuts >= 6
            assert link.down <= 1.1 * size
    assert pulled.bytes_fetched <= 1.1 * size
    assert all(ContentStore(tmp_path).intact(layer.digest) for layer in pulled.layers)
