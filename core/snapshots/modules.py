"""From a WASM module to a snapshot that holds it as its one file.

Rules of this file: it is made aside as an active snapshot and committed whole; two that make the same one meet at the
commit, where the later takes the earlier's. It needs no root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.errors import Invalid, from_os_error
from core.layers import Compression
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.ports import SnapshotExists, SnapshotMissing

_MAGIC: Final = b"\0asm"


class ModuleUnpack:
    """One module being unpacked into `driver`, as the committed snapshot `name` with the one file `path`."""

    def __init__(self, driver: FolderSnapshotter, name: str, path: str) -> None:
        self._driver = driver
        self._name = name
        self._path = path.lstrip("/")
        self._key = f"module-{name.partition(':')[2][:16]}-{os.urandom(4).hex()}"
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
                self._driver.prepare(self._key, None)
                target = self._driver.folder(self._key) / self._path
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
        if not self._held:
            try:
                self._driver.commit(self._name, self._key)
            except SnapshotExists:
                self.abort()
        return self._name

    def abort(self) -> None:
        """Leave nothing; harmless after `finish`."""
        with contextlib.suppress(SnapshotMissing):  # it was never begun, or has been committed
            self._driver.remove(self._key)
