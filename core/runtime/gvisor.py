"""The Shim over gVisor's runsc under conmon: an OCI runtime whose tasks have a kernel of their own, the *sentry*.

Rules of this file: what differs from runc is here and nowhere else. The first process of a task, as the node sees it,
is its sentry: a signal meant for the task goes through `runsc kill`, only SIGKILL may meet the sentry itself. Whether a
task has begun or stands still is in runsc's own state file, which is read, not asked for. The sentry and the gofer that
serves it files need memory and threads beside the task's: its limits have that much more.

The network is that of the sandbox's own network namespace (`--network=host` means the namespace that runsc is put
into). gVisor's own stack would take the addresses off the interface: a second container of the sandbox, or the next
attempt of the first, would find none.

Filters of system calls are set by the sentry for the task's own processes, not for further ones (`exec`).
"""

from __future__ import annotations

import json
import os
import signal as signals
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from core import syscalls
from core.clock import Clock
from core.errors import AgentError, MissingTool, TimedOut, Unsupported, from_os_error
from core.proc import ProcessId
from core.process import Launcher, find
from core.runtime import limits
from core.runtime.bundle import Bundle
from core.runtime.monitored import ALIVE
from core.runtime.observing import Eyes, GroupEyes
from core.runtime.oci import MOST_SAID, OciShim, Tools
from core.runtime.ports import ExecSpec, NewTask, TaskPhase

PROGRAM: Final = "runsc"
OWN_MEMORY: Final = 64 << 20
"""Bytes that the sentry and the gofer may use beside the task."""
OWN_THREADS: Final = 256
"""Threads likewise: each of the task's own threads is some of the node's."""
_FILTERS: Final = "--oci-seccomp"
_EVERY: Final = {"allow": True, "access": "rwm"}
"""The rule of a privileged task, which takes what there is."""
_PARTED: Final = "_sandbox:"
_PHASES: Final = {"creating": TaskPhase.CREATED, "created": TaskPhase.CREATED, "paused": TaskPhase.PAUSED}
_MEMORY: Final = ("limit", "reservation", "swap")


class GvisorEyes(GroupEyes):
    """Sees what runsc wrote of a task whose sentry lives."""

    __slots__ = ()

    def _living(self, id: str, bundle: Bundle, first: ProcessId) -> TaskPhase:
        try:
            with open(f"{self.runtime_root}/{id}{_PARTED}{id}.state", "rb") as source:
                status = json.load(source)["status"]
        except (OSError, ValueError, KeyError, TypeError):  # it is just being deleted
            return TaskPhase.RUNNING
        return _PHASES.get(status, TaskPhase.RUNNING)


class GvisorShim(OciShim):
    """Tasks under gVisor; the parameters are those of `OciShim`. `program`: runsc, by name or path."""

    _looking: ClassVar[type[Eyes]] = GvisorEyes
    _network: ClassVar[str] = "host"

    def __init__(
        self, state: Path, group: str, launcher: Launcher, clock: Clock, boot: str, program: str = PROGRAM
    ) -> None:
        super().__init__(
            state, group, launcher, clock, boot, Tools(program, flags=(f"--network={self._network}", _FILTERS))
        )

    def _left(self) -> Iterable[str]:
        return {name.partition(_PARTED)[0] for name in os.listdir(self._eyes.runtime_root) if _PARTED in name}

    def prepare(self, task: NewTask) -> None:
        """ABSENT → PREPARED; raises `Unsupported` for what a sentry cannot give: see `_check`."""
        _check(task.spec.get("linux", {}))
        super().prepare(replace(task, spec=_with_room(task.spec)))

    def _born(self, first: int, group: str) -> Iterable[int]:
        return dict.fromkeys((first, *limits.pids_below(self._found, group)))

    def kill(self, id: str, signal: int, *, everyone: bool = False) -> None:
        """Through the sentry; SIGKILL, and any signal before the task has begun, ends the sentry itself."""
        phase = self.state(id).phase
        if signal == signals.SIGKILL or phase is TaskPhase.CREATED:
            super().kill(id, signals.SIGKILL, everyone=everyone)
        elif phase in ALIVE:
            try:
                self._runtime("kill", *(["--all"] if everyone else []), id, str(int(signal)))
            except AgentError:
                if self.state(id).phase in ALIVE:  # else it ended while we asked
                    raise

    def ask(self, id: str, args: Sequence[str], timeout: float) -> tuple[int, str]:
        """As `OciShim.ask`, with the process described whole: runsc takes nothing over from the first one."""
        with self.exec_command(id, ExecSpec(args)) as argv:
            try:
                done = self._launcher.run(argv, timeout=timeout, limit=MOST_SAID, descendants=True)
            except TimedOut:
                raise TimedOut(f"{args[0]} took longer than {timeout:g} s") from None
        return done.code, done.complaint() if done.stdout or done.stderr else ""

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change limits in place, in the task's group: runsc has no command for it."""
        group = self._living(id).cgroup
        try:
            limits.limit(self._found, group, _roomy(resources))
        except OSError as error:
            raise from_os_error(error, f"limiting {id}") from error

    def why_no_checkpoint(self, *, ending: bool) -> str:
        """gVisor writes its checkpoints itself; the task cannot go on after one.

        Whether a runsc can with the node's network stack it says itself, and the task goes on when it cannot.
        """
        if not ending:
            return "gVisor ends a container by its checkpoint: add --stop"
        try:
            find(self._tools.runtime)
        except MissingTool as error:
            return f"{error.message}: {error.hint()}"
        return ""

    def _writing(self, bundle: Path, folder: Path, *, ending: bool) -> list[str]:
        return ["--image-path", str(folder)]

    def _restoring(self, bundle: Path) -> Sequence[str]:
        return ()

    def _forget(self, id: str, bundle: Bundle | None) -> None:
        if id in self._left():
            self._forced(id)
            for name in os.listdir(self._eyes.runtime_root):
                if name.startswith(f"{id}{_PARTED}"):
                    (self._eyes.runtime_root / name).unlink(missing_ok=True)
        super()._forget(id, bundle)


class LoneGvisorShim(GvisorShim):
    """The same, with a loopback in each sentry that is the task's alone, and no other network.

    Only so can its memory be written down: what a sentry has of the node's network stack cannot.
    """

    _network: ClassVar[str] = "none"

    def prepare(self, task: NewTask) -> None:
        """ABSENT → PREPARED; raises `Unsupported` as above, and for a network that the task would not see."""
        spaces = task.spec.get("linux", {}).get("namespaces", ())
        paths = [one.get("path") for one in spaces if one["type"] == "network"]
        if not paths or (paths[0] and any(name != "lo" for name in interfaces(paths[0]))):
            raise Unsupported(
                "this runtime gives a container no network (options.network is none)",
                advice="Write network: {mode: none}, or take another `runtime`.",
            )
        super().prepare(task)


def interfaces(namespace: str) -> list[str]:
    """The names of the interfaces in a network namespace that is pinned at a path."""
    found: list[str] = []

    def look() -> None:
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        found.extend(name for _, name in socket.if_nameindex())

    syscalls.in_own_thread(look)
    return found


def _check(linux: Mapping[str, Any]) -> None:
    """Raise `Unsupported` for namespaces and devices that a sentry would leave out, or fail on, without a word."""
    spaces = {one["type"]: one.get("path") for one in linux.get("namespaces", ())}
    rules = linux.get("resources", {}).get("devices", ())
    for cannot, asked, field in (
        (bool(spaces.get("pid")), "share a process namespace between containers", "shareProcessNamespace"),
        ("user" in spaces, "join the users of a sandbox", "userNamespace"),
        (
            bool(linux.get("devices")) and not any(rule == _EVERY for rule in rules),
            "open devices of the node",
            "devices",
        ),
    ):
        if cannot:
            raise Unsupported(f"gVisor cannot {asked}", advice=f"Leave out `{field}`, or take another `runtime`.")


def _with_room(spec: Mapping[str, Any]) -> dict[str, Any]:
    linux = spec.get("linux", {})
    return {**spec, "linux": {**linux, "resources": _roomy(linux.get("resources", {}))}}


def _roomy(resources: Mapping[str, Any]) -> dict[str, Any]:
    """The limits with what gVisor itself needs added."""
    whole = dict(resources)
    if memory := resources.get("memory"):
        whole["memory"] = {name: _more(value, OWN_MEMORY if name in _MEMORY else 0) for name, value in memory.items()}
    if pids := resources.get("pids"):
        whole["pids"] = {name: _more(value, OWN_THREADS) for name, value in pids.items()}
    return whole


def _more(value: Any, room: int) -> Any:
    return value + room if room and value > 0 else value
