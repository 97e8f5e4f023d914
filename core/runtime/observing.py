"""Seeing what a task is, from its bundle, its exit file and /proc alone. Nothing is spawned, nothing is changed.

The order of looking matters, since the task moves meanwhile. The monitor writes the exit file before it ends, so a
monitor that is gone settles it: either the exit file is there by then, or nobody will ever write one (LOST). Between
the first process' end and the exit file (some milliseconds) the task is still said to be RUNNING, for its end is not
known yet. Of another boot only files are left: an exit written then still counts, all else is LOST or HALF_MADE.
"""

from __future__ import annotations

import os
from pathlib import Path

from core import cgroups, proc
from core.cgroups import Hierarchies
from core.proc import ProcessId
from core.runtime import limits
from core.runtime.bundle import Bundle, Bundles, Made
from core.runtime.ports import Exit, TaskPhase, TaskState
from core.values import dataclass


@dataclass(frozen=True, slots=True)
class Eyes:
    """Where to look. `boot` is this boot's id: processes and mounts of another boot are no more."""

    bundles: Bundles
    exits: Path
    runtime_root: Path
    found: Hierarchies
    boot: str
    unbegun: str
    """How the name of a first process ends that is not yet the task's own program."""

    def state(self, id: str) -> TaskState:
        """What is seen of task `id`."""
        bundle = self.bundles.read(id)
        if bundle is None:
            exit = self.exit(id)
            return TaskState(id, TaskPhase.ABSENT if exit is None else TaskPhase.STOPPED, exit=exit)
        if bundle.made is None:
            fresh = not bundle.created and bundle.record.boot == self.boot
            return TaskState(id, TaskPhase.PREPARED if fresh else TaskPhase.HALF_MADE)
        return self._made(id, bundle, bundle.made)

    def _made(self, id: str, bundle: Bundle, made: Made) -> TaskState:
        alive = made.first.alive(self.boot)
        if alive and made.monitor.alive(self.boot):
            phase = self._living(id, bundle, made.first)
            outside = self._outside(made.first.pid, bundle.record.cgroup) if phase is TaskPhase.RUNNING else ""
            return TaskState(id, phase, made.first, made.monitor, outside=outside)
        exit = None if alive else self.exit(id)
        if exit is None and not alive and made.monitor.alive(self.boot):
            return TaskState(id, TaskPhase.RUNNING, made.first, made.monitor)
        exit = exit or self.exit(id)
        phase = TaskPhase.LOST if exit is None else TaskPhase.STOPPED
        return TaskState(id, phase, made.first, made.monitor, exit)

    def _living(self, id: str, bundle: Bundle, first: ProcessId) -> TaskPhase:
        if os.path.lexists(f"{self.runtime_root}/{id}/exec.fifo") and self._has_not_begun(first.pid):
            return TaskPhase.CREATED
        return TaskPhase.PAUSED if limits.frozen(self.found, bundle.record.cgroup) else TaskPhase.RUNNING

    def _outside(self, pid: int, group: str) -> str:
        """The control groups of its that the first process has left; here nobody says that it was in all of them."""
        return ""

    def exit(self, id: str) -> Exit | None:
        """What the monitor wrote when the task ended; None when it has not."""
        path = self.exits / id
        try:
            text = path.read_text()
            at = path.stat().st_mtime
        except FileNotFoundError:
            return None
        code = int(text) if text.strip().lstrip("-").isdigit() else 255
        return Exit(code & 0xFF, at, os.path.lexists(self.bundles.path(id) / "oom"))

    def _has_not_begun(self, pid: int) -> bool:
        try:
            return proc.read_small(f"/proc/{pid}/comm").rstrip().endswith(self.unbegun.encode())
        except OSError:
            return False


class GroupEyes(Eyes):
    """Of a runtime that puts the first process into the task's group in every hierarchy."""

    __slots__ = ()

    def _outside(self, pid: int, group: str) -> str:
        return cgroups.left_behind(pid, group, self.found)
