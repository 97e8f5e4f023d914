"""The control groups of WASM tasks, where we are root: limits with room for the engine, counters, the end.

Rules of this file: only the hierarchies that limit or count what a task uses are entered (a new cpuset takes
nobody in).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Final

from core import cgroups, proc
from core.clock import Clock
from core.errors import NotFound
from core.proc import ProcessId
from core.runtime import limits
from core.runtime.ports import Stats

ENGINE_MEMORY: Final = 96 << 20
"""Bytes that the engine may use in a task's control group, beside the module's own memory."""
ENGINE_THREADS: Final = 64
_CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "pids", "freezer", "name=systemd")


class Groups:
    """The control groups of our tasks; without root there are none, and nothing here does anything."""

    def __init__(self) -> None:
        found = cgroups.hierarchies()
        wanted = [found.tracking, found.v2 if found.pure_v2 else None, *(found.v1.get(name) for name in _CONTROLLERS)]
        paths = [path for path in wanted if path is not None]
        self.found = found
        self.used = tuple(dict.fromkeys(paths)) if os.geteuid() == 0 else ()

    def make(self, group: str, resources: Mapping[str, Any]) -> None:
        """Make `group` with these limits (OCI `linux.resources`) and room for the engine; or change them."""
        if not self.used:
            return
        for hierarchy in self.used:
            cgroups.make(hierarchy, group)
        if (memory := self.found.v1.get("memory")) is not None:  # it may never be below the other limit
            with contextlib.suppress(OSError):  # swap is not accounted here
                (memory / group.lstrip("/") / "memory.memsw.limit_in_bytes").write_text("-1")
        limits.limit(self.found, group, roomy(resources))

    def doors(self, group: str) -> list[str]:
        """The files by which a process enters `group`."""
        return [str(hierarchy / group.lstrip("/") / "cgroup.procs") for hierarchy in self.used]

    def settle(self, instance: str, monitor: int) -> None:
        """The monitor out of the engine's group: it outlives the engine."""
        for hierarchy in dict.fromkeys(
            path for path in (self.found.tracking, self.found.v1.get("name=systemd")) if path
        ):
            if self.used:
                cgroups.enter(cgroups.make(hierarchy, f"{instance}/monitors"), monitor)

    def oom_tables(self, group: str) -> list[str]:
        """The files that count what the kernel killed for want of memory."""
        name = group.lstrip("/")
        memory = self.found.v1.get("memory")
        tables = [memory / name / "memory.oom_control"] if memory is not None else []
        tables += [self.found.v2 / name / "memory.events"] if self.found.v2 is not None else []
        return [str(path) for path in tables] if self.used else []

    def counters(self, group: str) -> Stats | None:
        """What the group has used."""
        return limits.counters(self.found, group) if self.used else None

    def remove(self, group: str, clock: Clock) -> None:
        """End what is in it, and remove it."""
        if self.used:
            limits.end_all(self.found, group, clock, within=10.0)
            cgroups.remove_everywhere(group, self.found, clock)


def roomy(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of a control group in which an engine runs beside what is limited."""
    memory = {name: size + ENGINE_MEMORY for name, size in resources.get("memory", {}).items()}
    pids = {name: count + ENGINE_THREADS for name, count in resources.get("pids", {}).items()}
    return {**resources, "memory": memory, "pids": pids}


def of_process(process: ProcessId) -> Stats:
    """Counters of one process, as /proc has them; raises `NotFound`."""
    try:
        fields = proc.read_small(f"/proc/{process.pid}/stat").rpartition(b")")[2].split()
    except OSError:
        raise NotFound(f"process {process.pid} has ended") from None
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return Stats((int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * page, int(fields[17]), 0)
