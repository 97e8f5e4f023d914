"""Keys that are due later, by monotonic time. Pure: time comes in as an argument.

Rules of this file: a key has at most one due time, the earliest asked for. The heap may hold entries that a sooner
time or `drop` made stale; `due` is the truth, and the heap is built anew before the stale ones outnumber the others.
"""

from __future__ import annotations

import heapq
from dataclasses import field
from typing import Final

from core.values import dataclass
from reconciler.model.identity import Key

_SLACK: Final = 64


@dataclass(slots=True)
class Delays:
    """Keys and the monotonic seconds at which each is due."""

    due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, Key]] = field(default_factory=list)
    _count: int = 0

    def put(self, key: Key, at: float) -> None:
        """`key` is due at `at`, or when it was due already if that is earlier."""
        if at < self.due.get(key, float("inf")):
            self.due[key] = at
            self._push(key, at)

    def drop(self, key: Key) -> None:
        """`key` is no longer due; harmless when it is not."""
        self.due.pop(key, None)

    def ripe(self, now: float) -> list[Key]:
        """Take out the keys due by `now`: earliest first, equal times in the order they were put."""
        keys: list[Key] = []
        while (at := self.earliest()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self.due[key]
            keys.append(key)
        return keys

    def earliest(self) -> float | None:
        """When the first key is due; None when there is none."""
        while self._heap and self.due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _push(self, key: Key, at: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 2 * len(self.due) + _SLACK:
            self._heap = [entry for entry in self._heap if self.due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
