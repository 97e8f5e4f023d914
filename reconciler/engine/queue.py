"""The work queue: keys only, each in the hands of at most one worker.

Rules of this file: four words describe every key, and three literal tables move it. A key added while it is worked on
runs exactly once more. A key that is taken has no delay left: the run that begins reads everything anew and says itself
when it wants to be looked at again. The lock here is one of the two in the program (the other is the store's).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

from core import telemetry
from core.clock import Clock
from reconciler.engine.delays import Delays
from reconciler.model.identity import Key


class Slot(Enum):
    """Where a key is. A key that the queue does not know is IDLE."""

    IDLE = auto()
    QUEUED = auto()
    ACTIVE = auto()
    REDO = auto()
    """Worked on, and added again since the work began."""


ON_ADD: Final[Mapping[Slot, Slot]] = {
    Slot.IDLE: Slot.QUEUED,
    Slot.QUEUED: Slot.QUEUED,
    Slot.ACTIVE: Slot.REDO,
    Slot.REDO: Slot.REDO,
}
ON_TAKE: Final[Mapping[Slot, Slot]] = {Slot.QUEUED: Slot.ACTIVE}
ON_DONE: Final[Mapping[Slot, Slot]] = {Slot.ACTIVE: Slot.IDLE, Slot.REDO: Slot.QUEUED}


class IllegalMove(ValueError):
    """A key was moved in a way the tables do not know: a fault of the program, nothing was changed."""


def _everything(_: Key) -> bool:
    return True


class WorkQueue:
    """First in, first out, any number of threads. `accepts` says which keys may enter (a one-shot's scope).

    `lane` is what telemetry calls it. `rested` is called by whoever gives back the last key.
    """

    def __init__(
        self,
        clock: Clock,
        accepts: Callable[[Key], bool] = _everything,
        lane: str = "quick",
        rested: Callable[[], None] = lambda: None,
    ) -> None:
        self._rested = rested
        self._clock = clock
        self._lane = lane
        self._since: dict[Key, float] = {}
        self._accepts = accepts
        self._slots: dict[Key, Slot] = {}
        self._ready: deque[Key] = deque()
        self._delays = Delays()
        self._stopped = False
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._calm = threading.Condition(lock)

    def add(self, key: Key) -> None:
        """Have `key` looked at as soon as a worker is free; ignored when it is not accepted."""
        if self._accepts(key):
            with self._changed:
                self._queue(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Have `key` looked at in `seconds`, or when it was due already if that is earlier; ignored as in `add`."""
        if not self._accepts(key):
            return
        with self._changed:
            before = self._delays.earliest()
            at = self._clock.monotonic() + max(0.0, seconds)
            self._delays.put(key, at)
            if before is None or at < before:
                self._changed.notify()

    def take(self, timeout: float | None = None) -> Key | None:
        """The next key, now ACTIVE; give it back with `done`. None after `timeout` seconds, or once stopped.

        Leaving wakes another waiter, so that somebody who waits always knows when the next delay is due.
        """
        with self._changed:
            try:
                return self._take(timeout)
            finally:
                if self._delays.due:
                    self._changed.notify()

    def done(self, key: Key) -> None:
        """The work on `key` ended; it is queued again when it was added meanwhile. Raises `IllegalMove`."""
        with self._changed:
            before = self._slots.get(key, Slot.IDLE)
            if before not in ON_DONE:
                raise IllegalMove(f"{key} is {before.name}: nobody works on it")
            self._move(key, ON_DONE[before])
            rests = not self._slots
            if rests:
                self._calm.notify_all()
        if rests:
            self._rested()

    def idle(self) -> bool:
        """Whether no key is queued or worked on, and no delay is over; keys due later do not count."""
        with self._changed:
            self._ripen()
            return not self._slots

    def wait_idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until `idle`; returns whether it is."""
        deadline = self._clock.monotonic() + timeout
        with self._changed:
            while True:
                self._ripen()
                left = deadline - self._clock.monotonic()
                if not self._slots or left <= 0:
                    return not self._slots
                self._calm.wait(left)

    def active(self) -> tuple[Key, ...]:
        """The keys that are worked on."""
        with self._changed:
            return tuple(key for key, slot in self._slots.items() if slot in (Slot.ACTIVE, Slot.REDO))

    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._ready)

    def next_due(self) -> float | None:
        """Seconds until the first delayed key is due (0: it is); None when none is delayed."""
        with self._changed:
            at = self._delays.earliest()
            return None if at is None else max(0.0, at - self._clock.monotonic())

    def stop(self) -> None:
        """Hand out no key from now on; who waits in `take` gets None. What is taken is still to be `done`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _take(self, left: float | None) -> Key | None:
        while not self._stopped:
            self._ripen()
            if self._ready:
                key = self._ready.popleft()
                self._slots[key] = ON_TAKE[self._slots[key]]
                self._delays.drop(key)
                self._tell(key)
                return key
            if left is not None and left <= 0:
                return None
            left = self._wait(left)
        return None

    def _wait(self, left: float | None) -> float | None:
        """Wait until something changed, a delay is over, or `left` seconds went by; returns what is left of them."""
        since = self._clock.monotonic()
        at = self._delays.earliest()
        pauses = [pause for pause in (left, None if at is None else at - since) if pause is not None]
        pause = min(pauses, default=None)
        woken = self._changed.wait(pause)
        if left is None:
            return None
        return left - (self._clock.monotonic() - since if woken or pause is None else pause)

    def _ripen(self) -> None:
        for key in self._delays.ripe(self._clock.monotonic()):
            self._queue(key)

    def _queue(self, key: Key) -> None:
        self._move(key, ON_ADD[self._slots.get(key, Slot.IDLE)])

    def _move(self, key: Key, after: Slot) -> None:
        before = self._slots.pop(key, Slot.IDLE)
        if after is not Slot.IDLE:
            self._slots[key] = after
        if after is Slot.QUEUED and before is not Slot.QUEUED:
            self._ready.append(key)
            self._changed.notify()
            if telemetry.is_on():
                self._since[key] = self._clock.monotonic()

    def _tell(self, key: Key) -> None:
        if (since := self._since.pop(key, None)) is not None:
            telemetry.measure("reconciler.queue.latency", self._clock.monotonic() - since, lane=self._lane)
