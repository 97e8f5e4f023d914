"""Time is an argument: below the engine nothing else calls `time.time()`, `time.monotonic()` or `time.sleep()`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for people and records, monotonic time for delays; both in seconds."""

    def wall(self) -> float:
        """Seconds since 1970 (may jump)."""

    def monotonic(self) -> float:
        """Seconds since some point in the past (never jumps)."""

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on CLOCK_MONOTONIC."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread for `seconds`."""
        time.sleep(seconds)


class VirtualClock:
    """A clock that moves only when told to or when somebody sleeps on it: for tests and for `simulate`."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._wall = wall
        self._monotonic = 1000.0

    def wall(self) -> float:
        """Seconds since 1970, as set."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds` at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move both clocks on by `seconds`."""
        self._wall += seconds
        self._monotonic += seconds


def timestamp(wall: float) -> str:
    """RFC 3339 in UTC with milliseconds, as every status and event writes it."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> float:
    """The inverse of `timestamp`; raises `ValueError`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
