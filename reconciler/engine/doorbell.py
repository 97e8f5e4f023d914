"""The doorbell: a datagram socket by which another process says "look now". May be lost, carries nothing.

Rules of this file: only the engine that holds the lock binds, so what it finds at the path is stale and replaced. The
socket is 0600 from its first moment and lies in the 0700 state folder.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from core.errors import from_os_error
from core.fsio import socket_address

NAME: Final = "doorbell"
_DRAIN: Final = 4096


def ring(state: Path) -> None:
    """Wake the engine of this state folder, if there is one. Never raises, never blocks."""
    # nobody there, not ours to ring, or so many rings waiting that one more adds nothing
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with socket_address(state / NAME) as address:
            sock.sendto(b"", address)


class Doorbell:
    """The engine's end. Make it with `bind`; use either `wait` or `listen`."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self._path = path
        self._sock = sock
        self._inode = os.stat(path).st_ino
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None

    @classmethod
    def bind(cls, state: Path) -> Self:
        """Put the doorbell into folder `state`; raises `AgentError` when that cannot be (Denied, NoSpace, ...)."""
        path = state / NAME
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            os.fchmod(sock.fileno(), 0o600)  # Linux gives this mode to the file that bind(2) makes
            path.unlink(missing_ok=True)
            with socket_address(path) as address:
                sock.bind(address)
            return cls(path, sock)
        except OSError as error:
            sock.close()
            raise from_os_error(error, f"making {path}") from error

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; True when it was rung (any number of times), or closed."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        poller.register(self._ended, select.POLLIN)
        rung = poller.poll(max(0, int(seconds * 1000)))
        with contextlib.suppress(BlockingIOError):  # all taken
            for _ in range(_DRAIN):
                self._sock.recv(1)
        return bool(rung)

    def listen(self, rung: Callable[[], None]) -> None:
        """Start a thread that calls `rung` after each ring; several rings may be one call."""
        self._thread = threading.Thread(target=self._listen, args=(rung,), name="doorbell", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and take the doorbell away, unless a later engine put its own there."""
        os.eventfd_write(self._ended, 1)
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(FileNotFoundError):  # the state folder was cleared
            if os.stat(self._path).st_ino == self._inode:
                self._path.unlink()
        self._sock.close()
        os.close(self._ended)

    def _listen(self, rung: Callable[[], None]) -> None:
        while True:
            heard = self.wait(3600.0)
            if self._is_ended():
                return
            if heard:
                rung()

    def _is_ended(self) -> bool:
        poller = select.poll()
        poller.register(self._ended, select.POLLIN)
        return bool(poller.poll(0))
