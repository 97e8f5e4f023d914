"""The universal checker for a node that is to be what its store says: nothing is missing, and nothing is left over.

`tests.leftovers` tells of what a node leaves when it should have left nothing. Here things are wanted: processes,
mounts, control groups, files and records are compared, as sets, with what follows from the objects in the store.
A fault is a sentence; no fault means converged.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.content.ingest import FRESH
from core.content.store import ContentStore
from core.snapshots.ledger import Ledger
from core.snapshots.ports import SnapshotKind
from reconciler.decide.summary import settled
from reconciler.model.identity import Key, Kind, private_sandbox_name
from reconciler.model.objects import Object
from reconciler.store.sqlite import SqliteStore
from tests import leftovers

PINS: Final = ("ipc", "network", "shm", "uts")
STAGING: Final = ".staging-"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must be true of a node: its containers, all to run, each with the value of its variable `VERSION`."""

    place: leftovers.Place
    containers: Mapping[str, str]
    sandboxes: frozenset[str]
    """Sandbox objects written by hand; those of containers in none of them are private."""
    starts: Path
    """The file to which each attempt's program appends its own id."""
    in_shared: Mapping[str, str]
    """Which container is in which of the sandboxes."""
    engines: frozenset[int] = frozenset()
    """The pids of engines that are meant to run."""
    away: frozenset[Key] = frozenset()
    """Objects that need not be settled: what they ask for is out of reach."""


@dataclass(frozen=True, slots=True)
class Ids:
    """What the store's records name: each container's attempt, each sandbox, the attempt's sandbox."""

    tasks: Mapping[str, str]
    sandboxes: Mapping[str, str]
    inside: Mapping[str, str]

    @classmethod
    def of(cls, objects: Iterable[Object]) -> Ids:
        """Read the records."""
        tasks, sandboxes, inside = {}, {}, {}
        for obj in objects:
            if obj.kind is Kind.SANDBOX and obj.record.get("id"):
                sandboxes[obj.name] = str(obj.record["id"])
            current = obj.record.get("current") if obj.kind is Kind.CONTAINER else None
            if current is not None:
                id = f"{obj.name}-{current['hash']}-{current['attempt']}"
                tasks[obj.name], inside[id] = id, str(current["sandbox"])
        return cls(tasks, sandboxes, inside)


def faults(wanted: Wanted, store: SqliteStore) -> list[str]:
    """Everything that is not as it must be, what is wanted first."""
    objects = store.list()
    if found := list(_objects(wanted, objects)):
        return found
    ids = Ids.of(objects)
    return [
        *_processes(wanted, ids),
        *_mounts(wanted, ids),
        *_groups(wanted, ids),
        *_files(wanted, ids),
        *_snapshots(wanted, ids, objects),
        *_content(wanted, objects),
        *twice_started(wanted.starts, ids.tasks.values()),
        *_events(store),
    ]


def differing(what: str, found: Iterable[str], want: Iterable[str]) -> Iterator[str]:
    """A sentence for each thing too many and each too few, counted."""
    left, missing = Counter(iter(found)), Counter(iter(want))  # of a mapping: its keys, once each
    yield from (f"{what} left over: {thing}" for thing in sorted((left - missing).elements()))
    yield from (f"{what} missing: {thing}" for thing in sorted((missing - left).elements()))


def _objects(wanted: Wanted, objects: Collection[Object]) -> Iterator[str]:
    names = {Key(Kind.CONTAINER, name) for name in wanted.containers}
    private = {private_sandbox_name(name) for name in wanted.containers if name not in wanted.in_shared}
    names |= {Key(Kind.SANDBOX, name) for name in wanted.sandboxes | private}
    kinds = (Kind.CONTAINER, Kind.SANDBOX)
    yield from differing("object", (str(obj.key) for obj in objects if obj.kind in kinds), map(str, names))
    for obj in objects:
        if obj.deleted is not None:
            yield f"{obj.key} is still being deleted"
        elif obj.kind is not Kind.NODE and obj.key not in wanted.away and not settled(obj):
            yield f"{obj.key} is not settled: {dict(obj.status)}"
        if obj.kind is Kind.CONTAINER and obj.name in wanted.containers:
            yield from _container(obj, wanted.containers[obj.name])


def _container(obj: Object, version: str) -> Iterator[str]:
    said = {one["name"]: one.get("value") for one in obj.spec.get("env", ())}.get("VERSION")
    if said != version:
        yield f"{obj.key} has version {said}, not {version}"
    if obj.status.get("state") != "Running":
        yield f"{obj.key} does not run: {dict(obj.status)}"
    for part in ("previous", "failedSwitch"):
        if obj.record.get(part):
            yield f"{obj.key} still remembers {part}: {obj.record[part]}"


def _processes(wanted: Wanted, ids: Ids) -> Iterator[str]:
    place = wanted.place
    first, monitors = _running(place, ids)
    yield from (f"task {id} has no process" for id in set(ids.tasks.values()) - {*first})
    allowed = {*monitors.values(), *wanted.engines}
    seen = Counter(_group_of(pid, place.instance).rpartition("/")[2] for pid in first.values())
    yield from (f"process of {id} is in {count} groups" for id, count in seen.items() if count != 1)
    for pid in leftovers.processes(place):
        task = _group_of(pid, place.instance).rpartition("/")[2]
        if pid not in allowed and task not in ids.inside and _alive(pid):
            command = leftovers.read_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
            yield f"process left over: {pid} {command[:200]!r} in {_group_of(pid, place.instance)!r}"
    for id, pid in first.items():
        version = _environment(pid).get("VERSION")
        if wanted.containers[_name_of(id, ids)] != version:
            yield f"process {pid} of {id} has version {version}"


def _running(place: leftovers.Place, ids: Ids) -> tuple[dict[str, int], dict[str, int]]:
    """The first process and the monitor of each task, as far as they are alive, as its bundle names them."""
    first, monitors = {}, {}
    for id in ids.tasks.values():
        with suppress(OSError, ValueError):
            made = json.loads((place.state / "bundles" / id / "made.json").read_bytes())
            for table, part in ((first, "first"), (monitors, "monitor")):
                if start_time(made[part]["pid"]) == made[part]["start"]:
                    table[id] = int(made[part]["pid"])
    return first, monitors


def _name_of(id: str, ids: Ids) -> str:
    return next(name for name, one in ids.tasks.items() if one == id)


def _group_of(pid: int, instance: str) -> str:
    """The path of its control group below the instance's; empty when it is in none."""
    for line in leftovers.read_bytes(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines():
        _, mark, below = line.partition(f"/reconciler-{instance}/")
        if mark and not below.startswith("monitors"):
            return below
    return ""


def _environment(pid: int) -> dict[str, str]:
    text = leftovers.read_bytes(f"/proc/{pid}/environ").decode(errors="replace")
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


def _stat(pid: int) -> list[str]:
    return leftovers.read_bytes(f"/proc/{pid}/stat").decode(errors="replace").rpartition(")")[2].split()


def _alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which a living process started; None when it is gone, or a zombie."""
    return int(_stat(pid)[19]) if _alive(pid) else None


def _mounts(wanted: Wanted, ids: Ids) -> Iterator[str]:
    state = os.path.realpath(wanted.place.state)
    want = [f"{state}/netns/{id}/{pin}" for id in ids.sandboxes.values() for pin in PINS]
    want += [f"{state}/bundles/{id}/rootfs" for id in ids.tasks.values()]
    yield from differing("mount", (mount.target for mount in leftovers.mounts(wanted.place)), want)


def _groups(wanted: Wanted, ids: Ids) -> Iterator[str]:
    """A group a task inside that of its sandbox, nothing else, in each hierarchy; and the runtime made all of them."""
    want = {*ids.sandboxes.values(), *(f"{sandbox}/{id}" for id, sandbox in ids.inside.items())}
    own = {"", "monitors", "helpers"}
    for top in leftovers.cgroups(wanted.place):
        found = {os.path.relpath(folder, top).removeprefix(".") for folder, _, _ in os.walk(top)}
        lives = {group for group in found if group.startswith("helpers/")}
        extra = {group for group in found - want - own - lives if not group.startswith("monitors/")}
        yield from (f"control group left over: {top}/{group}" for group in sorted(extra))
        yield from (f"control group missing: {top}/{sandbox}/{id}" for id, sandbox in ids.inside.items()
                    if f"{sandbox}/{id}" not in found)  # fmt: skip
        for life in lives:
            if int(life.partition("/")[2].partition("-")[0]) not in wanted.engines:
                yield f"control group left over: {top}/{life}"


def _files(wanted: Wanted, ids: Ids) -> Iterator[str]:
    root, state = wanted.place.root, wanted.place.state
    tasks = ids.tasks.values()
    yield from differing("bundle", _names(state / "bundles"), tasks)
    yield from differing("runtime state", _names(state / "runc"), tasks)
    yield from differing("sandbox", _names(state / "netns"), ids.sandboxes.values())
    yield from differing("exit file", _names(state / "exits"), ())
    yield from differing("secrets", _names(state / "attempts"), tasks)
    yield from differing("attempt's folder", _names(root / "attempts"), ())
    yield from differing("folder of logs", _names(root / "logs"), ids.tasks.keys())
    for name, id in ids.tasks.items():
        if not (root / "logs" / name / f"{id}.log").exists():
            yield f"log missing: {id}"
    yield from staging(wanted.place)


def staging(place: leftovers.Place) -> Iterator[str]:
    """What was begun aside and neither published nor removed, in root and state, outside of the images' own files."""
    for top in (place.root, place.state):
        for folder, names, files in os.walk(top):
            yield from (f"staging left over: {folder}/{name}" for name in (*names, *files) if name.startswith(STAGING))
            names[:] = [name for name in names if name not in ("fs", "rootfs", "shm")]
    for name in _names(place.root / "content" / "ingest"):
        kind = "mark" if FRESH in name else "partial"
        yield f"{kind} of a blob left over: {name}"


def _names(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def _snapshots(wanted: Wanted, ids: Ids, objects: Iterable[Object]) -> Iterator[str]:
    chains = {str(obj.spec["chain"]) for obj in objects if obj.kind is Kind.SNAPSHOT}
    for driver in ("native", "overlayfs"):
        folder = wanted.place.root / "snapshots" / driver
        ledger = Ledger(folder / "ledger.db")
        try:
            lines = list(ledger.lines())
        finally:
            ledger.close()
        by_name = {line.info.key: line.info for line in lines}
        active = [line.info.key for line in lines if line.info.kind is not SnapshotKind.COMMITTED]
        yield from differing(f"{driver} root", active, ids.tasks.values() if driver == "overlayfs" else ())
        needed: set[str] = set()
        for chain in chains if driver == "overlayfs" else ():
            name: str | None = chain
            while name is not None and name in by_name:
                needed.add(name)
                name = by_name[name].parent
            if chain not in by_name:
                yield f"snapshot missing: {chain}"
        yield from differing(f"{driver} snapshot", set(by_name) - set(active), needed)
        yield from differing(f"{driver} folder", filter(str.isdigit, _names(folder)), (str(one.id) for one in lines))


def _content(wanted: Wanted, objects: Iterable[Object]) -> Iterator[str]:
    """Every blob is some image's, and hashes to its name."""
    store = ContentStore(wanted.place.root / "content")
    held = list(store.walk())
    named = {str(blob) for obj in objects if obj.kind is Kind.IMAGE for blob in obj.record.get("blobs", ())}
    yield from differing("blob", map(str, held), named)
    yield from (f"blob is damaged: {digest}" for digest in held if not store.intact(digest))


def twice_started(starts: Path, running: Iterable[str]) -> Iterator[str]:
    """Ids that stand in the file more than once; ids that run and do not stand there."""
    lines = starts.read_text().splitlines() if starts.exists() else []
    yield from (f"attempt {id} started {count} times" for id, count in Counter(lines).items() if count > 1)
    yield from (f"attempt {id} runs and never said so" for id in running if id not in set(lines))


def _events(store: SqliteStore) -> Iterator[str]:
    for event in store.events():
        if event.reason == "Started" and event.count > 1:
            yield f"event tells that {event.message} started {event.count} times"


def gone(place: leftovers.Place, seconds: float = 2.0) -> list[str]:
    """After the last delete: what `leftovers` finds, and what is left of workloads and images in root and state."""
    found = leftovers.settle(place, seconds)
    for folder in ("runc", "exits", "attempts"):
        found += [f"{folder}: {name}" for name in _names(place.state / folder)]
    for folder in ("attempts", "logs", "volumes", "content/blobs/sha256", "content/blobs/sha512"):
        found += [f"{folder}: {name}" for name in _names(place.root / folder)]
    for driver in ("native", "overlayfs"):
        names = filter(str.isdigit, _names(place.root / "snapshots" / driver))
        found += [f"snapshot: {driver}/{name}" for name in names]
    found += [f"kept: {path}" for path in sorted((place.root / "applied").glob("*/*"))]
    return [*found, *staging(place)]


def objects_left(store: SqliteStore) -> list[Any]:
    """Keys of all objects but the node itself."""
    return [str(obj.key) for obj in store.list() if obj.kind is not Kind.NODE]
