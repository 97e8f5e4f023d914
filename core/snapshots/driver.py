"""What drivers share: every snapshot is a folder named by its number, and a line in the ledger.

    <root>/ledger.db, <root>/locks/, <root>/<number>/fs (its files), <root>/<number>/work (overlay's own),
    <root>/<number>/line.json (its line once more: see `mending`)

Rules of this file. Making: a held staging folder, filled, renamed, then the line. Removing: the line, then the folder.
So a crash leaves folders without lines, which `sweep` removes once nobody holds them, and never a line without its
folder; where a damaged disk left one, `sweep` drops the line and all that rest on it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from core import fsio, syscalls
from core.clock import Clock
from core.errors import from_os_error
from core.mounts import MountSpec
from core.snapshots.ledger import Line
from core.snapshots.mending import folders, mounted, open_ledger, write_note
from core.snapshots.ports import SnapshotExists, SnapshotInfo, SnapshotKind, SnapshotMissing, Usage
from core.values import dataclass

FILES: Final = "fs"
WORK: Final = "work"


@dataclass(frozen=True, slots=True)
class Staged:
    """A folder being filled, kept from the sweeper by the open descriptor `held`."""

    number: int
    path: Path
    held: int

    @property
    def files(self) -> Path:
        """Where its files go."""
        return self.path / FILES

    def release(self) -> None:
        """Let go of it, published or not."""
        os.close(self.held)


class FolderSnapshotter(ABC):
    """The Snapshotter port over folders below `root`; a subclass says how parents come in."""

    in_order: bool
    """Whether layers can only be applied one on top of the other."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = fsio.make_private(root)
        self.locks = fsio.make_private(root / "locks")
        self.ledger, self.lost = open_ledger(root, clock)
        """`lost`: what of the ledger was lost and came back, in a sentence; empty: nothing."""
        self._root_fd = self.open_root()
        self.clock = clock

    @property
    @abstractmethod
    def name(self) -> str:
        """The driver's name in manifests."""

    @abstractmethod
    def settle(self, staged: Staged, parents: Sequence[str]) -> tuple[str, ...]:
        """Make `staged` ready to be changed on top of `parents` (nearest first, relative to root).

        Returns the lower folders that have to be mounted beneath it; none when their files are in it now.
        """

    @abstractmethod
    def specs(self, line: Line, lineage: Sequence[int]) -> tuple[MountSpec, ...]:
        """The mounts of an active snapshot or view over the snapshots `lineage`, nearest first."""

    def close(self) -> None:
        """Close what is open; the driver is of no use afterwards."""
        self.ledger.close()
        os.close(self._root_fd)

    def prepare(self, key: str, parent: str | None) -> tuple[MountSpec, ...]:
        """A new writable snapshot on `parent`; raises `SnapshotExists`, `SnapshotMissing`, `NoSpace`."""
        return self._new(key, parent, SnapshotKind.ACTIVE)

    def view(self, key: str, parent: str | None) -> tuple[MountSpec, ...]:
        """A new read-only snapshot of `parent`; raises as `prepare`."""
        return self._new(key, parent, SnapshotKind.VIEW)

    def mounts(self, key: str) -> tuple[MountSpec, ...]:
        """The mounts of an active snapshot or view; raises `SnapshotMissing`."""
        line = self.ledger.get(key)
        if line.info.kind is SnapshotKind.COMMITTED:
            raise SnapshotMissing(f"{key} is committed: it has no mounts", advice="Prepare a snapshot on top of it.")
        return self.specs(line, self.ledger.lineage(line.id))

    def commit(self, name: str, key: str) -> None:
        """Make active `key` the immutable `name`, durably; raises `SnapshotExists`, `SnapshotMissing`."""
        line = self.ledger.get(key)
        if line.info.kind is not SnapshotKind.ACTIVE:
            raise SnapshotMissing(f"there is no active snapshot {key}")
        if self.ledger.has(name):
            raise SnapshotExists(f"there is a snapshot {name} already")
        folder = self.root / str(line.id)
        with self._telling(f"committing {key}"):
            fsio.remove_tree(folder / WORK)
            now = self.clock.wall()
            write_note(folder, SnapshotInfo(name, line.info.parent, SnapshotKind.COMMITTED, now))
            syscalls.syncfs(self._root_fd)
        self.ledger.commit(name, key, now)

    def remove(self, key: str) -> None:
        """Drop a snapshot and its files; raises `SnapshotMissing`, `SnapshotInUse`."""
        number = self.ledger.get(key).id
        self.ledger.remove(key)
        with contextlib.suppress(OSError):  # something is mounted inside: it is swept when that is gone
            fsio.sweep(self.root / str(number))

    def stat(self, key: str) -> SnapshotInfo:
        """The ledger's line; raises `SnapshotMissing`."""
        return self.ledger.get(key).info

    def walk(self) -> Iterator[SnapshotInfo]:
        """Every line, parents before children."""
        return (line.info for line in self.ledger.lines())

    def usage(self, key: str) -> Usage:
        """Disk bytes and inodes of the snapshot's own files, hard links once; raises `SnapshotMissing`.

        Names longer than the system takes (4095 bytes from the root folder) are not counted.
        """
        return measure(self.folder(key))

    def folder(self, key: str) -> Path:
        """The folder of the snapshot's own files; raises `SnapshotMissing`."""
        return self.root / str(self.ledger.get(key).id) / FILES

    def sweep(self) -> list[str]:
        """Remove folders without a line that nobody holds or mounts, and lines without a folder; returns what went.

        Raises `AgentError` when something cannot be removed, after all else was.
        """
        removed: list[str] = []
        faults: list[OSError] = []
        for line in self.ledger.lines():
            if not (self.root / str(line.id) / FILES).is_dir():
                removed += self.ledger.drop(line.id)
        nameless = [number for number in folders(self.root) if not self.ledger.has_number(number)]
        used = mounted(self.root) if nameless else frozenset()
        for entry in sorted(self.root.iterdir()):
            if entry.name.isdigit() and (int(entry.name) in used or int(entry.name) not in nameless):
                continue
            if not entry.name.isdigit() and not entry.name.startswith(fsio.STAGING):
                continue
            try:
                if fsio.sweep(entry, unless=partial(self._named, entry.name)):
                    removed.append(entry.name)
            except OSError as error:
                faults.append(error)
        if faults:
            raise from_os_error(faults[0], f"sweeping {self.root}")
        return removed

    def stage(self, count: int) -> list[Staged]:
        """Held, empty folders for `count` snapshots; the caller publishes or discards each. Raises `NoSpace`."""
        made: list[Staged] = []
        try:
            for number in self.ledger.reserve(count):
                path = self.root / f"{fsio.STAGING}{number}"
                with self._telling(f"making {path}"):
                    made.append(Staged(number, path, _hold_new(path)))
                    (path / FILES).mkdir()
                    (path / FILES).chmod(0o755)
                    (path / WORK).mkdir(mode=0o700)
        except BaseException:
            for staged in made:
                self.discard(staged)
            raise
        return made

    def publish(self, staged: Staged) -> None:
        """Give a filled folder its name."""
        staged.path.rename(self.root / str(staged.number))

    def discard(self, staged: Staged) -> None:
        """Remove a staged folder, wherever it got to, and let go of it."""
        for path in (staged.path, self.root / str(staged.number)):
            fsio.remove_tree(path)
        staged.release()

    def open_root(self) -> int:
        """A descriptor of root for syncfs, which tells of faults in writing only since its descriptor was opened."""
        return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _new(self, key: str, parent: str | None, kind: SnapshotKind) -> tuple[MountSpec, ...]:
        below = None if parent is None else self._committed(parent)
        if self.ledger.has(key):
            raise SnapshotExists(f"there is a snapshot {key} already")
        lineage = [] if below is None else [below.id, *self.ledger.lineage(below.id)]
        (staged,) = self.stage(1)
        try:
            with self._telling(f"preparing {key}"):
                if below is not None:
                    inherit_root(self.root / str(below.id) / FILES, staged.files)
                if below is not None and kind is SnapshotKind.ACTIVE:
                    self.settle(staged, [f"{number}/{FILES}" for number in lineage])
                info = SnapshotInfo(key, parent, kind, self.clock.wall())
                write_note(staged.path, info)
                self.publish(staged)
            self.ledger.add(staged.number, info)
        except BaseException:
            self.discard(staged)
            raise
        staged.release()
        return self.specs(Line(staged.number, info), lineage)

    def _committed(self, name: str) -> Line:
        line = self.ledger.get(name)
        if line.info.kind is not SnapshotKind.COMMITTED:
            raise SnapshotMissing(f"there is no committed snapshot {name}")
        return line

    def _named(self, folder: str) -> bool:
        return folder.isdigit() and self.ledger.has_number(int(folder))

    @contextlib.contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise from_os_error(error, doing) from error


def _hold_new(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        held = fsio.hold(path)
        if held is not None:  # else a sweeper was faster than our lock, and is about to remove it
            return held


def bind(source: Path, *, writable: bool) -> tuple[MountSpec, ...]:
    """The mounts that show folder `source` itself."""
    return (MountSpec("bind", str(source), ("bind", "rw" if writable else "ro", "nodev")),)


def inherit_root(parent: Path, files: Path) -> None:
    """Give folder `files` the owner, mode, times and attributes of `parent`: the layer says nothing of its root."""
    seen = os.stat(parent)
    os.chown(files, seen.st_uid, seen.st_gid)
    os.chmod(files, stat.S_IMODE(seen.st_mode))
    for name in os.listxattr(parent):
        if not name.startswith("trusted.overlay.") and name != "security.selinux":
            os.setxattr(files, name, os.getxattr(parent, name))
    os.utime(files, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def measure(folder: Path) -> Usage:
    """Disk bytes and inodes at and below `folder`, hard links once."""
    first = os.lstat(folder)
    total, inodes = first.st_blocks * 512, 1
    linked: set[int] = set()
    todo = [os.fspath(folder)]
    while todo:
        with contextlib.suppress(FileNotFoundError), os.scandir(todo.pop()) as entries:  # a workload may remove it
            for entry in entries:
                seen = entry.stat(follow_symlinks=False)
                if seen.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    if seen.st_ino in linked:
                        continue
                    linked.add(seen.st_ino)
                total += seen.st_blocks * 512
                inodes += 1
                if entry.is_dir(follow_symlinks=False) and len(entry.path) < 4000:
                    todo.append(entry.path)
    return Usage(total, inodes)
