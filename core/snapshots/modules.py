"""From a WASM module to a snapshot that holds it as its one file.

Rules of this file: it is filled in a staging folder, which the sweeper removes when we are killed, and has no line in
the ledger before it is on disk. Who makes one holds the lock that `unpack` takes for layers: the second waits, and
finds the first one's. It needs no root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core import fsio, syscalls
from core.errors import Invalid, from_os_error
from core.layers import Compression
from core.snapshots.driver import WORK, FolderSnapshotter, Staged
from core.snapshots.mending import write_note
from core.snapshots.ports import SnapshotInfo, SnapshotKind

_MAGIC: Final = b"\0asm"


class ModuleUnpack:
    """One module being unpacked into `driver`, as the committed snapshot `name` with the one file `path`.

    `lock`: the file by which two of one name meet. Waits while another makes it; ended by `finish` or `abort`.
    """

    def __init__(self, driver: FolderSnapshotter, name: str, path: str, lock: Path) -> None:
        self._driver = driver
        self._name = name
        self._path = path.lstrip("/")
        self._staged: Staged | None = None
        self._lock = fsio.Lock(lock)
        self._lock.acquire()
        self._held = driver.ledger.has(name)

    def missing(self) -> Sequence[int]:
        """The one layer, unless the snapshot is there."""
        return () if self._held else (0,)

    def ready(self, index: int, blob: Path, compression: Compression) -> None:
        """Copy the module out of the blob; at once, it is one file. Raises `Invalid` for what is no module."""
        try:
            with open(blob, "rb") as source:
                if source.read(len(_MAGIC)) != _MAGIC:
                    raise Invalid("the layer is not a WASM module", advice="Push the .wasm file itself as the layer.")
                source.seek(0)
                (self._staged,) = self._driver.stage(1)
                target = self._staged.files / self._path
                with open(target, "xb") as out:
                    shutil.copyfileobj(source, out)
                target.chmod(0o755)
        except OSError as error:
            raise from_os_error(error, f"unpacking {self._name}") from error

    def applied(self) -> int:
        """Nothing is told in between."""
        return 0

    def finish(self) -> str:
        """Commit durably; returns the name."""
        if (staged := self._staged) is not None:
            driver = self._driver
            try:
                fsio.remove_tree(staged.path / WORK)
                info = SnapshotInfo(self._name, None, SnapshotKind.COMMITTED, driver.clock.wall())
                write_note(staged.path, info)
                self._sync()
                driver.publish(staged)
                fsio.fsync_dir(driver.root)
            except OSError as error:
                raise from_os_error(error, f"committing {self._name}") from error
            driver.ledger.add_committed([(staged.number, info)])
            self._staged = None
            staged.release()
        self._lock.release()
        return self._name

    def _sync(self) -> None:
        fd = self._driver.open_root()
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)

    def abort(self) -> None:
        """Leave nothing; harmless after `finish`."""
        if self._staged is not None:
            self._driver.discard(self._staged)
            self._staged = None
        self._lock.release()
