"""A TCP proxy on loopback that resets each connection once so many bytes went down it, and counts them."""

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
            threading.Thread(target=self._pass_up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_down, args=(client, server), daemon=True).start()

    def _pass_up(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while piece := client.recv(_STEP):
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            server.close()

    def _pass_down(self, client: socket.socket, server: socket.socket) -> None:
        left = self._after
        try:
            while left and (piece := server.recv(min(_STEP, left))):
                client.sendall(piece)
                left -= len(piece)
                with self._lock:
                    self.down += len(piece)
            if not left:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                with self._lock:
                    self.cuts += 1
        except OSError:
            pass
        finally:
            client.close()
            server.close()
