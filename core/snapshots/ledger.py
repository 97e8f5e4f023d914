"""The lineage ledger: which snapshot rests on which, in SQLite, one line each.

Rules of this file: a snapshot exists when its line does; its files lie in a folder named by the line's id, which is
never used twice. Lines of committed snapshots are durable when the call returns (`synchronous=FULL`); those of active
ones and views are void after a reboot and are not waited for (`NORMAL`, which in WAL mode loses a line but never tears
one). A transaction holds statements only: no file is touched and nothing is waited for inside. One connection a
thread, none across fork. Each line has a checksum for `check`: SQLite does not know one letter from another.
"""

from __future__ import annotations

import sqlite3
import threading
from binascii import crc32
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.errors import AgentError, Busy, Corrupt, Failed, NoSpace
from core.fsio import refusal
from core.snapshots.ports import SnapshotExists, SnapshotInfo, SnapshotInUse, SnapshotKind, SnapshotMissing
from core.values import dataclass

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots (id),
    kind TEXT NOT NULL,
    created REAL NOT NULL,
    sum INTEGER
);
CREATE INDEX IF NOT EXISTS by_parent ON snapshots (parent);
CREATE TABLE IF NOT EXISTS numbers (next INTEGER NOT NULL);
INSERT INTO numbers SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM numbers);
"""
_LINEAGE: Final = """
WITH RECURSIVE up (id, parent, depth) AS (
    SELECT id, parent, 0 FROM snapshots WHERE id = ?
    UNION ALL SELECT s.id, s.parent, depth + 1 FROM snapshots s JOIN up ON s.id = up.parent
) SELECT id FROM up WHERE depth > 0 ORDER BY depth
"""
_OFFSPRING: Final = """
WITH RECURSIVE down (id, depth) AS (
    SELECT ?, 0 UNION ALL SELECT s.id, depth + 1 FROM snapshots s JOIN down ON s.parent = down.id
) SELECT s.id, s.key FROM down JOIN snapshots s ON s.id = down.id ORDER BY depth DESC
"""
_COLUMNS: Final = "s.id, s.key, p.key, s.kind, s.created FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"


_SUM: Final = "line_sum(id, key, parent, kind, created)"


@dataclass(frozen=True, slots=True)
class Line:
    """One snapshot and the number that names its folder."""

    id: int
    info: SnapshotInfo


class Ledger:
    """The ledger in the file `path`, made when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        with _telling(self._path):
            connection = self._connection()
            connection.executescript(_SCHEMA)
            if "sum" not in {column[1] for column in connection.execute("PRAGMA table_info(snapshots)")}:
                connection.execute("ALTER TABLE snapshots ADD COLUMN sum INTEGER")
                connection.execute(f"UPDATE snapshots SET sum = {_SUM}")

    def check(self) -> None:
        """Read all of it; raises `Corrupt` for what is not what was written. Milliseconds for each megabyte."""
        with _telling(self._path):
            faults = [fault for (fault,) in self._connection().execute("PRAGMA quick_check(5)")]
            if faults != ["ok"]:
                raise Corrupt(f"the snapshot ledger {self._path}: {'; '.join(faults)}")
            wrong = self._connection().execute(f"SELECT id FROM snapshots WHERE sum IS NOT {_SUM}").fetchall()
            next_ = self._connection().execute("SELECT next FROM numbers").fetchall()
        if wrong:
            raise Corrupt(f"the snapshot ledger {self._path}: line {wrong[0][0]} is not what was written")
        if len(next_) != 1 or not isinstance(next_[0][0], int):
            raise Corrupt(f"the snapshot ledger {self._path}: it does not know its next number")

    def skip_to(self, number: int) -> None:
        """Give no number below `number` from now on: folders have them."""
        with self._writing(durable=False) as connection:
            connection.execute("UPDATE numbers SET next = ? WHERE next < ?", (number, number))

    def close(self) -> None:
        """Close every thread's connection; the ledger is of no use afterwards."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def reserve(self, count: int) -> range:
        """Numbers for `count` new folders."""
        with self._writing(durable=False) as connection:
            (first,) = connection.execute("SELECT next FROM numbers").fetchone()
            connection.execute("UPDATE numbers SET next = ?", (first + count,))
        return range(first, first + count)

    def get(self, key: str) -> Line:
        """The line of `key`; raises `SnapshotMissing`."""
        with _telling(self._path):
            row = self._connection().execute(f"SELECT {_COLUMNS} WHERE s.key = ?", (key,)).fetchone()
        if row is None:
            raise SnapshotMissing(f"there is no snapshot {key}")
        return _line(row)

    def has(self, key: str) -> bool:
        """Whether there is a line of `key`."""
        with _telling(self._path):
            return self._connection().execute("SELECT 1 FROM snapshots WHERE key = ?", (key,)).fetchone() is not None

    def has_number(self, number: int) -> bool:
        """Whether there is a line of that number."""
        with _telling(self._path):
            return self._connection().execute("SELECT 1 FROM snapshots WHERE id = ?", (number,)).fetchone() is not None

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Those of `keys` that are committed snapshots, with their numbers."""
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, id FROM snapshots WHERE kind = 'committed' AND key IN ({marks})"
        with _telling(self._path):
            return dict(self._connection().execute(query, list(keys)).fetchall())

    def lines(self) -> list[Line]:
        """Every line, parents before children."""
        with _telling(self._path):
            rows = self._connection().execute(f"SELECT {_COLUMNS} ORDER BY s.id").fetchall()
        return [_line(row) for row in rows]

    def lineage(self, number: int) -> list[int]:
        """The numbers of the snapshots under `number`, nearest first."""
        with _telling(self._path):
            return [row[0] for row in self._connection().execute(_LINEAGE, (number,))]

    def add(self, number: int, info: SnapshotInfo) -> None:
        """Write a new active or view line; raises `SnapshotExists`, `SnapshotMissing` (no such committed parent)."""
        with self._writing(durable=False) as connection:
            _insert(connection, number, info)

    def add_committed(self, chain: Sequence[tuple[int, SnapshotInfo]]) -> None:
        """Write the lines of several committed snapshots at once, base first, durably; raises as `add`."""
        with self._writing(durable=True) as connection:
            for number, info in chain:
                _insert(connection, number, info)

    def commit(self, name: str, key: str, created: float) -> None:
        """Turn active `key` into committed `name`, durably; raises `SnapshotExists`, `SnapshotMissing`."""
        with self._writing(durable=True) as connection:
            try:
                changed = connection.execute(
                    "UPDATE snapshots SET key = ?, kind = 'committed', created = ? WHERE key = ? AND kind = 'active'",
                    (name, created, key),
                ).rowcount
                connection.execute(f"UPDATE snapshots SET sum = {_SUM} WHERE key = ?", (name,))
            except sqlite3.IntegrityError:
                raise SnapshotExists(f"there is a snapshot {name} already") from None
            if not changed:
                raise SnapshotMissing(f"there is no active snapshot {key}")

    def remove(self, key: str) -> None:
        """Drop a line; raises `SnapshotMissing`, `SnapshotInUse`."""
        line = self.get(key)
        with self._writing(durable=line.info.kind is SnapshotKind.COMMITTED) as connection:
            try:
                connection.execute("DELETE FROM snapshots WHERE id = ?", (line.id,))
            except sqlite3.IntegrityError:
                raise SnapshotInUse(f"snapshot {key} has others on top of it", advice="Remove those first.") from None

    def drop(self, number: int) -> list[str]:
        """Drop a line and all that rest on it, whatever they are; returns their keys."""
        with self._writing(durable=True) as connection:
            rows = connection.execute(_OFFSPRING, (number,)).fetchall()
            connection.executemany("DELETE FROM snapshots WHERE id = ?", [(row[0],) for row in rows])
        return [row[1] for row in rows]

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
            connection.create_function("line_sum", 5, _line_sum, deterministic=True)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        with _telling(self._path):
            connection = self._connection()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _insert(connection: sqlite3.Connection, number: int, info: SnapshotInfo) -> None:
    parent: int | None = None
    if info.parent is not None:
        row = connection.execute(
            "SELECT id FROM snapshots WHERE key = ? AND kind = 'committed'", (info.parent,)
        ).fetchone()
        if row is None:
            raise SnapshotMissing(f"there is no committed snapshot {info.parent}")
        (parent,) = row
    columns = (number, info.key, parent, info.kind.value, float(info.created))
    try:
        connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", (*columns, _line_sum(*columns)))
    except sqlite3.IntegrityError:
        raise SnapshotExists(f"there is a snapshot {info.key} already") from None


def _line_sum(*columns: object) -> int:
    return crc32("\0".join(map(str, columns)).encode("utf-8", "surrogatepass"))


def _line(row: tuple[int, str, str | None, str, float]) -> Line:
    number, key, parent, kind, created = row
    return Line(number, SnapshotInfo(key, parent, SnapshotKind(kind), created))


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        kinds: dict[str, type[AgentError]] = {
            "SQLITE_FULL": NoSpace,
            "SQLITE_READONLY": NoSpace,
            "SQLITE_BUSY": Busy,
            "SQLITE_CORRUPT": Corrupt,
            "SQLITE_NOTADB": Corrupt,
        }
        # Without a code it is Python that cannot read a text.
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        kind = next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), Failed)
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and (why := refusal(path.parent)):
            # SQLite's word for a quota that is used up and for a file system that became read-only, too.
            raise NoSpace(f"the snapshot ledger {path}: {why}") from error
        raise kind(f"the snapshot ledger {path}: {error}") from error
