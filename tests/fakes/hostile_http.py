"""An HTTP server on loopback that says exactly what a test tells it to, and remembers what it was asked.

Each path has a list of replies, given in turn; the last one is given for ever. A body may be a generator of pieces,
each sent at once; a piece of None cuts the connection with a reset.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

Body: TypeAlias = bytes | Callable[[], Iterable[bytes | None]]

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time left: close sends RST


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request gets. `raw`: the body is the whole answer, status line and all."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    authorization: str | None
    range: str | None = None
    form: bytes = b""
    at: float = field(default_factory=time.monotonic)


class HostileServer:
    """Use it as a block; `host` is what stands in a reference, `asked` is every request so far."""

    def __init__(
        self,
        replies: Mapping[str, Reply | list[Reply]] | None = None,
        *,
        certificate: Path | None = None,
        client_ca: Path | None = None,
    ):
        self.replies = {path: list(r) if isinstance(r, list) else [r] for path, r in (replies or {}).items()}
        self.asked: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                self.form = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                outer._answer(self)

            do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(client_ca)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # they hang up
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def logins(self) -> list[str]:
        """Every Authorization header that arrived."""
        return [request.authorization for request in self.asked if request.authorization is not None]

    def reply_to(self, request: Request) -> Reply | None:
        """A reply made for this request; None: the next one of its path."""
        return None

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        login, part = (handler.headers.get(name) for name in ("Authorization", "Range"))
        form: bytes = getattr(handler, "form", b"")
        request = Request(handler.command, handler.path, login, part, form)
        self.asked.append(request)
        queue = self.replies.get(handler.path) or self.replies.get(handler.path.partition("?")[0]) or [Reply(404)]
        reply = self.reply_to(request) or (queue.pop(0) if len(queue) > 1 else queue[0])
        if not reply.raw:
            handler.send_response(reply.status)
            headers = dict(reply.headers)
            if isinstance(reply.body, bytes):
                headers.setdefault("Content-Length", str(len(reply.body)))
            elif "Content-Length" not in headers:
                handler.close_connection = True
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
        if handler.command != "HEAD":
            pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body()
            for piece in pieces:
                if piece is None:
                    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    handler.close_connection = True
                    handler.rfile.close()
                    handler.connection.close()
                    return
                handler.wfile.write(piece)
                handler.wfile.flush()
        handler.close_connection = handler.close_connection or reply.raw
