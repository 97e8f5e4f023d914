"""What every ObjectStore promises. A backend's tests subclass `StoreContract` and say how a store is made."""

import threading
from dataclasses import replace

import pytest

from core.clock import VirtualClock
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin, with_finalizer
from reconciler.store.port import Event, ObjectStore, Put, Remove, TooOld, WriteConflict

WEB = Key(Kind.CONTAINER, "web")
DB = Key(Kind.CONTAINER, "db")
IMAGE = Key(Kind.IMAGE, "web")
KEPT_REMOVALS = 3


def told(key: Key, reason: str, message: str = "", at: float = 1.0) -> Event:
    """An event as a controller hands it in."""
    return Event(0, key, "Normal", reason, message, at, at)


class StoreContract:
    """One behaviour a test; `self.store` is new and empty, `self.clock` is its clock."""

    store: ObjectStore
    clock: VirtualClock

    def create(self, key: Key = WEB, **fields: object) -> Object:
        """One new object in the store."""
        return self.store.commit([Put(replace(Object(key), **fields), 0)])[0]  # type: ignore[arg-type]  # of the test

    # Objects and compare-and-swap.

    def test_what_is_not_there_is_none(self) -> None:
        assert self.store.get(WEB) is None
        assert self.store.list() == []
        assert self.store.version() == 0

    def test_a_new_object_gets_uid_version_generation_and_time(self) -> None:
        made = self.create(spec={"image": "web"})
        assert made.uid
        assert (made.version, made.generation, made.created) == (1, 1, self.clock.wall())
        assert self.store.get(WEB) == made

    def test_every_field_comes_back_as_it_was_written(self) -> None:
        whole = Object(
            WEB,
            labels={"tier": "front"},
            annotations={"note": "ü \ud800"},
            spec={"image": "web", "args": ["-v"], "n": {"deep": [1, 2.5, None, True]}},
            record={"attempt": 3},
            local={"stop": {"reason": "tests"}},
            status={"state": "Waiting"},
            manager="set/y",
            finalizers=frozenset({"container", "volume"}),
            owners=frozenset({IMAGE, DB}),
            deleted=12.5,
            origin=Origin("web.yaml", 7),
        )
        made = self.store.commit([Put(whole, 0)])[0]
        expected = replace(whole, uid=made.uid, version=1, generation=1, created=self.clock.wall())
        assert made == expected
        assert self.store.get(WEB) == expected
        assert self.store.list() == [expected]

    def test_two_new_objects_never_share_a_uid(self) -> None:
        first = self.create()
        self.store.commit([Remove(WEB, first.version)])
        assert self.create().uid != first.uid

    def test_creating_what_is_there_is_a_conflict(self) -> None:
        made = self.create()
        with pytest.raises(WriteConflict):
            self.store.commit([Put(Object(WEB), 0)])
        assert self.store.get(WEB) == made

    def test_a_write_over_another_write_is_a_conflict(self) -> None:
        read = self.create()
        self.store.commit([Put(replace(read, labels={"a": "1"}), read.version)])
        with pytest.raises(WriteConflict):
            self.store.commit([Put(replace(read, labels={"a": "2"}), read.version)])
        found = self.store.get(WEB)
        assert found is not None
        assert found.labels == {"a": "1"}

    def test_writing_what_is_gone_is_a_conflict(self) -> None:
        read = self.create()
        self.store.commit([Remove(WEB, read.version)])
        for write in (Put(read, read.version), Remove(WEB, read.version)):
            with pytest.raises(WriteConflict):
                self.store.commit([write])

    def test_a_commit_is_all_or_nothing(self) -> None:
        made = self.create()
        with pytest.raises(WriteConflict):
            self.store.commit([Put(Object(DB), 0), Put(replace(made, labels={"a": "1"}), 99), Put(Object(IMAGE), 0)])
        assert self.store.list() == [made]
        assert self.store.version() == 1

    def test_a_commit_returns_what_was_put_in_order(self) -> None:
        web = self.create()
        results = self.store.commit([Put(Object(IMAGE), 0), Remove(WEB, web.version), Put(Object(DB), 0)])
        assert [obj.key for obj in results] == [IMAGE, DB]
        assert [obj.version for obj in results] == [2, 4]

    def test_two_writes_to_one_key_in_one_commit_are_refused(self) -> None:
        with pytest.raises(ValueError):
            self.store.commit([Put(Object(WEB), 0), Put(Object(WEB), 0)])
        assert self.store.list() == []

    @pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"bytes"])
    def test_what_is_not_json_is_refused_and_stores_nothing(self, value: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            self.store.commit([Put(Object(DB), 0), Put(Object(WEB, spec={"x": value}), 0)])
        assert self.store.list() == []

    def test_generation_moves_only_with_spec_and_labels(self) -> None:
        obj = self.create(spec={"a": 1})
        for same in (
            replace(obj, record={"attempt": 1}),
            replace(obj, annotations={"a": "b"}),
            with_finalizer(obj, "container"),
            replace(obj, manager="hand", owners=frozenset({IMAGE}), origin=Origin("x.yaml")),
        ):
            obj = self.store.commit([Put(replace(same, version=obj.version), obj.version)])[0]
            assert obj.generation == 1
        obj = self.store.commit([Put(replace(obj, spec={"a": 2}), obj.version)])[0]
        assert obj.generation == 2
        obj = self.store.commit([Put(replace(obj, labels={"a": "b"}), obj.version)])[0]
        assert obj.generation == 3

    def test_the_same_spec_in_another_order_or_as_tuples_moves_nothing(self) -> None:
        obj = self.create(spec={"a": [1], "b": 2})
        again = self.store.commit([Put(replace(obj, spec={"b": 2, "a": (1,)}), obj.version)])[0]
        assert again == obj

    def test_a_put_that_changes_nothing_writes_nothing_and_still_guards(self) -> None:
        obj = self.create(spec={"a": 1})
        assert self.store.commit([Put(obj, obj.version)]) == [obj]
        assert self.store.version() == obj.version
        with pytest.raises(WriteConflict):
            self.store.commit([Put(obj, obj.version + 1), Put(Object(DB), 0)])
        assert self.store.get(DB) is None

    def test_uid_and_created_are_not_the_writers(self) -> None:
        obj = self.create()
        self.clock.advance(5)
        changed = replace(obj, uid="mine", created=0.0, generation=7, labels={"a": "b"})
        after = self.store.commit([Put(changed, obj.version)])[0]
        assert (after.uid, after.created, after.generation) == (obj.uid, obj.created, 2)

    def test_a_deletion_once_asked_for_stays(self) -> None:
        obj = self.create(finalizers=frozenset({"container"}))
        marked = self.store.commit([Put(replace(obj, deleted=5.0), obj.version)])[0]
        for time in (None, 9.0):
            marked = self.store.commit([Put(replace(marked, deleted=time), marked.version)])[0]
            assert marked.deleted == 5.0

    def test_a_removal_of_nothing_that_expects_nothing_is_nothing(self) -> None:
        assert self.store.commit([Remove(WEB, 0)]) == []
        assert self.store.version() == 0

    def test_lists_are_in_order_of_kind_and_name(self) -> None:
        keys = [Key(kind, name) for kind in Kind for name in ("a", "b-1", "b.1", "c")]
        self.store.commit([Put(Object(key), 0) for key in reversed(keys)])
        assert [obj.key for obj in self.store.list()] == keys
        assert [obj.key for obj in self.store.list(Kind.SANDBOX)] == [key for key in keys if key.kind is Kind.SANDBOX]

    def test_what_an_object_owns_is_found(self) -> None:
        image = self.create(IMAGE, owners=frozenset({WEB, DB}))
        self.create(Key(Kind.SANDBOX, "web"), owners=frozenset({WEB}))
        assert [str(obj.key) for obj in self.store.owned(WEB)] == ["image/web", "sandbox/web"]
        assert self.store.owned(DB) == [image]
        self.store.commit([Put(replace(image, owners=frozenset({WEB})), image.version)])
        assert self.store.owned(DB) == []
        left = self.store.owned(WEB)[0]
        self.store.commit([Remove(IMAGE, left.version)])
        assert [str(obj.key) for obj in self.store.owned(WEB)] == ["sandbox/web"]

    # Status.

    def test_a_status_is_visible_at_once(self) -> None:
        obj = self.create()
        self.store.set_status(WEB, obj.uid, {"state": "Running"})
        for found in (self.store.get(WEB), self.store.list()[0], self.store.list(Kind.CONTAINER)[0]):
            assert found == replace(obj, status={"state": "Running"})

    def test_a_status_never_conflicts_with_a_write_of_the_rest(self) -> None:
        obj = self.create()
        self.store.set_status(WEB, obj.uid, {"n": 1})
        self.store.flush()
        after = self.store.commit([Put(replace(obj, record={"attempt": 1}), obj.version)])[0]
        found = self.store.get(WEB)
        assert found is not None
        assert (found.status, found.record, found.version) == ({"n": 1}, {"attempt": 1}, after.version)

    def test_a_put_never_changes_a_status(self) -> None:
        obj = self.create(status={"n": 0})
        self.store.set_status(WEB, obj.uid, {"n": 1})
        after = self.store.commit([Put(replace(obj, status={"n": 2}, labels={"a": "b"}), obj.version)])[0]
        assert after.status == {"n": 1}
        self.store.flush()
        assert self.store.get(WEB) == after

    def test_rest_is_said_of_the_version_that_the_last_status_made(self) -> None:
        assert self.store.rested() == 0
        obj = self.create()
        self.store.set_status(WEB, obj.uid, {"n": 1})
        self.store.flush(rest=True)
        assert self.store.rested() == self.store.version()
        self.create(DB)
        assert self.store.rested() < self.store.version()

    def test_a_status_is_a_change_once_it_is_flushed(self) -> None:
        obj = self.create()
        self.create(DB)
        seen = self.store.version()
        self.store.set_status(WEB, obj.uid, {"n": 1})
        self.store.flush()
        assert [change.key for change in self.store.changes(seen)] == [WEB]
        assert self.store.version() > seen

    def test_an_unchanged_status_is_no_change(self) -> None:
        obj = self.create(status={"n": 1, "m": [2]})
        seen = self.store.version()
        self.store.set_status(WEB, obj.uid, {"m": (2,), "n": 1})
        self.store.flush()
        assert self.store.version() == seen

    def test_a_status_of_another_incarnation_is_ignored(self) -> None:
        old = self.create()
        self.store.set_status(WEB, old.uid, {"n": 1})
        self.store.commit([Remove(WEB, old.version)])
        self.store.set_status(WEB, old.uid, {"n": 2})
        new = self.create()
        self.store.set_status(WEB, old.uid, {"n": 3})
        self.store.flush()
        assert self.store.get(WEB) == new
        assert new.status == {}

    def test_a_status_that_is_not_json_is_refused(self) -> None:
        obj = self.create()
        with pytest.raises((TypeError, ValueError)):
            self.store.set_status(WEB, obj.uid, {"n": object()})

    # Changes.

    def test_changes_tell_the_last_of_each_key_oldest_first(self) -> None:
        web = self.create()
        db = self.create(DB)
        self.store.commit([Put(replace(web, labels={"a": "b"}), web.version)])
        self.store.commit([Remove(DB, db.version)])
        changes = self.store.changes(0)
        assert [(change.key, change.gone) for change in changes] == [(WEB, False), (DB, True)]
        assert changes[-1].version == self.store.version()
        assert self.store.changes(changes[0].version) == changes[1:]
        assert self.store.changes(changes[-1].version) == []

    def test_a_restarted_watcher_misses_nothing(self) -> None:
        seen = self.store.version()
        web = self.create()
        self.create(DB)
        seen = self.store.changes(seen)[0].version  # it went away after the first
        self.store.commit([Remove(WEB, web.version)])
        self.create(IMAGE)
        again = self.store.changes(seen)
        assert [(change.key, change.gone) for change in again] == [(DB, False), (WEB, True), (IMAGE, False)]

    def test_a_key_made_again_is_no_longer_gone(self) -> None:
        web = self.create()
        self.store.commit([Remove(WEB, web.version)])
        self.create()
        assert [change.gone for change in self.store.changes(0)] == [False]

    def test_removals_that_are_forgotten_make_a_watcher_list_anew(self) -> None:
        self.create(DB)
        for number in range(KEPT_REMOVALS + 2):
            key = Key(Kind.IMAGE, f"i{number}")
            self.store.commit([Remove(key, self.create(key).version)])
        with pytest.raises(TooOld):
            self.store.changes(1)
        kept = [change for change in self.store.changes(self.store.version() - 5) if change.gone]
        assert len(kept) == KEPT_REMOVALS

    def test_a_watcher_of_another_store_lists_anew(self) -> None:
        self.create()
        with pytest.raises(TooOld):
            self.store.changes(self.store.version() + 1)

    def test_many_writes_to_few_objects_are_never_too_old(self) -> None:
        obj = self.create()
        for number in range(3 * KEPT_REMOVALS):
            obj = self.store.commit([Put(replace(obj, record={"n": number}), obj.version)])[0]
        assert len(self.store.changes(0)) == 1

    def test_waiting_ends_when_something_was_written(self) -> None:
        writer = threading.Thread(target=self.create)
        writer.start()
        assert self.store.wait(0, 10.0)
        writer.join()

    def test_waiting_ends_at_once_for_what_was_written_before(self) -> None:
        self.create()
        assert self.store.wait(0, 0.0)
        assert not self.store.wait(1, 0.0)

    # Events and words.

    def test_events_come_in_order_and_from_where_one_was(self) -> None:
        for reason in ("Pulling", "Pulled", "Started"):
            self.store.add_event(told(WEB, reason))
        events = self.store.events()
        assert [event.reason for event in events] == ["Pulling", "Pulled", "Started"]
        assert [event.reason for event in self.store.events(events[0].id)] == ["Pulled", "Started"]

    def test_a_repeated_event_is_counted_and_told_anew(self) -> None:
        self.store.add_event(told(WEB, "BackOff", "again", at=1.0))
        self.store.add_event(told(DB, "BackOff", "again"))
        seen = self.store.events()[-1].id
        self.store.flush()
        self.store.add_event(told(WEB, "BackOff", "again", at=5.0))
        self.store.add_event(told(WEB, "BackOff", "again", at=7.0))
        (event,) = self.store.events(seen)
        assert (event.key, event.first, event.last, event.count) == (WEB, 1.0, 7.0, 3)
        assert len(self.store.events()) == 2

    def test_only_the_newest_thousand_events_are_kept(self) -> None:
        for number in range(1005):
            self.store.add_event(told(WEB, "Numbered", str(number)))
            if number == 500:
                self.store.flush()
        events = self.store.events()
        assert len(events) == 1000
        assert (events[0].message, events[-1].message) == ("5", "1004")

    def test_an_event_with_text_that_no_encoding_takes_is_kept(self) -> None:
        self.store.add_event(told(WEB, "Odd", "file \udcff"))
        assert self.store.events()[0].message == "file \\udcff"

    def test_an_event_keeps_its_labels_and_type(self) -> None:
        event = Event(0, WEB, "Warning", "Failed", "no", 1.0, 2.0, labels={"a": "b"})
        self.store.add_event(event)
        (found,) = self.store.events()
        assert replace(found, id=0) == event

    def test_words_are_kept_beside_the_objects(self) -> None:
        assert self.store.meta("boot") is None
        self.store.set_meta("boot", "1")
        self.store.set_meta("boot", "2")
        assert self.store.meta("boot") == "2"

    def test_words_are_listed_by_the_beginning_of_their_names_and_dropped(self) -> None:
        for name in ("ask/b", "ask/a", "asked", "other"):
            self.store.set_meta(name, name.upper())
        assert list(self.store.metas("ask/").items()) == [("ask/a", "ASK/A"), ("ask/b", "ASK/B")]
        self.store.drop_meta("ask/a")
        self.store.drop_meta("ask/never")
        assert list(self.store.metas("ask/")) == ["ask/b"]
        assert self.store.meta("ask/a") is None
        assert self.store.version() == 0

    # Threads.

    def test_threads_that_write_at_once_lose_no_update(self) -> None:
        self.create(record={"n": 0})

        def add() -> None:
            done = 0
            while done < 20:
                found = self.store.get(WEB)
                assert found is not None
                try:
                    self.store.commit([Put(replace(found, record={"n": found.record["n"] + 1}), found.version)])
                except WriteConflict:
                    continue
                done += 1

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = self.store.get(WEB)
        assert found is not None
        assert found.record == {"n": 80}
