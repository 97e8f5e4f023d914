"""A node and its store in plain data, for running the real engine, controllers and planners without a node.

Rules of this file: tasks move as `TASK_MOVES` has it, all else raises; an action that breaks a promise (two live tasks,
a number used twice or not recorded, a sandbox removed under a task) raises `Broken`. Time is virtual. Every action has
boundaries, before, within and after: at any of them the agent can be killed (`kill_at` counts them); and before it is
done, or half-way, the action can fail (`trouble`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, assert_never, cast

from core.clock import VirtualClock
from core.digest import hash8
from core.errors import AgentError, NotFound, Unavailable
from core.runtime.ports import IllegalMove, SandboxPhase, TaskEvent, TaskPhase
from reconciler.controllers.container import ContainerController
from reconciler.controllers.others import (
    ImageController,
    PlainController,
    SandboxController,
    SnapshotController,
    VolumeController,
)
from reconciler.controllers.source import RevisionController, SourceController
from reconciler.decide.facts import Attached, StopAsked
from reconciler.decide.freshness import answered, unanswered
from reconciler.decide.others import on_bridge
from reconciler.decide.references import volumes_of
from reconciler.decide.summary import is_true
from reconciler.engine.controller import Controller, register
from reconciler.engine.engine import Engine
from reconciler.engine.index import Index
from reconciler.engine.observe import Eyes
from reconciler.engine.queue import WorkQueue
from reconciler.engine.sources import SourceHands, Ways
from reconciler.model import actions as do
from reconciler.model.config import Config
from reconciler.model.identity import FINALIZERS, Key, Kind
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import Object, with_local, with_record, without_finalizer
from reconciler.sources.revisions import Fetcher
from reconciler.sources.substitution import Variables
from reconciler.store import functions
from reconciler.store.memory import MemoryStore
from tests.fakes.repositories import KeptRevisions, SimFetcher, SimRepository
from tests.fakes.world_node import ALIVE, Broken, SimEyes, SimNode, Task, known_id

KILL: Final = 9
Trouble = Callable[[do.Action], AgentError | None]


class Killed(BaseException):
    """The agent was killed here; what it had done so far is done."""


def no_trouble(action: do.Action) -> AgentError | None:
    """All goes well."""
    return None


class Keys:
    """What an engine needs of a queue: keys to look at now, and when (monotonic) to look at others."""

    def __init__(self, clock: VirtualClock) -> None:
        self.ready: dict[Key, None] = {}
        self.due: dict[Key, float] = {}
        self._clock = clock

    def add(self, key: Key) -> None:
        """Look at it."""
        self.ready[key] = None

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at it then."""
        at = self._clock.monotonic() + seconds
        self.due[key] = min(at, self.due.get(key, at))


class SimHands:
    """Performs every action on plain data."""

    def __init__(self, store: MemoryStore, node: SimNode, clock: VirtualClock) -> None:
        self.store = store
        self.node = node
        self.clock = clock
        self.asked: dict[str, StopAsked] = {}
        self.performed: list[do.Action] = []
        self.trouble: Trouble = no_trouble
        self.repositories: dict[str, SimRepository] = {}
        self.kept = KeptRevisions(store)
        self.forget_sources()
        self.kill_at: int | None = None
        self.boundaries = 0

    def forget_sources(self) -> None:
        """What an agent remembers of Sources is gone with it; what was fetched lies in the repositories' copies."""
        ways = Ways(self._fetcher, Path("/nonexistent"), Variables("node"))
        self.sources = SourceHands(self.store, self.kept, ways, self.clock)

    def _fetcher(self, obj: Object, spec: SourceSpec) -> Fetcher:
        return SimFetcher(self.repositories[obj.name], spec.path)

    def _boundary(self) -> None:
        self.node.check()
        self.boundaries += 1
        if self.boundaries == self.kill_at:
            raise Killed

    def perform(self, action: do.Action) -> None:
        """Do it; raises `AgentError` as `trouble` has it, and what the real hands raise."""
        self._boundary()
        self.performed.append(action)
        error = self.trouble(action)
        if error is not None and not isinstance(
            action, do.CreateTask | do.RestoreTask | do.PrepareTask | do.MakeSandbox
        ):
            raise error
        match action:
            case do.Remember() | do.AskLocal() | do.EnsureOwned() | do.Disown() | do.Release():
                self._record(action)
            case do.PullImage() | do.CheckImage() | do.ForgetImage() | do.RemoveChain():
                self._image(action)
            case do.MakeSandbox() | do.RemoveSandbox():
                self._sandbox(action, error)
            case do.PrepareTask() | do.CreateTask() | do.StartTask() | do.LayRoot() | do.RestoreTask():
                self._launch(action, error)
            case do.RunHook(id=id, role=role):
                self.node.hooked.add((id, role))
                if role == "preStop":
                    self.asked[id] = StopAsked(self.clock.monotonic(), hooking=True)
            case do.SignalTask() | do.UpdateTask() | do.DeleteTask():
                self._task(action)
            case do.RemoveLogs(name):
                self.node.logs.discard(name)
            case do.MakeVolume(name):
                self.node.volume_names.add(name)
            case do.RemoveVolume(name):
                if users := [t for t in self.node.tasks.values() if t.lives and name in volumes_of(t.spec)]:
                    raise Broken(f"volume {name} was removed under {users}")
                self.node.volume_names.discard(name)
            case do.FetchSource() | do.LoadRevision() | do.ApplyRevision() | do.LetGoOfMembers() | do.ForgetSource():
                self._source(action)
            case _:
                assert_never(action)
        self._boundary()

    def _source(
        self,
        action: do.FetchSource | do.LoadRevision | do.ApplyRevision | do.LetGoOfMembers | do.ForgetSource,
    ) -> None:
        """The real hands, over repositories in memory."""
        match action:
            case do.FetchSource():
                self.sources.fetch(action)
            case do.LoadRevision():
                self.sources.load(action)
            case do.ApplyRevision():
                self.sources.apply(action)
            case do.LetGoOfMembers():
                self.sources.let_go_of_members(action)
            case do.ForgetSource():
                self.sources.forget(action)

    def _record(self, action: do.Remember | do.EnsureOwned | do.Disown | do.Release | do.AskLocal) -> None:
        match action:
            case do.Remember(key, changes):
                functions.modify(self.store, key, lambda obj: with_record(obj, changes))
            case do.AskLocal(key, changes):
                functions.modify(self.store, key, lambda obj: with_local(obj, changes))
            case do.EnsureOwned(owner, wanted):
                functions.create_owned(self.store, functions.existing(self.store, owner), wanted)
            case do.Disown(key, owner):
                functions.disown(self.store, owner, key, self.clock.wall())
            case do.Release(key):
                name = FINALIZERS[key.kind]
                functions.keep_attempts(self.store, functions.existing(self.store, key))
                released = functions.modify(self.store, key, lambda obj: without_finalizer(obj, name))
                self._boundary()
                functions.vanish(self.store, released, self.clock.wall())

    def _image(self, action: do.PullImage | do.CheckImage | do.ForgetImage | do.RemoveChain) -> None:
        match action:
            case do.PullImage(key, ref):
                if (digest := self.node.registry.get(ref)) is None:
                    raise NotFound(f"{ref} is not in the registry")
                self.node.blobs.add(digest)
                self.node.chains.add((action.driver, f"sha256:{hash8(digest) * 8}"))
                self._boundary()
                record = image_record(ref, action.driver, digest, action.platform)
                functions.modify(self.store, key, lambda obj: with_record(obj, record))
                self.node.recorded.add((action.driver, record["chain"]))
            case do.CheckImage(key, ref):
                self._check(key, ref)
            case do.ForgetImage(key):
                others = (obj for obj in self.store.list(Kind.IMAGE) if obj.key != key)
                self.node.blobs &= {blob for obj in others for blob in obj.record.get("blobs", ())}
            case do.RemoveChain(key, driver):
                others = [obj for obj in self.store.list() if obj.key != key]
                named = [obj.spec for obj in others if obj.kind is Kind.SNAPSHOT]
                wanted = [obj.record for obj in others if obj.kind is Kind.IMAGE and obj.record.get("chain")]
                needed = {(one["driver"], one["chain"]) for one in (*named, *wanted)}
                needed |= {task.root for task in self.node.tasks.values() if task.root is not None}
                self.node.chains = {one for one in self.node.chains if one[0] != driver or one in needed}

    def _check(self, key: Key, ref: str) -> None:
        record, now = functions.existing(self.store, key).record, self.clock.wall()
        digest = self.node.registry.get(ref)
        target = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
        changes = unanswered(NotFound("no such tag"), now) if digest is None else answered(record, target, now)
        functions.modify(self.store, key, lambda obj: with_record(obj, changes))

    def _sandbox(self, action: do.MakeSandbox | do.RemoveSandbox, error: AgentError | None) -> None:
        match action:
            case do.MakeSandbox(_, id):
                if self.node.sandboxes.get(id) is not SandboxPhase.READY:
                    self.node.sandboxes[id] = SandboxPhase.HALF_MADE
                self._boundary()
                if error is not None:
                    raise error
                self.node.sandboxes[id] = SandboxPhase.READY
                self._boundary()
                if on_bridge(action.spec):
                    self.node.networks[id] = Attached("default", ("10.88.0.2/24",))
            case do.RemoveSandbox(id):
                self.node.networks.pop(id, None)
                self._boundary()
                self.node.sandboxes.pop(id, None)

    def _launch(
        self,
        action: do.PrepareTask | do.CreateTask | do.StartTask | do.LayRoot | do.RestoreTask,
        error: AgentError | None,
    ) -> None:
        match action:
            case do.PrepareTask():
                self._prepare(action, error)
            case do.CreateTask(id):
                task = self._there(id)
                task.move(TaskEvent.CREATE_BEGUN)
                self.node.created[id] += 1
                self._boundary()
                if error is not None:
                    raise error
                if self.node.sandboxes.get(task.sandbox) is not SandboxPhase.READY:
                    raise Unavailable(f"sandbox {task.sandbox} is not there")
                task.move(TaskEvent.CREATE)
                task.alive = True
            case do.StartTask(_, id):
                self._there(id).move(TaskEvent.START)
                self.node.started[id] += 1
            case do.LayRoot(_, id, image):
                task = self.node.tasks.setdefault(id, Task(id))
                task.root = (image["driver"], image["chain"])
            case do.RestoreTask(_, id):
                task = self._there(id)
                task.move(TaskEvent.CREATE_BEGUN)
                self.node.created[id] += 1
                self._boundary()
                if error is not None:
                    raise error
                task.move(TaskEvent.RESTORE)
                task.alive = True
                self.node.started[id] += 1

    def _there(self, id: str) -> Task:
        task = self.node.tasks.get(id)
        if task is None:
            raise IllegalMove(TaskPhase.ABSENT, TaskEvent.START)
        return task

    def _prepare(self, action: do.PrepareTask, error: AgentError | None) -> None:
        record = functions.existing(self.store, action.key).record
        if record.get("attempt", 0) < known_id(action.id).attempt:
            raise Broken(f"{action.id} is made before its number is recorded")
        task = self.node.tasks.setdefault(action.id, Task(action.id))
        if task.phase is not TaskPhase.ABSENT:
            return
        if self.node.created[action.id]:
            raise Broken(f"{action.id} is made a second time")
        if self.node.sandboxes.get(action.sandbox) is not SandboxPhase.READY:
            raise Unavailable(f"sandbox {action.sandbox} is not there")
        root = (str(action.image["driver"]), str(action.image["chain"]))
        if root not in self.node.chains:
            raise NotFound(f"there is no snapshot {root}")
        task.root, task.sandbox, task.spec = root, action.sandbox, action.spec
        self._boundary()
        if error is not None:
            raise error
        task.move(TaskEvent.PREPARE)
        self.node.logs.add(action.key.name)

    def _task(self, action: do.SignalTask | do.UpdateTask | do.DeleteTask) -> None:
        task = self.node.tasks.get(action.id)
        match action:
            case do.SignalTask(_, id, signal):
                now, before = self.clock.monotonic(), self.asked.get(id)
                first = before is None or before.hooking
                self.asked[id] = StopAsked(before.asked if before else now, None if first else now)
                if task is not None and task.lives and (signal == KILL or not task.stubborn):
                    task.end(128 + signal, self.clock.wall())
            case do.UpdateTask(id, resources):
                if task is None or task.phase not in ALIVE:
                    raise NotFound(f"task {id} does not run")
                task.spec = {**task.spec, "resources": resources}
            case do.DeleteTask(id=id):
                if task is not None and task.lives and task.phase is not TaskPhase.CREATED:
                    raise Broken(f"{task} is deleted while it runs")
                if task is not None and task.phase is not TaskPhase.ABSENT:
                    task.move(TaskEvent.DELETE)
                    task.alive, task.exit = False, None
                self._boundary()
                self.node.tasks.pop(id, None)
                self.asked.pop(id, None)


def image_record(ref: str, driver: str, digest: str, platform: str) -> dict[str, Any]:
    """What is remembered of a pulled image."""
    return {
        "wish": {"ref": ref, "platform": platform, "driver": driver},
        "driver": driver,
        "chain": f"sha256:{hash8(digest) * 8}",
        "digest": digest,
        "platform": platform,
        "layers": [{"digest": digest, "size": 1, "state": "applied"}],
        "config": {"cmd": ["/bin/sh"], "stop_signal": "SIGTERM"},
        "blobs": [digest],
    }


class World:
    """The node, the store, and an agent that can be killed and started again."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.node = SimNode()
        self.hands = SimHands(self.store, self.node, self.clock)
        self.restart_agent()

    # The agent.

    def restart_agent(self) -> None:
        """Another engine, which knows only what is in the store and on the node."""
        self.hands.asked.clear()
        self.hands.forget_sources()
        self.queue = Keys(self.clock)
        index = Index()
        eyes = cast(Eyes, SimEyes(self.store, self.node, self.hands.asked))
        self.controllers: Mapping[Kind, Controller] = register(
            (
                ContainerController(eyes, index.owned_by),
                ImageController(eyes, index.users),
                SandboxController(eyes, index.users),
                SnapshotController(eyes),
                VolumeController(eyes, index.users),
                PlainController(Kind.SECRET, dict),
                PlainController(Kind.NODE, dict),
                SourceController(self.store, self.hands.sources.memories, Config(), {}, fetches=True),
                RevisionController(self.store),
            )
        )
        queue = cast(WorkQueue, self.queue)
        self.engine = Engine(self.store, self.controllers, self.hands, queue, self.clock, index)
        self._told = self.store.version()
        functions.sweep(self.store, self.clock.wall())
        self.engine.resync()

    def look(self, key: Key) -> bool:
        """One look at one object, and what the store's watcher tells after it; whether anything was performed."""
        before = len(self.hands.performed)
        self.queue.ready.pop(key, None)
        self.engine.work(key)
        self._tell()
        return len(self.hands.performed) > before

    def _tell(self) -> None:
        changes, self._told = self.store.changes(self._told), self.store.version()
        for change in changes:
            self.engine.woken(change.key)

    def run(self, most: int = 12) -> Counter[Key]:
        """Look until only time or an event helps; raises `Broken` when a key performs in over `most` looks."""
        self._tell()
        looks: Counter[Key] = Counter()
        idle = 0
        while self.queue.ready:
            key = next(iter(self.queue.ready))
            performed = self.look(key)
            looks[key] += performed
            idle = 0 if performed else idle + 1
            if looks[key] > most or idle > 200:
                last = [repr(one)[:100] for one in self.hands.performed[-8:]]
                raise Broken(f"{key} does not come to rest: {last}")
        return looks

    def wait(self) -> bool:
        """Let time pass until the next thing is due that is not merely Stalled; False when there is none."""
        due = [at for key, at in self.queue.due.items() if not self.is_stalled(key)]
        if not due:
            return False
        self.pass_time(max(0.0, min(due) - self.clock.monotonic()))
        return True

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what is due by then be looked at."""
        self.clock.advance(seconds)
        for key in [key for key, at in self.queue.due.items() if at <= self.clock.monotonic()]:
            del self.queue.due[key]
            self.queue.add(key)

    def is_stalled(self, key: Key) -> bool:
        """Whether only a person or the outside can help it on, or it is gone."""
        obj = self.store.get(key)
        return obj is None or is_true(obj.status, "Stalled")

    def settle(self, most: int = 12, waits: int = 80) -> None:
        """Run and wait until nothing is due; then look at everything once more: nothing may be left to do or to say."""
        self.rest(most, waits)
        told, done = self.statuses(), len(self.hands.performed)
        self.engine.resync()
        self.run(most)
        if more := self.hands.performed[done:]:
            raise Broken(f"one more look did {more}")
        if self.statuses() != told:
            raise Broken(f"one more look told {self.statuses()}, not {told}")

    def rest(self, most: int = 12, waits: int = 80) -> None:
        """Run and wait until nothing is due by itself."""
        self.run(most)
        for _ in range(waits):
            if not self.wait():
                return
            self.run(most)
        raise Broken(f"still not at rest: {self.queue.due}")

    def statuses(self) -> dict[Key, Any]:
        """All statuses, but for when each is looked at again."""
        return {obj.key: {**obj.status, "nextRetryAt": 0} for obj in self.store.list()}

    # What happens by itself.

    def exit(self, id: str, code: int = 0, *, oom: bool = False) -> None:
        """A task ends."""
        self._happened(id).end(code, self.clock.wall(), oom=oom)

    def lose_monitor(self, id: str) -> None:
        """A task's monitor is killed."""
        self._happened(id).move(TaskEvent.MONITOR_GONE)

    def vanish(self, id: str) -> None:
        """All of a task but its root goes, behind our back."""
        task = self._happened(id)
        task.phase, task.alive, task.exit = TaskPhase.ABSENT, False, None

    def _happened(self, id: str) -> Task:
        self.queue.add(Key(Kind.CONTAINER, known_id(id).name))
        return self.node.tasks[id]

    def reboot(self, *, keep: bool) -> None:
        """Power cut, and an agent after it. `keep`: the state folder's files are still there."""
        self.node.cut_power(keep=keep)
        self.restart_agent()

    # People.

    def apply(self, kind: Kind, name: str, spec: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> Key:
        """Want it so."""
        wanted = functions.Wanted(Key(kind, name), spec, labels or {})
        functions.apply_specs(self.store, [wanted], functions.Manager("hand"), finalizers=FINALIZERS)
        return wanted.key

    def delete(self, key: Key) -> None:
        """Want it gone."""
        functions.request_deletion(self.store, key, self.clock.wall())

    def status(self, key: Key) -> Mapping[str, Any]:
        """The status of an object; raises `NotFound`."""
        return functions.existing(self.store, key).status
