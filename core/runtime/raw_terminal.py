"""A person's terminal, handed to a process elsewhere: every key passed on, every change of size told."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

STDIN: Final = 0


@contextlib.contextmanager
def raw(resize: Callable[[int, int], None]) -> Iterator[None]:
    """For the block: our stdin raw, if it is a terminal; `resize(columns, rows)` at once and after each change."""
    if not os.isatty(STDIN):
        yield
        return

    def tell(*_: object) -> None:
        size = os.get_terminal_size(STDIN)
        resize(size.columns, size.lines)

    before = termios.tcgetattr(STDIN)
    handler = signal.signal(signal.SIGWINCH, tell)
    tty.setraw(STDIN)
    try:
        tell()
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
