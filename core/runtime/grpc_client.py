"""Unary calls over gRPC, with messages that are bytes to it: for the shims that want it in place of ttrpc (grpc.io).

Rules of this file: nothing else imports grpc, and this is only imported when a shim wants it. A call ends as one of
`core.runtime.ttrpc.client` does, with the same errors: its status says which, and a connection that is lost is
`ConnectionLost`. No call is repeated: whether it was carried out is then not known.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

# Said before the library is there: it would hook itself into forks, and write its own log to our stderr.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from core import fsio
from core.errors import AgentError, OverLimit, TimedOut, Unavailable
from core.runtime.ttrpc import frames
from core.runtime.ttrpc.client import ConnectionLost, refused

MOST_DATA: Final = frames.MOST_DATA
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MOST_DATA),
    ("grpc.min_reconnect_backoff_ms", 5000),  # how long a connection may take; 20 s if it is not said
)
_UNAVAILABLE: Final = 14
_CANCELLED: Final = 1


class GrpcCall:
    """A call under way."""

    def __init__(self, asked: str, future: Any) -> None:
        self.asked = asked
        self.done = threading.Event()
        self._future = future
        self._given_up: AgentError | None = None
        future.add_done_callback(lambda _: self.done.set())

    def result(self, timeout: float) -> bytes:
        """Wait up to `timeout` seconds for the answer's payload.

        Raises `TimedOut` (the call is given up), `ConnectionLost`, and the error that the other side answered.
        """
        if not self.done.wait(timeout):
            self._give_up(TimedOut(f"{self.asked} was not answered within {timeout:g} s"))
        if self._given_up is not None:
            raise self._given_up
        code = self._future.code().value[0]
        if code in (_UNAVAILABLE, _CANCELLED):
            raise ConnectionLost(f"the connection was lost: {self._future.details() or self.asked}")
        if code != 0:
            raise frames.refused(code, self._future.details() or "", self.asked)
        payload: bytes = self._future.result()
        return payload

    def cancel(self) -> None:
        """Give it up: who waits gets `Unavailable`. Harmless when it has ended."""
        self._give_up(Unavailable(f"{self.asked} was cancelled"))

    def _give_up(self, reason: AgentError) -> None:
        if not self.done.is_set():
            self._given_up = reason
            self._future.cancel()
            self.done.set()


class GrpcClient:
    """One connection to the Unix socket at `address`, a path of at most 100 bytes that is good until `close`."""

    def __init__(self, address: str) -> None:
        self._left = contextlib.ExitStack()
        self._channel = grpc.insecure_channel(f"unix:{address}", options=_OPTIONS)
        self._left.callback(self._channel.close)

    @classmethod
    def connect(cls, path: Path, timeout: float = 5.0) -> Self:
        """Connect to a Unix socket; raises `Unavailable` when nobody listens, `NotFound`, `TimedOut`.

        The library connects by itself, and again when it likes: that somebody listens is seen first, by a plain look.
        """
        with contextlib.ExitStack() as left:
            address = left.enter_context(fsio.socket_address(path))
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as look:
                look.settimeout(timeout)
                try:
                    look.connect(address)
                except OSError as error:
                    raise refused(error, path) from error
            client = cls(address)
            client._left.push(left.pop_all())
            return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, service: str, method: str, payload: bytes, timeout: float, /) -> bytes:
        """One unary call to its end; see `GrpcCall.result`."""
        return self.begin(service, method, payload, timeout).result(timeout)

    def begin(self, service: str, method: str, payload: bytes, timeout: float, /) -> GrpcCall:
        """Send a request; both sides give up after `timeout` seconds (0: never). Raises `OverLimit`."""
        if len(payload) > MOST_DATA:
            raise OverLimit(f"a message of {len(payload)} bytes; {MOST_DATA} are allowed")
        asked = f"{service}/{method}"
        # Without serialisers a message is the bytes that it is given.
        future = self._channel.unary_unary(f"/{asked}").future(payload, timeout=timeout or None)
        return GrpcCall(asked, future)

    def close(self) -> None:
        """Hang up; calls under way end with `ConnectionLost`. Harmless when it has ended."""
        self._left.close()
