"""Whatever happens, in whatever order, the node comes to rest as the store has it; then one more look does nothing."""

from typing import Any

from hypothesis import HealthCheck, given, settings

from reconciler.model.identity import Kind
from tests.fakes.world_stories import (
    Event,
    apply_surroundings,
    expect_rest,
    go_on,
    new_world,
    play,
    settle,
    specs,
    stories,
)

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(specs(), stories)
def test_after_any_story_everything_is_as_wanted_and_nothing_else_is_left(
    spec: dict[str, Any], story: list[tuple[Event, int]]
) -> None:
    world = new_world()
    apply_surroundings(world)
    world.apply(Kind.CONTAINER, "web", spec)
    play(world, story)
    settle(world)
    stalled = [obj.key for obj in world.store.list() if world.is_stalled(obj.key)]
    if not stalled:
        expect_rest(world)


@quick
@given(specs(), stories)
def test_deleted_at_any_moment_a_container_leaves_nothing_behind(
    spec: dict[str, Any], story: list[tuple[Event, int]]
) -> None:
    world = new_world()
    apply_surroundings(world)
    world.apply(Kind.CONTAINER, "web", spec)
    play(world, story)
    for obj in world.store.list():
        if obj.manager == "hand":
            world.delete(obj.key)
    go_on(world, 3)
    settle(world)
    assert world.store.list() == []
    assert not world.node.tasks
    assert not world.node.sandboxes
    assert not world.node.volume_names
    assert not world.node.chains & world.node.recorded
    assert not world.node.logs
