"""Tasks in virtual machines pass the suite of every Shim."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from core.runtime.ports import TaskPhase
from tests.conformance.shim_contract import ShimContract, eventually, leave_out, running
from tests.conformance.shim_vm_ground import VmGround, why_not

LACKS: Final[Mapping[str, str]] = {
    "test_everyone_is_signalled_when_everyone_is_meant": "pids: none of this node is the task's own (see below)",
}
"""The tests of the suite that do not hold for machines, and why."""
INSTEAD: Final[Mapping[str, str]] = {
    "test_everyone_is_signalled_when_everyone_is_meant": (
        "test_everyone_in_the_guest_is_signalled_and_the_machine_goes_on"
    ),
}
"""Of these, which test shows the same in a machine's way."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmGround]:
    if reason := why_not():
        pytest.skip(reason)
    ground = VmGround(tmp_path_factory.mktemp("vm"))
    try:
        ground.boot_machine()
        yield ground
    finally:
        ground.end()


@pytest.fixture
def ground(machine: VmGround) -> Iterator[VmGround]:
    machine.boot_machine()
    machine.logs.mkdir(exist_ok=True)
    yield machine
    machine.clear()


@pytest.fixture(autouse=True)
def lacking(request: pytest.FixtureRequest) -> None:
    """Leave out what the table names."""
    leave_out(request, LACKS)


class TestTasksInAMachine(ShimContract):
    """The suite."""


def test_every_test_that_is_left_out_is_one_of_the_suite() -> None:
    assert [name for name in LACKS if not hasattr(ShimContract, name)] == []


def test_everyone_in_the_guest_is_signalled_and_the_machine_goes_on(ground: VmGround) -> None:
    shim = running(ground, "sh", "-c", "sleep 1000 & sleep 1000 & wait; exit 9")
    eventually(lambda: shim.stats("one").pids == 3)
    assert shim.pids("one") == [shim.state("one").pid.pid]  # type: ignore[union-attr]  # it runs
    shim.kill("one", signal.SIGTERM, everyone=True)
    exit = shim.wait("one", 10)
    assert exit is not None
    assert exit.code in (9, 143)
    assert running(ground, id="two").state("two").phase is TaskPhase.RUNNING
