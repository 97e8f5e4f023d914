"""Repair of content: a blob that does not hash to its name goes, and so does a snapshot that is not what its layer is;
the images that need them fetch and unpack them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.clock import Clock
from core.digest import Digest
from core.errors import Busy
from core.snapshots.ports import SnapshotInfo, SnapshotKind, Snapshotter
from reconciler.engine.observe import Eyes
from reconciler.engine.requests import Fields, Report
from reconciler.model.identity import Key, Kind, RuntimeId

REPAIR: Final = "repair"
_PAUSE: Final = 0.2


class Repairer:
    """Carries out the operation `repair`; `wake` has an object looked at."""

    def __init__(self, eyes: Eyes, wake: Callable[[Key], None], clock: Clock) -> None:
        self._eyes = eyes
        self._wake = wake
        self._clock = clock

    def operate(self, given: Fields, report: Report) -> Fields:
        """With `{"blobs": [digest], "snapshots": [{driver, chain}]}`: drops the blobs that are wrong (looked at anew),
        and the snapshots, with those that rest on them, while no transfer is under way.

        Says `{"dropped": [digest], "images": [name], "inUse": {chain: [container]}}`: the images fetch and unpack it
        by themselves from now on; a snapshot on which a container's root rests stays.
        """
        dropped = [blob for blob in given["blobs"] if self._drop(Digest.parse(blob), report)]
        removed: set[tuple[str, str]] = set()
        in_use: dict[str, list[str]] = {}
        for one in given.get("snapshots", ()):
            driver, chain = str(one["driver"]), str(one["chain"])
            if users := self._remove(driver, chain, removed, report):
                in_use[chain] = users
        wanted = set(given["blobs"])
        images = [
            obj
            for obj in self._eyes.store.list(Kind.IMAGE)
            if wanted & set(obj.record.get("blobs", ()))
            or (str(obj.record.get("driver")), str(obj.record.get("chain"))) in removed
        ]
        for obj in images:
            self._wake(obj.key)
        return {"dropped": dropped, "images": [obj.name for obj in images], "inUse": in_use}

    def _remove(self, driver: str, chain: str, removed: set[tuple[str, str]], report: Report) -> list[str]:
        """Remove a snapshot and those on it, topmost first; or give the names of the containers whose roots do rest."""
        snapshotter = self._eyes.node.snapshotters[driver]
        while True:
            report({"waiting": "for the transfers under way"})
            try:
                with self._eyes.node.content.closed():
                    resting = _resting(snapshotter, chain)
                    if users := [one.key for one in resting if one.kind is not SnapshotKind.COMMITTED]:
                        return sorted({_container_of(key) for key in users})
                    for one in reversed(resting):
                        snapshotter.remove(one.key)
                        removed.add((driver, one.key))
                    return []
            except Busy:  # also that a root came to rest on it just now: then the next look finds its name
                self._clock.sleep(_PAUSE)

    def _drop(self, digest: Digest, report: Report) -> bool:
        content = self._eyes.node.content
        while True:
            report({"waiting": "for the transfers under way"})
            try:
                with content.closed():
                    if content.size(digest) is None or content.intact(digest):
                        return False
                    content.discard(digest)
                    return True
            except Busy:
                self._clock.sleep(_PAUSE)


def _resting(snapshotter: Snapshotter, chain: str) -> list[SnapshotInfo]:
    """A snapshot, when it is there, and all that rest on it, parents before children."""
    names, found = {chain}, list[SnapshotInfo]()
    for info in snapshotter.walk():
        if info.key == chain or info.parent in names:
            names.add(info.key)
            found.append(info)
    return found


def _container_of(key: str) -> str:
    known = RuntimeId.parse(key)
    return known.name if known is not None else key
