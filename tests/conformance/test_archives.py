"""Archives between us and the tools that people have: what each of them writes, we read."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from core.clock import SystemClock
from core.content.store import ContentStore
from core.digest import Digest
from core.transfer import platform, reference
from core.transfer.archive import Archive
from core.transfer.ports import PulledImage
from core.transfer.pull import pull
from tests.bench.peers import containerd
from tests.conformance.snapshotter_ground import need_root
from tests.registry import image_layouts

NAME: Final = "example.org/app:1"
TOOLS: Final = ("skopeo", "podman", "buildah", "umoci", "containerd", "ctr")


@pytest.fixture(scope="module")
def layout() -> Path:
    """The OCI layout of busybox."""
    need_root()
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return image_layouts("busybox")[0]


def run(*words: str | Path) -> str:
    """A command that must succeed; its output."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def skopeo(source: str, target: str) -> None:
    run("skopeo", "--insecure-policy", "copy", "--quiet", source, target)


def libpod(tool: str, place: Path) -> list[str]:
    """podman or buildah with a store of its own."""
    return [tool, "--root", f"{place}/{tool}", "--runroot", f"{place}/{tool}-run", "--storage-driver", "vfs"]


def by_skopeo(kind: str) -> Callable[[Path, Path], None]:
    return lambda layout, to: skopeo(f"oci:{layout}:latest", f"{kind}:{to}:{NAME}")


def by_podman(kind: str) -> Callable[[Path, Path], None]:
    def write(layout: Path, to: Path) -> None:
        podman = libpod("podman", to.parent)
        run(*podman, "pull", "--quiet", f"oci:{layout}:latest")
        run(*podman, "tag", run(*podman, "images", "--quiet").split()[0], NAME, "example.org/other:2")
        run(*podman, "save", "--quiet", "--format", kind, "--output", to, NAME)

    return write


def by_podman_of_several(layout: Path, to: Path) -> None:
    podman = libpod("podman", to.parent)
    by_podman("docker-archive")(layout, to)
    to.unlink()
    layer = max((layout / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    run(*podman, "import", "--quiet", layer, "example.org/third:3")
    run(*podman, "save", "--quiet", "--multi-image-archive", "--output", to, NAME, "example.org/third:3")


def by_buildah(kind: str) -> Callable[[Path, Path], None]:
    def write(layout: Path, to: Path) -> None:
        buildah = libpod("buildah", to.parent)
        run(*buildah, "pull", "--quiet", f"oci:{layout}:latest")
        run(*buildah, "push", "--quiet", run(*buildah, "images", "--quiet").split()[0], f"{kind}:{to}:{NAME}")

    return write


def by_umoci(layout: Path, to: Path) -> None:
    shutil.copytree(layout, to)
    run("umoci", "tag", "--image", f"{to}:latest", NAME.rpartition(":")[2])
    run("umoci", "rm", "--image", f"{to}:latest")


def by_ctr(layout: Path, to: Path) -> None:
    skopeo(f"oci:{layout}:latest", f"oci-archive:{to}.in:{NAME}")
    with containerd(to.parent / "containerd") as daemon:
        run(*daemon.ctr("images", "import", "--no-unpack", f"{to}.in"))
        run(*daemon.ctr("images", "export", str(to), NAME))


WRITERS: Final[dict[str, Callable[[Path, Path], None]]] = {
    "skopeo oci": by_skopeo("oci"),
    "skopeo oci-archive": by_skopeo("oci-archive"),
    "skopeo docker-archive": by_skopeo("docker-archive"),
    "podman oci-archive": by_podman("oci-archive"),
    "podman docker-archive": by_podman("docker-archive"),
    "podman several": by_podman_of_several,
    "buildah oci-archive": by_buildah("oci-archive"),
    "buildah docker-archive": by_buildah("docker-archive"),
    "umoci": by_umoci,
    "ctr": by_ctr,
}


def imported(archive: Path, ref: str, store: Path) -> PulledImage:
    """The image brought into a content store."""
    node = platform.of_node()
    with Archive(archive, reference.parse(ref), node, archive.parent) as remote, ContentStore(store).span() as span:
        return pull(remote, node, span=span, clock=SystemClock())


@pytest.fixture
def written(request: pytest.FixtureRequest, layout: Path) -> Iterator[Path]:
    """An archive by one of the writers, in a short folder: podman's may have 50 characters at most."""
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as folder:
        path = Path(folder) / "archive"
        WRITERS[request.param](layout, path)
        yield path


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_what_tools_write_is_read_and_is_the_same_image(written: Path, layout: Path, tmp_path: Path) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_bytes())
    config = json.loads((layout / "blobs/sha256" / manifest["config"]["digest"][7:]).read_bytes())
    pulled = imported(written, NAME, tmp_path / "store")
    assert str(pulled.config_digest) == manifest["config"]["digest"]
    assert list(map(str, pulled.diff_ids)) == config["rootfs"]["diff_ids"]
    store = ContentStore(tmp_path / "store")
    assert all(store.intact(blob) for blob in pulled.blobs)
    assert {Digest.parse(str(blob)) for blob in pulled.blobs} == set(store.walk())
