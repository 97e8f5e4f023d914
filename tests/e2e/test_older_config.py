"""A configuration of version 1, containerd's first layout: the agent starts, says what it made of it, and works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.workloads import eventually, stage
from tests.registry import Registry, free_port, image_layouts

pytestmark = pytest.mark.root
DEMO: Final = Path(__file__).resolve().parents[2] / "manifests" / "demo"
PASSWORD: Final = "hunter2-canary"
V1: Final = """\
version: 1
oom_score: -999
plugins:
  cri:
    sandbox_image: "registry.k8s.io/pause:3.9"
    max_concurrent_downloads: 5
    containerd:
      snapshotter: overlayfs
      runtimes:
        fast:
          runtime_type: io.containerd.runc.v2
          options: {{BinaryName: {crun}}}
    registry:
      mirrors:
        "127.0.0.1:{nowhere}":
          endpoint: ["http://{mirror}"]
      configs:
        "{mirror}":
          auth: {{username: me, password: {password}}}
"""


def copy_demo(to: Path, ports: Mapping[str, int]) -> None:
    """The demo's manifests with ports that are free, whatever else runs on this machine."""
    shutil.copytree(DEMO, to)
    for path in (path for path in to.rglob("*") if path.is_file()):
        text = path.read_text()
        for old, new in ports.items():
            text = text.replace(old, str(new))
        path.write_text(text)


def test_an_agent_given_a_file_of_version_1_converges_the_demo(
    make_registry: Callable[..., Registry], registry: Registry
) -> None:
    mirror = make_registry(None)
    for name, layout in zip(("busybox", "web"), image_layouts("busybox", "web"), strict=True):
        mirror.push(layout, f"{name}:1")
    with stage(registry, agent=False) as st:
        nowhere, demo = free_port(), st.files / "demo"
        copy_demo(demo, {"5005": nowhere, "8088": free_port()})
        file = st.files / "v1.yaml"
        crun = json.loads((st.node.place.folder / "config.yaml").read_text())["runtimes"]["crun"]["path"]
        file.write_text(V1.format(nowhere=nowhere, crun=crun, mirror=mirror.host, password=PASSWORD))
        before = file.read_bytes()
        line = next(number for number, text in enumerate(before.splitlines(), 1) if b"endpoint" in text)
        st.node.env["RECONCILER_CONFIG"] = str(file)
        st.node.spawn("agent")
        done = st.node.cli("apply", "-f", demo, "--timeout", "50s")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Converged: 7 objects, 7 created" in done.stdout

        node = next(obj for obj in st.store.list() if obj.kind.value == "Node")
        steps = eventually(lambda: st.status(str(node.key)).get("configuration", {}).get("migrated"), "it is told")
        assert f"{file}:8: plugins.cri.containerd.snapshotter is the default" in " ".join(steps)
        assert f"{file}:{line}: plugins.cri.registry.mirrors." in " ".join(steps)
        assert node.spec["config"]["runtimes"]["fast"]["path"] == crun
        assert node.spec["config"]["transfer"]["parallel"] == 5
        log = (st.node.place.folder / "agent.log").read_text()
        assert all(step in log for step in steps)
        events = [one.message for one in st.store.events() if one.reason == "ConfigMigrated"]
        assert "reconciler config migrate FILE --write" in events[0]
        assert PASSWORD not in log + json.dumps(node.to_json()) + " ".join([*steps, *events])
        staged = [path.read_text() for path in st.node.state.glob("migrated-*/**/*") if path.is_file()]
        assert [PASSWORD in text for text in staged] == [False]
        assert file.read_bytes() == before
        deleted = st.node.cli("delete", "-f", demo, "--purge", "--timeout", "40s")
        assert deleted.returncode == 0, deleted.stderr
