"""Two queues that look like one: what may take minutes (images on a slow link) never holds up what takes moments."""

from __future__ import annotations

from collections.abc import Collection

from core.clock import Clock
from reconciler.engine.queue import WorkQueue
from reconciler.model.identity import Key, Kind


class Lanes:
    """Sends each key to the queue of its kind: those of `slow_kinds` to `slow`, all others to `quick`."""

    def __init__(self, quick: WorkQueue, slow: WorkQueue, slow_kinds: Collection[Kind], clock: Clock) -> None:
        self.quick = quick
        self.slow = slow
        self._slow_kinds = frozenset(slow_kinds)
        self._clock = clock

    def _lane(self, key: Key) -> WorkQueue:
        return self.slow if key.kind in self._slow_kinds else self.quick

    def add(self, key: Key) -> None:
        """As `WorkQueue.add`."""
        self._lane(key).add(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """As `WorkQueue.add_after`."""
        self._lane(key).add_after(key, seconds)

    def idle(self) -> bool:
        """Whether neither has anything queued or worked on. A key may go from one to the other meanwhile: ask again."""
        return self.quick.idle() and self.slow.idle() and self.quick.idle()

    def wait_idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until `idle`; returns whether it is."""
        deadline = self._clock.monotonic() + timeout
        for lane in (self.quick, self.slow):
            lane.wait_idle(max(0.0, deadline - self._clock.monotonic()))
        return self.idle()
