"""Sources and the revisions that they applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from reconciler.decide.facts import Facts, FetchSeen, LoadSeen, Member, Now, RevisionFacts, SourceFacts, Want
from reconciler.decide.source import asks_for, fetched_revision, in_force, inventory, plan_source, source_detail
from reconciler.decide.summary import Detail, condition, is_true
from reconciler.model.actions import Plan
from reconciler.model.config import Config
from reconciler.model.identity import Key, Kind, source_manager, spec_hash
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import ORPHAN, Object
from reconciler.model.outcome import Fault
from reconciler.store.port import ObjectStore

_DECIDES: Final = ("path", "values", "prune")
_COMPLETED: Final = "Completed"


class Memories(Protocol):
    """What the hands remember of each Source."""

    def fetched(self, obj: Object) -> FetchSeen | None:
        """Its last fetch that went well."""

    def loaded(self, obj: Object) -> LoadSeen | None:
        """What was loaded last and is not applied yet."""

    def moved(self, obj: Object) -> bool:
        """Whether its folder was seen to have changed since it was read."""

    def moves(self, obj: Object) -> int:
        """How often it was seen to have changed."""

    def tree_held(self, obj: Object, revision: str) -> bool:
        """Whether the revision can be read without a fetch."""


class SourceController:
    """Sources: fetched, loaded, applied whole or not at all. Without `fetches`: left for an agent."""

    kind = Kind.SOURCE
    creates = (Kind.REVISION, Kind.IMAGE, Kind.SANDBOX, Kind.CONTAINER, Kind.VOLUME, Kind.SECRET, Kind.SOURCE)
    reads = (Kind.NODE, Kind.SECRET)

    def __init__(
        self,
        store: ObjectStore,
        memories: Memories,
        config: Config,
        node_facts: Mapping[str, Any],
        *,
        fetches: bool,
    ) -> None:
        self._store = store
        self._memories = memories
        self._config = config.sources
        self._privileged = config.policy.allow_privileged
        self._node_facts = node_facts
        self._fetches = fetches

    def configure(self, config: Config, node_facts: Mapping[str, Any]) -> None:
        """Decide by these from now on."""
        self._config = config.sources
        self._privileged = config.policy.allow_privileged
        self._node_facts = node_facts

    def facts(self, obj: Object, fault: Fault | None) -> SourceFacts:
        """Its revision, and every object that it has, wants or wanted."""
        every = {one.key: one for one in self._store.list()}
        manager = source_manager(obj.name)
        loaded = self._memories.loaded(obj)
        bare = SourceFacts(obj)
        claimed = inventory(bare) | (loaded.keys if loaded is not None else frozenset())
        theirs = {key: every[key] for key in claimed if key in every}
        members = {key: _member(one, every.values()) for key, one in every.items() if one.manager == manager}
        spec = {name: obj.spec[name] for name in _DECIDES if name in obj.spec}
        allowed = {"privileged": True} if self._privileged else {}
        with_ = spec_hash({**spec, "node": dict(self._node_facts), **allowed})
        fetched = fetched_revision(bare)
        due = loaded is None and (in_force(bare) != Want(fetched, with_) or not inventory(bare) <= members.keys())
        return SourceFacts(
            obj=obj,
            fetches=self._fetches,
            with_=with_,
            asks_for=asks_for(obj),
            fetched=self._memories.fetched(obj),
            moved=self._memories.moved(obj),
            moves=self._memories.moves(obj),
            tree_held=due and self._memories.tree_held(obj, fetched),
            loaded=loaded,
            members=members,
            foreign={key: one.manager for key, one in theirs.items() if one.manager not in (manager, ORPHAN)},
            going=frozenset(key for key, one in theirs.items() if one.deleted is not None),
            present=_present(loaded, every),
            hold=self._hold(every.values()),
            prune_limit=self._config.prune_limit,
            wait_for=self._config.wait_for,
            fault=fault,
        )

    def _hold(self, objects: Iterable[Object]) -> Mapping[str, Any]:
        return next((one.local.get("hold", {}) for one in objects if one.kind is Kind.NODE), {})

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Fetch, load, apply, or what stands in the way."""
        assert isinstance(facts, SourceFacts)
        return plan_source(facts, SourceSpec.model_validate(facts.obj.spec), now)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """Which revision is in force, and how its objects are."""
        assert isinstance(facts, SourceFacts)
        return source_detail(facts, plan)


def _present(loaded: LoadSeen | None, every: Mapping[Key, Object]) -> frozenset[Key]:
    needed = {key for key, _ in loaded.needs} if loaded is not None else set()
    return frozenset(key for key in needed if key in every and every[key].deleted is None)


def _member(obj: Object, every: Iterable[Object]) -> Member:
    weight = 1
    if obj.kind is Kind.SOURCE and obj.spec.get("prune", True):
        weight += sum(one.manager == source_manager(obj.name) for one in every)
    return Member(is_ready(obj), obj.deleted is not None, weight)


def is_ready(obj: Object) -> bool:
    """Whether nothing more is expected of the object as it is wanted now."""
    found = condition(obj.status, "Ready")
    if found is None or obj.status.get("observedGeneration") != obj.generation or is_true(obj.status, "Stalled"):
        return False
    return bool(found["status"] == "True" or (found["status"] == "False" and found["reason"] == _COMPLETED))


class RevisionController:
    """Revisions: nothing is done for them; they tell which one is in force."""

    kind = Kind.REVISION
    creates = ()
    reads = (Kind.SOURCE,)

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def facts(self, obj: Object, fault: Fault | None) -> RevisionFacts:
        """Whether its Source has it in force."""
        source = self._store.get(Key(Kind.SOURCE, str(obj.spec["source"])))
        applied = source.record.get("applied", {}) if source is not None else {}
        return RevisionFacts(obj, applied.get("name") == obj.name, fault)

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Nothing: it goes with its Source, or when enough newer ones are there."""
        return Plan()

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """In force, or superseded."""
        assert isinstance(facts, RevisionFacts)
        state = "InForce" if facts.current else "Superseded"
        return Detail(True, state, str(facts.obj.spec["revision"]), {"state": state})
