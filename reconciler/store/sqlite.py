"""The store on SQLite: one file in WAL mode that every process of the node may open.

Rules of this file: who commits while another thread syncs is carried along by the next sync, in one transaction; a
status lies apart from its object and never moves the object's version; no transaction is open while anything waits.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core import telemetry
from core.clock import Clock, SystemClock
from core.errors import AgentError, Failed
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store import sqlite_tables as tables
from reconciler.store.buffer import Buffer, Told
from reconciler.store.encoding import Row, decode, decode_all, encode_json, in_order
from reconciler.store.port import Change, Event, StoreCorrupt, TooOld, Write
from reconciler.store.sqlite_connections import Connections, make_store

FLUSH_SECONDS: Final = 0.25
POLL_SECONDS: Final = 0.05
_RESTED: Final = "rested"


def open_store(path: Path, *, create: bool, clock: Clock | None = None, upgrade: bool = True) -> SqliteStore | None:
    """The store at `path`; where there is none: a new one, or None unless `create` (looking makes nothing).

    The file is 0600 in a 0700 folder. One of an older format is brought up to ours if `upgrade`, which is for who may
    write alone. Raises `StoreCorrupt`, `StoreTooNew`, `StoreTooOld`, `OSError` and what `commit` raises.
    """
    if not path.exists():
        if path.with_name(f"{path.name}-wal").exists():  # SQLite would play it into whatever gets the name
            raise StoreCorrupt(f"{path} is gone and its log is still there")
        if not create:
            return None
        make_store(path)
    return SqliteStore(path, clock, upgrade=upgrade)


class _Job:
    """One commit that waits for its turn, and what became of it."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.results: Sequence[Object] = ()
        self.error: Exception | None = Failed("the commit did not come to its end")
        self.done = False


class _Shared:
    """What the threads of this process share, guarded by `lock`: the store's one lock."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.buffer = Buffer()
        self.jobs: list[_Job] = []
        self.writing = False
        self.closed = False
        self.flusher: threading.Thread | None = None


class SqliteStore:
    """The ObjectStore on the file at `path`, which is there. `kept_removals`: see `sqlite_tables.forget_removals`."""

    def __init__(
        self, path: Path, clock: Clock | None = None, *, kept_removals: int = 10_000, upgrade: bool = True
    ) -> None:
        self._clock = clock or SystemClock()
        self._kept_removals = kept_removals
        self._shared = _Shared()
        self._connections = Connections(path)
        self._connections.open(upgrade=upgrade)

    # Reading. What waits in the buffer is looked up first: what left it since then is in the file.

    def get(self, key: Key) -> Object | None:
        """The object with its newest status; None when there is none."""
        waiting = self._statuses()
        with self._connections.reading() as connection:
            row = tables.one(connection, key)
        return None if row is None else decode(_fresh(row, waiting))

    def list(self, kind: Kind | None = None) -> Sequence[Object]:
        """All objects, or those of one kind, in order."""
        waiting = self._statuses()
        with self._connections.reading() as connection:
            rows = tables.all_of(connection, kind)
        return decode_all([_fresh(row, waiting) for row in in_order(rows)])

    def owned(self, owner: Key) -> Sequence[Object]:
        """The objects that have `owner` among their owners, in order."""
        waiting = self._statuses()
        with self._connections.reading() as connection:
            rows = tables.owned(connection, owner)
        return decode_all([_fresh(row, waiting) for row in in_order(rows)])

    def _statuses(self) -> Mapping[str, Told]:
        with self._shared.lock:
            return dict(self._shared.buffer.statuses)

    # Writing.

    def commit(self, writes: Sequence[Write]) -> Sequence[Object]:
        """All writes or none, durable. Raises `WriteConflict` and the rest that the port names."""
        job, waiting, began = _Job(writes), self._statuses(), self._clock.monotonic()
        with self._shared.lock:
            self._shared.jobs.append(job)
        with self._turn():
            if not job.done:
                self._commit_waiting()
        telemetry.measure("reconciler.store.commit.duration", self._clock.monotonic() - began)
        if job.error is not None:
            raise job.error
        return [_with_newest(obj, waiting) for obj in job.results]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the one thread that writes."""
        lock = self._shared.lock
        with lock:
            lock.wait_for(lambda: not self._shared.writing)
            self._shared.writing = True
        try:
            yield
        finally:
            with lock:
                self._shared.writing = False
                lock.notify_all()

    def _commit_waiting(self) -> None:
        with self._shared.lock:
            jobs, self._shared.jobs = self._shared.jobs, []
        try:
            with self._connections.writing(durable=True) as connection:
                refused = self._carry_out(connection, jobs)
                tables.forget_removals(connection, self._kept_removals)
            for job, error in zip(jobs, refused, strict=True):
                job.error = error
        except AgentError as error:
            for job in jobs:
                job.error = error
        finally:
            for job in jobs:
                job.done = True

    def _carry_out(self, connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Exception | None]:
        """Write each job, or say why it is refused: alone, as nothing of it was written by then."""
        now = self._clock.wall()
        refused: list[Exception | None] = []
        for job in jobs:
            try:
                steps = tables.plan(connection, job.writes, now)
            except (AgentError, ValueError, TypeError) as error:
                refused.append(error)
                continue
            tables.carry_out(connection, steps)
            job.results = [step.after for step in steps if step.after is not None]
            refused.append(None)
        return refused

    def set_status(self, key: Key, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of the object with that uid; a no-op when it is gone or unchanged. Buffered."""
        text = encode_json(status)
        with self._shared.lock:
            self._shared.buffer.put_status(key, uid, text)
            self._wake_flusher()

    def add_event(self, event: Event) -> None:
        """Tell something; buffered, equal ones counted."""
        with self._shared.lock:
            self._shared.buffer.add_event(event)
            self._wake_flusher()

    def events(self, since: int = 0) -> Sequence[Event]:
        """The events with an id over `since`, oldest first."""
        self.flush()
        with self._connections.reading() as connection:
            return tables.events(connection, since)

    def flush(self, *, rest: bool = False) -> None:
        """Write what is buffered, without a sync of its own; with `rest`, that nothing is left to do after it."""
        shared = self._shared
        if not shared.buffer:
            return
        with self._turn():
            with shared.lock:
                batch = shared.buffer.waiting()
            with self._connections.writing(durable=False) as connection:
                tables.write_statuses(connection, batch.statuses)
                tables.write_events(connection, batch.events.values())
                if rest:
                    tables.set_meta(connection, _RESTED, str(tables.version(connection)))
            with shared.lock:
                shared.buffer.written(batch)

    def rested(self) -> int:
        """The version at which the engine last had nothing left to do; 0 when that was never said."""
        return int(self.meta(_RESTED) or 0)

    def _wake_flusher(self) -> None:
        shared = self._shared
        if shared.flusher is None:
            shared.flusher = threading.Thread(target=self._flush_forever, name="store-flush", daemon=True)
            shared.flusher.start()
        shared.lock.notify_all()

    def _flush_forever(self) -> None:
        shared = self._shared
        while not shared.closed:
            with shared.lock:
                shared.lock.wait_for(lambda: bool(shared.buffer) or shared.closed)
                shared.lock.wait_for(lambda: shared.closed, FLUSH_SECONDS)
            # A full or failing disk: all stays in the buffer for the next round, and commits tell who waits for them.
            with suppress(AgentError):
                self.flush()

    # Watching.

    def version(self) -> int:
        """The newest version."""
        with self._connections.reading() as connection:
            return tables.version(connection)

    def changes(self, since: int) -> Sequence[Change]:
        """What happened after version `since`, one entry a key; raises `TooOld`."""
        with self._connections.reading() as connection:
            found = tables.changes(connection, since)
            # Read after the changes: what is forgotten meanwhile raises once too often, never once too little.
            floor, newest = tables.floor(connection), tables.version(connection)
        if not floor <= since <= newest:
            raise TooOld(f"changes since version {since} are not known")
        return found

    def wait(self, since: int, seconds: float) -> bool:
        """Wait up to `seconds` until the version is not `since`; True when so."""
        lock, until = self._shared.lock, self._clock.monotonic() + seconds
        while self.version() == since:
            left = until - self._clock.monotonic()
            if left <= 0:
                return False
            with lock:
                lock.wait(min(left, POLL_SECONDS))
        return True

    # Words beside the objects, and the end.

    def meta(self, name: str) -> str | None:
        """A word kept beside the objects; None when it was never set."""
        with self._connections.reading() as connection:
            return tables.meta(connection, name)

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word, durably."""
        with self._turn(), self._connections.writing(durable=True) as connection:
            tables.set_meta(connection, name, value)

    def metas(self, prefix: str) -> Mapping[str, str]:
        """The words whose names begin with `prefix`."""
        with self._connections.reading() as connection:
            return tables.metas(connection, prefix)

    def drop_meta(self, name: str) -> None:
        """Keep a word no longer, durably."""
        with self._turn(), self._connections.writing(durable=True) as connection:
            tables.drop_meta(connection, name)

    def check(self) -> None:
        """Read the file's whole structure; raises `StoreCorrupt`. For the engine's start: `get` need not pay it."""
        self._connections.check()

    def close(self) -> None:
        """Flush, end the flusher, let go of all connections."""
        shared = self._shared
        with shared.lock:
            if shared.closed:
                return
            shared.closed = True
            shared.lock.notify_all()
        if shared.flusher is not None:
            shared.flusher.join()
        try:
            self.flush()
        finally:
            self._connections.close()


def _fresh(row: Row, waiting: Mapping[str, Told]) -> Row:
    """`row` with the status that waits to be written, where one does."""
    told = waiting.get(row[2])
    return row if told is None else (*row[:6], told[1])


def _with_newest(obj: Object, waiting: Mapping[str, Told]) -> Object:
    told = waiting.get(obj.uid)
    return obj if told is None else replace(obj, status=json.loads(told[1]))
