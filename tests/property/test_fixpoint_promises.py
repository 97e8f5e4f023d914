"""What holds whatever happens: single runs, switches that fail, changes in place, and crashes at every boundary."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import AgentError, Failed, Invalid, NoSpace
from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import Memory
from reconciler.decide.summary import condition
from reconciler.model import actions as do
from reconciler.model.identity import Key, Kind
from reconciler.store import functions
from tests.fakes.world import Killed, World
from tests.fakes.world_stories import (
    LOOKS,
    REFS,
    WEB,
    Event,
    apply_surroundings,
    events,
    expect_rest,
    new_world,
    play,
    settle,
    specs,
)

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPEC: dict[str, Any] = {"image": REFS[0], "network": {"mode": "none"}}
interruptions = st.lists(
    st.tuples(
        events("reboot", "restart_agent", "kill", "lose_monitor", "vanish", "trouble", "pass_time", "exit", "jump"),
        st.sampled_from([0, 1, 2, 3, 5, 50]),
    ),
    max_size=8,
)


def started(world: World, spec: dict[str, Any] = SPEC) -> World:
    """A container that runs."""
    apply_surroundings(world)
    world.apply(Kind.CONTAINER, "web", spec)
    world.settle(LOOKS)
    return world


def memory(world: World) -> Memory:
    """What is remembered of the container."""
    return Memory.of(functions.existing(world.store, WEB).record)


def running(world: World) -> str:
    """The id of the one task that runs."""
    (task,) = world.node.live("web")
    assert task.phase is TaskPhase.RUNNING
    return task.id


@quick
@given(specs(policy="Never"), interruptions)
def test_a_container_that_is_never_restarted_runs_once_at_most(
    spec: dict[str, Any], story: list[tuple[Event, int]]
) -> None:
    world = new_world()
    apply_surroundings(world)
    world.apply(Kind.CONTAINER, "web", spec)
    play(world, story)
    settle(world)
    assert sum(world.node.started.values()) <= 1


@quick
@given(specs(policy="OnFailure"), st.sampled_from(["reboot", "lose_monitor", "vanish"]), st.integers(0, 1))
def test_an_interruption_counts_as_a_failure(spec: dict[str, Any], name: str, number: int) -> None:
    world = started(new_world(), spec)
    first = running(world)
    play(world, [(Event(name, number), 50)])
    settle(world)
    assert running(world) != first
    assert memory(world).restarts == 1


@quick
@given(specs(policy="OnFailure"), interruptions)
def test_what_completed_is_not_run_again_by_anything_that_happens_later(
    spec: dict[str, Any], story: list[tuple[Event, int]]
) -> None:
    world = started(new_world(), spec)
    world.exit(running(world), 0)
    world.settle(LOOKS)
    before = dict(world.node.started)
    play(world, story)
    settle(world)
    assert dict(world.node.started) == before
    assert world.status(WEB)["state"] == "Exited"
    assert world.status(WEB)["reason"] == "Completed"


def failing(phase: str, error: type[AgentError], hash: str) -> Callable[[do.Action], AgentError | None]:
    """Every attempt of every spec but that of `hash` fails in `phase`."""

    def trouble(action: do.Action) -> AgentError | None:
        other = action.phase == phase and f"web-{hash}-" not in repr(action)
        return error(f"no {phase} of that") if other else None

    return trouble


@pytest.mark.parametrize("phase", ["creating", "starting"])
@pytest.mark.parametrize("error", [Failed, Invalid, NoSpace])
@pytest.mark.parametrize(
    "change", [{"image": REFS[1]}, {"image": "base", "sandbox": "shared", "network": None}, {"tty": True}]
)
def test_a_switch_that_fails_starts_the_old_spec_again_and_is_stalled_with_the_cause(
    phase: str, error: type[AgentError], change: dict[str, Any]
) -> None:
    world = started(new_world())
    old = memory(world).current
    assert old is not None
    world.hands.trouble = failing(phase, error, old.hash)
    new = {name: value for name, value in {**SPEC, **change, "user": "1:1"}.items() if value is not None}
    world.apply(Kind.CONTAINER, "web", new)
    down = world.clock.monotonic()
    world.run(LOOKS)
    while not world.node.live("web") or not world.node.live("web")[0].id.startswith(f"web-{old.hash}-"):
        assert world.wait()
        world.run(LOOKS)
    tries = [one for one in world.hands.performed if one.phase == phase and f"web-{old.hash}-" not in repr(one)]
    assert len(tries) == (1 if error is Invalid else 3)
    assert world.clock.monotonic() - down <= (0 if error is Invalid else 4), (
        "the old one waits no longer than the tries"
    )
    world.settle(LOOKS)
    stalled = condition(world.status(WEB), "Stalled")
    assert stalled is not None
    assert stalled["reason"] == "SwitchFailed"
    assert f"no {phase} of that" in stalled["message"]
    assert "the one before was started again" in stalled["message"]
    assert world.status(WEB)["state"] == "Running"


def test_the_failed_spec_is_tried_again_when_the_manifest_says_something_else_in_between() -> None:
    world = started(new_world())
    old = memory(world).current
    assert old is not None
    world.hands.trouble = failing("creating", Failed, old.hash)
    world.apply(Kind.CONTAINER, "web", {**SPEC, "user": "1:1"})
    world.settle(LOOKS)
    settle(world)
    assert running(world).startswith(f"web-{old.hash}-"), "not by itself"
    world.apply(Kind.CONTAINER, "web", SPEC)
    settle(world)
    assert not world.is_stalled(WEB)
    world.apply(Kind.CONTAINER, "web", {**SPEC, "user": "1:1"})
    settle(world)
    assert not running(world).startswith(f"web-{old.hash}-")


def test_when_the_old_spec_cannot_be_started_either_both_causes_are_told() -> None:
    world = started(new_world())
    failures: list[str] = []

    def trouble(action: do.Action) -> AgentError | None:
        if action.phase != "creating":
            return None
        failures.append(repr(action))
        return Invalid(f"cause {min(2, len(failures))}")

    world.hands.trouble = trouble
    world.apply(Kind.CONTAINER, "web", {**SPEC, "user": "1:1"})
    world.run(LOOKS)
    stalled = condition(world.status(WEB), "Stalled")
    assert stalled is not None
    assert "cause 1" in stalled["message"]
    assert "cause 2" in stalled["message"]


@pytest.mark.parametrize("error", [Failed, Invalid, NoSpace])
def test_what_cannot_be_prepared_leaves_the_old_one_running(error: type[AgentError]) -> None:
    world = started(new_world())
    old, before = running(world), memory(world).current
    assert before is not None
    world.hands.trouble = failing("preparing", error, before.hash)
    world.apply(Kind.CONTAINER, "web", {**SPEC, "user": "1:1"})
    for _ in range(6):
        world.run(LOOKS)
        world.wait()
    assert running(world) == old
    assert world.status(WEB)["lastError"]["message"] == "no preparing of that"
    world.apply(Kind.CONTAINER, "web", SPEC)
    settle(world)
    assert running(world) == old, "changed back, it is adopted"
    expect_rest(world)


def test_what_runs_on_because_the_new_one_can_never_be_prepared_is_restarted_when_it_ends() -> None:
    world = started(new_world())
    before = memory(world).current
    assert before is not None
    world.hands.trouble = failing("preparing", Invalid, before.hash)
    world.apply(Kind.CONTAINER, "web", {**SPEC, "user": "1:1"})
    world.run(LOOKS)
    world.exit(running(world), 1)
    world.settle(LOOKS)
    assert running(world).startswith(f"web-{before.hash}-")
    assert world.is_stalled(WEB)


@quick
@given(st.integers(0, 40))
def test_changed_back_before_the_switch_the_old_one_is_adopted(moment: int) -> None:
    world = started(new_world())
    old = running(world)
    world.node.tasks[old].stubborn = True
    world.apply(Kind.CONTAINER, "web", {**SPEC, "user": "1:1", "stop": {"grace": "3s"}})
    for _ in range(moment % 4):
        if world.queue.ready:
            world.look(next(iter(world.queue.ready)))
    asked = old in world.hands.asked
    world.apply(Kind.CONTAINER, "web", SPEC)
    settle(world)
    assert running(world) == old
    assert not asked or world.node.tasks[old].stubborn
    expect_rest(world)


in_place = st.fixed_dictionaries(
    {},
    optional={
        "restart": st.fixed_dictionaries({"policy": st.sampled_from(["Always", "OnFailure", "Never"])}),
        "stop": st.fixed_dictionaries({"grace": st.sampled_from(["1s", "20s"])}),
        "log": st.fixed_dictionaries({"files": st.integers(1, 5)}),
        "resources": st.fixed_dictionaries({"pids": st.integers(10, 20)}),
    },
)


@quick
@given(specs(policy="Always"), st.lists(st.tuples(in_place, st.sampled_from(["", "a", "b"])), max_size=4))
def test_labels_restart_stop_log_and_resources_change_without_a_restart(
    spec: dict[str, Any], changes: list[tuple[dict[str, Any], str]]
) -> None:
    world = started(new_world(), spec)
    id = running(world)
    for change, label in changes:
        spec = {**spec, **change}
        world.apply(Kind.CONTAINER, "web", spec, {"label": label})
        settle(world)
        assert running(world) == id
        expect_rest(world)


@quick
@given(specs(policy="Always"), st.booleans())
def test_a_changed_sandbox_replaces_its_containers_and_the_old_one_goes(spec: dict[str, Any], shared: bool) -> None:
    spec = {name: value for name, value in spec.items() if name not in ("sandbox", "network")}
    spec |= {"sandbox": "shared"} if shared else {"network": {"mode": "none"}}
    world = started(new_world(), spec)
    before, sandboxes = running(world), set(world.node.sandboxes)
    if shared:
        world.apply(Kind.SANDBOX, "shared", {"runtime": "runc", "network": {"mode": "host"}})
    else:
        world.apply(Kind.CONTAINER, "web", {**spec, "network": {"mode": "host"}})
    world.settle(LOOKS)
    assert running(world) != before
    assert memory(world).restarts == 0
    assert len(set(world.node.sandboxes) - sandboxes) == 1
    expect_rest(world)


def first_start(world: World) -> None:
    """A container and all around it."""
    apply_surroundings(world)
    world.apply(
        Kind.CONTAINER, "web", {**SPEC, "restart": {"policy": "Never"}, "mounts": [{"path": "/d", "volume": "data"}]}
    )


def change_of_image(world: World) -> None:
    """Another image and another sandbox."""
    world.apply(Kind.CONTAINER, "web", {"image": REFS[1], "network": {"mode": "host"}})


def crash(world: World) -> None:
    """The process ends, the second time in a row."""
    for _ in range(2):
        for task in world.node.live("web"):
            world.exit(task.id, 1)
            world.run(LOOKS)


def deletion(world: World) -> None:
    """The container goes."""
    world.delete(WEB)


def shared_changes(world: World) -> None:
    """All around it changes."""
    apply_surroundings(world, secret="you", ref=REFS[1], mode="host")


USES_ALL: dict[str, Any] = {
    "image": "base",
    "sandbox": "shared",
    "env": [{"name": "LOGIN", "valueFrom": {"secret": {"name": "login", "key": "user"}}}],
    "mounts": [{"path": "/d", "volume": "data"}],
}


@pytest.mark.parametrize(
    ("before", "deed"),
    [
        (None, first_start),
        (SPEC, change_of_image),
        (SPEC, crash),
        (SPEC, deletion),
        (USES_ALL, shared_changes),
        (USES_ALL, deletion),
    ],
    ids=["first start", "change", "crash", "deletion", "change around it", "deletion with all in use"],
)
def test_killed_at_any_boundary_and_started_again_the_end_is_the_same(
    before: dict[str, Any] | None, deed: Callable[[World], None]
) -> None:
    wanted, boundaries = _end_of(before, deed, None)
    assert boundaries > 3
    for boundary in range(1, boundaries + 1):
        end, _ = _end_of(before, deed, boundary)
        assert end == wanted, boundary


def _end_of(
    before: dict[str, Any] | None, deed: Callable[[World], None], kill_at: int | None
) -> tuple[dict[Key, Any], int]:
    world = new_world() if before is None else started(new_world(), before)
    passed = world.hands.boundaries
    world.hands.kill_at = None if kill_at is None else passed + kill_at
    try:
        deed(world)
        world.rest(LOOKS)
    except Killed:
        world.hands.kill_at = None
        world.restart_agent()
    settle(world)
    if world.store.get(WEB) is not None:
        expect_rest(world)
    kept = ("state", "image", "sandbox", "digest", "path")
    told = {obj.key: {name: obj.status.get(name) for name in kept} for obj in world.store.list()}
    return told, world.hands.boundaries - passed
