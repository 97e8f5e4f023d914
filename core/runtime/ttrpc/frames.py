"""ttrpc's frames and envelopes, without any I/O: bytes in, frames out (containerd/ttrpc, PROTOCOL.md).

A frame is a header of ten bytes (length, stream, type, flags; big endian) and at most 4 MiB of data. A client numbers
its streams 1, 3, 5 …; a unary call is one request frame and one response frame of the same stream.

Rules of this file: a header that says more than 4 MiB is refused when it is read, before its data is waited for. What
is buffered is never more than one frame and one read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from core.errors import (
    AgentError,
    Busy,
    Conflict,
    Corrupt,
    Denied,
    Failed,
    Invalid,
    NotFound,
    OverLimit,
    TimedOut,
    Unavailable,
    Unsupported,
)
from core.runtime.wire import Malformed, Table, blob, decode, encode, integer, message, string
from core.values import dataclass

HEADER: Final = struct.Struct(">IIBB")
MOST_DATA: Final = 4 << 20


class Type(IntEnum):
    """What a frame is."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `type` is a number, since a peer may send any."""

    stream: int
    type: int
    data: bytes
    flags: int = 0

    def pack(self) -> bytes:
        """The frame's bytes; raises `OverLimit` when it has more than 4 MiB of data."""
        if len(self.data) > MOST_DATA:
            raise OverLimit(f"a message of {len(self.data)} bytes; ttrpc allows {MOST_DATA}")
        return HEADER.pack(len(self.data), self.stream, self.type, self.flags) + self.data


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes; raises `Malformed` at a header that says more than 4 MiB."""
        self._held += data
        while len(self._held) >= HEADER.size:
            length, stream, kind, flags = HEADER.unpack_from(self._held)
            if length > MOST_DATA:
                raise Malformed(f"a frame that says it has {length} bytes; ttrpc allows {MOST_DATA}")
            end = HEADER.size + length
            if len(self._held) < end:
                return
            frame = Frame(stream, kind, bytes(self._held[HEADER.size : end]), flags)
            del self._held[:end]
            yield frame

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._held)


ANY: Final[Table] = {"type_url": string(1), "value": blob(2)}
REQUEST: Final[Table] = {
    "service": string(1),
    "method": string(2),
    "payload": blob(3),
    "timeout_nano": integer(4),
    "metadata": message(5, {"key": string(1), "value": string(2)}, repeated=True),
}
STATUS: Final[Table] = {"code": integer(1), "message": string(2)}
RESPONSE: Final[Table] = {"status": message(1, STATUS), "payload": blob(2)}

# google.rpc.Code. What is not here is UNKNOWN.
_CODES: Final[tuple[tuple[int, type[AgentError]], ...]] = (
    (1, Unavailable),
    (3, Invalid),
    (4, TimedOut),
    (5, NotFound),
    (6, Conflict),
    (7, Denied),
    (8, OverLimit),
    (9, Busy),
    (12, Unsupported),
    (14, Unavailable),
    (15, Corrupt),
    (16, Denied),
)
_UNKNOWN: Final = 2
_MOST_WORDS: Final = 4000


def request(service: str, method: str, payload: bytes, seconds: float) -> bytes:
    """The data of a request frame; the other side gives up by itself after `seconds`."""
    values = {"service": service, "method": method, "payload": payload, "timeout_nano": int(seconds * 1e9)}
    return encode(REQUEST, values)


def answer(payload: bytes) -> bytes:
    """The data of a response frame that says yes."""
    return encode(RESPONSE, {"payload": payload})


def refusal(error: AgentError) -> bytes:
    """The data of a response frame that says why not."""
    code = 3 if isinstance(error, Malformed) else next((n for n, kind in _CODES if isinstance(error, kind)), _UNKNOWN)
    return encode(RESPONSE, {"status": {"code": code, "message": error.message[:_MOST_WORDS]}})


def read_answer(data: bytes, asked: str) -> bytes:
    """The payload of a response's data; raises the error that its status means, or `Malformed`."""
    found = decode(RESPONSE, data)
    status = found["status"]
    if status is not None and status["code"] != 0:
        raise refused(status["code"], status["message"], asked)
    payload: bytes = found["payload"]
    return payload


def refused(code: int, words: str, asked: str) -> AgentError:
    """What a `google.rpc.Code` other than OK means, with the words that came with it: gRPC has the same codes."""
    return dict(_CODES).get(code, Failed)(words[:_MOST_WORDS] or f"{asked} was refused with code {code}")
