"""A further process by a shim: its stdio through fifos of its own, to the caller's terminal or into a bounded buffer.

Rules of this file: the fifos lie in a private folder of the bundle for as long as the process runs. What a person types
has a thread of its own, so that a process that does not read holds up nothing of what it writes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.clock import Clock
from core.errors import AgentError, TimedOut
from core.runtime.further import Wanted
from core.runtime.raw_terminal import STDIN, raw
from core.runtime.shimv2.messages import METHODS
from core.runtime.shimv2.service import CALL_SECONDS, TaskService, packed
from core.runtime.wire import decode
from core.values import dataclass

_READ: Final = 1 << 16
_DRAIN_SECONDS: Final = 1.0
_AFTER_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Running:
    task: TaskService
    wanted: Wanted
    folder: Path
    pid: int = 0
    ended: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC))

    @property
    def name(self) -> str:
        return self.folder.name

    def call(self, method: str, **values: object) -> dict[str, Any]:
        return self.task.call(method, CALL_SECONDS, id=self.wanted.id, exec_id=self.name, **values)


def run(task: TaskService, bundle: Path, wanted: Wanted, clock: Clock) -> int:
    """Run it to its end and return its exit code; raises `TimedOut` (it is killed) and the shim's complaint."""
    with _fifos(bundle) as folder, contextlib.ExitStack() as left:
        running = _Running(task, wanted, folder)
        left.callback(os.close, running.ended)
        names = ("stdout",) if wanted.process["terminal"] else ("stdout", "stderr")
        streams = {os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC): name for name in names}
        for fd in streams:
            left.callback(os.close, fd)
        _begin(running, names)
        left.callback(_forget, running)
        call = task.begin("Wait", id=wanted.id, exec_id=running.name)
        waiter = threading.Thread(target=_signal_end, args=(call.done, running.ended), name="exec-wait", daemon=True)
        waiter.start()
        left.callback(waiter.join)
        left.callback(call.cancel)
        with _typed(running) if wanted.stdin else contextlib.nullcontext():
            _pump(running, streams, clock)
        code: int = decode(METHODS["Wait"][1], call.result(_AFTER_SECONDS))["exit_status"]
        return code & 0xFF


def _begin(running: _Running, names: tuple[str, ...]) -> None:
    paths: dict[str, object] = {name: str(running.folder / name) for name in names}
    if running.wanted.stdin:
        paths["stdin"] = str(running.folder / "stdin")
    process = running.wanted.process
    running.call("Exec", terminal=process["terminal"], spec=packed("Process", process), **paths)
    running.pid = running.call("Start")["pid"]


def _forget(running: _Running) -> None:
    with contextlib.suppress(AgentError):  # the task has ended with all that ran in it
        running.call("Delete")


def _signal_end(done: threading.Event, ended: int) -> None:
    done.wait()
    os.eventfd_write(ended, 1)


@contextlib.contextmanager
def _fifos(bundle: Path) -> Iterator[Path]:
    folder = bundle / f"exec-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        for name in ("stdin", "stdout", "stderr"):
            os.mkfifo(folder / name, 0o600)
        yield folder
    finally:
        fsio.remove_tree(folder)
        (bundle / f"{folder.name}.pid").unlink(missing_ok=True)  # which the shim wrote


def _pump(running: _Running, streams: dict[int, str], clock: Clock) -> None:
    poller = select.poll()
    for fd in (*streams, running.ended):
        poller.register(fd, select.POLLIN)
    limit = running.wanted.timeout
    deadline = None if limit is None else clock.monotonic() + limit
    over = False
    going = dict(streams)
    while going or not over:
        ready = poller.poll(None if deadline is None else max(0.0, deadline - clock.monotonic()) * 1000)
        if not ready and over:
            return
        if not ready:
            _kill(running)
            raise TimedOut(f"{running.wanted.process['args'][0]} took longer than {limit:g} s")
        for fd, _ in ready:
            if fd == running.ended:
                over, deadline = True, clock.monotonic() + _DRAIN_SECONDS
                poller.unregister(fd)
            elif not _pass_on(running.wanted, fd, going[fd]):
                poller.unregister(fd)
                del going[fd]


def _pass_on(wanted: Wanted, fd: int, stream: str) -> bool:
    data = os.read(fd, _READ)
    if data:
        (wanted.out if stream == "stdout" else wanted.err)(data)
    return bool(data)


def _kill(running: _Running) -> None:
    # What it started first: they would be nobody's children once it is gone.
    for pid in (*_below(running.pid), running.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended at this moment
            for child in map(int, thread.read_text().split()):
                found += [child, *_below(child)]
    return found


# A person at a terminal.


@contextlib.contextmanager
def _typed(running: _Running) -> Iterator[None]:
    over = os.eventfd(0, os.EFD_CLOEXEC)
    typing = threading.Thread(target=_type, args=(running, over), name="exec-stdin", daemon=True)
    with raw(partial(_resized, running)) if running.wanted.process["terminal"] else contextlib.nullcontext():
        typing.start()
        try:
            yield
        finally:
            os.eventfd_write(over, 1)
            typing.join()
            os.close(over)


def _type(running: _Running, over: int) -> None:
    poller = select.poll()
    poller.register(STDIN, select.POLLIN)
    poller.register(over, select.POLLIN)
    with contextlib.suppress(OSError), open(running.folder / "stdin", "r+b", buffering=0) as sink:
        os.set_blocking(sink.fileno(), False)
        while not any(fd == over for fd, _ in poller.poll()) and (data := os.read(STDIN, _READ)):
            if not _write(sink.fileno(), data, over):
                return
    with contextlib.suppress(AgentError):  # it has ended
        running.call("CloseIO", stdin=True)


def _write(sink: int, data: bytes, over: int) -> bool:
    """False when the process ended before it had read all."""
    poller = select.poll()
    poller.register(sink, select.POLLOUT)
    poller.register(over, select.POLLIN)
    while data:
        if any(fd == over for fd, _ in poller.poll()):
            return False
        data = data[os.write(sink, data) :]
    return True


def _resized(running: _Running, columns: int, rows: int) -> None:
    with contextlib.suppress(AgentError):  # it has ended
        running.call("ResizePty", width=columns, height=rows)
