"""Runtimes by name and by path: side by side, configured away under what runs, asked for in vain."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry
from tests.runtimes import program

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, which knows crun under another name too."""
    with stage(registry, agent=False) as made:
        configure(made, "fast")
        made.node.spawn("agent")
        yield made


def configure(st: Stage, *names: str) -> None:
    """Give the node crun under these names and no other."""
    (st.node.place.folder / "config.yaml").write_text(described(st, *names))


def described(st: Stage, *names: str) -> str:
    """A configuration in which crun has these names."""
    crun = program("crun", st.node.place.folder / "runtimes")
    config = {"version": 2, "runtimes": {name: {"sandboxer": "oci", "path": crun} for name in ("crun", *names)}}
    return json.dumps(config)


def made_by(st: Stage, name: str) -> str:
    """What the bundle of a running container says."""
    bundle = st.node.state / "bundles" / st.status(f"container/{name}")["snapshot"]
    return str(json.loads((bundle / "object.json").read_text())["runtime"]["name"])


def test_containers_of_several_runtimes_run_side_by_side(st: Stage) -> None:
    st.must_apply(
        st.container("plain", "sleep 1000"),
        st.container("named", "sleep 1000", runtime="crun"),
        st.container("by-path", "sleep 1000", runtime="fast"),
    )
    assert [made_by(st, name) for name in ("plain", "named", "by-path")] == ["runc", "crun", "fast"]
    assert [st.exec(name, "echo $$").strip() != "" for name in ("plain", "named", "by-path")] == [True] * 3
    st.delete("container/plain", "container/named", "container/by-path")


def test_containers_of_several_runtimes_survive_the_end_of_the_agent(st: Stage) -> None:
    st.must_apply(st.container("stays", "sleep 1000", runtime="fast"))
    pid = st.pid("stays")
    st.node.stop()
    os.kill(pid, 0)
    st.node.spawn("agent")
    assert st.exec("stays", "echo there") == "there\n"
    assert st.pid("stays") == pid
    st.delete("container/stays")


def test_a_runtime_that_is_configured_away_loses_nothing_that_runs(st: Stage) -> None:
    st.must_apply(st.container("kept", "sleep 1000", runtime="fast"))
    pid = st.pid("kept")
    st.node.stop()
    configure(st)
    st.node.spawn("agent")
    eventually(lambda: "fast" not in st.status(f"node/{node_name(st)}").get("runtimes", {"fast": 0}), "a new table")
    assert st.exec("kept", "echo there") == "there\n"
    assert st.pid("kept") == pid
    refused = st.apply(st.container("new", "true", runtime="fast"))
    assert refused.returncode == 1
    assert "spec.runtime: this node has no runtime 'fast'" in refused.stderr
    st.delete("container/kept")
    st.node.stop()
    configure(st, "fast")
    st.node.spawn("agent")
    eventually(lambda: "fast" in st.status(f"node/{node_name(st)}").get("runtimes", {}), "the old table")


def test_a_runtime_that_the_agent_does_not_know_yet_stalls_its_sandbox_with_the_list(st: Stage) -> None:
    ours = st.node.env["RECONCILER_CONFIG"]
    st.node.env["RECONCILER_CONFIG"] = str(st.files / "only-the-command-reads-this.yaml")
    (st.files / "only-the-command-reads-this.yaml").write_text(described(st, "fast", "newer"))
    st.submit(document("Sandbox", "early", {"runtime": "newer", "network": {"mode": "none"}}))
    key = "sandbox/early"
    eventually(lambda: st.condition(key, "Stalled").get("reason") == "RuntimeUnknown", "it is stalled")
    assert "it has: crun, fast, gvisor, runc, runc-v2, vm, wasm" in st.condition(key, "Stalled")["message"]
    st.node.env["RECONCILER_CONFIG"] = ours
    configure(st, "fast", "newer")
    eventually(lambda: st.condition(key, "Ready").get("status") == "True", "the new configuration is in force")
    st.delete(key)


def test_the_node_and_the_command_say_what_each_runtime_can_do(st: Stage) -> None:
    told = st.status(f"node/{node_name(st)}")["runtimes"]
    assert told["runc"]["can"]["cgroup"] == ["v1", "v2"]
    assert told["crun"]["version"][:1].isdigit()
    lines = st.node.cli("runtime", "ls").stdout.splitlines()
    others = ["crun", "fast", "gvisor", "newer", "runc-v2", "vm", "wasm"]
    assert [line.split()[0] for line in lines] == ["NAME", "runc", *others]
    if "platform" in told["gvisor"].get("can", {}):
        (line,) = [line for line in lines if line.startswith("gvisor")]
        assert f"platform: {told['gvisor']['can']['platform'][0]}; network: the node's stack" in line
    items = json.loads(st.node.cli("runtime", "ls", "-o", "json").stdout)["items"]
    assert {one["name"]: one.get("can") for one in items}["runc"] == told["runc"]["can"]


def node_name(st: Stage) -> str:
    """The name of the one Node object."""
    return next(obj.name for obj in st.store.list() if obj.kind.value == "Node")
