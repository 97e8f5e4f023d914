import pytest

from core.clock import VirtualClock
from reconciler.engine.backoff import Backoff, Convergence
from reconciler.model.identity import Key, Kind

A, B = Key(Kind.IMAGE, "a"), Key(Kind.IMAGE, "b")


def test_delays_double_up_to_five_minutes() -> None:
    backoff = Backoff(VirtualClock(), lambda: 0.5)
    assert [round(backoff.failed(A)) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.999])
def test_a_key_that_always_fails_is_tried_at_most_twenty_times_an_hour(drawn: float) -> None:
    clock = VirtualClock()
    backoff = Backoff(clock, lambda: drawn)
    tries, end = 0, clock.monotonic() + 3600
    while clock.monotonic() < end:
        clock.advance(backoff.failed(A))
        tries += 1
    assert tries <= 20


def test_success_begins_anew_and_keys_do_not_share_failures() -> None:
    backoff = Backoff(VirtualClock(), lambda: 0.5)
    backoff.failed(A)
    backoff.failed(A)
    assert backoff.failed(B) == 1.0
    backoff.succeeded(A)
    assert backoff.failures(A) == 0
    assert backoff.failed(A) == 1.0


def test_the_next_try_is_told_in_wall_time_and_does_not_move_while_it_is_waited_for() -> None:
    clock = VirtualClock(wall=5000.0)
    backoff = Backoff(clock, lambda: 0.5)
    assert backoff.next_retry_at(A) is None
    backoff.failed(A)
    assert backoff.next_retry_at(A) == 5001.0
    clock.advance(0.25)
    assert backoff.next_retry_at(A) == 5001.0
    assert backoff.remaining(A) == 0.75
    clock.advance(10)
    assert backoff.remaining(A) == 0.0


def test_the_same_step_three_times_within_a_minute_is_stuck() -> None:
    seen = Convergence()
    for now in (0.0, 29.0):
        seen.performed(A, "step", now)
        assert not seen.stuck(A, "step")
    seen.performed(A, "step", 60.0)
    assert seen.stuck(A, "step")
    assert not seen.stuck(B, "step")


def test_three_times_in_more_than_a_minute_is_drift_that_is_repaired() -> None:
    seen = Convergence()
    for now in (0.0, 31.0, 61.0, 100.0):
        seen.performed(A, "step", now)
    assert not seen.stuck(A, "step")


def test_two_steps_that_undo_each_other_are_stuck_both() -> None:
    seen = Convergence()
    for now in range(3):
        seen.performed(A, "make", float(now))
        seen.performed(A, "unmake", now + 0.5)
    assert seen.stuck(A, "make")
    assert seen.stuck(A, "unmake")


def test_other_facts_give_another_step_and_are_not_stuck() -> None:
    seen = Convergence()
    for now in range(3):
        seen.performed(A, ("attempt", now), float(now))
    assert not any(seen.stuck(A, ("attempt", now)) for now in range(4))


def test_what_is_stuck_stays_so_until_the_key_settles() -> None:
    seen = Convergence()
    for now in range(3):
        seen.performed(A, "step", float(now))
    seen.performed(A, "other", 4000.0)
    assert seen.stuck(A, "step")
    seen.settled(A)
    assert not seen.stuck(A, "step")
