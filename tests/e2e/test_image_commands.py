"""`reconciler image`: in from registries and archives, out to the tools that people have, named, listed, let go."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.peers import containerd
from tests.conformance.test_archives import libpod, run
from tests.e2e.workloads import Stage, stage
from tests.registry import Registry, image_layouts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, with busybox as image `box` of a name that is no registry's."""
    with stage(registry) as made:
        layout = image_layouts("busybox")[0]
        done = made.node.cli("image", "import", layout, "--name", "example.org/box:1", "--object", "box")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("image/box: example.org/box:1  sha256:")
        yield made


def ok(st: Stage, *words: str | Path) -> str:
    done = st.node.cli("image", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_brought_in_by_hand_is_kept_until_it_is_let_go(st: Stage) -> None:
    ref = st.image("web2")
    assert ok(st, "pull", ref) == f"image/web2-latest: {ref}  {st.registry.digest('web2:latest')}\n"
    assert st.node.cli("gc").returncode == 0
    rows = json.loads(ok(st, "ls", "-o", "json"))["items"]
    found = next(row for row in rows if row["metadata"]["name"] == "web2-latest")
    assert (found["metadata"]["manager"], found["status"]["digest"]) == (
        "set/manual",
        st.registry.digest("web2:latest"),
    )
    assert json.loads(ok(st, "inspect", ref))["config"]["os"] == "linux"
    assert "web2-latest" in ok(st, "ls")
    assert "Deleted: 1 object" in ok(st, "rm", ref)
    assert st.node.cli("image", "rm", ref).returncode == 1
    assert st.get("image/web2-latest") is None


def test_a_tag_is_one_more_name_of_what_is_held(st: Stage) -> None:
    ok(st, "tag", "box", "example.org/again:2")
    again = st.status("image/again-2")
    assert again["digest"] == st.status("image/box")["digest"]
    assert again["snapshot"] == st.status("image/box")["snapshot"]
    assert st.said("tagged", "echo here", image="again-2") == "here\n"
    st.delete("container/tagged")
    ok(st, "rm", "again-2")
    assert st.condition("image/box", "Ready")["status"] == "True"


def test_out_and_in_again_is_the_same_image_and_the_same_bytes(st: Stage) -> None:
    first, second = st.files / "first.tar", st.files / "second.tar"
    ok(st, "export", "box", "-o", first)
    ok(st, "export", "example.org/box:1", "-o", second)
    assert first.read_bytes() == second.read_bytes()
    assert ok(st, "import", first, "--object", "back").startswith("image/back: example.org/box:1  ")
    assert st.status("image/back")["digest"] == st.status("image/box")["digest"]
    assert list(st.files.glob(".staging*")) == []
    ok(st, "export", "box", "-o", first, "--format", "docker")
    ok(st, "import", first, "--object", "docker", "--name", "example.org/box:1")
    assert st.there("image/docker").record["config"] == st.there("image/box").record["config"]
    ok(st, "rm", "back", "docker")


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_tools_read_what_is_written(st: Stage, form: str) -> None:
    archive = st.files / f"out-{form}.tar"
    ok(st, "export", "box", "-o", archive, "--format", form)
    layout = image_layouts("busybox")[0]
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_bytes())
    config = manifest["config"]["digest"].removeprefix("sha256:")
    kind = f"{form}-archive"
    inspected = json.loads(run("skopeo", "inspect", "--raw", f"{kind}:{archive}"))
    assert inspected["config"]["digest"] == f"sha256:{config}"
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as folder:
        place = Path(folder)
        for tool in ("podman", "buildah"):
            assert config in run(*libpod(tool, place), "pull", "--quiet", f"{kind}:{archive}")
        run("skopeo", "--insecure-policy", "copy", "--quiet", f"{kind}:{archive}", f"oci:{place}/layout:1")
        run("umoci", "unpack", "--image", f"{place}/layout:1", place / "bundle")
        assert (place / "bundle/rootfs/bin/sh").exists()
        with containerd(place / "containerd") as daemon:
            run(*daemon.ctr("images", "import", "--no-unpack", str(archive)))
            assert "example.org/box:1" in run(*daemon.ctr("images", "ls", "-q"))
    shutil.rmtree(place, ignore_errors=True)


def test_a_rotten_blob_is_not_handed_on(st: Stage) -> None:
    ok(st, "tag", "box", "example.org/rotten:1")
    blob = st.node.root / "content/blobs" / st.there("image/box").record["layers"][0]["digest"].replace(":", "/")
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = st.node.cli("image", "export", "box", "-o", st.files / "never.tar")
    assert done.returncode == 1
    assert "has rotted on disk" in done.stderr
    assert not (st.files / "never.tar").exists()
    blob.write_bytes(good)
    ok(st, "rm", "rotten-1")


def test_what_cannot_be_is_said(st: Stage, tmp_path: Path) -> None:
    nameless = tmp_path / "nameless"
    subprocess.run(["cp", "-a", image_layouts("busybox")[0], nameless], check=True)
    done = st.node.cli("image", "import", nameless)
    assert done.returncode == 1
    assert "does not say what its images are called" in done.stderr
    assert "--name REF" in done.stderr
    done = st.node.cli("image", "export", "box", "-o", tmp_path / "x", "--platform", "linux/s390x")
    assert "is held for linux/amd64 only" in done.stderr
    assert st.node.cli("image", "export", "nothing", "-o", tmp_path / "x").returncode == 1
    assert st.node.cli("image", "pull", "not a reference").returncode == 1
