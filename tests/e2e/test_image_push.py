"""`image push`: to a real registry, with a login and without, mounted beside what is there, whole indexes, rot."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.digest import Digest
from tests.e2e.workloads import Stage, document, stage
from tests.registry import Registry, image_layouts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def st(make_registry: Callable[..., Registry]) -> Iterator[Stage]:
    """A node and a registry of its own, into which only this module pushes, with image `box` on the node."""
    with stage(make_registry()) as made:
        layout = image_layouts("busybox")[0]
        done = made.node.cli("image", "import", layout, "--name", "example.org/box:1", "--object", "box")
        assert done.returncode == 0, done.stderr
        yield made


def blobs(registry: Registry) -> set[Path]:
    """The blobs that the registry stores."""
    return set((registry.storage / "docker/registry/v2/blobs").rglob("data"))


def test_what_is_pushed_is_the_same_image_and_is_not_sent_twice(st: Stage) -> None:
    target = f"{st.registry.host}/first/box:1"
    done = st.node.cli("image", "push", "box", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}  {st.status('image/box')['digest']}\n"
    assert st.registry.digest("first/box:1") == st.status("image/box")["digest"]
    before = {path: path.stat().st_mtime_ns for path in blobs(st.registry)}
    assert st.node.cli("image", "push", "box", target).returncode == 0
    layer = st.there("image/box").record["layers"][0]["digest"][7:]
    kept = [path for path in before if layer in path.parts]
    assert kept
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)
    out = st.files / "pulled"
    command = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"docker://{target}",
        f"oci:{out}:1",
    ]
    subprocess.run(command, check=True)


def test_an_image_of_the_same_registry_is_mounted_beside(st: Stage) -> None:
    st.node.cli("image", "push", "box", f"{st.registry.host}/mount/from:1")
    ref = f"{st.registry.host}/mount/from:1"
    assert st.node.cli("image", "pull", ref, "--object", "from").returncode == 0
    assert st.node.cli("image", "push", "from", f"{st.registry.host}/mount/to:2").returncode == 0
    assert st.registry.digest("mount/to:2") == st.registry.digest("mount/from:1")
    assert list((st.registry.storage / "docker/registry/v2/repositories/mount/to/_uploads").rglob("data")) == []


def test_a_login_is_needed_and_used_where_the_registry_wants_one(
    st: Stage, make_registry: Callable[..., Registry]
) -> None:
    closed = make_registry(("robot", "s3cret"))
    target = f"{closed.host}/box:1"
    refused = st.node.cli("image", "push", "box", target)
    assert refused.returncode == 1
    assert "error: denied:" in refused.stderr
    st.must_apply(document("Secret", "robot", {"stringData": {"username": "robot", "password": "s3cret"}}))
    done = st.node.cli("image", "push", "box", target, "--credentials", "robot")
    assert done.returncode == 0, done.stderr
    assert closed.digest("box:1") == st.status("image/box")["digest"]
    assert "s3cret" not in done.stdout + done.stderr


def test_an_index_goes_alone_when_only_one_of_its_images_is_held(st: Stage) -> None:
    layout = st.files / "multi"
    subprocess.run(["cp", "-a", image_layouts("busybox")[0], layout], check=True)
    top = json.loads((layout / "index.json").read_bytes())
    (entry,) = top["manifests"]
    here = {**entry, "platform": {"os": "linux", "architecture": "amd64"}}
    away = {**entry, "digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "s390x"}}
    for item in (here, away):
        item.pop("annotations", None)
    media = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": [here, away]}).encode()
    (layout / "blobs/sha256" / Digest.of(index).hex).write_bytes(index)
    named = {"mediaType": media, "digest": str(Digest.of(index)), "size": len(index)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    assert st.node.cli("image", "import", layout, "--name", "example.org/multi:1", "--object", "multi").returncode == 0
    assert st.status("image/multi")["digest"] == str(Digest.of(index))
    done = st.node.cli("image", "push", "multi", f"{st.registry.host}/multi:1")
    assert done.returncode == 0, done.stderr
    assert st.registry.digest("multi:1") == entry["digest"]


def test_what_has_rotted_is_not_pushed(st: Stage) -> None:
    record = st.there("image/box").record
    blob = st.node.root / "content/blobs" / record["layers"][0]["digest"].replace(":", "/")
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = st.node.cli("image", "push", "box", f"{st.registry.host}/rotten:1")
    blob.write_bytes(good)
    assert done.returncode == 1
    assert not (st.registry.storage / "docker/registry/v2/repositories/rotten/_manifests/tags").exists()
