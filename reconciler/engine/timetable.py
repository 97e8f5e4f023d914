"""The named timetable: what happens every so often (sources, resync, collection), on APScheduler.

Rules of this file: a job is quick (it adds keys); one run of it at a time; runs missed are made up by one. APScheduler
counts in wall time and would stand still for the length of a backward step, so whenever wall and monotonic time part by
more than two seconds every job is set anew to the moment its interval ends by monotonic time.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from core.clock import Clock
from core.values import dataclass

PARTED: Final = 2.0
"""Seconds by which wall and monotonic time may drift apart between two looks."""
_LOOK: Final = 2.0
_THREADS: Final = 2


@dataclass(slots=True)
class _Entry:
    seconds: float
    jitter: float
    job: Callable[[], None]
    last: float
    """Monotonic time of the last run, or of the entry's making."""


class Timetable:
    """Jobs by name. Every method may be called from any thread, before `start` and after."""

    def __init__(self, clock: Clock, draw: Callable[[], float] = random.random) -> None:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        self._clock = clock
        self._draw = draw
        self._entries: dict[str, _Entry] = {}
        self._apart = clock.wall() - clock.monotonic()
        self._scheduler: Any = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(_THREADS)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="timetable", daemon=True)

    def every(self, name: str, seconds: float, jitter: float, job: Callable[[], None]) -> None:
        """Run `job` each `seconds` plus up to `jitter`, for the first time after that long; replaces a job `name`."""
        from apscheduler.triggers.interval import IntervalTrigger

        entry = _Entry(seconds, jitter, job, self._clock.monotonic())
        self._entries[name] = entry
        self._scheduler.add_job(
            self._run,
            IntervalTrigger(seconds=seconds, jitter=jitter or None, timezone=UTC),
            args=[entry],
            id=name,
            name=name,
            replace_existing=True,
            next_run_time=self._next(entry),
        )

    def cancel(self, name: str) -> None:
        """Run job `name` no more; harmless when there is none."""
        if self._entries.pop(name, None) is not None:
            self._scheduler.remove_job(name)

    def start(self) -> None:
        """Begin; once."""
        self._scheduler.start()
        self._thread.start()

    def stop(self) -> None:
        """Run nothing more, and wait for the jobs that are running."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._scheduler.shutdown(wait=True)

    def next_runs(self) -> dict[str, float]:
        """When each job runs next, in seconds since 1970."""
        return {job.id: job.next_run_time.timestamp() for job in self._scheduler.get_jobs()}

    def compare_clocks(self) -> None:
        """Set every job anew when wall and monotonic time have parted since it was last done (asked every 2 s)."""
        apart = self._clock.wall() - self._clock.monotonic()
        if abs(apart - self._apart) <= PARTED:
            return
        self._apart = apart
        for name, entry in list(self._entries.items()):
            with contextlib.suppress(LookupError):  # cancelled meanwhile
                self._scheduler.modify_job(name, next_run_time=self._next(entry))

    def _next(self, entry: _Entry) -> datetime:
        left = entry.last + entry.seconds + entry.jitter * self._draw() - self._clock.monotonic()
        return datetime.fromtimestamp(self._clock.wall() + max(0.0, left), UTC)

    def _run(self, entry: _Entry) -> None:
        entry.last = self._clock.monotonic()
        entry.job()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK):
            self.compare_clocks()
