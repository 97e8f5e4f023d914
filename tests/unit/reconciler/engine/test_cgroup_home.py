import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups, proc
from core.clock import SystemClock
from core.process import Launcher
from reconciler.engine.cgroup_home import CgroupHome

CLOCK = SystemClock()
INSTANCE = f"{os.getpid():08x}"


@pytest.fixture
def tracking() -> Iterator[Path]:
    found = cgroups.hierarchies().tracking
    if found is None:
        pytest.skip("no control group hierarchy can be written here (needs root)")
    yield found
    cgroups.end(found / f"reconciler-{INSTANCE}", CLOCK)


def wait_inside(group: Path, child: subprocess.Popen[bytes]) -> None:
    while child.pid not in cgroups.members(group):
        assert child.poll() is None


def a_dead_engine(tracking: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    """What an engine leaves that is killed while it has a child, and a grandchild in a group below."""
    group = tracking / f"reconciler-{INSTANCE}" / "helpers" / "1-1"
    below = group / "below"
    below.mkdir(parents=True)
    child = Launcher(group).start(["/bin/sh", "-c", f"(echo 0 >{below}/cgroup.procs; sleep 1000) & sleep 1000"])
    while not (cgroups.members(group) and cgroups.members(below)):
        assert child.poll() is None
    return group, child


def test_what_a_dead_engine_left_is_ended_before_the_next_one_begins(tracking: Path) -> None:
    group, child = a_dead_engine(tracking)
    left = [*cgroups.members(group), *cgroups.members(group / "below")]
    CgroupHome(tracking, INSTANCE, CLOCK).enter()
    assert child.wait(10) == -9
    assert not group.exists()
    boot = proc.boot_id()
    assert not any(seen.alive(boot) for pid in left if (seen := proc.ProcessId.of(pid, boot)) is not None)


def test_a_latecomer_of_a_dead_engine_gives_up(tracking: Path) -> None:
    group, child = a_dead_engine(tracking)
    CgroupHome(tracking, INSTANCE, CLOCK).enter()
    assert Launcher(group).run(["/bin/echo", "still here"]).code == 125
    child.wait(10)


def test_children_enter_the_group_of_this_life_and_end_with_it(tracking: Path) -> None:
    home = CgroupHome(tracking, INSTANCE, CLOCK)
    launcher = home.enter()
    assert launcher.group is not None
    assert launcher.group.name == f"{os.getpid()}-{proc.start_time(os.getpid())}"
    said = launcher.run(["cat", "/proc/self/cgroup"]).text()
    assert f"/reconciler-{INSTANCE}/helpers/{launcher.group.name}" in said
    child = launcher.start(["sleep", "1000"])
    wait_inside(launcher.group, child)
    home.leave()
    assert child.wait(10) == -9
    assert not (tracking / f"reconciler-{INSTANCE}").exists()
    home.leave()


def test_monitors_stay_when_the_engine_goes_and_when_the_next_one_comes(tracking: Path) -> None:
    home = CgroupHome(tracking, INSTANCE, CLOCK)
    home.enter()
    assert home.monitors is not None
    monitor = Launcher(home.monitors).start(["sleep", "1000"])
    wait_inside(home.monitors, monitor)
    home.leave()
    assert monitor.poll() is None
    CgroupHome(tracking, INSTANCE, CLOCK).enter()
    assert monitor.poll() is None
    monitor.kill()
    monitor.wait()


def test_entering_twice_in_one_life_keeps_the_own_children(tracking: Path) -> None:
    home = CgroupHome(tracking, INSTANCE, CLOCK)
    child = home.enter().start(["sleep", "1000"])
    home.enter()
    assert child.poll() is None
    home.leave()
    child.wait(10)


@pytest.mark.parametrize("place", [None, Path("/proc/self")])
def test_where_no_group_can_be_made_helpers_are_not_tracked_and_a_note_says_so(place: Path | None) -> None:
    home = CgroupHome(place, INSTANCE, CLOCK)
    assert home.enter().group is None
    assert "no control group can be made here" in home.note
    assert home.monitors is None
    home.leave()
