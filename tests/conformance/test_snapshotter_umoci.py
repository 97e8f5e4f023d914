"""A real image, unpacked by us and by umoci, compared file by file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.snapshotter_ground import DRIVERS, Layout, mounted, need_root, tree

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def image() -> Layout:
    """A debootstrap root in five layers, with hard links, capabilities, whiteouts and opaque folders."""
    need_root()
    if not shutil.which("umoci"):
        pytest.skip("umoci is not installed")
    made = subprocess.run([sys.executable, SCRIPTS / "test_images.py", "debian-big"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"debian-big cannot be made here: {made.stderr.strip()[-200:]}")
    return Layout.read(Path(made.stdout.split()[-1]))


@pytest.mark.slow
def test_a_real_image_comes_out_as_umoci_unpacks_it(image: Layout, tmp_path: Path) -> None:
    subprocess.run(["umoci", "unpack", "--image", f"{image.path}:latest", tmp_path / "bundle"], check=True)
    theirs = tree(tmp_path / "bundle/rootfs")
    shutil.rmtree(tmp_path / "bundle")
    driver = DRIVERS["overlayfs"](tmp_path / "snapshots")
    with mounted(driver, "look", image.unpack(driver)) as root:
        ours = tree(root)
    driver.close()
    for seen in (ours, theirs):
        seen["."] = seen["."][:3]  # no layer names the root, so its time is the time of unpacking
    assert len(ours) >= 15_000
    assert {
        name: (ours.get(name), theirs.get(name)) for name in ours | theirs if ours.get(name) != theirs.get(name)
    } == {}
