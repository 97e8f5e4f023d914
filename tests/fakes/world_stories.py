"""Stories for a simulated node: what may happen to a container, in any order, and what must be so in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from core.errors import AgentError, Busy, Conflict, Failed, Invalid, NoSpace, NotFound
from core.runtime.ports import SandboxPhase, TaskPhase
from reconciler.decide import overrides
from reconciler.decide.attempts import Memory
from reconciler.decide.health import ProbeSeen
from reconciler.decide.summary import LOOK_AGAIN
from reconciler.model import actions as do
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.probes import ROLES
from reconciler.model.objects import Object, with_local
from reconciler.store import functions
from tests.fakes.world import Killed, World, no_trouble

REFS: Final = ("reg.local:5000/web:1", "reg.local:5000/web:2")
DIGESTS: Final = ("sha256:" + "a" * 64, "sha256:" + "b" * 64)
WEB: Final = Key(Kind.CONTAINER, "web")
ERRORS: Final = (Failed, Invalid, NoSpace, Conflict, Busy, NotFound)
LIVE: Final = (TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED)
PHASES: Final = (
    "recording",
    "preparing",
    "creating",
    "starting",
    "stopping",
    "removing",
    "sandbox",
    "fetching",
    "volume",
)
LOOKS: Final = 40
"""Looks at one object that a whole graph of them, with faults on the way, may take between two waits."""


def new_world() -> World:
    """A node with nothing on it, and a registry with two images."""
    world = World()
    world.node.registry = dict(zip(REFS, DIGESTS, strict=True))
    return world


policies = st.sampled_from(["Always", "OnFailure", "Never"])


@st.composite
def specs(draw: st.DrawFn, *, policy: str | None = None) -> dict[str, Any]:
    """A container's spec: an image by reference or name, a sandbox of its own or a shared one, and what it may need."""
    spec: dict[str, Any] = {"image": draw(st.sampled_from([*REFS, "base"]))}
    if draw(st.booleans()):
        spec["sandbox"] = "shared"
    else:
        spec["network"] = {"mode": draw(st.sampled_from(["none", "host", "bridge"]))}
    if (word := draw(st.sampled_from(["", "a", "b"]))) != "":
        spec["env"] = [{"name": "WORD", "value": word}]
    if draw(st.booleans()):
        spec["mounts"] = [{"path": "/data", "volume": "data"}]
    if draw(st.booleans()):
        spec["env"] = [{"name": "LOGIN", "valueFrom": {"secret": {"name": "login", "key": "user"}}}]
    if draw(st.booleans()):
        spec["resources"] = {"pids": draw(st.integers(10, 12))}
    spec["restart"] = {"policy": policy or draw(policies)}
    spec["stop"] = {"grace": "3s"}
    if roles := draw(st.sets(st.sampled_from(["startup", "liveness", "readiness"]))):
        spec["probes"] = {role: {"tcp": {"port": 80}} for role in sorted(roles)}
    if hooks := draw(st.sets(st.sampled_from(["postStart", "preStop"]))):
        spec["hooks"] = {role: {"exec": ["true"]} for role in sorted(hooks)}
    return spec


def apply_surroundings(world: World, *, secret: str = "me", ref: str = REFS[0], mode: str = "none") -> None:
    """Everything that a spec of `specs` may name."""
    world.apply(Kind.IMAGE, "base", {"ref": ref})
    world.apply(Kind.SANDBOX, "shared", {"runtime": "runc", "network": {"mode": mode}})
    world.apply(Kind.VOLUME, "data", {"retain": False})
    world.apply(Kind.SECRET, "login", {"stringData": {"user": secret}})


@dataclass(frozen=True)
class Event:
    """Something that happens, by name, with what it takes."""

    name: str
    number: int = 0
    spec: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"{self.name}({self.number}{'' if self.spec is None else f', {dict(self.spec)}'})"


def happen(world: World, event: Event) -> None:
    """Let it happen."""
    _HAPPENINGS[event.name](world, event)


def _to_a_task(deed: Callable[[World, str, int], None], phases: Sequence[TaskPhase]) -> Callable[[World, Event], None]:
    def happening(world: World, event: Event) -> None:
        found = sorted(task.id for task in world.node.tasks.values() if task.phase in phases and task.alive)
        if found:
            deed(world, found[event.number % len(found)], event.number)

    return happening


def _trouble(world: World, event: Event) -> None:
    """A phase fails the next few times it is tried."""
    phase, error = PHASES[event.number % len(PHASES)], ERRORS[event.number % len(ERRORS)]
    left = [1 + event.number % 3]

    def trouble(action: do.Action) -> AgentError | None:
        if action.phase != phase or left[0] == 0:
            return None
        left[0] -= 1
        return error(f"{phase} would not")

    world.hands.trouble = trouble


def _kill(world: World, event: Event) -> None:
    world.hands.kill_at = world.hands.boundaries + 1 + event.number


def _lose_sandbox(world: World, event: Event) -> None:
    for id in sorted(world.node.sandboxes):
        if not any(task.lives and task.sandbox == id for task in world.node.tasks.values()):
            world.node.sandboxes[id] = SandboxPhase.STOPPED
    world.node.networks.clear()
    world.engine.resync()


def _jump(world: World, event: Event) -> None:
    world.clock._wall += 1000.0 * (event.number - 5)


def _stubborn(world: World, event: Event) -> None:
    for task in world.node.tasks.values():
        task.stubborn = True


def _change(world: World, event: Event) -> None:
    obj = world.store.get(WEB)
    if event.spec is not None and obj is not None and obj.deleted is None:
        world.apply(Kind.CONTAINER, "web", event.spec)


def _surroundings(world: World, event: Event) -> None:
    if all(obj.deleted is None for obj in world.store.list()):
        n = event.number
        modes = ("none", "host")
        apply_surroundings(world, secret=f"me{n % 2}", ref=REFS[n // 2 % 2], mode=modes[n // 4 % 2])


def ask(world: World, how: Callable[[Object, float], Mapping[str, Any]]) -> None:
    """A person at the node asks something of the container beside its spec."""
    obj = world.store.get(WEB)
    if obj is not None and obj.deleted is None:
        functions.modify(world.store, WEB, lambda found: with_local(found, how(found, world.clock.wall())))
        world.engine.woken(WEB)


def _override(world: World, event: Event) -> None:
    seconds = (None, 5.0, 100.0)[event.number // 3 % 3]
    asks: tuple[Callable[[Object, float], Mapping[str, Any]], ...] = (
        lambda obj, now: overrides.ask_stop(now, seconds, "a test"),
        lambda obj, now: overrides.ask_restart(obj, now, "a test"),
        lambda obj, now: overrides.ask_start(obj, now, "a test"),
    )
    ask(world, asks[event.number % 3])


def _unwell(world: World, event: Event) -> None:
    """A probe begins to say no, or to say yes again."""
    role, failures = ROLES[event.number % len(ROLES)], event.number % 5
    world.node.answers[role] = ProbeSeen(failures == 0, failures, "refused")
    world.engine.resync()


_HAPPENINGS: Final[Mapping[str, Callable[[World, Event], None]]] = {
    "exit": _to_a_task(lambda world, task, n: world.exit(task, (0, 1, 137)[n % 3], oom=n % 3 == 2), LIVE),
    "lose_monitor": _to_a_task(lambda world, task, n: world.lose_monitor(task), LIVE),
    "vanish": _to_a_task(lambda world, task, n: world.vanish(task), LIVE),
    "lose_sandbox": _lose_sandbox,
    "reboot": lambda world, event: world.reboot(keep=event.number % 2 == 0),
    "restart_agent": lambda world, event: world.restart_agent(),
    "kill": _kill,
    "trouble": _trouble,
    "jump": _jump,
    "pass_time": lambda world, event: world.pass_time(float(event.number**2)),
    "stubborn": _stubborn,
    "change": _change,
    "unwell": _unwell,
    "surroundings": _surroundings,
    "override": _override,
}


def events(*names: str, policy: str | None = None) -> st.SearchStrategy[Event]:
    """One event: one of `names`, or any."""
    chosen = names or tuple(_HAPPENINGS)
    plain = st.builds(Event, st.sampled_from([name for name in chosen if name != "change"]), st.integers(0, 11))
    return plain | st.builds(Event, st.just("change"), spec=specs(policy=policy)) if "change" in chosen else plain


def go_on(world: World, looks: int) -> None:
    """Some looks; where the agent is killed, another one is started."""
    try:
        for _ in range(looks):
            if not world.queue.ready:
                return
            world.look(next(iter(world.queue.ready)))
    except Killed:
        world.hands.kill_at = None
        world.restart_agent()


def play(world: World, story: Sequence[tuple[Event, int]]) -> None:
    """Each event, and after it some looks."""
    for event, looks in story:
        happen(world, event)
        go_on(world, looks)
    world.hands.kill_at = None
    world.node.answers.clear()
    world.engine.resync()


stories = st.lists(st.tuples(events(), st.sampled_from([0, 1, 2, 3, 5, 50])), max_size=8)


def expect_rest(world: World) -> None:
    """What is so of every world that came to rest without trouble: all as the store has it, and nothing beside."""
    sandboxes = {obj.record["id"] for obj in world.store.list(Kind.SANDBOX)}
    assert set(world.node.sandboxes) == sandboxes
    assert world.node.volume_names == {obj.name for obj in world.store.list(Kind.VOLUME)}
    images = world.store.list(Kind.IMAGE)
    assert world.node.blobs >= {blob for obj in images for blob in obj.record["blobs"]}
    named = {(obj.spec["driver"], obj.spec["chain"]) for obj in world.store.list(Kind.SNAPSHOT)}
    assert (
        world.node.chains & world.node.recorded
        == named
        == {(obj.record["driver"], obj.record["chain"]) for obj in images}
    )
    container = world.store.get(WEB)
    if container is None:
        assert not world.node.tasks
        assert not world.node.logs
    else:
        expect_container(world, container)


def expect_container(world: World, obj: Object) -> None:
    """One task at most is left: that of the current attempt, which runs unless it ended for good."""
    memory = Memory.of(obj.record)
    if overrides.stop_of(obj.local) is not None:
        assert obj.status["state"] == "Stopped"
        assert not world.node.live(obj.name)
        return
    assert memory.current is not None
    id = memory.current.id(obj.name)
    assert memory.previous is None
    assert set(world.node.tasks) <= {id}
    if obj.status["state"] in ("Running", "Paused"):
        task = world.node.tasks[id]
        assert task.phase.value == obj.status["state"].lower()
        assert task.alive
        assert task.spec.get("resources", {}) == obj.spec.get("resources", {})
        assert task.sandbox == world.store.get(Key(Kind.SANDBOX, obj.status["sandbox"])).record["id"]
    else:
        assert obj.status["state"] == "Exited"
        assert obj.spec["restart"]["policy"] != "Always"
        assert not world.node.live(obj.name)


def settle(world: World) -> None:
    """No more trouble: come to rest, and stay there. A resync, as every minute brings one, tells what nobody told."""
    world.hands.trouble = no_trouble
    world.hands.kill_at = None
    world.rest(LOOKS)
    world.pass_time(LOOK_AGAIN + 1)
    world.rest(LOOKS)
    world.engine.resync()
    world.settle(LOOKS)
    functions.sweep(world.store, world.clock.wall())
