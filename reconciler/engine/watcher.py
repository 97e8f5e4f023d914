"""Changes of the store, by this process or another, become keys in the queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from core.errors import AgentError
from reconciler.model.identity import Key
from reconciler.store.port import ObjectStore, TooOld

_WAIT: Final = 0.25
"""Seconds in one wait for a change; also how long `stop` may take."""
_PAUSE: Final = 1.0
_log: Final = logging.getLogger(__name__)


class Watcher:
    """Calls `wake(key)` for every object once, and then for each that changes or goes. Misses nothing.

    `pause` waits up to so many seconds, less when somebody rings: who writes does; a ring that is lost costs the whole
    pause. Without it the store is asked every 50 ms.

    When the store no longer knows what happened since, every object is woken again, and every one that is not there
    any more.
    """

    def __init__(
        self, store: ObjectStore, wake: Callable[[Key], None], pause: Callable[[float], object] | None = None
    ) -> None:
        self._store = store
        self._pause = pause
        self._wake = wake
        self._known: set[Key] = set()
        self._seen: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def turn(self, seconds: float) -> None:
        """Wait up to `seconds` for changes and wake their keys; the first turn lists everything. Raises the store's
        errors; the next turn goes on where the last good one ended.
        """
        if self._seen is None:
            self._list()
        elif self._moved(self._seen, seconds):
            try:
                changes = self._store.changes(self._seen)
            except TooOld:
                self._list()
                return
            for change in changes:
                (self._known.discard if change.gone else self._known.add)(change.key)
                self._wake(change.key)
                self._seen = max(self._seen, change.version)

    def _moved(self, seen: int, seconds: float) -> bool:
        if self._pause is None:
            return self._store.wait(seen, seconds)
        self._pause(seconds)
        return self._store.version() != seen

    def _list(self) -> None:
        seen = self._store.version()  # read first: what is written during the list is then seen twice, not never
        there = {obj.key: None for obj in self._store.list()}
        for key in [*there, *sorted(self._known - there.keys())]:
            self._wake(key)
        self._known = set(there)
        self._seen = seen

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.turn(_WAIT)
            except AgentError as error:
                _log.warning("cannot read the store's changes: %s", error)
                self._ended.wait(_PAUSE)
