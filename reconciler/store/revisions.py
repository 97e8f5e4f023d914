"""Applying one revision of a Source: all of it, what goes, and that it is in force, in one commit; and what it leaves.

Rules of this file: `revisions/<name>.json` keeps what a Revision object applied, for a rollback; it is on disk before
the object is committed, and removed after that is gone, so that only a file nobody names is ever left. It may hold
Secrets: 0600 in a 0700 folder. Nothing is removed for good while a Source of a store that was lost is still unread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.errors import AgentError, Conflict, NotFound
from core.fsio import make_private, read_bounded, write_atomic
from core.values import dataclass
from reconciler.decide.facts import Want
from reconciler.decide.source import ROLLBACK
from reconciler.model.identity import FINALIZERS, Key, Kind, checked_name, kind_of, revision_name, source_manager
from reconciler.model.kinds.texts import is_reference
from reconciler.model.objects import Object, Origin, with_record
from reconciler.store.functions import ENGINE, Applied, Manager, Wanted, apply_specs
from reconciler.store.port import ObjectStore, Put, Remove, Write

REFILLED: Final = "refilled"
"""The store's word that it had lost something and was filled again (when), until every Source has been read since."""
_LIMIT: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be in force: `wanted` of revision `want`, in place of all that `removed` names."""

    source: Key
    want: Want
    wanted: Sequence[Wanted]
    removed: frozenset[Key]
    asks_for: str
    told: Mapping[str, Any]
    """Where it is from, for the Revision object."""


class Revisions:
    """The Revision objects of a store, and the files beside them under `root`/revisions. `keep`: so many a Source."""

    def __init__(self, root: Path, store: ObjectStore, keep: int) -> None:
        self._folder = root / "revisions"
        self._store = store
        self.keep = keep

    def apply(self, order: Order, now: float) -> Applied:
        """Apply it, all or nothing. Raises `Conflict` when the store has moved on, and what `apply_specs` raises."""
        source = self._source(order)
        known = source.record.get("applied", {})
        anew = (known.get("revision"), known.get("with")) == (order.want.revision, order.want.with_)
        number = int(source.record.get("number", 0)) + (0 if anew else 1)
        name = revision_name(source.name, number)
        if not anew:
            self._write(name, order.wanted)
        try:
            applied = apply_specs(
                self._store,
                order.wanted,
                Manager(source_manager(source.name)),
                finalizers=FINALIZERS,
                prune_at=now if order.removed else None,
                beside=lambda pruned: self._beside(order, pruned, None if anew else number, now),
            )
        finally:
            self.sweep(order.source)
        settle_refill(self._store)
        return applied

    def _source(self, order: Order) -> Object:
        source = self._store.get(order.source)
        if source is None or source.deleted is not None:
            raise Conflict(f"{order.source} is on its way out")
        return source

    def _beside(self, order: Order, pruned: frozenset[Key], number: int | None, now: float) -> Sequence[Write]:
        if pruned != order.removed:
            raise Conflict(f"{order.source} manages other objects than a moment ago")
        source = self._source(order)
        changes: dict[str, Any] = {"inventory": sorted(str(want.key) for want in order.wanted)}
        if number is None:
            return [Put(with_record(source, changes), source.version)]
        changes["number"] = number
        changes["applied"] = {
            "revision": order.want.revision,
            "with": order.want.with_,
            "asksFor": order.asks_for,
            "name": revision_name(source.name, number),
            "at": now,
        }
        old = self._too_many(source, order.want)
        return [
            Put(with_record(source, changes), source.version),
            Put(_revision(source, order, number), 0),
            *(Remove(one.key, one.version) for one in old),
        ]

    def _too_many(self, source: Object, want: Want) -> list[Object]:
        """Those that go when one more comes; never what is rolled back to."""
        back = want.with_.removeprefix(ROLLBACK) if want.with_.startswith(ROLLBACK) else ""
        kept = [one for one in self.of(source.key) if str(one.spec["number"]) != back]
        room = self.keep - (2 if back else 1)
        return kept[: max(0, len(kept) - max(0, room))]

    def of(self, source: Key) -> list[Object]:
        """The Revision objects of a Source, oldest first."""
        return revisions_of(self._store, source)

    def kept(self, source: Key, number: int) -> list[Wanted]:
        """What the `number`th revision of a Source applied. Raises `NotFound` when it is not kept any more."""
        name = revision_name(source.name, number)
        try:
            entries = json.loads(read_bounded(self._folder / f"{name}.json", _LIMIT))["objects"]
            return [_read(entry) for entry in entries]
        except (OSError, AgentError, ValueError, KeyError, TypeError) as error:
            raise NotFound(
                f"what {name} applied is not kept any more: {error}",
                advice="Choose another (reconciler history), or: reconciler source resume",
            ) from error

    def archives(self, source: Key) -> set[str]:
        """The paths of the archives that a Source's objects and the revisions it may go back to name."""
        manager = source_manager(source.name)
        specs = [one.spec for one in self._store.list(Kind.IMAGE) if one.manager == manager]
        for one in self.of(source):
            try:
                specs += [want.spec for want in self.kept(source, int(one.spec["number"]))]
            except NotFound:
                continue  # nobody can go back to it
        return {str(spec["archive"]) for spec in specs if "archive" in spec}

    def _write(self, name: str, wanted: Iterable[Wanted]) -> None:
        text = json.dumps({"objects": [_entry(want) for want in wanted]}, separators=(",", ":"))
        write_atomic(make_private(self._folder) / f"{name}.json", text.encode() + b"\n")

    def sweep(self, source: Key | None = None) -> None:
        """Remove the files that no Revision object names: those of a Source, which nobody else applies just now, or
        (None) all, before anything is applied.
        """
        named = {f"{obj.name}.json" for obj in self._store.list(Kind.REVISION)}
        for path in self._files(source):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def forget(self, source: Key) -> None:
        """Remove the files of a Source that goes."""
        for path in self._files(source):
            path.unlink(missing_ok=True)

    def _files(self, source: Key | None) -> list[Path]:
        if not self._folder.is_dir():
            return []
        if source is None:
            return [*self._folder.iterdir()]
        stem = revision_name(source.name, 0)[:-1]
        every = self._folder.glob(f"{stem}*.json")
        return [path for path in every if path.name.removeprefix(stem).removesuffix(".json").isdigit()]


def revisions_of(store: ObjectStore, source: Key) -> list[Object]:
    """The Revision objects of a Source, oldest first."""
    found = (one for one in store.list(Kind.REVISION) if one.spec.get("source") == source.name)
    return sorted(found, key=lambda one: int(one.spec["number"]))


def unread_sources(store: ObjectStore) -> list[Key]:
    """The Sources that were not read since the store lost something: what they want is not known, and so nothing may be
    removed for good. Empty when nothing was lost.
    """
    if not (since := store.meta(REFILLED)):
        return []
    return [one.key for one in store.list(Kind.SOURCE) if one.deleted is None and not _was_read(one, since)]


def _was_read(source: Object, since: str) -> bool:
    return "applied" in source.record and source.record.get("fetched", {}).get("read") == since


def settle_refill(store: ObjectStore) -> None:
    """Forget that the store had lost something, once every Source has been read since."""
    if store.meta(REFILLED) and not unread_sources(store):
        store.set_meta(REFILLED, "")


def _revision(source: Object, order: Order, number: int) -> Object:
    images = sorted(
        {want.spec["ref"] for want in order.wanted if want.key.kind is Kind.IMAGE}
        | {
            want.spec["image"]
            for want in order.wanted
            if want.key.kind is Kind.CONTAINER and is_reference(want.spec["image"])
        }
    )
    spec = {
        "source": source.name,
        "number": number,
        "revision": order.want.revision,
        **order.told,
        "objects": len(order.wanted),
        "removed": len(order.removed),
        "images": images,
    }
    if order.want.with_.startswith(ROLLBACK):
        spec["rollbackTo"] = revision_name(source.name, int(order.want.with_.removeprefix(ROLLBACK)))
    return Object(
        Key(Kind.REVISION, revision_name(source.name, number)),
        spec=spec,
        manager=ENGINE,
        owners=frozenset({source.key}),
    )


def _entry(want: Wanted) -> dict[str, Any]:
    origin = want.origin
    return {
        "kind": want.key.kind.value,
        "name": want.key.name,
        "labels": dict(want.labels),
        "annotations": dict(want.annotations),
        "spec": want.spec,
        "origin": None if origin is None else [origin.file, origin.line, origin.revision],
    }


def _read(entry: Mapping[str, Any]) -> Wanted:
    origin = entry["origin"]
    return Wanted(
        Key(kind_of(entry["kind"]), checked_name(entry["name"])),
        dict(entry["spec"]),
        dict(entry["labels"]),
        dict(entry["annotations"]),
        None if origin is None else Origin(str(origin[0]), int(origin[1]), str(origin[2])),
    )
