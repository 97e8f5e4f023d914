"""A damaged store.db: every damage is found or does no harm, what is whole is kept, nothing is thrown away."""

import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from core.clock import VirtualClock
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import Put, StoreCorrupt, StoreTooNew
from reconciler.store.sqlite import SqliteStore, open_store
from reconciler.store.sqlite_recovery import KEPT_ASIDE, Damage, aside, examine, mend
from reconciler.store.sqlite_schema import FORMAT, STEPS

CLOCK = VirtualClock()
IMAGE = Key(Kind.IMAGE, "base")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "store.db"
    store = open_store(made, create=True, clock=CLOCK)
    assert store is not None
    base = store.commit([Put(Object(IMAGE, spec={"ref": "busybox"}, manager="hand"), 0)])[0]
    spec = {"image": "base", "env": [{"name": "N", "value": "ü" * 40}]}
    keys = [Key(Kind.CONTAINER, f"c{number}") for number in range(60)]
    made_by_hand = [Object(key, spec=spec, manager="hand", owners=frozenset({IMAGE})) for key in keys]
    for half in (made_by_hand[:30], made_by_hand[30:]):
        for obj in store.commit([Put(one, 0) for one in half]):
            store.set_status(obj.key, obj.uid, {"state": "Running"})
        store.flush()
    store.set_status(IMAGE, base.uid, {"ready": True})
    store.flush()
    yield made
    store.close()


def objects(path: Path) -> dict[str, Object]:
    store = SqliteStore(path)
    try:
        return {str(obj.key): obj for obj in store.list()}
    finally:
        store.close()


def copy(path: Path, to: Path) -> Path:
    """The store as a killed agent leaves it: the file and its log."""
    to.mkdir()
    for part in ("", "-wal", "-shm"):
        (to / (path.name + part)).write_bytes(path.with_name(path.name + part).read_bytes())
    return to / path.name


def checkpointed(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def test_a_whole_store_is_left_alone(path: Path) -> None:
    assert mend(path, CLOCK) is None
    assert len(objects(path)) == 61
    assert aside(path) == []


def test_where_there_is_none_there_is_nothing_to_mend(tmp_path: Path) -> None:
    assert mend(tmp_path / "store.db", CLOCK) is None
    assert os.listdir(tmp_path) == []


def test_one_other_letter_costs_one_object_and_the_rest_keeps_all(path: Path) -> None:
    before = objects(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE object SET body = replace(body, 'N', 'M') WHERE name = 'c7'")
    damage = mend(path, CLOCK)
    assert damage is not None
    assert damage.found == "the row of container/c7 is not what was written"
    assert damage.saved == 60
    assert [one.name for one in aside(path)] == [damage.aside]
    del before["container/c7"]
    assert objects(path) == before
    store = SqliteStore(path)
    assert Damage.of(store) == damage
    assert len(store.owned(IMAGE)) == 59
    assert store.version() == max(obj.version for obj in before.values())
    store.close()
    assert mend(path, CLOCK) is None


def test_a_store_of_a_newer_program_is_no_damage(path: Path) -> None:
    newer = max(STEPS) + 1
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (str(newer), FORMAT))
    with pytest.raises(StoreTooNew):
        mend(path, CLOCK)
    assert aside(path) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE owner SET owner_name = 'bass' WHERE name = 'c3'",
        "DELETE FROM owner",
        "UPDATE status SET body = '{' WHERE rowid IN (SELECT 1)",
        "UPDATE meta SET value = 'many' WHERE name = 'store.floor'",
        "DELETE FROM change WHERE version > 40",
        "DELETE FROM change",
    ],
)
def test_what_has_no_sum_is_compared_with_the_objects(path: Path, statement: str) -> None:
    before = objects(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('store.floor', '3')")
        connection.execute(statement.replace(" WHERE rowid IN (SELECT 1)", ""))
    damage = mend(path, CLOCK)
    assert damage is not None
    assert damage.saved == 61
    assert {key: obj.spec for key, obj in objects(path).items()} == {key: obj.spec for key, obj in before.items()}


def test_a_log_without_its_file_is_set_aside_and_never_played_into_another(path: Path, tmp_path: Path) -> None:
    left = copy(path, tmp_path / "left")
    left.unlink()
    with pytest.raises(StoreCorrupt, match="its log is still there"):
        open_store(left, create=True)
    damage = mend(left, CLOCK)
    assert damage is not None
    assert (damage.aside, damage.saved) == ("", 0)
    assert objects(left) == {}
    assert any(name.endswith("-wal") for name in os.listdir(left.parent))


def test_the_newest_two_that_were_set_aside_are_kept(path: Path) -> None:
    for number in range(5):
        CLOCK.advance(10)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE object SET sum = 0 WHERE name = ?", (f"c{number}",))
        assert mend(path, CLOCK) is not None
    assert len(aside(path)) == KEPT_ASIDE
    assert len(objects(path)) == 56


def _zeroed(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes(64) + data[at + 64 :]


def _scrambled(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(len(data))


def _flipped(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


DAMAGES: Sequence[Callable[[bytes, random.Random], bytes]] = (_zeroed, _scrambled, _flipped, _cut)


@pytest.mark.parametrize("log", [False, True], ids=["checkpointed", "with-its-log"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__.strip("_"))
def test_a_damaged_file_never_gives_an_object_that_was_not_written(
    path: Path, tmp_path: Path, damage: Callable[[bytes, random.Random], bytes], log: bool
) -> None:
    before = {key: (obj.spec, obj.manager, obj.version) for key, obj in objects(path).items()}
    draw = random.Random(17)
    for number in range(30):
        one = copy(path, tmp_path / str(number))
        if not log:
            checkpointed(one)
        one.write_bytes(damage(one.read_bytes(), draw))
        found = mend(one, CLOCK)
        after = {key: (obj.spec, obj.manager, obj.version) for key, obj in objects(one).items()}
        assert after.items() <= before.items()
        assert found is not None or after == before
        assert examine(one) is None


def test_a_damaged_log_loses_its_last_commits_and_nothing_else(path: Path, tmp_path: Path) -> None:
    before = {key: (obj.spec, obj.version) for key, obj in objects(path).items()}
    draw = random.Random(18)
    for number in range(40):
        one = copy(path, tmp_path / str(number))
        log = one.with_name(f"{one.name}-wal")
        log.write_bytes(draw.choice(DAMAGES)(log.read_bytes(), draw))
        mend(one, CLOCK)
        after = {key: (obj.spec, obj.version) for key, obj in objects(one).items()}
        assert after.items() <= before.items()
        assert examine(one) is None


def test_a_damaged_index_of_the_log_does_no_harm(path: Path, tmp_path: Path) -> None:
    before = objects(path)
    for number, data in enumerate((b"", random.Random(19).randbytes(32768), b"\0" * 100)):
        one = copy(path, tmp_path / str(number))
        one.with_name(f"{one.name}-shm").write_bytes(data)
        assert mend(one, CLOCK) is None
        assert objects(one) == before
