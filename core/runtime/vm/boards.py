"""Which board a machine is built on: the fastest that this node's QEMU has, or the one that the configuration names."""

from __future__ import annotations

import os
from typing import Final

from core.errors import Unsupported
from core.process import Launcher
from core.runtime.vm.machine import boards

_SECONDS: Final = 10.0


class Boards:
    """Asks each QEMU once what boards it has, and again when the program changes."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._known: dict[tuple[str, int, int], str] = {}

    def choose(self, qemu: str, wanted: str = "") -> str:
        """The board for the program at that path; `wanted` ("": whichever) is not asked for there.

        Raises `Unsupported` where there is none, what the program complains of, `OSError`.
        """
        if wanted:
            return checked(wanted)
        seen = os.stat(qemu)
        key = (qemu, seen.st_ino, seen.st_mtime_ns)
        if key not in self._known:
            self._known[key] = self._ask(qemu)
        return self._known[key]

    def _ask(self, qemu: str) -> str:
        said = self._launcher.check([qemu, "-machine", "help"], timeout=_SECONDS).text()
        there = {line.split()[0] for line in said.splitlines() if line.strip()}
        if (found := next((one for one in boards() if one in there), None)) is None:
            raise Unsupported(
                f"{qemu} has none of the machines {', '.join(boards())}",
                advice="Install qemu-system-x86, or name another QEMU (runtimes.vm.path).",
            )
        return found


def checked(board: str) -> str:
    """`board` itself; raises `Unsupported` where no machine of this architecture is built on it."""
    if board not in boards():
        raise Unsupported(
            f"machines on {board!r}; here they are built on {' or '.join(boards())}",
            advice="Correct options.machine of the runtime in the configuration, or leave it out.",
        )
    return board
