"""A further process in a machine: its stdio over the monitor's connection, to the caller's own or into a sink."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Final

from core.clock import Clock
from core.errors import AgentError, TimedOut
from core.runtime.further import Wanted
from core.runtime.raw_terminal import STDIN, raw
from core.runtime.vm.frames import WINDOW, Frame, Kind
from core.runtime.vm.link import CALL_SECONDS, Link

_IN: Final = 1
_OUT: Final = 2
_ERR: Final = 3
_CHUNK: Final = 32 << 10


class _Running:
    def __init__(self, link: Link, wanted: Wanted, clock: Clock) -> None:
        self.link = link
        self.wanted = wanted
        self.clock = clock
        self.code = -1
        self.credit = WINDOW
        self.typing = wanted.stdin
        terminal = bool(wanted.process["terminal"])
        streams = {"stdin": _IN if wanted.stdin else 0, "stdout": _OUT, "stderr": 0 if terminal else _ERR}
        said = link.call("exec", CALL_SECONDS, id=wanted.id, process=wanted.process, **streams)
        self.exec = int(said["exec"])

    def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(AgentError):  # it has ended
            self.link.call("resize", exec=self.exec, columns=columns, rows=rows)

    def pump(self) -> int:
        limit = self.wanted.timeout
        until = None if limit is None else self.clock.monotonic() + limit
        while self.code < 0:
            left = None if until is None else until - self.clock.monotonic()
            if left is not None and left <= 0:
                self.link.call("signal", exec=self.exec, signal=9)
                raise TimedOut(f"{self.wanted.process['args'][0]} took longer than {limit:g} s")
            watched = [self.link.fileno(), *((STDIN,) if self.typing and self.credit > 0 else ())]
            ready = select.select(watched, [], [], 1.0 if left is None else min(left, 1.0))[0]
            if STDIN in ready:
                self._type()
            for frame in self.link.frames(0.0):
                self._take(frame)
        return self.code

    def _type(self) -> None:
        data = os.read(STDIN, min(_CHUNK, self.credit))
        self.credit -= len(data)
        self.typing = bool(data)
        self.link.write(_IN, data)

    def _take(self, frame: Frame) -> None:
        match frame.kind, frame.stream:
            case Kind.DATA, (2 | 3) as stream:
                (self.wanted.out if stream == _OUT else self.wanted.err)(frame.payload)
                self.link.taken(stream, len(frame.payload))
            case Kind.MORE, _:
                self.credit += frame.credit()
            case Kind.EVENT, _:
                self.code = int(frame.json()["code"]) & 0xFF
            case _:
                pass


def run(link: Link, wanted: Wanted, clock: Clock) -> int:
    """Run it to its end and return its exit code; raises `TimedOut` (it is killed) and the guest's complaint."""
    running = _Running(link, wanted, clock)
    terminal = wanted.process["terminal"] and wanted.stdin
    with raw(running.resize) if terminal else contextlib.nullcontext():
        return running.pump()
