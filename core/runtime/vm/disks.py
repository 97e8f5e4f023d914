"""Disks of machines: roots as EROFS images, one for all tasks of an image, and a writable layer for each task.

Rules of this file: a root's image gets its name by rename, whole and on the disk. Each task has a name of its own for
it, a hard link: so it may be removed at any time from among those that are kept, and no task loses its own; one with a
single name is in nobody's use. At most `MOST_BYTES` of roots are kept; the longest unused go first. A layer is sparse
and has no journal: it lives as long as one attempt.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from core import fsio
from core.process import Launcher, find

MOST_BYTES: Final = 8 << 30
LAYER_BYTES: Final = 16 << 30
MAKE_SECONDS: Final = 600.0
_SERIAL: Final = 18


class Disks:
    """Below `folder`: `roots/<sha256>.erofs`, and of each task `layers/<id>.img` and `layers/<id>.erofs`, its root."""

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self._roots = folder / "roots"
        self._layers = folder / "layers"
        self._launcher = launcher

    def root(self, id: str, image: str, tree: Path) -> Path:
        """The task's own name for the image of the root at `tree`; `image`: what it is made from ("": not kept).

        Raises `MissingTool`, `NoSpace`, what mkfs.erofs complains of.
        """
        own = fsio.make_private(self._layers) / f"{id}.erofs"
        own.unlink(missing_ok=True)
        if not image:
            self._make_root(own, tree)
            return own
        kept = fsio.make_private(self._roots) / root_name(image)
        with fsio.locked(self._roots / ".lock"):
            try:
                os.link(kept, own)
            except FileNotFoundError:
                self._make_root(own, tree)
                os.link(own, kept)
                self._bound(kept)
            os.utime(own)
        return own

    def _make_root(self, path: Path, tree: Path) -> None:
        program = find("mkfs.erofs", "erofs-utils")
        with fsio.staging(path.parent) as work:
            made = work / "root"
            self._launcher.check([program, "--quiet", "-T0", str(made), str(tree)], timeout=MAKE_SECONDS)
            with open(made, "rb") as image:
                os.fsync(image.fileno())
            os.rename(made, path)

    def _bound(self, newest: Path) -> None:
        kept = sorted(self._kept(), key=lambda one: one[1].st_mtime)
        total = sum(seen.st_size for _, seen in kept)
        for path, seen in kept:
            if total > MOST_BYTES and path != newest:
                total -= seen.st_size
                path.unlink(missing_ok=True)

    def _kept(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._roots.glob("*.erofs"):
            with contextlib.suppress(FileNotFoundError):  # collected at this moment
                yield path, path.stat()

    def collect(self, images: Collection[str], *, dry: bool) -> Iterator[tuple[str, int]]:
        """Remove (`dry`: only tell) the roots that are no task's and made from none of `images`: name and bytes.

        No lock is taken: a task that is prepared at this moment has its own name for the root, or makes it anew.
        """
        needed = {root_name(image) for image in images}
        for path, seen in sorted(self._kept()):
            if path.name not in needed and seen.st_nlink == 1:
                if not dry:
                    path.unlink(missing_ok=True)
                yield path.stem, seen.st_size

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


def root_name(image: str) -> str:
    """What the root of an image is called among those that are kept."""
    return f"{hashlib.sha256(image.encode()).hexdigest()}.erofs"


def serial(kind: str, name: str) -> str:
    """A disk's serial, by which the guest finds it: short enough for SCSI, always the same for a name."""
    return kind + hashlib.sha256(name.encode()).hexdigest()[:_SERIAL]
