"""What is remembered of a key between two looks at it: how often it failed, and what was performed for nothing.

Rules of this file: nothing here is durable or locked. The queue gives a key to one worker at a time, and nobody else
writes what is kept for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from core.clock import Clock
from core.retrying import delay
from core.values import dataclass
from reconciler.model.identity import Key

FIRST: Final = 1.0
"""Seconds after a first failure."""
MOST: Final = 300.0
"""Seconds after many: with the spread at most 20 tries in the first hour, 13 in each later one."""
WINDOW: Final = 60.0
TIMES: Final = 3
_REMEMBERED: Final = 32


@dataclass(frozen=True, slots=True)
class _Failures:
    count: int
    due: float
    at: float


class Backoff:
    """Failures in a row by key, and when each key may be tried again. `draw` gives numbers in [0, 1)."""

    def __init__(self, clock: Clock, draw: Callable[[], float]) -> None:
        self._clock = clock
        self._draw = draw
        self._failed: dict[Key, _Failures] = {}

    def failed(self, key: Key) -> float:
        """Count one more failure; returns the seconds after which `key` should be tried again."""
        count = self.failures(key) + 1
        seconds = delay(count, first=FIRST, most=MOST, jitter=self._draw())
        self._failed[key] = _Failures(count, self._clock.monotonic() + seconds, self._clock.wall() + seconds)
        return seconds

    def succeeded(self, key: Key) -> None:
        """Forget the failures of `key`: it went well, or its object is gone or was changed."""
        self._failed.pop(key, None)

    def failures(self, key: Key) -> int:
        """How often `key` failed in a row."""
        seen = self._failed.get(key)
        return 0 if seen is None else seen.count

    def remaining(self, key: Key) -> float:
        """Seconds until `key` may be tried again; 0 when it may. For who is woken before that by something else."""
        seen = self._failed.get(key)
        return 0.0 if seen is None else max(0.0, seen.due - self._clock.monotonic())

    def next_retry_at(self, key: Key) -> float | None:
        """When `key` is tried again, in seconds since 1970 (`nextRetryAt` in status); None when it did not fail."""
        seen = self._failed.get(key)
        return None if seen is None else seen.at


class Convergence:
    """Notices that the same plan from equal facts is performed over and over (ARCHITECTURE rule 3). Pure.

    A *step* is a hash over facts and plan; facts hold the attempt number and the exit count, so that a crash loop under
    its restart policy is progress. A step that is stuck stays so until other facts give another step, or `settled`.
    """

    def __init__(self) -> None:
        self._done: dict[Key, deque[tuple[float, Hashable]]] = {}
        self._stuck: dict[Key, set[Hashable]] = {}

    def performed(self, key: Key, step: Hashable, now: float) -> None:
        """`step` was performed for `key` at `now` (monotonic seconds)."""
        done = self._done.setdefault(key, deque(maxlen=_REMEMBERED))
        done.append((now, step))
        if sum(1 for at, what in done if what == step and now - at <= WINDOW) >= TIMES:
            self._stuck.setdefault(key, set()).add(step)

    def stuck(self, key: Key, step: Hashable) -> bool:
        """Whether performing `step` once more is pointless: the key is Blocked, not converging."""
        return step in self._stuck.get(key, ())

    def settled(self, key: Key) -> None:
        """Forget all about `key`: it converged, is gone, or has a new spec."""
        self._done.pop(key, None)
        self._stuck.pop(key, None)
