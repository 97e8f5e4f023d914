"""Speaking to the service manager that started us: ready, reloading, alive, stopping (sd_notify(3), sd_watchdog(3)).

Rules of this file: a message that cannot be delivered is not an error, since the manager may be gone while the agent
goes on. Where there is no manager everything here does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final, Self

from core.values import dataclass

_MICRO: Final = 1_000_000


@dataclass(slots=True)
class Notifier:
    """`address`: the manager's datagram socket (`@…`: an abstract one), "" when there is none.

    `pause`: seconds between two signs of life, half of what the manager bears without one; None: it wants none.
    """

    address: str = ""
    pause: float | None = None
    _said: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Self:
        """From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as process `pid`; what is no number counts not."""
        micro = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        pause = int(micro) / _MICRO / 2 if ours and micro.isascii() and micro.isdigit() and int(micro) else None
        return cls(environ.get("NOTIFY_SOCKET", ""), pause)

    def ready(self) -> None:
        """The start is over."""
        self._send("READY=1")

    def reloading(self, monotonic: float) -> None:
        """Settings are read again, since `monotonic` seconds on CLOCK_MONOTONIC; `ready` says that it is over."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic * _MICRO)}")

    def beat(self) -> None:
        """A sign of life; to be given only after a look at what is to be alive."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for people, shown by `systemctl status`; said only when it is new."""
        if text != self._said:
            self._said = text
            self._send(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self.address:
            return
        where = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
            contextlib.suppress(OSError),  # the manager may be gone, or slow: the agent goes on
        ):
            out.setblocking(False)
            out.sendto(line.encode(), where)


def from_environment() -> Notifier:
    """The notifier of this process."""
    return Notifier.of(os.environ, os.getpid())
