"""Status, computed once, at the end, from facts and outcome (kstatus: Ready, Reconciling, Stalled)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from core.clock import timestamp
from core.values import dataclass
from reconciler.model.outcome import Blocked, Fault, Outcome, RetryAfter, Settled

if TYPE_CHECKING:  # reading commands judge statuses, and must not pay for the drivers' ports that facts are made of
    from reconciler.decide.facts import Now
    from reconciler.model.objects import Object

LOOK_AGAIN: Final = 300.0
"""Seconds after which even what is Stalled is looked at again."""


@dataclass(frozen=True, slots=True)
class Detail:
    """What a kind adds: whether it is ready (None: unknown), why, and its own status fields."""

    ready: bool | None
    reason: str
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    conditions: tuple[tuple[str, bool, str, str], ...] = ()
    """Further conditions of the kind's own: type, truth, reason, message."""


def _truth(value: bool | None) -> str:
    return "Unknown" if value is None else str(value)


def summarise(obj: Object, outcome: Outcome, fault: Fault | None, detail: Detail, now: Now) -> dict[str, Any]:
    """The whole status of an object. A condition that has not changed keeps its transition time."""
    status: dict[str, Any] = {"observedGeneration": obj.generation, **detail.fields}
    old = {condition["type"]: condition for condition in obj.status.get("conditions", ())}
    wanted = [("Ready", _truth(detail.ready), *_ready_words(outcome, fault, detail))]
    match outcome:
        case RetryAfter(reason, message):
            wanted.append(("Reconciling", "True", reason, message))
        case Blocked(reason, message):
            wanted.append(("Stalled", "True", reason, message))
        case Settled():
            pass
    wanted.extend((type_, _truth(truth), reason, message) for type_, truth, reason, message in detail.conditions)
    status["conditions"] = [_condition(obj, old.get(entry[0]), entry, now) for entry in wanted]
    if fault is not None:
        status["lastError"] = {
            "phase": fault.phase,
            "object": str(obj.key),
            "category": fault.category.value,
            "message": fault.message,
            "hint": fault.hint,
        }
    due = _next_try(outcome, fault, now)
    if due is not None:
        status["nextRetryAt"] = timestamp(due)
    return status


def _ready_words(outcome: Outcome, fault: Fault | None, detail: Detail) -> tuple[str, str]:
    """Reason and message of Ready: what holds it up, when something does."""
    if detail.ready or isinstance(outcome, Settled):
        return detail.reason, detail.message
    if fault is not None:
        return fault.reason, fault.message
    return outcome.reason, outcome.message


def _next_try(outcome: Outcome, fault: Fault | None, now: Now) -> float | None:
    match outcome:
        case Blocked():
            return now.wall + until_blocked_again(fault, now)
        case RetryAfter(seconds=seconds) if seconds is not None:
            return now.wall + seconds
        case _:
            return None


def until_blocked_again(fault: Fault | None, now: Now) -> float:
    """Seconds until what is Blocked is looked at again: when its fault says, if that is still to come."""
    left = fault.until - now.monotonic if fault is not None else LOOK_AGAIN
    return left if left > 0 else LOOK_AGAIN


def _condition(
    obj: Object, old: Mapping[str, Any] | None, entry: tuple[str, str, str, str], now: Now
) -> dict[str, Any]:
    type_, truth, reason, message = entry
    same = old is not None and old.get("status") == truth
    return {
        "type": type_,
        "status": truth,
        "reason": reason,
        "message": message,
        "observedGeneration": obj.generation,
        "lastTransitionTime": old["lastTransitionTime"] if same and old is not None else timestamp(now.wall),
    }


def condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """The condition of that type in a status, or None."""
    return next((one for one in status.get("conditions", ()) if one["type"] == type_), None)


def is_true(status: Mapping[str, Any], type_: str) -> bool:
    """Whether the condition of that type is there and True."""
    found = condition(status, type_)
    return found is not None and found["status"] == "True"


def settled(obj: Object) -> bool:
    """Whether the newest spec has been looked at and nothing is left to do: what `apply` waits for."""
    seen = obj.status.get("observedGeneration") == obj.generation and _heeds_overrides(obj)
    return (
        seen and obj.deleted is None and not is_true(obj.status, "Reconciling") and not is_true(obj.status, "Stalled")
    )


def stalled(obj: Object) -> bool:
    """Whether the newest spec has been looked at and only a person or the outside can help."""
    seen = obj.status.get("observedGeneration") == obj.generation and _heeds_overrides(obj)
    return seen and is_true(obj.status, "Stalled")


def _heeds_overrides(obj: Object) -> bool:
    """Whether the last look knew all that a person at the node asks of the container."""
    asked = {name: obj.local[name] for name in ("stop", "restart") if name in obj.local}
    return bool(obj.status.get("override", {}) == asked)
