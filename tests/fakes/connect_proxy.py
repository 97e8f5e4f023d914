"""An HTTP proxy on loopback that opens tunnels (CONNECT), all of them to one port, and remembers what it was asked."""

import select
import socket
import threading
from types import TracebackType
from typing import Self


class ConnectProxy:
    """Use it as a block; with `login` ("user:password" in base64) it wants that first."""

    def __init__(self, port: int, login: str = "") -> None:
        self._port = port
        self._login = login
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

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
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head and (piece := client.recv(4096)):
                head += piece
            self.asked.append(head)
            if self._login and f"Basic {self._login}".encode() not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                while True:
                    for ready in select.select([client, server], [], [])[0]:
                        try:
                            piece = ready.recv(65536)
                        except OSError:
                            return
                        if not piece:
                            return
                        (server if ready is client else client).sendall(piece)
