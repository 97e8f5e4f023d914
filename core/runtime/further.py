"""What else a driver is asked for: a further process in a task, or a copy out of a machine, or into one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from core.values import dataclass

Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run: an OCI `process`; where its output goes; whether the caller's stdin and terminal are its own."""

    id: str
    process: dict[str, Any]
    out: Sink
    err: Sink
    stdin: bool = False
    timeout: float | None = None


def writer(fd: int) -> Sink:
    """Writes all of it on a descriptor."""

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(fd, data) :]

    return write


class Copy(Protocol):
    """The stream of a copy, of entries as `core.runtime.trees` has them."""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes; raises `Failed` at the end."""

    def write(self, data: bytes) -> None:
        """Send it; raises `CopyFailed` when the other side says why it cannot go on."""

    def finish(self) -> None:
        """All is sent: wait until it is laid out; raises as `write`."""


@runtime_checkable
class Carrying(Protocol):
    """A Shim whose tasks' files are nowhere on this node: a machine's."""

    def copying(self, id: str, way: str, path: str, name: str = "") -> AbstractContextManager[Copy]:
        """A copy of a task that was started, running or ended; it is given up when the context ends early.

        `way`: `out` of `path`; `in`, one entry, into the folder `path` as `name`, else called `path`; `merge`, into
        the folder `path`. Raises `NotFound`, `Unavailable`.
        """
