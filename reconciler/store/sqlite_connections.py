"""Connections to store.db: opened, kept, dropped after a fault; SQLite's errors in our words.

Rules of this file: only SQLite opens the file; a connection serves one thread at a time and no other process than
the one that opened it; after an I/O error nothing is believed that was not written again and synced.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from core.errors import AgentError, Busy, Denied, Failed, NoSpace
from reconciler.store.port import StoreCorrupt, StoreTooOld
from reconciler.store.sqlite_schema import is_current, migrate

BUSY_SECONDS: Final = 10.0

_ERRORS: Final[dict[int, type[AgentError]]] = {
    sqlite3.SQLITE_BUSY: Busy,
    sqlite3.SQLITE_LOCKED: Busy,
    sqlite3.SQLITE_PERM: Denied,
    sqlite3.SQLITE_AUTH: Denied,
    sqlite3.SQLITE_CANTOPEN: Failed,
    sqlite3.SQLITE_READONLY: NoSpace,
    sqlite3.SQLITE_FULL: NoSpace,
    sqlite3.SQLITE_CORRUPT: StoreCorrupt,
    sqlite3.SQLITE_NOTADB: StoreCorrupt,
}


def in_our_words(error: sqlite3.Error, folder: Path | None = None) -> AgentError:
    """The class that says what to do about `error`, met in `folder`: SQLite itself calls a quota that is used up and a
    file system that became read-only an I/O error.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and folder is not None:
        from core.fsio import refusal  # here: who only reads a store starts without it

        if why := refusal(folder):
            return NoSpace(f"the store: {why} ({name})")
    return _ERRORS.get(code & 0xFF, Failed)(f"the store: {error} ({name})")


def make_store(path: Path) -> None:
    """Make an empty store at `path`, which appears whole or not at all; somebody else's that came first is left."""
    from core.fsio import fsync_dir, make_private, staging  # here: who only reads a store starts without it

    make_private(path.parent)
    with staging(path.parent, "store") as work:
        made = work / path.name
        os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection)
            # What is linked is the file alone, without its log. Closing writes that back too, but tells of no fault.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise in_our_words(error, path.parent) from error
        finally:
            connection.close()
        try:
            os.link(made, path)
        except FileExistsError:
            return
        fsync_dir(path.parent)


class Connections:
    """The connections of one process to the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._closed = False
        self._idle: deque[sqlite3.Connection] = deque()
        self._writers: dict[bool, sqlite3.Connection] = {}
        self._distrusted = False

    def open(self, *, upgrade: bool) -> None:
        """See that the file is a store of a format we know. An older one is brought up to ours where `upgrade` says so.

        Raises as `is_current`, and `StoreTooOld`.
        """
        with self.reading() as connection:
            if is_current(connection):
                return
            if not upgrade:
                raise StoreTooOld("the store is of an older version's format")
            migrate(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for reads, of this thread alone while the block lasts."""
        self._guard()
        connection = self._taken()
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise in_our_words(error, self._path.parent) from error
            raise
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def _taken(self) -> sqlite3.Connection:
        with suppress(IndexError):  # none is idle
            return self._idle.pop()
        return self._connect()

    @contextmanager
    def writing(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end of the block (`durable`: fsync-ed), rolled back when it raises.

        One thread at a time: the caller sees to that. An I/O error is never an acknowledgement.
        """
        self._guard()
        try:
            connection = self._writer(durable)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._drop_writers(error)
            raise in_our_words(error, self._path.parent) from error

    def _writer(self, durable: bool) -> sqlite3.Connection:
        if self._distrusted:
            self._write_anew()
        if durable not in self._writers:
            connection = self._connect()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._writers[durable] = connection
        return self._writers[durable]

    def _drop_writers(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CONSTRAINT):
            return
        self._distrusted = self._distrusted or code == sqlite3.SQLITE_IOERR
        for connection in self._writers.values():
            connection.close()
        self._writers.clear()

    def _write_anew(self) -> None:
        """After a failed write or fsync, pages of the log may be clean in memory and missing on disk.

        So all of it goes into the main file, is synced there, and the log begins anew; only then is anything promised.
        """
        connection = self._connect()
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise Busy("the store is recovering from a failed write while another process reads it")
            _check(connection)
        finally:
            connection.close()
        self._distrusted = False

    def check(self) -> None:
        """Read the whole structure; raises `StoreCorrupt`. Milliseconds for each megabyte."""
        with self.reading() as connection:
            _check(connection)

    def close(self) -> None:
        """Close what is idle now, and the rest when it is given back."""
        self._closed = True
        for connection in (*self._idle, *self._writers.values()):
            connection.close()
        self._idle.clear()
        self._writers.clear()

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a store that is not there is not made by looking at it.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        try:
            opened = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            opened.execute("PRAGMA cache_size = -512")
        except sqlite3.Error as error:
            raise in_our_words(error, self._path.parent) from error
        return opened

    def _guard(self) -> None:
        if self._closed or self._pid != os.getpid():
            raise Failed("the store is closed, or was opened by the process that this one was forked from")


def _check(connection: sqlite3.Connection) -> None:
    faults = [fault for (fault,) in connection.execute("PRAGMA quick_check(5)")]
    if faults != ["ok"]:
        raise StoreCorrupt(f"the store is damaged: {'; '.join(faults)}")
