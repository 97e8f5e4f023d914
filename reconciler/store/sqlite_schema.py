"""The tables of store.db, and the steps that lead an older file to them.

Rules of this file: step N takes a file from version N-1 to N; a step that was ever released is never edited; all
steps that are due run in one transaction with the new `user_version`, so that a file is at one version or another.
"""

from __future__ import annotations

import sqlite3
from binascii import crc32
from collections.abc import Mapping, Sequence
from typing import Final

from reconciler.store.port import StoreCorrupt, StoreTooNew

APPLICATION_ID: Final = 0x72636E73
"""`rcns`, in the file's header: tells a store from any other SQLite file."""

STEPS: Final[Mapping[int, Sequence[str]]] = {
    1: (
        """CREATE TABLE object (kind TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, version INTEGER NOT NULL,
           generation INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID""",
        "CREATE TABLE status (uid TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE owner (owner_kind TEXT NOT NULL, owner_name TEXT NOT NULL, kind TEXT NOT NULL,
           name TEXT NOT NULL, PRIMARY KEY (owner_kind, owner_name, kind, name)) WITHOUT ROWID""",
        "CREATE INDEX owned ON owner (kind, name)",
        # One row a key, its last: the log is never longer than the objects and the removals it remembers.
        """CREATE TABLE change (version INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL,
           gone INTEGER NOT NULL, UNIQUE (kind, name))""",
        "CREATE INDEX removal ON change (version) WHERE gone",
        """CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL,
           type TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
           count INTEGER NOT NULL, labels TEXT NOT NULL, UNIQUE (kind, name, reason, message))""",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
    2: (
        # SQLite finds a page that is not one; it does not find another letter in a text.
        "ALTER TABLE object ADD COLUMN sum INTEGER NOT NULL DEFAULT 0",
        "UPDATE object SET sum = row_sum(kind, name, uid, version, generation, body)",
    ),
}

FORMAT: Final = "store.format"
"""The word that repeats `user_version`, from format 2 on: one flipped bit must not look like a newer program's file."""
_PLAUSIBLE: Final = 1000
"""A format over this is damage, not the future."""


def row_sum(*columns: object) -> int:
    """CRC-32 over the columns of an object's row: kind, name, uid, version, generation, body."""
    return crc32("\0".join(map(str, columns)).encode("utf-8", "surrogatepass"))


def migrate(connection: sqlite3.Connection, steps: Mapping[int, Sequence[str]] = STEPS) -> None:
    """Bring the file to the newest version, all or nothing. An empty file is version 0."""
    connection.create_function("row_sum", 6, row_sum, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        for step in range(found + 1, max(steps) + 1):
            for statement in steps[step]:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        newest = max(*steps, found)
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FORMAT, str(newest)))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_current(connection: sqlite3.Connection, steps: Mapping[int, Sequence[str]] = STEPS) -> bool:
    """Whether the file needs no migration; raises `StoreCorrupt` for another program's file, `StoreTooNew`."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or found < 1:
        raise StoreCorrupt("store.db is not a store: it is empty, or another program's file")
    if found > max(steps):
        _check_future(connection, found)
        raise StoreTooNew(
            f"the store is of format {found}, this version knows up to {max(steps)}",
            advice="Install the version that wrote it, or a newer one; nothing was changed.",
        )
    return bool(found == max(steps))


def _check_future(connection: sqlite3.Connection, found: int) -> None:
    """Raise `StoreCorrupt` for a format that no newer program wrote: it is beyond reason, or said only once."""
    try:
        said = connection.execute("SELECT value FROM meta WHERE name = ?", (FORMAT,)).fetchone()
    except sqlite3.OperationalError:  # another program's tables: what a far newer version has, we do not know
        said = None
    if found > _PLAUSIBLE or (said is not None and said[0] != str(found)):
        raise StoreCorrupt(f"the store says that it is of format {found}, and elsewhere that it is not")
