"""A client of ttrpc: many calls at once over one connection, one thread that reads.

Rules of this file: a call ends with its answer, with its time, when it is cancelled, or with the connection, whichever
is first; an answer that comes for a call that nobody waits for is dropped. What cannot be understood ends the
connection: after it no byte means what it says. A connection that has ended stays ended; its owner makes a new one.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core import fsio
from core.errors import AgentError, NotFound, TimedOut, Unavailable, from_os_error
from core.runtime.ttrpc import frames
from core.runtime.ttrpc.frames import Frame, Frames, Type
from core.runtime.wire import Malformed
from core.values import dataclass

_READ: Final = 1 << 16
_CONNECT_SECONDS: Final = 5.0


class ConnectionLost(Unavailable):
    """The other side hung up, or was hung up on: whether a call that was under way was carried out is not known."""


@dataclass(slots=True, eq=False)
class Call:
    """A call under way."""

    asked: str
    stream: int
    client: Client
    done: threading.Event = field(default_factory=threading.Event)
    payload: bytes = b""
    error: AgentError | None = None

    def result(self, timeout: float) -> bytes:
        """Wait up to `timeout` seconds for the answer's payload.

        Raises `TimedOut` (the call is given up), `ConnectionLost`, and the error that the other side answered.
        """
        if not self.done.wait(timeout):
            self.cancel(TimedOut(f"{self.asked} was not answered within {timeout:g} s"))
        if self.error is not None:
            raise self.error
        return self.payload

    def cancel(self, reason: AgentError | None = None) -> None:
        """Give it up: who waits gets `reason`; an answer that comes later is dropped. Harmless when it has ended."""
        self.client.give_up(self, reason or Unavailable(f"{self.asked} was cancelled"))

    def end(self, payload: bytes, error: AgentError | None) -> None:
        """Wake who waits."""
        self.payload, self.error = payload, error
        self.done.set()


class Client:
    """One connection. `send_seconds`: how long a peer that does not read may hold up a call."""

    def __init__(self, connection: socket.socket, *, send_seconds: float = 10.0) -> None:
        self._socket = connection
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._streams = itertools.count(1, 2)
        self._calls: dict[int, Call] = {}
        self._ended: AgentError | None = None
        connection.settimeout(None)
        whole, part = divmod(send_seconds, 1)
        sending = struct.pack("ll", int(whole), int(part * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, sending)
        self._reader = threading.Thread(target=self._read, name="ttrpc", daemon=True)
        self._reader.start()

    @classmethod
    def connect(cls, path: Path, timeout: float = _CONNECT_SECONDS) -> Self:
        """Connect to a Unix socket; raises `Unavailable` when nobody listens, `NotFound`, `TimedOut`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(timeout)
            with fsio.socket_address(path) as address:
                connection.connect(address)
            return cls(connection)
        except OSError as error:
            connection.close()
            raise refused(error, path) from error
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Asking.

    def call(self, service: str, method: str, payload: bytes, timeout: float) -> bytes:
        """One unary call to its end; see `Call.result`."""
        return self.begin(service, method, payload, timeout).result(timeout)

    def begin(self, service: str, method: str, payload: bytes, timeout: float) -> Call:
        """Send a request; the other side gives up after `timeout` seconds. Raises `ConnectionLost`, `OverLimit`."""
        data = frames.request(service, method, payload, timeout)
        with self._sending:  # streams must be opened in the order of their numbers
            with self._lock:
                if self._ended is not None:
                    raise self._ended
                call = Call(f"{service}/{method}", next(self._streams), self)
                packed = Frame(call.stream, Type.REQUEST, data).pack()
                self._calls[call.stream] = call
            try:
                self._socket.sendall(packed)
            except BlockingIOError:
                # Part of the frame may be out: nothing can follow it.
                self._end(TimedOut("the other side does not read what it is sent"))
            except OSError as error:
                self._end(ConnectionLost(f"the connection was lost: {error.strerror}"))
        return call

    def give_up(self, call: Call, reason: AgentError) -> None:
        """See `Call.cancel`."""
        with self._lock:
            if self._calls.pop(call.stream, None) is None:
                return
        call.end(b"", reason)

    @property
    def waiting(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    def close(self) -> None:
        """Hang up; calls under way end with `ConnectionLost`. Harmless when it has ended."""
        self._end(ConnectionLost("the connection was closed"))
        if threading.current_thread() is not self._reader:
            self._reader.join()
            self._socket.close()

    # Being answered.

    def _read(self) -> None:
        incoming = Frames()
        try:
            while data := self._socket.recv(_READ):
                for frame in incoming.feed(data):
                    self._answered(frame)
            self._end(ConnectionLost("the other side hung up"))
        except Malformed as error:
            self._end(error)
        except OSError as error:
            self._end(ConnectionLost(f"the connection was lost: {error.strerror}"))

    def _answered(self, frame: Frame) -> None:
        if frame.type != Type.RESPONSE:
            return
        with self._lock:
            call = self._calls.pop(frame.stream, None)
        if call is None:
            return
        try:
            call.end(frames.read_answer(frame.data, call.asked), None)
        except AgentError as error:
            call.end(b"", error)

    def _end(self, reason: AgentError) -> None:
        with self._lock:
            self._ended = self._ended or reason
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.end(b"", reason)
        with contextlib.suppress(OSError):  # it was never connected, or is closed already
            self._socket.shutdown(socket.SHUT_RDWR)


def refused(error: OSError, path: Path) -> AgentError:
    """What it means that a connection to the socket at `path` was not made."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"there is no socket {path}")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(f"nobody listens at {path}")
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return TimedOut(f"nobody answers at {path}")
    return from_os_error(error, f"connecting to {path}")
