"""`reconciler content`: what has rotted is found, named, and really mended, with an agent and without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, stage
from tests.registry import Registry, image_layouts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=[True, False], ids=["agent", "alone"])
def st(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Stage]:
    """A node with an image from a registry and one from an archive, with an agent or without."""
    with stage(registry, agent=request.param) as made:
        layout = image_layouts("busybox")[0]
        made.must_apply(
            document("Image", "web", {"ref": made.image("web")}),
            document("Image", "box", {"ref": "example.org/box:1", "archive": str(layout)}),
        )
        yield made


def layer(st: Stage, image: str) -> Path:
    """The file of an image's last layer."""
    return st.node.root / "content/blobs" / st.there(f"image/{image}").record["layers"][-1]["digest"].replace(":", "/")


def flip(blob: Path) -> bytes:
    """Change one byte; gives what it was before."""
    good = blob.read_bytes()
    middle = len(good) // 2
    blob.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    return good


@pytest.mark.parametrize("image", ["web", "box"])
def test_a_flipped_byte_is_found_named_and_mended(st: Stage, image: str) -> None:
    blob = layer(st, image)
    assert st.node.cli("content", "check").returncode == 0
    good = flip(blob)
    done = st.node.cli("content", "check", "-o", "json")
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)["items"]
    assert found["digest"] == f"sha256:{blob.name}"
    assert image in found["images"]
    told = st.node.cli("content", "check")
    assert f"error: corrupt: blob sha256:{blob.name} does not hash to its name" in told.stderr
    repaired = st.node.cli("content", "repair", "--timeout", "30s")
    assert repaired.returncode == 0, repaired.stderr
    assert "Repaired: 1 blob, 0 still missing." in repaired.stdout
    assert blob.read_bytes() == good
    assert "Nothing to repair." in st.node.cli("content", "repair").stdout


def test_a_blob_that_is_gone_is_found_and_fetched_again(st: Stage) -> None:
    blob = layer(st, "web")
    good = blob.read_bytes()
    blob.unlink()
    done = st.node.cli("content", "repair", "--timeout", "40s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert blob.read_bytes() == good


def test_the_list_says_who_needs_what(st: Stage) -> None:
    items = json.loads(st.node.cli("content", "ls", "-o", "json").stdout)["items"]
    assert {name for item in items for name in item["images"]} == {"web", "box"}
    assert "IMAGES" in st.node.cli("content", "ls").stdout
