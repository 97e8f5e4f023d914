"""A further process in a task, as a driver is asked for one: what to run, and where what it says goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

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
