"""How hosts that fail are treated: asked once a second at most, by a few at once, and not before they want to be.

Rules of this file: a host is known by `host:port`. Until it has answered once, and while it fails, `CROWD` requests may
wait for it at a time, so that one that never answers holds up a few transfers and not all of them; who would be one
more waits a moment for the first answer, then gives up for now. This is the lock of `core.transfer`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from core.clock import Clock
from core.errors import Unavailable
from core.values import dataclass

CROWD: Final = 4
"""Requests at once to a host that is not known to answer."""
SPACING: Final = 1.0
"""Seconds between two requests to a host that fails."""
_MOST_WAIT: Final = 3.0
"""Seconds that a request may wait for its turn; longer is the work queue's."""
_LOOK: Final = 0.05


@dataclass(slots=True)
class _Host:
    """What is remembered: whether it answers (None: not known yet), who waits for it, when it may be asked next."""

    answers: bool | None = None
    waiting: int = 0
    due: float = 0.0


class Manners:
    """What is known of the hosts that are asked. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    @contextlib.contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """`enter` and `leave` around a block."""
        self.enter(host)
        try:
            yield
        finally:
            self.leave(host)

    def enter(self, host: str) -> None:
        """Take the right to send one request to `host` and wait for what it gives; raises `Unavailable`: not now."""
        deadline = self._clock.monotonic() + _MOST_WAIT
        while (pause := self._enter(host, deadline)) > 0:
            self._clock.sleep(pause)

    def leave(self, host: str) -> None:
        """Give it back: it gave something, or will not."""
        with self._lock:
            self._hosts[host].waiting -= 1

    def answered(self, host: str) -> None:
        """It answers as it should."""
        with self._lock:
            known = self._hosts.setdefault(host, _Host())
            known.answers, known.due = True, 0.0

    def failed(self, host: str, seconds: float = 0.0) -> None:
        """It did not answer, or not as it should; with `seconds` it said itself how long it wants to be left alone."""
        with self._lock:
            known = self._hosts.setdefault(host, _Host())
            known.answers = False
            known.due = max(known.due, self._clock.monotonic() + max(SPACING, seconds))

    def _enter(self, host: str, deadline: float) -> float:
        """0 when the turn is taken; else the seconds after which to ask again."""
        with self._lock:
            known, now = self._hosts.setdefault(host, _Host()), self._clock.monotonic()
            if known.answers:
                known.waiting += 1
                return 0.0
            if known.waiting < CROWD and now >= known.due:
                known.waiting += 1
                known.due = now + SPACING if known.answers is False else 0.0
                return 0.0
            left = max(known.due - now, _LOOK)
        if now + left > deadline:
            raise _not_now(host, left)
        return left


def _not_now(host: str, seconds: float) -> Unavailable:
    error = Unavailable(f"{host} has failed, or has not answered yet: it is asked again later")
    error.seconds = max(seconds, SPACING)
    return error
