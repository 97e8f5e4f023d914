"""Killed at any moment, a task under conmon is still seen as what it is, and can always be deleted whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups
from core.clock import SystemClock
from core.errors import AgentError
from core.process import find
from core.runtime.oci import OciShim, Tools
from core.runtime.ports import MonitorLost, TaskPhase
from tests.conformance.shim_contract import eventually, run, running
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.killing import killed_in_a_call
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

_ENGINE = """
import sys
from pathlib import Path
from tests.conformance.shim_ground import OciGround
ground = OciGround.__new__(OciGround)
state, root, logs, ground.group, what = sys.argv[1:]
ground.open(Path(state), Path(root), Path(logs))
print(ground.helpers, flush=True)
sys.stdin.readline()
if what == "make":
    ground.shim.prepare(ground.task("sleep", "1000"))
    ground.shim.create("one")
    ground.shim.start("one")
else:
    ground.shim.delete("one")
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(params=RUNTIMES)
def ground(tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> Iterator[OciGround]:
    ground = OciGround(tmp_path, root, request.param)
    yield ground
    ground.end()


def killed_engine(ground: OciGround, what: str, after: float) -> None:
    """Run one call in a process of its own and kill that and its helpers `after` seconds from the call's begin."""
    said, _ = killed_in_a_call(_ENGINE, ground.state, ground.root, ground.logs, ground.group, what, seconds=after)
    helpers = Path(said.decode().strip())
    # A new engine's first act. The killed one's group is gone for ever: a helper that comes late gives up.
    assert helpers.is_absolute()
    cgroups.end(helpers, SystemClock())
    ground.shim = ground.again()
    ground.shim.sweep()


@pytest.mark.parametrize("after", [step * 0.006 for step in range(16)])
def test_an_engine_killed_while_it_makes_a_task_leaves_nothing_that_delete_misses(
    ground: OciGround, after: float
) -> None:
    killed_engine(ground, "make", after)
    phase = ground.shim.state("one").phase
    assert phase in {
        TaskPhase.ABSENT,
        TaskPhase.PREPARED,
        TaskPhase.HALF_MADE,
        TaskPhase.CREATED,
        TaskPhase.RUNNING,
    }
    ground.shim.delete("one")
    assert ground.leftovers() == []


@pytest.mark.parametrize("after", [step * 0.006 for step in range(8)])
def test_an_engine_killed_while_it_deletes_a_task_can_be_followed_by_another(ground: OciGround, after: float) -> None:
    running(ground)
    killed_engine(ground, "delete", after)
    ground.shim.delete("one")
    assert ground.leftovers() == []


def test_a_task_whose_monitor_was_killed_is_lost_and_still_runs(ground: OciGround) -> None:
    shim = running(ground)
    state = shim.state("one")
    assert state.monitor is not None
    assert state.pid is not None
    state.monitor.signal(signal.SIGKILL)
    eventually(lambda: shim.state("one").phase is TaskPhase.LOST)
    assert state.pid.alive(ground.boot)
    with pytest.raises(MonitorLost):
        shim.wait("one", 5)
    assert shim.delete("one") is None
    assert not state.pid.alive(ground.boot)


def test_a_monitor_and_a_task_killed_together_leave_a_lost_task(ground: OciGround) -> None:
    shim = running(ground)
    state = shim.state("one")
    assert state.monitor is not None
    state.monitor.signal(signal.SIGSTOP)
    shim.kill("one", signal.SIGKILL)
    eventually(lambda: state.pid is not None and not state.pid.alive(ground.boot))
    assert shim.state("one").phase is TaskPhase.RUNNING, "its end is not known yet"
    state.monitor.signal(signal.SIGKILL)
    eventually(lambda: shim.state("one").phase is TaskPhase.LOST)


def test_monitors_and_tasks_survive_the_end_of_the_helpers(ground: OciGround) -> None:
    shim = running(ground)
    before = shim.state("one")
    cgroups.end(ground.helpers, SystemClock())
    time.sleep(0.05)
    assert ground.again().state("one") == before


def test_another_boot_voids_what_runs_but_not_an_exit_that_was_written(ground: OciGround) -> None:
    running(ground, id="runs")
    run(ground, "sh", "-c", "exit 4", id="ended")
    ground.shim.prepare(ground.task("true", id="prepared"))
    boot, ground.boot = ground.boot, "another boot"
    after: OciShim = ground.again()
    ground.boot = boot
    assert after.state("runs").phase is TaskPhase.LOST
    assert after.state("prepared").phase is TaskPhase.HALF_MADE
    exit = after.state("ended").exit
    assert exit is not None
    assert exit.code == 4


def _wrapped(ground: OciGround, folder: Path, on_create: str) -> OciShim:
    real = find(ground.tools.runtime)
    (folder / "wrapped").mkdir()
    wrapper = folder / "wrapped" / Path(real).name
    wrapper.write_text(f'#!/bin/sh\nreal={real}\ncase "$3" in create) {on_create};; esac\nexec "$real" "$@"\n')
    wrapper.chmod(0o755)
    ground.tools = Tools(runtime=str(wrapper))
    ground.shim = ground.again()
    return ground.shim


@pytest.mark.parametrize("on_create", ["kill -9 $$", '"$real" "$@"; kill -9 $$', "exit 1"])
def test_a_runtime_that_dies_in_create_leaves_nothing_after_delete(
    ground: OciGround, tmp_path: Path, on_create: str
) -> None:
    shim = _wrapped(ground, tmp_path, on_create)
    shim.prepare(ground.task("sleep", "1000"))
    with pytest.raises(AgentError):
        shim.create("one")
    assert shim.state("one").phase is TaskPhase.HALF_MADE
    shim.delete("one")
    assert ground.leftovers() == []


def test_a_monitor_killed_in_create_ends_the_call_with_an_error(ground: OciGround, tmp_path: Path) -> None:
    shim = _wrapped(ground, tmp_path, "exec sleep 1000")
    shim.prepare(ground.task("true"))
    failed: list[AgentError] = []

    def create() -> None:
        try:
            shim.create("one")
        except AgentError as error:
            failed.append(error)

    caller = threading.Thread(target=create)
    caller.start()
    pidfile = shim.bundles.path("one") / "monitor.pid"
    eventually(lambda: pidfile.exists() and pidfile.read_text())
    os.kill(int(pidfile.read_text()), signal.SIGKILL)
    caller.join(10)
    assert "before it said anything" in str(failed[0])
    shim.delete("one")


def test_a_missing_runtime_is_named_with_its_package(ground: OciGround) -> None:
    ground.tools = Tools(runtime="no-such-runtime")
    ground.shim = ground.again()
    ground.shim.prepare(ground.task("true"))
    with pytest.raises(AgentError, match="no-such-runtime is not on this node") as caught:
        ground.shim.create("one")
    assert "apt-get install" in caught.value.hint()
    assert ground.shim.state("one").phase is TaskPhase.PREPARED
    ground.tools = Tools()
    ground.shim = ground.again()
