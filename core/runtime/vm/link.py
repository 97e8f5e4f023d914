"""Asking the monitor of a machine: one connection, one call at a time, or a further process with its streams."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from core import fsio
from core.clock import Clock
from core.errors import (
    AgentError,
    Denied,
    Failed,
    Invalid,
    NoSpace,
    NotFound,
    OverLimit,
    TimedOut,
    Unavailable,
    Unsupported,
)
from core.runtime.conmon import complaint
from core.runtime.vm.frames import LARGEST, Decoder, Frame, Kind, Nonsense, encode, more, said
from core.runtime.vm.machine import ENDED, SOCKET

CALL_SECONDS: Final = 30.0
_CLASSES: Final[Mapping[str, type[AgentError]]] = {
    one.category.value: one
    for one in (Invalid, NotFound, Denied, Unavailable, TimedOut, NoSpace, Unsupported, OverLimit, Failed)
}
"""Category → the class that is raised for it."""
_RUNTIME: Final = "crun: "
"""What stands before the words of the runtime in the guest."""
_CHUNK: Final = 1 << 16
_PIECE: Final = 256 << 10
"""Bytes of a file that are carried at once."""


class Link:
    """A connection to a monitor."""

    def __init__(self, link: socket.socket, folder: Path, clock: Clock) -> None:
        self._link = link
        self._folder = folder
        self._clock = clock
        self._decoder = Decoder()
        self._held: list[Frame] = []
        self._number = 0

    def fileno(self) -> int:
        """For poll."""
        return self._link.fileno()

    def call(self, name: str, timeout: float = CALL_SECONDS, /, **values: object) -> dict[str, Any]:
        """Ask, and wait for the answer; frames of streams that come meanwhile are kept for `frames`.

        Raises what the guest says, `TimedOut`, `Unavailable` when the machine has ended.
        """
        self._number += 1
        number = self._number
        asked = said(Kind.CALL, number, {"call": name, **values})
        if len(asked) > LARGEST:
            raise OverLimit(f"`{name}` for the guest has {len(asked)} bytes, of at most {LARGEST}")
        self.send(asked)
        until = self._clock.monotonic() + timeout
        kept: list[Frame] = []
        answer: Frame | None = None
        while answer is None:
            left = until - self._clock.monotonic()
            for frame in self.frames(max(0.0, left)):
                if answer is None and frame.stream == number and frame.kind in (Kind.DONE, Kind.FAILED):
                    answer = frame
                else:
                    kept.append(frame)
            if answer is None and left <= 0:
                raise TimedOut(f"the guest did not answer `{name}` within {timeout:g} s")
        self._held = kept
        if answer.kind is Kind.FAILED:
            raise self._failure(name, answer.json())
        return answer.json()

    def _failure(self, name: str, told: Mapping[str, Any]) -> AgentError:
        if words := str(told.get("message", "")).partition(_RUNTIME)[2]:
            return complaint(words)
        kind = _CLASSES.get(str(told.get("category")), Failed)
        message = str(told.get("message", ""))[:1000] or f"`{name}` failed in the guest"
        advice = "See that vm.kernel boots, or leave it out." if kind is Unavailable else ""
        return kind(self.ended() if kind is Unavailable and self.ended() else message, advice=advice)

    def ended(self) -> str:
        """Why the machine has ended; "" while it runs."""
        return ended(self._folder)

    def send(self, data: bytes) -> None:
        """Send all of it. Raises `Unavailable`."""
        try:
            self._link.sendall(data)
        except OSError:
            raise Unavailable(self.ended() or "the machine's monitor is gone") from None

    def frames(self, timeout: float) -> list[Frame]:
        """What has come within that time. Raises `Unavailable` at the end, `Failed` for nonsense."""
        if self._held:
            held, self._held = self._held, []
            return held
        if not select.select([self._link], [], [], timeout)[0]:
            return []
        try:
            data = self._link.recv(_CHUNK)
            if not data:
                raise Unavailable(self.ended() or "the machine's monitor is gone")
            return list(self._decoder.feed(data))
        except (OSError, Nonsense) as error:
            raise Failed(f"the machine's monitor: {error}") from error

    def put(self, path: str, source: BinaryIO, *, mode: int, owner: tuple[int, int] = (0, 0)) -> None:
        """Carry a file into the guest, piece by piece; it is there with the last one."""
        piece, rest = source.read(_PIECE), source.read(_PIECE)
        self.call("put", path=path, mode=mode, uid=owner[0], gid=owner[1], data=_text(piece), more=bool(rest))
        while piece := rest:
            rest = source.read(_PIECE)
            self.call("append", path=path, data=_text(piece), more=bool(rest))

    def write(self, stream: int, data: bytes) -> None:
        """Bytes for a stream of a further process; nothing for its end."""
        self.send(encode(Kind.DATA, stream, data) if data else encode(Kind.END, stream))

    def taken(self, stream: int, count: int) -> None:
        """So many bytes have been written on: as many may come again."""
        self.send(more(stream, count))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextlib.contextmanager
def connected(folder: Path, clock: Clock) -> Iterator[Link]:
    """A connection to the monitor of the machine whose folder that is; raises `Unavailable`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
        try:
            with fsio.socket_address(folder / SOCKET) as address:
                link.connect(address)
        except OSError:
            raise Unavailable(ended(folder) or "the machine does not run") from None
        yield Link(link, folder, clock)


def ended(folder: Path) -> str:
    """Why a machine has ended, with the last lines of its console; "" when nothing is known."""
    data = fsio.read_if_there(folder / ENDED, 64 << 10)
    return "" if data is None else "; ".join(data.decode("utf-8", "replace").split("\n")).strip("; ")
