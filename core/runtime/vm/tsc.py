"""How fast this machine's time-stamp counter runs: the guest's kernel is told, since it cannot always find out.

QEMU without KVM passes the counter on as it is. A guest's kernel measures it against an emulated timer, and where the
host is busy that fails and the guest hangs before its first program.
"""

from __future__ import annotations

import functools
import platform
from typing import Final

from core import syscalls
from core.clock import Clock, SystemClock

_MEASURE_SECONDS: Final = 0.02


@functools.cache
def kilohertz() -> int:
    """Of this machine, to about one in ten thousand; 0 where there is none. Takes 20 ms, once."""
    return measured(SystemClock()) if platform.machine() == "x86_64" else 0


def measured(clock: Clock) -> int:
    """The counter against the clock."""
    began, first = _together(clock)
    clock.sleep(_MEASURE_SECONDS)
    ended, second = _together(clock)
    return round((second - first) / (ended - began) / 1000)


def _together(clock: Clock) -> tuple[float, int]:
    """Both at one moment: of a few tries the one that took least, since somebody may take the processor between."""
    tries = [(clock.monotonic(), syscalls.time_stamp(), clock.monotonic()) for _ in range(9)]
    before, counter, after = min(tries, key=lambda one: one[2] - one[0])
    return (before + after) / 2, counter
