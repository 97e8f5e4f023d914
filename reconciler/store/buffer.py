"""What was told but not yet written: the newest status of each object, and events, equal ones counted.

Rules of this file: no lock of its own, its store's one lock guards it; nothing is taken out before it is written, so
that a write that failed is only a write that comes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from reconciler.model.identity import Key
from reconciler.store.port import Event

KEPT_EVENTS: Final = 1000

Told = tuple[Key, str]
"""The key of the object, and its status as JSON text."""

Same = tuple[Key, str, str]
"""What makes two events the same: key, reason, message."""


class Batch(NamedTuple):
    """What was waiting at one moment, in the order told."""

    statuses: Mapping[str, Told]
    events: Mapping[Same, Event]


class Buffer:
    """Statuses by uid (another object of the same key is another one), and events."""

    def __init__(self) -> None:
        self.statuses: dict[str, Told] = {}
        self._events: dict[Same, Event] = {}

    def __bool__(self) -> bool:
        return bool(self.statuses or self._events)

    def put_status(self, key: Key, uid: str, status: str) -> None:
        """Keep `status` as the newest of that object."""
        self.statuses.pop(uid, None)
        self.statuses[uid] = (key, status)

    def add_event(self, event: Event) -> None:
        """Keep `event`, or count it where the same one waits; the oldest goes when there are too many."""
        clean = printable(event)
        same = same_as(clean)
        self._events[same] = counted(self._events.pop(same, None), clean)
        while len(self._events) > KEPT_EVENTS:
            del self._events[next(iter(self._events))]

    def waiting(self) -> Batch:
        """What is to be written now; it stays here until `written`."""
        return Batch(dict(self.statuses), dict(self._events))

    def written(self, batch: Batch) -> None:
        """Forget what `batch` holds, except what was told anew since."""
        for uid, told in batch.statuses.items():
            if self.statuses.get(uid) is told:
                del self.statuses[uid]
        for same, event in batch.events.items():
            now = self._events.get(same)
            if now is event:
                del self._events[same]
            elif now is not None:
                self._events[same] = replace(now, count=now.count - event.count)


def same_as(event: Event) -> Same:
    """What another event must have to be the same."""
    return event.key, event.reason, event.message


def counted(earlier: Event | None, event: Event) -> Event:
    """`event`, with what came before of the same counted in."""
    if earlier is None:
        return event
    return replace(event, first=min(earlier.first, event.first), count=earlier.count + event.count)


def printable(event: Event) -> Event:
    """`event` with text that UTF-8 can write (names of files may hold what it cannot)."""
    reason, message = (text.encode("utf-8", "backslashreplace").decode() for text in (event.reason, event.message))
    return replace(event, reason=reason, message=message)
