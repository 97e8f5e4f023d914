"""Faults 2, 4, 19, 20, 22, 28: monitors and runtimes are killed, groups and networks go, workloads are hostile."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from core import cgroups, proc
from tests.e2e.workloads import Stage, eventually, stage
from tests.figures import Figure
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

SEEN_SECONDS: Final = 5.0
RESYNC_SECONDS: Final = 45.0
"""A resync, which comes every 30 s, and some time to do what it finds."""
SHAKY: Final = """#!/bin/sh
for word in "$@"; do
  case $word in create|delete) verb=$word; break;; esac
done
if rm "{flags}/$verb-before" 2>/dev/null; then kill -KILL $$; fi
if rm "{flags}/$verb-after" 2>/dev/null; then runc "$@"; kill -KILL $$; fi
exec runc "$@"
"""
"""A runc that is killed at its next such command, before or after doing it, when a file of that name is there."""


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `SHAKY` looks for when it is to be killed."""
    return tmp_path_factory.mktemp("flags")


@pytest.fixture(scope="module")
def st(registry: Registry, flags: Path) -> Iterator[Stage]:
    """One node for the module; `beside` runs in it all the time and is never to be touched."""
    program = flags / "bin/runc"
    program.parent.mkdir()
    program.write_text(SHAKY.format(flags=flags))
    program.chmod(0o755)
    with stage(registry, config={"runtimes": {"shaky": {"sandboxer": "oci", "path": str(program)}}}) as made:
        made.must_apply(made.container("beside", "sleep 1000"))
        yield made


@pytest.fixture(autouse=True)
def untouched(st: Stage) -> Iterator[None]:
    """Whatever a test does, the neighbour runs on as the same process, started once."""
    before = st.pid("beside")
    yield
    assert (st.pid("beside"), st.status("container/beside")["restarts"]) == (before, 0)


def bundle(st: Stage, name: str) -> Path:
    """The bundle of a running container."""
    return st.node.state / "bundles" / str(st.status(f"container/{name}")["snapshot"])


def groups(pid: int) -> dict[str, Path]:
    """The control groups of a process, by controller."""
    found = cgroups.hierarchies()
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return {names: found.v1[names] / path.lstrip("/") for _, names, path in lines if names in found.v1}


def again(st: Stage, name: str, before: int, seconds: float) -> float:
    """Waits until a container runs as another process; how long that took."""
    began = time.monotonic()
    eventually(lambda: st.status(f"container/{name}").get("pid") not in (None, before), f"{name} runs anew", seconds)
    return time.monotonic() - began


def test_fault_02_a_monitor_that_is_killed_is_seen_at_once_and_its_container_runs_anew(st: Stage) -> None:
    st.must_apply(st.container("hit", "sleep 1000"))
    first = proc.ProcessId.of(st.pid("hit"), proc.boot_id())
    assert first is not None
    monitor = int((bundle(st, "hit") / "monitor.pid").read_text())
    os.kill(monitor, signal.SIGKILL)
    again(st, "hit", first.pid, SEEN_SECONDS)
    assert not first.alive(proc.boot_id())
    assert st.status("container/hit")["restarts"] == 1
    st.delete("container/hit")


@pytest.mark.parametrize("verb", ["create", "delete"])  # it is not asked to start: see core/runtime/beginning.py
@pytest.mark.parametrize("when", ["before", "after"])
def test_fault_04_a_runtime_that_is_killed_in_a_call_leaves_nothing_half_made(
    st: Stage, flags: Path, verb: str, when: str
) -> None:
    flag = flags / f"{verb}-{when}"
    flag.touch()
    st.must_apply(st.container("shaken", "sleep 1000", runtime="shaky"))
    assert st.exec("shaken", "echo there") == "there\n"
    group = groups(st.pid("shaken"))["pids"].parent
    st.delete("container/shaken")
    assert not flag.exists(), "the runtime was not killed"
    assert not group.exists()
    assert list((st.node.state / "runc").glob("shaken-*")) == []
    assert list((st.node.state / "bundles").glob("shaken-*")) == []


def test_fault_19_an_agent_that_runs_out_of_memory_costs_no_container(st: Stage) -> None:
    st.must_apply(st.container("stays", "sleep 1000"))
    before, agent = st.pid("stays"), st.node.running[-1]
    group = cgroups.hierarchies().v1["memory"] / f"small-{st.node.instance}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(1 << 20))
        cgroups.enter(group, agent.pid)
        st.node.cli("apply", "--no-wait", "-f", st.write(*(st.container(f"o{n}", "sleep 9") for n in range(40))))
        assert agent.wait(30) == -signal.SIGKILL
    finally:
        eventually(lambda: not cgroups.members(group), "the agent is gone")
        group.rmdir()
    st.node.spawn("agent")
    st.delete(*(f"container/o{n}" for n in range(40)))
    assert (st.pid("stays"), st.status("container/stays")["restarts"]) == (before, 0)
    st.delete("container/stays")


def test_fault_20_and_22_groups_and_networks_that_go_behind_our_back_are_back_with_the_next_look(
    st: Stage, figure: Figure
) -> None:
    names = ("frozen", "escaped", "unlinked", "unnamed")
    bridged = {"network": {"mode": "bridge"}}
    st.must_apply(*(st.container(name, "sleep 1000", **(bridged if name[0] == "u" else {})) for name in names))
    before = {name: st.pid(name) for name in names}
    freezer = groups(before["frozen"])["freezer"] / "freezer.state"
    freezer.write_text("FROZEN")
    limited = groups(before["escaped"])["pids"]
    cgroups.enter(cgroups.hierarchies().v1["pids"], before["escaped"])
    limited.rmdir()
    subprocess.run(["nsenter", "-t", str(before["unlinked"]), "-n", "ip", "link", "del", "eth0"], check=True)
    pinned = st.node.state / "netns" / str(st.there("container/unnamed").record["current"]["sandbox"]) / "network"
    subprocess.run(["umount", "--lazy", pinned], check=True)
    pinned.unlink()
    began = time.monotonic()
    again(st, "escaped", before["escaped"], RESYNC_SECONDS)
    eventually(lambda: freezer.read_text().strip() == "THAWED", "the frozen one goes on", RESYNC_SECONDS)
    eventually(lambda: inside(st, "unlinked"), "the network is attached again", RESYNC_SECONDS)
    again(st, "unnamed", before["unnamed"], RESYNC_SECONDS)
    eventually(lambda: inside(st, "unnamed"), "it has a network again", RESYNC_SECONDS)
    figure("until all that went behind our back was back", time.monotonic() - began, "s")
    assert limited.parent.exists() or groups(st.pid("escaped"))["pids"].exists()
    assert {name: st.status(f"container/{name}")["restarts"] for name in ("frozen", "escaped")} == {
        "frozen": 0,
        "escaped": 1,
    }
    st.delete(*(f"container/{name}" for name in names))


def inside(st: Stage, name: str) -> bool:
    """Whether a running container has an address on its interface."""
    pid = st.status(f"container/{name}").get("pid")
    seen = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "ip", "-4", "-o", "address", "show", "eth0"], capture_output=True, text=True
    )
    return "inet " in seen.stdout


HOSTILE: Final[dict[str, dict[str, Any]]] = {
    "floods": {"command": ["yes", "all work and no play"], "log": {"maxSize": "1Mi", "files": 2}},
    "forks": {"command": ["sh", "-c", "b() { b | b & }; b; while :; do b; done"], "resources": {"pids": 64}},
    "fills": {"command": ["sh", "-c", "dd if=/dev/zero of=/big/x bs=1M; while :; do :; done"]},
    "erases": {"command": ["/bin/busybox", "sh", "-c", "rm -rf /bin /etc /usr; trap '' TERM; while :; do :; done"]},
}


def test_fault_28_hostile_containers_neither_hold_up_the_node_nor_outlive_their_grace(
    st: Stage, figure: Figure
) -> None:
    idle = sorted(once(st) for _ in range(5))
    documents = [
        st.container(
            name,
            **{
                "stop": {"signal": "TERM", "grace": "1s"},
                "mounts": [{"path": "/big", "tmpfs": {"size": "8Mi"}}],
                "resources": {"pids": 16, "memory": "64Mi"},
                **spec,
            },
        )
        for name, spec in HOSTILE.items()
    ]
    st.submit(*documents)
    for name in HOSTILE:
        st.pid(name)
    busy = sorted(once(st) for _ in range(5))
    figure("apply to Running beside hostile containers, against an idle node", busy[2] / idle[2], "times")
    assert busy[2] < 10 * idle[2] + 5
    used = sum(log.stat().st_size for log in (st.node.root / "logs/floods").iterdir())
    began = time.monotonic()
    st.delete(*(f"container/{name}" for name in HOSTILE))
    took = time.monotonic() - began
    figure("until hostile containers with 1 s of grace were gone", took, "s")
    assert took <= 1 + 5 + 5, "grace, promise, and four of them at once on a busy machine"
    assert used <= 80 << 20, "the log of one that floods is bounded"


def once(st: Stage) -> float:
    """Seconds from a new manifest until its container runs."""
    began = time.monotonic()
    st.must_apply(st.container("quick", "sleep 1000"))
    took = time.monotonic() - began
    st.delete("container/quick")
    return took


def test_an_agent_that_was_killed_takes_up_a_hundred_containers_within_seconds(st: Stage, figure: Figure) -> None:
    names = [f"n{number}" for number in range(100)]
    documents = [st.container(name, "sleep 1000") for name in names]
    st.must_apply(*documents)
    before = {name: proc.start_time(st.pid(name)) for name in names}
    agent = st.node.running[-1]
    agent.kill()
    agent.wait()
    dead = st.pid("n50")
    os.kill(dead, signal.SIGKILL)
    st.node.spawn("agent")
    took = again(st, "n50", dead, 30)
    figure("until a new agent had taken up 100 containers and started one that died meanwhile", took, "s")
    del before["n50"]
    assert {name: proc.start_time(st.pid(name)) for name in before} == before
    st.delete(*(f"container/{name}" for name in names))
