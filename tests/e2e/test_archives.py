"""Images out of archives instead of a registry: run, changed, gone."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, image_layouts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def save(image: str, to: Path, kind: str = "docker-archive", ref: str = "example.org/app:1") -> None:
    """Write a test image to an archive, in place of what is there."""
    to.unlink(missing_ok=True)
    (layout,) = image_layouts(image)
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:latest", f"{kind}:{to}:{ref}"]
    subprocess.run(command, check=True)


def from_archive(name: str, path: str, ref: str = "example.org/app:1") -> dict[str, object]:
    return document("Image", name, {"ref": ref, "archive": path})


def test_an_image_in_an_archive_beside_the_manifest_runs_with_no_registry(st: Stage) -> None:
    (st.files / "images").mkdir()
    for kind in ("docker-archive", "oci-archive", "oci"):
        save("busybox", st.files / "images" / kind, kind)
        said = st.said(f"from-{kind}", "echo here", from_archive(f"of-{kind}", f"images/{kind}"), image=f"of-{kind}")
        assert said == "here\n"
        status = st.status(f"image/of-{kind}")
        assert status["pulledFrom"] == str((st.files / "images" / kind).resolve())
        assert (status["bytesFetched"] > 0) == (kind != "oci"), "whose bytes are those of oci-archive"


def test_an_archive_that_changes_replaces_what_runs_and_one_that_goes_does_not(st: Stage) -> None:
    path = st.files / "changing.tar"
    save("busybox", path)
    web = st.container("changing", "sleep 1000", image="changing")
    st.must_apply(from_archive("changing", "changing.tar"), web)
    before, pid = st.status("image/changing")["digest"], st.pid("changing")
    path.rename(path.with_suffix(".away"))
    st.must_apply(document("Image", "changing", {"ref": "example.org/app:1", "archive": str(path)}))
    assert (st.status("image/changing")["digest"], st.pid("changing")) == (before, pid)
    save("web", path)
    eventually(lambda: st.status("image/changing").get("digest", before) != before, "it is read anew", 45)
    eventually(lambda: st.status("container/changing").get("pid") not in (None, pid), "it is replaced")


def test_what_an_archive_does_not_have_is_told_with_what_it_has(st: Stage) -> None:
    save("busybox", st.files / "one.tar")
    save("web", st.files / "two.tar", ref="example.org/two:2")
    merged = st.files / "several"
    for name, tag in (("busybox", "1"), ("web", "2")):
        (layout,) = image_layouts(name)
        target = f"oci:{merged}:example.org/{name}:{tag}"
        subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:latest", target], check=True)
    done = st.apply(from_archive("several", "several", "example.org/other:9"))
    assert done.returncode == 1
    assert "error: image/several: fetching: not found:" in done.stderr
    assert "there is: example.org/busybox:1; example.org/web:2" in done.stderr
    st.must_apply(from_archive("several", "several", "other.org/x:2"))
