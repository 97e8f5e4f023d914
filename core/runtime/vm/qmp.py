"""QMP as the monitor needs it: commands in their order, one at a time, each with a callback; events.

Follows QEMU's protocol (docs/interop/qmp-spec): JSON objects, a line each; a greeting first, then `qmp_capabilities`.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from core.runtime.vm.peers import Peer

Answer = Callable[[Mapping[str, Any]], None]
"""Given {"return": …} or {"error": {"desc": …}}."""


class Qmp:
    """The machine's own control."""

    def __init__(self, link: socket.socket) -> None:
        self.peer = Peer(link)
        self._held = b""
        self._asked: deque[tuple[str, Mapping[str, Any], Answer]] = deque()
        self._running: Answer | None = None
        self._greeted = False
        self._events: dict[tuple[str, str], Callable[[], None]] = {}

    def ask(self, command: str, arguments: Mapping[str, Any], answer: Answer) -> None:
        """Do it after what was asked for before; `answer` is called once."""
        self._asked.append((command, arguments, answer))
        self._next()

    def once(self, event: str, device: str, call: Callable[[], None]) -> None:
        """Call when that event comes for that device."""
        self._events[event, device] = call

    def read(self) -> None:
        """Take what has come."""
        *lines, self._held = (self._held + self.peer.bytes()).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, said: Mapping[str, Any]) -> None:
        if "QMP" in said:
            self._send("qmp_capabilities", {}, self._greet)
        elif "event" in said:
            device = str(said.get("data", {}).get("device", ""))
            if (call := self._events.pop((said["event"], device), None)) is not None:
                call()
        elif self._running is not None:
            answer, self._running = self._running, None
            answer(said)
            self._next()

    def _greet(self, said: Mapping[str, Any]) -> None:
        self._greeted = True

    def _next(self) -> None:
        if self._greeted and self._running is None and self._asked:
            self._send(*self._asked.popleft())

    def _send(self, command: str, arguments: Mapping[str, Any], answer: Answer) -> None:
        self._running = answer
        self.peer.send(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
