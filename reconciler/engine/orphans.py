"""Live tasks of which no store knows: a store was lost. They are taken in as objects, and left alone.

What a task was prepared with lies in its bundle. An orphan runs on as it is, listed under the manager `orphan`, until
somebody applies a manifest of its name or removes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.runtime.ports import TaskPhase
from reconciler.engine.observe import Eyes
from reconciler.model.identity import FINALIZERS, Key, Kind
from reconciler.model.objects import ORPHAN, Object
from reconciler.store.port import Put


def take_in(eyes: Eyes) -> list[Key]:
    """Make an object for each live task without one; returns their keys. What is dead and nobody's is removed."""
    names, _ = eyes.names()
    orphans = [name for name in sorted(names) if eyes.store.get(Key(Kind.CONTAINER, name)) is None]
    return [key for name in orphans for key in _take_in(eyes, name)]


def _take_in(eyes: Eyes, name: str) -> Iterator[Key]:
    key = Key(Kind.CONTAINER, name)
    for task in reversed(eyes.tasks(name)):
        described = eyes.node.runtimes.shim(task.id).described(task.id)
        live = task.phase in (TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED) or task.alive
        if live and described is not None:
            eyes.store.commit([Put(_object(key, described), 0)])
            yield key
            return
    for task in eyes.tasks(name):
        _remove(eyes, task.id)


def _object(key: Key, described: Mapping[str, Any]) -> Object:
    return Object(
        key,
        spec=described["spec"],
        labels=described.get("labels", {}),
        manager=ORPHAN,
        finalizers=frozenset({FINALIZERS[Kind.CONTAINER]}),
    )


def _remove(eyes: Eyes, id: str) -> None:
    """A root without a bundle, or a task that has ended: of nobody, and of no use."""
    eyes.node.runtimes.delete(id)
    for snapshotter in eyes.node.snapshotters.values():
        if any(info.key == id for info in snapshotter.walk()):
            snapshotter.remove(id)
    eyes.note_task(id, there=False)
