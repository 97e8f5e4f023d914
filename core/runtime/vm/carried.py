"""What the monitor of a machine keeps of each task in it: its log, its exit, and a process that stands for it.

The *carrier* of a task is a fork of the monitor that does nothing and ends when the task has ended, or when the monitor
dies: so a task's end is seen on this node as that of any other, by the end of a process. The exit file is written
before the carrier ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import field
from typing import Any

from core.runtime.wasm_monitor import Log
from core.values import dataclass


@dataclass(slots=True)
class Task:
    """One task: `exit` is the path of its exit file, `oom` that of the file which says that it lacked memory."""

    log: Log
    exit: str
    oom: str
    streams: list[int] = field(default_factory=list)
    carrier: int = 0
    hold: int = -1
    ended: bool = False


class Carried:
    """The tasks of a machine, by id."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}

    def add(self, id: str, wanted: dict[str, Any]) -> Task:
        """Open its log. Raises `OSError`."""
        task = Task(Log(wanted["log"], wanted["log_limit"]), wanted["exit"], wanted["oom"])
        self.tasks[id] = task
        return task

    def carry(self, id: str) -> int:
        """Start the process that stands for it; its number. One that has ended already has one that ends at once."""
        task = self.tasks[id]
        theirs, ours = os.pipe()
        task.carrier = os.fork()
        if task.carrier == 0:
            _stand(theirs)
        os.close(theirs)
        task.hold = ours
        if task.ended:
            self._let_go(task)
        return task.carrier

    def end(self, id: str, code: int, *, oom: bool = False) -> None:
        """Record the end of a task, once; of one that is not known nothing is recorded."""
        task = self.tasks.get(id)
        if task is None or task.ended:
            return
        task.ended = True
        if oom:
            os.close(os.open(task.oom, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        aside = f"{task.exit}.{os.urandom(3).hex()}"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.write(fd, str(code).encode())
        os.close(fd)
        os.rename(aside, task.exit)
        self._let_go(task)

    def _let_go(self, task: Task) -> None:
        if task.hold >= 0:
            os.close(task.hold)
            task.hold = -1
            os.waitpid(task.carrier, 0)

    def forget(self, id: str) -> None:
        """Let go of a task that was deleted; its end is nobody's any more when it was not recorded before."""
        if (task := self.tasks.pop(id, None)) is not None:
            self._let_go(task)
            task.log.close()

    def end_all(self, code: int) -> None:
        """The machine is gone: so is all that ran in it."""
        for id in list(self.tasks):
            with contextlib.suppress(OSError):  # its bundle was removed meanwhile
                self.end(id, code)


def _stand(hold: int) -> None:
    """Be a carrier: never returns."""
    os.dup2(hold, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 1 << 20)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while os.read(3, 1):
        pass
    os._exit(0)
