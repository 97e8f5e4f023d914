"""Short retries of one connection, and the arithmetic of long ones.

`core` retries connections only (at most 3 tries, at most 10 s in all); everything longer is the work queue's business,
so that retries never multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from core.clock import Clock
from core.errors import TimedOut, Unavailable

T = TypeVar("T")


def connecting(clock: Clock, call: Callable[[], T], *, tries: int = 3) -> T:
    """Call `call`; when the other side is unavailable or too slow try again, up to `tries` times within 10 s.

    Raises the last error as it was.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

    started = clock.monotonic()

    def worth_it(error: BaseException) -> bool:
        return isinstance(error, Unavailable | TimedOut) and clock.monotonic() - started < 10.0

    retrying = Retrying(
        sleep=clock.sleep,
        stop=stop_after_attempt(tries),
        wait=wait_exponential(multiplier=0.2, max=3.0) + wait_random(0.0, 0.2),
        retry=retry_if_exception(worth_it),
        reraise=True,
    )
    return retrying(call)


def delay(failures: int, *, first: float = 1.0, most: float = 300.0, jitter: float = 0.0) -> float:
    """Seconds to wait after `failures` failures in a row: doubling from `first` to `most`, spread by `jitter`.

    `jitter` is a number in [0, 1) that the caller draws; the result is within 20 % of the exact one, at most `most`.
    """
    exact = min(most, first * 2.0 ** min(max(failures - 1, 0), 40))
    return min(most, exact * (0.8 + 0.4 * jitter))
