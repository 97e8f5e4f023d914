"""Asking a server in another network namespace: a connection, or one HTTP request.

Rules of this file: only the making of a socket happens inside the namespace, in a thread of its own that ends with it
(a socket stays where it was made); every wait has a limit, and so has every answer.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from core import syscalls
from core.errors import AgentError, Failed, TimedOut, Unavailable

_ADDRESSES: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def connect(netns: str, port: int, timeout: float) -> socket.socket:
    """A connection to `port` on the loopback of the namespace at path `netns` ("": ours), by IPv4 or else IPv6.

    Raises `Unavailable` (refused), `TimedOut`, `Failed`.
    """
    refused: AgentError = Unavailable(f"tcp :{port} refused")
    for family, address in _ADDRESSES:
        try:
            sock = _made_in(netns, family)
        except OSError as error:
            raise Failed(f"tcp :{port}: {error.strerror}") from error
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
        except TimeoutError:
            sock.close()
            raise TimedOut(f"tcp :{port} took longer than {timeout:g} s") from None
        except OSError as error:
            sock.close()
            if error.errno not in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENETUNREACH):
                refused = Failed(f"tcp :{port}: {error.strerror}")
        else:
            return sock
    raise refused


def _made_in(netns: str, family: int) -> socket.socket:
    if not netns:
        return socket.socket(family, socket.SOCK_STREAM)
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:

        def inside() -> socket.socket:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            return socket.socket(family, socket.SOCK_STREAM)

        return syscalls.in_own_thread(inside)
    finally:
        os.close(fd)


def get(netns: str, port: int, path: str, timeout: float) -> int:
    """The status of `GET path`; redirects are not followed. Raises as `connect`, and `Failed` for what is no HTTP."""
    import http.client  # needed only where somebody asks so

    line = http.client.HTTPConnection("localhost", port, timeout=timeout)
    line.sock = connect(netns, port, timeout)
    try:
        line.request("GET", path, headers={"User-Agent": "reconciler-probe", "Connection": "close"})
        return line.getresponse().status
    except TimeoutError:
        raise TimedOut(f"http :{port}{path} took longer than {timeout:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"http :{port}{path}: {str(error)[:100] or type(error).__name__}") from None
    finally:
        line.close()
