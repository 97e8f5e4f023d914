"""What a person at the node asked of a container beside its spec: stay stopped for a while, run anew once. Pure.

Rules of this file: `Object.local` holds it, under `stop` and `restart`, each with `at` (wall seconds) and `reason`. A
stop holds until `until` (None: until `start`). A restart names the attempt that is to give way: it is done as soon as
another one is the current one, so that it is done once, whenever the agent is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.clock import timestamp
from core.values import dataclass
from reconciler.decide.attempts import STOPPED_BY_HAND, Memory
from reconciler.model.objects import Object

STOP: Final = "stop"
RESTART: Final = "restart"


@dataclass(frozen=True, slots=True)
class Stop:
    """That a container is to stay stopped."""

    at: float
    until: float | None = None
    reason: str = ""
    spares: int = 0
    """The attempt that is left alone, since a checkpoint of it is being written, and may end it; 0: none."""

    def holds(self, now: float) -> bool:
        """Whether it has not run out at that wall time."""
        return self.until is None or now < self.until

    def left(self, now: float) -> float | None:
        """Seconds for which it holds on; None: for good."""
        return None if self.until is None else max(0.0, self.until - now)

    def __str__(self) -> str:
        until = "until it is started" if self.until is None else f"until {timestamp(self.until)}"
        return f"stopped by hand {until}" + (f": {self.reason}" if self.reason else "")


def stop_of(local: Mapping[str, Any]) -> Stop | None:
    """The stop that is asked for, run out or not."""
    found = local.get(STOP)
    if found is None:
        return None
    return Stop(found["at"], found.get("until"), found.get("reason", ""), found.get("spares", 0))


def restart_asked(local: Mapping[str, Any], memory: Memory) -> bool:
    """Whether the current attempt is to give way to another of its spec."""
    found = local.get(RESTART)
    return found is not None and memory.current is not None and found["attempt"] == memory.current.attempt


def checkpoint_of(local: Mapping[str, Any]) -> str:
    """The checkpoint that the restart which is asked for goes on from; "": it starts afresh."""
    return str(local.get(RESTART, {}).get("from", ""))


# What the commands ask for, as changes of `local`.


def ask_stop(now: float, seconds: float | None, reason: str) -> dict[str, Any]:
    """To stop, for `seconds` (None: until `start`)."""
    return {STOP: {"at": now, "until": None if seconds is None else now + seconds, "reason": reason}}


def ask_restart(obj: Object, now: float, reason: str, checkpoint: str = "") -> dict[str, Any]:
    """To run anew, once, or to go on from a checkpoint; takes a stop back."""
    current = Memory.of(obj.record).current
    attempt = 0 if current is None else current.attempt
    origin = {"from": checkpoint} if checkpoint else {}
    return {STOP: None, RESTART: {"at": now, "attempt": attempt, "reason": reason, **origin}}


def ask_checkpoint(now: float, seconds: float, reason: str, attempt: int) -> dict[str, Any]:
    """To leave that attempt alone while it is written down, and to start no other; over by itself after `seconds`."""
    return {STOP: {"at": now, "until": now + seconds, "reason": reason, "spares": attempt}}


def confirm_checkpoint(obj: Object) -> dict[str, Any]:
    """The checkpoint that ended it is there: from now on it is stopped, until `start` or `restart`."""
    asked = obj.local.get(STOP)
    if asked is None:
        return {}
    return {STOP: {"at": asked["at"], "until": None, "reason": asked.get("reason", "")}}


def ask_start(obj: Object, now: float, reason: str) -> dict[str, Any]:
    """To run: takes a stop back, and runs what had ended for good once more."""
    ended = Memory.of(obj.record).current_ended()
    if ended is None or ended.reason == STOPPED_BY_HAND:
        return {STOP: None}
    return ask_restart(obj, now, reason)
