"""Stopping a task: ask, wait out the grace, kill; one step a look, so that no worker is held up by a slow goodbye."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, Final

from core.values import dataclass
from reconciler.decide.facts import Now, StopAsked, TaskSeen
from reconciler.model.actions import Await, Plan, SignalTask
from reconciler.model.identity import Key
from reconciler.model.kinds.container import ContainerSpec

_AFTER_KILL: Final = 2.0
"""Seconds to wait for a killed task's exit before it is killed again."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """How a container wants to be asked to end: a signal's number, and seconds of grace."""

    signal: int
    grace: float


def goodbye(spec: ContainerSpec, image: Mapping[str, Any]) -> Goodbye:
    """The manifest's word, else the image's, else TERM."""
    from_image = str(image.get("config", {}).get("stop_signal") or "")
    number = spec.stop.signal or signal_number(from_image) or signal.SIGTERM
    return Goodbye(int(number), spec.stop.grace)


def signal_number(name: str) -> int | None:
    """The number of `TERM`, `SIGTERM` or `15`; None for what is no signal (an image may say anything)."""
    if name.isdigit():
        return int(name) if 0 < int(name) <= 64 else None
    found = signal.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
    return None if found is None else int(found)


def stop_task(key: Key, task: TaskSeen, asked: Mapping[str, StopAsked], stop: Goodbye, now: Now) -> Plan:
    """The next step towards the end of a running task."""
    seen = asked.get(task.id)
    if seen is None or (seen.hooking and now.monotonic < seen.asked + stop.grace):
        return Plan((SignalTask(key, task.id, stop.signal),), (), "stopping")
    if seen.killed is not None and now.monotonic < seen.killed + _AFTER_KILL:
        left = seen.killed + _AFTER_KILL - now.monotonic
        return Plan((), (Await("Stopping", "killed; waiting for it to be gone", left),))
    left = seen.asked + stop.grace - now.monotonic
    if left > 0:
        return Plan((), (Await("Stopping", f"asked to end; {left:.0f} s of grace left", left),))
    return Plan((SignalTask(key, task.id, signal.SIGKILL, everyone=True),), (), "grace is over")
