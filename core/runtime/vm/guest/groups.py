"""The control groups of tasks: version 2, below `/sys/fs/cgroup/tasks` (kernel: admin-guide/cgroup-v2)."""

from __future__ import annotations

import os
import signal
from typing import Final

from core.runtime.vm.guest.asking import Refused
from core.runtime.vm.guest.loop import Job, Loop

TOP: Final = "/sys/fs/cgroup"
_WAIT: Final = 0.02
_TRIES: Final = 250


class Group:
    """One group and all below it; it need not be there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def pids(self) -> list[int]:
        """The processes in it now."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            found += map(int, self._read(f"{folder}/cgroup.procs").split())
        return found

    def oom_kills(self) -> int:
        """How many processes the kernel has killed in it for want of memory."""
        return self._value("memory.events", "oom_kill")

    def stats(self) -> dict[str, object]:
        """Counters, as `stats` gives them."""
        return {
            "cpu_seconds": self._value("cpu.stat", "usage_usec") / 1e6,
            "memory": int(self._read(f"{self.path}/memory.current") or 0),
            "pids": int(self._read(f"{self.path}/pids.current") or 0),
            "oom_kills": self.oom_kills(),
        }

    def signal(self, number: int) -> None:
        """To all that are in it."""
        if number == signal.SIGKILL and self._write("cgroup.kill", "1"):
            return
        for pid in self.pids():
            tell(pid, number)

    def freeze(self, loop: Loop, frozen: bool) -> Job:
        """A job: stop them all where they are, or let them go on; raises `Refused` when that takes 5 s."""
        self._write("cgroup.freeze", "1" if frozen else "0")
        for _ in range(_TRIES):
            if self._value("cgroup.events", "frozen") == frozen:
                return
            yield loop.pause(_WAIT)
        raise Refused("timed out", f"its processes do not {'stop' if frozen else 'go on'}")

    def emptied(self, loop: Loop) -> Job:
        """A job: kill all that is in it and wait for its end; raises `Refused` when that takes 5 s."""
        self.signal(signal.SIGKILL)
        for _ in range(_TRIES):
            if not self._value("cgroup.events", "populated"):
                return
            yield loop.pause(_WAIT)
        raise Refused("timed out", "its processes do not end")

    def _read(self, path: str) -> str:
        try:
            with open(path) as source:
                return source.read()
        except OSError:  # not there, or ENODEV: the group went between the two
            return ""

    def _value(self, name: str, key: str) -> int:
        for line in self._read(f"{self.path}/{name}").splitlines():
            word, _, value = line.partition(" ")
            if word == key:
                return int(value)
        return 0

    def _write(self, name: str, value: str) -> bool:
        try:
            with open(f"{self.path}/{name}", "w") as file:
                file.write(value)
        except FileNotFoundError:
            return False
        return True


def tell(pid: int, number: int) -> None:
    """Signal a process; harmless when it has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
