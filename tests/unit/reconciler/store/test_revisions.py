"""Applying a revision in one commit: what it records, what it keeps for a rollback, and what it refuses."""

import stat
from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.errors import Conflict, NotFound
from reconciler.decide.facts import Want
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin, with_record
from reconciler.store.functions import Wanted, existing, modify
from reconciler.store.memory import MemoryStore
from reconciler.store.port import Put
from reconciler.store.revisions import REFILLED, Order, Revisions, settle_refill, unread_sources

EDGE = Key(Kind.SOURCE, "edge")
A, B = Key(Kind.VOLUME, "a"), Key(Kind.VOLUME, "b")
NONE: frozenset[Key] = frozenset()


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore(VirtualClock())
    made.commit([Put(Object(EDGE, manager="hand"), 0)])
    return made


def order(revision: str, *keys: Key, removed: frozenset[Key] = NONE, with_: str = "w") -> Order:
    """What is to be in force."""
    wanted = [Wanted(key, {"retain": False}, origin=Origin("x.yaml", 1, revision)) for key in keys]
    return Order(EDGE, Want(revision, with_), wanted, removed, "asks", {"from": "https://x"})


def test_an_apply_records_what_is_in_force_and_a_revision_object_in_its_commit(
    store: MemoryStore, tmp_path: Path
) -> None:
    revisions = Revisions(tmp_path, store, 3)
    applied = revisions.apply(order("r1", A, B), 5.0)
    assert set(applied.created) == {A, B}
    record = existing(store, EDGE).record
    assert record["inventory"] == ["volume/a", "volume/b"]
    assert (record["applied"]["revision"], record["applied"]["name"]) == ("r1", "edge-1")
    (one,) = revisions.of(EDGE)
    assert (one.name, one.spec["objects"], one.owners) == ("edge-1", 2, frozenset({EDGE}))
    kept = tmp_path / "revisions/edge-1.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert [(want.key, want.origin) for want in revisions.kept(EDGE, 1)] == [
        (A, Origin("x.yaml", 1, "r1")),
        (B, Origin("x.yaml", 1, "r1")),
    ]


def test_putting_back_what_was_lost_is_no_new_revision(store: MemoryStore, tmp_path: Path) -> None:
    revisions = Revisions(tmp_path, store, 3)
    revisions.apply(order("r1", A), 5.0)
    revisions.apply(order("r1", A, B), 6.0)
    assert [one.name for one in revisions.of(EDGE)] == ["edge-1"]
    assert existing(store, EDGE).record["inventory"] == ["volume/a", "volume/b"]


def test_only_the_newest_are_kept_and_always_what_is_rolled_back_to(store: MemoryStore, tmp_path: Path) -> None:
    revisions = Revisions(tmp_path, store, 2)
    for number in (1, 2, 3):
        revisions.apply(order(f"r{number}", A), 5.0)
    assert [one.name for one in revisions.of(EDGE)] == ["edge-2", "edge-3"]
    revisions.apply(order("r2", A, with_="rollback/2"), 6.0)
    assert [one.name for one in revisions.of(EDGE)] == ["edge-2", "edge-4"]
    assert sorted(path.name for path in (tmp_path / "revisions").iterdir()) == ["edge-2.json", "edge-4.json"]
    with pytest.raises(NotFound, match="edge-3"):
        revisions.kept(EDGE, 3)


def test_what_would_go_beside_what_was_planned_is_a_conflict_and_changes_nothing(
    store: MemoryStore, tmp_path: Path
) -> None:
    revisions = Revisions(tmp_path, store, 3)
    revisions.apply(order("r1", A, B), 5.0)
    with pytest.raises(Conflict):
        revisions.apply(order("r2", removed=frozenset({A})), 6.0)
    assert existing(store, B).deleted is None
    assert existing(store, EDGE).record["applied"]["revision"] == "r1"
    assert [path.name for path in (tmp_path / "revisions").iterdir()] == ["edge-1.json"]


def test_a_sweep_of_one_source_leaves_the_files_of_others_alone(store: MemoryStore, tmp_path: Path) -> None:
    revisions = Revisions(tmp_path, store, 3)
    revisions.apply(order("r1", A), 5.0)
    for name in ("edge-7.json", "edge-1-1.json", ".staging-edge-8.json-ab"):
        (tmp_path / "revisions" / name).write_text("{}")
    revisions.sweep(EDGE)
    left = sorted(path.name for path in (tmp_path / "revisions").iterdir())
    assert left == [".staging-edge-8.json-ab", "edge-1-1.json", "edge-1.json"]
    revisions.sweep()
    assert [path.name for path in (tmp_path / "revisions").iterdir()] == ["edge-1.json"]


def test_after_a_loss_a_source_is_unread_until_it_was_fetched_and_applied_since(store: MemoryStore) -> None:
    assert unread_sources(store) == []
    store.set_meta(REFILLED, "now")
    assert unread_sources(store) == [EDGE]
    modify(store, EDGE, lambda obj: with_record(obj, {"applied": {}, "fetched": {"read": "before"}}))
    assert unread_sources(store) == [EDGE]
    settle_refill(store)
    assert store.meta(REFILLED) == "now"
    modify(store, EDGE, lambda obj: with_record(obj, {"fetched": {"read": "now"}}))
    assert unread_sources(store) == []
    settle_refill(store)
    assert store.meta(REFILLED) == ""
