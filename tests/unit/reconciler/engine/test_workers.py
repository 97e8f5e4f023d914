import logging
import threading

import pytest

from core.clock import SystemClock, VirtualClock
from core.errors import Unavailable
from reconciler.engine.backoff import Backoff
from reconciler.engine.queue import WorkQueue
from reconciler.engine.workers import Workers
from reconciler.model.identity import Key, Kind

A, B = Key(Kind.IMAGE, "a"), Key(Kind.IMAGE, "b")


def test_a_key_whose_work_raises_anything_is_recorded_and_retried_later() -> None:
    clock = VirtualClock()
    queue, backoff = WorkQueue(clock), Backoff(clock, lambda: 0.5)
    told: list[tuple[Key, Exception, float | None]] = []
    errors: list[Exception] = [ZeroDivisionError("a bug"), Unavailable("not now"), MemoryError()]

    def work(key: Key) -> None:
        raise errors[len(told)]

    workers = Workers(queue, work, lambda key, e: told.append((key, e, backoff.next_retry_at(key))), backoff, clock)
    for delay in (1, 2, 4):
        workers.work_on(A)
        assert told[-1][2] == clock.wall() + delay
        assert queue.next_due() == delay
        clock.advance(delay)
        assert queue.take(0) == A
        queue.done(A)
    assert [error for _, error, _ in told] == errors


def test_an_outcome_that_cannot_be_recorded_is_logged_and_the_key_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock)

    def work(key: Key) -> None:
        raise ValueError("the cause")

    def failed(key: Key, error: Exception) -> None:
        raise OSError("the disk is full")

    with caplog.at_level(logging.ERROR):
        Workers(queue, work, failed, Backoff(clock, lambda: 0.5), clock).work_on(A)
    assert queue.next_due() == 1
    assert "image/a: the cause; not recorded: the disk is full" in caplog.text


def test_stopping_finishes_what_is_in_hand_and_takes_nothing_more() -> None:
    clock = SystemClock()
    queue = WorkQueue(clock)
    begun, go_on = threading.Event(), threading.Event()
    finished: list[Key] = []

    def work(key: Key) -> None:
        begun.set()
        assert go_on.wait(10)
        finished.append(key)

    workers = Workers(queue, work, lambda key, error: None, Backoff(clock, lambda: 0.5), clock, count=1)
    queue.add(A)
    queue.add(B)
    workers.start()
    assert begun.wait(10)
    assert workers.stop(0.01) == (A,)
    go_on.set()
    assert workers.stop(10) == ()
    assert finished == [A]


def test_workers_that_never_started_stop_at_once() -> None:
    clock = VirtualClock()
    workers = Workers(WorkQueue(clock), print, print, Backoff(clock, lambda: 0.5), clock)
    assert workers.stop(10) == ()


def test_four_keys_are_worked_on_at_the_same_time() -> None:
    clock = SystemClock()
    queue = WorkQueue(clock)
    together = threading.Barrier(4, timeout=10)
    failures: list[Exception] = []
    met = threading.Semaphore(0)

    def work(key: Key) -> None:
        together.wait()
        met.release()

    workers = Workers(queue, work, lambda key, error: failures.append(error), Backoff(clock, lambda: 0.5), clock)
    for name in "abcd":
        queue.add(Key(Kind.IMAGE, name))
    workers.start()
    for _ in range(4):
        assert met.acquire(timeout=10)
    assert workers.stop(10) == ()
    assert not failures
