"""Large files of a source that lie in no folder of this node: each is taken out of its revision into a file of its own.

Rules of this file: a file is named by the id of its bytes, so that it is taken out once, whatever revision names it; it
appears whole, synced and compared with its id, or not at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from core import fsio
from core.errors import from_os_error

ARCHIVES: Final = "archives"
"""The folder in the Source's own."""
_CHUNK: Final = 1 << 20


class Differs(Exception):
    """What was read is not what the id says."""


def place(home: Path, id: str, size: int, read: Callable[[int], bytes]) -> Path:
    """The file of git's blob `id` of `size` bytes below folder `home`, made from `read(count)` when it is not there.

    Raises `Differs`, `NoSpace` and what `read` raises.
    """
    final = home / ARCHIVES / id
    try:
        if final.is_file() and final.stat().st_size == size:
            return final
        fsio.make_private(final.parent)
        with fsio.staging(home, "archive") as work:
            whole = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            with open(work / id, "xb") as out:
                left = size
                while left and (piece := read(min(left, _CHUNK))):
                    whole.update(piece)
                    out.write(piece)
                    left -= len(piece)
                out.flush()
                os.fsync(out.fileno())
            if left or whole.hexdigest() != id:
                raise Differs
            fsio.publish(work / id, final)
    except OSError as error:
        raise from_os_error(error, f"writing {final}") from error
    return final


def drop(home: Path, keep: Collection[str]) -> None:
    """Remove the files below `home` that are not named in `keep` (whole paths). Harmless when there are none."""
    folder = home / ARCHIVES
    for path in folder.iterdir() if folder.is_dir() else ():
        if str(path) not in keep:
            path.unlink(missing_ok=True)
