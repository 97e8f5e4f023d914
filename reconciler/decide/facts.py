"""Facts: what was observed of one object and its surroundings, as values that can be compared.

Rules of this file: no clock and no handle in here; equal facts mean that nothing moved. Time is a separate argument
(`Now`), so that the same plan from equal facts can be told from progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from core.runtime.ports import Exit, SandboxPhase, TaskPhase
from core.values import dataclass
from reconciler.decide.health import ProbeSeen
from reconciler.model.identity import Key
from reconciler.model.objects import Object
from reconciler.model.outcome import Fault


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a decision: wall seconds since 1970 for records, monotonic seconds for delays."""

    wall: float
    monotonic: float


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """One attempt as found on the node. `alive`: its first process runs."""

    id: str
    hash: str
    attempt: int
    phase: TaskPhase
    alive: bool = False
    exit: Exit | None = None
    pid: int | None = None
    described: Mapping[str, Any] | None = None
    """What it was prepared with; looked up only while the store remembers nothing of its container."""
    outside: str = ""
    """The control groups of its that its first process has left, by name; no limit of theirs holds it."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """When (monotonic) a task was first asked to end, and when it was last killed.

    `hooking`: so far only its preStop hook was begun.
    """

    asked: float
    killed: float | None = None
    hooking: bool = False


@dataclass(frozen=True, slots=True)
class HookSeen:
    """A hook that was begun in this engine's life: whether it has ended, and what was wrong ("": nothing)."""

    done: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ImageSeen:
    """An Image object as a container needs it. `record` holds digest, chain, driver and config when it is `ready`."""

    key: Key
    ready: bool
    record: Mapping[str, Any] = field(default_factory=dict)
    owners: frozenset[Key] = frozenset()
    trouble: str = ""
    stalled: bool = False
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class SandboxView:
    """A Sandbox object as a container needs it."""

    key: Key
    ready: bool
    id: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    owners: frozenset[Key] = frozenset()
    trouble: str = ""
    stalled: bool = False
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Dependency:
    """A container that must have started, be ready or have succeeded first."""

    key: Key
    condition: str
    met: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """All that decides what happens to a container."""

    obj: Object
    boot: str
    image: ImageSeen | None = None
    sandbox: SandboxView | None = None
    volumes: Mapping[str, bool] = field(default_factory=dict)
    """Every volume it mounts: whether the Volume is ready (missing ones are False)."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Every secret it uses: the hash of its content, "" when it is missing."""
    dependencies: tuple[Dependency, ...] = ()
    tasks: tuple[TaskSeen, ...] = ()
    stopping: Mapping[str, StopAsked] = field(default_factory=dict)
    hooks: Mapping[tuple[str, str], HookSeen] = field(default_factory=dict)
    """The hooks that were begun, by task and role."""
    probes: Mapping[str, ProbeSeen] = field(default_factory=dict)
    """What the probes of the current attempt have said, by role; nothing while it does not run."""
    owned: frozenset[Key] = frozenset()
    """The objects that name this container among their owners."""
    default_runtime: str = "runc"
    """Of its private sandbox, when it names none."""
    used: int = 0
    """The highest number of an attempt of an earlier container of this name; looked up while nothing is recorded."""
    fault: Fault | None = None
    has_logs: bool = False


@dataclass(frozen=True, slots=True)
class Attached:
    """A sandbox's place in a network: its addresses, with prefix."""

    network: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SandboxSeen:
    """One sandbox as found on the node."""

    id: str
    hash: str
    attempt: int
    phase: SandboxPhase
    pid: int | None = None
    attached: Attached | None = None
    """What it is attached to; None: to no network."""


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """All that decides what happens to a sandbox."""

    obj: Object
    boot: str
    seen: tuple[SandboxSeen, ...] = ()
    in_use: frozenset[str] = frozenset()
    """The sandbox ids that tasks on the node have joined."""
    users: frozenset[Key] = frozenset()
    """The Container objects that name this sandbox and are not on their way out."""
    runtimes: tuple[str, ...] = ("runc",)
    """The runtimes that this node has."""
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """All that decides what happens to an image."""

    obj: Object
    default_platform: str
    default_driver: str = "overlayfs"
    archive: str = ""
    """Of an image out of an archive: its path, `|`, and what tells its bytes from others ("": it is not there)."""
    unpacked: bool = False
    """Whether the chain in the record is a committed snapshot and its blobs are held."""
    has_snapshot_object: bool = False
    snapshot_going: bool = False
    """Whether that object is on its way out."""
    former: frozenset[Key] = frozenset()
    """The Snapshot objects that it owns beside that one: of what it was before."""
    busy: bool = False
    """Whether, of one that goes, a task's root rests on the chain and no Snapshot object would remove it later."""
    users: frozenset[Key] = frozenset()
    """The Container objects that name this image and are not on their way out."""
    secret_missing: bool = False
    progress: Mapping[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """All that decides what happens to a Snapshot object."""

    obj: Object
    exists: bool
    busy: bool
    """Whether a task's root rests on it."""
    wanted: bool = False
    """Whether an Image that stays was unpacked into it."""
    usage: Mapping[str, int] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """All that decides what happens to a volume."""

    obj: Object
    exists: bool
    users: frozenset[Key] = frozenset()
    """The Container objects that mount it and are not on their way out."""
    in_use: frozenset[Key] = frozenset()
    """The Container objects with a task here that mounts it, whatever their spec says now."""
    path: str = ""
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class FetchSeen:
    """The last fetch of this engine's life that went well: when (monotonic and wall), and which `sync` it answered."""

    at: float
    wall: float
    sync: str = ""


@dataclass(frozen=True, slots=True)
class Want:
    """What is to be in force: a revision, and `with_`, a hash of all else that decides what it comes to (sub-path,
    values, the node's facts); or `rollback/<number>`, what an older Revision object kept."""

    revision: str
    with_: str


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """What a revision came to when it was read, at `at` (monotonic): objects, or all that is wrong with it."""

    want: Want
    at: float
    keys: frozenset[Key] = frozenset()
    needs: tuple[tuple[Key, str], ...] = ()
    """What its objects name and it does not hold, each with its place (`file:line:column`)."""
    faults: tuple[str, ...] = ()
    """The first of them, each with its place."""
    count: int = 0
    """How many faults there are."""


@dataclass(frozen=True, slots=True)
class Member:
    """An object that a Source manages. `weight`: it, and what would go with it (a Source's own objects)."""

    ready: bool
    going: bool = False
    weight: int = 1


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """All that decides what happens to a Source."""

    obj: Object
    fetches: bool = True
    """Whether this engine fetches Sources: a one-shot does not."""
    with_: str = ""
    """The hash that the fetched revision is to be read with (see `Want`)."""
    asks_for: str = ""
    """A hash of which revisions the spec asks for: another one means that the last fetch says nothing any more."""
    fetched: FetchSeen | None = None
    moved: bool = False
    """Whether a folder is not as it was when it was last read."""
    moves: int = 0
    """How often that was seen."""
    tree_held: bool = False
    """Whether the fetched revision can be read without another fetch."""
    loaded: LoadSeen | None = None
    members: Mapping[Key, Member] = field(default_factory=dict)
    foreign: Mapping[Key, str] = field(default_factory=dict)
    """Of the objects that it wants, or wanted last: those that another manager has, with that manager's name."""
    going: frozenset[Key] = frozenset()
    """Of those: the ones that are on their way out."""
    present: frozenset[Key] = frozenset()
    """Of what its objects name beside each other: what is in the store to stay."""
    hold: Mapping[str, Any] = field(default_factory=dict)
    """What `hold` said of the whole node: `until` (wall seconds), `reason`."""
    prune_limit: int = 50
    wait_for: float = 600.0
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """An object that tells what a Source applied. `current`: it is what is in force."""

    obj: Object
    current: bool = False
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class PlainFacts:
    """An object with nothing to do on the node: a Secret, the Node."""

    obj: Object
    fault: Fault | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Disk:
    """How full a file system is, and whether it can be written."""

    free_bytes: int
    bytes: int
    free_inodes: int
    inodes: int
    """0: it has no fixed number of them."""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The node itself."""

    obj: Object
    disk: Disk
    notice: str = ""
    """What was lost and came back, while a person should still know; empty: nothing."""
    refused: str = ""
    """What is wrong with the newest configuration, which is therefore not in force; empty: it is."""
    waiting: tuple[str, ...] = ()
    """The keys of the configuration that a restart would bring into force."""
    fault: Fault | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


Facts = (
    ContainerFacts
    | SandboxFacts
    | ImageFacts
    | SnapshotFacts
    | VolumeFacts
    | SourceFacts
    | RevisionFacts
    | NodeFacts
    | PlainFacts
)
