"""Which machines were seen to boot here: nobody has to wait for their like again.

Rules of this file: a machine that was never seen to boot is waited for when its sandbox is started, so that one which
cannot is a failure of the sandbox, told and tried again ever more rarely.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core import fsio

_MOST: Final = 32
_LIMIT: Final = 64 << 10


class Booted:
    """`folder`: where what was seen is kept; it may vanish at any time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "booted.json"

    def knows(self, wanted: Mapping[str, Any]) -> bool:
        """Whether a machine of that `machine.json`'s kind was seen to boot."""
        return _key(wanted) in self._known()

    def remember(self, wanted: Mapping[str, Any]) -> None:
        """It booted. Raises `OSError`."""
        fsio.make_private(self._file.parent)
        known = [*self._known()[1 - _MOST :], _key(wanted)]
        fsio.write_atomic(self._file, json.dumps(known).encode(), durable=False)

    def forget(self, wanted: Mapping[str, Any]) -> None:
        """One of its kind ended by itself: the next is waited for again. Raises `OSError`."""
        known = self._known()
        if known:
            left = [one for one in known if one != _key(wanted)]
            fsio.write_atomic(self._file, json.dumps(left).encode(), durable=False)

    def _known(self) -> list[str]:
        try:
            known = json.loads(fsio.read_if_there(self._file, _LIMIT) or b"[]")
        except ValueError:
            return []
        return known if isinstance(known, list) else []


def _key(wanted: Mapping[str, Any]) -> str:
    """What decides whether it boots: programs and files by what they are now, and what it is given."""
    machine = wanted["machine"]
    files = [os.stat(path) for path in (wanted["qemu"], machine["kernel"], machine["initrd"])]
    marks = [f"{one.st_ino}-{one.st_size}-{one.st_mtime_ns}" for one in files]
    given = [str(machine.get(name, "")) for name in ("accelerator", "memory", "cpus", "board")]
    return " ".join([*marks, *given])
