"""Disks of machines: roots as EROFS images, one for all tasks of an image, and a writable layer for each task.

Rules of this file: a root's image gets its name by rename, whole and on the disk. It may be removed while machines have
it open: they keep what they opened. The folder holds at most `MOST_BYTES` of roots; the longest unused go first. A
layer is sparse and has no journal: it lives as long as one attempt.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import fsio
from core.process import Launcher, find

MOST_BYTES: Final = 8 << 30
LAYER_BYTES: Final = 16 << 30
MAKE_SECONDS: Final = 600.0
_SERIAL: Final = 18


class Disks:
    """Below `folder`: `roots/<sha256>.erofs`, `layers/<id>.img`, and `layers/<id>.erofs` for roots of no image."""

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self._roots = folder / "roots"
        self._layers = folder / "layers"
        self._launcher = launcher

    def root(self, id: str, image: str, tree: Path) -> Path:
        """The image of the root at `tree`. Raises `MissingTool`, `NoSpace`, what mkfs.erofs complains of."""
        fsio.make_private(self._roots)
        if not image:
            path = fsio.make_private(self._layers) / f"{id}.erofs"
            self._make_root(path, tree)
            return path
        path = self._roots / f"{hashlib.sha256(image.encode()).hexdigest()}.erofs"
        with fsio.locked(self._roots / ".lock"):
            if not path.exists():
                self._make_root(path, tree)
                self._bound(path)
            os.utime(path)
        return path

    def _make_root(self, path: Path, tree: Path) -> None:
        program = find("mkfs.erofs", "erofs-utils")
        with fsio.staging(path.parent) as work:
            made = work / "root"
            self._launcher.check([program, "--quiet", "-T0", str(made), str(tree)], timeout=MAKE_SECONDS)
            with open(made, "rb") as image:
                os.fsync(image.fileno())
            os.rename(made, path)

    def _bound(self, newest: Path) -> None:
        kept = sorted(self._roots.glob("*.erofs"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in kept)
        for path in kept:
            if total > MOST_BYTES and path != newest:
                total -= path.stat().st_size
                path.unlink()

    def layer(self, id: str) -> Path:
        """A fresh writable layer for a task. Raises `MissingTool`, `NoSpace`."""
        path = fsio.make_private(self._layers) / f"{id}.img"
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, LAYER_BYTES)
        finally:
            os.close(fd)
        features = ("-O", "^has_journal,^resize_inode,sparse_super2", "-E", "lazy_itable_init=1,nodiscard", "-m", "0")
        program = find("mkfs.ext4", "e2fsprogs")
        self._launcher.check([program, "-q", "-F", *features, "-N", "1048576", str(path)], timeout=MAKE_SECONDS)
        return path

    def forget(self, id: str) -> None:
        """Remove what is a task's own."""
        for kind in ("img", "erofs"):
            (self._layers / f"{id}.{kind}").unlink(missing_ok=True)

    def left(self) -> Iterator[str]:
        """The ids of tasks of which a layer is there."""
        with contextlib.suppress(FileNotFoundError):
            yield from {path.stem for path in self._layers.iterdir() if not path.name.startswith(".")}

    def sweep(self) -> None:
        """Remove what a killed engine left half-made."""
        for folder in (self._roots, self._layers):
            if folder.exists():
                fsio.sweep_staging(folder)


def serial(kind: str, name: str) -> str:
    """A disk's serial, by which the guest finds it: short enough for SCSI, always the same for a name."""
    return kind + hashlib.sha256(name.encode()).hexdigest()[:_SERIAL]
