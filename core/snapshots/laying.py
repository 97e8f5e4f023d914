"""A writable snapshot with a layer laid on it, whole or not at all: for a root that goes on where another stopped.

Rules of this file: the layer is hostile; a worker process applies it, within a budget, as it applies those of images,
and what it read must have the digest that was promised before anybody can see the snapshot.
"""

from __future__ import annotations

import os
from typing import Final

from core.errors import Corrupt, from_os_error
from core.layers import Budgets, Compression
from core.mounts import MountSpec
from core.process import Launcher
from core.snapshots.changes import Layer
from core.snapshots.driver import FILES, WORK, FolderSnapshotter, Staged, inherit_root
from core.snapshots.job import Done, Fault, Job, Redo
from core.snapshots.ledger import Line
from core.snapshots.mending import write_note
from core.snapshots.pool import Worker
from core.snapshots.ports import SnapshotExists, SnapshotInfo, SnapshotKind
from core.snapshots.rooted import Beneath

_ADVICE: Final = "Take another copy of it."


def prepare_with(
    driver: FolderSnapshotter, launcher: Launcher, key: str, parent: str, layer: Layer, budgets: Budgets | None = None
) -> tuple[MountSpec, ...]:
    """As `Snapshotter.prepare`, with `layer` on it. Raises as that, and `Corrupt`, `Invalid`, `OverLimit`, `TimedOut`.

    What fails leaves nothing.
    """
    below = driver.ledger.get(parent)
    if driver.ledger.has(key):
        raise SnapshotExists(f"there is a snapshot {key} already")
    lineage = [below.id, *driver.ledger.lineage(below.id)]
    (staged,) = driver.stage(1)
    try:
        inherit_root(driver.root / str(below.id) / FILES, staged.files)
        lower = driver.settle(staged, [f"{number}/{FILES}" for number in lineage])
        _apply(driver, launcher, staged, lower, layer, budgets or Budgets())
        info = SnapshotInfo(key, parent, SnapshotKind.ACTIVE, driver.clock.wall())
        write_note(staged.path, info)
        driver.publish(staged)
        driver.ledger.add(staged.number, info)
    except OSError as error:
        driver.discard(staged)
        raise from_os_error(error, f"preparing {key} with a layer") from error
    except BaseException:
        driver.discard(staged)
        raise
    staged.release()
    return driver.specs(Line(staged.number, info), lineage)


def _apply(
    driver: FolderSnapshotter,
    launcher: Launcher,
    staged: Staged,
    lower: tuple[str, ...],
    layer: Layer,
    budgets: Budgets,
) -> None:
    """Have a worker apply it: to the upper folder alone where that is enough, else on top of what lies beneath."""
    worker = Worker(launcher)
    worker.start()
    try:
        hidden = _job(driver, staged, layer, budgets, Beneath.HIDDEN, ()) if lower else None
        answer = Redo("") if hidden is None else worker.do(hidden)
        if isinstance(answer, Redo):
            answer = worker.do(_job(driver, staged, layer, budgets, Beneath.VISIBLE, lower))
    finally:
        worker.close()
    match answer:
        case Fault():
            raise answer.error()
        case Done(hex) if hex != layer.digest.hex:
            raise Corrupt(f"the layer has the digest sha256:{hex}, not {layer.digest}", advice=_ADVICE)


def _job(
    driver: FolderSnapshotter,
    staged: Staged,
    layer: Layer,
    budgets: Budgets,
    beneath: Beneath,
    lower: tuple[str, ...],
) -> Job:
    return Job(
        blob=os.fspath(layer.path.absolute()),
        compression=Compression.NONE,
        algorithm=layer.digest.algorithm,
        beneath=beneath,
        target=f"{staged.path.name}/{FILES}",
        max_bytes=budgets.bytes_for(layer.size),
        max_inodes=budgets.inodes,
        scarce=False,
        seconds=budgets.seconds,
        prefix=os.fspath(driver.root),
        lower=lower,
        work=f"{staged.path.name}/{WORK}",
    )
