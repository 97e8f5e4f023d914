"""Sources: whatever commits come, whatever fails and whoever is killed, what is managed is one whole revision."""

import json
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Denied, Unavailable
from reconciler.decide.summary import condition, settled, stalled
from reconciler.model.identity import FINALIZERS, Key, Kind
from reconciler.model.objects import Object, with_local
from reconciler.store import functions
from reconciler.store.port import Put
from reconciler.store.revisions import revisions_of
from tests.fakes.repositories import SimRepository
from tests.fakes.world import Killed, World

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EDGE: Final = Key(Kind.SOURCE, "edge")
NODE: Final = Key(Kind.NODE, "node")
NAMES: Final = ("a", "b", "c", "d", "e")
SPEC: Final[dict[str, Any]] = {"git": {"url": "https://git.example.org/edge.git"}, "interval": "60s"}
MOST: Final = 12

Happening = tuple[str, int]
happenings = st.tuples(
    st.sampled_from(
        [
            *("commit", "commit", "commit", "grow", "invalid", "empty", "rewrite", "down", "denied", "up"),
            *("restart", "kill", "pass_time", "suspend", "resume", "rollback", "hold", "release", "steal", "give_back"),
            *("prune", "lift", "reference", "sync", "lose"),
        ]
    ),
    st.integers(0, 31),
)
stories = st.lists(happenings, max_size=10)
dangers = st.lists(
    st.tuples(st.sampled_from(["commit", "grow", "empty", "rewrite", "invalid", "hold", "kill"]), st.integers(0, 31)),
    max_size=8,
)


def volume(name: str, *, retain: bool = False) -> str:
    """A manifest."""
    spec = {"retain": retain}
    return json.dumps({"apiVersion": "reconciler/v1", "kind": "Volume", "metadata": {"name": name}, "spec": spec})


def files(number: int) -> dict[str, str]:
    """Files with the volumes whose bit is set."""
    return {f"{name}.yaml": volume(name, retain=number > 15) for i, name in enumerate(NAMES) if number & 1 << i}


def new_world() -> World:
    """A node with one Source that has one good commit."""
    world = World()
    world.hands.repositories["edge"] = SimRepository()
    world.hands.repositories["edge"].commit(files(7))
    world.store.commit([Put(Object(NODE, manager="engine"), 0)])
    apply_source(world)
    return world


def apply_source(world: World, **changes: Any) -> None:
    """Have the Source wanted with these changes."""
    found = world.store.get(EDGE)
    spec = {**(found.spec if found is not None else SPEC), **changes}
    functions.apply_specs(world.store, [functions.Wanted(EDGE, spec)], functions.Manager("hand"), finalizers=FINALIZERS)


def ask(world: World, key: Key, **local: Any) -> None:
    """What a person at the node asks."""
    functions.modify(world.store, key, lambda obj: with_local(obj, local))


def happen(world: World, name: str, number: int) -> None:
    """Let it happen, and mostly enough time pass for the next fetch."""
    _happen(world, name, number)
    if number % 4:
        world.pass_time(67.0)


def _happen(world: World, name: str, number: int) -> None:
    repository, wall = world.hands.repositories["edge"], world.clock.wall()
    match name:
        case "commit":
            repository.commit(files(number))
        case "grow":
            repository.commit({**repository.commits[repository.head][1], **files(number)})
        case "invalid":
            repository.commit({**files(number), "bad.yaml": "kind: Volume\n"})
        case "empty":
            repository.commit({"README": "nothing"})
        case "rewrite":
            repository.commit(files(number), onto="")
        case "reference":
            spec = {"image": "nowhere", "network": {"mode": "none"}}
            metadata = {"name": "lost"}
            text = json.dumps({"apiVersion": "reconciler/v1", "kind": "Container", "metadata": metadata, "spec": spec})
            repository.commit({**files(number), "lost.yaml": text})
        case "down" | "denied":
            repository.trouble = Unavailable("nobody answers") if name == "down" else Denied("not you")
        case "up":
            repository.trouble = None
        case "restart":
            world.restart_agent()
        case "kill":
            world.hands.kill_at = world.hands.boundaries + 1 + number % 8
        case "pass_time":
            world.pass_time(float(number * 10))
        case "sync":
            ask(world, EDGE, sync={"id": str(number)})
        case "suspend":
            ask(world, EDGE, suspend={"until": wall + 100.0 if number % 2 else None, "reason": ""})
        case "resume":
            ask(world, EDGE, suspend=None, rollback=None)
        case "rollback":
            rollback(world, number)
        case "hold":
            ask(world, NODE, hold={"until": wall + 100.0 if number % 2 else None, "reason": ""})
        case "release":
            ask(world, NODE, hold=None)
        case "steal" | "give_back":
            steal(world, NAMES[number % len(NAMES)], "hand" if name == "steal" else "source/edge")
        case "lose":
            lose(world, NAMES[number % len(NAMES)])
        case "prune":
            apply_source(world, prune=bool(number % 2))
        case "lift":
            apply_source(world, allowRewind=bool(number % 2), allowMassPrune=bool(number // 2 % 2))


def rollback(world: World, number: int) -> None:
    """A person goes back to one of the revisions that are kept."""
    known = revisions_of(world.store, EDGE)
    source = functions.existing(world.store, EDGE)
    if known:
        to = known[number % len(known)]
        over = source.record.get("fetched", {}).get("revision", "")
        asked = {"number": to.spec["number"], "name": to.name, "revision": to.spec["revision"], "over": over}
        ask(world, EDGE, rollback=asked)


def steal(world: World, name: str, manager: str) -> None:
    """Somebody takes an object over, or gives it back."""
    found = world.store.get(Key(Kind.VOLUME, name))
    if found is not None and found.deleted is None:
        want = functions.Wanted(found.key, found.spec)
        functions.apply_specs(world.store, [want], functions.Manager(manager, take_over=True), finalizers=FINALIZERS)


def lose(world: World, name: str) -> None:
    """Somebody deletes an object behind the Source's back."""
    if world.store.get(Key(Kind.VOLUME, name)) is not None:
        world.delete(Key(Kind.VOLUME, name))


def go_on(world: World, *, check: bool) -> None:
    """Look until only time helps; where the agent is killed, another one is started."""
    try:
        world.engine.resync()
        while world.queue.ready:
            world.look(next(iter(world.queue.ready)))
            if check:
                expect_whole(world)
    except Killed:
        world.hands.kill_at = None
        world.restart_agent()
        if check:
            expect_whole(world)


def members(world: World) -> set[Key]:
    """What the Source manages and does not remove."""
    return {one.key for one in functions.members(world.store, "source/edge") if one.deleted is None}


def expect_whole(world: World) -> None:
    """What is managed is all that one revision says: nothing of any other, and nothing less."""
    source = functions.existing(world.store, EDGE)
    assert members(world) == {Key.parse(text) for text in source.record.get("inventory", ())}


def rest(world: World) -> None:
    """Let all that is due by itself come, for an hour."""
    world.hands.kill_at = None
    for _ in range(60):
        world.run(MOST)
        world.pass_time(60.0)
    world.run(MOST)


@quick
@given(stories)
def test_at_every_moment_of_any_story_what_is_managed_is_one_whole_revision(story: Sequence[Happening]) -> None:
    world = new_world()
    go_on(world, check=True)
    for name, number in story:
        if name in ("steal", "give_back", "lose", "prune"):
            continue  # somebody else's hand in it, or a Source that is told to leave what is superseded
        happen(world, name, number)
        go_on(world, check=True)


@quick
@given(stories)
def test_after_any_story_a_source_comes_to_rest_and_one_more_look_does_nothing(story: Sequence[Happening]) -> None:
    world = new_world()
    for name, number in story:
        happen(world, name, number)
        go_on(world, check=False)
    rest(world)
    told, done = world.status(EDGE), len(world.hands.performed)
    world.engine.resync()
    world.run(MOST)
    assert world.hands.performed[done:] == []
    source = functions.existing(world.store, EDGE)
    if source.status["conditions"][0]["reason"] in ("Applied", "RolledBack"):
        assert {Key.parse(text) for text in source.record["inventory"]} <= members(world)
    assert {**world.status(EDGE), "nextRetryAt": ""} == {**told, "nextRetryAt": ""}


@quick
@given(stories)
def test_once_all_that_stood_in_the_way_is_lifted_the_newest_revision_is_in_force(story: Sequence[Happening]) -> None:
    world = new_world()
    for name, number in story:
        happen(world, name, number)
        go_on(world, check=False)
    for name in NAMES:
        steal(world, name, "source/edge")
    for name, number in (("up", 0), ("resume", 0), ("release", 0), ("lift", 3), ("prune", 1)):
        happen(world, name, number)
    tip = world.hands.repositories["edge"].commit(files(21))
    rest(world)
    source = functions.existing(world.store, EDGE)
    assert settled(source), source.status
    assert source.status["observedRevision"] == tip
    assert members(world) == {Key(Kind.VOLUME, name) for name in ("a", "c", "e")}
    assert len(revisions_of(world.store, EDGE)) <= 3


@quick
@given(dangers)
def test_without_being_told_to_no_story_empties_a_source_or_follows_a_rewritten_history(
    story: Sequence[Happening],
) -> None:
    world = new_world()
    go_on(world, check=True)
    repository = world.hands.repositories["edge"]
    for name, number in story:
        before = functions.existing(world.store, EDGE).record["applied"]["revision"]
        held = _held(world)
        happen(world, name, number)
        go_on(world, check=True)
        after = functions.existing(world.store, EDGE).record["applied"]["revision"]
        assert before in repository.lineage(after)
        assert members(world), "it was never empty, so it is not now"
        assert not held or not _held(world) or after == before, "the node was held"


def _held(world: World) -> bool:
    hold = functions.existing(world.store, NODE).local.get("hold")
    return hold is not None and (hold["until"] is None or hold["until"] > world.clock.wall())


@quick
@given(stories)
def test_a_source_that_is_deleted_at_any_moment_leaves_nothing(story: Sequence[Happening]) -> None:
    world = new_world()
    for name, number in story:
        if name not in ("steal", "prune"):
            happen(world, name, number)
        go_on(world, check=False)
    apply_source(world, prune=True)
    world.delete(EDGE)
    rest(world)
    assert [one.key for one in world.store.list() if one.key != NODE] == []


def test_a_reference_to_nothing_waits_and_is_stalled_when_its_time_is_over() -> None:
    world = new_world()
    world.run(MOST)
    happen(world, "reference", 7)
    happen(world, "sync", 1)
    world.run(MOST)
    waiting = condition(world.status(EDGE), "Reconciling")
    assert waiting is not None
    assert (waiting["reason"], "image/nowhere (lost.yaml:1:" in waiting["message"]) == ("WaitingFor", True)
    rest(world)
    assert stalled(functions.existing(world.store, EDGE))
    world.apply(Kind.IMAGE, "nowhere", {"ref": "reg.local:5000/web:1"})
    world.pass_time(300.0)
    world.run(40)
    assert Key(Kind.CONTAINER, "lost") in members(world)
