"""Ranges of user and group ids, one a sandbox, out of a bounded pool, so that no two overlap.

Rules of this file: a range is taken by a link `<state>/ranges/<number>` that names its sandbox; making a link is one
step that only one can do. Where a sandbox looks first is derived from its id. A link whose sandbox is gone is swept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core import fsio
from core.errors import Unavailable

SIZE: Final = 65536
FIRST: Final = 0x4000_0000
"""Above all ids that people and /etc/subuid give out."""
COUNT: Final = 16384


class IdRanges:
    """The pool of one instance. `state`: the folder that may vanish at reboot; so do the ranges."""

    def __init__(self, state: Path, count: int = COUNT) -> None:
        self._folder = state / "ranges"
        self._count = count

    def take(self, sandbox: str) -> int:
        """The first id of a range that is this sandbox's alone; raises `Unavailable` when all are taken."""
        fsio.make_private(self._folder)
        first = int.from_bytes(hashlib.sha256(sandbox.encode()).digest()[:8], "big")
        for step in range(self._count):
            number = (first + step) % self._count
            place = self._folder / str(number)
            with contextlib.suppress(FileExistsError):
                os.symlink(sandbox, place)
                return FIRST + number * SIZE
            if os.readlink(place) == sandbox:
                return FIRST + number * SIZE
        raise Unavailable(
            f"all {self._count} ranges of ids are taken", advice="Delete sandboxes with userNamespace auto."
        )

    def give_back(self, first: int) -> None:
        """The range is free again; harmless when it is already."""
        (self._folder / str((first - FIRST) // SIZE)).unlink(missing_ok=True)

    def sweep(self, is_there: Callable[[str], bool]) -> None:
        """Free the ranges of sandboxes that are not there."""
        if not self._folder.is_dir():
            return
        for place in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # given back meanwhile
                if not is_there(os.readlink(place)):
                    place.unlink()
