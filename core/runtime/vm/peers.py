"""One end of a stream socket in a loop that never blocks: frames in, bytes out when the other side takes them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from core.runtime.vm.frames import Decoder, Frame

_CHUNK = 1 << 16


class Peer:
    """`waiting` says that there is more to send than the other side has taken so far."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self.link = link
        self.gone = False
        self._decoder = Decoder()
        self._out = bytearray()

    @property
    def waiting(self) -> bool:
        """Whether POLLOUT is of interest."""
        return bool(self._out)

    def send(self, data: bytes) -> None:
        """Send now what goes, the rest when `flush` is called."""
        self._out += data
        self.flush()

    def flush(self) -> None:
        """Send what can be sent without waiting; a side that is gone is noticed when it is read from."""
        while self._out:
            try:
                sent = self.link.send(self._out)
            except BlockingIOError:
                return
            except OSError:
                self._out.clear()
                self.gone = True
                return
            del self._out[:sent]

    def bytes(self) -> bytes:
        """What is there; b"" with `gone` at the end."""
        try:
            data = self.link.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.gone = True
        return data

    def frames(self) -> Iterator[Frame]:
        """The frames that are whole; raises `Nonsense`."""
        return self._decoder.feed(self.bytes())

    def close(self) -> None:
        """Hang up."""
        self.link.close()
