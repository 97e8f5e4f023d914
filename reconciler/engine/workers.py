"""Threads that take keys and work on them. The one place where any exception is caught: it becomes an outcome."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from core.clock import Clock
from reconciler.engine.backoff import Backoff
from reconciler.engine.queue import WorkQueue
from reconciler.model.identity import Key

_log: Final = logging.getLogger(__name__)


class Workers:
    """`count` threads that run `work(key)` for each key of the queue.

    When `work` raises, the key is retried after what `backoff` says (also when recording fails), and then
    `failed(key, error)` records the outcome; it may read `backoff.next_retry_at`. Who works resets `backoff` when the
    key went well: a `work` that returns says nothing.
    """

    def __init__(
        self,
        queue: WorkQueue,
        work: Callable[[Key], None],
        failed: Callable[[Key, Exception], None],
        backoff: Backoff,
        clock: Clock,
        count: int = 4,
    ) -> None:
        self._queue = queue
        self._work = work
        self._failed = failed
        self._backoff = backoff
        self._clock = clock
        self._finished = clock.monotonic()
        self._threads = [threading.Thread(target=self._run, name=f"worker-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Start the threads; once. Where a limit does not give all of them, fewer do the work: one at least."""
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError as error:  # Python's word for EAGAIN and ENOMEM
                if number == 0:
                    raise
                _log.warning("%d of %d workers: %s", number, len(self._threads), error)
                self._threads = self._threads[:number]
                return

    @property
    def finished(self) -> float:
        """Monotonic time at which a key was last finished, well or not; before the first, that of the making."""
        return self._finished

    def living(self) -> bool:
        """Whether every thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, within: float) -> tuple[Key, ...]:
        """Take no more keys and wait up to `within` seconds for those in hand; returns the keys still worked on."""
        self._queue.stop()
        deadline = self._clock.monotonic() + within
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - self._clock.monotonic()))
        return self._queue.active()

    def _run(self) -> None:
        while (key := self._queue.take()) is not None:
            try:
                self.work_on(key)
            finally:
                self._queue.done(key)
                self._finished = self._clock.monotonic()

    def work_on(self, key: Key) -> None:
        """Work on a key that was taken, and turn what is raised into an outcome and a retry. Raises no `Exception`."""
        error = attempt(lambda: self._work(key))
        if error is None:
            return
        self._queue.add_after(key, self._backoff.failed(key))
        unrecorded = attempt(lambda: self._failed(key, error))
        if unrecorded is not None:
            _log.error("%s: %s; not recorded: %s", key, error, unrecorded, exc_info=error)


def attempt(step: Callable[[], None]) -> Exception | None:
    """Do `step` and return what it raised, whatever that was, for the caller to record."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - a worker outlives whatever one key does; the caller records it
        return error
    return None
