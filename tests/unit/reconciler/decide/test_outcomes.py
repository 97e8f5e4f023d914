"""From a plan and a fault to one of three words."""

import pytest

from core.errors import Category, Retry
from reconciler.decide.facts import Now
from reconciler.decide.outcomes import look_again, outcome_of, outcome_of_waits, performable
from reconciler.decide.summary import LOOK_AGAIN
from reconciler.model.actions import Action, Await, CreateTask, DeleteTask, Plan, PrepareTask, Remember, StartTask
from reconciler.model.identity import Key, Kind
from reconciler.model.outcome import Blocked, Fault, Outcome, RetryAfter, Settled

WEB = Key(Kind.CONTAINER, "web")
NOW = Now(0.0, 100.0)


def launch(hash: str, attempt: int) -> tuple[Action, ...]:
    """All that starts an attempt."""
    id = f"web-{hash}-{attempt}"
    return Remember(WEB, {}), PrepareTask(WEB, id, {}, {}, "s"), CreateTask(id), StartTask(WEB, id)


def fault(action: Action, *, retry: Retry = Retry.BACKOFF, until: float = 130.0) -> Fault:
    """That action failed."""
    return Fault(action.phase, repr(action), Category.FAILED, "it would not", "do this", retry, until=until)


def test_without_a_fault_everything_may_be_performed() -> None:
    plan = Plan(launch("aaaaaaaa", 1))
    assert performable(plan, None, NOW) == plan.actions


def test_in_its_back_off_what_failed_and_what_follows_is_held_up_and_what_comes_before_is_not() -> None:
    plan = Plan(launch("aaaaaaaa", 2))
    failed = fault(CreateTask("web-aaaaaaaa-1"))
    assert performable(plan, failed, NOW) == plan.actions[:2]
    assert performable(plan, failed, Now(0.0, 130.0)) == plan.actions


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_fault_of_another_spec_holds_up_nothing(index: int) -> None:
    failed = fault(launch("aaaaaaaa", 1)[index], retry=Retry.NEVER, until=400.0)
    plan = Plan(launch("bbbbbbbb", 2))
    assert performable(plan, failed, NOW) == plan.actions


def test_a_container_whose_name_ends_alike_is_another() -> None:
    failed = fault(CreateTask("my-web-aaaaaaaa-1"))
    assert performable(Plan((CreateTask("web-aaaaaaaa-2"),)), failed, NOW)


def test_other_actions_are_held_up_by_their_phase() -> None:
    failed = fault(DeleteTask(WEB, "web-aaaaaaaa-1", ""))
    assert performable(Plan((DeleteTask(WEB, "web-aaaaaaaa-2", ""),)), failed, NOW) == ()


def test_a_fault_whose_phase_is_not_in_the_plan_holds_up_nothing() -> None:
    plan = Plan(launch("aaaaaaaa", 1))
    assert performable(plan, fault(DeleteTask(WEB, "web-aaaaaaaa-1", "")), NOW) == plan.actions


def test_neither_actions_nor_waits_is_settled() -> None:
    assert outcome_of(Plan(), None, NOW) == Settled()
    assert outcome_of_waits(()) == Settled()


def test_a_fault_that_another_try_may_mend_is_retried_when_its_back_off_is_over() -> None:
    action = CreateTask("web-aaaaaaaa-1")
    assert outcome_of(Plan((action,)), fault(action), NOW) == RetryAfter("CreatingFailed", "it would not", 30.0)


def test_a_fault_that_only_another_input_mends_is_blocked_with_its_hint() -> None:
    action = CreateTask("web-aaaaaaaa-1")
    outcome = outcome_of(Plan((action,)), fault(action, retry=Retry.NEVER), NOW)
    assert outcome == Blocked("CreatingFailed", "it would not", "do this")


def test_a_fault_beside_what_waits_for_a_person_tells_both_causes() -> None:
    action = CreateTask("web-aaaaaaaa-1")
    plan = Plan((action,), (Await("SwitchFailed", "the other would not either", stalled=True), Await("X", "not told")))
    outcome = outcome_of(plan, fault(action, retry=Retry.NEVER), NOW)
    assert isinstance(outcome, Blocked)
    assert outcome.message == "it would not; the other would not either"


def test_waits_for_the_outside_alone_are_blocked() -> None:
    wait = Await("SecretMissing", "no secret", stalled=True, hint="make one")
    assert outcome_of(Plan((), (wait,)), None, NOW) == Blocked("SecretMissing", "no secret", "make one")


@pytest.mark.parametrize(
    ("seconds", "earliest"), [((None,), None), ((5.0,), 5.0), ((5.0, None, 3.0), 3.0), ((None, None), None)]
)
def test_waits_end_with_the_earliest(seconds: tuple[float | None, ...], earliest: float | None) -> None:
    waits = tuple(Await(f"R{n}", f"m{n}", one) for n, one in enumerate(seconds))
    stalled = Await("S", "for the outside", 1.0, stalled=True)
    assert outcome_of_waits((stalled, *waits)) == RetryAfter("R0", "m0", earliest)


@pytest.mark.parametrize(
    ("outcome", "until", "seconds"),
    [
        (Settled(), None, None),
        (RetryAfter("R", "m", 7.0), None, 7.0),
        (RetryAfter("R", "m", None), None, None),
        (Blocked("R", "m"), None, LOOK_AGAIN),
        (Blocked("R", "m"), 130.0, 30.0),
        (Blocked("R", "m"), 90.0, LOOK_AGAIN),
    ],
)
def test_what_is_blocked_is_looked_at_again_and_never_at_once(
    outcome: Outcome, until: float | None, seconds: float | None
) -> None:
    failed = None if until is None else fault(CreateTask("web-aaaaaaaa-1"), until=until)
    assert look_again(outcome, failed, NOW) == seconds
