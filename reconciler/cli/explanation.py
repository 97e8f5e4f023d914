"""Why an object is as it is, gathered from what the store says of it and of those around it. Pure; no words for people.

Rules of this file: what the agent made itself was asked for by the objects that it belongs to, up to those that
somebody wrote. The last thing done is the newest of what was told (events) and what the status dates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from core.clock import parse_timestamp, timestamp
from reconciler.cli.columns import is_ready, message, state
from reconciler.decide.references import references
from reconciler.model.identity import Key
from reconciler.model.objects import Object
from reconciler.store.functions import ENGINE
from reconciler.store.port import Event

_DATED: Final = (("startedAt", "Started"), ("finishedAt", "Exited"))


def explain(obj: Object, objects: Sequence[Object], events: Iterable[Event]) -> dict[str, Any]:
    """All that `why` says of `obj`, as JSON; `events` may be of any objects."""
    by_key = {one.key: one for one in objects}
    return {
        "object": str(obj.key),
        "state": state(obj),
        "ready": is_ready(obj),
        "message": message(obj) or _ready_message(obj),
        "askedFor": [asked(one) for one in askers(obj, by_key)],
        "owners": sorted(map(str, obj.owners)),
        "needs": [_around(key, by_key) for key in sorted(references(obj))],
        "usedBy": [str(one.key) for one in objects if obj.key in references(one)],
        "owns": [str(one.key) for one in objects if obj.key in one.owners],
        "last": last_action(obj, events),
        "waitsFor": list(_waits(obj)),
        "because": list(_causes(obj, by_key)),
        "lastError": dict(obj.status.get("lastError") or {}) or None,
        "next": {"at": obj.status.get("nextRetryAt"), "what": _next(obj)},
        "local": dict(obj.local),
    }


def askers(obj: Object, by_key: Mapping[Key, Object]) -> list[Object]:
    """Whose wish it is: the object itself, or those that it was made for, in order."""
    if obj.manager != ENGINE or not obj.owners:
        return [obj]
    found: dict[Key, Object] = {}
    ahead, seen = sorted(obj.owners), {obj.key}
    while ahead:
        key = ahead.pop(0)
        owner = by_key.get(key)
        if owner is None or key in seen:
            continue
        seen.add(key)
        if owner.manager == ENGINE and owner.owners:
            ahead += sorted(owner.owners)
        else:
            found[key] = owner
    return list(found.values()) or [obj]


def asked(obj: Object) -> dict[str, Any]:
    """By whom an object was asked for, and where that is written."""
    origin = obj.origin
    return {
        "object": str(obj.key),
        "by": obj.manager,
        "revision": origin.revision if origin is not None else "",
        "file": origin.file if origin is not None else "",
        "line": origin.line if origin is not None else 0,
    }


def last_action(obj: Object, events: Iterable[Event]) -> dict[str, Any] | None:
    """What was done last, and when; None when nothing is known."""
    told = [(one.last, one.reason, one.message) for one in events if one.key == obj.key]
    for name, reason in _DATED:
        if when := obj.status.get(name):
            told.append((parse_timestamp(when), reason, _exit(obj) if name == "finishedAt" else ""))
    if obj.deleted is not None:
        told.append((obj.deleted, "DeletionAsked", ""))
    for one in obj.status.get("conditions", ()) if not told else ():
        if one["type"] == "Ready":
            told.append((parse_timestamp(one["lastTransitionTime"]), one["reason"], ""))
    if not told:
        return None
    # Of two of one moment the one with a message says more.
    at, reason, text = max(told, key=lambda one: (round(one[0], 1), bool(one[2])))
    return {"what": reason, "message": text, "at": timestamp(at)}


def _exit(obj: Object) -> str:
    code = obj.status.get("exitCode")
    return "" if code is None else f"code {code}"


def _ready_message(obj: Object) -> str:
    return next((str(one["message"]) for one in obj.status.get("conditions", ()) if one["type"] == "Ready"), "")


def _around(key: Key, by_key: Mapping[Key, Object]) -> dict[str, Any]:
    found = by_key.get(key)
    if found is None:
        return {"object": str(key), "state": "Missing", "ready": False}
    return {"object": str(key), "state": state(found), "ready": is_ready(found)}


def _waits(obj: Object) -> Iterator[dict[str, str]]:
    for one in obj.status.get("conditions", ()):
        if one["type"] in ("Reconciling", "Stalled") and one["status"] == "True":
            yield {"reason": one["reason"], "message": one["message"]}


def _causes(obj: Object, by_key: Mapping[Key, Object]) -> Iterator[dict[str, Any]]:
    """Of what it needs, directly or through others, that which has an error of its own, or waits for nothing else."""
    ahead, seen = sorted(references(obj)), {obj.key}
    while ahead:
        key = ahead.pop(0)
        needed = by_key.get(key)
        if key in seen:
            continue
        seen.add(key)
        if needed is None:
            yield {"object": str(key), "message": "it is not there", "next": None}
        elif not is_ready(needed):
            below = sorted(references(needed))
            ahead += below
            if needed.status.get("lastError") or not below:
                yield {"object": str(key), "message": message(needed), "next": needed.status.get("nextRetryAt")}


def _next(obj: Object) -> str:
    if obj.deleted is not None:
        return "is removed, and goes when those that use it have let go"
    if obj.status.get("observedGeneration") != obj.generation:
        return "is looked at for the first time as it is wanted now"
    if obj.status.get("nextRetryAt"):
        return "is tried again"
    if any(_waits(obj)):
        return "goes on when what it waits for has happened"
    return "nothing: it is as it should be"
