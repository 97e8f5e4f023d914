"""`reconciler agent uninstall`: the service, everything that runs, and everything on disk, in this order.

Rules of this file: each step leaves a node on which the command can be run again to go on. Nothing is touched before
what may be refused was. The folders go last, under the engine's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from core.clock import Clock
from core.errors import Busy, Denied
from core.fsio import make_private
from core.process import Launcher
from reconciler.cli.context import Node
from reconciler.cli.install import other_agent, unit_of
from reconciler.cli.terminal import say
from reconciler.cli.texts import counted
from reconciler.engine.removal import filled, remove_folders, shut_down
from reconciler.engine.systemd import Service, is_manager
from reconciler.model.identity import Kind
from reconciler.model.objects import Object
from reconciler.store.port import StoreCorrupt

if TYPE_CHECKING:
    from reconciler.wiring import Verdict

ROUNDS: Final = 3
"""The second is for containers that no store knew of and that the first took in as orphans."""
MOST_NAMED: Final = 5


class Uninstall:
    """One uninstall of what this command line names."""

    def __init__(self, node: Node, *, keep_volumes: bool) -> None:
        self.node = node
        self.keep_volumes = keep_volumes
        self.clock: Clock = node.clock
        self.service = Service(unit_of(node).name, Launcher()) if is_manager() else None

    def run(self, *, yes: bool, timeout: float) -> int:
        """All steps, each said; the exit code."""
        self._refuse(yes=yes)
        if self.service is not None and self.service.remove():
            say(f"{self.service.file}: stopped and removed")
        paths = self.node.paths
        if not paths.root.is_dir() and not paths.state.is_dir():
            say(f"nothing is in {paths.root} and {paths.state}")
            return 0
        code = self._tear_down(self.clock.monotonic() + timeout)
        return code or self._remove()

    def _refuse(self, *, yes: bool) -> None:
        """Raise what makes it wrong to begin."""
        if os.geteuid() != 0:
            raise Denied("uninstalling needs root: nothing was removed", advice="Run it as root.")
        own = self.service.state().pid if self.service is not None else 0
        if (other := other_agent(self.node.paths, own)) is not None:
            raise Busy(
                f"{other} runs, and not as a service: nothing was removed",
                advice=f"Stop it (kill {other.process.pid}), and uninstall then.",
            )
        with suppress(StoreCorrupt):  # it is mended before it is used; one too new for us is refused here
            self.node.store()
        names = [] if self.keep_volumes or yes else filled(self.node.paths.volumes)
        if names:
            named = ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
            raise Denied(
                f"there is data in {counted(len(names), 'volume')} ({named}): nothing was removed",
                advice=f"Say --yes to remove them too, or --keep-volumes to keep {self.node.paths.volumes}.",
            )

    def _tear_down(self, until: float) -> int:
        """Delete all objects and wait until nothing of them is left on the node; the exit code."""
        from reconciler.cli.delete import mark, settle
        from reconciler.cli.verdicts import exit_code, tell_failures
        from reconciler.store.sqlite_recovery import mend

        with self._locked():
            make_private(self.node.paths.root)
            mend(self.node.paths.store_file, self.clock)
        store = self.node.store_to_write()
        count = 0
        for number in range(ROUNDS):
            going = [obj for obj in store.list() if self._goes(obj)]
            if number and not going:
                break
            count += len(going)
            keys = mark(self.node, store, going, purge=not self.keep_volumes)
            verdict: Verdict = settle(self.node, store, keys, max(1.0, until - self.clock.monotonic()))
            if left := verdict.stalled | verdict.pending:
                tell_failures(store.list(), left)
                say(f"Not gone: {counted(len(left), 'object')}. {self.node.paths.root} was left; run this again.")
                store.close()
                return exit_code(verdict)
        store.close()
        say(f"Deleted: {counted(count, 'object')}.")
        return 0

    def _goes(self, obj: Object) -> bool:
        kept = (Kind.NODE, Kind.VOLUME) if self.keep_volumes else (Kind.NODE,)
        return obj.kind not in kept and not (obj.manager == "engine" and obj.owners)

    def _remove(self) -> int:
        from core.proc import boot_id
        from reconciler.assembly import build_networks
        from reconciler.wiring import runtimes_of

        paths = self.node.paths
        with self._locked():
            networks = build_networks(paths, Launcher(), boot_id(), self.node.config())
            shut_down(networks, runtimes_of(paths), paths.group, self.clock)
            left = remove_folders(paths, ("volumes",) if self.keep_volumes else ())
        for entry in left:
            say(f"{entry}: {'kept' if self.keep_volumes and entry == paths.volumes else 'not ours, left alone'}")
        for folder in (paths.root, paths.state):
            there = folder.is_dir()
            say(f"{folder}: {'stays' if there and any(folder.iterdir()) else 'emptied' if there else 'removed'}")
        return 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the engine for the block: nobody else works on this node, or begins to."""
        from reconciler.engine.lock import EngineLock, Role

        lock = EngineLock(self.node.paths.state, self.node.paths.root, Role.AGENT, self.clock)
        lock.take()
        try:
            yield
        finally:
            lock.release()
