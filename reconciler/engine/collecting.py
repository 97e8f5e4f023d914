"""Collection: what no object needs, and no transfer is bringing in, is removed; by timetable and when asked for.

Rules of this file: what to keep is asked while `gc.lock` is held, so that nothing can come in or be relied on
meanwhile; a snapshot goes before those it rests on, and never while a container's root rests on it. Removing is
idempotent, so that a kill anywhere leaves less to do.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any, Final

from core.clock import Clock
from core.content.store import ContentStore
from core.errors import AgentError, Busy
from core.snapshots.ports import SnapshotInUse, SnapshotKind, Snapshotter
from reconciler.decide.marking import Needed, needed, orphans
from reconciler.engine.observe import Eyes
from reconciler.engine.recovery import NOTICE
from reconciler.engine.requests import Fields, Report
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import ORPHAN
from reconciler.store.functions import members
from reconciler.store.port import ObjectStore
from reconciler.store.revisions import unread_sources

COLLECT: Final = "collect"
GRACE: Final = 600.0
"""Seconds after a loss of the store in which nothing is collected by timetable."""
_PAUSE: Final = 0.2
_log: Final = logging.getLogger(__name__)


class Collector:
    """Collects on one node."""

    def __init__(self, eyes: Eyes, clock: Clock) -> None:
        self._eyes = eyes
        self._store = eyes.store
        self._node = eyes.node
        self._clock = clock

    def operate(self, given: Fields, report: Report) -> Fields:
        """The operation `collect`, with `{"dryRun", "orphans"}`: waits for the transfers under way, then removes.

        With `orphans` the sandboxes of containers that no store remembers go too, when those have gone.
        Says `{"blobs": [{digest, bytes}], "snapshots": [{driver, chain, bytes}], "roots": [{name, bytes}], "bytes",
        "kept": {blobs, snapshots}}`; roots are those of virtual machines, made from an image and kept.
        """
        dry = bool(given.get("dryRun"))
        if given.get("orphans") and not dry:
            self._remove_sandboxes()
        with self._closed(report):
            return self.collect(dry=dry)

    def by_timetable(self) -> None:
        """Collect unless the store may have forgotten what is needed, or a transfer is under way."""
        if why := why_not(self._store, self._clock.wall()):
            _log.warning("nothing is collected: %s", why)
            return
        try:
            with self._node.content.closed():
                done = self.collect(dry=False)
        except Busy:
            return
        except (AgentError, OSError) as error:
            _log.warning("collecting what nobody needs: %s", error)
            return
        if any(done[what] for what in ("blobs", "snapshots", "roots")):
            counts = len(done["blobs"]), len(done["snapshots"]), len(done["roots"]), done["bytes"]
            _log.info("collected %d blobs, %d snapshots and %d roots, %d bytes", *counts)

    @contextlib.contextmanager
    def _closed(self, report: Report) -> Iterator[None]:
        content: ContentStore = self._node.content
        while True:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(content.closed())
                except Busy:
                    report({"waiting": "for the transfers under way"})
                    self._clock.sleep(_PAUSE)
                    continue
                yield
                return

    def collect(self, *, dry: bool) -> dict[str, Any]:
        """Remove, or only list; content is closed by who calls."""
        keep = needed(self._store.list())
        snapshots = [found for name in self._node.snapshotters for found in self._snapshots(name, keep, dry=dry)]
        blobs, kept = self._blobs(keep, dry=dry)
        if not dry:
            self._node.content.sweep()
            self._node.apparmor.collect()
        made = self._node.runtimes.collect({chain for _, chain in keep.tops}, dry=dry)
        roots = [{"name": name, "bytes": size} for name, size in made.items()]
        total = sum(one["bytes"] for one in (*snapshots, *blobs, *roots))
        counts = {"blobs": kept, "snapshots": len(keep.tops)}
        return {"blobs": blobs, "snapshots": snapshots, "roots": roots, "bytes": total, "kept": counts}

    def _remove_sandboxes(self) -> None:
        """Remove the sandboxes that no object stands for, where no task is left that may be in one of them."""
        tasks, sandboxes = self._eyes.names()
        if any(self._store.get(Key(Kind.CONTAINER, name)) is None for name in tasks) or members(self._store, ORPHAN):
            return
        in_use = self._eyes.joined(self._store.list(Kind.CONTAINER))
        for name in sorted(sandboxes):
            if self._store.get(Key(Kind.SANDBOX, name)) is None:
                for id in self._eyes.sandbox_ids(name) - in_use:
                    self._node.networks.detach(id)
                    self._node.runtimes.shutdown_sandbox(id)
                    self._eyes.note_sandbox(id, there=False)

    def _blobs(self, keep: Needed, *, dry: bool) -> tuple[list[dict[str, Any]], int]:
        content, kept, going = self._node.content, 0, list[dict[str, Any]]()
        for digest in list(content.walk()):
            if str(digest) in keep.blobs:
                kept += 1
                continue
            going.append({"digest": str(digest), "bytes": content.size(digest) or 0})
            if not dry:
                content.discard(digest)
        return going, kept

    def _snapshots(self, driver: str, keep: Needed, *, dry: bool) -> Iterator[dict[str, Any]]:
        snapshotter = self._node.snapshotters[driver]
        for chain in unneeded(snapshotter, driver, keep):
            size = snapshotter.usage(chain).bytes
            if not dry:
                try:
                    snapshotter.remove(chain)
                except SnapshotInUse:
                    continue
            yield {"driver": driver, "chain": chain, "bytes": size}


def why_not(store: ObjectStore, now: float) -> str:
    """Why nothing may be collected that nobody asked for: the store may not know all that is needed. Empty: it may."""
    lost = json.loads(store.meta(NOTICE) or "{}").get("at")
    if lost is not None and abs(now - float(lost)) < GRACE:
        return "the store was lost or damaged a moment ago"
    if unread := unread_sources(store):
        return f"not read since the store was lost: {', '.join(map(str, unread[:5]))}"
    if unknown := orphans(store.list()):
        return f"containers run here that no store remembers: {', '.join(unknown[:5])}"
    return ""


def unneeded(snapshotter: Snapshotter, driver: str, keep: Needed) -> list[str]:
    """The committed snapshots that nothing needs and nothing that stays rests on, topmost first."""
    lines = list(snapshotter.walk())
    needed_chains = keep.chains(driver, {line.key: line.parent for line in lines})
    going: list[str] = []
    rested_on = set(needed_chains)
    for line in reversed(lines):
        if line.kind is SnapshotKind.COMMITTED and line.key not in rested_on:
            going.append(line.key)
        elif line.parent is not None:
            rested_on.add(line.parent)
    return going
