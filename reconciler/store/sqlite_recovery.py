"""A damaged store.db: found before it is believed, set aside, and made anew of the rows that are whole.

Rules of this file: only who holds the engine's lock comes here. Nothing is thrown away: the old file and its log lie
beside the new one as `store.db.damaged-<time>`, the newest two. A store of a newer program is no damage. The new file
is made whole before the old one leaves its name; what is lost with it comes back from elsewhere (`refilling`).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from core.clock import Clock
from core.errors import Failed
from core.fsio import fsync_dir
from core.values import dataclass
from reconciler.store import sqlite_tables as tables
from reconciler.store.encoding import Row, decode
from reconciler.store.port import ObjectStore, StoreCorrupt
from reconciler.store.sqlite_connections import Connections, in_our_words, make_store
from reconciler.store.sqlite_schema import is_current

ASIDE: Final = ".damaged-"
KEPT_ASIDE: Final = 2
DAMAGE: Final = "store.damage"
"""The word in a store that was made anew: what was found. Kept until it has been filled again."""
_PARTS: Final = ("", "-wal", "-shm")
"""What SQLite keeps of one database, the file itself first: a log without its file is known to be damage."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What was found, the name of the old file now ("": there was none), how many objects were whole in it, when."""

    found: str
    aside: str
    saved: int
    at: float

    @classmethod
    def of(cls, store: ObjectStore) -> Damage | None:
        """What `mend` wrote into the store that it made; None: this one was not made so, or is filled again."""
        said = store.meta(DAMAGE)
        return cls(**json.loads(said)) if said else None


def mend(path: Path, clock: Clock) -> Damage | None:
    """See that the store at `path` can be believed, and make it anew where not; None: it can, or there is none yet.

    Reads the whole file (milliseconds for each megabyte). Raises `StoreTooNew`, which changes nothing, `Busy`,
    `NoSpace`, `Failed`, `OSError`.
    """
    found = examine(path)
    if found is None:
        return None
    saved = _salvage(path)
    made = path.with_name(f"{path.name}.mending")
    for part in _PARTS:
        made.with_name(made.name + part).unlink(missing_ok=True)
    damage = Damage(found, _name_aside(path, clock) if path.exists() else "", len(saved), clock.wall())
    _fill(made, saved, damage)
    _set_aside(path, damage.aside or _name_aside(path, clock))
    os.rename(made, path)
    fsync_dir(path.parent)
    return damage


def examine(path: Path) -> str | None:
    """What is wrong with the store at `path`, in a sentence; None: nothing, or there is none. Changes nothing of it."""
    if not path.exists():
        log = path.with_name(f"{path.name}-wal")
        return f"{path.name} is gone and its log is still there" if log.exists() else None
    connections = Connections(path)
    try:
        with connections.reading() as connection:
            current = is_current(connection)
        connections.check()
        if not current:
            return None  # a step to the newest format gives its rows their sums
        with connections.reading() as connection:
            connection.text_factory = _as_found
            _check_rows(connection)
            connection.text_factory = str
            _check_rest(connection)
    except StoreCorrupt as error:
        return error.message
    except Failed as error:
        if not _is_nonsense(error.__cause__):
            raise
        return error.message
    finally:
        connections.close()
    return None


def _is_nonsense(cause: BaseException | None) -> bool:
    """Whether SQLite did not understand our statements: the file has other tables than those that we made."""
    code = getattr(cause, "sqlite_errorcode", None)
    return isinstance(cause, sqlite3.Error) and code in (None, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR_SHORT_READ)


def aside(path: Path) -> list[Path]:
    """The damaged stores that were set aside, oldest first."""
    found = (one for one in path.parent.glob(f"{path.name}{ASIDE}*") if not one.name.endswith(_PARTS[1:]))
    return sorted(found)


def _check_rows(connection: sqlite3.Connection) -> None:
    for row in tables.rows_as_found(connection):
        if not tables.is_whole(row):
            raise StoreCorrupt(f"the row of {str(row[0]).lower()}/{row[1]} is not what was written")


def _check_rest(connection: sqlite3.Connection) -> None:
    """What has no sums can be told from the rest, or would only be read wrongly."""
    owners: set[tuple[str, ...]] = set()
    newest = 0
    try:
        for row in tables.rows_as_found(connection):
            obj = decode(row[:7])
            newest = max(newest, obj.version)
            owners |= {(owner.kind.value, owner.name, row[0], row[1]) for owner in obj.owners}
        if tables.all_owners(connection) != owners:
            raise StoreCorrupt("the table of owners is not what the objects say")
        said = tables.version(connection), tables.floor(connection)
        tables.events(connection, 0)
    except (ValueError, TypeError, sqlite3.OperationalError) as error:
        if getattr(error, "sqlite_errorcode", None) is not None:
            raise
        raise StoreCorrupt(f"a row of the store cannot be read: {error}") from error
    if said[0] < newest:
        raise StoreCorrupt(f"the change log ends at {said[0]}, and an object is at version {newest}")


def _salvage(path: Path) -> Sequence[Row]:
    """The rows that are what was written, as far as the file can be read."""
    saved: dict[tuple[str, str], Row] = {}
    versions: set[int] = set()
    if not path.exists():
        return ()
    # What stands behind the damaged place stays unread; a table that cannot be read at all gives nothing.
    with suppress(StoreCorrupt, Failed):
        connections = Connections(path)
        try:
            with connections.reading() as connection:
                connection.text_factory = _as_found
                for found in tables.rows_as_found(connection):
                    row = _whole(found)
                    if row is not None and row[3] not in versions:
                        versions.add(row[3])
                        saved[row[0], row[1]] = row
        finally:
            connections.close()
    return list(saved.values())


def _whole(row: tuple[Any, ...]) -> Row | None:
    """The row, when it is what was written; without its status, which has no sum, when that cannot be read."""
    if not tables.is_whole(row):
        return None
    for status in (row[6], None):
        with suppress(StoreCorrupt, TypeError):
            decode((*row[:6], status))
            return (*row[:6], status)
    return None


def _as_found(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _name_aside(path: Path, clock: Clock) -> str:
    return f"{path.name}{ASIDE}{clock.wall():.0f}"


def _fill(path: Path, rows: Sequence[Row], damage: Damage) -> None:
    make_store(path)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        tables.restore(connection, rows)
        tables.set_meta(connection, DAMAGE, json.dumps(asdict(damage)))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise in_our_words(error) from error
    finally:
        connection.close()


def _set_aside(path: Path, name: str) -> None:
    """Move the file, then its log, out of the way; the newest `KEPT_ASIDE` such files stay."""
    for part in _PARTS:
        old = path.with_name(path.name + part)
        if old.exists():
            os.rename(old, path.with_name(name + part))
    fsync_dir(path.parent)
    for one in aside(path)[:-KEPT_ASIDE]:
        for part in _PARTS:
            one.with_name(one.name + part).unlink(missing_ok=True)
