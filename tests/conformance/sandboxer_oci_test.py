"""Pinned namespaces pass the suite of every Sandboxer, and hold what tasks share."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups, mounts, proc, syscalls
from core.clock import SystemClock
from core.errors import AgentError, Invalid, MissingTool, Unsupported
from core.process import Launcher
from core.runtime import limits, sandboxes, spec
from core.runtime.ports import SandboxPhase, SandboxState
from core.runtime.sandboxes import OciSandboxer
from tests.conformance.sandboxer_contract import SandboxerContract, wanted
from tests.conformance.shim_contract import eventually, said
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.killing import killed_in_a_call

pytestmark = pytest.mark.root


class OciYard:
    """One instance's sandboxes, beside its tasks."""

    def __init__(self, ground: OciGround) -> None:
        self.ground = ground
        self.boxer = self.again()

    def again(self, boot: str = "") -> OciSandboxer:
        """The driver of a new engine, or of another boot."""
        launcher = Launcher(self.ground.helpers)
        return OciSandboxer(self.ground.state, self.ground.group, SystemClock(), boot or self.ground.boot, launcher)

    def end(self) -> None:
        """Remove all, and see that all is gone."""
        for id in list(self.boxer.sandboxes()):
            self.boxer.shutdown(id)
        assert list((self.ground.state / "netns").iterdir()) == []
        assert proc.mounts(str(self.ground.state)) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def yard(tmp_path: Path, root: Path) -> Iterator[OciYard]:
    ground = OciGround(tmp_path, root)
    yard = OciYard(ground)
    try:
        yield yard
        yard.end()
    finally:
        mounts.detach_below(ground.state)
        ground.end()


def told(yard: OciYard, state: SandboxState, script: str, id: str = "one") -> str:
    """What a task in that sandbox says."""
    return said(yard.ground, "sh", "-c", script, id=id, namespaces=state.namespaces, files=state.files)


class TestPinnedNamespaces(SandboxerContract):
    """The suite."""


def test_tasks_of_one_sandbox_share_network_memory_and_names(yard: OciYard) -> None:
    state = yard.boxer.create(wanted(dns_servers=["192.0.2.1"], dns_searches=["example"], dns_options=["ndots:1"]))
    namespaces = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done"
    first = told(yard, state, f"echo shared > /dev/shm/x; {namespaces}")
    assert first == told(yard, state, namespaces)
    assert len(first.splitlines()) == 3
    assert told(yard, state, "cat /dev/shm/x; hostname; cat /etc/hostname") == "shared\ntests\ntests"
    assert told(yard, state, "cat /etc/resolv.conf") == "nameserver 192.0.2.1\nsearch example\noptions ndots:1"
    assert "127.0.0.1\tlocalhost" in told(yard, state, "cat /etc/hosts")


def test_loopback_is_up_without_a_network(yard: OciYard) -> None:
    state = yard.boxer.create(wanted())
    text = told(yard, state, "ip -o link; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo answers")
    assert "LOOPBACK,UP" in text
    assert "answers" in text


def test_on_the_hosts_network_the_hosts_files_are_seen_and_cannot_be_changed(yard: OciYard) -> None:
    state = yard.boxer.create(wanted(network="host"))
    assert "network" not in state.namespaces
    assert os.readlink("/proc/self/ns/net") == told(yard, state, "readlink /proc/self/ns/net")
    assert told(yard, state, "cat /etc/hosts").strip() == Path("/etc/hosts").read_text().strip()
    assert "Read-only" in told(yard, state, "echo x >> /etc/hosts")
    assert told(yard, state, "hostname") == "tests"
    assert socket.gethostname() != "tests"


def test_sysctls_are_set_inside_and_only_inside(yard: OciYard) -> None:
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shmmax": "123456"}
    files = [Path("/proc/sys", name.replace(".", "/")) for name in sysctls]
    host = [file.read_text() for file in files]
    state = yard.boxer.create(wanted(sysctls=sysctls))
    assert told(yard, state, f"cat {files[0]} {files[1]}").split() == ["7", "123456"]
    assert host == [file.read_text() for file in files]


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("none", "kernel.core_pattern"),
        ("none", "vm.overcommit_memory"),
        ("host", "net.ipv4.ip_forward"),
        ("none", "net.../x"),
    ],
)
def test_a_sysctl_of_the_host_is_refused(yard: OciYard, network: str, name: str) -> None:
    with pytest.raises(Invalid):
        yard.boxer.create(wanted(network=network, sysctls={name: "1"}))
    assert yard.boxer.status("box").phase is SandboxPhase.ABSENT


def test_a_sysctl_that_the_kernel_refuses_leaves_nothing(yard: OciYard) -> None:
    with pytest.raises(AgentError):
        yard.boxer.create(wanted(sysctls={"net.no.such": "1"}))
    assert yard.boxer.status("box").phase is SandboxPhase.ABSENT


def test_what_is_not_built_yet_is_refused(yard: OciYard) -> None:
    with pytest.raises(Unsupported):
        yard.boxer.create(wanted(network="bridge"))


def test_tasks_that_share_processes_see_and_signal_each_other(yard: OciYard) -> None:
    state = yard.boxer.create(wanted(share_processes=True))
    assert state.pid is not None
    assert told(yard, state, "cat /proc/1/comm") == "catatonit"
    shim = yard.ground.shim
    shim.prepare(yard.ground.task("sleep", "1000", namespaces=state.namespaces, files=state.files))
    shim.create("one")
    shim.start("one")
    script = "for p in /proc/[0-9]*; do read name < $p/comm; test $name = sleep && kill -9 ${p#/proc/}; done"
    told(yard, state, script, id="two")
    exit = shim.wait("one", 10)
    assert exit is not None
    assert exit.code == 137
    shim.delete("one")
    assert yard.again().create(wanted(share_processes=True)) == state
    yard.boxer.shutdown("box")
    assert not state.pid.alive(yard.ground.boot)


def test_the_first_process_of_a_sandbox_gives_nothing_of_the_host_away(yard: OciYard) -> None:
    state = yard.boxer.create(wanted(share_processes=True))
    script = "ls -A /proc/1/root/; grep -E '^(Cap(Prm|Eff|Inh)|NoNewPrivs)' /proc/1/status | cut -f2; ls /proc/1/fd"
    security = spec.Security(add=("SYS_PTRACE",))  # who may look into everything in its own namespace
    seen = said(
        yard.ground, "sh", "-c", script, namespaces=state.namespaces, files=state.files, security=security
    ).splitlines()
    assert seen[0] == "catatonit"
    assert {int(number, 16) for number in seen[1:4]} == {0}
    assert seen[4] == "1"
    assert "catatonit\n" not in told(yard, state, "mount").splitlines()


def test_a_task_that_shares_processes_ends_with_its_first_process(yard: OciYard) -> None:
    state = yard.boxer.create(wanted(share_processes=True))
    shim = yard.ground.shim
    command = ("sh", "-c", "sleep 1000 & exit 7")
    shim.prepare(yard.ground.task(*command, namespaces=state.namespaces, files=state.files))
    shim.create("one")
    shim.start("one")
    exit = shim.wait("one", 20)
    assert exit is not None
    assert exit.code == 7
    shim.delete("one")
    assert "sleep" not in told(yard, state, "cat /proc/[0-9]*/comm")


def test_a_sandbox_whose_first_process_was_killed_is_made_anew(yard: OciYard) -> None:
    state = yard.boxer.create(wanted(share_processes=True))
    assert state.pid is not None
    state.pid.signal(signal.SIGKILL)
    eventually(lambda: yard.boxer.status("box").phase is SandboxPhase.HALF_MADE)
    after = yard.boxer.create(wanted(share_processes=True))
    assert after.phase is SandboxPhase.READY
    assert after.pid != state.pid


def test_without_the_first_process_program_nothing_is_made(yard: OciYard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "_PAUSE", "no-such-catatonit")
    with pytest.raises(MissingTool, match="no-such-catatonit is not on this node"):
        yard.boxer.create(wanted(share_processes=True))
    assert yard.boxer.status("box").phase is SandboxPhase.ABSENT


@pytest.mark.parametrize("missing", ["network", "ipc", "uts", "shm"])
def test_a_sandbox_that_lost_a_pin_is_made_anew(yard: OciYard, missing: str) -> None:
    yard.boxer.create(wanted())
    syscalls.umount(str(yard.ground.state / "netns/box" / missing))
    assert yard.boxer.status("box").phase is SandboxPhase.HALF_MADE
    assert yard.boxer.create(wanted()).phase is SandboxPhase.READY


def test_a_sandbox_of_another_boot_is_made_anew(yard: OciYard) -> None:
    yard.boxer.create(wanted())
    after = yard.again("another boot")
    assert after.status("box").phase is SandboxPhase.HALF_MADE
    assert after.create(wanted()).phase is SandboxPhase.READY


def test_limits_of_a_sandbox_hold_all_its_tasks(yard: OciYard) -> None:
    yard.boxer.create(wanted(resources={"pids": {"limit": 50}, "memory": {"limit": 32 << 20, "swap": 32 << 20}}))
    found = yard.ground.found
    if "memory" in found.v1:
        folder = found.v1["memory"] / yard.boxer.cgroup("box").lstrip("/")
        assert cgroups.read_int(folder / "memory.limit_in_bytes") == 32 << 20
    text = told(yard, yard.boxer.status("box"), "x=y; while :; do x=$x$x; done")
    assert text == ""


def test_stopping_ends_what_runs_in_it(yard: OciYard) -> None:
    state = yard.boxer.create(wanted())
    shim = yard.ground.shim
    shim.prepare(yard.ground.task("sleep", "1000", namespaces=state.namespaces, files=state.files))
    shim.create("one")
    shim.start("one")
    yard.boxer.stop("box", 0.1)
    exit = shim.wait("one", 5)
    assert exit is not None
    assert exit.code == 137
    shim.delete("one")


_MAKER = """
import sys
from pathlib import Path
from core import cgroups, proc
from core.process import Launcher
from core.clock import SystemClock
from core.runtime.sandboxes import OciSandboxer
from tests.conformance.sandboxer_contract import wanted
helpers = cgroups.make(cgroups.hierarchies().tracking, sys.argv[2] + "/helpers-maker")
boxer = OciSandboxer(Path(sys.argv[1]), sys.argv[2], SystemClock(), proc.boot_id(), Launcher(helpers))
print("ready", flush=True)
sys.stdin.readline()
boxer.create(wanted(share_processes=sys.argv[3] == "share"))
boxer.shutdown("box")
print("done", flush=True)
"""


@pytest.mark.parametrize(("share", "pause"), [("", 0.003), ("share", 0.012)])
def test_an_engine_killed_anywhere_in_making_and_removing_leaves_nothing(
    yard: OciYard, share: str, pause: float
) -> None:
    ground = yard.ground
    helpers = f"{ground.group}/helpers-maker"
    for step in range(7):
        said, engine = killed_in_a_call(_MAKER, ground.state, ground.group, share, seconds=step * pause)
        assert said == b"ready\n"
        assert engine.poll() is not None
        limits.end_all(ground.found, helpers, SystemClock(), within=10)  # as the next engine does first of all
        yard.boxer.sweep()
        yard.boxer.shutdown("box")
        assert limits.pids_below(ground.found, f"{ground.group}/monitors") == []
        yard.end()
