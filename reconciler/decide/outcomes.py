"""From a plan and the last fault to one of three words, and which of the plan's actions may be performed now."""

from __future__ import annotations

from core.errors import Retry
from reconciler.decide.facts import Now
from reconciler.decide.summary import until_blocked_again
from reconciler.model.actions import Action, Await, CreateTask, FetchSource, Plan, PrepareTask, StartTask
from reconciler.model.identity import RuntimeId
from reconciler.model.outcome import Blocked, Fault, Outcome, RetryAfter, Settled


def performable(plan: Plan, fault: Fault | None, now: Now) -> tuple[Action, ...]:
    """The actions up to the first whose phase failed and is still in its back-off."""
    if fault is None or now.monotonic >= fault.until:
        return plan.actions
    for index, action in enumerate(plan.actions):
        if _is_held_up(action, fault):
            return plan.actions[:index]
    return plan.actions


def _is_held_up(action: Action, fault: Fault) -> bool:
    """Whether it is what failed: the same phase and, for an attempt, the same spec, whatever the attempt's number."""
    if action.phase != fault.phase:
        return False
    match action:
        case PrepareTask(id=id) | CreateTask(id=id) | StartTask(id=id):
            known = RuntimeId.parse(id)
            return known is None or f"'{known.name}-{known.hash}-" in fault.action
        case FetchSource():  # another request, or a folder that has changed since
            return repr(action) == fault.action
        case _:
            return True


def outcome_of(plan: Plan, fault: Fault | None, now: Now) -> Outcome:
    """What a look ends in when no action is left that may be performed now."""
    if plan.converged:
        return Settled()
    if plan.actions and fault is not None:
        message = "; ".join([fault.message, *(wait.message for wait in plan.waits if wait.stalled)])
        if fault.retry is Retry.NEVER:
            return Blocked(fault.reason, message, fault.hint)
        return RetryAfter(fault.reason, message, max(0.0, fault.until - now.monotonic))
    return outcome_of_waits(plan.waits)


def outcome_of_waits(waits: tuple[Await, ...]) -> Outcome:
    """Only waits: Blocked when every one of them is for the outside; else look again at the earliest."""
    if not waits:
        return Settled()
    going = [wait for wait in waits if not wait.stalled]
    if not going:
        first = waits[0]
        return Blocked(first.reason, first.message, first.hint)
    timed = [wait.seconds for wait in going if wait.seconds is not None]
    return RetryAfter(going[0].reason, going[0].message, min(timed) if timed else None)


def look_again(outcome: Outcome, fault: Fault | None, now: Now) -> float | None:
    """Seconds until the key is due again by itself; None: only an event brings it back (and every resync)."""
    match outcome:
        case Settled():
            return None
        case RetryAfter(seconds=seconds):
            return seconds
        case Blocked():
            return until_blocked_again(fault, now)
