"""What a shim can do wrong, over either transport: it is told, its task can be deleted, its neighbours go on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core import cgroups, mounts, proc
from core.errors import AgentError, TimedOut
from core.mounts import MountSpec
from core.runtime.ports import ExecSpec, MonitorLost, TaskPhase
from core.runtime.shimv2 import bootstrap, ending
from tests.conformance.shim_contract import eventually, running
from tests.conformance.shim_ground import make_root
from tests.conformance.shim_played_ground import PlayedGround, skip_without_shim

pytestmark = pytest.mark.root
PROTOCOLS = ("ttrpc", "grpc")
Make = Callable[..., PlayedGround]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_shim()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def make(tmp_path: Path, root: Path) -> Iterator[Make]:
    """A ground whose shim plays so; it is cleared in the end."""
    with contextmanager(_grounds)(tmp_path, root) as made:
        yield made


def _grounds(folder: Path, root: Path) -> Iterator[Make]:
    made: list[PlayedGround] = []

    def make(*plays: str, **options: str) -> PlayedGround:
        own = folder / f"ground-{len(made)}"
        own.mkdir()
        made.append(PlayedGround(own, root, *plays, **options))
        return made[-1]

    yield make
    for ground in made:
        ground.end()


def shim_of(ground: PlayedGround, id: str = "one") -> proc.ProcessId:
    """The process of a task's shim."""
    found = ending.recorded(ground.state / "bundles" / id)
    assert found is not None
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shim_that_answers_with_nonsense_is_told_and_leaves_a_task_that_can_be_deleted(
    make: Make, protocol: str
) -> None:
    ground = make("--protocol", protocol, "--garbage")
    ground.shim.prepare(ground.task("true"))
    with pytest.raises(AgentError) as caught:
        ground.shim.create("one")
    assert caught.value.hint()
    assert ground.shim.state("one").phase is TaskPhase.HALF_MADE
    ground.shim.delete("one")
    assert ground.processes() == []


def test_a_shim_that_never_said_where_it_listens_is_not_asked_to_clean_up(make: Make) -> None:
    ground = make()
    program = Path(ground.program.program)
    program.write_text(f"#!/bin/sh\nfor word; do :; done\necho $word >> {ground.played}/verbs\nexit 1\n")
    ground.shim.prepare(ground.task("true"))
    with pytest.raises(AgentError) as caught:
        ground.shim.create("one")
    assert str(program) in caught.value.hint()
    ground.shim.delete("one")
    assert (ground.played / "verbs").read_text().split() == ["start"], "or one that hangs would hang twice"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("call", ["Connect", "Create"])
def test_a_shim_that_dies_in_the_middle_of_a_call_is_told_and_cleaned_up_after(
    make: Make, protocol: str, call: str
) -> None:
    ground = make("--protocol", protocol, "--dies", call)
    ground.shim.prepare(ground.task("true"))
    with pytest.raises(AgentError, match="went away in the middle of a call") as caught:
        ground.shim.create("one")
    assert caught.value.hint()
    assert ground.shim.state("one").phase is TaskPhase.HALF_MADE
    ground.shim.delete("one")
    assert "delete/one" in ground.asked(), "the shim's own `delete` for a dead shim"


def test_a_shim_that_is_killed_loses_its_task_and_no_other(make: Make) -> None:
    ground = make("--protocol", "grpc")
    running(ground, id="one")
    running(ground, id="two")
    first = ground.shim.state("one").pid
    shim_of(ground).signal(signal.SIGKILL)
    with pytest.raises(MonitorLost):
        ground.shim.wait("one", 10)
    assert ground.shim.state("one").phase is TaskPhase.LOST
    ground.shim.delete("one")
    assert first is not None
    assert not first.alive(ground.boot)
    assert "delete/one" in ground.asked(), "the shim's own `delete` for a dead shim"
    assert ground.shim.exec("two", ExecSpec(["true"])) == 0


def test_a_shim_that_does_not_say_how_its_task_is_leaves_what_is_known(make: Make) -> None:
    ground = make("--hangs", "State")
    ground.shim.prepare(ground.task("sleep", "1000"))
    assert ground.shim.create("one").phase is TaskPhase.CREATED
    assert ground.shim.start("one").phase is TaskPhase.RUNNING


def test_a_shim_that_hangs_is_ended_with_its_task(make: Make) -> None:
    ground = make("--protocol", "grpc")
    running(ground)
    shim = shim_of(ground)
    shim.signal(signal.SIGSTOP)
    ground.shim.delete("one")
    assert not shim.alive(ground.boot)
    assert ground.processes() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_new_engine_connects_again_to_the_shim_that_its_bundle_names(make: Make, protocol: str) -> None:
    ground = make("--protocol", protocol)
    before = running(ground, "sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done").state("one")
    eventually(lambda: b"up" in ground.task("x").log.read_bytes())
    again = ground.again()
    assert again.connect("one") == before
    assert again.exec("one", ExecSpec(["true"])) == 0
    again.kill("one", signal.SIGTERM)
    exit = again.wait("one", 10)
    assert exit is not None
    assert exit.code == 6
    assert bootstrap.kept(ground.state / "bundles/one").protocol == protocol


def test_the_bundle_of_a_shim_that_does_not_die_is_not_removed(make: Make) -> None:
    ground = make()
    freezer = ground.found.v1.get("freezer")
    if freezer is None:
        pytest.skip("needs the freezer of cgroup v1: what it holds does not even die by SIGKILL")
    ground.shim.prepare(ground.task("true"))
    ground.shim.bundles.begin("one")
    group = cgroups.make(freezer, f"{ground.group}/monitors")
    with subprocess.Popen(["sleep", "1000"]) as shim:
        found = proc.ProcessId.of(shim.pid, ground.boot)
        assert found is not None
        ending.record(found, ground.state / "bundles/one")
        cgroups.enter(group, shim.pid)
        (group / "freezer.state").write_text("FROZEN")
        try:
            with pytest.raises(TimedOut, match="does not die"):
                ground.shim.delete("one")
            assert (ground.state / "bundles/one/config.json").exists()
            assert ground.shim.state("one").phase is TaskPhase.HALF_MADE
        finally:
            (group / "freezer.state").write_text("THAWED")
    ground.shim.delete("one")
    assert ground.shim.state("one").phase is TaskPhase.ABSENT


# What shims of another kind want.


def test_a_task_without_a_process_on_this_node_is_its_shims(make: Make) -> None:
    ground = make("--unplaced")
    shim = running(ground)
    assert shim.state("one").pid == shim_of(ground)
    shim.kill("one", signal.SIGKILL)
    exit = shim.wait("one", 10)
    assert exit is not None
    assert exit.code == 137
    shim.delete("one")


def test_counters_come_from_the_shim_where_the_control_group_has_nothing(make: Make) -> None:
    ground = make()
    shim = running(ground, "sh", "-c", "i=0; while test $i -lt 20000; do i=$((i+1)); done; sleep 1000")
    eventually(lambda: shim.stats("one").cpu_seconds > 0.01)
    seen = shim.stats("one")
    assert "containerd.task.v3.Task/Stats" not in ground.asked()
    # As if it were a machine's: its record names a group that nothing is in.
    record = ground.state / "bundles/one/task.json"
    record.write_text(record.read_text().replace(f"{ground.group}/box/one", f"{ground.group}/box/none"))
    told = ground.again().stats("one")
    record.write_text(record.read_text().replace(f"{ground.group}/box/none", f"{ground.group}/box/one"))
    assert "containerd.task.v3.Task/Stats" in ground.asked()
    assert abs(told.cpu_seconds - seen.cpu_seconds) < 5
    assert told.pids >= 1
    assert 0 < told.memory < 64 << 20
    assert told.oom_kills == 0


def test_a_shim_that_wants_its_root_as_mounts_makes_them_itself(make: Make, tmp_path: Path) -> None:
    ground = make(rootfs="mounts")
    task = ground.task("sh", "-c", "echo new > /data/x; cat /etc/passwd > /dev/null && exit 4")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    lower = f"lowerdir={ground.root.name}"
    layers = (lower, f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work")
    root = MountSpec("overlay", "overlay", layers, str(ground.root.parent))
    ground.shim.prepare(replace(task, rootfs=[root]))
    assert proc.mounts(str(ground.state)) == []
    ground.again().create("one")
    ground.shim.start("one")
    exit = ground.shim.wait("one", 20)
    assert exit is not None
    assert exit.code == 4
    assert (tmp_path / "upper/data/x").read_text() == "new\n"
    ground.shim.delete("one")
    assert mounts.detach_below(ground.state) == 0
