"""What every Shim promises: one suite, run by each driver's own test file with a `ground` fixture."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from core.errors import AgentError, NotFound
from core.runtime import logs
from core.runtime.ports import ExecSpec, Exit, IllegalMove, NewTask, Shim, TaskPhase


class Ground(Protocol):
    """What a driver brings: itself, tasks to run on it, a second life of itself, and what it may have left behind."""

    shim: Shim

    def task(self, *args: str, id: str = "one", **wanted: object) -> NewTask: ...

    def again(self) -> Shim: ...

    def leftovers(self) -> list[str]: ...


def eventually(seen: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until `seen()` is true."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def run(ground: Ground, *args: str, id: str = "one", **wanted: object) -> Exit:
    """Run a task to its end and return its exit; it is not deleted."""
    task = ground.task(*args, id=id, **wanted)
    ground.shim.prepare(task)
    ground.shim.create(id)
    ground.shim.start(id)
    exit = ground.shim.wait(id, 20)
    assert exit is not None
    return exit


def said(ground: Ground, *args: str, id: str = "one", **wanted: object) -> str:
    """Run a task to its end, delete it, and return what it wrote."""
    run(ground, *args, id=id, **wanted)
    log = ground.task(*args, id=id).log
    text = b"\n".join(line.text for line in logs.read(log)).decode()
    ground.shim.delete(id)
    log.unlink()
    return text


def running(ground: Ground, *args: str, id: str = "one", **wanted: object) -> Shim:
    """Start a task that goes on."""
    ground.shim.prepare(ground.task(*(args or ("sleep", "1000")), id=id, **wanted))
    ground.shim.create(id)
    ground.shim.start(id)
    return ground.shim


def leave_out(request: pytest.FixtureRequest, lacks: Mapping[str, str]) -> None:
    """Skip a test of the suite that the driver's table names, with the reason that stands there."""
    if (why := lacks.get(request.node.name.partition("[")[0])) is not None:
        pytest.skip(why)


class ShimContract:
    """The suite."""

    def test_a_task_goes_from_absent_to_absent_by_the_table(self, ground: Ground) -> None:
        shim = ground.shim
        assert shim.state("one").phase is TaskPhase.ABSENT
        shim.prepare(ground.task("sleep", "1000"))
        assert shim.state("one").phase is TaskPhase.PREPARED
        assert shim.create("one").phase is TaskPhase.CREATED
        assert shim.start("one").phase is TaskPhase.RUNNING
        assert shim.state("one").outside == ""
        assert list(shim.tasks()) == ["one"]
        shim.kill("one", signal.SIGKILL)
        exit = shim.wait("one", 10)
        assert exit is not None
        assert exit.code == 137
        assert shim.state("one").phase is TaskPhase.STOPPED
        assert shim.delete("one") == exit
        assert shim.state("one").phase is TaskPhase.ABSENT
        assert list(shim.tasks()) == []

    @pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
    def test_the_exit_code_is_the_programs_own(self, ground: Ground, code: int) -> None:
        exit = run(ground, "sh", "-c", f"exit {code}")
        assert exit.code == code
        assert not exit.oom
        assert abs(exit.at - time.time()) < 30

    def test_a_signal_that_the_program_minds_ends_it(self, ground: Ground) -> None:
        shim = running(ground, "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")
        eventually(lambda: b"up" in ground.task("x").log.read_bytes())
        shim.kill("one", signal.SIGTERM)
        assert shim.wait("one", 10) == shim.state("one").exit
        assert shim.state("one").exit.code == 3  # type: ignore[union-attr]  # the line above would have failed

    def test_wait_returns_none_while_the_task_goes_on(self, ground: Ground) -> None:
        assert running(ground).wait("one", 0.05) is None

    def test_waiting_for_what_was_never_made_is_an_error(self, ground: Ground) -> None:
        with pytest.raises(NotFound):
            ground.shim.wait("one", 0)

    def test_illegal_moves_are_refused_and_change_nothing(self, ground: Ground) -> None:
        shim = ground.shim
        calls: tuple[Callable[[str], object], ...] = (shim.create, shim.start, shim.pause, shim.resume)
        for call in calls:
            with pytest.raises(IllegalMove):
                call("one")
        running(ground)
        for call in (calls[0], calls[1], calls[3]):
            with pytest.raises(IllegalMove):
                call("one")
        with pytest.raises(IllegalMove):
            shim.prepare(ground.task("true"))
        assert shim.state("one").phase is TaskPhase.RUNNING

    def test_a_created_task_has_not_begun(self, ground: Ground) -> None:
        ground.shim.prepare(ground.task("echo", "begun"))
        ground.shim.create("one")
        assert ground.shim.wait("one", 0.1) is None
        assert ground.task("x").log.read_bytes() == b""

    def test_a_command_that_is_not_there_fails_create_and_can_be_deleted(self, ground: Ground) -> None:
        ground.shim.prepare(ground.task("no-such-program"))
        with pytest.raises(NotFound, match="no-such-program") as caught:
            ground.shim.create("one")
        assert caught.value.hint()
        assert ground.shim.state("one").phase is TaskPhase.HALF_MADE
        with pytest.raises(IllegalMove):
            ground.shim.start("one")
        assert ground.shim.delete("one") is None

    @pytest.mark.parametrize("phase", [TaskPhase.PREPARED, TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED])
    def test_delete_works_from_every_phase(self, ground: Ground, phase: TaskPhase) -> None:
        shim = ground.shim
        shim.prepare(ground.task("sleep", "1000"))
        moves = {TaskPhase.CREATED: [shim.create], TaskPhase.RUNNING: [shim.create, shim.start]}
        moves[TaskPhase.PAUSED] = [*moves[TaskPhase.RUNNING], shim.pause]
        for move in moves.get(phase, []):
            move("one")
        assert shim.state("one").phase is phase
        shim.delete("one")
        shim.delete("one")
        assert shim.state("one").phase is TaskPhase.ABSENT

    def test_a_new_driver_sees_what_an_earlier_one_left(self, ground: Ground) -> None:
        before = running(ground).state("one")
        assert ground.again().connect("one") == before
        ground.shim.kill("one", signal.SIGKILL)
        ground.shim.wait("one", 10)
        exit = ground.again().state("one").exit
        assert exit is not None
        assert exit.code == 137

    def test_a_paused_task_stands_still_until_it_is_resumed(self, ground: Ground) -> None:
        shim = running(ground, "sh", "-c", "while :; do echo x; sleep 0.01; done")
        log = ground.task("x").log
        eventually(lambda: log.stat().st_size > 0)
        shim.pause("one")
        assert shim.state("one").phase is TaskPhase.PAUSED
        time.sleep(0.05)
        size = log.stat().st_size
        time.sleep(0.1)
        assert log.stat().st_size == size
        shim.resume("one")
        assert shim.state("one").phase is TaskPhase.RUNNING
        eventually(lambda: log.stat().st_size > size)

    def test_everyone_is_signalled_when_everyone_is_meant(self, ground: Ground) -> None:
        shim = running(ground, "sh", "-c", "sleep 1000 & sleep 1000 & wait; exit 9")
        eventually(lambda: len(shim.pids("one")) == 3)
        shim.kill("one", signal.SIGTERM, everyone=True)
        exit = shim.wait("one", 10)
        assert exit is not None
        assert exit.code in (9, 143)

    def test_killing_what_has_ended_is_harmless(self, ground: Ground) -> None:
        run(ground, "true")
        ground.shim.kill("one", signal.SIGKILL)
        ground.shim.kill("one", signal.SIGKILL, everyone=True)
        ground.shim.kill("nobody", signal.SIGKILL)

    @pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 41", 41), ("kill -9 $$", 137)])
    def test_exec_returns_the_programs_code(self, ground: Ground, command: str, code: int) -> None:
        assert running(ground).exec("one", ExecSpec(["sh", "-c", command])) == code

    def test_exec_into_what_does_not_run_is_an_error(self, ground: Ground) -> None:
        with pytest.raises(NotFound):
            ground.shim.exec("one", ExecSpec(["true"]))
        run(ground, "true")
        with pytest.raises(NotFound):
            ground.shim.exec("one", ExecSpec(["true"]))

    def test_exec_takes_user_folder_and_environment(self, ground: Ground, tmp_path: Path) -> None:
        shim = running(ground, "sh", "-c", "while ! test -e /tmp/out; do sleep 0.02; done; cat /tmp/out; rm /tmp/out")
        script = 'echo "$(id -u):$(id -g) $(id -G) $PWD $NAME" > /tmp/new; mv /tmp/new /tmp/out'
        spec = ExecSpec(["sh", "-c", script], env=["NAME=value"], user="1000:1001,1002", cwd="/tmp")
        assert shim.exec("one", spec) == 0
        shim.wait("one", 10)
        log = ground.task("x").log
        eventually(lambda: log.stat().st_size > 0)  # what it wrote last may come after its exit
        assert b"1000:1001 1001 1002 /tmp value" in log.read_bytes(), log.read_bytes()

    def test_limits_change_in_place(self, ground: Ground) -> None:
        script = "sleep 0.5; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all; wait"
        shim = running(ground, "sh", "-c", script)
        shim.update("one", {"pids": {"limit": 6}})
        exit = shim.wait("one", 10)
        assert exit is not None
        assert exit.code != 0
        assert b"all" not in ground.task("x").log.read_bytes()

    def test_counters_count(self, ground: Ground) -> None:
        shim = running(ground, "sh", "-c", "i=0; while test $i -lt 20000; do i=$((i+1)); done; sleep 1000")
        eventually(lambda: shim.stats("one").cpu_seconds > 0.01)
        seen = shim.stats("one")
        assert seen.pids >= 1
        assert 0 < seen.memory < 64 << 20
        assert seen.oom_kills == 0
        with pytest.raises(NotFound):
            shim.stats("nobody")

    def test_a_task_over_its_memory_is_killed_and_says_so(self, ground: Ground) -> None:
        exit = run(ground, "sh", "-c", "x=y; while :; do x=$x$x; done", memory=16 << 20)
        assert exit.code == 137
        assert exit.oom

    def test_stdin_can_be_closed(self, ground: Ground) -> None:
        shim = running(ground, "sh", "-c", "cat; echo closed", stdin=True)
        assert shim.wait("one", 0.2) is None
        shim.close_io("one")
        assert shim.wait("one", 10) is not None
        assert b"closed" in ground.task("x").log.read_bytes()

    def test_a_terminal_has_the_size_it_is_told(self, ground: Ground) -> None:
        shim = running(ground, "sh", "-c", "while :; do stty size; sleep 0.05; done", terminal=True)
        shim.resize("one", 132, 43)
        eventually(lambda: b"43 132" in ground.task("x").log.read_bytes())

    def test_many_tasks_do_not_get_in_each_others_way(self, ground: Ground) -> None:
        for number in range(3):
            running(ground, id=f"task-{number}")
        ground.shim.delete("task-1")
        assert [ground.shim.state(f"task-{n}").phase for n in range(3)] == [
            TaskPhase.RUNNING,
            TaskPhase.ABSENT,
            TaskPhase.RUNNING,
        ]
        assert list(ground.shim.tasks()) == ["task-0", "task-2"]

    def test_a_name_that_is_a_path_is_refused(self, ground: Ground) -> None:
        for name in ("../x", "a/b", "", ".", "x" * 300):
            with pytest.raises(AgentError):
                ground.shim.prepare(ground.task("true", id=name))

    def test_no_descriptor_is_left_open(self, ground: Ground) -> None:
        run(ground, "true")
        ground.shim.delete("one")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            run(ground, "true")
            ground.shim.delete("one")
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)  # gRPC closes its own a little later
