"""`applied/<set>/`: what was applied by hand, one file a key, so that a lost store can be filled again.

Rules of this file: a file follows the store, never the other way round while there is a store: `keep_applied` makes
the files of some keys say what the store says, whoever calls it, however often. It is called after each commit that
touched them, before that is acknowledged, and when they have gone. What git holds (Sources) and what the engine makes
itself is not kept here. A file carries the version of the store's commit, by which a store that lost its newest commits
is told, and a checksum of all it says.
"""

from __future__ import annotations

import json
import os
from binascii import crc32
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from core.errors import AgentError, Corrupt, Invalid, OverLimit
from core.fsio import fsync_dir, locked, make_private, read_bounded, staging, sweep_staging
from core.values import dataclass
from reconciler.model.identity import Key, Kind, checked_name, kind_of
from reconciler.model.objects import Object, Origin
from reconciler.store.functions import HAND, Manager, Wanted, apply_specs, request_deletion
from reconciler.store.port import ObjectStore

FILE_LIMIT: Final = 4 << 20
"""Bytes: a manifest's file has at most 1 MiB, and JSON may write a byte of it as six."""

_SET: Final = "set/"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file says: a spec, who applied it, and when its deletion was asked for, if it was."""

    wanted: Wanted
    manager: str
    deleted: float | None = None
    version: int = field(default=0, compare=False)
    """The store's version at which it was so; 0: a file of an older program, which says none."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that could be read, in order of set and key, and the files that could not."""

    kept: tuple[Kept, ...]
    damaged: tuple[Path, ...]


def set_manager(name: str) -> str:
    """The manager of set `name`; raises `Invalid` for what is no name, and for `hand`, which is the set of the rest."""
    if checked_name(name) == HAND:
        raise Invalid("no set may be named 'hand'", advice="Objects applied without --set are kept under that name.")
    return f"{_SET}{name}"


def keep_applied(root: Path, store: ObjectStore, keys: Iterable[Key]) -> list[Path]:
    """Make the files under `root`/applied say of `keys` what `store` says: written, or removed. Durable; idempotent.

    Returns the files that were written. Raises `OSError`.
    """
    applied = make_private(root / "applied")
    with locked(applied / ".lock"):
        # Read under the lock: who comes last sees the newest.
        files: dict[str, dict[str, bytes]] = defaultdict(dict)
        stale: set[Path] = set()
        folders = _folders(applied)
        for folder in folders:
            sweep_staging(folder)
        newest = store.version()
        for key in keys:
            obj = store.get(key)
            home = None if obj is None else _folder_of(obj.manager)
            name = _file_of(key)
            if obj is not None and home is not None and not _says(applied / home / name, obj, newest):
                files[home][name] = _written(obj)
            stale |= {folder / name for folder in folders if folder.name != home}
        for home, content in files.items():
            _write(make_private(applied / home), content)
        _remove(path for path in stale if path.exists())
        return [applied / home / name for home, content in files.items() for name in content]


def is_kept(obj: Object) -> bool:
    """Whether there is a file of it: it was applied by hand, in a set or in none."""
    return _folder_of(obj.manager) is not None


def unsaid(loaded: Loaded, store: ObjectStore) -> list[Key]:
    """The keys of which the files that were `loaded` do not say, once and at its place, what `store` says."""
    newest = store.version()
    files: dict[Key, list[Kept]] = defaultdict(list)
    for one in loaded.kept:
        files[one.wanted.key].append(one)
    # A file that is damaged may be about any of them.
    kept = (obj for obj in store.list() if is_kept(obj))
    return [obj.key for obj in kept if loaded.damaged or not _is_said(obj, files[obj.key], newest)]


def _is_said(obj: Object, files: Sequence[Kept], newest: int) -> bool:
    origin = None if obj.origin is None else Origin(obj.origin.file, obj.origin.line)
    wanted = Wanted(obj.key, obj.spec, obj.labels, obj.annotations, origin)
    return [*files] == [Kept(wanted, obj.manager, obj.deleted)] and files[0].version <= newest


def load_applied(root: Path) -> Loaded:
    """What is kept under `root`/applied; nothing where there is no such folder. One damaged file hides no other."""
    kept: list[Kept] = []
    damaged: list[Path] = []
    for folder in _folders(root / "applied"):
        for path in sorted(folder.glob("*.json")):
            try:
                kept.append(_read(path, _manager_of(folder.name)))
            except (AgentError, OSError, ValueError, KeyError, TypeError):
                damaged.append(path)
    return Loaded(tuple(kept), tuple(damaged))


def forget_gone(root: Path, store: ObjectStore) -> None:
    """Remove the files of objects that are not in `store` any more: a kill between the two left them. Durable.

    Only for a store that is known to be whole: where it was lost, these files are what it is refilled from.
    """
    named = {path for folder in _folders(root / "applied") for path in folder.glob("*.json")}
    there = {_file_of(obj.key) for obj in store.list()} if named else set()
    _remove(path for path in named if path.name not in there)


def refill(store: ObjectStore, kept: Sequence[Kept], *, finalizers: Mapping[Kind, str], now: float) -> Sequence[Kept]:
    """Put what was kept, and is not in `store`, back into it, also what was being deleted: it goes on going.

    Objects that are there are left alone, whoever manages them. Returns what was put back.
    """
    # One of each key: a crash between writing a file and removing it from the set it was in leaves two.
    lost = [*{one.wanted.key: one for one in kept if store.get(one.wanted.key) is None}.values()]
    for manager in sorted({one.manager for one in lost}):
        wanted = [one.wanted for one in lost if one.manager == manager]
        apply_specs(store, wanted, Manager(manager), finalizers=finalizers)
    for one in lost:
        if one.deleted is not None:
            request_deletion(store, one.wanted.key, now)
    return lost


def catch_up(store: ObjectStore, kept: Sequence[Kept], *, finalizers: Mapping[Kind, str], now: float) -> Sequence[Kept]:
    """Where `store` has lost its newest commits: give it those that were kept. Returns them; none: it has lost none.

    An object that an earlier commit knows is given the newer spec, whoever managed it then.
    """
    newer = [*{one.wanted.key: one for one in kept if one.version > store.version()}.values()]
    for manager in sorted({one.manager for one in newer}):
        wanted = [one.wanted for one in newer if one.manager == manager]
        apply_specs(store, wanted, Manager(manager, take_over=True), finalizers=finalizers)
    for one in newer:
        if one.deleted is not None:
            request_deletion(store, one.wanted.key, now)
    return newer


def _folders(applied: Path) -> Sequence[Path]:
    if not applied.is_dir():
        return []
    return sorted(path for path in applied.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folder_of(manager: str) -> str | None:
    if manager == HAND:
        return HAND
    return manager.removeprefix(_SET) if manager.startswith(_SET) else None


def _manager_of(folder: str) -> str:
    return HAND if folder == HAND else set_manager(folder)


def _file_of(key: Key) -> str:
    return f"{key.kind.value.lower()}-{key.name}.json"


def _written(obj: Object) -> bytes:
    document: dict[str, Any] = {**_said(obj), "version": obj.version}
    return json.dumps({**document, "sum": _sum(document)}, indent=1).encode() + b"\n"


def _said(obj: Object) -> dict[str, Any]:
    return {
        "kind": obj.kind.value,
        "name": obj.name,
        "labels": dict(obj.labels),
        "annotations": dict(obj.annotations),
        "spec": obj.spec,
        "origin": None if obj.origin is None else [obj.origin.file, obj.origin.line],
        "deleted": obj.deleted,
    }


def _sum(document: Mapping[str, Any]) -> int:
    """CRC-32 over a document without its sum, however its text is laid out."""
    return crc32(json.dumps(document, sort_keys=True).encode())


def _document(path: Path) -> dict[str, Any]:
    """What a file says, which must be what was written; raises `Corrupt`, `ValueError`, `OSError`."""
    document = json.loads(read_bounded(path, FILE_LIMIT))
    if not isinstance(document, dict):
        raise Corrupt(f"{path} holds no object")
    found = document.pop("sum", None)
    if found is not None and found != _sum(document):
        raise Corrupt(f"{path} is not what was written")
    return document


def _read(path: Path, manager: str) -> Kept:
    document = _document(path)
    origin = document["origin"]
    wanted = Wanted(
        Key(kind_of(document["kind"]), checked_name(document["name"])),
        dict(document["spec"]),
        dict(document["labels"]),
        dict(document["annotations"]),
        None if origin is None else Origin(str(origin[0]), int(origin[1])),
    )
    if path.name != _file_of(wanted.key):
        raise Corrupt(f"{path} is about {wanted.key}")
    deleted = document["deleted"]
    return Kept(wanted, manager, None if deleted is None else float(deleted), int(document.get("version", 0)))


def _says(path: Path, obj: Object, newest: int) -> bool:
    """Whether the file says what the object is, at a version that the store, now at `newest`, has had."""
    try:
        document = _document(path)
    except (Corrupt, OverLimit, ValueError, FileNotFoundError):
        return False
    said = document.pop("version", 0)
    if not isinstance(said, int) or said > newest:
        return False
    wanted = _said(obj)
    return document == wanted or document == json.loads(json.dumps(wanted, default=dict))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All of `files` on disk first, then renamed into `folder`, then the names synced."""
    with staging(folder) as work:
        for name, data in files.items():
            fd = os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(fd)
        for name in files:
            os.rename(work / name, folder / name)
    fsync_dir(folder)


def _remove(paths: Iterable[Path]) -> None:
    gone = [*paths]
    for path in gone:
        path.unlink()
    for folder in sorted({path.parent for path in gone}):
        fsync_dir(folder)
