"""Tasks in virtual machines pass the suite of every Shim."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.shim_contract import ShimContract
from tests.conformance.shim_vm_ground import VmGround, why_not


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


class TestTasksInAMachine(ShimContract):
    """The suite."""
