"""Virtual machines pass the suite of every Sandboxer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import Unsupported
from core.process import Launcher
from core.runtime.ports import SandboxPhase
from core.runtime.vm import joining
from core.runtime.vm.frames import VERSION
from core.runtime.vm.link import connected, ended
from core.runtime.vm.sandboxes import VmSandboxer
from tests.conformance.sandboxer_contract import SandboxerContract, wanted
from tests.conformance.shim_contract import eventually
from tests.conformance.shim_vm_ground import VmGround, why_not


class VmYard:
    """One instance's machines."""

    def __init__(self, ground: VmGround) -> None:
        self.ground = ground
        self.boxer = ground.boxer()

    def again(self) -> VmSandboxer:
        """The driver of a new engine."""
        return self.ground.boxer()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[VmYard]:
    if reason := why_not():
        pytest.skip(reason)
    ground = VmGround(tmp_path)
    yield VmYard(ground)
    ground.end()


class TestMachines(SandboxerContract):
    """The suite."""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_machine_or_its_monitor_that_is_killed_takes_the_sandbox_along(yard: VmYard, victim: int) -> None:
    yard.boxer.create(wanted())
    made = yard.boxer.processes("box")
    assert made is not None
    made[victim].signal(signal.SIGKILL)
    eventually(lambda: yard.boxer.status("box").phase is SandboxPhase.HALF_MADE)
    eventually(lambda: not made[0].alive(yard.ground.boot))
    assert yard.boxer.create(wanted()).phase is SandboxPhase.READY
    assert yard.boxer.processes("box") != made


def test_a_machine_that_hangs_is_ended(yard: VmYard) -> None:
    yard.boxer.ping_seconds = 0.5
    yard.boxer.create(wanted())
    made = yard.boxer.processes("box")
    assert made is not None
    with connected(yard.boxer.folder("box"), SystemClock()) as link:
        link.call("hello", version=VERSION)
    os.kill(made[0].pid, signal.SIGSTOP)
    assert not yard.boxer.ping("box")
    eventually(lambda: not made[1].alive(yard.ground.boot), 20)
    assert yard.boxer.status("box").phase is SandboxPhase.HALF_MADE
    assert "did not answer" in ended(yard.boxer.folder("box"))


def attach(yard: VmYard, address: str) -> Path:
    """An interface as CNI makes one, in place of the one before; the namespace of the sandbox."""
    netns = Path(yard.boxer.status("box").namespaces["network"])
    enter = ["nsenter", f"--net={netns}", "ip"]
    subprocess.run([*enter, "link", "del", "eth0"], check=False, capture_output=True)
    for words in ("link add eth0 type veth peer name far", f"addr add {address}/24 dev eth0", "link set eth0 up"):
        subprocess.run([*enter, *words.split()], check=True)
    return netns


def test_a_machine_is_joined_to_the_interface_that_is_there_now(yard: VmYard) -> None:
    boxer, launcher = yard.boxer, Launcher()
    boxer.create(wanted())
    netns = attach(yard, "10.9.9.2")
    assert not joining.is_joined(netns, launcher)
    boxer.start("box")
    assert joining.is_joined(netns, launcher)
    with connected(boxer.folder("box"), SystemClock()) as link:
        link.call("hello", 30.0, version=VERSION)
        boxer.configure("box", link)
        assert boxer.create(wanted()).phase is SandboxPhase.READY  # the engine attaches it anew, and is killed
        attach(yard, "10.9.9.3")
        assert not joining.is_joined(netns, launcher)
        yard.again().sweep()
        assert joining.is_joined(netns, launcher)
    assert boxer.ping("box")


def test_the_nodes_own_network_is_refused_and_leaves_nothing(yard: VmYard) -> None:
    with pytest.raises(Unsupported):
        yard.boxer.create(wanted(network="host"))
    assert yard.boxer.status("box").phase is SandboxPhase.ABSENT
