"""Status, from facts and outcome."""

from dataclasses import replace
from typing import Any

import pytest

from core.errors import Category, Retry
from reconciler.decide.facts import Now
from reconciler.decide.summary import Detail, condition, is_true, settled, stalled, summarise
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.model.outcome import Blocked, Fault, Outcome, RetryAfter, Settled

OBJ = Object(Key(Kind.CONTAINER, "web"), generation=3)
READY = Detail(True, "Running", "pid 7", {"state": "Running"})
NOT_READY = Detail(False, "NotStarted", "not yet", {"state": "Waiting"})
NOW = Now(1_700_000_000.0, 50.0)
FAULT = Fault("preparing", "PrepareTask(…)", Category.NOT_FOUND, "no such command", "fix it", Retry.NEVER, until=80.0)


def told(outcome: Outcome, detail: Detail, *, fault: Fault | None = None, obj: Object = OBJ) -> dict[str, Any]:
    """The status."""
    return summarise(obj, outcome, fault, detail, NOW)


def words(status: dict[str, Any], type_: str) -> tuple[str, str, str] | None:
    """Truth, reason and message of a condition."""
    found = condition(status, type_)
    return None if found is None else (found["status"], found["reason"], found["message"])


def test_what_is_settled_and_ready_says_only_that() -> None:
    status = told(Settled(), READY)
    assert [one["type"] for one in status["conditions"]] == ["Ready"]
    assert words(status, "Ready") == ("True", "Running", "pid 7")
    assert status["observedGeneration"] == 3
    assert status["state"] == "Running"
    assert "lastError" not in status
    assert "nextRetryAt" not in status


def test_what_is_worked_on_is_reconciling_and_not_stalled() -> None:
    status = told(RetryAfter("BackOff", "in 4 s", 4.0), NOT_READY)
    assert words(status, "Reconciling") == ("True", "BackOff", "in 4 s")
    assert words(status, "Ready") == ("False", "BackOff", "in 4 s")
    assert words(status, "Stalled") is None
    assert status["nextRetryAt"] == "2023-11-14T22:13:24.000Z"


def test_what_only_an_event_brings_on_has_no_next_try() -> None:
    assert "nextRetryAt" not in told(RetryAfter("InUse", "held", None), NOT_READY)


def test_what_only_a_person_can_help_is_stalled_and_looked_at_again_in_five_minutes() -> None:
    status = told(Blocked("SecretMissing", "no secret", "make one"), NOT_READY)
    assert words(status, "Stalled") == ("True", "SecretMissing", "no secret")
    assert words(status, "Reconciling") is None
    assert status["nextRetryAt"] == "2023-11-14T22:18:20.000Z"


def test_a_fault_is_told_with_phase_category_and_hint() -> None:
    status = told(Blocked(FAULT.reason, FAULT.message, FAULT.hint), NOT_READY, fault=FAULT)
    assert status["lastError"] == {
        "phase": "preparing",
        "object": "container/web",
        "category": "not found",
        "message": "no such command",
        "hint": "fix it",
    }
    assert words(status, "Ready") == ("False", "PreparingNotFound", "no such command")
    assert status["nextRetryAt"] == "2023-11-14T22:13:50.000Z"


def test_what_runs_while_the_new_one_fails_is_ready_and_stalled() -> None:
    status = told(Blocked(FAULT.reason, FAULT.message), READY, fault=FAULT)
    assert words(status, "Ready") == ("True", "Running", "pid 7")
    assert is_true(status, "Stalled")


def test_what_is_not_known_is_unknown() -> None:
    assert words(told(Settled(), Detail(None, "Unseen")), "Ready") == ("Unknown", "Unseen", "")


def test_a_condition_keeps_its_time_until_its_truth_changes() -> None:
    first = told(Settled(), READY)
    later = Now(NOW.wall + 60, NOW.monotonic + 60)
    obj = replace(OBJ, status=first, generation=4)
    same = summarise(obj, Settled(), None, replace(READY, message="pid 8"), later)
    assert condition(same, "Ready") == {
        **first["conditions"][0],
        "message": "pid 8",
        "observedGeneration": 4,
    }
    other = summarise(obj, Settled(), None, NOT_READY, later)
    assert other["conditions"][0]["lastTransitionTime"] == "2023-11-14T22:14:20.000Z"


def test_a_kinds_own_conditions_follow() -> None:
    status = told(Settled(), replace(READY, conditions=(("Stale", True, "Offline", "no network"),)))
    assert words(status, "Stale") == ("True", "Offline", "no network")


@pytest.mark.parametrize(
    ("outcome", "generation", "deleted", "is_settled", "is_stalled"),
    [
        (Settled(), 3, None, True, False),
        (Settled(), 4, None, False, False),
        (Settled(), 3, 5.0, False, False),
        (RetryAfter("R", "m"), 3, None, False, False),
        (Blocked("R", "m"), 3, None, False, True),
        (Blocked("R", "m"), 4, None, False, False),
    ],
)
def test_waiters_believe_only_what_was_said_of_the_newest_spec(
    outcome: Outcome, generation: int, deleted: float | None, is_settled: bool, is_stalled: bool
) -> None:
    obj = replace(OBJ, status=told(outcome, NOT_READY), generation=generation, deleted=deleted)
    assert settled(obj) is is_settled
    assert stalled(obj) is is_stalled


def test_an_object_that_nobody_has_looked_at_is_neither() -> None:
    assert not settled(OBJ)
    assert not stalled(OBJ)
