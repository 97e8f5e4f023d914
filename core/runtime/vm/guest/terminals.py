"""Terminals: crun makes one inside the container, and hands its other side over a socket (OCI `--console-socket`)."""

from __future__ import annotations

import os
from typing import Any

from core.runtime.vm.guest.asking import Refused


class Handover:
    """The socket at `path` while a terminal is waited for."""

    def __init__(self, path: str) -> None:
        import socket  # only where somebody wants a terminal: it costs the start 20 ms

        self.path = path
        self._receive = socket.recv_fds
        self._socket: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(path)
        self._socket.listen(1)
        self._socket.setblocking(False)

    def terminal(self) -> int:
        """What crun, which has ended, has handed over; raises `Refused` when that is nothing."""
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError as error:
            raise Refused("failed", "crun handed no terminal over") from error
        with connection:
            _, fds, _, _ = self._receive(connection, 4096, 1)
        if not fds:
            raise Refused("failed", "crun handed no terminal over")
        os.set_inheritable(fds[0], False)
        return int(fds[0])

    def close(self) -> None:
        """The name goes."""
        self._socket.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
