"""Objects as the engine leaves them, for the tests of what is printed."""

from __future__ import annotations

from typing import Any

from core.clock import timestamp
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin

NOW = 1_700_000_000.0


def condition(type_: str, status: str, reason: str, message: str = "", generation: int = 1) -> dict[str, Any]:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": timestamp(NOW - 90),
    }


def status(*conditions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"observedGeneration": 1, "conditions": list(conditions), **fields}


def made(kind: Kind, name: str, spec: dict[str, Any], **fields: Any) -> Object:
    given = {"generation": 1, "created": NOW - 3700, "manager": "hand", "origin": Origin("edge/web.yaml", 7), **fields}
    return Object(Key(kind, name), spec=spec, **given)


def web(**fields: Any) -> Object:
    """A container that runs."""
    spec = {"image": "web", "sandbox": "web"}
    seen = status(condition("Ready", "True", "Running"), state="Running", restarts=2, pid=77)
    return made(Kind.CONTAINER, "web", spec, **{"labels": {"app": "web"}, "status": seen, **fields})


def job() -> Object:
    """A container that has done its work."""
    seen = status(condition("Ready", "False", "Completed", "ended with 0"), state="Exited", exitCode=0)
    return made(Kind.CONTAINER, "job", {"image": "web", "sandbox": "web"}, status=seen)


def bad_image() -> Object:
    """An image whose tag is not there."""
    ref = "registry.local:5000/web:9"
    error = {
        "phase": "fetching",
        "object": "image/web",
        "category": "not found",
        "message": f"{ref} has no such tag",
        "hint": "tags there: 1.1, 1.2",
    }
    seen = status(
        condition("Ready", "False", "FetchingNotFound", error["message"]),
        condition("Stalled", "True", "FetchingNotFound", error["message"]),
        lastError=error,
        nextRetryAt=timestamp(NOW + 60),
    )
    return made(Kind.IMAGE, "web", {"ref": ref}, status=seen)


def pulling() -> Object:
    """An image half of which is here."""
    layers = [
        {"digest": "sha256:a", "size": 9_900_000, "state": "applied"},
        {"digest": "sha256:b", "size": 20_000_000, "state": "fetching", "fetched": 8_300_000},
    ]
    seen = status(
        condition("Ready", "False", "NotPulled"),
        condition("Reconciling", "True", "Progressing", "fetching"),
        layers=layers,
    )
    return made(Kind.IMAGE, "web", {"ref": "registry.local:5000/web:1.2"}, status=seen)


def login() -> Object:
    """A secret."""
    seen = status(condition("Ready", "True", "Stored"))
    return made(Kind.SECRET, "login", {"data": {"user": "aHVudGVy"}, "stringData": {"pass": "hunter2"}}, status=seen)
