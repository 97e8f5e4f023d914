"""A real root file system of five layers, from the registry to a container, compared with umoci's unpacking."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from core import mounts
from core.clock import SystemClock
from core.snapshots.overlay import OverlaySnapshotter
from tests.conftest import Node
from tests.e2e.workloads import document, eventually
from tests.registry import image_layouts

pytestmark = [pytest.mark.root, pytest.mark.slow]

Entry = tuple[object, ...]


def look(top: Path) -> dict[str, Entry]:
    """Every path below a root: type, mode, owner, size, time, target, extended attributes, content."""
    found: dict[str, Entry] = {}
    inodes: dict[tuple[int, int], list[str]] = defaultdict(list)
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(folder) / name
            info = path.lstat()
            shown = str(path.relative_to(top))
            content: object = None
            if stat.S_ISREG(info.st_mode):
                inodes[info.st_dev, info.st_ino].append(shown)
                with path.open("rb") as source:
                    content = hashlib.file_digest(source, "sha256").hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            size = info.st_size if stat.S_ISREG(info.st_mode) else 0
            attributes = tuple((one, os.getxattr(path, one, follow_symlinks=False)) for one in names_of(path))
            found[shown] = (oct(info.st_mode), info.st_uid, info.st_gid, size, int(info.st_mtime), attributes, content)
    for group in inodes.values():
        for shown in group:
            found[shown] = (*found[shown], tuple(sorted(group)) if len(group) > 1 else ())
    return found


def names_of(path: Path) -> list[str]:
    """The names of the extended attributes that belong to the file, not to the driver."""
    names = os.listxattr(path, follow_symlinks=False)
    return sorted(name for name in names if not name.startswith("trusted.overlay."))


def test_a_big_image_is_unpacked_as_umoci_does_it_and_runs(node: Node, big_image: str, tmp_path: Path) -> None:
    if shutil.which("umoci") is None:
        pytest.skip("not installed: umoci")
    file = tmp_path / "big.yaml"
    spec = {"image": big_image, "network": {"mode": "none"}, "command": ["python3", "-c", "print(6 * 7)"]}
    file.write_text(json.dumps(document("Container", "big", {**spec, "restart": {"policy": "Never"}})))
    done = node.cli("apply", "-f", file, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr

    bundle = tmp_path / "umoci"
    layout = image_layouts("debian-big")[0]
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:latest", bundle], check=True, capture_output=True)
    theirs = look(bundle / "rootfs")
    assert len(theirs) > 15_000

    driver = OverlaySnapshotter(node.root / "snapshots/overlayfs", SystemClock())
    (snapshot,) = json.loads(node.cli("get", "snapshots", "-o", "json").stdout)["items"]
    chain = snapshot["spec"]["chain"]
    ours = look_at_view(driver, chain, tmp_path / "view")
    differing = sorted(path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path))
    shown = [f"{path}: umoci {theirs.get(path)}, ours {ours.get(path)}" for path in differing[:20]]
    assert not differing, f"{len(differing)} differ:\n" + "\n".join(shown)

    eventually(lambda: node.cli("logs", "big").stdout == "42\n", "the container's answer")
    assert node.cli("delete", "-f", file).returncode == 0
    assert not [path for path in (node.root / "content/blobs").rglob("*") if path.is_file()]


def look_at_view(driver: OverlaySnapshotter, chain: str, at: Path) -> dict[str, Entry]:
    """A committed chain, mounted for a look."""
    at.mkdir()
    mounts.attach(driver.view("compared", chain), at)
    try:
        return look(at)
    finally:
        mounts.detach(at)
        driver.remove("compared")
