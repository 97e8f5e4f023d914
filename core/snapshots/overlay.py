"""Snapshots on overlayfs: a layer is a folder of its own, and a root filesystem is a mount of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from core.mounts import MountSpec
from core.snapshots.driver import FILES, WORK, FolderSnapshotter, Staged, bind
from core.snapshots.ledger import Line
from core.snapshots.overlay_mount import overlay_mount
from core.snapshots.ports import SnapshotKind


class OverlaySnapshotter(FolderSnapshotter):
    """The driver `overlayfs`. One folder alone is bound, since an overlay takes two."""

    in_order = False

    @property
    def name(self) -> str:
        """`overlayfs`."""
        return "overlayfs"

    def settle(self, staged: Staged, parents: Sequence[str]) -> tuple[str, ...]:
        """Nothing is copied: the parents are mounted beneath."""
        return tuple(parents)

    def specs(self, line: Line, lineage: Sequence[int]) -> tuple[MountSpec, ...]:
        """A bind mount of the only folder, or an overlay of all."""
        own = self.root / str(line.id) / FILES
        lower = [f"{number}/{FILES}" for number in lineage]
        if line.info.kind is SnapshotKind.ACTIVE:
            if not lower:
                return bind(own, writable=True)
            upper = f"{line.id}/{FILES}"
            return (overlay_mount(str(self.root), lower, upper, f"{line.id}/{WORK}"),)
        if len(lower) < 2:
            return bind(self.root / lower[0] if lower else own, writable=False)
        return (overlay_mount(str(self.root), lower),)
