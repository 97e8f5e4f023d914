"""The installed containerd, started on what a migration wrote, does what the old document said."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import Node
from tests.e2e.workloads import eventually
from tests.leftovers import Place

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="not installed: containerd"),
]
FIRST: Final = """\
# version 1, as it was written in 2018
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["cri", "restart", "btrfs"]
[grpc]
  address = "{0}/sock" # ours alone
[plugins]
  [plugins.cgroups]
    no_prometheus = true
  [plugins.native]
    root_path = "{0}/native"
"""


@contextmanager
def running(file: Path, folder: Path) -> Iterator[str]:
    """containerd with this configuration; gives its list of plugins once it answers."""
    with subprocess.Popen(
        ["containerd", "-c", str(file), "-l", "error"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as daemon:

        def plugins() -> str:
            assert daemon.poll() is None, daemon.stderr and daemon.stderr.read()
            done = subprocess.run(["ctr", "-a", f"{folder}/sock", "plugins", "ls"], capture_output=True, timeout=20)
            return done.stdout.decode() if done.returncode == 0 else ""

        try:
            yield str(eventually(plugins, "containerd answers", 40))
        finally:
            daemon.terminate()
            daemon.wait(20)


def test_containerd_starts_on_version_2_of_a_document_of_version_1() -> None:
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as name:
        folder = Path(name)
        file = folder / "config.toml"
        file.write_text(FIRST.format(folder))
        node = Node(Place(folder / "node"))
        done = node.cli("config", "migrate", "--from", "containerd", file, "--to", "2", "--write")
        assert done.returncode == 0, done.stderr
        assert file.read_text().startswith("# version 1, as it was written in 2018\nversion = 2\n")
        with running(file, folder) as plugins:
            kinds = {tuple(line.split()[:2]) for line in plugins.splitlines()}
            assert (folder / "native").is_dir()
        assert ("io.containerd.snapshotter.v1", "native") in kinds
        for plugin in (("io.containerd.grpc.v1", "cri"), ("io.containerd.internal.v1", "restart")):
            assert plugin not in kinds
