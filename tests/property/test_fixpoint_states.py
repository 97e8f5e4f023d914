"""From any state of node and store, sensible or not, looking and doing comes to rest within twelve steps an object."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.runtime.ports import Exit, SandboxPhase, TaskPhase
from reconciler.decide.attempts import Attempt, Ended, Memory
from reconciler.model.identity import Key, Kind, private_sandbox_name
from reconciler.model.objects import with_record
from reconciler.store import functions
from tests.fakes.world import World
from tests.fakes.world_node import ALIVE, Task
from tests.fakes.world_stories import REFS, WEB, apply_surroundings, expect_rest, new_world, specs

STEPS = 12
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Left:
    """What is left of an attempt: of this spec or another, made in this boot or the one before."""

    phase: TaskPhase
    same: bool
    old_boot: bool
    old_sandbox: bool
    alive: bool
    code: int


lefts = st.lists(
    st.builds(
        Left,
        st.sampled_from(list(TaskPhase)),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from([0, 1]),
    ),
    max_size=4,
)


@dataclass(frozen=True)
class Remembered:
    """What the record says: which of the attempts left are current and previous, and how the last one ended."""

    current: int | None
    previous: int | None
    ended: int | None
    failures: int
    failed: str
    forgotten: int


records = st.builds(
    Remembered,
    st.none() | st.integers(0, 4),
    st.none() | st.integers(0, 4),
    st.none() | st.integers(0, 4),
    st.integers(0, 7),
    st.sampled_from(["", "same", "other"]),
    st.sampled_from([0, 0, 1, 5]),
)


def in_state(spec: Mapping[str, Any], left: list[Left], said: Remembered) -> World:
    """A node at rest, then attempts and a record as drawn; the agent is new."""
    world = new_world()
    apply_surroundings(world)
    world.apply(Kind.CONTAINER, "web", spec)
    world.settle()
    first = Memory.of(functions.existing(world.store, WEB).record).current
    assert first is not None
    world.node.tasks.clear()
    made = [_attempt(first, number, one) for number, one in enumerate([*left, _NOTHING])]
    lives = False
    for one, what in zip(made, left, strict=False):
        alive = not lives and what.alive and not what.old_boot and what.phase in (*ALIVE, TaskPhase.LOST)
        lives = lives or alive
        _leave(world, one, what, alive)
    pick = {index: made[index] for index in range(len(made))}
    current, previous = (pick.get(-1 if index is None else index) for index in (said.current, said.previous))
    ended = None if said.ended is None or said.ended >= len(made) else Ended(made[said.ended].attempt, 1, 0.0)
    memory = {
        "attempt": max(1, len(made) + 1 - said.forgotten),
        "current": None if current is None else current.to_json(),
        "previous": None if previous is None or current is None else previous.to_json(),
        "ended": None if ended is None else ended.to_json(),
        "failures": said.failures,
        "failedSwitch": {"same": {"hash": first.hash, "cause": "x"}, "other": {"hash": "0" * 8, "cause": "x"}}.get(
            said.failed
        ),
    }
    functions.modify(world.store, WEB, lambda obj: with_record(obj, memory))
    world.restart_agent()
    return world


_NOTHING = Left(TaskPhase.ABSENT, True, False, False, False, 0)


def _attempt(first: Attempt, number: int, one: Left) -> Attempt:
    policy = first.spec["restart"]["policy"]
    began = one.phase in (TaskPhase.RUNNING, TaskPhase.PAUSED, TaskPhase.STOPPED, TaskPhase.LOST)
    return replace(
        first,
        attempt=number + 2,
        hash=first.hash if one.same else "12345678",
        boot="boot-0" if one.old_boot else first.boot,
        sandbox="gone-00000000-1" if one.old_sandbox else first.sandbox,
        started=began and policy != "Always",
        spec={**first.spec, "env": first.spec.get("env", []) if one.same else [{"name": "OTHER", "value": ""}]},
    )


def _leave(world: World, made: Attempt, what: Left, alive: bool) -> None:
    id = made.id("web")
    phase = what.phase
    if phase in ALIVE and not alive:
        phase = TaskPhase.LOST
    root = (str(made.image["driver"]), str(made.image["chain"]))
    task = Task(id, phase, root, made.sandbox, made.spec, alive)
    if phase is TaskPhase.STOPPED:
        task.exit = Exit(what.code, world.clock.wall() - 5)
    if alive:
        world.node.sandboxes.setdefault(made.sandbox, SandboxPhase.READY)
    world.node.tasks[id] = task
    if phase not in (TaskPhase.ABSENT, TaskPhase.PREPARED):
        world.node.created[id] = 1
    if phase in (TaskPhase.RUNNING, TaskPhase.PAUSED, TaskPhase.STOPPED):
        world.node.started[id] = 1


def rest(world: World) -> None:
    """Come to rest, and check that it is the rest that was wanted."""
    world.settle(STEPS)
    if not any(world.is_stalled(obj.key) for obj in world.store.list()):
        world.node.sandboxes.pop("gone-00000000-1", None)
        expect_rest(world)


@quick
@given(specs(), lefts, records)
def test_a_container_comes_to_rest_from_any_record_and_any_leftovers(
    spec: dict[str, Any], left: list[Left], said: Remembered
) -> None:
    rest(in_state(spec, left, said))


@quick
@given(specs(), lefts, records)
def test_a_container_is_deleted_from_any_record_and_any_leftovers(
    spec: dict[str, Any], left: list[Left], said: Remembered
) -> None:
    world = in_state(spec, left, said)
    world.delete(WEB)
    world.settle(STEPS)
    assert world.store.get(WEB) is None
    assert world.store.get(Key(Kind.SANDBOX, private_sandbox_name("web"))) is None
    assert not world.node.tasks
    assert not world.node.logs


@quick
@given(
    st.sampled_from(["", "right", "other"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "there", "going"]),
    st.booleans(),
)
def test_an_image_comes_to_rest_from_any_record_and_any_remains(
    recorded: str, unpacked: bool, held: bool, snapshot: str, deleted: bool
) -> None:
    world = new_world()
    key = world.apply(Kind.IMAGE, "base", {"ref": REFS[0]})
    world.settle()
    record = dict(functions.existing(world.store, key).record)
    named = world.store.list(Kind.SNAPSHOT)[0]
    if recorded == "other":
        record["wish"] = {**record["wish"], "ref": REFS[1]}
    changes = record if recorded else dict.fromkeys(record)
    functions.modify(world.store, key, lambda obj: with_record(obj, changes))
    if not unpacked:
        world.node.chains.clear()
    if not held:
        world.node.blobs.clear()
    if snapshot == "":
        functions.disown(world.store, key, named.key, 0.0)
    if snapshot == "going":
        world.delete(named.key)
    if deleted:
        world.delete(key)
    world.restart_agent()
    world.settle(STEPS)
    if deleted:
        assert world.store.list() == []
        assert not world.node.blobs
    else:
        expect_rest(world)


@quick
@given(
    st.dictionaries(st.integers(1, 4), st.sampled_from(list(SandboxPhase)), max_size=3),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_sandbox_comes_to_rest_from_any_record_and_any_remains(
    seen: dict[int, SandboxPhase], number: int, made: bool, same: bool, old_boot: bool, deleted: bool
) -> None:
    world = new_world()
    key = world.apply(Kind.SANDBOX, "shared", {"runtime": "runc", "network": {"mode": "none"}})
    world.settle()
    hash = functions.existing(world.store, key).record["hash"] if same else "12345678"
    world.node.sandboxes = {
        f"shared-{hash}-{n}": phase for n, phase in seen.items() if phase is not SandboxPhase.ABSENT
    }
    record = {"id": f"shared-{hash}-{number}", "hash": hash, "attempt": number, "made": made or None}
    record["boot"] = "boot-0" if old_boot else "boot-1"
    changes = record if number else dict.fromkeys(record)
    functions.modify(world.store, key, lambda obj: with_record(obj, changes))
    if deleted:
        world.delete(key)
    world.restart_agent()
    world.settle(STEPS)
    if deleted:
        assert world.store.list() == []
        assert not world.node.sandboxes
    else:
        expect_rest(world)


@quick
@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_volume_comes_to_rest_with_its_folder_kept_or_removed_as_it_says(
    exists: bool, retain: bool, purge: bool, deleted: bool
) -> None:
    world = new_world()
    key = world.apply(Kind.VOLUME, "data", {"retain": retain})
    if exists:
        world.node.volume_names.add("data")
    if purge:
        functions.modify(world.store, key, lambda obj: replace(obj, annotations={"reconciler/purge": "true"}))
    if deleted:
        world.delete(key)
    world.settle(STEPS)
    assert (world.store.get(key) is None) == deleted
    assert ("data" in world.node.volume_names) == (exists and retain and not purge if deleted else True)


@quick
@given(st.booleans(), st.booleans())
def test_a_secret_is_ready_at_once_and_gone_at_once(used: bool, deleted: bool) -> None:
    world = new_world()
    apply_surroundings(world)
    if used:
        source = {"secret": {"name": "login", "key": "user"}}
        spec = {"image": "base", "sandbox": "shared", "env": [{"name": "LOGIN", "valueFrom": source}]}
        world.apply(Kind.CONTAINER, "web", spec)
    world.settle(STEPS)
    key = Key(Kind.SECRET, "login")
    if deleted:
        world.delete(key)
        world.settle(STEPS)
    assert (world.store.get(key) is None) == deleted
    if used:
        assert world.is_stalled(WEB) == deleted
        assert len(world.node.live("web")) == 1


@quick
@given(st.lists(st.sampled_from(["one", "two", "both"]), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_snapshot_goes_with_the_last_image_and_not_under_a_container(
    order: list[str], running: bool, at_once: bool
) -> None:
    world = new_world()
    keys = [world.apply(Kind.IMAGE, name, {"ref": REFS[0]}) for name in ("one", "two")]
    if running:
        world.apply(Kind.CONTAINER, "web", {"image": "one", "network": {"mode": "none"}})
    world.settle(STEPS)
    assert len(world.store.list(Kind.SNAPSHOT)) == 1
    if running:
        world.delete(WEB)
    for key in keys if order[0] != "two" else reversed(keys):
        world.delete(key)
        if not at_once:
            world.settle(STEPS)
    world.settle(STEPS)
    assert world.store.list() == []
    assert not world.node.chains
