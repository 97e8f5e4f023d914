"""The end of a shim: dismissed when it lives, killed when it does not listen, cleaned up after when it is dead.

Rules of this file: works from any point at which it was broken off before. When it returns, the shim is gone, and only
then may its bundle be removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import proc
from core.errors import AgentError, Busy, NotFound
from core.proc import ProcessId
from core.process import Launcher
from core.runtime.shimv2 import bootstrap
from core.runtime.shimv2.bootstrap import Address, Caller
from core.runtime.shimv2.messages import FORWARD
from core.runtime.shimv2.service import talking
from core.runtime.ttrpc.server import Server

RECORD: Final = "shim.json"
_WAIT_SECONDS: Final = 2.0
_END_SECONDS: Final = 5.0


def end_shim(launcher: Launcher, caller: Caller, bundle: Path, boot: str, runtime_state: Path | None) -> None:
    """End the shim of a bundle whose task has no process any more.

    `runtime_state`: the folder that is gone when nothing is left to clean up; None when that cannot be seen.
    """
    with _listening(bundle):
        patience = 0.0
        with contextlib.suppress(AgentError):  # it is dead, or hangs: then it is ended below
            _dismiss(bundle)
            patience = _END_SECONDS
        for process in processes_of(caller, bundle, boot):
            if not proc.wait_gone(process, patience) and process.signal(signal.SIGKILL):
                proc.wait_gone(process, _END_SECONDS)
                patience = 0
    # Nothing to complain about: its program may be gone, or nothing left for it to do. All that we know of goes anyway.
    with contextlib.suppress(AgentError):
        if runtime_state is None or runtime_state.exists():
            bootstrap.delete(launcher, caller, bundle.name, bundle)
    with contextlib.suppress(AgentError):
        _remove_socket(bootstrap.kept(bundle))


@contextlib.contextmanager
def _listening(bundle: Path) -> Iterator[None]:
    """Take a shim's last events, for nobody: with nobody there it would try for seconds before it ends."""
    server = Server(bundle / bootstrap.EVENTS, {FORWARD: lambda _: b""})
    try:
        yield
    finally:
        server.close()


def _dismiss(bundle: Path) -> None:
    """Have a shim that lives forget its task and end."""
    id = bundle.name
    with talking(bootstrap.checked(bootstrap.kept(bundle)), _WAIT_SECONDS) as task:
        with contextlib.suppress(NotFound):  # it never came to be
            task.call("Wait", _WAIT_SECONDS, id=id)
            with contextlib.suppress(Busy):
                task.call("Delete", id=id)
        task.call("Shutdown", _WAIT_SECONDS, id=id)


def processes_of(caller: Caller, bundle: Path, boot: str) -> list[ProcessId]:
    """The shim of a bundle; and shim and minder of one that was never recorded: known by their command lines."""
    found = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        found.append(ProcessId.from_json(json.loads((bundle / RECORD).read_bytes())))
    shim = {os.fsencode(word) for word in (caller.namespace, caller.address, bundle.name)}
    minder = {os.fsencode(bundle), b"-I", b"-S"}
    for one, words in proc.command_lines(boot):
        if one not in found and (shim <= words or minder <= words):
            found.append(one)
    return found


def _remove_socket(address: Address) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(address.path.lstat().st_mode):
            address.path.unlink()
