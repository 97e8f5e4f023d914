"""A configuration that changes under a running agent: taken up without a restart of anything, or refused whole."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry, push_all
from tests.runtimes import program

pytestmark = pytest.mark.root


class Reloads:
    """A stage whose configuration is written anew, its agent, and what that tells its service manager."""

    def __init__(self, st: Stage, manager: socket.socket) -> None:
        self.st = st
        self.manager = manager
        self.file = st.node.place.folder / "config.yaml"
        self.crun = program("crun", st.node.place.folder / "runtimes")
        self.config: dict[str, Any] = {"version": 2, "runtimes": {"crun": {"path": self.crun}}}
        self.write(self.file, self.config)
        self.agent: subprocess.Popen[bytes] = st.node.spawn("agent", env={"NOTIFY_SOCKET": manager.getsockname()})
        eventually(lambda: b"READY=1" in self.said(), "the agent is ready")

    def write(self, file: Path, config: object) -> None:
        """As people do: in place."""
        file.parent.mkdir(exist_ok=True)
        file.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))

    def said(self) -> list[bytes]:
        """What the agent told since this was asked last."""
        told = []
        try:
            while True:
                told.append(self.manager.recv(500))
        except BlockingIOError:
            return told

    def hup(self) -> list[bytes]:
        """Have it read its configuration; what it told of that, without signs of life."""
        self.said()
        self.agent.send_signal(signal.SIGHUP)
        told: list[bytes] = []
        eventually(lambda: told.extend(self.said()) or b"READY=1" in told, "the reload is over")
        return [one for one in told if not one.startswith((b"STATUS", b"WATCHDOG"))]

    @property
    def node(self) -> str:
        """The key of the Node object."""
        return next(str(obj.key) for obj in self.st.store.list() if obj.kind.value == "Node")

    def events(self, reason: str) -> list[str]:
        """The messages of the Node's events."""
        return [one.message for one in self.st.store.events() if one.reason == reason]


@pytest.fixture(scope="module")
def reloads(registry: Registry) -> Iterator[Reloads]:
    """One node for the module."""
    with stage(registry, agent=False) as st, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(st.node.place.folder / "notify"))
        manager.setblocking(False)
        yield Reloads(st, manager)


def made_by(st: Stage, name: str) -> str:
    """The runtime that a container's bundle names."""
    bundle = st.node.state / "bundles" / st.status(f"container/{name}")["snapshot"]
    return str(json.loads((bundle / "object.json").read_text())["runtime"]["name"])


def test_a_mirror_a_runtime_and_the_default_change_and_no_container_is_started_anew(
    reloads: Reloads, make_registry: Callable[..., Registry]
) -> None:
    st = reloads.st
    mirror = make_registry(None)
    push_all(mirror, ["web"])
    st.must_apply(st.container("stays", "sleep 1000"))
    before = (st.pid("stays"), st.status("container/stays")["snapshot"])
    st.submit(document("Image", "mirrored", {"ref": "registry.invalid:5000/web:latest"}))
    eventually(lambda: "lastError" in st.status("image/mirrored"), "its registry is nowhere")

    folder = st.files / "certs.d" / "_default"
    folder.mkdir(parents=True)
    (folder / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\n  capabilities = ["pull", "resolve"]\n')
    reloads.config |= {"transfer": {"hosts": [str(folder.parent)]}, "defaultRuntime": "crun"}
    reloads.config["runtimes"]["newer"] = {"path": reloads.crun}
    reloads.write(reloads.file, reloads.config)
    told = reloads.hup()
    assert [told[0].split(b"\n")[0], told[-1]] == [b"RELOADING=1", b"READY=1"]
    assert b"\nMONOTONIC_USEC=" in told[0]

    eventually(lambda: st.status("image/mirrored").get("pulledFrom") == mirror.host, "it comes from the mirror")
    st.must_apply(st.container("named", "sleep 1000", runtime="newer"), st.container("later", "sleep 1000"))
    assert [made_by(st, name) for name in ("stays", "named", "later")] == ["runc", "newer", "crun"]
    assert (st.pid("stays"), st.status("container/stays")["snapshot"]) == before
    (event,) = reloads.events("ConfigReloaded")
    assert event.startswith("in force: defaultRuntime, runtimes.newer.")
    assert event.endswith("transfer.hosts")
    shown = st.there(reloads.node)
    assert shown.spec["config"]["transfer"]["hosts"] == [str(folder.parent)]
    assert shown.spec["config"]["defaultRuntime"] == "crun"

    reloads.config["defaultRuntime"] = "runc"
    del reloads.config["runtimes"]["newer"]
    reloads.write(reloads.file, reloads.config)
    reloads.hup()
    eventually(lambda: "newer" not in st.status(reloads.node)["runtimes"], "it may not be asked for any more")
    assert st.exec("named", "echo there") == "there\n"
    st.must_apply(st.container("stays", "sleep 1001"), st.container("later", "sleep 1001"))
    assert [made_by(st, name) for name in ("stays", "later")] == ["runc", "runc"]
    st.delete("container/stays", "container/named", "container/later")


def test_the_default_snapshotter_counts_for_images_that_come_from_then_on(reloads: Reloads) -> None:
    st = reloads.st
    st.must_apply(document("Image", "before", {"ref": st.image("web")}))
    reloads.config["snapshots"] = {"default": "native"}
    reloads.write(reloads.file, reloads.config)
    reloads.hup()
    st.must_apply(document("Image", "after", {"ref": st.image("web2")}))
    names = [str(st.status(f"image/{name}")["snapshot"]) for name in ("before", "after")]
    assert [name.partition("-")[0] for name in names] == ["overlayfs", "native"]
    del reloads.config["snapshots"]
    reloads.write(reloads.file, reloads.config)
    reloads.hup()
    st.delete("image/before", "image/after")


def test_changed_files_are_found_and_a_bad_one_leaves_the_last_good_one_in_force(reloads: Reloads) -> None:
    st, node = reloads.st, reloads.node
    drop_in = reloads.file.parent / "conf.d" / "site.yaml"
    reloads.write(drop_in, "version: 2\nnode: {labels: {site: lyon}}\n")
    eventually(lambda: st.there(node).labels == {"site": "lyon"}, "the drop-in is in force")
    files = [str(reloads.file), str(drop_in)]
    eventually(lambda: st.status(node)["configuration"]["files"] == files, "it is told")

    source = st.files / "source"
    source.mkdir()
    (source / "v.yaml").write_text(
        "apiVersion: reconciler/v1\nkind: Volume\n"
        "metadata: {name: marked, labels: {at: '${node.labels.site}'}}\nspec: {retain: false}\n"
    )
    st.must_apply(document("Source", "local", {"folder": str(source)}))
    eventually(lambda: (found := st.get("volume/marked")) and found.labels == {"at": "lyon"}, "the label is put in")
    reloads.write(drop_in, "version: 2\nnode: {labels: {site: metz}}\n")
    eventually(lambda: st.there("volume/marked").labels == {"at": "metz"}, "the Source is read anew")
    st.delete("source/local")

    reloads.write(drop_in, "version: 2\nnode: {labels: {site: paris}}\ngc: {keepRevisions: none}\n")
    bad = eventually(lambda: st.condition(node, "ConfigInvalid"), "it is refused")
    assert f"{drop_in}:3:21: gc.keepRevisions: is not a whole number" in bad["message"]
    assert st.there(node).labels == {"site": "metz"}
    assert len(reloads.events("ConfigInvalid")) == 1
    assert st.condition(node, "Ready")["status"] == "True"
    drop_in.chmod(0o666)
    eventually(lambda: len(reloads.events("ConfigInvalid")) == 2, "it is looked at again")
    assert "can be written by others (mode 0666)" in st.condition(node, "ConfigInvalid")["message"]

    drop_in.unlink()
    eventually(lambda: not st.condition(node, "ConfigInvalid"), "all is well again")
    eventually(lambda: st.there(node).labels == {}, "the label is gone")


PLUGIN = """#!/bin/sh
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.99.0.2/24"}]}'
"""


def test_folders_of_networks_and_plugins_count_for_the_next_sandbox(reloads: Reloads) -> None:
    st, folder = reloads.st, reloads.st.files / "cni"
    st.submit(document("Sandbox", "far", {"runtime": "runc", "network": {"network": "elsewhere"}}))
    eventually(lambda: "no network 'elsewhere'" in str(st.status("sandbox/far").get("lastError")), "it is not known")
    folder.mkdir()
    wanted = {"cniVersion": "1.0.0", "name": "elsewhere", "plugins": [{"type": "made-up"}]}
    (folder / "one.conflist").write_text(json.dumps(wanted))
    (folder / "made-up").write_text(PLUGIN)
    (folder / "made-up").chmod(0o755)
    network = {"lists": str(folder), "plugins": [str(folder)]}
    reloads.write(reloads.file, {**reloads.config, "network": network})
    reloads.hup()
    eventually(lambda: st.condition("sandbox/far", "Ready").get("status") == "True", "it is attached, and at once")
    reloads.write(reloads.file, reloads.config)
    reloads.hup()
    assert reloads.events("ConfigReloaded")[-1] == "in force: network.lists, network.plugins"
    reloads.write(reloads.file, {**reloads.config, "network": network})
    reloads.hup()
    st.delete("sandbox/far")
    reloads.write(reloads.file, reloads.config)
    reloads.hup()


def test_what_needs_a_restart_is_told_and_not_in_force(reloads: Reloads) -> None:
    st, node = reloads.st, reloads.node
    reloads.write(reloads.file, {**reloads.config, "root": "/elsewhere", "telemetry": {"interval": "5m"}})
    reloads.hup()
    waiting = eventually(lambda: st.condition(node, "RestartNeeded"), "it is told")
    assert waiting["message"] == "restart the agent to bring into force: root, telemetry.interval"
    assert reloads.events("ConfigReloaded")[-1] == "after a restart of the agent: root, telemetry.interval"
    assert eventually(lambda: st.status(node)["configuration"]["afterRestart"], "in the status") == [
        "root",
        "telemetry.interval",
    ]
    assert st.there(node).spec["config"]["root"] is None
    shown = st.node.cli("config", "show")
    assert "warning: the agent does not work by this yet: root, telemetry.interval (" in shown.stderr
    reloads.write(reloads.file, reloads.config)
    reloads.hup()
    eventually(lambda: not st.condition(node, "RestartNeeded"), "nothing waits any more")
