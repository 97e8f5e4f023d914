"""The minder of one task: a small process that outlives the agent, writes the log and records the exit.

A shim gives output to fifos and tells of an exit to whoever waits. The minder reads the fifos into a log in the CRI
format, waits, and writes the exit file just as conmon does for other runtimes; then it ends. When the shim ends first,
the minder ends without an exit file: then nobody knows how the task ended, and it is seen at once that nobody does.

It is started before the task is created (a shim waits for a reader of its fifos), says its number when it is ready,
and waits for a word from the engine that it is created; when the engine dies before that, it ends. SIGHUP: open
the log by its name again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from core import cgroups
from core.clock import Clock, SystemClock
from core.errors import AgentError
from core.runtime import limits, wire
from core.runtime.shimv2 import bootstrap, messages
from core.runtime.shimv2.service import talking
from core.runtime.ttrpc.server import Server

OUTPUTS: Final = ("stdout", "stderr")
_READ: Final = 1 << 16
_MOST_PIECE: Final = 16 << 10
_DRAIN_SECONDS: Final = 2.0
_BATCH: Final = 64 << 10
"""Bytes written to a log at once."""


class CriLog:
    """A log in the CRI format (see `core.runtime.logs`). Over `limit` bytes it is begun anew: the last dam."""

    def __init__(self, path: Path, limit: int, clock: Clock) -> None:
        self._path = path
        self._limit = limit
        self._clock = clock
        self._fd = self._opened()

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def reopen(self) -> None:
        """Go on in a new file of its name. Safe in the middle of a write: the number of the descriptor stays."""
        fresh = self._opened()
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)

    def write(self, stream: str, data: bytes) -> None:
        """What came on a stream: whole lines, and as a piece what has no newline yet."""
        stamp = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="microseconds")
        batch = b""
        for line in self._lines(f"{stamp} {stream} ".encode(), data):  # short lines grow twentyfold by their heads
            if len(batch) + len(line) > _BATCH:
                self._put(batch)
                batch = b""
            batch += line
        self._put(batch)

    @staticmethod
    def _lines(head: bytes, data: bytes) -> list[bytes]:
        *whole, rest = data.split(b"\n")
        lines = [part for line in whole for part in _pieces(head, line, last=b"F ")]
        return lines + (_pieces(head, rest, last=b"P ") if rest else [])

    def _put(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk: the task goes on without its log, and may come back to it
            if os.fstat(self._fd).st_size + len(data) > self._limit:
                os.ftruncate(self._fd, 0)
            os.write(self._fd, data)


def _pieces(head: bytes, line: bytes, last: bytes) -> list[bytes]:
    cut = [line[at : at + _MOST_PIECE] for at in range(0, len(line), _MOST_PIECE)] or [b""]
    return [b"%sP %s\n" % (head, piece) for piece in cut[:-1]] + [b"%s%s%s\n" % (head, last, cut[-1])]


class Minder:
    """One task's. `engine`: the descriptor on which the engine says that the task was created."""

    def __init__(self, bundle: Path, exits: Path, group: str, log: CriLog, clock: Clock) -> None:
        self._bundle = bundle
        self._exits = exits
        self._group = group
        self._log = log
        self._clock = clock
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._said: dict[str, Any] | None = None

    def run(self, engine: int) -> None:
        """From before the task's creation to after its end."""
        server = Server(self._bundle / bootstrap.EVENTS, {messages.FORWARD: self._event})
        streams = {os.open(self._bundle / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC): name for name in OUTPUTS}
        os.write(1, b"%d\n" % os.getpid())
        if os.read(engine, 1):
            threading.Thread(target=self._wait, name="wait", daemon=True).start()
            self._read(streams)
        if self._said is not None:
            self._record(self._said)
        server.close()

    def _event(self, payload: bytes) -> bytes:
        envelope = wire.decode(messages.FORWARD_REQUEST, payload)["envelope"]
        if envelope is not None and envelope["topic"] == messages.OOM_TOPIC and envelope["event"] is not None:
            told = wire.decode(messages.TASK_OOM, envelope["event"]["value"])
            if told["container_id"] == self._bundle.name:
                (self._bundle / "oom").touch(mode=0o600)
        return b""

    def _wait(self) -> None:
        # An AgentError: the shim is gone, and with it the knowledge of how the task ended.
        with contextlib.suppress(AgentError), talking(bootstrap.kept(self._bundle)) as task:
            self._said = task.wait(self._bundle.name)
        os.eventfd_write(self._ended, 1)

    def _read(self, streams: dict[int, str]) -> None:
        poller = select.poll()
        for fd in (*streams, self._ended):
            poller.register(fd, select.POLLIN)
        deadline: float | None = None
        while streams or deadline is None:
            patience = None if deadline is None else max(0.0, deadline - self._clock.monotonic()) * 1000
            ready = poller.poll(patience)
            if not ready:
                break
            for fd, _ in ready:
                if fd == self._ended:
                    poller.unregister(fd)
                    deadline = self._clock.monotonic() + _DRAIN_SECONDS
                    ready += [(left, 0) for left in streams]  # a fifo that nobody ever wrote to says nothing by itself
                elif fd in streams and not self._take(fd, streams[fd]):
                    poller.unregister(fd)
                    del streams[fd]

    def _take(self, fd: int, stream: str) -> bool:
        """Whether the stream goes on."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return True
        if data:
            self._log.write(stream, data)
        return bool(data)

    def _record(self, said: dict[str, Any]) -> None:
        seen = limits.counters(cgroups.hierarchies(), self._group)
        if seen is not None and seen.oom_kills:
            (self._bundle / "oom").touch(mode=0o600)
        at = said["exited_at"] or {"seconds": 0, "nanos": 0}
        when = at["seconds"] + at["nanos"] / 1e9 if at["seconds"] > 0 else self._clock.wall()
        aside = self._exits / f"{self._bundle.name}.{secrets.token_hex(3)}"
        aside.write_text(str(said["exit_status"] & 0xFF))
        os.utime(aside, (when, when))
        os.rename(aside, self._exits / self._bundle.name)


def main(bundle: str, exits: str, group: str, log: str, log_limit: str) -> None:
    """Mind the task whose bundle that is, as nobody's child."""
    if os.fork():
        os._exit(0)
    clock = SystemClock()
    written = CriLog(Path(log), int(log_limit), clock)
    signal.signal(signal.SIGHUP, lambda number, frame: written.reopen())
    Minder(Path(bundle), Path(exits), group, written, clock).run(0)
