"""What everybody does with a store, over the port: change, apply, own, delete.

Rules of this file: each function reads, decides, and commits with the versions it read; a `WriteConflict` means read
and decide again. One manager an object: another's is refused. Deletion is a phase: marked first, gone when nobody
has work left on it; what was owned by it alone, and made by the engine, is marked in the same commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, TypeVar

from core import telemetry
from core.errors import Busy, Denied, NotFound
from core.values import dataclass
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import ORPHAN, Object, Origin, may_vanish
from reconciler.store.port import Change, ObjectStore, Put, Remove, Write, WriteConflict

ENGINE: Final = "engine"
"""The manager of what the agent makes itself."""

HAND: Final = "hand"
"""The manager of what was applied without a set."""

T = TypeVar("T")

Beside = Callable[[frozenset[Key]], Sequence[Write]]
"""What else belongs into an apply's commit, given the keys that it prunes."""


class BeingDeleted(Busy):
    """The object is on its way out; it can be made anew when it is gone."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key} is being deleted", advice=f"Wait for it: reconciler wait {key} --for Deleted")
        self.key = key


class OtherManager(Denied):
    """Objects belong to other managers; `objects` are they, as found."""

    def __init__(self, objects: Sequence[Object]) -> None:
        named = ", ".join(f"{obj.key} belongs to {obj.manager}" for obj in objects)
        super().__init__(named, advice="Change it there, or take it over: apply --take-over")
        self.objects = tuple(objects)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A spec that somebody wants to be so, and where it was written."""

    key: Key
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Manager:
    """Who applies: `hand`, `set/<name>`, `source/<name>`; and whether it takes over what is others'."""

    name: str
    take_over: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply came to, each in the order given; `pruned` are those marked as deleted."""

    created: tuple[Key, ...] = ()
    changed: tuple[Key, ...] = ()
    unchanged: tuple[Key, ...] = ()
    pruned: tuple[Key, ...] = ()


def _redo(attempt: Callable[[], T]) -> T:
    """`attempt`, again as long as somebody else wrote first (each time, somebody did get on)."""
    while True:
        try:
            return attempt()
        except WriteConflict:
            continue


def existing(store: ObjectStore, key: Key) -> Object:
    """The object of `key`; raises `NotFound`."""
    found = store.get(key)
    if found is None:
        raise NotFound(f"{key} is not there")
    return found


def modify(store: ObjectStore, key: Key, change: Callable[[Object], Object]) -> Object:
    """Store `change(object)`, as often as it takes; `change` may be called again. Raises `NotFound`."""

    def attempt() -> Object:
        found = existing(store, key)
        return store.commit([Put(change(found), found.version)])[0]

    return _redo(attempt)


def members(store: ObjectStore, manager: str) -> Sequence[Object]:
    """The objects of `manager`, in order."""
    return [obj for obj in store.list() if obj.manager == manager]


def await_changes(store: ObjectStore, since: int, seconds: float) -> Sequence[Change]:
    """The changes after version `since`, waiting up to `seconds` for the first; raises `TooOld`.

    A watcher begins with `version()`, then `list()`, and goes on from the last change's version: it misses nothing.
    """
    return store.changes(since) if store.wait(since, seconds) else ()


def apply_specs(
    store: ObjectStore,
    wanted: Sequence[Wanted],
    manager: Manager,
    *,
    finalizers: Mapping[Kind, str],
    prune_at: float | None = None,
    beside: Beside | None = None,
) -> Applied:
    """Make the store want `wanted`, all of it or nothing, in one durable commit.

    A new object begins with its controller's finalizer, as `finalizers` has it for its kind. With `prune_at` (seconds
    since 1970) the manager's other objects are marked as deleted in the same commit. `beside` is asked at each attempt
    what else belongs into the commit, and is given the keys that are pruned; what it raises is raised, and nothing is
    changed. Raises `OtherManager` and `BeingDeleted`.
    """

    def attempt() -> tuple[Applied, Sequence[Object]]:
        found = {want.key: store.get(want.key) for want in wanted}
        _refuse(found, manager)
        writes: list[Write] = [_applied(want, found[want.key], manager, finalizers) for want in wanted]
        pruned: list[Object] = []
        if prune_at is not None:
            pruned = [obj for obj in members(store, manager.name) if obj.key not in found and obj.deleted is None]
            writes += [Put(replace(obj, deleted=prune_at), obj.version) for obj in pruned]
        writes += beside(frozenset(obj.key for obj in pruned)) if beside is not None else ()
        after = store.commit(writes)[: len(wanted) + len(pruned)]
        return _told(found, after), after[len(wanted) :]

    applied, marked = _redo(attempt)
    for obj in marked:
        vanish(store, obj, obj.deleted or 0.0)
    return applied


def _refuse(found: Mapping[Key, Object | None], manager: Manager) -> None:
    there = [obj for obj in found.values() if obj is not None]
    others = [obj for obj in there if obj.manager not in (manager.name, ORPHAN)]
    if others and not manager.take_over:
        raise OtherManager(others)
    for obj in there:
        if obj.deleted is not None:
            raise BeingDeleted(obj.key)


def _applied(want: Wanted, found: Object | None, manager: Manager, finalizers: Mapping[Kind, str]) -> Put:
    base = found or Object(want.key)
    own = finalizers.get(want.key.kind)
    return Put(
        replace(
            base,
            spec=want.spec,
            labels=want.labels,
            annotations=want.annotations,
            origin=_origin(want, base),
            trace=base.trace if found is not None and _says_the_same(want, base) else telemetry.current(),
            manager=manager.name,
            finalizers=base.finalizers if own is None else base.finalizers | {own},
        ),
        base.version,
    )


def _origin(want: Wanted, base: Object) -> Origin | None:
    """Where it was written; the older revision stays where a newer one left place and content alone."""
    old, new = base.origin, want.origin
    if old is None or new is None or not old.revision or replace(old, revision=new.revision) != new:
        return new
    return old if _says_the_same(want, base) else new


def _says_the_same(want: Wanted, base: Object) -> bool:
    return (base.spec, base.labels, base.annotations) == (want.spec, want.labels, want.annotations)


def _told(found: Mapping[Key, Object | None], after: Sequence[Object]) -> Applied:
    lists: dict[str, list[Key]] = {"created": [], "changed": [], "unchanged": [], "pruned": []}
    for obj in after:
        before = found.get(obj.key)
        if obj.key not in found:
            lists["pruned"].append(obj.key)
        elif before is None:
            lists["created"].append(obj.key)
        else:
            lists["unchanged" if before.version == obj.version else "changed"].append(obj.key)
    return Applied(**{name: tuple(keys) for name, keys in lists.items()})


def create_owned(store: ObjectStore, owner: Object, made: Object) -> Object:
    """Create `made` with `owner` among its owners, or adopt the one of its key that is there; returns it as stored.

    An adopted object that the engine manages gets spec, labels and annotations of `made`; anybody else's keeps its own.
    Raises `BeingDeleted` when either is on its way out, `NotFound` when the owner is gone or another of its name.
    """

    def attempt() -> Object:
        holder = existing(store, owner.key)
        if holder.uid != owner.uid:
            raise NotFound(f"{owner.key} is not there any more: another of that name is")
        found = store.get(made.key)
        for obj in (holder, found):
            if obj is not None and obj.deleted is not None:
                raise BeingDeleted(obj.key)
        # The first write changes nothing: it guards that the owner is still wanted when the second is done.
        return store.commit([Put(holder, holder.version), _owned(made, found, holder)])[1]

    return _redo(attempt)


def _owned(made: Object, found: Object | None, owner: Object) -> Put:
    trace = owner.trace or telemetry.current()
    if found is None:
        return Put(replace(made, owners=made.owners | {owner.key}, manager=ENGINE, trace=trace), 0)
    owned = replace(found, owners=found.owners | {owner.key}, finalizers=found.finalizers | made.finalizers)
    if found.manager == ENGINE:
        trace = found.trace if found.spec == made.spec else trace
        owned = replace(owned, spec=made.spec, labels=made.labels, annotations=made.annotations, trace=trace)
    return Put(owned, found.version)


def disown(store: ObjectStore, owner: Key, key: Key, now: float) -> None:
    """Take `owner` from the owners of `key`, which goes when that was the last; nothing when it is none, or gone."""

    def attempt() -> Object | None:
        found = store.get(key)
        if found is None or owner not in found.owners:
            return None
        return store.commit([_without_owner(found, owner, now)])[0]

    left = _redo(attempt)
    if left is not None:
        vanish(store, left, now)


def request_deletion(store: ObjectStore, key: Key, now: float) -> Object | None:
    """Mark the object as deleted at `now`; returns it, or None when it is gone at once, as nobody has work on it.

    Nothing changes when it was marked before. Raises `NotFound`.
    """
    marked = modify(store, key, lambda obj: replace(obj, deleted=now))
    return None if vanish(store, marked, now) else marked


def vanish(store: ObjectStore, obj: Object, now: float) -> bool:
    """Remove `obj` if it is being deleted and nobody has work left on it; whether it, by its uid, is gone.

    In the same commit it is dropped from the owners of what it owned, and what the engine made and nobody owns any
    more is marked as deleted; that goes too, at once, if nobody has work on it.
    """

    def attempt() -> Sequence[Object] | None:
        found = store.get(obj.key)
        if found is None or found.uid != obj.uid:
            return ()
        if not may_vanish(found):
            return None
        # What it owns is read after its mark, so that nothing is missed: a marked owner gets nothing new to own.
        dropped = [_without_owner(dependent, found.key, now) for dependent in store.owned(found.key)]
        return store.commit([Remove(found.key, found.version), *dropped])

    left = _redo(attempt)
    for dependent in left or ():
        vanish(store, dependent, now)
    return left is not None


def _without_owner(obj: Object, owner: Key, now: float) -> Put:
    left = replace(obj, owners=obj.owners - {owner})
    if not left.owners and left.manager == ENGINE:
        left = replace(left, deleted=now)
    return Put(left, obj.version)


def sweep(store: ObjectStore, now: float) -> None:
    """Remove all that may vanish: a crash between a mark and the removal leaves such objects."""
    for obj in store.list():
        if may_vanish(obj):
            vanish(store, obj, now)


def used_attempts(store: ObjectStore, name: str) -> int:
    """The highest number that an attempt of a container of that name had before it was deleted; 0: none."""
    found = store.meta(f"{_ATTEMPTS}{name}")
    return int(found) if found is not None and found.isdigit() else 0


def keep_attempts(store: ObjectStore, obj: Object) -> None:
    """Remember the number of a container that goes: an id is never used again, by no container of its name either."""
    number = max(int(obj.record.get("attempt", 0)), used_attempts(store, obj.name))
    if obj.kind is Kind.CONTAINER and number:
        store.set_meta(f"{_ATTEMPTS}{obj.name}", str(number))


_ATTEMPTS: Final = "attempts/"
