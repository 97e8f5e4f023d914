"""Whatever is done to them in whatever order, the SQLite backend and the store in memory tell the same."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.clock import VirtualClock
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.memory import MemoryStore
from reconciler.store.port import Event, ObjectStore, Put, Remove, TooOld, Write, WriteConflict
from reconciler.store.sqlite import SqliteStore
from reconciler.store.sqlite_connections import make_store

KEYS = [Key(kind, name) for kind in (Kind.IMAGE, Kind.CONTAINER) for name in ("a", "b")]
KEPT = 1

keys = st.sampled_from(KEYS)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.floats(-1, 1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
json_values = st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2)
labels = st.dictionaries(st.sampled_from(["l", "m"]), st.text(max_size=3), max_size=2)
contents = st.fixed_dictionaries(
    {},
    optional={
        "spec": json_values,
        "record": json_values,
        "labels": labels,
        "finalizers": st.frozensets(st.sampled_from(["f", "g"])),
        "owners": st.frozensets(keys, max_size=2),
        "manager": st.sampled_from(["hand", "engine"]),
        "deleted": st.none() | st.floats(1, 9),
    },
)
steps = st.tuples(keys, st.none() | contents, st.sampled_from(["right", "right", "right", "wrong", "none"]))


class Stores(RuleBasedStateMachine):
    """Both stores, with each operation done to both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.clock = VirtualClock()
        self.path = self.folder / "store.db"
        make_store(self.path)
        self.sqlite = SqliteStore(self.path, self.clock, kept_removals=KEPT)
        self.memory = MemoryStore(self.clock, kept_removals=KEPT)
        self.uids: dict[str, str] = {}

    @property
    def both(self) -> tuple[ObjectStore, ObjectStore]:
        """In the order sqlite, memory."""
        return self.sqlite, self.memory

    def write(self, store: ObjectStore, key: Key, content: dict[str, Any] | None, expect: str) -> Write:
        """One write, at the version that is right or wrong in that store."""
        found = store.get(key)
        right = 0 if found is None else found.version
        version = {"right": right, "wrong": right + 1, "none": 0}[expect]
        return Remove(key, version) if content is None else Put(replace(found or Object(key), **content), version)

    @rule(writes=st.lists(steps, min_size=1, max_size=3))
    def commit(self, writes: list[tuple[Key, dict[str, Any] | None, str]]) -> None:
        """The same commit, with the same end."""
        ends: list[object] = []
        for store in self.both:
            try:
                done = store.commit([self.write(store, *one) for one in writes])
                ends.append([obj.key for obj in done])
            except (WriteConflict, ValueError) as error:
                ends.append(type(error))
        assert ends[0] == ends[1]
        self.clock.advance(1)

    @rule(key=keys, status=json_values)
    def set_status(self, key: Key, status: dict[str, Any]) -> None:
        """The same status, written at once."""
        for store in self.both:
            found = store.get(key)
            store.set_status(key, "gone" if found is None else found.uid, status)
            store.flush()

    @rule(told=st.lists(st.tuples(keys, st.sampled_from(["R", "S"]), st.integers(1, 3)), min_size=1, max_size=4))
    def add_events(self, told: list[tuple[Key, str, int]]) -> None:
        """The same events."""
        for key, reason, at in told:
            for store in self.both:
                store.add_event(Event(0, key, "Normal", reason, "", float(at), float(at)))

    @rule()
    def reopen(self) -> None:
        """What the file holds is all there is."""
        self.sqlite.close()
        self.sqlite = SqliteStore(self.path, self.clock, kept_removals=KEPT)

    def plain(self, objects: Any) -> list[Object]:
        """Objects without the uids, which are drawn."""
        return [replace(obj, uid="") for obj in objects]

    @invariant()
    def they_tell_the_same(self) -> None:
        """Objects, owners, changes, events."""
        assert self.plain(self.sqlite.list()) == self.plain(self.memory.list())
        for key in KEYS:
            assert self.plain(self.sqlite.owned(key)) == self.plain(self.memory.owned(key))
            assert (self.sqlite.get(key) is None) == (self.memory.get(key) is None)
        assert self.sqlite.version() == self.memory.version()
        for since in range(self.sqlite.version() + 2):
            assert self.changes(self.sqlite, since) == self.changes(self.memory, since)
        told = [[replace(event, id=0) for event in store.events()] for store in self.both]
        assert told[0] == told[1]

    @staticmethod
    def changes(store: ObjectStore, since: int) -> object:
        """The changes, or that they are too old."""
        try:
            return list(store.changes(since))
        except TooOld:
            return TooOld

    def teardown(self) -> None:
        """Leave no file."""
        self.sqlite.check()
        self.sqlite.close()
        shutil.rmtree(self.folder)


class TestStores(Stores.TestCase):
    settings = settings(
        max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
