"""The file itself: formats, damage, faults of the disk, forks."""

import os
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from core.errors import AgentError, Busy, Failed, NoSpace
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import Put, StoreCorrupt, StoreTooNew, StoreTooOld
from reconciler.store.sqlite import SqliteStore, open_store
from reconciler.store.sqlite_connections import in_our_words, make_store
from reconciler.store.sqlite_schema import FORMAT, STEPS, migrate, row_sum

WEB = Key(Kind.CONTAINER, "web")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "store.db"
    make_store(made)
    return made


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def sum_again(path: Path) -> None:
    """As if the program itself had written what the rows say now."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function("row_sum", 6, row_sum)
        connection.execute("UPDATE object SET sum = row_sum(kind, name, uid, version, generation, body)")


def number_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` says yes in a forked process."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Formats.


def test_a_store_of_a_newer_program_is_refused_and_left_alone(path: Path) -> None:
    newer = max(STEPS) + 1
    sql(path, f"PRAGMA user_version = {newer}", f"UPDATE meta SET value = '{newer}' WHERE name = '{FORMAT}'")
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match=f"of format {max(STEPS) + 1}, this version knows up to {max(STEPS)}"):
        open_store(path, create=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("said", [max(STEPS) + 1, 1 << 24])
def test_a_format_that_is_said_only_once_is_damage_and_not_the_future(path: Path, said: int) -> None:
    sql(path, f"PRAGMA user_version = {said}")
    with pytest.raises(StoreCorrupt, match="and elsewhere that it is not"):
        open_store(path, create=False)


def test_rows_of_the_first_format_get_their_sums(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, {1: STEPS[1]})
        connection.execute("INSERT INTO object VALUES ('Image', 'a', 'u', 1, 1, '{\"spec\":{\"ref\":\"x\"}}')")
        connection.execute("INSERT INTO change VALUES (1, 'Image', 'a', 0)")
    store = SqliteStore(path)
    assert [obj.spec for obj in store.list()] == [{"ref": "x"}]
    store.close()


def test_one_other_letter_in_a_row_is_damage(path: Path, store: SqliteStore) -> None:
    store.commit([Put(Object(WEB, spec={"image": "busybox"}), 0)])
    sql(path, "UPDATE object SET body = replace(body, 'busybox', 'busybux')")
    for read in (store.list, lambda: store.get(WEB), lambda: store.list(Kind.CONTAINER)):
        with pytest.raises(StoreCorrupt, match=r"container/web is damaged: its checksum"):
            read()


def test_an_older_store_is_brought_up_with_what_it_holds(path: Path, store: SqliteStore) -> None:
    store.commit([Put(Object(WEB), 0)])
    newer = {**STEPS, max(STEPS) + 1: ("CREATE TABLE more (word TEXT)",)}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, newer)
        assert connection.execute("SELECT * FROM more").fetchall() == []
        assert connection.execute("SELECT name FROM object").fetchall() == [("web",)]
    assert number_of(path) == max(newer)


def test_a_step_that_fails_leaves_the_store_as_it_was(path: Path) -> None:
    broken: Mapping[int, Sequence[str]] = {**STEPS, max(STEPS) + 1: ("CREATE TABLE more (word TEXT)", "NONSENSE")}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, broken)
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE name = 'more'").fetchall()
    assert tables == []
    assert number_of(path) == max(STEPS)


def test_migrating_what_is_current_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection)
    assert number_of(path) == max(STEPS)
    assert len(path.read_bytes()) == len(before)


def test_the_steps_are_numbered_without_gaps() -> None:
    assert list(STEPS) == list(range(1, len(STEPS) + 1))


def test_a_kind_of_a_newer_program_is_not_hidden(path: Path, store: SqliteStore) -> None:
    store.commit([Put(Object(WEB), 0)])
    sql(path, "UPDATE object SET kind = 'Rollout'")
    sum_again(path)
    with pytest.raises(StoreTooNew, match="Rollout/web"):
        store.list()


def test_making_a_store_leaves_one_that_is_there(path: Path, store: SqliteStore) -> None:
    made = store.commit([Put(Object(WEB), 0)])
    make_store(path)
    assert store.list() == made
    assert not [name for name in os.listdir(path.parent) if name.startswith(".")]


# Damage.


@pytest.mark.parametrize("content", [b"", b"\0" * 8192, b"not a database, by no means" * 400])
def test_a_file_that_is_no_store_is_said_to_be_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        open_store(path, create=True)
    assert path.read_bytes() == content


def test_another_programs_file_is_said_to_be_none_of_ours(path: Path) -> None:
    sql(path, "PRAGMA application_id = 7")
    with pytest.raises(StoreCorrupt, match="another program's file"):
        open_store(path, create=False)


def test_damage_inside_is_found_by_the_check(path: Path) -> None:
    store = SqliteStore(path)
    store.commit([Put(Object(Key(Kind.IMAGE, f"i{n}"), spec={"pad": "x" * 900}), 0) for n in range(200)])
    store.close()
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for page in range(3, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)
    store = SqliteStore(path)
    with pytest.raises(StoreCorrupt):
        store.check()
    store.close()


@pytest.mark.parametrize("body", ["{", "[]", '{"owners": 3}', '{"owners": [["No", "x"]]}', "{}],[{}"])
def test_a_row_that_cannot_be_read_is_named(path: Path, store: SqliteStore, body: str) -> None:
    store.commit([Put(Object(Key(Kind.IMAGE, "a")), 0), Put(Object(WEB), 0)])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE object SET body = ? WHERE name = 'web'", (body,))
    sum_again(path)
    for read in (store.list, lambda: store.get(WEB)):
        with pytest.raises(StoreCorrupt, match="container/web"):
            read()


# Faults of the disk and of others.


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Writes past `size` bytes fail in this process, as a failing disk would have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_is_no_acknowledgement_and_the_store_goes_on_afterwards(
    path: Path, store: SqliteStore
) -> None:
    kept = store.commit([Put(Object(WEB), 0)])[0]
    store.set_status(WEB, kept.uid, {"n": 1})
    with files_limited_to(path.with_name("store.db-wal").stat().st_size + 1000):
        with pytest.raises(Failed):
            store.commit([Put(Object(Key(Kind.IMAGE, "lost")), 0)])
        with pytest.raises(AgentError):
            store.flush()
    assert [obj.name for obj in store.list()] == ["web"]
    store.commit([Put(Object(Key(Kind.IMAGE, "later")), 0)])
    assert [obj.name for obj in store.list()] == ["later", "web"]
    store.flush()
    found = store.get(WEB)
    assert found is not None
    assert found.status == {"n": 1}
    store.check()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_FULL, NoSpace),
        (sqlite3.SQLITE_READONLY, NoSpace),
        (sqlite3.SQLITE_BUSY, Busy),
        (sqlite3.SQLITE_BUSY_RECOVERY, Busy),
        (sqlite3.SQLITE_IOERR_FSYNC, Failed),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_ERROR, Failed),
    ],
)
def test_each_error_of_sqlite_says_what_to_do(code: int, error: type[AgentError]) -> None:
    raised = sqlite3.OperationalError("words")
    raised.sqlite_errorcode = code
    assert type(in_our_words(raised)) is error


def test_a_refused_commit_does_not_harm_the_next(store: SqliteStore) -> None:
    with pytest.raises(TypeError):
        store.commit([Put(Object(WEB, spec={"x": object()}), 0)])
    assert len(store.commit([Put(Object(WEB), 0)])) == 1


def test_a_fork_may_not_use_its_parents_store_and_does_it_no_harm(store: SqliteStore) -> None:
    store.commit([Put(Object(WEB), 0)])

    def refused() -> bool:
        try:
            store.get(WEB)
        except Failed:
            return True
        return False

    assert in_child(refused)
    assert len(store.list()) == 1


def test_closing_twice_is_harmless_and_use_after_it_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(Failed):
        store.list()


def test_closing_writes_what_was_told(path: Path) -> None:
    store = SqliteStore(path)
    made = store.commit([Put(Object(WEB), 0)])[0]
    store.set_status(WEB, made.uid, {"n": 1})
    store.close()
    again = SqliteStore(path)
    found = again.get(WEB)
    again.close()
    assert found is not None
    assert found.status == {"n": 1}


def test_an_older_store_is_left_alone_by_who_may_not_write_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, {1: STEPS[1]})
    before = path.read_bytes()
    with pytest.raises(StoreTooOld):
        open_store(path, create=False, upgrade=False)
    connection.close()
    assert path.read_bytes() == before
    store = open_store(path, create=False)
    assert store is not None
    store.close()
    again = open_store(path, create=False, upgrade=False)
    assert again is not None
    again.close()
