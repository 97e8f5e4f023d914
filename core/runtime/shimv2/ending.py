"""The end of a shim: dismissed when it lives, killed when it does not listen, cleaned up after when it is dead.

Rules of this file: works from any point at which it was broken off before. When it returns, the shim is gone, and only
then may its bundle be removed. Of a shim that a whole sandbox shares a task only takes its leave; when that shim does
not answer, nothing that it holds does, and it is killed for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from core import fsio, proc
from core.errors import AgentError, Busy, NotFound, TimedOut, Unavailable
from core.proc import ProcessId
from core.process import Launcher
from core.runtime.shimv2 import bootstrap
from core.runtime.shimv2.bootstrap import Address, Caller
from core.runtime.shimv2.messages import FORWARD
from core.runtime.shimv2.service import SandboxService, TaskService, connected, talking
from core.runtime.ttrpc.server import Server
from core.values import dataclass

_RECORD: Final = "shim.json"
_WAIT_SECONDS: Final = 2.0
_END_SECONDS: Final = 5.0
_KILL: Final = int(signal.SIGKILL)


def record(shim: ProcessId, bundle: Path) -> None:
    """Write down in a bundle which process is its shim."""
    fsio.write_atomic(bundle / _RECORD, json.dumps(shim.to_json()).encode(), durable=False)


def recorded(bundle: Path | None) -> ProcessId | None:
    """The shim of a bundle; None when it has none of its own, or none yet."""
    if bundle is not None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return ProcessId.from_json(json.loads((bundle / _RECORD).read_bytes()))
    return None


@dataclass(frozen=True, slots=True)
class Ending:
    """What is to end: the shim of task or sandbox `id` in `bundle`. `shared`: the bundle of a task's sandbox's shim."""

    launcher: Launcher
    caller: Caller
    bundle: Path
    id: str
    boot: str
    shared: Path | None = None

    def task(self, runtime_state: Path | None) -> None:
        """End the shim of a task that has no process any more, or take leave of its sandbox's.

        `runtime_state`: the folder that is gone when nothing is left to clean up; None when that cannot be seen.
        Raises `TimedOut` when the shim does not die, or answers everything but this.
        """
        dead = self._left() if self.shared is not None else self._ended(self._dismiss)
        if dead and (runtime_state is None or runtime_state.exists()):
            self._clean_up()
        if self.shared is None:
            self._remove_socket()

    def sandbox(self) -> None:
        """End the shim of a sandbox, with all that is in it. Raises `TimedOut` when it does not die."""
        self._ended(self._shut_down)
        self._clean_up()
        self._remove_socket()

    def _clean_up(self) -> None:
        """By the shim's own `delete`; one that never said where it listens was never asked for anything."""
        if not bootstrap.has_said(self.bundle):
            return
        # Nothing to complain about: its program may be gone, or nothing left for it to do. All we know of goes anyway.
        with contextlib.suppress(AgentError):
            bootstrap.delete(self.launcher, self.caller, self.id, self.bundle)

    # A shim of its own.

    def _ended(self, ask: Callable[[], None]) -> bool:
        with _listening(self.bundle):
            patience = 0.0
            with contextlib.suppress(AgentError):  # it is dead, or hangs: then it is ended below
                ask()
                patience = _END_SECONDS
            for process in processes_of(self.caller, self.bundle, self.id, self.boot):
                if not proc.wait_gone(process, patience):
                    patience = 0
                    _kill(process)
        return True

    def _dismiss(self) -> None:
        with talking(bootstrap.checked(bootstrap.kept(self.bundle)), _WAIT_SECONDS) as task:
            _forget(task, self.id)
            task.call("Shutdown", _WAIT_SECONDS, id=self.id)

    def _shut_down(self) -> None:
        address = bootstrap.checked(bootstrap.kept(self.bundle))
        with connected(address, _WAIT_SECONDS) as client:
            SandboxService(client).call("ShutdownSandbox", _END_SECONDS, sandbox_id=self.id)
            with contextlib.suppress(AgentError):  # it has ended by that already
                TaskService(client, address.version).call("Shutdown", _WAIT_SECONDS, id=self.id, now=True)

    def _remove_socket(self) -> None:
        with contextlib.suppress(AgentError):
            _remove_socket(bootstrap.kept(self.bundle))

    # A shim that others need too.

    def _left(self) -> bool:
        """Whether the sandbox's shim is dead."""
        for minder in minders_of(self.bundle, self.boot):
            _kill(minder)
        try:
            with talking(bootstrap.checked(bootstrap.kept(self.bundle)), _WAIT_SECONDS) as task:
                self._take_leave(task)
        except (Unavailable, NotFound):  # nobody listens
            self._kill_shared()
            return True
        except TimedOut as error:
            if self._answers():
                raise TimedOut(f"the shim of its sandbox does not let go of {self.id}: {error.message}") from error
            self._kill_shared()
            return True
        return False

    def _take_leave(self, task: TaskService) -> None:
        with contextlib.suppress(NotFound):
            with contextlib.suppress(AgentError):  # it has ended
                task.call("Kill", _WAIT_SECONDS, id=self.id, signal=_KILL, all=True)
            _forget(task, self.id)

    def _answers(self) -> bool:
        try:
            with talking(bootstrap.kept(self.bundle), _WAIT_SECONDS) as task:
                task.call("Connect", _WAIT_SECONDS, id=self.id)
        except (Unavailable, TimedOut):
            return False
        except AgentError:
            return True
        return True

    def _kill_shared(self) -> None:
        shim = recorded(self.shared)
        if shim is not None and shim.alive(self.boot):
            _kill(shim)


def _forget(task: TaskService, id: str) -> None:
    """Have a shim that lives forget its task."""
    with contextlib.suppress(NotFound):  # it never came to be
        task.call("Wait", _WAIT_SECONDS, id=id)
        with contextlib.suppress(Busy):
            task.call("Delete", id=id)


def _kill(process: ProcessId) -> None:
    if process.signal(signal.SIGKILL) and not proc.wait_gone(process, _END_SECONDS):
        raise TimedOut(f"process {process.pid} does not die; its bundle stays as long as it lives")


@contextlib.contextmanager
def _listening(bundle: Path) -> Iterator[None]:
    """Take a shim's last events, for nobody: with nobody there it would try for seconds before it ends."""
    server = Server(bundle / bootstrap.EVENTS, {FORWARD: lambda _: b""})
    try:
        yield
    finally:
        server.close()


def processes_of(caller: Caller, bundle: Path, id: str, boot: str) -> list[ProcessId]:
    """The shim of a bundle; and shim and minder of one that was never recorded: known by their command lines."""
    found = [shim] if (shim := recorded(bundle)) is not None else []
    words = {os.fsencode(word) for word in (caller.namespace, caller.address, id)}
    for one, said in proc.command_lines(boot):
        if one not in found and (words <= said or _minds(bundle) <= said):
            found.append(one)
    return found


def minders_of(bundle: Path, boot: str) -> list[ProcessId]:
    """The minder of a bundle, recorded or not."""
    return [one for one, said in proc.command_lines(boot) if _minds(bundle) <= said]


def _minds(bundle: Path) -> set[bytes]:
    return {os.fsencode(bundle), b"-I", b"-S"}


def _remove_socket(address: Address) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(address.path.lstat().st_mode):
            address.path.unlink()
