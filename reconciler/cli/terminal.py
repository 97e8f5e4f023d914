"""Words and colours on the terminal: errors in one grammar, lines drawn anew, nothing fancy in a pipe.

Rules of this file: text for people goes to stdout, progress and errors to stderr; no escape sequence ever reaches what
is not a terminal, nor a terminal whose user set NO_COLOR.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from core.errors import AgentError

INDENT: Final = " " * 7
_CODES: Final = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}


def coloured(stream: TextIO) -> bool:
    """Whether colours are welcome on `stream`."""
    return "NO_COLOR" not in os.environ and is_terminal(stream)


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in a colour (a name of `_CODES`) where that is welcome on `stream` (stdout), else as it is."""
    if not text or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """`text` without control characters: what came from a registry, a log or a runtime moves no cursor."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def say(text: str) -> None:
    """Text for people, or the objects asked for, on stdout."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """Progress and complaints, on stderr."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def complain(error: AgentError, subject: str = "") -> None:
    """`error: [subject: ]category: what happened`, and below it what to do."""
    said = [error.category.value, printable(error.message)]
    complain_in_words(": ".join([subject, *said] if subject else said), [error.hint()])


def complain_in_words(what: str, below: Sequence[str]) -> None:
    """An error line, and below it, indented, the lines that help; empty ones are left out."""
    tell(paint("error:", "red", sys.stderr) + " " + what)
    for line in filter(None, below):
        tell(INDENT + printable(line).replace("\n", "\n" + INDENT))


def warn(text: str) -> None:
    """Something to know that is no error."""
    tell(paint("warning:", "yellow", sys.stderr) + " " + text)


def width(stream: TextIO) -> int:
    """Columns of the terminal behind `stream`."""
    return shutil.get_terminal_size((100, 24)).columns if stream.isatty() else 1000


class LiveLines:
    """A few lines at the bottom of a terminal that are drawn anew each time; only for terminals."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Replace what was drawn before by `lines`, cut to the terminal's width and height."""
        size = shutil.get_terminal_size((100, 24))
        shown = [line[: size.columns - 1] for line in lines[: max(1, size.lines - 2)]]
        if len(lines) > len(shown):
            shown[-1] = f"… and {len(lines) - len(shown) + 1} more"
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(up + "".join(f"\r\x1b[K{line}\n" for line in shown) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(shown)

    def clear(self) -> None:
        """Take away what was drawn."""
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._stream.flush()
            self._drawn = 0
