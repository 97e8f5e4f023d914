"""What telemetry is told of the engine's work: the names of spans, which trace a look belongs to, what gauges read.

Rules of this file: nothing here decides anything, and nothing costs anything while telemetry is off. A *story* is the
work from the moment an object is not as it should be until it is: its first part hangs on the trace of who asked for
the spec (`Object.trace`); what happens by itself later (an exit, a lost file) is a trace of its own, with a link there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from core import telemetry
from core.signals import Value
from core.telemetry import Span
from reconciler.decide.summary import is_true, settled
from reconciler.engine.lanes import Lanes
from reconciler.model.actions import (
    Action,
    ApplyRevision,
    AskLocal,
    CheckImage,
    CreateTask,
    DeleteTask,
    Disown,
    EnsureOwned,
    FetchSource,
    ForgetImage,
    ForgetSource,
    LayRoot,
    LetGoOfMembers,
    LoadRevision,
    MakeSandbox,
    MakeVolume,
    PrepareTask,
    PullImage,
    Release,
    Remember,
    RemoveChain,
    RemoveLogs,
    RemoveSandbox,
    RemoveVolume,
    RestoreTask,
    ResumeTask,
    RunHook,
    SignalTask,
    StartTask,
    UpdateTask,
)
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore

_NAMES: Final[Mapping[type, str]] = {
    PullImage: "image.pull",
    CheckImage: "image.check",
    MakeSandbox: "sandbox.create",
    PrepareTask: "container.prepare",
    CreateTask: "container.create",
    StartTask: "container.start",
    ResumeTask: "container.resume",
    LayRoot: "container.restore",
    RestoreTask: "container.restore",
    RunHook: "container.hook",
    SignalTask: "container.stop",
    UpdateTask: "container.update",
    DeleteTask: "container.delete",
    MakeVolume: "volume.create",
    FetchSource: "source.fetch",
    LoadRevision: "source.load",
    ApplyRevision: "source.apply",
    Remember: "record",
    AskLocal: "record",
    EnsureOwned: "record",
    Disown: "record",
    Release: "record",
    ForgetImage: "remove",
    RemoveChain: "remove",
    RemoveSandbox: "remove",
    RemoveLogs: "remove",
    RemoveVolume: "remove",
    LetGoOfMembers: "remove",
    ForgetSource: "remove",
}


def name_of(action: Action) -> str:
    """The span's name of an action; one that has none of its own is told by its attribute."""
    return _NAMES.get(type(action), "act")


def acting(action: Action) -> Span:
    """The span around performing `action`."""
    if not telemetry.is_on():
        return telemetry.span("act")
    span = telemetry.span(name_of(action), action=type(action).__name__)
    match action:
        case PullImage(ref=ref, driver=driver):
            span.note(image_name=ref, driver=driver)
        case MakeSandbox(id=id) | PrepareTask(id=id) | CreateTask(id=id) | StartTask(id=id) | DeleteTask(id=id):
            span.note(container_id=id)
        case LayRoot(id=id) | RestoreTask(id=id):
            span.note(container_id=id)
        case FetchSource(key=key):
            span.note(source=key.name)
        case LoadRevision(key=key, revision=revision) | ApplyRevision(key=key, revision=revision):
            span.note(source=key.name, revision=revision)
        case _:
            pass
    return span


def count_done(obj: Object, action: Action) -> None:
    """Count what an action that went well says: a container's exits and restarts, a Source's revisions."""
    if not telemetry.is_on():
        return
    match action:
        case ApplyRevision():
            telemetry.count("reconciler.source.revisions", source=obj.name, outcome="applied")
        case Remember(changes=changes, reason=reason) if "ended" in changes and reason:
            telemetry.count("reconciler.container.exits", container_name=obj.name, reason=reason)
            telemetry.note(reason=reason, exit_code=int(changes["ended"].get("code") or 0))
        case Remember(reason="Restarting"):
            telemetry.count("reconciler.container.restarts", container_name=obj.name)
        case _:
            pass


class _Story(NamedTuple):
    uid: str
    generation: int
    trace: str


class Stories:
    """Which trace each look goes on from. One worker at a time has a key."""

    def __init__(self) -> None:
        self._open: dict[Key, _Story] = {}

    def look(self, obj: Object) -> Span:
        """The span of a look at `obj`, which the caller drops when nothing was done."""
        if not telemetry.is_on():
            return telemetry.span("reconcile")
        story = self._open.get(obj.key)
        parent = link = ""
        if story is not None and story[:2] == (obj.uid, obj.generation):
            parent = story.trace
        elif settled(obj):
            link = obj.trace
        else:
            parent = obj.trace
        return telemetry.span(
            "reconcile",
            parent=parent,
            link=link,
            kind=obj.kind.value,
            name=obj.name,
            generation=obj.generation,
            manager=obj.manager,
        )

    def goes_on(self, obj: Object, look: Span) -> None:
        """Something was done: until it is settled, further looks belong to the same story."""
        if not look.parent:
            return
        story = self._open.get(obj.key)
        if story is None or story[:2] != (obj.uid, obj.generation):
            asked = "" if settled(obj) else obj.trace
            self._open[obj.key] = _Story(obj.uid, obj.generation, asked or look.parent)

    def ends(self, key: Key) -> None:
        """It is as it should be, or gone."""
        self._open.pop(key, None)


def watch(store: ObjectStore, lanes: Lanes, root: Path) -> None:
    """Have the gauges read from what an engine works with."""
    telemetry.observe("reconciler.queue.depth", lambda: _depths(lanes))
    telemetry.observe("reconciler.objects.count", lambda: _objects(store))
    telemetry.observe("system.filesystem.usage", lambda: _usage(root))


Readings = Iterator[tuple[float, Mapping[str, Value]]]


def _depths(lanes: Lanes) -> Readings:
    yield lanes.quick.depth(), {"lane": "quick"}
    yield lanes.slow.depth(), {"lane": "slow"}


def _objects(store: ObjectStore) -> Readings:
    found = Counter((obj.kind, _state(obj)) for obj in store.list())
    for kind in Kind:
        for state in ("ready", "not ready", "stalled"):
            yield found[kind, state], {"kind": kind.value, "state": state}


def _state(obj: Object) -> str:
    if is_true(obj.status, "Stalled"):
        return "stalled"
    return "ready" if settled(obj) else "not ready"


def _usage(root: Path) -> Readings:
    seen = os.statvfs(root)
    yield seen.f_bavail * seen.f_frsize, {"mount": str(root), "space": "free"}
    yield (seen.f_blocks - seen.f_bfree) * seen.f_frsize, {"mount": str(root), "space": "used"}
    yield (seen.f_bfree - seen.f_bavail) * seen.f_frsize, {"mount": str(root), "space": "reserved"}
