"""A store without a file: for tests and for trying things out. It keeps the same promises, except to survive."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.clock import Clock, SystemClock
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.buffer import KEPT_EVENTS, Same, counted, printable, same_as
from reconciler.store.encoding import encode_json
from reconciler.store.port import Change, Event, TooOld, Write
from reconciler.store.writing import Step, key_of, plan


class MemoryStore:
    """Objects in a dict; nothing is buffered. `kept_removals`: how many removals the change log remembers."""

    def __init__(self, clock: Clock | None = None, *, kept_removals: int = 10_000) -> None:
        self._clock = clock or SystemClock()
        self._kept_removals = kept_removals
        self._lock = threading.Condition()
        self._objects: dict[Key, Object] = {}
        self._changes: dict[Key, Change] = {}
        self._events: dict[Same, Event] = {}
        self._meta: dict[str, str] = {}
        self._version = 0
        self._floor = 0
        self._event_id = 0
        self._rested = 0

    def get(self, key: Key) -> Object | None:
        """The object; None when there is none."""
        return self._objects.get(key)

    def list(self, kind: Kind | None = None) -> Sequence[Object]:
        """All objects, or those of one kind, in order."""
        return self._ordered([obj for obj in self._snapshot() if kind in (None, obj.kind)])

    def owned(self, owner: Key) -> Sequence[Object]:
        """The objects that have `owner` among their owners, in order."""
        return self._ordered([obj for obj in self._snapshot() if owner in obj.owners])

    def _snapshot(self) -> Sequence[Object]:
        with self._lock:
            return [*self._objects.values()]

    @staticmethod
    def _ordered(objects: Sequence[Object]) -> Sequence[Object]:
        ranks = {kind: rank for rank, kind in enumerate(Kind)}
        return sorted(objects, key=lambda obj: (ranks[obj.kind], obj.name))

    def commit(self, writes: Sequence[Write]) -> Sequence[Object]:
        """All writes or none. Raises `WriteConflict`, `ValueError`, `TypeError`."""
        with self._lock:
            current = [self._objects.get(key_of(write)) for write in writes]
            steps = plan(writes, current, version=self._version, now=self._clock.wall())
            for step in steps:
                if step.changed:
                    self._keep(step)
            self._forget_removals()
            self._lock.notify_all()
        return [step.after for step in steps if step.after is not None]

    def _keep(self, step: Step) -> None:
        if step.after is None:
            del self._objects[step.key]
        else:
            self._objects[step.key] = step.after
        self._note(step.key, gone=step.after is None)

    def _note(self, key: Key, *, gone: bool = False) -> None:
        self._version += 1
        self._changes.pop(key, None)
        self._changes[key] = Change(self._version, key, gone)

    def _forget_removals(self) -> None:
        removals = [change for change in self._changes.values() if change.gone]
        for change in removals[: max(0, len(removals) - self._kept_removals)]:
            del self._changes[change.key]
            self._floor = change.version

    def set_status(self, key: Key, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of the object with that uid; a no-op when it is gone or unchanged."""
        plain = json.loads(encode_json(status))
        with self._lock:
            found = self._objects.get(key)
            if found is None or found.uid != uid or found.status == plain:
                return
            self._objects[key] = replace(found, status=plain)
            self._note(key)
            self._lock.notify_all()

    def add_event(self, event: Event) -> None:
        """Tell something; equal ones are counted, the oldest go."""
        clean = printable(event)
        with self._lock:
            self._event_id += 1
            same = same_as(clean)
            self._events[same] = counted(self._events.pop(same, None), replace(clean, id=self._event_id))
            if len(self._events) > KEPT_EVENTS:
                del self._events[next(iter(self._events))]

    def events(self, since: int = 0) -> Sequence[Event]:
        """The events with an id over `since`, oldest first."""
        with self._lock:
            return [event for event in self._events.values() if event.id > since]

    def flush(self, *, rest: bool = False) -> None:
        """Nothing waits."""
        if rest:
            self._rested = self._version

    def rested(self) -> int:
        """The version at which the engine last had nothing left to do."""
        return self._rested

    def version(self) -> int:
        """The newest version."""
        return self._version

    def changes(self, since: int) -> Sequence[Change]:
        """What happened after version `since`, one entry a key; raises `TooOld`."""
        with self._lock:
            if not self._floor <= since <= self._version:
                raise TooOld(f"changes since version {since} are not known")
            return [change for change in self._changes.values() if change.version > since]

    def wait(self, since: int, seconds: float) -> bool:
        """Wait up to `seconds` until the version is not `since`; True when so."""
        with self._lock:
            return self._lock.wait_for(lambda: self._version != since, seconds)

    def meta(self, name: str) -> str | None:
        """A word kept beside the objects."""
        return self._meta.get(name)

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word."""
        self._meta[name] = value

    def metas(self, prefix: str) -> Mapping[str, str]:
        """The words whose names begin with `prefix`."""
        return {name: self._meta[name] for name in sorted(self._meta) if name.startswith(prefix)}

    def drop_meta(self, name: str) -> None:
        """Keep a word no longer."""
        self._meta.pop(name, None)

    def close(self) -> None:
        """Nothing to let go of."""
