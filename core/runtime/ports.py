"""The Sandboxer and Shim ports: one life cycle for processes in namespaces, virtual machines and WASM modules.

Shaped after containerd 2's Sandbox API (nine calls) and task API (seventeen calls). Both take the full OCI spec as a
value, so that an adjuster (CDI, NRI) can stand between the planner and the driver.

Glossary of parameter names (the same in every driver):

- *id*: a task's name on this node, `<name>-<hash8>-<attempt>`; unique for ever within an instance.
- *sandbox*: a sandbox's id, of the same form.
- *bundle*: the folder `<state>/bundles/<id>` (0700) with `config.json`, `object.json` and `rootfs/`.

A lifecycle is a table (`TASK_MOVES`); a driver *observes* its phase from files and /proc, spawning nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from core.errors import Conflict, Failed
from core.mounts import MountSpec
from core.proc import ProcessId
from core.values import dataclass


class TaskPhase(StrEnum):
    """Where a task is."""

    ABSENT = auto()
    """Nothing of it is here."""
    PREPARED = auto()
    """A bundle with its root mounted and config.json written; the runtime has not heard of it."""
    HALF_MADE = auto()
    """`create` was begun and never came back: only `delete` is left."""
    CREATED = auto()
    """The runtime has made it; its own program has not begun."""
    RUNNING = auto()
    PAUSED = auto()
    STOPPED = auto()
    """It ended; `exit` says how."""
    LOST = auto()
    """It runs, or ran, but its monitor was killed: nobody would record its exit."""


class TaskEvent(StrEnum):
    """What moves a task."""

    PREPARE = auto()
    CREATE_BEGUN = auto()
    CREATE = auto()
    START = auto()
    PAUSE = auto()
    RESUME = auto()
    CHECKPOINT = auto()
    RESTORE = auto()
    EXIT = auto()
    MONITOR_GONE = auto()
    DELETE = auto()


class IllegalMove(Conflict):
    """That event cannot happen to a task in that phase; nothing was changed."""

    def __init__(self, phase: TaskPhase, event: TaskEvent) -> None:
        super().__init__(f"a task that is {phase} cannot {event}")


class MonitorLost(Failed):
    """The task's monitor was killed: whether it runs on can be seen, how it ends will never be known."""

    def __init__(self, id: str) -> None:
        super().__init__(f"the monitor of {id} is gone, so nobody would record its exit")


TASK_MOVES: Final[Mapping[TaskPhase, Mapping[TaskEvent, TaskPhase]]] = {
    TaskPhase.ABSENT: {TaskEvent.PREPARE: TaskPhase.PREPARED},
    TaskPhase.PREPARED: {TaskEvent.CREATE_BEGUN: TaskPhase.HALF_MADE, TaskEvent.DELETE: TaskPhase.ABSENT},
    TaskPhase.HALF_MADE: {
        TaskEvent.CREATE: TaskPhase.CREATED,
        TaskEvent.RESTORE: TaskPhase.RUNNING,
        TaskEvent.DELETE: TaskPhase.ABSENT,
    },
    TaskPhase.CREATED: {
        TaskEvent.START: TaskPhase.RUNNING,
        TaskEvent.EXIT: TaskPhase.STOPPED,
        TaskEvent.MONITOR_GONE: TaskPhase.LOST,
        TaskEvent.DELETE: TaskPhase.ABSENT,
    },
    TaskPhase.RUNNING: {
        TaskEvent.PAUSE: TaskPhase.PAUSED,
        TaskEvent.CHECKPOINT: TaskPhase.RUNNING,
        TaskEvent.EXIT: TaskPhase.STOPPED,
        TaskEvent.MONITOR_GONE: TaskPhase.LOST,
    },
    TaskPhase.PAUSED: {
        TaskEvent.RESUME: TaskPhase.RUNNING,
        TaskEvent.EXIT: TaskPhase.STOPPED,
        TaskEvent.MONITOR_GONE: TaskPhase.LOST,
    },
    TaskPhase.STOPPED: {TaskEvent.DELETE: TaskPhase.ABSENT},
    TaskPhase.LOST: {TaskEvent.DELETE: TaskPhase.ABSENT},
}


def advance(phase: TaskPhase, event: TaskEvent) -> TaskPhase:
    """The phase after `event`; raises `IllegalMove` and changes nothing when the table has no such move."""
    if (target := TASK_MOVES[phase].get(event)) is None:
        raise IllegalMove(phase, event)
    return target


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended: `code` 0..255 (128+n for signal n), `at` in seconds since 1970."""

    code: int
    at: float
    oom: bool = False


@dataclass(frozen=True, slots=True)
class TaskState:
    """What is seen of one task. `pid` is its first process, `monitor` the process that waits for its exit.

    `outside` names the control groups of its that its first process has left ("": none): no limit of theirs holds it.
    """

    id: str
    phase: TaskPhase
    pid: ProcessId | None = None
    monitor: ProcessId | None = None
    exit: Exit | None = None
    outside: str = ""


@dataclass(frozen=True, slots=True)
class NewTask:
    """All that a driver needs to prepare a bundle.

    `object` is written to `object.json` as it is: the key, uid, attempt and spec, by which a lost store is refilled.
    """

    id: str
    spec: Mapping[str, Any]
    rootfs: Sequence[MountSpec]
    log: Path
    object: Mapping[str, Any]
    sandbox: str
    terminal: bool = False
    stdin: bool = False
    image: str = ""
    """What the root is made from, as a digest: roots of one image have the same content; "": not known."""
    log_limit: int = 64 << 20
    """Bytes after which the monitor itself truncates the log: the last dam; the engine rotates long before."""


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A further process in a running task, on the caller's own stdin, stdout and stderr."""

    args: Sequence[str]
    tty: bool = False
    stdin: bool = False
    env: Sequence[str] = ()
    user: str = ""
    cwd: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """Use since start (cpu, in seconds) and now (memory in bytes, pids)."""

    cpu_seconds: float
    memory: int
    pids: int
    oom_kills: int


class Shim(Protocol):
    """A driver of tasks. Calls raise `AgentError`s whose message is the runtime's own complaint."""

    def prepare(self, task: NewTask) -> None:
        """Make the bundle: folders, root mounted, `config.json`, `object.json`. ABSENT → PREPARED."""

    def create(self, id: str) -> TaskState:
        """PREPARED → CREATED, with its monitor out of the helpers' group; a failure leaves HALF_MADE for `delete`."""

    def start(self, id: str) -> TaskState:
        """CREATED → RUNNING."""

    def state(self, id: str) -> TaskState:
        """Observe from files and /proc; spawns nothing, never raises for a task that is not there (ABSENT)."""

    def tasks(self) -> Iterator[str]:
        """The ids of which anything is here, whatever their phase."""

    def described(self, id: str) -> Mapping[str, Any] | None:
        """The `object` that the task was prepared with; None when it is not there or cannot be read."""

    def pids(self, id: str) -> Sequence[int]:
        """The processes of a running task, host numbers."""

    def pause(self, id: str) -> None:
        """RUNNING → PAUSED."""

    def resume(self, id: str) -> None:
        """PAUSED → RUNNING."""

    def kill(self, id: str, signal: int, *, everyone: bool = False) -> None:
        """Signal the first process, or all; harmless when it has ended."""

    def exec(self, id: str, process: ExecSpec) -> int:
        """Run a further process on the caller's own stdio; returns its exit code (128+n for signal n)."""

    def ask(self, id: str, args: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run a short command in a running task, as its own user, without a terminal; its code, and the last line said.

        Raises `TimedOut` (it is killed), `NotFound`.
        """

    def resize(self, id: str, columns: int, rows: int) -> None:
        """Tell a task with a terminal its size."""

    def close_io(self, id: str) -> None:
        """Close the task's stdin."""

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change limits in place (OCI runtime-spec, `linux.resources`)."""

    def wait(self, id: str, timeout: float) -> Exit | None:
        """Wait up to `timeout` seconds for the end; None when it goes on.

        Raises `NotFound` for what was never created, `MonitorLost` when nobody will know how it ended.
        """

    def stats(self, id: str) -> Stats:
        """Counters of a running task; raises `NotFound`."""

    def connect(self, id: str) -> TaskState:
        """Take up a task again that an earlier engine left; for most drivers the same as `state`."""

    def delete(self, id: str) -> Exit | None:
        """Remove every trace, killing what still runs: runtime state, cgroup, mounts, monitor, exit file, bundle.

        Any phase → ABSENT; harmless when absent; finished by calling it again after a crash anywhere in it.
        """

    def reopen_log(self, id: str) -> bool:
        """The log was renamed: go on in a new file of its name; False when nobody writes it."""

    def sweep(self) -> None:
        """Remove what a killed engine left half-made; called before anything else."""

    def shutdown(self) -> None:
        """Let go of what the driver itself holds; tasks go on."""


@runtime_checkable
class Reaching(Protocol):
    """A Shim whose tasks have a network that nobody on this node can enter, and that asks inside: a machine's."""

    def reach(self, id: str, port: int, path: str | None, timeout: float) -> None:
        """Connect to a port of a running task's loopback; with `path`, get it by HTTP.

        Raises `Failed` (refused, no 2xx or 3xx), `TimedOut`, `NotFound`.
        """


@runtime_checkable
class Keeping(Protocol):
    """A Shim that makes something of an image once for all its tasks, and keeps it: roots of machines."""

    def collect(self, images: Collection[str], *, dry: bool) -> Iterator[tuple[str, int]]:
        """Remove (`dry`: only tell) what no task uses and what is made from none of `images` (`NewTask.image`).

        Gives name and bytes of each; safe beside a `prepare` at the same moment.
        """


@runtime_checkable
class Checkpointing(Protocol):
    """A Shim that can write down what a task has in memory, and make a task that goes on from there.

    `folder`: absolute, private (0700); what is in it is the runtime's own, and holds all secrets that memory held. It
    is trusted when it is read: whoever could write it decides what the restored processes may do.
    """

    def why_no_checkpoint(self, *, ending: bool) -> str:
        """Why it cannot be done on this node, in words for people; "": it can. `ending`: the task is to end by it."""

    def checkpoint(self, id: str, folder: Path, *, ending: bool = False) -> None:
        """Write a RUNNING task into the empty `folder`; it goes on, or with `ending` is STOPPED afterwards.

        Raises `Unsupported` where it cannot be done, else what the runtime complains of; what became of the task then
        is to be looked at.
        """

    def restore(self, id: str, folder: Path) -> TaskState:
        """PREPARED → RUNNING in place of `create` and `start`; a failure leaves HALF_MADE for `delete`.

        The root must be what it was, and the spec ask for the same mounts. Raises the runtime's complaint.
        """


class SandboxPhase(StrEnum):
    """Where a sandbox is."""

    ABSENT = auto()
    HALF_MADE = auto()
    READY = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """What a sandbox is made from. `network` is `host` or `none` here; a bridge is joined from outside, by path."""

    id: str
    object: Mapping[str, Any]
    network: str
    hostname: str
    dns_servers: Sequence[str] = ()
    dns_searches: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    share_processes: bool = False
    own_users: bool = False
    """Whether it gets a user namespace with a range of ids of its own."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """For a virtual machine only: `cpus`, `memory` in bytes, `kernel` as a path; what is left out is the driver's."""


@dataclass(frozen=True, slots=True)
class SandboxState:
    """What is seen of one sandbox.

    `namespaces` maps OCI names (network, ipc, uts) to paths to join; `files` maps /etc/hosts, /etc/hostname,
    /etc/resolv.conf and /dev/shm to host paths; `cgroup` is the parent of its tasks' groups.
    """

    id: str
    phase: SandboxPhase
    namespaces: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    cgroup: str = ""
    pid: ProcessId | None = None
    created: float = 0.0
    first_id: int = 0
    """Where its range of ids begins on this node; 0: it has the node's own."""


class Sandboxer(Protocol):
    """A driver of sandboxes: the nine calls of the Sandbox API."""

    def create(self, sandbox: NewSandbox) -> SandboxState:
        """Make or adopt it: what of it is there and whole is kept, what is half-made is made anew."""

    def start(self, id: str) -> SandboxState:
        """Start what must run in it (a VM; for namespaces nothing). → READY."""

    def platform(self) -> str:
        """`os/architecture` that its tasks must be built for."""

    def stop(self, id: str, timeout: float) -> None:
        """End what runs in it within `timeout` seconds."""

    def wait(self, id: str, timeout: float) -> bool:
        """Wait for its end; False when it goes on."""

    def status(self, id: str) -> SandboxState:
        """Observe; spawns nothing; ABSENT when it is not there."""

    def ping(self, id: str) -> bool:
        """Whether it answers (a VM's guest); namespaces always do while they are there."""

    def shutdown(self, id: str) -> None:
        """Remove every trace; harmless when absent, finished by calling it again after a crash."""

    def metrics(self, id: str) -> Stats:
        """Counters of all in it; raises `NotFound`."""

    def sandboxes(self) -> Iterator[str]:
        """The ids of which anything is here."""

    def sweep(self) -> None:
        """Remove what a killed engine left half-made; called before anything else."""
