"""The statements: each takes a connection, says one thing to it, and gives values back.

Rules of this file: the caller holds the transaction where one is needed; all rows are fetched before a function ends.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store import writing
from reconciler.store.buffer import KEPT_EVENTS
from reconciler.store.encoding import KINDS, Row, decode, encode_json
from reconciler.store.port import Change, Event, StoreCorrupt, Write
from reconciler.store.sqlite_schema import row_sum
from reconciler.store.writing import Step, key_of

_OBJECT: Final = """SELECT object.kind, object.name, object.uid, version, generation, object.body, status.body, sum
                    FROM object LEFT JOIN status ON status.uid = object.uid"""
_BY_KEY: Final = f"{_OBJECT} WHERE object.kind = ? AND object.name = ?"
_OF_KIND: Final = f"{_OBJECT} WHERE object.kind = ? ORDER BY object.name"
_ALL: Final = f"{_OBJECT} ORDER BY object.kind, object.name"
_OWNED: Final = f"""{_OBJECT} JOIN owner ON owner.kind = object.kind AND owner.name = object.name
                    WHERE owner_kind = ? AND owner_name = ? ORDER BY object.kind, object.name"""
_FLOOR: Final = "store.floor"


def one(connection: sqlite3.Connection, key: Key) -> Row | None:
    """The row of `key`."""
    row = connection.execute(_BY_KEY, key).fetchone()
    return None if row is None else _whole(row)


def all_of(connection: sqlite3.Connection, kind: Kind | None) -> list[Row]:
    """The rows of a kind, or all."""
    found = connection.execute(_ALL) if kind is None else connection.execute(_OF_KIND, (kind,))
    return [_whole(row) for row in found.fetchall()]


def owned(connection: sqlite3.Connection, owner: Key) -> list[Row]:
    """The rows of the objects that have `owner` among their owners."""
    return [_whole(row) for row in connection.execute(_OWNED, owner).fetchall()]


def _whole(row: tuple[Any, ...]) -> Row:
    """The row without its sum, which must be that of the rest; raises `StoreCorrupt`."""
    if not is_whole(row):
        key = f"{str(row[0]).lower()}/{row[1]}"
        raise StoreCorrupt(f"the store's row of {key} is damaged: its checksum is not that of its text")
    return row[:7]


def is_whole(row: Sequence[Any]) -> bool:
    """Whether a row of `rows_as_found` is what was written."""
    return bool(row[7] == row_sum(*row[:6]))


def rows_as_found(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Every row of an object, with its status and its sum, one by one, unchecked: a damaged file may end early."""
    yield from connection.execute(_ALL.partition(" ORDER BY ")[0])


def restore(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write whole rows of another store as they are, into an empty one, inside the caller's transaction."""
    for kind, name, uid, version, generation, body, status in rows:
        columns = (kind, name, uid, version, generation, body)
        connection.execute("INSERT INTO object VALUES (?, ?, ?, ?, ?, ?, ?)", (*columns, row_sum(*columns)))
        if status is not None:
            connection.execute("INSERT INTO status VALUES (?, ?)", (uid, status))
        for owner in json.loads(body).get("owners", ()):
            connection.execute("INSERT INTO owner VALUES (?, ?, ?, ?)", (*owner, kind, name))
        connection.execute("INSERT INTO change VALUES (?, ?, ?, 0)", (version, kind, name))


def plan(connection: sqlite3.Connection, writes: Sequence[Write], now: float) -> Sequence[Step]:
    """What `writes` come to inside the caller's transaction; raises as `writing.plan`."""
    rows = [one(connection, key_of(write)) for write in writes]
    current = [None if row is None else decode(row) for row in rows]
    return writing.plan(writes, current, version=version(connection), now=now)


def carry_out(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Write `steps`, as planned in the same transaction."""
    for step in steps:
        if not step.changed:
            continue
        if step.after is None:
            _remove(connection, step)
        else:
            _store(connection, step.before, step.after, step.body)
        _note(connection, step.key, step.version, gone=step.after is None)


def _store(connection: sqlite3.Connection, before: Object | None, after: Object, body: str) -> None:
    columns = (after.kind.value, after.name, after.uid, after.version, after.generation, body)
    connection.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?, ?)", (*columns, row_sum(*columns)))
    if before is None and after.status:
        connection.execute("INSERT INTO status VALUES (?, ?)", (after.uid, encode_json(after.status)))
    if after.owners != (frozenset() if before is None else before.owners):
        connection.execute("DELETE FROM owner WHERE kind = ? AND name = ?", after.key)
        connection.executemany(
            "INSERT INTO owner VALUES (?, ?, ?, ?)", [(*owner, *after.key) for owner in after.owners]
        )


def _remove(connection: sqlite3.Connection, step: Step) -> None:
    connection.execute("DELETE FROM object WHERE kind = ? AND name = ?", step.key)
    connection.execute("DELETE FROM owner WHERE kind = ? AND name = ?", step.key)
    if step.before is not None:
        connection.execute("DELETE FROM status WHERE uid = ?", (step.before.uid,))


def _note(connection: sqlite3.Connection, key: Key, at: int, *, gone: bool = False) -> None:
    connection.execute("INSERT OR REPLACE INTO change VALUES (?, ?, ?, ?)", (at, *key, gone))


def forget_removals(connection: sqlite3.Connection, kept: int) -> None:
    """Drop all but the newest `kept` removals from the change log, and remember up to where it is no longer whole."""
    oldest = connection.execute(
        "SELECT version FROM change WHERE gone ORDER BY version DESC LIMIT 1 OFFSET ?", (kept,)
    ).fetchone()
    if oldest is not None:
        connection.execute("DELETE FROM change WHERE gone AND version <= ?", oldest)
        set_meta(connection, _FLOOR, str(oldest[0]))


def write_statuses(connection: sqlite3.Connection, statuses: Mapping[str, tuple[Key, str]]) -> None:
    """Write the statuses of those uids that are still there, where they differ."""
    at = version(connection)
    for uid, (key, text) in statuses.items():
        row = one(connection, key)
        if row is None or row[2] != uid or json.loads(row[6] or "{}") == json.loads(text):
            continue
        at += 1
        connection.execute("INSERT OR REPLACE INTO status VALUES (?, ?)", (uid, text))
        _note(connection, key, at)


def write_events(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Add events; one that is there already is counted and gets a new id; the oldest go."""
    for event in events:
        same = (*event.key, event.reason, event.message)
        earlier = connection.execute(
            "DELETE FROM event WHERE kind = ? AND name = ? AND reason = ? AND message = ? RETURNING first, count", same
        ).fetchall()
        first, count = earlier[0] if earlier else (event.first, 0)
        times = min(first, event.first), event.last, count + event.count
        connection.execute(
            "INSERT INTO event VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*event.key, event.type, event.reason, event.message, *times, encode_json(event.labels)),
        )
    connection.execute(
        "DELETE FROM event WHERE id <= (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?)", (KEPT_EVENTS,)
    )


def events(connection: sqlite3.Connection, since: int) -> Sequence[Event]:
    """The events with an id over `since`, oldest first."""
    rows = connection.execute("SELECT * FROM event WHERE id > ? ORDER BY id", (since,)).fetchall()
    return [
        Event(id, Key(KINDS[kind], name), type, reason, message, first, last, count, json.loads(labels))
        for id, kind, name, type, reason, message, first, last, count, labels in rows
        if kind in KINDS
    ]


def version(connection: sqlite3.Connection) -> int:
    """The newest version; the newest change is never forgotten."""
    (newest,) = connection.execute("SELECT max(version) FROM change").fetchone()
    return newest or 0


def floor(connection: sqlite3.Connection) -> int:
    """The oldest version since which all changes are known."""
    return int(meta(connection, _FLOOR) or 0)


def changes(connection: sqlite3.Connection, since: int) -> Sequence[Change]:
    """The changes after version `since` that are kept, oldest first."""
    rows = connection.execute("SELECT * FROM change WHERE version > ? ORDER BY version", (since,)).fetchall()
    return [Change(at, Key(KINDS[kind], name), bool(gone)) for at, kind, name, gone in rows if kind in KINDS]


def meta(connection: sqlite3.Connection, name: str) -> str | None:
    """A word; None when it was never set."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a word."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def metas(connection: sqlite3.Connection, prefix: str) -> dict[str, str]:
    """The words whose names begin with `prefix`, in order of names."""
    query = "SELECT name, value FROM meta WHERE substr(name, 1, ?) = ? ORDER BY name"
    return dict(connection.execute(query, (len(prefix), prefix)).fetchall())


def drop_meta(connection: sqlite3.Connection, name: str) -> None:
    """Keep a word no longer."""
    connection.execute("DELETE FROM meta WHERE name = ?", (name,))


def all_owners(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    """The table of owners: kind and name of the owner, kind and name of what is owned."""
    return set(connection.execute("SELECT owner_kind, owner_name, kind, name FROM owner").fetchall())
