"""Sandboxes for WASM tasks: a name and a control group, no namespaces, since a module reaches nothing by itself.

A sandbox's folder `<state>/netns/<id>` (0700), where those of other drivers lie too: `sandbox.json`, `object.json`. It
gets its name by rename, whole. It needs no root.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from core import fsio, proc
from core.clock import Clock
from core.errors import Unsupported
from core.proc import ProcessId
from core.runtime.bundle import Bundles, checked_name
from core.runtime.ports import NewSandbox, SandboxPhase, SandboxState, Stats
from core.runtime.sandbox_folders import STOPPED, SandboxFolders
from core.runtime.wasm_groups import Groups

PLATFORM = "wasi/wasm"


class WasmSandboxer(SandboxFolders):
    """Sandboxes for modules."""

    def __init__(self, state: Path, group: str, clock: Clock, boot: str) -> None:
        super().__init__(state, group, clock, boot)
        self._bundles = Bundles(state)
        self._groups = Groups()

    def _check(self, sandbox: NewSandbox) -> None:
        checked_name(sandbox.id)
        if sandbox.network != "none":
            raise Unsupported(f"network mode {sandbox.network!r} for a module", advice="Write network: {mode: none}.")
        if sandbox.share_processes or sandbox.own_users:
            raise Unsupported("a module shares no processes and has no users", advice="Leave such fields out.")

    def _make(self, sandbox: NewSandbox) -> None:
        self._groups.make(self.cgroup(sandbox.id), sandbox.resources)
        with fsio.staging(self._folder, sandbox.id) as work:
            record = {"boot": self._boot, "created": self._clock.wall()}
            for name, data in (("sandbox.json", record), ("object.json", dict(sandbox.object))):
                fsio.write_atomic(work / name, json.dumps(data).encode(), durable=False)
            os.rename(work, self._folder / sandbox.id)

    def platform(self) -> str:
        """What modules are built for."""
        return PLATFORM

    def stop(self, id: str, timeout: float) -> None:
        """SIGTERM to all that runs in it, SIGKILL after `timeout` seconds; harmless when absent."""
        if self.status(id).phase is not SandboxPhase.READY:
            return
        running = self._running(id)
        for one in running:
            one.signal(signal.SIGTERM)
        deadline = self._clock.monotonic() + timeout
        for one in running:
            if not proc.wait_gone(one, max(0.0, deadline - self._clock.monotonic())):
                one.signal(signal.SIGKILL)
        (self._folder / id / STOPPED).touch(mode=0o600)

    def _running(self, id: str) -> list[ProcessId]:
        bundles = (self._bundles.read(task) for task in self._bundles.ids())
        return [one.made.first for one in bundles if one is not None and one.made and one.record.sandbox == id]

    def status(self, id: str) -> SandboxState:
        """READY only with this boot's id."""
        folder = self._folder / checked_name(id)
        if not folder.exists():
            return SandboxState(id, SandboxPhase.ABSENT)
        try:
            record = json.loads((folder / "sandbox.json").read_bytes())
            created, boot = float(record["created"]), record["boot"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return SandboxState(id, SandboxPhase.HALF_MADE)
        if boot != self._boot:
            return SandboxState(id, SandboxPhase.HALF_MADE)
        phase = SandboxPhase.STOPPED if (folder / STOPPED).exists() else SandboxPhase.READY
        return SandboxState(id, phase, cgroup=self.cgroup(id), created=created)

    def shutdown(self, id: str) -> None:
        """Remove processes, groups and files; from any state, as often as wanted."""
        folder = self._folder / checked_name(id)
        if folder.exists():
            for one in self._running(id):
                one.signal(signal.SIGKILL)
        self._groups.remove(self.cgroup(id), self._clock)
        (folder / "sandbox.json").unlink(missing_ok=True)
        fsio.remove_tree(folder)

    def metrics(self, id: str) -> Stats:
        """Counters of all its tasks together; raises `NotFound`."""
        return self._groups.counters(self._existing(id).cgroup) or Stats(0.0, 0, 0, 0)
