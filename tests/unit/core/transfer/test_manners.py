"""How hosts that fail are treated."""

import contextlib
import threading

import pytest

from core.clock import SystemClock, VirtualClock
from core.errors import Unavailable
from core.transfer.manners import CROWD, Manners

HOST = "reg.example:443"


def asked(manners: Manners, clock: VirtualClock, *, seconds: float) -> int:
    """How many requests one who asks over and over gets through, when each one fails."""
    count, deadline = 0, clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        with contextlib.suppress(Unavailable), manners.turn(HOST):
            count += 1
            manners.failed(HOST)
    return count


def test_a_host_that_fails_is_asked_once_a_second_at_most() -> None:
    clock = VirtualClock()
    assert 2 <= asked(Manners(clock), clock, seconds=10.0) <= 11


def test_a_host_that_answers_is_asked_without_a_pause() -> None:
    clock = VirtualClock()
    manners, before = Manners(clock), clock.monotonic()
    for _ in range(50):
        with manners.turn(HOST):
            manners.answered(HOST)
    assert clock.monotonic() == before


def test_a_host_that_wants_to_be_left_alone_is_and_whoever_asks_is_told_how_long() -> None:
    clock = VirtualClock()
    manners = Manners(clock)
    manners.failed(HOST, 120.0)
    clock.advance(20.0)
    with pytest.raises(Unavailable) as caught, manners.turn(HOST):
        pass
    assert 95.0 <= caught.value.seconds <= 100.0
    clock.advance(100.0)
    with manners.turn(HOST):
        pass


def test_another_host_is_not_held_up() -> None:
    manners = Manners(VirtualClock())
    manners.failed(HOST, 300.0)
    with manners.turn("other.example:443"):
        pass


def test_a_few_only_wait_for_a_host_that_never_answers() -> None:
    manners, release, inside = Manners(SystemClock()), threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        with manners.turn(HOST):
            inside.release()
            release.wait(20)

    threads = [threading.Thread(target=wait) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=10)
    clock = VirtualClock()
    manners._clock = clock  # who comes too late does not wait in earnest
    with pytest.raises(Unavailable, match="asked again later") as caught, manners.turn(HOST):
        pass
    assert caught.value.seconds >= 1.0
    release.set()
    for thread in threads:
        thread.join(10)
    with manners.turn(HOST):
        pass


def test_many_wait_at_once_for_a_host_that_answers() -> None:
    manners = Manners(VirtualClock())
    manners.answered(HOST)
    with contextlib.ExitStack() as all_at_once:
        for _ in range(5 * CROWD):
            all_at_once.enter_context(manners.turn(HOST))
