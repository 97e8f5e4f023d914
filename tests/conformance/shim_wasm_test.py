"""WASM modules pass the suite of every Shim, but for what a module cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from core.errors import Unsupported
from core.runtime.ports import ExecSpec
from tests.conformance.shim_contract import ShimContract, leave_out, running
from tests.conformance.shim_wasm_ground import WasmGround

LACKS: Final[Mapping[str, str]] = {
    "test_a_signal_that_the_program_minds_ends_it": "WASI has no signals: one that ends processes ends the module",
    "test_everyone_is_signalled_when_everyone_is_meant": "a module is one process and starts none",
    "test_exec_returns_the_programs_code": "exec: there is nothing in a module to run a command by",
    "test_exec_takes_user_folder_and_environment": "exec: likewise",
    "test_limits_change_in_place": "pids: a module starts no processes (memory and cpu do change, see below)",
    "test_a_task_over_its_memory_is_killed_and_says_so": "memory.grow is refused instead, and the module may mind it",
    "test_stdin_can_be_closed": "stdin: it is always at its end",
    "test_a_terminal_has_the_size_it_is_told": "terminal: WASI has none",
}
"""The tests of the suite that do not hold for modules, and why. `pause` and `resume` are SIGSTOP and SIGCONT."""
INSTEAD: Final[Mapping[str, str]] = {
    "test_limits_change_in_place": "test_its_share_of_the_processor_changes_in_place",
}
"""Of these, which test shows the same in a module's way."""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[WasmGround]:
    ground = WasmGround(tmp_path)
    yield ground
    ground.end()


@pytest.fixture(autouse=True)
def lacking(request: pytest.FixtureRequest) -> None:
    """Leave out what the table names."""
    leave_out(request, LACKS)


class TestModulesUnderTheirMonitor(ShimContract):
    """The suite."""


def test_every_test_that_is_left_out_is_one_of_the_suite() -> None:
    assert [name for name in LACKS if not hasattr(ShimContract, name)] == []


@pytest.mark.root
def test_its_share_of_the_processor_changes_in_place(ground: WasmGround) -> None:
    shim = running(ground, cpu=1.0)
    shim.update("one", {"cpu": {"quota": 50_000, "period": 100_000}})
    group, found = f"{ground.group.lstrip('/')}/box/one", ground.found
    if (hierarchy := found.v1.get("cpu")) is not None:
        assert (hierarchy / group / "cpu.cfs_quota_us").read_text().split() == ["50000"]
    else:
        assert found.v2 is not None
        assert (found.v2 / group / "cpu.max").read_text().split() == ["50000", "100000"]


def test_what_a_module_cannot_have_is_refused_and_leaves_it_running(ground: WasmGround) -> None:
    shim = running(ground)
    with pytest.raises(Unsupported):
        shim.exec("one", ExecSpec(["true"]))
    with pytest.raises(Unsupported):
        shim.ask("one", ["true"], 1.0)
    shim.resize("one", 80, 25)
    shim.close_io("one")
    assert shim.wait("one", 0.05) is None
    for flag in ("terminal", "stdin"):
        with pytest.raises(Unsupported):
            shim.prepare(ground.task("true", id=flag, **{flag: True}))
    assert list(shim.tasks()) == ["one"]
