"""Short retries of one connection, and the arithmetic of long ones.

`core` retries connections only (at most 3 tries, at most 10 s in all); everything longer is the work queue's business,
so that retries never multiply.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeVar

from core.clock import Clock
from core.errors import TimedOut, Unavailable

T = TypeVar("T")

SECONDS: Final = 10.0
"""How long tries may follow one another without progress."""
WORTH: Final = 256 << 10
"""Bytes that count as progress: a byte a connection is none."""


def _none() -> int:
    return 0


def connecting(clock: Clock, call: Callable[[], T], *, tries: int = 3, progress: Callable[[], int] = _none) -> T:
    """Call `call`; when the other side is unavailable or too slow try again, up to `tries` times within 10 s.

    A try that took `progress()` (bytes here so far) `WORTH` or more further counts as a first one, so that a link which
    breaks off over and over is used to the end. Raises the last error as it was.
    """
    from tenacity import Retrying, retry_if_exception

    burst = _Burst(clock, tries, progress)
    retrying = Retrying(sleep=clock.sleep, wait=burst.pause, retry=retry_if_exception(burst.worth_it), reraise=True)
    return retrying(call)


class _Burst:
    """The tries since the last one that brought something."""

    def __init__(self, clock: Clock, tries: int, progress: Callable[[], int]) -> None:
        self._clock = clock
        self._tries = tries
        self._progress = progress
        self._best = progress()
        self._failures = 0
        self._since = clock.monotonic()

    def worth_it(self, error: BaseException) -> bool:
        """Whether another try may follow this one."""
        if not isinstance(error, Unavailable | TimedOut) or error.seconds:
            return False
        if self._progress() >= self._best + WORTH:
            self._best, self._failures, self._since = self._progress(), 0, self._clock.monotonic()
        self._failures += 1
        return self._failures < self._tries and self._clock.monotonic() - self._since < SECONDS

    def pause(self, _: object) -> float:
        """Seconds until the next try."""
        return min(3.0, 0.2 * 2.0 ** (self._failures - 1)) + 0.2 * random.random()


def delay(failures: int, *, first: float = 1.0, most: float = 300.0, jitter: float = 0.0) -> float:
    """Seconds to wait after `failures` failures in a row: doubling from `first` to `most`, spread by `jitter`.

    `jitter` is a number in [0, 1) that the caller draws; the result is within 5 % of the exact one, at most `most`:
    with more, there could be over twenty tries in the first hour.
    """
    exact = min(most, first * 2.0 ** min(max(failures - 1, 0), 40))
    return min(most, exact * (0.95 + 0.1 * jitter))
