"""Hands for checkpoints: a root that goes on where another stopped, and a task that does.

Rules of this file: a checkpoint that was taken in lies in `<root>/checkpoints/<name>`, verified when it came; it is
gone on from once, and removed when that was tried. What nobody names any more goes at an engine's start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from core import fsio
from core.errors import AgentError, Unsupported
from core.process import Launcher
from core.runtime.ports import Checkpointing, TaskPhase
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.ports import SnapshotExists
from reconciler.decide.attempts import Attempt, Memory
from reconciler.decide.overrides import checkpoint_of, restart_asked
from reconciler.engine.observe import Eyes
from reconciler.model.actions import LayRoot, RestoreTask
from reconciler.model.identity import Kind


class CheckpointHands:
    """Lays roots and restores tasks. `folder`: where checkpoints are that were taken in."""

    def __init__(self, eyes: Eyes, drivers: Mapping[str, FolderSnapshotter], launcher: Launcher, folder: Path) -> None:
        self._eyes = eyes
        self._drivers = drivers
        self._launcher = launcher
        self._folder = folder

    def lay(self, action: LayRoot) -> None:
        """The root of an attempt, with what the other one wrote. Raises what is wrong with the checkpoint."""
        from core.runtime import checkpoints  # of no use to an engine that restores nothing
        from core.snapshots.changes import Layer
        from core.snapshots.laying import prepare_with

        self._eyes.note_task(action.id, there=True)
        place = self._folder / action.checkpoint
        driver, chain = self._drivers[str(action.image["driver"])], str(action.image["chain"])
        with self._once(action.checkpoint):
            about = checkpoints.held(place)
            layer = Layer(place / checkpoints.LAYER, about.layer.digest, about.layer.size)
            with contextlib.suppress(SnapshotExists):  # laid by an engine that was killed after it
                prepare_with(driver, self._launcher, action.id, chain, layer)

    def restore(self, action: RestoreTask) -> None:
        """PREPARED → RUNNING. Raises the runtime's complaint."""
        from core.runtime import checkpoints

        runtime = self._eyes.node.runtimes.of_task(action.id)
        place = self._folder / action.checkpoint
        with self._once(action.checkpoint):
            if not isinstance(runtime.shim, Checkpointing):
                raise Unsupported(f"{runtime.spec.name} has no checkpoints")
            checkpoints.held(place)
            runtime.shim.restore(action.id, place / checkpoints.STATE)
        fsio.remove_tree(place)

    @contextlib.contextmanager
    def _once(self, name: str) -> Iterator[None]:
        """What fails is not tried again: the checkpoint goes."""
        try:
            yield
        except (AgentError, OSError):
            fsio.remove_tree(self._folder / name)
            raise

    def sweep(self) -> None:
        """Remove the checkpoints that no container is to go on from; a command that brings one in holds it."""
        if not self._folder.is_dir():
            return
        wanted = frozenset(self._wanted())
        for entry in sorted(self._folder.iterdir()):
            fsio.sweep(entry, unless=partial(wanted.__contains__, entry.name))

    def _wanted(self) -> Iterator[str]:
        for obj in self._eyes.store.list(Kind.CONTAINER):
            memory = Memory.of(obj.record)
            if restart_asked(obj.local, memory):
                yield checkpoint_of(obj.local)
            if memory.current is not None and self._is_to_be_restored(obj.name, memory.current):
                yield memory.current.checkpoint

    def _is_to_be_restored(self, name: str, attempt: Attempt) -> bool:
        if not attempt.checkpoint or not attempt.started:
            return bool(attempt.checkpoint)
        id = attempt.id(name)
        return self._eyes.node.runtimes.shim(id).state(id).phase is TaskPhase.PREPARED
