"""Hands for Sources: fetch, load, apply, let go; and what is remembered of each while the engine lives.

Rules of this file: what is fetched lies with its fetcher, what was loaded in memory until it is applied; both can be
made anew at any time, so that nothing here is durable. What counts is in the Source's record, written in the commit
that it tells of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path as Folder
from typing import TYPE_CHECKING, Final

from core import fsio, telemetry
from core.clock import Clock
from core.errors import AgentError, Conflict
from core.values import dataclass
from reconciler.decide.facts import FetchSeen, LoadSeen, Want
from reconciler.decide.references import references as named
from reconciler.decide.source import MOST_FAULTS, ROLLBACK, asks_for, short
from reconciler.model.actions import ApplyRevision, FetchSource, ForgetSource, LetGoOfMembers, LoadRevision
from reconciler.model.identity import Key, Kind, source_manager
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import ORPHAN, Object, with_record
from reconciler.sources.folder import FolderFetcher
from reconciler.sources.placed import drop
from reconciler.sources.revisions import Fetcher
from reconciler.sources.substitution import Variables
from reconciler.store.functions import Applied, BeingDeleted, OtherManager, Wanted, existing, members, modify, vanish
from reconciler.store.port import Event, ObjectStore, Put, WriteConflict
from reconciler.store.revisions import REFILLED, Order, Revisions, settle_refill

if TYPE_CHECKING:
    from reconciler.sources.checked import Checked, RevisionReader

MakeFetcher = Callable[[Object, SourceSpec], Fetcher]
"""Makes what brings a Source's revisions; raises `AgentError`."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How Sources are read on this node. `variables`: what manifests may name of it; `allow_local`: whether a Source
    that comes out of another may name files and folders of the node; `allow_privileged`: whether a container may be
    privileged. `homes`: the folder of what is fetched.
    """

    make: MakeFetcher
    homes: Folder
    variables: Variables
    allow_local: bool = False
    allow_privileged: bool = False


@dataclass(slots=True)
class Memory:
    """What is known of one Source (by uid) in this engine's life."""

    made_of: tuple[int, str] = (0, "")
    """The generations of the Source's login, and what it asked for, when its fetcher was made."""
    fetcher: Fetcher | None = None
    reader: RevisionReader | None = None
    fetched: FetchSeen | None = None
    loaded: LoadSeen | None = None
    wanted: tuple[Wanted, ...] = ()
    moved: bool = False
    moves: int = 0


@dataclass(slots=True)
class SourceMemories:
    """The memories of all Sources; one worker at a time has the key of each."""

    store: ObjectStore
    make: MakeFetcher
    known: dict[str, Memory] = field(default_factory=dict)

    def of(self, obj: Object) -> Memory:
        """What is known of a Source."""
        return self.known.setdefault(obj.uid, Memory())

    def fetched(self, obj: Object) -> FetchSeen | None:
        """Its last fetch that went well."""
        return self.of(obj).fetched

    def loaded(self, obj: Object) -> LoadSeen | None:
        """What was loaded last and is not applied yet."""
        return self.of(obj).loaded

    def moved(self, obj: Object) -> bool:
        """Whether its folder was seen to have changed since it was read."""
        return self.of(obj).moved

    def moves(self, obj: Object) -> int:
        """How often it was seen to have changed: what failed before the last time is tried again at once."""
        return self.of(obj).moves

    def tree_held(self, obj: Object, revision: str) -> bool:
        """Whether the revision can be read without a fetch. May ask git: only for what is to be read."""
        try:
            return bool(revision) and self.fetcher(obj).held(revision)
        except AgentError:
            return False  # the fetch that follows says why

    def fetcher(self, obj: Object) -> Fetcher:
        """What brings its revisions: made anew whenever an address, a sub-path or a login is not what it was."""
        memory = self.of(obj)
        logins = (self.store.get(key) for key in sorted(named(obj)))
        made_of = sum(one.generation + 1 for one in logins if one is not None), asks_for(obj)
        if memory.fetcher is None or memory.made_of != made_of:
            memory.fetcher, memory.made_of = self.make(obj, SourceSpec.model_validate(obj.spec)), made_of
        return memory.fetcher


class SourceHands:
    """Performs the actions of Sources."""

    def __init__(self, store: ObjectStore, revisions: Revisions, ways: Ways, clock: Clock) -> None:
        self._store = store
        self.memories = SourceMemories(store, ways.make)
        self._revisions = revisions
        self._ways = ways
        self._clock = clock

    def configure(self, ways: Ways) -> None:
        """Read Sources by these ways from the next look on."""
        self._ways = ways
        self.memories.make = ways.make
        for memory in list(self.memories.known.values()):
            memory.made_of = (0, "")
            memory.loaded, memory.wanted = None, ()  # judged by the old ways: read anew

    def fetch(self, action: FetchSource) -> None:
        """Bring the revision, and remember which it is; raises what the fetcher raises."""
        obj = existing(self._store, action.key)
        memory, fetcher = self.memories.of(obj), self.memories.fetcher(obj)
        memory.fetched, memory.moved = None, False  # due until it goes well
        revision = fetcher.fetch()
        telemetry.note(revision=revision)
        applied = obj.record.get("applied", {})
        before = applied["revision"] if applied.get("asksFor") == action.asks_for else ""
        fetched = {
            "revision": revision,
            "asksFor": action.asks_for,
            "from": before,
            "read": self._store.meta(REFILLED) or "",
            "descends": not before or before == revision or fetcher.descends(revision, before),
        }
        if obj.record.get("fetched") != fetched:
            modify(self._store, action.key, lambda one: with_record(one, {"fetched": fetched}))
            settle_refill(self._store)
            fetcher.keep({revision, *([applied["revision"]] if applied else [])})
        if obj.record.get("fetched", {}).get("revision") != revision:
            self._tell(action.key, "Normal", "Fetched", short(revision))
        memory.fetched = FetchSeen(self._clock.monotonic(), self._clock.wall(), action.sync)

    def load(self, action: LoadRevision) -> None:
        """Read and check; what it came to, faults too, is kept in memory."""
        obj = existing(self._store, action.key)
        memory = self.memories.of(obj)
        want = Want(action.revision, action.with_)
        checked = self._checked(obj, memory, action)
        texts = tuple(str(fault) for fault in checked.faults[:MOST_FAULTS])
        keys = frozenset(one.key for one in checked.wanted)
        memory.wanted = () if checked.faults else checked.wanted
        if checked.faults:
            telemetry.count("reconciler.source.revisions", source=action.key.name, outcome="refused")
        memory.loaded = LoadSeen(want, self._clock.monotonic(), keys, checked.needs, texts, len(checked.faults))

    def _checked(self, obj: Object, memory: Memory, action: LoadRevision) -> Checked:
        from reconciler.sources.checked import RevisionReader, kept_again  # YAML's reader: not for who has no Source

        if action.with_.startswith(ROLLBACK):
            return kept_again(self._revisions.kept(action.key, int(action.with_.removeprefix(ROLLBACK))))
        if memory.reader is None:
            memory.reader = RevisionReader(obj.key, allow_local=self._ways.allow_local)
        spec = SourceSpec.model_validate(obj.spec)
        variables = replace(self._ways.variables, values=spec.values)
        fetcher, allowed = self.memories.fetcher(obj), self._ways.allow_privileged
        return memory.reader.read(fetcher, action.revision, spec.path, variables, allow_privileged=allowed)

    def apply(self, action: ApplyRevision) -> None:
        """Apply what was loaded, in one commit; raises `Conflict` when that is not what is to be applied."""
        obj = existing(self._store, action.key)
        memory = self.memories.of(obj)
        want = Want(action.revision, action.with_)
        if memory.loaded is None or memory.loaded.want != want or memory.loaded.faults:
            raise Conflict(f"{action.revision} is not loaded")
        asks_for = obj.record["fetched"]["asksFor"]
        order = Order(action.key, want, memory.wanted, action.removed, asks_for, _told(obj))
        try:
            applied = self._revisions.apply(order, self._clock.wall())
        except (OtherManager, BeingDeleted) as error:
            raise Conflict(error.message) from error  # since the plan was made: the next one says what to do
        self._tell(action.key, "Normal", "Applied", f"{short(action.revision)}: {_counts(applied)}")
        memory.loaded, memory.wanted = None, ()
        if isinstance(memory.fetcher, FolderFetcher):
            memory.fetcher.let_go()
        if (home := self._ways.homes / action.key.name).is_dir():
            drop(home, self._revisions.archives(action.key))

    def let_go_of_members(self, action: LetGoOfMembers) -> None:
        """Mark what the Source manages as deleted, or leave it to whoever takes it over; in one commit."""
        now = self._clock.wall()
        while True:
            found = [one for one in members(self._store, source_manager(action.key.name)) if one.deleted is None]
            puts = [replace(one, manager=ORPHAN) if action.keep else replace(one, deleted=now) for one in found]
            try:
                self._store.commit([Put(new, old.version) for new, old in zip(puts, found, strict=True)])
                break
            except WriteConflict:
                continue  # somebody wrote first, and so did get on: read again
        for one in () if action.keep else puts:
            vanish(self._store, one, now)

    def forget(self, action: ForgetSource) -> None:
        """Let go of what was fetched and of what its revisions kept; its Revision objects go with the object."""
        self._revisions.forget(action.key)
        obj = self._store.get(action.key)
        if obj is None:
            return
        self.memories.known.pop(obj.uid, None)
        if (home := self._ways.homes / action.key.name).is_dir():
            fsio.remove_tree(home)

    def sweep(self) -> None:
        """Remove what an apply that was killed kept for a revision that never came to be."""
        self._revisions.sweep()

    def watch(self, wake: Callable[[Key], None]) -> None:
        """Look whether folders have changed; called every two seconds."""
        for obj in self._watched():
            memory = self.memories.of(obj)
            if isinstance(memory.fetcher, FolderFetcher) and not memory.moved and memory.fetcher.moved():
                memory.moved, memory.moves = True, memory.moves + 1
                wake(obj.key)

    def _watched(self) -> list[Object]:
        """The Sources with a folder; without any, nothing is read."""
        if not any(isinstance(one.fetcher, FolderFetcher) for one in self.memories.known.values()):
            return []
        return [obj for obj in self._store.list(Kind.SOURCE) if "folder" in obj.spec and obj.deleted is None]

    def _tell(self, key: Key, type_: str, reason: str, message: str) -> None:
        wall = self._clock.wall()
        self._store.add_event(Event(0, key, type_, reason, message, wall, wall))


def _told(obj: Object) -> Mapping[str, str]:
    """Where a revision is from, for its Revision object."""
    git = obj.spec.get("git", {})
    ref = git.get("ref", {})
    told = {"from": git.get("url") or obj.spec.get("folder", ""), "path": obj.spec.get("path", "")}
    told["ref"] = next((f"{name} {ref[name]}" for name in ("branch", "tag", "commit") if name in ref), "")
    return {name: text for name, text in told.items() if text}


def _counts(applied: Applied) -> str:
    counts = {name: len(getattr(applied, name)) for name in _COUNTED}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no objects"


_COUNTED: Final = ("created", "changed", "unchanged", "pruned")
