"""Images that follow a tag: when it is asked anew what the tag means, and what comes of the answer. Pure.

Rules of this file: what is held stays in use whatever the registry says or does not say; that it may be old is a
condition (`Stale`), not a fault. A clock that went back makes a question due, never one that waits for years.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.errors import AgentError
from reconciler.model.kinds.image import ImageSpec

AFTER_FAILURE: Final = 300.0
"""Seconds after which a registry that did not answer is asked again at the latest, however long the interval."""


def follows(spec: ImageSpec) -> bool:
    """Whether the image is to be what its tag means now: one by digest or of an archive is what it is."""
    wanted = spec.pull_policy == "Always" or spec.update.policy == "Digest"
    return wanted and spec.archive is None and "@" not in spec.ref


def is_due(spec: ImageSpec, record: Mapping[str, Any], wall: float) -> bool:
    """Whether it is time to ask what the tag means."""
    if not follows(spec) or record.get("next"):
        return False
    asked = record.get("checkedAt")
    pause = min(spec.update.interval, AFTER_FAILURE) if record.get("stale") else spec.update.interval
    return asked is None or not 0 <= wall - float(asked) < pause


def answered(record: Mapping[str, Any], target: Mapping[str, Any], wall: float) -> dict[str, Any]:
    """What to remember when the tag means `target` (mediaType, digest, size): nothing new, or what is to be pulled."""
    moved = target["digest"] != record.get("digest")
    return {"checkedAt": wall, "stale": None, "next": dict(target) if moved else None}


def unanswered(error: AgentError, wall: float) -> dict[str, Any]:
    """What to remember when nobody could say what the tag means."""
    return {"checkedAt": wall, "stale": {"reason": _reason(error), "message": error.message}}


def _reason(error: AgentError) -> str:
    return "".join(word.capitalize() for word in error.category.value.split())


def stale(spec: ImageSpec, record: Mapping[str, Any]) -> tuple[tuple[str, bool, str, str], ...]:
    """The condition `Stale`, when the last question had no answer; else none."""
    said = record.get("stale")
    if not said or not follows(spec):
        return ()
    message = f"what is held is used; whether it is what the tag means could not be asked: {said['message']}"
    return (("Stale", True, str(said["reason"]), message),)
