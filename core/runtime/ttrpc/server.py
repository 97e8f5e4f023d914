"""The answering side of ttrpc: for events, which shims send to their owner, and for tests.

Rules of this file: the socket lies in a folder of mode 0700 and is 0600 itself; who connects must be our own user
(SO_PEERCRED). A connection has one thread, which answers one request after another; there are at most `MOST_AT_ONCE`
of them, and whoever comes then is hung up on. What cannot be understood ends its connection, never the server.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from core import fsio
from core.errors import AgentError, Denied, Unsupported
from core.runtime.ttrpc import frames
from core.runtime.ttrpc.frames import Frame, Frames, Type
from core.runtime.wire import Malformed, decode

Handler = Callable[[bytes], bytes]
"""A request's payload in, a response's out; raises an `AgentError` to refuse. It is called in a connection's thread."""
MOST_AT_ONCE: Final = 16
_READ: Final = 1 << 16
_PAUSE: Final = 0.1
_CREDENTIALS: Final = struct.Struct("3i")


class Server:
    """Listens at `path`; `methods` maps `<service>/<method>` to handlers. Raises `Denied` in an open folder."""

    def __init__(self, path: Path, methods: Mapping[str, Handler]) -> None:
        if stat.S_IMODE(path.parent.stat().st_mode) & 0o077:
            raise Denied(f"others may enter {path.parent}: no socket is opened there")
        self._path = path
        self._methods = methods
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._inode = self._put(path)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._accept, name="ttrpc-accept", daemon=True)
        self._thread.start()

    def _put(self, path: Path) -> int:
        """Listen aside, then take the place by rename: another process may be taking it at this moment. Our inode."""
        aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        with fsio.socket_address(aside) as address:
            self._socket.bind(address)
        os.chmod(aside, 0o600)
        self._socket.listen(MOST_AT_ONCE)
        inode = aside.stat().st_ino
        aside.rename(path)
        return inode

    def close(self) -> None:
        """Stop listening, hang up on everybody, remove the socket."""
        self._stopping.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # its peer was first
                    connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(FileNotFoundError):  # the folder was removed
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._stopping.wait(_PAUSE)  # closed, or no descriptor is left for whoever came
                continue
            with self._lock:
                welcome = len(self._open) < MOST_AT_ONCE and _is_ours(connection)
                if welcome:
                    self._open.add(connection)
            if welcome:
                threading.Thread(target=self._serve, args=(connection,), name="ttrpc-serve", daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        incoming = Frames()
        # An OSError: the peer went away in the middle. Malformed: nothing that follows would mean what it says.
        with contextlib.suppress(OSError, Malformed):
            while data := connection.recv(_READ):
                for frame in incoming.feed(data):
                    if frame.type == Type.REQUEST:
                        connection.sendall(Frame(frame.stream, Type.RESPONSE, self._answer(frame.data)).pack())
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _answer(self, data: bytes) -> bytes:
        try:
            asked = decode(frames.REQUEST, data)
            name = f"{asked['service']}/{asked['method']}"
            if (handler := self._methods.get(name)) is None:
                raise Unsupported(f"there is no method {name[:200]}")
            return frames.answer(handler(asked["payload"]))
        except AgentError as error:
            return frames.refusal(error)


def _is_ours(connection: socket.socket) -> bool:
    seen = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(seen)[1]
    return user in (0, os.geteuid())
