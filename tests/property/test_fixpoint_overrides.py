"""What a person asks beside the spec: stops that hold, restarts that happen once, whoever is killed when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.runtime.ports import TaskPhase
from reconciler.decide import overrides
from reconciler.decide.attempts import Memory
from reconciler.model.identity import Kind
from reconciler.store import functions
from tests.fakes.world import Killed, World
from tests.fakes.world_stories import LOOKS, REFS, WEB, ask, events, go_on, new_world, play, settle, specs

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def started(policy: str = "Always", **spec: Any) -> World:
    world = new_world()
    whole = {"image": REFS[0], "network": {"mode": "none"}, "restart": {"policy": policy}, **spec}
    world.apply(Kind.CONTAINER, "web", whole)
    world.settle(LOOKS)
    return world


def memory(world: World) -> Memory:
    return Memory.of(functions.existing(world.store, WEB).record)


def attempt(world: World) -> int:
    current = memory(world).current
    assert current is not None
    return current.attempt


def stop(world: World, seconds: float | None = None) -> None:
    ask(world, lambda obj, now: overrides.ask_stop(now, seconds, "maintenance"))


def start(world: World) -> None:
    ask(world, lambda obj, now: overrides.ask_start(obj, now, ""))


def restart(world: World) -> None:
    ask(world, lambda obj, now: overrides.ask_restart(obj, now, ""))


def running(world: World) -> bool:
    return [task.phase for task in world.node.live("web")] == [TaskPhase.RUNNING]


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_a_stopped_container_stays_stopped_until_it_is_started(policy: str) -> None:
    world = started(policy)
    stop(world)
    world.settle(LOOKS)
    status = world.status(WEB)
    assert (status["state"], status["reason"]) == ("Stopped", "StoppedByHand")
    assert "maintenance" in status["conditions"][0]["message"]
    world.reboot(keep=False)
    world.pass_time(1_000_000.0)
    world.settle(LOOKS)
    assert not world.node.live("web")
    start(world)
    world.settle(LOOKS)
    assert running(world)
    assert (memory(world).failures, memory(world).restarts) == (0, 0)


def test_a_stop_runs_out_by_itself() -> None:
    world = started()
    stop(world, 100.0)
    go_on(world, 50)
    assert not world.node.live("web")
    assert world.queue.due[WEB] - world.clock.monotonic() <= 100.0
    world.pass_time(101.0)
    world.settle(LOOKS)
    assert running(world)
    assert "stop" not in functions.existing(world.store, WEB).local


def test_what_was_changed_while_it_was_stopped_counts_when_it_starts() -> None:
    world = started()
    stop(world)
    world.settle(LOOKS)
    world.apply(Kind.CONTAINER, "web", {"image": REFS[1], "network": {"mode": "none"}})
    world.settle(LOOKS)
    assert not world.node.live("web")
    start(world)
    world.settle(LOOKS)
    assert running(world)
    assert memory(world).current.spec["image"] == REFS[1]  # type: ignore[union-attr]  # it runs


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_a_restart_is_one_more_attempt_and_no_more(policy: str) -> None:
    world = started(policy)
    restart(world)
    world.settle(LOOKS)
    assert (attempt(world), running(world)) == (2, True)
    world.engine.resync()
    world.settle(LOOKS)
    assert attempt(world) == 2


def test_what_ended_for_good_runs_once_more_when_it_is_started() -> None:
    world = started("Never")
    world.exit(world.node.live("web")[0].id, 0)
    world.settle(LOOKS)
    assert world.status(WEB)["state"] == "Exited"
    start(world)
    world.settle(LOOKS)
    assert (attempt(world), running(world)) == (2, True)


def test_a_stopped_container_can_be_deleted() -> None:
    world = started()
    stop(world)
    world.settle(LOOKS)
    world.delete(WEB)
    world.settle(LOOKS)
    assert not world.node.tasks


@pytest.mark.parametrize("deed", [stop, restart], ids=["stop", "restart"])
def test_killed_at_any_boundary_an_override_is_carried_out_once(deed: Any) -> None:
    for boundary in range(1, 60):
        world = started("Never")
        deed(world)
        world.hands.kill_at = world.hands.boundaries + boundary
        try:
            world.settle(LOOKS)
        except Killed:
            world.hands.kill_at = None
            world.restart_agent()
            world.settle(LOOKS)
        else:
            world.hands.kill_at = None
            return  # there is no such boundary any more
        if deed is stop:
            assert world.status(WEB)["reason"] == "StoppedByHand", boundary
        else:
            assert world.status(WEB)["state"] in ("Running", "Exited"), boundary
            assert attempt(world) >= 2, boundary
            assert len(world.node.live("web")) <= 1, boundary
    pytest.fail("it never came to rest")


@quick
@given(specs(), st.lists(st.tuples(events(), st.sampled_from([0, 1, 3, 50])), max_size=6))
def test_a_stop_holds_through_any_story_that_asks_for_no_start(spec: dict[str, Any], story: list[Any]) -> None:
    world = new_world()
    world.apply(Kind.CONTAINER, "web", {**spec, "image": REFS[0]} if "sandbox" not in spec else spec)
    go_on(world, 50)
    stop(world)
    play(world, [(event, looks) for event, looks in story if event.name != "override"])
    settle(world)
    obj = world.store.get(WEB)
    assert obj is not None
    if not world.is_stalled(WEB):
        assert not world.node.live("web")


def test_a_container_made_again_under_its_name_goes_on_counting() -> None:
    world = started()
    world.delete(WEB)
    world.settle(LOOKS)
    assert world.store.get(WEB) is None
    world.apply(Kind.CONTAINER, "web", {"image": REFS[0], "network": {"mode": "none"}})
    world.settle(LOOKS)
    assert (attempt(world), running(world)) == (2, True)
