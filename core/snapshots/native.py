"""Snapshots as plain copies: works on every file system, and shares nothing unless the file system can (reflink)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.clock import Clock
from core.errors import Failed, NoSpace
from core.fsio import free_bytes
from core.mounts import MountSpec
from core.process import Launcher, find
from core.snapshots.driver import FILES, FolderSnapshotter, Staged, bind
from core.snapshots.ledger import Line
from core.snapshots.ports import SnapshotKind

_COPY: Final = ("-dR", "--preserve=mode,ownership,timestamps,links,xattr", "--reflink=auto", "--sparse=auto")
_COPY_SECONDS: Final = 900.0
_TIGHT: Final = 1 << 20


class NativeSnapshotter(FolderSnapshotter):
    """The driver `native`. Copies are made by cp of GNU coreutils: device nodes, hard links, holes and attributes."""

    in_order = True

    def __init__(self, root: Path, clock: Clock, launcher: Launcher) -> None:
        super().__init__(root, clock)
        self._launcher = launcher

    @property
    def name(self) -> str:
        """`native`."""
        return "native"

    def settle(self, staged: Staged, parents: Sequence[str]) -> tuple[str, ...]:
        """Copy the parent's files; raises `NoSpace`, `Failed`, `TimedOut`."""
        copy = [find("cp", "coreutils"), *_COPY, f"{self.root / parents[0]}/.", f"{staged.files}"]
        try:
            self._launcher.check(copy, timeout=_COPY_SECONDS)
        except Failed as failed:
            if free_bytes(self.root) < _TIGHT:
                raise NoSpace(failed.message) from failed
            raise
        return ()

    def specs(self, line: Line, lineage: Sequence[int]) -> tuple[MountSpec, ...]:
        """A bind mount of its own copy; a view shows the parent's."""
        if line.info.kind is SnapshotKind.VIEW and lineage:
            return bind(self.root / str(lineage[0]) / FILES, writable=False)
        return bind(self.root / str(line.id) / FILES, writable=line.info.kind is SnapshotKind.ACTIVE)
