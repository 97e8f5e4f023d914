"""Probes from inside: whether something answers at a port of the guest, or what an HTTP server there says."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.loop import READ, WRITE, Job, Loop

_LOCAL: Final = "127.0.0.1"
_HEAD: Final = 64


def reach(loop: Loop, given: Given) -> Job:
    """A job: the call `reach`; 200 to 399 is well (as Kubernetes has it). The time-out is for each step of it."""
    import socket  # only where somebody probes: it costs the start 20 ms

    port, seconds = given.number("port", 65535), float(given.number("timeout", 3600) or 1)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if (error := sock.connect_ex((_LOCAL, port))) == errno.EINPROGRESS:
            if not (yield loop.ready(sock.fileno(), WRITE, seconds)):
                return _said(False, f"tcp :{port} does not answer")
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            return _said(False, f"tcp :{port} {os.strerror(error).lower()}")
        if not given.has("path"):
            return _said(True, f"tcp :{port} answers")
        return (yield from _ask(loop, sock, port, given.text("path"), seconds))
    finally:
        sock.close()


def _ask(loop: Loop, sock: Any, port: int, path: str, seconds: float) -> Job:
    if not path.startswith("/") or not path.isascii() or any(char.isspace() for char in path):
        raise Refused("invalid", f"{path[:60]!r} is no path of HTTP")
    sock.send(f"GET {path} HTTP/1.1\r\nHost: {_LOCAL}:{port}\r\nConnection: close\r\n\r\n".encode())
    heard = b""
    while b"\n" not in heard and len(heard) < _HEAD:
        if not (yield loop.ready(sock.fileno(), READ, seconds)):
            return _said(False, f"http :{port}{path} does not answer")
        if not (data := sock.recv(_HEAD)):
            break
        heard += data
    words = heard.split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return _said(False, f"http :{port}{path} does not speak HTTP")
    return _said(200 <= int(words[1]) < 400, f"http :{port}{path} {int(words[1])}")


def _said(ok: bool, message: str) -> dict[str, object]:
    return {"ok": ok, "message": message}
