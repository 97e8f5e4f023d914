"""Eyes: what is there on the node and in the store, for controllers to make facts of. Spawns nothing, changes nothing.

Rules of this file: which ids exist is listed at the start and at each resync and kept in step by the hands in between;
what an id *is* comes from its files and /proc at each look.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from core.content.store import ContentStore
from core.digest import Digest
from core.runtime.apparmor import AppArmor
from core.runtime.ports import SandboxPhase, TaskPhase
from core.runtime.probing import Prober
from core.runtime.table import RuntimeTable
from core.snapshots.ports import SnapshotKind, SnapshotMissing, Snapshotter
from core.values import dataclass
from reconciler.decide.facts import Attached, Disk, HookSeen, SandboxSeen, StopAsked, TaskSeen
from reconciler.decide.health import ProbeSeen
from reconciler.engine.exits import Exits
from reconciler.engine.health_checks import HealthChecks
from reconciler.engine.hooks import Hooks
from reconciler.engine.networks import Networks
from reconciler.model.identity import Key, Kind, RuntimeId, spec_hash
from reconciler.model.kinds.probes import Probe
from reconciler.model.kinds.secret import SecretSpec
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore

_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class Node:
    """What an engine works with: its drivers and its places. What the configuration says is set anew."""

    runtimes: RuntimeTable
    networks: Networks
    snapshotters: Mapping[str, Snapshotter]
    content: ContentStore
    volumes: Path
    logs: Path
    boot: str
    platform: str
    prober: Prober
    apparmor: AppArmor
    default_runtime: str = "runc"
    """Of private sandboxes whose container names none."""
    default_snapshotter: str = "overlayfs"
    """Of images that name none and are not held yet."""
    cdi: tuple[Path, ...] = ()
    """Folders of CDI specifications."""
    allow_privileged: bool = False
    """Whether a container may be privileged."""

    @property
    def runtime_names(self) -> tuple[str, ...]:
        """The runtimes that may be asked for."""
        return self.runtimes.names


class Eyes:
    """Looks. One per engine; every method may be called from any worker, for the key it works on."""

    def __init__(self, store: ObjectStore, node: Node, exits: Exits, checks: HealthChecks, hooks: Hooks) -> None:
        self.store = store
        self.node = node
        self._exits = exits
        self._checks = checks
        self.hooks = hooks
        self._tasks: dict[str, frozenset[str]] = {}
        self._sandboxes: dict[str, frozenset[str]] = {}
        self._found_tasks: dict[str, frozenset[str]] = {}
        self._found_sandboxes: dict[str, frozenset[str]] = {}
        self._stopping: dict[str, StopAsked] = {}
        self._progress: dict[Key, Mapping[str, Any]] = {}

    def relist(self) -> None:
        """List every task and sandbox of which anything is here: bundles, roots, groups.

        What is found is taken in by the next look at its name, in the hands of the one worker that has that key.
        """
        ids = set(self.node.runtimes.tasks())
        for snapshotter in self.node.snapshotters.values():
            ids.update(info.key for info in snapshotter.walk() if info.kind is SnapshotKind.ACTIVE)
        self._found_tasks = _by_name(ids)
        self._found_sandboxes = _by_name(self.node.runtimes.sandboxes())

    def task_ids(self, name: str) -> frozenset[str]:
        """The ids of a container's attempts."""
        return _taken_in(self._tasks, self._found_tasks, name)

    def sandbox_ids(self, name: str) -> frozenset[str]:
        """The ids of what was made for a Sandbox object."""
        return _taken_in(self._sandboxes, self._found_sandboxes, name)

    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of which tasks, and those of which sandboxes are here."""
        tasks = frozenset(self._tasks) | frozenset(self._found_tasks)
        return tasks, frozenset(self._sandboxes) | frozenset(self._found_sandboxes)

    def note_task(self, id: str, *, there: bool) -> None:
        """The hands made or removed a task."""
        _note(self._tasks, id, there)
        if not there:
            self._stopping.pop(id, None)
            self.hooks.forget(id)

    def note_sandbox(self, id: str, *, there: bool) -> None:
        """The hands made or removed a sandbox."""
        _note(self._sandboxes, id, there)

    def note_stop(self, id: str, asked: StopAsked) -> None:
        """The hands asked a task to end."""
        self._stopping[id] = asked

    def note_progress(self, key: Key, fields: Mapping[str, Any]) -> None:
        """How far a transfer is; empty: it is over."""
        if fields:
            self._progress[key] = fields
        else:
            self._progress.pop(key, None)

    def progress(self, key: Key) -> Mapping[str, Any]:
        """How far the transfer of an image is."""
        return self._progress.get(key, {})

    def hooked(self, tasks: Iterable[TaskSeen]) -> Mapping[tuple[str, str], HookSeen]:
        """What is known of the hooks of these tasks."""
        return self.hooks.seen([task.id for task in tasks])

    def stopping(self, tasks: Iterable[TaskSeen]) -> dict[str, StopAsked]:
        """When which of these tasks was asked to end."""
        return {task.id: self._stopping[task.id] for task in tasks if task.id in self._stopping}

    def stop_asked(self, id: str) -> StopAsked | None:
        """When that task was asked to end."""
        return self._stopping.get(id)

    def tasks(self, name: str, *, describe: bool = False) -> tuple[TaskSeen, ...]:
        """The attempts of a container, oldest first; those that live are watched for their end."""
        ids = self.task_ids(name)
        return tuple(sorted((self._task(name, id, describe) for id in ids), key=lambda task: task.attempt))

    def _task(self, name: str, id: str, describe: bool) -> TaskSeen:
        shim = self.node.runtimes.shim(id)
        seen = shim.state(id)
        known = RuntimeId.parse(id)
        assert known is not None
        boot = self.node.boot
        alive = seen.pid is not None and seen.pid.alive(boot)
        if seen.monitor is not None and seen.phase in (TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED):
            self._exits.watch(seen.monitor, Key(Kind.CONTAINER, name))
        elif seen.pid is not None and alive:
            self._exits.watch(seen.pid, Key(Kind.CONTAINER, name))
        pid = seen.pid.pid if seen.pid is not None and alive else None
        described = shim.described(id) if describe else None
        return TaskSeen(id, known.hash, known.attempt, seen.phase, alive, seen.exit, pid, described, seen.outside)

    def probes(self, key: Key, task: str, probes: Mapping[str, Probe]) -> Mapping[str, ProbeSeen]:
        """What the probes of a running task have said, by role; from now on these are asked, and no others of `key`."""
        if not probes:
            self._checks.forget(key)
            return {}
        return self._checks.watch(key, task, probes)

    def sandboxes(self, name: str) -> tuple[SandboxSeen, ...]:
        """The sandboxes made for a Sandbox object, oldest first; one that has a process is watched for its end."""
        seen = []
        for id in self.sandbox_ids(name):
            known = RuntimeId.parse(id)
            state = self.node.runtimes.sandboxer(id).status(id)
            if known is not None:
                pid = state.pid.pid if state.pid is not None else None
                if state.pid is not None and state.phase is SandboxPhase.READY and state.pid.alive(self.node.boot):
                    self._exits.watch(state.pid, Key(Kind.SANDBOX, name))
                seen.append(SandboxSeen(id, known.hash, known.attempt, state.phase, pid, self._attached(id)))
        return tuple(sorted(seen, key=lambda one: one.attempt))

    def _attached(self, id: str) -> Attached | None:
        found = self.node.networks.attached(id)
        return None if found is None else Attached(found.network, found.addresses)

    def joined(self, containers: Iterable[Object]) -> frozenset[str]:
        """The ids of the sandboxes that the tasks of these containers are in."""
        found = set()
        for obj in containers:
            here = {known.attempt for id in self.task_ids(obj.name) if (known := RuntimeId.parse(id))}
            for part in ("current", "previous"):
                made = obj.record.get(part)
                if made is not None and made["attempt"] in here:
                    found.add(str(made["sandbox"]))
        return frozenset(found)

    def committed(self, driver: str, chain: str) -> bool:
        """Whether the chain is a committed snapshot of that driver."""
        snapshotter = self.node.snapshotters.get(driver)
        if snapshotter is None:
            return False
        try:
            return snapshotter.stat(chain).kind is SnapshotKind.COMMITTED
        except SnapshotMissing:
            return False

    def has_children(self, driver: str, chain: str) -> bool:
        """Whether a container's root rests on the chain."""
        walk = self.node.snapshotters[driver].walk()
        return any(info.parent == chain and info.kind is not SnapshotKind.COMMITTED for info in walk)

    def usage(self, driver: str, chain: str) -> Mapping[str, int]:
        """Bytes and inodes of a chain with all its parents."""
        snapshotter = self.node.snapshotters[driver]
        total = {"bytes": 0, "inodes": 0}
        name: str | None = chain
        while name is not None:
            used = snapshotter.usage(name)
            total = {"bytes": total["bytes"] + used.bytes, "inodes": total["inodes"] + used.inodes}
            name = snapshotter.stat(name).parent
        return total

    def held(self, record: Mapping[str, Any]) -> bool:
        """Whether all blobs of an image's record are in the content store, of the sizes that it names."""
        named = [*record.get("layers", ()), *([record["target"]] if "target" in record else ())]
        sizes = {str(one["digest"]): int(one["size"]) for one in named}
        for blob in record.get("blobs", ()):
            found = self.node.content.size(Digest.parse(blob))
            if found is None or found != sizes.get(blob, found):
                return False
        return True

    def archive(self, spec: Mapping[str, Any]) -> str:
        """Of an image out of an archive: its path, `|`, and size and time of its bytes (nothing: it is not there).

        Of a folder it is the index that tells: every other file in it has its digest for a name.
        """
        path = str(spec.get("archive") or "")
        if not path:
            return ""
        try:
            seen = os.stat(path)
            seen = os.stat(os.path.join(path, "index.json")) if stat.S_ISDIR(seen.st_mode) else seen
        except OSError:
            return f"{path}|"
        return f"{path}|{seen.st_size}-{seen.st_mtime_ns}"

    def has_logs(self, name: str) -> bool:
        """Whether a container has a folder of logs."""
        return (self.node.logs / name).is_dir()

    def secret_hash(self, name: str) -> str:
        """Eight hex digits over a Secret's content; "" when there is none."""
        obj = self.store.get(Key(Kind.SECRET, name))
        if obj is None or obj.deleted is not None:
            return ""
        contents = SecretSpec.model_validate(obj.spec).contents()
        return spec_hash({key: value.hex() for key, value in contents.items()})


def disk_of(root: Path) -> Disk:
    """How full the file system of `root` is; raises `OSError`."""
    seen = os.statvfs(root)
    size, read_only = seen.f_frsize, bool(seen.f_flag & os.ST_RDONLY)
    # Of what may be used without being root, as df counts: the rest is nobody's to fill.
    usable = seen.f_blocks - seen.f_bfree + seen.f_bavail
    return Disk(seen.f_bavail * size, usable * size, seen.f_favail, seen.f_files, read_only)


def _by_name(ids: Iterable[str]) -> dict[str, frozenset[str]]:
    grouped: dict[str, set[str]] = {}
    for id in ids:
        known = RuntimeId.parse(id)
        if known is not None:
            grouped.setdefault(known.name, set()).add(id)
    return {name: frozenset(group) for name, group in grouped.items()}


def _taken_in(table: dict[str, frozenset[str]], found: dict[str, frozenset[str]], name: str) -> frozenset[str]:
    known = table.get(name, _NOTHING)
    listed = found.pop(name, _NOTHING)
    if not listed <= known:
        known = table[name] = known | listed
    return known


def _note(table: dict[str, frozenset[str]], id: str, there: bool) -> None:
    known = RuntimeId.parse(id)
    assert known is not None
    before = table.get(known.name, _NOTHING)
    after = before | {id} if there else before - {id}
    if after:
        table[known.name] = after
    else:
        table.pop(known.name, None)
