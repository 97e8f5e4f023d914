"""What all drivers share whose tasks have a bundle each, and a monitor that writes the exit: seen by files and /proc.

Order of `delete`: what runs is ended, then what the runtime keeps, groups and bundle go. The exit file is the last:
until then the task is still STOPPED with its exit, and `delete` is called again.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from core import proc
from core.errors import Failed, NotFound, from_os_error
from core.proc import ProcessId
from core.runtime import mapped
from core.runtime.bundle import Bundle, Bundles, Record, checked_group, sweep
from core.runtime.observing import Eyes
from core.runtime.ports import Exit, IllegalMove, MonitorLost, NewTask, TaskEvent, TaskPhase, TaskState, advance

ALIVE: Final = frozenset({TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED})


@contextlib.contextmanager
def telling(doing: str) -> Iterator[None]:
    """Raise an `OSError` of the block as the class that says what to do."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error


class MonitoredTasks(ABC):
    """The half of the Shim port that is the same for every such driver. `group`: the instance's control group."""

    def __init__(self, bundles: Bundles, eyes: Eyes, group: str) -> None:
        self.bundles = bundles
        self._eyes = eyes
        self._group = group

    # What a driver adds.

    def _left(self) -> Iterable[str]:
        """The ids of which its runtime keeps something."""
        return ()

    @abstractmethod
    def _end(self, id: str, bundle: Bundle) -> None:
        """End all that runs of a task of this boot, its monitor last."""

    @abstractmethod
    def _forget(self, id: str, bundle: Bundle | None) -> None:
        """Remove what is kept of the task beside bundle and exit file."""

    # What is there.

    def state(self, id: str) -> TaskState:
        """Observe from files and /proc."""
        return self._eyes.state(id)

    def connect(self, id: str) -> TaskState:
        """The same as `state`: nothing of a task lives in us."""
        return self.state(id)

    def described(self, id: str) -> Mapping[str, Any] | None:
        """What `object.json` says."""
        return self.bundles.described(id)

    def tasks(self) -> Iterator[str]:
        """Every id of which a bundle, an exit file or something of the runtime is left."""
        exits = (name for name in os.listdir(self._eyes.exits) if not name.startswith("."))
        yield from sorted({*self.bundles.ids(), *exits, *self._left()})

    def _moving(self, id: str, event: TaskEvent) -> TaskState:
        state = self.state(id)
        advance(state.phase, event)
        return state

    def _living(self, id: str) -> Record:
        bundle = self.bundles.read(id)
        if bundle is None or self._eyes.state(id).phase not in ALIVE:
            raise NotFound(f"task {id} does not run")
        return bundle.record

    # From nothing to running.

    def prepare(self, task: NewTask) -> None:
        """ABSENT → PREPARED. The spec's `linux.cgroupsPath` must lie below the instance's group."""
        self._moving(task.id, TaskEvent.PREPARE)
        self._make(task, self._group_of(task))

    def _group_of(self, task: NewTask) -> str:
        return checked_group(str(task.spec.get("linux", {}).get("cgroupsPath", "")), self._group)

    def _make(self, task: NewTask, group: str, fill: Callable[[Path], None] | None = None) -> None:
        with telling(f"preparing {task.id}"):
            task.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if fill is None and (users := mapped.users_of(task.spec)) is not None:
                fill = partial(mapped.fill, task, users=users[0], first=users[1])
                task = mapped.with_mapped_mounts(task, self.bundles.path(task.id))
            self.bundles.make(task, Record.of(task, group, self._eyes.boot), fill)

    def _begun(self, id: str) -> Bundle:
        """The bundle of a task that is to be created; raises `IllegalMove`."""
        self._moving(id, TaskEvent.CREATE_BEGUN)
        bundle = self.bundles.read(id)
        if bundle is None:
            raise IllegalMove(TaskPhase.ABSENT, TaskEvent.CREATE_BEGUN)
        return bundle

    def _identity(self, pid: int, what: str) -> ProcessId:
        found = ProcessId.of(pid, self._eyes.boot)
        if found is None:
            raise Failed(f"process {pid} of {what} ended while the task was created")
        return found

    # To the end.

    def wait(self, id: str, timeout: float) -> Exit | None:
        """Waits for the monitor's end, which comes right after it wrote the exit.

        Raises `NotFound` for a task that was never created, `MonitorLost` when nobody knows how it ended.
        """
        state = self.state(id)
        if state.phase in ALIVE and state.monitor is not None:
            if not proc.wait_gone(state.monitor, timeout):
                return self._eyes.exit(id)
            state = self.state(id)
        if state.phase is TaskPhase.LOST:
            raise MonitorLost(id)
        if state.phase is not TaskPhase.STOPPED:
            raise NotFound(f"task {id} was not created")
        return state.exit

    def delete(self, id: str) -> Exit | None:
        """Any phase → ABSENT; see the order above."""
        bundle = self.bundles.read(id)
        with telling(f"deleting {id}"):
            if bundle is not None and bundle.record.boot == self._eyes.boot:
                self._end(id, bundle)
            exit = self._eyes.exit(id)
            self._forget(id, bundle)
            self.bundles.remove(id)
            for left in self._eyes.exits.glob(f"{id}.??????"):  # the monitor was killed while it wrote
                left.unlink(missing_ok=True)
            (self._eyes.exits / id).unlink(missing_ok=True)
        return exit

    def _unrecorded(self, id: str) -> Iterator[ProcessId]:
        """The processes of a task that was never completed: known by the bundle on their command line."""
        wanted = {os.fsencode(self.bundles.path(id)), b"--bundle"}
        return (found for found, words in proc.command_lines(self._eyes.boot) if wanted <= words)

    def sweep(self) -> None:
        """Remove the staging folders of killed engines: for a new engine's start."""
        sweep(self.bundles.folder)

    def shutdown(self) -> None:  # noqa: B027 # most drivers have nothing to let go of
        """We hold nothing; tasks go on."""
