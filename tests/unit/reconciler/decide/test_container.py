"""The story of a container, look by look."""

from dataclasses import replace
from typing import Any

import pytest

from core.runtime.ports import Exit, SandboxPhase, TaskPhase
from reconciler.decide.attempts import Memory
from reconciler.decide.container import plan_container
from reconciler.decide.facts import ContainerFacts, Dependency, ImageSeen, Now, SandboxView, StopAsked, TaskSeen
from reconciler.decide.switching import desired_hash
from reconciler.model.actions import (
    Action,
    CreateTask,
    DeleteTask,
    Disown,
    EnsureOwned,
    Plan,
    PrepareTask,
    Release,
    Remember,
    RemoveLogs,
    ResumeTask,
    SignalTask,
    StartTask,
    UpdateTask,
)
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.objects import Object, with_record
from tests.fakes.world import World
from tests.fakes.world_stories import REFS, WEB, apply_surroundings, new_world

NOW = Now(1_000_000.0, 50.0)
IMAGE = {"digest": "sha256:aa", "driver": "overlayfs", "chain": "sha256:cc", "config": {"stop_signal": "SIGINT"}}
SPEC: dict[str, Any] = {"image": "base", "sandbox": "shared"}


def facts(spec: dict[str, Any] = SPEC, **more: Any) -> ContainerFacts:
    """A container whose image and sandbox are ready, with nothing else so far."""
    image = ImageSeen(Key(Kind.IMAGE, "base"), True, IMAGE)
    sandbox = SandboxView(Key(Kind.SANDBOX, "shared"), True, "shared-11111111-1")
    return ContainerFacts(Object(WEB, generation=1, spec=spec), "boot-1", image, sandbox, **more)


def plan(seen: ContainerFacts, now: Now = NOW) -> Plan:
    """What is planned."""
    return plan_container(seen, ContainerSpec.model_validate(seen.obj.spec), now)


def kinds(made: Plan) -> list[type[Action]]:
    """The actions' types, in order."""
    return [type(action) for action in made.actions]


def after(seen: ContainerFacts, made: Plan) -> ContainerFacts:
    """The facts when all that the plan wanted remembered is."""
    obj = seen.obj
    for action in made.actions:
        if isinstance(action, Remember):
            obj = with_record(obj, action.changes)
    return replace(seen, obj=obj)


def id_of(seen: ContainerFacts) -> str:
    """The current attempt's id."""
    current = Memory.of(seen.obj.record).current
    assert current is not None
    return current.id("web")


def with_task(
    seen: ContainerFacts, phase: TaskPhase, *, alive: bool = False, exit: Exit | None = None
) -> ContainerFacts:
    """The current attempt seen in a phase, alone."""
    current = Memory.of(seen.obj.record).current
    assert current is not None
    return replace(seen, tasks=(TaskSeen(current.id("web"), current.hash, current.attempt, phase, alive, exit),))


def started(spec: dict[str, Any] = SPEC) -> ContainerFacts:
    """A container whose first attempt runs."""
    seen = facts(spec)
    return with_task(after(seen, plan(seen)), TaskPhase.RUNNING, alive=True)


def ended(seen: ContainerFacts, code: int = 1, at: float = NOW.wall, *, oom: bool = False) -> ContainerFacts:
    """It ended, and that is written down."""
    seen = with_task(seen, TaskPhase.STOPPED, exit=Exit(code, at, oom))
    return after(seen, plan(seen))


def test_the_first_start_remembers_a_number_prepares_creates_and_starts() -> None:
    made = plan(facts())
    assert kinds(made) == [Remember, PrepareTask, CreateTask, StartTask]
    remembered = made.actions[0]
    assert isinstance(remembered, Remember)
    assert remembered.changes["attempt"] == 1
    assert remembered.changes["current"]["started"] is False


@pytest.mark.parametrize("policy", ["OnFailure", "Never"])
def test_where_a_second_run_would_be_wrong_the_start_is_noted_before_it(policy: str) -> None:
    made = plan(facts({**SPEC, "restart": {"policy": policy}}))
    assert kinds(made) == [Remember, PrepareTask, CreateTask, Remember, StartTask]
    noted = made.actions[3]
    assert isinstance(noted, Remember)
    assert noted.changes["current"]["started"] is True


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert plan(started()).converged


def test_what_stands_still_is_told_to_go_on() -> None:
    assert kinds(plan(with_task(started(), TaskPhase.PAUSED, alive=True))) == [ResumeTask]


def test_what_has_left_its_control_groups_is_ended_and_started_again_once() -> None:
    seen = started()
    seen = replace(seen, tasks=(replace(seen.tasks[0], outside="pids"),))
    condemned = plan(seen)
    assert kinds(condemned) == [Remember]
    assert (
        Memory.of(after(seen, condemned).obj.record)
        .condemned()
        .startswith("it runs outside of its control groups (pids)")
    )
    assert kinds(plan(after(seen, condemned))) == [SignalTask]


def test_what_was_created_and_not_started_is_started() -> None:
    seen = with_task(started(), TaskPhase.CREATED, alive=True)
    assert kinds(plan(seen)) == [StartTask]


def test_a_number_whose_making_is_in_doubt_is_given_up_for_the_next() -> None:
    seen = replace(started(), tasks=())
    made = plan(seen)
    assert kinds(made) == [Remember, PrepareTask, CreateTask, StartTask]
    assert Memory.of(after(seen, made).obj.record).attempt == 2


def test_what_is_half_made_is_deleted_and_made_under_the_next_number() -> None:
    made = plan(with_task(started(), TaskPhase.HALF_MADE))
    assert kinds(made) == [DeleteTask, Remember, PrepareTask, CreateTask, StartTask]
    assert isinstance(made.actions[2], PrepareTask)
    assert made.actions[2].id.endswith("-2")


def test_a_prepared_attempt_waits_for_the_older_one_to_be_stopped() -> None:
    old = started()
    seen = replace(old, obj=replace(old.obj, spec={**SPEC, "tty": True}))
    begun = plan(seen)
    assert kinds(begun) == [Remember, PrepareTask]
    assert begun.cause == "spec changed"
    seen = after(seen, begun)
    new = with_task(seen, TaskPhase.PREPARED).tasks[0]
    seen = replace(seen, tasks=(old.tasks[0], new))
    stop = plan(seen)
    assert stop.actions == (SignalTask(WEB, old.tasks[0].id, 2),)
    asked = replace(seen, stopping={old.tasks[0].id: StopAsked(NOW.monotonic)})
    assert [wait.reason for wait in plan(asked).waits] == ["Stopping"]
    gone = replace(old.tasks[0], phase=TaskPhase.STOPPED, alive=False, exit=Exit(130, NOW.wall))
    assert kinds(plan(replace(seen, tasks=(gone, new)))) == [CreateTask, StartTask]


def test_when_the_new_attempt_runs_the_switch_is_forgotten_and_the_older_one_dropped() -> None:
    old = started()
    seen = replace(old, obj=replace(old.obj, spec={**SPEC, "tty": True}))
    seen = after(seen, plan(seen))
    gone = replace(old.tasks[0], phase=TaskPhase.STOPPED, alive=False, exit=Exit(130, NOW.wall))
    seen = replace(seen, tasks=(gone, with_task(seen, TaskPhase.RUNNING, alive=True).tasks[0]))
    made = plan(seen)
    assert kinds(made) == [Remember, DeleteTask]
    assert Memory.of(after(seen, made).obj.record).previous is None


@pytest.mark.parametrize(
    ("task", "boot", "reason"),
    [
        ({"phase": TaskPhase.STOPPED, "exit": Exit(0, 5.0)}, "boot-1", "Completed"),
        ({"phase": TaskPhase.STOPPED, "exit": Exit(3, 5.0)}, "boot-1", "Error"),
        ({"phase": TaskPhase.STOPPED, "exit": Exit(137, 5.0, oom=True)}, "boot-1", "OOMKilled"),
        ({"phase": TaskPhase.LOST}, "boot-1", "MonitorLost"),
        ({"phase": TaskPhase.LOST}, "boot-2", "NodeRebooted"),
        ({"phase": TaskPhase.ABSENT}, "boot-2", "NodeRebooted"),
    ],
)
def test_an_end_is_written_down_with_its_reason(task: dict[str, Any], boot: str, reason: str) -> None:
    seen = started()
    seen = replace(seen, boot=boot, tasks=(replace(seen.tasks[0], alive=False, **task),))
    made = plan(seen)
    assert kinds(made) == [Remember]
    last = Memory.of(after(seen, made).obj.record).current_ended()
    assert last is not None
    assert last.reason == reason
    assert last.code == (task["exit"].code if "exit" in task else None)


def test_a_started_task_that_is_gone_without_a_trace_is_lost() -> None:
    seen = started({**SPEC, "restart": {"policy": "Never"}})
    made = plan(replace(seen, tasks=()))
    assert isinstance(made.actions[0], Remember)
    assert made.actions[0].reason == "TaskLost"


def test_a_container_never_to_be_restarted_that_was_not_started_before_the_reboot_is_run() -> None:
    seen = facts({**SPEC, "restart": {"policy": "Never"}})
    begun = plan(seen)
    seen = replace(after(seen, Plan(begun.actions[:1])), boot="boot-2")
    assert kinds(plan(seen)) == [Remember, PrepareTask, CreateTask, Remember, StartTask]


def test_a_monitor_that_is_gone_has_its_task_stopped_first() -> None:
    seen = with_task(started(), TaskPhase.LOST, alive=True)
    assert kinds(plan(seen)) == [SignalTask]


def test_the_back_off_is_0_1_2_4_and_so_on() -> None:
    seen, pauses = started(), []
    for _ in range(6):
        seen = ended(seen)
        pauses.append(sum(wait.seconds or 0.0 for wait in plan(seen).waits))
        later = Now(NOW.wall + 1000.0, NOW.monotonic + 1000.0)
        seen = with_task(after(seen, plan(seen, later)), TaskPhase.RUNNING, alive=True)
        seen = replace(seen, obj=with_record(seen.obj, {"current": {**seen.obj.record["current"], "at": NOW.wall}}))
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert Memory.of(seen.obj.record).restarts == 6


def test_the_back_off_ends_at_the_longest_delay() -> None:
    seen = started({**SPEC, "restart": {"maxDelay": "30s"}})
    seen = replace(seen, obj=with_record(seen.obj, {"failures": 20}))
    assert plan(ended(seen)).waits[0].seconds == pytest.approx(30.0)


def test_ten_minutes_of_running_make_the_next_crash_the_first() -> None:
    seen = started()
    seen = replace(seen, obj=with_record(seen.obj, {"failures": 5}))
    assert kinds(plan(ended(seen, at=NOW.wall + 600.0), Now(NOW.wall + 600.0, 0.0)))[0] is Remember


def test_a_reboot_does_not_count_as_a_crash_and_is_not_waited_for() -> None:
    seen = started()
    seen = replace(seen, boot="boot-2", tasks=(), obj=with_record(seen.obj, {"failures": 5}))
    seen = after(seen, plan(seen))
    assert Memory.of(seen.obj.record).failures == 5
    assert kinds(plan(seen)) == [Remember, PrepareTask, CreateTask, StartTask]


def test_a_clock_that_jumped_back_before_the_end_does_not_stretch_the_back_off() -> None:
    seen = started()
    seen = ended(replace(seen, obj=with_record(seen.obj, {"failures": 5})))
    assert plan(seen).waits[0].reason == "BackOff"
    assert kinds(plan(seen, Now(NOW.wall - 3600.0, 60.0))) == [Remember, PrepareTask, CreateTask, StartTask]


def test_a_restart_takes_over_what_changed_in_place() -> None:
    seen = ended(started())
    seen = replace(seen, obj=replace(seen.obj, spec={**SPEC, "log": {"files": 9}, "resources": {"pids": 7}}))
    made = plan(seen)
    assert isinstance(made.actions[1], PrepareTask)
    assert made.actions[1].spec["log"] == {"files": 9}
    assert made.actions[1].spec["resources"] == {"pids": 7}


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_policy_decides_whether_it_runs_again(policy: str, code: int, again: bool) -> None:
    seen = ended(started({**SPEC, "restart": {"policy": policy}}), code)
    assert plan(seen).converged is not again


def test_what_is_done_needs_nothing_any_more() -> None:
    seen = ended(started({**SPEC, "restart": {"policy": "Never"}}))
    assert plan(replace(seen, image=None, sandbox=None, secrets={"gone": ""})).converged


def test_a_crash_is_not_restarted_while_its_sandbox_volume_or_secret_is_missing_but_without_its_image_object() -> None:
    seen = ended(started())
    assert kinds(plan(replace(seen, image=None))) == [Remember, PrepareTask, CreateTask, StartTask]
    for without in ({"sandbox": None}, {"volumes": {"data": False}}, {"secrets": {"login": ""}}):
        made = plan(replace(seen, **without))
        assert not made.actions
        assert made.waits


def test_resources_are_updated_in_place_and_then_remembered() -> None:
    seen = started()
    seen = replace(seen, obj=replace(seen.obj, spec={**SPEC, "resources": {"memory": "64Mi"}}))
    made = plan(seen)
    assert made.actions[0] == UpdateTask(id_of(seen), {"memory": "64Mi"})
    assert plan(after(seen, made)).converged


@pytest.mark.parametrize("field", ["restart", "stop", "log", "resources", "dependsOn", "probes"])
def test_a_field_that_changes_in_place_does_not_change_the_hash(field: str) -> None:
    assert desired_hash(facts({**SPEC, field: {"any": "thing"}})) == desired_hash(facts())


@pytest.mark.parametrize("change", [{"env": []}, {"command": ["a"]}, {"tty": True}, {"user": "1"}, {"workingDir": "/"}])
def test_anything_else_changes_the_hash(change: dict[str, Any]) -> None:
    assert desired_hash(facts({**SPEC, **change})) != desired_hash(facts())


def test_the_images_digest_and_the_secrets_content_change_the_hash() -> None:
    other = facts(secrets={"login": "aaaa"})
    image = replace(facts(), image=ImageSeen(Key(Kind.IMAGE, "base"), True, {**IMAGE, "digest": "sha256:bb"}))
    assert len({desired_hash(one) for one in (facts(), other, image)}) == 3


def test_dependencies_hold_up_the_first_start_only() -> None:
    missing = (Dependency(Key(Kind.CONTAINER, "db"), "Ready", False, "not there"),)
    assert [wait.reason for wait in plan(facts(dependencies=missing)).waits] == ["DependencyNotMet"]
    assert plan(replace(started(), dependencies=missing)).converged


def test_a_private_sandbox_and_the_image_of_a_reference_are_made_first() -> None:
    seen = replace(facts({"image": REFS[0], "network": {"mode": "none"}}), image=None, sandbox=None)
    assert kinds(plan(seen)) == [EnsureOwned, EnsureOwned]


def test_what_is_owned_and_on_its_way_out_is_waited_for() -> None:
    spec = {"image": REFS[0], "network": {"mode": "none"}}
    seen = facts(spec)
    assert seen.image is not None
    assert seen.sandbox is not None
    going = replace(
        seen,
        image=replace(seen.image, ready=False, deleting=True),
        sandbox=replace(seen.sandbox, ready=False, deleting=True),
    )
    assert not plan(going).actions
    assert [wait.reason for wait in plan(going).waits] == ["ImageNotReady", "SandboxNotReady"]


def test_what_an_earlier_spec_owned_is_let_go_when_the_new_one_runs() -> None:
    seen = replace(started(), owned=frozenset({Key(Kind.SANDBOX, "old"), Key(Kind.IMAGE, "base")}))
    assert plan(seen).actions == (Disown(Key(Kind.SANDBOX, "old"), WEB),)


def test_a_store_older_than_the_node_takes_no_number_twice() -> None:
    seen = facts(tasks=(TaskSeen("web-aaaaaaaa-9", "aaaaaaaa", 9, TaskPhase.STOPPED, exit=Exit(0, 0.0)),))
    made = plan(seen)
    assert made.actions == (Remember(WEB, {"attempt": 9}),)
    seen = after(seen, made)
    assert Memory.of(after(seen, plan(seen)).obj.record).attempt == 10


def test_deletion_stops_removes_every_attempt_and_lets_go() -> None:
    seen = started()
    left = TaskSeen("web-aaaaaaaa-0", "aaaaaaaa", 0, TaskPhase.HALF_MADE)
    seen = replace(seen, obj=replace(seen.obj, deleted=5.0), tasks=(left, *seen.tasks))
    assert kinds(plan(seen)) == [SignalTask]
    dead = replace(seen.tasks[1], phase=TaskPhase.STOPPED, alive=False, exit=Exit(130, 5.0))
    removed = plan(replace(seen, tasks=(left, dead)))
    assert kinds(removed) == [DeleteTask, DeleteTask]
    assert not any(action.keep_log for action in removed.actions if isinstance(action, DeleteTask))
    assert kinds(plan(replace(seen, tasks=()))) == [RemoveLogs, Release]


def world_with(spec: dict[str, Any]) -> World:
    """A node where the container runs."""
    world = new_world()
    apply_surroundings(world)
    world.apply(Kind.CONTAINER, "web", spec)
    world.settle(40)
    return world


def test_the_status_tells_what_became_of_a_crash() -> None:
    world = world_with({**SPEC, "restart": {"policy": "Never"}})
    world.exit(next(iter(world.node.tasks)), 137, oom=True)
    world.settle(40)
    status = world.status(WEB)
    assert (status["state"], status["reason"], status["exitCode"]) == ("Exited", "Failed", 137)
    assert status["lastExit"] == {"attempt": 1, "reason": "OOMKilled", "oom": True}
    assert "pid" not in status


def test_the_status_of_a_back_off_names_when_it_goes_on() -> None:
    world = world_with(SPEC)
    for _ in range(3):
        world.exit(world.node.live("web")[0].id, 1)
        world.run()
        if not world.node.live("web"):
            break
    status = world.status(WEB)
    assert (status["state"], status["reason"]) == ("Waiting", "BackOff")
    assert "nextRetryAt" in status


def test_a_task_without_its_monitor_is_not_ready_while_it_is_stopped() -> None:
    world = world_with(SPEC)
    task = world.node.live("web")[0]
    task.stubborn = True
    world.lose_monitor(task.id)
    world.run()
    status = world.status(WEB)
    assert (status["state"], status["reason"]) == ("Running", "MonitorLost")
    assert status["conditions"][0]["status"] == "False"


def test_a_sandbox_that_is_lost_takes_its_container_along_to_another() -> None:
    world = world_with(SPEC)
    before = world.node.live("web")[0]
    world.node.sandboxes[before.sandbox] = SandboxPhase.STOPPED
    world.engine.resync()
    world.settle(40)
    assert world.node.live("web")[0].sandbox != before.sandbox
    assert before.sandbox not in world.node.sandboxes
