"""gVisor under conmon passes the suite of every Shim, but for what its sentry does otherwise."""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from core import cgroups
from core.clock import SystemClock
from core.errors import NotFound, Unsupported
from core.process import Launcher
from core.runtime.gvisor import GvisorShim
from core.runtime.node import Device
from core.runtime.ports import ExecSpec, TaskPhase
from tests.conformance.shim_contract import ShimContract, eventually, leave_out, running
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible

pytestmark = pytest.mark.root

LACKS: Final[Mapping[str, str]] = {
    "test_a_command_that_is_not_there_fails_create_and_can_be_deleted": "runsc looks for the command at its start",
    "test_everyone_is_signalled_when_everyone_is_meant": "pids: what runs behind the sentry has no numbers on the node",
    "test_limits_change_in_place": "pids: threads of the sentry count too, so the limit has room (memory: see below)",
}
"""The tests of the suite that do not hold for gVisor, and why."""
INSTEAD: Final[Mapping[str, str]] = {
    "test_a_command_that_is_not_there_fails_create_and_can_be_deleted": (
        "test_a_command_that_is_not_there_fails_start_and_can_be_deleted"
    ),
    "test_everyone_is_signalled_when_everyone_is_meant": "test_everyone_behind_the_sentry_is_signalled",
    "test_limits_change_in_place": "test_a_memory_limit_changes_in_place",
}
"""Of these, which test shows the same in gVisor's way."""


class GvisorGround(OciGround):
    """An instance whose driver is gVisor's."""

    def again(self) -> GvisorShim:
        """The driver of a new engine."""
        tracking = self.found.tracking
        assert tracking is not None
        self.helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        return GvisorShim(self.state, self.group, Launcher(self.helpers), SystemClock(), self.boot, self.tools.runtime)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    if shutil.which("runsc") is None:
        pytest.skip("not installed: runsc")
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[GvisorGround]:
    ground = GvisorGround(tmp_path, root, "runsc")
    yield ground
    ground.end()


@pytest.fixture(autouse=True)
def lacking(request: pytest.FixtureRequest) -> None:
    """Leave out what the table names."""
    leave_out(request, LACKS)


class TestGvisorUnderConmon(ShimContract):
    """The suite."""


def test_every_test_that_is_left_out_is_one_of_the_suite() -> None:
    assert [name for name in LACKS if not hasattr(ShimContract, name)] == []


def test_everyone_behind_the_sentry_is_signalled(ground: GvisorGround) -> None:
    shim = running(
        ground,
        "sh",
        "-c",
        "trap : TERM; (trap 'echo child; exit' TERM; echo up; while :; do sleep 0.05; done) & wait; wait",
    )
    log = ground.task("x").log
    eventually(lambda: b"up" in log.read_bytes())
    shim.kill("one", signal.SIGTERM, everyone=True)
    assert shim.wait("one", 20) == shim.state("one").exit
    eventually(lambda: b"child" in log.read_bytes())


def test_a_command_that_is_not_there_fails_start_and_can_be_deleted(ground: GvisorGround) -> None:
    ground.shim.prepare(ground.task("no-such-program"))
    ground.shim.create("one")
    with pytest.raises(NotFound, match="no-such-program"):
        ground.shim.start("one")
    ground.shim.delete("one")


def test_a_memory_limit_changes_in_place(ground: GvisorGround) -> None:
    shim = running(ground, "sh", "-c", "sleep 1; x=y; while :; do x=$x$x; done", memory=1 << 30)
    shim.update("one", {"memory": {"limit": 16 << 20}})
    exit = shim.wait("one", 20)
    assert exit is not None
    assert (exit.code, exit.oom) == (137, True)


def test_a_memory_limit_is_raised_in_place(ground: GvisorGround) -> None:
    shim = running(ground, "sleep", "1000", memory=64 << 20)
    shim.update("one", {"memory": {"limit": 512 << 20, "swap": 512 << 20}})
    assert shim.state("one").exit is None


@pytest.mark.parametrize("what", ["pid", "user", "devices"])
def test_what_a_sentry_cannot_give_is_refused_by_name_and_leaves_nothing(ground: GvisorGround, what: str) -> None:
    task = ground.task("true")
    linux = dict(task.spec["linux"])
    if what == "devices":
        linux["devices"] = [Device.at("/dev/loop-control").to_oci()]
    else:
        linux["namespaces"] = [*linux["namespaces"], {"type": what, "path": f"/proc/self/ns/{what}"}]
    with pytest.raises(Unsupported, match="gVisor cannot"):
        ground.shim.prepare(replace(task, spec={**task.spec, "linux": linux}))
    assert ground.shim.state("one").phase is TaskPhase.ABSENT


def test_the_gofer_outlives_the_engine_that_made_it(ground: GvisorGround) -> None:
    shim = running(ground)
    cgroups.end(ground.helpers, SystemClock())
    assert shim.exec("one", ExecSpec(["sh", "-c", "ls / && echo x > /tmp/x"])) == 0
    ground.again()
