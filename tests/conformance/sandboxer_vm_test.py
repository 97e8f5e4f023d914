"""Virtual machines pass the suite of every Sandboxer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import Unsupported
from core.runtime.ports import SandboxPhase
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


def test_the_nodes_own_network_is_refused_and_leaves_nothing(yard: VmYard) -> None:
    with pytest.raises(Unsupported):
        yard.boxer.create(wanted(network="host"))
    assert yard.boxer.status("box").phase is SandboxPhase.ABSENT
