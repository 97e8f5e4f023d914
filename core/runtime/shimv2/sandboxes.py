"""Sandboxes made by a shim's own sandbox service (containerd, docs/sandbox-api.md): one shim, all tasks of a sandbox.

Rules of this file: the pinned namespaces and files are there as for every sandbox (the network is joined to them, and
the shim is told where they are); beside them, in `<state>/netns/<id>/shim`, is the bundle of the sandbox's shim. It is
started and asked in `start`, after the network is there. Until it has said yes the sandbox is HALF_MADE, and so it is
again when its shim is gone: nothing that ran in it runs any more. One that was stopped gets a new shim.

A task finds its sandbox's shim by that bundle, writes the sandbox's id into its own (`sandbox`) and goes there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.clock import Clock
from core.errors import AgentError, Failed, NotFound, TimedOut, Unsupported
from core.proc import ProcessId
from core.process import Launcher
from core.runtime import placing
from core.runtime.bundle import checked_name
from core.runtime.ports import NewSandbox, SandboxPhase, SandboxState, Stats
from core.runtime.sandboxes import OciSandboxer
from core.runtime.shimv2 import bootstrap, ending, metering
from core.runtime.shimv2.bootstrap import Caller
from core.runtime.shimv2.complaints import explained
from core.runtime.shimv2.program import ShimProgram
from core.runtime.shimv2.service import CREATE_SECONDS, SandboxService, TaskService, connected

_BUNDLE: Final = "shim"
_STARTED: Final = "started.json"
_MARK: Final = "sandbox"
_MORE_SECONDS: Final = 10.0
_PING_SECONDS: Final = 3.0
_GROUP: Final = "io.containerd.runc.v2.group"


def caller(program: ShimProgram, state: Path, group: str) -> Caller:
    """Who we are to the shims of an instance, whether they are of tasks or of sandboxes."""
    return Caller(program.program, group.strip("/").replace("/", "-"), str(state / "shims"))


def join(state: Path, sandbox: str, bundle: Path) -> bool:
    """Have the task of `bundle` go to the shim of its sandbox; False when the sandbox has none."""
    try:
        address = bootstrap.kept(state / "netns" / checked_name(sandbox) / _BUNDLE)
    except NotFound:
        return False
    fsio.write_atomic(bundle / _MARK, sandbox.encode(), durable=False)
    bootstrap.keep(address, bundle)
    return True


def joined(state: Path, bundle: Path) -> Path | None:
    """The bundle of the shim that the task of `bundle` shares; None when it has one of its own."""
    sandbox = fsio.read_if_there(bundle / _MARK, 1 << 10)
    return None if sandbox is None else state / "netns" / checked_name(sandbox.decode()) / _BUNDLE


class ShimSandboxer(OciSandboxer):
    """Sandboxes by the service of `program`. The other parameters are those of `OciShim`."""

    def __init__(
        self, state: Path, group: str, launcher: Launcher, clock: Clock, boot: str, program: ShimProgram
    ) -> None:
        super().__init__(state, group, clock, boot)
        self._launcher = launcher
        self._program = program
        self._caller = caller(program, state, group)

    # What is there.

    def status(self, id: str) -> SandboxState:
        """READY when it was started and its shim lives; nothing is asked."""
        seen = super().status(id)
        if seen.phase is not SandboxPhase.READY:
            return seen
        shim = self._started(id)
        if shim is None or not shim.alive(self._boot):
            return replace(seen, phase=SandboxPhase.HALF_MADE)
        return replace(seen, pid=shim)

    def _there(self, id: str) -> SandboxState:
        return super().status(id)

    def _bundle(self, id: str) -> Path:
        return self._folder / checked_name(id) / _BUNDLE

    def _started(self, id: str) -> ProcessId | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return ProcessId.from_json(json.loads((self._folder / id / _STARTED).read_bytes()))
        return None

    @contextlib.contextmanager
    def _asking(self, id: str) -> Iterator[SandboxService]:
        """A connection to a sandbox's shim; what it complains of is raised in words that say what to do."""
        bundle = self._bundle(id)
        try:
            with connected(bootstrap.checked(bootstrap.kept(bundle))) as client:
                yield SandboxService(client)
        except AgentError as error:
            raise explained(error, self._program.program, bundle) from error

    # From nothing to running.

    def _make(self, sandbox: NewSandbox) -> None:
        super()._make(sandbox)
        spec = {
            "ociVersion": "1.0.2",
            "hostname": sandbox.hostname,
            "annotations": {_GROUP: sandbox.id},
            "linux": {"cgroupsPath": self.cgroup(sandbox.id), "resources": dict(sandbox.resources)},
        }
        fsio.write_atomic(self._folder / sandbox.id / "config.json", json.dumps(spec).encode(), durable=False)

    def start(self, id: str) -> SandboxState:
        """Start its shim and ask it for the sandbox; a shim that an earlier engine left half asked is ended first.

        Raises `NotFound`, the shim's complaint, and `Unsupported` when the shim has no sandbox service.
        """
        if self.status(id).phase is SandboxPhase.READY:
            return self.status(id)
        pins = self._there(id)
        if pins.phase not in (SandboxPhase.READY, SandboxPhase.STOPPED):
            raise NotFound(f"sandbox {id} is {pins.phase}")
        self._end(id)
        try:
            shim = self._launch(id, pins)
        except AgentError:
            self._end(id)
            raise
        fsio.write_atomic(self._folder / id / _STARTED, json.dumps(shim.to_json()).encode(), durable=False)
        return super().start(id)

    def _launch(self, id: str, pins: SandboxState) -> ProcessId:
        bundle = fsio.make_private(self._bundle(id))
        (bundle / "rootfs").mkdir(mode=0o755)
        spec = (self._folder / id / "config.json").read_bytes()
        fsio.write_atomic(bundle / "config.json", spec, durable=False)
        address = bootstrap.start(self._launcher, self._caller, id, bundle)
        with connected(address) as client:
            shim = self._shim(id, TaskService(client, address.version))
            placing.move_out(self._found, self._group, shim.pid)
            ending.record(shim, bundle)
        with self._asking(id) as service:
            self._ask(service, id, pins, json.loads(spec)["annotations"])
        return shim

    def _shim(self, id: str, task: TaskService) -> ProcessId:
        """Its process: as it says itself, or as its command line does where it has nothing to say without a task."""
        with contextlib.suppress(AgentError):
            said = ProcessId.of(task.call("Connect", id=id)["shim_pid"], self._boot)
            if said is not None:
                return said
        found = ending.processes_of(self._caller, self._bundle(id), id, self._boot)
        if not found:
            raise Failed(f"the shim {self._program.program} ended at once")
        return found[0]

    def _ask(self, service: SandboxService, id: str, pins: SandboxState, notes: dict[str, str]) -> None:
        wanted: dict[str, Any] = {"bundle_path": str(self._bundle(id)), "annotations": notes}
        wanted |= {"netns_path": pins.namespaces.get("network", ""), "options": self._program.any(self._folder)}
        try:
            service.call("CreateSandbox", CREATE_SECONDS, sandbox_id=id, **wanted)
        except Unsupported as error:
            advice = "Take `sandbox: service` out of the runtime's options in the configuration."
            raise Unsupported(f"{self._program.program} has no sandbox service", advice=advice) from error
        with contextlib.suppress(Unsupported):  # it has the node's own
            told = service.call("Platform", sandbox_id=id)["platform"]
            if told is not None and f"{told['os']}/{told['architecture']}" != self.platform():
                raise Failed(f"the shim runs {told['os']}/{told['architecture']}, not {self.platform()}")
        service.call("StartSandbox", CREATE_SECONDS, sandbox_id=id)

    # While it runs.

    def ping(self, id: str) -> bool:
        """Whether the shim says that it answers."""
        if self.status(id).phase is not SandboxPhase.READY:
            return False
        try:
            with self._asking(id) as service:
                service.call("PingSandbox", _PING_SECONDS, sandbox_id=id)
        except AgentError:
            return False
        return True

    def wait(self, id: str, timeout: float) -> bool:
        """True when it has ended, by itself or by us, within `timeout` seconds."""
        if self.status(id).phase is not SandboxPhase.READY:
            return True
        try:
            with self._asking(id) as service:
                service.call("WaitSandbox", timeout, sandbox_id=id)
        except TimedOut:
            return self.status(id).phase is not SandboxPhase.READY
        except AgentError:
            return super().wait(id, 0)
        return True

    def metrics(self, id: str) -> Stats:
        """What the shim counts; what its control group does, where the shim does not tell. Raises `NotFound`."""
        if self._existing(id).phase is SandboxPhase.READY:
            with contextlib.suppress(AgentError), self._asking(id) as service:
                told = service.call("SandboxMetrics", sandbox_id=id)["metrics"]
                return metering.read(None if told is None else told["data"])
        return super().metrics(id)

    # To the end.

    def stop(self, id: str, timeout: float) -> None:
        """End the processes that are seen, then the sandbox, in `timeout` seconds each; one that hangs is killed."""
        if self.status(id).phase is not SandboxPhase.READY:
            return
        super().stop(id, timeout)
        try:
            with self._asking(id) as service:
                service.call("StopSandbox", timeout + _MORE_SECONDS, sandbox_id=id, timeout_secs=max(1, round(timeout)))
        except AgentError:  # it is dead, or will not
            self._end(id)

    def shutdown(self, id: str) -> None:
        """Remove every trace: the shim first."""
        self._end(id)
        super().shutdown(id)

    def _end(self, id: str) -> None:
        (self._folder / checked_name(id) / _STARTED).unlink(missing_ok=True)
        bundle = self._bundle(id)
        if bundle.is_dir():
            ending.Ending(self._launcher, self._caller, bundle, id, self._boot).sandbox()
            fsio.remove_tree(bundle)
