"""`reconciler content`: what has rotted is found, named, and really mended, with an agent and without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.unpacked import lines
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
    assert "Repaired: 1 blob; 0 still wrong." in repaired.stdout
    assert blob.read_bytes() == good
    assert "Nothing to repair." in st.node.cli("content", "repair").stdout


def test_a_blob_that_is_gone_is_found_and_fetched_again(st: Stage) -> None:
    blob = layer(st, "web")
    good = blob.read_bytes()
    blob.unlink()
    done = st.node.cli("content", "repair", "--timeout", "40s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert blob.read_bytes() == good


def unpacked(st: Stage, image: str) -> Path:
    """The folder of an image's topmost snapshot."""
    record = st.there(f"image/{image}").record
    root = st.node.root / "snapshots" / record["driver"]
    return root / str(lines(root)[record["chain"]].id) / "fs"


def a_file(folder: Path) -> Path:
    """A file of some bytes."""
    return max((path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()), key=_size)


def _size(path: Path) -> int:
    return path.stat().st_size


def test_fault_18_damage_to_an_unpacked_image_is_found_and_mended(st: Stage) -> None:
    path = a_file(unpacked(st, "box"))
    inside, good = path.relative_to(unpacked(st, "box")), flip(path)
    path.with_name("added").write_text("x")
    assert st.node.cli("content", "check").returncode == 0, "blobs alone are looked at"
    done = st.node.cli("content", "check", "--snapshots", "-o", "json")
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)["items"]
    changed, added = sorted(found["what"], key=lambda said: said.endswith("was added"))
    assert changed.endswith(" has other bytes")  # by whichever of its names
    assert added == f"/{inside.with_name('added')} was added"
    assert "box" in found["images"]
    repaired = st.node.cli("content", "repair", "--snapshots", "--timeout", "30s")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "1 snapshot; 0 still wrong." in repaired.stdout
    again = unpacked(st, "box") / inside
    assert (again.read_bytes(), again.with_name("added").exists()) == (good, False)
    assert not list(st.node.root.glob(".staging-*"))


def test_fault_18_a_snapshot_that_a_container_rests_on_stays_and_the_container_is_named(st: Stage) -> None:
    st.must_apply(st.container("rests", "sleep 1000", image="box"))
    path = a_file(unpacked(st, "box"))
    good = flip(path)
    refused = st.node.cli("content", "repair", "--snapshots", "--timeout", "30s")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "container/rests" in refused.stderr
    assert "1 still wrong" in refused.stdout
    st.delete("container/rests")
    repaired = st.node.cli("content", "repair", "--snapshots", "--timeout", "30s")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert a_file(unpacked(st, "box")).read_bytes() == good


def test_fault_18_whiteouts_are_compared_like_files(st: Stage) -> None:
    files = {"bin/": (0, 0o755, b""), "bin/.wh.gone": (0, 0o644, b""), "usr/": (0, 0o755, b"")}
    ref = st.odd_image(
        f"hides-{st.count}", {}, {**files, "usr/.wh..wh..opq": (0, 0o644, b""), "usr/x": (0, 0o644, b"x")}
    )
    st.must_apply(document("Image", "hides", {"ref": ref}))
    right = st.node.cli("content", "check", "--snapshots")
    assert right.returncode == 0, right.stdout + right.stderr
    (unpacked(st, "hides") / "bin/gone").unlink()
    wrong = st.node.cli("content", "check", "--snapshots")
    assert wrong.returncode == 1
    assert "/bin/gone is missing" in wrong.stderr
    st.delete("image/hides")


def test_the_list_says_who_needs_what(st: Stage) -> None:
    items = json.loads(st.node.cli("content", "ls", "-o", "json").stdout)["items"]
    assert {name for item in items for name in item["images"]} == {"web", "box"}
    assert "IMAGES" in st.node.cli("content", "ls").stdout
