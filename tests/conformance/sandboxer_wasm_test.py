"""Sandboxes of WASM tasks pass the suite of every Sandboxer, without namespaces and without root."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import Unsupported
from core.runtime.ports import SandboxPhase
from core.runtime.wasm_sandboxes import WasmSandboxer
from tests.conformance.sandboxer_contract import SandboxerContract, wanted
from tests.conformance.shim_wasm_ground import WasmGround


class WasmYard:
    """One instance's sandboxes, beside its tasks."""

    def __init__(self, ground: WasmGround) -> None:
        self.ground = ground
        self.boxer = self.again()

    def again(self, boot: str = "") -> WasmSandboxer:
        """The driver of a new engine, or of another boot."""
        return WasmSandboxer(self.ground.state, self.ground.group, SystemClock(), boot or self.ground.boot)

    def end(self) -> None:
        """Remove all, and see that all is gone."""
        for id in list(self.boxer.sandboxes()):
            self.boxer.shutdown(id)
        assert list((self.ground.state / "netns").iterdir()) == []


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[WasmYard]:
    ground = WasmGround(tmp_path)
    yard = WasmYard(ground)
    try:
        yield yard
        yard.end()
    finally:
        ground.end()


class TestSandboxesOfModules(SandboxerContract):
    """The suite."""


def test_a_sandbox_of_another_boot_is_made_anew(yard: WasmYard) -> None:
    yard.boxer.create(wanted())
    after = yard.again("another boot")
    assert after.status("box").phase is SandboxPhase.HALF_MADE
    assert after.create(wanted()).phase is SandboxPhase.READY


@pytest.mark.parametrize("network", ["host", "bridge"])
def test_a_network_is_refused_and_leaves_nothing(yard: WasmYard, network: str) -> None:
    with pytest.raises(Unsupported):
        yard.boxer.create(wanted(network=network))
    assert yard.boxer.status("box").phase is SandboxPhase.ABSENT


def test_stopping_ends_what_runs_in_it(yard: WasmYard) -> None:
    yard.boxer.create(wanted())
    shim = yard.ground.shim
    shim.prepare(yard.ground.task("sleep", "1000"))
    shim.create("one")
    shim.start("one")
    yard.boxer.stop("box", 5.0)
    exit = shim.wait("one", 5)
    assert exit is not None
    assert exit.code == 128 + signal.SIGTERM
    shim.delete("one")
