"""Letting a created task of runc begin, as `runc start` does, without starting runc.

What `create` leaves is runc's init, which waits for a reader of the fifo `exec.fifo` in the container's state folder,
writes one byte and becomes the task's program (runc: libcontainer, `handleFifoResult`). All that `runc start` does is
to read that byte and to remove the fifo; it costs a container 10 ms of a processor. Whatever is not as expected is
left to runc itself, which knows its own versions and says what is wrong.
"""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import Final

from core.proc import ProcessId

FIFO: Final = "exec.fifo"
SECONDS: Final = 30.0
"""How long the init may take to write, on a node that is busy."""


def begin(folder: Path, first: ProcessId, seconds: float = SECONDS) -> bool:
    """Let the task whose state is in `folder` begin; `first`: runc's init. False: nothing was done, ask the runtime.

    Killed between the byte and the removal, the fifo stays: then the name of the first process tells that it has begun.
    """
    alive = first.open()
    if alive is None:
        return False
    try:
        return _let_go(folder / FIFO, alive, seconds)
    except OSError:
        return False
    finally:
        os.close(alive)


def _let_go(path: Path, alive: int, seconds: float) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(alive, select.POLLIN)  # it died, or it began and was quick: then its byte is there too
        poller.poll(seconds * 1000)
        begun = len(os.read(fd, 1)) == 1
    finally:
        os.close(fd)
    if begun:
        path.unlink(missing_ok=True)
    return begun
