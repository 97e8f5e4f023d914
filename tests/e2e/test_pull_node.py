"""A node that pulls: by its configuration's mirrors and logins, and on from where a killed agent was."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.transfer import manifests
from tests.e2e.workloads import document, eventually, stage
from tests.fakes.hostile_http import HostileServer, Reply, Request
from tests.registry import Registry, image_layouts, push_all

pytestmark = pytest.mark.root


def test_an_image_comes_from_a_mirror_with_the_mirrors_own_login(
    registry: Registry, make_registry: Callable[..., Registry]
) -> None:
    mirror = make_registry(("me", "a secret"))
    push_all(mirror, ["busybox"])
    with stage(registry, agent=False) as st:
        folder = st.files / "certs.d" / "_default"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\n  capabilities = ["pull", "resolve"]\n')
        auth = base64.b64encode(b"me:a secret").decode()
        logins = st.files / "docker.json"
        logins.write_text(json.dumps({"auths": {mirror.host: {"auth": auth}}}))
        config = st.files / "node-config"
        config.write_text(
            json.dumps(
                {"version": 2, "transfer": {"hosts": [str(folder.parent)], "dockerConfig": str(logins), "keepFree": 1}}
            )
        )
        st.node.spawn("agent", env={"RECONCILER_CONFIG": str(config)})
        st.must_apply(document("Image", "mirrored", {"ref": "registry.invalid:5000/busybox:latest"}))
        assert st.status("image/mirrored")["pulledFrom"] == mirror.host
        (folder / "hosts.toml").write_text('[host."https://x.invalid"]\n  capabilities = ["fly"]\n')
        wrong = st.apply(document("Image", "broken", {"ref": "registry.invalid:5000/other:1"}))
        assert wrong.returncode == 1
        assert f"{folder}/hosts.toml:2: capabilities: 'fly' is not known" in wrong.stderr
        log = (st.node.place.folder / "agent.log").read_text()
        assert "a secret" not in log + wrong.stderr
        assert auth not in log + wrong.stderr


class Stalling(HostileServer):
    """Serves an OCI layout as app:1; the first time it gives half of its largest layer, then nothing."""

    def __init__(self, layout: Path) -> None:
        super().__init__()
        self.go_on = threading.Event()
        blobs = layout / "blobs" / "sha256"
        self.data = {f"sha256:{path.name}": path.read_bytes() for path in blobs.iterdir()}
        self.top = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        layers = json.loads(self.data[self.top])["layers"]
        self.layer: str = max(layers, key=lambda layer: layer["size"])["digest"]
        self.half = len(self.data[self.layer]) // 2

    def reply_to(self, request: Request) -> Reply | None:
        """From the layout, with ranges."""
        name = request.path.rpartition("/")[2]
        digest = self.top if name == "1" else name
        data = self.data[digest]
        if "/manifests/" in request.path:
            return Reply(200, {"Content-Type": manifests.OCI_MANIFEST, "Docker-Content-Digest": digest}, data)
        if request.range is not None:
            start = int(request.range[6:-1])
            extent = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return Reply(206, {"Content-Range": extent, "Content-Length": str(len(data) - start)}, data[start:])
        if digest == self.layer:
            return Reply(200, {"Content-Length": str(len(data))}, lambda: self._stalled(data))
        return Reply(200, {}, data)

    def _stalled(self, data: bytes) -> Iterator[bytes]:
        yield data[: self.half]
        self.go_on.wait(30)


def test_a_killed_agents_pull_is_gone_on_with_where_it_was(registry: Registry) -> None:
    with Stalling(image_layouts("busybox")[0]) as server, stage(registry, agent=False) as st:
        agent = st.node.spawn("agent")
        st.submit(document("Image", "halved", {"ref": f"{server.host}/app:1"}))
        partial = st.node.root / "content" / "ingest" / server.layer.replace(":", "-")

        def is_half_here() -> bool:
            return partial.exists() and partial.stat().st_size == server.half

        eventually(is_half_here, "half of the layer is here")
        agent.kill()
        agent.wait()
        server.go_on.set()
        before = len(server.asked)
        st.node.spawn("agent")
        eventually(lambda: st.condition("image/halved", "Ready").get("status") == "True", "it is pulled", seconds=40)
        again = [request for request in server.asked[before:] if request.path.endswith(server.layer)]
        assert [request.range for request in again] == [f"bytes={server.half}-"]
        assert st.status("image/halved")["bytesFetched"] <= len(server.data[server.layer]) - server.half + 10_000
        assert list(partial.parent.iterdir()) == []
