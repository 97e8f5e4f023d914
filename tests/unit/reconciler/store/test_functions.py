"""Applying, owning and deleting, over a store in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from core.clock import VirtualClock
from core.errors import NotFound
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin, without_finalizer
from reconciler.store.functions import (
    ENGINE,
    Applied,
    BeingDeleted,
    Manager,
    OtherManager,
    Wanted,
    apply_specs,
    await_changes,
    create_owned,
    disown,
    existing,
    members,
    modify,
    request_deletion,
    sweep,
    vanish,
)
from reconciler.store.memory import MemoryStore
from reconciler.store.port import ObjectStore, Put, Write, WriteConflict

WEB = Key(Kind.CONTAINER, "web")
DB = Key(Kind.CONTAINER, "db")
IMAGE = Key(Kind.IMAGE, "web")
SANDBOX = Key(Kind.SANDBOX, "web")
SECRET = Key(Kind.SECRET, "login")
FINALIZERS = {Kind.CONTAINER: "container", Kind.SANDBOX: "sandbox", Kind.IMAGE: "image"}
HAND = Manager("hand")
NOW = 50.0


class Raced(MemoryStore):
    """A store in which somebody else gets in between, once, just before a commit."""

    between: Callable[[MemoryStore], None] | None = None

    def commit(self, writes):  # type: ignore[no-untyped-def]  # as in MemoryStore
        """As in MemoryStore."""
        if self.between is not None:
            between, self.between = self.between, None
            between(self)
        return super().commit(writes)


@pytest.fixture
def store() -> Raced:
    return Raced(VirtualClock())


def apply(store: MemoryStore, *wanted: Wanted, manager: Manager = HAND, prune: bool = False) -> Applied:
    return apply_specs(store, wanted, manager, finalizers=FINALIZERS, prune_at=NOW if prune else None)


def done(store: MemoryStore, key: Key) -> None:
    """The controller of `key` has nothing left to do on it."""
    finished = modify(store, key, lambda obj: without_finalizer(obj, FINALIZERS[obj.kind]))
    vanish(store, finished, NOW)


def keys(store: MemoryStore) -> list[Key]:
    return [obj.key for obj in store.list()]


# Changing.


def test_modify_redoes_its_change_over_what_another_wrote(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    store.between = lambda raced: raced.commit([Put(replace(existing(raced, WEB), record={"n": 1}), 1)])
    after = modify(store, WEB, lambda obj: replace(obj, record={"n": obj.record.get("n", 0) + 1}))
    assert after.record == {"n": 2}


def test_modify_of_what_is_not_there_says_so(store: Raced) -> None:
    with pytest.raises(NotFound, match="container/web is not there"):
        modify(store, WEB, lambda obj: obj)


def test_changes_are_awaited_from_where_one_was(store: Raced) -> None:
    assert await_changes(store, 0, 0.0) == ()
    apply(store, Wanted(WEB, {}))
    assert [change.key for change in await_changes(store, 0, 1.0)] == [WEB]


# Applying.


def test_a_new_object_has_manager_origin_and_its_controllers_finalizer(store: Raced) -> None:
    want = Wanted(WEB, {"image": "web"}, {"a": "b"}, {"c": "d"}, Origin("web.yaml", 3))
    assert apply(store, want, Wanted(SECRET, {})) == Applied(created=(WEB, SECRET))
    found = existing(store, WEB)
    assert (found.spec, found.labels, found.annotations, found.origin) == (
        want.spec,
        want.labels,
        want.annotations,
        want.origin,
    )
    assert (found.manager, found.finalizers) == ("hand", frozenset({"container"}))
    assert existing(store, SECRET).finalizers == frozenset()


def test_applying_the_same_again_writes_nothing(store: Raced) -> None:
    apply(store, Wanted(WEB, {"image": "web"}))
    seen = store.version()
    assert apply(store, Wanted(WEB, {"image": "web"})) == Applied(unchanged=(WEB,))
    assert store.version() == seen


def test_applying_a_change_keeps_record_and_finalizers(store: Raced) -> None:
    apply(store, Wanted(WEB, {"image": "web"}), Wanted(DB, {}))
    modify(store, WEB, lambda obj: replace(obj, record={"attempt": 2}, finalizers=obj.finalizers | {"more"}))
    assert apply(store, Wanted(DB, {}), Wanted(WEB, {"image": "new"})) == Applied(changed=(WEB,), unchanged=(DB,))
    found = existing(store, WEB)
    assert (found.spec, found.record, found.finalizers) == (
        {"image": "new"},
        {"attempt": 2},
        frozenset({"container", "more"}),
    )


def test_another_managers_object_is_refused_with_its_name_and_nothing_is_applied(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), manager=Manager("source/edge"))
    with pytest.raises(OtherManager, match="container/web belongs to source/edge") as caught:
        apply(store, Wanted(DB, {}), Wanted(WEB, {"image": "mine"}))
    assert "--take-over" in caught.value.hint()
    assert keys(store) == [WEB]


def test_all_others_are_named_at_once(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), manager=Manager("source/edge"))
    apply(store, Wanted(DB, {}), manager=Manager("set/base"))
    with pytest.raises(OtherManager, match="container/db belongs to set/base, container/web belongs to source/edge"):
        apply(store, Wanted(DB, {}), Wanted(WEB, {}))


def test_taking_over_moves_the_object(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), manager=Manager("source/edge"))
    assert apply(store, Wanted(WEB, {}), manager=Manager("hand", take_over=True)) == Applied(changed=(WEB,))
    assert existing(store, WEB).manager == "hand"
    assert members(store, "source/edge") == []


def test_what_is_being_deleted_is_refused(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    request_deletion(store, WEB, NOW)
    with pytest.raises(BeingDeleted, match="container/web is being deleted"):
        apply(store, Wanted(DB, {}), Wanted(WEB, {}))
    assert keys(store) == [WEB]


def test_an_apply_that_is_raced_decides_anew(store: Raced) -> None:
    store.between = lambda raced: apply(raced, Wanted(WEB, {}), manager=Manager("set/x")) and None
    with pytest.raises(OtherManager):
        apply(store, Wanted(WEB, {}))


def test_pruning_marks_the_members_that_are_no_longer_given(store: Raced) -> None:
    mine = Manager("set/y")
    apply(store, Wanted(WEB, {}), Wanted(DB, {}), Wanted(SECRET, {}), manager=mine)
    apply(store, Wanted(IMAGE, {}))
    assert apply(store, Wanted(WEB, {}), manager=mine, prune=True) == Applied(unchanged=(WEB,), pruned=(DB, SECRET))
    assert existing(store, DB).deleted == NOW
    assert keys(store) == [IMAGE, DB, WEB]
    assert apply(store, Wanted(WEB, {}), manager=mine, prune=True) == Applied(unchanged=(WEB,))


# Deleting.


def test_deletion_marks_and_waits_for_the_finalizer(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    marked = request_deletion(store, WEB, NOW)
    assert marked is not None
    assert marked.deleted == NOW
    assert not vanish(store, marked, NOW)
    done(store, WEB)
    assert keys(store) == []


def test_what_nobody_has_work_on_goes_at_once(store: Raced) -> None:
    apply(store, Wanted(SECRET, {}))
    assert request_deletion(store, SECRET, NOW) is None
    assert keys(store) == []


def test_deleting_what_is_being_deleted_changes_nothing(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    first = request_deletion(store, WEB, NOW)
    assert request_deletion(store, WEB, NOW + 9) == first


def test_deleting_what_is_not_there_says_so(store: Raced) -> None:
    with pytest.raises(NotFound):
        request_deletion(store, WEB, NOW)


def test_another_object_of_the_name_does_not_vanish_for_the_old_one(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    old = existing(store, WEB)
    request_deletion(store, WEB, NOW)
    done(store, WEB)
    apply(store, Wanted(WEB, {}))
    assert vanish(store, old, NOW)
    assert keys(store) == [WEB]


def test_what_a_crash_left_marked_is_swept(store: Raced) -> None:
    apply(store, Wanted(SECRET, {}), Wanted(WEB, {}))
    for key in (SECRET, WEB):
        modify(store, key, lambda obj: replace(obj, deleted=NOW))
    sweep(store, NOW)
    assert keys(store) == [WEB]


# Owning.


def owned(store: MemoryStore, owner: Key, key: Key, **spec: object) -> Object:
    made = Object(key, spec=spec, finalizers=frozenset({FINALIZERS[key.kind]}))
    return create_owned(store, existing(store, owner), made)


def test_what_is_made_for_an_owner_is_the_engines(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    made = owned(store, WEB, SANDBOX, runtime="runc")
    assert (made.manager, made.owners, made.spec) == (ENGINE, frozenset({WEB}), {"runtime": "runc"})


def test_a_second_owner_shares_what_is_there(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), Wanted(DB, {}))
    first = owned(store, WEB, IMAGE, ref="a")
    second = owned(store, DB, IMAGE, ref="a")
    assert (second.uid, second.owners) == (first.uid, frozenset({WEB, DB}))
    assert owned(store, DB, IMAGE, ref="a") == second


def test_an_owner_brings_the_engines_object_up_to_date(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    owned(store, WEB, SANDBOX, runtime="runc")
    assert owned(store, WEB, SANDBOX, runtime="crun").generation == 2


def test_an_adopted_object_of_a_person_keeps_its_spec_and_outlives_its_owner(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), Wanted(IMAGE, {"ref": "theirs"}))
    assert owned(store, WEB, IMAGE, ref="ours").spec == {"ref": "theirs"}
    request_deletion(store, WEB, NOW)
    done(store, WEB)
    left = existing(store, IMAGE)
    assert (left.owners, left.deleted) == (frozenset(), None)


def test_what_is_owned_goes_with_its_last_owner_in_one_commit(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), Wanted(DB, {}))
    owned(store, WEB, IMAGE)
    owned(store, DB, IMAGE)
    owned(store, WEB, SANDBOX)
    request_deletion(store, WEB, NOW)
    done(store, WEB)
    assert (existing(store, IMAGE).owners, existing(store, IMAGE).deleted) == (frozenset({DB}), None)
    assert (existing(store, SANDBOX).owners, existing(store, SANDBOX).deleted) == (frozenset(), NOW)
    request_deletion(store, DB, NOW)
    done(store, DB)
    assert existing(store, IMAGE).deleted == NOW
    done(store, IMAGE)
    done(store, SANDBOX)
    assert keys(store) == []


def test_an_owned_object_without_work_left_goes_with_its_owner_at_once(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    create_owned(store, existing(store, WEB), Object(Key(Kind.SNAPSHOT, "web")))
    request_deletion(store, WEB, NOW)
    done(store, WEB)
    assert keys(store) == []


def test_an_owner_on_its_way_out_gets_nothing_new(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    store.between = lambda raced: request_deletion(raced, WEB, NOW) and None
    with pytest.raises(BeingDeleted, match="container/web"):
        owned(store, WEB, SANDBOX)
    assert keys(store) == [WEB]


def test_an_owner_that_was_made_anew_is_another_one(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    old = existing(store, WEB)
    request_deletion(store, WEB, NOW)
    done(store, WEB)
    with pytest.raises(NotFound):
        create_owned(store, old, Object(SANDBOX))
    apply(store, Wanted(WEB, {}))
    with pytest.raises(NotFound, match="another of that name"):
        create_owned(store, old, Object(SANDBOX))


def test_what_is_on_its_way_out_is_not_adopted(store: Raced) -> None:
    apply(store, Wanted(WEB, {}), Wanted(IMAGE, {}))
    request_deletion(store, IMAGE, NOW)
    with pytest.raises(BeingDeleted, match="image/web"):
        owned(store, WEB, IMAGE)


def test_an_owner_that_no_longer_needs_it_lets_it_go(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    owned(store, WEB, IMAGE)
    disown(store, DB, IMAGE, NOW)
    assert existing(store, IMAGE).owners == frozenset({WEB})
    disown(store, WEB, IMAGE, NOW)
    assert existing(store, IMAGE).deleted == NOW
    disown(store, WEB, SANDBOX, NOW)


def test_a_conflict_is_one_that_says_to_read_again(store: Raced) -> None:
    apply(store, Wanted(WEB, {}))
    with pytest.raises(WriteConflict, match="container/web is at version 1, not 9"):
        store.commit([Put(existing(store, WEB), 9)])


def test_an_origin_keeps_the_revision_that_last_changed_its_place_or_content(store: ObjectStore) -> None:
    source = Manager("source/edge")

    def applied(line: int, revision: str, image: str) -> Origin | None:
        want = Wanted(WEB, {"image": image}, origin=Origin("web.yaml", line, revision))
        apply_specs(store, [want], source, finalizers={})
        return existing(store, WEB).origin

    assert applied(3, "r1", "a") == Origin("web.yaml", 3, "r1")
    assert applied(3, "r2", "a") == Origin("web.yaml", 3, "r1")
    assert applied(4, "r3", "a") == Origin("web.yaml", 4, "r3")
    assert applied(4, "r4", "b") == Origin("web.yaml", 4, "r4")
    assert existing(store, WEB).to_json()["metadata"]["revision"] == "r4"


def test_what_stands_beside_an_apply_is_in_its_commit_and_may_refuse_it(store: ObjectStore) -> None:
    source = Manager("source/edge")
    apply_specs(store, [Wanted(WEB, {})], source, finalizers={})

    def refuse(pruned: frozenset[Key]) -> Sequence[Write]:
        raise ValueError(sorted(map(str, pruned)))

    with pytest.raises(ValueError, match="container/web"):
        apply_specs(store, [], source, finalizers={}, prune_at=5.0, beside=refuse)
    assert existing(store, WEB).deleted is None
    beside = Object(Key(Kind.NODE, "n"))
    apply_specs(store, [], source, finalizers={}, prune_at=5.0, beside=lambda pruned: [Put(beside, 0)])
    assert store.get(WEB) is None
    assert store.get(beside.key) is not None
