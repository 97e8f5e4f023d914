"""What is on a simulated node, in plain data, and eyes that see it as the real ones do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from core.runtime.ports import Exit, SandboxPhase, TaskEvent, TaskPhase, advance
from reconciler.decide.facts import Attached, HookSeen, SandboxSeen, StopAsked, TaskSeen
from reconciler.decide.health import ProbeSeen
from reconciler.model.identity import Key, Kind, RuntimeId, spec_hash
from reconciler.model.kinds.probes import Probe
from reconciler.model.kinds.secret import SecretSpec
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore

ALIVE: Final = (TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED)


class Broken(AssertionError):
    """A promise was broken."""


def known_id(id: str) -> RuntimeId:
    """The parts of an id."""
    known = RuntimeId.parse(id)
    assert known is not None, id
    return known


@dataclass(slots=True)
class Task:
    """One attempt on the node. `root`: the chain its root rests on (driver, chain), None when it has no root."""

    id: str
    phase: TaskPhase = TaskPhase.ABSENT
    root: tuple[str, str] | None = None
    sandbox: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    alive: bool = False
    exit: Exit | None = None
    stubborn: bool = False
    """Whether it is deaf to all signals but KILL."""

    @property
    def name(self) -> str:
        """The container's name."""
        return known_id(self.id).name

    @property
    def lives(self) -> bool:
        """Whether its first process is there."""
        return self.alive and self.phase in (*ALIVE, TaskPhase.LOST)

    def move(self, event: TaskEvent) -> None:
        """As `TASK_MOVES` has it; raises `IllegalMove`."""
        self.phase = advance(self.phase, event)

    def end(self, code: int, at: float, *, oom: bool = False) -> None:
        """Its first process ends; the monitor, if it still has one, writes down how."""
        if self.phase is not TaskPhase.LOST:
            self.move(TaskEvent.EXIT)
            self.exit = Exit(code, at, oom)
        self.alive = False


@dataclass(frozen=True, slots=True)
class Folders:
    """Stands for a path: it is a folder when its name is in `names`."""

    names: set[str]
    name: str = ""

    def __truediv__(self, name: str) -> Folders:
        return Folders(self.names, name)

    def is_dir(self) -> bool:
        """Whether it is there."""
        return self.name in self.names

    def __str__(self) -> str:
        return f"/volumes/{self.name}"


class SimNode:
    """What is on the node."""

    def __init__(self) -> None:
        self.boot_number = 1
        self.registry: dict[str, str] = {}
        """What the outside has: digest by reference."""
        self.tasks: dict[str, Task] = {}
        self.sandboxes: dict[str, SandboxPhase] = {}
        self.networks: dict[str, Attached] = {}
        self.answers: dict[str, ProbeSeen] = {}
        """What probes say, by role; those that are not in here pass."""
        self.chains: set[tuple[str, str]] = set()
        self.recorded: set[tuple[str, str]] = set()
        """Chains that an image's record has ever named: others were unpacked by an agent that was killed."""
        self.blobs: set[str] = set()
        self.volume_names: set[str] = set()
        self.logs: set[str] = set()
        self.hooked: set[tuple[str, str]] = set()
        self.created: Counter[str] = Counter()
        self.started: Counter[str] = Counter()

    platform = "linux/amd64"
    runtime_names = ("runc",)
    default_runtime = "runc"
    default_snapshotter = "overlayfs"

    @property
    def boot(self) -> str:
        """This boot's id."""
        return f"boot-{self.boot_number}"

    @property
    def volumes(self) -> Folders:
        """The volumes' folder."""
        return Folders(self.volume_names)

    def live(self, name: str) -> list[Task]:
        """The living tasks of a container."""
        return [task for task in self.tasks.values() if task.name == name and task.lives]

    def cut_power(self, *, keep: bool) -> None:
        """Another boot. `keep`: the state folder is on disk, its files are still there; roots are on disk always."""
        self.boot_number += 1
        for task in list(self.tasks.values()):
            _after_reboot(task, keep)
            if task.phase is TaskPhase.ABSENT and task.root is None:
                del self.tasks[task.id]
        stopped = dict.fromkeys(self.sandboxes, SandboxPhase.STOPPED) if keep else {}
        self.sandboxes = dict(stopped)
        self.networks = {}

    def check(self) -> None:
        """The promises that hold at every moment."""
        for name in {task.name for task in self.tasks.values()}:
            if len(self.live(name)) > 1:
                raise Broken(f"two live tasks: {self.live(name)}")
        for task in self.tasks.values():
            if task.lives and self.sandboxes.get(task.sandbox) is None:
                raise Broken(f"{task} lives in a sandbox that is gone")
        for counts, what in ((self.created, "created"), (self.started, "started")):
            if twice := [id for id, count in counts.items() if count > 1]:
                raise Broken(f"{what} twice: {twice}")


def _after_reboot(task: Task, keep: bool) -> None:
    task.alive = False
    if not keep or task.phase is TaskPhase.ABSENT:
        task.phase, task.exit = TaskPhase.ABSENT, None
    elif task.phase in (*ALIVE, TaskPhase.LOST):
        task.phase = TaskPhase.LOST
    elif task.phase is TaskPhase.PREPARED:
        task.phase = TaskPhase.HALF_MADE


class SimEyes:
    """What controllers make facts of: the real `Eyes`' names and answers. `asked`: when tasks were asked to end."""

    def __init__(self, store: ObjectStore, node: SimNode, asked: Mapping[str, StopAsked]) -> None:
        self.store = store
        self.node = node
        self._asked = asked

    def task_ids(self, name: str) -> frozenset[str]:
        """The ids of which anything is here."""
        return frozenset(id for id, task in self.node.tasks.items() if task.name == name)

    def tasks(self, name: str, *, describe: bool = False) -> tuple[TaskSeen, ...]:
        """The attempts of a container, oldest first."""
        return tuple(sorted(map(self._task, self.task_ids(name)), key=lambda task: task.attempt))

    def _task(self, id: str) -> TaskSeen:
        task, known = self.node.tasks[id], known_id(id)
        pid = 4711 if task.alive else None
        return TaskSeen(id, known.hash, known.attempt, task.phase, task.alive, task.exit, pid)

    def stopping(self, tasks: Iterable[TaskSeen]) -> dict[str, StopAsked]:
        """When which of these tasks was asked to end."""
        return {task.id: self._asked[task.id] for task in tasks if task.id in self._asked}

    def hooked(self, tasks: Iterable[TaskSeen]) -> Mapping[tuple[str, str], HookSeen]:
        """Which were begun: in this world each has ended at once, and well."""
        ids = {task.id for task in tasks}
        return {place: HookSeen(True) for place in self.node.hooked if place[0] in ids}

    def probes(self, key: Key, task: str, probes: Mapping[str, Probe]) -> Mapping[str, ProbeSeen]:
        """What they say now."""
        return {role: self.node.answers.get(role, ProbeSeen(True)) for role in probes}

    def sandboxes(self, name: str) -> tuple[SandboxSeen, ...]:
        """The sandboxes made for a Sandbox object, oldest first."""
        found = ((known_id(id), phase) for id, phase in self.node.sandboxes.items())
        mine = [
            SandboxSeen(str(known), known.hash, known.attempt, phase, None, self.node.networks.get(str(known)))
            for known, phase in found
            if known.name == name
        ]
        return tuple(sorted(mine, key=lambda one: one.attempt))

    def joined(self, containers: Iterable[Object]) -> frozenset[str]:
        """The sandboxes that the tasks of these containers are in."""
        found = set()
        for obj in containers:
            here = {known_id(id).attempt for id in self.task_ids(obj.name)}
            made = (obj.record.get(part) for part in ("current", "previous"))
            found |= {str(one["sandbox"]) for one in made if one is not None and one["attempt"] in here}
        return frozenset(found)

    def committed(self, driver: str, chain: str) -> bool:
        """Whether the chain is unpacked."""
        return (driver, chain) in self.node.chains

    def held(self, record: Mapping[str, Any]) -> bool:
        """Whether all blobs of an image are here."""
        return set(record.get("blobs", ())) <= self.node.blobs

    def archive(self, spec: Mapping[str, Any]) -> str:
        """What tells an archive's bytes from others: here no image comes out of one."""
        return ""

    def has_children(self, driver: str, chain: str) -> bool:
        """Whether a root rests on the chain."""
        return any(task.root == (driver, chain) for task in self.node.tasks.values())

    def usage(self, driver: str, chain: str) -> Mapping[str, int]:
        """What it takes."""
        return {"bytes": 1, "inodes": 1}

    def progress(self, key: Key) -> Mapping[str, Any]:
        """No transfer takes time here."""
        return {}

    def has_logs(self, name: str) -> bool:
        """Whether a container has logs."""
        return name in self.node.logs

    def secret_hash(self, name: str) -> str:
        """Over a Secret's content; "" when there is none."""
        obj = self.store.get(Key(Kind.SECRET, name))
        if obj is None or obj.deleted is not None:
            return ""
        contents = SecretSpec.model_validate(obj.spec).contents()
        return spec_hash({key: value.hex() for key, value in contents.items()})
