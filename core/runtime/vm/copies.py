"""A copy's stream between this node and a machine's guest, over a connection of its own to the monitor.

Rules of this file: nothing is kept beyond what one piece needs; when the connection goes, the monitor ends the copy.
"""

from __future__ import annotations

from typing import Any, Final

from core.errors import Failed, Invalid, Unsupported
from core.runtime import trees
from core.runtime.vm.frames import WINDOW, Frame, Kind
from core.runtime.vm.link import CALL_SECONDS, Link

_IN: Final = 1
_OUT: Final = 2
_CHUNK: Final = 32 << 10
_SECONDS: Final = 1.0
_MOST_ANSWER: Final = 64 << 10


class Copy:
    """Begins the copy `wanted` (see `frames`) of task `id`; `read` and `write` are its stream, as `trees` wants them.

    Raises `NotFound`, `Unsupported` for a guest that knows nothing of copies.
    """

    def __init__(self, link: Link, id: str, **wanted: Any) -> None:
        self._link = link
        self._reading = wanted["way"] == "out"
        self._held = bytearray()
        self._waiting = bytearray()
        self._credit = WINDOW
        self._ended = False
        streams = {"stdin": 0 if self._reading else _IN, "stdout": _OUT, "stderr": 0}
        try:
            link.call("exec", CALL_SECONDS, id=id, copy=wanted, **streams)
        except Invalid:
            raise Unsupported(
                "the guest was made by an earlier version, which cannot copy",
                advice="Run `reconciler runtime prepare vm`, then restart the sandbox.",
            ) from None

    def read(self, count: int) -> bytes:
        """Exactly so many bytes; raises `Failed` at the end of the stream."""
        while len(self._held) < count:
            if self._ended:
                raise Failed("the copy broke off in the guest")
            self._hear()
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def write(self, data: bytes) -> None:
        """Send it when a piece is together and as the guest has room; raises `CopyFailed` when it says why it ended."""
        self._waiting += data
        while len(self._waiting) >= _CHUNK:
            self._send()

    def finish(self) -> None:
        """All is sent: wait until the guest says that it is laid out. Raises `CopyFailed`, `Failed`."""
        while self._waiting:
            self._send()
        self._link.write(_IN, b"")
        if trees.entry(self.read).kind is not trees.Kind.END:
            raise Failed("the copy broke off in the guest")

    def _send(self) -> None:
        while not self._credit and not self._held and not self._ended:
            self._hear()
        if self._held or self._ended:
            trees.entry(self.read)  # it says why it has ended
            raise Failed("the copy broke off in the guest")
        piece = bytes(self._waiting[: min(_CHUNK, self._credit)])
        del self._waiting[: len(piece)]
        self._credit -= len(piece)
        self._link.write(_IN, piece)

    def _hear(self) -> None:
        for frame in self._link.frames(_SECONDS):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        match frame.kind, frame.stream:
            case Kind.DATA, 2:
                self._held += frame.payload
                if not self._reading and len(self._held) > _MOST_ANSWER:
                    raise Failed("the guest says too much")
                self._link.taken(_OUT, len(frame.payload))
            case Kind.MORE, _:
                self._credit += frame.credit()
            case (Kind.END, 2) | (Kind.EVENT, _):
                self._ended = True
            case _:
                pass
