"""What all drivers share whose sandboxes are a folder each, `<state>/netns/<id>`, that gets its name by rename, whole.

A sandbox is stopped when a file says so: nothing has to run in it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import fsio
from core.clock import Clock
from core.errors import NotFound, from_os_error
from core.runtime.bundle import checked_name, sweep
from core.runtime.ports import NewSandbox, SandboxPhase, SandboxState

STOPPED: Final = "stopped"


class SandboxFolders(ABC):
    """The half of the Sandboxer port that is the same for every such driver.

    `state`, `group`, `boot`: as for `OciShim`; a sandbox's group `<group>/<id>` is the parent of its tasks' groups.
    """

    def __init__(self, state: Path, group: str, clock: Clock, boot: str) -> None:
        self._folder = fsio.make_private(state / "netns")
        self._group = group
        self._clock = clock
        self._boot = boot

    # What a driver adds.

    @abstractmethod
    def _check(self, sandbox: NewSandbox) -> None:
        """Raise `Invalid` or `Unsupported` for what cannot be made; changes nothing."""

    @abstractmethod
    def _make(self, sandbox: NewSandbox) -> None:
        """Make it, its group first; raises `OSError`."""

    @abstractmethod
    def status(self, id: str) -> SandboxState:
        """READY only with this boot's id and all of it in place; anything less that is there is HALF_MADE."""

    @abstractmethod
    def shutdown(self, id: str) -> None:
        """Remove every trace; from any state, as often as wanted."""

    # The rest.

    def create(self, sandbox: NewSandbox) -> SandboxState:
        """Make or adopt. Raises `Invalid`, `Unsupported`, and the class of an `OSError` of the kernel's."""
        self._check(sandbox)
        seen = self._there(sandbox.id)
        if seen.phase in (SandboxPhase.READY, SandboxPhase.STOPPED):
            return seen
        if seen.phase is not SandboxPhase.ABSENT:
            self.shutdown(sandbox.id)
        try:
            self._make(sandbox)
        except OSError as error:
            raise from_os_error(error, f"making sandbox {sandbox.id}") from error
        return self._there(sandbox.id)

    def _there(self, id: str) -> SandboxState:
        """What `create` made, whether it was started or not: the same, where nothing has to be started."""
        return self.status(id)

    def cgroup(self, id: str) -> str:
        """The group that is the parent of the groups of its tasks."""
        return f"{self._group}/{checked_name(id)}"

    def start(self, id: str) -> SandboxState:
        """Nothing has to run in it; one that was stopped is READY again. Raises `NotFound`."""
        self._existing(id)
        (self._folder / id / STOPPED).unlink(missing_ok=True)
        return self.status(id)

    def _existing(self, id: str) -> SandboxState:
        state = self.status(id)
        if state.phase not in (SandboxPhase.READY, SandboxPhase.STOPPED):
            raise NotFound(f"sandbox {id} is {state.phase}")
        return state

    def wait(self, id: str, timeout: float) -> bool:
        """True when it is stopped or gone within `timeout` seconds."""
        deadline = self._clock.monotonic() + timeout
        while self.status(id).phase is SandboxPhase.READY:
            if self._clock.monotonic() >= deadline:
                return False
            self._clock.sleep(min(0.1, timeout))
        return True

    def ping(self, id: str) -> bool:
        """Whether it is READY: there is nothing in it that could fail to answer."""
        return self.status(id).phase is SandboxPhase.READY

    def sandboxes(self) -> Iterator[str]:
        """The ids of which a folder is there."""
        yield from sorted(name for name in os.listdir(self._folder) if not name.startswith("."))

    def sweep(self) -> None:
        """Remove what killed engines left half-made; leaves what another process is making."""
        sweep(self._folder)
