"""A TCP proxy on loopback that resets each connection once so many bytes went down it, and counts them."""

import select
import socket
import struct
import threading
from types import TracebackType
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time left: close sends RST
_STEP: Final = 16 << 10
_QUEUED: Final = 32 << 10  # what the kernel may hold back and lose at a reset


class CuttingProxy:
    """Use it as a block, before `port`; `host` is where it listens, `down` the bytes sent to clients so far."""

    def __init__(self, port: int, after: int) -> None:
        self._port = port
        self._after = after
        self.down = 0
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUED)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        """Both ways in one thread: a close is no reset while another thread still reads."""
        with client, server:
            try:
                self._until_cut(client, server)
            except OSError:
                return

    def _until_cut(self, client: socket.socket, server: socket.socket) -> None:
        left = self._after
        while left:
            for ready in select.select([client, server], [], [])[0]:
                piece = ready.recv(min(_STEP, left))
                if not piece:
                    return
                (server if ready is client else client).sendall(piece)
                if ready is server:
                    left -= len(piece)
                    with self._lock:
                        self.down += len(piece)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with self._lock:
            self.cuts += 1
