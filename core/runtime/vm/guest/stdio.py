"""Streams of tasks: what a process writes goes to the host as far as the host has room, and the other way round."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from core.runtime.vm.frames import WINDOW, Kind, Nonsense, encode, more
from core.runtime.vm.guest.loop import READ, WRITE, Loop

_PIECE: Final = 32 << 10
_QUIET: Final = 0.2
Send = Callable[[bytes], None]


class Outlet:
    """A pipe or terminal that a process writes to. Its bytes go out until its end; then `ended` is called."""

    def __init__(self, loop: Loop, send: Send, stream: int, fd: int) -> None:
        self._loop = loop
        self._send = send
        self.stream = stream
        self._fd = fd
        self._room = WINDOW
        self.ended: Callable[[], None] | None = None
        self.closed = False
        os.set_blocking(fd, False)
        loop.watch(fd, READ, self._read)

    def _read(self, events: int) -> None:
        if not self._room:
            return
        try:
            data = os.read(self._fd, min(self._room, _PIECE))
        except BlockingIOError:
            return
        except OSError:  # a terminal whose last process is gone says EIO
            data = b""
        if not data:
            self.close()
            return
        self._room -= len(data)
        self._send(encode(Kind.DATA, self.stream, data))
        if not self._room:
            self._loop.forget(self._fd)

    def credit(self, count: int) -> None:
        """The host has taken so many bytes."""
        if self._room + count > WINDOW:
            raise Nonsense(f"more taken of stream {self.stream} than was sent")
        self._room += count
        if not self.closed:
            self._loop.watch(self._fd, READ, self._read)

    def finish(self) -> None:
        """Its process is gone: what is in the pipe still goes out; what others that hold it may write later, not."""
        if not self.closed:
            self._loop.after(_QUIET, self._end_when_empty)

    def _end_when_empty(self) -> None:
        if self.closed:
            return
        before = self._room
        self._read(READ)
        if before and self._room == before:
            self.close()
        else:
            self._loop.after(_QUIET, self._end_when_empty)

    def close(self) -> None:
        """No more of it."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._send(encode(Kind.END, self.stream))
        if self.ended:
            self.ended()


class Inlet:
    """A pipe or terminal that a process reads from."""

    def __init__(self, loop: Loop, send: Send, stream: int, fd: int) -> None:
        self._loop = loop
        self._send = send
        self.stream = stream
        self._fd = fd
        self._held = bytearray()
        self._over = False
        self.closed = False
        os.set_blocking(fd, False)

    def feed(self, data: bytes) -> None:
        """From the host; raises `Nonsense` when it sends more than it may."""
        if len(self._held) + len(data) > WINDOW:
            raise Nonsense(f"more sent to stream {self.stream} than there was room")
        if self._over or self.closed:
            self._send(more(self.stream, len(data)))  # nobody will read it: the host need not wait
            return
        self._held += data
        self._write(0)

    def _write(self, events: int) -> None:
        try:
            count = os.write(self._fd, self._held) if self._held else 0
        except BlockingIOError:
            count = 0
        except OSError:  # nobody reads any more
            count = len(self._held)
            self._over = True
        del self._held[:count]
        if count:
            self._send(more(self.stream, count))
        if self._held:
            self._loop.watch(self._fd, WRITE, self._write)
            return
        self._loop.forget(self._fd)
        if self._over:
            self.close()

    def end(self) -> None:
        """No more comes: its reader finds the end after what is still on its way."""
        self._over = True
        if not self.closed:
            self._write(0)

    def close(self) -> None:
        """Close it now."""
        if not self.closed:
            self.closed = True
            self._loop.forget(self._fd)
            os.close(self._fd)
