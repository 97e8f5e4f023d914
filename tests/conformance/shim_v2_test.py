"""containerd's shim passes the suite of every Shim, and is survived in every way that it can go."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups
from core.clock import SystemClock
from core.errors import AgentError, Denied, TimedOut, Unsupported
from core.proc import ProcessId
from core.process import Launcher
from core.runtime.ports import ExecSpec, IllegalMove, MonitorLost, TaskPhase
from core.runtime.shimv2 import bootstrap
from core.runtime.shimv2.driver import ShimV2
from core.runtime.shimv2.program import ShimProgram
from tests.conformance.shim_contract import ShimContract, eventually, running
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.killing import killed_in_a_call

pytestmark = pytest.mark.root
SHIM = "containerd-shim-runc-v2"


class ShimGround(OciGround):
    """The ground of OCI runtimes, with a shim's driver on it."""

    program = ShimProgram(SHIM)
    shim: ShimV2  # type: ignore[assignment]  # in place of the other driver

    def again(self) -> ShimV2:  # type: ignore[override]  # in place of the other driver
        """The driver of a new engine, with a helpers' group of its own, as each engine has."""
        tracking = self.found.tracking
        assert tracking is not None
        self.helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        return ShimV2(self.state, self.group, Launcher(self.helpers), SystemClock(), self.boot, self.program)

    def leftovers(self) -> list[str]:
        """As for OCI runtimes, and the folder of this runtime."""
        (self.state / self.tools.own_folder).mkdir(exist_ok=True)
        own = self.state / "shim" / SHIM
        return [*super().leftovers(), *(str(left) for left in own.glob("*/*"))]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    if shutil.which(SHIM) is None:
        pytest.skip(f"not installed: {SHIM}")
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[ShimGround]:
    ground = ShimGround(tmp_path, root)
    yield ground
    ground.end()


class TestContainerdsShimForRunc(ShimContract):
    """The suite, with nothing of its own."""


def shim_of(ground: ShimGround, id: str = "one") -> ProcessId:
    """The process of a task's shim."""
    return ProcessId.from_json(json.loads((ground.state / "bundles" / id / "shim.json").read_bytes()))


def test_a_shim_that_is_killed_is_seen_at_once_and_its_neighbour_goes_on(ground: ShimGround) -> None:
    running(ground, id="one")
    running(ground, id="two")
    shim_of(ground).signal(signal.SIGKILL)
    with pytest.raises(MonitorLost):
        ground.shim.wait("one", 5)
    assert ground.shim.state("one").phase is TaskPhase.LOST
    assert ground.shim.state("two").phase is TaskPhase.RUNNING
    first = ground.shim.state("one").pid
    assert first is not None
    assert ground.shim.delete("one") is None
    assert not first.alive(ground.boot)
    assert ground.shim.exec("two", ExecSpec(["true"])) == 0


def test_a_minder_that_is_killed_makes_its_task_lost_and_it_can_be_deleted(ground: ShimGround) -> None:
    monitor = running(ground).state("one").monitor
    assert monitor is not None
    shim = shim_of(ground)
    monitor.signal(signal.SIGKILL)
    with pytest.raises(MonitorLost):
        ground.shim.wait("one", 5)
    ground.shim.delete("one")
    assert not shim.alive(ground.boot)


def test_a_shim_that_hangs_is_ended_with_its_task(ground: ShimGround) -> None:
    running(ground)
    shim = shim_of(ground)
    shim.signal(signal.SIGSTOP)
    assert ground.shim.state("one").phase is TaskPhase.RUNNING
    ground.shim.delete("one")
    assert not shim.alive(ground.boot)


def test_shims_and_minders_outlive_the_group_of_the_engine_that_started_them(ground: ShimGround) -> None:
    running(ground)
    assert cgroups.members(ground.helpers) == []


def test_an_exit_is_recorded_although_nobody_was_there(ground: ShimGround) -> None:
    running(ground, "sh", "-c", "sleep 0.3; echo last words; exit 9")
    again = ground.again()
    eventually(lambda: again.state("one").phase is TaskPhase.STOPPED)
    exit = again.state("one").exit
    assert exit is not None
    assert exit.code == 9
    assert abs(exit.at - time.time()) < 10
    assert b"last words" in ground.task("x").log.read_bytes()


def test_no_socket_is_left_where_shims_keep_theirs(ground: ShimGround) -> None:
    running(ground)
    path = bootstrap.kept(ground.state / "bundles/one").path
    assert path.exists()
    ground.shim.delete("one")
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [("exit 1", AgentError), ("echo nonsense", AgentError), ("echo 'unix:///etc/passwd'", Denied)],
)
def test_a_program_that_is_no_shim_leaves_a_task_that_can_be_deleted(
    ground: ShimGround, text: str, error: type[AgentError]
) -> None:
    program = ground.state.parent / "containerd-shim-bad-v1"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    ground.program = ShimProgram(str(program))
    bad = ground.again()
    bad.prepare(ground.task("true"))
    with pytest.raises(error):
        bad.create("one")
    assert bad.state("one").phase is TaskPhase.HALF_MADE
    assert bad.delete("one") is None


def test_a_short_command_is_answered_bounded_and_ended_in_time(ground: ShimGround) -> None:
    shim = running(ground)
    assert shim.ask("one", ["sh", "-c", "echo no; echo because >&2; exit 3"], 10) == (3, "because")
    assert shim.ask("one", ["true"], 10) == (0, "")
    code, said = shim.ask("one", ["sh", "-c", "yes | head -c 1000000"], 10)
    assert code == 0
    assert len(said) <= 500
    with pytest.raises(TimedOut):
        shim.ask("one", ["sh", "-c", "sleep 777; true"], 0.3)
    eventually(lambda: len(shim.pids("one")) == 1)
    assert list((ground.state / "bundles/one").glob("exec-*")) == []


def test_a_log_that_is_rotated_goes_on_under_its_name(ground: ShimGround) -> None:
    shim = running(ground, "sh", "-c", "while :; do echo tick; sleep 0.02; done")
    log = ground.task("x").log
    eventually(lambda: log.stat().st_size > 0)
    log.rename(log.with_name(f"{log.name}.1"))
    assert shim.reopen_log("one")
    eventually(lambda: log.exists() and b"tick" in log.read_bytes())


def test_a_checkpoint_is_asked_of_the_runtime_and_its_complaint_is_told(ground: ShimGround, tmp_path: Path) -> None:
    """Without a CRIU that works on the node it is refused, and the task goes on."""
    running(ground)
    shim = ground.shim
    with pytest.raises(IllegalMove):
        shim.checkpoint("nobody", tmp_path)
    if shim.why_no_checkpoint(ending=False):
        with pytest.raises(Unsupported, match="criu"):
            shim.checkpoint("one", tmp_path / "image")
    assert shim.state("one").phase is TaskPhase.RUNNING


_ENGINE = """
import sys
from pathlib import Path
from core import proc
from core.clock import SystemClock
from core.process import Launcher
from core.runtime.shimv2.driver import ShimV2
from core.runtime.shimv2.program import ShimProgram
state, group, helpers, shim = sys.argv[1:]
driver = ShimV2(Path(state), group, Launcher(Path(helpers)), SystemClock(), proc.boot_id(), ShimProgram(shim))
print("ready", flush=True)
sys.stdin.readline()
driver.create("one")
driver.start("one")
driver.delete("one")
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
def test_an_engine_that_is_killed_anywhere_leaves_what_delete_removes(ground: ShimGround, delay: float) -> None:
    ground.shim.prepare(ground.task("sleep", "1000"))
    said, _ = killed_in_a_call(_ENGINE, ground.state, ground.group, ground.helpers, SHIM, seconds=delay)
    assert said == b"ready\n"
    cgroups.end(ground.helpers, SystemClock())  # as the next engine does before anything else
    again = ground.again()
    again.sweep()
    again.delete("one")
    assert again.state("one").phase is TaskPhase.ABSENT
